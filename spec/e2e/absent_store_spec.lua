-- Before the first submission, and as the wrong user: what each program says and does.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local RECONCILE = kit.build .. "/bin/mjhook-reconcile"
local MJHOOK = ("env MJHOOK_BUILD=%s lua5.4 %s/scripts/mjhook"):format(kit.build, kit.root)
local AS_ROOT = core.uid() == 0

describe("a store that is not there yet", function()
  local dir, config, environment

  setup(sim.start)
  teardown(sim.stop)
  before_each(function()
    sim.reset()
    dir = kit.tmp()
    local settings = kit.settings({ store = dir .. "/store", poll = nil }, sim)
    settings.log = nil
    config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
    environment = kit.bare .. " MJHOOK_CONFIG=" .. kit.quote(config) .. " "
  end)
  after_each(kit.cleanup)

  it("finds no space under a limit of the size of files, and no program ends by a signal", function()
    local out, code = kit.sh(environment .. MJHOOK .. " submit 'a fox'")
    assert.equal(0, code, out)
    for _, program in ipairs { MJHOOK .. " submit 'a crow'", RECONCILE } do
      out, code = kit.sh(("ulimit -f 1; %s%s"):format(environment, program))
      assert.equal(73, code, out)
      assert.matches("no space left for the store: File too large", out, 1, true)
    end
    assert.equal("1", (kit.sh(environment .. MJHOOK .. " list --count")))
  end)

  -- Also where its directory is there already, as init and systemd leave it.
  for name, prepare in pairs { ["without its directory"] = "true",
                               ["with an empty directory"] = "mkdir -m 700 store" } do
    it("is an idle pass that says nothing and exits 0: " .. name, function()
      assert.equal(0, select(2, kit.sh("cd " .. dir .. " && " .. prepare)))
      assert.same({ "", 0 }, { kit.sh(environment .. RECONCILE) })
      assert.same({ "", 0 }, { kit.sh(environment .. RECONCILE .. " -q") })
      local out, code = kit.sh(environment .. RECONCILE .. " --json")
      assert.equal(0, code, out)
      assert.equal(0, cjson.decode(out).requests)
      assert.same({ "would poll 0, decide on 0 ambiguous, recover 0; 0 queued, 0 pending", 0 },
        { kit.sh(environment .. RECONCILE .. " --dry-run") })
      assert.truthy(kit.sh(environment .. RECONCILE .. " -v"):find("nothing to do: store: there is none in " .. dir
        .. "/store; the first submit makes it", 1, true))
      assert.is_nil(core.stat(dir .. "/store/data.mdb"))
    end)
  end

  it("is waited for by --interval, which takes up its work with the first submission", function()
    local loop = kit.spawn("exec " .. environment .. RECONCILE .. " --interval 0.2")
    kit.sleep(0.5)
    assert.is_nil(loop:status(), loop:err())
    local out, code = kit.sh(environment .. MJHOOK .. " submit 'a fox' --json")
    assert.equal(0, code, out)
    sim.finish(cjson.decode(out).task_id)
    kit.wait_until(function()
      return kit.sh(environment .. MJHOOK .. " refresh " .. cjson.decode(out).ref):find "succeeded"
    end)
    kit.wait_until(function() -- it has opened the store: a pass is noted
      return cjson.decode((kit.sh(environment .. MJHOOK .. " stats --json"))).sweep.last_at
    end)
    loop:kill "TERM"
    assert.equal(0, loop:wait())
    assert.equal("", loop:out() .. loop:err())
  end)

  it("is an error of configuration and policy all the same, before it is idle", function()
    kit.write(config, "return { stroe = '/x' }")
    assert.equal(78, select(2, kit.sh(environment .. RECONCILE)))
    kit.write(dir .. "/policy.lua", "return {")
    kit.write(config, ("return { store = '%s/store', policy = 'policy.lua' }"):format(dir))
    assert.equal(78, select(2, kit.sh(environment .. RECONCILE)))
  end)

  it("writes metrics that say that nothing was done", function()
    assert.same({ "", 0 }, { kit.sh(environment .. RECONCILE .. " --metrics " .. dir .. "/metrics") })
    assert.matches("mjhook_sweep_polled 0\n", kit.read(dir .. "/metrics"))
  end)

  it("is not provably absent where a directory above it is a file: that is an error that names the reason", function()
    kit.write(dir .. "/file", "")
    kit.write(config, ("return { store = '%s/file/store' }"):format(dir))
    local out, code = kit.sh(environment .. RECONCILE)
    assert.not_equal(0, code)
    assert.matches("Not a directory", out)
  end)

  describe("or belongs to another user", function()
    local as_nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups "

    -- Runs a program as nobody, who may read the configuration and the sources.
    local function foreign(command)
      kit.sh(("chmod 711 %s; chmod 755 $(dirname %s); chmod 644 %s"):format(dir, dir, config))
      return kit.sh(("cd / && %s %s %s"):format(as_nobody, environment, command))
    end

    local function needs_root()
      if not AS_ROOT then
        pending "needs root to be two users"
        return true
      end
    end

    it("is told by every program, with the owner's name", function()
      if needs_root() then
        return
      end
      assert.equal(0, select(2, kit.sh(environment .. MJHOOK .. " submit 'a fox'")))
      for _, command in ipairs { MJHOOK .. " list", MJHOOK .. " submit 'a wolf'", MJHOOK .. " stats",
                                 MJHOOK .. " get X", RECONCILE, RECONCILE .. " -q", RECONCILE .. " --json" } do
        local out, code = foreign(command)
        assert.equal(73, code, command .. ": " .. out)
        assert.truthy(out:find("belongs to root", 1, true) or out:find("belongs to user root", 1, true)
          or out:find("uid 0", 1, true), command .. ": " .. out)
      end
      assert.matches("FAIL +store[^\n]*root", (foreign(MJHOOK .. " doctor")))
      local cgi = "REQUEST_METHOD=POST SERVER_PROTOCOL=HTTP/1.1 lua5.4 " .. kit.root .. "/scripts/mjhook.cgi"
      assert.matches("root", (foreign(("env MJHOOK_BUILD=%s %s"):format(kit.build, cgi))))
    end)

    it("is not taken for absent where its directories can't be looked into", function()
      if needs_root() then
        return
      end
      kit.sh(("mkdir -m 700 %s/closed"):format(dir))
      kit.write(config, ("return { store = '%s/closed/store' }"):format(dir))
      for _, command in ipairs { RECONCILE, MJHOOK .. " list" } do
        local out, code = foreign(command)
        assert.not_equal(0, code)
        assert.truthy(out:find("Permission denied", 1, true), command .. ": " .. out)
        assert.is_nil(out:find("there is none", 1, true), out)
        assert.is_nil(out:find("none at", 1, true), out)
      end
    end)
  end)
end)
