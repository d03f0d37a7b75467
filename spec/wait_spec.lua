-- mj:wait: until a task has ended, whoever brings the news.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("wait", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local real_now, real_clock = core.now, core.clock

  -- From now on sleeping takes no time, but both clocks go on; f(seconds so far) is called before each rest.
  local function by_sleeping(mj, f)
    local slept = 0
    function mj.exec.sleep(_, seconds)
      if f then
        f(slept)
      end
      slept = slept + seconds
    end
    core.now = function() return real_now() + math.floor(slept * 1000) end
    core.clock = function() return real_clock() + slept * 1000 end
    kit.finally(function() core.now, core.clock = real_now, real_clock end)
    return function() return slept end
  end

  it("gives a task that has ended at once, whatever its end", function()
    local mj = kit.open({}, sim)
    for status, state in pairs { "succeeded", "failed" } do
      local task = assert(mj:submit { prompt = state })
      sim.finish(task.task_id, status)
      assert(mj:refresh(task.ref))
      assert.equal(state, assert(mj:wait(task.ref)).state)
    end
    local task = assert(mj:adopt { task_id = "T9", prompt = "a fox" })
    assert(mj:cancel(task.ref))
    assert.equal("cancelled", assert(mj:wait(task.ref, { timeout = 0 })).state)
  end)

  it("gives it as soon as a callback has brought it", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    by_sleeping(mj, function(slept)
      if slept > 3 and slept < 5 then
        sim.finish(task.task_id)
        sim.hand(mj, 1)
      end
    end)
    local got = assert(mj:wait(task.ref, { timeout = 600 }))
    assert.same({ "succeeded", "callback" }, { got.state, got.source })
    assert.truthy(got.image)
  end)

  it("polls by itself when a poll is overdue, and not more often than the schedule has it", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    local slept = by_sleeping(mj, function(seconds)
      if seconds > 100 and sim.jobs()[1].status == 0 then
        sim.finish(task.task_id)
      end
    end)
    local got = assert(mj:wait(task.ref, { timeout = 3600 }))
    assert.same({ "succeeded", "poll" }, { got.state, got.source })
    assert.is_true(slept() > 100 and slept() < 250, slept())
    assert.is_true(got.polls <= 3)
  end)

  it("sends a queued task when there is a slot for it", function()
    local mj = kit.open({ max_in_flight = 1 }, sim)
    local first = assert(mj:submit { prompt = "first" })
    local second = assert(mj:submit { prompt = "second" })
    assert.equal("queued", second.state)
    by_sleeping(mj, function(slept)
      if slept > 1 and sim.jobs()[1].status == 0 then
        sim.finish(first.task_id)
        sim.hand(mj, 1)
      elseif slept > 5 and sim.jobs()[2] and sim.jobs()[2].status == 0 then
        sim.finish(sim.jobs()[2].taskId)
        sim.hand(mj, 2)
      end
    end)
    assert.equal("succeeded", assert(mj:wait(second.ref, { timeout = 600 })).state)
    assert.equal(2, #sim.jobs())
  end)

  it("says in time that there is no end yet, and leaves the task as it is", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    local slept = by_sleeping(mj)
    local got, err = mj:wait(task.ref, { timeout = 7 })
    assert.is_nil(got)
    assert.same({ "timeout", true }, { err.code, err.retryable })
    assert.equal(("task %s is pending: no end within 7 s"):format(task.ref), err.message)
    assert.is_true(slept() > 6.9 and slept() < 8, slept())
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("takes a timeout that is longer than Lua's numbers of milliseconds", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    by_sleeping(mj)
    sim.finish(task.task_id)
    assert.equal("succeeded", assert(mj:wait(task.ref, { timeout = tonumber "9223372036854775807" })).state)
  end)

  it("takes real time, and little processor", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    local begun, worked = core.clock(), os.clock()
    mj:wait(task.ref, { timeout = 0.3 })
    local took = core.clock() - begun
    assert.is_true(took >= 300 and took < 20000, took)
    assert.is_true(os.clock() - worked < 0.2)
  end)

  it("goes on while the provider can't be reached or has no key", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1" })
    local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
    by_sleeping(mj)
    local _, err = mj:wait(task.ref, { timeout = 1000 })
    assert.equal("timeout", err.code)
  end)

  it("is ended by what ends handlers", function()
    local mj = kit.open({}, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    by_sleeping(mj)
    mj.stopping = function() return true end
    local _, err = mj:wait(task.ref)
    assert.equal("timeout", err.code)
  end)

  it("knows no task that is not there", function()
    local mj = kit.open({}, sim)
    for _, ref in ipairs { "01M8GKS18KJN6VX7TSV1755R6D", "nonsense", "" } do
      local _, err = mj:wait(ref, { timeout = 5 })
      assert.equal("not_found", err.code)
    end
  end)

  for what, f in pairs {
    ["table: 1"] = function(mj) return (mj:wait("x", 1)) end, ["string"] = function(mj) return (mj:wait(7)) end,
    ["'timout'"] = function(mj) return (mj:wait("x", { timout = 5 })) end,
    ["'timeout'"] = function(mj) return (mj:wait("x", { timeout = "5" })) end,
    ["bad field 'timeout'"] = function(mj) return (mj:wait("x", { timeout = 0 / 0 })) end, -- it would never be over
  } do
    it("raises at the caller's line when it is misused: " .. what, function()
      local ok, err = pcall(f, kit.open({}, sim))
      assert.is_false(ok)
      assert.matches("wait_spec.lua:%d+: ", err)
      assert.truthy(err:find((what:gsub(": .*", "")), 1, true), err)
    end)
  end

  it("in the kit for tests lets the kit's clock go on", function()
    local t = require("mjhook.testing").new {}
    kit.finally(function() t:close() end)
    local task = assert(t.mj:submit { prompt = "a fox" })
    local _, err = t.mj:wait(task.ref, { timeout = 30 })
    assert.equal("timeout", err.code)
    assert.is_true(t:now() - task.created_at >= 30000)
    t.provider:finish(task.ref)
    assert.equal("succeeded", t.mj:wait(task.ref).state)
    task = assert(t.mj:submit { prompt = "a wolf" })
    assert.has_error(function() t.mj:wait(task.ref) end)
  end)
end)
