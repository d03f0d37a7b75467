-- mjhook doctor looks at configuration, store and libraries; and the command itself. What it says of hook_url and of
-- the provider is in doctor_web_spec.lua.
local cjson = require "cjson"
local core = require "mjhook.core"
local doctor = require "mjhook.doctor"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local AS_ROOT = core.uid() == 0
local NOBODY = 65534

local open_store = core.open

describe("mjhook doctor", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local findings, count, dir

  before_each(function()
    dir = kit.tmp()
  end)

  -- A configuration file on a store that is there (unless `store` says otherwise) and is looked after, polling only.
  local function config_file(more, text)
    local mj = kit.open({}, sim)
    if core.open == open_store then -- what a spec puts in its place can't be reconciled
      assert(mj:reconcile { budget = 5 })
    end
    mj:close()
    local settings = kit.settings({ hook_url = false }, sim)
    settings.log, settings.hook_url, settings.secrets = nil, nil, nil
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    return kit.write(dir .. "/config.lua", text or receiver.config_text(settings))
  end

  local function examine(more, text)
    findings, count = doctor.run { config = config_file(more, text) }
    local all = cjson.encode(findings)
    assert.is_nil(all:find(kit.SECRET, 1, true), all)
    assert.is_nil(all:find(kit.KEY, 1, true), all)
  end

  local function finding(check)
    local found
    for _, f in ipairs(findings) do
      if f.check == check then
        assert.is_nil(found, check .. " is there twice")
        found = f
      end
    end
    return found or { message = "", advice = "" }
  end

  local function assert_finding(status, check, message, advice)
    local f = finding(check)
    assert.equal(status, f.status, check .. ": " .. cjson.encode(findings))
    if message then
      assert.is_truthy(f.message:find(message, 1, true), f.message)
    end
    if status ~= "ok" then
      assert.is_true(#f.advice > 0)
      assert.is_truthy(f.advice:find(advice or "", 1, true), f.advice)
    end
  end

  -- The only thing that failed.
  local function assert_fails(check, message, advice)
    assert_finding("fail", check, message, advice)
    assert.equal(1, count.fail, cjson.encode(findings))
  end

  -- Replaces one of the core's functions until the end of the test.
  local function replace(name, f)
    local real = core[name]
    core[name] = function(...)
      return f(real, ...)
    end
    kit.finally(function() core[name] = real end)
  end

  local function chmod(mode, path)
    assert(os.execute(("chmod %s %s"):format(mode, kit.quote(path))))
  end

  local function chown(path)
    assert(os.execute(("chown -R %d %s"):format(NOBODY, kit.quote(path))))
  end

  it("finds nothing wrong with a good installation", function()
    examine()
    assert_finding("ok", "configuration.file", dir .. "/config.lua, uid " .. core.uid() .. ", mode 600")
    assert_finding("ok", "configuration.policy", "none: events wait")
    assert_finding("ok", "store.directory", "mode 700")
    for _, check in ipairs { "disk", "files", "open", "map_max", "events" } do
      assert_finding("ok", "store." .. check)
    end
    assert_finding("ok", "hook_url", "only polled")
    for _, library in ipairs { "libcurl", "lmdb", "cjson", "lua" } do
      assert_finding("ok", "libraries." .. library, nil)
      assert.matches("%d%.%d", finding("libraries." .. library).message)
    end
    assert.same({ 0, false }, { count.fail, count.config })
    assert.equal(#findings, count.ok + count.warn)
  end)

  it("tells each finding as soon as there is one", function()
    local heard = {}
    findings = doctor.run({ config = config_file() }, { heard = function(f) heard[#heard + 1] = f end })
    assert.same(findings, heard)
    assert.is_true(#heard > 5)
  end)

  it("goes on when a check itself breaks", function()
    replace("libraries", function() error "no idea" end)
    examine()
    assert_fails("libraries", "no idea", "bug")
    replace("disk", function() error "no idea" end)
    examine()
    assert_finding("fail", "store", "no idea", "bug")
    assert_finding("ok", "provider.key")
  end)

  describe("of the configuration", function()
    local broken = {
      { "does not compile", "return {", "expected" },
      { "has an unknown key", "return { stroe = '/x' }", "stroe: unknown key" },
      { "names no store", "return {}", "store: not set" },
      { "names a secret file that is not there", "return { store = '/x', secrets_file = '/nowhere/s' }", "/nowhere/s" },
    }
    for _, case in ipairs(broken) do
      it("fails when it " .. case[1] .. ", and looks at nothing that needs it", function()
        examine({}, case[2])
        assert_fails("configuration", case[3], "mjhook-config(5)")
        assert.is_true(count.config)
        assert_finding("ok", "libraries.lua")
        assert.equal(0, sim.requests "status")
      end)
    end

    it("fails when there is no such file", function()
      findings, count = doctor.run { config = "/nowhere/config.lua" }
      assert_fails("configuration", "/nowhere/config.lua")
      assert.is_true(count.config)
    end)

    it("fails when others can write it", function()
      local path = config_file()
      chmod("622", path)
      findings, count = doctor.run { config = path }
      assert_fails("configuration", "chmod go-w")
    end)

    it("fails when keys stand in it and every user can read it; without keys every user may", function()
      local path = config_file()
      chmod("644", path)
      findings, count = doctor.run { config = path }
      assert_fails("configuration.file", "all users can read", "chmod o-rwx")
      assert.is_true(count.config)
      path = config_file({}, receiver.config_text { store = kit.store, base_url = sim.url })
      chmod("644", path)
      findings, count = doctor.run { config = path, api_key = kit.KEY }
      assert_finding("ok", "configuration.file", "mode 644")
      assert.equal(0, count.fail)
    end)

    for _, key in ipairs { "api_key_file", "secrets_file" } do
      it("looks at the file of keys: " .. key, function()
        local file = kit.write(dir .. "/private", "the-doctors-private-key\n")
        local settings = { api_key_file = nil, [key] = file }
        if key == "api_key_file" then
          sim.config { keys = { "the-doctors-private-key" } }
          settings = { api_key = false, [key] = file }
        end
        local path = config_file(settings)
        local text = kit.read(path):gsub("  api_key = false,\n", "")
        kit.write(path, text)
        findings, count = doctor.run { config = path }
        assert_finding("ok", "configuration." .. key, file .. ", uid")
        assert.equal(0, count.fail)
        assert.is_nil(cjson.encode(findings):find("the-doctors-private", 1, true))
        chmod("604", file)
        findings, count = doctor.run { config = path }
        assert_fails("configuration", key .. ": " .. file .. " can be read")
        if AS_ROOT then
          chmod("600", file)
          chown(file)
          findings, count = doctor.run { config = path }
          assert_finding("warn", "configuration." .. key, "uid 65534", "chown")
        end
      end)
    end

    it("loads the policy, and fails when that fails", function()
      local policy = kit.write(dir .. "/policy.lua", "return { on_event = function() end }")
      examine { policy = policy }
      assert_finding("ok", "configuration.policy", policy .. ", uid")
      kit.write(policy, "return { on_evnt = function() end }")
      examine { policy = policy }
      assert_fails("configuration.policy", "on_evnt", "mjhook-reconcile")
      assert.is_true(count.config)
      chmod("666", policy)
      examine { policy = policy }
      assert_fails("configuration", "policy: " .. policy .. " can be written")
      examine({}, ("return { store = %q, api_key = %q, base_url = %q, policy = {} }"):format(kit.store, kit.KEY,
        sim.url))
      assert_finding("ok", "configuration.policy", "in the configuration")
    end)
  end)

  describe("of the store", function()
    it("warns when it is not there yet, and does not make it", function()
      examine { store = dir .. "/store" }
      assert_finding("warn", "store.directory", "not there yet", "first submission")
      assert_finding("ok", "store.disk")
      assert.is_nil(core.stat(dir .. "/store"))
      assert.equal(0, count.fail)
      kit.sh("mkdir -m 700 " .. dir .. "/store")
      examine { store = dir .. "/store" }
      assert_finding("warn", "store.open", "no store in it yet")
      assert.is_nil(core.stat(dir .. "/store/data.mdb"))
    end)

    it("fails when it can't be made", function()
      examine { store = "/nowhere/at/all" }
      assert_fails("store.directory", "no directory /nowhere/at", "mkdir")
      examine { store = dir .. "/config.lua/store" }
      assert_fails("store.directory", "config.lua")
    end)

    it("fails when it is no directory, or no store", function()
      examine { store = dir .. "/config.lua" }
      assert_fails("store.directory", "no directory", "another")
      kit.sh("mkdir -m 700 " .. dir .. "/store")
      kit.write(dir .. "/store/data.mdb", ("no LMDB file "):rep(1000))
      examine { store = dir .. "/store" }
      assert_fails("store.open", "no LMDB file", "another directory")
    end)

    it("fails when others can write into it, or use its files", function()
      local path = config_file()
      chmod("777", kit.store)
      findings, count = doctor.run { config = path }
      assert_fails("store.directory", "all users", "chmod o-w")
      chmod("1777", kit.store) -- as /tmp: nobody replaces the files of another
      findings, count = doctor.run { config = path }
      assert_finding("ok", "store.directory", "mode 1777")
      chmod("755", kit.store)
      chmod("604", kit.store .. "/data.mdb")
      findings, count = doctor.run { config = path }
      assert_finding("ok", "store.directory", "mode 755")
      assert_fails("store.files", "data.mdb has mode 604", "chmod o-rwx")
    end)

    it("fails when it is to be shared and its directory is not", function()
      examine { store_mode = "0660" }
      assert_fails("store.directory", "mode 700", "chmod 2770")
      chmod("2770", kit.store)
      examine { store_mode = "0660" }
      assert_finding("ok", "store.directory", "mode 2770")
    end)

    if AS_ROOT then
      it("fails when a lock file belongs to another user", function()
        local path = config_file()
        kit.write(kit.store .. "/reconcile.lock", "")
        findings, count = doctor.run { config = path }
        assert_finding("ok", "store.files")
        chown(kit.store .. "/reconcile.lock")
        findings, count = doctor.run { config = path }
        assert_fails("store.files", "reconcile.lock belongs to uid 65534", "chown")
      end)

      it("fails when it belongs to another user", function()
        local path = config_file()
        chown(kit.store)
        findings, count = doctor.run { config = path }
        assert_fails("store.open", "belongs to user", "owner")
      end)
    end

    it("fails when it can't be read", function()
      replace("open", function(real, ...)
        local store = real(...)
        return {
          stats = function() return nil, core.error("corrupt", "a page is bad") end,
          close = function() store:close() end,
        }
      end)
      examine()
      assert_fails("store.open", "a page is bad", "mjhook check")
    end)

    it("warns when the disk is nearly full, fails when it is", function()
      local free = 100 * 2 ^ 20
      replace("disk", function() return { free = free, total = 2 ^ 40 } end)
      examine()
      assert_finding("warn", "store.disk", "100 MiB of 1 TiB free", "retention")
      free = 10 * 2 ^ 20
      examine()
      assert_fails("store.disk", "10 MiB", "make room")
    end)

    it("fails when the disk's free space is not known", function()
      replace("disk", function() return nil, core.error("io", "Stale file handle") end)
      examine()
      assert_fails("store.disk", "Stale file handle", "mounted")
    end)

    it("warns when it nears map_max, fails just below", function()
      local mj = kit.open({ base_url = "http://127.0.0.1:1" })
      local jobs = {}
      for i = 1, 300 do
        jobs[i] = { prompt = ("x"):rep(9000) .. i }
      end
      assert(mj:submit_many(jobs))
      local used = mj:stats().bytes_used
      examine { map_max = math.floor(used / 0.5) }
      assert_finding("ok", "store.map_max", "MiB in use")
      examine { map_max = math.floor(used / 0.9) }
      assert_finding("warn", "store.map_max", "MiB", "map_max")
      examine { map_max = math.floor(used / 0.97) }
      assert_fails("store.map_max", "MiB", "retention")
    end)

    it("warns of buried events and tells their share", function()
      local mj = kit.open({ policy = { on_succeeded = function() error "no" end } }, sim)
      for i = 1, 2 do
        sim.finish(assert(mj:submit { prompt = "a fox " .. i }).task_id)
      end
      sim.hand(mj, 1)
      for _ = 1, 20 do
        assert(mj:deliver())
        kit.travel(4000)
      end
      assert.equal(1, mj:stats().buried)
      sim.hand(mj, 2)
      examine()
      assert_finding("warn", "store.events", "1 of 2 stored events are buried (50 %)", "mjhook kick")
    end)

    describe("whose last pass is known", function()
      local sweep, oldest

      before_each(function()
        oldest = nil
        replace("open", function(real, ...)
          local store, err = real(...)
          return store and {
            stats = function(_, now)
              local stats = store:stats(now)
              stats.sweep, stats.oldest_open = sweep, oldest or stats.oldest_open
              return stats
            end,
            close = function() store:close() end,
          }, err
        end)
      end)

      it("warns when the reconciler never ran, with a line for crontab; fails once a task has waited for it", function()
        sweep = {}
        examine()
        assert_finding("warn", "store.sweep", "never ran", "* * * * * /")
        assert.truthy(finding("store.sweep").advice:find(" -q -c " .. dir .. "/config.lua", 1, true))
        oldest = core.now() - 7200000
        examine()
        assert_fails("store.sweep", "never ran", "crontab -e")
      end)

      it("is fine with an hourly cron, warns when that was missed, and fails after a day", function()
        for minutes, status in pairs { [1] = "ok", [10] = "ok", [61] = "ok", [70] = "warn", [600] = "warn",
                                       [1600] = "fail" } do
          sweep = { last_at = core.now() - minutes * 60000 }
          examine()
          assert_finding(status, "store.sweep", "last ran", status ~= "ok" and "* * * * * /" or nil)
        end
      end)
    end)

    describe("with events", function()
      local function ended(mj)
        local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
        assert.equal(200, mj:callback({ method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1),
          headers = {}, body = '{"taskId":"T1","status":1,"image":"https://img.example/x"}' }).status)
      end

      it("warns when they fail at each try, with the newest error", function()
        local policy = kit.write(dir .. "/policy.lua",
          "return { on_succeeded = function() return false, 'no disk' end }")
        local mj = kit.open({ policy = policy }, sim)
        ended(mj)
        for _ = 1, 3 do
          assert(mj:deliver())
          kit.travel(60)
        end
        examine { policy = policy }
        assert_finding("warn", "store.failing", "1 of the first 1 waiting event failed at each try so far",
          "mjhook events")
        assert.truthy(finding("store.failing").message:find("on_succeeded: no disk", 1, true))
        assert.equal(0, count.fail)
      end)

      it("warns when they wait for a policy that is not there", function()
        ended(kit.open({}, sim))
        examine()
        assert_finding("warn", "store.policy", "1 event waits for a policy, and there is none", "set `policy`")
      end)

      it("warns when nothing delivers them", function()
        ended(kit.open({}, sim))
        kit.travel(3 * 3600)
        examine { policy = kit.write(dir .. "/policy.lua", "return {}") } -- the helper's pass has no policy
        assert_finding("warn", "store.late", "has been due for 3 h", "mjhook_deliver")
      end)

      it("is told by `mjhook stats`, too, to a person and to a program", function()
        local cli = require "cli"
        ended(kit.open({}, sim))
        local result = cli.run { "stats" }
        assert.equal(0, result.code)
        assert.matches("Needs attention", result.out)
        assert.matches("1 event waits for a policy", result.out)
        assert.matches("never ran", result.out)
        assert.matches("mjhook init", result.out) -- no line for crontab: cron has not this store's environment
        assert.is_nil(result.out:find("* * * * *", 1, true))
        local stats = cjson.decode(cli.run({ "stats", "--json" }).out)
        local checks = {}
        for i, one in ipairs(stats.attention) do
          checks[i] = one.check .. " " .. one.status
        end
        assert.same({ "store.policy warn", "store.sweep warn" }, checks)
      end)
    end)
  end)

  it("fails when libcurl is older than what mjhook was made for", function()
    local version
    replace("libraries", function(real)
      local libraries = real()
      libraries.curl = version
      return libraries
    end)
    for old in ("7.86.0 7.9.1 6.99.0"):gmatch "%S+" do
      version = "libcurl/" .. old .. " OpenSSL/3.0.0"
      examine()
      assert_fails("libraries.libcurl", version .. ": mjhook needs 7.87", "install")
    end
    version = "something"
    examine()
    assert_fails("libraries.libcurl", "something")
    for new in ("7.87.0 7.100.0 8.0.1"):gmatch "%S+" do
      version = "libcurl/" .. new
      examine()
      assert_finding("ok", "libraries.libcurl")
    end
  end)

  describe("as a command", function()
    local function command(arguments)
      return ("cd / && %s MJHOOK_BUILD=%s %s %s doctor %s"):format(kit.bare, kit.quote(kit.build), kit.lua,
        kit.quote(kit.root .. "/scripts/mjhook"), arguments)
    end

    it("prints a line for each check, what to do below, and a summary; exits 0 when there are but warnings", function()
      local out, code = kit.sh(command("-c " .. config_file()))
      assert.equal(0, code, out)
      assert.matches("^ok    configuration.file +/", out)
      assert.truthy(out:find(dir .. "/config.lua, uid ", 1, true), out)
      assert.matches("^[^\n]+/config.lua, uid %d+, mode 600\n", out)
      assert.matches("\nwarn  base_url.tls +[^\n]+\n      %-> [^\n]+\n", out)
      assert.matches("\n%d+ ok, 1 warning, 0 failed$", out)
      assert.is_nil(out:find("\27", 1, true))
    end)

    it("exits 1 when something failed", function()
      sim.config { keys = { "another" } }
      local out, code = kit.sh(command("-c " .. config_file()))
      assert.equal(1, code)
      assert.matches("\nFAIL  provider.key +account default: [^\n]+\n      %-> [^\n]+\n", out)
      assert.matches("1 failed$", out)
      assert.is_nil(out:find(kit.KEY, 1, true))
    end)

    it("exits 78 when the configuration is wrong", function()
      local out, code = kit.sh(command "-c /nowhere/config.lua")
      assert.equal(78, code)
      assert.matches("^FAIL  configuration  +/nowhere/config.lua", out)
    end)

    it("prints an array with --json, and nothing else", function()
      local out, code = kit.sh(command("--json -c " .. config_file()))
      assert.equal(0, code)
      assert.is_nil(out:find("\n", 1, true))
      local list = cjson.decode(out)
      assert.is_true(#list > 10)
      for _, f in ipairs(list) do
        assert.is_string(f.check)
        assert.is_string(f.message)
        assert.is_true(f.status == "ok" or f.status == "warn" and #f.advice > 0)
      end
    end)

    it("uses colour on a terminal only", function()
      local out = kit.sh(("script -qec %s /dev/null </dev/null"):format(kit.quote(command("-c " .. config_file())
        :gsub("env %-i", "env -i TERM=xterm"))))
      assert.matches("\27%[32mok  \27%[0m", out)
      assert.matches("\27%[33mwarn\27%[0m", out)
    end)

    it("takes --store, and --ca-file with authorities of its own", function()
      local out, code = kit.sh(command(("--store %s/other --ca-file /nowhere/ca.pem -c %s"):format(dir, config_file {
        base_url = "https://localhost:1" })))
      assert.equal(1, code)
      assert.is_truthy(out:find(dir .. "/other is not there yet", 1, true), out)
    end)

    it("takes no arguments", function()
      local out, code = kit.sh(command "now")
      assert.equal(64, code)
      assert.matches("doctor takes no arguments", out)
    end)
  end)
end)
