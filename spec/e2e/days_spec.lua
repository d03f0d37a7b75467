-- Days and months of sweeps: the real mjhook-reconcile under libfaketime, which moves its wall clock (and only that),
-- against the simulated provider. This process moves along, when it submits or takes a callback.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"

local PROGRAM = kit.build .. "/bin/mjhook-reconcile"
local FAKETIME = kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"
local MINUTE, HOUR, DAY = 60, 3600, 86400

describe("as days pass,", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir, config, mj, moved, settings

  -- Writes down each event: its type, "late" if so, and the prompt.
  local POLICY = [[
    return { on_event = function(task, ctx)
      local file = assert(io.open("%s", "a"))
      file:write(ctx.type, task.late and " late " or " ", task.prompt, "\n")
      file:close()
    end %s }]]

  local function configure()
    config = kit.write(dir .. "/config.lua", "local settings = " .. receiver.config_text(settings):gsub("^return ", "")
      .. "\nsettings.poll, settings.retention = " .. settings.tables .. "\nsettings.tables = nil\nreturn settings\n")
  end

  -- A store, and its configuration; `decisions` are further functions of the policy.
  local function open(more, decisions)
    assert(FAKETIME ~= "", "libfaketime is not installed")
    dir, moved = kit.tmp(), 0
    mj = kit.open(more, sim)
    settings = kit.settings(more, sim)
    settings.log, settings.poll, settings.retention = nil, nil, nil
    local poll, retention = more and more.poll or {}, more and more.retention or {}
    settings.tables = ("{ first = %s, max = %s }, { succeeded = %s, failed = %s, lost = %s }"):format(poll.first or 60,
      poll.max or 900, retention.succeeded or -1, retention.failed or -1, retention.lost or -1)
    settings.policy = kit.write(dir .. "/policy.lua", POLICY:format(dir .. "/events", decisions or ""))
    configure()
  end

  local function travel(seconds)
    moved = moved + seconds
    kit.travel(seconds)
  end

  -- Shell words before a program whose clock is moved; with a file, as the file says from moment to moment.
  local function faketime(file)
    local clock = file and "FAKETIME_NO_CACHE=1 FAKETIME_TIMESTAMP_FILE=" .. file or ("FAKETIME=%+d"):format(moved)
    return ("env -i PATH=/usr/bin:/bin ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s %s %s"):format(FAKETIME,
      "FAKETIME_DONT_FAKE_MONOTONIC=1", clock)
  end

  -- One pass of the program. Gives its report.
  local function pass()
    local out, code = kit.sh(("cd / && %s %s -c %s --json"):format(faketime(), PROGRAM, config))
    local report = cjson.decode(out:match "{.*}")
    assert.equal(report.errors > 0 and 1 or 0, code, out)
    return report
  end

  -- Passes for so long, those of a cron of so many seconds (60) that find something to do. `each` is called after each.
  local function live(seconds, each, every)
    every = every or MINUTE
    local stop = core.now() + seconds * 1000
    repeat
      local due = stop
      for _, name in ipairs { "poll", "resolve" } do
        local page = assert(mj.store:page { by = "due", due = name, ["until"] = stop, limit = 1 })
        due = page[1] and math.min(due, page[1].due_at) or due
      end
      travel(math.max(math.ceil((due - core.now()) / 1000 / every), 1) * every)
      pass()
      if each and each() then
        return
      end
    until core.now() >= stop
  end

  local function submit(prompt, more)
    local args = { prompt = prompt }
    for k, v in pairs(more or {}) do
      args[k] = v
    end
    return (assert(mj:submit(args)))
  end

  local function state(task)
    return mj:get(task.ref).state
  end

  local function events()
    return kit.read(dir .. "/events") or ""
  end

  local function callback(task, body)
    body.taskId = body.taskId or task.task_id
    return mj:callback { method = "POST", uri = provider.hook_url(mj, task.ref, task.attempt), headers = {},
                         body = cjson.encode(body), peer = "127.0.0.1" }.status
  end

  local function settle_and_check()
    assert.same({}, assert(mj:check()).problems)
    assert.same({}, sim.ledger().billed_twice)
  end

  it("a task past its timeout is polled, and not presumed to be anything", function()
    open()
    local task = submit("fox", { timeout = 300 })
    travel(10 * HOUR) -- nobody swept; it should have ended long ago
    assert.equal(1, pass().polled)
    assert.same({ "pending", 1 }, { state(task), mj:get(task.ref).polls })
    live(12 * HOUR)
    assert.equal("pending", state(task))
    sim.finish(task.task_id)
    live(20 * MINUTE)
    assert.equal("succeeded", state(task))
    assert.equal("succeeded fox\n", events())
    settle_and_check()
  end)

  it("a running task is asked about after 1, 2, 4, 8 and then every 15 minutes, give or take a fifth", function()
    open { lost_after = 7 * DAY }
    local task = submit "fox"
    local waits = {}
    for i = 1, 12 do
      local wait = (mj:get(task.ref).due_at - core.now()) / 1000
      waits[i] = wait
      travel(math.floor(wait) - 1)
      assert.equal(0, pass().polled)
      travel(2)
      assert.equal(1, pass().polled)
    end
    for i, wait in ipairs(waits) do
      local middle = math.min(60 * 2 ^ (i - 1), 900)
      assert.is_true(wait > middle * 0.8 - 3 and wait < middle * 1.2 + 3, i .. ": " .. wait)
    end
    assert.equal(12, sim.requests "status")
  end)

  it("what the provider does not know is lost: three answers over ten minutes, after timeout and grace", function()
    open { poll = { first = 60, max = 120 } }
    local gone = submit "gone"
    for i = 1, 6 do
      submit(("there %d [ms=99999999]"):format(i), { timeout = 1200 })
    end
    sim.forget(gone.task_id)
    local born = core.now()
    live(2 * HOUR, function() return state(gone) ~= "pending" end)
    gone = mj:get(gone.ref)
    assert.same({ "lost", "poll", "lost" }, { gone.state, gone.source, gone.error.code })
    local age = (gone.finished_at - born) / 1000
    assert.is_true(age >= 600 + 300 + 600, age) -- timeout, grace, ten minutes
    assert.is_true(age < HOUR, age)
    assert.equal("lost gone\n", events())
    assert.equal(6, mj:stats().tasks.pending)
    assert.is_true(gone.polls > 6, gone.polls) -- also before, and that counted for nothing
    settle_and_check()
  end)

  it("what is said to run for ever is lost after lost_after of answers; ten hours of outage don't count", function()
    open { poll = { first = 60, max = 1800 } }
    local task = submit "fox"
    local born = core.now()
    live(12 * HOUR)
    sim.config { status = { http_503 = 1 } }
    live(10 * HOUR)
    sim.config { status = { http_503 = 0 } }
    live(11 * HOUR)
    assert.equal("pending", state(task)) -- 33 hours later
    assert.equal("", events())
    live(6 * HOUR, function() return state(task) ~= "pending" end)
    task = mj:get(task.ref)
    assert.equal("lost", task.state)
    assert.matches("running", task.error.message)
    local hours = (task.finished_at - born) / 1000 / HOUR
    assert.is_true(hours > 33 and hours < 37, hours)
    assert.equal("lost fox\n", events())
    settle_and_check()
  end)

  local outages = {
    ["is down"] = { status = { http_503 = 1 } },
    ["answers garbage"] = { status = { garbage = 1 } },
    ["resets connections"] = { status = { reset = 1 } },
    ["refuses the key"] = { keys = { "another" } },
  }
  for name, switches in pairs(outages) do
    it("nothing is lost while the provider " .. name .. " for three days, and then the truth arrives", function()
      open { lost_after = 2 * HOUR }
      local good, bad, running = submit "good", submit "bad", submit "running"
      sim.finish(good.task_id)
      sim.finish(bad.task_id, 2, "banned")
      sim.config(switches)
      live(3 * DAY, nil, 2 * HOUR)
      assert.is_true(sim.requests "status" > 30)
      assert.same({ 3, "" }, { mj:stats().tasks.pending, events() })
      sim.config { keys = { kit.KEY }, status = { http_503 = 0, garbage = 0, reset = 0 } }
      live(HOUR)
      assert.same({ "succeeded", "failed", "pending" }, { state(good), state(bad), state(running) })
      assert.matches("succeeded good\n", events())
      assert.matches("failed bad\n", events())
      settle_and_check()
    end)
  end

  it("nothing is lost when no pass runs for a month", function()
    open()
    local good, running = submit "good", submit "running"
    live(10 * MINUTE)
    sim.finish(good.task_id)
    travel(30 * DAY)
    pass()
    live(HOUR)
    assert.same({ "succeeded", "pending" }, { state(good), state(running) })
    assert.equal("succeeded good\n", events())
  end)

  it("what is lost yields to the provider's status days later, and the event says that it is late", function()
    open { lost_after = 2 * HOUR }
    local one, two = submit "one", submit "two"
    live(3 * HOUR, function() return mj:stats().tasks.lost == 2 end)
    assert.same({ "lost", "lost" }, { state(one), state(two) })
    travel(3 * DAY)
    assert.equal(200, callback(one, { status = 1, image = "https://img.example/x" }))
    assert.equal(200, callback(two, { status = 0 })) -- it lives: asked about again from now on
    assert.same({ "succeeded", "pending" }, { state(one), state(two) })
    sim.finish(two.task_id, 2, "banned")
    live(HOUR)
    assert.equal("failed", state(two))
    local told = events()
    assert.equal(4, select(2, told:gsub("\n", "")), told)
    for _, line in ipairs { "lost one\n", "lost two\n", "succeeded late one\n", "failed late two\n" } do
      assert.is_truthy(told:find(line, 1, true), told)
    end
    settle_and_check()
  end)

  describe("an ambiguous task", function()
    local function ambiguous(decisions, prompt)
      open(nil, decisions and ", resolve_ambiguous = " .. decisions)
      sim.script { submit = { "cut_after" } }
      local task = submit(prompt or "fox")
      assert.equal("ambiguous", task.state)
      return task
    end

    it("is lost after timeout and grace, and not a minute before", function()
      local task = ambiguous()
      for _ = 1, 14 do
        travel(MINUTE)
        assert.equal(0, pass().lost)
      end
      assert.same({ "ambiguous", "ambiguous fox\n" }, { state(task), events() })
      travel(MINUTE + 1)
      assert.equal(1, pass().lost)
      assert.same({ "lost", "ambiguous fox\nlost fox\n" }, { state(task), events() })
      travel(5 * DAY)
      local job = sim.jobs()[1]
      assert.equal(200, callback(task, { taskId = job.taskId, status = 1, image = "https://img.example/x" }))
      pass()
      assert.same({ "succeeded", job.taskId }, { state(task), mj:get(task.ref).task_id })
      assert.equal("ambiguous fox\nlost fox\nsucceeded late fox\n", events())
      assert.equal(1, sim.requests "submit")
      settle_and_check()
    end)

    it("is adopted by a callback before that", function()
      local task = ambiguous()
      live(10 * MINUTE)
      assert.equal(200, callback(task, { taskId = sim.jobs()[1].taskId, status = 0 }))
      assert.equal("pending", state(task))
      sim.finish(sim.jobs()[1].taskId)
      live(DAY)
      assert.equal("succeeded", state(task))
      assert.equal("ambiguous fox\nsucceeded fox\n", events())
      assert.equal(1, sim.requests "submit")
    end)

    it("waits as many days as the policy says", function()
      local task = ambiguous [[function(task, now)
        if now - task.submitted_at < 3 * 86400000 then return "wait", 21600 end
        return "lost"
      end]]
      live(2.9 * DAY)
      assert.equal("ambiguous", state(task))
      live(0.5 * DAY)
      assert.equal("lost", state(task))
    end)

    it("is sent again, once, when the policy says so", function()
      local task = ambiguous [[function() return "resubmit" end]]
      live(14 * MINUTE)
      assert.equal(1, sim.requests "submit")
      live(HOUR)
      assert.same({ "pending", 2 }, { state(task), mj:get(task.ref).attempt })
      assert.equal(2, sim.requests "submit")
      settle_and_check()
    end)
  end)

  it("final tasks are pruned by their retention, and keys and ids remembered for key_ttl", function()
    open { retention = { succeeded = 7 * DAY, failed = 30 * DAY }, key_ttl = 60 * DAY }
    local good, bad, running = submit("good", { key = "k1" }), submit("bad", { key = "k2" }), submit "running"
    sim.finish(good.task_id)
    sim.finish(bad.task_id, 2, "banned")
    live(HOUR)
    assert.same({ "succeeded", "failed" }, { state(good), state(bad) })
    travel(6 * DAY)
    assert.equal(0, pass().pruned)
    travel(DAY)
    assert.equal(1, pass().pruned)
    assert.is_nil(mj:get(good.ref))
    assert.equal("failed", state(bad))
    -- The key gives what is left of it, and sends nothing.
    local again = assert(mj:submit { prompt = "good", key = "k1" })
    assert.same({ good.ref, true, "succeeded" }, { again.ref, again.pruned, again.state })
    assert.equal(200, callback(good, { status = 1, image = "https://img.example/x" })) -- and so does a late callback
    travel(23 * DAY)
    assert.equal(1, pass().pruned)
    assert.is_nil(mj:get(bad.ref))
    assert.equal("pending", state(running)) -- which is not final, however old
    travel(50 * DAY)
    pass()
    pass()
    local new = assert(mj:submit { prompt = "good", key = "k1" })
    assert.is_true(new.ref ~= good.ref and not new.pruned and not new.duplicate)
    settle_and_check()
  end)

  it("an event that waits keeps its task from being pruned", function()
    open { retention = { succeeded = DAY } }
    kit.write(dir .. "/policy.lua", "return { on_event = function() error('no disk', 0) end }")
    local task = submit "fox"
    sim.finish(task.task_id)
    travel(2 * MINUTE)
    pass()
    for _ = 1, 4 do
      travel(2 * DAY)
      assert.equal(0, pass().pruned)
    end
    assert.equal("succeeded", state(task))
    kit.write(dir .. "/policy.lua", POLICY:format(dir .. "/events", ""))
    travel(2 * HOUR)
    assert.equal(1, pass().delivered)
    travel(MINUTE)
    pass()
    assert.is_nil(mj:get(task.ref))
    assert.equal("succeeded fox\n", events())
  end)

  describe("a clock that is stepped", function()
    for name, steps in pairs {
      ["a day back and forth"] = { -DAY, DAY }, ["a day forth and back"] = { DAY, -DAY },
      ["an hour to and fro, again and again"] = { HOUR, -2 * HOUR, 2 * HOUR, -HOUR, -HOUR, HOUR },
    } do
      it(name .. " between passes loses nothing, sends nothing twice and tells nothing twice", function()
        open({ max_in_flight = 4, lost_after = 2 * HOUR })
        local tasks = {}
        for i = 1, 6 do
          tasks[i] = submit("fox " .. i) -- two of them wait
        end
        sim.script { submit = { "cut_after" } }
        pass()
        sim.finish(tasks[1].task_id)
        for i, step in ipairs(steps) do
          travel(step)
          pass()
          pass()
          assert.equal(200, callback(mj:get(tasks[i % 4 + 1].ref), { status = 0 })) -- callbacks are taken at any time
          local extra = submit("extra " .. i)
          assert.is_truthy(extra.ref > tasks[#tasks].ref) -- refs ascend, whatever the clock says
          tasks[#tasks + 1] = extra
        end
        -- Only the one whose answer was cut can be given up, when the clock says that its time is over.
        assert.is_true(mj:stats().tasks.lost <= 1)
        assert.equal(0, mj:stats().tasks.failed)
        for _ = 1, 26 do -- and with the right time everything comes to its end
          for _, job in ipairs(sim.jobs()) do
            if job.status == 0 then
              sim.finish(job.taskId)
            end
          end
          live(HOUR)
        end
        for _, task in ipairs(tasks) do
          assert.is_truthy(("succeeded lost"):find(state(task), 1, true), task.prompt .. ": " .. state(task))
        end
        assert.is_true(mj:stats().tasks.lost <= 1)
        local told = events()
        for _, task in ipairs(tasks) do
          local _, n = told:gsub("succeeded l?a?t?e? ?" .. task.prompt .. "\n", "")
          assert.equal(state(task) == "succeeded" and 1 or 0, n, told)
        end
        settle_and_check()
      end)
    end

    it("a day forth and then back puts off no poll", function()
      open()
      local task = submit "fox"
      travel(DAY)
      assert.equal(1, pass().polled) -- the next one is due in a day
      sim.finish(task.task_id)
      travel(-DAY)
      assert.equal(1, pass().polled)
      assert.equal("succeeded", state(task))
      assert.equal(0, pass().polled)
    end)

    it("a year back after a task was submitted does not keep it waiting for a year", function()
      open()
      local task = submit "fox"
      pass()
      sim.finish(task.task_id)
      travel(-365 * DAY)
      pass()
      live(5 * MINUTE)
      assert.equal("succeeded", state(task))
      assert.equal("succeeded fox\n", events())
    end)

    for name, step in pairs { ["a day forth"] = DAY, ["a day back"] = -DAY } do
      it(name .. " during a pass neither ends it early nor keeps it, and the tasks get what was answered", function()
        open { batch = 2, connections = 1 }
        local tasks = {}
        for i = 1, 6 do
          tasks[i] = submit("fox " .. i)
          sim.finish(tasks[i].task_id)
        end
        travel(2 * MINUTE)
        local file = kit.write(dir .. "/clock", ("%+d"):format(moved))
        sim.script { status = { { fault = "slow", ms = 400, n = 3 } } }
        local before = core.clock()
        local child = kit.spawn(("cd / && exec %s %s -c %s --json --budget 10"):format(faketime(file), PROGRAM, config))
        kit.wait_until(function() return sim.requests "status" == 1 end)
        kit.write(file .. ".new", ("%+d"):format(moved + step))
        assert(os.rename(file .. ".new", file))
        assert.equal(0, child:wait())
        assert.is_true(core.clock() - before < 9000)
        assert.equal(6, cjson.decode(child:out()).succeeded)
        assert.equal(6, select(2, events():gsub("\n", "")) + mj:stats().events) -- an event may wait for its time
        travel(2 * DAY)
        pass()
        assert.equal(6, select(2, events():gsub("succeeded fox %d\n", "")))
        settle_and_check()
      end)

      it(name .. " while the provider hangs does not move the budget's end", function()
        open()
        local task = submit "fox"
        travel(2 * MINUTE)
        local file = kit.write(dir .. "/clock", ("%+d"):format(moved))
        sim.script { status = { "hang" } }
        local before = core.clock()
        local child = kit.spawn(("cd / && exec %s %s -c %s --json --budget 2"):format(faketime(file), PROGRAM, config))
        kit.wait_until(function() return sim.requests "status" == 1 end)
        kit.write(file .. ".new", ("%+d"):format(moved + step))
        assert(os.rename(file .. ".new", file))
        child:wait()
        local took = core.clock() - before
        assert.is_true(took > 1500 and took < 15000, took)
        assert.equal("pending", state(task))
        assert.equal("", events())
      end)
    end

    it("does not make a service run in circles or fall asleep", function()
      open()
      local task = submit "fox"
      local file = kit.write(dir .. "/clock", "+0")
      local child = kit.spawn(("cd / && exec %s %s -c %s --json --interval 0.2"):format(faketime(file), PROGRAM,
        config))
      local function passes()
        return select(2, child:out():gsub("\n", ""))
      end
      kit.wait_until(function() return passes() > 0 end)
      for _, clock in ipairs { DAY, -DAY, 0 } do
        kit.write(file .. ".new", ("%+d"):format(clock))
        assert(os.rename(file .. ".new", file))
        local before, since = passes(), core.clock()
        kit.wait_until(function() return passes() >= before + 3 end)
        assert.is_true(core.clock() - since > 300)
      end
      sim.finish(task.task_id)
      kit.write(file .. ".new", "+7200")
      assert(os.rename(file .. ".new", file))
      kit.wait_until(function() return events() == "succeeded fox\n" end)
      child:kill "TERM"
      assert.equal(0, child:wait())
    end)
  end)
end)
