-- Configuration: every key by name, from four places, and no secret in what is said about it.
local config = require "mjhook.config"
local core = require "mjhook.core"
local kit = require "kit"
local mjhook = require "mjhook"

local SECRET = "the-16-byte-word"
local AS_ROOT = core.uid() == 0

describe("configuration", function()
  local environment, getenv
  local real_stat = core.stat

  -- Neither this machine's environment nor its /etc/mjhook takes part.
  before_each(function()
    environment = { MJHOOK_STORE = "/nowhere/store" }
    getenv = os.getenv
    os.getenv = function(name) return environment[name] end -- luacheck: ignore
    core.stat = function(path)
      if path == "/etc/mjhook/config.lua" then
        return nil, core.error("not_found", "none")
      end
      return real_stat(path)
    end
  end)
  after_each(function()
    os.getenv = getenv -- luacheck: ignore
    core.stat = real_stat
    kit.cleanup()
  end)

  local function file(text, mode)
    local path = kit.write(kit.tmp() .. "/config.lua", text)
    if mode then
      assert(os.execute(("chmod %s %s"):format(mode, path)))
    end
    return path
  end

  local function resolve(args)
    return assert(config.resolve(args or {}))
  end

  local function refused(args)
    local settings, err = config.resolve(args)
    assert.is_nil(settings)
    assert.equal("config", err.code)
    assert.is_false(err.retryable)
    assert.equal(err.message, tostring(err))
    return err.message
  end

  it("has a default for everything but the store", function()
    local c = resolve()
    assert.equal("https://api.midjourney-api.com", c.base_url)
    assert.same({ first = 15, max = 900, learn = true }, c.poll) -- no hook_url: there is no callback to wait for
    assert.equal(60, resolve({ hook_url = "https://app.example/hook" }).poll.first)
    assert.equal(30, resolve({ poll = { first = 30 } }).poll.first)
    local defaults = {
      max_in_flight = 10, batch = 50, connections = 8, lost_after = 86400, ambiguous_grace = 300, trust = "payload",
      allow_unsigned = false, max_body = 1048576, key_ttl = 180 * 86400, handler_timeout = 60, allow_insecure = false,
      store_mode = 384,
    }
    for key, value in pairs(defaults) do
      assert.equal(value, c[key], key)
    end
    assert.is_nil(c.hook_url)
    assert.is_nil(c.api_key)
    assert.same({ { name = "default", max_in_flight = 10 } }, c.accounts)
    environment.MJHOOK_STORE = nil
    assert.matches("^store: not set", refused {})
  end)

  local good = {
    store = "/nowhere/other", store_mode = "0660", map_max = 2 ^ 30, api_key = "k", accounts = { { name = "a" } },
    base_url = "https://api.example/", hook_url = "https://app.example/hook?x=1", secrets = { SECRET },
    max_in_flight = 3, batch = 1, connections = 2, poll = { first = 1, max = 2, learn = false }, lost_after = 60,
    ambiguous_grace = 0,
    trust = "verify", allow_unsigned = true, allow_cidr = { "192.0.2.0/24" }, trusted_proxies = { "::1" },
    max_body = 1024, queue_max = 1, key_ttl = 0, retention = { succeeded = 1, failed = -1, lost = 0, cancelled = 9 },
    handler_timeout = 0.5, handlers = 2, allow_insecure = true, policy = {}, log = print,
  }
  for key, value in pairs(good) do
    it("knows " .. key, function()
      local c = resolve { [key] = value }
      if key ~= "base_url" and key ~= "accounts" and key ~= "store_mode" then
        assert.same(value, c[key])
      else
        assert.same(({
          base_url = "https://api.example", accounts = { { name = "a", max_in_flight = 10 } }, store_mode = 432,
        })[key], c[key])
      end
    end)
  end

  local bad = {
    { "store", 7 }, { "store", "" }, { "store", "a\nb" }, { "store", "a\0b" }, { "store_mode", "0644" },
    { "store_mode", "0666" }, { "store_mode", 600 }, { "store_mode", true }, { "map_max", 0 }, { "map_max", "1G" },
    { "map_max", math.huge }, { "map_max", 0 / 0 }, { "api_key", 7 }, { "api_key", "" },
    { "api_key", "a\r\nX-Injected: b" }, { "api_key_file", "/nowhere/key" }, { "api_key_file", true },
    { "accounts", "a" }, { "accounts", {} }, { "accounts", { {} }, "accounts[1].name" },
    { "accounts", { "a" }, "accounts[1]" }, { "accounts", { { name = "" } }, "accounts[1].name" },
    { "accounts", { { name = ("n"):rep(257) } }, "accounts[1].name" },
    { "accounts", { { name = "a", slots = 1 } }, "accounts[1].slots" },
    { "accounts", { { name = "a", max_in_flight = -1 } }, "accounts[1].max_in_flight" },
    { "accounts", { { name = "a", max_in_flight = 1.5 } }, "accounts[1].max_in_flight" },
    { "accounts", { { name = "a" }, { name = "a" } } }, { "accounts", { a = { name = "a" } } },
    { "base_url", "http://api.example" }, { "base_url", "ftp://api.example" }, { "base_url", "api.example" },
    { "base_url", "https://" }, { "base_url", "https://user:pw@api.example" }, { "base_url", "https://a b" },
    { "base_url", "http://127.0.0.1.evil.example" }, { "base_url", "http://localhost.evil.example" },
    { "base_url", 7 }, { "hook_url", "http://app.example/hook" }, { "hook_url", "/hook" }, { "hook_url", true },
    { "hook_url", "https://app.example/h\nook" }, { "secrets", "text" }, { "secrets", { "short" }, "secrets[1]" },
    { "secrets", { SECRET, "short" }, "secrets[2]" }, { "secrets", { 1 }, "secrets[1]" }, { "secrets", { a = SECRET } },
    { "secrets_file", "/nowhere/secrets" }, { "max_in_flight", 0 }, { "max_in_flight", 1.5 },
    { "max_in_flight", "10" }, { "batch", 0 }, { "batch", 0 / 0 }, { "batch", 2.5 }, { "connections", 0 },
    { "connections", 1000 }, { "connections", 1.5 }, { "poll", 60 }, { "poll", { first = 0 }, "poll.first" },
    { "poll", { last = 1 }, "poll.last" }, { "poll", { first = 100, max = 50 }, "poll.max" }, { "lost_after", 0 },
    { "lost_after", -1 }, { "ambiguous_grace", -1 }, { "trust", "nobody" }, { "trust", true },
    { "allow_unsigned", "yes" }, { "allow_cidr", "192.0.2.1" }, { "allow_cidr", { "here" }, "allow_cidr[1]" },
    { "trusted_proxies", { 7 }, "trusted_proxies[1]" }, { "max_body", 1 }, { "max_body", 2 ^ 30 },
    { "queue_max", 0 }, { "key_ttl", -1 }, { "retention", 30 }, { "retention", { pending = 1 }, "retention.pending" },
    { "retention", { failed = -2 }, "retention.failed" }, { "handler_timeout", 0 }, { "handler_timeout", "1" },
    { "allow_insecure", 1 }, { "policy", 7 }, { "policy", "policy.lua" }, { "log", 7 },
    { "log", "mjhook.log" }, { "log", "" }, { "log", "a\nb" }, { "log", {}, "log.path" },
    { "log", { path = 7 }, "log.path" },
    { "log", { path = "mjhook.log" }, "log.path" }, { "log", { path = "/x", format = "xml" }, "log.format" },
    { "log", { path = "/x", level = "debug" }, "log.level" }, { "log", { path = "/x", size = 1 }, "log.size" },
    { "stroe", "/x" }, { "Store", "/x" }, { "config_file", "/x" },
  }
  for i, case in ipairs(bad) do
    it(("names %s when it is bad (%d)"):format(case[3] or case[1], i), function()
      local message = refused { [case[1]] = case[2] }
      local name = case[3] or case[1]
      assert.equal(name .. ": ", message:sub(1, #name + 2))
    end)
  end

  it("takes http to a loopback address, and elsewhere with allow_insecure", function()
    for _, url in ipairs { "http://127.0.0.1:80/x", "http://localhost", "http://[::1]:8080", "http://127.9.9.9" } do
      assert.equal(url, resolve({ hook_url = url }).hook_url)
    end
    assert.equal("http://app.example/x", resolve({ hook_url = "http://app.example/x", allow_insecure = true }).hook_url)
  end)

  for url, hint in pairs {
    ["https://api.example/v1"] = "https://api.example is enough",
    ["https://api.example/v1/"] = "https://api.example is enough",
    ["https://api.example/x/V1"] = "https://api.example/x is enough",
    ["https://api.example/midjourney/v1"] = "https://api.example is enough",
    ["https://api.example/midjourney/v1/submit-jobs"] = "https://api.example is enough",
    ["https://api.example//midjourney/v1/job-status/"] = "https://api.example is enough",
    ["https://api.example/submit-jobs"] = "https://api.example is enough",
    ["https://api.example?key=1"] = "like https://api.example",
    ["https://api.example/x?"] = "like https://api.example/x",
    ["https://api.example/#/docs"] = "like https://api.example/",
  } do
    it("refuses a base_url that leads astray, and says what is expected: " .. url, function()
      local message = refused { base_url = url }
      assert.matches("^base_url: ", message)
      assert.is_truthy(message:find(hint, 1, true), message)
    end)
  end

  it("takes a base_url with a path of its own", function()
    for _, url in ipairs { "https://api.example/proxy", "https://api.example/v1/x", "https://v1.example", "https://v1",
                           "https://api.example/midjourney" } do
      assert.equal(url, resolve({ base_url = url }).base_url)
    end
    assert.equal("https://api.example/x", resolve({ base_url = "https://api.example/x//" }).base_url)
  end)

  it("refuses more accounts than there can be", function()
    local accounts = {}
    for i = 1, 65 do
      accounts[i] = { name = "a" .. i }
    end
    assert.matches("^accounts: ", refused { accounts = accounts })
    accounts[65] = nil
    assert.equal(64, #resolve({ accounts = accounts }).accounts)
  end)

  it("refuses more secrets than there can be", function()
    local secrets = {}
    for i = 1, 17 do
      secrets[i] = SECRET .. i
    end
    local mj, err = mjhook.open { store = kit.tmp() .. "/store", secrets = secrets }
    assert.is_nil(mj)
    assert.equal("config", err.code)
    assert.matches("^secrets: ", err.message)
  end)

  describe("from several places", function()
    local names = {
      { "MIDJOURNEY_API_KEY", "api_key", "'%s'", "a", "b", "c" },
      { "MIDJOURNEY_API_BASE_URL", "base_url", "'%s'", "https://a.example", "https://b.example", "https://c.example" },
      { "MIDJOURNEY_WEBHOOK_URL", "hook_url", "'%s'", "https://a.example", "https://b.example", "https://c.example" },
      { "MJHOOK_STORE", "store", "'%s'", "/a", "/b", "/c" },
    }
    for _, case in ipairs(names) do
      local variable, key, form, a, b, c = case[1], case[2], case[3], case[4], case[5], case[6]
      it("takes " .. key .. " from argument, file and " .. variable .. " in this order", function()
        environment[variable] = c
        assert.equal(c, resolve()[key])
        local path = file(("return { %s = %s }"):format(key, form:format(b)))
        assert.equal(b, resolve({ config = path })[key])
        assert.equal(a, resolve({ config = path, [key] = a })[key])
        environment[variable] = ""
        assert.not_equal("", config.resolve({ store = "/x" })[key])
      end)
    end

    it("takes a secret from MJHOOK_SECRET", function()
      environment.MJHOOK_SECRET = SECRET .. "c"
      assert.same({ SECRET .. "c" }, resolve().secrets)
      local path = file(("return { secrets = { '%sb' } }"):format(SECRET))
      assert.same({ SECRET .. "b" }, resolve({ config = path }).secrets)
      assert.same({ SECRET }, resolve({ config = path, secrets = { SECRET } }).secrets)
      environment.MJHOOK_SECRET = "short"
      assert.matches("^secrets%[1%]: ", refused {})
    end)

    it("lets a file's secrets_file and api_key_file beat the environment", function()
      environment.MJHOOK_SECRET, environment.MIDJOURNEY_API_KEY = SECRET .. "env", "key-env"
      local dir = kit.tmp()
      kit.write(dir .. "/secrets", SECRET .. "1\n" .. SECRET .. "2\n")
      kit.write(dir .. "/key", " key-file \n")
      local c = resolve { config = file(("return { secrets_file = '%s/secrets', api_key_file = '%s/key' }")
        :format(dir, dir)) }
      assert.same({ SECRET .. "1", SECRET .. "2" }, c.secrets)
      assert.equal("key-file", c.accounts[1].api_key)
    end)

    it("finds the file through MJHOOK_CONFIG, the argument first", function()
      environment.MJHOOK_CONFIG = file "return { batch = 7 }"
      assert.equal(7, resolve().batch)
      assert.equal(8, resolve({ config = file "return { batch = 8 }" }).batch)
      assert.equal(9, resolve({ batch = 9 }).batch)
    end)

    it("treats an empty MJHOOK_CONFIG as none", function()
      environment.MJHOOK_CONFIG = ""
      assert.equal(50, resolve().batch)
    end)

    it("never looks into the working directory", function()
      local lfs = require "lfs"
      local before = lfs.currentdir()
      local dir = kit.tmp()
      kit.write(dir .. "/config.lua", "return { batch = 7 }")
      kit.write(dir .. "/mjhook.lua", "return { batch = 7 }")
      assert(lfs.chdir(dir))
      local c = config.resolve {}
      lfs.chdir(before)
      assert.equal(50, c.batch)
    end)

    it("finds a relative log beside the file", function()
      local path = file "return { log = 'mjhook.log' }"
      assert.equal((path:gsub("config.lua$", "mjhook.log")), resolve({ config = path }).log)
      path = file "return { log = { path = 'mjhook.log', format = 'json' } }"
      assert.same({ path = path:gsub("config.lua$", "mjhook.log"), format = "json" }, resolve({ config = path }).log)
    end)

    it("finds a relative policy beside the file", function()
      local path = file "return { policy = 'policy.lua' }"
      assert.equal((path:gsub("config.lua$", "policy.lua")), resolve({ config = path }).policy)
    end)

    it("finds a relative store and relative files of keys beside the file, wherever the program runs", function()
      local path = file "return { store = 'tasks', api_key_file = 'key', secrets_file = 'secrets' }"
      local dir = path:match "^(.*)/"
      kit.write(dir .. "/key", "key-file\n")
      kit.write(dir .. "/secrets", SECRET .. "\n")
      local c = assert(config.resolve { config = path })
      assert.same({ dir .. "/tasks", "key-file", SECRET }, { c.store, c.accounts[1].api_key, c.secrets[1] })
      kit.write(path, "return { accounts = { { name = 'one', api_key_file = 'key' } } }")
      assert.equal("key-file", resolve({ config = path }).accounts[1].api_key)
    end)

    for name, odd in pairs { ["a carriage return"] = "%s\r", ["quotes"] = '"%s"', ["a blank"] = " %s",
                             ["a byte order mark"] = "\239\187\191%s", ["a line break"] = "%s\n" } do
      it("refuses a secret of the environment with " .. name .. " around it, and does not quote it", function()
        environment.MJHOOK_SECRET = odd:format(SECRET)
        local message = refused {}
        assert.matches("^secrets %(from the environment%): quotes, blanks, a line break", message)
        assert.is_nil(message:find(SECRET, 1, true))
        assert.same({ odd:format(SECRET) }, resolve({ secrets = { odd:format(SECRET) } }).secrets) -- meant so
      end)
    end

    it("refuses a relative store of an argument or of the environment", function()
      assert.matches("^store: an absolute path expected, got tasks", refused { store = "tasks" })
      local path = file "return { store = 'other' }"
      assert.matches("^store: an absolute path expected, got tasks", refused { store = "tasks", config = path })
      environment.MJHOOK_STORE = "tasks"
      local c, err = config.resolve { config = file "return {}" }
      assert.is_nil(c)
      assert.matches("^store: an absolute path expected, got tasks", err.message)
    end)

    for _, key in ipairs { "api_key_file", "secrets_file", "policy", "ca_file", "log" } do
      it("refuses a relative " .. key .. " of an argument, also beside a file that has it", function()
        local path = file "return {}"
        kit.write(path:gsub("config.lua$", "beside"), SECRET .. "\n") -- nothing but the origin is wrong with it
        assert.matches("^" .. key .. ": an absolute path expected, got beside",
          refused { [key] = "beside", config = path })
      end)
    end

    it("finds the file's paths when the file is named relative to the working directory, which may change", function()
      local lfs = require "lfs"
      local before = lfs.currentdir()
      local path = file "return { store = 'tasks', policy = 'policy.lua', log = 'mjhook.log' }"
      local dir, name = path:match "^(.*)/([^/]+)$"
      local outer, inner = dir:match "^(.*)/([^/]+)$"
      for named, at in pairs { [name] = dir, ["./" .. name] = dir, [inner .. "/" .. name] = outer } do
        assert(lfs.chdir(at))
        local c, err = config.resolve { config = named }
        lfs.chdir(before)
        assert(c, err)
        assert.same({ dir .. "/tasks", dir .. "/policy.lua", dir .. "/mjhook.log" }, { c.store, c.policy, c.log })
        assert.equal(path, c.config_file) -- the line for crontab names it
      end
    end)

    for given, meant in pairs { stroe = "store", api_keys = "api_key", Batch = "batch", hookurl = "hook_url" } do
      it(("asks whether %s was meant by %s"):format(meant, given), function()
        local message = refused { config = file(("return { %s = 7 }"):format(given)) }
        assert.matches(('^%s: unknown key in [^:]+: did you mean "%s"%%?$'):format(given, meant), message)
        assert.matches(('^%s: unknown key: did you mean "%s"%%?$'):format(given, meant), refused { [given] = 7 })
      end)
    end

    it("asks it of the keys within a key, too, and of none where nothing is near", function()
      assert.matches('^poll.frist: unknown key: did you mean "first"%?', refused { poll = { frist = 7 } })
      assert.matches('^accounts%[1%].apikey: unknown key: did you mean "api_key"%?',
        refused { accounts = { { name = "one", apikey = "k" } } })
      assert.matches("^wonderful: unknown key$", refused { wonderful = 7 })
    end)

    it("names an unknown key and the file it is in", function()
      local path = file "return { batsch = 7 }"
      local message = refused { config = path }
      assert.matches("^batsch: unknown key", message)
      assert.matches(path, message, 1, true)
    end)

    it("names a bad value of the file or the environment", function()
      assert.matches("^batch: ", refused { config = file "return { batch = 'many' }" })
      environment.MIDJOURNEY_WEBHOOK_URL = "http://app.example"
      assert.matches("^hook_url: https expected", refused {})
    end)
  end)

  describe("files", function()
    for _, mode in ipairs { "620", "602", "666", "660", "777" } do
      it("are refused when others can write them: " .. mode, function()
        local path = file("return {}", mode)
        assert.matches(path .. " can be written by others", refused { config = path }, 1, true)
      end)
    end

    for _, mode in ipairs { "600", "640", "644", "400" } do
      it("may be read by others: " .. mode, function()
        resolve { config = file("return {}", mode) }
      end)
    end

    if AS_ROOT then
      it("are refused when they belong to another user", function()
        local path = file "return {}"
        os.execute("chown 65534 " .. path)
        assert.matches("belongs to uid 65534", refused { config = path })
      end)
    end

    it("are known to be secret when keys stand in them", function()
      for text, secret in pairs {
        ["return { api_key = 'x' }"] = true, ["return { secrets = { 'the-16-byte-word' } }"] = true,
        ["return { accounts = { { name = 'a', api_key = 'x' } } }"] = true, ["return { batch = 7 }"] = false,
        ["return { accounts = { { name = 'a' } } }"] = false,
        ["return { proxy = 'http://u:p@a.example:1' }"] = true, ["return { proxy = 'http://a.example:1' }"] = false,
      } do
        assert.equal(secret, resolve({ config = file(text) }).keys_inside, text)
      end
    end)

    it("are refused without being run", function()
      local mark = kit.tmp() .. "/mark"
      refused { config = file(("io.open(%q, 'w'):close() return {}"):format(mark), "666") }
      assert.is_nil(kit.read(mark))
    end)

    local broken = {
      { "there is none", nil, "No such file" },
      { "it does not compile", "return {", "expected" },
      { "it raises", "error 'no idea'", "no idea" },
      { "it returns nothing", "local x = 1", "should return a table" },
      { "it returns no table", "return 7", "should return a table" },
    }
    for _, case in ipairs(broken) do
      it("say what is wrong when " .. case[1], function()
        local path = case[2] and file(case[2]) or "/nowhere/config.lua"
        local message = refused { config = path }
        assert.matches(case[3], message)
        assert.matches(path, message, 1, true)
      end)
    end

    for _, mode in ipairs { "604", "606", "602" } do
      it("with keys and secrets are refused when every user can use them: " .. mode, function()
        local path = file("the-16-byte-word", mode)
        assert.matches("^api_key_file: .*chmod", refused { api_key_file = path })
        assert.matches("^secrets_file: .*chmod", refused { secrets_file = path })
        assert.matches("^accounts", refused { accounts = { { name = "a", api_key_file = path } } })
      end)
    end

    it("with a key may be mode 0444 in a directory that keeps others out", function()
      local top = kit.sh "mktemp -d /tmp/mjhook.XXXXXX" -- not below TMPDIR, which may itself keep others out
      kit.finally(function()
        os.execute("rm -rf " .. top)
      end)
      os.execute(("chmod 755 %s; mkdir -m 700 %s/secrets"):format(top, top))
      local path = kit.write(top .. "/secrets/key", "from-a-container\n")
      os.execute("chmod 444 " .. path)
      assert.equal("from-a-container", resolve({ api_key_file = path }).accounts[1].api_key)
      os.execute(("chmod 755 %s/secrets"):format(top))
      assert.matches("^api_key_file: .*chmod", refused { api_key_file = path })
    end)

    -- Each kind of file, as an argument that names it.
    local KINDS = {
      config = function(path) return { config = path } end,
      policy = function(path) return { policy = path } end,
      api_key_file = function(path) return { api_key_file = path } end,
      secrets_file = function(path) return { secrets_file = path } end,
      account = function(path) return { accounts = { { name = "a", api_key_file = path } } } end,
    }
    for kind, args in pairs(KINDS) do
      it(("in a directory that others can write are not read: %s"):format(kind), function()
        local top, mark = kit.tmp(), kit.tmp() .. "/mark"
        os.execute(("mkdir -p %s/a/b; chmod 755 %s/a %s/a/b"):format(top, top, top))
        local path = kit.write(top .. "/a/b/file", ("io.open(%q, 'w'):close() return {}"):format(mark))
        for _, dir in ipairs { "/a", "/a/b" } do
          for _, mode in ipairs { "777", "775", "757" } do
            os.execute(("chmod %s %s%s"):format(mode, top, dir))
            local message = refused(args(path))
            assert.matches(top .. dir .. " can be written by others", message, 1, true)
            assert.matches("chmod go-w", message, 1, true)
            assert.is_nil(kit.read(mark))
          end
          os.execute(("chmod 755 %s%s"):format(top, dir))
        end
      end)

      it(("behind a link into such a directory are not read: %s"):format(kind), function()
        local top = kit.tmp()
        os.execute(("mkdir -m 777 %s/open; ln -s open %s/link"):format(top, top))
        kit.write(top .. "/open/file", "return {}")
        assert.matches(top .. "/open can be written by others", refused(args(top .. "/link/file")), 1, true)
      end)

      it(("that are none are refused, and nothing waits for them: %s"):format(kind), function()
        local top = kit.tmp()
        os.execute(("mkfifo -m 600 %s/fifo; mkdir %s/dir"):format(top, top))
        assert.matches("FIFO", refused(args(top .. "/fifo")))
        assert.matches("directory", refused(args(top .. "/dir")))
        assert.matches("device", refused(args "/dev/zero"))
      end)

      if AS_ROOT then
        it(("in a directory of another user's are not read: %s"):format(kind), function()
          local top = kit.tmp()
          os.execute(("mkdir -m 755 %s/theirs; chown 65534 %s/theirs"):format(top, top))
          kit.write(top .. "/theirs/file", "return {}")
          assert.matches("theirs belongs to uid 65534", refused(args(top .. "/theirs/file")))
        end)
      end
    end

    it("with keys hold one and nothing else", function()
      for _, text in ipairs { "", "\n", "one two", "one\ntwo\n" } do
        assert.matches("^api_key_file: .*one API key", refused { api_key_file = file(text) })
      end
      assert.equal("one", resolve({ api_key_file = file "one\n" }).accounts[1].api_key)
    end)

    it("are mended where an editor left something around the key, and that is said", function()
      for _, text in ipairs { "one", "one\n" } do
        assert.same({}, resolve({ api_key_file = file(text) }).notes)
      end
      for _, text in ipairs { "one\r\n", "\239\187\191one\n", "  one\n", "one\t\n\n", "\239\187\191 one\r\n" } do
        local path = file(text)
        for _, args in ipairs { { api_key_file = path }, { accounts = { { name = "a", api_key_file = path } } } } do
          local c = resolve(args)
          assert.equal("one", c.accounts[1].api_key)
          assert.matches(path .. " has blanks, a carriage return or a byte order mark", c.notes[1], 1, true)
        end
      end
      kit.open { accounts = { { name = "default", api_key_file = file "one\r\n" } } }
      assert.matches("warn: accounts.api_key_file: ", kit.log_text(), 1, true)
    end)

    for what, texts in pairs {
      ["quote"] = { '"the-key"', "'the-key'", "`the-key`", "the-key'", '"the-key' },
      ["printable ASCII"] = { "the-key\194\160", "\226\128\139the-key", "th\195\169-key", "the-key\127" },
      ["byte order mark"] = { "\239\187\191the-key" },
      ["blank"] = { " the-key", "the-key ", "\tthe-key", "the key" },
      ["carriage return"] = { "the-key\r", "the\rkey" },
    } do
      it("and other places name what is wrong about a key with a " .. what .. " in or around it", function()
        local function assert_said(message, where)
          assert.matches(what, message, 1, true)
          assert.matches(where, message, 1, true)
          assert.is_nil(message:find("the-key", 1, true))
        end
        for _, text in ipairs(texts) do
          assert_said(refused { api_key = text }, "api_key: ")
          assert_said(refused { accounts = { { name = "a", api_key = text } } }, "accounts[1].api_key: ")
          assert_said(refused { config = file(("return { api_key = %q }"):format(text)) }, "api_key: ")
          if what == "quote" or what == "printable ASCII" then -- the rest is mended in a file
            local path = file(text)
            assert_said(refused { api_key_file = path }, "api_key_file: " .. path .. ": ")
            assert_said(refused { accounts = { { name = "a", api_key_file = path } } }, path .. ": ")
          end
          environment.MIDJOURNEY_API_KEY = text
          assert_said(refused {}, "api_key (from the environment): ")
          assert.equal("good", resolve({ api_key = "good" }).accounts[1].api_key) -- what is not used does no harm
        end
      end)
    end

    it("with secrets hold some, each long enough", function()
      assert.matches("^secrets_file%[2%]: ", refused { secrets_file = file(SECRET .. "\nshort\n") })
      assert.matches("^secrets_file: ", refused { secrets_file = file "\n\n" })
      local text = (SECRET .. "\n"):rep(17)
      assert.matches("^secrets_file: at most 16 secrets expected, got 17", refused { secrets_file = file(text) })
    end)
  end)

  describe("policy", function()
    local function open(policy)
      return mjhook.open { store = kit.tmp() .. "/store", policy = policy }
    end
    local cases = {
      { "does not compile", "return {", "expected" },
      { "raises", "error 'no idea'", "no idea" },
      { "returns no table", "return 7", "should return a table" },
      { "has an unknown function", "return { on_suceeded = print }", '"on_suceeded": did you mean "on_succeeded"' },
      { "has no function where one should be", "return { on_failed = 7 }", "on_failed: function expected, got number" },
      { "has text where a function should be", "return { on_failed = 'x' }", "on_failed: function expected" },
      { "has a list", "return { function() end }", 'unknown function "1"' },
    }
    for _, case in ipairs(cases) do
      it("is refused when it " .. case[1], function()
        local mj, err = open(file(case[2]))
        assert.is_nil(mj)
        assert.equal("config", err.code)
        assert.matches("^policy: ", err.message)
        assert.matches(case[3], err.message)
      end)
    end

    it("is refused when there is none", function()
      local mj, err = open "/nowhere/policy.lua"
      assert.is_nil(mj)
      assert.matches("^policy: .*/nowhere/policy.lua", err.message)
    end)

    for _, mode in ipairs { "620", "602", "666" } do
      it("is refused, and not run, when others can write its file: " .. mode, function()
        local mark = kit.tmp() .. "/mark"
        local path = file(("io.open(%q, 'w'):close() return {}"):format(mark), mode)
        local mj, err = open(path)
        assert.is_nil(mj)
        assert.equal("config", err.code)
        assert.matches("^policy: .* can be written by others", err.message)
        assert.is_nil(kit.read(mark))
      end)
    end

    if AS_ROOT then
      it("is refused when its file belongs to another user", function()
        local path = file "return {}"
        os.execute("chown 65534 " .. path)
        assert.matches("^policy: .* belongs to uid 65534", refused { policy = path })
      end)
    end

    it("may be read by others", function()
      assert(open(file("return {}", "644"))):close()
    end)

    it("is refused as table, too, before the store is made", function()
      local dir = kit.tmp()
      local mj, err = mjhook.open { store = dir .. "/store", policy = { on_sucess = print } }
      assert.is_nil(mj)
      assert.matches("on_sucess", err.message)
      assert.is_nil(real_stat(dir .. "/store"))
    end)

    it("may be made of things that can be called", function()
      local mj = assert(open { on_event = setmetatable({}, { __call = function() end }) })
      mj:close()
    end)
  end)

  describe("of a store in a database", function()
    local shown = {
      ["postgresql://u@db.example/jobs"] = "postgresql://u@db.example/jobs",
      ["postgresql:///jobs?host=/var/run/postgresql"] = "postgresql:///jobs?host=/var/run/postgresql",
      ["postgresql://u:opensesame@db.example:5432/jobs"] = "postgresql://u:***@db.example:5432/jobs",
      ["postgres://u:opensesame@a:1,b:2/jobs?sslmode=require"] = "postgres://u:***@a:1,b:2/jobs?sslmode=require",
      ["postgresql://u:open%73esame@db.example/jobs"] = "postgresql://u:***@db.example/jobs",
      ["postgresql://db.example/jobs?user=u&password=opensesame"] =
        "postgresql://db.example/jobs?user=u&password=***",
      ["postgresql://db.example/jobs?sslpassword=opensesame&user=u"] =
        "postgresql://db.example/jobs?sslpassword=***&user=u",
      ["postgresql:///jobs?user=a@b&password=opensesame"] = "postgresql:///jobs?user=a@b&password=***",
      -- Not escaped as it should be: rather too little is shown than a part of the password.
      ["postgresql://u:open@sesame@db.example/jobs"] = "postgresql://u:***@db.example/jobs",
      ["postgresql://u:open/sesame@db.example/jobs"] = "postgresql://u:***@db.example/jobs",
      ["postgresql://u:open?sesame@db.example/jobs"] = "postgresql://u:***@db.example/jobs",
    }
    for url, wanted in pairs(shown) do
      it(("shows no password: %s for %d bytes"):format(wanted, #url), function()
        local c = resolve { store = url }
        assert.equal(wanted, c.store)
        assert.equal(url, c.store_url)
        assert.equal("mjhook", c.store_schema)
        if url:find("opensesame", 1, true) then -- also where a database quotes it
          assert.is_nil(core.redact("it says: opensesame"):find("opensesame", 1, true))
        end
      end)
    end

    it("keeps a file with a password to its owner", function()
      assert.is_true(resolve { config = file 'return { store = "postgresql://u:opensesame@h/jobs" }' }.keys_inside)
      assert.is_false(resolve { config = file 'return { store = "postgresql://u@h/jobs" }' }.keys_inside)
    end)

    it("refuses a URL with a blank or a line break in it, and does not quote it", function()
      for _, url in ipairs { "postgresql://u:open sesame@h/jobs", "postgresql://u:opensesame@h/jobs\n" } do
        local message = refused { store = url }
        assert.truthy(message:find("store: ", 1, true))
        assert.is_nil(message:find("sesame", 1, true))
      end
    end)

    for _, name in ipairs { "Jobs", "1st", "a-b", "pg_jobs", "", ("a"):rep(64), 'a"b' } do
      it(("refuses the schema %q"):format(name), function()
        assert.truthy(refused { store_schema = name }:find("store_schema: ", 1, true))
      end)
    end

    it("says what to install when its module is missing", function()
      local path, cpath = package.path, package.cpath
      package.path, package.cpath = path:gsub("%?", "none/?"), cpath:gsub("%?", "none/?")
      package.loaded["mjhook.store_postgres"] = nil
      local mj, err = mjhook.open { store = "postgresql://u:opensesame@127.0.0.1:1/jobs", api_key = "k" }
      package.path, package.cpath = path, cpath
      assert.is_nil(mj)
      assert.equal("config", err.code)
      assert.truthy(err.message:find("install mjhook-postgresql", 1, true))
      assert.is_nil(err.message:find("opensesame", 1, true))
    end)

    it("says what there is when no module can be for it", function()
      local mj, err = mjhook.open { store = "mysql://u:opensesame@h/jobs", api_key = "k" }
      assert.is_nil(mj)
      assert.equal("config", err.code)
      assert.truthy(err.message:find("no module for mysql://", 1, true))
    end)
  end)

  describe("keeps secrets", function()
    it("out of what objects print", function()
      local mj = assert(mjhook.open {
        store = kit.tmp() .. "/store", api_key = "the-api-key", secrets = { SECRET }, hook_url = "https://a.example",
      })
      local text = tostring(mj) .. tostring(mj.keyring) .. tostring(mj.store) .. tostring(mj.exec)
      assert.matches("^mjhook %(", tostring(mj))
      assert.is_nil(text:find("the-api-key", 1, true))
      assert.is_nil(text:find(SECRET, 1, true))
      mj:close()
      assert.equal("mjhook (closed)", tostring(mj))
    end)

    local leaks = {
      { api_key = "the-api-key\n" }, { secrets = { "the-api-key" } }, { secrets = "the-api-key" },
      { accounts = { { name = "a", api_key = "the-api-key\n" } } }, { base_url = "https://u:the-api-key@x" },
      { hook_url = "http://app.example/the-api-key" }, { accounts = "the-api-key" },
    }
    for i, args in ipairs(leaks) do
      it("out of the errors about them: " .. i, function()
        assert.is_nil(refused(args):find("the-api-key", 1, true))
      end)
    end

    local texts = {
      "return { api_key = 'the-api-key", 'return { api_key = "the-api-key', "return { api_key = the-api-key' }",
      "return { api_key 'the-api-key' }", "return { secrets = { 'x' 'the-api-key' } }", "return { [[the-api-key ",
      "error 'x' return { api_key = 'the-api-key' }",
    }
    for i, text in ipairs(texts) do
      it("out of the errors of a file that holds them: " .. i, function()
        local path = file(text)
        local message = refused { config = path }
        assert.is_nil(message:find("the-api-key", 1, true), message)
        assert.matches(path .. ":1: ", message, 1, true)
      end)
    end

    -- Where the compiler quotes more than a sign: a string, a number, a name, a label, an attribute.
    local quotes = {
      "local key = 'the_api_key", 'local key = "the_api_key\\q"', "local the_api_key the_api_key", "goto the_api_key",
      "::the_api_key:: ::the_api_key::", "local x = 7the_api_key", "local x <the_api_key> = 7", "x = [[the_api_key",
      "return { on_event = function() the_api_key }", "local the_api_key <const> = 1; the_api_key = 2",
      "return { the_api_key = 'x' 'the_api_key' }", "break the_api_key", "x = 'it' near the_api_key",
    }
    for i, text in ipairs(quotes) do
      it("out of a syntax error's message, which names file, line and kind: " .. i, function()
        local dir = kit.tmp() .. "/near here:9: x" -- a path that looks like a message
        os.execute(("mkdir '%s'"):format(dir))
        local path = kit.write(dir .. "/policy.lua", "\n\n" .. text)
        for _, given in ipairs { "policy", "config" } do
          local mj, err = mjhook.open { store = kit.tmp() .. "/store", [given] = path }
          if mj then
            return mj:close() -- this Lua takes it
          end
          assert.is_nil(err.message:find("the_api_key", 1, true), err.message)
          assert.matches(path .. ":3: ", err.message, 1, true)
          assert.is_true(#err.message > #path + 10, err.message)
        end
      end)
    end

    it("out of what code in a file raises: a constant or a key that Lua quotes", function()
      for _, text in ipairs { "return (('the_api_key')())", "return ({}).the_api_key.x",
        "local t = {} t:the_api_key()" } do
        for _, given in ipairs { "policy", "config" } do
          local _, err = mjhook.open { store = kit.tmp() .. "/store", [given] = file(text) }
          assert.is_nil(err.message:find("the_api_key", 1, true), err.message)
          assert.matches("config.lua:1: attempt to", err.message, 1, true)
        end
      end
    end)

    it("out of the error about a key file with too much in it", function()
      assert.is_nil(refused({ api_key_file = file "the-api-key x" }):find("the-api-key", 1, true))
    end)
  end)
end)
