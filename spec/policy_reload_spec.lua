-- An edited policy is taken over by processes that live on: checked first, and a broken one changes nothing.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

describe("an edited policy", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir, path

  before_each(function()
    dir = kit.tmp()
    path = dir .. "/policy.lua"
  end)

  local real_clock = core.clock

  -- Some time later, for the wall clock, the monotonic one, and the file, which was written a while ago.
  local function later(seconds)
    local before = core.clock
    core.clock = function() return before() + (seconds or 2) * 1000 end
    kit.finally(function() core.clock = real_clock end)
    kit.travel(seconds or 2)
  end

  -- A policy that notes a word for each event.
  local function policy(word)
    return ([[return { on_event = function(task, ctx)
      local file = assert(io.open("%s/seen", "a"))
      file:write("%s\n")
      file:close()
    end }]]):format(dir, word)
  end

  local function edit(text)
    kit.write(path, text)
    later()
  end

  local function seen()
    return (kit.read(dir .. "/seen") or ""):gsub("\n", " "):gsub(" $", "")
  end

  local n = 0
  local function ended(mj)
    n = n + 1
    local task = assert(mj:adopt { task_id = "T" .. n, prompt = "a fox" })
    assert.equal(200, mj:callback({ method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1),
      headers = {}, body = ('{"taskId":"T%d","status":1,"image":"https://img.example/x"}'):format(n) }).status)
  end

  local function open()
    return kit.open({ policy = path }, sim)
  end

  it("is at work with the next delivery, and the log says so", function()
    kit.write(path, policy "old")
    local mj = open()
    ended(mj)
    assert.equal(1, assert(mj:deliver()).delivered)
    edit(policy "new")
    ended(mj)
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.equal("old new", seen())
    assert.truthy(kit.log_text():find("notice: policy: " .. path .. " has changed and is loaded anew", 1, true))
    later()
    ended(mj)
    assert(mj:reconcile { budget = 5 })
    assert.equal("old new new", seen())
    assert.equal(1, select(2, kit.log_text():gsub("loaded anew", "")))
  end)

  for what, broken in pairs {
    ["does not compile"] = "return {", ["raises"] = "error 'no'", ["is no policy"] = "return { on_evnt = print }",
    ["is empty"] = "", ["returns nothing"] = "local x = 1",
  } do
    it("that " .. what .. " leaves the one before at work, and is told once; a corrected one is taken over", function()
      kit.write(path, policy "old")
      local mj = open()
      edit(broken)
      for _ = 1, 3 do
        ended(mj)
        assert(mj:deliver())
        later()
      end
      assert.equal("old old old", seen())
      assert.equal(1, select(2, kit.log_text():gsub("error: policy: [^\n]* stays at work: ", "")), kit.log_text())
      edit(policy "corrected")
      ended(mj)
      assert(mj:deliver())
      assert.equal("old old old corrected", seen())
    end)
  end

  it("that others can write, or that is gone, is not taken over", function()
    kit.write(path, policy "old")
    local mj = open()
    kit.write(path, policy "theirs")
    os.execute("chmod 666 " .. path)
    later()
    ended(mj)
    assert(mj:deliver())
    assert.matches("can be written by others", kit.log_text())
    os.remove(path)
    later()
    ended(mj)
    assert(mj:deliver())
    assert.equal("old old", seen())
    edit(policy "back")
    ended(mj)
    assert(mj:deliver())
    assert.equal("old old back", seen())
  end)

  it("that was put back as it was is not loaded, and one of the same length and time is", function()
    kit.write(path, policy "aaa")
    local mj = open()
    os.execute("touch -d '2020-01-01' " .. path)
    later()
    ended(mj)
    assert(mj:deliver())
    os.execute(("cp %s %s.new && sed -i s/aaa/bbb/ %s.new && touch -d '2020-01-01' %s.new && mv %s.new %s"):format(path,
      path, path, path, path, path))
    later()
    ended(mj)
    assert(mj:deliver())
    assert.equal("aaa bbb", seen())
  end)

  it("is not loaded while it is being written", function()
    kit.write(path, policy "old")
    local mj = open()
    later()
    kit.write(path, "return {") -- the first half
    local half = core.clock
    core.clock = function() return half() + 1000 end
    os.execute("touch -d @" .. ("%.3f"):format(core.now() / 1000) .. " " .. path)
    ended(mj)
    assert(mj:deliver())
    edit(policy "whole")
    ended(mj)
    assert(mj:deliver())
    assert.equal("old whole", seen())
    assert.is_nil(kit.log_text():find("error", 1, true))
  end)

  it("decides at once: next_poll and on_callback, too", function()
    kit.write(path, "return { on_callback = function() return 'ignore' end }")
    local mj = open()
    ended(mj)
    assert.equal(1, mj:stats().tasks.pending)
    edit "return { on_callback = function() return 'accept' end }"
    ended(mj)
    assert.equal(1, mj:stats().tasks.succeeded)
  end)

  it("that stands in the configuration file is taken over, and nothing else of that file", function()
    local config = dir .. "/config.lua"
    local function text(word, batch)
      return ("return { store = %q, api_key = %q, secrets = { %q }, hook_url = 'https://app.example', "
        .. "batch = %d, policy = (function() %s end)() }"):format(
        kit.settings().store, kit.KEY, kit.SECRET, batch, policy(word))
    end
    kit.write(config, text("old", 7))
    local mj = assert(require("mjhook").open { config = config, log = kit.settings().log })
    kit.finally(function() mj:close() end)
    ended(mj)
    assert(mj:deliver())
    kit.write(config, text("new", 8))
    later()
    ended(mj)
    assert(mj:deliver())
    assert.equal("old new", seen())
    assert.equal(7, mj.config.batch)
    kit.write(config, "return { batsch = 7 }")
    later()
    ended(mj)
    assert(mj:deliver())
    assert.equal("old new new", seen())
    assert.matches("batsch: unknown key", kit.log_text())
  end)

  describe("with modules beside it", function()
    local name, mj
    local made = 0

    before_each(function()
      made = made + 1
      name = "beside" .. made -- package.loaded outlives a test
      local paths = package.path
      package.path = dir .. "/lib/?.lua;" .. dir .. "/?.lua;" .. paths
      kit.finally(function() package.path = paths end)
      os.execute("mkdir " .. dir .. "/lib")
    end)

    local function module(text, where)
      kit.write(("%s/%s%s.lua"):format(dir, where or "lib/", name), text)
    end

    local function uses(more)
      return ([[local words = require "%s" %s
        return { on_event = function(task) return words.note(task) end }]]):format(name, more or "")
    end

    local function notes(word)
      return ([[return { note = function()
        local file = assert(io.open("%s/seen", "a"))
        file:write("%s\n")
        file:close()
      end }]]):format(dir, word)
    end

    local function deliver()
      later()
      ended(mj)
      assert(mj:deliver())
      return seen()
    end

    it("is taken over with an edited module, whose file the log names", function()
      module(notes "old")
      kit.write(path, uses())
      mj = open()
      assert.equal("old", deliver())
      module(notes "new")
      assert.equal("old new", deliver())
      assert.truthy(kit.log_text():find(("policy: %s/lib/%s.lua has changed and is loaded anew"):format(dir, name), 1,
        true), kit.log_text())
      assert.equal("old new new", deliver())
      assert.equal(1, select(2, kit.log_text():gsub("loaded anew", "")))
    end)

    it("is taken over with a module of a module", function()
      module('return require "' .. name .. '.inner"')
      os.execute(("mkdir %s/lib/%s"):format(dir, name))
      local inner = ("%s/lib/%s/inner.lua"):format(dir, name)
      kit.write(inner, notes "old")
      kit.write(path, uses())
      mj = open()
      assert.equal("old", deliver())
      kit.write(inner, notes "new")
      assert.equal("old new", deliver())
    end)

    for what, broken in pairs { ["does not compile"] = "return {", ["raises"] = "error 'no'", ["is gone"] = false } do
      it("and one that " .. what .. " leaves all of it at work, and is told once, until it is mended", function()
        module(notes "old")
        kit.write(path, uses())
        mj = open()
        if broken then
          module(broken)
        else
          os.remove(("%s/lib/%s.lua"):format(dir, name))
        end
        deliver()
        deliver()
        assert.equal("old old old", deliver())
        assert.equal(1, select(2, kit.log_text():gsub("error: policy: [^\n]* stays at work: ", "")), kit.log_text())
        assert.is_function(require(name).note) -- for what the old one requires later
        module(notes "mended")
        assert.equal("old old old mended", deliver())
      end)
    end

    it("is taken over when a broken module that it newly requires is mended", function()
      kit.write(path, policy "old")
      mj = open()
      module "return {"
      kit.write(path, uses())
      assert.equal("old", deliver())
      module(notes "mended")
      assert.equal("old mended", deliver())
      kit.write(path, policy "alone")
      assert.equal("old mended alone", deliver())
      module(notes "unused")
      assert.equal("old mended alone alone", deliver())
      assert.equal(2, select(2, kit.log_text():gsub("loaded anew", "")))
    end)

    it("leaves alone what lies elsewhere, was there before, or is mjhook", function()
      local elsewhere = kit.tmp()
      package.path = elsewhere .. "/?.lua;" .. package.path
      kit.write(("%s/%s_else.lua"):format(elsewhere, name), "return {}")
      module("return {}", "shared_")
      local shared = require("shared_" .. name)
      module(notes "old")
      kit.write(path, uses(('require "%s_else" require "shared_%s" require "mjhook.handlers.exec"'):format(name, name)))
      mj = open()
      local other = require(name .. "_else")
      local exec = require "mjhook.handlers.exec"
      deliver()
      kit.write(("%s/%s_else.lua"):format(elsewhere, name), "return { 1 }")
      module("return { 1 }", "shared_")
      assert.equal("old old", deliver())
      assert.is_nil(kit.log_text():find("loaded anew", 1, true))
      module(notes "new")
      assert.equal("old old new", deliver())
      assert.equal(other, require(name .. "_else"))
      assert.equal(shared, require("shared_" .. name))
      assert.equal(exec, require "mjhook.handlers.exec")
    end)

    it("is taken over from a configuration file that requires it", function()
      local config = dir .. "/config.lua"
      module(notes "old")
      kit.write(config, ("return { store = %q, api_key = %q, secrets = { %q }, hook_url = 'https://app.example', "
        .. "policy = { on_event = require(%q).note } }"):format(kit.settings().store, kit.KEY, kit.SECRET, name))
      mj = assert(require("mjhook").open { config = config, log = kit.settings().log })
      kit.finally(function() mj:close() end)
      assert.equal("old", deliver())
      module(notes "new")
      assert.equal("old new", deliver())
    end)
  end)

  it("is loaded by no process whose policy is a table of its own", function()
    local mj = kit.open({ policy = { on_event = function() end } }, sim)
    assert.is_nil(mj.policy.file)
  end)
end)
