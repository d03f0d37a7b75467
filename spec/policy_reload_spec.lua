-- An edited policy is taken over by processes that live on: checked first, and a broken one changes nothing.
local beside = require "mjhook.beside"
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

  for where, isolate in pairs { ["this process"] = false, ["processes of their own"] = true } do
    it("is at work for what is left of a delivery in " .. where, function()
      local function slow(word, first)
        return (policy(word):gsub("local file", function(found)
          return ('require("socket").sleep(0.02) %s %s'):format(first, found)
        end))
      end
      local edited = kit.write(dir .. "/edited.lua", slow("new", ""))
      kit.write(path, slow("old", ("os.rename(%q, %q)"):format(edited, path)))
      local mj = kit.open({ policy = path, handlers = 1 }, sim)
      for _ = 1, 100 do
        ended(mj)
      end
      assert.same({ delivered = 100, buried = 0, errors = 0 }, mj:deliver { isolate = isolate })
      local before, after = seen():match "^([old ]+)([new ]*)$"
      assert.is_true(#after > #before, seen())
    end)
  end

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

  describe("whose modules", function()
    local name
    local made = 0

    before_each(function()
      made = made + 1
      name = "guarded" .. made
      local paths, libraries = package.path, package.cpath
      package.path = dir .. "/lib/?.lua;" .. paths
      kit.finally(function() package.path, package.cpath = paths, libraries end)
      os.execute("mkdir " .. dir .. "/lib")
      kit.write(path, ('return { on_event = require(%q).note }'):format(name))
    end)

    -- A module that notes that it was run, and a word for each event.
    local function module(word, place)
      kit.write(("%s/%s.lua"):format(place or dir .. "/lib", name),
        ('local f = assert(io.open("%s/ran", "a")) f:write("%s ") f:close() return { note = (%s)().on_event }'):format(
          dir, word, "function() " .. policy(word) .. " end"))
    end

    local function refused(why)
      local mj, err = require("mjhook").open(kit.settings({ policy = path }, sim))
      assert.is_nil(mj)
      assert.equal("config", err.code)
      assert.truthy(err.message:find(("policy: module '%s': "):format(name), 1, true), err.message)
      assert.truthy(err.message:find(why, 1, true), err.message)
      assert.is_nil(err.message:find("\n", 1, true))
      assert.is_nil(kit.read(dir .. "/ran"))
    end

    for what, case in pairs {
      ["is a file that others can write"] = { "chmod 666 DIR/lib/NAME.lua", "NAME.lua can be written by others" },
      ["lies in a directory that others can write"] = { "chmod 777 DIR/lib", "DIR/lib can be written by others" },
      ["lies behind a link in a directory that others can write"] =
        { "mv DIR/lib DIR/open; chmod 777 DIR/open; ln -s open DIR/lib", "DIR/open can be written by others" },
      ["is a link to a file that others can write"] =
        { "mv DIR/lib/NAME.lua DIR/x; chmod 666 DIR/x; ln -s ../x DIR/lib/NAME.lua", "NAME.lua can be written by" },
    } do
      it("are refused before they run: one that " .. what, function()
        module "theirs"
        kit.sh((case[1]:gsub("DIR", { DIR = dir }):gsub("NAME", name)))
        refused((case[2]:gsub("DIR", { DIR = dir }):gsub("NAME", name)))
        kit.sh(("chmod 755 %s/lib %s/open; chmod 644 %s/lib/*.lua"):format(dir, dir, dir)) -- and can be mended
        open()
        assert.equal("theirs ", kit.read(dir .. "/ran"))
      end)
    end

    it("are refused when the search path leads there through links from elsewhere", function()
      module "theirs"
      local link = kit.tmp() .. "/link"
      kit.sh(("ln -s %s/lib %s; chmod 777 %s/lib"):format(dir, link, dir))
      package.path = link .. "/?.lua;" .. package.path:gsub("^[^;]*;", "")
      refused(dir .. "/lib can be written by others")
    end)

    it("are refused when they are compiled ones that others can write", function()
      package.cpath = dir .. "/lib/?.so;" .. package.cpath
      kit.write(("%s/lib/%s.so"):format(dir, name), "not run")
      kit.sh(("chmod 666 %s/lib/%s.so"):format(dir, name))
      refused(name .. ".so can be written by others")
    end)

    it("become writable by others are not taken over, and it is told once", function()
      module "old"
      local mj = open()
      module "theirs"
      kit.sh("chmod 777 " .. dir .. "/lib")
      for _ = 1, 2 do
        later()
        ended(mj)
        assert(mj:deliver())
      end
      assert.equal("old old", seen())
      assert.equal("old ", kit.read(dir .. "/ran"))
      local said = ("stays at work: policy: module '%s': %s/lib/%s.lua: the directory %s/lib can be written"):format(
        name, dir, name, dir)
      assert.truthy(kit.log_text():find(said, 1, true), kit.log_text())
      assert.equal(1, select(2, kit.log_text():gsub("stays at work", "")))
      kit.sh("chmod 755 " .. dir .. "/lib") -- is enough
      later()
      ended(mj)
      assert(mj:deliver())
      assert.equal("old old theirs", seen())
      for _, mode in ipairs { 666, 644 } do
        kit.sh(("chmod %d %s/lib/%s.lua"):format(mode, dir, name))
        later()
        ended(mj)
        assert(mj:deliver())
      end
      assert.equal("old old theirs theirs theirs", seen())
      assert.equal(2, select(2, kit.log_text():gsub("stays at work", "")))
    end)

    it("are required by a function when it is called, and others can write them, are not run", function()
      kit.write(path, ([[return {
        on_callback = function() return require(%q).word end,
        on_event = function(task) return require(%q).note(task) end,
      }]]):format(name, name))
      local mj = open()
      local count = #(package.searchers or package.loaders) -- luacheck: ignore 143
      module "theirs"
      kit.sh("chmod 777 " .. dir .. "/lib")
      ended(mj)
      assert.matches("on_callback raised: module '" .. name .. "': .* can be written by others", kit.log_text())
      assert(mj.exec:commit { { op = "signal", ref = mj:tasks { limit = 1 }().ref, kind = "succeeded", source = "poll",
                                task_id = "T" .. n, image = "https://img.example/1" } })
      assert.equal(0, assert(mj:deliver()).delivered)
      assert.is_nil(kit.read(dir .. "/ran"))
      assert.equal(count, #(package.searchers or package.loaders)) -- luacheck: ignore 143
      kit.sh("chmod 755 " .. dir .. "/lib")
      kit.travel(3600)
      assert.equal(1, assert(mj:deliver()).delivered)
      assert.equal("theirs", seen())
    end)

    it("are not there are named in one line", function()
      local mj, err = require("mjhook").open(kit.settings({ policy = path }, sim))
      assert.is_nil(mj)
      assert.equal(("policy: %s:1: module '%s' not found"):format(path, name), err.message)
    end)
  end)

  describe("that never ends when it is loaded", function()
    local loops = {
      ["itself"] = "while true do end",
      ["though it catches errors"] = "while true do pcall(function() while true do end end) end",
      ["in a coroutine"] = "coroutine.wrap(function() while true do end end)()",
      ["in a module"] = 'require "endless"',
    }

    before_each(function()
      local paths = package.path
      package.path = dir .. "/?.lua;" .. paths
      kit.finally(function() package.path = paths end)
      local limit = beside.LOAD_S
      beside.LOAD_S = 0.1
      kit.finally(function() beside.LOAD_S = limit end)
      kit.write(dir .. "/endless.lua", "local n = 0 while true do n = n + 1 end")
    end)

    for what, text in pairs(loops) do
      it("is interrupted: " .. what, function()
        kit.write(path, text .. " return {}")
        local begun = real_clock()
        local mj, err = require("mjhook").open(kit.settings({ policy = path }, sim))
        assert.is_nil(mj)
        assert.equal("config", err.code)
        assert.equal(("policy: %s did not load within 2 s"):format(path), err.message)
        assert.is_true(real_clock() - begun < 4000)
      end)
    end

    it("is interrupted in the configuration file", function()
      local config = kit.write(dir .. "/config.lua", 'return { policy = { on_event = require "endless" } }')
      local mj, err = require("mjhook").open { config = config }
      assert.is_nil(mj)
      assert.truthy(err.message:find(config .. " did not load within 2 s", 1, true), err.message)
    end)

    it("leaves the one before at work, is told once, and is tried again when a file changes", function()
      kit.write(path, policy "old")
      local mj = open()
      edit 'return require "endless"'
      for _ = 1, 3 do
        ended(mj)
        assert(mj:deliver())
        later()
      end
      assert.equal("old old old", seen())
      local said = ("stays at work: policy: %s did not load within 2 s"):format(path)
      assert.truthy(kit.log_text():find(said, 1, true), kit.log_text())
      assert.equal(1, select(2, kit.log_text():gsub("stays at work", "")))
      kit.write(dir .. "/endless.lua", policy "ended")
      later()
      ended(mj)
      assert(mj:deliver())
      assert.equal("old old old ended", seen())
      package.loaded.endless = nil
    end)

    it("leaves handlers their own time", function()
      kit.write(path, ([[return { on_event = function()
        local begun = os.clock()
        while os.clock() < begun + 0.3 do end
        local file = assert(io.open("%s/seen", "a"))
        file:write "slow"
        file:close()
      end }]]):format(dir))
      local mj = open()
      ended(mj)
      assert(mj:deliver())
      assert.equal("slow", seen())
    end)
  end)

  it("is loaded by no process whose policy is a table of its own", function()
    local mj = kit.open({ policy = { on_event = function() end } }, sim)
    assert.is_nil(mj.policy.file)
  end)
end)
