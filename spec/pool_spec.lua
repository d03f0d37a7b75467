-- Handlers in processes of their own: what hangs, crashes or leaks there costs one event a try, and nothing else.
local core = require "mjhook.core"
local kit = require "kit"
local parcel = require "mjhook.delivery.parcel"
local pool = require "mjhook.delivery.pool"
local socket = require "socket"

describe("a handler in a process of its own", function()
  after_each(kit.cleanup)

  local mj, dir

  local function open(functions, more)
    dir = kit.tmp()
    local settings = { policy = functions, handler_timeout = 1, handlers = 4 }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    mj = kit.open(settings)
  end

  local function note(name, text)
    local file = assert(io.open(dir .. "/" .. name, "a"))
    file:write(text, "\n")
    file:close()
  end

  local function lines(name)
    local list = {}
    for line in (kit.read(dir .. "/" .. name) or ""):gmatch "[^\n]+" do
      list[#list + 1] = line
    end
    return list
  end

  local function ended(name, n)
    local refs = {}
    for i = 1, n or 1 do
      local id = name .. i
      local task = assert(mj:adopt { task_id = id, prompt = name })
      assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "succeeded",
        source = "callback", task_id = id, image = "https://img.example/x.png" } })[1].code)
      refs[i] = task.ref
    end
    return refs[1], refs
  end

  local function deliver(options)
    options = options or {}
    options.isolate = true
    return assert(mj:deliver(options))
  end

  local function error_of(ref)
    local event = mj:events { ref = ref }()
    return event and event.errors[#event.errors].message
  end

  -- Whether a process with this pid is there and at work.
  local function lives(pid)
    local stat = kit.read(("/proc/%s/stat"):format(pid))
    return stat ~= nil and not stat:find "%) Z"
  end

  it("gets task and context, and what it says is heard", function()
    open {
      on_succeeded = function(task, ctx)
        note("seen", table.concat({ task.ref, task.state, ctx.type, ctx.event_id, ctx.attempt, ctx.timeout, ctx.store,
                                    type(ctx.log), type(ctx.mj) }, " "))
      end,
      on_event = function(task)
        if task.prompt == "bad" then
          return false, "not today"
        end
      end,
    }
    local ref, bad = ended "good", ended "bad"
    assert.same({ delivered = 1, buried = 0, errors = 1 }, deliver())
    local seen = lines "seen" -- in any order: they run side by side
    local mine = seen[1]:find(ref, 1, true) and seen[1] or seen[2]
    assert.equal(("%s succeeded succeeded %s-1 1 1 %s function table"):format(ref, ref, kit.store), mine)
    assert.equal("on_event: not today", error_of(bad))
    assert.is_nil(error_of(ref))
  end)

  -- The pid of the process that runs this.
  local function pid()
    return kit.read("/proc/self/stat"):match "^%d+"
  end

  it("stays for more when it is quick, with all that a task has, and ends with the call", function()
    open({ on_event = function(task)
      note("seen", ("%s %s %s"):format(pid(), task.prompt, task.image))
    end }, { handlers = 1 })
    ended("x", 40)
    assert.same({ delivered = 40, buried = 0, errors = 0 }, deliver())
    local seen, pids = lines "seen", {}
    for _, line in ipairs(seen) do
      assert.equal("x https://img.example/x.png", line:match " (.*)$")
      pids[line:match "^%d+"] = true
    end
    assert.equal(40, #seen)
    local own = next(pids)
    assert.is_nil(next(pids, own))
    assert.is_false(lives(own))
  end)

  it("that dies after many others costs its own event a try, and no other", function()
    open({ on_event = function(task)
      if task.task_id == "x30" then
        os.exit(7)
      end
      note("seen", task.task_id)
    end }, { handlers = 1 })
    local _, refs = ended("x", 40)
    assert.same({ delivered = 39, buried = 0, errors = 1 }, deliver())
    assert.equal("on_succeeded: its process exited with 7", error_of(refs[30]))
    local count = {}
    for _, id in ipairs(lines "seen") do
      count[id] = (count[id] or 0) + 1
    end
    for i = 1, 40 do
      assert.equal(i ~= 30 and 1 or nil, count["x" .. i])
    end
  end)

  it("goes on after a message among pieces without one, in their order", function()
    open({ on_event = function(task)
      if task.task_id == "x7" or task.task_id == "x20" then
        return false, "not " .. task.task_id
      end
    end }, { handlers = 1 })
    local _, refs = ended("x", 30)
    assert.same({ delivered = 28, buried = 0, errors = 2 }, deliver())
    assert.equal("on_event: not x7", error_of(refs[7]))
    assert.equal("on_event: not x20", error_of(refs[20]))
  end)

  it("does not share this process' memory or its connections", function()
    local calls = 0
    open { on_event = function() calls = calls + 1 end }
    local client = mj.exec.client
    ended "x"
    assert.equal(1, deliver().delivered)
    assert.equal(0, calls)
    assert.equal(client, mj.exec.client)
    ended "y"
    assert.equal(1, mj:deliver().delivered)
    assert.equal(1, calls)
  end)

  it("keeps nothing open of the store, the lock or other children, and no key or secret in its environment", function()
    open {}
    local policy = kit.write(dir .. "/policy.lua", ([[
      local lfs = require "lfs"
      return { on_event = function(task)
        local file = io.open("%s/" .. task.task_id, "w")
        for n = 3, 255 do
          local target = lfs.symlinkattributes("/proc/self/fd/" .. n, "target")
          if target and (target:find "^socket" or target:find "/store/") then
            file:write(target:gsub("%%W.*", ""):gsub("^$", target), "\n")
          end
        end
        file:write(tostring(os.getenv "MIDJOURNEY_API_KEY"), " ", tostring(os.getenv "MJHOOK_SECRET"), "\n")
        file:close()
        repeat -- all of them at a time
          os.execute "sleep 0.02"
          local n = 0
          for name in lfs.dir "%s" do
            n = n + (name:find "^task" and 1 or 0)
          end
        until n == 4
      end }
    ]]):format(dir, dir))
    ended("task", 4)
    local out, code = kit.sh("MIDJOURNEY_API_KEY=key1 MJHOOK_SECRET='a secret of sixteen' " .. kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, policy = %q, handlers = 4 })
      print(assert(mj:reconcile { isolate = true }).delivered)
    ]]):format(kit.store, policy)))
    assert.same({ "4", 0 }, { out, code })
    local first = kit.read(dir .. "/task1")
    assert.matches("^socket\n[socket\n]*nil nil\n$", first) -- its own, and what an HTTP client of the parent's has
    for i = 2, 4 do
      assert.equal(first, kit.read(dir .. "/task" .. i))
    end
  end)

  it("may use the store and submit what follows from a result", function()
    open { on_event = function(task, ctx)
      if not task.key then
        local follow = assert(ctx.mj:submit { prompt = "upscale " .. task.ref, key = ctx.event_id })
        note("seen", follow.state)
      end
    end }
    local ref = ended "x"
    assert.equal(1, deliver().delivered)
    assert.equal(1, #lines "seen")
    assert.equal("upscale " .. ref, mj:find_key(ref .. "-1").prompt)
    assert.is_true(mj:check().ok)
  end)

  it("that hangs in Lua is interrupted", function()
    open({ on_event = function() while true do end end }, { handler_timeout = 0.2 })
    local ref = ended "x"
    assert.equal(1, deliver().errors)
    assert.truthy(error_of(ref):find("took longer than handler_timeout (0.2 s)", 1, true))
  end)

  it("that hangs in C is killed, with all that it started", function()
    open({ on_event = function()
      os.execute(("echo $$ >>%s/pids; sleep 60 & echo $! >>%s/pids; sleep 60"):format(dir, dir))
    end }, { handler_timeout = 0.1 })
    local ref = ended "x"
    local before = socket.gettime()
    assert.same({ delivered = 0, buried = 0, errors = 1 }, deliver())
    assert.is_true(socket.gettime() - before < 15)
    assert.equal("on_succeeded was killed: took longer than handler_timeout (0.1 s)", error_of(ref))
    assert.equal(2, #lines "pids")
    kit.wait_until(function()
      return not lives(lines("pids")[1]) and not lives(lines("pids")[2])
    end)
  end)

  it("that stops the process between it and its deliverer holds the deliverer up no longer than any other", function()
    open { on_event = function()
      os.execute "set -- $(cat /proc/$PPID/stat); guard=$4; (sleep 5; kill -CONT $guard) & kill -STOP $guard"
    end }
    ended "x"
    local before = socket.gettime()
    assert.same({ delivered = 1, buried = 0, errors = 0 }, deliver())
    assert.is_true(socket.gettime() - before < 15)
  end)

  for what, case in pairs {
    ["crashes"] = { "kill -ABRT $PPID", "ended by signal 6 (SIGABRT)" }, -- not SEGV: sanitizers make an exit of it
    ["is killed from outside"] = { "kill -KILL $PPID", "ended by signal 9 (SIGKILL)" },
  } do
    it("that " .. what .. " costs its event a try, and no other event", function()
      open { on_event = function(task)
        note("begun", task.prompt)
        if task.prompt == "bad" then
          os.execute(case[1])
        end
      end }
      ended("good", 3)
      local bad = ended "bad"
      ended("late", 3)
      assert.same({ delivered = 6, buried = 0, errors = 1 }, deliver())
      assert.truthy(error_of(bad):find(case[2], 1, true))
      assert.equal(7, #lines "begun")
      assert.equal(1, mj:events { ref = bad }().tries)
    end)
  end

  it("that crashes costs those that it was handed over with nothing", function()
    open { on_event = function(task)
      note("begun", task.ref)
      if task.prompt == "bad" then
        os.execute "kill -ABRT $PPID"
      end
    end }
    ended("quick", 100) -- so many that they are handed over by the dozen
    local bad = ended "bad"
    ended("late", 100)
    assert.same({ delivered = 200, buried = 0, errors = 1 }, deliver())
    assert.equal(201, #lines "begun")
    assert.truthy(error_of(bad):find("SIGABRT", 1, true))
  end)

  it("is ended when the store fails under who waits for it", function()
    open({ on_event = function(task)
      if task.prompt == "slow" then
        os.execute(("echo $PPID >>%s/pids; exec sleep 30"):format(dir))
      else
        kit.wait_until(function() return #lines "pids" == 1 end)
      end
    end }, { handlers = 2, handler_timeout = 20 })
    ended "slow"
    ended "quick"
    local commit, taken = mj.exec.commit, 0
    mj.exec.commit = function(self, ops)
      for _, op in ipairs(ops) do
        taken = taken + (op.op == "take" and 1 or 0)
        if op.op == "done" then
          return nil, core.error("no_space", "no space left for the store", true)
        end
      end
      return commit(self, ops)
    end
    local report, err = mj:deliver { isolate = true }
    mj.exec.commit = nil
    assert.same({ nil, "no_space" }, { report, err.code })
    assert.is_false(lives(lines("pids")[1]))
  end)

  it("that can't have one is not tried again and again: its event stays due, and the log says why once", function()
    open { on_event = function() end }
    local _, refs = ended("x", 3)
    local fork, tried = core.fork, 0
    kit.finally(function() core.fork = fork end)
    core.fork = function()
      tried = tried + 1
      return nil, core.error("busy", "no process can be started: Resource temporarily unavailable", true)
    end
    assert.same({ delivered = 0, buried = 0, errors = 0 }, deliver { budget = 1 })
    assert.equal(1, tried)
    assert.equal(1, select(2, kit.log_text():gsub("no process can be started", "")))
    for _, ref in ipairs(refs) do
      local event = mj:events { ref = ref }()
      assert.same({ 0, false }, { event.tries, event.leased })
    end
    core.fork = fork
    assert.equal(3, deliver().delivered)
  end)

  it("keeps its status when another part of this process waits for any child, or ignores them all", function()
    for _, how in ipairs { "trap '' CHLD;", "" } do
      local policy = kit.write(kit.tmp() .. "/policy.lua", [[return { on_event = function() os.exit(3) end }]])
      open {}
      ended "x"
      local out, code = kit.sh(how .. kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q, api_key = "k", policy = %q,
          log = function(_, text) print(text) end })
        assert(mj:deliver { isolate = true }.errors == 1)
      ]]):format(kit.store, policy)))
      assert.equal(0, code, out)
      assert.matches("its process exited with 3", out)
      kit.cleanup()
    end
  end)

  -- Runs Lua code whose children lack something: see no_memory.c.
  local function deprived(environment, code)
    local place = kit.tmp()
    local source = kit.root .. "/spec/support/no_memory.c"
    local out, exit = kit.sh(("cc -shared -fPIC -o %s/none.so %s -ldl"):format(place, source))
    assert(exit == 0, out)
    return kit.sh(("%s LD_PRELOAD=%s/none.so "):format(environment, place) .. kit.lua_command(code, "lua5.4"))
  end

  it("that finds no memory left in its process ends there: nothing of its deliverer's code runs twice", function()
    if kit.sanitized then
      return -- the allocator is the sanitizer's
    end
    local out, code = deprived("", ([[
      local core = require "mjhook.core"
      local remove, path = os.remove, %q
      local ran, child = pcall(core.fork, function(tell, claim) tell(claim(), ("x"):rep(1000)) end)
      remove(path)
      assert(ran and child)
      while child:hear() == nil do
        core.await({ child }, 1000)
      end
      remove(path)
      print(child:stop().exit)
    ]]):format(kit.write(kit.tmp() .. "/mark", "")))
    assert.same({ "1", 0 }, { out, code })
  end)

  it("that can't be made, although the process between could, is told as one that can't be made", function()
    if kit.sanitized then
      return
    end
    local out, code = deprived("NO_FORK=1", [[
      local child, err = require("mjhook.core").fork(function() end)
      print(child, err.code, err.message)
    ]])
    assert.same({ "nil\tbusy\tno process can be started: Resource temporarily unavailable", 0 }, { out, code })
  end)

  it("that ends its process says so", function()
    open { on_event = function() os.exit(3) end }
    local ref = ended "x"
    assert.equal(1, deliver().errors)
    assert.equal("on_succeeded: its process exited with 3", error_of(ref))
  end)

  it("that is slow holds back no other: they run beside it", function()
    open({ on_event = function(task)
      if task.prompt == "slow" then
        os.execute "sleep 1.5"
      end
      note("done", task.prompt)
    end }, { handlers = 2, handler_timeout = 5 })
    ended "slow"
    ended("quick", 20)
    local before = socket.gettime()
    assert.equal(21, deliver().delivered)
    assert.is_true(socket.gettime() - before < 15)
    assert.equal("slow", lines("done")[21])
  end)

  it("is given its part of what was leased, whatever room each has, and nothing is left over", function()
    open({}, { handlers = 3 })
    local handlers, given = pool.isolated(mj), 0
    handlers.size = 16
    for i, under_way in ipairs { 1, 15, 8 } do
      local process = { give = function(_, text) given = given + #parcel.unpack(text) return true end }
      handlers.children[i] = { process = process, leases = {}, given = under_way, open = under_way, low = 0,
                               hungry = true }
    end
    ended("x", 24)
    local ops = {}
    for i = 1, handlers:room() do
      ops[i] = { op = "take", ["until"] = core.now() + 60000, raw = true }
    end
    assert.equal(24, #ops)
    handlers:start(assert(mj.exec:commit(ops)))
    assert.equal(24, given)
  end)

  it("has nothing more to say once it was stopped", function()
    local child = assert(core.fork(function(tell, claim)
      tell(claim(), "a message")
      while true do socket.sleep(1) end
    end))
    local heard
    kit.wait_until(function() -- it may come in two parts
      core.await({ child }, 5000)
      heard = { child:hear() }
      return heard[1]
    end)
    assert.same({ 0, "a message" }, heard)
    child:stop()
    assert.is_false(child:hear())
    assert.is_false(child:give "more")
  end)

  it("begins what it has claimed, and nothing of what was taken back by then", function()
    local child = assert(core.fork(function(tell, claim)
      local pieces = {}
      for i = 1, 3 do
        pieces[i] = assert(claim())
      end
      tell(pieces[3], "3") -- in any order
      tell(pieces[1], "1")
      tell(pieces[2])
      local last = claim()
      while true do -- until the parent has had enough
        socket.sleep(0.01)
        local piece = claim()
        if not piece then
          break
        end
        tell(piece, "more")
      end
      tell(last, "no more")
    end))
    local last, heard, said = nil, 0, {}
    local function hear()
      local piece, message = child:hear()
      while piece do
        assert.is_nil(said[piece])
        said[piece] = message or ""
        last, heard = message, heard + 1
        piece, message = child:hear()
      end
      return piece == false
    end
    kit.wait_until(function()
      hear()
      return heard >= 4
    end)
    local begun = child:take_back()
    assert.is_true(begun >= heard)
    kit.wait_until(hear)
    assert.same({ "no more", begun }, { last, heard }) -- each that was begun, and the last word
    assert.same({ "1", "", "3", "no more" }, { said[0], said[1], said[2], said[3] })
    assert.same({ exit = 0 }, child:stop())
    assert.equal(0, child:take_back())
  end)

  it("that is slow holds back none of those that it was handed over with", function()
    open({ on_event = function(task)
      if task.prompt == "slow" then
        pcall(kit.wait_until, function() return #lines "done" == 600 end, 20) -- the others, meanwhile
      end
      note("done", task.prompt)
    end }, { handlers = 2, handler_timeout = 30 })
    ended("quick", 300) -- so many that they are handed over by the dozen
    ended "slow"
    ended("late", 300)
    assert.same({ delivered = 601, buried = 0, errors = 0 }, deliver())
    assert.equal("slow", lines("done")[601])
    assert.equal(601, #lines "done") -- what was taken back from it, it does not go on with
    assert.is_true(mj:check().ok)
  end)

  it("that hangs costs those that it was handed over with neither time nor a try", function()
    open({ on_event = function(task)
      note("begun", task.ref)
      if task.prompt == "bad" then
        os.execute "sleep 20"
      end
    end }, { handlers = 2, handler_timeout = 0.5 })
    ended("quick", 100)
    local bad = ended "bad"
    ended("late", 100)
    assert.same({ delivered = 200, buried = 0, errors = 1 }, deliver())
    assert.equal(201, #lines "begun") -- each once
    assert.equal(1, mj:events { ref = bad }().tries)
    assert.equal(1, #mj:events { ref = bad }().errors)
  end)

  it("runs once at a time for a task, its events in order", function()
    open({ on_event = function(task, ctx)
      note(task.ref, "begin " .. ctx.event_id)
      os.execute "sleep 0.02"
      note(task.ref, "end " .. ctx.event_id)
    end }, { handlers = 4 })
    local refs = {}
    for i = 1, 6 do
      local task = assert(mj:adopt { task_id = "a" .. i, prompt = "p" })
      refs[i] = task.ref
      for attempt = 1, 3 do
        assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "failed",
          source = "callback", attempt = attempt, task_id = "a" .. i .. (attempt > 1 and "-" .. attempt or ""),
          error = "no" } })[1].code)
        if attempt < 3 then
          mj.exec:commit { { op = "signal", ref = task.ref, kind = "resubmit", source = "user" } }
        end
      end
    end
    assert.equal(18, deliver().delivered)
    for _, ref in ipairs(refs) do
      assert.equal(("begin %s-1,end %s-1,begin %s-2,end %s-2,begin %s-3,end %s-3"):gsub("%%s", ref),
        table.concat(lines(ref), ","))
    end
  end)

  it("goes on where it was when there are very many", function()
    open { on_event = function(_, ctx) note("seen", ctx.event_id) end }
    local _, refs = ended("x", 500)
    assert.equal(500, deliver().delivered)
    local seen = {}
    for _, id in ipairs(lines "seen") do
      assert.is_nil(seen[id])
      seen[id] = true
    end
    for _, ref in ipairs(refs) do
      assert.is_true(seen[ref .. "-1"])
    end
  end)

  it("is left alone by the budget's end until it had a fair try, and no new one begins", function()
    open({ on_event = function() os.execute "sleep 20" end }, { handler_timeout = 60, handlers = 2 })
    ended("x", 5)
    local before = socket.gettime()
    assert.same({ delivered = 0, buried = 0, errors = 0 }, deliver { budget = 0.5 })
    assert.is_true(socket.gettime() - before < 10)
    for event in mj:events {} do
      assert.same({ 0, false }, { event.tries, event.leased })
    end
  end)

  it("begins only while its lease lasts: what comes too late in a batch is handed back, not counted", function()
    local least = math.huge
    open { on_event = function(task)
      least = math.min(least, mj:events { ref = task.ref }().next_at - core.now())
      if task.prompt == "slow" then
        kit.travel(30) -- as if it had taken so long, with the clock of this process
      end
    end }
    ended("quick", 3)
    ended "slow"
    local _, late = ended("late", 4)
    assert.equal(8, mj:deliver({ limit = 8 }).delivered) -- nor does it count for the limit
    assert.is_true(least > 900, least) -- handler_timeout, but for the moment between looking and running
    for _, ref in ipairs(late) do
      assert.is_nil(mj:events { ref = ref }())
    end
  end)

  it("that is killed with its deliverer is taken up soon after handler_timeout, however many were leased", function()
    open {}
    dir = kit.tmp()
    local policy = kit.write(dir .. "/policy.lua", ([[
      return { on_event = function(task)
        if task.prompt == "last" then
          os.execute "echo x >>%s/begun; exec sleep 30"
        end
      end }
    ]]):format(dir))
    ended("quick", 40) -- so that many are leased at once
    ended("last", 100)
    local child = kit.spawn("exec " .. kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, api_key = "k", policy = %q, handler_timeout = 2 })
      mj:deliver()
    ]]):format(kit.store, policy)))
    kit.wait_until(function() return #lines "begun" == 1 end)
    child:kill "KILL"
    child:wait()
    local leased = 0
    for event in mj:events {} do
      leased = leased + (event.leased and 1 or 0)
      assert.is_true(event.next_at < core.now() + 33000, event.next_at - core.now())
    end
    assert.is_true(leased > 10, leased)
    mj.policy.functions.on_event = function() end
    kit.travel(33)
    deliver()
    assert.equal(0, mj:stats().events)
  end)

  it("whose deliverers died does not count as failed, unless they go on dying", function()
    local calls = 0
    open { on_event = function()
      calls = calls + 1
      return false, "not yet"
    end }
    local ref = ended "x"
    local function die(times)
      for _ = 1, times do
        assert.equal("ok", assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 1 } })[1].code)
        kit.travel(1)
      end
    end
    die(25)
    assert.equal(1, mj:deliver().errors)
    assert.is_false(mj:events { ref = ref }().buried)
    kit.travel(60)
    die(75)
    assert.same({ delivered = 0, buried = 1, errors = 1 }, mj:deliver())
    assert.equal(1, calls)
    assert.truthy(error_of(ref):find("the process that handles it dies", 1, true))
  end)

  it("begins no more than `limit`", function()
    open { on_event = function(_, ctx) note("seen", ctx.event_id) end }
    ended("x", 9)
    assert.equal(4, deliver({ limit = 4 }).delivered)
    assert.equal(4, #lines "seen")
  end)

  it("ends with who waits for it: nothing is left running", function()
    open {}
    dir = kit.tmp()
    local policy = kit.write(dir .. "/policy.lua", ([[
      return { on_event = function() os.execute "echo $PPID >>%s/pids; exec sleep 30" end }
    ]]):format(dir))
    ended("x", 2)
    local child = kit.spawn("exec " .. kit.lua_command(([[
      local mj = assert(require("mjhook").open { store = %q, api_key = "k", policy = %q })
      mj:deliver { isolate = true }
    ]]):format(kit.store, policy)))
    kit.wait_until(function() return #lines "pids" == 2 end)
    child:kill "KILL"
    child:wait()
    kit.wait_until(function()
      return not lives(lines("pids")[1]) and not lives(lines("pids")[2])
    end)
  end)

  describe("says by what it returns", function()
    it("when it wants to be called again", function()
      open { on_event = function() return false, "busy", { retry_after = 300 } end }
      local ref = ended "x"
      deliver()
      local event = mj:events { ref = ref }()
      assert.is_true(math.abs(event.next_at - core.now() - 300000) < 5000)
      assert.equal("on_event: busy", event.errors[1].message)
    end)

    it("before when it must not be: backoff comes first, when that is later", function()
      open { on_event = function(task)
        return false, "busy", { not_before = tonumber(task.prompt) or task.prompt }
      end }
      for said, wanted in pairs { ["1"] = 17, ["0"] = 17, ["-5"] = 17, ["nonsense"] = 17, ["300"] = 300,
                                  ["1e300"] = 86400 } do
        local ref = ended(said)
        mj:deliver()
        local wait = (mj:events { ref = ref }().next_at - core.now()) / 1000
        assert.is_true(wait > wanted * 0.85 and wait < wanted * 1.11, said .. ": " .. wait)
      end
    end)

    it("that it never wants to be", function()
      open { on_event = function() return false, "gone for good", { bury = true } end }
      ended "x"
      assert.same({ delivered = 0, buried = 1, errors = 1 }, deliver())
      assert.equal("on_event: gone for good", mj:events { buried = true }().errors[1].message)
    end)

    it("which files it stored, and the task tells of them", function()
      open { on_succeeded = function(task)
        return { files = { { index = 0, path = "/images/" .. task.ref .. ".png", bytes = 7 } } }
      end, on_event = function() end } -- which has none to add, and takes none away
      local ref = ended "x"
      assert.equal(1, deliver().delivered)
      assert.same({ { index = 0, path = "/images/" .. ref .. ".png", bytes = 7 } }, mj:get(ref).files)
      assert.equal("kept", mj:get(ref).timeline[#mj:get(ref).timeline].signal)
    end)

    it("nonsense: the event is done, and the log says what was expected", function()
      open { on_event = function(task)
        if task.prompt == "number" then
          return 7
        elseif task.prompt == "files" then
          return { files = 7 }
        elseif task.prompt == "function" then
          return print
        end
        return { files = { ("x"):rep(70000) } }
      end }
      ended "number"
      ended "function"
      ended "files"
      ended "large"
      assert.same({ delivered = 4, buried = 0, errors = 0 }, mj:deliver())
      assert.truthy(kit.log_text():find("on_event returned a number: nothing, true, false and why", 1, true))
      assert.truthy(kit.log_text():find("on_event returned a function", 1, true))
      assert.truthy(kit.log_text():find("files: a list that makes at most 65536 bytes of JSON expected", 1, true))
    end)

    it("what JSON can't tell, which is said and does no harm", function()
      local answers = {
        function() return false, "no", { retry_after = 0 / 0 } end,
        function() return false, "no", { retry_after = 300, why = print } end,
        function() return { files = { print } } end,
        function() return { files = { { path = "\255" } } } end,
        function() return { files = { ("x"):rep(2000000) } } end,
      }
      open { on_event = function(task) return answers[tonumber(task.prompt)]() end }
      local refs = {}
      for i = 1, #answers do
        refs[i] = ended(tostring(i))
      end
      assert.same({ delivered = 3, buried = 0, errors = 2 }, deliver())
      assert.equal("on_event: no", error_of(refs[1]))
      assert.equal("on_event: no", error_of(refs[2]))
      assert.is_true(math.abs(mj:events { ref = refs[2] }().next_at - core.now() - 300000) < 5000)
      local _, count = kit.log_text():gsub("files: a list that makes at most 65536 bytes of JSON expected", "")
      assert.equal(3, count)
    end)

    it("strange numbers and texts, and none does harm", function()
      local answers = { { retry_after = 0 / 0 }, { retry_after = -1 }, { retry_after = 1e300 },
                        { retry_after = "x" }, 7 }
      open { on_event = function(task) return false, "\255\0\n", answers[tonumber(task.prompt)] end }
      local refs = {}
      for i = 1, #answers do
        refs[i] = ended(tostring(i))
      end
      assert.equal(5, deliver().errors)
      for _, ref in ipairs(refs) do
        local event = mj:events { ref = ref }()
        assert.is_true(event.next_at > core.now() and event.next_at <= core.now() + 86400000)
      end
    end)
  end)

  it("may be one of a list: they run in order, and all have to succeed", function()
    local fails = true
    open { on_event = {
      function() note("seen", "one") end,
      setmetatable({}, { __call = function() note("seen", "two") return not fails, "no" end }),
      function() note("seen", "three") end,
    } }
    ended "x"
    assert.equal(1, mj:deliver().errors)
    assert.same({ "one", "two" }, lines "seen")
    fails = false
    kit.travel(60)
    assert.equal(1, mj:deliver().delivered)
    assert.same({ "one", "two", "one", "two", "three" }, lines "seen")
  end)

  it("of a list has what the others have left of handler_timeout, and is told so", function()
    open({ on_succeeded = function() socket.sleep(1.5) end,
           on_event = { function(_, ctx)
             note("left", ctx.timeout)
             while true do end
           end, function() note("seen", "three") end } }, { handler_timeout = 1.8 })
    local ref = ended "x"
    for i, isolate in ipairs { false, true } do
      local before = socket.gettime()
      assert.equal(1, mj:deliver({ isolate = isolate }).errors)
      assert.is_true(socket.gettime() - before < 3.2, isolate)
      assert.truthy(error_of(ref):find("on_event raised: took longer than handler_timeout (1.8 s)", 1, true))
      assert.is_true(tonumber(lines("left")[i]) < 0.31)
      kit.travel(60)
    end
    assert.same({}, lines "seen")
  end)

  it("of a list that is empty or holds something else is a configuration error", function()
    for _, wrong in ipairs { {}, { 7 }, { print, "x" } } do
      local settings = kit.settings { policy = { on_event = wrong } }
      local opened, err = require("mjhook").open(settings)
      assert.is_nil(opened)
      assert.truthy(err.message:find("policy: on_event: function expected", 1, true))
    end
  end)
end)
