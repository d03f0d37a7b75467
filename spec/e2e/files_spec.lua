-- Files that programs write: what lies in their place, and who may read them.
local kit = require "kit"

local PROGRAM = kit.build .. "/bin/mjhook-reconcile"

describe("a file that is written", function()
  after_each(kit.cleanup)

  local dir

  before_each(function()
    dir = kit.tmp()
    kit.write(dir .. "/config.lua", ("return { store = %q, api_key = 'a-key-of-the-spec' }"):format(dir .. "/store"))
    local mj = assert(require("mjhook").open { config = dir .. "/config.lua" })
    mj:close()
  end)

  local function sweep(metrics, umask)
    return kit.sh(("umask %s; %s -q -c %s/config.lua --metrics %s"):format(umask or "022", PROGRAM, dir,
      kit.quote(metrics)))
  end

  local function mode(path)
    return (kit.sh("stat -c %a " .. kit.quote(path)))
  end

  local function names()
    return (kit.sh(("ls -A %s | grep -v '^config.lua$' | tr '\n' ' '"):format(dir)))
  end

  it("for metrics can be read by a collector, whatever the umask", function()
    for _, umask in ipairs { "077", "022", "000", "777" } do
      local said, code = sweep(dir .. "/mjhook.prom", umask)
      assert.same({ "", 0 }, { said, code })
      assert.equal("644", mode(dir .. "/mjhook.prom"))
      assert.matches("mjhook_sweep_errors 0\n", kit.read(dir .. "/mjhook.prom"))
      assert.equal("mjhook.prom store ", names())
    end
  end)

  it("for metrics is written through no link that was planted beside it", function()
    local victim = kit.write(dir .. "/victim", "precious")
    for _, name in ipairs { "mjhook.prom.tmp", ".mjhook.prom.tmp" } do
      os.execute(("ln -s victim %s/%s"):format(dir, name))
    end
    assert.equal(0, (select(2, sweep(dir .. "/mjhook.prom"))))
    assert.equal("precious", kit.read(victim))
    assert.matches("mjhook_tasks", kit.read(dir .. "/mjhook.prom"), 1, true)
  end)

  local strange = {
    { "a symbolic link", "ln -s store/data.mdb %s/it" }, { "a symbolic link", "ln -s nowhere %s/it" },
    { "a FIFO", "mkfifo %s/it" }, { "a directory", "mkdir %s/it" },
    { "a socket", "python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"%s/it\")'" },
  }
  if require("mjhook.core").uid() == 0 then -- one of its own: broken code would replace the machine's
    strange[#strange + 1] = { "a device", "mknod -m 600 %s/it b 7 77" }
  end
  for _, case in ipairs(strange) do
    it(("for metrics replaces nothing that is no regular file: %s"):format(case[2]), function()
      os.execute(case[2]:format(dir))
      local before = kit.sh(("stat -c '%%i %%F' %s/it %s/store/data.mdb"):format(dir, dir))
      local said, code = sweep(dir .. "/it")
      assert.equal(73, code)
      assert.matches(("mjhook-reconcile: metrics: %s/it is %s"):format(dir, case[1]), said, 1, true)
      assert.is_nil(said:find("\n", 1, true))
      assert.equal(before, (kit.sh(("stat -c '%%i %%F' %s/it %s/store/data.mdb"):format(dir, dir))))
      assert.equal("it store ", names())
    end)
  end

  local function log_to(path, umask)
    return kit.sh(("umask %s; %s"):format(umask or "022", kit.lua_command(([[
      require("mjhook.log").open(%q)("warn", "a line")]]):format(path))))
  end

  it("as log is for its owner and a group, whatever the umask", function()
    for _, umask in ipairs { "077", "022", "000" } do
      os.remove(dir .. "/it.log")
      assert.equal("", (log_to(dir .. "/it.log", umask)))
      assert.equal("640", mode(dir .. "/it.log"))
    end
    os.execute(("chmod 600 %s/it.log"):format(dir)) -- as its owner wants it
    assert.equal("", (log_to(dir .. "/it.log")))
    assert.equal("600", mode(dir .. "/it.log"))
    assert.equal(2, select(2, kit.read(dir .. "/it.log"):gsub("\n", "")))
  end)

  it("as log is no link, FIFO or directory: standard error gets the line, and why", function()
    for _, case in ipairs(strange) do
      os.execute(("rm -rf %s/it"):format(dir))
      os.execute(case[2]:format(dir))
      local before = kit.read(dir .. "/store/data.mdb")
      local said = log_to(dir .. "/it")
      assert.matches(("log: %s/it is %s"):format(dir, case[1]), said, 1, true)
      assert.matches('msg="a line"', said, 1, true)
      assert.is_true(before == kit.read(dir .. "/store/data.mdb"))
    end
    assert.is_nil(kit.read(dir .. "/nowhere"))
  end)

  it("as log may be the program's own output, as in containers", function()
    assert.matches('msg="a line"$', (log_to "/dev/stderr"))
    assert.matches('msg="a line"$', (log_to "/dev/stdout"))
  end)
end)
