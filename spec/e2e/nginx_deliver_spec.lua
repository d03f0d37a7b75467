-- Delivery under nginx: from the callback to the policy's handler without cron, and what there is to watch.
local cjson = require "cjson"
local images = require "images"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

describe("delivery under nginx", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, dir, mj

  -- A policy in a file; in its text DIR is a directory for what handlers write.
  local function start(policy, options)
    options = options or {}
    dir = kit.tmp()
    local path = kit.write(dir .. "/policy.lua", (policy:gsub("DIR", { DIR = dir })))
    options.settings = { policy = path, handler_timeout = 5 }
    for k, v in pairs(options.more or {}) do
      options.settings[k] = v
    end
    web = receiver.start(options)
    mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
  end

  local NOTE = [[
    local function note(name, text)
      local file = assert(io.open("DIR/" .. name, "a"))
      file:write(text, "\n")
      file:close()
    end
  ]]

  local function lines(name)
    local list = {}
    for line in (kit.read(dir .. "/" .. name) or ""):gmatch "[^\n]+" do
      list[#list + 1] = line
    end
    return list
  end

  local function submit()
    return assert(mj:submit { prompt = "a fox" })
  end

  it("hands a result to the handler within 50 ms of the callback's commit", function()
    start(NOTE .. [[
      local core = require "mjhook.core"
      return { on_succeeded = function(task, ctx) note("seen", ctx.event_id .. " " .. core.now() - ctx.created_at) end }
    ]])
    local best = math.huge
    local n = 0
    for i = 1, 20 do -- a busy machine may be late, but not each time
      n = i
      local task = submit()
      sim.finish(task.task_id)
      kit.wait_until(function() return #lines "seen" == i end)
      local id, late = lines("seen")[i]:match "^(%S+) (%d+)$"
      assert.equal(task.ref .. "-1", id)
      best = math.min(best, tonumber(late))
      kit.wait_until(function() return mj:stats().events == 0 end)
      if i >= 5 and best < 50 then
        break
      end
    end
    assert.is_true(best < 50, best .. " ms")
    assert.equal(n, #lines "seen")
  end)

  it("tries again what a handler did not manage, and says so in the error log without a token", function()
    start([[ return { on_event = function(task, ctx) error("no room", 0) end } ]])
    local task = submit()
    sim.finish(task.task_id)
    kit.wait_until(function() return web:log():find("no room", 1, true) end)
    local event = mj:events()()
    assert.same({ 1, false, false }, { event.tries, event.buried, event.leased })
    assert.truthy(web:log():find("event " .. task.ref .. "-1 (try 1): on_event raised: no room", 1, true))
    assert.is_nil(web:log():find("sig=", 1, true))
  end)

  it("notices by itself that an event is due, whichever process stored it", function()
    start(NOTE .. [[ return { on_event = function(task, ctx) note("seen", ctx.type) end } ]])
    local task = submit() -- a failure that we decide makes an event, too, in this process
    mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "failed", source = "poll",
                       task_id = task.task_id, error = "no" } }
    kit.wait_until(function() return lines("seen")[1] == "failed" end)
  end)

  it("goes on after others had all the timers that nginx runs", function()
    start(NOTE .. [[ return { on_event = function(task, ctx) note("seen", task.ref) end } ]],
      { conf = receiver.CROWDED, more = { handlers = 1 } })
    local task = submit()
    sim.request("GET", web.url .. "/occupy")
    sim.finish(task.task_id)
    -- Two are dropped: the deliverer's, and the one that would have watched him.
    kit.wait_until(function() return select(2, web:log():gsub("failed to run timer [^\n]*mjhook/deliver", "")) >= 2 end)
    assert.same({}, lines "seen")
    sim.request("GET", web.url .. "/leave")
    kit.wait_until(function() return lines("seen")[1] == task.ref end)
  end)

  it("is left to the new worker when nginx reloads: what is at hand is finished, and no more is begun", function()
    start([[ return { on_event = function(task, ctx) require("mjhook.core").sleep(0.1) end } ]],
      { more = { handlers = 1 } })
    local refs = kit.put(mj, (function()
      local tasks = {}
      for i = 1, 300 do
        tasks[i] = {}
      end
      return tasks
    end)())
    for _, ref in ipairs(refs) do
      kit.succeed(mj, ref)
    end
    kit.wait_until(function() return mj:stats().events < 300 end)
    kit.sh("kill -HUP " .. web:pid())
    kit.wait_until(function() return web:log():find("exited with code 0", 1, true) end, 8)
    assert.truthy(mj:stats().events > 0)
  end)

  it("blocks no callback while a handler blocks", function()
    start(NOTE .. [[ return { on_event = function(task, ctx) note("begun", "x"); os.execute "sleep 4" end } ]])
    local one, two = submit(), submit()
    sim.finish(one.task_id)
    kit.wait_until(function() return #lines "begun" == 1 end)
    local before = socket.gettime()
    sim.finish(two.task_id)
    kit.wait_until(function() return mj:get(two.ref).state == "succeeded" end)
    assert.is_true(socket.gettime() - before < 3.9)
    assert.equal(200, (sim.request("GET", web.url .. "/ping")))
  end)

  it("holds back no other task's event while a handler is slow", function()
    start(NOTE .. [[
      return { on_event = function(task, ctx)
        note("begun", task.key)
        if task.key == "slow" then
          os.execute "sleep 4"
        end
        note("done", task.key)
      end }
    ]])
    local slow = assert(mj:submit { prompt = "a fox", key = "slow" })
    sim.finish(slow.task_id)
    kit.wait_until(function() return #lines "begun" == 1 end)
    local before = socket.gettime()
    for i = 1, 8 do
      sim.finish(assert(mj:submit { prompt = "a fox", key = "quick " .. i }).task_id)
    end
    kit.wait_until(function() return #lines "done" == 8 end)
    assert.is_true(socket.gettime() - before < 3.9)
    assert.equal(9, #lines "begun")
  end)

  -- Tasks that succeed at one time: so many events that are due at once, in this order.
  local function burst(count)
    local made, ops = {}, {}
    for i = 1, count do
      made[i] = { op = "create", source = "user", account = "default", task_id = "T" .. i, want = true,
                  task = { prompt = "p", fingerprint = ("f"):rep(16) } }
    end
    for i, result in ipairs(assert(mj.exec:commit(made))) do
      ops[i] = { op = "signal", ref = result.task.ref, attempt = 1, kind = "succeeded", source = "poll",
                 task_id = "T" .. i, image = "https://img.example/x" }
    end
    assert(mj.exec:commit(ops))
  end

  -- Seconds of processor time that the worker has taken, without its children.
  local function worked()
    local user, system = kit.read(("/proc/%s/stat"):format(web:workers():match "%d+")):match(
      "%) %S" .. (" %S+"):rep(10) .. " (%d+) (%d+)")
    return (tonumber(user) + tonumber(system)) / 100
  end

  for what, policy in pairs {
    ["of the exec handler"] = [[
      return { on_event = require "mjhook.handlers.exec" { "/bin/true", timeout = 4 } }
    ]],
    ["of the e-mail policy"] = [[
      local getenv = os.getenv
      os.getenv = function() return "SENDMAIL" end
      local policy = dofile "ROOT/scripts/policies/email.lua"
      os.getenv = getenv
      return { on_event = function(task, ctx)
        task.context = { email = "ada@example.org" }
        return policy.on_succeeded(task, ctx)
      end }
    ]],
  } do
    it("runs 200 quick programs " .. what .. " with one try each, within seconds and without burning time", function()
      local sendmail = kit.write(kit.tmp() .. "/sendmail", "#!/bin/sh\nexit 0\n")
      os.execute("chmod 700 " .. sendmail)
      start((policy:gsub("ROOT", kit.root):gsub("SENDMAIL", sendmail)))
      burst(200)
      local began, before = socket.gettime(), worked()
      kit.wait_until(function() return mj:stats().events == 0 end)
      assert.is_true(socket.gettime() - began < 15)
      assert.is_true(worked() - before < 4)
      assert.is_nil(web:log():find("(try ", 1, true))
      assert.is_nil(web:log():find("unknown process", 1, true))
      before = worked()
      socket.sleep(0.5)
      assert.is_true(worked() - before < 0.2) -- and nothing goes on turning
    end)
  end

  it("gives programs none of nginx's sockets and files, and no variable of ours", function()
    start [[
      return { on_event = require "mjhook.handlers.exec" { "/usr/bin/env", "python3", "-c",
        "import os\nlinks = ['/proc/self/fd/%d' % n for n in range(3, 4096)]\n"
        .. "seen = ' '.join(os.readlink(l) for l in links if os.path.lexists(l)) + '|' + ' '.join(os.environ)\n"
        .. "open('DIR/seen', 'w').write(seen)" } }
    ]]
    burst(1)
    kit.wait_until(function() return (kit.read(dir .. "/seen") or ""):find "|" end)
    local files, names = kit.read(dir .. "/seen"):match "^(.*)|(.*)$"
    assert.equal("", files)
    for _, name in ipairs { "MJHOOK", "MIDJOURNEY", "NGINX", "LUA_" } do -- python3 may be a wrapper that adds its own
      assert.is_nil(names:find(name, 1, true), names)
    end
  end)

  -- One in the middle of many quick ones turns out to be slow: it was taken together with some that lie behind it.
  local function assert_nobody_waits()
    local before = socket.gettime()
    burst(60)
    kit.wait_until(function() return #lines "begun" == 60 end)
    kit.wait_until(function() return #lines "done" == 59 end)
    assert.is_true(socket.gettime() - before < 3.9)
    kit.wait_until(function() return mj:stats().events == 0 end)
    local seen = {}
    for _, id in ipairs(lines "begun") do
      assert.is_nil(seen[id], id)
      seen[id] = true
    end
    assert.equal(60, #lines "done")
  end

  it("holds back nothing that was taken together with an event whose handler turns out to be slow", function()
    start(NOTE .. [[
      return { on_event = function(task, ctx)
        note("begun", ctx.event_id)
        if task.task_id == "T20" then
          os.execute "sleep 4"
        end
        note("done", ctx.event_id)
      end }
    ]])
    assert_nobody_waits()
  end)

  it("tries about once a second, not in circles, while nothing can be delivered", function()
    -- A policy that loads in the worker, and in no thread.
    start([[ assert(ngx.timer, "no thread can load this") return { on_event = function() end } ]])
    local task = submit()
    mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "failed", source = "poll",
                       task_id = task.task_id, error = "no" } }
    local function said()
      return select(2, web:log():gsub("events could not be delivered", ""))
    end
    local before = socket.gettime()
    kit.wait_until(function() return said() >= 3 end)
    assert.is_true(said() <= 2 + socket.gettime() - before, said())
  end)

  it("runs the handlers of a policy that stands in the configuration file in threads: nothing else waits", function()
    dir = kit.tmp()
    web = receiver.prepare()
    local policy = [[ policy = { on_event = function()
      assert(io.open("DIR/begun", "w")):close()
      local core = require "mjhook.core"
      local give_up = core.clock() + 5000
      while not io.open "DIR/go_on" and core.clock() < give_up do
        os.execute "sleep 0.01"
      end
    end } } ]]
    policy = policy:gsub("DIR", { DIR = dir })
    local config = web.dir .. "/config.lua"
    kit.write(config, (kit.read(config):gsub("}%s*$", function() return policy end)))
    web:start()
    mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    sim.finish(submit().task_id)
    kit.wait_until(function() return kit.read(dir .. "/begun") end)
    local before = socket.gettime()
    assert.equal(200, (sim.request("GET", web.url .. "/ping")))
    local waited = socket.gettime() - before
    kit.write(dir .. "/go_on", "")
    assert.is_true(waited < 2, waited)
    kit.wait_until(function() return mj:stats().events == 0 end)
  end)

  -- A policy that is a table, in the worker itself.
  local function start_in_worker(handler)
    dir = kit.tmp()
    local conf = [[
      @MAIN@ @THREADS@
      http {
        @HTTP@
        init_by_lua_block {
          POLICY_NOTE
          require("resty.mjhook").init { config = "@DIR@/config.lua", policy = { on_event = function(task, ctx)
            HANDLER
          end } }
        }
        init_worker_by_lua_block { require("resty.mjhook").init_worker() }
        server {
          listen 127.0.0.1:@PORT@;
          location = /ping { return 200 "pong\n"; }
          location = /hook { client_body_buffer_size 1m; content_by_lua_block { require("resty.mjhook").callback() } }
        }
      }
    ]]
    conf = conf:gsub("POLICY_NOTE", function() return (NOTE:gsub("DIR", { DIR = dir })) end)
    web = receiver.start { conf = (conf:gsub("HANDLER", function() return handler end)) }
    mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
  end

  it("runs a policy that is a table in the worker itself", function()
    start_in_worker [[ note("seen", ngx.get_phase() .. " " .. ctx.event_id) ]]
    local task = submit()
    sim.finish(task.task_id)
    kit.wait_until(function() return #lines "seen" == 1 end)
    assert.equal("timer " .. task.ref .. "-1", lines("seen")[1])
    kit.wait_until(function() return mj:stats().events == 0 end)
  end)

  it("holds back no other there either when it waits with nginx's own means", function()
    start_in_worker [[
      note("begun", ctx.event_id)
      if task.task_id == "T20" then
        ngx.sleep(4)
      end
      note("done", ctx.event_id)
    ]]
    assert_nobody_waits()
  end)

  it("leaves events to the reconciler when there is no pool for it, and says so once", function()
    start([[ return { on_event = function() end } ]], { threads = "thread_pool mjhook threads=1;\n"
      .. "thread_pool mjhook_http threads=1;\n" })
    local task = submit()
    sim.finish(task.task_id)
    kit.wait_until(function() return web:log():find("no thread_pool mjhook_deliver", 1, true) end)
    assert.equal("succeeded", mj:get(task.ref).state)
    assert.equal(1, mj:stats().events)
    sim.finish(submit().task_id)
    kit.wait_until(function() return mj:stats().events == 2 end)
    local _, count = web:log():gsub("no thread_pool mjhook_deliver", "")
    assert.equal(1, count)
  end)

  it("runs each event once at a time beside the reconciler and a second worker", function()
    start(NOTE .. [[
      return { on_event = function(task, ctx)
        note("begun", ctx.event_id)
        os.execute "sleep 0.02"
      end }
    ]])
    local tasks = {}
    sim.config { limit = 0 }
    for i = 1, 30 do
      tasks[i] = assert(mj:adopt { task_id = "A" .. i, prompt = "p" })
    end
    local ops = {}
    for i, task in ipairs(tasks) do
      ops[i] = { op = "signal", ref = task.ref, attempt = 1, kind = "succeeded", source = "poll", task_id = "A" .. i,
                 image = "https://img.example/x" }
    end
    assert(mj.exec:commit(ops))
    local sweeps = {}
    for i = 1, 2 do
      sweeps[i] = kit.spawn(("exec %s/bin/mjhook-reconcile -c %s/config.lua --interval 0.1"):format(kit.build, web.dir))
    end
    kit.wait_until(function() return mj:stats().events == 0 end)
    for _, sweep in ipairs(sweeps) do
      sweep:kill "TERM"
      sweep:wait()
    end
    local seen = {}
    for _, id in ipairs(lines "begun") do
      assert.is_nil(seen[id], id)
      seen[id] = true
    end
    assert.equal(30, #lines "begun")
  end)

  it("keeps a task's images by one line of policy, from the callback on", function()
    local server = images.start()
    local settings = server:settings()
    start(('return { on_succeeded = require "mjhook.handlers.archive" { dir = %q, ca_file = %q, '
      .. "loopback = true } }"):format(settings.dir, settings.ca_file))
    local task = submit()
    assert.equal(200, (sim.request("POST", sim.jobs()[1].hookUrl, cjson.encode { status = 0, data = {
      taskId = task.task_id, status = 1, image = server:url "grid",
      images = { server:url "a", server:url "b?kind=jpg" },
    } })))
    kit.wait_until(function() return mj:get(task.ref).files end)
    local files = mj:get(task.ref).files
    assert.equal(3, #files)
    for i, file in ipairs(files) do
      assert.equal(i - 1, file.index)
      assert.matches(("/kept/%%d+%%-%%d+%%-%%d+/%s%%-%d%%.%s$"):format(task.ref, i - 1, i == 3 and "jpg" or "png"),
        file.path)
      assert.equal(file.bytes, #kit.read(file.path))
    end
  end)

  it("shows metrics, with unauthenticated requests, of which nothing is written", function()
    start([[ return {} ]])
    local task = submit()
    sim.finish(task.task_id)
    kit.wait_until(function() return mj:get(task.ref).state == "succeeded" end)
    for _ = 1, 3 do
      assert.equal(401, (sim.request("POST", web.url .. "/hook?ref=" .. task.ref .. "&a=1&kid=x&sig=y", "{}")))
    end
    local code, text, headers = sim.request("GET", web.url .. "/metrics")
    assert.equal(200, code)
    assert.truthy((headers["content-type"] or ""):find("text/plain; version=0.0.4", 1, true))
    assert.truthy(text:find("\nmjhook_callbacks_unauthenticated_total 3\n", 1, true))
    assert.truthy(text:find('\nmjhook_callbacks_total{outcome="stored"} 1\n', 1, true))
    assert.truthy(text:find('mjhook_tasks{state="succeeded"} 1\n', 1, true))
  end)
end)
