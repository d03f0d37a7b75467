-- mj:deliver: each event to the policy, in order per task, until its handler returns; no network in here.
local core = require "mjhook.core"
local deliver = require "mjhook.delivery.deliver"
local kit = require "kit"
local runner = require "mjhook.delivery.pool"

describe("deliver", function()
  after_each(kit.cleanup)

  local mj, seen

  before_each(function()
    seen = {}
  end)

  -- Opens with a policy of these functions; every call of on_event is noted beside.
  local function open(functions, more)
    local settings = { policy = functions }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    mj = kit.open(settings)
    return mj
  end

  local function note(task, ctx)
    seen[#seen + 1] = { ref = task.ref, state = task.state, type = ctx.type, id = ctx.event_id, late = task.late,
                        attempt = ctx.attempt, created_at = ctx.created_at, task = task }
  end

  local function types()
    local list = {}
    for i, event in ipairs(seen) do
      list[i] = event.type
    end
    return table.concat(list, " ")
  end

  local n = 0

  -- Takes a new task through the given signals, as the flows would; gives its ref.
  local function task_with(...)
    n = n + 1
    local prompt = "a fox " .. n
    local made = assert(mj.exec:commit {
      { op = "create", source = "user", want = true,
        task = { prompt = prompt, fingerprint = core.sha256(prompt), context = '{"n":' .. n .. "}" } },
      { op = "claim", source = "submit" },
    })
    local ref, ops = made[1].task.ref, {}
    for i, signal in ipairs { ... } do
      local op = { op = "signal", ref = ref, attempt = 1, source = "callback", kind = signal, task_id = "Id" .. n }
      if signal == "succeeded" then
        op.image = "https://img.example/x.png"
      elseif signal == "maybe_sent" or signal == "give_up" then
        op.source, op.task_id = "submit", nil
      end
      ops[i] = op
    end
    for _, result in ipairs(assert(mj.exec:commit(ops))) do
      assert.equal("ok", result.code)
    end
    return ref
  end

  local function waiting()
    return (assert(mj.store:page { by = "event", limit = 1000 }))
  end

  local function assert_seen_once(count)
    local once = {}
    for _, event in ipairs(seen) do
      assert.is_nil(once[event.id])
      once[event.id] = true
    end
    assert.equal(count, #seen)
  end

  it("calls on_<type>, then on_event, with the task and the event", function()
    local calls = {}
    open {
      on_succeeded = function(task, ctx) calls[#calls + 1] = { "on_succeeded", task, ctx } end,
      on_event = function(task, ctx) calls[#calls + 1] = { "on_event", task, ctx } end,
    }
    local ref = task_with "succeeded"
    assert.same({ delivered = 1, buried = 0, errors = 0 }, mj:deliver())
    assert.equal("on_succeeded", calls[1][1])
    assert.equal("on_event", calls[2][1])
    for _, call in ipairs(calls) do
      assert.equal(ref, call[2].ref)
      assert.equal("succeeded", call[2].state)
      assert.same({ n = n }, call[2].context)
      assert.equal("succeeded", call[3].type)
      assert.equal(ref .. "-1", call[3].event_id)
      assert.equal(1, call[3].attempt)
      assert.equal("number", type(call[3].created_at))
    end
    assert.equal(2, #calls)
  end)

  for _, case in ipairs {
    { "on_failed", "failed" }, { "on_ambiguous", "maybe_sent" }, { "on_lost", "maybe_sent", "give_up" },
  } do
    it("calls " .. case[1], function()
      local called = 0
      open { [case[1]] = function() called = called + 1 end }
      task_with(case[2], case[3])
      assert(mj:deliver())
      assert.equal(1, called)
      assert.equal(0, mj:stats().events)
    end)
  end

  it("delivers once", function()
    open { on_event = note }
    task_with "succeeded"
    assert(mj:deliver())
    assert.same({ delivered = 0, buried = 0, errors = 0 }, mj:deliver())
    assert.equal("succeeded", types())
    assert.equal(0, mj:stats().events)
  end)

  it("keeps the order of a task's events, and gives the task as it is now", function()
    open { on_event = note }
    local ref = task_with("maybe_sent", "give_up", "succeeded")
    assert.equal(3, assert(mj:deliver()).delivered)
    assert.equal("ambiguous lost succeeded", types())
    for i, event in ipairs(seen) do
      assert.equal(ref .. "-" .. i, event.id)
      assert.equal("succeeded", event.state)
    end
    assert.is_true(seen[3].late)
  end)

  it("says of an event itself that it overruled an earlier one, whatever became of the task since", function()
    open { on_event = note }
    local ref = task_with("maybe_sent", "give_up")
    local function signal(kind, source)
      assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = ref, attempt = 1, kind = kind, source = source,
                                                   task_id = kind == "failed" and "Id" .. n or nil } })[1].code)
    end
    signal("failed", "callback") -- the provider's word, after ours
    signal("resubmit", "user")   -- and nothing of it holds any more
    assert.equal(3, assert(mj:deliver()).delivered)
    assert.equal("ambiguous lost failed", types())
    assert.is_nil(seen[1].late or seen[2].late)
    assert.is_true(seen[3].late)
    assert.is_nil(mj:get(ref).late)
  end)

  it("keeps events until there is a policy", function()
    open(nil)
    task_with "succeeded"
    assert.same({ delivered = 0, buried = 0, errors = 0 }, mj:deliver())
    assert.equal(1, mj:stats().events)
    mj:close()
    open { on_event = note }
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal("succeeded", types())
  end)

  it("is done with an event that the policy has no handler for", function()
    open { on_failed = note }
    task_with "succeeded"
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal("", types())
  end)

  local failures = {
    { "raises", function() error("disk on fire", 0) end, "on_event raised: disk on fire" },
    { "raises a table", function() error(setmetatable({}, { __tostring = function() return "odd" end })) end,
      "on_event raised: odd" },
    { "raises nil", function() error(nil) end, "on_event raised: nil" },
    { "returns false and why", function() return false, "not today" end, "on_event: not today" },
    { "returns false", function() return false end, "on_event: returned false" },
  }
  for _, case in ipairs(failures) do
    it("tries again when the handler " .. case[1], function()
      local calls, ids = 0, {}
      open { on_event = function(_, ctx)
        calls = calls + 1
        ids[ctx.event_id] = true
        if calls == 1 then
          return case[2]()
        end
      end }
      task_with "succeeded"
      assert.same({ delivered = 0, buried = 0, errors = 1 }, mj:deliver())
      local event = waiting()[1]
      assert.equal(1, event.tries)
      assert.equal(case[3], event.errors[1].message)
      assert.matches(case[3], kit.log_text(), 1, true)
      local wait = (event.next_at - core.now()) / 1000
      assert.is_true(wait > 15 and wait < 19, wait) -- 15 + 2^1, give or take 10 %
      assert.same({ delivered = 0, buried = 0, errors = 0 }, mj:deliver())
      kit.travel(20)
      assert.same({ delivered = 1, buried = 0, errors = 0 }, mj:deliver())
      assert.equal(2, calls)
      assert.equal(ids[next(ids)] and next(ids), next(ids, nil))
      assert.is_nil(next(ids, (next(ids))))
    end)
  end

  for _, value in ipairs { "nil", "true", "0", "'text'", "{}" } do
    it("takes any other answer for done: " .. value, function()
      open { on_event = (loadstring or load)("return function() return " .. value .. " end")() }
      task_with "succeeded"
      assert.equal(1, assert(mj:deliver()).delivered)
    end)
  end

  it("runs both handlers again when the second fails", function()
    local first, second = 0, 0
    open {
      on_succeeded = function() first = first + 1 end,
      on_event = function()
        second = second + 1
        return second > 1
      end,
    }
    task_with "succeeded"
    assert(mj:deliver())
    kit.travel(20)
    assert(mj:deliver())
    assert.same({ 2, 2 }, { first, second })
  end)

  it("lets one task's failing event hold up its own next ones, and no other task's", function()
    local poisoned
    open { on_event = function(task, ctx)
      if task.ref == poisoned and ctx.type == "ambiguous" then
        error "poison"
      end
      note(task, ctx)
    end }
    poisoned = task_with("maybe_sent", "succeeded")
    task_with "succeeded"
    task_with "failed"
    assert.same({ delivered = 2, buried = 0, errors = 1 }, mj:deliver())
    assert.equal("succeeded failed", types())
    assert.equal(2, mj:stats().events)
  end)

  it("buries after twenty tries, never drops, and lets the task's next event go", function()
    local tries = 0
    open { on_event = function(task, ctx)
      if ctx.type == "ambiguous" then
        tries = tries + 1
        error("try " .. tries)
      end
      note(task, ctx)
    end }
    task_with("maybe_sent", "succeeded")
    local least, most = math.huge, 0 -- of what was planned
    for i = 1, 19 do
      assert.same({ delivered = 0, buried = 0, errors = 1 }, mj:deliver())
      assert.equal(i, tries)
      local wait = (waiting()[1].next_at - core.now()) / 1000
      local planned = math.min(3600, 15 + 2 ^ i)
      assert.is_true(wait >= planned * 0.9 - 1 and wait <= planned * 1.1 + 1, i .. ": " .. wait)
      if i > 5 then -- where a millisecond is nothing
        least, most = math.min(least, wait / planned), math.max(most, wait / planned)
      end
      kit.travel(wait + 1)
    end
    assert.is_true(most - least > 0.02, "no jitter: those that failed together would always come together")
    assert.same({ delivered = 1, buried = 1, errors = 1 }, mj:deliver())
    assert.equal(20, tries)
    assert.equal("succeeded", types())
    local stats = mj:stats()
    assert.same({ 0, 1 }, { stats.events, stats.buried })
    local buried = (mj.store:page { by = "event", buried = true, limit = 10 })[1]
    assert.is_true(buried.buried)
    assert.equal(5, #buried.errors)
    for i = 1, 5 do -- the newest, the oldest of them first
      assert.matches("try " .. 15 + i .. "$", buried.errors[i].message)
    end
    kit.travel(100000)
    assert.same({ delivered = 0, buried = 0, errors = 0 }, mj:deliver())
  end)

  describe("of a handler that hangs", function()
    local hangs = {
      ["loops"] = function() while true do end end,
      ["loops in a function of its own"] = function()
        local function spin(x) return x + 1 end
        local x = 0
        while true do x = spin(x) end
      end,
      ["loops in a coroutine"] = function()
        coroutine.wrap(function() while true do end end)()
      end,
      ["loops in a coroutine that catches errors"] = function()
        local co = coroutine.create(function()
          while true do
            pcall(function() while true do end end)
          end
        end)
        while true do
          coroutine.resume(co)
        end
      end,
      ["catches errors and goes on"] = function()
        while true do
          pcall(function() while true do end end)
        end
      end,
    }
    for name, hang in pairs(hangs) do
      it("ends it after handler_timeout when it " .. name, function()
        local hung = false
        open({ on_event = function(task, ctx)
          if not hung then
            hung = true
            hang()
          end
          note(task, ctx)
        end }, { handler_timeout = 0.1 })
        task_with "succeeded"
        task_with "failed"
        local started = core.clock()
        local report = assert(mj:deliver())
        assert.is_true(core.clock() - started < 20000)
        assert.same({ delivered = 1, buried = 0, errors = 1 }, report)
        assert.equal("failed", types())
        assert.matches("handler_timeout", waiting()[1].errors[1].message)
        kit.travel(20)
        assert.equal(1, assert(mj:deliver()).delivered)
      end)
    end

    it("leaves no trap behind for code that runs later", function()
      open({ on_event = function() while true do end end }, { handler_timeout = 0.05 })
      task_with "succeeded"
      assert(mj:deliver())
      assert.is_nil((debug.gethook()))
      local x = 0
      for i = 1, 1000000 do x = x + i end
      assert.is_true(x > 0)
    end)
  end)

  it("stops at its limit", function()
    open { on_event = note }
    for _ = 1, 5 do
      task_with "succeeded"
    end
    assert.equal(2, assert(mj:deliver { limit = 2 }).delivered)
    assert.equal(3, assert(mj:deliver()).delivered)
    assert.equal(5, #seen)
  end)

  it("stops when its budget is spent; nothing is lost", function()
    open { on_event = function(task, ctx)
      kit.sleep(0.03)
      note(task, ctx)
    end }
    for _ = 1, 6 do
      task_with "succeeded"
    end
    local first = assert(mj:deliver { budget = 0.05 }).delivered
    assert.is_true(first >= 1 and first <= 4, first)
    assert.equal(6 - first, assert(mj:deliver()).delivered)
    assert.equal(6, #seen)
  end)

  -- As another thread does it that sees how slow the handler is.
  local function take_back()
    local names = core.workqueue("x"):take_back(-1000)
    local ops = {}
    for i, name in ipairs(names) do
      ops[i] = runner.taken_back(name, core.now())
    end
    assert(mj.exec:commit(ops))
    return #names
  end

  it("lets another thread take back what a slow handler has not begun: due at once, as if never taken", function()
    local held, back = core.workqueue "x", 0 -- so that they outlive a turn
    open { on_event = function(task, ctx)
      note(task, ctx)
      if #seen == 10 then -- the third of eight
        back = take_back()
        for _, event in ipairs(waiting()) do
          if not event.leased then
            assert.same({ 0, {} }, { event.tries, event.errors })
            assert.is_true(event.next_at <= core.now())
          end
        end
      end
    end }
    for _ = 1, 20 do
      task_with "succeeded"
    end
    assert.same({ delivered = 20, buried = 0, errors = 0 }, deliver.deliver(mj, { queue = "x" }))
    assert.equal(5, back)
    assert_seen_once(20)
    assert.same({}, waiting())
    held:close()
  end)

  it("leaves it to the thread that took it back, also when that one had it and is done before the slow one", function()
    local held = core.workqueue "x"
    local others = 0
    open { on_event = function(task, ctx)
      note(task, ctx)
      if #seen == 10 then
        take_back()
        others = mj:deliver().delivered -- in the middle of this one, as in another thread
      end
    end }
    for _ = 1, 20 do
      task_with "succeeded"
    end
    assert.equal(10, deliver.deliver(mj, { queue = "x" }).delivered)
    assert.equal(10, others)
    assert.equal(20, #seen)
    assert.same({}, waiting())
    held:close()
  end)

  it("gives back what it has leased when it is to stop, due at once", function()
    local stop = false
    open { on_event = note }
    mj.stopping = function() return stop end
    for _ = 1, 20 do
      task_with "succeeded"
    end
    local quick = 0
    mj.policy.functions.on_event = function(task, ctx)
      quick = quick + 1
      stop = quick == 10 -- in the middle of a batch
      note(task, ctx)
    end
    assert.equal(10, assert(mj:deliver()).delivered)
    for _, event in ipairs(waiting()) do
      assert.same({ 0, {} }, { event.tries, event.errors }) -- not counted against it
      assert.is_true(event.next_at <= core.now())
    end
    stop = false
    assert.equal(10, assert(mj:deliver()).delivered)
    assert_seen_once(20)
  end)

  it("gives an event to one of two deliverers at a time", function()
    local inner
    open { on_event = function(task, ctx)
      note(task, ctx)
      local other = kit.open { policy = { on_event = note } }
      inner = assert(other:deliver()).delivered
    end }
    task_with "succeeded"
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal(0, inner)
    assert.equal("succeeded", types())
  end)

  it("hands an event out again, under its own id, when its deliverer was killed", function()
    kit.needs "processes"
    open { on_event = note }
    local ref = task_with "succeeded"
    local mark = kit.tmp() .. "/mark"
    local child = kit.spawn("exec " .. kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, handler_timeout = 5, policy = {
        on_event = function(task, ctx)
          local file = io.open(%q, "w")
          file:write(ctx.event_id)
          file:close()
          os.execute "sleep 60"
        end } })
      mj:deliver()
    ]]):format(kit.store, mark), kit.other_lua))
    local ok = pcall(kit.wait_until, function() return kit.read(mark) == ref .. "-1" end)
    assert.is_true(ok, child:err())
    child:kill "KILL"
    assert.equal(0, assert(mj:deliver()).delivered) -- the lease still runs
    kit.travel(60)
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal(ref .. "-1", seen[1].id)
  end)

  it("keeps the event when the store can't take the outcome", function()
    open { on_event = note }
    task_with "succeeded"
    local commit, calls = mj.exec.commit, 0
    mj.exec.commit = function(self, ops)
      calls = calls + 1
      if calls == 2 then
        return nil, core.error("no_space", "no space left for the store", true)
      end
      return commit(self, ops)
    end
    local report, err = mj:deliver()
    assert.is_nil(report)
    assert.equal("no_space", err.code)
    mj.exec.commit = nil
    kit.travel(1000)
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal(seen[1].id, seen[2].id)
  end)

  it("may use mjhook from within a handler", function()
    open { on_event = function(task) assert(mj:get(task.ref).state == "succeeded") mj:stats() end }
    task_with "succeeded"
    assert.equal(1, assert(mj:deliver()).delivered)
  end)

  it("delivers hundreds of events, each task's in order", function()
    open { on_event = note }
    for _ = 1, 100 do
      task_with("maybe_sent", "give_up", "succeeded")
    end
    assert.equal(300, assert(mj:deliver()).delivered)
    local last = {}
    for _, event in ipairs(seen) do
      local number = tonumber(event.id:match "%d+$")
      assert.equal((last[event.ref] or 0) + 1, number)
      last[event.ref] = number
    end
    assert.equal(300, #seen)
  end)

  for _, case in ipairs {
    { { limit = "1" }, "bad field 'limit'" }, { { n = 1 }, "unknown field 'n'" }, { 7, "table" },
  } do
    it("raises at the caller's line when misused: " .. case[2], function()
      open {}
      local line = debug.getinfo(1, "l").currentline + 2
      local ok, err = pcall(function()
        local report = mj:deliver(case[1])
        return report
      end)
      assert.is_false(ok)
      assert.matches("deliver_spec.lua:" .. line .. ": deliver: ", err)
      assert.matches(case[2], err)
    end)
  end
end)
