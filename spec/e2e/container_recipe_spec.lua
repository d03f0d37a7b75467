-- What scripts/doc/guides/containers.md says, in containers made by unshare: a mount and a PID namespace, a root for
-- reading alone but for a volume, a user that the system does not know, no capability, no new privileges.
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local USER = 12345

describe("a container as the guide has it", function()
  local can = kit.sh "id -u" == "0" and select(2, kit.sh "unshare --mount --pid --fork --mount-proc true") == 0
  local dir, volume

  setup(sim.start)
  teardown(sim.stop)
  before_each(function()
    sim.reset()
    dir = kit.tmp()
    volume = dir .. "/volume"
    -- An installation of its own: the source tree may lie where other users do not come.
    kit.sh(([[set -e
      mkdir -p %s/bin %s/share/lua %s/lib/lua/5.4 %s/etc %s
      cp -r %s/lua %s/share/lua/5.4
      cp -r %s/5.4/mjhook %s/lib/lua/5.4
      cp %s/bin/mjhook-reconcile %s/scripts/mjhook %s/bin
      chmod -R a+rX %s
      chown %d:%d %s && chmod 700 %s]]):format(dir, dir, dir, dir, volume, kit.root, dir, kit.build, dir, kit.build,
      kit.root, dir, dir, USER, USER, volume, volume))
  end)
  after_each(kit.cleanup)

  local function config(extra)
    local settings = { store = volume .. "/store", api_key_file = dir .. "/etc/key", base_url = sim.url,
      hook_url = "http://127.0.0.1:1/hook", secrets = { kit.SECRET }, log = volume .. "/log" }
    for key, value in pairs(extra or {}) do
      settings[key] = value
    end
    kit.write(dir .. "/etc/config.lua", receiver.config_text(settings))
    kit.write(dir .. "/etc/key", "test-key\n")
    kit.sh(("chmod 644 %s/etc/config.lua; chown %d %s/etc/key; chmod 400 %s/etc/key"):format(dir, USER, dir, dir))
  end

  -- The command line that runs `command` in a container; `join` is a process whose PID namespace it shares.
  local function container(command, join, user)
    local confined = ("%s --no-new-privs --bounding-set=-all --inh-caps=-all"):format(user
      or ("--reuid=%d --regid=%d --clear-groups"):format(USER, USER))
    local script = ([[set -e
      mount --make-rprivate /
      mount --bind %s %s
      mount -o remount,bind,ro /
      for at in $(awk '$5 != "/" && $5 !~ "^/(proc|sys|dev)(/|$)" && $5 != "%s" { print $5 }' /proc/self/mountinfo); do
        mount -o remount,bind,ro "$at" 2>/dev/null || true
      done
      exec env -i PATH=/usr/bin:/bin MJHOOK_CONFIG=%s/etc/config.lua setpriv %s %s]]):format(volume, volume, volume,
      dir, confined, command)
    local namespaces = "unshare --mount --pid --fork --kill-child --mount-proc"
    if join then
      namespaces = ("nsenter -t %d --pid unshare --mount --mount-proc"):format(join)
    end
    return ("%s sh -c %s"):format(namespaces, kit.quote(script))
  end

  local function run(command, ...)
    return kit.sh(container(command, ...))
  end

  local function mjhook(arguments)
    return ("lua5.4 -E %s/bin/mjhook %s"):format(dir, arguments)
  end

  -- The pid, seen from here, of the first process of the container that `child` started.
  local function first_process(child, name)
    local pid
    kit.wait_until(function()
      pid = tonumber(kit.sh(("pgrep -P %d"):format(child.pid)):match "%d+")
      return pid and (kit.read("/proc/" .. pid .. "/cmdline") or ""):find(name, 1, true)
    end)
    return pid
  end

  local function needs_root()
    if not can then
      pending "only root can make such a container here"
      return true
    end
  end

  it("submits, reconciles and looks at its tasks with a root for reading alone, as a user without a name", function()
    if needs_root() then
      return
    end
    config()
    local out, code = run(mjhook "submit --json 'a fox'")
    assert.equal(0, code, out)
    local task_id = out:match '"task_id":"([^"]+)"'
    assert.is_string(task_id, out)
    sim.finish(task_id)
    out, code = run(mjhook "refresh --json " .. out:match '"ref":"([^"]+)"')
    assert.equal(0, code, out)
    assert.same({ "", 0 }, { run(dir .. "/bin/mjhook-reconcile -q") })
    out = run(mjhook "list --json")
    assert.matches('"state":"succeeded"', out)
    assert.equal(tostring(USER), kit.sh("stat -c %u " .. volume .. "/store/data.mdb"))
    -- The root was for reading alone, indeed, and the user without a name.
    assert.matches("Read%-only", (run "touch /tmp/mjhook-was-here /etc/mjhook-was-here"))
    assert.is_nil(core.stat "/tmp/mjhook-was-here")
    assert.matches("cannot find name for user ID", (run "id -un"))
    assert.matches("CapBnd:%s*0000000000000000", (run "cat /proc/self/status"))
  end)

  it("has the reconciler as its first process, which ends with 0 on SIGTERM", function()
    if needs_root() then
      return
    end
    config()
    local child = kit.spawn("exec " .. container(dir .. "/bin/mjhook-reconcile --interval 0.3"))
    local pid = first_process(child, "mjhook-reconcile")
    assert.matches("NSpid:%s*%d+%s+1\n", kit.read("/proc/" .. pid .. "/status"))
    run(mjhook("submit 'a fox'"), pid)
    kit.sh("kill -TERM " .. pid)
    assert.equal(0, child:wait())
    assert.equal("", child:err())
  end)

  it("shares its store with a container in the same PID namespace, and refuses a second first process", function()
    if needs_root() then
      return
    end
    config()
    kit.write(dir .. "/hold.lua", [[
      local mj = assert(require("mjhook").open {})
      assert(mj:adopt { task_id = "held", prompt = "x" })
      for _ in mj:tasks {} do end
      io.open(arg[1], "w"):close()
      io.read()
    ]])
    kit.sh("chmod 644 " .. dir .. "/hold.lua")
    local lua = ("env LUA_PATH=%s/share/lua/5.4/?.lua LUA_CPATH='%s/lib/lua/5.4/?.so;;' lua5.4 "):format(dir, dir)
    local child = kit.spawn(("mkfifo %s/in; exec %s <>%s/in"):format(dir,
      container(lua .. dir .. "/hold.lua " .. volume .. "/ready"), dir))
    kit.wait_until(function()
      return core.stat(volume .. "/ready")
    end)
    local pid = tonumber(kit.sh("pgrep -f '^lua5.4 " .. dir .. "/hold.lua'"):match "%d+")
    local out, code = run(mjhook "list --json", pid)
    assert.equal(0, code, out)
    assert.matches('"held"', out)
    -- In a PID namespace of its own it is process 1, as the other one is.
    out, code = run(mjhook "list --json")
    assert.not_equal(0, code)
    assert.matches("another process with the process id 1 has the store .* open, in another container", out)
    assert.matches("let these containers share one PID namespace", out)
    assert.is_nil(child:status())
    kit.sh("kill -KILL " .. pid) -- the pipe's other end would keep it
    child:wait()
  end)

  it("is refused for another user, root included, by the owner's name or number", function()
    if needs_root() then
      return
    end
    config()
    assert.equal(0, (select(2, run(mjhook "submit 'a fox'"))))
    kit.sh("chmod 755 " .. volume)
    for _, user in ipairs { "--reuid=0 --regid=0 --clear-groups", "--reuid=54321 --regid=54321 --clear-groups" } do
      kit.sh(("chown %d %s/etc/key"):format(user:match "=(%d+)", dir))
      local out, code = run(mjhook "list", nil, user)
      assert.not_equal(0, code)
      assert.matches("12345", out)
    end
  end)

  describe("reads a secret", function()
    local function accepted(mount)
      config { api_key_file = mount }
      return run(mjhook "submit --json 'a fox'")
    end

    it("of mode 0400 that belongs to its user", function()
      if needs_root() then
        return
      end
      kit.sh(("cd %s; mkdir -m 755 secrets; echo test-key >secrets/key; chown %d secrets/key; chmod 400 secrets/key")
        :format(dir, USER))
      local out, code = accepted(dir .. "/secrets/key")
      assert.equal(0, code, out)
    end)

    it("through the links of a Kubernetes volume, with the group's permission", function()
      if needs_root() then
        return
      end
      -- As the kubelet lays it out: a sticky directory of root's, "..data" that names a directory, links into that.
      kit.sh(([[set -e
        mkdir %s/secrets; cd %s/secrets
        mkdir ..2026_11_28; echo test-key >..2026_11_28/key
        ln -s ..2026_11_28 ..data; ln -s ..data/key key
        chown -R root:%d . && chmod 3777 . && chmod 750 ..2026_11_28 && chmod 440 ..2026_11_28/key]]):format(dir, dir,
        USER))
      local out, code = accepted(dir .. "/secrets/key")
      assert.equal(0, code, out)
    end)

    it("but not one that every user may read, and says which and what to do", function()
      if needs_root() then
        return
      end
      kit.sh(("cd %s; mkdir -m 755 secrets; echo test-key >secrets/key; chmod 444 secrets/key"):format(dir))
      local out, code = accepted(dir .. "/secrets/key")
      assert.not_equal(0, code)
      assert.matches("secrets/key", out)
      assert.matches("chmod", out)
    end)
  end)

  it("may have a /proc that hides the processes of others", function()
    if needs_root() then
      return
    end
    config()
    local hidden = ("sh -c 'mount -o remount,hidepid=2 /proc && exec setpriv --reuid=%d --regid=%d --clear-groups %s'")
      :format(USER, USER, mjhook "submit --json fox")
    local out, code = kit.sh(("unshare --mount --pid --fork --mount-proc env -i PATH=/usr/bin:/bin "
      .. "MJHOOK_CONFIG=%s/etc/config.lua %s"):format(dir, hidden))
    assert.equal(0, code, out)
    assert.matches('"state":"pending"', out)
  end)
end)
