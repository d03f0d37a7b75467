-- Who may call: allow_cidr and trusted_proxies.
local cidr = require "mjhook.cidr"
local kit = require "kit"
local provider = require "mjhook.provider"

describe("an address range", function()
  local cases = {
    { "192.0.2.0/24", "192.0.2.255", true }, { "192.0.2.0/24", "192.0.3.0", false },
    { "192.0.2.128/25", "192.0.2.127", false }, { "192.0.2.128/25", "192.0.2.128", true },
    { "10.0.0.0/9", "10.127.255.255", true }, { "10.0.0.0/9", "10.128.0.0", false },
    { "0.0.0.0/0", "203.0.113.9", true }, { "0.0.0.0/0", "2001:db8::1", false },
    { "203.0.113.9", "203.0.113.9", true }, { "203.0.113.9", "203.0.113.8", false },
    { "2001:db8::/32", "2001:db8:ffff::1", true }, { "2001:db8::/32", "2001:db9::", false },
    { "::1", "0:0:0:0:0:0:0:1", true }, { "::/0", "fe80::1", true },
    { "192.0.2.0/24", "::ffff:192.0.2.7", true }, { "64:ff9b::/96", "64:ff9b::192.0.2.7", true },
    { "192.0.2.0/24", "nonsense", false }, { "192.0.2.0/24", "", false },
  }
  for _, case in ipairs(cases) do
    it(("%s %s %s"):format(case[1], case[3] and "holds" or "does not hold", case[2]), function()
      assert.equal(case[3], cidr.contains({ case[1] }, case[2]))
    end)
  end

  for _, text in ipairs { "300.0.0.1", "1.2.3", "1.2.3.4/33", "::1/129", "1:2:3:4:5:6:7", "1::2::3", "g::", "/8", "",
                          "1.2.3.4/", "1:2:3:4:5:6:7:8:9", "12345::", "01.2.3.4", "1.2.3.4/24x",
                          "1.2.3.4/ 8", "1.2.3.4/-1", "1.2.3.4/8/8", "1.2.3.4\0", "::1.2.3.4:1" } do
    it(("is not %q"):format(text), function()
      assert.is_false(cidr.is_range(text))
    end)
  end
end)

describe("a callback's caller", function()
  after_each(kit.cleanup)

  local function status(settings, peer, forwarded)
    local mj = kit.open(settings)
    local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
    return mj:callback {
      method = "POST", uri = provider.hook_url(mj, task.ref, 1), peer = peer,
      headers = { ["X-Forwarded-For"] = forwarded }, body = '{"taskId":"T1","status":0}',
    }.status
  end

  it("may be any caller with a token when no range is configured", function()
    assert.equal(200, status({}, "203.0.113.9"))
  end)

  it("has to be in allow_cidr, token or not", function()
    assert.equal(200, status({ allow_cidr = { "203.0.113.0/24" } }, "203.0.113.9"))
    assert.equal(401, status({ allow_cidr = { "203.0.113.0/24" } }, "198.51.100.1"))
    assert.equal(401, status({ allow_cidr = { "203.0.113.0/24" } }, nil))
  end)

  it("is the one behind a trusted proxy, and a header from others counts for nothing", function()
    local settings = { allow_cidr = { "203.0.113.0/24" }, trusted_proxies = { "10.0.0.0/8" } }
    assert.equal(200, status(settings, "10.0.0.1", "203.0.113.9"))
    assert.equal(200, status(settings, "10.0.0.1", "198.51.100.1, 203.0.113.9, 10.0.0.2"))
    assert.equal(401, status(settings, "10.0.0.1", "203.0.113.9, 198.51.100.1"))
    assert.equal(401, status(settings, "198.51.100.1", "203.0.113.9"))
    assert.equal(401, status(settings, "10.0.0.1"))
  end)

  it("is found in a header that is there twice, among what is no address, and when all are trusted", function()
    local settings = { allow_cidr = { "203.0.113.0/24", "10.0.0.9" }, trusted_proxies = { "10.0.0.0/8" } }
    assert.equal(200, status(settings, "10.0.0.1", { "198.51.100.1", "203.0.113.9" }))
    assert.equal(401, status(settings, "10.0.0.1", { "203.0.113.9", "198.51.100.1" }))
    assert.equal(200, status(settings, "10.0.0.1", "unknown,,203.0.113.9 ,\t10.0.0.7"))
    assert.equal(401, status(settings, "10.0.0.1", "203.0.113.9, unknown")) -- the last one who is not trusted
    assert.equal(200, status(settings, "10.0.0.1", "10.0.0.9, 10.0.0.8"))
    assert.equal(401, status(settings, "10.0.0.9", "10.0.0.8"))
  end)

  it("is read from a header as proxies write it: with ports, brackets, quotes, zones and blanks", function()
    local settings = { allow_cidr = { "203.0.113.0/24", "2001:db8::/32" },
                       trusted_proxies = { "10.0.0.0/8", "fe80::/10" } }
    for _, forwarded in ipairs {
      "203.0.113.7:51234", "[2001:db8::1]:443", "[2001:db8::1]", "2001:DB8::1", '"203.0.113.7"', '"[2001:db8::1]:443"',
      "'203.0.113.7:1'", " 203.0.113.7:51234 , 10.0.0.7:80", "203.0.113.7\t", "[::ffff:203.0.113.7]:80",
      "203.0.113.7, fe80::1%eth0", "203.0.113.7,[fe80::1%25eth0]:80", "198.51.100.1:1, 203.0.113.7:2, [fe80::2]:3",
    } do
      assert.equal(200, status(settings, "10.0.0.1", forwarded), forwarded)
      assert.equal(200, status(settings, "10.0.0.1:4711", forwarded), forwarded)
    end
    for _, forwarded in ipairs {
      "198.51.100.1:51234", "203.0.113.7:", "203.0.113.7:x", "203.0.113.7:1:2", "[203.0.113.7", "203.0.113.7]", "[]:80",
      "_hidden", "unknown", "203.0.113.7, 198.51.100.1:80", "203.0.113.7;10.0.0.1", "203.0.113.7/24",
    } do
      assert.equal(401, status(settings, "10.0.0.1", forwarded), forwarded)
    end
    assert.equal(401, status(settings, "198.51.100.1:4711", "203.0.113.7"))
  end)

  it("is this machine when it comes through a Unix socket, which can be trusted by its name", function()
    local allowed = { "203.0.113.0/24" }
    for _, peer in ipairs { "unix:", "unix:/run/nginx.sock" } do
      assert.equal(200, status({ allow_cidr = { "127.0.0.0/8" } }, peer))
      assert.equal(200, status({ allow_cidr = { "unix:" } }, peer))
      assert.equal(401, status({ allow_cidr = allowed }, peer))
      for _, trusted in ipairs { "unix:", "127.0.0.1" } do
        local settings = { allow_cidr = allowed, trusted_proxies = { trusted } }
        assert.equal(200, status(settings, peer, "203.0.113.7:80"))
        assert.equal(401, status(settings, peer, "198.51.100.7"))
        assert.equal(200, status(settings, peer, "203.0.113.7, unix:"))
      end
      assert.equal(401, status({ allow_cidr = allowed, trusted_proxies = { "10.0.0.1" } }, peer, "203.0.113.7"))
    end
    assert.equal(401, status({ allow_cidr = allowed, trusted_proxies = { "unix:" } }, "127.0.0.1", "203.0.113.7"))
  end)

  it("is in the log of a 401 as it was decided on", function()
    local cases = {
      { "198.51.100.7", nil, "198.51.100.7" }, { "10.0.0.1", "198.51.100.7:51234", "198.51.100.7" },
      { "10.0.0.1", "[2001:DB8::7]:443, 10.0.0.9", "2001:db8::7" }, { "unix:", nil, "unix:" },
      { "10.0.0.1", "unknown\27[31m", "an unknown address" }, { nil, nil, "an unknown address" },
      { "198.51.100.7", "203.0.113.7", "198.51.100.7" },
    }
    for _, case in ipairs(cases) do
      local settings = { allow_cidr = { "203.0.113.0/24" }, trusted_proxies = { "10.0.0.0/8" } }
      assert.equal(401, status(settings, case[1], case[2]))
      assert.is_truthy(kit.log_text():find("the last one from " .. case[3], 1, true), kit.log_text())
      assert.is_nil(kit.log_text():find("\27", 1, true))
      kit.cleanup()
    end
  end)

  it("is checked by ranges that a wrong configuration can't have", function()
    local _, err = require("mjhook").open { store = kit.tmp() .. "/s", allow_cidr = { "300.0.0.0/8" } }
    assert.equal("config", err.code)
    assert.matches("allow_cidr%[1%]", err.message)
  end)
end)
