-- A provider whose answers are made to break what reads them, under a real nginx: no worker dies of one.
local core = require "mjhook.core"
local kit = require "kit"
local peer = require "peer"
local receiver = require "receiver"
local sim = require "sim"

local ACCEPTED = '{"status":0,"message":"success","data":{"taskId":"T1"}}'
local HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"

local function answer(id)
  local body = ACCEPTED:gsub("T1", id)
  return ("%sX-A: b\r\nContent-Length: %d\r\n\r\n%s"):format(HEAD, #body, body)
end

describe("mjhook under nginx, of a provider that means harm,", function()
  after_each(kit.cleanup)

  local function start(script)
    local provider = peer.start(script)
    local settings = { base_url = provider.url, connections = 1, max_in_flight = 100 }
    local web = receiver.prepare({ settings = settings }):start()
    return web, function(prompt)
      return select(2, sim.request("GET", web.url .. "/jobs?prompt=" .. prompt)):match "^%w+ (%w+)$"
    end
  end

  local function assert_unharmed(web, workers)
    assert.equal(workers, web:workers())
    assert.is_nil(web:log():match "exited on signal")
  end

  it("takes answers whose first header line is folded, between good ones", function()
    local script = {}
    for i = 1, 10 do
      script[i] = {
        { "http" }, { "send", answer("A" .. i) }, { "http" },
        { "send", "HTTP/1.1 200 OK\r\n X-Folded: yes\r\nContent-Length: 2\r\n\r\n{}" },
      }
    end
    local web, submit = start(script)
    local workers = web:workers()
    for i = 1, 20 do
      assert.equal(i % 2 == 1 and "pending" or "ambiguous", submit("fox" .. i))
    end
    assert_unharmed(web, workers)
  end)

  it("waits for no trailer and no header without an end", function()
    local chunked = HEAD .. "Transfer-Encoding: chunked\r\n\r\n"
    local web, submit = start {
      { { "http" }, { "send", chunked .. "2\r\n{}\r\n0\r\n" }, { "flood", ("X: y\r\n"):rep(1000), 20 } },
      { { "http" }, { "send", chunked .. "2;" }, { "flood", ("x=y;"):rep(1000), 20 } },
      { { "http" }, { "send", HEAD }, { "flood", (" folded\r\n"):rep(1000), 20 } },
      { { "http" }, { "flood", "HTTP/1.1 100 Continue\r\n\r\n", 20 } },
      { { "http" }, { "send", answer "A1" } },
    }
    local workers, begun = web:workers(), core.clock()
    for i = 1, 4 do
      assert.equal("ambiguous", submit("fox" .. i))
    end
    assert.is_true(core.clock() - begun < 10000)
    assert.equal("pending", submit "fox")
    assert_unharmed(web, workers)
  end)
end)
