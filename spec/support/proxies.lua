-- A real proxy on a loopback port: proxy.py says what it does.
local cjson = require "cjson"
local kit = require "kit"

local proxies = {}
local Proxy = {}
Proxy.__index = Proxy

--- Starts one; it is ended with the test.
-- @tparam table hosts by "name:port" the port on loopback where that is
-- @tparam[opt] string password "user:password" that it wants
function proxies.start(hosts, password)
  local self = setmetatable({ dir = kit.tmp() }, Proxy)
  kit.write(self.dir .. "/hosts", cjson.encode(hosts))
  kit.spawn(("exec python3 %s %s %s"):format(kit.quote(kit.root .. "/spec/support/proxy.py"), self.dir, password or ""))
  self.port = kit.wait_until(function()
    return tonumber((kit.read(self.dir .. "/port") or ""):match "%d+")
  end, 20)
  self.url = "http://127.0.0.1:" .. self.port
  return self
end

--- The requests that were made of it: {line=, headers=}.
function Proxy:requests()
  local list = {}
  for line in (kit.read(self.dir .. "/requests") or ""):gmatch "[^\n]+" do
    list[#list + 1] = cjson.decode(line)
  end
  return list
end

return proxies
