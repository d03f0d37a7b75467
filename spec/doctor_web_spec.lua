-- mjhook doctor looks at hook_url and at the provider: a real nginx with mjhook in it, behind proxies that do what
-- proxies do, with certificates of many kinds; the simulator as provider.
local cjson = require "cjson"
local core = require "mjhook.core"
local doctor = require "mjhook.doctor"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local OTHER_SECRET = "another secret, of nobody here"

-- `rewrite` to /hook and on to ourselves: a proxy. @PORT@ is plain, the others speak TLS.
local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  client_max_body_size 1m; client_body_buffer_size 1m;
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } posts = 0 }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  ssl_certificate @CERTS@/good.pem; ssl_certificate_key @CERTS@/good.key;
  server {
    listen 127.0.0.1:@PORT@; listen 127.0.0.1:@TLS@ ssl;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location = /moved301 { return 301 https://elsewhere.example/hook?token=secret; }
    location = /moved302 { return 302 /hook?token=secret; }
    location = /moved307 { return 307 https://elsewhere.example/hook; }
    location /moved/ { return 308 https://elsewhere.example/api; }
    location = /no-query { rewrite ^ /hook? break; proxy_pass http://127.0.0.1:@PORT@; }
    location = /limit { client_max_body_size 10k; rewrite ^ /hook break; proxy_pass http://127.0.0.1:@PORT@; }
    location = /buffer { client_body_buffer_size 8k; content_by_lua_block { require("resty.mjhook").callback() } }
    location = /cut {
      rewrite_by_lua_block {
        ngx.req.read_body()
        ngx.req.set_body_data(ngx.req.get_body_data():sub(1, 30000))
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /drop {
      rewrite_by_lua_block {
        if tonumber(ngx.var.http_content_length) > 10000 then return ngx.exit(444) end
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /flaky {
      rewrite_by_lua_block {
        posts = posts + 1
        if posts > 4 then return ngx.exit(444) end
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /slow {
      rewrite_by_lua_block {
        posts = posts + 1
        if posts > 3 then ngx.sleep(1.05) end
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /takes-get {
      rewrite_by_lua_block {
        if ngx.req.get_method() == "GET" then return ngx.exit(404) end
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /fails {
      rewrite_by_lua_block {
        if posts > 0 then return ngx.exit(500) end
        posts = posts + 1
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /lies {
      rewrite_by_lua_block {
        posts = posts + 1
        if posts > 1 then ngx.say('{"status":"stored"}') return ngx.exit(200) end
        ngx.req.set_uri("/hook")
      }
      proxy_pass http://127.0.0.1:@PORT@;
    }
    location = /anything { return 200 '{"status":"stored"}'; }
    location = /login { return 401; }
    location = /forbidden { return 403; }
    location = /nobody { proxy_pass http://127.0.0.1:1; }
  }
  server {
    listen 127.0.0.1:@EXPIRED@ ssl;
    ssl_certificate @CERTS@/expired.pem; ssl_certificate_key @CERTS@/expired.key;
    location / { content_by_lua_block { require("resty.mjhook").callback() } }
  }
  server {
    listen 127.0.0.1:@SOON@ ssl;
    ssl_certificate @CERTS@/soon.pem; ssl_certificate_key @CERTS@/soon.key;
    location / { content_by_lua_block { require("resty.mjhook").callback() } }
  }
  server {
    listen 127.0.0.1:@NAME@ ssl;
    ssl_certificate @CERTS@/name.pem; ssl_certificate_key @CERTS@/name.key;
    location / { content_by_lua_block { require("resty.mjhook").callback() } }
  }
}
]]

local function free_port()
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  server:close()
  return port
end

local function make_certificates(dir)
  local late = kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -n 1"
  local function certificate(name, days, host, more)
    local out, code = kit.sh(("cd %s && %s openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
      .. "-days %d -keyout %s.key -out %s.pem -subj /CN=%s %s"):format(dir, "env " .. (more or ""), days, name, name,
      host, name == "ca" and "" or "-CA ca.pem -CAkey ca.key -addext subjectAltName=DNS:" .. host
      .. " -addext basicConstraints=critical,CA:FALSE"))
    assert(code == 0, out)
  end
  certificate("ca", 400, "Authority")
  certificate("good", 60, "localhost")
  certificate("soon", 5, "localhost")
  certificate("name", 60, "other.example")
  certificate("expired", 2, "localhost", "LD_PRELOAD=" .. late .. " FAKETIME=-10d")
end

describe("mjhook doctor", function()
  local certs, ports, web, findings, count

  setup(function()
    sim.start()
    certs = kit.sh "mktemp -d"
    make_certificates(certs)
  end)
  teardown(function()
    sim.stop()
    os.execute("rm -rf " .. kit.quote(certs))
  end)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function start(settings)
    local held = {} -- all at once, so that no two of them are the same
    ports = {}
    for _, name in ipairs { "TLS", "EXPIRED", "SOON", "NAME" } do
      held[name] = assert(socket.bind("127.0.0.1", 0))
      ports[name] = select(2, held[name]:getsockname())
    end
    local conf = CONF:gsub("@(%u+)@", function(name)
      return name == "CERTS" and certs or ports[name] and tostring(ports[name]) or nil
    end)
    web = receiver.prepare { conf = conf, settings = settings }
    for _, server in pairs(held) do
      server:close()
    end
    web:start()
  end

  -- What the doctor finds with a hook_url, and more settings.
  local function examine(hook_url, more, options)
    local settings = kit.settings(more, sim)
    settings.log, settings.hook_url = nil, hook_url or nil
    options = options or { ca_file = certs .. "/ca.pem" }
    options.timeout_ms = options.timeout_ms or 5000
    local submitted = sim.requests "submit"
    findings, count = doctor.run(settings, options)
    assert.equal(submitted, sim.requests "submit")
    local all = cjson.encode(findings)
    for _, secret in ipairs { kit.SECRET, kit.KEY, OTHER_SECRET, "sig=", "token=" } do
      assert.is_nil(all:find(secret, 1, true), all)
    end
  end

  -- The one finding of a check.
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

  -- The only thing that failed about hook_url.
  local function assert_fails(check, message, advice)
    assert_finding("fail", check, message, advice)
    for _, f in ipairs(findings) do
      assert.is_true(f.check == check or f.status ~= "fail", f.check .. ": " .. f.message)
    end
  end

  describe("of hook_url", function()
    it("finds nothing wrong with a receiver behind TLS but its private address", function()
      start()
      examine(("https://localhost:%d/hook"):format(ports.TLS))
      assert_finding("ok", "hook_url.tls", "59 days")
      assert_finding("ok", "hook_url.tls", "Authority")
      assert_finding("ok", "hook_url.wrong_token")
      assert_finding("ok", "hook_url.token")
      assert_finding("ok", "hook_url.body", "61440 bytes")
      assert_finding("ok", "hook_url.get")
      assert_finding("ok", "hook_url.time", "median of 5")
      assert_finding("ok", "hook_url.clock")
      assert_finding("warn", "hook_url.dns", "127.0.0.1", "public address")
      assert.equal(0, count.fail)
    end)

    it("creates nothing and keeps nothing", function()
      start()
      local mj = kit.open({}, sim)
      examine(web.url .. "/hook")
      assert_finding("ok", "hook_url.body")
      assert.same({}, mj:refused())
      local stats = mj:stats()
      for state, n in pairs(stats.tasks) do
        assert.equal(0, n, state)
      end
      assert.equal(0, stats.events)
      assert.is_true(mj:check().ok)
    end)

    it("keeps what query hook_url has, and does not show it", function()
      start()
      examine(web.url .. "/hook?token=mine")
      assert_finding("ok", "hook_url.token")
    end)

    it("takes every receiver that verifies: with trust = verify, with a policy that decides", function()
      local policy = kit.write(kit.tmp() .. "/policy.lua", "return { on_callback = function() return 'verify' end }")
      start { trust = "verify", policy = policy }
      examine(web.url .. "/hook")
      assert_finding("ok", "hook_url.token")
      assert_finding("ok", "hook_url.body")
    end)

    it("is told that there is none, and that this is fine", function()
      examine(false)
      assert_finding("ok", "hook_url", "only polled")
    end)

    it("warns of plain http", function()
      start()
      examine(web.url .. "/hook")
      assert_finding("warn", "hook_url.tls", web.url .. "/hook", "https")
    end)

    it("fails when the name does not exist", function()
      examine "https://no-such-host.invalid/hook"
      assert_fails("hook_url.dns", "no-such-host.invalid", "spelled right")
    end)

    it("fails when no server listens", function()
      examine(("https://localhost:%d/hook"):format(free_port()))
      assert_fails("hook_url.reach", "localhost", "firewall")
    end)

    it("fails when no server answers, and goes on", function()
      local server = assert(socket.bind("127.0.0.1", 0)) -- the kernel accepts, nobody reads
      kit.finally(function() server:close() end)
      local _, port = server:getsockname()
      examine(("http://127.0.0.1:%d/hook"):format(port), nil, { timeout_ms = 300 })
      assert_fails("hook_url.reach", "timed out", "hangs")
      assert_finding("ok", "provider.key")
    end)

    it("fails when the server hangs up", function()
      start()
      examine(web.url .. "/drop?x=y", { secrets = { OTHER_SECRET } }) -- the small one is refused, and all is told
      assert_finding("fail", "hook_url.token")
      local server = assert(socket.bind("127.0.0.1", 0))
      local _, port = server:getsockname()
      server:close()
      kit.spawn("exec " .. kit.lua_command(([[
        local server = assert(require("socket").bind("127.0.0.1", %d))
        io.stdout:write("ready\n") io.stdout:flush()
        while true do local c = server:accept() c:receive "*l" c:close() end]]):format(port)))
      kit.wait_until(function()
        local c = socket.connect("127.0.0.1", port)
        return c and c:close()
      end)
      examine(("http://127.0.0.1:%d/hook"):format(port))
      assert_fails("hook_url.reach", nil, "error log")
    end)

    it("fails when a port speaks no TLS", function()
      start()
      examine(("https://localhost:%d/hook"):format(web.port))
      assert_fails("hook_url.tls", "localhost", "speak TLS")
    end)

    it("fails for an expired certificate and says since when", function()
      start()
      examine(("https://localhost:%d/hook?token=mine"):format(ports.EXPIRED))
      assert_fails("hook_url.tls", "expired " .. os.date("!%Y-%m-%d", os.time() - 8 * 86400), "renew")
    end)

    it("fails for a certificate of another name", function()
      start()
      examine(("https://localhost:%d/hook"):format(ports.NAME))
      assert_fails("hook_url.tls", "valid until", "has to name localhost")
    end)

    it("fails for a certificate of an unknown authority", function()
      start()
      examine(("https://localhost:%d/hook"):format(ports.TLS), nil, {})
      assert_fails("hook_url.tls", "valid until", "fullchain")
    end)

    it("fails when there is no list of authorities", function()
      start()
      examine(("https://localhost:%d/hook"):format(ports.TLS), nil, { ca_file = "/nowhere/ca.pem" })
      assert_fails("hook_url.tls", nil, "ca-certificates")
    end)

    it("warns when the certificate ends within two weeks", function()
      start()
      examine(("https://localhost:%d/hook"):format(ports.SOON))
      assert_finding("warn", "hook_url.tls", "days", "renew")
      assert_finding("ok", "hook_url.token")
    end)

    for path, location in pairs { moved301 = "https://elsewhere.example/hook", moved302 = "/hook",
      moved307 = "https://elsewhere.example/hook" } do
      it("fails for a redirect and says where to: " .. path, function()
        start()
        examine(web.url .. "/" .. path)
        assert_fails("hook_url.redirect", "HTTP " .. path:match "%d+" .. " to ", "hook_url")
        assert_fails("hook_url.redirect", location .. ":")
      end)
    end

    it("fails when a proxy drops the query", function()
      start()
      examine(web.url .. "/no-query")
      assert_finding("ok", "hook_url.wrong_token")
      assert_fails("hook_url.token", "401", "query string")
    end)

    it("fails when a proxy drops the query and unsigned callbacks are allowed", function()
      start { allow_unsigned = true }
      examine(web.url .. "/no-query", { allow_unsigned = true })
      assert_fails("hook_url.wrong_token", "without a token", "query string")
    end)

    it("fails when the receiver has other secrets", function()
      start()
      examine(web.url .. "/hook", { secrets = { OTHER_SECRET } })
      assert_fails("hook_url.token", "401", "same secrets")
    end)

    it("tells of a receiver that was not reloaded after a new secret", function()
      start()
      examine(web.url .. "/hook", { secrets = { OTHER_SECRET, "one that is not known, either", kit.SECRET } })
      assert_fails("hook_url.token", "number 3", "reload nginx")
    end)

    it("fails without secrets, as every callback would", function()
      start()
      examine(web.url .. "/hook", { secrets = {} })
      assert_fails("hook_url.secrets", "401", "openssl rand")
      assert_finding("ok", "hook_url.get")
    end)

    it("warns without secrets when unsigned callbacks are allowed, and tries one", function()
      start { secrets = {}, allow_unsigned = true }
      examine(web.url .. "/hook", { secrets = {}, allow_unsigned = true })
      assert_finding("warn", "hook_url.secrets", "hints")
      assert_finding("ok", "hook_url.token")
      assert_finding("ok", "hook_url.body")
    end)

    it("fails when bodies are cut, and what came is kept for a look", function()
      start()
      local mj = kit.open({}, sim)
      examine(web.url .. "/cut")
      assert_finding("ok", "hook_url.token")
      assert_fails("hook_url.body", "61440 bytes did not arrive whole", "mjhook refused")
      assert.equal(30000, mj:refused()[1].size)
    end)

    it("fails when a proxy limits bodies", function()
      start()
      examine(web.url .. "/limit")
      assert_fails("hook_url.body", "61440 bytes is refused (413)", "client_max_body_size")
    end)

    it("fails when mjhook's own nginx does", function()
      start()
      examine(web.url .. "/buffer")
      assert_fails("hook_url.body", "mjhook refuses", "client_body_buffer_size")
    end)

    it("sends no more than max_body", function()
      start { max_body = 3000 }
      examine(web.url .. "/hook", { max_body = 3000 })
      assert_finding("ok", "hook_url.body", "3000 bytes")
    end)

    it("fails when a large body ends the connection", function()
      start()
      examine(web.url .. "/drop")
      assert_finding("ok", "hook_url.token")
      assert_fails("hook_url.body", "61440")
    end)

    it("fails when not every request is answered", function()
      start()
      examine(web.url .. "/flaky")
      assert_fails("hook_url.reach", "not every request", "limit")
    end)

    it("fails when a good token is answered with an error", function()
      start()
      examine(web.url .. "/fails")
      assert_fails("hook_url.body", "HTTP 500", "error log")
    end)

    it("fails when a callback for no task is said to be stored", function()
      start()
      examine(web.url .. "/lies")
      assert_fails("hook_url.body", "HTTP 200", "something else")
    end)

    for path, case in pairs {
      anything = { "HTTP 200", "something else" }, login = { "HTTP 401", "login" },
      forbidden = { "HTTP 403", "firewall" },
      elsewhere = { "HTTP 404", "location" }, nobody = { "HTTP 502", "proxy" }, ping = { "HTTP 200", "something else" },
    } do
      it("fails when it is not mjhook that answers: " .. path, function()
        start()
        examine(web.url .. "/" .. path)
        assert_fails("hook_url.wrong_token", case[1], case[2])
      end)
    end

    it("fails when the receiver can't open its store", function()
      start { store = "/dev/null/store" }
      examine(web.url .. "/hook")
      assert_fails("hook_url.wrong_token", "HTTP 503", "can't commit")
    end)

    it("warns when a GET is not refused", function()
      start()
      examine(web.url .. "/takes-get")
      assert_finding("warn", "hook_url.get", "HTTP 404")
      assert_finding("ok", "hook_url.body")
    end)

    it("warns when answers take more than a second", function()
      start()
      examine(web.url .. "/slow")
      assert_finding("warn", "hook_url.time", "ms")
    end)

    for seconds, word in pairs { [60] = "ahead", [-60] = "behind" } do
      it("warns when our clock is " .. word, function()
        start()
        kit.travel(seconds)
        examine(web.url .. "/hook")
        assert_finding("warn", "hook_url.clock", word, "NTP")
        assert_finding("warn", "base_url.clock", word, "NTP")
      end)
    end
  end)

  describe("of the provider", function()
    it("finds its key accepted, with one question about no task", function()
      examine(false)
      assert_finding("ok", "provider.key", "account default")
      assert_finding("ok", "base_url.dns", "127.0.0.1")
      assert_finding("ok", "base_url.clock")
      assert_finding("ok", "base_url.time")
      assert_finding("warn", "base_url.tls", "plain http")
      assert.equal(1, sim.requests "status")
      assert.equal(0, count.fail)
    end)

    it("asks under each account", function()
      sim.config { keys = { "first", "third" } }
      examine(false, { accounts = {
        { name = "a", api_key = "first" }, { name = "b", api_key = "second" }, { name = "c" },
        { name = "d", api_key = "third", max_in_flight = 0 },
      } })
      local said = {}
      for _, f in ipairs(findings) do
        if f.check == "provider.key" then
          said[#said + 1] = f.status .. " " .. f.message:match "account (%a)"
        end
      end
      assert.same({ "ok a", "fail b", "fail c", "ok d" }, said)
      assert.equal(3, sim.requests "status")
      for _, check in ipairs { "dns", "clock", "time" } do
        assert_finding("ok", "base_url." .. check) -- once for all
      end
    end)

    it("fails for a wrong key", function()
      sim.config { keys = { "another" } }
      examine(false)
      assert_fails("provider.key", "refuses the API key (HTTP 401)", "compare")
    end)

    it("fails without a key", function()
      examine(false, { accounts = { { name = "default" } } })
      assert_fails("provider.key", "no key", "MIDJOURNEY_API_KEY")
    end)

    it("fails when it is in trouble, or no such provider", function()
      sim.script { status = { "http_503" } }
      examine(false)
      assert_fails("provider.key", "HTTP 503", "try again later")
      examine(false, { base_url = sim.url .. "/elsewhere" })
      assert_fails("provider.key", "HTTP 404", "base_url")
      sim.script { status = { "garbage" } }
      examine(false)
      assert_fails("provider.key", "HTTP 200", "base_url")
    end)

    it("fails when it has something against the account", function()
      sim.script { status = { "quota" } }
      examine(false)
      assert_fails("provider.key", "quota not enough", "account on its pages")
    end)

    for fault, expected in pairs {
      cf_403 = { "HTTP 403: something in front of the provider refuses us", "not the key" },
      html_403 = { "HTTP 403: something in front of the provider refuses us", "not the key" },
      cf_503 = { "HTTP 503: something in front", "not the key" },
      http_402 = { "payment required", "account on its pages" },
      html_404 = { "HTTP 404: is base_url right?", "base_url" },
      http_400 = { "HTTP 400: bad prompt", "own word" },
      error_401 = { "invalid API key", "compare" },
      gzip_cut = { "HTTP 200: not JSON", "base_url" },
    } do
      it("fails, and says where to look: " .. fault, function()
        sim.script { status = { fault } }
        examine(false)
        assert_fails("provider.key", expected[1], expected[2])
      end)
    end

    for _, fault in ipairs { "created", "bom", "gzip", "gzip_unsaid", "null_data", "word_envelope" } do
      it("accepts a good answer, however dressed: " .. fault, function()
        sim.script { status = { fault } }
        examine(false)
        assert_finding("ok", "provider.key", "accepted")
      end)
    end

    it("warns when what it answers can't be read", function()
      sim.script { status = { "list_wrapper" } }
      examine(false)
      assert_finding("warn", "provider.key", "can't be read")
    end)

    it("warns when it limits the rate", function()
      sim.script { status = { "rate_limit" } }
      examine(false)
      assert_finding("warn", "provider.key", "429")
    end)

    it("warns when it is slow", function()
      sim.script { status = { { fault = "slow", ms = 5100 } } }
      examine(false, nil, { timeout_ms = 9000 })
      assert_finding("warn", "base_url.time", "ms")
    end)

    it("fails when it can't be reached: no name, no server, no answer, no TLS, no certificate", function()
      start()
      examine(false, { base_url = "https://no-such-host.invalid" })
      assert_fails "base_url.dns"
      examine(false, { base_url = "http://127.0.0.1:1" })
      assert_fails "base_url.reach"
      sim.script { status = { "hang" } }
      examine(false, nil, { timeout_ms = 300 })
      assert_fails("base_url.reach", "timed out")
      examine(false, { base_url = "https://localhost:" .. web.port })
      assert_fails("base_url.tls", nil, "speak TLS")
      examine(false, { base_url = "https://localhost:" .. ports.EXPIRED })
      assert_fails("base_url.tls", "expired", "renew")
    end)

    it("fails for a redirect", function()
      start()
      examine(false, { base_url = web.url .. "/moved" })
      assert_fails("base_url.redirect", "HTTP 308 to https://elsewhere.example/api", "base_url")
    end)

    it("is not asked a second time when it is not there", function()
      examine(false, { base_url = "http://127.0.0.1:1",
                       accounts = { { name = "a", api_key = "x" }, { name = "b", api_key = "y" } } })
      assert_fails "base_url.reach"
      assert.equal("", finding("provider.key").message)
    end)
  end)

  it("trusts the authorities that the command names", function()
    start()
    local settings = kit.settings({ hook_url = ("https://localhost:%d/hook"):format(ports.TLS) }, sim)
    settings.log = nil
    local config = kit.write(kit.tmp() .. "/config.lua", receiver.config_text(settings))
    local function run(arguments)
      return kit.sh(("%s MJHOOK_BUILD=%s %s %s doctor -c %s %s"):format(kit.bare, kit.quote(kit.build), kit.lua,
        kit.quote(kit.root .. "/scripts/mjhook"), config, arguments))
    end
    local out, code = run("--ca-file " .. certs .. "/ca.pem")
    assert.matches("\nok    hook_url.tls ", out)
    assert.equal(0, code)
    out, code = run ""
    assert.matches("\nFAIL  hook_url.tls ", out)
    assert.equal(1, code)
  end)

  it("can look up names, and tells a missing one from one without an answer", function()
    assert.same({ "127.0.0.1" }, core.resolve "127.0.0.1")
    local found, err = core.resolve "no-such-host.invalid"
    assert.is_nil(found)
    assert.matches("^no%-such%-host.invalid: ", err.message)
  end)
end)
