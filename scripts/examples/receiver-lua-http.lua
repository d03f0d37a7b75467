#!/usr/bin/env luajit
-- Receives the provider's callbacks on lua-http, where there is neither nginx with Lua nor a server for CGI programs.
--
--   MJHOOK_CONFIG=/etc/mjhook/config.lua luajit receiver-lua-http.lua [ADDRESS [PORT]]    (127.0.0.1 8787)
--
-- It runs as the user that owns the store, and speaks plain HTTP: a proxy in front of it does the TLS, and
-- trusted_proxies names that proxy if allow_cidr is to look beyond it.
--
-- It is one thread, and commits in it: while the disk writes, no other request is answered.  A request that waits for
-- bytes delays no other.  For thousands of callbacks a second take nginx with Lua, which commits beside its loop.
--
-- Debian 12 has lua-http for LuaJIT, and of what Lua 5.4 needs all but the path:
--   LUA_PATH_5_4=";;/usr/share/lua/5.3/?.lua;/usr/share/lua/5.1/?.lua" lua5.4 receiver-lua-http.lua

-- A relative name there would load what lies in the working directory.
for _, name in ipairs { "path", "cpath" } do
  package[name] = (";" .. package[name]):gsub(";[^/;][^;]*", "")
end

local callback = require "mjhook.callback"
local condition = require "cqueues.condition"
local cqueues = require "cqueues"
local errno = require "cqueues.errno"
local h1 = require "http.h1_connection"
local http_headers = require "http.headers"
local http_server = require "http.server"
local mjhook = require "mjhook"
local signal = require "cqueues.signal"
local clean = require("mjhook.text").clean

local ADDRESS, PORT = arg[1] or "127.0.0.1", tonumber(arg[2] or 8787)
local MAX_CONNECTIONS = 256
local HEAD_S, BODY_S, WRITE_S = 5, 5, 5 -- to send a head, to send a body, to take the answer
local LINGER_S, LINGER_BYTES = 1, 2 ^ 20
local BAD_REQUEST = "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

local mj = assert(mjhook.open())
local busy, idle, stopping = 0, condition.new(), false

local function complain(why) -- never with the request's line, which carries a token
  io.stderr:write("receiver: ", clean(tostring(why):match "^[^\n]*"), "\n")
end

local function left(deadline)
  return math.max(0, deadline - cqueues.monotime())
end

-- lua-http gathers a whole chunk, which may claim to be of 4 GiB, before it hands it out: look at its size first.
local read_chunk = h1.methods.read_body_chunk
function h1.methods:read_body_chunk(timeout)
  local deadline = cqueues.monotime() + (timeout or 0)
  local line, err, code = self.socket:xread("*L", timeout)
  if not line then
    return nil, err, code
  end
  self.socket:unget(line)
  if tonumber(line:match "^%x+" or "0", 16) > mj.config.max_body then
    return nil, errno.strerror(errno.E2BIG), errno.E2BIG
  end
  return read_chunk(self, left(deadline))
end

local function refusal(status, word)
  return { status = status, headers = { ["Content-Type"] = "application/json" },
           body = ('{"status":"%s"}\n'):format(word) }
end

local function unavailable()
  local reply = refusal(503, "unavailable")
  reply.headers["Retry-After"] = "5"
  return reply
end

-- The body; or nil and a refusal.
local function read_body(stream)
  local parts, size, deadline = {}, 0, cqueues.monotime() + BODY_S
  while true do
    local chunk, _, code = stream:get_next_chunk(left(deadline))
    if not chunk then
      if stream.state == "half closed (remote)" then -- the client said all that it meant to say
        return table.concat(parts)
      elseif code == errno.E2BIG then
        return nil, refusal(413, "too_large")
      elseif code == errno.ETIMEDOUT then
        return nil, refusal(408, "timeout")
      end
      return nil, refusal(400, "incomplete")
    end
    size = size + #chunk
    if size > mj.config.max_body then
      return nil, refusal(413, "too_large")
    end
    parts[#parts + 1] = chunk
  end
end

local function answer(stream, headers)
  local encoding, length = headers:get_comma_separated "transfer-encoding", headers:get_comma_separated "content-length"
  local _, peer = stream:peername()
  local refused, how, ref, attempt = callback.precheck(mj, {
    method = headers:get ":method", uri = headers:get ":path", peer = peer,
    forwarded = headers:get_comma_separated "x-forwarded-for",
    length = tonumber(length),
  })
  if refused then
    return refused
  elseif length and (encoding or not length:match "^%d+$") then
    return refusal(400, "bad_length") -- negative, there twice, or one that a proxy may have read otherwise
  elseif encoding and encoding:lower() ~= "chunked" then
    return refusal(501, "unknown_encoding") -- what unpacks to a gigabyte stays packed
  elseif headers:has "expect" and stream.peer_version > 1 then
    stream:write_continue(WRITE_S)
  end
  local body, bad = read_body(stream)
  return bad or callback.accept(mj, body, how, ref, attempt)
end

local function send(stream, reply, method)
  local headers = http_headers.new()
  headers:append(":status", tostring(reply.status))
  for name, value in pairs(reply.headers) do
    headers:append(name:lower(), value)
  end
  headers:append("content-length", tostring(#reply.body))
  headers:append("connection", "close") -- one request each: nothing idle is in the way of a stop
  local bare = method == "HEAD"
  if stream:write_headers(headers, bare, WRITE_S) and not bare then
    stream:write_chunk(reply.body, true, WRITE_S)
  end
end

-- Ends the connection. Closing over unread bytes would reset it, and the client might not see the answer, so they
-- are read away first. lua-http's own way to end reads on as if the request were sound: one with a bad length or
-- encoding would make it raise, or loop for ever.
local function drop(stream)
  local socket, deadline, bytes = stream.connection.socket, cqueues.monotime() + LINGER_S, 0
  if stream.state == "closed" or not socket then
    return
  end
  socket:shutdown "w"
  while bytes < LINGER_BYTES do
    local got = socket:xread(-2 ^ 16, left(deadline))
    if not got then
      break
    end
    bytes = bytes + #got
  end
  socket:shutdown "rw"
  stream:set_state "closed"
end

local function on_stream(_, stream)
  busy = busy + 1
  local ok, headers = pcall(stream.get_headers, stream, HEAD_S)
  if ok and headers then
    local reply
    ok, reply = pcall(answer, stream, headers)
    if not ok then
      complain(reply)
      reply = unavailable()
    end
    pcall(send, stream, reply, headers:get ":method")
  elseif stream.connection.socket then -- no head, half a one, or one that lua-http can't make sense of
    pcall(stream.connection.socket.xwrite, stream.connection.socket, BAD_REQUEST, "bn", WRITE_S)
  end
  pcall(drop, stream)
  busy = busy - 1
  idle:signal()
end

local server = assert(http_server.listen {
  host = ADDRESS, port = PORT, tls = false, version = 1.1, max_concurrent = MAX_CONNECTIONS, reuseaddr = true,
  intra_stream_timeout = HEAD_S, onstream = on_stream,
  onerror = function(_, _, doing, why)
    if doing == "accept" then -- the rest is what clients do
      complain(doing .. ": " .. tostring(why))
    end
  end,
})
assert(server:listen())

-- SIGTERM: no new connections; what has begun is answered, which HEAD_S, BODY_S and WRITE_S bound; then the end.
signal.block(signal.SIGTERM, signal.SIGINT)
server.cq:wrap(function()
  signal.listen(signal.SIGTERM, signal.SIGINT):wait()
  local socket = server.socket
  server.socket = nil
  server:resume() -- wakes its loop, which finds no socket and ends
  cqueues.poll()
  cqueues.cancel(socket)
  socket:close()
  while busy > 0 do
    idle:wait()
  end
  stopping = true
end)

local _, address, port = server:localname()
print(("listening on %s port %d"):format(address, port))
io.stdout:flush()
while not stopping do
  local ok, why = server:step()
  if not ok then
    complain(why) -- of one connection; the others go on
  end
end
mj:close()
