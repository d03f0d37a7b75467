-- mjhook-reconcile under SIGKILL, at any moment, a hundred times over; and two of them at once.
-- MJHOOK_KILLS makes it longer; MJHOOK_SEED repeats a run's moments as far as a machine can.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"

local PROGRAM = kit.build .. "/bin/mjhook-reconcile"
local KILLS = tonumber(os.getenv "MJHOOK_KILLS") or 100
local SEED = tonumber(os.getenv "MJHOOK_SEED") or os.time()
local KILLED = 128 + 9
local LATER = ("ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s FAKETIME=+7200 FAKETIME_DONT_FAKE_MONOTONIC=1")
  :format((kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"))
local FINAL = { succeeded = true, failed = true, lost = true, cancelled = true }

-- Notes each event that it is handed, in one write. Whatever runs is due again at once, so that every pass has work.
local POLICY = [[
  return {
    on_event = function(task, ctx)
      local file = assert(io.open("%s", "a"))
      file:write(task.ref .. " " .. ctx.event_id .. " " .. ctx.type .. "\n")
      file:close()
    end,
    next_poll = function() return 0.05 end,
  }]]

describe("mjhook-reconcile", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir, config, mj

  before_each(function()
    sim.config { limit = 0 }
    dir = kit.tmp()
    mj = kit.open({ max_in_flight = 1000 }, sim)
    local text = receiver.config_text {
      store = kit.store, api_key = kit.KEY, secrets = { kit.SECRET }, base_url = sim.url, max_in_flight = 1000,
      hook_url = sim.url .. "/_sim/sink", batch = 20, connections = 4, log = dir .. "/log",
      policy = kit.write(dir .. "/policy.lua", POLICY:format(dir .. "/events")),
    }
    config = kit.write(dir .. "/config.lua", (text:gsub("^return {", "return { poll = { first = 1, learn = false },")))
  end)

  local function start(environment)
    return kit.spawn(("cd / && exec env -i PATH=/usr/bin:/bin %s %s -c %s --json"):format(environment or "", PROGRAM,
      config))
  end

  local function pass(environment)
    local child = start(environment)
    local code = child:wait(60)
    assert.is_true(code == 0 or code == 1, child:err())
    return cjson.decode(child:out())
  end

  -- Jobs that wait in the queue, for sweeps to send.
  local function queue(n, prompt)
    local refs = {}
    local job = require "mjhook.submission.job"
    local ops = {}
    for i = 1, n do
      ops[i] = { op = "create", task = assert(job.record(mj, { prompt = prompt })), source = "user", want = true }
    end
    for i, result in ipairs(assert(mj.exec:commit(ops))) do
      assert.equal("ok", result.code)
      refs[i] = result.task.ref
    end
    return refs
  end

  local function callback(ref, attempt, body)
    return mj:callback { method = "POST", uri = provider.hook_url(mj, ref, attempt), headers = {},
                         body = cjson.encode(body), peer = "127.0.0.1" }.status
  end

  -- How often each event was handed over: [ref][event id] = {type=, n=}.
  local function handed()
    local events = {}
    for ref, id, kind in (kit.read(dir .. "/events") or ""):gmatch "(%w+) (%S+) (%l+)\n" do
      events[ref] = events[ref] or {}
      events[ref][id] = events[ref][id] or { type = kind, n = 0 }
      events[ref][id].n = events[ref][id].n + 1
    end
    return events
  end

  it("killed in mid-pass again and again loses nothing, bills nothing twice and blocks no other", function()
    math.randomseed(SEED)
    local known, told = {}, {} -- refs that were acknowledged; final states that were seen, or acknowledged
    local jobs = {}
    for i = 1, 300 do
      jobs[i] = { prompt = ("fox %d"):format(i) }
    end
    kit.travel(-100)
    for _, task in ipairs(assert(mj:submit_many(jobs))) do
      known[task.ref] = assert(task.task_id)
    end
    kit.travel(100)
    sim.config { submit = { slow = 1 }, status = { slow = 0.5 }, slow_ms = 10 } -- somebody is always in the air
    local killed, rounds, left_submitting, left_polling, longest = 0, 0, 0, 0, 0.3
    while killed < KILLS do
      rounds = rounds + 1
      assert.is_true(rounds < 3 * KILLS, "it ends before it can be killed")
      -- The provider ends some jobs, and new ones wait to be sent.
      for _, j in ipairs(sim.jobs()) do
        if j.status == 0 and math.random(30) == 1 then
          pcall(sim.finish, j.taskId, math.random(3) == 1 and 2 or 1, "banned") -- it may have ended by now
        end
      end
      for _, ref in ipairs(queue(6, "later [ms=300]")) do
        known[ref] = true
      end
      local before, child = sim.requests "status", start()
      local at, began = math.random() * longest, core.clock()
      -- Meanwhile, callbacks are taken and acknowledged.
      for task in mj:tasks { state = "pending", limit = 2 } do
        local word = { taskId = task.task_id, status = math.random(2), image = "https://img.example/x" }
        assert.equal(200, callback(task.ref, task.attempt, word))
        told[task.ref] = mj:get(task.ref).state -- what it said, or what a poll had said before
        assert.is_true(FINAL[told[task.ref]])
      end
      kit.sleep(math.max(at - (core.clock() - began) / 1000, 0))
      child:kill "KILL"
      local code = child:wait()
      assert.is_true(code == KILLED or code == 0, ("round %d of seed %d ended with %d: %s"):format(rounds, SEED, code,
        child:err()))
      killed = killed + (code == KILLED and 1 or 0)
      longest = code == 0 and math.max(longest * 0.9, 0.05) or longest * 1.02
      left_polling = left_polling + (code == KILLED and sim.requests "status" > before and 1 or 0)
      -- What lies there is sound, and nobody has to repair it.
      local check = assert(mj:check())
      assert.same({}, check.problems)
      for task in mj:tasks { state = "submitting" } do
        left_submitting = left_submitting + 1
        assert.equal("dead", task.owner)
      end
      for ref, state in pairs(told) do
        assert.equal(state, mj:get(ref).state)
      end
      for task in mj:tasks { limit = 100 } do
        told[task.ref] = task.state ~= "lost" and FINAL[task.state] and task.state or told[task.ref]
      end
    end
    local where = ("%d times in %d runs, %d of them while it polled, with %d tasks left in the air; seed %d"):format(
      killed, rounds, left_polling, left_submitting, SEED)
    assert.is_true(left_polling >= KILLS / 4 and left_submitting > 0, where)
    local out, code = kit.sh(("MJHOOK_BUILD=%s lua5.4 %s/scripts/mjhook check --store %s"):format(
      kit.quote(kit.build), kit.quote(kit.root), kit.store))
    assert.equal(0, code, out)

    -- The provider comes to its end; of tasks whose sender died before it heard, it calls back.
    sim.config { submit = { slow = 0 }, status = { slow = 0 } }
    pass() -- finds the last dead, and sends what waits
    local ledger, outcome, ambiguous = sim.ledger(), {}, 0
    for _, j in ipairs(ledger.submissions) do
      assert.is_truthy(known[j.ref], "the provider has a job that nobody asked for")
      assert.is_nil(outcome[j.ref], "a ref was accepted twice")
      assert.equal("1", j.attempt)
      pcall(sim.finish, j.taskId)
      outcome[j.ref] = told[j.ref] or j.status == 2 and "failed" or "succeeded"
      if mj:get(j.ref).state == "ambiguous" then
        ambiguous = ambiguous + 1
        assert.equal(200, callback(j.ref, 1, { taskId = j.taskId, status = 1, image = "https://img.example/x" }))
        outcome[j.ref] = "succeeded"
      end
    end
    assert.same({}, ledger.billed_twice)
    assert.is_true(ambiguous > 0, "nobody died between sending and hearing: the test tests less than it says")

    -- One whole pass after all that, when the leases of the dead on events have run out.
    assert.equal(0, pass(LATER).errors)
    local count = 0
    for ref in pairs(known) do
      count = count + 1
      local task = assert(mj:get(ref), "an acknowledged task is gone")
      assert.equal(outcome[ref] or "lost", task.state, kit.story(task))
    end
    local stats = mj:stats()
    local tasks = stats.tasks
    assert.equal(count, tasks.succeeded + tasks.failed + tasks.lost)
    assert.same({ 0, 0, 0 }, { stats.events, stats.buried, stats.accounts[1].held })

    -- Each change was told, at least once, and as one event however often.
    local events = handed()
    for task in mj:tasks {} do
      local kinds = {}
      for _, event in pairs(events[task.ref] or {}) do
        assert.is_nil(kinds[event.type], "two events of one change")
        kinds[event.type] = true
      end
      assert.is_true(kinds[task.state], ("%s %s was never told of"):format(task.ref, task.state))
      for kind in pairs(kinds) do
        assert.is_truthy(kind == task.state or kind == "ambiguous", kit.story(task))
      end
    end
    assert.same({}, assert(mj:check()).problems)
  end)

  describe("twice at a time", function()
    local function due(n)
      kit.travel(-100)
      local jobs = {}
      for i = 1, n do
        jobs[i] = { prompt = "fox " .. i }
      end
      for _, task in ipairs(assert(mj:submit_many(jobs))) do
        sim.finish(task.task_id)
      end
      kit.travel(100)
    end

    it("leaves the work to one; the other one exits 75 at once, whichever came first", function()
      for round = 1, 3 do
        due(40)
        sim.script { status = { { fault = "slow", ms = 1500, n = 4 } } }
        local children = {}
        for i = 1, 4 do
          children[i] = start()
        end
        local working -- the one that is left when the others have gone
        kit.wait_until(function()
          local gone = 0
          for _, child in ipairs(children) do
            if child:status() then
              gone = gone + 1
              assert.equal(75, child:status())
              assert.equal("", child:out())
            else
              working = child
            end
          end
          return gone == 3
        end)
        assert.is_nil(working:status())
        assert.equal(0, working:wait())
        assert.equal(40, cjson.decode(working:out()).succeeded)
        assert.equal(40 * round, mj:stats().tasks.succeeded)
      end
      assert.equal(3 * 2, sim.requests "status")
      local events = handed()
      for task in mj:tasks {} do
        local _, event = next(events[task.ref])
        assert.equal(1, event.n)
      end
    end)

    it("can start as soon as the one at work was killed", function()
      due(3)
      for _ = 1, 10 do
        sim.script { status = { "hang" } }
        local before = sim.requests "status"
        local child = start()
        kit.wait_until(function() return sim.requests "status" > before end)
        local second = start()
        assert.equal(75, second:wait())
        child:kill "KILL"
        assert.equal(KILLED, child:wait())
      end
      assert.equal(3, pass().succeeded)
    end)
  end)
end)
