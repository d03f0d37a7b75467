-- A store that is broken off, on a full disk from its first start on, or shared by containers, under a real nginx and
-- the real programs: 503 and a sentence, no process that dies, and the other locations of that nginx go on.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

describe("a store whose file is broken off", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web

  local function add(n)
    local mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    for _ = 1, n do
      assert(mj:submit { prompt = ("a fox "):rep(100) })
    end
    local jobs = sim.jobs()
    local job = jobs[#jobs]
    mj:close()
    return job
  end

  local function say(job)
    local body = cjson.encode { status = 0, message = "success", data = { taskId = job.taskId, status = 1,
                                                                         image = "https://img.example/x" } }
    return sim.request("POST", job.hookUrl, body, { ["content-type"] = "application/json" })
  end

  local function mjhook(words)
    return kit.sh(("env MJHOOK_CONFIG=%s/config.lua %s %s/scripts/mjhook %s"):format(web.dir, kit.lua, kit.root, words))
  end

  -- nginx answers; no worker of it has died.
  local function alive()
    assert.equal(200, (sim.request("GET", web.url .. "/ping")))
    assert.is_nil(web:log():match "[^\n]*exited on signal[^\n]*")
  end

  -- What a submission is told.
  local function says(pattern)
    local code, text = sim.request("GET", web.url .. "/jobs?prompt=x")
    assert.equal(500, code)
    assert.matches(pattern, text)
  end

  it("under a running nginx: callbacks get 503, all else goes on, and mjhook restore mends it", function()
    web = receiver.start()
    local job = add(20)
    local copy = kit.tmp() .. "/copy"
    local out, code = mjhook("backup " .. copy)
    assert.equal(0, code, out)
    kit.sh(("truncate -s 20000 %s/data.mdb"):format(kit.store))
    for _ = 1, 20 do
      local status, _, headers = say(job)
      assert.equal(503, status)
      assert.truthy(headers["retry-after"])
    end
    says "corrupt .*mjhook restore"
    alive()
    out, code = mjhook("restore " .. copy)
    assert.equal(75, code, out) -- nginx has it open
    web:stop()
    out, code = mjhook("restore " .. copy)
    assert.equal(0, code, out)
    web:start()
    assert.equal(200, say(job))
    alive()
  end)

  it("when nginx starts: 503, and 200 by itself once it is restored", function()
    web = receiver.prepare()
    local job = add(20)
    local copy = kit.tmp() .. "/copy"
    mjhook("backup " .. copy)
    kit.sh(("truncate -s 20000 %s/data.mdb"):format(kit.store))
    web:start()
    for _ = 1, 5 do
      assert.equal(503, (say(job)))
    end
    says "can't be opened"
    kit.wait_until(function() return web:log():find("mjhook restore", 1, true) end)
    alive()
    local out, code = mjhook("restore " .. copy)
    assert.equal(0, code, out)
    kit.wait_until(function() return say(job) == 200 end)
    alive()
  end)
end)

describe("a first start on a full disk", function()
  setup(sim.start)
  teardown(sim.stop)
  after_each(kit.cleanup)

  it("says no_space under nginx, kills no worker, and needs no repair when there is room", function()
    local disk = kit.tmp()
    local _, code = kit.sh(("mount -t tmpfs -o size=1m,mode=700 tmpfs %s"):format(disk))
    if code ~= 0 then
      pending "a tmpfs can't be mounted here"
      return
    end
    kit.finally(function() kit.sh("umount -l " .. disk) end)
    kit.sh(("head -c 2000000 /dev/zero >%s/ballast"):format(disk))
    local web = receiver.start { settings = { store = disk .. "/store" } }
    for _ = 1, 10 do
      assert.equal(503, (sim.request("POST", web.url .. "/hook?x", "{}")))
      assert.equal(200, (sim.request("GET", web.url .. "/ping")))
    end
    assert.is_nil(web:log():match "[^\n]*exited on signal[^\n]*")
    assert.equal(500, (sim.request("GET", web.url .. "/jobs?prompt=x")))
    kit.wait_until(function() return web:log():find("No space left", 1, true) end)
    os.remove(disk .. "/ballast")
    kit.wait_until(function() return (sim.request("POST", web.url .. "/hook?x", "{}")) == 401 end)
    web:stop()
  end)
end)

describe("two containers on one store", function()
  after_each(kit.cleanup)

  local UNSHARE = "unshare --pid --fork --kill-child --mount-proc "

  it("are told apart, or what to do is said when their processes have one id", function()
    local _, code = kit.sh(UNSHARE .. "true")
    if code ~= 0 then
      pending "no PID namespaces here"
      return
    end
    local store = kit.tmp() .. "/store"
    local first = kit.spawn("exec " .. UNSHARE .. kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, api_key = "k" })
      mj:stats()
      print "open"
      io.stdout:flush()
      require("mjhook.core").sleep(60)
    ]]):format(store)))
    kit.wait_until(function() return first:out():find "open" end)
    local tool = ("MJHOOK_STORE=%s MIDJOURNEY_API_KEY=k %s %s/scripts/mjhook"):format(store, kit.lua, kit.root)
    local out
    out, code = kit.sh(UNSHARE .. "env " .. tool .. " stats")
    assert.equal(75, code, out)
    assert.truthy(out:find("process id 1 ", 1, true) and out:find("PID namespace", 1, true), out)
    out, code = kit.sh(("%ssh -c 'env %s stats; exit $?'"):format(UNSHARE, tool)) -- there its id is another
    assert.equal(0, code, out)
    out, code = kit.sh(("env %s restore %s"):format(tool, store .. "/data.mdb"))
    assert.is_true(code == 75 or code == 64, out) -- seen from outside as well
  end)
end)

describe("the lock of mjhook-reconcile", function()
  after_each(kit.cleanup)

  local function reconcile(store, more)
    return kit.sh(("umask 077; env MIDJOURNEY_API_KEY=k %s %s/bin/mjhook-reconcile --store %s"):format(more or "",
      kit.build, store))
  end

  it("is no link that a neighbour planted", function()
    local dir = kit.tmp()
    local store, victim = dir .. "/store", kit.write(dir .. "/victim", "precious")
    assert(core.open(store, { mode = 384 })):close()
    for _, plant in ipairs { "ln -s ../victim", "ln -s ../nowhere", "ln victim", "mkfifo" } do
      kit.sh(("cd %s && %s store/reconcile.lock"):format(dir, plant))
      local out, code = reconcile(store)
      assert.equal(73, code, plant .. ": " .. out)
      assert.truthy(out:find("reconcile.lock", 1, true), out)
      assert.equal("precious", kit.read(victim))
      assert.is_nil(core.stat(dir .. "/nowhere"))
      os.remove(store .. "/reconcile.lock")
    end
    local out, code = reconcile(store)
    assert.equal(0, code, out)
  end)

  it("can be taken by the second user of a shared store, whatever the first one's umask", function()
    local second = "setpriv --reuid 65534 --regid 65534 --groups 54321 "
    if core.uid() ~= 0 then
      pending "needs root, to be two users"
      return
    elseif select(2, kit.sh(second .. "test -x " .. kit.build .. "/bin/mjhook-reconcile")) ~= 0 then
      pending "the second user can't enter the directory of the build"
      return
    end
    local dir = kit.tmp()
    local store = dir .. "/store"
    kit.sh(("chmod 755 %s; mkdir %s; chown 0:54321 %s; chmod 2770 %s"):format(dir, store, store, store))
    local config = kit.write(dir .. "/config.lua", ([[
      return { store = %q, store_mode = "0660", api_key = "k", base_url = "http://127.0.0.1:1" }]]):format(store))
    kit.sh(("chmod 644 %s"):format(config))
    assert(core.open(store, { mode = 432 })):close()
    local run = ("umask 077; %s/bin/mjhook-reconcile -c %s"):format(kit.build, config)
    local out, code = kit.sh(run)
    assert.equal(0, code, out)
    assert.equal(432, core.stat(store .. "/reconcile.lock").mode)
    kit.sh(("chmod 600 %s/reconcile.lock"):format(store)) -- as an earlier version left it
    out, code = kit.sh(run)
    assert.equal(0, code, out)
    out, code = kit.sh(("%ssh -c '%s'"):format(second, run))
    assert.equal(0, code, out)
  end)
end)
