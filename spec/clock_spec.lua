-- A clock that was ahead and is set right: nothing waits for the time that it showed.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

local HOUR = 3600

describe("a clock that was an hour ahead and is set right", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function failing(more)
    local settings = { works = false, runs = 0 }
    settings.policy = { on_failed = function()
      settings.runs = settings.runs + 1
      return settings.works, "not yet"
    end }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    local works = function() settings.works = true end
    local mj = kit.open({ policy = settings.policy, handler_timeout = 30 }, sim)
    return mj, works, settings
  end

  local function failed(mj, id)
    local task = assert(mj:adopt { task_id = id or "T1", prompt = "a fox" })
    assert(mj.exec:commit { { op = "signal", kind = "failed", source = "callback", task_id = id or "T1",
                              error = "x" } })
    return task
  end

  it("leaves no event waiting whose handler failed", function()
    local mj, works = failing()
    failed(mj)
    kit.travel(HOUR)
    assert.equal(1, assert(mj:deliver()).errors)
    kit.travel(-HOUR + 60)
    works()
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal(0, mj:stats().events)
  end)

  it("leaves no event waiting that came to be under it, nor the one behind it", function()
    local mj, works = failing()
    works()
    kit.travel(HOUR)
    failed(mj)
    assert(mj.exec:commit { { op = "signal", kind = "resubmit", source = "user", ref = mj:find("T1").ref },
                            { op = "signal", kind = "failed", source = "callback", ref = mj:find("T1").ref,
                              task_id = "T2" } })
    kit.travel(-HOUR)
    assert.equal(2, assert(mj:deliver()).delivered)
  end)

  it("ends a lease after the time that it can take, and not before", function()
    local mj, works = failing()
    works()
    failed(mj)
    kit.travel(HOUR)
    local leased = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1] -- and its holder dies
    assert.equal("ok", leased.code)
    kit.travel(-HOUR)
    assert.equal(0, assert(mj:deliver()).delivered)
    kit.travel(50)
    assert.equal(0, assert(mj:deliver()).delivered)
    kit.travel(11)
    assert.equal(1, assert(mj:deliver()).delivered)
  end)

  it("keeps no account resting", function()
    sim.script { submit = { { fault = "rate_limit", retry_after = 1 } } }
    local mj = kit.open(nil, sim)
    kit.travel(HOUR)
    assert.equal("queued", assert(mj:submit { prompt = "1" }).state)
    kit.travel(-HOUR + 2)
    local account = mj:stats().accounts[1]
    assert.is_true(account.paused_until <= core.now())
    assert.equal("pending", assert(mj:submit { prompt = "2" }).state)
    assert.equal(2, mj:reconcile({}).pending)
  end)

  it("keeps no learned cap from rising", function()
    sim.script { submit = { "ok", "concurrency" } }
    local mj = kit.open(nil, sim)
    mj:submit { prompt = "1" }
    kit.travel(HOUR)
    mj:submit { prompt = "2" }
    assert.equal(1, mj:stats().accounts[1].learned)
    kit.travel(-HOUR)
    mj:reconcile {}
    kit.travel(180)
    mj:reconcile {}
    assert.is_true(mj:stats().accounts[1].learned >= 3)
  end)

  it("keeps no job queued that was told to wait", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1" }, sim)
    kit.travel(HOUR)
    local task = assert(mj:submit { prompt = "a fox" })
    assert.equal("queued", task.state)
    kit.travel(-HOUR + 10)
    mj = kit.open(nil, sim)
    mj:reconcile {}
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("lets no job expire an hour late", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1" }, sim)
    kit.travel(HOUR)
    local task = assert(mj:submit { prompt = "a fox", expires = 60 })
    kit.travel(-HOUR)
    mj:reconcile {}
    assert.equal("queued", mj:get(task.ref).state)
    kit.travel(61)
    mj:reconcile {}
    assert.equal("expired", mj:get(task.ref).error.code)
  end)

  it("puts off no poll, also when no pass ran under it", function()
    local mj = kit.open(nil, sim)
    kit.travel(HOUR)
    local task = assert(mj:submit { prompt = "a fox" })
    sim.finish(task.task_id)
    kit.travel(-HOUR)
    mj:reconcile {}
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("leaves no dead submitter unnoticed", function()
    local mj = kit.open(nil, sim)
    kit.travel(HOUR)
    local results = assert(mj.exec:commit { { op = "create", source = "user", want = true,
                                              task = { prompt = "a fox", fingerprint = ("f"):rep(16) } } })
    local claimed = assert(mj.exec:commit { { op = "claim", source = "submit", want = true } })[1]
    assert.equal(results[1].task.ref, claimed.task.ref)
    kit.travel(-HOUR)
    mj:reconcile {}
    assert.equal("submitting", mj:get(claimed.task.ref).state) -- its owner, which is us, is alive
    kit.travel(200)
    mj:reconcile {}
    assert.equal("ambiguous", mj:get(claimed.task.ref).state)
  end)

  it("holds no slot longer than a job can take, nor leaves it in doubt for longer", function()
    sim.script { submit = { "cut_after" } }
    local mj = kit.open(nil, sim)
    kit.travel(HOUR)
    local task = assert(mj:submit { prompt = "a fox", timeout = 300 })
    assert.equal("ambiguous", task.state)
    kit.travel(-HOUR)
    mj:reconcile {}
    assert.equal(1, mj:stats().accounts[1].held)
    kit.travel(601)
    mj:reconcile {}
    assert.equal(0, mj:stats().accounts[1].held)
    assert.equal("lost", mj:get(task.ref).state)
  end)

  it("is said, and what it touched is in the timeline", function()
    local mj = kit.open(nil, sim)
    kit.travel(HOUR)
    local task = assert(mj:submit { prompt = "a fox" })
    kit.travel(-HOUR)
    mj:reconcile {}
    assert.matches("clock was set back by 3%d%d%d s", kit.log_text())
    local timeline = mj:get(task.ref).timeline
    assert.same({ "ready", "the clock was set back" }, { timeline[4].signal, timeline[4].reason })
    kit.logged = {}
    mj:reconcile {}
    assert.equal("", kit.log_text())
  end)

  it("is made up for a part at a time, whatever the number of tasks", function()
    local mj = kit.open({ max_in_flight = 1000 }, sim)
    kit.travel(HOUR)
    local ops = {}
    for i = 1, 1000 do
      ops[i] = { op = "create", source = "user", account = "default", task_id = "T" .. i,
                 task = { prompt = "p", fingerprint = ("f"):rep(16) } }
    end
    assert(mj.exec:commit(ops))
    kit.travel(-HOUR)
    assert(mj:adopt { task_id = "one-more", prompt = "p" }) -- any write does a bounded part of it
    local function due()
      local n, cursor = 0, nil
      repeat
        local page
        page, cursor = mj.store:page { by = "due", due = "poll", ["until"] = core.now(), brief = true, cursor = cursor }
        n = n + #page
      until not cursor
      return n
    end
    local first = due()
    assert.is_true(first > 0 and first < 500, first)
    for _ = 1, 50 do
      assert(mj.exec:commit { { op = "tick", limit = 100 } })
    end
    assert.equal(1000, due())
    assert.is_true(mj:check().ok)
  end)

  it("changes nothing when it was ahead by less than a minute", function()
    local mj = kit.open(nil, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    kit.travel(50)
    mj:adopt { task_id = "other", prompt = "p" }
    kit.travel(-50)
    mj:reconcile {}
    assert.equal("create claim accepted", kit.story(mj:get(task.ref)))
  end)
end)

-- As on a database, whose clock counts for all hosts: here it is ahead of this one's.
describe("a store whose clock is ten minutes ahead of this machine's", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local AHEAD_MS = 600000

  local function open(settings)
    local mj = kit.open(settings or {}, sim)
    function mj.exec.now()
      return core.now() + AHEAD_MS
    end
    return mj
  end

  it("rests an account for as long as it was told to", function()
    local mj = open()
    assert(mj:pause("default", 60))
    local left = mj:stats().accounts[1].paused_until - mj.exec:now()
    assert.is_true(left > 50000 and left <= 60000, left)
    assert.equal("queued", assert(mj:submit { prompt = "a fox" }).state)
  end)

  it("picks what was stored a moment ago for an action, and for a search", function()
    local mj = open()
    assert(mj:pause "default")
    assert(mj:submit { prompt = "a fox" })
    kit.travel(-7 * 86400 - 300) -- this machine's clock is behind by more than a search looks back
    local now = mj.exec.now
    function mj.exec.now()
      return now() + 7 * 86400000 + 300000
    end
    assert.equal(1, assert(mj:count { q = "fox" }).count)
    assert.equal(1, assert(mj:bulk("cancel", {})).done)
    kit.travel(7 * 86400 + 300)
  end)

  it("polls what is overdue while a program waits", function()
    local mj = open { poll = { first = 1 } }
    local task = assert(mj:submit { prompt = "a fox" })
    sim.finish(task.task_id)
    assert.equal("succeeded", assert(mj:wait(task.ref, { timeout = 20 })).state)
  end)
end)
