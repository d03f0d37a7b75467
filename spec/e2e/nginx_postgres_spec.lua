-- mjhook in a real nginx on a real PostgreSQL server, which goes away and comes back. Skipped, and counted as skipped,
-- where no server is installed.
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local SERVER = kit.quote(kit.root .. "/spec/support/postgres")
local THREADS = [[
thread_pool mjhook threads=4;
thread_pool mjhook_read threads=2;
thread_pool mjhook_http threads=2;
thread_pool mjhook_deliver threads=2;
]]

describe("nginx on PostgreSQL", function()
  local before, dir

  setup(function()
    sim.start()
    before = kit.database
    if select(2, kit.sh(SERVER .. " found")) == 0 then
      dir = kit.sh "mktemp -d -u" -- the server, another user, makes it
      kit.database = kit.sh(SERVER .. " start " .. dir .. " synchronous_commit=on 2>/dev/null")
    end
  end)
  teardown(function()
    sim.stop()
    kit.database = before
    if dir then
      kit.sh(SERVER .. " remove " .. dir)
    end
  end)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj

  local function start()
    if not dir then
      kit.skip "no PostgreSQL server is installed"
    end
    local mark = kit.tmp() .. "/mark"
    local policy = kit.write(kit.tmp() .. "/policy.lua", ([[
      return { on_succeeded = function(task)
        local file = io.open(%q, "a")
        file:write(task.ref, "\n")
        file:close()
      end }]]):format(mark))
    web = receiver.start { threads = THREADS, settings = { policy = policy } }
    mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    return mark
  end

  local function post(task)
    for _, job in ipairs(sim.jobs()) do
      if job.taskId == task.task_id then
        return sim.request("POST", job.hookUrl, ('{"taskId":"%s","status":1,"image":"https://img.example/x"}'):format(
          task.task_id), { ["content-type"] = "application/json" })
      end
    end
  end

  it("stores callbacks, hands out events, and sends what is queued when a slot is free", function()
    local mark = start()
    local tasks = {}
    for i = 1, 11 do
      tasks[i] = assert(mj:submit { prompt = "job " .. i })
    end
    assert.equal("queued", tasks[11].state)
    sim.finish(tasks[1].task_id)
    kit.wait_until(function() return mj:get(tasks[1].ref).state == "succeeded" end)
    kit.wait_until(function() return mj:get(tasks[11].ref).state == "pending" end)
    kit.wait_until(function() return kit.read(mark) == tasks[1].ref .. "\n" end)
    assert.is_true(mj:check().ok)
  end)

  it("takes an edited policy over, for decisions and for handlers that it did not have", function()
    if not dir then
      kit.skip "no PostgreSQL server is installed"
    end
    local mark, path = kit.tmp() .. "/mark", kit.tmp() .. "/policy.lua"
    kit.write(path, 'return { on_callback = function() return "ignore" end }')
    web = receiver.start { threads = THREADS, settings = { policy = path } }
    mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local task = assert(mj:submit { prompt = "a" })
    assert.equal(200, (post(task)))
    assert.equal("pending", mj:get(task.ref).state)
    kit.write(path, ([[return { on_succeeded = function(task)
      local file = io.open(%q, "w")
      file:write(task.ref)
      file:close()
    end }]]):format(mark))
    kit.wait_until(function() return web:log():find("loaded anew", 1, true) end)
    assert.equal(200, (post(task)))
    assert.equal("succeeded", mj:get(task.ref).state)
    kit.wait_until(function() return kit.read(mark) == task.ref end)
  end)

  it("answers 503 while the server is away, holds nothing up, and goes on when it is back", function()
    start()
    local first, second = assert(mj:submit { prompt = "a" }), assert(mj:submit { prompt = "b" })
    assert.equal(200, (post(first)))
    kit.sh(SERVER .. " stop " .. dir .. " immediate")
    for _ = 1, 3 do
      local begun = socket.gettime()
      assert.equal(200, (sim.request("GET", web.url .. "/ping")))
      assert.is_true(socket.gettime() - begun < 2)
      local code, _, headers = post(second)
      assert.equal(503, code)
      assert.matches("^%d+$", headers["retry-after"])
    end
    kit.sh(SERVER .. " restart " .. dir .. " 2>/dev/null")
    kit.wait_until(function() return (post(second)) == 200 end)
    kit.wait_until(function()
      local task = mj:get(second.ref)
      return task and task.state == "succeeded"
    end)
    assert.is_true(mj:check().ok)
  end)

  -- Ends a connection of mjhook's every few milliseconds, until it is killed.
  local function end_connections()
    local file = kit.write(kit.tmp() .. "/sql", "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM "
      .. "pg_stat_activity WHERE application_name = 'mjhook' ORDER BY random() LIMIT 1) AS one \\watch 0.004\n")
    return kit.spawn(("exec psql -X -q -A -t -f %s %s"):format(file, kit.quote(kit.database)))
  end

  -- Sends two callbacks for each task, which contradict each other; gives a line for each: ref and status.
  local function rush(tasks)
    local lines = {}
    for ref, task in pairs(tasks) do
      for status = 1, 2 do
        local body = ('{"taskId":"%s","status":%d,"image":"https://i.example/x"}'):format(task.id, status)
        lines[#lines + 1] = ('silent\nurl = "%s"\ndata = "%s"\noutput = "/dev/null"\nmax-time = 20\n'
          .. 'write-out = "%s %%{http_code}\\n"\nnext\n'):format(task.url, (body:gsub('"', '\\"')), ref)
      end
    end
    local file = kit.write(kit.tmp() .. "/requests", (table.concat(lines):gsub("next\n$", "")))
    return kit.sh(("%s -Z --parallel-immediate --parallel-max 40 -K %s 2>/dev/null"):format(kit.curl, file))
  end

  it("keeps each callback that it acknowledged while connections end under commits that stand in line", function()
    local mark = start()
    local tasks, todo, count, rounds = {}, {}, 80, 0
    for i = 1, count do
      local task = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox" })
      tasks[task.ref] = { id = task.task_id, url = provider.hook_url(mj, task.ref, 1) }
      todo[task.ref] = tasks[task.ref]
    end
    local ender = end_connections()
    while next(todo) do
      rounds = rounds + 1
      assert.is_true(rounds < 50, "callbacks are refused for ever")
      if rounds == 6 then
        ender:kill "TERM"
      end
      for ref, code in rush(todo):gmatch "(%w+) (%d%d%d)" do
        assert.truthy(code == "200" or code == "503", code)
        todo[ref] = code ~= "200" and todo[ref] or nil
      end
    end
    ender:kill "TERM"
    ender:wait()
    assert.matches("%f[%d]1\n", kit.read(ender.dir .. "/out")) -- it has ended some
    local succeeded = {}
    for ref in pairs(tasks) do
      local task = assert(mj:get(ref))
      assert.truthy(task.state == "succeeded" or task.state == "failed", task.state)
      succeeded[#succeeded + 1] = task.state == "succeeded" and ref or nil
    end
    local stats = mj:stats().tasks
    assert.same({ #succeeded, count - #succeeded }, { stats.succeeded, stats.failed })
    kit.wait_until(function()
      local said = kit.read(mark) or ""
      for _, ref in ipairs(succeeded) do
        if not said:find(ref, 1, true) then
          return false
        end
      end
      return true
    end)
    assert.is_true(mj:check().ok)
  end)
end)
