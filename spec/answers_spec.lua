-- The provider's answers, however dressed: none loses a job, stops a neighbour or is taken for a decision.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("an answer", function()
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

  local function state(task)
    return mj:get(task.ref).state
  end

  -- A pass, and what it told of troubles.
  local function pass(options)
    local told = {}
    options = options or {}
    options.on_trouble = function(text) told[#told + 1] = text end
    return assert(mj:reconcile(options)), told
  end

  -- n tasks that ended, of which those in `sick` have this damage.
  local function ended(n, sick)
    sim.config { limit = 0 }
    open { max_in_flight = 256 }
    local tasks, jobs = {}, {}
    for i = 1, n do
      jobs[i] = { prompt = ("job %d %s"):format(i, sick[i] and "[status:" .. sick[i] .. "]" or "") }
    end
    for i, task in ipairs(assert(mj:submit_many(jobs))) do
      tasks[i] = task
      sim.finish(task.task_id)
    end
    kit.travel(100)
    return tasks
  end

  describe("about many tasks", function()
    for _, fault in ipairs { "nan", "bad_escape", "deep", "giant", "http_404", "html_404", "http_400", "error",
                             "http_500", "cut_body", "garbage", "empty_body", "gzip_cut" } do
      it("is asked for again in halves, until the task that spoils it is alone: " .. fault, function()
        local tasks = ended(5, { [4] = fault })
        local report, told = pass()
        assert.same({ 4, 1, 1 }, { report.succeeded, report.pending, report.errors })
        assert.equal("pending", state(tasks[4]))
        assert.equal(1, #told)
        assert.matches("^task " .. tasks[4].ref .. ", asked about alone: ", told[1])
        assert.is_true(report.requests <= 1 + 2 * 3, report.requests)
        -- The next time it costs one request, and others come to no harm.
        kit.travel(1000)
        local before = sim.requests "status"
        local other = submit "one more"
        sim.finish(other.task_id)
        kit.travel(100)
        report = pass()
        assert.equal("succeeded", state(other))
        assert.equal(before + 2, sim.requests "status")
        assert.equal(1, report.errors)
        -- And when it is well again, it is heard.
        sim.forget(tasks[4].task_id)
        kit.travel(1000)
        assert.equal(0, (pass()).errors)
      end)
    end

    it("costs a dozen requests more for one sick task of fifty", function()
      ended(50, { [37] = "nan" })
      local report = pass()
      assert.same({ 49, 1 }, { report.succeeded, report.errors })
      assert.equal(13, report.requests)
    end)

    it("spares the healthy ones however many are sick, within a few passes and bounded requests", function()
      local sick, n = {}, 0
      for i = 1, 50, 3 do
        sick[i], n = i % 2 == 0 and "nan" or "http_404", n + 1
      end
      ended(50, sick)
      local succeeded = 0
      for _ = 1, 20 do
        local report = pass()
        assert.is_true(report.requests <= 100 + n, report.requests)
        succeeded = succeeded + report.succeeded
        kit.travel(1000)
      end
      assert.equal(50 - n, succeeded)
    end)

    it("is not asked for hundreds of times when all of them are of no use, and no task is called sick", function()
      sim.config { limit = 0 }
      open { max_in_flight = 256 }
      local jobs = {}
      for i = 1, 200 do
        jobs[i] = { prompt = "job " .. i }
      end
      assert(mj:submit_many(jobs))
      sim.config { status = { html_404 = 1 } }
      for _ = 1, 3 do
        kit.travel(1000)
        local report, told = pass()
        assert.same({ 200, 0 }, { report.pending, report.lost })
        assert.is_true(report.requests <= 4 + 12, report.requests)
        assert.same({ "HTTP 404: is base_url right?" }, told)
      end
      sim.config { status = { html_404 = 0 } }
      kit.travel(1000)
      assert.equal(4, (pass()).requests)
    end)

    for _, fault in ipairs { "http_502", "http_503", "html_503", "unauthorized", "rate_limit", "cf_403", "quota" } do
      it("is not asked for again when no task can be the cause: " .. fault, function()
        sim.config { status = { [fault] = 1 } }
        ended(4, {})
        local report = pass()
        assert.same({ 1, 4 }, { report.requests, report.pending })
      end)
    end

    it("is heard in halves by a provider that takes fewer ids, which is said", function()
      sim.config { max_batch = 3 }
      ended(6, {})
      local report = pass()
      assert.same({ 6, 0 }, { report.succeeded, report.errors })
      assert.matches("too many taskIds.*is batch = 50 too large", kit.log_text())
    end)

    it("counts no absence in a half of what is asked about one attempt", function()
      open { lost_after = 100 * 86400 }
      local task, other = submit "[status:nan]", submit "2"
      -- A second id for the same attempt, of which the provider knows nothing.
      assert(mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "running", source = "callback",
                                task_id = "unknown-to-the-provider" } })
      for _ = 1, 6 do
        kit.travel(20000)
        pass()
      end
      assert.same({ "pending", "pending" }, { state(task), state(other) })
    end)
  end)

  describe("that is not understood", function()
    for fault, where in pairs { list_wrapper = "answer", wrong_types = "answer", null_data = "nothing" } do
      it("proves no absence, unless it says that there is nothing: " .. fault, function()
        open { lost_after = 100 * 86400 }
        for i = 1, 3 do
          submit(tostring(i))
        end
        sim.config { status = { [fault] = 1 } }
        for _ = 1, 8 do
          kit.travel(20000)
          local report, told = pass()
          assert.same({ 0, 3 }, { report.lost, report.pending })
          assert.equal(where == "answer" and 1 or 0, #told)
        end
        sim.config { status = { [fault] = 0 } }
      end)
    end

    for _, damage in ipairs { "no_status", "odd_types", "contradictory" } do
      it("leaves the task unanswered and its neighbours alone, and is said once: " .. damage, function()
        open { lost_after = 60 }
        local odd, other, fine = submit("[status:" .. damage .. "]"), submit("[status:" .. damage .. "]"), submit "3"
        sim.finish(odd.task_id)
        sim.finish(other.task_id)
        for i = 1, 5 do
          kit.travel(20000)
          local _, told = pass()
          assert.equal(1, #told)
          assert.matches("^task %w+ and 1 more: the answer has no usable status", told[1])
          if i == 1 then
            sim.finish(fine.task_id)
          end
        end
        assert.same({ "pending", "pending" }, { state(odd), state(other) })
        assert.equal("unanswered", mj:get(odd.ref).timeline[#mj:get(odd.ref).timeline].signal)
        assert.is_true(state(fine) == "succeeded" or state(fine) == "lost")
      end)
    end

    it("is asked for seldom when it is so again and again", function()
      open { poll = { first = 60, max = 900 } }
      local task = submit "[status:no_status]"
      local polls = {}
      for minute = 1, 60 do
        kit.travel(60)
        local before = sim.requests "status"
        pass()
        polls[#polls + 1] = sim.requests "status" > before and minute or nil
      end
      assert.is_true(#polls >= 3 and #polls <= 6, #polls)
      assert.equal("pending", state(task))
    end)

    it("is believed when it says the same twice", function()
      open()
      local task = submit "[status:twice]"
      sim.finish(task.task_id)
      kit.travel(100)
      assert.equal(1, (pass()).succeeded)
    end)
  end)

  for _, damage in ipairs { "word_status", "job_id", "created", "accepted", "bom", "gzip", "gzip_unsaid",
                            "word_envelope" } do
    it("to a status request is read: " .. damage, function()
      local per_task = damage == "word_status" or damage == "job_id"
      open()
      local task, other = submit(per_task and "[status:" .. damage .. "]" or "1"), submit "2"
      sim.config { status = per_task and {} or { [damage] = 1 } }
      sim.finish(task.task_id)
      kit.travel(100)
      local report = pass()
      assert.same({ 1, 1, 0, 1 }, { report.succeeded, report.pending, report.errors, report.requests })
      assert.same({ "succeeded", "pending" }, { state(task), state(other) })
    end)
  end

  for _, damage in ipairs { "message_reason", "error_reason", "word_status" } do
    it("has the reason of a failure: " .. damage, function()
      open()
      local task = submit("[status:" .. damage .. "]")
      sim.finish(task.task_id, 2, "banned words")
      kit.travel(100)
      pass()
      assert.same({ "failed", "banned words" }, { state(task), mj:get(task.ref).error.message })
    end)
  end

  it("with an unknown word means that the task runs", function()
    open { lost_after = 100 * 86400 }
    local task = submit "[status:unknown_word]"
    sim.finish(task.task_id)
    for _ = 1, 5 do
      kit.travel(20000)
      assert.equal(0, (pass()).errors)
    end
    assert.equal("pending", state(task))
  end)

  for _, damage in ipairs { "created", "accepted", "bom", "gzip", "gzip_unsaid", "word_envelope" } do
    it("to a submission is read: " .. damage, function()
      open()
      sim.script { submit = { damage } }
      local task = submit()
      assert.equal("pending", task.state)
      assert.equal(sim.jobs()[1].taskId, task.task_id)
    end)
  end

  it("with integers for task ids is read digit by digit", function()
    sim.config { integer_ids = true }
    open()
    local task, other = submit "1", submit "2"
    assert.matches("^%d+$", task.task_id)
    assert.equal(17, #task.task_id)
    assert.not_equal(task.task_id, other.task_id)
    sim.finish(task.task_id)
    kit.travel(100)
    pass()
    assert.same({ "succeeded", "pending" }, { state(task), state(other) })
    sim.finish(other.task_id)
    assert.equal(200, sim.hand(mj, 2).status)
    assert.equal("succeeded", state(other))
  end)

  describe("that refuses a submission for the account's sake", function()
    local codes = {
      html_400 = "endpoint", html_404 = "endpoint", html_405 = "endpoint", html_413 = "endpoint", html_415 = "endpoint",
      html_422 = "endpoint", http_404 = "endpoint", http_405 = "endpoint", http_406 = "endpoint", http_415 = "endpoint",
      error_404 = "endpoint", error_401 = "auth", http_402 = "quota", html_402 = "quota", html_401 = "blocked",
      html_403 = "blocked", cf_401 = "blocked", cf_403 = "blocked", cf_503 = "blocked", html_429 = "rate_limit",
      cf_429 = "rate_limit",
    }
    for fault, code in pairs(codes) do
      it("is charged to no job, and the account rests: " .. fault, function()
        open()
        sim.config { submit = { [fault] = 1 } }
        local jobs = {}
        for i = 1, 20 do
          jobs[i] = { prompt = tostring(i) }
        end
        for _, task in ipairs(assert(mj:submit_many(jobs))) do
          assert.equal("queued", task.state)
        end
        assert.equal(code, mj:stats().accounts[1].reason)
        for _ = 1, 4 do
          kit.travel(3700)
          local report = pass()
          assert.same({ 0, 20, 1 }, { report.failed, report.queued, report.requests })
        end
        sim.config { submit = { [fault] = 0 }, limit = 0 }
        local submitted = 0
        for _ = 1, 3 do
          kit.travel(3700)
          submitted = submitted + (pass()).submitted
        end
        assert.equal(20, submitted + 0)
      end)
    end

    it("says which status, asks whether base_url is right, and repeats it in each pass", function()
      open()
      sim.config { submit = { html_404 = 1 } }
      local task = submit()
      assert.same({ "endpoint", "HTTP 404: is base_url right?" }, { task.error.code, task.error.message })
      local _, told = pass() -- it rests
      assert.matches("^account default: nothing is sent under it, and what is queued waits: .*base_url", told[1])
      kit.travel(100)
      _, told = pass()
      assert.same({
        "account default: nothing is sent under it, and what is queued waits: HTTP 404: is base_url right?",
      }, told)
    end)

    for _, fault in ipairs { "quota", "html_402" } do
      it("says in each pass that the quota is used up, while jobs wait for it: " .. fault, function()
        open()
        sim.config { submit = { [fault] = 1 } }
        submit()
        for _ = 1, 2 do -- it rests, and then a job finds out
          local report, told = pass()
          assert.same({ 1, 1 }, { report.errors, #told })
          assert.matches("^account default: nothing is sent under it, and what is queued waits: .*quota", told[1])
          kit.travel(901)
        end
      end)
    end

    it("tells the provider's own words beside ours", function()
      open()
      sim.script { submit = { "http_404" } }
      assert.equal("HTTP 404: is base_url right? (not found)", submit().error.message)
    end)

    for _, fault in ipairs { "html_413", "html_403", "cf_403", "forbidden" } do
      it("lets another job find out when it may be the one job's fault after all: " .. fault, function()
        open()
        local sick = submit("[submit:" .. fault .. "]")
        local others = { submit "2", submit "3" }
        for _ = 1, 6 do
          kit.travel(61)
          pass()
        end
        assert.equal("queued", state(sick))
        assert.same({ "pending", "pending" }, { state(others[1]), state(others[2]) })
      end)
    end
  end)

  for _, fault in ipairs { "http_400", "http_409", "http_413", "http_422", "error", "error_number" } do
    it("in the provider's envelope that finds fault with a job fails that one alone: " .. fault, function()
      open()
      local sick, fine = submit("[submit:" .. fault .. "]"), submit "2"
      assert.same({ "failed", "rejected" }, { sick.state, sick.error.code })
      assert.is_true(#sick.error.message > 0 and not sick.error.message:find "rejects the request")
      assert.equal("pending", fine.state)
      assert.is_nil(mj:stats().accounts[1].paused_until)
    end)
  end

  it("whose HTTP status refuses what its body accepts decides nothing, and nothing is billed twice", function()
    open()
    sim.config { submit = { accepted_404 = 1 }, limit = 0 }
    local task = submit()
    assert.equal("ambiguous", task.state)
    assert.equal("HTTP 404: the HTTP status refuses the job, and the body names a task for it (success)",
      task.error.message)
    for _ = 1, 3 do
      kit.travel(100)
      pass()
    end
    assert.equal(1, sim.requests "submit")
    assert.same({}, sim.ledger().billed_twice)
  end)

  it("with images as an object of URLs is read like a list of them", function()
    open()
    local plain, odd = submit "1", submit "[status:image_map]"
    sim.finish(plain.task_id)
    sim.finish(odd.task_id)
    kit.travel(100)
    assert.equal(2, (pass()).succeeded)
    local good, images = mj:get(plain.ref).images, mj:get(odd.ref).images
    assert.is_true(#good > 1)
    assert.equal(#good, #images)
    for _, url in ipairs(images) do
      assert.matches("^https?://%S+$", url)
    end
  end)

  it("of 5xx, or of nothing, decides nothing", function()
    open()
    for _, fault in ipairs { "http_500", "html_503", "garbage", "empty_body", "null_data", "gzip_cut" } do
      assert.equal("ambiguous", submit("[submit:" .. fault .. "]").state, fault)
    end
  end)

  local undecided = {
    null_data = "HTTP 200: the answer has no usable taskId (success)",
    html_503 = "HTTP 503: trouble on the provider's side",
  }
  for fault, why in pairs(undecided) do
    it("that decides nothing is told with the job, the HTTP status and the provider's words: " .. fault, function()
      open()
      sim.script { submit = { "concurrency", fault } }
      local task = submit()
      kit.travel(20)
      local report, told = pass()
      assert.same({ 1, { ("task %s: %s"):format(task.ref, why) } }, { report.errors, told })
      assert.equal("ambiguous", state(task))
    end)
  end

  describe("to one job-status request of HTTP 429", function()
    it("is no error, and is waited for to the next whole second", function()
      open()
      local task = submit()
      sim.script { status = { { fault = "rate_limit", retry_after = 299.997 } } }
      kit.travel(100)
      local report, told = pass()
      assert.same({ 0, 0 }, { report.errors, #told })
      assert.matches("warn: HTTP 429", kit.log_text())
      local wait = (mj:get(task.ref).due_at - core.now()) / 1000
      assert.is_true(wait > 298 and wait <= 300, wait)
    end)
  end)

  it("of 403 with markup is not about the key", function()
    open()
    submit()
    sim.script { status = { "cf_403" } }
    kit.travel(100)
    local _, told = pass()
    assert.same({ "HTTP 403: something in front of the provider refuses us" }, told)
  end)

  it("of 4xx shows what the provider says", function()
    open()
    local task = submit()
    sim.script { status = { "http_400" } }
    local _, err = mj:refresh(task.ref)
    assert.equal("HTTP 400: bad prompt", err.message)
  end)

  describe("as a callback", function()
    for _, progress in ipairs { false, true } do
      it("of a reseller is read" .. (progress and ", also while the job runs" or ""), function()
        sim.config { callback_format = "reseller", callback_progress = progress }
        open()
        local good, bad = submit "1", submit "2"
        if progress then
          local before = mj:get(good.ref)
          for i = 1, 3 do
            assert.equal(200, sim.hand(mj, i).status)
          end
          assert.same(before, mj:get(good.ref))
          sim.reset()
        else
          sim.finish(good.task_id)
          assert.equal(200, sim.hand(mj, 1).status)
          sim.finish(bad.task_id, 2, "banned words")
          assert.equal(200, sim.hand(mj, 2).status)
          local task = mj:get(good.ref)
          assert.same({ "succeeded", 4 }, { task.state, #task.images })
          assert.matches("grid.png$", task.image)
          assert.same({ "failed", "banned words" }, { state(bad), mj:get(bad.ref).error.message })
        end
      end)
    end

    for _, fault in ipairs { "bom", "gzip", "gzip_unsaid", "word_status", "job_id", "escaped_hook", "second_query" } do
      it("is read: " .. fault, function()
        sim.script { callback = { fault } }
        open()
        local task = submit()
        sim.finish(task.task_id)
        assert.equal(200, sim.hand(mj, 1).status)
        assert.equal("succeeded", state(task))
      end)
    end
  end)
end)
