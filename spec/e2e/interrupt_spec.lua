-- Ctrl-C on a command that sends: answers that are under way come in, nothing more is begun, nothing becomes ambiguous.
local cjson = require "cjson"
local kit = require "kit"
local sim = require "sim"

describe("mjhook that is interrupted", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj, config

  local function prepare()
    mj = kit.open({ max_in_flight = 100, connections = 2 }, sim)
    config = kit.write(kit.tmp() .. "/config.lua", ("return { store = %q, api_key = %q, base_url = %q, "
      .. "connections = 2, max_in_flight = 100 }\n"):format(kit.settings().store, kit.KEY, sim.url))
  end

  -- A shell's background job ignores SIGINT; a terminal's does not.
  local function start(arguments)
    return kit.spawn(("exec python3 -c 'import os, signal, sys\nsignal.signal(signal.SIGINT, signal.SIG_DFL)\n"
      .. "os.execvp(sys.argv[1], sys.argv[1:])' env -i PATH=/usr/bin:/bin MJHOOK_BUILD=%s %s %s -c %s %s"):format(
      kit.quote(kit.build), kit.lua, kit.quote(kit.root .. "/scripts/mjhook"), kit.quote(config), arguments))
  end

  local function in_the_air(n)
    kit.wait_until(function() return sim.requests "submit" >= n end)
  end

  for signal, code in pairs { INT = 130, TERM = 143 } do
    it("by SIG" .. signal .. " stores the answer of its request, says so, and ends with " .. code, function()
      prepare()
      sim.config { submit = { slow = 1 }, slow_ms = 700 }
      local child = start "submit 'a fox' --wait"
      in_the_air(1)
      child:kill(signal)
      assert.equal(code, child:wait())
      local ref = child:out():match "^(%w+) pending\n$"
      assert.equal("pending", mj:get(ref).state)
      assert.matches("^mjhook: waiting for the answer of 1 request, [^\n]*\nmjhook: interrupted: task " .. ref
        .. " is pending\n$", child:err())
    end)
  end

  it("in the middle of a file hands back what it has not sent; the file can be submitted again", function()
    prepare()
    local lines = {}
    for i = 1, 40 do
      lines[i] = cjson.encode { prompt = "job " .. i }
    end
    local file = kit.write(kit.tmp() .. "/jobs", table.concat(lines, "\n") .. "\n")
    sim.config { submit = { slow = 1 }, slow_ms = 700, limit = 0 }
    local child = start("submit --file " .. file)
    in_the_air(2)
    child:kill "INT"
    assert.equal(130, child:wait())
    assert.matches("mjhook: interrupted: 40 jobs: 2 pending, 38 queued; what follows line 40 was not submitted",
      child:err())
    local tasks = mj:stats().tasks
    assert.same({ 2, 38, 0, 0 }, { tasks.pending, tasks.queued, tasks.submitting, tasks.ambiguous })
    assert.equal(2, sim.requests "submit")
    sim.config { submit = { slow = 0 } }
    assert(mj:reconcile())
    assert.equal(40, mj:stats().tasks.pending)
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("while it resubmits stores the answer, and leaves the others as they are", function()
    prepare()
    local refs = {}
    for i = 1, 3 do
      local task = assert(mj:adopt { task_id = "T" .. i, prompt = "p" })
      assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "failed", source = "callback",
                                task_id = "T" .. i, error = "no" } })
      refs[i] = task.ref
    end
    sim.config { submit = { slow = 1 }, slow_ms = 700 }
    local child = start("resubmit " .. table.concat(refs, " "))
    in_the_air(1)
    child:kill "INT"
    assert.equal(130, child:wait())
    assert.matches("interrupted: 2 of 3 tasks were left", child:err())
    local tasks = mj:stats().tasks
    assert.same({ 1, 2, 0 }, { tasks.pending, tasks.failed, tasks.ambiguous })
  end)

  it("while it resubmits by a filter sends nothing more of what is queued then", function()
    prepare()
    for i = 1, 6 do
      local task = assert(mj:adopt { task_id = "T" .. i, prompt = "p" })
      assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "failed", source = "callback",
                                task_id = "T" .. i, error = "no" } })
    end
    sim.config { submit = { slow = 1 }, slow_ms = 700 }
    local child = start "resubmit --state failed --yes"
    in_the_air(2)
    child:kill "INT"
    assert.equal(130, child:wait())
    assert.matches("^resubmitted 6 tasks; 2 sent", child:out())
    assert.matches("mjhook: interrupted: what is queued waits", child:err())
    local tasks = mj:stats().tasks
    assert.same({ 2, 4, 0 }, { tasks.pending, tasks.queued, tasks.ambiguous })
  end)

  it("while it waits for its turn and sends from there stores the answer", function()
    prepare()
    assert(mj:pause("default", 1))
    sim.config { submit = { slow = 1 }, slow_ms = 700 }
    local child = start "submit 'a fox' --wait"
    in_the_air(1)
    child:kill "INT"
    assert.equal(130, child:wait())
    assert.equal(1, mj:stats().tasks.pending)
    assert.matches("mjhook: interrupted: task %w+ is pending\n$", child:err())
  end)

  it("twice ends at once", function()
    prepare()
    sim.config { submit = { hang = 1 } }
    local child = start "submit 'a fox'"
    in_the_air(1)
    child:kill "INT"
    kit.wait_until(function() return child:err():find("a second signal ends at once", 1, true) end)
    child:kill "INT"
    assert.equal(130, child:wait(5))
  end)
end)
