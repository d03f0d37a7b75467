-- Submissions under nginx: requests go on while what has ended is stored, and the worker serves others meanwhile.
local cjson = require "cjson"
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
    location = /many {
      lua_check_client_abort on;
      content_by_lua_block {
        local jobs = {}
        for i = 1, tonumber(ngx.var.arg_n) do
          jobs[i] = { prompt = ngx.var.arg_name .. " " .. i }
        end
        local results, err = require("resty.mjhook").instance():submit_many(jobs)
        local n = {}
        for _, r in ipairs(results or {}) do
          local word = r.state or r.error.code
          n[word] = (n[word] or 0) + 1
        end
        ngx.print(require("cjson").encode(results and n or { error = err.message }))
      }
    }
  }
}
]]

describe("a window of submissions under nginx", function()
  local web, mj

  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function start(settings, conf)
    sim.config { limit = 0 }
    web = receiver.start { conf = conf or CONF, settings = settings }
    mj = kit.open({ hook_url = web.url .. "/hook", max_in_flight = settings.max_in_flight }, sim)
  end

  local function ask(path)
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:settimeout(20)
    client:send(("GET %s HTTP/1.0\r\n\r\n"):format(path))
    return client
  end

  local function answer(client)
    return (client:receive "*a" or ""):match "\r\n\r\n(.*)$"
  end

  it("lets no slow answer hold back another, and stores each soon", function()
    start { max_in_flight = 100, connections = 3 }
    sim.script { submit = { { fault = "slow", ms = 1500 } } }
    local client = ask "/many?n=40&name=fox"
    kit.wait_until(function()
      local n = mj:stats().tasks
      return n.pending == 39 and n.submitting == 1
    end, 10)
    assert.equal("pong\n", answer(ask "/ping"))
    assert.same({ pending = 40 }, cjson.decode(answer(client)))
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("works side by side with others, also when there are more than airs", function()
    start { max_in_flight = 200, connections = 2 }
    local clients = {}
    for i = 1, 7 do
      clients[i] = ask(("/many?n=20&name=job-%d"):format(i))
    end
    for i = 1, 7 do
      local n = cjson.decode(answer(clients[i])) -- what another one's window has claimed may still be in the air
      assert.equal(20, (n.pending or 0) + (n.submitting or 0))
    end
    kit.wait_until(function() return mj:stats().tasks.pending == 140 end)
    assert.equal(140, #sim.jobs())
    assert.same({}, sim.ledger().billed_twice)
    assert.same({}, assert(mj:check()).problems)
  end)

  it("of a dispatcher that waits for a slow answer keeps no free slot from others", function()
    start { max_in_flight = 2, connections = 3 }
    local tasks = {}
    for i = 1, 6 do
      tasks[i] = assert(mj:submit { prompt = tostring(i) })
    end
    sim.script { submit = { { fault = "slow", ms = 4000 } } }
    local begun = socket.gettime()
    for i = 1, 2 do -- its callback frees a slot: the first job that is sent then is answered late
      sim.finish(tasks[i].task_id)
      if i == 1 then
        kit.wait_until(function() return mj:stats().tasks.submitting == 1 end)
      end
    end
    kit.wait_until(function() return mj:get(tasks[4].ref).state == "pending" end, 3)
    assert.is_true(socket.gettime() - begun < 3.5)
    assert.equal("submitting", mj:get(tasks[3].ref).state)
    kit.wait_until(function() return mj:get(tasks[3].ref).state == "pending" end, 6)
    assert.equal(4, #sim.jobs())
  end)

  it("goes on for a client that goes, also where nginx looks for that", function()
    start { max_in_flight = 100, connections = 3 }
    sim.config { limit = 0, slow_ms = 200, submit = { slow = 1 } }
    local client = ask "/many?n=12&name=fox"
    kit.wait_until(function() return mj:stats().tasks.pending > 0 end)
    client:close()
    kit.wait_until(function() return mj:stats().tasks.pending == 12 end)
    assert.equal(12, #sim.jobs())
    assert.equal(0, mj:stats().tasks.submitting)
  end)

  it("hands back what waits when the provider refuses", function()
    start { max_in_flight = 100, connections = 2 }
    sim.script { submit = { { fault = "ok", n = 20 }, { fault = "quota", n = 2 } } }
    local n = cjson.decode(answer(ask "/many?n=60&name=fox"))
    assert.equal(60, n.pending + n.queued)
    assert.is_true(n.pending >= 20 and n.pending <= 21 and sim.requests "submit" <= 22, n.pending)
    assert.equal(0, mj:stats().tasks.submitting)
  end)

  -- Begins a new worker, and has the old one end what it does.
  local function reload()
    kit.sh(("kill -HUP %d"):format(web:pid()))
    kit.wait_until(function() return web:log():find("gracefully shutting down", 1, true) end)
  end

  local function ends()
    kit.wait_until(function() return web:log():find("exited with code 0", 1, true) end, 3)
    assert.is_nil(web:log():find("left in connection", 1, true))
  end

  it("ends with its answers when nginx reloads meanwhile", function()
    start { max_in_flight = 100, connections = 3 }
    sim.script { submit = { { fault = "slow", ms = 1500, n = 3 } } }
    local client = ask "/many?n=3&name=fox"
    kit.wait_until(function() return sim.requests "submit" == 3 end)
    reload()
    local late = ask "/many?n=1&name=owl"
    assert.same({ pending = 3 }, cjson.decode(answer(client) or "{}"))
    assert.same({ pending = 1 }, cjson.decode(answer(late)))
    ends()
    assert.same({ 4, 0, 0 }, { mj:stats().tasks.pending, mj:stats().tasks.submitting, mj:stats().tasks.ambiguous })
  end)

  it("that a request of a worker that ends begins, ends with its answers too", function()
    start { max_in_flight = 100, connections = 3 }
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:settimeout(20)
    client:send "GET /many?n=2&name=fox HTTP/1.0\r\n"
    assert.equal("pong\n", answer(ask "/ping")) -- so the worker has the beginning of the other request
    reload()
    sim.script { submit = { { fault = "slow", ms = 1000, n = 2 } } }
    socket.sleep(0.4) -- an idle worker keeps nothing for that long
    client:send "\r\n"
    assert.same({ pending = 2 }, cjson.decode(answer(client) or "{}"))
    ends()
    assert.equal(2, mj:stats().tasks.pending)
  end)

  it("of a dispatcher ends with its answers when nginx reloads meanwhile", function()
    start { max_in_flight = 2, connections = 3 }
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = assert(mj:submit { prompt = tostring(i) })
    end
    sim.script { submit = { { fault = "slow", ms = 1500 } } }
    sim.finish(tasks[1].task_id)
    kit.wait_until(function() return sim.requests "submit" == 3 end)
    reload()
    ends()
    assert.equal("pending", mj:get(tasks[3].ref).state)
    assert.equal(1, mj:stats().tasks.queued)
  end)

  it("that nginx itself cuts off keeps no worker alive when its call is over", function()
    start({ max_in_flight = 100, connections = 3 }, "worker_shutdown_timeout 200ms;\n" .. CONF)
    sim.script { submit = { { fault = "slow", ms = 1000 } } }
    local client = ask "/many?n=1&name=fox"
    kit.wait_until(function() return sim.requests "submit" == 1 end)
    reload()
    kit.wait_until(function() return web:log():find("exited with code 0", 1, true) end, 3)
    assert.is_nil(answer(client))
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("leaves a worker that has nothing to do free to end at once", function()
    start { max_in_flight = 100, connections = 3 }
    assert.same({ pending = 1 }, cjson.decode(answer(ask "/many?n=1&name=fox")))
    reload()
    ends()
  end)

  it("sends what is queued when its slot is freed right after a look that found none", function()
    sim.config { limit = 0 }
    local accounts = {
      { name = "roomy", api_key = kit.KEY }, { name = "narrow", api_key = kit.KEY, max_in_flight = 1 },
    }
    web = receiver.start { conf = CONF, settings = { accounts = accounts } }
    mj = kit.open({ hook_url = web.url .. "/hook", accounts = accounts }, sim)
    local other = assert(mj:submit { prompt = "other", account = "roomy" })
    local first = assert(mj:submit { prompt = "first", account = "narrow" })
    local second = assert(mj:submit { prompt = "second", account = "narrow" })
    assert.equal("queued", second.state)
    sim.finish(other.task_id) -- a look: the other account has room, and nothing is queued for it
    socket.sleep(0.3)
    sim.finish(first.task_id)
    kit.wait_until(function() return mj:get(second.ref).state == "pending" end)
  end)
end)
