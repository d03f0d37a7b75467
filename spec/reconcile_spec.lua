-- mj:reconcile: one pass over what is due; nothing is lost because the provider, a process or we had trouble.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("reconcile", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  local function open(more)
    mj = kit.open(more, sim)
    return mj
  end

  local function submit(prompt)
    return (assert(mj:submit { prompt = prompt or "a fox" }))
  end

  local function pass(options)
    return (assert(mj:reconcile(options or {})))
  end

  local function state(task)
    return mj:get(task.ref).state
  end

  -- Everything in the store, as text.
  local function contents()
    local all = { mj:stats() }
    all[1].bytes_used, all[1].bytes_mapped = nil, nil
    for task in mj:tasks {} do
      all[#all + 1] = task
    end
    all[#all + 1] = mj.store:page { by = "event", limit = 1000 }
    return require("mjhook.json").canonical(all)
  end

  if not kit.database then
    it("names a store that was removed while it is open, and what to do", function()
      open()
      assert(mj:adopt { task_id = "a", prompt = "a fox" })
      kit.sh("rm -rf " .. kit.quote(kit.store))
      local report, err = mj:reconcile {}
      assert.is_nil(report)
      assert.truthy(err.message:find(kit.store .. " was removed while this process had it open", 1, true), err.message)
    end)
  end

  it("has nothing to do on an empty store, and says so in every field", function()
    open()
    local report = pass()
    local elapsed = report.elapsed_ms
    report.elapsed_ms = nil
    assert.same({
      polled = 0, succeeded = 0, failed = 0, lost = 0, pending = 0, ambiguous = 0, submitted = 0, queued = 0,
      delivered = 0, buried = 0, pruned = 0, errors = 0, requests = 0,
    }, report)
    assert.is_true(elapsed >= 0 and elapsed < 5000)
  end)

  describe("of pending tasks", function()
    it("comes sooner where no callback can, and keeps pace with how long the job takes", function()
      local with = kit.open({}, sim)
      local task = assert(with:submit { prompt = "a fox" })
      local function first(t) -- counted from the provider's answer
        return math.floor((t.due_at - t.submitted_at) / 1000)
      end
      assert.equal(60, first(task))
      with:close()
      local settings = kit.settings({}, sim)
      settings.hook_url = nil
      local without = assert(require("mjhook").open(settings))
      kit.finally(function() without:close() end)
      task = assert(without:submit { prompt = "a wolf" })
      assert.is_nil(sim.jobs()[2].hookUrl)
      assert.equal(15, first(task))
      assert.same({ fast = 15000, relaxed = 15000 }, without:stats().first_poll_ms)
      kit.travel(100)
      task = assert(without:refresh(task.ref))
      local wait = task.due_at - require("mjhook.core").now()
      assert.is_true(wait > 18000 and wait < 32000, wait) -- a quarter of what it has taken so far
    end)

    it("learns by polling what a lost callback did not tell", function()
      open()
      local good, bad, running = submit "1", submit "2", submit "3"
      sim.finish(good.task_id)
      sim.finish(bad.task_id, 2, "banned")
      pass()
      assert.equal(0, sim.requests "status") -- the callback has a minute
      kit.travel(100)
      local report = pass()
      assert.same({ 3, 1, 1, 1, 1, 0 }, {
        report.polled, report.succeeded, report.failed, report.pending, report.requests, report.errors,
      })
      good = mj:get(good.ref)
      assert.equal("succeeded", good.state)
      assert.equal("poll", good.source)
      assert.equal(4, #good.images)
      assert.equal(1, good.polls)
      assert.equal("banned", mj:get(bad.ref).error.message)
      assert.equal("pending", state(running))
      assert.same({ { "default", 1 } }, { { mj:stats().accounts[1].name, mj:stats().accounts[1].held } })
    end)

    it("asks less and less often", function()
      open { poll = { first = 10, max = 100 } }
      local task = submit()
      local waits = {}
      for i = 1, 6 do
        local before = core.now()
        waits[i] = (mj:get(task.ref).due_at - before) / 1000
        kit.travel(waits[i] + 0.1)
        pass()
        assert.equal(i, sim.requests "status")
        pass()
        assert.equal(i, sim.requests "status")
      end
      for i, planned in ipairs { 10, 20, 40, 80, 100, 100 } do
        assert.is_true(waits[i] > planned * 0.79 - 1 and waits[i] < planned * 1.21 + 1, i .. ": " .. waits[i])
      end
    end)

    it("asks about many in one request", function()
      sim.config { limit = 0 }
      open { max_in_flight = 100, batch = 10 }
      for i = 1, 25 do
        sim.finish(submit(tostring(i)).task_id)
      end
      kit.travel(100)
      local report = pass()
      assert.same({ 25, 25, 3 }, { report.polled, report.succeeded, report.requests })
      assert.equal(3, sim.requests "status")
    end)

    it("goes through all of them when there are more than a page", function()
      sim.config { limit = 0 }
      open { max_in_flight = 100, batch = 5, connections = 2 }
      for i = 1, 33 do
        submit(tostring(i))
      end
      kit.travel(100)
      assert.same({ 33, 7 }, { pass().polled, sim.requests "status" })
    end)

    it("polls at most `limit`", function()
      open()
      for i = 1, 5 do
        submit(tostring(i))
      end
      kit.travel(100)
      assert.equal(2, pass({ limit = 2 }).polled)
      assert.equal(3, pass().polled)
    end)

    for _, fault in ipairs {
      "http_500", "http_503", "cut", "reset", "hang", "stall", "cut_body", "garbage", "truncated", "empty_body",
      "bad_envelope", "wrong_types", "huge", "error", "quota", "redirect", "http_404",
    } do
      it("loses nothing when the answer is no answer: " .. fault, function()
        open { lost_after = 60 }
        local task = submit()
        sim.config { status = { [fault] = 1 } }
        for _ = 1, 6 do
          kit.travel(20000)
          local report = pass()
          assert.same({ 0, 1, 1 }, { report.lost, report.pending, report.errors })
        end
        assert.equal("pending", state(task))
        sim.config { status = { [fault] = 0 } }
        sim.finish(task.task_id)
        kit.travel(20000)
        pass()
        assert.equal("succeeded", state(task))
      end)
    end

    it("reads an answer that is gzipped without being asked for", function()
      open()
      local task = submit()
      sim.finish(task.task_id)
      sim.config { status = { gzip = 1 } }
      kit.travel(100)
      local report = pass()
      assert.same({ 1, 0 }, { report.succeeded, report.errors })
      assert.equal("succeeded", state(task))
    end)

    it("loses nothing while the provider can't be reached, however long", function()
      open()
      local task = submit()
      mj:close()
      open { base_url = "http://127.0.0.1:1" }
      for _ = 1, 20 do
        kit.travel(86400)
        assert.equal(0, pass().lost)
      end
      assert.equal("pending", state(task))
      mj:close()
      open()
      pass()
      assert.equal("pending", state(task)) -- the outage was no silence of the provider's
    end)

    it("loses nothing under a wrong key, and reports it once", function()
      open { batch = 1 }
      for i = 1, 3 do
        submit(tostring(i))
      end
      sim.config { keys = { "another-key" } }
      for _ = 1, 4 do
        kit.travel(86400)
        kit.logged = {}
        local report = pass()
        assert.same({ 0, 3, 3 }, { report.lost, report.pending, report.errors })
        assert.equal("error: the provider refuses the API key (HTTP 401)", kit.log_text())
      end
      sim.config { keys = { kit.KEY } }
      kit.travel(86400)
      assert.same({ 0, 3, 0 }, { pass().lost, mj:stats().tasks.pending, mj:stats().tasks.lost })
    end)

    it("waits as long as Retry-After says", function()
      open()
      local task = submit()
      sim.script { status = { { fault = "rate_limit", retry_after = 500 } } }
      kit.travel(100)
      pass()
      local wait = (mj:get(task.ref).due_at - core.now()) / 1000
      assert.is_true(wait > 495 and wait < 505, wait)
    end)

    it("believes success without an image after three such answers", function()
      open()
      local task = submit "a fox [status:empty_image]"
      sim.finish(task.task_id)
      kit.travel(100)
      for i = 1, 3 do
        assert.equal("pending", state(task))
        pass()
        assert.equal(i, sim.requests "status")
        kit.travel(60)
      end
      assert.equal("succeeded", state(task))
      assert.is_nil(mj:get(task.ref).image)
    end)

    for _, odd in ipairs { "string_numbers", "nulls", "sparse", "image_objects" } do
      it("reads a task object that is merely odd: " .. odd, function()
        open()
        local task = submit(("a fox [status:%s]"):format(odd))
        sim.finish(task.task_id, 2, "banned")
        kit.travel(100)
        pass()
        assert.equal("failed", state(task))
      end)
    end

    it("percent-encodes image URLs, and tells in the timeline of those that can't be used", function()
      open()
      local task = submit "a fox [status:odd_urls]"
      sim.finish(task.task_id)
      kit.travel(100)
      pass()
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      local at = task.image:gsub("grid.png$", "")
      assert.same({ at .. "0.png?name=a%20red%20fox", at .. "1.png?name=f%C3%BCchse", at .. "2.png" }, task.images)
      assert.equal("1 of 5 URLs unusable", task.timeline[#task.timeline].reason)
      assert.is_nil(task.error)
    end)

    it("lets one unreadable task stop no other", function()
      open()
      local odd, fine = submit "a fox [status:odd_types]", submit "2"
      sim.finish(odd.task_id)
      sim.finish(fine.task_id)
      kit.travel(100)
      assert.equal(1, pass().succeeded)
      assert.same({ "pending", "succeeded" }, { state(odd), state(fine) })
    end)

    it("takes answers of any order and without order", function()
      open()
      local tasks = {}
      for i = 1, 9 do
        tasks[i] = submit(tostring(i))
        if i % 2 == 0 then
          sim.finish(tasks[i].task_id)
        end
      end
      kit.travel(100)
      pass()
      for i, task in ipairs(tasks) do
        assert.equal(i % 2 == 0 and "succeeded" or "pending", state(task))
      end
    end)
  end)

  describe("of tasks the provider does not know", function()
    local function passes(n, seconds)
      for _ = 1, n do
        kit.travel(seconds)
        pass()
      end
    end

    it("gives up after timeout and grace, several answers and ten minutes", function()
      open()
      local gone, there = submit "1", submit "2"
      sim.forget(gone.task_id)
      kit.travel(910)
      pass()
      assert.equal("pending", state(gone))
      passes(1, 60)
      assert.equal("pending", state(gone))
      passes(4, 2000)
      assert.equal("lost", state(gone))
      assert.equal("pending", state(there))
      assert.equal("lost", mj:get(gone.ref).error.code)
      assert.equal("poll", mj:get(gone.ref).source)
    end)

    it("does not before that", function()
      open { poll = { first = 1, max = 60 } }
      local gone = submit "1"
      submit "2"
      sim.forget(gone.task_id)
      passes(12, 70)
      assert.equal("pending", state(gone))
    end)

    it("does not when the answer knows none of them", function()
      open()
      local one, two = submit "1", submit "2"
      sim.forget(one.task_id)
      sim.forget(two.task_id)
      passes(10, 2000)
      assert.same({ "pending", "pending" }, { state(one), state(two) })
    end)

    it("but for lost_after of answered silence", function()
      open { lost_after = 7200 }
      local task = submit()
      sim.forget(task.task_id)
      passes(3, 2000)
      assert.equal("pending", state(task))
      passes(2, 2000)
      assert.equal("lost", state(task))
    end)

    it("nor those that are said to run for ever, but for lost_after", function()
      open { lost_after = 7200 }
      local task = submit()
      passes(3, 1800)
      assert.equal("pending", state(task))
      passes(3, 1800)
      assert.equal("lost", state(task))
      assert.matches("running", mj:get(task.ref).error.message)
    end)

    it("and yields to a later truth", function()
      local told = {}
      open { lost_after = 60, policy = { on_event = function(task, ctx)
        told[#told + 1] = ctx.type .. (task.late and " late" or "")
      end } }
      local task = submit()
      passes(3, 2000)
      assert.equal("lost", state(task))
      sim.finish(task.task_id)
      assert.equal("succeeded", assert(mj:refresh(task.ref)).state)
      pass()
      assert.same({ "lost", "succeeded late" }, told)
    end)
  end)

  describe("of submitters", function()
    for _, lua in ipairs { kit.lua, kit.other_lua } do
      it("finds one on " .. lua .. " that was killed while it waited, and sends nothing again", function()
        kit.needs "processes"
        open()
        sim.script { submit = { "hang" } }
        local child = kit.spawn("exec " .. kit.lua_command(([[
          local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
          mj:submit { prompt = "a fox" }
        ]]):format(kit.store, kit.KEY, sim.url), lua))
        kit.wait_until(function() return sim.requests "submit" == 1 end)
        pass()
        local task = mj:tasks {}()
        assert.equal("submitting", task.state) -- it lives
        child:kill "KILL"
        child:wait()
        assert.equal("dead", mj:get(task.ref).owner)
        assert.equal(1, pass().ambiguous)
        task = mj:get(task.ref)
        assert.equal("ambiguous", task.state)
        assert.equal("owner_dead", task.error.code)
        assert.is_nil(task.owner)
        assert.equal(1, mj:stats().accounts[1].held)
        pass()
        assert.equal(1, sim.requests "submit")
      end)
    end

    it("leaves a living one alone", function()
      open()
      local perform, report = mj.exec.http, nil
      mj.exec.http = function(self, ...)
        local other = kit.open({}, sim)
        report = assert(other:reconcile {})
        return perform(self, ...)
      end
      assert.equal("pending", submit().state)
      assert.equal(0, report.ambiguous)
    end)

    it("takes over from a living one that is older than any request can be", function()
      open()
      mj.exec.http = function(self, requests)
        kit.travel(180)
        local other = kit.open({}, sim)
        assert(other:reconcile {})
        local answers = {}
        for i in ipairs(requests) do
          answers[i] = { outcome = "answered", status = 200, body = '{"status":0,"data":{"taskId":"LateId"}}' }
        end
        self.http = nil
        return answers
      end
      local task = submit()
      assert.equal("pending", task.state)
      assert.equal("LateId", task.task_id)
      assert.equal("create claim owner_dead accepted", kit.story(task))
    end)
  end)

  describe("of ambiguous tasks", function()
    local function ambiguous(policy)
      open { policy = policy and { resolve_ambiguous = policy } }
      sim.script { submit = { "cut_after" } }
      local task = submit()
      assert.equal("ambiguous", task.state)
      return task
    end

    it("waits for a callback until timeout and grace are over, then gives up by default", function()
      local task = ambiguous()
      kit.travel(890)
      pass()
      assert.equal("ambiguous", state(task))
      assert.equal(1, mj:stats().accounts[1].held)
      kit.travel(11)
      assert.equal(1, pass().lost)
      task = mj:get(task.ref)
      assert.equal("lost", task.state)
      assert.equal("sweep", task.source)
      assert.equal(0, mj:stats().accounts[1].held)
      assert.equal(1, sim.requests "submit")
    end)

    it("respects the task's own timeout", function()
      open()
      sim.script { submit = { "cut_after" } }
      local task = assert(mj:submit { prompt = "a fox", timeout = 1200 })
      kit.travel(1490)
      pass()
      assert.equal("ambiguous", state(task))
      kit.travel(11)
      pass()
      assert.equal("lost", state(task))
    end)

    it("submits again when the policy says so, as another attempt", function()
      local asked = {}
      local task = ambiguous(function(t, now)
        asked[#asked + 1] = { t.ref, t.state, now }
        return "resubmit"
      end)
      kit.travel(901)
      local report = pass()
      assert.equal(1, report.submitted)
      assert.equal(1, #asked)
      assert.same({ task.ref, "ambiguous" }, { asked[1][1], asked[1][2] })
      assert.is_true(math.abs(asked[1][3] - core.now()) < 5000)
      local again = mj:get(task.ref)
      assert.equal("pending", again.state)
      assert.equal(2, again.attempt)
      local jobs = sim.jobs()
      assert.equal(2, #jobs)
      assert.matches("&a=2&", jobs[2].hookUrl)
      assert.equal(jobs[2].taskId, again.task_id)
      assert.same({}, sim.ledger().billed_twice)
    end)

    it("asks again later when the policy waits", function()
      local asked = 0
      local task = ambiguous(function()
        asked = asked + 1
        return asked < 3 and "wait" or "lost", 100
      end)
      kit.travel(901)
      pass()
      pass()
      assert.equal(1, asked)
      kit.travel(90)
      pass()
      assert.equal(1, asked)
      kit.travel(11)
      pass()
      assert.equal(2, asked)
      assert.equal("ambiguous", state(task))
      kit.travel(101)
      pass()
      assert.equal("lost", state(task))
      assert.equal("policy", mj:get(task.ref).source)
    end)

    local nonsense = {
      ["raises"] = function() error "no idea" end,
      ["answers nothing"] = function() end,
      ["answers nonsense"] = function() return "maybe" end,
      ["answers true"] = function() return true end,
    }
    for name, f in pairs(nonsense) do
      it("gives up when the policy " .. name, function()
        local task = ambiguous(f)
        kit.travel(901)
        pass()
        assert.equal("lost", state(task))
        assert.equal(1, sim.requests "submit")
      end)
    end

    it("applies a decision only to what it was made about", function()
      local id
      local task
      task = ambiguous(function()
        local ring = core.keyring { kit.SECRET }
        local kid, sig = ring:sign(task.ref, 1)
        assert.equal(200, mj:callback({
          method = "POST", uri = ("/?ref=%s&a=1&kid=%s&sig=%s"):format(task.ref, kid, sig),
          body = ('{"taskId":"%s","status":0}'):format(id),
        }).status)
        return "resubmit"
      end)
      id = sim.jobs()[1].taskId
      kit.travel(901)
      pass()
      assert.equal("pending", state(task))
      assert.equal(1, mj:get(task.ref).attempt)
      assert.equal(1, sim.requests "submit")
    end)
  end)

  describe("of queued tasks", function()
    it("submits as many as there are slots, in order, and leaves the rest", function()
      open { max_in_flight = 3 }
      local tasks = {}
      sim.script { submit = { { fault = "rate_limit", retry_after = 10 } } }
      for i = 1, 5 do
        tasks[i] = submit(tostring(i))
        assert.equal("queued", tasks[i].state)
      end
      kit.travel(11)
      local report = pass()
      assert.same({ 3, 2, 3, 0 }, { report.submitted, report.queued, report.pending, report.errors })
      local prompts = {}
      for i, job in ipairs(sim.jobs()) do
        prompts[i] = job.prompt
      end
      table.sort(prompts)
      assert.same({ "1", "2", "3" }, prompts)
      assert.equal(0, pass().submitted)
      sim.finish(mj:get(tasks[1].ref).task_id)
      kit.travel(100)
      report = pass()
      assert.same({ 1, 1, 1 }, { report.succeeded, report.submitted, report.queued })
      assert.equal("4", sim.jobs()[4].prompt)
      assert.equal(3, sim.counters().accounts[kit.KEY].max_unfinished)
    end)

    it("is not troubled by backpressure", function()
      open()
      sim.script { submit = { "concurrency" } }
      submit()
      kit.travel(11)
      sim.script { submit = { "concurrency" } }
      local report = pass()
      assert.same({ 0, 1, 0 }, { report.submitted, report.queued, report.errors })
    end)

    it("sends them as soon as the account has rested, however often it was refused before", function()
      sim.config { submit = { concurrency = 1 } }
      open()
      local task = submit()
      for _ = 1, 5 do
        kit.travel(11)
        pass()
        assert.equal("queued", state(task))
      end
      sim.config { submit = { concurrency = 0 } }
      kit.travel(11)
      assert.equal(1, pass().submitted)
      assert.equal(7, sim.requests "submit")
      assert.equal(1, mj:get(task.ref).attempt)
    end)

    it("counts what the provider rejects", function()
      open { max_in_flight = 1 }
      sim.script { submit = { "concurrency", "http_400" } }
      local task = submit()
      kit.travel(11)
      local report = pass()
      assert.equal("failed", state(task))
      assert.same({ 1, 0, 0 }, { report.failed, report.errors, report.queued })
    end)

    it("keeps them queued when the provider can't be reached, and says so", function()
      open { base_url = "http://127.0.0.1:1" }
      for i = 1, 3 do
        submit(tostring(i))
      end
      kit.travel(100)
      local report = pass()
      assert.same({ 0, 3 }, { report.submitted, report.queued })
      assert.is_true(report.errors > 0)
      mj:close()
      open()
      kit.travel(1000)
      assert.equal(3, pass().submitted)
    end)

    it("says in each pass, once, that the key is wrong, keeps what waits, and sends when it is right", function()
      sim.config { keys = { "another-key" } }
      open()
      submit "1"
      submit "2"
      for _, seconds in ipairs { 1, 100, 1 } do -- while the account rests, when it has rested, while it rests again
        kit.travel(seconds)
        kit.logged = {}
        local before = sim.requests "submit"
        local report = pass()
        assert.same({ 2, 1 }, { report.queued, report.errors })
        assert.equal(before + (seconds == 100 and 1 or 0), sim.requests "submit")
        assert.equal("error: account default: the provider refuses the API key; nothing is sent under it, and what is "
          .. "queued waits: set the right api_key", kit.log_text())
      end
      sim.config { keys = { kit.KEY } }
      kit.travel(1000)
      kit.logged = {}
      assert.equal(2, pass().submitted)
      assert.equal("", kit.log_text())
    end)
  end)

  describe("with a policy's next_poll", function()
    it("polls when it says", function()
      local asked = {}
      open { policy = { next_poll = function(task, now)
        asked[#asked + 1] = { task.state, now }
        return 7
      end } }
      local task = submit()
      kit.travel(100)
      pass()
      local wait = (mj:get(task.ref).due_at - core.now()) / 1000
      assert.is_true(wait > 5 and wait <= 7, wait)
      assert.equal("pending", asked[1][1])
      assert.is_true(math.abs(asked[1][2] - core.now()) < 5000)
    end)

    for name, answer in pairs {
      text = "'soon'", ["no number"] = "0/0", never = "math.huge", past = "-1", ["an error"] = "error 'x'",
    } do
      it("keeps the default schedule when it answers " .. name, function()
        open { policy = { next_poll = (loadstring or load)("return function() return " .. answer .. " end")() } }
        local task = submit()
        kit.travel(100)
        pass()
        local wait = (mj:get(task.ref).due_at - core.now()) / 1000
        assert.is_true(wait > 90 and wait < 150, wait) -- twice a minute, give or take 20 %
      end)
    end
  end)

  it("delivers events, those of this very pass too", function()
    local told = {}
    open { policy = { on_event = function(task, ctx) told[#told + 1] = ctx.type .. " " .. task.prompt end } }
    local task = submit "1"
    sim.finish(task.task_id)
    kit.travel(100)
    local report = pass()
    assert.same({ 1, 1, 0, 0 }, { report.succeeded, report.delivered, report.buried, report.errors })
    assert.same({ "succeeded 1" }, told)
    assert.equal(0, pass().delivered)
  end)

  it("counts handlers that failed as errors", function()
    open { policy = { on_event = function() return false, "no" end } }
    sim.finish(submit().task_id)
    kit.travel(100)
    local report = pass()
    assert.same({ 0, 1 }, { report.delivered, report.errors })
    assert.equal(1, mj:stats().events)
  end)

  it("polls a cancelled task until it holds no slot", function()
    open { max_in_flight = 1 }
    local task = submit "1"
    local waiting = submit "2"
    assert(mj:cancel(task.ref))
    assert.equal(1, mj:stats().accounts[1].held)
    pass()
    assert.equal("queued", state(waiting))
    sim.finish(task.task_id)
    kit.travel(100)
    pass()
    assert.equal("cancelled", state(task))
    assert.equal("pending", state(waiting))
    assert.matches("grid.png$", mj:get(task.ref).image)
  end)

  it("frees a slot that outlasted timeout and grace", function()
    open { max_in_flight = 1 }
    local task, waiting = submit "1", submit "2"
    sim.config { keys = { "another" } } -- so that polling tells nothing
    kit.travel(901)
    pass()
    assert.equal("pending", state(task))
    sim.config { keys = { kit.KEY } }
    kit.travel(100)
    pass()
    assert.equal("pending", state(waiting))
  end)

  describe("with dry_run", function()
    it("writes nothing, asks nothing, and says what it would do", function()
      kit.needs "processes"
      open()
      local child = kit.spawn("exec " .. kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
        mj:submit { prompt = "a fox [submit:hang]" }
      ]]):format(kit.store, kit.KEY, sim.url)))
      kit.wait_until(function() return sim.requests "submit" == 1 end)
      child:kill "KILL"
      child:wait()
      submit "a fox [submit:cut_after]"
      sim.finish(submit("3").task_id)
      sim.script { submit = { "concurrency" } }
      submit "4"
      kit.travel(1000)
      local before, requests = contents(), sim.counters().requests
      local report = pass { dry_run = true }
      assert.equal(before, contents())
      assert.same(requests, sim.counters().requests)
      assert.same({ 1, 1, 1, 1, 1 }, {
        report.polled, report.would_resolve, report.would_recover, report.queued, report.pending,
      })
      assert.same({ 0, 0, 0, 0 }, { report.submitted, report.succeeded, report.delivered, report.requests })
    end)

    it("is allowed while another pass runs", function()
      local inner
      open { policy = { on_event = function()
        inner = assert(mj:reconcile { dry_run = true })
      end } }
      sim.finish(submit().task_id)
      kit.travel(100)
      pass()
      assert.equal(0, inner.polled)
    end)
  end)

  describe("within its budget", function()
    it("ends, though the provider hangs; what is left is for the next pass", function()
      open { batch = 1, connections = 1 }
      mj.exec.client = core.http { connections = 1, timeout_ms = 10000 }
      for i = 1, 3 do
        submit(tostring(i))
      end
      kit.travel(100)
      sim.script { status = { "hang" } }
      local report = pass { budget = 0.4 }
      assert.is_true(report.elapsed_ms >= 300 and report.elapsed_ms < 8000, report.elapsed_ms)
      kit.travel(2000)
      assert.same({ 3, 0 }, { pass().polled, mj:stats().tasks.lost })
    end)

    it("sends nothing that could not be answered in time", function()
      sim.script { submit = { "concurrency" } }
      open()
      submit()
      kit.travel(11)
      local clock, hurry = core.clock, false
      kit.finally(function() core.clock = clock end)
      core.clock = function() return clock() + (hurry and 100000 or 0) end
      local report = pass { progress = function(step) hurry = step == "submit" end }
      core.clock = clock
      assert.equal(0, report.submitted)
      assert.equal(1, sim.requests "submit")
    end)
  end)

  describe("twice at a time", function()
    it("is busy, and leaves the first alone", function()
      local report, err
      open { policy = { on_event = function()
        local other = kit.open({}, sim)
        report, err = other:reconcile {}
      end } }
      sim.finish(submit().task_id)
      kit.travel(100)
      assert.equal(1, pass().delivered)
      assert.is_nil(report)
      assert.equal("busy", err.code)
      assert.is_true(err.retryable)
      assert.matches(kit.store, err.message, 1, true)
      pass() -- and free again
    end)

    it("is free again after a pass that failed or was killed", function()
      open()
      submit()
      kit.travel(100)
      mj.exec.commit = function() return nil, core.error("no_space", "no space left for the store", true) end
      local report, err = mj:reconcile {}
      assert.is_nil(report)
      assert.equal("no_space", err.code)
      mj.exec.commit = function() error "the roof is on fire" end
      report, err = mj:reconcile {}
      assert.is_nil(report)
      assert.equal("internal", err.code)
      assert.matches("the roof is on fire", err.message)
      mj.exec.commit = nil
      assert.equal(1, pass().polled)
    end)
  end)

  it("tells its progress, step by step", function()
    open()
    local steps = {}
    pass { progress = function(step, report)
      steps[#steps + 1] = step
      assert.equal("number", type(report.polled))
    end }
    assert.matches("^recover resolve poll tick submit deliver", table.concat(steps, " "))
  end)

  it("tells how far it is while it polls, and how much there may be", function()
    sim.config { limit = 0 }
    open { max_in_flight = 100, batch = 5, connections = 2 }
    for i = 1, 25 do
      submit(tostring(i))
    end
    kit.travel(100)
    local seen = {}
    pass { progress = function(step, report, most)
      if step == "poll" then
        seen[#seen + 1] = report.polled .. "/" .. most
      end
    end }
    assert.same({ "0/25", "10/25", "20/25", "25/25" }, seen)
  end)

  it("does nothing when it is told to stop before it began", function()
    open { policy = { on_event = function() error "called" end } }
    sim.finish(submit().task_id)
    kit.travel(100)
    mj.stopping = function() return true end
    local report = pass()
    assert.same({ 0, 0, 0, 0 }, { report.polled, report.requests, report.errors, sim.requests "status" })
  end)

  it("stops between batches when it is told to stop", function()
    open { batch = 1, connections = 1 }
    for i = 1, 4 do
      submit(tostring(i))
    end
    kit.travel(100)
    local asked = 0
    mj.stopping = function() return asked > 0 end
    local perform = mj.exec.http
    mj.exec.http = function(self, ...)
      asked = asked + 1
      return perform(self, ...)
    end
    local report = pass()
    assert.same({ 1, 1, 0 }, { report.polled, sim.requests "status", report.errors })
  end)

  for _, case in ipairs {
    { { budget = "1" }, "bad field 'budget'" }, { { dryrun = true }, [['dryrun': did you mean "dry_run"]] },
    { "x", "table expected" },
  } do
    it("raises at the caller's line when misused: " .. case[2], function()
      open()
      local line = debug.getinfo(1, "l").currentline + 2
      local ok, err = pcall(function()
        local report = mj:reconcile(case[1])
        return report
      end)
      assert.is_false(ok)
      assert.matches("reconcile_spec.lua:" .. line .. ": reconcile: ", err)
      assert.matches(case[2], err)
    end)
  end

  it("keeps secrets out of reports and the log", function()
    open()
    submit()
    sim.config { keys = { "another" } }
    kit.travel(100)
    local text = cjson.encode(pass()) .. kit.log_text()
    assert.is_nil(text:find(kit.KEY, 1, true))
    assert.is_nil(text:find(kit.SECRET, 1, true))
  end)
end)
