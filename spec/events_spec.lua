-- Events by hand, from Lua and from the command line: looked at, handed out again, given up.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"

describe("an event", function()
  after_each(kit.cleanup)

  local mj, calls, fails

  before_each(function()
    calls, fails = {}, {}
    mj = kit.open { policy = {
      on_event = function(task, ctx)
        calls[#calls + 1] = ctx.event_id
        if fails[task.prompt] then
          error("no room for " .. task.prompt, 0)
        end
      end,
    } }
  end)

  -- A task that ended, with its event waiting.
  local function ended(name)
    local task = assert(mj:adopt { task_id = name, prompt = name })
    local results = assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "succeeded", source = "callback",
      task_id = name, image = "https://img.example/x.png" } })
    assert.equal("ok", results[1].code)
    return task.ref
  end

  -- One whose event was given up after its twentieth try.
  local function buried(name)
    local ref = ended(name)
    fails[name] = true
    for _ = 1, 20 do
      mj:deliver()
      kit.travel(4000)
    end
    fails[name] = nil
    return ref
  end

  local function ids(options)
    local list = {}
    for event in mj:events(options) do
      list[#list + 1] = event.event_id
    end
    return list
  end

  it("is listed while it waits, with its tries and errors, and gone when it is delivered", function()
    local ref = ended "A"
    fails.A = true
    mj:deliver()
    local event = mj:events()()
    assert.same({ ref .. "-1", "succeeded", 1, false, ref }, { event.event_id, event.type, event.tries, event.buried,
                                                             event.ref })
    assert.truthy(event.errors[1].message:find("no room for A", 1, true))
    assert.same({}, ids { buried = true })
    fails.A = nil
    kit.travel(60)
    mj:deliver()
    assert.same({}, ids())
  end)

  it("is found by its task among others, and any number of them is listed", function()
    local refs = {}
    for i = 1, 230 do
      refs[i] = ended("T" .. i)
    end
    assert.equal(230, #ids())
    assert.equal(7, #ids { limit = 7 })
    assert.same({ refs[99] .. "-1" }, ids { ref = refs[99] })
    assert.same({}, ids { ref = "nonsense" })
    assert.equal(0, assert(mj:bulk("bury", { ref = "nonsense" })).matched)
  end)

  it("that is buried is handed out at once when it is kicked, with twenty tries ahead", function()
    local ref = buried "A"
    local id = ref .. "-1"
    assert.same({ id }, ids { buried = true })
    assert.equal(1, mj:stats().buried)
    calls = {}
    assert.is_true(mj:kick(id))
    assert.same({ 1, 0 }, { mj:stats().events, mj:stats().buried })
    fails.A = true
    mj:deliver() -- the twenty-first try of its life, and not its last
    assert.same({ id }, calls)
    assert.equal(0, mj:stats().buried)
    assert.truthy(mj:events()().next_at <= core.now() + 20000) -- the pause after a first try
    fails.A = nil
    kit.travel(4000)
    mj:deliver()
    assert.same({ id, id }, calls)
    assert.same({}, ids())
  end)

  it("that waits for its next try is handed out at once when it is kicked", function()
    local ref = ended "A"
    fails.A = true
    mj:deliver()
    mj:deliver()
    assert.equal(1, #calls)
    fails.A = nil
    assert.is_true(mj:kick(ref .. "-1"))
    mj:deliver()
    assert.equal(2, #calls)
  end)

  it("that is not there can't be kicked or given up, and the error says what to do", function()
    local ref = ended "A"
    mj:deliver()
    for _, id in ipairs { ref .. "-1", ref .. "-2", ref, "x", "", ref .. "-0", ref .. "-99999999999999999999" } do
      local ok, err = mj:kick(id)
      assert.is_nil(ok)
      assert.equal("not_found", err.code)
      assert.equal("not_found", select(2, mj:bury(id)).code)
    end
    assert.truthy(select(2, mj:kick(ref .. "-1")).message:find("replay", 1, true))
  end)

  it("that is given up keeps the reason and is delivered no more", function()
    local ref = ended "A"
    assert.is_true(mj:bury(ref .. "-1", "the customer has left"))
    assert.equal("duplicate", select(2, mj:bury(ref .. "-1")).code)
    mj:deliver()
    assert.same({}, calls)
    local event = mj:events { buried = true }()
    assert.equal("the customer has left", event.errors[1].message)
    assert.is_true(mj:kick(ref .. "-1"))
    assert.is_true(mj:bury(ref .. "-1"))
    assert.equal("given up by hand", mj:events { buried = true }().errors[2].message)
    calls = {}
    assert.same({ delivered = 0, buried = 0, errors = 0 }, mj:deliver())
  end)

  it("that is being handled can't be kicked or given up meanwhile", function()
    local ref = ended "A"
    local said = {}
    mj.policy.functions.on_event = function(_, ctx)
      said = { select(2, mj:kick(ctx.event_id)), select(2, mj:bury(ctx.event_id)), select(2, mj:replay(ref)) }
    end
    mj:deliver()
    for i = 1, 3 do
      assert.equal("state", said[i].code)
    end
    assert.is_true(said[1].retryable and said[2].retryable) -- in a moment it is over
  end)

  it("is replayed under its own id, also long after it was delivered", function()
    local ref = ended "A"
    mj:deliver()
    assert.equal(ref .. "-1", mj:replay(ref))
    mj:deliver()
    assert.same({ ref .. "-1", ref .. "-1" }, calls)
    assert.same({}, ids())
  end)

  it("of a task without an end, of a pruned or an unknown one is not replayed", function()
    local open = assert(mj:adopt { task_id = "B", prompt = "B" }).ref
    assert.equal("state", select(2, mj:replay(open)).code)
    local ref = ended "A"
    mj:deliver()
    kit.travel(10)
    assert.equal(1, mj:prune({ older_than = 1 }).pruned)
    assert.equal("not_found", select(2, mj:replay(ref)).code)
    assert.equal("not_found", select(2, mj:replay("nonsense")).code)
  end)

  it("by wrong types is an error at the caller's line", function()
    for _, call in ipairs {
      function() mj:kick(7) end, function() mj:bury() end, function() mj:bury("x", 7) end, function() mj:replay {} end,
      function() mj:events { limit = "7" } end, function() mj:events { nonsense = true } end,
    } do
      local ok, err = pcall(call)
      assert.is_false(ok)
      assert.truthy(tostring(err):find("events_spec.lua:%d+:"))
    end
  end)

  describe("on the command line", function()
    local function run(arguments)
      local dir = kit.tmp()
      local settings = kit.settings {}
      kit.needs "processes"
      settings.log = nil
      local config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
      local out, code = kit.sh(("env -u COLUMNS NO_COLOR=1 MJHOOK_BUILD=%s %s %s/scripts/mjhook -c %s %s </dev/null")
        :format(kit.quote(kit.build), kit.lua, kit.root, config, arguments))
      return out, code
    end

    it("is shown as a row or as JSON, kicked alone or with all that are buried", function()
      local one, two = buried "A", buried "B"
      local out, code = run "events --buried"
      assert.equal(0, code)
      assert.truthy(out:find(one .. "-1  succeeded", 1, true))
      assert.truthy(out:find("buried  on_event raised: no room for A", 1, true))
      local event = cjson.decode((run("events --json " .. two)))
      assert.same({ two .. "-1", true, 5 }, { event.event_id, event.buried, #event.errors })
      assert.equal(one .. "-1", (run("kick " .. one .. "-1")))
      out, code = run "kick --all"
      assert.same({ two .. "-1", 0 }, { out, code })
      assert.same({ "mjhook: no event is buried", 0 }, { run "events --buried" })
      assert.equal(2, mj:deliver().delivered)
    end)

    it("is given up with a reason, and replayed", function()
      local ref = ended "A"
      assert.equal(ref .. "-1", (run("bury --reason 'not wanted' " .. ref .. "-1")))
      assert.truthy((run "events"):find("not wanted", 1, true))
      assert.equal(ref .. "-1", (run("replay " .. ref)))
      assert.equal(1, mj:deliver().delivered)
      local out, code = run("kick " .. ref .. "-1")
      assert.equal(1, code)
      assert.truthy(out:find("is not there", 1, true))
      assert.equal(64, select(2, run "kick"))
      assert.equal(64, select(2, run("kick --all " .. ref)))
      assert.equal(1, select(2, run "replay nonsense"))
    end)

    it("is not needed to watch a task to its end", function()
      kit.needs "processes"
      local task = assert(mj:adopt { task_id = "W", prompt = "W" })
      local dir = kit.tmp()
      local settings = kit.settings {}
      settings.log = nil
      local config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
      local watch = kit.spawn(("exec env -u COLUMNS NO_COLOR=1 MJHOOK_BUILD=%s %s %s/scripts/mjhook -c %s watch W")
        :format(kit.quote(kit.build), kit.lua, kit.root, config))
      kit.wait_until(function()
        return watch:out():find "pending"
      end)
      assert.is_nil(watch:status())
      mj.exec:commit { { op = "signal", ref = task.ref, kind = "succeeded", source = "callback", task_id = "W",
                         image = "https://img.example/x.png" } }
      assert.equal(0, watch:wait())
      assert.equal(task.ref .. " pending\n" .. task.ref .. " succeeded https://img.example/x.png\n", watch:out())
      local other = assert(mj:adopt { task_id = "X", prompt = "X" })
      local out, code = run "watch --timeout 0 X"
      assert.equal(1, code)
      assert.truthy(out:find(other.ref .. " pending", 1, true))
    end)
  end)
end)
