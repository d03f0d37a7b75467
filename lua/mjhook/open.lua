--- What mjhook.open does: from arguments to an instance with configuration, log, policy, keys and store.
local config = require "mjhook.config"
local core = require "mjhook.core"
local executor = require "mjhook.executor"
local memory = require "mjhook.memory"
local policy = require "mjhook.policy"
local stores = require "mjhook.stores"
local text = require "mjhook.text"

local function call(_, f, ...)
  return f(...)
end

local function stderr_log(level, message)
  io.stderr:write(("mjhook: %s: %s\n"):format(level, text.clean(message))) -- one write
end

-- Messages quote providers, handlers and requests: what is secret in them goes no further.
local function make_log(given)
  local log = given or stderr_log
  if type(given) == "string" or type(given) == "table" then
    log = require("mjhook.log").open(given)
  end
  return function(level, message)
    local shown, said = pcall(tostring, message)
    if shown then
      log(level, core.redact(said))
    end
  end
end

-- Arguments by which the files are loaded as they are, or not at all.
local function as_it_is(args)
  local copy = {}
  for name, value in pairs(args) do
    copy[name] = name ~= "instead" and value or nil
  end
  return copy
end

-- The policy, and from where an edited one is loaded: its own file, or the configuration in which it stands. Of that
-- one only the policy is taken over.
local function open_policy(self, args)
  local function log(...)
    self.log(...)
  end
  local settings = self.config
  local loaded, err = policy.load(settings.policy, log)
  if not loaded and args.instead and not err.retryable then
    -- It was edited while nginx runs, and is broken: this one begins with what the others have at work.
    loaded = policy.load(settings.policy, log, { instead = args.instead })
    if loaded then
      log("warn", config.from_before("the policy", err))
    end
  end
  local inside = type(settings.policy) == "table" and args.policy == nil
  local path = type(settings.policy) == "string" and settings.policy or inside and settings.config_file
  if loaded and path then
    loaded:watch(path, function()
      local now, wrong = settings, nil
      if inside then
        now, wrong = config.resolve(as_it_is(args))
      end
      if not now then
        return nil, wrong
      end
      return policy.load(now.policy, log)
    end)
  end
  return loaded, err
end

--- Opens a store with its configuration and policy.
-- @tparam table|nil args of mjhook.open
-- @tparam table class metatable of the instance
-- @treturn table|nil the instance; nil and an error
return function(args, class)
  local settings, err = config.resolve(args)
  if not settings then
    return nil, err
  end
  local self = setmetatable({
    config = settings, log = make_log(settings.log),
    stopping = core.overdue, -- gets how many requests are in the air, if some may be
    land = call,             -- calls what sends: land(mj, f, ...)
  }, class)
  for _, note in ipairs(settings.notes) do
    self.log("warn", note)
  end
  self.policy, err = open_policy(self, args or {})
  if not self.policy then
    return nil, err
  end
  if settings.secrets and #settings.secrets > 0 then
    self.keyring, err = core.keyring(settings.secrets)
    if not self.keyring then
      return nil, memory.is_out(err) and err or core.error("config", "secrets: " .. err.message)
    end
  end
  local there, why = true, nil
  if args and args.create == false then
    there, why = stores.exists(settings)
  end
  if not there and why.code == "not_found" then -- only if that is certain; otherwise opening it says what is wrong
    return nil, core.error("absent", ("store: there is none in %s; the first submit makes it"):format(settings.store))
  elseif not there and stores.scheme(settings.store) then -- a database that can't be asked: once is enough
    return nil, why
  end
  self.exec, err = (args and args.executor or executor.direct)(settings)
  if not self.exec then
    return nil, err
  end
  self.store = self.exec.store
  return self
end
