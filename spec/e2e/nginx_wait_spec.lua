-- resty.mjhook.wait: a request waits for a task's end, and its worker serves others meanwhile.
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location = /wait {
      content_by_lua_block {
        local args = ngx.req.get_uri_args()
        local task, err = require("resty.mjhook").wait(args.ref, { timeout = tonumber(args.timeout) })
        ngx.print(task and task.state .. " " .. tostring(task.image) or err.code)
      }
    }
  }
}
]]

describe("waiting under nginx", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  -- Requests that are in the air at the same time: clients that have sent and not read.
  local function ask(web, path)
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:settimeout(10)
    client:send(("GET %s HTTP/1.0\r\n\r\n"):format(path))
    return client
  end

  local function answer(client)
    return (client:receive "*a" or ""):match "\r\n\r\n(.*)$"
  end

  it("does not block the worker, and ends for all who wait when the callback has come", function()
    local web = receiver.start { conf = CONF }
    local mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    local waiting = {}
    for i = 1, 20 do
      waiting[i] = ask(web, ("/wait?ref=%s&timeout=30"):format(task.ref))
    end
    for _ = 1, 20 do
      local begun = socket.gettime()
      assert.equal("pong\n", answer(ask(web, "/ping")))
      assert.is_true(socket.gettime() - begun < 5)
    end
    sim.finish(task.task_id)
    local begun = socket.gettime()
    for _, client in ipairs(waiting) do
      assert.matches("^succeeded http://", answer(client))
    end
    assert.is_true(socket.gettime() - begun < 15)
    assert.equal(0, sim.requests "status") -- none of them asked the provider
  end)

  it("polls what is overdue once, though many wait, and says in time that there is no end", function()
    local web = receiver.start { conf = CONF, settings = { poll = { first = 1, max = 900 } } }
    local mj = kit.open({ hook_url = web.url .. "/hook", poll = { first = 1, max = 900 } }, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    local waiting = {}
    for i = 1, 10 do
      waiting[i] = ask(web, ("/wait?ref=%s&timeout=5"):format(task.ref))
    end
    for _, client in ipairs(waiting) do
      assert.equal("timeout", answer(client))
    end
    assert.equal(1, sim.requests "status")
    assert.equal("not_found", answer(ask(web, "/wait?ref=nonsense&timeout=1")))
  end)
end)
