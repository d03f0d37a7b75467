-- The executor under nginx, on an nginx of our own that does one thing at a time and in the order we say: what real
-- threads do in one start of a thousand is done here each time.
local core = require "mjhook.core"
local kit = require "kit"

describe("the executor under nginx", function()
  local exec, lane, mj, nginx
  local timers, calls, waiting -- begun by nobody yet; in the pool, the first one first; coroutines, by semaphore

  local function start(f, ...)
    local thread = coroutine.create(f)
    assert(coroutine.resume(thread, ...))
    return thread
  end

  local Semaphore = {}
  Semaphore.__index = Semaphore

  function Semaphore:wait()
    if self.count == 0 then
      waiting[#waiting + 1] = { self, coroutine.running() }
      return coroutine.yield()
    end
    self.count = self.count - 1
    return true
  end

  function Semaphore:post(n)
    self.count = self.count + n
  end

  -- Wakes those for whom there was a post; with `late` all others, too, whose time is over.
  local function wake(late)
    local list = waiting
    waiting = {}
    for _, w in ipairs(list) do
      if w[1].count > 0 then
        w[1].count = w[1].count - 1
        assert(coroutine.resume(w[2], true))
      elseif late then
        assert(coroutine.resume(w[2], nil, "timeout"))
      else
        waiting[#waiting + 1] = w
      end
    end
  end

  local function run_timers()
    local list = timers
    timers = {}
    for _, t in ipairs(list) do
      start(t.f, false, unpack(t))
    end
  end

  -- The thread does what was asked of it first; nginx hears of it with finish().
  local function work()
    local call = table.remove(calls, 1)
    call.answer = { pcall(require("resty.mjhook.worker")[call.name], unpack(call)) }
    return call
  end

  local function finish(call)
    assert(coroutine.resume(call.thread, unpack(call.answer, 1, 7)))
    wake()
  end

  local function settle()
    for _ = 1, 20 do
      run_timers()
      while calls[1] do
        finish(work())
      end
    end
  end

  before_each(function()
    timers, calls, waiting = {}, {}, {}
    rawset(_G, "unpack", unpack or table.unpack)
    nginx = {
      timer = { at = function(_, f, ...)
        timers[#timers + 1] = { f = f, ... }
        return true
      end },
      run_worker_thread = function(pool, _, name, ...)
        if pool == "mjhook" then
          calls[#calls + 1] = { name = name, thread = coroutine.running(), ... }
          return coroutine.yield()
        end
        return true, "ok", {}
      end,
      sleep = coroutine.yield, -- nothing wakes the light thread that keeps a worker alive
      worker = { exiting = function() return false end }, log = function() end,
      ERR = 1, WARN = 2, NOTICE = 3, INFO = 4,
    }
    rawset(_G, "ngx", nginx)
    package.loaded["ngx.semaphore"] = { new = function() return setmetatable({ count = 0 }, Semaphore) end }
    local threads = require "resty.mjhook.threads"
    mj = kit.open { executor = threads.new }
    exec = mj.exec
    lane = exec.lane
    start(exec.warm_up, exec)
    settle()
  end)

  after_each(function()
    for _, name in ipairs { "ngx.semaphore", "resty.mjhook.threads", "resty.mjhook.keep", "resty.mjhook.lane",
                            "resty.mjhook.guard", "resty.mjhook.log", "resty.mjhook.worker" } do
      package.loaded[name] = nil
    end
    rawset(_G, "ngx", nil)
    kit.cleanup()
  end)

  local function task(id)
    local results
    start(function() results = exec:commit { { op = "create", task_id = id, account = "default", source = "user",
      want = true, task = { prompt = "a fox", mode = "fast", timeout = 600, fingerprint = core.sha256 "x" } } } end)
    settle()
    return assert(results[1].task)
  end

  -- Somebody who says something of a task and waits; answer.code is what he hears.
  local function say(t, body)
    local answer = {}
    start(function()
      local code, why = exec:callback(t.ref, 1, body or ('{"taskId":"%s","status":2}'):format(t.task_id))
      answer.code, answer.why = code or why.code, why
    end)
    return answer
  end

  it("answers after the commit, each with his own outcome", function()
    local one, two = task "T1", task "T2"
    local a = { say(one), say(two, "poison"), say(one), say(two) }
    run_timers()
    assert.same({}, { a[1].code, a[2].code, a[3].code, a[4].code })
    local call = work()
    assert.equal("failed", mj:get(two.ref).state)
    assert.same({}, { a[1].code, a[2].code, a[3].code, a[4].code })
    finish(call)
    assert.same({ "ok", "unreadable", "duplicate", "ok" }, { a[1].code, a[2].code, a[3].code, a[4].code })
    assert.matches("^not JSON", a[2].why)
    assert.equal(0, #calls)
  end)

  it("never rests for other writers of the store", function()
    local other = kit.open()
    assert.equal(0, kit.rests(function()
      for i = 1, 4 do
        local one = task("T" .. i)
        local answer = say(one)
        settle()
        assert.equal("ok", answer.code)
        assert(other:adopt { task_id = "U" .. i, prompt = "a fox" })
        start(function() exec:commit_each { { op = "signal", kind = "look", source = "callback", ref = one.ref } } end)
        start(function() exec:give_way() end)
        settle()
      end
    end))
  end)

  it("has one commit at work and one call behind it on a database with many writers, too: nothing is overtaken",
    function()
      mj = kit.open { executor = require("resty.mjhook.threads").new, store = "memory://order" }
      exec = mj.exec
      start(exec.warm_up, exec)
      settle()
      local tasks, answers = {}, {}
      for i = 1, 40 do
        tasks[i] = task("T" .. i)
        answers[i] = say(tasks[i])
      end
      run_timers()
      assert.equal(1, #calls)
      local first = work()
      for i, t in ipairs(tasks) do
        answers[40 + i] = say(t, ('{"taskId":"%s","status":1,"image":"https://i.example/x"}'):format(t.task_id))
      end
      run_timers()
      assert.equal(1, #calls)
      finish(first)
      settle()
      for i = 1, 40 do
        assert.equal("ok", answers[i].code)
        assert.not_equal("ok", answers[40 + i].code) -- the first word of the two wins
      end
    end)

  it("lets go of the lane when a commit raises: the next call, in another thread, does not wait for it", function()
    local inbox = getmetatable(core.inbox()).__index
    local enter, leave, take, inside = inbox.enter, inbox.leave, inbox.take, 0
    kit.finally(function() inbox.enter, inbox.leave, inbox.take = enter, leave, take end)
    inbox.enter = function(self)
      inside = inside + 1
      enter(self)
    end
    inbox.leave = function(self)
      inside = inside - 1
      leave(self)
    end
    local t = task "T1"
    inbox.take = function() error "not enough memory" end
    local a = say(t)
    run_timers()
    local call = work()
    inbox.take = take
    finish(call)
    assert.same({ "internal", 0 }, { a.code, inside })
    local b = say(t)
    settle()
    assert.same({ "ok", 0 }, { b.code, inside })
  end)

  it("has a second call stand behind the one at work, which takes what comes until it begins", function()
    local t = task "T1"
    local first = say(t)
    run_timers()
    local call = work()
    local second = say(t)
    run_timers()
    assert.equal(1, #calls)
    local third = say(t)
    run_timers()
    assert.equal(1, #calls)
    local other = work() -- before nginx has heard of the first one
    finish(call)
    assert.same({ "ok" }, { first.code, second.code })
    finish(other)
    assert.same({ "ok", "duplicate", "duplicate" }, { first.code, second.code, third.code })
    assert.same({ 0, 0, 0 }, { #calls, lane.runners, exec.queued })
  end)

  it("has no third call, and forgets no waiting request when those two are over", function()
    local t = task "T1"
    local answers = { say(t) }
    run_timers()
    local one = work()
    answers[2] = say(t)
    run_timers()
    local two = work()
    answers[3] = say(t)
    run_timers()
    assert.equal(0, #calls)
    finish(one)
    assert.equal(1, #calls)
    finish(two)
    settle()
    assert.same({ "ok", "duplicate", "duplicate" }, { answers[1].code, answers[2].code, answers[3].code })
  end)

  it("hears of what the call took that only was to warm the threads up", function()
    local t = task "T1"
    start(exec.warm_up, exec)
    local early = say(t)
    finish(work())
    assert.equal("ok", early.code)
    settle()
    assert.equal(0, exec.queued)
  end)

  -- Somebody who commits operations; answer.results and answer.err are what he hears.
  local function commit(ops)
    local answer = {}
    start(function() answer.results, answer.err = exec:commit(ops) end)
    return answer
  end

  it("gives each who commits the results of his own operations, in their order", function()
    local one, two = task "T1", task "T2"
    local function look(t)
      return { op = "signal", ref = t.ref, kind = "look", source = "callback", want = true }
    end
    local a = commit { look(one) }
    local b = commit { look(two), { op = "tick" } }
    settle()
    assert.same({ one.ref, two.ref, "ok" }, { a.results[1].task.ref, b.results[1].task.ref, b.results[2].code })
    assert.is_nil(b.results[3])
  end)

  it("takes no operations beyond queue_max either, and tells who commits what went wrong and whether to try again",
    function()
      exec.queue_max = 1
      local store = getmetatable(mj.store).__index
      local write = store.write
      store.write = function() return nil, core.error("no_space", "the disk is full", true) end
      local a, b = commit { { op = "tick" } }, commit { { op = "tick" } }
      assert.same({ "busy", true }, { b.err.code, b.err.retryable })
      settle()
      store.write = write
      assert.is_nil(a.results)
      assert.same({ "no_space", "the disk is full", true }, { a.err.code, a.err.message, a.err.retryable })
      assert.equal(0, exec.queued)
    end)

  it("goes on when what is to follow a commit raises", function()
    local t = task "T1"
    exec.committed = function() error "no idea" end
    local a = say(t)
    settle()
    local b = say(t)
    settle()
    assert.same({ "ok", "duplicate", 0 }, { a.code, b.code, lane.runners })
  end)

  it("says a hundred things in a second, and how many more there were", function()
    local log, said, tick = require "resty.mjhook.log", {}, nil
    nginx.timer.every = function(_, f)
      tick = f
      return true
    end
    nginx.log = function(level, ...) said[#said + 1] = level .. table.concat { ... } end
    log.start()
    for i = 1, 150 do
      log.log("error", "thing " .. i)
    end
    assert.same({}, said)
    tick()
    assert.equal(101, #said)
    assert.same({ "1mjhook: thing 1", "1mjhook: thing 100", "2mjhook: 50 more messages were dropped" },
      { said[1], said[100], said[101] })
    log.log("notice", "one more")
    tick()
    assert.same({ 102, "3mjhook: one more" }, { #said, said[102] })
  end)

  it("commits operations and callbacks that come together in one transaction", function()
    local t, results = task "T1", nil
    start(function() results = exec:commit { { op = "tick" }, { op = "signal", ref = t.ref, kind = "look",
      source = "callback", want = true } } end)
    local a = say(t)
    run_timers()
    finish(work())
    assert.same({ "ok", "ok" }, { results[1].code, results[2].code })
    assert.equal("pending", results[2].task.state)
    assert.is_string(a.code)
    assert.equal(0, #calls)
  end)

  it("tells all who wait when a thread dies of something, and goes on", function()
    local t = task "T1"
    local a, b = say(t), say(t)
    run_timers()
    local call = table.remove(calls, 1)
    call.answer = { false, "not enough memory" }
    finish(call)
    assert.same({ "internal", "internal" }, { a.code, b.code })
    local c = say(t)
    settle()
    assert.same({ "ok", 0 }, { c.code, exec.queued })
  end)

  it("keeps nothing of those whom it told so: the inbox does not grow with calls that die", function()
    local t = task "T1"
    for _ = 1, 3 do
      say(t)
      run_timers()
      local call = table.remove(calls, 1)
      call.answer = { false, "not enough memory" }
      finish(call)
    end
    assert.is_nil(core.inbox(exec.id):take())
    assert.equal("pending", mj:get(t.ref).state)
  end)

  it("tells the requests of the batch that was taken when the commit fails, and no others", function()
    local t = task "T1"
    local a = say(t)
    run_timers()
    local store = getmetatable(mj.store).__index
    local write = store.write
    store.write = function() error "the roof is on fire" end
    local call = work()
    store.write = write
    local b = say(t)
    run_timers()
    finish(call)
    assert.same({ "internal" }, { a.code, b.code })
    assert.matches("the roof is on fire", a.why.message)
    settle()
    assert.equal("ok", b.code)
  end)

  describe("whose commit comes too late", function()
    local clock = core.clock
    local late -- milliseconds

    before_each(function()
      late = 0
      core.clock = function() return clock() + late end
    end)

    after_each(function()
      core.clock = clock
    end)

    -- What becomes of operations whose caller has gone when the thread comes to them.
    local function too_late(ops)
      local answer = commit(ops)
      run_timers()
      wake(true) -- the timer had its time to begin, and did
      wake(true)
      assert.equal("io", answer.err.code)
      late = 31000
      local call = work()
      late = 0
      return call
    end

    local function queued(key)
      local results
      start(function() results = exec:commit { { op = "create", source = "user", want = true, task = { key = key,
        prompt = "a fox", mode = "fast", timeout = 600, fingerprint = core.sha256 "x" } } } end)
      settle()
      return results[1].task
    end

    local function claim()
      return { op = "claim", source = "submit", want = true }
    end

    it("hands back a claimed task as not sent, at once and in the thread", function()
      local t = queued()
      local call = too_late { claim(), claim() }
      assert.equal("create claim not_sent", kit.story(mj:get(t.ref)))
      finish(call)
      settle()
      assert.same({ "queued", "create claim not_sent" }, { mj:get(t.ref).state, kit.story(mj:get(t.ref)) })
      local again = commit { claim() }
      settle()
      assert.equal(t.ref, again.results[1].task.ref)
    end)

    it("hands back an event", function()
      local t = task "T1"
      say(t)
      settle()
      local function take()
        return { op = "take", ["until"] = core.now() + 90000 }
      end
      finish(too_late { take() })
      settle()
      local again = commit { take() }
      settle()
      assert.equal(t.ref, again.results[1].event.ref)
      assert.equal(0, again.results[1].event.failed)
    end)

    it("forgets a task without a key, claimed or not, and keeps one with a key", function()
      local function create(key)
        return { op = "create", source = "user", want = true, task = { key = key, prompt = "a fox", mode = "fast",
          timeout = 600, fingerprint = core.sha256 "x" } }
      end
      finish(too_late { create(), claim(), create(), create "k" })
      settle()
      local states = {}
      for t in mj:tasks() do
        states[#states + 1] = (t.key or "") .. t.state
      end
      table.sort(states)
      assert.same({ "cancelled", "cancelled", "kqueued" }, states)
    end)

    it("keeps what the provider said", function()
      local t = task "T1"
      finish(too_late { { op = "signal", ref = t.ref, attempt = 1, kind = "failed", source = "poll", task_id = "T1",
                          error = "no" } })
      settle()
      assert.equal("failed", mj:get(t.ref).state)
    end)

    it("hands back no task whose outcome may be stored yet: others may have claimed it by then", function()
      local run = nginx.run_worker_thread
      nginx.run_worker_thread = function(pool, module, name, ...)
        if pool == "mjhook_http" then
          late = 61000 -- the sender stalled
          return true, "ok", { { outcome = "not_sent", error = "not sent: too long after it was meant to be" } }
        end
        return run(pool, module, name, ...)
      end
      local task_of_a, err_of_a
      start(function() task_of_a, err_of_a = mj:submit { prompt = "a fox" } end)
      run_timers()
      finish(work()) -- it is claimed, and was not sent: that is to be stored
      run_timers()
      wake(true)
      local others = commit { claim() } -- of the next commit
      wake(true)
      settle()
      assert.is_nil(task_of_a)
      assert.matches("did not commit within", err_of_a.message)
      local t = assert(others.results[1].task)
      assert.equal("submitting", mj:get(t.ref).state)
      assert.equal("create claim not_sent ready claim", kit.story(mj:get(t.ref)))
    end)

    it("takes nothing from callers of the same commit that still wait", function()
      local t = queued()
      local first = commit { { op = "tick" } }
      late = 25000
      local second = commit { claim() }
      run_timers()
      wake(true)
      late = 31000
      local call = work()
      late = 0
      finish(call)
      settle()
      assert.equal("io", first.err.code)
      assert.equal(t.ref, second.results[1].task.ref)
      assert.equal("submitting", mj:get(t.ref).state)
    end)

    it("hands it back with the next commit when the disk is full then, once", function()
      local t = queued()
      local store, writes = getmetatable(mj.store).__index, 0
      local write = store.write
      store.write = function(...)
        writes = writes + 1
        if writes == 2 or writes == 3 then
          return nil, core.error("no_space", "the disk is full", true)
        end
        return write(...)
      end
      local call = too_late { claim() }
      assert.equal("submitting", mj:get(t.ref).state)
      finish(call)
      settle()
      store.write = write
      assert.equal("create claim not_sent", kit.story(mj:get(t.ref)))
      assert.same({ {}, 0 }, { lane.owed, lane.runners })
    end)
  end)

  it("goes on with requests in a thread that can't open the store, as when a database is out of reach", function()
    local worker = require "resty.mjhook.worker"
    local flight = { requests = {}, air = { name = "an air", answers = {}, until_ms = 0, rest_ms = 0, low = 0 } }
    assert.equal("unconfigured", worker.fly("beside", false, flight, false))
    assert.same({ "ok", {} }, { worker.fly("beside", { store = "/dev/null/none" }, flight, false) })
    assert.same({ "ok", {} }, { worker.fly("beside", false, flight, false) })
  end)

  it("goes on after an error anywhere in a commit, and tells all who wait", function()
    local t = task "T1"
    local post = Semaphore.post
    for _ = 1, 5 do
      Semaphore.post = function(self, n)
        Semaphore.post = post
        post(self, n)
        error "not enough memory"
      end
      local a, b = say(t), commit { { op = "tick" } }
      settle()
      wake(true)
      assert.is_truthy(a.code)
      assert.is_truthy(b.results or b.err)
      assert.same({ 0, 0 }, { lane.runners, exec.queued })
    end
    local last = say(t)
    settle()
    assert.equal("duplicate", last.code)
  end)

  it("clears a flag whatever the work under it raises, and says so", function()
    local guard, flag = require "resty.mjhook.guard", true
    local said = {}
    nginx.log = function(_, ...) said[#said + 1] = table.concat { ... } end
    assert.is_false(guard("the work", function() flag = false end, error, "out of memory"))
    assert.is_false(flag)
    assert.is_true(guard("the work", function() flag = true end, function(x) flag = x end, 1))
    assert.is_true(flag)
    guard("the work", function() error "again" end, function() end)
    run_timers()
    assert.matches("the work failed: out of memory", table.concat(said, "\n"))
    assert.matches("the work failed: [^\n]*again", table.concat(said, "\n"))
  end)

  it("gives up on a disk that never answers, and counts no request twice", function()
    local t = task "T1"
    local a = say(t)
    run_timers()
    wake(true) -- the timer had its time to begin, and did
    wake(true)
    assert.equal("io", a.code)
    assert.matches("did not commit within", a.why.message)
    finish(work())
    assert.equal(0, exec.queued)
  end)

  it("takes no more than queue_max, and who was there before is served", function()
    exec.queue_max = 2
    local t = task "T1"
    local a, b, c = say(t), say(t), say(t)
    assert.equal("busy", c.code)
    settle()
    assert.same({ "ok", "duplicate" }, { a.code, b.code })
    local d = say(t)
    settle()
    assert.equal("duplicate", d.code)
  end)

  it("commits in place, once told of, where there is no pool", function()
    local t = task "T1"
    nginx.run_worker_thread = function() return false, "thread pool mjhook not found" end
    local a = say(t)
    run_timers()
    wake()
    assert.equal("ok", a.code)
    assert.is_true(exec.missing.mjhook)
  end)

  it("commits in the request whose timer nginx drops, and by timers again when it drops none", function()
    local t = task "T1"
    local a = say(t)
    timers = {} -- lua_max_running_timers of others ran
    local b = say(t)
    assert.equal(0, #timers)
    wake(true)
    finish(work())
    assert.same({ "ok", "duplicate", 0, 0 }, { a.code, b.code, exec.queued, lane.runners })
    local c = say(t)
    settle()
    assert.same({ "duplicate", 0 }, { c.code, lane.runners })
  end)

  it("answers who had to commit himself once his own is done, and the next one who waits commits what came", function()
    local t = task "T1"
    local a = say(t)
    timers = {}
    wake(true)
    local call = work()
    local b = say(t)
    timers = {}
    finish(call)
    assert.same({ "ok", 0 }, { a.code, lane.runners })
    timers = {}
    wake(true)
    finish(work())
    assert.same({ "duplicate", 0, 0 }, { b.code, exec.queued, lane.runners })
  end)

  it("leaves it to those who are at it, however slow the disk is", function()
    local t = task "T1"
    local a = say(t)
    run_timers()
    local call = work()
    local b = say(t) -- whose timer is about to begin
    wake(true)
    assert.same({ 0, 1 }, { #calls, lane.runners })
    run_timers()
    finish(call)
    settle()
    assert.same({ "ok", "duplicate", 0, 0 }, { a.code, b.code, exec.queued, lane.runners })
  end)

  it("counts no request twice when a timer begins that was thought to be dropped", function()
    local t = task "T1"
    local a = say(t)
    wake(true) -- the event loop was held up for so long
    local call = work()
    local b = say(t)
    run_timers()
    finish(call)
    settle()
    assert.same({ "ok", "duplicate", 0, 0 }, { a.code, b.code, exec.queued, lane.runners })
  end)

  it("commits in the request that finds no timer to be had", function()
    local t = task "T1"
    nginx.timer.at = function() return nil, "too many pending timers" end
    local a = say(t)
    finish(work())
    assert.equal("ok", a.code)
  end)
end)
