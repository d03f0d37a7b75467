-- scripts/examples/nginx.conf as it is shipped, but for paths, port and user: real nginx, TLS, real callbacks.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "cqueues.socket"
local ssl = require "openssl.ssl.context"

-- Replaces something that has to be there.
local function put(text, old, new)
  local plain = old:gsub("%p", "%%%0")
  local result, n = text:gsub(plain, (new:gsub("%%", "%%%%")))
  assert(n > 0, "the example has no " .. old)
  return result
end

describe("the nginx example", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj

  local function example()
    local conf = kit.read(kit.root .. "/scripts/examples/nginx.conf")
    conf = put(conf, "/run/nginx.pid", "@DIR@/nginx.pid")
    conf = put(conf, "/var/log/nginx/", "@DIR@/")
    conf = put(conf, "/etc/ssl/private/", "@DIR@/")
    conf = put(conf, "/etc/ssl/", "@DIR@/")
    conf = put(conf, "/etc/mjhook/config.lua", "@DIR@/config.lua")
    conf = put(conf, "/usr/local/share/lua/5.1/?.lua", kit.root .. "/lua/?.lua")
    conf = put(conf, "/usr/local/lib/lua/5.1/?.so", kit.build .. "/5.1/?.so")
    conf = put(conf, "listen 443 ssl", "listen 127.0.0.1:@PORT@ ssl")
    conf = put(conf, "include /etc/nginx/modules-enabled/*.conf;", receiver.main("@DIR@"):match "^load_module.-\n.-\n")
    conf = put(conf, "user mjhook;", core.uid() == 0 and "user root;" or "")
    local temporary = {}
    for i, name in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do -- a package's places for these
      temporary[i] = ("%s_temp_path @DIR@/%s;"):format(name, name)
    end
    return put(conf, "\nhttp {", "\nhttp { " .. table.concat(temporary, " "))
  end

  before_each(function()
    web = receiver.prepare { conf = example() }
    local made, code = kit.sh(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
      .. "-subj /CN=app.example -addext subjectAltName=DNS:app.example -keyout app.example.key -out app.example.pem")
      :format(web.dir))
    assert(code == 0, made)
    web.settings.hook_url = ("https://app.example:%d/webhooks/midjourney"):format(web.port)
    web.settings.max_body = 2 ^ 22 -- so that it is nginx who refuses what is too large
    kit.write(web.dir .. "/config.lua", receiver.config_text(web.settings))
    web:start()
    mj = kit.open({ hook_url = web.settings.hook_url }, sim)
  end)

  local function submit()
    local task = assert(mj:submit { prompt = "a fox" })
    local jobs = sim.jobs()
    return task, jobs[#jobs].hookUrl
  end

  local function success(task)
    return cjson.encode { status = 0, data = { taskId = task.task_id, status = 1, image = "https://img.example/x" } }
  end

  -- One request. Gives the status and the head of the answer.
  local function request(method, url, body, more)
    kit.write(web.dir .. "/body", body or "")
    local out, code = kit.sh(("%s -sS -m 20 --cacert %s/app.example.pem --resolve app.example:%d:127.0.0.1 -X %s "
      .. "-o %s/answer -D - %s %s %s"):format(kit.curl, web.dir, web.port, method, web.dir, more or "",
      body and "--data-binary @" .. web.dir .. "/body" or "", kit.quote(url)))
    assert(code == 0, out)
    out = out:gsub("^HTTP/1.1 100 .-\r\n\r\n", "")
    return tonumber(out:match "^HTTP/1.1 (%d+)"), out
  end

  -- A connection over TLS, for bytes as they are.
  local function connect()
    local client = socket.connect("127.0.0.1", web.port)
    kit.finally(function() client:close() end)
    client:settimeout(15)
    client:setmode("b", "bn")
    client:onerror(function(_, _, why) return why end)
    local context = ssl.new("TLS", false)
    context:setVerify(ssl.VERIFY_NONE)
    assert(client:starttls(context))
    return client
  end

  it("is stored and answered 200 when a callback comes, also when it comes again", function()
    local task, url = submit()
    assert.equal(200, (request("POST", url, success(task))))
    assert.equal("succeeded", mj:get(task.ref).state)
    assert.equal(200, (request("POST", url, success(task))))
    assert.equal(1, mj:stats().events)
    assert.equal(400, (request("POST", url, "no JSON")))
    kit.wait_until(function() return web:log():find("refused: not JSON", 1, true) end) -- as all before it would be
    assert.is_nil(web:log():find("no thread_pool", 1, true))
  end)

  it("takes a body whose length is not told", function()
    local task, url = submit()
    assert.equal(200, (request("POST", url, success(task), "-H 'Transfer-Encoding: chunked'")))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("refuses a GET with 405, a bad token with 401, other paths with 404, no JSON with 400", function()
    local task, url = submit()
    local code, head = request("GET", url)
    assert.equal(405, code)
    assert.matches("\nAllow: POST\r\n", head)
    assert.equal(401, (request("POST", url .. "x", success(task))))
    assert.equal(404, (request("POST", (url:gsub("midjourney%?", "midjourney/?")), success(task))))
    assert.equal(404, (request("GET", ("https://app.example:%d/"):format(web.port))))
    assert.equal(400, (request("POST", url, "success")))
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("refuses a body over 1 MiB with 413, whether its length is told or not", function()
    local task, url = submit()
    local body = (" "):rep(2 ^ 20 - #success(task) + 1) .. success(task)
    assert.equal(2 ^ 20 + 1, #body)
    assert.equal(413, (request("POST", url, body)))
    assert.equal(413, (request("POST", url, body, "-H 'Transfer-Encoding: chunked'")))
    assert.equal("pending", mj:get(task.ref).state)
    assert.is_true(mj:get(task.ref).due_at <= core.now()) -- it is news: the provider is asked
    assert.matches("too large", mj:refused()[1].reason)
    assert.equal(401, (request("POST", url .. "x", body)))
    assert.equal(401, (request("POST", url .. "x", body, "-H 'Transfer-Encoding: chunked'")))
    assert.equal(200, (request("POST", url, body:sub(2))))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("answers a bad token before the body is sent", function()
    local task, url = submit()
    local client = connect()
    client:write(("POST %sx HTTP/1.1\r\nHost: app.example\r\nContent-Length: 1000\r\n\r\n"):format(
      url:match "^https://[^/]+(.*)$"))
    local before = core.clock()
    assert.matches("^HTTP/1.1 401 ", client:read "*l")
    assert.is_true(core.clock() - before < 4000)
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("cuts off who sends half a body or half a head, and serves others meanwhile", function()
    local task, url = submit()
    local path = url:match "^https://[^/]+(.*)$"
    local before = core.clock()
    local body, head = connect(), connect()
    body:write(("POST %s HTTP/1.1\r\nHost: app.example\r\nContent-Length: %d\r\n\r\n%s"):format(path,
      #success(task), success(task):sub(1, -2)))
    head:write(("POST %s HTTP/1.1\r\nHost: app.exa"):format(path))
    local other, other_url = submit()
    assert.equal(200, (request("POST", other_url, success(other))))
    assert.is_true(core.clock() - before < 4000)
    local said = body:read "*a" or ""
    assert.is_true(said == "" or said:find "^HTTP/1.1 408 " ~= nil, said)
    assert.equal("", head:read "*a" or "")
    local took = core.clock() - before
    assert.is_true(took > 4000 and took < 30000, took)
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("takes a callback whose question mark came escaped", function()
    local task, url = submit()
    assert.equal(200, (request("POST", (url:gsub("%?", "%%3F")), success(task))))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("lets unauthenticated requests write a line a minute and no more, and logs successes", function()
    local task, url = submit()
    for _ = 1, 30 do
      request("POST", url .. "x", "{}")
      request("GET", url)
      request("GET", ("https://app.example:%d/nothing"):format(web.port))
    end
    kit.wait_until(function() return web:log():find("without a good token", 1, true) end)
    assert.equal(1, select(2, web:log():gsub("without a good token", "")))
    assert.equal(200, (request("GET", ("https://app.example:%d/metrics"):format(web.port))))
    kit.wait_until(function() return web:access_log():find("GET /metrics 200", 1, true) end)
    assert.equal(1, select(2, web:access_log():gsub("\n", "")))
    assert.equal("", kit.read(web.dir .. "/mjhook.log"))
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("writes the token to no log, whatever is wrong with a request", function()
    local task, url = submit()
    local path, sig = url:match "^https://[^/]+(.*sig=(.*))$"
    request("POST", url, success(task))
    request("GET", url)
    request("POST", url, "no JSON")
    request("POST", url .. "&x=y", ("x"):rep(2 ^ 20 + 1))
    request("POST", url, ("x"):rep(2 ^ 20 + 1), "-H 'Transfer-Encoding: chunked'")
    request("POST", (url:gsub("midjourney", "elsewhere")), success(task))
    for _, path_of in ipairs { "/webhooks/midjourney%3F", "/webhooks/midjourney%3f", "/webhooks/midjourney;",
      "/webhooks%2Fmidjourney%3F", "//webhooks/./midjourney%3F", "/webhooks/x/../midjourney%3F",
      "/%77ebhooks/midjourney&", "/webhooks/midjourney/%3F", "/webhooks/midjourney%0A%3F", "/webhooks/midjourney%23",
      "/elsewhere%3F", "/metrics%3F",
      "/metrics/%3F" } do
      request("POST", url:match "^https://[^/]+" .. path_of .. url:match "%?(.*)", success(task),
        "--path-as-is -H 'Referer: " .. url .. "'")
    end
    local oddities = {
      ("POST %s HTTP/1.1\r\nHost: app.example\r\nContent-Length: 100\r\n\r\n{"):format(path),
      ("POST %s HTTP/1.1\r\nHost: app.example\r\nContent-Length: x\r\n\r\n"):format(path),
      ("POST %s HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):format(path),
      ("POST %s HTTP/1.1\r\nHost: app.example\r\nX: %s\r\n\r\n"):format(path, ("x"):rep(40000)),
      ("POST %s HTTP/1.1\r\n\r\n"):format(path),
      ("POST %s HTTP/9.9\r\n\r\n"):format(path),
      ("POST %s"):format(path),
      ("\1POST %s HTTP/1.1\r\n\r\n"):format(path),
      ("POST %s HTTP/1.1\r\nHost: a b\r\n\r\n"):format(path:gsub("?", ("?" .. ("y"):rep(30000)) .. "&")),
    }
    for _, bytes in ipairs(oddities) do
      local client = connect()
      client:write(bytes)
      client:shutdown "w"
      client:read "*a"
    end
    kit.sh("rm -r " .. web.dir .. "/client_body") -- what is more than the buffer as it comes can go nowhere
    local client = connect()
    client:write(("POST %s HTTP/1.1\r\nHost: app.example\r\nTransfer-Encoding: chunked\r\n\r\n%s0\r\n\r\n"):format(path,
      ("1\r\nx\r\n"):rep(200000)))
    assert.matches("^HTTP/1.1 500 ", client:read "*l")
    sim.request("POST", ("http://127.0.0.1:%d%s"):format(web.port, path), success(task)) -- no TLS
    kit.wait_until(function() return web:log():find("refused: not JSON", 1, true) end)
    assert.is_truthy(web:log():find(task.ref, 1, true)) -- it does say which task
    web:stop() -- all that it ever writes is written
    assert.equal("", web:access_log())
    for _, name in ipairs { "error.log", "mjhook.log", "start.log" } do
      local text = kit.read(web.dir .. "/" .. name) or ""
      assert.is_nil(text:find(sig, 1, true), name .. ":\n" .. text)
      assert.is_nil(text:find(kit.SECRET, 1, true), name)
      assert.is_nil(text:find(kit.KEY, 1, true), name)
    end
  end)
end)
