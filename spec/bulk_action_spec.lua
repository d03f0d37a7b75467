-- mj:bulk: the same action on everything that a filter picks.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("an action on everything that a filter picks", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  it("counts, and does nothing, when it runs dry", function()
    local mj = kit.open({ max_in_flight = 2 }, sim)
    for i = 1, 5 do
      assert(mj:submit { prompt = "p" .. i, user_id = i % 2 == 1 and "odd" or "even" })
    end
    local report = assert(mj:bulk("cancel", { user_id = "odd" }, { dry_run = true }))
    assert.same({ 3, 0, true }, { report.matched, report.done, report.dry_run })
    assert.same({ pending = 1, queued = 2 }, report.by)
    assert.same({ 3, 2 }, { mj:stats().tasks.queued, mj:stats().tasks.pending })
  end)

  it("refreshes many with few requests, and leaves out what has no task id", function()
    local mj = kit.open({ max_in_flight = 4 }, sim)
    for i = 1, 6 do
      local task = assert(mj:submit { prompt = "p" .. i })
      if task.task_id then
        sim.finish(task.task_id)
      end
    end
    local report = assert(mj:bulk("refresh", {}))
    assert.same({ 4, 4, 0 }, { report.matched, report.done, report.skipped })
    assert.equal(4, mj:stats().tasks.succeeded)
    assert.equal(1, sim.requests "status")
    report = assert(mj:bulk("refresh", { state = "queued" }))
    assert.same({ 2, 0, 2 }, { report.matched, report.done, report.skipped })
  end)

  it("shows the policy whole tasks when it decides on the next poll", function()
    local prompts = {}
    local mj = kit.open({ policy = { next_poll = function(task)
      prompts[#prompts + 1] = task.prompt
      return 77
    end } }, sim)
    local ref = assert(mj:submit { prompt = "a fox" }).ref
    assert.equal(1, assert(mj:bulk("refresh", {})).done)
    assert.same({ "a fox" }, prompts)
    assert.is_true(math.abs(mj:get(ref).due_at - core.now() - 77000) < 5000)
  end)

  it("counts each task that the provider said nothing of as failed", function()
    local mj = kit.open({ max_in_flight = 4 }, sim)
    for i = 1, 4 do
      assert(mj:submit { prompt = "p" .. i })
    end
    local faults = {}
    for i = 1, 20 do -- asked again in halves, and still without an answer
      faults[i] = "cut"
    end
    sim.script { status = faults }
    local report = assert(mj:bulk("refresh", {}))
    assert.same({ 4, 0, 4 }, { report.matched, report.done, report.failed })
    assert.is_true(#report.errors > 0)
  end)

  it("resubmits as far as slots last, and each failure once", function()
    local mj = kit.open({ max_in_flight = 2 }, sim)
    for i = 1, 3 do
      local task = assert(mj:submit { prompt = "p" .. i })
      assert(mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "failed", source = "poll",
                                task_id = task.task_id or "t" .. i, error_code = "provider", error = "no" } })
    end
    local before = sim.requests "submit"
    local report = assert(mj:bulk("resubmit", { state = "failed" }))
    assert.same({ 3, 3, 2 }, { report.matched, report.done, report.sent })
    assert.equal(before + 2, sim.requests "submit")
    assert.same({ 2, 1 }, { mj:stats().tasks.pending, mj:stats().tasks.queued })
    assert.equal(0, assert(mj:bulk("resubmit", {})).matched)
  end)

  it("goes page by page, tells its progress, and passes over what changed meanwhile", function()
    local mj = kit.open { base_url = "http://127.0.0.1:1" }
    local ops, seen = {}, {}
    for i = 1, 250 do
      ops[i] = { op = "create", source = "user", want = true, task = { prompt = "p", fingerprint = ("x"):rep(16) } }
    end
    local results = assert(mj.exec:commit(ops))
    local report = assert(mj:bulk("cancel", {}, { progress = function(report)
      seen[#seen + 1] = report.done
      if #seen == 1 then -- the oldest one, which is to come
        assert(mj:cancel(results[1].task.ref))
        ops[1].task.prompt = "new"
        assert(mj.exec:commit { ops[1] })
      end
    end }))
    assert.same({ 100, 200, 249 }, seen)
    assert.same({ 249, 249, 0 }, { report.matched, report.done, report.failed })
    assert.equal(1, mj:stats().tasks.queued)
  end)

  it("says what was done before the store failed", function()
    local mj = kit.open { base_url = "http://127.0.0.1:1" }
    local ops = {}
    for i = 1, 150 do
      ops[i] = { op = "create", source = "user", task = { prompt = "p", fingerprint = ("x"):rep(16) } }
    end
    assert(mj.exec:commit(ops))
    local commit, calls = mj.exec.commit, 0
    mj.exec.commit = function(self, given)
      calls = calls + 1
      if calls == 2 then
        return nil, core.error("no_space", "the disk is full", true)
      end
      return commit(self, given)
    end
    local report = assert(mj:bulk("cancel", {}))
    mj.exec.commit = commit
    assert.same({ 100, 50, true, "no_space" }, { report.done, report.failed, report.stopped, report.errors[1].code })
    assert.same({ 50, 100 }, { mj:stats().tasks.queued, mj:stats().tasks.cancelled })
  end)

  for i, case in ipairs {
    { { "erase", {} }, 'no action "erase"' }, { { "cancel" }, "a filter expected" },
    { { "cancel", { buried = true } }, "unknown field 'buried'" }, { { "kick", { before = "x" } }, "unknown field" },
    { { "cancel", {}, { dryrun = true } }, "unknown field 'dryrun'" }, { { 7, {} }, "string expected" },
  } do
    it("raises at the caller's line when it is misused: " .. i, function()
      local mj = kit.open { base_url = "http://127.0.0.1:1" }
      local ok, err = pcall(function()
        local report = mj:bulk(case[1][1], case[1][2], case[1][3])
        return report
      end)
      assert.is_false(ok)
      assert.matches("bulk_action_spec.lua:%d+: bulk: " .. case[2]:gsub("%p", "%%%0"), err)
    end)
  end
end)
