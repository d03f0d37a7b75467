-- What a policy was asked, read from a task's record: against what the flows really asked, and on records written here.
local copy = require("mjhook.policy_test.replay").copy
local decisions = require "mjhook.policy_test.decisions"
local testing = require "mjhook.testing"

local DECISIONS = { "on_callback", "next_poll", "on_refused", "resolve_ambiguous" }

describe("decision points", function()
  describe("are those that the flows asked, with the same task and the same status or time:", function()
    local t, asked, answers

    -- A mjhook whose policy notes what it is asked and answers what `answers` says at that time.
    local function open(settings)
      asked, answers = {}, {}
      local policy = {}
      for _, name in ipairs(DECISIONS) do
        policy[name] = function(task, second)
          asked[#asked + 1] = { decision = name, at = t:now(), task = copy(task), second = copy(second) }
          local answer = answers[name]
          if type(answer) == "function" then
            answer = answer(task, second)
          end
          if type(answer) == "table" then
            return answer[1], answer[2]
          end
          return answer
        end
      end
      settings = settings or {}
      settings.policy = policy
      t = testing.new(settings)
      return t.mj, t.provider
    end

    after_each(function()
      t:close()
    end)

    local function submit(more)
      local job = { prompt = "a fox", user_id = "u1", context = { tier = "gold" }, key = "order-7", timeout = 300 }
      for k, v in pairs(more or {}) do
        job[k] = v
      end
      return assert(t.mj:submit(job))
    end

    local function wait(seconds, times)
      for _ = 1, times or 1 do
        t:advance(seconds)
        t:drain()
      end
    end

    -- What the record can't tell is taken out of both; see mjhook.policy_test.replay.
    local function comparable(task)
      task = copy(task)
      task.due_at = nil
      return task
    end

    local function compare(ref, from)
      local list = decisions.about(t.mj:get(ref), { grace_ms = t.mj.config.ambiguous_grace * 1000 })
      local names, expected = {}, {}
      for i = from or 1, #asked do
        expected[#expected + 1] = asked[i]
      end
      local n = #list - (t.mj:get(ref).state == "ambiguous" and 1 or 0)
      for i = 1, math.max(n, #expected) do
        names[i] = { list[i] and list[i].decision, expected[i] and expected[i].decision }
        assert.equal(names[i][2], names[i][1], "question " .. i)
        assert.equal(expected[i].at, list[i].at, "question " .. i)
        local task, second = list[i].arguments()
        assert.same(comparable(expected[i].task), comparable(task), "question " .. i)
        assert.same(expected[i].second, second, "question " .. i)
        assert.equal(getmetatable(expected[i].second), getmetatable(second))
      end
      return list
    end

    it("polls, a callback that is believed, one again and one that contradicts it", function()
      local _, provider = open()
      answers.on_callback, answers.next_poll = "accept", 30
      local task = submit()
      wait(60, 4)
      provider:finish(task.ref, { meta = { seed = 7 } })
      t:advance(5)
      provider:call_back(task.ref)
      assert.equal(6, #asked)
      local list = compare(task.ref)
      assert.same({ "poll: running", "callback: succeeded", "callback: succeeded (duplicate)" },
        { list[4].about, list[5].about, list[6].about })
      t:advance(5)
      provider:fail(task.ref, "banned")
      assert.same({ "failed", "banned" }, { asked[7].second.kind, asked[7].second.error })
      asked[7].second.image, asked[7].second.images, asked[7].second.meta = nil, {}, nil -- of these a failure has none
      assert.equal("callback: failed (contradiction)", compare(task.ref)[7].about)
    end)

    it("a callback that is verified, and what the provider says then", function()
      local _, provider = open()
      answers.on_callback = "verify"
      local task = submit()
      t:advance(20)
      provider:finish(task.ref)
      t:advance(11)
      t:drain()
      assert.equal("succeeded", t.mj:get(task.ref).state)
      local list = compare(task.ref)
      assert.equal("callback: succeeded (was verified)", list[1].about)
    end)

    it("a refusal, and another after which it is sent again and fails", function()
      local _, provider = open()
      answers.on_refused, answers.on_callback = { "retry", 10 }, "accept"
      provider:refuse(1001, "quota not enough")
      provider:refuse(1002, "concurrency limit reached")
      provider:answer(429, '{"status":429,"message":"slow down"}')
      local task = submit()
      wait(1000, 3)
      provider:fail(task.ref, "banned words")
      assert.equal("failed", t.mj:get(task.ref).state)
      -- Nothing tells the code of the third one, whose text is its own.
      assert.equal("rate_limit", asked[3].second.code)
      asked[3].second.code = "refused"
      for i = 1, 3 do
        asked[i].task.error = nil
      end
      local list = compare(task.ref)
      assert.same({ "retry", "refused: quota not enough" }, { list[1].default, list[1].about })
    end)

    it("a rejection, which is the task's error still, and a resubmission by a person", function()
      local _, provider = open()
      answers.on_callback = "accept"
      provider:answer(422, '{"status":422,"message":"no such model"}')
      local task = submit()
      assert.equal("failed", t.mj:get(task.ref).state)
      assert.equal("fail", compare(task.ref)[1].default)
      t:advance(30)
      assert(t.mj:resubmit(task.ref))
      wait(60, 2)
      t:advance(30)
      provider:fail(task.ref, "banned words")
      assert.equal(3, #asked)
      compare(task.ref)
    end)

    it("an ambiguous task that waits, is submitted again and comes to its end", function()
      local _, provider = open()
      answers.resolve_ambiguous = { "wait", 100 }
      provider:timeout()
      local task = submit()
      wait(700)
      assert.equal(1, #asked)
      wait(101)
      answers.resolve_ambiguous = "resubmit"
      wait(101)
      answers.on_callback = "accept"
      wait(60, 2)
      provider:finish(task.ref)
      assert.equal("succeeded", t.mj:get(task.ref).state)
      assert.equal(2, t.mj:get(task.ref).attempt)
      local list = compare(task.ref)
      assert.same({ "ambiguous: was waited for longer", "ambiguous: was submitted again" },
        { list[1].about, list[3].about })
    end)

    it("an ambiguous task that is given up", function()
      local _, provider = open()
      provider:timeout()
      local task = submit()
      wait(700)
      assert.equal("lost", t.mj:get(task.ref).state)
      assert.equal("ambiguous: was given up", compare(task.ref)[1].about)
    end)

    it("an ambiguous task whose callback comes, first of its running", function()
      local _, provider = open()
      answers.on_callback = "accept"
      provider:timeout(true)
      local task = submit()
      assert.equal("ambiguous", task.state)
      t:advance(30)
      provider:call_back(task.ref)
      t:advance(30)
      provider:finish(task.ref)
      assert.equal("succeeded", t.mj:get(task.ref).state)
      assert.equal(2, #asked)
      compare(task.ref)
    end)

    it("a task that the provider does not know, is lost, and succeeds after all", function()
      local _, provider = open()
      answers.next_poll, answers.on_callback = 300, "accept"
      local other, task = submit { key = "another", timeout = 1200 }, submit()
      provider:forget(task.ref)
      wait(301, 6)
      assert.equal("lost", t.mj:get(task.ref).state)
      provider:finish(task.ref)
      assert.truthy(t.mj:get(task.ref).late)
      for i = #asked, 1, -1 do
        if asked[i].task.ref == other.ref then
          table.remove(asked, i)
        end
      end
      assert.truthy(#asked > 3)
      compare(task.ref)
    end)

    it("a cancelled task that is heard of", function()
      local mj, provider = open()
      answers.on_callback, answers.next_poll = "accept", 60
      local task = submit()
      wait(60)
      assert(mj:cancel(task.ref))
      wait(60)
      provider:finish(task.ref)
      assert.equal("cancelled", mj:get(task.ref).state)
      assert.truthy(#asked >= 2)
      -- The result is the task's by now, and nothing tells that it came after it was cancelled.
      for _, a in ipairs(asked) do
        if a.task.state == "cancelled" then
          local now = mj:get(task.ref)
          a.task.image, a.task.images, a.task.mj_prompt = now.image, now.images, now.mj_prompt
        end
      end
      compare(task.ref)
    end)

    it("a job that was sent, answered by a hint, and adopted", function()
      local mj, provider = open()
      answers.on_callback, answers.next_poll = "accept", 60
      local first = submit()
      local task_id = mj:get(first.ref).task_id
      provider:say(first.ref, { status = 1 })
      wait(11, 4)
      compare(first.ref)
      local before = #asked
      local adopted = assert(mj:adopt { task_id = task_id .. "x", prompt = "elsewhere" })
      wait(61, 2)
      compare(adopted.ref, before + 1)
    end)

    it("those of a timeline so long that entries were lost, but about these", function()
      local mj, provider = open()
      answers.next_poll = 60
      local task = submit { timeout = 1200 }
      for i = 1, 40 do
        provider.jobs[1].forgotten = i % 2 == 0
        wait(61)
      end
      local record = mj:get(task.ref)
      assert.truthy(record.timeline_dropped > 5)
      local by_time = {}
      for _, a in ipairs(asked) do
        by_time[a.at] = a
      end
      record.called_at = record.timeline[5].at - 1 -- as if a callback were among what was lost
      local list = decisions.about(record, { grace_ms = mj.config.ambiguous_grace * 1000 })
      for i, q in ipairs(list) do
        assert.equal(q.entry > 5 and record.called_at or nil, q.arguments().called_at, "called_at of " .. i)
      end
      assert.truthy(#list < #asked and #list > 10)
      for i, q in ipairs(list) do
        local was, now = by_time[q.at].task, q.arguments()
        if q.entry == 5 then
          was.updated_at = now.updated_at -- just behind the gap, nothing tells
        end
        for _, name in ipairs { "state", "polls", "attempt", "task_id", "updated_at", "submitted_at", "account" } do
          assert.equal(was[name], now[name], name .. " of decision point " .. i)
        end
      end
    end)
  end)

  -- ---- records written here ----

  local T0 = 1700000000000

  local function moment(seconds, signal, source, from, to, more)
    local m = { at = T0 + seconds * 1000, signal = signal, source = source, from = from, to = to, attempt = 1,
                note = "taken" }
    for k, v in pairs(more or {}) do
      m[k] = v
    end
    return m
  end

  local function record(state, moments, more)
    local task = {
      ref = "01JX0000000000000000000000", state = state, attempt = 1, account = "default", mode = "fast", timeout = 600,
      priority = 0, polls = 0, prompt = "a fox", created_at = T0, updated_at = moments[#moments].at, images = {},
      attempts = { { attempt = 1, word = "accepted", account = "default", task_id = "A", task_ids = { "A" } } },
      timeline = moments,
    }
    for k, v in pairs(more or {}) do
      task[k] = v
    end
    return task
  end

  local function sent(...)
    return { moment(0, "create", "user", "queued", "queued"), moment(1, "claim", "submit", "queued", "submitting"),
             moment(2, "accepted", "submit", "submitting", "pending"), ... }
  end

  local function shown(list)
    local words = {}
    for i, q in ipairs(list) do
      words[i] = ("%d %s %s = %s"):format((q.at - T0) / 1000, q.decision, q.about, q.default)
    end
    return words
  end

  it("are none about a task that nothing was decided about", function()
    assert.same({}, decisions.about(record("pending", sent())))
    assert.same({}, decisions.about(record("pending", sent(moment(60, "unanswered", "poll", "pending", "pending"),
      moment(70, "succeeded", "poll", "pending", "succeeded")))))
  end)

  it("are asked once for each of equal moments, spread from the first to the last", function()
    local task = record("pending", sent(moment(60, "running", "poll", "pending", "pending",
      { count = 4, ["until"] = T0 + 360000 })), { polls = 4 })
    local list = decisions.about(task)
    local at, polls, lengths = {}, {}, {}
    for i, q in ipairs(list) do
      local seen, now = q.arguments()
      at[i], polls[i] = (now - T0) / 1000, seen.polls
      lengths[i] = seen.timeline[4] and (seen.timeline[4].count or 1) or 0
      assert.equal(q.at, seen.due_at)
    end
    assert.same({ 60, 160, 260, 360 }, at)
    assert.same({ 0, 1, 2, 3 }, polls)
    assert.same({ 0, 1, 2, 3 }, lengths)
  end)

  it("are asked about at most so many of equal moments, the first and the last among them", function()
    local task = record("pending", sent(moment(0, "running", "poll", "pending", "pending",
      { count = 1e9, ["until"] = T0 + 1000000 })), { polls = 1e9 })
    local list = decisions.about(task)
    assert.equal(decisions.MOST, #list)
    assert.same({ T0, T0 + 1000000 }, { list[1].at, list[#list].at })
    assert.equal(1e9 - 1, list[#list].arguments().polls)
  end)

  it("hand out a copy each time", function()
    local task = record("succeeded", sent(moment(9, "succeeded", "callback", "pending", "succeeded")),
      { context = { tier = { "gold" } }, image = "https://x/0", images = { "https://x/1" } })
    local q = decisions.about(task)[1]
    local seen, word = q.arguments()
    seen.context.tier[1], seen.timeline[1].at, seen.attempts[1].task_ids, seen.state = "tin", 0, nil, nil
    word.kind, word.images[1] = nil, nil
    local again, word_again = q.arguments()
    assert.same({ "gold", T0, "A", "pending" },
      { again.context.tier[1], again.timeline[1].at, again.attempts[1].task_ids[1], again.state })
    assert.same({ "succeeded", "https://x/1" }, { word_again.kind, word_again.images[1] })
    assert.same({ "gold", "A" }, { task.context.tier[1], task.attempts[1].task_ids[1] })
  end)

  it("are asked of a callback that was verified only if the provider said something of that attempt later", function()
    local look = moment(9, "look", "callback", "pending", "pending")
    assert.same({}, decisions.about(record("pending", sent(look))))
    assert.same({}, decisions.about(record("pending", sent(look, moment(19, "absent", "poll", "pending", "pending",
      { source = "sweep" })))))
    assert.same({}, decisions.about(record("pending", sent(look, moment(19, "failed", "poll", "pending", "failed",
      { attempt = 2 })))))
    assert.same({ "9 on_callback callback: failed (was verified) = accept" }, shown(decisions.about(record("failed",
      sent(look, moment(19, "failed", "poll", "pending", "failed", { reason = "banned" }))))))
    assert.same({}, decisions.about(record("pending", sent(moment(9, "look", "sweep", "pending", "pending"),
      moment(19, "failed", "poll", "pending", "failed")))))
  end)

  it("know what is done with a callback without a policy", function()
    local task = record("failed", sent(moment(9, "failed", "callback", "pending", "failed", { reason = "x" })))
    assert.equal("accept", decisions.about(task)[1].default)
    assert.equal("accept", decisions.about(task, { trust = "payload" })[1].default)
    assert.equal("verify", decisions.about(task, { trust = "verify" })[1].default)
  end)

  local function refused(signal, reason, err)
    local to = signal == "rejected" and "failed" or "queued"
    local task = record(to, { moment(0, "create", "user", "queued", "queued"),
                              moment(1, "claim", "submit", "queued", "submitting"),
                              moment(2, signal, "submit", "submitting", to, { reason = reason }) }, { error = err })
    local q = decisions.about(task)[1]
    return select(2, q.arguments()), q.default
  end

  it("know a refusal's code by the task's error, or by its text", function()
    for text, code in pairs {
      ["quota not enough"] = "quota", ["Concurrency limit reached"] = "concurrency",
      ["Too many requests"] = "rate_limit", ["rate limit"] = "rate_limit",
      ["the provider refuses the API key"] = "auth", Unauthorized = "auth",
      ["base_url answers with a redirect"] = "redirect", ["come back tomorrow"] = "refused",
    } do
      local err, default = refused("refused", text)
      assert.same({ code, text, true, "retry" }, { err.code, err.message, err.retryable, default })
    end
    local err, default = refused("rejected", "no such model")
    assert.same({ "rejected", false, "fail" }, { err.code, err.retryable, default })
    assert.equal("no such model", tostring(err))
  end)

  it("know how a refusal would have been sorted when a policy had sorted it otherwise", function()
    local err, default = refused("rejected", "slow down", { code = "rate_limit", message = "slow down" })
    assert.same({ "rate_limit", true, "retry" }, { err.code, err.retryable, default })
    err, default = refused("refused", "no such model", { code = "rejected", message = "no such model" })
    assert.same({ "rejected", false, "fail" }, { err.code, err.retryable, default })
  end)

  it("are asked about an ambiguous task when it is due", function()
    local moments = { moment(0, "create", "user", "queued", "queued"),
                      moment(1, "claim", "submit", "queued", "submitting"),
                      moment(2, "maybe_sent", "submit", "submitting", "ambiguous", { reason = "no answer" }) }
    local task = record("ambiguous", moments, { due_at = T0 + 901000, polls = 0,
      attempts = { { attempt = 1, word = "ambiguous", account = "default" } } })
    local list = decisions.about(task)
    assert.same({ "901 resolve_ambiguous ambiguous: is so now = lost" }, shown(list))
    local seen, now = list[1].arguments()
    assert.same({ "ambiguous", T0 + 901000, T0 + 901000, "maybe_sent", "no answer" },
      { seen.state, seen.due_at, now, seen.error.code, seen.error.message })
    assert.equal(T0 + 901000, seen.attempts[1].slot_until)
    assert.equal(T0 + 1000 + 600000 + 60000,
      decisions.about(task, { grace_ms = 60000 })[1].arguments().attempts[1].slot_until)
  end)

  it("tell a second task id from the moment on that it was heard of", function()
    local task = record("succeeded", sent(moment(9, "running", "callback", "pending", "pending"),
      moment(10, "running", "callback", "pending", "pending", { note = "conflict" }),
      moment(11, "succeeded", "callback", "pending", "succeeded")))
    task.attempts[1].task_ids = { "A", "B" }
    local ids, said = {}, {}
    for i, q in ipairs(decisions.about(task)) do
      local seen, word = q.arguments()
      ids[i], said[i] = table.concat(seen.attempts[1].task_ids, " "), word.task_id
      assert.equal("A", seen.task_id)
    end
    assert.same({ "A", "A", "A B" }, ids)
    assert.same({ "A", "B", "A" }, said)
  end)

  it("show the files that a handler stored once it had stored them", function()
    local again = { note = "duplicate" }
    local task = record("succeeded", sent(moment(9, "succeeded", "callback", "pending", "succeeded"),
      moment(10, "succeeded", "callback", "succeeded", "succeeded", again),
      moment(11, "kept", "policy", "succeeded", "succeeded"),
      moment(12, "succeeded", "callback", "succeeded", "succeeded", again)), { files = { "a.png" } })
    local list = decisions.about(task)
    assert.is_nil(list[2].arguments().files)
    assert.same({ "a.png" }, list[3].arguments().files)
    assert.same({ T0 + 9000, "callback" }, { list[3].arguments().finished_at, list[3].arguments().source })
  end)

  it("know the attempt that waits to be sent, and why it was not", function()
    local task = record("pending", { moment(0, "create", "user", "queued", "queued"),
      moment(1, "claim", "submit", "queued", "submitting"),
      moment(2, "rejected", "submit", "submitting", "failed", { reason = "no" }),
      moment(3, "resubmit", "user", "failed", "queued"),
      moment(4, "look", "callback", "queued", "queued", { note = "old_attempt" }),
      moment(5, "claim", "submit", "queued", "submitting", { attempt = 2 }),
      moment(6, "refused", "submit", "submitting", "queued", { attempt = 2, reason = "quota not enough" }),
      moment(7, "running", "callback", "queued", "pending", { attempt = 2 }),
      moment(8, "running", "poll", "pending", "pending") })
    task.attempts[2] = { attempt = 2, task_ids = { "B" } }
    local shows = {}
    for i, q in ipairs(decisions.about(task)) do
      local seen = q.arguments()
      shows[i] = ("%s %d %s %s"):format(q.decision, seen.attempt, seen.state,
        seen.error and ("%s %s"):format(seen.error.code, seen.error.retryable) or "-")
    end
    assert.same({ "on_refused 1 submitting -", "on_callback 2 queued -", "on_refused 2 submitting -",
                  "on_callback 2 queued quota true", "next_poll 2 pending -" }, shows)
  end)

  it("are asked about a refusal that came late with the task as it was when it was sent", function()
    local seen = decisions.about(record("pending", { moment(0, "create", "user", "queued", "queued"),
      moment(1, "claim", "submit", "queued", "submitting"),
      moment(2, "running", "callback", "submitting", "pending"),
      moment(3, "refused", "submit", "pending", "pending", { note = "stale", reason = "quota not enough" }) }))[2]
      .arguments()
    assert.same({ "submitting", "submitting", 2 }, { seen.state, seen.attempts[1].word, #seen.timeline })
    assert.is_nil(seen.task_id)
  end)

  it("are not asked where a person decided", function()
    assert.same({}, decisions.about(record("queued", { moment(0, "create", "user", "queued", "queued"),
      moment(2, "maybe_sent", "submit", "submitting", "ambiguous"),
      moment(3, "resubmit", "user", "ambiguous", "queued") })))
  end)
end)
