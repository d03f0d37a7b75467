-- Processes that are killed at every fault point in turn while they submit: nothing is lost, nothing is billed twice.
-- The programs that die, and this one, are of the build with FAULTS=1; this one is told to die nowhere.
local cjson = require "cjson"
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local KILLED = 128 + 9

-- Where a submission can be parted, all of which it must have passed: else the test tests less than it says.
local POINTS = {
  "store.begin", "store.commit", "store.committed", "http.start", "http.begin", "http.connected", "http.body",
  "http.handed", "http.wait", "http.head", "http.answer", "http.ended",
}

local real_now = core.now

describe("a process that is killed", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir

  before_each(function()
    dir = kit.tmp()
  end)

  -- A store that nobody has used, and a provider that has forgotten; what was moved of the time is undone.
  local function fresh(more)
    core.now = real_now
    kit.sh("rm -rf " .. dir .. "/store")
    sim.reset()
    local settings = { store = dir .. "/store" }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    return kit.open(settings, sim)
  end

  -- A job that is stored and waits, though there is room: as one whose submitter died between two steps.
  local function queue(mj, prompt)
    local record = assert(job.record(mj, { prompt = prompt }))
    local result = assert(mj.exec:commit { { op = "create", task = record, source = "user", want = true } })[1]
    assert.equal("ok", result.code)
    return result.task.ref
  end

  -- Runs `command` so that it dies at its n-th passage, or at "POINT:N". Gives its exit code, what it wrote, and where
  -- it was.
  local function run(command, n)
    local log = dir .. "/passages"
    os.remove(log)
    local where = type(n) == "number" and "*:" .. n or n or ""
    local out, code = kit.sh(("env MJHOOK_FAULT='%s' MJHOOK_FAULT_LOG=%s %s"):format(where, log, command))
    local passages = {}
    for name in (kit.read(log) or ""):gmatch "%S+" do
      passages[#passages + 1] = name
    end
    return code, out, passages
  end

  -- As the provider: every job that it accepted ends, and mj hears of it at the URL that the job came with.
  local function answer_all(mj)
    for _, j in ipairs(sim.jobs()) do
      if j.status == 0 then
        sim.finish(j.taskId)
      end
      local uri = j.hookUrl:match "^http://[^/]+(.*)$"
      local body = cjson.encode { taskId = j.taskId, status = 1, image = "https://img.example/" .. j.taskId }
      local reply = mj:callback { method = "POST", uri = uri, headers = {}, body = body, peer = "127.0.0.1" }
      assert.equal(200, reply.status)
    end
  end

  local function open_tasks(mj)
    local t = mj:stats().tasks
    return t.queued + t.submitting + t.ambiguous + t.pending
  end

  local function held(mj)
    local n = 0
    for _, account in ipairs(mj:stats().accounts) do
      n = n + account.held
    end
    return n
  end

  -- Until nothing is open: passes, the provider's words, and time for what was never sent to be given up.
  local function settle(mj)
    for _ = 1, 8 do
      assert(mj:reconcile {})
      answer_all(mj)
      if open_tasks(mj) + held(mj) == 0 then
        return
      end
      kit.travel(1000) -- more than timeout and grace
    end
    error(("%d tasks are open and %d slots held for ever"):format(open_tasks(mj), held(mj)))
  end

  -- What must be so in the end, wherever somebody died.
  local function audit(mj)
    local ledger = sim.ledger()
    assert.same({}, ledger.billed_twice)
    local accepted = {}
    for _, j in ipairs(ledger.submissions) do
      assert.is_nil(accepted[j.ref], "a ref was accepted twice")
      accepted[j.ref] = true
      assert.truthy(mj:get(j.ref), "the provider has a job that the store does not know")
      assert.equal("1", j.attempt)
    end
    for task in mj:tasks {} do
      assert.equal(accepted[task.ref] and "succeeded" or "lost", task.state, kit.story(task))
    end
    assert.equal(0, held(mj))
    assert.same({}, assert(mj:check()).problems)
  end

  -- Right after a death, and before anybody repaired anything. Gives how many transactions the dead one had made.
  local function look_at_the_dead(mj, passages)
    for task in mj:tasks { state = "submitting" } do
      assert.equal("dead", task.owner)
    end
    for _, j in ipairs(sim.jobs()) do
      local task = assert(mj:get(j.ref), "it was sent and is not in the store")
      assert.not_equal("queued", task.state)
    end
    local commits = 0
    for _, name in ipairs(passages) do
      commits = commits + (name == "store.committed" and 1 or 0)
    end
    return commits
  end

  local function finish_off(mj, order, repaired)
    if order == "callbacks first" then
      answer_all(mj) -- a callback finds a task that is `submitting` under a dead owner
    end
    -- No time has gone by: that its owner is dead is evidence enough, and no slot has to wait for it.
    assert(mj:reconcile {})
    assert.equal(0, mj:stats().tasks.submitting)
    repaired()
    if order == "callbacks last" then
      -- Whatever waits would be sent by now, and who was sent before and is sent again would be accepted twice.
      for _ = 1, 4 do
        kit.travel(500)
        assert(mj:reconcile {})
      end
    end
    settle(mj)
    audit(mj)
  end

  -- Kills `command` at its n-th passage, or at "POINT:N", on a store that `prepare` made. Gives where it died, nil when
  -- it did not.
  -- `repaired` is what the survivors do after the first pass.
  local function kill_at(n, command, prepare, repaired, order)
    local mj = prepare()
    local code, out, passages = run(command, n)
    assert.is_true(code == KILLED or code == 0, out)
    if code == KILLED and type(n) == "number" then
      assert.equal(n, #passages)
    end
    local ok, why = pcall(function()
      local commits = look_at_the_dead(mj, passages)
      finish_off(mj, order, function()
        repaired(mj, commits)
      end)
    end)
    if not ok then
      error(("killed at passage %s (%s), %s: %s"):format(n, table.concat(passages, " "), order, tostring(
        type(why) == "table" and why.message or why)), 0)
    end
    mj:close()
    return code == KILLED and passages[#passages] or nil
  end

  -- Each passage with the provider's callbacks as what comes next, with a pass of the reconciler, and with callbacks
  -- that come when all has been given up.
  local function kill_everywhere(command, prepare, repaired, more_points)
    local died_at = {}
    for _, order in ipairs { "callbacks first", "a pass first", "callbacks last" } do
      local n = 1
      local name = kill_at(n, command, prepare, repaired, order)
      while name do
        died_at[name] = true
        n = n + 1
        name = kill_at(n, command, prepare, repaired, order)
      end
    end
    -- Passages of two threads come in an order of their own each time: one may have been missed.
    for _, list in ipairs { POINTS, more_points or {} } do
      for _, name in ipairs(list) do
        assert.equal(name, died_at[name] and name or kill_at(name .. ":1", command, prepare, repaired, "a pass first"))
      end
    end
  end

  local function submitting(code, query)
    return kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q, hook_url = %q,
                                                 secrets = { %q }, connections = 3 })
    ]]):format(dir .. "/store", kit.KEY, sim.url, sim.url .. "/_sim/sink" .. (query or ""), kit.SECRET) .. code)
  end

  local function count(mj)
    local n = 0
    for _ in mj:tasks {} do
      n = n + 1
    end
    return n
  end

  it("while it submits leaves a task that is neither lost nor sent again", function()
    kill_everywhere(submitting [[
      assert(mj:submit { prompt = "a fox" })
    ]], fresh, function(mj, commits)
      assert.equal(commits > 0 and 1 or 0, count(mj))
    end)
  end)

  it("while it submits a job whose body goes out in pieces leaves none that the provider has half of", function()
    -- libcurl takes 64 KiB at a time: a prompt of which each byte is six in JSON, and a long address.
    local command = submitting([[
      assert(mj:submit { prompt = ("\1"):rep(10000) })
    ]], "?" .. ("x"):rep(8000))
    local mj = fresh()
    local code, out, passages = run(command)
    assert.equal(0, code, out)
    local pieces = table.concat(passages, " "):gsub("http.wait ", "")
    assert.matches("http.body http.handed http.body http.handed", pieces)
    assert.equal(1, #sim.jobs())
    mj:close()
    kill_everywhere(command, fresh, function(survivor, commits)
      assert.equal(commits > 0 and 1 or 0, count(survivor))
    end)
  end)

  it("while it submits with a key leaves a task that the same key finds, and that is billed once", function()
    kill_everywhere(submitting [[
      assert(mj:submit { prompt = "a fox", key = "order-7" })
    ]], fresh, function(mj, commits)
      local first = mj:find_key "order-7"
      local task = assert(mj:submit { prompt = "a fox", key = "order-7" })
      assert.equal(commits > 0, task.duplicate or false)
      assert.equal(first and first.ref or task.ref, task.ref)
      assert.equal(1, count(mj))
      assert.is_true(#sim.jobs() <= 1)
    end)
  end)

  it("while it submits and sends those who waited, too, loses none of them", function()
    kill_everywhere(submitting [[
      assert(mj:submit { prompt = "a fox" })
    ]], function()
      local mj = fresh()
      for i = 1, 3 do
        queue(mj, "waiting " .. i)
      end
      return mj
    end, function(mj, commits)
      assert.equal(commits > 0 and 4 or 3, count(mj))
    end)
  end)

  it("while it submits many keeps all of them or none, and sends none twice", function()
    kill_everywhere(submitting [[
      local jobs = {}
      for i = 1, 5 do
        jobs[i] = { prompt = "job " .. i, key = "k" .. i }
      end
      for _, r in ipairs(assert(mj:submit_many(jobs))) do
        assert(r.ref)
      end
    ]], fresh, function(mj, commits)
      assert.equal(commits > 0 and 5 or 0, count(mj))
      local jobs = {}
      for i = 1, 5 do
        jobs[i] = { prompt = "job " .. i, key = "k" .. i }
      end
      for _, r in ipairs(assert(mj:submit_many(jobs))) do
        assert.truthy(r.ref)
        assert.equal(commits > 0, r.duplicate or false)
      end
      assert.equal(5, count(mj))
    end, { "http.drive" })
  end)

  it("while it withdraws what waits for a connection, since the provider refuses, sends none of it twice", function()
    for _, order in ipairs { "callbacks first", "a pass first", "callbacks last" } do
      local mj = fresh()
      sim.script { submit = { { fault = "slow", ms = 30, n = 4 }, { fault = "quota", n = 2 } } }
      local code, out, passages = run(submitting [[
        local jobs = {}
        for i = 1, 10 do
          jobs[i] = { prompt = "job " .. i }
        end
        mj:submit_many(jobs)
      ]], "http.withdraw:1")
      assert.equal(KILLED, code, out)
      assert.equal("http.withdraw", passages[#passages])
      look_at_the_dead(mj, passages)
      finish_off(mj, order, function()
        assert.equal(10, count(mj))
      end)
      mj:close()
    end
  end)

  it("while it reconciles loses nothing of what it polls, recovers and submits", function()
    local config
    local function prepare()
      local mj = fresh { max_in_flight = 5, connections = 2 }
      config = config or kit.write(dir .. "/config.lua", receiver.config_text {
        store = dir .. "/store", api_key = kit.KEY, base_url = sim.url, hook_url = sim.url .. "/_sim/sink",
        secrets = { kit.SECRET }, max_in_flight = 5, connections = 2,
      })
      kit.travel(-100) -- these are to be polled now
      local known = assert(mj:submit { prompt = "ended, and nobody said so" })
      assert(mj:submit { prompt = "still running" })
      core.now = real_now
      sim.finish(known.task_id)
      -- One that was sent and whose submitter died before it heard the answer.
      assert.equal(KILLED, (select(2, kit.sh("MJHOOK_FAULT=http.wait:2 " .. submitting [[
        assert(mj:submit { prompt = "its submitter is dead" })
      ]]))))
      for i = 1, 3 do
        queue(mj, "waiting " .. i)
      end
      return mj
    end
    kill_everywhere(kit.quote(kit.build .. "/bin/mjhook-reconcile") .. " -c " .. kit.quote(dir .. "/config.lua"),
      prepare, function(mj)
        assert.equal(6, count(mj))
      end)
  end)

  it("is told so by a name and a number, and says what is wrong with other words", function()
    local command = submitting 'io.write(mj:submit { prompt = "a fox" }.state)'
    fresh()
    assert.equal(KILLED, (select(2, kit.sh("MJHOOK_FAULT=store.committed:2 " .. command))))
    assert.equal(1, #sim.jobs())
    for _, wrong in ipairs { "store.begin", "store.begin:", "store.begin:0", "store.begin:x", ":1", "*" } do
      local out, code = kit.sh(("MJHOOK_FAULT='%s' %s"):format(wrong, command))
      assert.same({ 64, "MJHOOK_FAULT: NAME:N expected, got " .. wrong }, { code, out })
    end
    assert.equal("queued", (kit.sh("MJHOOK_FAULT=no.such.point:1 " .. command .. " | sed s/pending/queued/")))
  end)

  it("and this one, too, are of the build that is tested", function()
    assert.truthy(kit.read("/proc/self/maps"):find(kit.build .. "/5.4/mjhook/core.so", 1, true))
  end)

  it("is so by nothing in a release build", function()
    local build = os.getenv "MJHOOK_RELEASE_BUILD"
    if not build or build == kit.build then
      return pending "there is no release build beside this one"
    end
    for _, name in ipairs { "/5.4/mjhook/core.so", "/bin/mjhook-reconcile" } do
      assert.is_nil(assert(kit.read(build .. name)):find("MJHOOK_FAULT", 1, true), name)
      assert.truthy(assert(kit.read(kit.build .. name)):find("MJHOOK_FAULT", 1, true), name)
    end
  end)
end)

describe("eight processes that submit at once", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  it("never have more jobs running than there are slots, and send each once", function()
    local SLOTS, EACH, PROCESSES = 5, 6, 8
    sim.config { limit = 0 } -- the provider would take more
    local mj = kit.open({ max_in_flight = SLOTS }, sim)
    local go = kit.tmp() .. "/go"
    local code = ([[
      local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q, hook_url = %q,
                                                 secrets = { %q }, max_in_flight = %d, connections = 2 })
      assert(mj:stats())
      io.stdout:write("ready\n")
      io.stdout:flush()
      while not io.open(%q) do
        require("socket").sleep(0.001)
      end
    ]]):format(kit.store, kit.KEY, sim.url, sim.url .. "/_sim/sink", kit.SECRET, SLOTS, go)
    -- Every other one with a list, whose later lots are claimed while outcomes are stored.
    local ways = { ([[
      for i = 1, %d do
        io.stdout:write(assert(mj:submit { prompt = "a fox" }).ref, "\n")
      end
    ]]):format(EACH), ([[
      local jobs = {}
      for i = 1, %d do
        jobs[i] = { prompt = "a wolf" }
      end
      for _, task in ipairs(assert(mj:submit_many(jobs))) do
        io.stdout:write(task.ref, "\n")
      end
    ]]):format(EACH) }
    local children = {}
    for i = 1, PROCESSES do
      children[i] = kit.spawn("exec " .. kit.lua_command(code .. ways[i % 2 + 1]))
    end
    for _, child in ipairs(children) do
      kit.wait_until(function() return child:out() == "ready\n" or child:status() end)
    end
    kit.write(go, "")
    kit.wait_until(function() return sim.requests "submit" >= SLOTS end)
    -- Slots become free while others submit: the provider says what has ended, and the reconciler sends who waits.
    local answered = 0
    kit.wait_until(function()
      local jobs = sim.jobs()
      for i = answered + 1, #jobs do
        sim.finish(jobs[i].taskId)
        local reply = mj:callback {
          method = "POST", uri = jobs[i].hookUrl:match "^http://[^/]+(.*)$", headers = {}, peer = "127.0.0.1",
          body = cjson.encode { taskId = jobs[i].taskId, status = 1, image = "https://img.example/1" },
        }
        assert.equal(200, reply.status)
      end
      answered = #jobs
      assert(mj:reconcile {})
      return mj:stats().tasks.succeeded == EACH * PROCESSES
    end, 30)
    local refs = {}
    for _, child in ipairs(children) do
      assert.equal(0, child:wait(), child:err())
      for ref in child:out():gmatch "%w+%f[\n]" do
        refs[ref] = ref ~= "ready" or nil
      end
    end
    local ledger = sim.ledger()
    assert.same({}, ledger.billed_twice)
    assert.equal(EACH * PROCESSES, #ledger.submissions)
    for _, j in ipairs(ledger.submissions) do
      assert.is_true(refs[j.ref])
    end
    assert.equal(SLOTS, ledger.counters.accounts[kit.KEY].max_unfinished)
    assert.equal(0, #mj:stats().accounts > 0 and mj:stats().accounts[1].held or 0)
    assert.same({}, assert(mj:check()).problems)
  end)
end)
