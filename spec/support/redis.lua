-- A real redis-server on a random loopback port, in a directory that is gone after the test.
local cjson = require "cjson"
local kit = require "kit"
local socket = require "socket"

local redis = {}
local Redis = {}
Redis.__index = Redis

local function free_port()
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  server:close()
  return port
end

--- Starts one.
-- @tparam[opt] table lines of its configuration; `tls`: the directory with ca.pem, server.pem and server.key, then the
-- port speaks TLS only
function redis.start(lines, tls)
  local self = setmetatable({ dir = kit.tmp(), port = free_port(), lines = lines or {}, tls = tls }, Redis)
  return self:start()
end

function Redis:start()
  local conf = {
    ("%s %d"):format(self.tls and "tls-port" or "port", self.port), "bind 127.0.0.1", "dir " .. self.dir,
    "unixsocket " .. self.dir .. "/sock", 'save ""', "enable-debug-command yes",
  }
  if self.tls then
    conf[#conf + 1] = "port 0"
    conf[#conf + 1] = ("tls-ca-cert-file %s/ca.pem"):format(self.tls)
    conf[#conf + 1] = ("tls-cert-file %s/server.pem"):format(self.tls)
    conf[#conf + 1] = ("tls-key-file %s/server.key"):format(self.tls)
  end
  for _, line in ipairs(self.lines) do
    conf[#conf + 1] = line
  end
  kit.write(self.dir .. "/redis.conf", table.concat(conf, "\n") .. "\n")
  self.process = kit.spawn(("exec redis-server %s/redis.conf"):format(self.dir))
  kit.wait_until(function()
    assert(not self.process:status(), self.process:out())
    local answer = self:cli "PING"
    return answer:find "PONG" or answer:find "NOAUTH"
  end, 20)
  return self
end

function Redis:stop()
  self.process:kill "TERM"
  self.process:wait()
end

--- What redis-cli says to a command, by way of the Unix socket.
function Redis:cli(command, more)
  return (kit.sh(("%s redis-cli -s %s/sock %s"):format(more or "", self.dir, command)))
end

--- The entries of a stream, oldest first, each a table of its fields; `task` decoded.
function Redis:entries(stream, more, db)
  local list = {}
  for i, entry in ipairs(cjson.decode(self:cli(("-n %d --json XRANGE %s - +"):format(db or 0, stream), more))) do
    local fields = {}
    for k = 1, #entry[2], 2 do
      fields[entry[2][k]] = entry[2][k + 1]
    end
    fields.task = fields.task and cjson.decode(fields.task)
    list[i] = fields
  end
  return list
end

--- The connections that it has over TCP or TLS now: their ids, which it gives but once.
function Redis:clients(more)
  local ids = {}
  for id in self:cli("CLIENT LIST", more):gmatch "id=(%d+) addr=127%.0%.0%.1:" do
    ids[#ids + 1] = id
  end
  return ids
end

return redis
