-- mj:submit_many: checked, stored in one transaction, sent side by side within the slots; results in order.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

describe("submit_many", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function open(more)
    return kit.open(more, sim)
  end

  local function jobs(n, more)
    local list = {}
    for i = 1, n do
      list[i] = { prompt = ("job %d"):format(i) }
      for k, v in pairs(more or {}) do
        list[i][k] = v
      end
    end
    return list
  end

  local function states(results)
    local counts = {}
    for _, r in ipairs(results) do
      local word = r.ref and r.state or r.error.code
      counts[word] = (counts[word] or 0) + 1
    end
    return counts
  end

  -- Records every commit and every batch of requests of mj from now on.
  local function watch(mj)
    local commit, http, seen = mj.exec.commit, mj.exec.http, { commits = {}, requests = {} }
    mj.exec.commit = function(self, ops)
      seen.commits[#seen.commits + 1] = ops
      return commit(self, ops)
    end
    mj.exec.http = function(self, requests, deadline)
      seen.requests[#seen.requests + 1] = #requests
      return http(self, requests, deadline)
    end
    return seen
  end

  local function creates(ops)
    local n = 0
    for _, op in ipairs(ops) do
      n = n + (op.op == "create" and 1 or 0)
    end
    return n
  end

  local function billed_twice()
    return #sim.ledger().billed_twice
  end

  describe("of good jobs", function()
    it("gives tasks in the order of the arguments, each as the provider answered", function()
      local mj = open()
      local results, err = mj:submit_many(jobs(5))
      assert.is_nil(err)
      assert.equal(5, #results)
      for i, task in ipairs(results) do
        assert.equal(("job %d"):format(i), task.prompt)
        assert.equal("pending", task.state)
        assert.is_nil(task.error)
        assert.is_nil(task.duplicate)
        assert.is_nil(task.requests)
        assert.same(task, mj:get(task.ref))
      end
      assert.equal(5, #sim.jobs())
      assert.equal(0, billed_twice())
    end)

    it("keeps every field of each", function()
      local mj = open()
      local results = mj:submit_many {
        { prompt = "a fox", mode = "relaxed", timeout = 300, user_id = "u1", key = "k1", priority = -5,
          account = "default", expires = 60, context = { order = 7, list = { 1, 2.5 } } },
        { prompt = "a wolf", context = "text" },
      }
      local a, b = mj:get(results[1].ref), mj:get(results[2].ref)
      assert.same({ "relaxed", 300, "u1", "k1", -5, "default", { order = 7, list = { 1, 2.5 } } },
        { a.mode, a.timeout, a.user_id, a.key, a.priority, a.account, a.context })
      assert.near(60000, a.expires_at - a.created_at, 1000)
      assert.same({ "fast", 600, "text" }, { b.mode, b.timeout, b.context })
    end)

    it("stores all of them in one transaction before anything is sent", function()
      local mj = open { max_in_flight = 2 }
      local seen = watch(mj)
      local stored
      local http = mj.exec.http
      mj.exec.http = function(...)
        stored = stored or mj:stats().tasks
        return http(...)
      end
      assert(mj:submit_many(jobs(300)))
      assert.equal(300, creates(seen.commits[1]))
      assert.same({ 298, 2 }, { stored.queued, stored.submitting })
    end)

    it("takes no longer for eight than the slowest of them", function()
      sim.config { submit = { slow = 1 }, slow_ms = 400 }
      local mj = open()
      local started = core.clock()
      local results = mj:submit_many(jobs(8))
      assert.same({ pending = 8 }, states(results))
      assert.is_true(core.clock() - started < 6 * 400, core.clock() - started)
    end)

    it("leaves those queued that find no slot, and never has more unfinished ones than slots", function()
      sim.config { limit = 10 }
      local mj = open { max_in_flight = 3 }
      local results = mj:submit_many(jobs(12))
      assert.same({ pending = 3, queued = 9 }, states(results))
      for _, task in ipairs(results) do
        assert.is_nil(task.error)
      end
      for _ = 1, 20 do
        for _, job in ipairs(sim.jobs()) do
          if job.status == 0 then
            sim.finish(job.taskId)
          end
        end
        kit.travel(61)
        assert(mj:reconcile {})
        if mj:stats().tasks.succeeded == 12 then
          break
        end
      end
      assert.equal(12, mj:stats().tasks.succeeded)
      assert.equal(12, #sim.jobs())
      assert.equal(3, sim.counters().accounts[kit.KEY].max_unfinished)
      assert.equal(0, billed_twice())
    end)

    it("sends who has waited longest, or has a higher priority, first", function()
      local mj = open { max_in_flight = 1 }
      local first = mj:submit { prompt = "first" }
      mj:submit { prompt = "waits" }
      sim.finish(first.task_id)
      sim.hand(mj, 1)
      local results = mj:submit_many { { prompt = "low" }, { prompt = "high", priority = 5 } }
      assert.same({ queued = 1, pending = 1 }, states(results))
      assert.equal("high", sim.jobs()[2].prompt)
      sim.finish(results[2].task_id)
      sim.hand(mj, 2)
      assert.same({ queued = 2 }, states(mj:submit_many(jobs(2))))
      assert.equal("waits", sim.jobs()[3].prompt)
    end)

    it("stops claiming when all of its own are sent", function()
      local mj = open { max_in_flight = 1 }
      mj:submit { prompt = "first" }
      for i = 1, 20 do
        mj:submit { prompt = "waits " .. i }
      end
      sim.config { limit = 0 }
      local more = open { max_in_flight = 30, connections = 2 }
      assert.same({ pending = 1 }, states(more:submit_many { { prompt = "urgent", priority = 9 } }))
      assert.equal(3, #sim.jobs()) -- two connections: the urgent one and one of those who wait
    end)

    it("knows what became of its jobs also when others claim whatever waits", function()
      -- As a dispatcher or another process does, right after each commit.
      local submit = require "mjhook.submission.submit"
      sim.config { limit = 0 }
      local mj, other = open { connections = 4, max_in_flight = 8 }, open { max_in_flight = 8 }
      local commit, busy = mj.exec.commit, false
      mj.exec.commit = function(self, ops)
        local results, err = commit(self, ops)
        if not busy then
          busy = true
          local _, claimed = submit.claim(other, {}, 8)
          assert(submit.send(other, claimed, core.clock() + 1000))
          busy = false
        end
        return results, err
      end
      local results = mj:submit_many(jobs(10))
      assert.same({ pending = 8, queued = 2 }, states(results))
      for _, task in ipairs(results) do
        assert.equal(mj:get(task.ref).state, task.state)
      end
      assert.equal(8, #sim.jobs())
      assert.equal(0, billed_twice())
    end)

    it("of none gives none, and touches nothing", function()
      local mj = open()
      local seen = watch(mj)
      assert.same({}, mj:submit_many {})
      assert.same({}, seen.commits)
    end)

    it("uses the slots of every account", function()
      sim.config { keys = { kit.KEY, "key-two" } }
      local mj = open { accounts = { { name = "one", api_key = kit.KEY, max_in_flight = 2 },
                                     { name = "two", api_key = "key-two", max_in_flight = 3 } } }
      assert.same({ pending = 5, queued = 2 }, states(mj:submit_many(jobs(7))))
      assert.same({ 2, 3 }, { sim.counters().accounts[kit.KEY].accepted, sim.counters().accounts["key-two"].accepted })
    end)
  end)

  describe("of more than one transaction should take", function()
    local bulk = require "mjhook.submission.submit_many"
    local many, bytes = bulk.JOBS, bulk.BYTES
    after_each(function() bulk.JOBS, bulk.BYTES = many, bytes end)

    it("stores them in portions, in order, and sends after the last", function()
      bulk.JOBS = 4
      local mj = open()
      local seen = watch(mj)
      local list = jobs(10)
      list[3] = { prompt = "" }
      local results = mj:submit_many(list)
      assert.same({ 4, 4, 1 }, { creates(seen.commits[1]), creates(seen.commits[2]), creates(seen.commits[3]) })
      assert.same({ 4, 4, 1 + mj.config.connections }, { #seen.commits[1], #seen.commits[2], #seen.commits[3] })
      assert.same({ pending = 9, invalid = 1 }, states(results))
      for i, r in ipairs(results) do
        assert.equal(i == 3 and "" or "job " .. i, r.ref and r.prompt or "")
      end
    end)

    it("makes a portion smaller when its jobs are large", function()
      bulk.BYTES = 1000
      local mj = open()
      local seen = watch(mj)
      mj:submit_many { { prompt = ("x"):rep(600) }, { prompt = "y", context = ("c"):rep(600) }, { prompt = "z" } }
      assert.same({ 2, 1 }, { creates(seen.commits[1]), creates(seen.commits[2]) })
    end)

    it("knows a key across portions", function()
      bulk.JOBS = 1
      local results = open():submit_many { { prompt = "a", key = "k" }, { prompt = "a", key = "k" } }
      assert.equal(results[1].ref, results[2].ref)
      assert.equal(1, #sim.jobs())
    end)

    it("gives the tasks that were stored and an error for the rest when the store fails in between", function()
      bulk.JOBS = 2
      local mj = open()
      local commit, n = mj.exec.commit, 0
      mj.exec.commit = function(self, ops)
        n = n + 1
        if n == 2 then
          return nil, core.error("no_space", "no space left for the store", true)
        end
        return commit(self, ops)
      end
      local list = jobs(5)
      list[5] = { prompt = "" }
      local results, err = mj:submit_many(list)
      assert.equal("no_space", err.code)
      assert.same({ queued = 2, no_space = 2, invalid = 1 }, states(results))
      assert.equal("queued", mj:get(results[1].ref).state)
      assert.equal(0, #sim.jobs())
    end)
  end)

  describe("of jobs some of which are wrong", function()
    it("gives each its error in its place, and the others are sent", function()
      local mj = open()
      local results, err = mj:submit_many {
        { prompt = "a fox" }, { prompt = "" }, { prompt = "a wolf", mode = "turbo" }, { prompt = 7 }, "a hare", {},
        { prompt = "a fox", promt = "b" }, { prompt = "x", account = "elsewhere" }, { prompt = "an owl" },
      }
      assert.is_nil(err)
      assert.same({ pending = 2, invalid = 6, config = 1 }, states(results))
      for i, text in pairs {
        [2] = "^prompt: 1 to", [3] = '^mode: "fast"', [4] = "^bad field 'prompt' %(string expected, got number%)",
        [5] = "^table expected, got string", [6] = "^bad field 'prompt' %(string expected, got nil%)",
        [7] = '^unknown field "promt"', [8] = '^accounts: "elsewhere"',
      } do
        assert.is_nil(results[i].ref)
        assert.matches(text, results[i].error.message)
        assert.equal(results[i].error.message, tostring(results[i].error))
        assert.is_false(results[i].error.retryable)
      end
      assert.same({ "a fox", "an owl" }, { sim.jobs()[1].prompt, sim.jobs()[2].prompt })
    end)

    it("touches neither the store nor the provider when all are", function()
      local mj = open()
      local seen = watch(mj)
      assert.same({ invalid = 2 }, states(mj:submit_many { { prompt = "" }, {} }))
      assert.same({}, seen.commits)
    end)
  end)

  describe("with keys", function()
    it("makes one job of a key that is repeated in the list", function()
      local mj = open()
      local results = mj:submit_many {
        { prompt = "a fox", key = "k" }, { prompt = "a fox", key = "k" }, { prompt = "a wolf" },
        { prompt = "a fox", key = "k" },
      }
      assert.same({ pending = 4 }, states(results))
      assert.equal(results[1].ref, results[2].ref)
      assert.equal(results[1].ref, results[4].ref)
      assert.is_nil(results[1].duplicate)
      assert.is_true(results[2].duplicate)
      assert.is_true(results[4].duplicate)
      assert.equal(results[1].task_id, results[4].task_id)
      assert.equal(2, #sim.jobs())
    end)

    it("gives the first task of a key that the store knows, and sends it if it still waits", function()
      local mj = open { max_in_flight = 1 }
      local first = mj:submit { prompt = "first" }
      local known = mj:submit { prompt = "a fox", key = "k" }
      assert.equal("queued", known.state)
      sim.finish(first.task_id)
      sim.hand(mj, 1)
      local results = mj:submit_many { { prompt = "a fox", key = "k" } }
      assert.equal(known.ref, results[1].ref)
      assert.is_true(results[1].duplicate)
      assert.equal("pending", results[1].state)
      assert.equal(2, #sim.jobs())
    end)

    it("is a conflict with other arguments, in the list and with the store", function()
      local mj = open()
      local first = mj:submit { prompt = "a fox", key = "k" }
      local results = mj:submit_many {
        { prompt = "a wolf", key = "k" }, { prompt = "a", key = "k2" }, { prompt = "b", key = "k2" }, { prompt = "c" },
      }
      assert.same({ key_conflict = 2, pending = 2 }, states(results))
      assert.matches(first.ref, results[1].error.message)
      assert.matches(results[2].ref, results[3].error.message)
      assert.equal(3, #sim.jobs())
    end)

    it("of a pruned task gives what is left of it, and sends nothing", function()
      local mj = open()
      local task = mj:submit { prompt = "a fox", key = "k" }
      sim.finish(task.task_id)
      sim.hand(mj, 1)
      open({ policy = { on_event = function() end } }):deliver {}
      kit.travel(10)
      assert.equal(1, mj:prune({ older_than = 1 }).pruned)
      local result = mj:submit_many({ { prompt = "a fox", key = "k" } })[1]
      assert.same({ task.ref, true, true }, { result.ref, result.duplicate, result.pruned })
      assert.equal(1, #sim.jobs())
    end)

    it("makes one job each of lists that are submitted at the same time", function()
      kit.needs "processes"
      local mj = open()
      local code = ([[
        local mj = assert(require("mjhook").open { store = %q, api_key = %q, base_url = %q, max_in_flight = 40 })
        local jobs = {}
        for i = 1, 30 do
          jobs[i] = { prompt = "job " .. i, key = "k" .. i }
        end
        local results, err = mj:submit_many(jobs)
        for _, r in ipairs(assert(results, err)) do
          io.stdout:write(r.ref or r.error.message, "\n")
        end
      ]]):format(kit.store, kit.KEY, sim.url)
      sim.config { limit = 0 }
      local children = {}
      for i = 1, 4 do
        children[i] = kit.spawn("exec " .. kit.lua_command(code, i % 2 == 0 and kit.lua or kit.other_lua))
      end
      for _, child in ipairs(children) do
        assert.equal(0, child:wait(), child:err())
        assert.equal(children[1]:out(), child:out())
      end
      assert.equal(30, #sim.jobs())
      assert.equal(30, mj:stats().tasks.pending)
      assert.equal(0, billed_twice())
    end)
  end)

  describe("when the provider is difficult", function()
    it("stops sending at a refusal that lets the account rest, and queues the rest", function()
      sim.script { submit = { "quota" } }
      local mj = open { connections = 2 }
      local results = mj:submit_many(jobs(10))
      assert.same({ pending = 1, queued = 9 }, states(results))
      assert.equal(2, sim.requests "submit")
      local with_error = 0
      for _, task in ipairs(results) do
        with_error = with_error + (task.error and task.error.code == "quota" and 1 or 0)
      end
      assert.equal(1, with_error)
    end)

    it("fails what is refused for good, and gives its slot to the next", function()
      sim.script { submit = { { fault = "http_400", n = 5 } } }
      local results = open({ max_in_flight = 2 }):submit_many(jobs(8))
      assert.same({ failed = 5, pending = 2, queued = 1 }, states(results))
      assert.equal("rejected", results[1].error.code)
    end)

    it("calls those ambiguous whose answer was lost, and sends none of them again", function()
      sim.script { submit = { "cut_after", "ok", "reset", "http_500_after", "ok" } }
      local mj = open()
      local results = mj:submit_many(jobs(5))
      assert.same({ ambiguous = 3, pending = 2 }, states(results))
      mj:submit_many(jobs(1))
      assert(mj:reconcile {})
      assert.equal(6, sim.requests "submit")
      assert.equal(0, billed_twice())
    end)

    it("sends nothing twice though the policy wants a refused job sent again at once", function()
      sim.config { submit = { http_400 = 1 } }
      local mj = open { policy = { on_refused = function() return "retry", 0 end }, max_in_flight = 4 }
      local results = mj:submit_many(jobs(6))
      assert.same({ queued = 6 }, states(results))
      assert.is_true(sim.requests "submit" <= 12, sim.requests "submit")
      assert.equal(0, #sim.jobs())
    end)

    it("keeps all of them queued when the provider can't be reached", function()
      local mj = open { base_url = "http://127.0.0.1:1", connections = 3 }
      assert.same({ queued = 7 }, states(mj:submit_many(jobs(7))))
      assert.equal(0, mj:stats().accounts[1].held)
    end)

    it("calls those submitting whose outcome could not be stored, and says so", function()
      local mj = open { connections = 2, max_in_flight = 2 }
      local commit, n = mj.exec.commit, 0
      mj.exec.commit = function(self, ops)
        n = n + 1
        if n >= 2 then -- creations and claims, then outcomes, together or apart
          return nil, core.error("io", "input/output error", true)
        end
        return commit(self, ops)
      end
      function mj.exec.read() -- nor can it be read
        return nil, core.error("io", "input/output error", true)
      end
      local results, err = mj:submit_many(jobs(3))
      mj.exec.read = nil
      assert.equal("io", err.code)
      assert.same({ submitting = 2, queued = 1 }, states(results))
      assert.equal(2, #sim.jobs())
    end)

    it("stores nothing and says so when the store can't be written", function()
      local mj = open()
      mj.exec.commit = function()
        return nil, core.error("no_space", "no space left for the store", true)
      end
      local results, err = mj:submit_many(jobs(3))
      assert.is_nil(results)
      assert.equal("no_space", err.code)
      assert.equal(0, sim.requests "submit")
    end)
  end)

  it("accepts each job once through answers that are lost, refusals and a full provider", function()
    sim.config { submit = { cut_after = 0.1, reset = 0.05, http_500_after = 0.05, concurrency = 0.1, slow = 0.1 },
                 slow_ms = 20, limit = 4, callback_progress = true, delay_ms = 50 }
    local mj = open { max_in_flight = 4 }
    local refs = {}
    for round = 1, 5 do
      for _, task in ipairs(assert(mj:submit_many(jobs(12)))) do
        refs[task.ref] = round
      end
    end
    local handed = 0
    kit.wait_until(function()
      for i, got in ipairs(sim.callbacks(0)) do
        if i > handed then
          mj:callback { method = "POST", uri = got.uri, body = got.body, headers = {}, peer = "127.0.0.1" }
          handed = i
        end
      end
      kit.travel(11)
      assert(mj:reconcile {})
      local left = mj:stats().tasks
      return left.queued + left.submitting + left.pending + left.ambiguous == 0
    end, 60)
    local ledger = sim.ledger()
    assert.same({}, ledger.billed_twice)
    for _, job in ipairs(ledger.submissions) do
      assert.truthy(refs[job.ref])
      assert.equal("1", job.attempt)
    end
    assert.is_true(sim.counters().accounts[kit.KEY].max_unfinished <= 4)
    local n = 0
    for ref in pairs(refs) do
      n = n + 1
      local task = mj:get(ref)
      assert.equal(ledger.refs[ref] and "succeeded" or "lost", task.state, kit.story(task))
    end
    assert.equal(60, n)
    assert.is_true(mj:check().ok)
  end)

  describe("under OpenResty", function()
    local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /many {
      content_by_lua_block {
        local mj = require("resty.mjhook").instance()
        ngx.req.read_body()
        local results, err = mj:submit_many(require("cjson").decode(ngx.req.get_body_data()))
        local out = {}
        for i, r in ipairs(assert(results, err)) do
          out[i] = { ref = r.ref, state = r.state, code = r.error and r.error.code }
        end
        ngx.print(require("cjson").encode(out))
      }
    }
    location = /again {
      content_by_lua_block {
        local task, err = require("resty.mjhook").instance():resubmit(ngx.var.arg_ref)
        ngx.print(task and task.state or err.code, " ", task and task.attempt or tostring(err))
      }
    }
  }
}
]]
    local function post(nginx, list)
      local code, body = sim.request("POST", nginx.url .. "/many", cjson.encode(list))
      assert.equal(200, code, nginx:log())
      return cjson.decode(body)
    end

    it("does the same, and a second list finds the first one's keys", function()
      sim.script { submit = { "http_400" } }
      local nginx = receiver.start { conf = CONF, settings = { connections = 1 } } -- in order
      local list = jobs(3)
      for i, job in ipairs(list) do
        job.key = "k" .. i
      end
      list[4] = { prompt = "" }
      local first = post(nginx, list)
      assert.same({ "pending", "pending" }, { first[2].state, first[3].state })
      assert.same({ "failed", "rejected" }, { first[1].state, first[1].code })
      assert.equal("invalid", first[4].code)
      assert.same(first, post(nginx, list))
      assert.equal(2, #sim.jobs())
      local _, said = sim.request("GET", nginx.url .. "/again?ref=" .. first[1].ref)
      assert.equal("pending 2", said)
      _, said = sim.request("GET", nginx.url .. "/again?ref=" .. first[1].ref)
      assert.matches("^state task " .. first[1].ref .. " is pending", said)
      assert.equal(3, #sim.jobs())
      assert.is_nil(nginx:log():find("[error]", 1, true), nginx:log())
    end)

    it("goes on answering others while a list waits for the provider", function()
      sim.config { submit = { slow = 1 }, slow_ms = 1500 }
      local nginx = receiver.start { conf = CONF }
      local child = kit.spawn(("exec %s -s --data @- %s/many <<'END'\n%s\nEND"):format(kit.curl, nginx.url,
        cjson.encode(jobs(4))))
      kit.wait_until(function() return sim.requests "submit" == 4 end)
      assert.equal(200, (sim.request("GET", nginx.url .. "/ping")))
      assert.is_nil(child:status())
      assert.equal(0, child:wait())
      assert.equal(4, select(2, child:out():gsub('"pending"', "")))
    end)
  end)

  describe("misused", function()
    local cases = {
      { "nothing", nil, "submit_many: table expected, got nil" },
      { "a string", "a fox", "submit_many: table expected, got string" },
      { "one job", { prompt = "a fox" }, 'submit_many: a list of jobs expected, got a table with the key "prompt"' },
      { "a hole", { { prompt = "a" }, nil, { prompt = "b" } }, "submit_many: " },
      { "a list that begins at 0", { [0] = { prompt = "a" }, { prompt = "b" } }, "submit_many: a list of jobs" },
    }
    for _, case in ipairs(cases) do
      it("with " .. case[1] .. " raises at the caller's line", function()
        local mj = open()
        local line = debug.getinfo(1, "l").currentline + 2
        local ok, err = pcall(function()
          local results = mj:submit_many(case[2])
          return results
        end)
        assert.is_false(ok)
        assert.truthy(err:find(case[3], 1, true), err)
        assert.matches("bulk_spec.lua:" .. line .. ": ", err)
        assert.equal(0, sim.requests "submit")
      end)
    end
  end)
end)
