-- An edited policy is seen by programs that run for long; the other cases are in spec/policy_reload_spec.lua.
local kit = require "kit"
local receiver = require "receiver"
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

  -- A policy that notes a word for each event.
  local function policy(word)
    return ([[return { on_event = function(task, ctx)
      local file = assert(io.open("%s/seen", "a"))
      file:write("%s\n")
      file:close()
    end }]]):format(dir, word)
  end

  local n = 0
  local function ended(mj)
    n = n + 1
    local task = assert(mj:adopt { task_id = "T" .. n, prompt = "a fox" })
    assert.equal(200, mj:callback({ method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1),
      headers = {}, body = ('{"taskId":"T%d","status":1,"image":"https://img.example/x"}'):format(n) }).status)
  end

  local function count(word)
    return select(2, (kit.read(dir .. "/seen") or ""):gsub(word, ""))
  end

  -- Edited when it was written a moment ago: a real clock decides here.
  local function wait_for(word)
    kit.wait_until(function() return count(word) > 0 end)
  end

  it("is seen by mjhook-reconcile --interval, and a broken one is told", function()
    kit.write(path, policy "old")
    local mj = kit.open({ policy = {} }, sim)
    local settings = kit.settings({ policy = path }, sim)
    settings.log = nil
    local config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
    local loop = kit.spawn(("exec %s/bin/mjhook-reconcile -c %s --interval 0.1"):format(kit.build, config))
    ended(mj)
    wait_for "old"
    kit.write(path, "return {")
    kit.wait_until(function() return loop:err():find("stays at work", 1, true) end)
    ended(mj)
    kit.wait_until(function() return count "old" == 2 end)
    kit.write(path, policy "new")
    kit.wait_until(function() return loop:err():find("loaded anew", 1, true) end)
    ended(mj)
    wait_for "new"
    assert.is_nil(loop:status())
  end)

  it("is seen by nginx, in its workers and in its threads", function()
    kit.write(path, policy "old")
    local web = receiver.start { settings = { policy = path } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local function job()
      sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    end
    job()
    wait_for "old"
    kit.write(path, "return {")
    kit.wait_until(function() return web:log():find("stays at work", 1, true) end)
    kit.write(path, policy "new")
    kit.wait_until(function() return web:log():find("loaded anew", 1, true) end)
    kit.wait_until(function()
      job()
      return count "new" > 0
    end)
    assert.is_nil(web:log():find("could not be delivered", 1, true))
  end)

  it("that never ends when it is loaded, or whose module others can write, stops neither nginx nor a loop", function()
    kit.write(path, policy "old")
    local web = receiver.start { settings = { policy = path } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local settings = kit.settings({ policy = path }, sim)
    settings.log = nil
    local config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
    local loop = kit.spawn(("exec %s/bin/mjhook-reconcile -c %s --interval 0.1"):format(kit.build, config))
    local function told(what)
      kit.wait_until(function() return web:log():find(what, 1, true) and loop:err():find(what, 1, true) end)
    end
    ended(mj)
    wait_for "old"
    kit.write(path, "local n = 0 while true do n = n + 1 end")
    told(path .. " did not load within 2 s")
    kit.write(dir .. "/theirs_beside.lua", policy "theirs")
    kit.sh("chmod 666 " .. dir .. "/theirs_beside.lua")
    kit.write(path, ('package.path = %q .. "/?.lua;" .. package.path return require "theirs_beside"'):format(dir))
    told "theirs_beside.lua can be written by others"
    ended(mj)
    kit.wait_until(function() return count "old" == 2 end)
    assert.equal(0, count "theirs")
    kit.write(path, "while true do end")
    kit.wait_until(function()
      return select(2, loop:err():gsub("did not load within 2 s", "")) == 2
    end)
    loop:kill "TERM"
    assert.equal(0, loop:wait())
  end)

  it("is taken over with a module beside it, by nginx' worker and by the thread that delivers", function()
    local uses = ([[package.path = %q .. "/?.lua;" .. package.path
      return { on_event = function(task) return require "words_beside".note(task) end,
               on_callback = require "words_beside".on_callback }]]):format(dir)
    local function module(word, answer)
      kit.write(dir .. "/words_beside.lua", ([[return { on_callback = function() return %q end,
        note = (function() %s end)().on_event }]]):format(answer, policy(word)))
    end
    module("old", "verify")
    kit.write(path, uses)
    local web = receiver.start { settings = { policy = path } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local asked = assert(mj:submit { prompt = "a fox" })
    sim.finish(asked.task_id)
    kit.wait_until(function() return mj:get(asked.ref).called_at end)
    assert.equal("pending", mj:get(asked.ref).state)
    module("new", "accept")
    local said = dir .. "/words_beside.lua has changed and is loaded anew"
    kit.wait_until(function() return web:log():find(said, 1, true) end)
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    wait_for "new"
  end)

  it("that is broken leaves the one before at work also in a thread that has not loaded any yet", function()
    kit.write(path, policy "old")
    local web = receiver.start { settings = { policy = path } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    kit.write(path, "return {")
    kit.wait_until(function() return web:log():find("stays at work", 1, true) end)
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    wait_for "old"
    kit.write(path, policy "new")
    kit.wait_until(function() return web:log():find("loaded anew", 1, true) end)
    kit.wait_until(function()
      sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
      return count "new" > 0
    end)
    assert.is_nil(web:log():find("could not be delivered", 1, true))
  end)

  it("whose module breaks, or whose configuration, leaves all of it at work, also in what begins later", function()
    local web = receiver.prepare()
    kit.write(web.dir .. "/breaks_beside.lua", ([[return { on_callback = function() return "accept" end,
      on_event = (function() %s end)().on_event }]]):format(policy "old"))
    kit.write(web.dir .. "/config.lua", ([[package.path = %q .. "/?.lua;" .. package.path
      local settings = (function() %s end)()
      settings.policy = require "breaks_beside"
      return settings]]):format(web.dir, receiver.config_text(web.settings)))
    web:start()
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    kit.write(web.dir .. "/breaks_beside.lua", "return {")
    kit.wait_until(function() return web:log():find("stays at work", 1, true) end)
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    wait_for "old"
    kit.write(web.dir .. "/config.lua", "return {")
    local worker = web:workers()
    kit.sh("kill -KILL " .. worker)
    kit.wait_until(function() return web:workers() ~= "" and web:workers() ~= worker end)
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    kit.wait_until(function() return count "old" == 2 end)
    kit.wait_until(function() return web:log():find("what it was before is at work", 1, true) end)
    assert.is_nil(web:log():find("could not be delivered", 1, true))
    assert.is_nil(web:log():find("can't be opened", 1, true))
  end)

  it("brings handlers to an nginx that began with none", function()
    kit.write(path, "return { on_callback = function() return 'accept' end }")
    local web = receiver.start { settings = { policy = path } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    kit.write(path, policy "new")
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    wait_for "new"
  end)
end)
