-- An HTTPS server of images that misbehaves as the URL asks (images.py says how), and its certificates.
local cjson = require "cjson"
local kit = require "kit"

local images = {}
local Images = {}
Images.__index = Images

local function certificates(dir)
  for _, name in ipairs { "ca", "img.localhost", "other.localhost" } do
    local out, code = kit.sh(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 60 "
      .. "-keyout %s.key -out %s.pem -subj /CN=%s %s"):format(dir, name, name, name, name == "ca" and ""
      or "-CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:" .. name
      .. " -addext basicConstraints=critical,CA:FALSE"))
    assert(code == 0, out)
  end
end

--- Starts one for https://img.localhost; it is ended with the test.
-- @tparam[opt] string name whose certificate it shows (img.localhost)
function images.start(name)
  local self = setmetatable({ dir = kit.tmp() }, Images)
  certificates(self.dir)
  name = name or "img.localhost"
  self.process = kit.spawn(("exec python3 %s %s %s/%s.pem %s/%s.key"):format(
    kit.quote(kit.root .. "/spec/support/images.py"), self.dir, self.dir, name, self.dir, name))
  self.port = kit.wait_until(function()
    return tonumber((kit.read(self.dir .. "/port") or ""):match "%d+")
  end, 20)
  return self
end

--- A URL of it.
function Images:url(path)
  return ("https://img.localhost:%d/%s"):format(self.port, path)
end

--- Settings for the archive: its certificate, and that it listens on loopback.
function Images:settings(more)
  local settings = {
    dir = self.dir .. "/kept", ca_file = self.dir .. "/ca.pem", loopback = true,
  }
  for name, value in pairs(more or {}) do
    settings[name] = value
  end
  return settings
end

--- The requests that have been answered: {path=, headers=, sent=}.
function Images:requests()
  local list = {}
  for line in (kit.read(self.dir .. "/requests") or ""):gmatch "[^\n]+" do
    list[#list + 1] = cjson.decode(line)
  end
  return list
end

--- Waits until that many are.
function Images:wait_requests(count)
  return kit.wait_until(function()
    local list = self:requests()
    return #list >= count and list
  end)
end

return images
