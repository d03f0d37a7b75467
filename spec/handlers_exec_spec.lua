-- mjhook.handlers.exec: a program for each event, without a shell, without secrets, for a limited time.
local cjson = require "cjson"
local exec = require "mjhook.handlers.exec"
local kit = require "kit"
local socket = require "socket"

describe("the exec handler", function()
  after_each(kit.cleanup)

  local dir
  local task = { ref = "01KB", state = "succeeded", prompt = "a 'fox' \"$HOME\" `id` ü",
                 images = { "https://x/0.png" } }

  before_each(function()
    dir = kit.tmp()
  end)

  local function ctx(timeout)
    return { event_id = "01KB-1", type = "succeeded", attempt = 1, created_at = 1776211200000, timeout = timeout or 10 }
  end

  local function script(text)
    local path = kit.write(dir .. "/program", "#!/bin/sh\n" .. text .. "\n")
    os.execute("chmod 700 " .. path)
    return path
  end

  it("hands the event over as JSON on standard input, and arguments as they are", function()
    local path = script(("cat >%s/in; printf '%%s|' \"$@\" >%s/args"):format(dir, dir))
    assert.is_true(exec { path, "two words", "$HOME", "; id", "" }(task, ctx()))
    assert.equal("two words|$HOME|; id||", kit.read(dir .. "/args"))
    local event = cjson.decode(kit.read(dir .. "/in"))
    assert.same({ "01KB-1", "succeeded", 1, 1776211200000 },
      { event.event_id, event.type, event.attempt, event.created_at })
    assert.same({ "01KB", "succeeded", task.prompt, task.images, 1 },
      { event.task.ref, event.task.state, event.task.prompt, event.task.images, event.task.attempt })
  end)

  it("hands it over also where it was itself started without standard input, output and error", function()
    local command = kit.lua_command(([[
      local exec = require "mjhook.handlers.exec"
      local handled, why = exec { %q }({ ref = "01KB" }, { timeout = 5, event_id = "01KB-1" })
      local file = io.open(%q, "w")
      file:write(tostring(handled), " ", tostring(why))
      file:close()
    ]]):format(script(("cat >%s/in; echo said >&2; exit 1"):format(dir)), dir .. "/result"))
    for _, closed in ipairs { "<&-", "2>&-", "<&- >&-", "<&- 2>&-", "<&- >&- 2>&-" } do
      kit.sh(command .. " " .. closed)
      assert.equal("01KB-1", cjson.decode(kit.read(dir .. "/in")).event_id)
      assert.matches("^false .*/program exited with 1: said$", kit.read(dir .. "/result"))
      os.remove(dir .. "/in")
      os.remove(dir .. "/result")
    end
  end)

  it("gives the program no key and no secret, and what it is told to give", function()
    local command = kit.lua_command(([[
      local exec = require "mjhook.handlers.exec"
      assert(exec { %q, env = { GREETING = "hello there" } }({}, { timeout = 5 }))
    ]]):format(script(("env >%s/env"):format(dir))))
    local out, code = kit.sh("MIDJOURNEY_API_KEY=key1 MJHOOK_SECRET=secret1 AWS_SECRET=other HOME=/h " .. command)
    assert.same({ "", 0 }, { out, code })
    local env = kit.read(dir .. "/env")
    assert.truthy(env:find("GREETING=hello there\n", 1, true))
    assert.truthy(env:find("HOME=/h\n", 1, true))
    assert.is_nil(env:find("key1", 1, true))
    assert.is_nil(env:find("secret1", 1, true))
    assert.is_nil(env:find("AWS", 1, true))
  end)

  it("gives the program descriptors 0, 1 and 2 and no other, whatever this process has open", function()
    local file, server = assert(io.open(dir .. "/open", "w")), assert(socket.bind("127.0.0.1", 0))
    kit.open() -- LMDB's files
    local list = "import os, sys\nfor n in range(3, 4096):\n  try: os.fstat(n)\n  except OSError: continue\n"
      .. "  sys.stderr.write('%d: %s ' % (n, os.readlink('/proc/self/fd/%d' % n)))\nsys.exit(1)"
    local _, said = exec { "/usr/bin/env", "python3", "-c", list }(task, ctx())
    assert.equal("/usr/bin/env exited with 1", said)
    file:close()
    server:close()
  end)

  it("leaves nothing of the store open in programs that others start, by whatever means", function()
    kit.open()
    assert.equal("", (kit.sh "ls -l /proc/self/fd | grep -F .mdb"))
  end)

  it("gives the program standard input of the handler's own making, or does not run it", function()
    local handler = exec { script(("cat >>%s/in"):format(dir)), input = function(t, c)
      return t.ref and ("%s of %s\n"):format(c.event_id, t.ref)
    end }
    assert.is_true(handler(task, ctx()))
    assert.is_true(handler({}, ctx()))
    assert.equal("01KB-1 of 01KB\n", kit.read(dir .. "/in"))
  end)

  it("leaves running what a program with background has started, but for the one that takes too long", function()
    local path = script(("sleep 50 & echo $! >%s/pid; test \"$1\" = quick || wait"):format(dir))
    local function pid()
      return tonumber(kit.read(dir .. "/pid"):match "%d+")
    end
    assert.is_true(exec { path, "quick", background = true }(task, ctx()))
    local stat = kit.read("/proc/" .. pid() .. "/stat")
    kit.sh("kill -KILL " .. pid())
    assert.matches("%) [SR]", stat)
    assert.is_false((exec { path, "slow", background = true, timeout = 0.3 }(task, ctx())))
    kit.wait_until(function()
      stat = kit.read("/proc/" .. pid() .. "/stat")
      return not stat or stat:find "%) Z"
    end)
  end)

  it("ends with its deliverer, and what the program has started, too", function()
    local path = script(("sleep 50 & echo $$ $! >%s/pids; wait"):format(dir))
    local child = kit.spawn("exec " .. kit.lua_command(([[
      require "mjhook.handlers.exec" { %q }({ ref = "01KB" }, { timeout = 30, event_id = "01KB-1" })
    ]]):format(path)))
    local pids = kit.wait_until(function()
      return (kit.read(dir .. "/pids") or ""):match "%d+ %d+"
    end)
    child:kill "KILL"
    for pid in pids:gmatch "%d+" do
      kit.wait_until(function()
        local stat = kit.read("/proc/" .. pid .. "/stat")
        return not stat or stat:find "%) Z"
      end)
    end
  end)

  it("is not mistaken by a process that ignores its children, or a program that kills its process group", function()
    local _, why = exec { script "kill -TERM 0; sleep 5" }(task, ctx())
    assert.matches("was ended by signal 15 %(SIGTERM%)$", why)
    local out = kit.sh("trap '' CHLD; " .. kit.lua_command(([[
      local _, why = require "mjhook.handlers.exec" { %q }({ ref = "01KB" }, { timeout = 9, event_id = "01KB-1" })
      print(why)
    ]]):format(script "exit 3")))
    assert.matches("program exited with 3$", out)
  end)

  it("is done by status 0, tries again on others, gives up on 65 and 100, and tells why", function()
    local function result(text)
      local handled, why, how = exec { script(text) }(task, ctx())
      return handled, why and why:gsub("^" .. dir:gsub("%p", "%%%0"), ""), how and how.bury
    end
    assert.same({ true }, { result "exit 0" })
    assert.same({ false, "/program exited with 1: no room" }, { result "echo first >&2; echo no room >&2; exit 1" })
    assert.same({ false, "/program exited with 75" }, { result "exit 75" })
    assert.same({ false, "/program exited with 65: bad", true }, { result "echo bad >&2; exit 65" })
    assert.same({ false, "/program exited with 100", true }, { result "exit 100" })
    assert.same({ false, "/program was ended by signal 9 (SIGKILL)" }, { result "kill -9 $$" })
    assert.same({ false, "/program exited with 1: ???" }, { result "printf '\\377\\376\\001' >&2; exit 1" })
  end)

  it("kills what takes too long, with its children", function()
    local path = script(("sleep 50 & echo $! >%s/pid; echo waiting >&2; wait"):format(dir))
    local before = socket.gettime()
    local handled, why = exec { path, timeout = 0.3 }(task, ctx())
    assert.same({ false, path .. " was killed: it took too long: waiting" }, { handled, why })
    assert.is_true(socket.gettime() - before < 15)
    local pid = kit.read(dir .. "/pid"):match "%d+"
    kit.wait_until(function()
      local stat = kit.read("/proc/" .. pid .. "/stat")
      return not stat or stat:find "%) Z"
    end)
  end)

  it("kills in time also what stops the process that would have to kill it", function()
    local path = script "guard=$PPID; (sleep 20; kill -CONT $guard) & kill -STOP $guard; exit 0"
    local before = socket.gettime()
    local handled, why = exec { path, timeout = 0.3 }(task, ctx())
    assert.same({ false, path .. " was killed: it took too long" }, { handled, why })
    assert.is_true(socket.gettime() - before < 15)
  end)

  it("takes no longer than a handler may", function()
    local least = math.huge
    for _ = 1, 5 do -- a busy machine may wake it late, but not each time
      local before = socket.gettime()
      assert.is_false((exec { script "sleep 20", timeout = 60 }(task, ctx(1))))
      least = math.min(least, socket.gettime() - before)
      if least < 1 then
        break
      end
    end
    assert.is_true(least < 1, least)
  end)

  it("leaves nothing behind that a program started and forgot", function()
    assert.is_true(exec { script(("sleep 50 & echo $! >%s/pid"):format(dir)) }(task, ctx()))
    local pid = kit.read(dir .. "/pid"):match "%d+"
    kit.wait_until(function()
      local stat = kit.read("/proc/" .. pid .. "/stat")
      return not stat or stat:find "%) Z"
    end)
  end)

  it("leaves nothing behind that went into a session of its own either, two of them deep", function()
    local path = script(("setsid sh -c 'setsid sleep 50 & echo $! >pid; exec sleep 50' </dev/null >/dev/null 2>&1 &"
      .. " until [ -s pid ]; do sleep 0.01; done"):gsub("pid", function() return dir .. "/pid" end))
    assert.is_true(exec { path }(task, ctx()))
    local stat = kit.read("/proc/" .. kit.read(dir .. "/pid"):match "%d+" .. "/stat")
    assert.is_true(not stat or stat:find "%) Z" ~= nil)
  end)

  it("minds no program that does not read, or says very much", function()
    local large = { prompt = ("x"):rep(500000) }
    assert.is_true(exec { script "exec <&-; exit 0" }(large, ctx()))
    assert.is_true(exec { script "exit 0" }(large, ctx()))
    assert.is_true(exec { script(("wc -c >%s/size"):format(dir)) }(large, ctx()))
    assert.is_true(tonumber(kit.read(dir .. "/size")) > 500000)
    local handled, why = exec { script "head -c 3000000 /dev/zero | tr '\\0' y >&2; echo >&2; echo end >&2; exit 1" }(
      task, ctx())
    assert.is_false(handled)
    assert.truthy(why:find(": end$"))
  end)

  it("says that a program is not there or can't be run, and tries again later", function()
    local handled, why = exec { "/nowhere/program" }(task, ctx())
    assert.same({ false, "/nowhere/program: No such file or directory" }, { handled, why })
    handled, why = exec { kit.write(dir .. "/data", "x") }(task, ctx())
    assert.is_false(handled)
    assert.truthy(why:find("Permission denied", 1, true))
  end)

  it("leaves no descriptor open and no child behind", function()
    local function count()
      return { kit.descriptors(), kit.read "/proc/thread-self/children" }
    end
    local path = script "exit 0"
    exec { path }(task, ctx())
    local before = count()
    for _ = 1, 20 do
      exec { path }(task, ctx())
      exec { "/nowhere" }(task, ctx())
    end
    assert.same(before, count())
  end)

  it("buries a task that can't be written as JSON, and runs nothing", function()
    local handler = exec { script(("touch %s/ran"):format(dir)) }
    local handled, why, how = handler({ ref = "01KB", context = { "a", b = "c" } }, ctx())
    assert.same({ false, true, nil }, { handled, how.bury, kit.read(dir .. "/ran") })
    assert.matches("/program: the task can't be written as JSON: ", why)
  end)

  it("gives a program 256 words and 256 variables", function()
    local command, env = { script(("echo $# >%s/args; env | grep -c ^V >%s/env"):format(dir, dir)) }, {}
    for i = 1, 255 do
      command[i + 1] = "x"
    end
    for i = 1, 240 do -- beside those that it inherits
      env["V" .. i] = "x"
    end
    command.env = env
    assert.is_true(exec(command)(task, ctx()))
    assert.same({ "255\n", "240\n" }, { kit.read(dir .. "/args"), kit.read(dir .. "/env") })
  end)

  it("with bad options is an error when the policy is loaded", function()
    local many, variables = { "/x" }, {}
    for i = 1, 257 do
      many[i], variables["V" .. i] = "/x", "x"
    end
    for _, wrong in ipairs { "x", {}, { "relative" }, { "/x", 7 }, { "/x", "a\0b" }, { "/x", nonsense = 1 },
                             { "/x", timeout = "7" }, { "/x", timeout = 0 }, { "/x", env = { ["A=B"] = "c" } },
                             { "/x", env = { A = 7 } }, { "/x", input = "text" },
                             { "/x", background = 1 }, many, { "/x", env = variables } } do
      local ok, err = pcall(exec, wrong)
      assert.is_false(ok)
      assert.truthy(tostring(err):find("mjhook.handlers.exec: ", 1, true))
    end
  end)
end)
