-- A server on a loopback port that does to its connections what a test says: see peer.py for the steps.
local cjson = require "cjson"
local kit = require "kit"

local peer = {}
local Peer = {}
Peer.__index = Peer

--- Starts one; it is ended with the test.
-- @tparam table script a list of steps for each connection in turn, the last for all that follow
-- @tparam[opt] string certificate path of one, with its key behind it, for TLS: see peer.certificate
function peer.start(script, certificate)
  local self = setmetatable({ dir = kit.tmp() }, Peer)
  kit.write(self.dir .. "/script", cjson.encode(script))
  self.process = kit.spawn(("exec python3 %s %s %s"):format(kit.quote(kit.root .. "/spec/support/peer.py"), self.dir,
    certificate and certificate .. " " .. certificate or ""))
  self.port = kit.wait_until(function()
    return tonumber((kit.read(self.dir .. "/port") or ""):match "%d+")
  end, 20)
  self.url = (certificate and "https://localhost:" or "http://127.0.0.1:") .. self.port
  return self
end

local function http_steps(...)
  local steps = {}
  for _, answer in ipairs { ... } do
    steps[#steps + 1] = { "http" }
    steps[#steps + 1] = { "send", answer }
  end
  local last = select("#", ...)
  for _ = 1, 20 do
    steps[#steps + 1] = { "http" }
    steps[#steps + 1] = { "send", (select(last, ...)) }
  end
  return steps
end

--- One that answers every HTTP request on its connection in turn, the last for all that follow.
function peer.http(...)
  return peer.start { http_steps(...) }
end

--- The same over TLS.
function peer.https(certificate, ...)
  return peer.start({ http_steps(...) }, certificate)
end

--- The path of a certificate for localhost that nobody vouches for but itself, with its key.
function peer.certificate()
  local dir = kit.tmp()
  local out, code = kit.sh(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
    .. "-keyout key -out cert -subj /CN=localhost -addext subjectAltName=DNS:localhost && cat cert key >pair.pem && "
    .. "chmod 600 pair.pem"):format(dir))
  assert(code == 0, out)
  return dir .. "/pair.pem"
end

--- What arrived so far: {connection=, text=}.
function Peer:received()
  local list = {}
  for line in (kit.read(self.dir .. "/received") or ""):gmatch "[^\n]+" do
    local got = cjson.decode(line)
    -- each character was a byte
    got.text = got.text:gsub("[\194\195][\128-\191]", function(c)
      return string.char((c:byte(1) - 192) * 64 + c:byte(2) - 128)
    end)
    list[#list + 1] = got
  end
  return list
end

--- Waits until it has closed that many connections.
function Peer:wait_closed(count)
  kit.wait_until(function()
    return select(2, (kit.read(self.dir .. "/closed") or ""):gsub("\n", "")) >= count
  end)
end

return peer
