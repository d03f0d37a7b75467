-- scripts/examples for operators, as shipped but for paths and users: units, logrotate's file, the configuration.
-- (The crontab line has a spec of its own, and so has nginx.conf.)
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local EXAMPLES = kit.root .. "/scripts/examples/"
local PROGRAM = kit.build .. "/bin/mjhook-reconcile"
local UNITS = { "mjhook-reconcile.service", "mjhook-reconcile.timer", "mjhook-reconcile-loop.service" }

local function here(command)
  return select(2, kit.sh("PATH=$PATH:/usr/sbin command -v " .. command)) == 0
end

-- Replaces something that has to be there.
local function put(text, old, new)
  local result, n = text:gsub((old:gsub("%p", "%%%0")), (new:gsub("%%", "%%%%")))
  assert(n > 0, "the example has no " .. old)
  return result
end

describe("the example", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  describe("unit", function()
    it("files are what systemd expects", function()
      if not here "systemd-analyze" then
        return pending "systemd is not installed"
      end
      local dir, paths = kit.tmp(), {}
      for i, name in ipairs(UNITS) do
        local text = kit.read(EXAMPLES .. name)
        paths[i] = dir .. "/" .. name
        kit.write(paths[i], name:find "service$" and put(text, "/usr/local/bin/mjhook-reconcile", PROGRAM) or text)
      end
      local out, code = kit.sh("systemd-analyze verify --man=no " .. table.concat(paths, " "))
      assert.equal("", (out:gsub("[^\n]*mode 0600[^\n]*\n?", "")))
      assert.equal(0, code)
    end)

    it("leaves little to attack", function()
      if not here "systemd-analyze" then
        return pending "systemd is not installed"
      end
      for _, name in ipairs { UNITS[1], UNITS[3] } do
        local text = put(kit.read(EXAMPLES .. name), "/usr/local/bin/mjhook-reconcile", PROGRAM)
        local path = kit.write(kit.tmp() .. "/" .. name, text)
        local out = kit.sh("systemd-analyze security --no-pager --offline=true " .. path)
        local exposure = tonumber(out:match "Overall exposure level for [^:]*: ([%d.]+)")
        assert.is_true(exposure and exposure < 2.0, out)
      end
    end)

    -- What the unit starts, on a store with something to do. Gives the process and the task.
    local function start(unit)
      local command = put(kit.read(EXAMPLES .. unit):match "\nExecStart=([^\n]+)\n", "/usr/local/bin/mjhook-reconcile",
        PROGRAM)
      local mj = kit.open({}, sim)
      local settings = kit.settings({}, sim)
      settings.log = nil
      local config = kit.write(kit.tmp() .. "/config.lua", receiver.config_text(settings))
      kit.travel(-100)
      local task = assert(mj:submit { prompt = "fox" })
      kit.travel(100)
      sim.finish(task.task_id)
      return kit.spawn(("cd / && exec env -i MJHOOK_CONFIG=%s %s"):format(config, command)), mj, task
    end

    it("that makes one pass makes it and ends", function()
      local child, mj, task = start "mjhook-reconcile.service"
      assert.equal(0, child:wait())
      assert.equal("", child:out() .. child:err())
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("that makes a pass every so often goes on until it is told to end", function()
      local child, mj, task = start "mjhook-reconcile-loop.service"
      kit.wait_until(function() return mj:get(task.ref).state == "succeeded" end)
      assert.is_nil(child:status())
      child:kill "TERM"
      assert.equal(0, child:wait())
      assert.equal("", child:out() .. child:err())
    end)
  end)

  describe("logrotate file", function()
    local dir, conf

    before_each(function()
      dir = kit.tmp()
      local text = kit.read(EXAMPLES .. "mjhook.logrotate")
      local user, group = kit.sh "id -un", kit.sh "id -gn"
      text = put(text, "/var/log/mjhook/", dir .. "/")
      text = put(text, "su mjhook mjhook", ("su %s %s"):format(user, group))
      text = put(text, "create 0640 mjhook mjhook", ("create 0640 %s %s"):format(user, group))
      conf = kit.write(dir .. "/conf", text)
    end)

    it("is for the file that the example configuration names", function()
      local path = kit.read(EXAMPLES .. "config.lua"):match 'log = "([^"]+)"'
      local pattern = kit.read(EXAMPLES .. "mjhook.logrotate"):match "\n(/%S+)"
      assert.equal(pattern:match "^(.*/)", path:match "^(.*/)")
      assert.matches("%.log$", path)
      assert.matches("/%*%.log$", pattern)
    end)

    it("rotates, and mjhook goes on in the new file", function()
      if not here "logrotate" then
        return pending "logrotate is not installed"
      end
      local path = dir .. "/mjhook.log"
      local mj = kit.open { log = path }
      mj.log("warn", "before")
      local logrotate = ("PATH=$PATH:/usr/sbin logrotate -s %s/state -f %s"):format(dir, conf)
      local out, code = kit.sh(logrotate)
      assert.same({ "", 0 }, { out, code })
      assert.equal("", kit.read(path))
      mj.log("warn", "after")
      assert.matches('msg="before"\n$', kit.read(path .. ".1"))
      assert.matches('msg="after"\n$', kit.read(path))
      assert.same({ "", 0 }, { kit.sh(logrotate) })
      mj.log("warn", "later")
      assert.is_truthy(core.stat(path .. ".2.gz"))
      assert.matches('msg="after"\n$', kit.read(path .. ".1"))
      assert.matches('msg="later"\n$', kit.read(path))
    end)
  end)

  for _, lua in ipairs { "lua5.4", "luajit" } do
    it("configuration is taken on " .. lua .. ", and its handlers do what they say", function()
      local dir = kit.tmp()
      local text = kit.read(EXAMPLES .. "config.lua")
      for _, name in ipairs { "/etc/mjhook", "/var/lib/mjhook", "/var/log/mjhook" } do
        text = put(text, name, dir .. name)
        kit.sh("mkdir -p " .. dir .. name)
      end
      kit.write(dir .. "/etc/mjhook/config.lua", text)
      kit.write(dir .. "/etc/mjhook/api-key", "test-key\n")
      kit.write(dir .. "/etc/mjhook/secrets", kit.SECRET .. "\n")
      local out, code = kit.sh(kit.bare .. " " .. kit.lua_command(([[
        local mj = assert(require("mjhook").open { config = "%s/etc/mjhook/config.lua" })
        local provider = require "mjhook.provider"
        for i, status in ipairs { 1, 2 } do
          local task = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox" })
          local body = ('{"taskId":"Id%%d","status":%%d,"image":"https://img.example/x","failReason":"banned"}')
            :format(i, status)
          assert(mj:callback { method = "POST", uri = provider.hook_url(mj, task.ref, 1), headers = {}, body = body }
            .status == 200)
        end
        assert(mj:deliver {}.delivered == 2)]]):format(dir), lua))
      assert.equal(0, code, out)
      assert.matches("^failed: %w+: banned$", out)
      assert.matches("^%w+\thttps://img.example/x\n$", (kit.sh("cat " .. dir .. "/var/lib/mjhook/done-*")) .. "\n")
    end)
  end
end)
