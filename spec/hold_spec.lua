-- A handler's time-out and what the handler itself sends or stores: it strikes before or after, never in between.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"
local socket = require "socket"

describe("a handler whose time is over while it", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  local function open(functions, more)
    local settings = { policy = functions, handler_timeout = 0.2, handlers = 2 }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    mj = kit.open(settings, sim)
    mj.exec.client = nil -- requests may take their full time here
  end

  local n = 0

  local function ended()
    n = n + 1
    local task = assert(mj:adopt { task_id = "E" .. n, prompt = "first" })
    assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "succeeded",
      source = "callback", task_id = "E" .. n, image = "https://img.example/x.png" } })[1].code)
    return task.ref
  end

  local function error_of(ref)
    local event = mj:events { ref = ref }()
    return event and event.errors[#event.errors].message
  end

  local function in_place()
    return assert(mj:deliver())
  end

  local function isolated()
    return assert(mj:deliver { isolate = true })
  end

  local CALLS = {
    ["submits"] = function(ctx)
      ctx.mj:submit { prompt = "follow", key = ctx.event_id }
    end,
    ["submits many"] = function(ctx)
      ctx.mj:submit_many { { prompt = "follow", key = ctx.event_id } }
    end,
    ["submits in a coroutine"] = function(ctx)
      coroutine.wrap(function()
        ctx.mj:submit { prompt = "follow", key = ctx.event_id }
        while true do end
      end)()
    end,
    ["sends what waits in the queue"] = function(ctx)
      ctx.mj:reconcile { budget = 30 }
    end,
  }

  -- The answer is late by so much that an interruption, or the end of the process after another second, would come
  -- before it.
  local WHERE = { ["in place"] = { in_place, 500 }, ["in a process of its own"] = { isolated, 1400 } }

  local BRIEF = { ["submits many"] = true, ["submits in a coroutine"] = true } -- as in place: nothing that is new there

  for what, call in pairs(CALLS) do
    for where, how in pairs(BRIEF[what] and { ["in place"] = WHERE["in place"] } or WHERE) do
      it(what .. " " .. where .. " hears the answer first, then fails", function()
        open { on_event = function(task, ctx)
          if task.prompt == "first" then
            call(ctx)
            while true do end
          end
        end }
        local ref = ended()
        -- Another user's, which waits: a claim may well take this one.
        local other = assert(mj.exec:commit { { op = "create", source = "user", want = true,
          task = { prompt = "another's", fingerprint = core.sha256 "x", user_id = "u2" } } })[1].task
        sim.script { submit = { { fault = "slow", ms = how[2] } } }
        local before = socket.gettime()
        assert.equal(1, how[1]().errors)
        assert.is_true(socket.gettime() - before < 20)
        assert.matches("took longer than handler_timeout %(0%.2 s%)", error_of(ref))
        for task in mj:tasks() do
          assert.is_true(task.state == "pending" or task.state == "succeeded", task.prompt .. " is " .. task.state)
        end
        assert.equal("pending", mj:get(other.ref).state)
        assert.is_true(mj:check().ok)
      end)
    end
  end

  it("submits does not begin with another batch", function()
    open({ on_event = function(task, ctx)
      if task.prompt == "first" then
        local jobs = {}
        for i = 1, 6 do
          jobs[i] = { prompt = "follow " .. i }
        end
        ctx.mj:submit_many(jobs)
      end
    end }, { connections = 1 })
    ended()
    sim.script { submit = { { fault = "slow", ms = 300 }, { fault = "slow", ms = 300 } } }
    assert.equal(1, isolated().errors)
    local states = {}
    for task in mj:tasks() do
      states[task.state] = (states[task.state] or 0) + 1
    end
    assert.same({ succeeded = 1, pending = 1, queued = 5 }, states)
  end)

  it("submits does not wait for a decision that hangs: that has a second of its own", function()
    local asked = 0
    open { on_event = function(task, ctx)
      if task.prompt == "first" then
        ctx.mj:submit { prompt = "follow" }
      end
    end, on_refused = function()
      asked = asked + 1
      while true do end
    end }
    local ref = ended()
    sim.script { submit = { "quota" } }
    local before = socket.gettime()
    assert.equal(1, in_place().errors)
    assert.is_true(socket.gettime() - before < 10)
    assert.equal(1, asked)
    assert.matches("policy: on_refused raised: took longer than 1 s", kit.log_text())
    assert.matches("handler_timeout", error_of(ref))
    assert.equal("queued", mj:tasks { state = "queued" }().state) -- the default sorting of a quota
  end)

  it("delivers others' events is interrupted itself, and not those", function()
    local told = {}
    open { on_event = function(task, ctx)
      if task.key ~= "outer" then
        told[#told + 1] = task.ref
        return
      end
      while ctx.mj:deliver { limit = 1 }.delivered > 0 do end
      while true do end
    end }
    local outer = assert(mj:adopt { task_id = "O", prompt = "x", key = "outer" }).ref
    mj.exec:commit { { op = "signal", ref = outer, kind = "failed", source = "callback", task_id = "O", error = "no" } }
    local first, second = ended(), ended()
    local report = assert(mj:deliver { limit = 1 })
    assert.same({ 0, 1 }, { report.delivered, report.errors })
    assert.same({ first, second }, told)
    assert.matches("took longer than handler_timeout", error_of(outer))
  end)

  it("holds its process longer than anything may take is killed after all", function()
    local runner = require "mjhook.delivery.pool"
    local most = runner.HOLD_MS
    kit.finally(function() runner.HOLD_MS = most end)
    runner.HOLD_MS = 300
    open { on_event = function()
      core.hold()
      os.execute "sleep 20"
    end }
    local ref = ended()
    local before = socket.gettime()
    assert.equal(1, isolated().errors)
    assert.is_true(socket.gettime() - before < 15)
    assert.equal("on_succeeded was killed: took longer than handler_timeout (0.2 s)", error_of(ref))
  end)
end)
