--- mjhook(1): from a command line to an exit code.
local catalog = require "mjhook.cli.catalog"
local fail = require "mjhook.cli.fail"
local help = require "mjhook.cli.help"
local options = require "mjhook.cli.options"
local stores = require "mjhook.stores"
local text = require "mjhook.cli.text"

-- The text that help prints.
local function help_text(command, values, arguments)
  if command == catalog.HELP then
    if #arguments > 1 then
      fail.stop(fail.USAGE, "help takes one command", "")
    elseif values.completion then
      return require("mjhook.cli.completion")[values.completion]()
    end
    command = arguments[1] and arguments[1] ~= "help" and catalog.command(arguments[1]) or nil
  end
  return command and help.command(command) or help.general()
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

local function say(...)
  io.stderr:write("mjhook: ", text.clean(table.concat { ... }), "\n")
end

local function open(command, values)
  local mjhook = require "mjhook"
  local settings = { config = values.config, store = values.store }
  if not command.needs_policy then
    settings.policy = {}
  end
  settings.create = command.makes_store or false -- a mistyped directory must not become a new, empty store
  local mj, err = mjhook.open(settings)
  if not mj and command.needs_policy == "decisions" and err.code == "config" and err.message:find "^policy: " then
    say(err.message, "; this command goes on without the policy, and decides as if there were none")
    settings.policy = {}
    mj, err = mjhook.open(settings)
  end
  if not mj and err.code == "absent" then
    local place = err.message:match "^store: there is none in ([^;]*)"
    fail.stop(fail.CONFIG, ("store: none at %s: name another with --store, or `mjhook submit` a first job")
      :format(place))
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
  require("mjhook.core").begin_program() -- before anything else is opened
  local values, command, arguments = options.parse(argv, catalog.GLOBAL, catalog.command)
  if values.help or command == catalog.HELP then
    require("mjhook.cli.output").print(help_text(command, values, arguments))
    return fail.DONE
  elseif values.version then
    print_version()
    return fail.DONE
  elseif not command then
    io.stderr:write(help.general())
    return fail.USAGE
  end
  check_arguments(command, values, arguments)
  return perform(command, values, arguments)
end

-- A message may quote any word of the command line. The URL of a store, wherever it stands, is shown without password.
local function without_passwords(message, argv)
  for _, word in ipairs(argv) do
    local url = word:match "%l[%w+.-]*://.*"
    local shown = url and stores.public(url)
    if shown ~= url then
      message = message:gsub(url:gsub("%p", "%%%0"), (shown:gsub("%%", "%%%%")))
    end
  end
  return message
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
      say(without_passwords(result.message, argv))
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
