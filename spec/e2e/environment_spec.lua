-- What the working directory and the environment may decide in the programs: nothing that is not documented.
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

describe("a program", function()
  after_each(kit.cleanup)

  local CLEAN = "env -u LUA_PATH -u LUA_CPATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4 -u LUA_INIT -u LUA_INIT_5_4 "
    .. "MIDJOURNEY_API_BASE_URL=http://127.0.0.1:1"
  local dir, hostile, tree

  -- An installation in its own place, as `make install` lays it out.
  local function install(prefix)
    kit.sh(([[
      p=%s root=%s build=%s
      mkdir -p $p/bin $p/share/lua $p/lib/lua && cp -r $root/lua $p/share/lua/5.4 && cp -r $build/5.4 $p/lib/lua/5.4 &&
      cp $build/bin/mjhook-reconcile $root/scripts/mjhook $root/scripts/mjhook.cgi $p/bin/
    ]]):format(kit.quote(prefix), kit.quote(kit.root), kit.quote(kit.build)))
  end

  local MODULES = { "cjson", "mjhook", "mjhook/core", "mjhook/config", "mjhook/reconcile/report", "mjhook/cli/main",
                    "mjhook/cli/fail", "mjhook/json", "lfs" }

  -- Lua files by all the names that are looked for, each of which tells that it was loaded.
  local function plant(place)
    for _, name in ipairs(MODULES) do
      kit.sh(("mkdir -p %s/%s"):format(place, name:match "^(.*)/" or ""))
      kit.write(("%s/%s.lua"):format(place, name), ('io.open("%s/loaded", "a"):write("%s/%s ") error "hostile"'):format(
        dir, place, name))
      kit.write(("%s/%s.so"):format(place, name), "no library")
    end
  end

  before_each(function()
    dir = kit.tmp()
    hostile, tree = dir .. "/hostile", dir .. "/opt/mj"
    kit.sh("mkdir " .. hostile)
    install(tree)
    kit.write(dir .. "/config.lua", receiver.config_text { store = dir .. "/store", secrets = { kit.SECRET },
      api_key = "k", hook_url = "http://127.0.0.1:1/hook" })
  end)

  -- Each in the working directory of a stranger; gives what it said.
  local function run(words, environment)
    return kit.sh(("cd %s && %s MJHOOK_CONFIG=%s/config.lua %s %s"):format(hostile, CLEAN, dir, environment or "",
      words))
  end

  local PROGRAMS = {
    mjhook = "%s/mjhook stats", ["mjhook-reconcile"] = "%s/mjhook-reconcile --dry-run",
    ["mjhook.cgi"] = "env REQUEST_METHOD=GET REQUEST_URI=/hook %s/mjhook.cgi </dev/null",
  }

  local function each(check, places)
    for name, command in pairs(PROGRAMS) do
      for _, bin in ipairs(places or { tree .. "/bin", name == "mjhook-reconcile" and kit.build .. "/bin"
                                       or kit.root .. "/scripts" }) do
        check(command:format(bin), name .. " in " .. bin)
      end
    end
  end

  local function assert_works(name, out, code)
    if name:find "^mjhook.cgi" then
      assert.matches("Status: 405", out, 1, false)
    else
      assert.equal(0, code, name .. ": " .. out)
    end
    assert.is_nil(kit.read(dir .. "/loaded"), name .. ": " .. out)
  end

  local function make_store()
    local out, code = run(tree .. "/bin/mjhook submit --json 'a fox'")
    assert.equal(0, code, out)
  end

  it("loads no Lua from the working directory", function()
    make_store()
    plant(hostile)
    for _, environment in ipairs {
      "", "LUA_PATH=';;' LUA_CPATH=';;'", "LUA_PATH='?.lua;./?.lua;;' LUA_CPATH='./?.so;?.so;;'",
      "LUA_PATH_5_4='?.lua;;' LUA_CPATH_5_4='./?.so'", "LUA_PATH='hostile/?.lua;../hostile/?.lua'",
    } do
      each(function(command, name)
        local out, code = run(command, environment)
        assert_works(name .. " with " .. environment, out, code)
      end)
    end
  end)

  it("loads no Lua from beside the place where it is installed", function()
    make_store()
    plant(dir .. "/opt/lua")
    plant(tree .. "/lua")
    plant(tree .. "/build/5.4")
    each(function(command, name)
      local out, code = run(command)
      assert_works(name, out, code)
    end)
    kit.sh(("rm -rf %s/share/lua/5.4/mjhook* "):format(tree)) -- also when its own are gone
    each(function(command, name)
      local out, code = run(command)
      assert.is_nil(kit.read(dir .. "/loaded"), name .. ": " .. out)
      assert.is_true(name:find "cgi" ~= nil or code == 78, name .. ": " .. out)
    end, { tree .. "/bin" })
  end)

  it("takes modules from absolute places that LUA_PATH names, after its own", function()
    make_store()
    kit.sh("mkdir " .. dir .. "/mine")
    kit.write(dir .. "/mine/mine.lua", "return { word = 'mine' }")
    kit.write(dir .. "/mine/mjhook.lua", "error 'hostile'")
    kit.write(dir .. "/config.lua", (kit.read(dir .. "/config.lua"):gsub("^return", "assert(require 'mine')\n%0")))
    for _, variable in ipairs { "LUA_PATH", "LUA_PATH_5_4" } do
      each(function(command, name)
        local out, code = run(command, ("%s='%s/mine/?.lua;;'"):format(variable, dir))
        assert_works(name, out, code)
      end)
    end
  end)

  it("runs nothing that LUA_INIT names, and keeps no TLS keys where SSLKEYLOGFILE says", function()
    make_store()
    local code_file = kit.write(dir .. "/init.lua", ('io.open("%s/loaded", "w"):close()'):format(dir))
    for _, variable in ipairs { "LUA_INIT", "LUA_INIT_5_4" } do
      each(function(command, name)
        local out, code = run(command, ("%s=@%s SSLKEYLOGFILE=%s/keys"):format(variable, code_file, dir))
        assert_works(name, out, code)
      end)
    end
    run(tree .. "/bin/mjhook submit 'a cat'", ("SSLKEYLOGFILE=%s/keys"):format(dir)) -- it makes an HTTP client
    run(tree .. "/bin/mjhook doctor", ("SSLKEYLOGFILE=%s/keys"):format(dir))
    assert.is_nil(kit.read(dir .. "/keys"))
  end)

  it("trusts no certificate that SSL_CERT_FILE, SSL_CERT_DIR or CURL_CA_BUNDLE names", function()
    kit.sh(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=127.0.0.1 "
      .. "-addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem -days 2 && mkdir certs && "
      .. "cp cert.pem certs/$(openssl x509 -hash -noout -in cert.pem).0"):format(dir))
    sim.start(("--tls-cert %s/cert.pem --tls-key %s/key.pem"):format(dir, dir))
    kit.finally(sim.stop)
    local out = run(tree .. "/bin/mjhook submit 'a fox'", ("SSL_CERT_FILE=%s/cert.pem SSL_CERT_DIR=%s/certs "
      .. "CURL_CA_BUNDLE=%s/cert.pem MIDJOURNEY_API_BASE_URL=%s"):format(dir, dir, dir, sim.tls_url))
    assert.matches("queued", out)
    assert.matches("certificate", out)
  end)

  it("loads no Lua from the working directory in the simulator", function()
    plant(hostile)
    for _, name in ipairs { "settings", "clock", "jobs", "json", "resty/core", "cjson/safe" } do
      kit.sh(("mkdir -p %s/%s"):format(hostile, name:match "^(.*)/" or ""))
      kit.write(("%s/%s.lua"):format(hostile, name), ('io.open("%s/loaded", "a"):write "%s " error "hostile"'):format(
        dir, name))
    end
    local out, code = run(("%s/scripts/simulator/simulator start --dir %s/sim"):format(kit.root, dir),
      "LUA_PATH='./?.lua;;' LUA_CPATH='./?.so;;'")
    kit.finally(function() run(("%s/scripts/simulator/simulator stop --dir %s/sim"):format(kit.root, dir)) end)
    assert.equal(0, code, out)
    assert.is_nil(kit.read(dir .. "/loaded"))
  end)
end)
