-- mjhook-reconcile keeps its budget within a second, whatever the provider does, ends well when it is told to, and
-- holds its lock no longer than it lives.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local PROGRAM = kit.build .. "/bin/mjhook-reconcile"
local BUDGET, GRACE = 1, 1 -- seconds

describe("mjhook-reconcile", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj, config

  local function prepare(more, policy)
    mj = kit.open(more, sim)
    local settings = kit.settings(more, sim)
    settings.log, settings.policy = nil, nil
    local dir = kit.tmp()
    if policy then
      settings.policy = kit.write(dir .. "/policy.lua", policy)
    end
    config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
  end

  -- Stores tasks as of a day ago: queued ones, or with task ids.
  local function store(n, id)
    kit.travel(-100000)
    for first = 1, n, 1000 do
      local ops = {}
      for i = first, math.min(first + 999, n) do
        local prompt = "a fox " .. i
        ops[#ops + 1] = {
          op = "create", source = "user", task_id = id and id .. i, account = id and "default" or nil,
          task = { prompt = prompt, mode = "fast", timeout = 600, fingerprint = core.sha256(prompt) },
        }
      end
      for _, result in ipairs(assert(mj.exec:commit(ops))) do
        assert.equal("ok", result.code)
      end
    end
    kit.travel(100000)
  end

  -- Tasks that are to be polled now, and of which the simulator knows nothing.
  local function due(n)
    store(n, "due-")
    assert.equal(n, mj:stats().tasks.pending)
  end

  -- Jobs that wait to be sent, and may be.
  local function queued(n)
    store(n)
    assert.equal(n, mj:stats().ready)
  end

  -- Jobs of the simulator that are done and to be polled now.
  local function done(n)
    sim.config { limit = 0 }
    kit.travel(-100)
    local jobs = {}
    for i = 1, n do
      jobs[i] = { prompt = "a fox " .. i }
    end
    for _, task in ipairs(assert(mj:submit_many(jobs))) do
      sim.finish(task.task_id)
    end
    kit.travel(100)
  end

  local function start(arguments)
    return kit.spawn(("cd / && exec env -i PATH=/usr/bin:/bin %s -c %s --json %s"):format(kit.quote(PROGRAM),
      kit.quote(config), arguments or ""))
  end

  -- The base_url of a server that lets no connection be made.
  local function full_queue()
    local server = assert(socket.bind("127.0.0.1", 0, 0)) -- its queue is full with these
    local _, port = server:getsockname()
    for _ = 1, 8 do
      local client = socket.tcp()
      client:settimeout(0)
      client:connect("127.0.0.1", port)
      kit.finally(function() client:close() end)
    end
    kit.finally(function() server:close() end)
    return "http://127.0.0.1:" .. port
  end

  -- One run: how long it took in seconds, what it reported, its exit code.
  local function run(arguments)
    local before = socket.gettime()
    local child = start(arguments)
    local code = child:wait(30)
    local took = socket.gettime() - before
    return took, child:out() ~= "" and cjson.decode(child:out()) or nil, code
  end

  local function assert_kept(took, report)
    assert.is_true(took < BUDGET + GRACE, took)
    assert.is_true(report.elapsed_ms < (BUDGET + GRACE) * 1000)
  end

  -- It was the budget that ended it, not want of work.
  local function assert_used(took)
    assert.is_true(took > BUDGET - 0.2, took)
  end

  describe("keeps its budget when the provider", function()
    for _, kind in ipairs { "hang", "trickle", "stall", "hang_after" } do
      it("answers status requests so: " .. kind, function()
        prepare { batch = 5, connections = 2 }
        due(3000)
        sim.script { status = { { fault = kind, ms = 300, n = 1000 } } }
        local took, report, code = run("--budget " .. BUDGET)
        assert_used(took)
        assert_kept(took, report)
        assert.equal(1, code)
        assert.equal(0, report.lost)
        assert.equal(3000, report.pending)
      end)
    end

    it("accepts connections and reads nothing", function()
      local server = assert(socket.bind("127.0.0.1", 0))
      kit.finally(function() server:close() end)
      prepare { base_url = "http://127.0.0.1:" .. select(2, server:getsockname()) }
      due(3000)
      local took, report, code = run("--budget " .. BUDGET)
      assert_used(took)
      assert_kept(took, report)
      assert.equal(1, code)
      assert.equal(0, report.lost)
    end)

    it("lets no connection be made", function()
      prepare { base_url = full_queue(), connections = 2 }
      due(500)
      local took, report = run("--budget " .. BUDGET)
      assert_kept(took, report)
      assert.equal(0, report.lost)
    end)

    for kind, url in pairs { refuses = "http://127.0.0.1:1", ["has no name"] = "https://no-such-host.invalid" } do
      it(kind, function()
        prepare { base_url = url }
        due(5000)
        local took, report, code = run("--budget " .. BUDGET)
        assert_kept(took, report)
        assert.equal(1, code)
        assert.equal(0, report.lost)
        assert.equal(5000, report.pending)
      end)
    end

    for _, kind in ipairs { "reset", "cut", "http_503" } do
      it("does this to every request: " .. kind, function()
        prepare {}
        due(5000)
        sim.config { status = { [kind] = 1 } }
        local took, report, code = run("--budget " .. BUDGET)
        assert_kept(took, report)
        assert.equal(1, code)
        assert.equal(5000, report.pending)
      end)
    end
  end)

  describe("begins no submission after its budget, and those that it has begun", function()
    local LIMIT_MS = 2000 -- of a request here; 30 s outside of this

    it("get their answers", function()
      prepare { max_in_flight = 6, connections = 2 }
      queued(6)
      sim.config { submit = { slow = 1 }, slow_ms = 2000 }
      local took, report, code = run("--budget " .. BUDGET)
      assert.equal(0, code)
      assert.same({ 2, 4, 0 }, { report.submitted, report.queued, report.ambiguous })
      assert.equal(2, sim.requests "submit")
      assert.is_true(took < 2 + GRACE, took)
    end)

    for _, kind in ipairs { "hang", "trickle", "stall", "hang_after" } do
      it("wait no longer than a request may last when the provider answers so: " .. kind, function()
        prepare { max_in_flight = 6, connections = 2 }
        queued(6)
        sim.script { submit = { { fault = kind, ms = 300, n = 1000 } } }
        local http = mj.exec.http
        mj.exec.http = function(self, requests, ...)
          for _, request in ipairs(requests) do
            request.timeout_ms = LIMIT_MS
          end
          return http(self, requests, ...)
        end
        local report = assert(mj:reconcile { budget = BUDGET })
        assert.is_true(report.elapsed_ms < LIMIT_MS + GRACE * 1000, report.elapsed_ms)
        assert.same({ 2, 4 }, { report.ambiguous, report.queued }) -- they may have been sent: invariant 2
        assert.equal(2, sim.requests "submit")
      end)
    end

    it("are not sent when their connection is not made by then", function()
      prepare { base_url = full_queue(), connections = 2, max_in_flight = 4 }
      queued(4)
      local took, report = run("--budget " .. BUDGET)
      assert.is_true(took < BUDGET + 2 * GRACE, took)
      assert.same({ 4, 0 }, { report.queued, report.ambiguous })
    end)
  end)

  it("keeps its budget with thousands of due tasks, and goes on where it ended", function()
    prepare { batch = 10, connections = 2 }
    due(4000)
    sim.config { status = { slow = 1 }, slow_ms = 100 }
    local took, report = run("--budget " .. BUDGET)
    assert_used(took)
    assert_kept(took, report)
    local first = report.polled
    assert.is_true(first >= 20 and first < 4000, first)
    sim.config { status = { slow = 0 } }
    took, report = run "--budget 20"
    assert.is_true(took < 20)
    assert.equal(4000, first + report.polled) -- none twice, none left out
  end)

  it("cuts a handler off at its end, which has had its try by then if it ran for five seconds", function()
    prepare(nil, [[ return { on_event = function() os.execute "exec sleep 30" end } ]])
    local task = assert(mj:adopt { task_id = "T1", prompt = "p" })
    assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "failed", source = "callback",
                                                 task_id = "T1", error = "no" } })[1].code)
    local before = core.clock()
    local _, code = kit.sh(("%s -c %s -q --budget 5.5"):format(PROGRAM, config))
    local took = core.clock() - before
    assert.is_true(took > 5000 and took < 20000, took)
    assert.equal(1, code)
    local event = mj:events()()
    assert.same({ 1, 1, false }, { event.tries, event.failed, event.leased })
    assert.matches("^on_failed was killed: after 5%.%d s the sweep's budget was over$", event.errors[1].message)
  end)

  it("takes 45 s unless it is told otherwise", function()
    prepare {}
    due(1)
    local left
    local perform = mj.exec.http
    mj.exec.http = function(self, requests, deadline)
      left = deadline - core.clock()
      return perform(self, requests, deadline)
    end
    assert(mj:reconcile())
    assert.is_true(left > 43000 and left <= 45000, left)
  end)

  for _, signal in ipairs { "TERM", "INT" } do
    describe("on SIG" .. signal, function()
      it("finishes the batch in hand, applies it and exits 0", function()
        prepare { max_in_flight = 60, batch = 5, connections = 2 }
        done(60)
        sim.config { status = { slow = 1 }, slow_ms = 200 }
        local child = start "--budget 30"
        kit.wait_until(function() return sim.requests "status" >= 3 end)
        local before = socket.gettime()
        child:kill(signal)
        assert.equal(0, child:wait())
        assert.is_true(socket.gettime() - before < 10)
        local report = cjson.decode(child:out())
        -- None of them had a callback, which is told as it should be; and nothing else is.
        assert.equal("", (child:err():gsub("^mjhook%-reconcile: error: callbacks do not come[^\n]*\n", "")))
        assert.is_true(report.polled >= 20 and report.polled < 60, report.polled)
        assert.equal(0, report.polled % 10) -- whole batches: two requests of five
        assert.equal(report.polled, report.succeeded)
        assert.equal(report.polled, mj:stats().tasks.succeeded)
        assert.equal(60 - report.polled, mj:stats().tasks.pending)
        assert.is_true(mj:check().ok)
      end)

      it("keeps its budget when the provider hangs, and exits 0", function()
        prepare { batch = 5, connections = 2 }
        due(100)
        sim.config { status = { hang = 1 } }
        local before = socket.gettime()
        local child = start("--budget " .. BUDGET)
        kit.wait_until(function() return sim.requests "status" >= 1 end)
        child:kill(signal)
        child:wait()
        assert.is_true(socket.gettime() - before < BUDGET + GRACE)
        assert.equal(100, mj:stats().tasks.pending)
      end)

      it("ends in the middle of deliveries, each of which is done or waits", function()
        prepare({ max_in_flight = 60 }, "return { on_event = function() io.popen('sleep 0.1'):close() end }")
        done(40)
        local child = start "--budget 30"
        kit.wait_until(function()
          local stats = mj:stats()
          return stats.tasks.succeeded == 40 and stats.events < 38
        end)
        child:kill(signal)
        assert.equal(0, child:wait())
        local report = cjson.decode(child:out())
        assert.is_true(report.delivered > 1 and report.delivered < 40, report.delivered)
        assert.equal(40 - report.delivered, mj:stats().events)
        local _, rest = run ""
        assert.equal(40 - report.delivered, rest.delivered) -- at once: none was left leased
      end)
    end)
  end

  describe("locks its store", function()
    local first

    before_each(function()
      prepare {}
      due(10)
      sim.config { status = { hang = 1 } }
      first = start "--budget 20"
      kit.wait_until(function() return sim.requests "status" >= 1 end)
    end)

    it("so that a second run exits 75 at once, as often as it is tried", function()
      for _ = 1, 3 do
        local took, report, code = run()
        assert.equal(75, code)
        assert.is_nil(report)
        assert.is_true(took < 10, took)
      end
      assert.is_nil(first:status())
      assert.equal(1, sim.requests "status")
    end)

    it("against a pass from Lua, too", function()
      local report, err = mj:reconcile { budget = 1 }
      assert.is_nil(report)
      assert.equal("busy", err.code)
    end)

    it("until it is killed: a new run does the work at once", function()
      first:kill "KILL"
      first:wait()
      sim.config { status = { hang = 0 } }
      local took, report, code = run()
      assert.equal(0, code)
      assert.equal(10, report.polled)
      assert.is_true(took < 10, took)
    end)

    it("not beyond its death though a program that a handler started lives on", function()
      first:kill "KILL"
      first:wait()
      sim.config { status = { hang = 0 }, limit = 0 }
      local dir = kit.tmp()
      prepare({}, ([[return { on_event = function()
        os.execute "sleep 30 >/dev/null 2>&1 & echo $! >%s/pid; wait"
      end }]]):format(dir))
      done(1)
      local child = start()
      local pid = kit.wait_until(function() return tonumber(kit.read(dir .. "/pid") or "") end)
      kit.finally(function() kit.sh("kill " .. pid) end)
      child:kill "KILL"
      child:wait()
      local _, report, code = run()
      assert.equal(0, code)
      assert.equal(1, mj:stats().events) -- its lease lasts a while
      assert.equal(0, report.delivered)
      assert.equal(0, select(2, kit.sh("kill -0 " .. pid)))
    end)
  end)

  it("lets one of many that start together do the work", function()
    prepare {}
    due(10)
    sim.config { status = { slow = 1 }, slow_ms = 500 }
    local children, codes = {}, {}
    for i = 1, 6 do
      children[i] = start()
    end
    for _, child in ipairs(children) do
      local code = child:wait()
      codes[code] = (codes[code] or 0) + 1
    end
    assert.same({ [0] = 1, [75] = 5 }, codes)
    assert.equal(1, sim.requests "status")
  end)
end)
