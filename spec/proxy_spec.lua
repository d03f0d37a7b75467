-- The configuration keys proxy and ca_file: requests to the provider by a real proxy, and to one whose certificate only
-- a private authority vouches for.
local config = require "mjhook.config"
local core = require "mjhook.core"
local doctor = require "mjhook.doctor"
local kit = require "kit"
local mjhook = require "mjhook"
local peer = require "peer"
local proxies = require "proxies"

local ACCEPTED = '{"status":0,"message":"success","data":{"taskId":"T1"}}'

local function answer(body)
  return ("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body)
end

local function open(more)
  local mj = assert(mjhook.open(kit.settings(more)))
  kit.finally(function()
    mj:close()
  end)
  return mj
end

describe("requests to the provider", function()
  after_each(kit.cleanup)

  it("go through the proxy, by a tunnel, and it hears neither key nor prompt", function()
    local certificate = peer.certificate()
    local provider = peer.https(certificate, answer(ACCEPTED))
    local proxy = proxies.start { ["localhost:" .. provider.port] = provider.port }
    local mj = open { base_url = provider.url, proxy = proxy.url, ca_file = certificate }
    local task = assert(mj:submit { prompt = "a secret fox" })
    assert.equal("pending", task.state, tostring(task.error))
    assert.equal("T1", task.task_id)
    local asked = proxy:requests()
    assert.equal(1, #asked)
    assert.equal(("CONNECT localhost:%d HTTP/1.1"):format(provider.port), asked[1].line)
    assert.is_nil(asked[1].headers["api-key"])
    assert.is_nil(asked[1].headers["content-type"])
    assert.matches("API%-KEY: test%-key", provider:received()[1].text)
    assert.is_nil(provider:received()[1].text:lower():match "proxy")
    assert(mj:submit { prompt = "another" })
    assert.equal(1, #proxy:requests()) -- the tunnel is kept
  end)

  it("go through it also where there is no TLS", function()
    local provider = peer.http(answer(ACCEPTED))
    local proxy = proxies.start { ["127.0.0.1:" .. provider.port] = provider.port }
    local task = assert(open { base_url = provider.url, proxy = proxy.url }:submit { prompt = "a fox" })
    assert.equal("pending", task.state, tostring(task.error))
    assert.equal(("POST %s/midjourney/v1/submit-jobs HTTP/1.1"):format(provider.url), proxy:requests()[1].line)
  end)

  it("take the proxy's user and password from its URL, and show them to it alone", function()
    local certificate = peer.certificate()
    local provider = peer.https(certificate, answer(ACCEPTED))
    local proxy = proxies.start({ ["localhost:" .. provider.port] = provider.port }, "me:very.s3cret")
    local function settings(password)
      return { base_url = provider.url, ca_file = certificate,
               proxy = ("http://me:%s@127.0.0.1:%d"):format(password, proxy.port) }
    end
    assert.equal("pending", assert(open(settings "very%2es3cret"):submit { prompt = "a" }).state)
    assert.is_nil(provider:received()[1].text:lower():match "authorization")
    local task = assert(open(settings "wr0ng"):submit { prompt = "b" })
    assert.equal("queued", task.state)
    assert.equal("not_sent", task.error.code)
    assert.matches("407", task.error.message)
    for _, said in ipairs { "not with very.s3cret", "not with very%2es3cret" } do -- what a proxy may quote
      assert.equal("not with [redacted]", core.redact(said))
    end
    assert.is_nil(task.error.message:match "wr0ng")
    assert.equal(1, #provider:received())
  end)

  it("that the proxy refuses, or for which there is none, were not sent", function()
    local certificate = peer.certificate()
    local provider = peer.https(certificate, answer(ACCEPTED))
    local proxy = proxies.start { ["localhost:" .. provider.port] = provider.port }
    for _, status in ipairs { "403 Forbidden", "502 Bad Gateway", "200", "302 Found\r\nLocation: http://127.0.0.1:1/",
                              "503 Later\r\nRetry-After: 5", "429 Slow\r\n X-Folded: yes" } do
      if status == "200" then
        kit.write(proxy.dir .. "/refuse", "200 OK\r\nContent-Type: text/html")
      else
        kit.write(proxy.dir .. "/refuse", status)
      end
      local mj = open { base_url = provider.url, proxy = proxy.url, ca_file = certificate }
      local task = assert(mj:submit { prompt = status })
      assert.equal("queued", task.state, status)
      assert.equal("not_sent", task.error.code, status)
      kit.another_store()
    end
    local task = assert(open { base_url = provider.url, proxy = "http://127.0.0.1:1", ca_file = certificate }
      :submit { prompt = "b" })
    assert.equal("not_sent", task.error.code)
    assert.equal(0, #provider:received())
  end)

  it("heed no proxy of the environment, with a proxy of their own and without", function()
    local provider = peer.http(answer(ACCEPTED))
    local ours = proxies.start { ["127.0.0.1:" .. provider.port] = provider.port }
    local theirs = proxies.start {}
    for _, own in ipairs { "", ("proxy = %q,"):format(ours.url) } do
      local out = kit.sh(("env -u no_proxy -u NO_PROXY http_proxy=%s https_proxy=%s all_proxy=%s ALL_PROXY=%s "):format(
        theirs.url, theirs.url, theirs.url, theirs.url) .. kit.lua_command(([[
          local mj = assert(require "mjhook".open { store = %q, api_key = "test-key", base_url = %q, %s })
          print(assert(mj:submit { prompt = "a" }).state)
        ]]):format(kit.tmp() .. "/store", provider.url, own)))
      assert.equal("pending", out)
    end
    assert.equal(1, #ours:requests())
    assert.equal(0, #theirs:requests())
  end)

  it("are made to a server of a private authority with ca_file, which counts instead of the system's", function()
    local certificate, other = peer.certificate(), peer.certificate()
    local provider = peer.https(certificate, answer(ACCEPTED))
    assert.equal("pending", open { base_url = provider.url, ca_file = certificate }:submit { prompt = "a" }.state)
    for _, more in ipairs { { ca_file = other }, {} } do
      more.base_url = provider.url
      kit.another_store()
      local task = open(more):submit { prompt = "a" }
      assert.equal("queued", task.state)
      assert.equal("not_sent", task.error.code)
      assert.matches("certificate", task.error.message)
    end
    assert.equal(1, #provider:received())
  end)

  it("are made by the doctor in the same way", function()
    local certificate = peer.certificate()
    local provider = peer.https(certificate, answer '{"status":0,"data":[]}')
    local proxy = proxies.start({ ["localhost:" .. provider.port] = provider.port }, "me:very.s3cret")
    local function examine(more)
      local settings = kit.settings(more)
      settings.base_url, settings.hook_url = provider.url, nil
      local findings, text = doctor.run(settings), {}
      for _, found in ipairs(findings) do
        text[#text + 1] = ("%s %s %s %s"):format(found.status, found.check, found.message, found.advice or "")
      end
      return table.concat(text, "\n")
    end
    local said = examine { proxy = ("http://me:very.s3cret@127.0.0.1:%d"):format(proxy.port), ca_file = certificate }
    assert.matches("ok base_url.proxy localhost is asked through 127.0.0.1 \n", said)
    assert.matches("ok provider.key", said)
    assert.is_nil(said:match "s3cret")
    said = examine { proxy = ("http://me:very.s3cret@127.0.0.1:%d"):format(proxy.port) }
    assert.matches("fail base_url.tls .*ca_file", said)
    said = examine { proxy = ("http://me:wr0ng@127.0.0.1:%d"):format(proxy.port), ca_file = certificate }
    assert.matches("fail base_url.reach .*407", said)
    assert.is_nil(said:match "wr0ng")
  end)
end)

describe("the configuration keys proxy and ca_file", function()
  after_each(kit.cleanup)

  local function refused(more, pattern)
    local got, err = config.resolve(kit.settings(more))
    assert.is_nil(got)
    assert.equal("config", err.code)
    assert.matches(pattern, err.message)
    return err.message
  end

  it("are refused by name when they can't be right, without a word of the password", function()
    for _, url in ipairs {
      "", "proxy.example:3128", "proxy.example", "http://proxy.example", "http://proxy.example:0",
      "http://proxy.example:65536", "http://proxy.example:3128/path", "http://proxy.example:3128?x", "ftp://a:1",
      "socks4://a:1", "http://a b:1", "http://:3128", "http://me:s3cret@:3128", "http://me:s3cret@proxy.example",
      "http://me:s3cret@pro xy:1", "http://a:1\r\nX: y", "HTTP://a:1", 3128, true, {},
    } do
      assert.is_nil(refused({ proxy = url }, "^proxy: a URL such as http://proxy.example:3128"):match "s3cret")
    end
    for _, url in ipairs {
      "http://proxy.example:3128", "http://proxy.example:3128/", "https://proxy.example:443", "socks5://10.0.0.1:1080",
      "socks5h://[2001:db8::1]:1080", "http://me:p%40ss@proxy.example:8080",
    } do
      assert.equal(url, assert(config.resolve(kit.settings { proxy = url })).proxy)
    end
  end)

  it("name a file that is there, is ours, holds certificates, and stands beside the configuration", function()
    local dir = kit.tmp()
    local certificate = kit.read(peer.certificate())
    refused({ ca_file = "" }, "^ca_file: a line of text")
    refused({ ca_file = true }, "^ca_file: a line of text")
    refused({ ca_file = dir .. "/none.pem" }, "^ca_file: .*none.pem")
    refused({ ca_file = dir }, "^ca_file: ")
    refused({ ca_file = "ca.pem" }, "^ca_file: an absolute path")
    refused({ ca_file = kit.write(dir .. "/empty.pem", "") }, "^ca_file: .*empty.pem holds no certificate")
    refused({ ca_file = kit.write(dir .. "/key.pem", (certificate:gsub("CERTIFICATE", "PRIVATE KEY"))) },
      "^ca_file: .*key.pem holds no certificate")
    kit.write(dir .. "/ca.pem", certificate)
    os.execute("chmod 666 " .. dir .. "/ca.pem")
    refused({ ca_file = dir .. "/ca.pem" }, "^ca_file: .*written by others")
    os.execute("chmod 644 " .. dir .. "/ca.pem")
    assert.equal(dir .. "/ca.pem", assert(config.resolve(kit.settings { ca_file = dir .. "/ca.pem" })).ca_file)
    kit.write(dir .. "/config.lua", 'return { ca_file = "ca.pem" }')
    assert.equal(dir .. "/ca.pem", assert(config.resolve(kit.settings { config = dir .. "/config.lua" })).ca_file)
    assert.is_truthy(config.resolve(kit.settings { ca_file = "/etc/ssl/certs/ca-certificates.crt" }))
  end)
end)
