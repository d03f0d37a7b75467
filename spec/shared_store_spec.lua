-- What is other about a store that several hosts share: its clock counts, one process reconciles, and a commit may be
-- unsure. On the backend that has everything in memory (support/store_memory.c).
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local memory = require "mjhook.store_memory"
local mjhook = require "mjhook"
local sim = require "sim"

describe("a store that hosts share", function()
  local AHEAD = 3600000 -- ms
  local mj, place

  setup(sim.start)
  teardown(sim.stop)
  before_each(function()
    sim.reset()
    place = "memory://" .. kit.tmp():match "[^/]*$"
  end)
  after_each(function()
    memory.skew(0)
    memory.unsure(0)
    kit.cleanup()
  end)

  local function open(more)
    local settings = kit.settings(more, sim)
    settings.store, settings.store_schema = place, nil
    local opened = assert(mjhook.open(settings))
    kit.finally(function() opened:close() end)
    return opened
  end

  local function about(wanted, ms)
    assert.is_true(math.abs(ms - wanted) < 60000, ("%.0f s off"):format((ms - wanted) / 1000))
  end

  it("goes by its own clock: in tasks, leases, tries and what is due", function()
    memory.skew(AHEAD)
    mj = open { policy = { on_event = function() return false, "not now" end } }
    local now = core.now() + AHEAD
    local task = assert(mj:submit { prompt = "a fox", expires = 1000 })
    about(now, task.created_at)
    about(now, task.submitted_at)
    sim.finish(task.task_id)
    assert(mj:refresh(task.ref))
    assert.equal(1, assert(mj:deliver {}).errors)
    local event = mj:events {}()
    about(now + 15000, event.next_at)
    about(now, mj:get(task.ref).finished_at)
    assert.equal(0, assert(mj:deliver {}).errors) -- it is not due yet
    memory.skew(AHEAD + 1000000)
    assert.equal(1, assert(mj:deliver {}).errors)
  end)

  it("has one reconciler at a time; another hears that it is busy", function()
    mj = open()
    local other = open()
    assert(mj.exec:lock "reconcile")
    local report, err = other:reconcile { budget = 1 }
    assert.is_nil(report)
    assert.equal("busy", err.code)
    assert.truthy(err.message:find("another reconciler is at work on " .. place, 1, true))
    mj.exec:unlock()
    assert(other:reconcile { budget = 1 })
    assert(mj:reconcile { budget = 1 }) -- it let go of the lock
    assert(mj.exec:lock "reconcile")
    mj:close() -- and so does one that ends
    assert(other:reconcile { budget = 1 })
  end)

  it("gives handlers no directory to leave a note in", function()
    local seen = {}
    mj = open { policy = { on_event = function(_, ctx) seen[#seen + 1] = tostring(ctx.store) end } }
    local task = assert(mj:submit { prompt = "a fox" })
    sim.finish(task.task_id)
    assert(mj:refresh(task.ref))
    assert.equal(1, assert(mj:deliver {}).delivered)
    assert.same({ "nil" }, seen)
  end)

  it("is absent until the first submission makes it", function()
    place = "memory://" .. kit.tmp():match "[^/]*$"
    local settings = kit.settings({ create = false }, sim)
    settings.store, settings.store_schema = place, nil
    local opened, err = mjhook.open(settings)
    assert.is_nil(opened)
    assert.equal("absent", err.code)
    open():submit { prompt = "a fox" }
    mj = assert(mjhook.open(settings))
    assert.equal(1, mj:stats().tasks.pending)
    mj:close()
  end)

  for _, stored in ipairs { false, true } do
    local title = stored and "was stored" or "was not stored"

    it("sends nothing for a claim that is unsure, and says so: it " .. title, function()
      mj = open()
      memory.unsure(1, stored)
      local task, err = mj:submit { prompt = "a fox", key = "k" }
      assert.is_nil(task)
      assert.same({ "unsure", true }, { err.code, err.retryable })
      assert.equal(0, sim.requests "submit")
      task = assert(mj:submit { prompt = "a fox", key = "k" }) -- with a key it is safe to try again
      assert.equal(stored and "submitting" or "pending", task.state)
      assert.equal(stored and 0 or 1, sim.requests "submit")
    end)

    it("answers 503 to a callback that is unsure, and takes it when it comes again: it " .. title, function()
      mj = open()
      local task = assert(mj:submit { prompt = "a fox" })
      local request = { method = "POST", uri = sim.jobs()[1].hookUrl:match "^http://[^/]+(/.*)$", headers = {},
                        body = cjson.encode { taskId = task.task_id, status = 1, image = "https://img.example/x" } }
      memory.unsure(1, stored)
      local reply = mj:callback(request)
      assert.equal(503, reply.status)
      assert.matches("^%d+$", reply.headers["Retry-After"])
      reply = mj:callback(request)
      assert.equal(200, reply.status)
      assert.matches(stored and "duplicate" or "stored", reply.body)
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.equal(1, mj:stats().events)
    end)

    it("hands an event out again whose end is unsure: it " .. title, function()
      local seen = 0
      mj = open { policy = { on_event = function() seen = seen + 1 end } }
      local task = assert(mj:submit { prompt = "a fox" })
      sim.finish(task.task_id)
      assert(mj:refresh(task.ref))
      local commit, n = mj.exec.commit, 0
      mj.exec.commit = function(self, ops)
        n = n + 1
        if n == 2 then -- the lease, then the handler's end
          memory.unsure(1, stored)
        end
        return commit(self, ops)
      end
      local report, err = mj:deliver {}
      mj.exec.commit = nil
      assert.is_nil(report)
      assert.equal("unsure", err.code)
      memory.skew(AHEAD)
      assert.equal(stored and 0 or 1, assert(mj:deliver {}).delivered)
      assert.equal(stored and 1 or 2, seen)
    end)
  end
end)
