-- The operator's tool as a program: on this Lua, with the settings of the current test in its environment.
local kit = require "kit"

local cli = { PROGRAM = kit.root .. "/scripts/mjhook" }

-- Shell words: the environment, and the program.
local function words(more)
  local settings = kit.settings()
  local environment = {
    MJHOOK_STORE = settings.store, MJHOOK_STORE_SCHEMA = settings.store_schema,
    MIDJOURNEY_API_KEY = kit.KEY, MIDJOURNEY_API_BASE_URL = settings.base_url,
    TERM = "xterm", TZ = "UTC", MJHOOK_BUILD = kit.build, HOME = os.getenv "HOME" or "/",
  }
  for name, value in pairs(more or {}) do
    environment[name] = value
  end
  local out = { kit.bare }
  for name, value in pairs(environment) do
    out[#out + 1] = value and ("%s=%s"):format(name, kit.quote(value)) or nil
  end
  out[#out + 1] = kit.lua .. " " .. kit.quote(cli.PROGRAM)
  return table.concat(out, " ")
end

--- Runs shell text in which `mjhook` is the program. Gives {code=, out=, err=}.
-- @tparam string script
-- @tparam[opt] table environment variables, beside those that name the test's store and provider; false: without it
function cli.shell(script, environment)
  local dir = kit.tmp()
  kit.write(dir .. "/run", ("mjhook() { %s \"$@\"; }\ncd %s\n%s\n"):format(words(environment), kit.quote(dir), script))
  local _, code = kit.sh(("bash %s/run </dev/null >%s/out 2>%s/err"):format(dir, dir, dir))
  return { code = code, out = kit.read(dir .. "/out"), err = kit.read(dir .. "/err"), dir = dir }
end

--- Runs the program with these arguments.
function cli.run(arguments, environment)
  local quoted = {}
  for i, argument in ipairs(arguments) do
    quoted[i] = kit.quote(argument)
  end
  return cli.shell("mjhook " .. table.concat(quoted, " "), environment)
end

--- What shell text in which `mjhook` is the program writes to a terminal of so many columns, and its exit code.
function cli.terminal(columns, script, environment)
  local dir = kit.tmp()
  kit.write(dir .. "/run", ("stty cols %d\nmjhook() { %s \"$@\"; }\n%s\n"):format(columns, words(environment), script))
  local out, code = kit.sh(("script -qec 'bash %s/run' /dev/null </dev/null"):format(dir))
  return out:gsub("\r\n", "\n"):gsub("\r$", ""), code
end

return cli
