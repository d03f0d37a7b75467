-- Callbacks that are refused: those whose token is good are kept, the others are counted and cost nothing.
local callback = require "mjhook.callback"
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"

describe("a refused callback", function()
  after_each(kit.cleanup)

  local mj

  local function post(uri, body)
    return mj:callback { method = "POST", uri = uri, headers = {}, body = body, peer = "192.0.2.9" }
  end

  local function adopt(task_id)
    local task = assert(mj:adopt { task_id = task_id, prompt = "a fox" })
    return task, provider.hook_url(mj, task.ref, 1)
  end

  -- mjhook(1) on the test's store; gives output and exit code.
  local function tool(arguments)
    local env = "MJHOOK_CONFIG= MJHOOK_STORE=" .. kit.quote(kit.store)
    return kit.sh(("env -u MJHOOK_CONFIG %s %s %s/scripts/mjhook %s"):format(env:gsub("MJHOOK_CONFIG= ", ""), kit.lua,
      kit.root, arguments))
  end

  describe("with a good token", function()
    it("is kept with its reason and body, newest first", function()
      mj = kit.open()
      local task, uri = adopt "T1"
      assert.equal(400, post(uri, "no JSON").status)
      assert.equal(400, post(uri, '{"taskId":"T1"}').status)
      local list = assert(mj:refused())
      assert.equal(2, #list)
      assert.same({ task.ref, 1, '{"taskId":"T1"}', "no usable status" },
        { list[1].ref, list[1].attempt, list[1].body, list[1].reason })
      assert.equal("no JSON", list[2].body)
      assert.matches("^not JSON: ", list[2].reason)
      assert.is_true(list[1].id > list[2].id)
      assert.near(core.now(), list[1].at, 5000)
      assert.equal(1, #assert(mj:refused { limit = 1 }))
      assert.is_true(mj:check().ok)
    end)

    it("is kept as well when callbacks are only hints", function()
      mj = kit.open { trust = "verify" }
      local _, uri = adopt "T1"
      assert.equal(400, post(uri, "[]").status)
      assert.equal("not a JSON object", assert(mj:refused())[1].reason)
    end)

    it("survives a restart", function()
      mj = kit.open()
      local _, uri = adopt "T1"
      post(uri, "no JSON")
      mj:close()
      mj = kit.open()
      assert.equal("no JSON", assert(mj:refused())[1].body)
    end)

    it("pushes the oldest out when there are 256", function()
      mj = kit.open()
      for i = 1, 26 do
        local _, uri = adopt("T" .. i)
        for k = 1, 10 do
          post(uri, ("no JSON %d"):format(10 * (i - 1) + k))
        end
      end
      local list = assert(mj:refused { limit = 1000 })
      assert.equal(256, #list)
      assert.equal("no JSON 260", list[1].body)
      assert.equal("no JSON 5", list[256].body)
      assert.is_true(mj:check().ok)
    end)

    it("takes the place of an older one of its own task, not of other tasks, however many come", function()
      mj = kit.open()
      local _, flooder = adopt "T1"
      local other, uri = adopt "T2"
      post(uri, "no JSON of the other")
      for _ = 1, 20 do -- seconds
        for i = 1, 30 do
          post(flooder, "no JSON " .. i)
        end
        kit.travel(1)
      end
      local list = assert(mj:refused { limit = 1000 })
      assert.equal(17, #list)
      assert.same({ other.ref, "no JSON of the other" }, { list[17].ref, list[17].body })
      for _ = 1, 260 do -- one a second, for longer than there are places
        kit.travel(1)
        post(flooder, "no JSON")
      end
      list = assert(mj:refused { limit = 1000 })
      assert.same({ 17, other.ref }, { #list, list[17].ref })
      assert.is_true(mj:check().ok)
    end)

    it("of which there are more than the quota within a second makes no commit", function()
      mj = kit.open()
      local _, uri = adopt "T1"
      for i = 1, 16 do
        post(uri, "no JSON " .. i)
      end
      local before = kit.read(kit.store .. "/data.mdb")
      for _ = 1, 50 do
        assert.equal(400, post(uri, ("x"):rep(60000)).status)
      end
      assert.is_true(before == kit.read(kit.store .. "/data.mdb"))
    end)

    it("leaves a line in the log at once, and then one a minute of its task", function()
      mj = kit.open()
      local one, uri = adopt "T1"
      local two, other = adopt "T2"
      local now = core.clock
      kit.finally(function() core.clock = now end)
      local function lines(task)
        return select(2, kit.log_text():gsub("callback for " .. task.ref .. " refused: not JSON", ""))
      end
      for _ = 1, 100 do
        post(uri, "no JSON")
      end
      post(other, "no JSON")
      assert.same({ 1, 1 }, { lines(one), lines(two) })
      core.clock = function() return now() + 60000 end
      post(uri, "no JSON")
      post(uri, "no JSON")
      assert.same({ 2, 1 }, { lines(one), lines(two) })
      assert.is_truthy(kit.log_text():find("(and 99 more since this was last said)", 1, true))
    end)

    it("leaves few lines in the log also when there are many tasks", function()
      mj = kit.open()
      for i = 1, 300 do
        local _, uri = adopt("T" .. i)
        post(uri, "no JSON")
      end
      assert.equal(257, select(2, kit.log_text():gsub(" refused: not JSON", "")))
    end)

    it("is news: the task is asked about at once, and at most every ten seconds", function()
      mj = kit.open { max_body = 2048 }
      for i, body in ipairs { "no JSON", "", ("x"):rep(3000), '{"taskId":"T3"}' } do
        local task, uri = adopt("T" .. i)
        assert.is_true(task.due_at > core.now() + 30000)
        post(uri, body)
        local due = mj:get(task.ref).due_at
        assert.is_true(due <= core.now() + 10000, body)
        post(uri, body)
        assert.equal(due, mj:get(task.ref).due_at)
        assert.equal("pending", mj:get(task.ref).state)
      end
      local task, uri = adopt "T9" -- whose size alone is known
      callback.precheck(mj, { method = "POST", uri = uri, length = 5000 })
      assert.is_true(mj:get(task.ref).due_at <= core.now())
    end)

    it("is kept up to 64 KiB", function()
      mj = kit.open()
      local _, uri = adopt "T1"
      local body = ("x"):rep(100000)
      assert.equal(400, post(uri, body).status)
      local kept = assert(mj:refused())[1]
      assert.equal(body:sub(1, 65536), kept.body)
      assert.equal(100000, kept.size)
      local outcome, err = mj:readmit(kept.id)
      assert.is_nil(outcome)
      assert.equal("invalid", err.code)
      assert.matches("only 65536 of 100000 bytes were kept", err.message)
    end)

    it("can be taken in after all", function()
      mj = kit.open()
      local task, uri = adopt "T1"
      local good = cjson.encode { taskId = "T1", status = 1, image = "https://cdn.example/x.png" }
      local read = provider.read_callback
      kit.finally(function() provider.read_callback = read end)
      provider.read_callback = function() return nil, "a dialect that nobody speaks yet" end
      mj.exec.callback = function() return "unreadable", "a dialect that nobody speaks yet" end
      assert.equal(400, post(uri, good).status)
      local kept = assert(mj:refused())[1]
      local outcome, err = mj:readmit(kept.id)
      assert.is_nil(outcome)
      assert.matches("still refused: unreadable: a dialect", err.message)
      provider.read_callback = read
      assert.equal("stored", mj:readmit(kept.id))
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.equal("duplicate", mj:readmit(kept.id))
      assert.equal(1, mj:stats().events)
    end)

    -- A kept callback of a task, as an earlier mjhook refused it that could not read it.
    local function keep(task)
      local body = cjson.encode { taskId = task.task_id, status = 1, image = "https://cdn.example/x.png" }
      assert(mj.exec:commit { { op = "refuse", ref = task.ref, attempt = 1, error = "a dialect", body = body } })
      return assert(mj:refused())[1].id
    end

    it("is the one that was asked for, also among newer ones", function()
      mj = kit.open()
      local tasks, ids = {}, {}
      for i = 1, 3 do
        tasks[i] = adopt("T" .. i)
        ids[i] = keep(tasks[i])
      end
      assert.equal("stored", mj:readmit(ids[2]))
      assert.same({ "pending", "succeeded", "pending" },
        { mj:get(tasks[1].ref).state, mj:get(tasks[2].ref).state, mj:get(tasks[3].ref).state })
    end)

    it("is not believed because it was taken in where callbacks are only hints", function()
      mj = kit.open { trust = "verify" }
      local task = adopt "T1"
      assert.equal("stored", mj:readmit(keep(task)))
      task = mj:get(task.ref)
      assert.equal("pending", task.state)
      assert.is_true(task.due_at <= core.now())
    end)

    it("is taken in as on_callback says", function()
      local answer
      mj = kit.open { policy = { on_callback = function() return answer end } }
      local task = adopt "T1"
      local id = keep(task)
      answer = "ignore"
      assert.equal("ignored", mj:readmit(id))
      assert.equal("pending", mj:get(task.ref).state)
      answer = "accept"
      assert.equal("stored", mj:readmit(id))
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("stays kept, and says why, when the store can't take it in", function()
      mj = kit.open()
      local task = adopt "T1"
      local id = keep(task)
      mj.exec.commit = function() return nil, core.error("no_space", "the disk is full", true) end
      local outcome, err = mj:readmit(id)
      assert.is_nil(outcome)
      assert.same({ "no_space", true }, { err.code, err.retryable })
      assert.equal(id, assert(mj:refused())[1].id)
    end)

    it("is kept as well when it is too large, with what there is of it", function()
      mj = kit.open { max_body = 2048 }
      local task, uri = adopt "T1"
      assert.equal(413, post(uri, ("x"):rep(3000)).status)
      local kept = assert(mj:refused())[1]
      assert.same({ task.ref, 1, 3000, "3000 bytes, max_body is 2048" },
        { kept.ref, kept.attempt, #kept.body, kept.reason })
      -- A server that hears of the size first does not read the body.
      local reply = callback.precheck(mj, { method = "POST", uri = uri, length = 1e20 })
      assert.equal(413, reply.status)
      kept = assert(mj:refused())[1]
      assert.same({ "", "100000000000000000000 bytes, max_body is 2048" }, { kept.body, kept.reason })
      assert.equal(1, select(2, kit.log_text():gsub("callback for " .. task.ref .. " refused: ", "")))
    end)

    it("is answered 503 when it can't be kept: when it comes again it may be", function()
      mj = kit.open { max_body = 2048 }
      local _, uri = adopt "T1"
      mj.exec.commit = function() return nil, core.error("no_space", "the disk is full", true) end
      for _, body in ipairs { "no JSON", ("x"):rep(3000) } do
        local reply = post(uri, body)
        assert.equal(503, reply.status)
        assert.matches("^%d+$", reply.headers["Retry-After"])
      end
      assert.matches("refused and not kept: the disk is full", kit.log_text())
      mj.exec.commit = nil
      assert.equal(400, post(uri, "no JSON").status)
      assert.equal(1, #assert(mj:refused()))
    end)

    it("that is not there can't be taken in", function()
      mj = kit.open()
      local outcome, err = mj:readmit(7)
      assert.is_nil(outcome)
      assert.equal("not_found", err.code)
      local _, uri = adopt "T1"
      post(uri, "no JSON")
      assert.equal("not_found", select(2, mj:readmit(assert(mj:refused())[1].id + 1)).code)
      for _, wrong in ipairs { 0, -1, 1.5, 2 ^ 53 + 2, 1e300, math.huge, "1", false } do
        assert.has_error(function() mj:readmit(wrong) end)
      end
    end)

    it("is shown and taken in by the operator's tool", function()
      kit.needs "processes"
      mj = kit.open()
      local out, code = tool "refused"
      assert.same({ "mjhook: no callback was refused after its token had been found good", 0 }, { out, code })
      local task, uri = adopt "T1"
      post(uri, "no\27JSON")
      out, code = tool "refused"
      assert.equal(0, code)
      assert.matches("ID +AGE +REF +SIZE +WHY", out)
      assert.is_truthy(out:find(task.ref, 1, true))
      assert.is_nil(out:find("\27", 1, true))
      local kept = cjson.decode((tool "refused --json --limit 1"))
      assert.equal("no\27JSON", kept.body)
      out, code = tool("readmit " .. ("%d"):format(kept.id))
      assert.equal(1, code)
      assert.matches("still refused: unreadable: not JSON", out)
      out, code = tool "readmit nothing"
      assert.equal(64, code)
      assert.matches('"nothing" is no id', out)
      out, code = tool "readmit --json 99 2>/dev/null"
      assert.equal(1, code)
      assert.equal("not_found", cjson.decode(out).errors[1].code)
    end)
  end)

  it("fails alone: others in its transaction are stored, and each hears of its own", function()
    mj = kit.open()
    local one, two = adopt "T1", adopt "T2"
    local inbox = core.inbox()
    for i, said in ipairs {
      { one, "poison" }, { one, '{"taskId":"T1","status":2}' }, { two, "[[[" }, { two, '{"taskId":"T2","status":0}' },
      { two, '{"taskId":"T1","status":0}' },
    } do
      assert.same({ 1, i }, { inbox:put(said[1].ref, 1, said[2]) })
    end
    inbox:take()
    local results, outcomes, unreadable = mj.store:write({ { op = "tick" } }, core.now(), inbox)
    assert.same({ "ok" }, { results[1].code })
    assert.matches("^not JSON", unreadable[1])
    assert.matches("^not JSON", unreadable[3])
    assert.same({ "invalid", "ok", "invalid" }, { core.codes[outcomes:byte(1)], core.codes[outcomes:byte(2)],
                                                  core.codes[outcomes:byte(3)] })
    assert.same({ "failed", "pending" }, { mj:get(one.ref).state, mj:get(two.ref).state })
    assert.equal(5, #outcomes)
  end)

  describe("without a good token", function()
    it("is kept nowhere and makes no commit", function()
      mj = kit.open()
      local task, uri = adopt "T1"
      mj.exec.commit = function() error "a commit" end
      for _, bad in ipairs { uri .. "x", "/hook", "/hook?ref=" .. task.ref, uri:gsub("a=1", "a=2") } do
        assert.equal(401, post(bad, "no JSON").status)
      end
      assert.same({}, mj:refused())
    end)

    it("is kept nowhere where tokens are not asked for, and a flood of it is one line in the log", function()
      mj = kit.open { allow_unsigned = true, max_body = 2048 }
      adopt "T1"
      mj.exec.commit = function() error "a commit" end
      for i = 1, 20 do
        assert.equal(i % 2 == 0 and 400 or 413, post("/hook", i % 2 == 0 and "no JSON" or ("x"):rep(3000)).status)
      end
      assert.same({}, mj:refused())
      assert.equal(1, #kit.logged)
    end)

    it("is logged at once, then counted and told of once a minute, without its token", function()
      mj = kit.open()
      local clock, at = core.clock, core.clock()
      kit.finally(function() core.clock = clock end)
      core.clock = function() return at end
      local _, uri = adopt "T1"
      for _ = 1, 100 do
        post(uri .. "x", "{}")
        at = at + 100
      end
      assert.equal(1, #kit.logged)
      assert.matches("^1 request without a good token .* from 192.0.2.9$", kit.logged[1].message)
      at = at + 50000
      post(uri .. "x", "{}")
      assert.equal(2, #kit.logged)
      assert.matches("^100 requests without a good token", kit.logged[2].message)
      assert.is_nil(kit.log_text():find("sig=", 1, true))
    end)
  end)
end)

describe("secrets that are rotated a second time", function()
  after_each(kit.cleanup)

  it("verify what each of them signed while it is listed, and nothing afterwards", function()
    local SECRETS = { kit.SECRET, "the second secret of these specs", "the third secret of these specs" }
    local lists = { { 1 }, { 2, 1 }, { 3, 2 }, { 3 } }
    local uris = {}
    for generation, list in ipairs(lists) do
      local listed = {}
      for i, n in ipairs(list) do
        listed[i] = SECRETS[n]
      end
      local mj = kit.open { secrets = listed }
      local task = assert(mj:adopt { task_id = "T" .. generation, prompt = "a fox" })
      uris[generation] = provider.hook_url(mj, task.ref, 1)
      for signed = 1, generation do
        local signer = lists[signed][1]
        local good = false
        for _, n in ipairs(list) do
          good = good or n == signer
        end
        local reply = mj:callback { method = "POST", uri = uris[signed], headers = {},
                                    body = cjson.encode { taskId = "T" .. signed, status = 0 } }
        assert.equal(good and 200 or 401, reply.status, ("signed by %d, generation %d"):format(signed, generation))
      end
      mj:close()
    end
  end)
end)
