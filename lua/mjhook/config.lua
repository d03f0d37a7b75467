--- Configuration: argument > file > environment > default, each key checked by name.
local beside = require "mjhook.beside"
local core = require "mjhook.core"
local keys = require "mjhook.config.keys"
local memory = require "mjhook.memory"
local paths = require "mjhook.config.paths"
local stores = require "mjhook.stores"

local KEYS, fail, absolute = keys.KEYS, keys.fail, paths.absolute

local M = {}

local P = core.provider

local MAX_ACCOUNTS = 64 -- src/store/store.h
local MAX_SECRETS = 16  -- src/auth/token.c
local DEFAULT_FILE = "/etc/mjhook/config.lua"

local ENVIRONMENT = {
  [P.environment.api_key] = "api_key",
  [P.environment.base_url] = "base_url",
  [P.environment.hook_url] = "hook_url",
  MJHOOK_STORE = "store",
  MJHOOK_STORE_SCHEMA = "store_schema",
  MJHOOK_SECRET = "secrets",
}

-- Two names of one thing: the source that counts first decides, by either name.
local SAME = {
  api_key = { "api_key_file", "accounts" }, api_key_file = { "api_key", "accounts" },
  accounts = { "api_key", "api_key_file" },
  secrets = { "secrets_file" }, secrets_file = { "secrets" },
}

-- What can't be read now may be readable later, without a change by a person: that is no fault of the configuration.
local function refuse(key, err)
  if err.retryable then
    error(err, 0)
  end
  fail(key, "%s", err.message)
end

-- Only of the environment: a file is read alike by all programs, but each way to set a variable keeps or drops these.
local function environment_secret(v)
  if v:find "^\239\187\191" or v:find "[\r\n]" or v:find "^%s" or v:find "%s$" or v:find "^([\"'`]).*%1$" then
    fail("secrets (from the environment)", "quotes, blanks, a line break or a byte order mark around the secret: a "
      .. "program that is given it without them would refuse the callbacks that this one signs")
  end
end

local function check_url(config, key)
  local url = config[key]
  if not url then
    return
  end
  local scheme, host = url:match "^(https?)://([^/?#]+)"
  if not scheme or url:find "[^!-~]" or host:find "@" then
    fail(key, "an https URL expected")
  end
  local name = host:match "^%[(.-)%]" or host:match "^[^:]+"
  local loopback = name == "localhost" or core.address(name or "") == "loopback"
  if scheme == "http" and not loopback and not config.allow_insecure then
    fail(key, "https expected; http only to a loopback address or with allow_insecure")
  end
end

-- A pattern for a part of a path, however many slashes are written.
local function pattern(part)
  return (part:lower():gsub("%p", "%%%0"):gsub("%%/", "/+"))
end

-- Requests go to base_url and a path of their own behind it: what is there already, or would stand before it, misleads
-- every one of them.
local function check_base_url(config)
  local url = config.base_url
  if url:find "[?#]" then
    fail("base_url", "it can't have a ? or #: requests add their path to it; expected is something like %s",
      url:match "^[^?#]*")
  end
  local host, path = url:match "^(https?://[^/]+)(.*)$"
  local folder, submit = P.path.submit:match "^(.*)(/.*)$"
  local last, status = folder:match "/[^/]*$", P.path.status:match "/[^/]*$"
  path = path:lower()
  local head = path:match("^(.-)" .. pattern(folder) .. "/*[%w-]*/*$") or path:match("^(.-)" .. pattern(last) .. "/*$")
    or path:match("^(.-)" .. pattern(submit) .. "/*$") or path:match("^(.-)" .. pattern(status) .. "/*$")
  if head then
    fail("base_url", "requests add %s/... to it: leave that out, %s is enough", folder, host .. url:sub(#host + 1,
      #host + #head))
  end
end

local MAX_SECRET_FILE = 65536

local function read_private(key, path)
  local content, err = core.read_file(path, "secret", MAX_SECRET_FILE)
  return content or refuse(key, err)
end

-- What an editor leaves around a key in a file is mended, and noted; a quote is not, since it may be meant.
local function read_key_file(key, path, notes)
  local content = read_private(key, path)
  local value = content:gsub("^\239\187\191", ""):match "^%s*(%S+)%s*$"
  if not value then
    fail(key, "%s should hold one API key and nothing else", path)
  elseif content ~= value and content ~= value .. "\n" then
    notes[#notes + 1] = ("%s: %s has blanks, a carriage return or a byte order mark around the key: they were left out")
      :format(key, path)
  end
  KEYS.api_key(("%s: %s"):format(key, path), value)
  return value
end

local function load_file(path, instead)
  local ok, config = beside.load(path, { instead = instead })
  if not ok then
    refuse(nil, config)
  elseif type(config) ~= "table" then
    fail(nil, "%s should return a table", path)
  end
  return config
end

-- Whether a configuration file is itself a thing to keep secret.
local function holds_keys(file)
  for _, a in ipairs(type(file.accounts) == "table" and file.accounts or {}) do
    if type(a) == "table" and a.api_key then
      return true
    end
  end
  local password = type(file.proxy) == "string" and file.proxy:find("@", 1, true) ~= nil
  password = password or type(file.store) == "string" and #select(2, stores.public(file.store)) > 0
  return file.api_key ~= nil or file.secrets ~= nil or password
end

local function check_known(source, from)
  for key in pairs(source) do
    if not KEYS[key] then
      fail(tostring(key), "unknown key%s%s", from, keys.nearest(key, KEYS))
    end
  end
end

local function normalize_mode(config)
  local mode = config.store_mode
  if type(mode) == "string" and mode:match "^0?[0-7][0-7][0-7]$" then
    config.store_mode = tonumber(mode, 8)
  end
end

-- Read here, since libcurl would tell of a bad one with each request, and only then. Its writer decides which servers
-- are believed.
local function read_authorities(config)
  if not config.ca_file then
    return
  end
  config.ca_file = absolute("ca_file", config.ca_file)
  local content, err = core.read_file(config.ca_file, "code")
  if not content then
    refuse("ca_file", err)
  elseif not content:find "%-%-%-%-%-BEGIN [%u ]*CERTIFICATE%-%-%-%-%-" then
    fail("ca_file", "%s holds no certificate: PEM expected (-----BEGIN CERTIFICATE-----)", config.ca_file)
  end
end

local function check_store(config)
  if not config.store then
    fail("store", "not set: name the store's directory (argument, config file or MJHOOK_STORE)")
  elseif not stores.scheme(config.store) then
    absolute("store", config.store)
    return
  end
  -- What a message or a person sees of it; only what opens it sees the URL.
  local shown, passwords = stores.public(config.store)
  config.store, config.store_url = shown, config.store
  for _, password in ipairs(passwords) do
    core.hide(password)
  end
end

local function complete(config)
  read_authorities(config)
  local policy, log = config.policy, config.log
  config.policy = type(policy) == "string" and absolute("policy", policy) or policy
  if type(log) == "table" then
    config.log = { path = absolute("log.path", log.path), format = log.format, level = log.level }
  elseif type(log) == "string" then
    config.log = absolute("log", log)
  end
  if type(config.policy) == "string" then
    local readable, err = core.read_file(config.policy, "code")
    if not readable and err.code ~= "not_found" then -- a missing one is an error where it is loaded
      refuse("policy", err)
    end
  end
  local poll = config.poll or {}
  local first = config.hook_url and 60 or 15 -- without callbacks there is none to wait for
  config.poll = { first = poll.first or first, max = poll.max or 900, learn = poll.learn ~= false }
  if config.poll.max < config.poll.first then
    fail("poll.max", "at least poll.first (%s) expected", config.poll.first)
  end
  config.retention = config.retention or {}
  for _, key in ipairs { "api_key_file", "secrets_file" } do
    config[key] = config[key] and absolute(key, config[key])
  end
  if config.api_key_file and not config.api_key then
    config.api_key = read_key_file("api_key_file", config.api_key_file, config.notes)
  end
  if config.secrets_file and not config.secrets then
    config.secrets = {}
    for line in read_private("secrets_file", config.secrets_file):gmatch "[^\r\n]+" do
      config.secrets[#config.secrets + 1] = line
    end
    if #config.secrets == 0 then
      fail("secrets_file", "%s should hold secrets, one a line", config.secrets_file)
    end
    KEYS.secrets("secrets_file", config.secrets)
  end
  if config.secrets and #config.secrets > MAX_SECRETS then
    fail(config.secrets_file and "secrets_file" or "secrets", "at most %d secrets expected, got %d", MAX_SECRETS,
      #config.secrets)
  end
  local accounts = {}
  if config.accounts and (#config.accounts == 0 or #config.accounts > MAX_ACCOUNTS) then
    fail("accounts", "1 to %d accounts expected, got %d", MAX_ACCOUNTS, #config.accounts)
  end
  for i, a in ipairs(config.accounts or { { name = "default", api_key = config.api_key } }) do
    local key = a.api_key
    if a.api_key_file and not key then
      key = read_key_file("accounts.api_key_file", absolute("accounts.api_key_file", a.api_key_file),
        config.notes)
    end
    accounts[i] = { name = a.name, api_key = key, max_in_flight = a.max_in_flight or config.max_in_flight }
    for k = 1, i - 1 do
      if accounts[k].name == a.name then
        fail("accounts", "the name %q is there twice", a.name)
      end
    end
  end
  config.accounts = accounts
  config.base_url = config.base_url:gsub("/+$", "")
end

-- What a provider or a proxy may quote, and what is never to be repeated.
local function hide(config)
  for _, a in ipairs(config.accounts) do
    core.hide(a.api_key or "")
  end
  for _, one in ipairs(config.secrets or {}) do
    core.hide(one)
  end
  local password = (config.proxy or ""):match "^%w+://[^@/]*:([^@/]+)@"
  if password then
    core.hide(password)
    core.hide((password:gsub("%%(%x%x)", function(hex)
      return string.char(tonumber(hex, 16))
    end)))
  end
end

-- Lays a source over what lesser ones said.
local function lay_over(config, source)
  for key in pairs(source) do
    for _, other in ipairs(SAME[key] or {}) do
      config[other] = nil
    end
  end
  for key, value in pairs(source) do
    config[key] = value
  end
end

local function resolve(args, instead)
  local config = { notes = {} }
  for k, v in pairs(keys.DEFAULTS) do
    config[k] = v
  end
  local from = {} -- the environment's values
  for name, key in pairs(ENVIRONMENT) do
    local value = os.getenv(name)
    if value and value ~= "" then
      config[key] = key == "secrets" and { value } or value
      from[key] = config[key]
    end
  end
  local named = os.getenv "MJHOOK_CONFIG"
  local path = args.config or (named ~= "" and named or nil)
  if not path and core.stat(DEFAULT_FILE) then
    path = DEFAULT_FILE
  end
  local given = {}
  for k, v in pairs(args) do
    if k ~= "config" and k ~= "executor" and k ~= "create" and k ~= "instead" then
      given[k] = v
    end
  end
  check_known(given, "")
  if path then
    path = paths.anywhere(path)
    local file = load_file(path, instead)
    check_known(file, " in " .. path)
    lay_over(config, paths.anchor(file, path))
    config.config_file = path
    config.keys_inside = holds_keys(file)
  end
  lay_over(config, given)
  normalize_mode(config)
  for key, check in pairs(KEYS) do
    if config[key] ~= nil then
      check(from[key] == config[key] and key == "api_key" and "api_key (from the environment)" or key, config[key])
    end
  end
  if config.secrets and config.secrets == from.secrets then
    environment_secret(config.secrets[1])
  end
  check_url(config, "base_url")
  check_base_url(config)
  check_url(config, "hook_url")
  complete(config)
  check_store(config)
  hide(config)
  return config
end

local function attempt(args, instead)
  local ok, config = pcall(resolve, args, instead)
  if ok then
    return config
  end
  if type(config) == "table" and config.code then
    return nil, config
  elseif memory.is_out(config) then
    return nil, memory.OUT
  end
  return nil, core.error("config", tostring(config))
end

--- The complete configuration; `notes` in it are sentences for the log.
-- @tparam table args keys of mjhook-config(5); `config`, the path of a file; `instead`: what was loaded of that file
-- before, for when it is broken now (see mjhook.beside)
-- @treturn table|nil config, or nil and an error with code "config" that names the key
function M.resolve(args)
  args = args or {}
  local config, err = attempt(args)
  if not config and args.instead and not err.retryable then
    config = attempt(args, args.instead)
    if config then
      table.insert(config.notes, M.from_before("the configuration", err))
    end
  end
  return config, not config and err or nil
end

--- What is said when a file is broken, and what was loaded of it before is at work.
function M.from_before(what, err)
  return ("%s can't be loaded, so what it was before is at work: %s"):format(what, err.message)
end

return M
