-- What the store remembers of how things go: the metrics, the schedule that it makes, the verdict on the webhook.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("experience", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(function()
    sim.reset()
    sim.config { limit = 0 }
  end)
  after_each(kit.cleanup)

  local mj, n

  local function open(more)
    local settings = { max_in_flight = 1000, batch = 50 }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    n = 0
    mj = kit.open(settings, sim)
    return mj
  end

  local function submit(mode)
    n = n + 1
    return (assert(mj:submit { prompt = "fox " .. n, mode = mode }))
  end

  local function call_back(task)
    local results = assert(mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "succeeded",
      source = "callback", task_id = task.task_id, image = "https://img.example/x.png" } })
    return results[1].code
  end

  -- So many tasks that end after so many seconds, with a callback or learned of by a sweep.
  local function live(count, seconds, how, mode)
    local tasks = {}
    for i = 1, count do
      tasks[i] = submit(mode)
    end
    kit.travel(seconds)
    for _, task in ipairs(tasks) do
      if how == "callback" then
        assert.equal("ok", call_back(task))
      else
        sim.finish(task.task_id)
      end
    end
    if how ~= "callback" then
      assert.equal(count, assert(mj:reconcile()).succeeded)
    end
    return tasks
  end

  -- The metrics as a table: name with its labels as written, to number.
  local function metrics()
    local list, typed = {}, {}
    for line in assert(mj:metrics()):gmatch "[^\n]+" do
      local name, kind = line:match "^# TYPE (mjhook_[%l_]+) (%l+)$"
      if name then
        assert.is_nil(typed[name])
        typed[name] = kind
      elseif not line:match "^# HELP mjhook_[%l_]+ .+%.$" then
        local key, value = line:match "^(mjhook_%S+) (%d+%.?%d*)$"
        assert.truthy(key, line)
        assert.is_nil(list[key], key)
        list[key] = tonumber(value)
        local base = key:match "^[%l_]+"
        assert.truthy(typed[base] or typed[base:gsub("_bucket$", ""):gsub("_sum$", ""):gsub("_count$", "")], base)
      end
    end
    return list
  end

  describe("as metrics", function()
    it("counts what became of callbacks, submissions, polls and events", function()
      open { policy = { on_event = function() return false, "not today" end } }
      local task = submit()
      local other = submit()
      assert.equal("ok", call_back(task))
      assert.equal("duplicate", call_back(task))
      mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "failed", source = "callback",
                         task_id = task.task_id, error = "no" } }
      mj.exec:commit {
        { op = "signal", ref = ("0"):rep(26), attempt = 1, kind = "failed", source = "callback", task_id = "nobody" },
        { op = "refuse", ref = task.ref, attempt = 1, error = "not JSON", body = "x" },
      }
      kit.travel(70)
      sim.finish(other.task_id)
      assert(mj:reconcile())
      local seen = metrics()
      local function is(name, value)
        assert.equal(value, seen["mjhook_" .. name], name)
      end
      is('callbacks_total{outcome="stored"}', 1)
      is('callbacks_total{outcome="duplicate"}', 1)
      is('callbacks_total{outcome="stale"}', 1)
      is('callbacks_total{outcome="unknown"}', 1)
      is('callbacks_total{outcome="refused"}', 1)
      is('submissions_total{outcome="accepted"}', 2)
      is('ended_total{source="callback"}', 1)
      is('ended_total{source="poll"}', 1)
      is('polled_tasks_total{result="answered"}', 1)
      is("poll_requests_total", 1)
      is('events_total{outcome="retried"}', 2)
      is("events_waiting", 2)
      is("sweeps_total", 1)
      is('tasks{state="succeeded"}', 2)
      is('slots_held{account="default"}', 0)
      is('slots_max{account="default"}', 1000)
      is("callback_missing_ratio", 0.5)
    end)

    it("puts the time from submission to the end into buckets, by mode", function()
      open()
      live(3, 12, "callback")
      live(2, 65, "poll")
      live(1, 700, "callback", "relaxed")
      local seen = metrics()
      local function bucket(mode, le)
        return seen[('mjhook_task_duration_seconds_bucket{mode="%s",le="%s"}'):format(mode, le)]
      end
      assert.same({ 0, 3, 3, 5, 5 }, { bucket("fast", 10), bucket("fast", 15), bucket("fast", 60), bucket("fast", 75),
                                       bucket("fast", "+Inf") })
      assert.same({ 0, 1, 1 }, { bucket("relaxed", 600), bucket("relaxed", 900), bucket("relaxed", "+Inf") })
      assert.equal(5, seen['mjhook_task_duration_seconds_count{mode="fast"}'])
      local sum = seen['mjhook_task_duration_seconds_sum{mode="fast"}']
      assert.is_true(sum > 3 * 12 + 2 * 65 and sum < 3 * 12 + 2 * 65 + 30)
    end)

    it("tells how long the oldest task and the first event wait, and when the last pass was", function()
      open()
      assert.same({ 0, 0 }, { metrics().mjhook_oldest_unresolved_seconds, metrics().mjhook_events_overdue_seconds })
      assert.is_nil(metrics().mjhook_last_sweep_age_seconds)
      assert(mj:reconcile())
      submit()
      call_back(submit())
      kit.travel(40)
      local seen = metrics()
      for _, name in ipairs { "oldest_unresolved", "events_overdue", "last_sweep_age" } do
        local value = seen["mjhook_" .. name .. "_seconds"]
        assert.is_true(value >= 40 and value < 50, name .. " " .. value)
      end
    end)

    it("writes names of accounts so that no name can break a line", function()
      open { accounts = { { name = 'a"b\\c', max_in_flight = 2 } } }
      assert.equal(2, metrics()['mjhook_slots_max{account="a\\"b\\\\c"}'])
    end)
  end)

  describe("makes a schedule", function()
    local function first_wait(mode)
      local task = submit(mode)
      return (task.due_at - task.submitted_at) / 1000
    end

    it("whose first poll is when a callback of that mode is late", function()
      open()
      live(31, 22, "callback")
      assert.is_true(math.abs(first_wait() - 60) < 1)
      live(1, 22, "callback")
      assert.is_true(math.abs(first_wait() - 25) < 1, first_wait())
      assert.is_true(math.abs(first_wait "relaxed" - 60) < 1)
      assert.equal(25000, mj:stats().first_poll_ms.fast)
    end)

    it("which another process and a later one go by, too", function()
      open()
      live(32, 22, "callback")
      mj:close()
      open()
      assert.is_true(math.abs(first_wait() - 25) < 1)
    end)

    it("not when it is told to keep to what is configured", function()
      open { poll = { learn = false } }
      live(40, 22, "callback")
      assert.is_true(math.abs(first_wait() - 60) < 1)
    end)

    it("that takes along in a half-empty request what is due soon, and not what is due later", function()
      open { batch = 10, poll = { first = 60, learn = false } }
      local late = submit()
      kit.travel(50)
      local soon = { submit(), submit() }
      kit.travel(5)
      local fresh = submit()
      kit.travel(46) -- 101 s, 51 s and 46 s after their submissions
      local report = assert(mj:reconcile())
      assert.same({ 4, 1 }, { report.polled, report.requests })
      report = assert(mj:reconcile())
      assert.same({ 0, 0 }, { report.polled, report.requests })
      kit.travel(100)
      local other = submit()
      assert(mj:reconcile())
      assert.equal(0, mj:get(other.ref).polls)
      for _, task in ipairs { late, soon[1], soon[2], fresh } do
        assert.is_true(mj:get(task.ref).polls >= 1)
      end
    end)

    it("that is spread when the provider was away", function()
      open { poll = { first = 60, learn = false } }
      local tasks = {}
      for i = 1, 40 do
        tasks[i] = submit()
      end
      kit.travel(61)
      mj.config.base_url = "http://127.0.0.1:1"
      assert(mj:reconcile())
      local low, high = math.huge, 0
      for _, task in ipairs(tasks) do
        local wait = (mj:get(task.ref).due_at - core.now()) / 1000
        low, high = math.min(low, wait), math.max(high, wait)
      end
      assert.is_true(low > 28 and high < 92, low .. " " .. high)
      assert.is_true(high - low > 30, low .. " " .. high)
    end)
  end)

  describe("of the webhook", function()
    local function said(level)
      local count = 0
      for _, entry in ipairs(kit.logged) do
        count = count + (entry.level == level and entry.message:find("callbacks", 1, true) and 1 or 0)
      end
      return count
    end

    it("is said once when callbacks do not come, polls come sooner, and their coming again is noticed", function()
      open()
      live(9, 70, "poll")
      assert.equal(0, said "error")
      live(2, 70, "poll")
      assert.equal(1, said "error")
      assert.truthy(mj:stats().webhook.broken_since)
      assert.equal(1, metrics().mjhook_webhook_broken)
      assert.equal(1, metrics().mjhook_callback_missing_ratio)
      local task = submit()
      assert.is_true(math.abs((task.due_at - task.submitted_at) / 1000 - 30) < 1)
      live(12, 70, "poll")
      assert.equal(1, said "error")
      live(6, 5, "callback")
      assert(mj:reconcile())
      assert.equal(1, said "notice")
      assert.is_nil(mj:stats().webhook.broken_since)
      assert(mj:reconcile())
      assert.same({ 1, 1 }, { said "error", said "notice" })
    end)

    it("counts a callback that came after the poll as one that came", function()
      open()
      for _, task in ipairs(live(15, 70, "poll")) do
        call_back(task)
      end
      local stats = mj:stats()
      assert.same({ 15, 15 }, { stats.webhook.ended, stats.webhook.called })
    end)

    it("is not judged where there is none", function()
      mj = assert(require("mjhook").open { store = kit.tmp() .. "/s", api_key = kit.KEY, base_url = sim.url,
                                           log = function() error "said something" end })
      kit.finally(function()
        mj:close()
      end)
      for i = 1, 10 do
        local task = assert(mj:submit { prompt = "fox " .. i })
        sim.finish(task.task_id)
      end
      kit.travel(70)
      assert.equal(10, assert(mj:reconcile()).succeeded)
      assert.is_nil(mj:stats().webhook.broken_since)
    end)

    it("with trust = verify knows that a callback came, though it is not believed", function()
      open { trust = "verify" }
      local tasks = {}
      for i = 1, 12 do
        tasks[i] = submit()
        mj.exec:commit { { op = "signal", ref = tasks[i].ref, attempt = 1, kind = "look", source = "callback",
                           task_id = tasks[i].task_id } }
        sim.finish(tasks[i].task_id)
      end
      assert.equal(12, assert(mj:reconcile()).succeeded)
      assert.same({ 12, 12 }, { mj:stats().webhook.ended, mj:stats().webhook.called })
      assert.equal(0, said "error")
    end)
  end)
end)
