-- mjhook.testing, used as a user's suite would: orders become images, and a policy tells the customer.
local core = require "mjhook.core"
local testing = require "mjhook.testing"

describe("mjhook.testing", function()
  local t, told

  local function new(options)
    options = options or {}
    options.policy = options.policy or {
      on_succeeded = function(task) told[#told + 1] = "ready " .. task.prompt end,
      on_failed = function(task) told[#told + 1] = "failed " .. task.prompt .. ": " .. task.error.message end,
      on_ambiguous = function(task) told[#told + 1] = "unsure " .. task.prompt end,
      on_lost = function(task) told[#told + 1] = "lost " .. task.prompt end,
    }
    t = testing.new(options)
    return t
  end

  before_each(function()
    told = {}
  end)

  after_each(function()
    t:close()
  end)

  it("runs an order from submission by callback to the handler", function()
    new()
    local task = assert(t.mj:submit { prompt = "a fox", mode = "relaxed", timeout = 900, key = "order-7" })
    assert.equal("pending", task.state)
    local sent = t:assert_submitted { prompt = "a fox", mode = "relaxed", timeout = 900, times = 1 }
    assert.is_true(sent[1].accepted)
    assert.same({ 200, '{"status":"stored"}\n' }, { t.provider:finish(task.ref).status,
      t.provider:call_back(task.ref).status == 200 and '{"status":"stored"}\n' })
    t:drain()
    assert.same({ "ready a fox" }, told)
    local event = t:delivered("succeeded")[1]
    assert.same({ task.ref, task.ref .. "-1" }, { event.ref, event.event_id })
    assert.equal("callback", t.mj:get(task.ref).source)
  end)

  it("learns by polling when the callback is lost, once it is late", function()
    new()
    local task = t.mj:submit { prompt = "a fox" }
    t.provider:finish(task, { callback = false, images = { "https://images.example/a.png" } })
    t:drain()
    assert.same({}, told)
    assert.equal(0, t.provider.polls)
    t:advance(60)
    t:drain()
    assert.same({ "ready a fox" }, told)
    task = t.mj:get(task.ref)
    assert.same({ "poll", { "https://images.example/a.png" } }, { task.source, task.images })
  end)

  it("scripts refusals: a job that waits for a place, and one that is rejected", function()
    new()
    t.provider:refuse(1002, "concurrency limit"):refuse(7, "banned words")
    local waits = t.mj:submit { prompt = "a fox" }
    assert.equal("queued", waits.state)
    assert.same({ "concurrency" }, { waits.error.code })
    t:advance(3600)
    t:drain()
    assert.same({ "failed a fox: banned words" }, told)
    t:assert_submitted { prompt = "a fox", times = 2 }
    assert.equal(0, #t:submissions { accepted = true })
  end)

  it("scripts HTTP answers and an unreachable provider", function()
    new()
    t.provider:answer(503, "out of order")
    assert.equal("ambiguous", t.mj:submit({ prompt = "a" }).state)
    t.provider:answer(429, "", 30)
    assert.equal("queued", t.mj:submit({ prompt = "b" }).state)
    t.provider:down()
    t:advance(40)
    t:drain()
    assert.equal(1, t.mj:stats().tasks.queued)
    t.provider:down(false)
    t:advance(3600)
    t:drain()
    assert.equal(1, #t:submissions { prompt = "b", accepted = true })
  end)

  it("scripts answers to questions about jobs, also strange ones", function()
    new()
    local task, other = t.mj:submit { prompt = "a fox" }, t.mj:submit { prompt = "a wolf" }
    local asked
    t.provider:answer_status(404, "<html>"):answer_status(200, function(ids)
      asked = ids
      return '{"status":0,"data":{"list":[]}}'
    end)
    t.provider:answer_status(429, "", 120)
    t:advance(1000)
    local report = assert(t.mj:reconcile {})
    assert.same({ task.task_id }, asked) -- the first half, of two
    assert.same({ 0, 2, 3 }, { report.lost, report.pending, report.requests })
    t.provider:say(task.ref, { status = "SUCCESS", image = "https://images.example/a.png" })
    t.provider:say(other.ref, { status = "IN_PROGRESS" })
    t:drain()
    assert.same({ "ready a fox" }, told)
  end)

  it("lets an account rest as long as the answer asks for, and no less than the refusal is worth", function()
    local cases = { { 429, 5, 5 }, { 403, 300, 300 }, { 404, 5, 60 }, { 402, 99999, 3600 }, { 401, nil, 60 } }
    for _, case in ipairs(cases) do
      new()
      t.provider:answer(case[1], "<html>", case[2])
      t.mj:submit { prompt = "a fox" }
      assert.equal(case[3] * 1000, t.mj:stats().accounts[1].paused_until - t:now())
      t:close()
    end
  end)

  it("leaves a submission without an answer ambiguous, and a late callback settles it", function()
    new()
    t.provider:timeout(true)
    local task = t.mj:submit { prompt = "a fox" }
    assert.equal("ambiguous", task.state)
    t:drain()
    assert.same({ "unsure a fox" }, told)
    t.provider:finish(task.ref)
    t:drain()
    assert.same({ "unsure a fox", "ready a fox" }, told)
    t:assert_submitted { prompt = "a fox", times = 1 }
  end)

  it("lets days pass: nothing was heard, and the job is lost", function()
    new()
    t.provider:timeout(false)
    t.mj:submit { prompt = "a fox" }
    t:advance(2 * 86400)
    t:drain()
    assert.same({ "unsure a fox", "lost a fox" }, told)
  end)

  it("forgets a job, which is lost by three answers that do not have it", function()
    new()
    local task, other = t.mj:submit { prompt = "a fox" }, t.mj:submit { prompt = "a wolf" }
    t.provider:forget(task.ref)
    for _ = 1, 8 do
      t:advance(900)
      t:drain()
    end
    assert.same({ "lost", "pending" }, { t.mj:get(task.ref).state, t.mj:get(other.ref).state })
  end)

  it("tells a failure with its reason, and takes strange words", function()
    new()
    local one, two = t.mj:submit { prompt = "a" }, t.mj:submit { prompt = "b" }
    t.provider:fail(one.ref, "no foxes")
    t.provider:say(two.ref, { status = 99 })
    t:drain()
    assert.same({ "failed a: no foxes" }, told)
    assert.equal("pending", t.mj:get(two.ref).state)
  end)

  it("speaks of the newest submission of a job", function()
    new()
    local task = t.mj:submit { prompt = "a fox" }
    t.provider:fail(task.ref, "no foxes")
    t:drain()
    assert(t.mj:resubmit(task.ref))
    t:drain()
    t:assert_submitted { prompt = "a fox", times = 2 }
    t.provider:finish(task.ref)
    t:drain()
    assert.same({ "failed a fox: no foxes", "ready a fox" }, told)
    assert.equal("test-000002", t.mj:get(task.ref).task_id)
    assert.same({ 1, 1, 0, 2 },
      { #t:delivered "failed", #t:delivered "succeeded", #t:delivered "lost", #t:delivered() })
  end)

  it("tries a handler again as the real delivery does", function()
    local calls = 0
    new { policy = { on_event = function()
      calls = calls + 1
      return calls > 1, "no room"
    end } }
    t.provider:finish(t.mj:submit({ prompt = "a fox" }).ref)
    t:drain()
    assert.same({ 1, 0 }, { calls, #t:delivered() })
    assert.truthy(t.log[1].message:find("no room", 1, true))
    t:advance(60)
    t:drain()
    assert.same({ 2, 1 }, { calls, #t:delivered() })
  end)

  it("takes a policy from a file, and lists of handlers", function()
    local path = os.tmpname()
    local file = io.open(path, "w")
    file:write [[ return { on_event = { function() SEEN = (SEEN or 0) + 1 end, function() SEEN = SEEN + 10 end } } ]]
    file:close()
    new { policy = path }
    t.provider:finish(t.mj:submit({ prompt = "a fox" }).ref)
    t:drain()
    assert.equal(11, rawget(_G, "SEEN"))
    assert.equal(1, #t:delivered())
    rawset(_G, "SEEN", nil)
    os.remove(path)
  end)

  it("goes by its own clock, which stands still, and gives the system's back", function()
    local before = core.now()
    new()
    local at = t:now()
    assert.equal(at, t.mj:submit({ prompt = "a" }).created_at)
    t:advance(1000)
    assert.equal(at + 1000000, t.mj:submit({ prompt = "b" }).created_at)
    t:close()
    assert.is_true(core.now() - before < 60000)
  end)

  it("leaves no file behind, whatever handlers left in the store's directory", function()
    new { policy = { on_event = function(_, ctx)
      assert(io.open(ctx.store .. "/webhook-0123456789abcdef.disabled", "w")):close()
    end } }
    t.provider:finish(t.mj:submit({ prompt = "a fox" }).ref)
    t:drain()
    local dir = t.dir
    assert.truthy(core.stat(dir .. "/webhook-0123456789abcdef.disabled"))
    t:close()
    assert.is_nil((core.stat(dir)))
  end)

  it("leaves no file behind, and closes twice", function()
    new()
    t.mj:submit { prompt = "a" }
    t:drain()
    local dir = t.dir
    assert.truthy(core.stat(dir .. "/data.mdb"))
    t:close()
    t:close()
    assert.is_nil((core.stat(dir)))
  end)

  describe("says what was seen instead", function()
    local function message(f)
      local ok, err = pcall(f)
      assert.is_false(ok)
      assert.truthy(tostring(err):find("testing_spec.lua:%d+: "), err)
      return err
    end

    it("when a job was not submitted, or too often", function()
      new()
      assert.truthy(message(function() t:assert_submitted { prompt = "a" } end):find("nothing was submitted", 1, true))
      t.mj:submit { prompt = "a fox" }
      t.mj:submit { prompt = "a fox", mode = "relaxed" }
      local text = message(function() t:assert_submitted { prompt = "a wolf" } end)
      assert.truthy(text:find('{ prompt = "a wolf" } was submitted 0 times; submitted were', 1, true))
      assert.truthy(text:find('mode = "relaxed", prompt = "a fox", timeout = 600', 1, true))
      message(function() t:assert_submitted { prompt = "a fox", times = 1 } end)
      message(function() t:assert_not_submitted { mode = "relaxed" } end)
      message(function() t:assert_not_submitted() end)
      t:assert_not_submitted { prompt = "a wolf" }
      t:assert_submitted { prompt = "a wolf", times = 0 }
    end)

    it("when there is no such job, or nowhere to call back", function()
      new { hook_url = false }
      local text = message(function() t.provider:finish "nobody" end)
      assert.truthy(text:find("no job nobody; it has accepted 0", 1, true))
      local task = t.mj:submit { prompt = "a fox" }
      assert.truthy(message(function() t.provider:finish(task.ref) end):find("without a hookUrl", 1, true))
      t.provider:finish(task.ref, { callback = false })
      t:advance(60)
      t:drain()
      assert.equal("succeeded", t.mj:get(task.ref).state)
    end)

    it("when a wrong setting or policy is given", function()
      new()
      local ok, err = pcall(testing.new, { nonsense = 1 })
      assert.is_false(ok)
      assert.truthy(tostring(err):find("nonsense", 1, true))
    end)
  end)
end)
