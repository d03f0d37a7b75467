-- mj:submit: the intent first, never sent twice, every refusal sorted.
local cjson = require "cjson"
local kit = require "kit"
local sim = require "sim"

describe("submit", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function open(more)
    return kit.open(more, sim)
  end

  describe("of an accepted job", function()
    it("gives a pending task with the provider's id", function()
      local mj = open()
      local task = assert(mj:submit { prompt = "a fox --ar 4:5" })
      assert.equal("pending", task.state)
      assert.equal(1, task.attempt)
      assert.equal(sim.jobs()[1].taskId, task.task_id)
      assert.equal("default", task.account)
      assert.is_nil(task.error)
      assert.is_nil(task.duplicate)
      assert.is_nil(task.requests)
      assert.matches("^%d%w+$", task.ref)
      assert.equal(26, #task.ref)
      assert.equal("create claim accepted", kit.story(task))
    end)

    it("sends what was asked for, and defaults for the rest", function()
      local mj = open()
      assert(mj:submit { prompt = "wölfe 狼 --niji 7", mode = "relaxed", timeout = 1200 })
      assert(mj:submit { prompt = "a fox" })
      local jobs = sim.jobs()
      assert.equal("wölfe 狼 --niji 7", jobs[1].prompt)
      assert.equal("relaxed", jobs[1].mode)
      assert.equal(1200, jobs[1].timeout)
      assert.equal("fast", jobs[2].mode)
      assert.equal(600, jobs[2].timeout)
    end)

    it("keeps every field of the user's", function()
      local mj = open()
      local made = assert(mj:submit {
        prompt = "a fox", mode = "relaxed", timeout = 300, user_id = "u1", key = "order-7", priority = -5,
        account = "default", expires = 60,
        context = { order = 7, list = { 1, 2.5, "three" }, yes = true, nested = { deep = { "er" } } },
      })
      local task = assert(mj:get(made.ref))
      assert.equal("a fox", task.prompt)
      assert.equal("relaxed", task.mode)
      assert.equal(300, task.timeout)
      assert.equal("u1", task.user_id)
      assert.equal("order-7", task.key)
      assert.equal(-5, task.priority)
      assert.same({ order = 7, list = { 1, 2.5, "three" }, yes = true, nested = { deep = { "er" } } }, task.context)
      assert.same(made, task)
    end)

    it("gives whole numbers of a context back as such", function()
      local mj = open()
      local task = assert(mj:submit { prompt = "a fox", context = { order = 7, list = { 1 } } })
      assert.equal("7", tostring(task.context.order))
      assert.equal("1", tostring(mj:get(task.ref).context.list[1]))
    end)

    it("keeps every digit of a context's numbers", function()
      local mj = open()
      local numbers = { 1776211200000123, -9007199254740991, 0.1, 1 / 3, 1e300, -0.5 }
      assert.same(numbers, mj:get(assert(mj:submit { prompt = "a fox", context = numbers }).ref).context)
    end)

    it("takes any JSON value as context", function()
      local mj = open()
      for _, context in ipairs { "text", 0, false, true, {} } do
        assert.same(context, assert(mj:submit { prompt = "a fox", context = context }).context)
        sim.reset()
      end
    end)

    it("signs a hookUrl for just this ref and attempt", function()
      local mj = open()
      local task = assert(mj:submit { prompt = "a fox" })
      local hook = sim.jobs()[1].hookUrl
      assert.matches("/_sim/sink%?ref=" .. task.ref .. "&a=1&kid=[%w_-]+&sig=" .. ("[%w_-]"):rep(22) .. "$", hook)
      assert.is_nil(hook:find(kit.SECRET, 1, true))
    end)

    it("adds the token to a query that hook_url has", function()
      local mj = open { hook_url = sim.url .. "/_sim/sink?tenant=7&a=b&ref=theirs" }
      local task = assert(mj:submit { prompt = "a fox" })
      assert.matches("%?tenant=7&a=b&ref=theirs&ref=" .. task.ref .. "&a=1&kid=", sim.jobs()[1].hookUrl)
      sim.finish(task.task_id)
      assert.equal(200, sim.hand(mj, 1).status)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("sends no hookUrl when there is none", function()
      local settings = kit.settings({}, sim)
      settings.hook_url, settings.secrets = nil, nil
      local mj = assert(require("mjhook").open(settings))
      kit.finally(function() mj:close() end)
      assert.equal("pending", assert(mj:submit { prompt = "a fox" }).state)
      assert.is_nil(sim.jobs()[1].hookUrl)
    end)

    it("gives refs that ascend, also when the clock steps back", function()
      local mj = open()
      local first = assert(mj:submit { prompt = "1" }).ref
      kit.travel(-3600)
      local second = assert(mj:submit { prompt = "2" }).ref
      assert.is_true(first < second)
    end)
  end)

  describe("before it is answered", function()
    -- Another process submits; this one looks into the same store.
    local function submit_elsewhere(lua)
      local mj = open()
      local child = kit.spawn("exec " .. kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
        local task, err = mj:submit { prompt = "a fox", context = { n = 1 } }
        io.stdout:write(task and task.state or err.message)
      ]]):format(kit.store, kit.KEY, sim.url), lua))
      local ref = kit.wait_until(function()
        local task = mj:tasks {}()
        return task and task.ref
      end)
      return mj, ref, child
    end

    for _, lua in ipairs { kit.lua, kit.other_lua } do
      it("is stored as submitting with its owner while a process on " .. lua .. " waits", function()
        kit.needs "processes"
        sim.script { submit = { { fault = "slow", ms = 700 } } }
        local mj, ref, child = submit_elsewhere(lua)
        kit.wait_until(function()
          return sim.requests "submit" == 1
        end)
        local task = mj:get(ref)
        assert.equal("submitting", task.state)
        assert.equal("alive", task.owner)
        assert.is_nil(task.task_id)
        assert.equal(1, mj:stats().accounts[1].held)
        assert.equal(0, child:wait())
        assert.equal("pending", child:out())
        assert.equal("pending", mj:get(ref).state)
      end)
    end

    it("was stored before the provider could have seen it", function()
      local mj = open()
      local perform, seen = mj.exec.http, nil
      mj.exec.http = function(self, requests, ...)
        local other = kit.open({}, sim)
        for task in other:tasks {} do
          seen = task
        end
        return perform(self, requests, ...)
      end
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal(task.ref, seen.ref)
      assert.equal("submitting", seen.state)
    end)

    it("is not sent when its sender stalled for longer than a minute", function()
      local mj = open()
      local core = require "mjhook.core"
      local clock = core.clock
      kit.finally(function() core.clock = clock end)
      core.clock = function() return clock() - 61000 end -- the moment of the intent
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("queued", task.state)
      assert.equal("not_sent", task.error.code)
      assert.equal(0, #sim.jobs())
    end)

    it("stays submitting when its answer can't be stored, and is sent no second time", function()
      local mj = open()
      local commit, n = mj.exec.commit, 0
      mj.exec.commit = function(self, ops)
        n = n + 1
        if n == 2 then
          return nil, require("mjhook.core").error("no_space", "no space left for the store", true)
        end
        return commit(self, ops)
      end
      local task, err = mj:submit { prompt = "a fox", key = "k" }
      assert.is_nil(task)
      assert.equal("no_space", err.code)
      assert.is_false(err.retryable)
      local again = assert(mj:submit { prompt = "a fox", key = "k" })
      assert.equal("submitting", again.state)
      assert.is_true(again.duplicate)
      assert.matches(again.ref, err.message)
      assert.equal(1, #sim.jobs())
    end)
  end)

  describe("when all slots are taken", function()
    it("queues, and says nothing is wrong", function()
      local mj = open { max_in_flight = 2 }
      assert(mj:submit { prompt = "1" })
      assert(mj:submit { prompt = "2" })
      local task = assert(mj:submit { prompt = "3" })
      assert.equal("queued", task.state)
      assert.is_nil(task.error)
      assert.equal(2, sim.requests "submit")
      assert.same({ 2, 1 }, { mj:stats().tasks.pending, mj:stats().tasks.queued })
    end)

    it("counts slots over all handles of the store", function()
      local a, b = open { max_in_flight = 1 }, open { max_in_flight = 1 }
      assert.equal("pending", assert(a:submit { prompt = "1" }).state)
      assert.equal("queued", assert(b:submit { prompt = "2" }).state)
    end)

    it("sends who has waited longest first when a slot is free again", function()
      local mj = open { max_in_flight = 1 }
      local first = assert(mj:submit { prompt = "1" })
      local second = assert(mj:submit { prompt = "2" })
      sim.finish(first.task_id)
      sim.hand(mj, 1)
      local third = assert(mj:submit { prompt = "3" })
      assert.equal("queued", third.state)
      assert.equal("pending", mj:get(second.ref).state)
    end)

    it("prefers a higher priority", function()
      local mj = open { max_in_flight = 1 }
      local first = assert(mj:submit { prompt = "1" })
      assert(mj:submit { prompt = "low" })
      local high = assert(mj:submit { prompt = "high", priority = 9 })
      sim.finish(first.task_id)
      sim.hand(mj, 1)
      assert(mj:reconcile {})
      assert.equal("pending", mj:get(high.ref).state)
      assert.equal("high", sim.jobs()[2].prompt)
    end)

    it("fails a queued task that has expired, without sending it", function()
      local mj = open { max_in_flight = 1 }
      assert(mj:submit { prompt = "1" })
      local task = assert(mj:submit { prompt = "2", expires = 30 })
      kit.travel(31)
      assert(mj:reconcile {})
      task = mj:get(task.ref)
      assert.equal("failed", task.state)
      assert.equal("expired", task.error.code)
      assert.equal(1, sim.requests "submit")
    end)
  end)

  describe("of a refused job", function()
    local function refused_as(fault)
      sim.script { submit = { fault } }
      local mj = open()
      return mj, assert(mj:submit { prompt = "a fox" })
    end

    local cases = {
      { "1001, quota", "quota", "quota", 890, 910 },
      { "1002, concurrency", "concurrency", "concurrency", 9, 11 },
      { "429 with Retry-After", { fault = "rate_limit", retry_after = 120 }, "rate_limit", 119, 121 },
      { "429 with an absurd Retry-After", { fault = "rate_limit", retry_after = 9999999 }, "rate_limit", 3599, 3601 },
      { "401", "unauthorized", "auth", 59, 61 },
      { "403", "forbidden", "auth", 59, 61 },
      { "a redirect", "redirect", "redirect", 59, 61 },
    }
    for _, case in ipairs(cases) do
      local name, fault, code, from, to = case[1], case[2], case[3], case[4], case[5]
      it("keeps it queued and lets the account rest after " .. name, function()
        local mj, task = refused_as(fault)
        assert.equal("queued", task.state)
        assert.equal(code, task.error.code)
        assert.is_true(#task.error.message > 0)
        assert.equal(tostring(task.error), task.error.message)
        assert.is_true(task.error.retryable)
        local account = mj:stats().accounts[1]
        assert.equal(0, account.held)
        assert.equal(code, account.reason)
        local rest = (account.paused_until - require("mjhook.core").now()) / 1000
        assert.is_true(rest > from and rest < to, rest)
        -- While it rests, nobody is sent; then the same attempt is.
        assert.equal("queued", assert(mj:submit { prompt = "next" }).state)
        assert.equal(1, sim.requests "submit")
        kit.travel(to)
        assert(mj:reconcile {})
        task = mj:get(task.ref)
        assert.equal("pending", task.state)
        assert.equal(1, task.attempt)
        assert.is_nil(task.error)
        -- Whoever else holds the slots after a 1002, one job at a time finds out.
        assert.equal(code == "concurrency" and 2 or 3, sim.requests "submit")
      end)
    end

    for fault, rest in pairs { quota = 901, unauthorized = 61, rate_limit = 31, http_503 = false } do
      it("sends one job to find out whether a rest has helped: " .. fault, function()
        local mj = open { max_in_flight = 20 }
        sim.script { submit = { { fault = rest and fault or "quota", retry_after = 30 } } }
        for i = 1, 6 do
          assert.equal("queued", assert(mj:submit { prompt = tostring(i) }).state)
        end
        for pass = 1, 2 do
          sim.script { submit = { { fault = fault, retry_after = 30 } } }
          kit.travel(rest or 901)
          local before = sim.requests "submit"
          local report = assert(mj:reconcile {})
          if rest then
            assert.equal(before + 1, sim.requests "submit")
            assert.same({ 1, 6, 0 }, { report.requests, report.queued, report.submitted })
            assert.is_true(report.errors <= 1)
          elseif pass == 1 then -- no clear answer is none: the next one finds out
            assert.same({ 6, 1, 5 }, { report.requests, report.ambiguous, report.submitted })
          end
        end
        kit.travel(rest or 901)
        local report = assert(mj:reconcile {})
        assert.equal(rest and 6 or 0, report.submitted)
        local account = mj:stats().accounts[1]
        assert.is_nil(account.paused_until)
        assert.is_nil(account.reason)
        assert.same({}, sim.ledger().billed_twice)
      end)
    end

    it("finds out about one account while others send", function()
      sim.config { keys = { kit.KEY, "key-two" } }
      local mj = open { accounts = { { name = "one", api_key = kit.KEY }, { name = "two", api_key = "key-two" } } }
      sim.script { submit = { "quota" } }
      assert(mj:submit { prompt = "1", account = "one" })
      kit.travel(901)
      sim.config { keys = { "key-two" } }
      local jobs = {}
      for i = 1, 8 do
        jobs[i] = { prompt = tostring(i), account = i > 3 and "two" or "one" }
      end
      local results = assert(mj:submit_many(jobs))
      assert.equal(5, sim.counters().accounts["key-two"].accepted)
      assert.equal(7, sim.requests "submit") -- the first, one to find out, and five
      for i = 1, 3 do
        assert.same({ "queued", "auth" }, { results[i].state, results[i].error.code })
      end
      assert.equal("auth", mj:stats().accounts[1].reason)
    end)

    it("sends the others when the job that finds out is the only one that is wrong", function()
      local mj = open()
      sim.script { submit = { "quota", "http_400" } }
      for i = 1, 4 do
        assert(mj:submit { prompt = tostring(i) })
      end
      kit.travel(901)
      local report = assert(mj:reconcile {})
      assert.same({ 4, 1, 3 }, { report.requests, report.failed, report.submitted })
    end)

    it("learns from 1002 that others use the key, says so, and takes back a slot a minute", function()
      kit.needs "processes"
      local mj = kit.open({ max_in_flight = 5 }, sim)
      for i = 1, 2 do
        assert.equal("pending", assert(mj:submit { prompt = tostring(i) }).state)
      end
      sim.script { submit = { "concurrency" } }
      assert.equal("queued", assert(mj:submit { prompt = "3" }).state)
      for i = 4, 8 do
        assert(mj:submit { prompt = tostring(i) })
      end
      assert.equal(2, mj:stats().accounts[1].learned)
      kit.travel(30)
      assert.equal(0, assert(mj:reconcile {}).submitted)
      for minute = 1, 2 do
        kit.travel(minute == 1 and 31 or 60)
        assert.equal(1, assert(mj:reconcile {}).submitted)
      end
      local out = kit.sh(("env -u MJHOOK_CONFIG MJHOOK_STORE=%s MIDJOURNEY_API_KEY=k %s %s/scripts/mjhook stats")
        :format(kit.store, kit.lua, kit.root))
      assert.matches("at most 2 now: the provider said 1002", out)
      kit.travel(60)
      assert.equal(1, assert(mj:reconcile {}).submitted)
      assert.is_nil(mj:stats().accounts[1].learned) -- all five again
      assert.equal(5, mj:stats().accounts[1].held)
    end)

    for _, fault in ipairs { "http_400", "error" } do
      it("fails it for good after a definite refusal: " .. fault, function()
        local mj, task = refused_as(fault)
        assert.equal("failed", task.state)
        assert.equal("rejected", task.error.code)
        assert.equal("submit", task.source)
        assert.is_false(task.error.retryable)
        assert.equal(0, mj:stats().accounts[1].held)
        assert.equal(1, mj:stats().events)
      end)
    end

    it("fails it when the provider finds fault with it", function()
      local mj = open()
      local task = assert(mj:submit { prompt = " " }) -- the provider wants more than blanks
      assert.equal("failed", task.state)
      assert.equal("prompt is required", task.error.message)
    end)
  end)

  it("reads an answer that is gzipped without being asked for", function()
    sim.script { submit = { "gzip" } }
    local task = assert(open():submit { prompt = "a fox" })
    assert.equal("pending", task.state)
    assert.equal(sim.jobs()[1].taskId, task.task_id)
  end)

  describe("without a clear answer", function()
    local cases = {
      "http_500", "http_502", "http_503", "http_504", "http_500_after", "http_502_after", "http_503_after", "cut",
      "cut_after", "reset", "reset_after", "cut_body", "hang", "hang_after", "stall", "garbage", "truncated",
      "empty_body", "bad_envelope", "nulls", "wrong_types", "odd_task_id",
    }
    for _, fault in ipairs(cases) do
      it("is ambiguous, holds its slot and is not sent again: " .. fault, function()
        sim.script { submit = { fault } }
        local mj = open { max_in_flight = 1 }
        local task = assert(mj:submit { prompt = "a fox" })
        assert.equal("ambiguous", task.state)
        assert.is_true(#task.error.message > 0)
        assert.is_nil(task.task_id)
        assert.equal(1, mj:stats().accounts[1].held)
        assert(mj:reconcile {})
        assert.equal("queued", assert(mj:submit { prompt = "next" }).state)
        kit.travel(120)
        assert(mj:reconcile {})
        assert.equal(1, sim.requests "submit")
        assert.equal("ambiguous", mj:get(task.ref).state)
      end)
    end

    it("keeps it queued when the provider could not be reached", function()
      local mj = open { base_url = "http://127.0.0.1:1" }
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("queued", task.state)
      assert.equal("not_sent", task.error.code)
      assert.equal(0, mj:stats().accounts[1].held)
    end)

    for _, fault in ipairs { "slow", "trickle", "string_numbers" } do
      it("is pending after an answer that is merely odd: " .. fault, function()
        sim.script { submit = { { fault = fault, ms = fault == "slow" and 100 or 1 } } }
        assert.equal("pending", assert(open():submit { prompt = "a fox" }).state)
      end)
    end

    it("becomes pending through a callback with its ref", function()
      sim.config { callback_progress = true }
      sim.script { submit = { "cut_after" } }
      local mj = open()
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("ambiguous", task.state)
      assert.equal(200, sim.hand(mj, 1).status)
      task = mj:get(task.ref)
      assert.equal("pending", task.state)
      assert.equal(sim.jobs()[1].taskId, task.task_id)
    end)
  end)

  describe("whose callback overtakes its answer", function()
    -- What the provider calls back with is stored between the exchange and the storing of its answer.
    local function overtaken(before_answer)
      local mj = open()
      local perform = mj.exec.http
      mj.exec.http = function(self, ...)
        local answers, err = perform(self, ...)
        mj.exec.http = perform
        before_answer(mj, sim.jobs()[1].taskId)
        return answers, err
      end
      local task = assert(mj:submit { prompt = "a fox" })
      assert.same(task, mj:get(task.ref))
      assert.equal(sim.jobs()[1].taskId, task.task_id)
      assert.equal(1, #mj:get(task.ref).attempts)
      assert(mj:reconcile {})
      assert.equal(1, sim.requests "submit")
      return task, mj
    end

    local function finish(mj, id)
      sim.finish(id)
      assert.equal(200, sim.hand(mj, 1).status)
    end

    it("has succeeded already, with one event", function()
      local task, mj = overtaken(finish)
      assert.equal("succeeded", task.state)
      assert.equal(1, mj:stats().events)
      assert.equal(0, mj:stats().accounts[1].held)
    end)

    it("is pending when the callback only says that it runs", function()
      sim.config { callback_progress = true }
      local task = overtaken(function(mj)
        assert.equal(200, sim.hand(mj, 1).status)
      end)
      assert.equal("pending", task.state)
    end)

    for _, fault in ipairs { "cut_after", "http_502_after", "garbage" } do
      it("is in no doubt though the answer is of no use: " .. fault, function()
        sim.script { submit = { fault } }
        local task, mj = overtaken(finish)
        assert.equal("succeeded", task.state)
        assert.is_nil(task.error)
        assert.equal(1, mj:stats().events)
      end)
    end
  end)

  describe("with a key", function()
    it("gives the first task again, and makes no second job", function()
      local mj = open()
      local first = assert(mj:submit { prompt = "a fox", key = "k", context = { a = 1, b = { 2 } } })
      local second = assert(mj:submit { prompt = "a fox", key = "k", context = { b = { 2 }, a = 1 } })
      assert.is_nil(first.duplicate)
      assert.is_true(second.duplicate)
      assert.equal(first.ref, second.ref)
      assert.equal(1, sim.requests "submit")
    end)

    it("sees through numbers of another type and defaults that are spelled out", function()
      local mj = open()
      local first = assert(mj:submit { prompt = "a fox", key = "k", context = { n = 7 } })
      local again = assert(mj:submit {
        prompt = "a fox", key = "k", context = { n = 7.0 }, mode = "fast", timeout = 600.0,
      })
      assert.equal(first.ref, again.ref)
    end)

    it("finds what an older mjhook stored: what makes two jobs the same never changes", function()
      local record = require("mjhook.submission.job").record
      local function print_of(args)
        return (assert(record(open(), args)).fingerprint:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
      end
      local odd = { prompt = "a fox\n\"%s", mode = "relaxed", timeout = 300, user_id = "u1", key = "no matter",
                    priority = 3, context = { order = 7, list = { 1.5, true, "x" } } }
      assert.equal("d84c992fd6f75c96d5470a2e6049a81e747cf9d640982280977a94caa6111d76", print_of { prompt = "a fox" })
      assert.equal("94d6bff7bf687e02899322b5025d34d91c23dba61e10a9b82f94eb4ded757d6b", print_of(odd))
      assert.equal("4bde668470cd0e5ba63c1f674369b704d85b358ef0bd0f0949da323c1089c4e5",
        print_of { prompt = "a fox", context = false })
    end)

    it("gives the first task also to the other Lua", function()
      kit.needs "processes"
      local mj = open()
      for i, context in ipairs { "nil", "{ n = 7, t = { 0.1, true } }", "'text'" } do
        local args = ("{ prompt = 'a fox', key = 'k%d', context = %s }"):format(i, context)
        local first = assert(mj:submit((loadstring or load)("return " .. args)()))
        local out = kit.sh(kit.lua_command(([[
          local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
          local task, err = mj:submit %s
          io.stdout:write(task and task.ref or err.message)
        ]]):format(kit.store, kit.KEY, sim.url, args), kit.other_lua))
        assert.equal(first.ref, out)
      end
    end)

    local others = {
      prompt = { prompt = "a wolf" }, mode = { mode = "relaxed" }, timeout = { timeout = 601 },
      user_id = { user_id = "u2" }, context = { context = { a = 2 } },
      ["absent context"] = { context = false },
      ["context that looks alike"] = { context = { a = "1\nb=\nnumber:2" } },
      ["context that looks alike, once more"] = { context = { a = "1\nb=\nn2" } },
      ["type in the context"] = { context = { a = 1, b = 2 } },
      ["type that looks alike"] = { context = { a = "1", b = "n2" } },
    }
    for name, other in pairs(others) do
      it("is a conflict with another " .. name, function()
        local mj = open()
        local first = assert(mj:submit { prompt = "a fox", key = "k", context = { a = "1", b = 2 } })
        local args = { prompt = "a fox", key = "k", context = { a = "1", b = 2 } }
        for k, v in pairs(other) do
          args[k] = v
        end
        local task, err = mj:submit(args)
        assert.is_nil(task)
        assert.equal("key_conflict", err.code)
        assert.matches(first.ref, err.message)
        assert.is_false(err.retryable)
        assert.equal(1, sim.requests "submit")
      end)
    end

    it("is a conflict with no context at all", function()
      local mj = open()
      assert(mj:submit { prompt = "a fox", key = "k", context = { a = 1 } })
      assert.equal("key_conflict", select(2, mj:submit { prompt = "a fox", key = "k" }).code)
    end)

    it("gives what is left of a pruned task, and is still a conflict with other arguments", function()
      local mj = open()
      local task = assert(mj:submit { prompt = "a fox", key = "k" })
      sim.finish(task.task_id)
      sim.hand(mj, 1)
      mj:close()
      mj = open { policy = { on_succeeded = function() end } }
      assert(mj:deliver {})
      kit.travel(100)
      assert.equal(1, assert(mj:prune { older_than = 1 }).pruned)
      local again = assert(mj:submit { prompt = "a fox", key = "k" })
      assert.same({ task.ref, task.task_id, "succeeded", true, true },
        { again.ref, again.task_id, again.state, again.duplicate, again.pruned })
      local other, err = mj:submit { prompt = "a wolf", key = "k" }
      assert.is_nil(other)
      assert.equal("key_conflict", err.code)
      assert.matches('^key "k" ', err.message)
      assert.matches(task.ref, err.message)
      assert.equal(1, sim.requests "submit")
    end)

    it("makes one job of many submissions at the same time", function()
      kit.needs "processes"
      local mj = open()
      local code = ([[
        local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q })
        local task, err = mj:submit { prompt = "a fox", key = "k" }
        io.stdout:write(task and task.ref or err.message)
      ]]):format(kit.store, kit.KEY, sim.url)
      local children = {}
      for i = 1, 6 do
        children[i] = kit.spawn("exec " .. kit.lua_command(code, i % 2 == 0 and kit.lua or kit.other_lua))
      end
      local refs, n = {}, 0
      for _, child in ipairs(children) do
        assert.equal(0, child:wait())
        n = n + (refs[child:out()] and 0 or 1)
        refs[child:out()] = true
      end
      assert.equal(1, n)
      assert.equal(26, #next(refs))
      assert.equal(1, #sim.jobs())
      assert.equal("pending", mj:get(next(refs)).state)
    end)
  end)

  describe("refuses", function()
    local deep = {}
    for _ = 1, 30 do
      deep = { deep }
    end
    local cyclic = {}
    cyclic.self = cyclic
    local cases = {
      { "an empty prompt", { prompt = "" }, "^prompt: " },
      { "a prompt that is too long", { prompt = ("x"):rep(10001) }, "^prompt: 1 to 10000 bytes expected, got 10001" },
      { "a prompt that is no UTF-8", { prompt = "a \255 fox" }, "^prompt: not valid UTF%-8" },
      { "a prompt with an overlong form", { prompt = "\192\175" }, "^prompt: not valid UTF%-8" },
      { "a prompt with a surrogate", { prompt = "\237\160\128" }, "^prompt: not valid UTF%-8" },
      { "a prompt that ends in a character", { prompt = "fox \226\130" }, "^prompt: not valid UTF%-8" },
      { "a prompt with a NUL", { prompt = "a\0fox" }, "^prompt: " },
      { "an unknown mode", { mode = "turbo" }, '^mode: "fast" or "relaxed"' },
      { "an empty mode", { mode = "" }, "^mode: " },
      { "a timeout too short", { timeout = 299 }, "^timeout: .* 300 to 1200" },
      { "a timeout too long", { timeout = 1201 }, "^timeout: " },
      { "a broken timeout", { timeout = 300.5 }, "^timeout: " },
      { "an endless timeout", { timeout = math.huge }, "^timeout: " },
      { "a timeout that is no number", { timeout = 0 / 0 }, "^timeout: " },
      { "a broken priority", { priority = 0.5 }, "^priority: " },
      { "a priority too high", { priority = 1000001 }, "^priority: " },
      { "an endless priority", { priority = -math.huge }, "^priority: " },
      { "to expire at once", { expires = 0 }, "^expires: " },
      { "to expire in the past", { expires = -1 }, "^expires: " },
      { "to expire never", { expires = math.huge }, "^expires: " },
      { "to expire at no number", { expires = 0 / 0 }, "^expires: " },
      { "an empty user_id", { user_id = "" }, "^user_id: 1 to 256 bytes" },
      { "a user_id too long", { user_id = ("u"):rep(257) }, "^user_id: " },
      { "a user_id that is no UTF-8", { user_id = "\255" }, "^user_id: " },
      { "an empty key", { key = "" }, "^key: 1 to 256 bytes" },
      { "a key too long", { key = ("k"):rep(257) }, "^key: " },
      { "a key that is no UTF-8", { key = "\255" }, "^key: " },
      { "a context too large", { context = { ("x"):rep(65536) } }, "^context: at most 65536 bytes" },
      { "a function as context", { context = print }, "^context: can't be written as JSON" },
      { "a function in the context", { context = { print } }, "^context: can't be written as JSON" },
      { "a context with NaN", { context = { 0 / 0 } }, "^context: can't be written as JSON" },
      { "a context that is a well", { context = deep }, "^context: can't be written as JSON" },
      { "a context that bites its tail", { context = cyclic }, "^context: can't be written as JSON" },
      { "a context with odd keys", { context = { [{}] = 1 } }, "^context: can't be written as JSON" },
      { "a context with huge gaps", { context = { [1] = 1, [1000000] = 1 } }, "^context: can't be written as JSON" },
      { "a context that is no UTF-8", { context = { a = "\255" } }, "^context: " },
      { "an unknown account", { account = "elsewhere" }, '^accounts: "elsewhere" is not configured', "config" },
    }
    for _, case in ipairs(cases) do
      it(case[1], function()
        local mj = open()
        local args = { prompt = "a fox" }
        for k, v in pairs(case[2]) do
          args[k] = v
        end
        local task, err = mj:submit(args)
        assert.is_nil(task)
        assert.matches(case[3], err.message)
        assert.equal(case[4] or "invalid", err.code)
        assert.is_false(err.retryable)
        assert.equal(0, sim.requests "submit")
        for _, n in pairs(mj:stats().tasks) do
          assert.equal(0, n)
        end
      end)
    end

    it("an integer that JSON would change", function()
      local tointeger = rawget(math, "tointeger")
      if not tointeger then
        return -- LuaJIT has none
      end
      local task, err = open():submit { prompt = "a fox", context = { 2 ^ 53, tointeger(2 ^ 53) + 1 } }
      assert.is_nil(task)
      assert.matches("^context: can't be written as JSON: 9007199254740993 ", err.message)
    end)

    it("nothing at its limits", function()
      local mj = open()
      local task = assert(mj:submit {
        prompt = ("x"):rep(10000), timeout = 300, user_id = ("u"):rep(256), key = ("k"):rep(256), priority = 1000000,
        expires = 31536000, context = ("c"):rep(65534),
      })
      assert.equal("pending", task.state)
      assert.equal(65534, #mj:get(task.ref).context)
      assert.equal(task.ref, mj:tasks({ user_id = ("u"):rep(256) })().ref)
    end)

    it("to send with a hook_url and no secrets", function()
      local settings = kit.settings({}, sim)
      settings.secrets = nil
      local mj = assert(require("mjhook").open(settings))
      kit.finally(function() mj:close() end)
      local task, err = mj:submit { prompt = "a fox" }
      assert.is_nil(task)
      assert.equal("config", err.code)
      assert.matches("^secrets: ", err.message)
    end)

    it("to send without a key, by name", function()
      local settings = kit.settings({}, sim)
      settings.api_key = nil
      local mj = assert(require("mjhook").open(settings))
      kit.finally(function() mj:close() end)
      local task, err = mj:submit { prompt = "a fox" }
      assert.is_nil(task)
      assert.equal("config", err.code)
      assert.matches("^api_key: ", err.message)
    end)
  end)

  -- Values come from forms; the names of fields, and what is passed at all, come from the caller's own code.
  describe("with a value of a wrong type", function()
    local null = require("cjson").null
    local cases = {
      { "no prompt", {}, "prompt", "string expected, got nil" },
      { "a number for the prompt", { prompt = 7 }, "prompt", "string expected, got number" },
      { "true for the prompt, as a form without a value gives", { prompt = true }, "prompt", "got boolean" },
      { "two prompts, as a repeated form field gives", { prompt = { "a", "b" } }, "prompt", "got table" },
      { "a string for the timeout", { prompt = "x", timeout = "600" }, "timeout", "number expected, got string" },
      { "a number for the key", { prompt = "x", key = 7 }, "key", "string expected" },
      { "a number for the user_id", { prompt = "x", user_id = 7 }, "user_id", "string expected" },
      { "JSON's null for the user_id", { prompt = "x", user_id = null }, "user_id", "got userdata" },
      { "a table for the account", { prompt = "x", account = {} }, "account", "string expected" },
      { "true for the priority", { prompt = "x", priority = true }, "priority", "number expected" },
      { "true for the mode", { prompt = "x", mode = true }, "mode", "string expected" },
      { "a string to expire", { prompt = "x", expires = "1" }, "expires", "number expected" },
      { "several wrong values, of which the first by name is told", { prompt = 7, mode = 7, key = 7 }, "key", "" },
    }
    for _, case in ipairs(cases) do
      it("is an outcome that names the field: " .. case[1], function()
        local mj = open()
        local task, err = mj:submit(case[2])
        assert.is_nil(task)
        assert.equal("invalid", err.code)
        assert.is_false(err.retryable)
        assert.truthy(err.message:find(("bad field '%s' ("):format(case[3]), 1, true), err.message)
        assert.truthy(err.message:find(case[4], 1, true), err.message)
        assert.same(err, mj:submit_many({ case[2] })[1].error)
        assert.equal(0, sim.requests "submit")
        assert.equal(0, mj:stats().tasks.queued)
      end)
    end

    for _, case in ipairs { { "no task_id", {}, "task_id" }, { "a number", { task_id = 7 }, "task_id" },
                            { "a number for the prompt", { task_id = "T", prompt = 7 }, "prompt" } } do
      it("is an outcome of adopt, too: " .. case[1], function()
        local task, err = open():adopt(case[2])
        assert.is_nil(task)
        assert.equal("invalid", err.code)
        assert.truthy(err.message:find("bad field '" .. case[3], 1, true), err.message)
      end)
    end
  end)

  describe("misused", function()
    local cases = {
      { "nothing", nil, "submit: table expected, got nil" },
      { "a string", "a fox", "submit: table expected, got string" },
      { "a field that nobody knows", { prompt = "x", promt = "y" }, 'unknown field "promt": did you mean "prompt"%?' },
      { "a field like no other", { prompt = "x", [{}] = "y" }, 'unknown field "table: ' },
      { "a list", { "a fox" }, 'unknown field "1"' },
    }
    for _, case in ipairs(cases) do
      it("with " .. case[1] .. " raises at the caller's line", function()
        local mj = open()
        local line = debug.getinfo(1, "l").currentline + 2
        local ok, err = pcall(function()
          local task = mj:submit(case[2])
          return task
        end)
        assert.is_false(ok)
        assert.matches(case[3], err)
        assert.matches("submit_spec.lua:" .. line .. ": ", err)
      end)
    end
  end)

  describe("with on_refused", function()
    local function submit_with(on_refused, fault)
      sim.script { submit = { fault or "quota" } }
      local mj = open { policy = { on_refused = on_refused } }
      return assert(mj:submit { prompt = "a fox" }), mj
    end

    it("asks with the task and the error", function()
      local task, err
      submit_with(function(...)
        task, err = ...
        return "fail"
      end)
      assert.equal("a fox", task.prompt)
      assert.equal("quota", err.code)
      assert.equal("quota not enough", err.message)
    end)

    it("fails the task when told so", function()
      local task = submit_with(function() return "fail" end)
      assert.equal("failed", task.state)
      assert.equal("quota", task.error.code)
    end)

    it("tries again when told so, after the seconds named", function()
      local task, mj = submit_with(function() return "retry", 1000 end, "http_400")
      assert.equal("queued", task.state)
      local wait = (task.due_at - require("mjhook.core").now()) / 1000
      assert.is_true(wait > 990 and wait <= 1000, wait)
      assert(mj:reconcile {})
      assert.equal(1, sim.requests "submit")
      kit.travel(1001)
      assert(mj:reconcile {})
      assert.equal("pending", mj:get(task.ref).state)
    end)

    local nonsense = {
      ["raises"] = function() error "no idea" end,
      ["answers nothing"] = function() end,
      ["answers a word that nobody knows"] = function() return "later" end,
      ["answers a number"] = function() return 7 end,
    }
    for name, decide in pairs(nonsense) do
      it("sorts as usual when it " .. name, function()
        assert.equal("failed", (submit_with(decide, "http_400")).state)
        assert.equal("queued", (submit_with(decide, "quota")).state)
      end)
    end

    for name, seconds in pairs { never = math.huge, ["no number"] = 0 / 0, past = -1, text = "soon" } do
      it("waits as usual when it names a bad time: " .. name, function()
        local task = submit_with(function() return "retry", seconds end, "http_400")
        assert.equal("queued", task.state)
        assert.is_true(task.due_at - require("mjhook.core").now() < 60000)
      end)
    end

    it("does not make a pass, or the dispatcher of free slots, send one job for ever", function()
      sim.config { submit = { http_400 = 1 } }
      local mj = open { policy = { on_refused = function() return "retry", 0 end }, max_in_flight = 3 }
      for i = 1, 3 do
        assert(mj:submit { prompt = tostring(i) })
      end
      local before = sim.requests "submit"
      local report = assert(mj:reconcile {})
      assert.equal(3, report.queued)
      assert.is_true(report.requests >= 3 and report.requests <= 6, report.requests)
      assert.equal(before + report.requests, sim.requests "submit")
      local sent = assert(require("mjhook.submission.submit").dispatch(mj))
      assert.is_true(sent >= 3 and sent <= 6, sent)
      assert.equal(0, #sim.jobs())
    end)

    it("is not asked about what may have been sent, nor what was not", function()
      local asked = 0
      local task = submit_with(function() asked = asked + 1 return "fail" end, "http_500")
      assert.equal("ambiguous", task.state)
      local mj = open { base_url = "http://127.0.0.1:1", policy = { on_refused = function() asked = asked + 1 end } }
      assert(mj:submit { prompt = "next" })
      assert.equal(0, asked)
    end)
  end)

  describe("with several accounts", function()
    local TWO = {
      { name = "one", api_key = kit.KEY, max_in_flight = 1 }, { name = "two", api_key = "key-two", max_in_flight = 1 },
    }

    before_each(function()
      sim.config { keys = { kit.KEY, "key-two" } }
    end)

    it("spreads jobs over them, each up to its slots", function()
      local mj = open { accounts = TWO }
      local used = {}
      for i = 1, 3 do
        local task = assert(mj:submit { prompt = tostring(i) })
        used[i] = task.state == "pending" and task.account or task.state
      end
      table.sort(used)
      assert.same({ "one", "queued", "two" }, used)
      assert.equal(1, sim.counters().accounts["key-two"].accepted)
      assert.equal(1, sim.counters().accounts[kit.KEY].accepted)
    end)

    it("keeps a task that names an account to it", function()
      local mj = open { accounts = TWO }
      assert.equal("two", assert(mj:submit { prompt = "1", account = "two" }).account)
      assert.equal("queued", assert(mj:submit { prompt = "2", account = "two" }).state)
    end)

    it("polls each under its own key", function()
      local mj = open { accounts = TWO }
      local a = assert(mj:submit { prompt = "1", account = "one" })
      local b = assert(mj:submit { prompt = "2", account = "two" })
      sim.finish(a.task_id)
      sim.finish(b.task_id)
      kit.travel(100)
      assert.equal(2, assert(mj:reconcile {}).requests)
      assert.equal("succeeded", mj:get(a.ref).state)
      assert.equal("succeeded", mj:get(b.ref).state)
    end)

    it("gives the next job to the one whose slots are the least taken", function()
      local mj = open { accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 4 },
                                     { name = "two", api_key = "key-two", max_in_flight = 2 } } }
      local used = {}
      for i = 1, 7 do
        local task = assert(mj:submit { prompt = tostring(i) })
        used[i] = task.state == "pending" and task.account or task.state
      end
      assert.same({ "one", "two", "one", "one", "two", "one", "queued" }, used)
    end)

    it("goes on polling, and hearing of, jobs of one that is drained", function()
      local mj = open { accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 2 }, TWO[2] } }
      local a = assert(mj:submit { prompt = "1", account = "one" })
      local b = assert(mj:submit { prompt = "2", account = "one" })
      local c = assert(mj:submit { prompt = "3", account = "two" })
      local waiting = assert(mj:submit { prompt = "4" })
      assert.equal("queued", waiting.state)
      mj:close()
      mj = open { accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 0 }, TWO[2] } }
      sim.finish(a.task_id)
      assert.equal(200, sim.hand(mj, 1).status)
      sim.finish(b.task_id)
      kit.travel(100)
      assert(mj:reconcile {})
      assert.same({ "succeeded", "succeeded", "pending", "queued" },
        { mj:get(a.ref).state, mj:get(b.ref).state, mj:get(c.ref).state, mj:get(waiting.ref).state })
      sim.finish(c.task_id)
      kit.travel(300)
      assert(mj:reconcile {})
      assert.same({ "pending", "two" }, { mj:get(waiting.ref).state, mj:get(waiting.ref).account })
      assert.equal(2, sim.counters().accounts[kit.KEY].accepted)
    end)

    it("sends nothing under one that is drained", function()
      local mj = open { accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 0 }, TWO[2] } }
      assert.equal("two", assert(mj:submit { prompt = "1" }).account)
      assert.equal("queued", assert(mj:submit { prompt = "2" }).state)
      assert.equal("queued", assert(mj:submit { prompt = "3", account = "one" }).state)
    end)

    it("lets one rest without the other", function()
      sim.script { submit = { "quota" } }
      local mj = open { accounts = TWO }
      for i = 1, 2 do
        assert(mj:submit { prompt = tostring(i) })
      end
      assert(mj:reconcile {})
      assert.equal(1, mj:stats().tasks.pending)
    end)
  end)

  it("keeps secrets out of tasks, errors and the log", function()
    sim.script { submit = { "unauthorized", "cut", "http_500" } }
    local mj = open()
    local seen = {}
    for i = 1, 3 do
      kit.travel(100)
      local task = mj:get(assert(mj:submit { prompt = "a fox" }).ref)
      seen[i] = cjson.encode(task) .. tostring(task.error) .. tostring(mj)
    end
    local text = table.concat(seen) .. kit.log_text()
    assert.is_nil(text:find(kit.KEY, 1, true))
    assert.is_nil(text:find(kit.SECRET, 1, true))
    assert.is_nil(text:find("sig=", 1, true))
  end)
end)
