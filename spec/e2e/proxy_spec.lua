-- The configuration keys proxy and ca_file under a real nginx, whose worker threads make the requests.
local kit = require "kit"
local peer = require "peer"
local proxies = require "proxies"
local receiver = require "receiver"
local sim = require "sim"

describe("mjhook under nginx", function()
  after_each(kit.cleanup)

  it("asks the provider through the configured proxy, and believes the configured authority", function()
    local certificate = peer.certificate()
    local body = '{"status":0,"message":"success","data":{"taskId":"T1"}}'
    local provider = peer.https(certificate, ("HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"):format(#body, body))
    local proxy = proxies.start({ ["localhost:" .. provider.port] = provider.port }, "me:very.s3cret")
    local web = receiver.prepare { settings = {
      base_url = provider.url, ca_file = certificate, proxy = ("http://me:very.s3cret@127.0.0.1:%d"):format(proxy.port),
    } }:start()
    local _, text = sim.request("GET", web.url .. "/jobs?prompt=fox")
    assert.matches("^%w+ pending$", text)
    assert.equal(("CONNECT localhost:%d HTTP/1.1"):format(provider.port), proxy:requests()[1].line)
    assert.equal(1, #provider:received())
    assert.is_nil(web:log():match "s3cret")
  end)
end)
