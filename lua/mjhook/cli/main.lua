--- mjhook(1): from a command line to an exit code.
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"
local suggest = require "mjhook.suggest"
local text = require "mjhook.cli.text"

-- In the order of the help. Each is a module mjhook.cli.<name>, a table:
--   name, arguments, summary, details   for the help
--   options                             see mjhook.cli.options
--   least, most, too_many               how many arguments, and what to say when there are more
--   check(values, arguments)            may be there: what else there is to find fault with, before a store is opened
--   dash                                what to add about words that begin with a dash
--   makes_store                         the store need not be there yet
--   opens_nothing                       it gets no mj: it is about what keeps one from being opened; or a function of
--                                       values that says whether
--   needs_policy                        the policy is loaded; otherwise a broken one keeps nobody from looking
--   run(mj, values, arguments, out)     gives the exit code, nothing for 0; ends early through mjhook.cli.fail
local COMMANDS = {
  "submit", "get", "list", "watch", "refresh", "cancel", "resubmit", "events", "kick", "bury", "replay", "refused",
  "readmit", "stats", "metrics", "prune", "check", "backup", "restore", "migrate", "copy", "policy", "doctor",
}

local GLOBAL = {
  { name = "config", short = "c", arg = "FILE", read = options.text,
    help = "configuration (else $MJHOOK_CONFIG, else /etc/mjhook/config.lua)" },
  { name = "store", arg = "DIR", help = "the store, instead of the configuration's", read = options.store },
  { name = "json", help = "print JSON" },
  { name = "help", short = "h", help = "print help" },
  { name = "version", help = "print the version" },
}

local function load_command(name)
  for _, known in ipairs(COMMANDS) do
    if known == name then
      return require("mjhook.cli.commands." .. name)
    end
  end
  fail.stop(fail.USAGE, ('unknown command "%s"%s'):format(name, suggest(name, COMMANDS)), "")
end

local function option_help(list)
  local lines = {}
  for _, option in ipairs(list) do
    local written = (option.short and "-" .. option.short .. ", " or "") .. "--" .. option.name ..
      (option.arg and " " .. option.arg or "")
    lines[#lines + 1] = "  " .. text.pad(written, 20) .. "  " .. option.help
  end
  return table.concat(lines, "\n")
end

local function synopsis(command)
  local given = #command.options > 0 and " [options]" or ""
  return "mjhook " .. command.name .. given .. (command.arguments ~= "" and " " .. command.arguments or "")
end

local function command_help(command)
  local own = #command.options > 0 and "\n" .. option_help(command.options) .. "\n" or ""
  local details = command.details ~= "" and command.details .. "\n" or ""
  return ("usage: %s\nTo %s.\n%s%s\n%s\n"):format(synopsis(command), command.summary, details, own, option_help(GLOBAL))
end

local function general_help()
  local lines = { "usage: mjhook [-c FILE] [--store DIR] [--json] COMMAND ...",
                  "The operator's tool of mjhook: Midjourney API jobs, made dependable.", "" }
  for _, name in ipairs(COMMANDS) do
    lines[#lines + 1] = "  " .. text.pad(name, 20) .. "  " .. load_command(name).summary
  end
  lines[#lines + 1] = "  " .. text.pad("help [COMMAND]", 20) .. "  say more about a command"
  lines[#lines + 1] = "\n" .. option_help(GLOBAL) .. "\n"
  lines[#lines + 1] = "exit: 0 done, 1 what was asked for failed, 64 usage, 73 cannot write, 75 busy, 78 configuration"
  lines[#lines + 1] = ""
  return table.concat(lines, "\n")
end

local HELP = { name = "help", options = {} }

local function help_text(command, arguments)
  if command == HELP then
    if #arguments > 1 then
      fail.stop(fail.USAGE, "help takes one command", "")
    end
    command = arguments[1] and arguments[1] ~= "help" and load_command(arguments[1]) or nil
  end
  return command and command_help(command) or general_help()
end

local function check_arguments(command, values, arguments)
  if #arguments < command.least then
    fail.stop(fail.USAGE, ("%s: %s expected"):format(command.name, command.arguments), command.name)
  elseif #arguments > command.most then
    fail.stop(fail.USAGE, ('unexpected argument "%s": %s'):format(arguments[command.most + 1], command.too_many),
      command.name)
  end
  for _, argument in ipairs(arguments) do
    if argument == "" then
      fail.stop(fail.USAGE, ("%s: an argument is empty"):format(command.name), command.name)
    end
  end
  if command.check then
    command.check(values, arguments)
  end
end

local function open(command, values)
  local mjhook = require "mjhook"
  local settings = { config = values.config, store = values.store }
  if not command.needs_policy then
    settings.policy = {}
  end
  settings.create = command.makes_store or false -- a mistyped directory must not become a new, empty store
  local mj, err = mjhook.open(settings)
  if not mj and err.code == "absent" then
    fail.stop(fail.CONFIG, err.message:match "^[^;]*" .. ": name another with --store, or `mjhook submit` a first job")
  elseif not mj then
    fail.with(err)
  end
  return mj
end

local function perform(command, values, arguments)
  local out = require("mjhook.cli.output").new(values)
  local without = command.opens_nothing
  if type(without) == "function" then
    without = without(values)
  end
  local mj = not without and open(command, values) or nil
  local ok, exit = pcall(command.run, mj, values, arguments, out)
  if mj then
    mj:close()
  end
  if not ok then
    pcall(out.finish) -- what was found before it failed
    error(exit, 0)
  end
  out.finish()
  return exit or fail.DONE
end

local function print_version()
  local core = require "mjhook.core"
  local lua = jit and jit.version or _VERSION
  require("mjhook.cli.output").print(("mjhook %s (store schema %d, %s)\n"):format(core.version, core.schema, lua))
end

local function dispatch(argv)
  require("mjhook.core").standard_files() -- before anything else is opened
  local values, command, arguments = options.parse(argv, GLOBAL, function(name)
    return name == "help" and HELP or load_command(name)
  end)
  if values.help or command == HELP then
    require("mjhook.cli.output").print(help_text(command, arguments))
    return fail.DONE
  elseif values.version then
    print_version()
    return fail.DONE
  elseif not command then
    io.stderr:write(general_help())
    return fail.USAGE
  end
  check_arguments(command, values, arguments)
  return perform(command, values, arguments)
end

local function say(...)
  io.stderr:write("mjhook: ", text.clean(table.concat { ... }), "\n")
end

--- Runs a command line.
-- @tparam table argv
-- @treturn number the exit code
return function(argv)
  local ok, result = xpcall(function()
    return dispatch(argv)
  end, function(err)
    return type(err) == "table" and err or { trace = debug.traceback(tostring(err), 2) }
  end)
  if ok then
    return result
  elseif not result.trace then
    if result.message then
      say(result.message)
    end
    if result.command then
      io.stderr:write(("usage: see `mjhook help%s`\n"):format(result.command ~= "" and " " .. result.command or ""))
    end
    return result.exit or fail.exit(result.code)
  elseif result.trace:find "interrupted!" then
    return 130
  end
  local first, second = result.trace:match "^([^\n]*)\n%s*([^\n]*)"
  if first:find "module '[%w_.]+'" then
    say(first:match "module '[%w_.]+'.*", " ", second)
    say "run `make`, or install it again; lua-cjson for this Lua is needed, too"
    return fail.CONFIG
  end
  say("this is a bug, please report it: ", first)
  if os.getenv "MJHOOK_DEBUG" then
    io.stderr:write(text.clean(result.trace, true), "\n")
  end
  return fail.FAILED
end
