-- A disk that turns read-only or fails under a running receiver, and recovers: 503s meanwhile, 200s by itself after.
-- The kernel remounts nothing read-only that is open for writing, unless the disk fails, which a test can't make it
-- do: spec/support/sick_disk.c stands for such a disk, from below LMDB.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"

local COUNT = 1500 -- of callbacks in a rush
local WAIT_S = tonumber(os.getenv "MJHOOK_COMMIT_WAIT" or 1) -- how long callers wait; make chaos: 30

describe("on a disk that", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj, flag, preload

  before_each(function()
    local dir = kit.tmp()
    flag = dir .. "/sick"
    local out, code = kit.sh(("cc -shared -fPIC -o %s/sick.so %s/spec/support/sick_disk.c -ldl"):format(dir, kit.root))
    assert(code == 0, out)
    preload = ("SICK_DISK=%s LD_PRELOAD=\"$LD_PRELOAD %s/sick.so\""):format(flag, dir)
  end)

  local function sicken(how)
    kit.write(flag .. ".new", how)
    assert(os.rename(flag .. ".new", flag))
  end

  local function start(setup_code)
    web = receiver.prepare()
    local conf = kit.read(web.dir .. "/nginx.conf")
    if setup_code then
      conf = conf:gsub("init_by_lua_block {", "%0 " .. setup_code)
    end
    kit.write(web.dir .. "/nginx.conf", "env SICK_DISK;\n" .. conf) -- nginx hands on what it is told to
    local out, code = kit.sh(("PATH=$PATH:/usr/sbin %s nginx -p %s -c %s/nginx.conf -e %s/start.log"):format(preload,
      web.dir, web.dir, web.dir))
    assert(code == 0, out)
    kit.finally(function() web:stop() end)
    kit.wait_until(function() return web:pid() and (sim.request("GET", web.url .. "/ping")) end)
    mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
  end

  local function adopt(n)
    local tasks = {}
    for i = 1, n do
      tasks[i] = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox" })
    end
    return tasks
  end

  local function post(task)
    local body = cjson.encode { taskId = task.task_id, status = 1, image = "https://img.example/x" }
    local code, _, headers = sim.request("POST", provider.hook_url(mj, task.ref, 1), body,
      { ["content-type"] = "application/json" })
    return code, headers
  end

  for _, case in ipairs {
    { "turns read-only", "EROFS" }, { "fails to write", "EIO" }, { "fails to sync", "sync" },
    { "fails at the very end of a commit", "meta" },
  } do
    it(case[1] .. " callbacks get 503, and 200 by itself when it is well again", function()
      start()
      local tasks = adopt(30)
      assert.equal(200, (post(tasks[1])))
      local before = web:workers()
      for spell = 0, 2 do -- more than once
        sicken(case[2])
        for i = 2, 6 do
          local task = tasks[spell * 6 + i]
          local code, headers = post(task)
          assert.equal(503, code)
          assert.matches("^%d+$", headers["retry-after"])
          assert.equal("pending", mj:get(task.ref).state) -- others can read, and find nothing half done
        end
        assert.equal(200, (sim.request("GET", web.url .. "/ping")))
        os.remove(flag)
        for i = 2, 7 do
          kit.wait_until(function() return (post(tasks[spell * 6 + i])) == 200 end)
          assert.equal("succeeded", mj:get(tasks[spell * 6 + i].ref).state)
        end
      end
      assert.equal(before, web:workers())
      kit.wait_until(function() return web:log():find("not stored: ", 1, true) end)
      assert.same({ 19, 19 }, { mj:stats().tasks.succeeded, mj:stats().events })
      assert.same({}, assert(mj:check()).problems)
    end)
  end

  it("is well and sick in turns has every callback in the store that was answered 200, however many come", function()
    start()
    local tasks = adopt(COUNT)
    local lines = {}
    for _, task in ipairs(tasks) do
      local body = cjson.encode { taskId = task.task_id, status = 1, image = "https://img.example/x" }
      lines[#lines + 1] = ('silent\nurl = "%s"\ndata = "%s"\noutput = "/dev/null"\nmax-time = 20\n'
        .. 'write-out = "%s %%{http_code}\\n"\nnext\n'):format(provider.hook_url(mj, task.ref, 1),
        (body:gsub('[\\"]', "\\%0")), task.ref)
    end
    local file = kit.write(kit.tmp() .. "/requests", (table.concat(lines):gsub("next\n$", "")))
    local sender = kit.spawn(("exec %s -Z --parallel-immediate --parallel-max 4 -K %s"):format(kit.curl, file))
    local n, hows = 0, { "EROFS", "meta", "sync", "EIO" }
    while not sender:status() do
      n = n + 1
      sicken(hows[n % 4 + 1])
      kit.sleep(0.005)
      os.remove(flag)
      kit.sleep(0.01)
    end
    local stored, refused = 0, 0
    for ref, code in sender:out():gmatch "(%w+) (%d+)\n" do
      if code == "200" then
        stored = stored + 1
        assert.equal("succeeded", mj:get(ref).state)
      else
        assert.equal("503", code)
        refused = refused + 1
      end
    end
    assert.equal(COUNT, stored + refused)
    assert.is_true(n > 4 and stored > 0 and refused > 0, ("%d turns, %d stored, %d refused"):format(n, stored, refused))
    for _, task in ipairs(tasks) do
      if mj:get(task.ref).state ~= "succeeded" then
        kit.wait_until(function() return (post(task)) == 200 end)
      end
    end
    assert.same({ COUNT, COUNT }, { mj:stats().tasks.succeeded, mj:stats().events })
    assert.same({}, assert(mj:check()).problems)
  end)

  describe("stalls for longer than callers wait has", function()
    local waiting -- a task that was queued before

    before_each(function()
      start(WAIT_S ~= 30 and ('require("resty.mjhook.lane").COMMIT_WAIT_S = %d; '):format(WAIT_S))
      waiting = assert(mj.exec:commit { { op = "create", source = "user", want = true, task = {
        prompt = "an old fox", mode = "fast", timeout = 600, fingerprint = core.sha256 "x" } } })[1].task
      sicken "stall"
    end)

    -- Two jobs are submitted to nginx, one with a key; both hear that they were not stored.
    local function submit_in_vain()
      local senders = {}
      for i, query in ipairs { "prompt=keyed&key=k", "prompt=nameless" } do
        senders[i] = kit.spawn(("exec %s -s '%s/jobs?%s'"):format(kit.curl, web.url, query))
      end
      for _, sender in ipairs(senders) do
        sender:wait(WAIT_S + 10)
        assert.equal(("io the store did not commit within %d s"):format(WAIT_S), sender:out())
      end
    end

    local function recovered()
      kit.sleep(WAIT_S / 10)
      os.remove(flag)
      kit.wait_until(function() return kit.story(mj:get(waiting.ref)):find "not_sent$" end)
      assert.same({ 0, 0 }, { mj:stats().tasks.submitting, mj:stats().tasks.ambiguous })
      assert.equal(0, sim.requests "submit")
      assert.same({}, assert(mj:check()).problems)
    end

    it("what it took for them handed back as not sent, and forgets a job that no process can know of", function()
      submit_in_vain()
      recovered()
      kit.wait_until(function() return mj:stats().tasks.cancelled == 1 and mj:stats().tasks.queued == 2 end)
      local by_prompt = {}
      for task in mj:tasks() do
        by_prompt[task.prompt] = task.state
      end
      assert.same({ ["an old fox"] = "queued", keyed = "queued", nameless = "cancelled" }, by_prompt)
      -- All is as it was: whoever tries again is served, and nothing is sent twice.
      local code, text = sim.request("GET", web.url .. "/jobs?prompt=keyed&key=k")
      assert.equal(200, code)
      assert.equal(mj:find_key("k").ref, text:match "^%w+")
      kit.wait_until(function() return mj:get(waiting.ref).state == "pending" end)
      kit.wait_until(function() return mj:find_key("k").state == "pending" end)
      assert.equal(2, sim.requests "submit")
    end)

    for _, signal in ipairs { "QUIT", "TERM", "HUP" } do
      it("it handed back also when nginx gets SIG" .. signal .. " in between", function()
        submit_in_vain()
        local worker = web:workers()
        kit.sh(("kill -%s %d"):format(signal, web:pid()))
        kit.sleep(0.2) -- it is ending, and waits for its thread
        recovered()
        kit.wait_until(function() return not kit.read("/proc/" .. worker .. "/stat") end)
        for task in mj:tasks() do
          assert.is_true(task.state == "queued" or task.state == "cancelled", task.state)
        end
      end)
    end
  end)

  it("is read-only keeps the reconciler from its work with 73; the next run does all of it", function()
    mj = kit.open({}, sim)
    kit.travel(-100)
    local task = assert(mj:submit { prompt = "fox" })
    kit.travel(100)
    sim.finish(task.task_id)
    local config = kit.write(kit.tmp() .. "/config.lua", receiver.config_text {
      store = kit.store, api_key = kit.KEY, base_url = sim.url,
    })
    local program = kit.build .. "/bin/mjhook-reconcile -c " .. config
    sicken "EROFS"
    local out, code = kit.sh(preload .. " " .. program)
    assert.equal(73, code, out)
    assert.matches("^mjhook%-reconcile: the store can't be written: Read%-only", out)
    assert.equal("pending", mj:get(task.ref).state)
    os.remove(flag)
    out, code = kit.sh(preload .. " " .. program)
    assert.equal(0, code, out)
    assert.equal("succeeded", mj:get(task.ref).state)
    assert.equal(1, sim.requests "submit")
  end)

  it("is mounted read-only when nginx starts callbacks get 503, and 200 by itself when it is mounted anew", function()
    local disk = kit.tmp()
    if select(2, kit.sh(("mount -t tmpfs -o size=32m none %s"):format(disk))) ~= 0 then
      return pending "needs to mount a small file system, as root"
    end
    kit.finally(function() kit.sh("umount -l " .. disk) end)
    mj = kit.open({ store = disk .. "/store" }, sim)
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox" })
    mj:close()
    local function remount(how)
      local out, code = kit.sh(("mount -o remount,%s %s"):format(how, disk))
      assert(code == 0, out)
    end
    remount "ro"
    web = receiver.start { settings = { store = disk .. "/store" } }
    mj = nil
    local signer = { config = { hook_url = web.url .. "/hook" }, keyring = assert(core.keyring { kit.SECRET }) }
    local function send()
      local body = cjson.encode { taskId = "Id1", status = 1, image = "https://img.example/x" }
      return sim.request("POST", provider.hook_url(signer, task.ref, 1), body,
        { ["content-type"] = "application/json" })
    end
    for _ = 1, 3 do
      local code, _, headers = send()
      assert.equal(503, code)
      assert.matches("^%d+$", headers["retry-after"])
    end
    remount "rw"
    kit.wait_until(function() return (send()) == 200 end)
    mj = kit.open({ store = disk .. "/store" }, sim)
    assert.equal("succeeded", mj:get(task.ref).state)
  end)
end)
