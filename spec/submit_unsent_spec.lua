-- mj:submit when nobody can be reached: nothing was sent, so nothing is in doubt, and it is tried again.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("submit to a provider that is not there", function()
  local dir

  setup(function()
    dir = kit.sh "mktemp -d"
    local out, code = kit.sh(("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 "
      .. "-subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1 -keyout %s/key -out %s/cert"):format(dir, dir))
    assert(code == 0, out)
    sim.start(("--tls-cert %s/cert --tls-key %s/key"):format(dir, dir))
  end)
  teardown(function()
    sim.stop()
    kit.sh("rm -rf " .. dir)
  end)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function due_in(task)
    return (task.due_at - core.now()) / 1000
  end

  local nobody = {
    { "where no program listens", function() return "http://127.0.0.1:1" end, "127%.0%.0%.1 port 1 " },
    { "under a name that nobody has", function() return "https://nobody.invalid" end, "nobody%.invalid" },
    { "where no TLS is spoken", function() return (sim.url:gsub("http:", "https:")) end, "127%.0%.0%.1:%d+: " },
    { "whose certificate nobody vouches for", function() return sim.tls_url end, "certificate" },
  }
  for _, case in ipairs(nobody) do
    it("keeps the job queued, says why, and sends it once the provider is there: " .. case[1], function()
      local mj = kit.open({ base_url = case[2]() }, sim)
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("queued", task.state)
      assert.equal("not_sent", task.error.code)
      assert.is_true(task.error.retryable)
      assert.matches(case[3], task.error.message)
      assert.equal("create claim not_sent", kit.story(task))
      assert.equal(0, mj:stats().accounts[1].held)
      assert.equal("not_sent", mj:stats().accounts[1].reason)
      assert.equal(0, sim.requests "submit")
      mj = kit.open({}, sim)
      kit.travel(10)
      assert.equal(1, assert(mj:reconcile {}).submitted)
      task = mj:get(task.ref)
      assert.same({ "pending", 1 }, { task.state, task.attempt })
      assert.equal(1, sim.requests "submit")
    end)
  end

  it("waits n^4 seconds before the n-th time again, at most 15 minutes, give or take a tenth", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1" }, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    for _, seconds in ipairs { 1, 16, 81, 256, 625, 900, 900 } do
      local wait = due_in(task)
      assert.is_true(wait > seconds * 0.9 - 0.1 and wait <= seconds * 1.1, seconds .. ": " .. wait)
      kit.travel(math.max(wait, 5) + 1) -- the account rests for 5 s
      local report = assert(mj:reconcile {})
      assert.same({ 1, 1, 1 }, { report.requests, report.queued, report.errors })
      task = mj:get(task.ref)
      assert.equal("queued", task.state)
    end
    assert.equal(1, task.attempt)
  end)

  -- What is the account's trouble is waited for by the account's rest, and is no failure of the job.
  for _, fault in ipairs { "concurrency", "quota", "rate_limit", "unauthorized", "redirect" } do
    it("waits no longer than after the first failure when the account was refused before: " .. fault, function()
      sim.script { submit = { fault, fault, fault, fault, fault } }
      local there, away = kit.open(nil, sim), kit.open({ base_url = "http://127.0.0.1:1" }, sim)
      local task = assert(there:submit { prompt = "a fox" })
      for _ = 1, 4 do
        kit.travel(3600)
        there:reconcile {}
      end
      assert.equal(5, sim.requests "submit")
      kit.travel(3600)
      away:reconcile {}
      task = there:get(task.ref)
      assert.same({ "queued", "not_sent", 1 }, { task.state, task.error.code, task.attempt })
      local wait = due_in(task)
      assert.is_true(wait > 0.5 and wait <= 1.1, wait)
    end)
  end

  it("does not make those wait longer that are held back behind one that finds out", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1" }, sim)
    for i = 1, 6 do
      assert(mj:submit { prompt = tostring(i) })
    end
    for _ = 1, 4 do
      kit.travel(3600)
      mj:reconcile {} -- one is sent, the others wait for what becomes of it
    end
    local tries = 0
    for task in mj:tasks { state = "queued" } do
      tries = tries + (task.tries or 0)
    end
    assert.is_true(tries <= 5, tries) -- one for each that was sent in vain
  end)

  it("says so once in a pass, and keeps every job", function()
    local mj = kit.open({ base_url = "http://127.0.0.1:1", max_in_flight = 20 }, sim)
    for i = 1, 5 do
      assert(mj:submit { prompt = tostring(i) })
    end
    kit.travel(100)
    local report = assert(mj:reconcile {})
    assert.same({ 5, 0 }, { report.queued, report.submitted })
    assert.equal(1, #kit.logged)
    assert.matches("127%.0%.0%.1 port 1 ", kit.logged[1].message)
  end)
end)
