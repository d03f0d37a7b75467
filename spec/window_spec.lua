-- The rolling window: requests go on while what has ended is stored.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("a window of submissions", function()
  local mj, seen

  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function count(map)
    local n = 0
    for _ in pairs(map) do
      n = n + 1
    end
    return n
  end

  -- How many connections to the provider are open.
  local function connections()
    local n, provider = 0, ("%04X"):format(sim.url:match ":(%d+)$")
    for line in io.lines "/proc/net/tcp" do
      local port, state = line:match "^%s*%d+: %x+:%x+ %x+:(%x+) (%x+)"
      n = n + (port == provider and state == "01" and 1 or 0)
    end
    return n
  end

  -- A mjhook whose commits and looks at the air are noted: seen.commits, seen.flying (how many requests the client has
  -- while one of them is waited for), seen.open (how many connections there were at most).
  local function open(more)
    sim.config { limit = 0 }
    mj = kit.open(more, sim)
    mj.exec.client = nil -- requests may take their full time here
    seen = { commits = {}, flying = {}, open = 0 }
    local open_before = connections()
    local commit, http = mj.exec.commit, mj.exec.http
    mj.exec.commit = function(self, ops)
      local results, err = commit(self, ops)
      local noted = { signal = 0, claim = 0, pause = 0, create = 0, claimed = 0, tasks = mj:stats().tasks }
      for i, op in ipairs(ops) do
        noted[op.op] = noted[op.op] + 1
        noted.claimed = noted.claimed + (op.op == "claim" and results and results[i].code == "ok" and 1 or 0)
      end
      table.insert(seen.commits, noted)
      return results, err
    end
    mj.exec.http = function(self, requests, deadline, air)
      table.insert(seen.flying, count(air.answers))
      local answers, err = http(self, requests, deadline, air)
      seen.open = math.max(seen.open, connections() - open_before)
      return answers, err
    end
    return mj
  end

  local function jobs(n)
    local list = {}
    for i = 1, n do
      list[i] = { prompt = "job " .. i }
    end
    return list
  end

  local function states(results)
    local n = {}
    for _, r in ipairs(results) do
      local word = r.ref and r.state or r.error.code
      n[word] = (n[word] or 0) + 1
    end
    return n
  end

  it("fills every connection and never more than those", function()
    open { max_in_flight = 100, connections = 4 }
    assert.same({ pending = 60 }, states(mj:submit_many(jobs(60))))
    assert.equal(4, seen.open)
    assert.equal(60, #sim.jobs())
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("stores what has ended and claims what goes next in one transaction", function()
    open { max_in_flight = 100, connections = 4 }
    assert(mj:submit_many(jobs(40)))
    local stored = 0
    for i, commit in ipairs(seen.commits) do
      assert.equal(i == 1 and 40 or 0, commit.create)
      assert.is_true(i == 1 or commit.signal > 0)
      stored = stored + commit.signal
    end
    assert.equal(40, stored)
    assert.equal(4, seen.commits[1].claimed)
    assert.is_true(#seen.commits < 1 + 40)
  end)

  -- Calls f(tasks before the commit) once, within a commit before which more requests than `n` are with the client.
  local function within_commit(n, f)
    local commit, done = mj.exec.commit, false
    mj.exec.commit = function(self, ops)
      local tasks = mj:stats().tasks
      for _, op in ipairs(ops) do
        tasks.ended = (tasks.ended or 0) + (op.op == "signal" and 1 or 0)
      end
      if not done and tasks.ended > 0 and tasks.submitting - tasks.ended > n then
        done = true
        f(tasks)
      end
      return commit(self, ops)
    end
    return function() return done end
  end

  it("goes on sending while the store commits", function()
    open { max_in_flight = 200, connections = 4 }
    sim.config { submit = { slow = 1 }, slow_ms = 100 }
    local done = within_commit(6, function(tasks)
      kit.wait_until(function() return sim.requests "submit" == tasks.pending + tasks.submitting end)
    end)
    assert.same({ pending = 36 }, states(mj:submit_many(jobs(36))))
    assert.is_true(done())
    assert.equal(4, seen.open)
    assert.equal(36, #sim.jobs())
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("sends nothing more when the provider refuses while the store commits", function()
    open { max_in_flight = 200, connections = 4 }
    sim.config { submit = { slow = 1 }, slow_ms = 100 }
    local before
    local done = within_commit(6, function()
      before = sim.requests "submit"
      sim.config { submit = { slow = 0, quota = 1 } }
      kit.wait_until(function() return sim.requests "submit" > before end)
      require("socket").sleep(0.15) -- in which all that waits would be sent
    end)
    local results, err = mj:submit_many(jobs(36))
    local n = states(results)
    assert.is_nil(err)
    assert.is_true(done())
    assert.same({ pending = n.pending, queued = 36 - n.pending }, n)
    assert.is_true(sim.requests "submit" <= before + 4, sim.requests "submit" - before)
    assert.equal(0, mj:stats().tasks.submitting)
  end)

  it("claims ahead no more than twice of what ended since the last commit", function()
    open { max_in_flight = 200, connections = 4 }
    assert(mj:submit_many(jobs(150)))
    local ahead = 0
    for _, commit in ipairs(seen.commits) do
      local unended = commit.tasks.submitting
      assert.is_true(commit.claimed == 0 or unended <= 4 + 2 * commit.signal, unended)
      ahead = math.max(ahead, unended - 4)
    end
    assert.is_true(ahead > 0) -- so that no connection is idle while the store commits
  end)

  it("lets no slow answer hold back another", function()
    open { max_in_flight = 100, connections = 2 }
    sim.script { submit = { { fault = "slow", ms = 600 } } }
    local started = core.clock()
    assert.same({ pending = 30 }, states(mj:submit_many(jobs(30))))
    local before = seen.commits[#seen.commits - 1]
    assert.same({ 29, 1 }, { before.tasks.pending, before.tasks.submitting }) -- the slow one was still in the air
    assert.is_true(core.clock() - started < 1100)
  end)

  it("stores an answer within milliseconds, also when nothing more waits to be sent", function()
    open { max_in_flight = 2, connections = 2 }
    sim.script { submit = { { fault = "slow", ms = 400 } } }
    assert.same({ pending = 2 }, states(mj:submit_many(jobs(2))))
    assert.same({ 2, 1, 1 }, { seen.commits[1].create, seen.commits[2].signal, seen.commits[3].signal })
    assert.same({ 1, 1 }, { seen.commits[2].tasks.pending, seen.commits[2].tasks.submitting })
  end)

  it("sends nothing more under an account that is refused, and hands back what waits", function()
    open { max_in_flight = 100, connections = 2 }
    sim.script { submit = { { fault = "ok", n = 30 }, { fault = "quota", n = 2 } } }
    local results = mj:submit_many(jobs(100))
    local n = states(results)
    assert.same({ pending = n.pending, queued = 100 - n.pending }, n)
    assert.is_true(n.pending >= 30 and n.pending <= 31, n.pending)
    assert.is_true(sim.requests "submit" <= 32) -- what was in the air when the first refusal came
    assert.equal(0, mj:stats().tasks.submitting)
    assert.equal(n.pending, mj:stats().accounts[1].held)
    for _, task in ipairs(results) do
      assert.is_true(task.state == "pending" or not task.error or task.error.code == "quota")
    end
  end)

  it("goes on under other accounts meanwhile", function()
    sim.config { keys = { kit.KEY, "key-two" } }
    open { connections = 2, accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 50 },
                                         { name = "two", api_key = "key-two", max_in_flight = 50 } } }
    sim.script { submit = { "quota" } }
    local results = mj:submit_many(jobs(40))
    assert.same({ pending = 40 }, states(results))
    local by = {}
    for _, task in ipairs(results) do
      by[task.account] = (by[task.account] or 0) + 1
    end
    assert.is_true(math.max(by.one or 0, by.two or 0) >= 39)
  end)

  it("asks by one task whether a rest has helped, and lets the others wait for its answer", function()
    open { max_in_flight = 10, connections = 4 }
    sim.script { submit = { "quota" } }
    assert.equal("queued", mj:submit { prompt = "first" }.state)
    kit.travel(1000)
    sim.script { submit = { { fault = "slow", ms = 100 } } }
    seen.flying = {}
    local results = mj:submit_many(jobs(5))
    assert.same({ pending = 5 }, states(results))
    assert.same({ 1, 3 }, { seen.flying[1], seen.flying[2] })
    assert.equal(6, #sim.jobs())
  end)

  it("whose time is over waits for what is in the air, and hands back what was not begun", function()
    open { max_in_flight = 10, connections = 2 }
    local record = require("mjhook.submission.job").record
    for i = 1, 4 do
      assert(mj.exec:commit { { op = "create", task = record(mj, { prompt = "job " .. i }), source = "user" } })
    end
    sim.config { submit = { slow = 1 }, slow_ms = 600 }
    local submit = require "mjhook.submission.submit"
    local _, claimed = submit.claim(mj, {}, 4)
    local started, told = core.clock(), {}
    assert(submit.send(mj, claimed, started + 60000, { begin_by = started + 200, sent = function(tasks)
      for _, task in ipairs(tasks) do
        told[#told + 1] = task.state .. " " .. task.requests
      end
    end }))
    table.sort(told)
    assert.same({ "pending 1", "pending 1", "queued 0", "queued 0" }, told)
    assert.is_true(core.clock() - started < 1000)
    assert.equal(0, #mj.store:stats().accounts > 0 and mj:stats().accounts[1].paused_until or 0)
  end)

  it("keeps what it can't store out of the queue, and ends all that is in the air", function()
    open { max_in_flight = 10, connections = 2 }
    local commit, commits = mj.exec.commit, 0
    mj.exec.commit = function(self, ops)
      commits = commits + 1
      if commits == 2 then
        return nil, core.error("io", "the disk is sick", true)
      end
      return commit(self, ops)
    end
    local results, err = mj:submit_many(jobs(6))
    assert.equal("the disk is sick", err.message)
    local n = mj:stats().tasks
    assert.same({ #sim.jobs(), 6 }, { n.submitting + n.pending, n.submitting + n.pending + n.queued })
    assert.is_true(n.submitting >= 1 and n.queued >= 2, n.submitting)
    assert.equal(6, #results)
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("may be opened while another one is, by a policy that submits", function()
    local inner
    open { max_in_flight = 20, connections = 2, policy = { on_refused = function()
      inner = inner or mj:submit { prompt = "instead", key = "instead", priority = 5 }
      return "fail"
    end } }
    sim.script { submit = { "http_400", { fault = "slow", ms = 100, n = 2 } } }
    local results = mj:submit_many(jobs(8))
    assert.same({ pending = 7, failed = 1 }, states(results))
    assert.equal("pending", inner.state)
    assert.equal(8, #sim.jobs())
    assert.same({}, sim.ledger().billed_twice)
  end)
end)

describe("a window of polls", function()
  local mj

  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  -- n pending tasks that are due.
  local function due(n, more)
    sim.config { limit = 0 }
    mj = kit.open(more, sim)
    mj.exec.client = nil
    local jobs = {}
    for i = 1, n do
      jobs[i] = { prompt = "job " .. i }
    end
    assert(mj:submit_many(jobs))
    for _, job in ipairs(sim.jobs()) do
      sim.finish(job.taskId)
    end
    kit.travel(100)
  end

  it("stores what others say while a slow answer is still to come, and asks about all that is due", function()
    due(60, { max_in_flight = 100, connections = 2, batch = 5 })
    sim.script { status = { { fault = "slow", ms = 500 } } }
    local most, commit = 0, mj.exec.commit
    mj.exec.commit = function(self, ops)
      local results, err = commit(self, ops)
      local left = mj:stats().tasks.pending
      most = left == 5 and math.max(most, 60 - left) or most
      return results, err
    end
    local report = assert(mj:reconcile {})
    assert.same({ 60, 60, 12, 0 }, { report.polled, report.succeeded, report.requests, report.errors })
    assert.equal(55, most) -- all but those of the slow one
  end)

  it("asks about each task once", function()
    due(45, { max_in_flight = 100, connections = 3, batch = 2 })
    local asked, http = {}, mj.exec.http
    mj.exec.http = function(self, requests, ...)
      for _, request in ipairs(requests) do
        for id in request.body:gmatch '"([%w_-]+)"' do
          asked[id] = (asked[id] or 0) + 1
        end
      end
      return http(self, requests, ...)
    end
    assert.equal(45, assert(mj:reconcile {}).succeeded)
    asked.taskIds = nil
    local n = 0
    for _, times in pairs(asked) do
      assert.equal(1, times)
      n = n + 1
    end
    assert.equal(45, n)
  end)

  it("leaves due what the budget has no time for", function()
    due(12, { max_in_flight = 20, connections = 1, batch = 2 })
    sim.config { status = { slow = 1 }, slow_ms = 150 }
    local report = assert(mj:reconcile { budget = 0.4 })
    assert.is_true(report.polled >= 4 and report.polled < 12, report.polled)
    sim.config { status = { slow = 0 } }
    kit.travel(1000) -- the one that was cut off in the middle rests
    assert(mj:reconcile {})
    assert.equal(12, mj:stats().tasks.succeeded)
  end)

  it("finds a sick task by halves while the others are heard", function()
    due(16, { max_in_flight = 20, connections = 4, batch = 8 })
    local sick = sim.jobs()[3].taskId
    local http = mj.exec.http
    mj.exec.http = function(self, requests, deadline) -- all of them at once
      local answers = http(self, requests, deadline)
      for i, request in ipairs(requests) do
        if request.body:find(sick, 1, true) then
          answers[i] = { outcome = "answered", status = 400, body = '{"status":5,"message":"no"}' }
        end
      end
      return answers
    end
    local report = assert(mj:reconcile {})
    assert.same({ 15, 1 }, { report.succeeded, report.errors })
    assert.equal(2 + 2 * 3, report.requests)
    assert.matches("asked about alone", kit.log_text())
  end)
end)
