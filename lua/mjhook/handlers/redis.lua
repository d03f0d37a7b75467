--- Appends events to a Redis stream, for several workers.
---
---     on_event = require "mjhook.handlers.redis" { url = "rediss://mjhook@redis.example:6380/0" }
---
--- The password may come from the URL, from `password`, from `password_file` or from the environment's
--- MJHOOK_REDIS_PASSWORD. A password over redis:// (without TLS) can be read on its way.
---
--- An entry has the fields `event_id`, `type` ("succeeded", "failed", "lost", "ambiguous"), `ref` and `task`: JSON with
--- the fields that the guide "Policies and handlers" lists.
---
--- Delivery is at least once: an entry whose answer was lost is added again, under the same event_id. A consumer that
--- must not do a thing twice stores the id in the transaction of its work, or asks Redis before it begins:
---
---     SET mjhook:seen:<event_id> <worker> NX EX 86400    -- nil: another worker has it; XACK and continue
---
--- and deletes that key if it fails. `maxlen` also drops entries that no consumer has read: leave room for the longest
--- outage of your workers, or trim by XTRIM MINID behind the slowest group.
---
--- Errors about Redis or the access to it (loading, read only, out of memory, wrong password ...) are tried again.
--- Errors about the command (the key holds no stream, no such database ...) would come again: the event is buried. Each
--- handler has one connection in each process, which is made again when it is dead.

local core = require "mjhook.core"
local event = require "mjhook.handlers.event"
local resp = require "mjhook.handlers.resp"
local settings = require "mjhook.handlers.settings"

local KNOWN = {
  url = "string", stream = "string", maxlen = "number", timeout = "number", password = "string",
  password_file = "string", ca_file = "string", cert_file = "string", key_file = "string",
}
local TIMEOUT_S = 10
local ENVIRONMENT = "MJHOOK_REDIS_PASSWORD"
local NEVER = { bury = true }

-- ---- settings ----

local function unescape(text)
  return (text:gsub("%%(%x%x)", function(digits)
    return string.char(tonumber(digits, 16))
  end))
end

local function read_url(url)
  local scheme, authority, path = (url or "redis://"):match "^(rediss?)://([^/?#]*)/?([^?#]*)$"
  if not scheme then
    return nil, "url: redis://[user[:password]@]host[:port][/db] expected, or rediss://"
  end
  local login, place = authority:match "^(.*)@(.-)$"
  local host, port = (place or authority):match "^%[([%x:.]+)%]:?(%d*)$"
  if not host then
    host, port = (place or authority):match "^([^:%[%]]*):?(%d*)$"
  end
  local db = path == "" and 0 or path:find "^%d+$" and #path <= 6 and tonumber(path)
  port = port == "" and 6379 or tonumber(port)
  if not host or host == "" or host:find "[^%w%-%._:]" or not port or port < 1 or port > 65535 then
    return nil, "url: a host and a port from 1 to 65535 expected"
  elseif not db then
    return nil, "url: the number of a database expected behind the host"
  end
  local user, password = (login or ""):match "^([^:]*):?(.*)$"
  return {
    tls = scheme == "rediss", host = host, port = port, db = db,
    user = user ~= "" and unescape(user) or nil, password = password ~= "" and unescape(password) or nil,
  }
end

local function find_password(given, target)
  local n = (target.password and 1 or 0) + (given.password and 1 or 0) + (given.password_file and 1 or 0)
  if n > 1 then
    return nil, "password: in the url, as password or as password_file: one of them, please"
  end
  target.password = target.password or given.password
  if given.password_file then
    local lines, why = settings.private_lines("password_file", given.password_file)
    if not lines then
      return nil, why
    elseif #lines > 1 then
      return nil, ("password_file: one line expected in %s, got %d"):format(given.password_file, #lines)
    end
    target.password = lines[1]
  end
  local environment = os.getenv(ENVIRONMENT)
  if not target.password and environment and environment ~= "" then
    target.password = environment
  end
  core.hide(target.password or "")
  if target.user and not target.password then
    return nil, "password: there is a user in url, and no password"
  end
  return target
end

local function read(given)
  local ok, why = settings.check(given, KNOWN)
  if not ok then
    return nil, why
  end
  ok, why = settings.seconds("timeout", given.timeout)
  if not ok then
    return nil, why
  end
  if given.maxlen and not (given.maxlen >= 1 and given.maxlen <= 2 ^ 53 and given.maxlen % 1 == 0) then
    return nil, "maxlen: a whole number from 1 expected"
  end
  local target
  target, why = read_url(given.url)
  if not target then
    return nil, why
  end
  target.stream, target.maxlen = given.stream or "mjhook:events", given.maxlen
  target.timeout = given.timeout or TIMEOUT_S
  target.ca_file, target.cert_file, target.key_file = given.ca_file, given.cert_file, given.key_file
  if (target.ca_file or target.cert_file or target.key_file) and not target.tls then
    return nil, "ca_file, cert_file, key_file: these are for rediss://"
  end
  for name, kind in pairs { ca_file = "code", cert_file = "code", key_file = "secret" } do
    ok, why = settings.trusted(name, given[name], kind)
    if not ok then
      return nil, why
    end
  end
  target.name = ("redis %s:%d"):format(target.host, target.port)
  return find_password(given, target)
end

-- ---- what its errors mean ----

-- Redis' answer to a connection that has not logged in, when its command has more than ten words, as XADD has.
local UNAUTHENTICATED = "^ERR Protocol error: unauthenticated"

-- About the command or its data: the same command gets the same answer. Beside the code, texts of Redis 5 to 7.
local HOPELESS = {
  "^WRONGTYPE", "^ERR unknown command", "^ERR wrong number of arguments", "^ERR syntax error", "^ERR Protocol error",
  "^ERR DB index is out of range", "^ERR invalid DB index", "^ERR SELECT is not allowed in cluster mode",
  "^ERR The stream has exhausted", "^ERR value is not an integer",
}

-- By code, or by text where the code is only ERR.
local HINTS = {
  { "^WRONGTYPE", "another kind of value has the stream's name" },
  { "^READONLY", "this is a replica, which takes no writes" },
  { "^NOAUTH", "it wants a password" },
  { UNAUTHENTICATED, "it wants a password" },
  { "^WRONGPASS", "it refuses user or password" },
  { "^ERR invalid password", "it refuses the password" },
  { "^ERR.*without any password", "no password is set there" },
  { "^ERR.*no password is set", "no password is set there" },
  { "^ERR wrong number of arguments for 'auth'", "before Redis 6 there are no users" },
  { "^ERR max number of clients", "it has too many clients" },
  { "^ERR unknown command", "streams came with Redis 5" },
  { "^DENIED", "it is in protected mode" },
  { "^NOPERM", "this user may not do that: it needs +xadd, and +select for another database than 0" },
  { "^OOM", "its memory is full (maxmemory)" },
  { "^LOADING", "it still loads its data" },
  { "^MISCONF", "it can't save to its disk and takes no writes" },
  { "^MOVED", "another node of the cluster holds the stream: name that one" },
}

local function hint(text)
  for _, known in ipairs(HINTS) do
    if text:find(known[1]) then
      return (" (%s)"):format(known[2])
    end
  end
  return ""
end

-- Errors after which this connection would go on failing, be it with a server that has become well.
local STUCK = { READONLY = true, NOAUTH = true, NOPERM = true, MASTERDOWN = true, MOVED = true, ERR = true }

-- A server may repeat what it was sent, and so a password: then, and of any answer to AUTH, nothing is told but one of
-- these codes.
local CODES = {
  ERR = true, WRONGPASS = true, NOAUTH = true, NOPERM = true, DENIED = true, LOADING = true, BUSY = true, OOM = true,
  MASTERDOWN = true, MISCONF = true, READONLY = true, WRONGTYPE = true,
}

local function explain(target, text, secret)
  local code, shown = text:match "^%u+", text:gsub("[^ -~]", " "):sub(1, 160)
  if secret or not shown:find "%S" or (target.password and text:find(target.password, 1, true)) then
    shown = CODES[code] and code or "an error"
  end
  return code, shown .. hint(text)
end

local function refused(target, what, text, secret)
  local code, shown = explain(target, text, secret)
  local hopeless = false
  if not secret and not text:find(UNAUTHENTICATED) then -- those are about our access
    for _, pattern in ipairs(HOPELESS) do
      hopeless = hopeless or text:find(pattern) ~= nil
    end
  end
  return { reason = ("%s: %s: %s"):format(target.name, what, shown), bury = hopeless, stuck = STUCK[code or ""] }
end

local function broken(target, why)
  return { reason = ("%s: %s"):format(target.name, why), stuck = true }
end

-- ---- the connection ----

local function close(target)
  if target.stream_open then
    target.stream_open:close()
    target.stream_open = nil
  end
end

-- mj_stream's texts begin with host and port, which stand before all of ours.
local function without_place(message)
  return (message:gsub("^%S+:%d+: ", ""))
end

-- The next reply. The time is looked at here, too: a server that sends a byte now and then is never waited for.
local function receive(target, deadline)
  local reader = target.reader
  while true do
    local reply, why = reader:next()
    if reply then
      return reply
    elseif why then
      return nil, broken(target, "its answer is not Redis': " .. why)
    elseif core.clock() >= deadline then
      return nil, broken(target, "no answer in time")
    end
    local bytes, err = target.stream_open:recv(deadline)
    if not bytes then
      return nil, broken(target, without_place(err.message) .. ", before it answered")
    end
    reader:feed(bytes)
  end
end

-- AUTH or SELECT, whose only good answer is OK.
local function expect_ok(target, what, deadline, secret)
  local reply, failure = receive(target, deadline)
  if not reply then
    return nil, failure
  elseif reply.kind == "error" then
    return nil, refused(target, what, reply.value, secret)
  elseif reply.kind ~= "status" or reply.value ~= "OK" then
    return nil, broken(target, ("its answer to %s is not Redis'"):format(what))
  end
  return true
end

-- Both at once; XADD only when both went well, or it would go to the wrong database.
local function introduce(target, deadline)
  local commands = ""
  if target.password then
    commands = target.user and resp.command("AUTH", target.user, target.password)
      or resp.command("AUTH", target.password)
  end
  if target.db ~= 0 then
    commands = commands .. resp.command("SELECT", ("%d"):format(target.db))
  end
  if commands == "" then
    return true
  end
  local sent, err = target.stream_open:send(commands, deadline)
  if not sent then
    return nil, broken(target, without_place(err.message))
  end
  local ok, failure = true, nil
  if target.password then
    ok, failure = expect_ok(target, "AUTH", deadline, true)
  end
  if ok and target.db ~= 0 then
    ok, failure = expect_ok(target, ("SELECT %d"):format(target.db), deadline)
  end
  return ok, failure
end

local function connect(target, deadline)
  local err
  target.reader = resp.reader()
  target.stream_open, err = core.stream {
    host = target.host, port = target.port, tls = target.tls, ca_file = target.ca_file, cert_file = target.cert_file,
    key_file = target.key_file, deadline_ms = deadline,
  }
  if not target.stream_open then
    return nil, broken(target, without_place(err.message))
  end
  return introduce(target, deadline)
end

-- Ends a kept connection that the server has closed since (a restart, its timeout), or that says something unasked:
-- nothing was sent on it yet, so another does as well.
local function check(target)
  if target.stream_open and (target.stream_open:recv(0) ~= "" or not target.reader:empty()) then
    close(target)
  end
end

-- ---- the event ----

local function xadd(target, task, ctx, json)
  local words = { "XADD", target.stream }
  if target.maxlen then
    words[3], words[4], words[5] = "MAXLEN", "~", ("%.0f"):format(target.maxlen)
  end
  words[#words + 1] = "*"
  for _, word in ipairs { "event_id", ctx.event_id, "type", ctx.type, "ref", task.ref, "task", json } do
    words[#words + 1] = word
  end
  return resp.command((unpack or table.unpack)(words))
end

-- Nothing when it is in the stream, else why not.
local function append(target, command, deadline)
  check(target)
  if not target.stream_open then
    local ok, failure = connect(target, deadline)
    if not ok then
      failure.stuck = true -- half introduced
      return failure
    end
  end
  local sent, err = target.stream_open:send(command, deadline)
  if not sent then
    return broken(target, without_place(err.message))
  end
  local reply, failure = receive(target, deadline)
  if not reply then
    return failure
  elseif reply.kind == "error" then
    return refused(target, "XADD", reply.value)
  elseif reply.kind ~= "bulk" or not reply.value:find "^%d+%-%d+$" then
    return broken(target, "its answer to XADD is not Redis'")
  end
end

---@param given mjhook.handlers.RedisSettings
---@return mjhook.Handler
return function(given)
  local target, why = read(given)
  if not target then
    error("mjhook.handlers.redis: " .. why, 2)
  end
  return function(task, ctx)
    local json, bad = event.json(task, ctx)
    if not json then
      return false, target.name .. ": the task can't be written as JSON: " .. bad, NEVER
    end
    local failure = append(target, xadd(target, task, ctx, json), event.deadline(ctx, target.timeout))
    if not failure then
      return true
    end
    if failure.stuck then
      close(target)
    end
    return false, failure.reason, failure.bury and NEVER or nil
  end
end
