-- Pruning, checking and copying a store, through the Lua API.
local kit = require "kit"
local sim = require "sim"

describe("the store", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function open(more)
    return kit.open(more, sim)
  end

  -- A task that is over and whose event was delivered.
  local function finished(mj, key)
    local task = assert(mj:adopt { task_id = "T" .. key, prompt = "a fox", key = key })
    local reply = mj:callback {
      method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1), headers = {},
      body = '{"taskId":"T' .. key .. '","status":1,"image":"https://cdn.example/grid.png"}',
    }
    assert.equal(200, reply.status)
    assert(mj:deliver())
    return task
  end

  it("keeps every task when retention says nothing", function()
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    assert.equal(0, assert(mj:prune()).pruned)
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("prunes by state and age and gives the tombstone back for a repeated key", function()
    local mj = open { policy = {}, retention = { succeeded = 0, failed = -1 } }
    local task = finished(mj, "k1")
    assert.equal(1, assert(mj:prune()).pruned)
    local _, err = mj:get(task.ref)
    assert.equal("not_found", err.code)
    local again = assert(mj:adopt { task_id = "Tk1", prompt = "a fox", key = "k1" })
    assert.is_true(again.pruned)
    assert.is_true(again.duplicate)
    assert.equal(task.ref, again.ref)
    assert.equal("succeeded", again.state)
    assert.same({ "Tk1" }, again.task_ids)
  end)

  it("prunes nothing whose event nobody has taken", function()
    local mj = open { retention = { succeeded = 0 } } -- without a policy events wait
    finished(mj, "k1")
    assert.equal(0, assert(mj:prune { older_than = 0 }).pruned)
  end)

  it("prunes in the reconciler and says how many", function()
    local mj = open { policy = {}, retention = { succeeded = 0 } }
    finished(mj, "k1")
    finished(mj, "k2")
    assert.equal(2, assert(mj:reconcile { budget = 5 }).pruned)
  end)

  it("finds nothing wrong after all that", function()
    local mj = open { policy = {} }
    finished(mj, "k1")
    assert(mj:prune { older_than = 0 })
    finished(mj, "k2")
    local report = assert(mj:check())
    assert.is_true(report.ok)
    assert.same({}, report.problems)
    assert.equal(1, report.tasks)
    assert.equal(1, report.tombs)
  end)

  it("adopts a job that was submitted elsewhere, once, and learns its prompt by polling", function()
    local mj = open { policy = {}, poll = { first = 1, max = 900 } }
    local elsewhere = open { policy = {}, store = kit.tmp() .. "/other" }
    local job = assert(elsewhere:submit { prompt = "a fox --ar 4:5", user_id = "u1" })
    local task = assert(mj:adopt { task_id = job.task_id, user_id = "u2" })
    assert.equal("pending", task.state)
    assert.is_nil(task.prompt)
    assert.is_true(mj:adopt({ task_id = job.task_id }).duplicate)
    assert.equal(task.ref, mj:find(job.task_id).ref)
    sim.finish(job.task_id)
    assert.equal("succeeded", assert(mj:refresh(task.ref)).state)
    assert.matches("fox", mj:get(task.ref).prompt)
    local _, err = mj:adopt { task_id = "no good" }
    assert.equal("invalid", err.code)
  end)

  it("finds a task by its key, also when it is pruned", function()
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    assert.equal(task.ref, mj:find_key("k1").ref)
    assert(mj:prune { older_than = 0 })
    assert.is_true(mj:find_key("k1").pruned)
    local _, err = mj:find_key "k2"
    assert.equal("not_found", err.code)
  end)

  it("copies itself to where no store is, and only there", function()
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    local to = kit.tmp() .. "/copy"
    assert.is_true(mj:backup(to))
    local copy = open { store = to }
    assert.equal("succeeded", copy:get(task.ref).state)
    assert.is_true(copy:check().ok)
    local ok, err = mj:backup(to)
    assert.is_nil(ok)
    assert.equal("exists", err.code)
  end)
end)
