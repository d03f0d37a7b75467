-- mjhook dev, as it is installed: one command, no account, and each thing that can be made to happen.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local lfs = require "lfs"
local sim = require "sim"
local socket = require "socket"

describe("mjhook dev", function()
  local prefix, dir, dev, at, path

  setup(function()
    prefix = kit.sh "mktemp -d"
    local out, code = kit.sh(("cd %s && make -s install BUILD=%s PREFIX=%s"):format(kit.quote(kit.root),
      kit.quote(kit.build), prefix))
    assert(code == 0, out)
  end)

  teardown(function()
    kit.sh("rm -rf " .. prefix)
  end)

  after_each(kit.cleanup)

  local function mjhook(arguments)
    return ("%s %s HOME=/ TMPDIR=%s %s/bin/mjhook %s"):format(kit.bare, path and "PATH=" .. path or "", dir, prefix,
      arguments)
  end

  local function start(more)
    dir = dir or kit.tmp()
    kit.finally(function() dir = nil end)
    local this = kit.spawn("exec " .. mjhook("dev --json " .. (more or "")))
    dev = this
    kit.finally(function() -- a kill would leave its programs behind
      if not this:status() then
        this:kill "TERM"
        this:wait()
      end
    end)
    kit.wait_until(function()
      assert(not dev:status(), dev:err())
      return dev:out():find "}\n"
    end)
    at = cjson.decode(dev:out())
  end

  local function trigger(words)
    local out, code = kit.sh(mjhook("dev trigger --json " .. words))
    return code == 0 and cjson.decode(out) or nil, out, code
  end

  -- Processes that have this directory in their command line.
  local function left()
    local list = {}
    for pid in lfs.dir "/proc" do
      local line = pid:match "^%d+$" and kit.read("/proc/" .. pid .. "/cmdline")
      list[#list + 1] = line and line:find(dir .. "/mjhook-dev", 1, true) and line:gsub("%z", " ") or nil
    end
    return table.concat(list, "\n")
  end

  it("runs a provider, an application, a console, metrics and the reconciler, and makes each thing happen", function()
    start()
    assert.equal(("%s/mjhook-dev-%d"):format(dir, core.uid()), at.dir)
    for _, url in ipairs { at.url, at.console, at.metrics } do
      assert.equal(200, (sim.request("GET", url)), url)
    end
    local task = trigger "succeeded" -- of a job that it submits, since there is none
    assert.same({ "succeeded", "callback" }, { task.state, task.source })
    kit.wait_until(function() -- the archive works with the simulator's images, and the gallery shows them
      local _, page = sim.request("GET", at.url)
      local src = page:match 'src="(/images/[^"]+)"'
      return src and sim.request("GET", at.url:gsub("/$", "") .. src) == 200
    end)
    assert.matches("^made to fail by", trigger("failed").error.message)
    local twice = trigger("duplicate " .. task.ref)
    assert.equal("duplicate", twice.timeline[#twice.timeline].note == "duplicate" and "duplicate"
      or twice.timeline[#twice.timeline - 1].note)
    local out, code = kit.sh(mjhook(("-c %s submit 'a fox [ms=300]' --wait"):format(at.config)))
    assert.equal(0, code, out)
    assert.matches("grid.png$", out)
    local late = trigger "late"
    assert.same({ "succeeded", true }, { late.state, late.late })
    dev:kill "INT"
    assert.equal(0, dev:wait())
    assert.equal("", left())
    assert.is_nil(socket.connect("127.0.0.1", at.url:match ":(%d+)"))
    assert.is_nil(socket.connect("127.0.0.1", at.provider:match ":(%d+)"))
    assert.equal("", kit.read(at.dir .. "/reconcile.log"))
  end)

  -- What OpenResty's nginx is like: Lua is built in, and told by -V. This one is Debian's with its modules.
  local OPENRESTY = [[#!/bin/bash
if [ "$1" = -V ]; then
  echo "nginx version: openresty/1.27.1.2" >&2
  echo "configure arguments: --prefix=/usr/local/openresty/nginx --add-module=../ngx_lua-0.10.28 --with-threads" >&2
  exit
fi
for dir in /usr/lib/nginx/modules /usr/lib64/nginx/modules /usr/share/nginx/modules /usr/local/lib/nginx/modules; do
  [ ! -e "$dir/ngx_http_lua_module.so" ] || break
done
load="load_module $dir/ndk_http_module.so; load_module $dir/ngx_http_lua_module.so;"
args=()
while [ $# -gt 0 ]; do
  if [ "$1" = -g ]; then load="$load $2"; shift 2; else args+=("$1"); shift; fi
done
PATH=/usr/sbin:/usr/local/sbin:/usr/bin exec nginx "${args[@]}" -g "$load"
]]

  it("runs with an nginx that has Lua built in", function()
    dir = kit.tmp()
    os.execute("mkdir " .. dir .. "/bin")
    kit.write(dir .. "/bin/nginx", OPENRESTY)
    os.execute("chmod 700 " .. dir .. "/bin/nginx")
    path = dir .. "/bin:/usr/bin:/bin"
    kit.finally(function() path = nil end)
    start()
    assert.equal(200, (sim.request("GET", at.console)))
    assert.equal("succeeded", trigger("succeeded").state)
    for _, conf in ipairs { "/nginx.conf", "/provider/nginx.conf" } do
      assert.is_nil(kit.read(at.dir .. conf):find("load_module", 1, true))
    end
  end)

  it("has beside it all that is to be copied or run: examples, policies, the CGI program, the simulator", function()
    local share = prefix .. "/share/mjhook/"
    for _, name in ipairs { "examples/nginx.conf", "examples/mjhook.cron", "examples/postcards/postcards.lua",
                            "policies/email.lua", "policies/gallery.lua", "simulator/simulator.lua" } do
      assert.equal(kit.read(kit.root .. "/scripts/" .. name), kit.read(share .. name), name)
    end
    local out, code = kit.sh(("%s REQUEST_METHOD=POST MJHOOK_STORE=%s/none %smjhook.cgi"):format(kit.bare, prefix,
      share))
    assert.equal(0, code)
    assert.truthy(out:find("Status: 503", 1, true), out)
    assert.truthy(out:find("none", 1, true), out) -- its modules were found: it is the store that is not there
    assert.equal(0, select(2, kit.sh(share .. "simulator/simulator --help")))
  end)

  it("takes an edited policy over, and keeps it, the tasks and the ports for the next time", function()
    start()
    kit.write(at.policy, "return { on_succeeded = function() local f = io.open('" .. dir
      .. "/seen', 'a') f:write 'x' f:close() end }")
    kit.wait_until(function()
      return kit.read(at.dir .. "/error.log"):find("loaded anew", 1, true)
    end)
    local task = trigger "succeeded"
    kit.wait_until(function() return kit.read(dir .. "/seen") end)
    dev:kill "TERM"
    assert.equal(0, dev:wait())
    local before = at
    start()
    assert.same(before, at)
    local out = kit.sh(mjhook("-c " .. at.config .. " get --json " .. task.ref))
    assert.equal("succeeded", cjson.decode(out).state)
    assert.truthy(kit.read(at.policy):find("seen", 1, true))
  end)

  it("starts again after a kill that left its programs behind, and not twice in one directory", function()
    start()
    local second, code = kit.sh(mjhook "dev")
    assert.equal(75, code)
    assert.truthy(second:find("another mjhook dev runs in", 1, true), second)
    dev:kill "KILL"
    dev:wait()
    local before = left()
    assert.truthy(before:find("mjhook%-reconcile") and before:find "nginx")
    start()
    assert.equal("succeeded", trigger("succeeded").state)
    assert.equal(1, select(2, left():gsub("mjhook%-reconcile %-c", ""))) -- that of before has ended
    dev:kill "TERM"
    assert.equal(0, dev:wait())
    assert.equal("", left())
  end)

  it("says what it can't do: words, tasks, directories", function()
    dir = kit.tmp()
    kit.finally(function() dir = nil end)
    for arguments, what in pairs {
      ["dev trigger succeded"] = 'did you mean "succeeded"?', ["dev triger lost"] = 'did you mean "trigger"?',
      ["dev trigger"] = "one of succeeded, failed, lost, duplicate, late expected",
      ["dev --port 70000"] = "whole number", ["dev --set nonsense"] = "NAME=VALUE expected",
      ["dev --set nosuch=1"] = "unknown switch nosuch", ["dev --set limit=x"] = "limit must be a number",
    } do
      local out, code = kit.sh(mjhook(arguments))
      assert.equal(64, code, out)
      assert.truthy(out:find(what, 1, true), out)
      assert.falsy(out:find("traceback", 1, true), out)
    end
    local out, code = kit.sh(mjhook "dev trigger lost")
    assert.equal(1, code)
    assert.truthy(out:find("no mjhook dev runs in " .. dir, 1, true), out)
    os.execute("ln -s /tmp " .. dir .. "/link")
    out, code = kit.sh(mjhook("dev --dir " .. dir .. "/link"))
    assert.equal(73, code)
    assert.truthy(out:find("or is a link", 1, true), out)
    start()
    local ref = trigger("failed").ref
    local _, said, exit = trigger("succeeded " .. ref)
    assert.equal(1, exit)
    assert.truthy(said:find("is failed: only an unfinished one", 1, true), said)
    assert.equal(1, select(3, trigger "succeeded 01M8GKS18KJN6VX7TSV1755R6D"))
  end)
end)
