-- Pruning, checking and copying a store, through the Lua API.
local kit = require "kit"
local sim = require "sim"

describe("the store", function()
  before_each(kit.collect_hard)
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function open(more)
    return kit.open(more, sim)
  end

  -- A task that is over and whose event was delivered.
  local function finished(mj, key)
    local task = assert(mj:adopt { task_id = "T" .. key, prompt = "a fox", key = key })
    local reply = mj:callback {
      method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1), headers = {},
      body = '{"taskId":"T' .. key .. '","status":1,"image":"https://cdn.example/grid.png"}',
    }
    assert.equal(200, reply.status)
    assert(mj:deliver())
    return task
  end

  it("takes operations that need not go together in one transaction, and in several while others write", function()
    local mj, other = open(), open()
    local function adopt(one, first, last)
      local ops, parts, commit = {}, {}, one.exec.commit
      for i = first, last do
        ops[#ops + 1] = { op = "create", source = "user", account = "default", task_id = "T" .. i, want = true,
                          task = { prompt = "a fox", timeout = 600, fingerprint = ("f"):rep(32) } }
      end
      one.exec.commit = function(self, part)
        parts[#parts + 1] = #part
        return commit(self, part)
      end
      local results = assert(one.exec:commit_each(ops))
      one.exec.commit = nil
      for i = first, last do
        assert.equal("T" .. i, results[i - first + 1].task.task_id)
      end
      return parts
    end
    assert.same({ 300 }, adopt(mj, 1, 300))
    adopt(other, 301, 301)
    assert.same({ 1 }, adopt(mj, 302, 302)) -- now it knows of the other
    local parts = adopt(mj, 303, 602)
    local in_turns = not kit.database -- a database's writers run side by side
    assert.equal(in_turns, #parts > 1)
    assert.equal(in_turns, parts[1] < 300)
    assert.same({ 300 }, adopt(mj, 603, 902)) -- the other has stopped
    assert.equal(902, mj:stats().tasks.pending)
  end)

  it("takes operations that need not go together from a process that has only had callbacks so far", function()
    local mj, other = open(), open()
    for i = 1, 2 do
      local task = assert(other:adopt { task_id = "T" .. i, prompt = "a fox" })
      assert(mj.exec:callback(task.ref, 1, ('{"taskId":"%s","status":2}'):format(task.task_id)))
    end
    assert.equal(1, #assert(mj.exec:commit_each { { op = "tick", limit = 1 } }))
  end)

  it("makes a reconcile run and a delivery rest for other writers, and no submission or callback", function()
    local mj = open { policy = { on_event = function() end } }
    assert.equal(0, kit.rests(function()
      local task = assert(mj:submit { prompt = "a fox" })
      local reply = mj:callback {
        method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1), headers = {},
        body = ('{"taskId":"%s","status":1,"image":"https://cdn.example/grid.png"}'):format(task.task_id),
      }
      assert.equal(200, reply.status)
    end))
    assert.is_true(kit.rests(function() assert.equal(1, assert(mj:deliver()).delivered) end) > 0)
    assert.is_true(kit.rests(function() assert(mj:reconcile {}) end) > 0)
  end)

  it("is not written to by a process that says something and was started without standard files", function()
    kit.needs "processes"
    local mj = open()
    finished(mj, "k")
    mj:close()
    for _, closed in ipairs { "2>&-", ">&-", "<&- >&- 2>&-" } do
      kit.sh(kit.lua_command(([[
        local mj = require("mjhook").open { store = %q, api_key = "k", policy = {} }
        mj:adopt { task_id = "T2", prompt = "p" }
        io.stdout:write(("x"):rep(20000))
        io.stdout:flush()
        io.stderr:write(("x"):rep(20000))
      ]]):format(kit.store)) .. " " .. closed)
      mj = open()
      assert.is_true(mj:check().ok)
      assert.truthy(mj:find "T2")
      mj:close()
    end
  end)

  it("lets go of the memory of what was read, and reads it again", function()
    kit.needs "directory"
    local mj = open()
    for first = 1, 4000, 400 do
      local ops = {}
      for i = 1, 400 do
        ops[i] = { op = "create", source = "user", account = "default", task_id = "T" .. first + i,
                   task = { prompt = ("p"):rep(1000), fingerprint = ("f"):rep(16) } }
      end
      assert(mj.exec:commit(ops))
    end
    local function resident()
      local kib, ours = 0, false
      for line in io.lines "/proc/self/smaps" do
        if line:match "^%x+%-%x+ " then
          ours = line:find("data.mdb", 1, true) ~= nil
        end
        kib = kib + (ours and tonumber(line:match "^Rss: +(%d+)") or 0)
      end
      return kib
    end
    local function count()
      local n = 0
      for _ in mj:tasks {} do
        n = n + 1
      end
      return n
    end
    assert.equal(4000, count())
    local before = resident()
    assert.is_true(before > 4000, before .. " KiB")
    mj.store:trim()
    assert.is_true(resident() < 100, resident() .. " KiB")
    assert.equal(4000, count())
  end)

  it("keeps every task when retention says nothing", function()
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    assert.equal(0, assert(mj:prune()).pruned)
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("prunes by state and age and gives the tombstone back for a repeated key", function()
    local mj = open { policy = {}, retention = { succeeded = 0, failed = -1 } }
    local task = finished(mj, "k1")
    assert.equal(1, assert(mj:prune()).pruned)
    local _, err = mj:get(task.ref)
    assert.equal("not_found", err.code)
    local again = assert(mj:adopt { task_id = "Tk1", prompt = "a fox", key = "k1" })
    assert.is_true(again.pruned)
    assert.is_true(again.duplicate)
    assert.equal(task.ref, again.ref)
    assert.equal("succeeded", again.state)
    assert.same({ "Tk1" }, again.task_ids)
  end)

  -- What a policy that is there has not handled yet.
  local WAITING = { on_succeeded = function() return false, "later" end }

  it("prunes nothing whose event waits for the policy", function()
    local mj = open { policy = WAITING }
    finished(mj, "k1")
    assert.equal(0, assert(mj:prune { older_than = 0 }).pruned)
    assert.equal(1, mj:stats().events)
  end)

  it("prunes nothing when told to keep for longer than there has been time", function()
    local mj = open { policy = {} }
    finished(mj, "k1")
    mj:deliver {}
    for _, seconds in ipairs { 1e300, math.huge, tonumber "9223372036854775807" } do
      assert.equal(0, assert(mj:prune { older_than = seconds }).pruned)
    end
    assert.equal(1, assert(mj:prune { older_than = 0 }).pruned)
  end)

  describe("without a policy", function()
    it("prunes what is over, and the events that nothing will ever handle with it", function()
      local mj = open { retention = { succeeded = 0 } }
      for i = 1, 3 do
        finished(mj, "k" .. i)
      end
      assert.equal(3, mj:stats().events)
      assert.equal(3, assert(mj:reconcile { budget = 5 }).pruned)
      assert.same({ 0, 0 }, { mj:stats().events, mj:stats().tasks.succeeded })
      assert.is_nil(mj:events()())
      assert.is_true(mj:find_key("k1").pruned)
      local report = assert(mj:check())
      assert.is_true(report.ok, report.problems[1])
      assert.same({ 0, 0, 3 }, { report.tasks, report.events, report.tombs })
    end)

    it("keeps what retention keeps, and what is unfinished", function()
      local mj = open { retention = { failed = 0 } }
      finished(mj, "k1")
      assert(mj:adopt { task_id = "open", prompt = "a fox" })
      assert.equal(0, assert(mj:prune()).pruned)
      assert.equal(0, assert(mj:prune { older_than = 3600 }).pruned)
      assert.equal(1, mj:stats().events)
    end)

    it("keeps a task whose event was buried: a person is to look at it", function()
      local mj = open { retention = { succeeded = 0 } }
      local task = finished(mj, "k1")
      assert(mj:bury(task.ref .. "-1", "no"))
      assert.equal(0, assert(mj:prune()).pruned)
      assert(mj:kick(task.ref .. "-1"))
      assert.equal(1, assert(mj:prune()).pruned)
    end)

    it("keeps a task whose event is at work in a program that has a policy", function()
      local mj = open { retention = { succeeded = 0 } }
      finished(mj, "k1")
      local now = require("mjhook.core").now()
      assert(mj.exec:commit { { op = "take", ["until"] = now + 60000 } }[1].event)
      assert.equal(0, assert(mj:prune()).pruned)
      kit.travel(61) -- that program has died
      assert.equal(1, assert(mj:prune()).pruned)
    end)

    it("prunes from the command line, too; a policy that is there holds its events", function()
      kit.needs "processes"
      local cli = require "cli"
      finished(open(), "k1")
      local path = kit.write(kit.tmp() .. "/config.lua",
        ("return { store = %q, policy = 'policy.lua' }"):format(kit.store))
      kit.write(path:gsub("config.lua$", "policy.lua"), "return { on_succeeded = function() end }")
      assert.equal("0 pruned\n", cli.run({ "-c", path, "prune", "--older-than", "0" }).out)
      assert.equal("1 pruned\n", cli.run({ "prune", "--older-than", "0" }).out)
    end)
  end)

  -- Final tasks with an event that waits, and so not to be pruned.
  local function unprunable(mj, count)
    for first = 1, count, 500 do
      local ops = {}
      for i = first, math.min(first + 499, count) do
        ops[#ops + 1] = { op = "create", source = "user", account = "default", task_id = "U" .. i,
                          task = { prompt = "p", fingerprint = ("f"):rep(16) } }
        ops[#ops + 1] = { op = "signal", source = "callback", kind = "failed", task_id = "U" .. i, error = "no" }
      end
      assert(mj.exec:commit(ops))
    end
  end

  local function small_steps()
    local prune = require "mjhook.reconcile.prune"
    local look, vain = prune.LOOK, prune.VAIN
    prune.LOOK, prune.VAIN = 10, 100
    kit.finally(function()
      prune.LOOK, prune.VAIN = look, vain
    end)
  end

  local function pruned_by(mj)
    return assert(require("mjhook.reconcile.prune").prune(mj, { bounded = true })).pruned
  end

  it("takes no lock of the writer's for tasks that can't be pruned", function()
    local mj = open { policy = {}, retention = { failed = 0 }, max_in_flight = 1000 }
    unprunable(mj, 1500)
    local commit, ops = mj.exec.commit, 0
    mj.exec.commit = function(exec, list)
      for _, op in ipairs(list) do
        ops = ops + (op.op == "prune" and 1 or 0)
      end
      return commit(exec, list)
    end
    assert.equal(0, assert(mj:prune()).pruned)
    assert.equal(0, ops)
  end)

  it("looks at a part of what can't be pruned in each pass, and comes to all that can", function()
    small_steps()
    local mj = open { policy = {}, retention = { failed = 0, succeeded = 0 }, max_in_flight = 1000 }
    unprunable(mj, 250)
    local last = assert(mj:adopt { task_id = "last", prompt = "a fox" })
    assert(mj.exec:commit { { op = "signal", source = "callback", kind = "failed", task_id = "last", error = "no" } })
    for event in mj:events { ref = last.ref } do
      assert(mj.exec:commit { { op = "bury", ref = last.ref, seq = event.seq, error = "x" } })
    end
    local page = mj.store:page { by = "event", ref = last.ref }
    assert.is_true(page[1].buried)
    assert(mj:kick(page[1].event_id))
    local leased = {}
    while leased.ref ~= last.ref do -- its event is the last one in the outbox
      leased = assert(mj.exec:commit { { op = "take", ["until"] = require("mjhook.core").now() + 60000 } })[1].event
    end
    assert(mj.exec:commit { { op = "done", ref = last.ref, seq = leased.seq, tries = leased.tries } })
    local sweeps = {}
    for i = 1, 6 do
      sweeps[i] = pruned_by(mj)
      if i == 3 then -- the walk has come to its end, and the next one begins with the oldest again
        local oldest = mj:find "U1"
        local e = mj.store:page({ by = "event", ref = oldest.ref })[1]
        assert(mj.exec:commit { { op = "done", ref = oldest.ref, seq = e.seq, tries = e.tries } })
      end
    end
    assert.same({ 0, 0, 1, 1, 0, 0 }, sweeps)
  end)

  it("goes through buried events among many others in pages that are bounded", function()
    local mj = open { policy = {}, max_in_flight = 1000 }
    unprunable(mj, 2500)
    local last = mj:find "U2500"
    assert(mj:bury(last.ref .. "-1", "no"))
    local page, cursor = mj.store:page { by = "event", buried = true, limit = 10 }
    assert.same({}, page)
    assert.is_string(cursor)
    local found = {}
    for event in mj:events { buried = true } do
      found[#found + 1] = event.ref
    end
    assert.same({ last.ref }, found)
  end)

  it("prunes in the reconciler and says how many", function()
    local mj = open { policy = {}, retention = { succeeded = 0 } }
    finished(mj, "k1")
    finished(mj, "k2")
    assert.equal(2, assert(mj:reconcile { budget = 5 }).pruned)
  end)

  it("finds nothing wrong after all that", function()
    local mj = open { policy = {} }
    finished(mj, "k1")
    assert(mj:prune { older_than = 0 })
    finished(mj, "k2")
    local report = assert(mj:check())
    assert.is_true(report.ok)
    assert.same({}, report.problems)
    assert.equal(1, report.tasks)
    assert.equal(1, report.tombs)
  end)

  it("adopts a job that was submitted elsewhere, once, and learns its prompt by polling", function()
    local mj = open { policy = {}, poll = { first = 1, max = 900 } }
    local elsewhere = open { policy = {}, store = kit.tmp() .. "/other" }
    local job = assert(elsewhere:submit { prompt = "a fox --ar 4:5", user_id = "u1" })
    local task = assert(mj:adopt { task_id = job.task_id, user_id = "u2" })
    assert.equal("pending", task.state)
    assert.is_nil(task.prompt)
    assert.is_true(mj:adopt({ task_id = job.task_id }).duplicate)
    assert.equal(task.ref, mj:find(job.task_id).ref)
    sim.finish(job.task_id)
    assert.equal("succeeded", assert(mj:refresh(task.ref)).state)
    assert.matches("fox", mj:get(task.ref).prompt)
    local _, err = mj:adopt { task_id = "no good" }
    assert.equal("invalid", err.code)
  end)

  it("finds a task by its key, also when it is pruned", function()
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    assert.equal(task.ref, mj:find_key("k1").ref)
    assert(mj:prune { older_than = 0 })
    assert.is_true(mj:find_key("k1").pruned)
    local _, err = mj:find_key "k2"
    assert.equal("not_found", err.code)
  end)

  it("makes no backup under half a name, or under none", function()
    local mj = kit.open()
    for _, name in ipairs { "", kit.tmp() .. "/a\0b" } do
      local ok, err = mj:backup(name)
      assert.is_nil(ok)
      assert.equal("invalid", err.code)
    end
  end)

  it("copies itself to where no store is, and only there", function()
    kit.needs "directory"
    local mj = open { policy = {} }
    local task = finished(mj, "k1")
    local to = kit.tmp() .. "/copy"
    assert.is_true(mj:backup(to))
    local copy = open { store = to }
    assert.equal("succeeded", copy:get(task.ref).state)
    assert.is_true(copy:check().ok)
    local ok, err = mj:backup(to)
    assert.is_nil(ok)
    assert.equal("exists", err.code)
  end)

  describe("takes callbacks as they came and", function()
    local core = require "mjhook.core"
    local REF = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

    -- What became of bodies for one task, by name; and the reasons of those that could not be read.
    local function hear(mj, ref, bodies, ops)
      local inbox, names = core.inbox(), {}
      for _, body in ipairs(bodies) do
        assert(inbox:put(ref, 1, body))
      end
      inbox:take()
      local results, outcomes, unreadable = assert(mj.store:write(ops or {}, core.now(), inbox))
      for i = 1, #outcomes do
        names[i] = core.codes[outcomes:byte(i)]
      end
      return names, unreadable, results
    end

    it("does with them what they say", function()
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local body = [[{"taskId":"T1","status":"1","image":"https:\/\/cdn.example\/x.png","mjPrompt":"as run",
        "images":["https://cdn.example/1.png",{"url":"https://cdn.example/2.png"},false],"meta":{"width":1}}]]
      assert.same({ "ok", "duplicate" }, (hear(mj, task.ref, { body, body })))
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.equal("https://cdn.example/x.png", task.image)
      assert.same({ "https://cdn.example/1.png", "https://cdn.example/2.png" }, task.images)
      assert.equal("as run", task.mj_prompt)
      assert.equal(1, task.meta.width)
    end)

    it("takes a failure with its reason, also beside operations of other kinds", function()
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local names, _, results = hear(mj, task.ref, { [[{"taskId":"T1","status":2,"failReason":"banned\u0000word"}]] },
        { { op = "tick" }, { op = "take" } })
      assert.same({ "ok" }, names)
      assert.same({ "ok", "not_found" }, { results[1].code, results[2].code }) -- callbacks come last
      assert.equal("failed", mj:get(task.ref).state)
      assert.equal("banned?word", tostring(mj:get(task.ref).error))
    end)

    it("carries the longest texts there can be", function()
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local url = "https://cdn.example/" .. ("x"):rep(4096 - 20)
      local images = ('"%s",'):format(url):rep(20):sub(1, -2)
      local meta = '["' .. ("m"):rep(65532) .. '"]'
      local body = ('{"taskId":"T1","status":1,"image":"%s","images":[%s],"mjPrompt":"%s","meta":%s}'):format(url,
        images, ("p"):rep(12000), meta)
      assert.same({ "ok" }, (hear(mj, task.ref, { body })))
      task = mj:get(task.ref)
      assert.equal(16, #task.images)
      assert.equal(url, task.images[16])
      assert.equal(10000, #task.mj_prompt)
      assert.equal(65532, #task.meta[1])
    end)

    it("tells why it can't read some, and stores the others", function()
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local names, unreadable = hear(mj, task.ref, { "[", '{"taskId":"T1","status":0}', "{}", "" })
      assert.same({ "invalid", "ok", "invalid", "invalid" }, names)
      assert.same({ "not JSON: it ends too early (byte 2)", nil, "no task in it", "not JSON: it is empty (byte 1)" },
        unreadable)
      local none = select(2, hear(mj, task.ref, { '{"taskId":"T1","status":0}' }))
      assert.is_nil(none)
    end)

    it("has what is taken again read once only", function()
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local inbox = core.inbox()
      assert.same({ 1, 1 }, { inbox:put(task.ref, 1, '{"taskId":"T1","status":0}') })
      assert.same({ 1, 2 }, { inbox:put(task.ref, 1, '{"taskId":"T1","status":0}') })
      assert.equal(1, inbox:take())
      assert.equal(2, #select(2, mj.store:write({}, core.now(), inbox)))
      assert.is_nil(inbox:take())
      assert.equal("", select(2, mj.store:write({}, core.now(), inbox)))
      assert.same({ 2, 1 }, { inbox:put(task.ref, 1, '{"taskId":"T1","status":0}') })
      assert.equal(2, inbox:take())
    end)

    it("finds one inbox from many sides by its name, and its own without one", function()
      local here, there, other, mine = core.inbox "a", core.inbox "a", core.inbox "b", core.inbox()
      assert.same({ 1, 1 }, { here:put(REF, 1, "x") })
      assert.is_nil(other:take())
      assert.is_nil(mine:take())
      assert.is_nil(core.inbox():take())
      assert.equal(1, there:take())
      here:close()
      assert.same({ 2, 1 }, { there:put(REF, 1, "x") }) -- it is there until the last one has closed it
      there:close()
      here = core.inbox "a"
      assert.is_nil(here:take())
      assert.same({ 1, 1 }, { here:put(REF, 1, "x") })
    end)

    it("uses its memory again for the next batch, and lets go of it when it is closed", function()
      if kit.sanitized then
        return
      end
      local mj = open()
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      -- 64 KiB of text that has to be changed
      local images = ('"https:\\/\\/cdn.example\\/%s",'):format(("x"):rep(4000)):rep(16):sub(1, -2)
      local body = ('{"taskId":"T1","status":1,"images":[%s]}'):format(images)
      local function hear_lot(inbox)
        for _ = 1, 30 do
          assert(inbox:put(task.ref, 1, body))
        end
        inbox:take()
        assert(mj.store:write({}, core.now(), inbox))
      end
      local function resident()
        local file = io.open "/proc/self/status"
        local kib = tonumber(file:read("*a"):match "VmRSS:%s+(%d+)")
        file:close()
        return kib
      end
      local inbox = core.inbox()
      for _ = 1, 3 do
        hear_lot(inbox)
      end
      local before = resident()
      for _ = 1, 25 do
        hear_lot(inbox)
      end
      assert.is_true(resident() - before < 20000, resident() - before .. " KiB")
      for _ = 1, 25 do
        local other = core.inbox()
        hear_lot(other)
        other:close()
      end
      assert.is_true(resident() - before < 20000, resident() - before .. " KiB")
    end)

    it("raises when it is given something else", function()
      local inbox = core.inbox()
      assert.has_error(function() inbox:put("no ref", 1, "x") end)
      assert.has_error(function() inbox:put(REF, 0, "x") end)
      assert.has_error(function() inbox:put(REF, 9, "x") end)
      assert.has_error(function() inbox:put(REF, 65, "x") end)
      assert.has_error(function() inbox:put(REF, 1) end)
      assert.is_nil(inbox:take())
      local mj = open()
      assert.has_error(function() mj.store:write({ "x" }, core.now()) end)
      assert.has_error(function() mj.store:write({}, core.now(), {}) end)
      assert.has_error(function() mj.store:write({}, core.now(), mj.store) end)
      inbox:close()
      inbox:close()
      assert.has_error(function() inbox:put(REF, 1, "x") end)
      assert.has_error(function() inbox:take() end)
    end)
  end)
end)
