-- mj:resubmit: a new attempt, by the user's decision alone, and sent as submit sends.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("resubmit", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function open(more)
    return kit.open(more, sim)
  end

  local function signal(mj, task, kind, more)
    local op = { op = "signal", ref = task.ref, attempt = task.attempt, kind = kind, source = "sweep" }
    for k, v in pairs(more or {}) do
      op[k] = v
    end
    assert.equal("ok", assert(mj.exec:commit { op })[1].code)
    return mj:get(task.ref)
  end

  -- A task in a state, as it comes to it.
  local make = {
    queued = function(mj)
      sim.script { submit = { "quota" } }
      return mj:submit { prompt = "a fox" }
    end,
    submitting = function(mj)
      local http = mj.exec.http
      mj.exec.http = function() error "killed" end
      pcall(mj.submit, mj, { prompt = "a fox" })
      mj.exec.http = http
      return mj:tasks {}()
    end,
    ambiguous = function(mj)
      sim.script { submit = { "cut_after" } }
      return mj:submit { prompt = "a fox" }
    end,
    pending = function(mj)
      return mj:submit { prompt = "a fox" }
    end,
    succeeded = function(mj)
      local task = mj:submit { prompt = "a fox" }
      sim.finish(task.task_id)
      return mj:refresh(task.ref)
    end,
    failed = function(mj)
      local task = mj:submit { prompt = "a fox" }
      sim.finish(task.task_id, 2, "no such style")
      return mj:refresh(task.ref)
    end,
    rejected = function(mj)
      sim.script { submit = { "http_400" } }
      return mj:submit { prompt = "a fox" }
    end,
    lost = function(mj)
      sim.script { submit = { "cut_after" } }
      return signal(mj, mj:submit { prompt = "a fox" }, "give_up")
    end,
    cancelled = function(mj)
      return mj:cancel(mj:submit({ prompt = "a fox" }).ref)
    end,
  }

  for _, state in ipairs { "ambiguous", "lost", "failed", "rejected" } do
    it("sends a new attempt of a task that is " .. state, function()
      local mj = open()
      local before = make[state](mj)
      assert.equal(state == "rejected" and "failed" or state, before.state)
      local task = assert(mj:resubmit(before.ref))
      assert.equal(before.ref, task.ref)
      assert.equal("pending", task.state)
      assert.equal(2, task.attempt)
      assert.is_nil(task.error)
      assert.is_nil(task.requests)
      assert.is_nil(task.finished_at)
      assert.same(task, mj:get(task.ref))
      local jobs = sim.jobs()
      assert.equal(task.task_id, jobs[#jobs].taskId)
      assert.matches("[?&]ref=" .. task.ref .. "&a=2&", jobs[#jobs].hookUrl)
      assert.same({}, sim.ledger().billed_twice) -- of one attempt
      assert.matches(" resubmit claim accepted$", kit.story(task))
      sim.finish(task.task_id)
      assert.equal("succeeded", mj:refresh(task.ref).state)
    end)
  end

  for _, state in ipairs { "queued", "submitting", "pending", "succeeded", "cancelled" } do
    it("is refused for a task that is " .. state .. ", which stays as it is", function()
      local mj = open()
      local before = make[state](mj)
      assert.equal(state, before.state)
      local sent = sim.requests "submit"
      local task, err = mj:resubmit(before.ref)
      assert.is_nil(task)
      assert.equal("state", err.code)
      assert.matches(before.ref .. " is " .. state .. ":", err.message)
      assert.is_false(err.retryable)
      assert.same(mj:get(before.ref).timeline, before.timeline)
      assert.equal(sent, sim.requests "submit")
    end)
  end

  it("keeps what the user said of the job", function()
    sim.script { submit = { "http_400" } }
    local mj = open()
    local task = mj:submit { prompt = "a fox", mode = "relaxed", timeout = 700, user_id = "u1", key = "k",
                             account = "default", context = { order = 7 } }
    task = mj:resubmit(task.ref)
    assert.same({ "a fox", "relaxed", 700, "u1", "k", { order = 7 } },
      { task.prompt, task.mode, task.timeout, task.user_id, task.key, task.context })
    assert.same({ "a fox", "relaxed", 700 }, { sim.jobs()[1].prompt, sim.jobs()[1].mode, sim.jobs()[1].timeout })
    assert.is_true(mj:submit({ prompt = "a fox", mode = "relaxed", timeout = 700, user_id = "u1", key = "k",
                               context = { order = 7 } }).duplicate)
  end)

  it("waits as queued when no slot is free, and is sent by a pass", function()
    local mj = open { max_in_flight = 1 }
    local task = make.rejected(mj)
    local other = mj:submit { prompt = "a wolf" }
    task = assert(mj:resubmit(task.ref))
    assert.equal("queued", task.state)
    assert.is_nil(task.error)
    sim.finish(other.task_id)
    sim.hand(mj, 1)
    assert(mj:reconcile {})
    assert.equal("pending", mj:get(task.ref).state)
    assert.equal(1, sim.counters().accounts[kit.KEY].max_unfinished)
  end)

  it("leaves the slot to the ambiguous attempt, which may be running", function()
    local mj = open { max_in_flight = 1 }
    local task = make.ambiguous(mj)
    assert.equal("queued", assert(mj:resubmit(task.ref)).state)
    assert.equal(1, sim.requests "submit")
    sim.finish(sim.jobs()[1].taskId)
    sim.hand(mj, 1) -- it was, and its success is the task's
    assert.equal("succeeded", mj:get(task.ref).state)
    assert(mj:reconcile {})
    assert.equal(1, sim.requests "submit")
  end)

  it("hears of an older attempt: its success counts, its failure does not", function()
    for _, case in ipairs { { 1, "succeeded" }, { 2, "pending" } } do
      sim.reset()
      local mj = open()
      local task = assert(mj:resubmit(make.ambiguous(mj).ref))
      sim.finish(sim.jobs()[1].taskId, case[1])
      sim.hand(mj, 1)
      assert.equal(case[2], mj:get(task.ref).state)
    end
  end)

  it("may be ambiguous, fail or be refused as a first attempt may", function()
    local mj = open()
    for _, case in ipairs { { "cut_after", "ambiguous" }, { "http_400", "failed" }, { "quota", "queued" } } do
      local task = make.rejected(mj)
      sim.script { submit = { case[1] } }
      task = assert(mj:resubmit(task.ref))
      assert.equal(case[2], task.state)
      assert.equal(2, task.attempt)
      assert.is_true(#task.error.message > 0)
    end
  end)

  it("sends others that have waited longer, too", function()
    local mj = open { max_in_flight = 2 }
    local task, waits = make.rejected(mj), make.queued(mj)
    kit.travel(1000)
    assert.equal("pending", assert(mj:resubmit(task.ref)).state)
    assert.equal("pending", mj:get(waits.ref).state)
  end)

  it("is refused for an adopted task with an unknown prompt", function()
    local mj = open()
    local task = signal(mj, mj:adopt { task_id = "theirs" }, "failed", { task_id = "theirs", source = "poll" })
    local again, err = mj:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("state", err.code)
    assert.matches("prompt", err.message)
  end)

  it("is refused after the eighth attempt", function()
    sim.config { submit = { http_400 = 1 } }
    local mj = open()
    local task = mj:submit { prompt = "a fox" }
    for attempt = 2, 8 do
      task = assert(mj:resubmit(task.ref))
      assert.equal(attempt, task.attempt)
    end
    local again, err = mj:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("limit", err.code)
    assert.matches("8 attempts", err.message)
    assert.equal(8, sim.requests "submit")
  end)

  it("makes one attempt when many ask for it at the same time", function()
    kit.needs "processes"
    sim.config { submit = { slow = 1 }, slow_ms = 200 }
    local mj = open()
    local task = make.rejected(mj)
    local code = ([[
      local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
      local task, err = mj:resubmit(%q)
      io.stdout:write(task and task.state or err.code)
    ]]):format(kit.store, kit.KEY, sim.url, task.ref)
    local children = {}
    for i = 1, 4 do
      children[i] = kit.spawn("exec " .. kit.lua_command(code, i % 2 == 0 and kit.lua or kit.other_lua))
    end
    local said = {}
    for i, child in ipairs(children) do
      assert.equal(0, child:wait(), child:err())
      said[i] = child:out()
    end
    table.sort(said)
    assert.same({ "pending", "state", "state", "state" }, said)
    assert.equal(2, mj:get(task.ref).attempt)
    assert.equal(1, #sim.jobs())
  end)

  it("makes one attempt of what two saw fail at the same time", function()
    local mj = open()
    local task = make.rejected(mj)
    sim.script { submit = { "http_400" } }
    local other = open()
    -- Between the look of one and its decision the other resubmits it, and it fails again.
    mj.exec.read = function(self, name, ref, ...)
      local seen, err = self.store[name](self.store, ref, ...)
      if name == "get" then
        mj.exec.read = nil
        assert.equal("failed", other:resubmit(ref).state)
      end
      return seen, err
    end
    local again, err = mj:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("state", err.code)
    assert.matches("resubmitted meanwhile", err.message)
    assert.equal(2, mj:get(task.ref).attempt)
    assert.equal(2, sim.requests "submit")
  end)

  it("sends what it claimed for others also when its own task is refused", function()
    local mj = open()
    local task = make.rejected(mj)
    sim.script { submit = { "quota" } }
    local waits = mj:submit { prompt = "waits" }
    kit.travel(1000)
    mj.exec.read = function(exec, name, ref, ...)
      local seen, err = exec.store[name](exec.store, ref, ...)
      if name == "get" then
        exec.read = nil
        exec:commit { { op = "signal", ref = ref, kind = "resubmit", source = "user" } }
        exec:commit { { op = "signal", ref = ref, kind = "cancel", source = "user" } }
      end
      return seen, err
    end
    local again, err = mj:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("state", err.code)
    assert.matches("is cancelled", err.message)
    assert.equal("pending", mj:get(waits.ref).state)
  end)

  it("says that its outcome could not be stored, and sends nothing again", function()
    local mj = open()
    local task = make.rejected(mj)
    local commit, n = mj.exec.commit, 0
    mj.exec.commit = function(self, ops)
      n = n + 1
      if n == 2 then
        return nil, core.error("no_space", "no space left for the store", true)
      end
      return commit(self, ops)
    end
    local again, err = mj:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("no_space", err.code)
    assert.matches(task.ref, err.message)
    assert.is_false(err.retryable)
    assert.equal("submitting", mj:get(task.ref).state)
    assert.equal("state", select(2, mj:resubmit(task.ref)).code)
    assert.equal(1, #sim.jobs())
  end)

  it("refuses what it does not know", function()
    for _, ref in ipairs { "x", ("0"):rep(26), "" } do
      local task, err = open():resubmit(ref)
      assert.is_nil(task)
      assert.equal("not_found", err.code)
    end
  end)

  it("makes no attempt where nothing can be sent", function()
    local mj = open()
    local task = make.rejected(mj)
    local settings = kit.settings({}, sim)
    settings.api_key = nil
    local keyless = assert(require("mjhook").open(settings))
    kit.finally(function() keyless:close() end)
    local again, err = keyless:resubmit(task.ref)
    assert.is_nil(again)
    assert.equal("config", err.code)
    assert.equal("failed", mj:get(task.ref).state)
  end)

  it("raises at the caller's line when the ref is no string", function()
    local mj = open()
    local line = debug.getinfo(1, "l").currentline + 2
    local ok, err = pcall(function()
      local task = mj:resubmit {}
      return task
    end)
    assert.is_false(ok)
    assert.matches("resubmit_spec.lua:" .. line .. ": resubmit: string expected, got table", err)
  end)
end)

describe("submit", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  it("sends what it claimed for others also when its own key is a conflict", function()
    local mj = kit.open({}, sim)
    mj:submit { prompt = "a fox", key = "k" }
    sim.script { submit = { "quota" } }
    local waits = mj:submit { prompt = "waits" }
    assert.equal("queued", waits.state)
    kit.travel(1000)
    assert.equal("key_conflict", select(2, mj:submit { prompt = "a wolf", key = "k" }).code)
    assert.equal("pending", mj:get(waits.ref).state)
  end)

  it("shows on_refused the task's context as the user gave it", function()
    sim.script { submit = { "quota" } }
    local seen
    local mj = kit.open({ policy = { on_refused = function(task) seen = task.context end } }, sim)
    mj:submit { prompt = "a fox", context = { order = 7 } }
    assert.same({ order = 7 }, seen)
  end)
end)
