-- mjhook in a real nginx on a store behind a network: what waits for it is one request, never the event loop. The store
-- is the backend that has everything in memory (support/store_memory.c), told to begin each transaction late, or not to
-- say whether a commit was stored.
local cjson = require "cjson"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local LATE_MS = 150

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block {
    package.cpath = "@CPATH@;" .. package.cpath
    require("resty.mjhook").init { config = "@DIR@/config.lua" }
  }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@ backlog=1024;
    location = /ping { content_by_lua_block { ngx.print "pong" } }
    location = /hook { client_body_buffer_size 1m; content_by_lua_block { require("resty.mjhook").callback() } }
    location = /metrics { content_by_lua_block { require("resty.mjhook").metrics() } }
    location = /lua {
      content_by_lua_block {
        ngx.req.read_body()
        local result = assert(load(ngx.req.get_body_data()))()
        ngx.print(type(result) == "table" and require("cjson").encode(result) or tostring(result))
      }
    }
  }
}
]]

local THREADS = [[
thread_pool mjhook threads=4;
thread_pool mjhook_read threads=2;
thread_pool mjhook_http threads=2;
thread_pool mjhook_deliver threads=2;
]]

describe("nginx on a store that waits for a network", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web

  local function start(settings, threads)
    local all = { store = "memory://" .. kit.tmp():match "[^/]*$" }
    for k, v in pairs(settings or {}) do
      all[k] = v
    end
    local conf = CONF:gsub("@CPATH@", kit.build .. "/5.1/?.so")
    web = receiver.start { conf = conf, settings = all, threads = threads or THREADS }
  end

  -- Runs Lua code in nginx' worker, as a request's; gives what it returns.
  local function inside(code, ...)
    local status, text = sim.request("POST", web.url .. "/lua", code:format(...))
    assert.equal(200, status, web:log())
    return text
  end

  local function submit(prompt)
    return cjson.decode(inside([[
      local task, err = require("resty.mjhook").submit { prompt = %q }
      return { ref = task and task.ref, task_id = task and task.task_id, state = task and task.state,
               code = err and err.code }]], prompt))
  end

  local function get(ref)
    return cjson.decode(inside([[
      return { state = assert(require("resty.mjhook").status(%q)).state }]], ref))
  end

  local function hook_of(task_id)
    for _, job in ipairs(sim.jobs()) do
      if job.taskId == task_id then
        return job.hookUrl
      end
    end
  end

  local function body(task_id, status)
    return cjson.encode { status = 0, message = "success",
                          data = { taskId = task_id, status = status, image = "https://img.example/x" } }
  end

  local function post(task_id, status)
    return sim.request("POST", hook_of(task_id), body(task_id, status), { ["content-type"] = "application/json" })
  end

  -- Sends a request and does not wait for its answer.
  local function begin(method, path, content)
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:settimeout(10)
    client:send(("%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"):format(method, path,
      #(content or ""), content or ""))
    return client
  end

  local function status_of(client)
    local line = client:receive "*l"
    client:close()
    return tonumber((line or ""):match "^HTTP/1.1 (%d+)")
  end

  local function path_of(url)
    return url:match "^http://[^/]+(/.*)$"
  end

  it("takes jobs and callbacks, and tells of them", function()
    start()
    local task = submit "a fox"
    assert.equal("pending", task.state)
    assert.equal(200, (post(task.task_id, 1)))
    assert.equal("succeeded", get(task.ref).state)
    local _, text = sim.request("GET", web.url .. "/metrics")
    assert.truthy(text:find('mjhook_tasks{state="succeeded"} 1', 1, true))
  end)

  it("goes on answering others while a read, a submission, a callback and a listing wait", function()
    start()
    local task = submit "a fox"
    local calls = {
      read = function()
        return begin("POST", "/lua", ("return require('resty.mjhook').status(%q).state"):format(task.ref))
      end,
      submission = function()
        return begin("POST", "/lua", "return require('resty.mjhook').submit { prompt = 'b' }.ref")
      end,
      listing = function()
        return begin("POST", "/lua", "for t in require('resty.mjhook').instance():tasks {} do return t.ref end")
      end,
      metrics = function() return begin("GET", "/metrics") end,
      callback = function() return begin("POST", path_of(hook_of(task.task_id)), body(task.task_id, 0)) end,
    }
    inside("require('mjhook.store_memory').delay(%d)", LATE_MS)
    for what, call in pairs(calls) do
      local begun = socket.gettime()
      local waiting = call()
      for _ = 1, 5 do
        assert.equal(200, (sim.request("GET", web.url .. "/ping")))
      end
      local pinged = socket.gettime() - begun
      assert.equal(200, status_of(waiting), what .. ": " .. web:log())
      local took = socket.gettime() - begun
      assert.is_true(took >= LATE_MS / 1000, what .. " took " .. took)
      assert.is_true(pinged < LATE_MS / 1000, ("%s held others up for %.3f s"):format(what, pinged))
    end
  end)

  it("stores what is said of one task in the order in which it came, of several side by side", function()
    start()
    local tasks = {}
    for i = 1, 8 do
      tasks[i] = submit("job " .. i)
    end
    inside("require('mjhook.store_memory').delay(%d, true)", 30) -- a later commit would overtake an earlier one
    local clients = {}
    for _, status in ipairs { 1, 2 } do -- the first one wins
      for _, task in ipairs(tasks) do
        clients[#clients + 1] = begin("POST", path_of(hook_of(task.task_id)), body(task.task_id, status))
      end
    end
    for _, client in ipairs(clients) do
      assert.equal(200, status_of(client), web:log())
    end
    for _, task in ipairs(tasks) do
      assert.equal("succeeded", get(task.ref).state)
    end
  end)

  for _, stored in ipairs { false, true } do
    it(("answers 503 when a commit is unsure, and nothing is sent twice: it was%s stored"):format(
      stored and "" or " not"), function()
      start()
      local task = submit "a fox"
      inside("require('mjhook.store_memory').unsure(1, %s)", stored)
      local code, _, headers = post(task.task_id, 1)
      assert.equal(503, code)
      assert.matches("^%d+$", headers["retry-after"])
      local again, answer = post(task.task_id, 1)
      assert.equal(200, again)
      assert.matches(stored and "duplicate" or "stored", answer)
      assert.equal("succeeded", get(task.ref).state)
      assert.equal(1, sim.requests "submit")
    end)

    it(("sends nothing for a claim whose commit is unsure: it was%s stored"):format(stored and "" or " not"), function()
      start()
      inside("require('mjhook.store_memory').unsure(1, %s)", stored)
      local task = submit "a fox"
      assert.equal("unsure", task.code)
      assert.equal(0, sim.requests "submit")
      local left = inside [[
        local states = {}
        for t in require("resty.mjhook").instance():tasks {} do
          states[#states + 1] = t.state
        end
        return table.concat(states, " ")]]
      assert.equal(stored and "submitting" or "", left)
      assert.equal("pending", submit("another").state) -- it goes on
    end)
  end

  it("sends what is queued as soon as a callback frees the slot", function()
    start { max_in_flight = 1 }
    local first, second = submit "one", submit "two"
    assert.same({ "pending", "queued" }, { first.state, second.state })
    inside("require('mjhook.store_memory').delay(%d)", 10)
    assert.equal(200, (post(first.task_id, 1)))
    kit.wait_until(function() return get(second.ref).state == "pending" end)
  end)

  it("hands events to the policy in threads of their own", function()
    local mark = kit.tmp() .. "/mark"
    local policy = kit.write(kit.tmp() .. "/policy.lua", ([[
      return { on_succeeded = function(task)
        local file = io.open(%q, "w")
        file:write(task.ref)
        file:close()
      end }]]):format(mark))
    start { policy = policy }
    local task = submit "a fox"
    inside("require('mjhook.store_memory').delay(%d)", 10)
    assert.equal(200, (post(task.task_id, 1)))
    kit.wait_until(function() return kit.read(mark) == task.ref end)
  end)

  it("works also when nginx.conf has no pool for reads", function()
    start(nil, "thread_pool mjhook threads=1;\nthread_pool mjhook_http threads=1;\n")
    local task = submit "a fox"
    assert.equal(200, (post(task.task_id, 1)))
    assert.equal("succeeded", get(task.ref).state)
  end)
end)
