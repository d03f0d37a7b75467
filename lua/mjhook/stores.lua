--- A store by its name in the configuration: a directory, which is LMDB's and built in, or the URL of a database. The
-- scheme of a URL names the module that has the database's backend: mjhook.store_<scheme>.
local core = require "mjhook.core"

local M = {}

local SAME = { postgresql = "postgres" }
local PACKAGE = { postgres = "mjhook-postgresql (with LuaRocks: luarocks install mjhook-postgresql)" }

--- The scheme of a URL; nil for a directory.
function M.scheme(where)
  local scheme = where:match "^(%l[%l%d+.-]*)://"
  return SAME[scheme] or scheme
end

local function unescaped(text)
  return (text:gsub("%%(%x%x)", function(hex)
    return string.char(tonumber(hex, 16))
  end))
end

--- A store's name as it may be shown, and the passwords that were in it. What is not escaped in a URL as it should be
-- is taken for a part of the password rather than shown.
-- @tparam string where as in the configuration
-- @treturn string the name without passwords
-- @treturn table list of the passwords, as they stand there and as they are meant
function M.public(where)
  local passwords = {}
  if not M.scheme(where) then
    return where, passwords
  end
  local function hidden(password)
    passwords[#passwords + 1] = password
    passwords[#passwords + 1] = unescaped(password)
    return "***"
  end
  local query = where:match "^[^?]*@[^?]*(%?.*)$" or where:match "^[^@]*(%?[^@]*)$" or ""
  local head = where:sub(1, #where - #query):gsub("^(%l[%w+.-]*://[^:@/]*:)(.*)@", function(before, password)
    return before .. hidden(password) .. "@"
  end)
  local shown = (head .. query):gsub("([?&][%w_]*password=)([^&]*)", function(name, password)
    return name .. hidden(password)
  end)
  return shown, passwords
end

--- Why this name of a store may not stand on a command line, where all users of the machine see it; nil: it may.
function M.unfit_for_argument(where)
  if #select(2, M.public(where)) > 0 then
    return "all users of this machine can see a password here: put it into ~/.pgpass, a service file or PGPASSWORD, or "
      .. "the URL into MJHOOK_STORE or the configuration"
  end
end

local function not_there(scheme)
  local why
  if PACKAGE[scheme] then
    why = ("the module mjhook.store_%s is not installed: install %s"):format(scheme, PACKAGE[scheme])
  else
    why = ("a directory or postgresql://... expected: there is no module for %s://"):format(scheme)
  end
  return nil, core.error("config", "store: " .. why)
end

--- The module of a store's database.
-- @tparam string where as in the configuration
-- @treturn table|false|nil the module; false for a directory; nil and an error
function M.module(where)
  local scheme = M.scheme(where)
  if not scheme then
    return false
  end
  local name = "mjhook.store_" .. scheme
  local ok, module = pcall(require, name)
  if ok then
    return module
  elseif tostring(module):find(("module '%s' not found"):format(name), 1, true) then
    return not_there(scheme)
  end
  return nil, core.error("config", ("store: the module %s can't be loaded: %s"):format(name, tostring(module)))
end

--- The backend of a store.
-- @tparam string where as in the configuration
-- @treturn userdata|false|nil the backend; false for a directory, whose backend core.open() has; nil and an error
function M.backend(where)
  local module, err = M.module(where)
  if not module then
    return module, err
  end
  return module.backend
end

--- Options of mjhook.core.open() for a configuration.
function M.options(config)
  return {
    schema = config.store_schema,
    mode = config.store_mode,
    map_max = config.map_max,
    poll_first = config.poll.first,
    poll_max = config.poll.max,
    learn = config.poll.learn,
    polled = not config.hook_url, -- no callback can come
    lost_after = config.lost_after,
    grace = config.ambiguous_grace,
    accounts = config.accounts,
  }
end

--- Whether a configuration's store is there.
-- @treturn boolean|nil true; nil and an error: "not_found" when there is provably none, else why it can't be looked at
function M.exists(config)
  local backend, err = M.backend(config.store)
  if backend == nil then
    return nil, err
  end
  local options = M.options(config)
  options.backend = backend or nil
  return core.exists(config.store_url or config.store, options)
end

--- Opens a configuration's store, and makes it when it is not there.
-- @tparam table config
-- @tparam[opt] boolean no_wait for a handle that an event loop uses
-- @treturn userdata|nil the store; nil and an error
function M.open(config, no_wait)
  local backend, err = M.backend(config.store)
  if backend == nil then
    return nil, err
  end
  local options = M.options(config)
  options.backend, options.no_wait = backend or nil, no_wait
  return core.open(config.store_url or config.store, options)
end

return M
