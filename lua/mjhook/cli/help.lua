--- Help: all commands in groups, with an example of each, or one command.
local catalog = require "mjhook.cli.catalog"
local text = require "mjhook.cli.text"

local M = {}

local ROOM = 20

local function option_help(list)
  local lines = {}
  for _, option in ipairs(list) do
    local written = (option.short and "-" .. option.short .. ", " or "") .. "--" .. option.name ..
      (option.arg and " " .. option.arg or "")
    lines[#lines + 1] = "  " .. text.pad(written, ROOM) .. "  " .. option.help
  end
  return table.concat(lines, "\n")
end

local function synopsis(command)
  local given = #command.options > 0 and " [options]" or ""
  return "mjhook " .. command.name .. given .. (command.arguments ~= "" and " " .. command.arguments or "")
end

--- About one command.
function M.command(command)
  local own = #command.options > 0 and "\n" .. option_help(command.options) .. "\n" or ""
  local details = command.details ~= "" and command.details .. "\n" or ""
  return ("usage: %s\nTo %s.\n%s\n  %s\n%s\n%s\n"):format(synopsis(command), command.summary, details, command.example,
    own, option_help(catalog.GLOBAL))
end

--- About everything.
function M.general()
  local lines = { "usage: mjhook [-c FILE] [--store DIR] [--json] COMMAND ...",
                  "The operator's tool of mjhook: Midjourney API jobs, made dependable." }
  local function add(command)
    lines[#lines + 1] = "  " .. text.pad(command.name, ROOM) .. "  " .. command.summary
    lines[#lines + 1] = (" "):rep(ROOM + 4) .. "$ " .. command.example
  end
  for _, group in ipairs(catalog.GROUPS) do
    lines[#lines + 1] = "\n" .. group[1] .. ":"
    for i = 2, #group do
      add(catalog.command(group[i]))
    end
  end
  lines[#lines + 1] = "\nHelp:"
  add(catalog.HELP)
  lines[#lines + 1] = "\n" .. option_help(catalog.GLOBAL) .. "\n"
  lines[#lines + 1] = "exit: 0 done, 1 what was asked for failed, 64 usage, 73 cannot write, 75 busy, 78 configuration"
  lines[#lines + 1] = ""
  return table.concat(lines, "\n")
end

return M
