-- The rest of the Lua API: opening, looking, cancelling, refreshing, counting, closing.
local core = require "mjhook.core"
local kit = require "kit"
local mjhook = require "mjhook"
local sim = require "sim"

local UNKNOWN_REF = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
local AS_ROOT = core.uid() == 0

describe("mjhook", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  local function open(more)
    mj = kit.open(more, sim)
    return mj
  end

  local function submit(more)
    local args = { prompt = "a fox" }
    for k, v in pairs(more or {}) do
      args[k] = v
    end
    return (assert(mj:submit(args)))
  end

  -- Checks that f raises `text` at the line it is called in; f is given to be called so.
  local function raises(text, f)
    local ok, err = pcall(f)
    assert.is_false(ok)
    assert.matches(text, err)
    assert.matches("^spec/api_spec.lua:%d+: ", (err:gsub("^.-(spec/api_spec.lua)", "%1")))
  end

  describe("open", function()
    it("says its version", function()
      assert.matches("^%d+%.%d+%.%d+$", mjhook.version)
    end)

    for _, value in ipairs { "text", 7, true } do
      it("raises at the caller's line when given a " .. type(value), function()
        local line = debug.getinfo(1, "l").currentline + 2
        local ok, err = pcall(function()
          local x = mjhook.open(value)
          return x
        end)
        assert.is_false(ok)
        assert.matches("api_spec.lua:" .. line .. ": mjhook.open: table expected, got " .. type(value), err)
      end)
    end

    it("makes the store's directory, for its user alone", function()
      kit.needs "directory"
      open()
      local st = core.stat(kit.store)
      assert.equal("directory", st.type)
      assert.equal(0, st.mode % 64) -- nothing for group and others
      for _, name in ipairs { "data.mdb", "lock.mdb" } do
        assert.equal(384, core.stat(kit.store .. "/" .. name).mode, name) -- 0600
      end
    end)

    it("fails with a value when the parent is not there", function()
      local got, err = mjhook.open { store = "/nowhere/at/all" }
      assert.is_nil(got)
      assert.matches("/nowhere/at/all", err.message)
      assert.equal("string", type(err.code))
    end)

    it("fails with a value when the store is no store", function()
      local path = kit.tmp() .. "/store"
      os.execute("mkdir " .. path)
      kit.write(path .. "/data.mdb", ("not a database "):rep(1000))
      local got, err = mjhook.open { store = path }
      assert.is_nil(got)
      assert.equal("format", err.code)
      assert.matches("not a database", kit.read(path .. "/data.mdb")) -- and is left as it is
    end)

    if AS_ROOT then
      it("refuses another user's store before it touches a file, root included, and names the owner", function()
        kit.needs "directory"
        open()
        mj:close()
        os.execute("chown -R 65534 " .. kit.quote(kit.store))
        local before = kit.sh("stat -c '%n %y %z %s' " .. kit.quote(kit.store) .. "/*")
        local got, err = mjhook.open { store = kit.store }
        assert.is_nil(got)
        assert.equal("owner", err.code)
        assert.is_true(err.message:find("65534", 1, true) ~= nil or err.message:find("nobody", 1, true) ~= nil)
        assert.equal(before, kit.sh("stat -c '%n %y %z %s' " .. kit.quote(kit.store) .. "/*"))
      end)
    end

    it("finds everything again", function()
      open()
      local task = submit { context = { n = 1 }, key = "k" }
      mj:close()
      open()
      assert.same(task, mj:get(task.ref))
      assert.is_true(submit({ context = { n = 1 }, key = "k" }).duplicate)
    end)

    it("shares a store between handles of a process and between Luas", function()
      kit.needs "processes"
      local a, b = open(), kit.open({}, sim)
      mj = a
      local task = submit()
      assert.equal(task.ref, b:find(task.task_id).ref)
      a:close()
      assert.equal(task.ref, b:get(task.ref).ref) -- closing one leaves the other alone
      local out = kit.sh(kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q })
        io.stdout:write(mj:find(%q).ref)
      ]]):format(kit.store, task.task_id), kit.other_lua))
      assert.equal(task.ref, out)
    end)
  end)

  describe("get and find", function()
    it("give the task", function()
      open()
      local task = submit()
      assert.same(task, mj:get(task.ref))
      assert.same(task, mj:find(task.task_id))
      assert.equal(1, select("#", mj:find(task.task_id)))
    end)

    it("give nil and not_found for what is not there", function()
      open()
      for _, ref in ipairs { UNKNOWN_REF, "", "x", ("Z"):rep(26), ("0"):rep(27), "\0", ("x"):rep(1000) } do
        for _, name in ipairs { "get", "find", "refresh", "cancel" } do
          local task, err = mj[name](mj, ref)
          assert.is_nil(task)
          assert.equal("not_found", err.code, name)
          assert.is_false(err.retryable)
          assert.is_true(#tostring(err) > 0)
        end
      end
    end)

    it("take a ref in lower case", function()
      open()
      local task = submit()
      assert.equal(task.ref, mj:get(task.ref:lower()).ref)
    end)

    for _, name in ipairs { "get", "find", "refresh", "cancel", "backup" } do
      it("raise at the caller's line when misused: " .. name, function()
        open()
        for _, value in ipairs { 7, true, {} } do
          raises(name .. ": string expected, got " .. type(value), function()
            local x = mj[name](mj, value)
            return x
          end)
        end
        raises(name .. ": string expected, got nil", function()
          local x = mj[name](mj)
          return x
        end)
        raises("call it as a method", function()
          local x = mj[name](UNKNOWN_REF)
          return x
        end)
      end)
    end
  end)

  describe("tasks", function()
    local function list(options)
      local prompts = {}
      for task in mj:tasks(options) do
        prompts[#prompts + 1] = task.prompt
      end
      return table.concat(prompts, " ")
    end

    before_each(function()
      open { max_in_flight = 3 }
      for i = 1, 5 do
        submit { prompt = "p" .. i, user_id = i % 2 == 1 and "odd" or "even" }
      end
    end)

    it("come newest first", function()
      assert.equal("p5 p4 p3 p2 p1", list())
      assert.equal("p5 p4 p3 p2 p1", list {})
    end)

    it("are picked by state, by user, by both", function()
      assert.equal("p5 p4", list { state = "queued" })
      assert.equal("p3 p2 p1", list { state = "pending" })
      assert.equal("", list { state = "lost" })
      assert.equal("p5 p3 p1", list { user_id = "odd" })
      assert.equal("p4 p2", list { user_id = "even" })
      assert.equal("", list { user_id = "eve" })
      assert.equal("", list { user_id = "odd\0" })
      assert.equal("", list { user_id = "" })
      assert.equal("", list { user_id = ("u"):rep(1000) })
      assert.equal("p3 p1", list { user_id = "odd", state = "pending" })
    end)

    it("end at a limit", function()
      assert.equal("p5 p4", list { limit = 2 })
      assert.equal("p3", list { limit = 1, state = "pending" })
      assert.equal("p3", list { limit = 1, state = "pending", user_id = "odd" })
      assert.equal("", list { limit = 0 })
    end)

    it("begin at a time", function()
      local now = core.now()
      assert.equal("", list { since = now + 60000 })
      kit.travel(100)
      submit { prompt = "new", user_id = "odd" }
      assert.equal("new", list { since = now + 60000 })
      assert.equal("new", list { since = now + 60000, user_id = "odd" })
      assert.equal("new", list { since = now + 60000, state = "queued" })
      assert.equal("new p5 p4 p3 p2 p1", list { since = 0 })
    end)

    it("come in pages inside, each once, also while they change", function()
      mj:close()
      open { base_url = "http://127.0.0.1:1" }
      local ops = {}
      for i = 1, 250 do
        ops[i] = { op = "create", source = "user", task = { prompt = "q" .. i, fingerprint = ("x"):rep(32) } }
      end
      assert(mj.exec:commit(ops))
      local seen, n = {}, 0
      for task in mj:tasks { state = "queued" } do
        assert.is_nil(seen[task.ref])
        seen[task.ref] = true
        n = n + 1
        assert(mj:cancel(task.ref)) -- it leaves the list that is walked
      end
      assert.equal(252, n)
      assert.equal(252, mj:stats().tasks.cancelled)
    end)

    it("go on being over when they are over", function()
      local next_task = mj:tasks { state = "queued" }
      assert.truthy(next_task())
      assert.truthy(next_task())
      assert.is_nil(next_task())
      assert.is_nil(next_task())
    end)

    local misuse = {
      { "text", "table expected, got string" }, { { status = "queued" }, "unknown field 'status'" },
      { { state = 7 }, "bad field 'state'" }, { { limit = "7" }, "bad field 'limit'" },
      { { since = {} }, "bad field 'since'" }, { { user_id = 7 }, "bad field 'user_id'" },
      { { 7 }, "unknown field '1'" }, { { state = "done" }, 'no state "done"' }, { { state = "" }, "no state" },
    }
    for i, case in ipairs(misuse) do
      it("raise at the caller's line when misused: " .. i, function()
        raises("tasks: " .. case[2], function()
          for _ in mj:tasks(case[1]) do -- luacheck: ignore
          end
        end)
      end)
    end
  end)

  describe("cancel", function()
    it("gives up what is not sent yet, and frees nothing it does not hold", function()
      open { max_in_flight = 1 }
      submit()
      local task = submit()
      assert.equal("queued", task.state)
      local cancelled = assert(mj:cancel(task.ref))
      assert.equal("cancelled", cancelled.state)
      assert.equal("user", cancelled.source)
      assert.equal("number", type(cancelled.finished_at))
      kit.travel(2000)
      assert(mj:reconcile {})
      assert.equal(1, sim.requests "submit")
      assert.equal("cancelled", mj:get(task.ref).state)
      assert.equal(0, mj:stats().events)
    end)

    it("gives up a pending and an ambiguous task", function()
      open()
      sim.script { submit = { "ok", "cut" } }
      local pending, ambiguous = submit(), submit()
      assert.equal("ambiguous", ambiguous.state)
      assert.equal("cancelled", assert(mj:cancel(pending.ref)).state)
      assert.equal("cancelled", assert(mj:cancel(ambiguous.ref)).state)
    end)

    it("is an error for what is over", function()
      open()
      local task = submit()
      assert(mj:cancel(task.ref))
      local before = mj:get(task.ref)
      local again, err = mj:cancel(task.ref)
      assert.is_nil(again)
      assert.equal("state", err.code)
      assert.matches("cancelled", err.message)
      assert.same(before, mj:get(task.ref))
    end)

    it("while its answer is still to come keeps it cancelled, with its id", function()
      open()
      local perform = mj.exec.http
      mj.exec.http = function(self, ...)
        assert(mj:cancel(mj:tasks {}().ref))
        return perform(self, ...)
      end
      local task = submit()
      assert.equal("cancelled", task.state)
      assert.equal(sim.jobs()[1].taskId, task.task_id)
    end)
  end)

  describe("refresh", function()
    it("asks now", function()
      open()
      local task = submit()
      assert.equal("pending", assert(mj:refresh(task.ref)).state)
      sim.finish(task.task_id)
      local fresh = assert(mj:refresh(task.ref))
      assert.equal("succeeded", fresh.state)
      assert.equal("poll", fresh.source)
      assert.equal(2, sim.requests "status")
      assert.equal(1, mj:stats().events)
    end)

    it("is an error for a task that was never sent", function()
      open { base_url = "http://127.0.0.1:1" }
      local task, err = mj:refresh(submit().ref)
      assert.is_nil(task)
      assert.equal("state", err.code)
    end)

    it("gives an error when the provider gives no answer, and leaves the task alone", function()
      open()
      local task = submit()
      local cases = {
        { "unauthorized", "auth", false }, { "http_500", "provider", true }, { "garbage", "provider", true },
        { "hang", "network", true },
      }
      for _, case in ipairs(cases) do
        sim.script { status = { case[1] } }
        local got, err = mj:refresh(task.ref)
        assert.is_nil(got)
        assert.equal(case[2], err.code)
        assert.equal(case[3], err.retryable)
        assert.equal("pending", mj:get(task.ref).state)
      end
    end)

    it("of a task that is over changes nothing but the timeline", function()
      open()
      local task = submit()
      sim.finish(task.task_id)
      local first = assert(mj:refresh(task.ref))
      local again = assert(mj:refresh(task.ref))
      assert.equal(first.finished_at, again.finished_at)
      assert.equal(1, mj:stats().events)
    end)
  end)

  it("adopts a job that was submitted elsewhere", function()
    open()
    local other = kit.settings({ store = kit.tmp() .. "/other" }, sim)
    local elsewhere = assert(mjhook.open(other))
    local theirs = assert(elsewhere:submit { prompt = "a wolf" })
    elsewhere:close()
    local task = assert(mj:adopt { task_id = theirs.task_id, prompt = "a wolf", user_id = "u" })
    assert.equal("pending", task.state)
    assert.equal(theirs.task_id, task.task_id)
    assert.is_true(assert(mj:adopt { task_id = theirs.task_id, prompt = "a wolf", user_id = "u" }).duplicate)
    sim.finish(theirs.task_id)
    kit.travel(100)
    assert.equal(1, assert(mj:reconcile {}).succeeded)
    assert.equal("succeeded", mj:get(task.ref).state)
    assert.equal(1, sim.requests "submit")
  end)

  it("counts", function()
    open { max_in_flight = 2 }
    sim.script { submit = { "ok", "cut", "ok" } }
    submit()
    submit()
    local queued = submit()
    submit()
    mj:cancel(queued.ref)
    local stats = mj:stats()
    assert.same({
      queued = 1, submitting = 0, ambiguous = 1, pending = 1, succeeded = 0, failed = 0, lost = 0, cancelled = 1,
    }, stats.tasks)
    assert.same({ 1, 0 }, { stats.events, stats.buried })
    assert.same({ { name = "default", held = 2, max_in_flight = 2 } }, stats.accounts)
    assert.is_true(stats.bytes_used > 0 and stats.bytes_used <= (kit.database and math.huge or stats.bytes_mapped))
  end)

  describe("close", function()
    it("can be said twice", function()
      open()
      mj:close()
      mj:close()
      assert.equal("mjhook (closed)", tostring(mj))
    end)

    for _, name in ipairs {
      "submit", "get", "find", "refresh", "callback", "tasks", "cancel", "reconcile", "deliver", "stats", "prune",
      "check", "backup", "adopt",
    } do
      it("makes " .. name .. " raise at the caller's line", function()
        open()
        mj:close()
        raises("mjhook is closed", function()
          local x = mj[name](mj, {})
          return x
        end)
      end)
    end

    it("happens at the end of a block", function()
      kit.needs "directory"
      if rawget(_G, "jit") then
        return -- Lua 5.4's
      end
      kit.settings()
      local code = "local mj <close> = ... return tostring(mj), mj"
      local before, inside = load(code)(mjhook.open { store = kit.store })
      assert.matches("^mjhook %(/", before)
      assert.equal("mjhook (closed)", tostring(inside))
    end)

    it("is done by the garbage collector for what was forgotten", function()
      kit.settings()
      for _ = 1, 50 do
        assert(mjhook.open { store = kit.store })
      end
      collectgarbage()
      collectgarbage()
      open()
      assert.equal("pending", submit().state)
    end)
  end)
end)
