-- What the clients take for TLS: a real server that offers one version, and an OpenSSL that is configured to take all.
local core = require "mjhook.core"
local kit = require "kit"
local peer = require "peer"

-- The least that OpenSSL may be told to ask for.
local LAX = [[
openssl_conf = init
[init]
ssl_conf = ssl
[ssl]
system_default = lax
[lax]
MinProtocol = TLSv1
CipherString = ALL:@SECLEVEL=0
]]

local CLIENTS = {
  http = [[
    local client = assert(core.http { ca_file = CA, timeout_ms = 5000 })
    local answer = client:perform({ { url = URL } })[1]
    print(answer.status or answer.error)
  ]],
  ["http, insecure"] = [[
    local client = assert(core.http { insecure = true, timeout_ms = 5000 })
    local answer = client:perform({ { url = URL } })[1]
    print(answer.status or answer.error)
  ]],
  stream = [[
    local stream, err = core.stream { host = "localhost", port = PORT, tls = true, ca_file = CA,
      deadline_ms = core.clock() + 5000 }
    if stream then
      stream:send("GET / HTTP/1.0\r\n\r\n", core.clock() + 5000)
    end
    print(stream and stream:recv(core.clock() + 5000):match "^HTTP/1.0 (%d+)" or err.message)
  ]],
  fetch = [[
    local downloads = assert(core.fetch { dir = DIR, sub = "x", ca_file = CA, loopback = true })
    assert(downloads:add("a.part", "https://localhost:" .. PORT .. "/"))
    local _, result = downloads:next(core.clock() + 5000)
    print(result.status or result.error)
  ]],
}

describe("a client", function()
  after_each(kit.cleanup)

  local dir, certificate, port

  -- A server that speaks this version alone, and the environment for clients that would take any.
  local function serve(version)
    dir, certificate = kit.tmp(), peer.certificate()
    local server = kit.spawn(("exec env -u LD_PRELOAD openssl s_server -accept 127.0.0.1:0 -cert %s -key %s -%s "
      .. "-cipher ALL:@SECLEVEL=0 -www"):format(certificate, certificate, version))
    port = kit.wait_until(function()
      return server:out():match "ACCEPT [%d.]+:(%d+)"
    end, 20)
    kit.write(dir .. "/openssl.cnf", LAX)
  end

  local function ask(code)
    return (kit.sh(("OPENSSL_CONF=%s/openssl.cnf "):format(dir) .. kit.lua_command(([[
      local core = require "mjhook.core"
      local CA, PORT, URL, DIR = %q, %d, "https://localhost:%d/", %q
    ]]):format(certificate, port, port, dir) .. code)))
  end

  for _, version in ipairs { "tls1", "tls1_1" } do
    it("does not speak " .. version .. ", whatever openssl.cnf allows", function()
      serve(version)
      -- Another client is allowed to, so that it is ours that refuses.
      local out = kit.sh(("OPENSSL_CONF=%s/openssl.cnf env -u LD_PRELOAD openssl s_client -connect 127.0.0.1:%d "
        .. "-CAfile %s </dev/null"):format(dir, port, certificate))
      assert.matches("Protocol *: TLSv1%.?1?\n", out)
      assert.matches("Verify return code: 0", out)
      for name, code in pairs(CLIENTS) do
        local said = ask(code)
        assert.is_truthy(said:match "version" or said:match "alert" or said:match "SSL" or said:match "TLS",
          name .. ": " .. said)
        assert.is_nil(said:match "^%d+$", name)
      end
    end)
  end

  for _, version in ipairs { "tls1_2", "tls1_3" } do
    it("speaks " .. version, function()
      serve(version)
      for name, code in pairs(CLIENTS) do
        assert.equal("200", ask(code), name)
      end
    end)
  end

  it("needs no whole handshake for its next connection to a server", function()
    serve "tls1_2"
    local client = assert(core.http { ca_file = certificate, timeout_ms = 5000 })
    local said = {}
    for i = 1, 3 do -- -www closes each connection, and says what it was
      said[i] = client:perform({ { url = ("https://localhost:%d/"):format(port) } })[1].body:match "(%u%l+), TLSv1.2"
    end
    client:close()
    assert.same({ "New", "Reused", "Reused" }, said)
  end)
end)
