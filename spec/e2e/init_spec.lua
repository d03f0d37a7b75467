-- mjhook init: what it writes, for whom, and that each printed line works where it says.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local MJHOOK = ("lua5.4 %s/scripts/mjhook"):format(kit.root)
local AS_ROOT = core.uid() == 0
local THEIRS = AS_ROOT and "nobody" or kit.sh "id -un"

local function here(command)
  return select(2, kit.sh("PATH=$PATH:/usr/sbin command -v " .. command)) == 0
end

describe("mjhook init", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir

  -- A directory that everybody may pass through, as / is.
  before_each(function()
    dir = kit.tmp()
    kit.sh("chmod 755 " .. dir .. "; chmod go+x $(dirname " .. dir .. ")")
  end)

  local function environment(more)
    local words = { kit.bare, "MJHOOK_BUILD=" .. kit.build, "HOME=" .. kit.quote(dir .. "/home"), "MIDJOURNEY_API_KEY="
      .. kit.KEY, "MIDJOURNEY_API_BASE_URL=" .. sim.url }
    for _, word in ipairs(more or {}) do
      words[#words + 1] = word
    end
    return table.concat(words, " ") .. " "
  end

  local function init(arguments, more)
    return kit.sh(environment(more) .. MJHOOK .. " " .. arguments)
  end

  -- As the user whose store it is, with no more environment than cron gives.
  local function as_owner(command)
    local before = AS_ROOT and "setpriv --reuid=nobody --regid=nogroup --init-groups " or ""
    return kit.sh(("cd / && %s%s LOGNAME=%s HOME=/ SHELL=/bin/sh /bin/sh -c %s"):format(before, kit.bare, THEIRS,
      kit.quote(command)))
  end

  local function mode_of(path)
    return kit.sh(("stat -c '%%U %%a' %s"):format(kit.quote(path)))
  end

  local function made(where, more)
    local base = dir .. (where or "/x")
    local out, code = init(("-c '%s/etc/config.lua' init '%s/store' --user %s --json --no-check %s"):format(base, base,
      THEIRS, more or "--hook-url https://app.example/webhooks/midjourney"))
    assert.equal(0, code, out)
    return cjson.decode(out), base
  end

  it("writes what both Luas take, for the user that it names, and nobody else can read the secrets", function()
    local said, base = made()
    assert.equal(THEIRS, said.user)
    local private = AS_ROOT and "root 640" or THEIRS .. " 600"
    for i, name in ipairs { "config.lua", "secrets", "api-key", "policy.lua" } do
      assert.equal(base .. "/etc/" .. name, said.written[i])
      assert.equal(private, mode_of(said.written[i]))
    end
    assert.equal(THEIRS .. " 700", mode_of(base .. "/store"))
    local secret = kit.read(base .. "/etc/secrets")
    assert.matches("^" .. ("%x"):rep(64) .. "\n$", secret)
    for _, lua in ipairs { "lua5.4", "luajit" } do
      local out, code = as_owner(kit.lua_command(([[
        local c = assert(require("mjhook.config").resolve { config = "%s/etc/config.lua" })
        assert(require("mjhook.policy").load(c.policy, print))
        print(c.store, c.accounts[1].api_key, #c.secrets, c.hook_url)]]):format(base), lua):gsub("%S+/chunk.lua",
        function(path)
          kit.sh("chmod 755 $(dirname " .. path .. "); chmod 644 " .. path)
          return path
        end))
      assert.equal(0, code, out)
      assert.equal(("%s/store\t%s\t1\thttps://app.example/webhooks/midjourney"):format(base, kit.KEY), out)
    end
    local _, other = made "/y"
    assert.not_equal(secret, kit.read(other .. "/etc/secrets"))
  end)

  local as_any_user = AS_ROOT and it or pending

  as_any_user("serves a user without an entry in /etc/passwd, as containers have them", function()
    local base = dir .. "/x"
    kit.sh(("mkdir %s && chown 54321:54322 %s"):format(base, base))
    local as_uid = "setpriv --reuid=54321 --regid=54322 --clear-groups "
    local arguments = ("-c %s/etc/config.lua init %s/store --json --no-check"):format(base, base)
    local out, code = kit.sh(as_uid .. environment() .. MJHOOK .. " " .. arguments)
    assert.equal(0, code, out)
    assert.equal("54321", cjson.decode(out).user)
    assert.equal("54321 54322 700", kit.sh(("stat -c '%%u %%g %%a' %s/store"):format(base)))
    out, code = kit.sh(as_uid .. environment() .. ("%s -c %s/etc/config.lua submit 'a fox'"):format(MJHOOK, base))
    assert.equal(0, code, out)
    out, code = init(("-c %s/y/config.lua init %s/y --user 54321 --json --no-check"):format(dir, dir))
    assert.equal(1, code)
    assert.matches("there is no user 54321", out, 1, true)
  end)

  it("says what doctor says, and does not fail because nginx does not run yet", function()
    local out, code = init(("-c %s/etc/config.lua init %s/store --user %s --yes"):format(dir, dir, THEIRS))
    assert.equal(0, code, out)
    assert.matches("What mjhook doctor has found so far\n", out)
    assert.matches("warn  store.open: there is no store in it yet", out)
    assert.is_nil(out:find(kit.KEY, 1, true))
    assert.is_nil(out:find(kit.read(dir .. "/etc/secrets"):gsub("\n", ""), 1, true))
  end)

  for name, where in pairs { ["a plain path"] = "/plain", ["a path with a blank, a % and a quote"] = "/a b%c" } do
    it("prints a line for cron that works as it stands: " .. name, function()
      local said, base = made(where, "")
      local command = assert(said.lines.crontab:match "^%* %* %* %* %* (.*)$")
      command = command:gsub("\\%%", "%%") -- as cron does
      assert.same({ "", 0 }, { as_owner(command) }) -- no store yet: an idle pass
      local out, code = as_owner(("MJHOOK_BUILD=%s MIDJOURNEY_API_BASE_URL=%s %s -c '%s/etc/config.lua' submit 'a fox'")
        :format(kit.build, sim.url, MJHOOK, base))
      assert.equal(0, code, out)
      assert.same({ "", 0 }, { as_owner(command) })
      out = as_owner(("MJHOOK_BUILD=%s %s -c '%s/etc/config.lua' stats --json"):format(kit.build, MJHOOK, base))
      assert.is_number(cjson.decode(out).sweep.last_at)
      assert.equal(said.lines.crontab:gsub("^%* %* %* %* %* ", "%0" .. THEIRS .. " "), said.lines.cron_d)
    end)
  end

  it("prints a unit that systemd takes, and whose command works", function()
    local said = made()
    local path = kit.write(dir .. "/mjhook.service", said.lines.systemd)
    if here "systemd-analyze" then
      local out, code = kit.sh("systemd-analyze verify --man=no " .. path)
      assert.equal("", (out:gsub("[^\n]*mode 0600[^\n]*\n?", ""):gsub("[^\n]*Special user nobody[^\n]*\n?", "")))
      assert.equal(0, code)
    end
    assert.truthy(said.lines.systemd:find("\nUser=" .. THEIRS .. "\n", 1, true))
    assert.truthy(said.lines.systemd:find("\nReadWritePaths=" .. dir .. "/x/store\n", 1, true))
    local command = said.lines.systemd:match "\nExecStart=([^\n]+)\n"
    local out, code = as_owner("timeout -s TERM 1 " .. command)
    assert.same({ "", true }, { out, code == 0 or code == 124 })
  end)

  it("prints lines for nginx that take callbacks, and keep their tokens out of the logs", function()
    local said, base = made("/n", "--hook-url https://app.example/hooks/mj.1")
    local lines = said.lines.nginx
    local conf = ("@MAIN@\n%s\nhttp {\n%s\n%s\nserver { listen 127.0.0.1:@PORT@; location = /ping {}\n%s}}")
      :format((lines.main:gsub("user [^\n]*\n", "")), (receiver.http("@DIR@"):gsub("access_log[^\n]*\n", "")
        :gsub("lua_package_[^\n]*\n", "")), lines.http, lines.server)
    assert.truthy(lines.main:find("user " .. THEIRS .. ";", 1, true))
    if AS_ROOT then
      kit.sh("chown -R root " .. base .. "/store") -- this nginx runs as the one who runs the spec
    end
    local web = receiver.prepare { conf = (conf:gsub("/var/log/nginx", "@DIR@")) }
    web:start()
    assert.equal(401, (sim.request("POST", web.url .. "/hooks/mj.1", "{}")))
    assert.equal(401, (sim.request("POST", web.url .. "/hooks/mj.1%3Fref=x", "{}")))
    assert.equal(404, (sim.request("POST", web.url .. "/hooks/mjx1", "{}")))
    local mj = kit.open({ store = base .. "/store", hook_url = web.url .. "/hooks/mj.1",
                          secrets = { (kit.read(base .. "/etc/secrets"):gsub("\n", "")) }, policy = {} }, sim)
    local task = assert(mj:submit { prompt = "a fox" })
    sim.finish(task.task_id)
    kit.wait_until(function() return mj:get(task.ref).state == "succeeded" end)
    assert.equal("callback", mj:get(task.ref).source)
    local _, text = sim.request("GET", web.url .. "/mjhook-metrics")
    assert.matches("mjhook_tasks", text)
    web:stop()
    local sig = sim.jobs()[1].hookUrl:match "sig=(.*)"
    for _, name in ipairs { "access.log", "mjhook.log" } do
      assert.is_nil((kit.read(web.dir .. "/" .. name) or ""):find(sig, 1, true))
    end
  end)

  it("changes nothing that is there, and leaves nothing behind when it can't do all", function()
    local _, base = made()
    local before = kit.sh("cat " .. base .. "/etc/*")
    local out, code = init(("-c %s/etc/config.lua init %s/other --user %s --yes"):format(base, base, THEIRS))
    assert.equal(73, code)
    assert.truthy(out:find("config.lua is there already", 1, true), out)
    assert.equal(before, kit.sh("cat " .. base .. "/etc/*"))
    for arguments, why in pairs {
      ["--user nobody-knows-me"] = "there is no user nobody-knows-me",
      ["--hook-url http://app.example/x"] = "hook_url: https expected",
      ["--api-key-file " .. dir .. "/none"] = "api_key_file: ",
      ["--group nobody-knows-them"] = "there is no group nobody-knows-them",
    } do
      local user = arguments:find("--user", 1, true) and "" or "--user " .. THEIRS
      out, code = init(("-c %s/e/config.lua init %s/s --yes %s %s"):format(dir, dir, user, arguments))
      assert.not_equal(0, code)
      assert.truthy(out:find(why, 1, true), out)
      assert.is_nil(core.stat(dir .. "/e"))
      assert.is_nil(core.stat(dir .. "/s"))
    end
    if AS_ROOT then
      kit.sh("mkdir " .. dir .. "/roots")
      out, code = init(("-c %s/e/config.lua init %s/roots --user nobody --yes"):format(dir, dir))
      assert.equal(73, code)
      assert.truthy(out:find("belongs to root, not to nobody", 1, true), out)
      assert.is_nil(core.stat(dir .. "/e"))
    end
  end)

  it("takes a database, which migrate is to prepare, and no password in its arguments", function()
    local out, code = init(("-c %s/etc/config.lua init postgresql://mj@db.example/mj --user %s --no-check"):format(dir,
      THEIRS))
    if code == 78 and out:find("is not installed", 1, true) then
      return pending "this build has no module for PostgreSQL"
    end
    assert.equal(0, code, out)
    assert.truthy(out:find("migrate` makes its tables", 1, true), out)
    assert.truthy(kit.read(dir .. "/etc/config.lua"):find('store = "postgresql://mj@db.example/mj"', 1, true))
    out, code = init(("-c %s/e/config.lua init postgresql://mj:word@db.example/mj --yes"):format(dir))
    assert.equal(64, code)
    assert.truthy(out:find("password", 1, true))
  end)

  it("asks on a terminal for what was not said, shows no key, and takes defaults for empty lines", function()
    kit.write(dir .. "/run", environment { "MIDJOURNEY_API_KEY=", "TERM=dumb" } .. MJHOOK
      .. (" -c %s/etc/config.lua init --no-check"):format(dir))
    local out, code = kit.sh(("{ for line in %s %s/store https://app.example/hook a-key-of-mine; do sleep 0.3; "
      .. "echo $line; done; sleep 0.3; } | script -qec 'sh %s/run' /dev/null"):format(THEIRS, dir, dir))
    assert.equal(0, code, out)
    assert.matches("User that owns the store", out)
    assert.equal("a-key-of-mine\n", kit.read(dir .. "/etc/api-key"))
    assert.truthy(kit.read(dir .. "/etc/config.lua"):find('hook_url = "https://app.example/hook"', 1, true))
    assert.is_nil(out:match "API key.*a%-key%-of%-mine")
  end)

  it("asks nothing of a program: without a key it says where to put it", function()
    local out, code = init(("-c %s/etc/config.lua init %s/store --no-check </dev/null"):format(dir, dir),
      { "MIDJOURNEY_API_KEY=" })
    assert.equal(0, code, out)
    assert.truthy(out:find("write the API key to " .. dir .. "/etc/api-key", 1, true), out)
  end)
end)
