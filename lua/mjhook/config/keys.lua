--- The configuration's keys, each with its check.
local cidr = require "mjhook.cidr"
local core = require "mjhook.core"

local M = {}

local DAY = 86400

--- Raises an error that names the key (nil: none is to blame).
function M.fail(key, text, ...)
  error(core.error("config", (key and key .. ": " or "") .. text:format(...)), 0)
end

local fail = M.fail

-- Checkers: each gets the key and the value and fails by name.

local function of(wanted)
  return function(key, v)
    if type(v) ~= wanted then
      fail(key, "%s expected, got %s", wanted, type(v))
    end
  end
end

local function number(low, high, what)
  return function(key, v)
    if type(v) ~= "number" or v ~= v or v < low or v > high then
      fail(key, "a number from %s to %s expected (%s)", low, high, what)
    end
  end
end

local function count(low, high, what)
  return function(key, v)
    if type(v) ~= "number" or not (v >= low and v <= high) or v % 1 ~= 0 then
      fail(key, "a whole number from %s to %s expected (%s)", low, high, what)
    end
  end
end

local function text(key, v)
  if type(v) ~= "string" or v == "" or v:find("[%z\r\n]") then
    fail(key, "a line of text expected")
  end
end

local function list(item)
  return function(key, v)
    if type(v) ~= "table" then
      fail(key, "list expected, got %s", type(v))
    end
    local n = 0
    for _ in pairs(v) do
      n = n + 1
    end
    for i = 1, n do
      if v[i] == nil then
        fail(key, "a list expected: its entries have no names")
      end
      item(("%s[%d]"):format(key, i), v[i])
    end
  end
end

local function one_of(...)
  local allowed = { ... }
  return function(key, v)
    for _, a in ipairs(allowed) do
      if v == a then
        return
      end
    end
    fail(key, '"%s" expected', table.concat(allowed, '" or "'))
  end
end

--- ': did you mean "..."?' when a key is near; otherwise nothing.
function M.nearest(name, known)
  return require "mjhook.suggest"(name, known)
end

local function record(fields)
  return function(key, v)
    if type(v) ~= "table" then
      fail(key, "table expected, got %s", type(v))
    end
    for name, value in pairs(v) do
      local check = fields[name]
      if not check then
        fail(key .. "." .. tostring(name), "unknown key%s", M.nearest(name, fields))
      end
      check(key .. "." .. name, value)
    end
  end
end

local function secret(key, v)
  if type(v) ~= "string" or #v < 16 then
    fail(key, "a secret needs at least 16 bytes")
  end
end

local function range(key, v)
  if type(v) ~= "string" or not cidr.is_range(v) then
    fail(key, "an address or a range such as 192.0.2.0/24 or 2001:db8::/32 expected")
  end
end

-- What is wrong is not quoted: there may be a password in it.
local function proxy(key, v)
  local scheme, authority = tostring(v):match "^(%w+)://([^/?#%s%c]+)/?$"
  local port = authority and tonumber(authority:match ":(%d+)$")
  local host = authority and authority:gsub(":%d+$", ""):match "[^@]*$" or ""
  if type(v) ~= "string" or not ({ http = 1, https = 1, socks5 = 1, socks5h = 1 })[scheme] or not port
    or port < 1 or port > 65535 or not (host:match "^[%w.-]+$" or host:match "^%[[%x:.]+%]$") then
    fail(key, "a URL such as http://proxy.example:3128 expected: http, https, socks5 or socks5h, a host and its port, "
      .. "before the host user:password@ if the proxy wants them (%%-encoded), and no path")
  end
end

-- What comes along when a key is copied, or is written to a file that expects quotes. It would be sent, and refused.
local ODD = {
  { "^\239\187\191", "begins with a byte order mark" },
  { "^[\"'`]", "begins with a quote" }, { "[\"'`]$", "ends with a quote" },
  { "\r", "holds a carriage return" }, { "\n", "holds a line break" },
  { "^%s", "begins with a blank" }, { "%s$", "ends with a blank" }, { "%s", "holds a blank" },
  { "[^!-~]", "holds other characters than printable ASCII" },
}

local function api_key(key, v)
  if type(v) ~= "string" or v == "" then
    fail(key, "a line of text expected")
  end
  for _, odd in ipairs(ODD) do
    if v:find(odd[1]) then
      fail(key, "the key %s: one API key expected and nothing else", odd[2])
    end
  end
end

local function account(key, v)
  record({ name = text, api_key = api_key, api_key_file = text, max_in_flight = count(0, 1000, "slots") })(key, v)
  if not v.name or #v.name > core.max_name then
    fail(key .. ".name", "a name of 1 to %d bytes expected", core.max_name)
  end
end

-- What is wrong is not quoted: there may be a password in it.
local function store(key, v)
  if type(v) ~= "string" or v == "" or v:find "[%z\r\n]" or v:find "^%l[%w+.-]*://" and v:find "[^!-~]" then
    fail(key, "a directory, or a URL such as postgresql://user@host/database, expected")
  end
end

-- A name that PostgreSQL takes without quotes, and keeps as it is.
local function schema(key, v)
  if type(v) ~= "string" or #v > 63 or not v:find "^[%l_][%l%d_]*$" or v:find "^pg_" then
    fail(key, "the name of a schema expected: a to z, 0 to 9 and _, not with pg_ in front")
  end
end

local log_file = record {
  path = text, format = one_of("logfmt", "json"), level = one_of("info", "notice", "warn", "error"),
}

local seconds = number(-1, 3650 * DAY, "seconds")

--- Key = check(key, value), which raises when the value is wrong.
M.KEYS = {
  store = store,
  store_schema = schema,
  store_mode = function(key, v) -- Lua has no octal numbers: usually given as text
    if v ~= 384 and v ~= 432 then
      fail(key, '"0600" or "0660" expected')
    end
  end,
  map_max = count(2 ^ 20, 2 ^ 47, "bytes"),
  api_key = api_key,
  api_key_file = text,
  accounts = list(account),
  base_url = text,
  proxy = proxy,
  ca_file = text,
  hook_url = text,
  secrets = list(secret),
  secrets_file = text,
  max_in_flight = count(1, 1000, "slots"),
  batch = count(1, 1000, "task ids in a request"),
  connections = count(1, 256, "connections"),
  poll = record { first = number(1, DAY, "seconds"), max = number(1, 7 * DAY, "seconds"), learn = of "boolean" },
  lost_after = number(1, 365 * DAY, "seconds"),
  ambiguous_grace = number(0, 30 * DAY, "seconds"),
  trust = one_of("payload", "verify"),
  allow_unsigned = of "boolean",
  allow_cidr = list(range),
  trusted_proxies = list(range),
  max_body = count(1024, 2 ^ 26, "bytes"),
  queue_max = count(1, 2 ^ 24, "waiting callbacks"),
  key_ttl = number(0, 3650 * DAY, "seconds"),
  retention = record { succeeded = seconds, failed = seconds, lost = seconds, cancelled = seconds },
  handler_timeout = number(0.01, DAY, "seconds"),
  handlers = count(1, 64, "processes"),
  allow_insecure = of "boolean",
  policy = function(key, v)
    if type(v) ~= "table" and type(v) ~= "string" then
      fail(key, "a table of functions or the path of a Lua file expected, got %s", type(v))
    end
  end,
  log = function(key, v)
    if type(v) == "table" then
      log_file(key, v)
      text(key .. ".path", v.path)
    elseif type(v) == "string" then
      text(key, v)
    elseif type(v) ~= "function" then
      fail(key, "a function, the path of a file or a table expected, got %s", type(v))
    end
  end,
}

M.DEFAULTS = {
  store_schema = "mjhook",
  store_mode = 384,
  base_url = core.provider.base_url,
  max_in_flight = core.provider.jobs,
  batch = 50,
  connections = 8,
  lost_after = DAY,
  ambiguous_grace = 300,
  trust = "payload",
  allow_unsigned = false,
  max_body = 2 ^ 20,
  queue_max = 8192,
  key_ttl = 180 * DAY,
  handler_timeout = 60, handlers = 4,
  allow_insecure = false,
}

return M
