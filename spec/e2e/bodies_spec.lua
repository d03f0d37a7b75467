-- Bodies that take their time: one good URL must not keep the callbacks of other tasks out. And bodies that nginx can't
-- read, over HTTP/1 and HTTP/2.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

-- @SETUP@: Lua code before init(); @LISTEN@: more of listen.
local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { @SETUP@ require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@ backlog=2048 @LISTEN@;
    location = /ping { return 200 "pong\n"; }
    location = /hook {
      access_log off; error_log @DIR@/hook.log crit;
      client_max_body_size 1m; client_body_buffer_size 1m; client_body_timeout 5s;
      lingering_time 1s; lingering_timeout 1s;
      content_by_lua_block { require("resty.mjhook").callback() }
    }
  }
}
]]

describe("the nginx receiver", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj, serial

  local function start(setup_code, listen)
    local conf = CONF:gsub("@SETUP@", ((setup_code or ""):gsub("%%", "%%%%"))):gsub("@LISTEN@", listen or "")
    web = receiver.prepare { conf = conf }
    mj, serial = kit.open({ hook_url = web.url .. "/hook" }, sim), 0
    if listen then -- its /ping is for HTTP/2 only
      local out, code = kit.sh(("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf -e %s/start.log"):format(web.dir,
        web.dir, web.dir))
      assert(code == 0, out)
      kit.finally(function() web:stop() end)
    else
      web:start()
    end
  end

  local function job()
    serial = serial + 1
    local task = assert(mj:adopt { task_id = "Id" .. serial, prompt = "fox" })
    local j = { ref = task.ref, url = provider.hook_url(mj, task.ref, 1) }
    j.path = j.url:match "^http://[^/]+(.*)$"
    j.body = cjson.encode { taskId = "Id" .. serial, status = 1, image = "https://img.example/x" }
    j.head = ("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"):format(j.path, #j.body)
    return j
  end

  local function connect(seconds)
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:setoption("tcp-nodelay", true)
    client:settimeout(seconds or 5)
    kit.finally(function() client:close() end)
    return client
  end

  local function post(j)
    return (sim.request("POST", j.url, j.body, { ["content-type"] = "application/json" }))
  end

  -- A client that has sent a head and a byte of the body; nginx waits for the rest.
  local function dribble(j, path)
    local client = connect()
    client:send((j.head:gsub("^POST %S+", (("POST " .. (path or j.path)):gsub("%%", "%%%%")))) .. j.body:sub(1, 1))
    return client
  end

  local function answer(client)
    return (client:receive "*l" or ""):match "^HTTP/1.1 (%d+)"
  end

  it("waits for four bodies of one task and answers 503 to more, while other tasks' callbacks get through", function()
    start()
    local j, other, slow = job(), job(), job()
    local clients = {}
    for i = 1, 4 do
      clients[i] = dribble(j)
    end
    -- However the same token is written.
    for _, path in ipairs { j.path, (j.path:gsub("ref=", "%%72ef=")), (j.path:gsub("&", "&amp;")), j.path .. "&x=1" } do
      assert.equal("503", answer(dribble(j, path)))
    end
    assert.equal(200, post(other))
    local late = dribble(slow)
    late:send(slow.body:sub(2))
    assert.equal("200", answer(late))
    local whole = connect()
    whole:send(j.head .. j.body) -- comes in one piece: nothing has to be waited for
    assert.equal("200", answer(whole))
    clients[1]:send(j.body:sub(2))
    assert.equal("200", answer(clients[1]))
    assert.equal("succeeded", mj:get(j.ref).state)
    kit.wait_until(function() return web:log():find("more bodies of one task", 1, true) end)
    assert.equal(1, select(2, web:log():gsub("more bodies of one task", "")))
  end)

  it("has the places of clients that are gone again at once", function()
    start()
    local j = job()
    for _ = 1, 5 do
      for i = 1, 4 do
        local client = dribble(j)
        if i % 2 == 0 then
          client:setoption("linger", { on = true, timeout = 0 })
        end
        client:close()
      end
      kit.wait_until(function()
        local client = dribble(j)
        client:send(j.body:sub(2))
        return answer(client) == "200"
      end, 8)
    end
  end)

  it("waits for so many bodies in all, of which those without a token have half", function()
    start [[ require("resty.mjhook.body").OF_ALL = 6 ]]
    local clients, busy = {}, 0
    for i = 1, 8 do
      clients[i] = dribble(job())
      clients[i]:settimeout(i > 6 and 2 or 0)
      busy = busy + (answer(clients[i]) == "503" and 1 or 0)
    end
    assert.equal(2, busy)
    local j = job() -- all of it in one packet
    local whole = connect()
    whole:send(j.head .. j.body)
    assert.equal("200", answer(whole))
  end)

  it("gives up a body that is not whole in time, however steadily it dribbles", function()
    start [[ require("resty.mjhook.body").WHOLE_S = 0.5 ]]
    local worker = web:workers()
    local j = job()
    for _ = 1, 3 do
      local client = connect()
      client:send(j.head)
      client:settimeout(0)
      local begun, line = core.clock(), nil
      for i = 1, #j.body do
        client:send(j.body:sub(i, i))
        kit.sleep(0.02)
        line = client:receive "*l"
        if line then
          break
        end
      end
      assert.matches("^HTTP/1.1 408 ", line)
      assert.is_true(core.clock() - begun < 1500)
    end
    assert.equal("pending", mj:get(j.ref).state)
    assert.equal(200, post(j))
    assert.equal(worker, web:workers())
  end)

  it("survives hundreds of bodies that are given up or cut off, and does not grow", function()
    start [[ local body = require "resty.mjhook.body"; body.WHOLE_S, body.OF_ONE = 0.05, 16 ]]
    local worker = web:workers()
    local j = job()
    local function rss()
      return tonumber((kit.read(("/proc/%s/status"):format(worker)) or ""):match "VmRSS:%s*(%d+) kB")
    end
    local function round()
      for _ = 1, 60 do
        local clients = {}
        for i = 1, 4 do
          clients[i] = socket.connect("127.0.0.1", web.port)
          clients[i]:send(j.head .. (i == 1 and "" or j.body:sub(1, -2)))
        end
        clients[2]:send "}" -- whole, at last
        clients[3]:settimeout(2)
        local code = answer(clients[3])
        assert.is_true(code == "408" or code == "503", code)
        for _, client in ipairs(clients) do
          client:close()
        end
      end
    end
    round()
    local before = rss()
    round()
    assert.is_true(kit.sanitized or rss() - before < 4096, rss() - before)
    assert.equal(worker, web:workers())
    assert.equal(200, post(job()))
  end)

  describe("answers what nginx can't read", function()
    local BREAK = [[ local read = ngx.req.read_body
      package.preload.breaker = function() ngx.req.read_body = function() error(%q, 2) end end
      require "breaker" ]]

    it("with 411 when a length is missing, says so, and goes on", function()
      start(BREAK:format "http2 requests without content-length header")
      local j = job()
      for _ = 1, 3 do
        local client = connect()
        client:send(j.head .. j.body)
        assert.equal("411", answer(client))
      end
      kit.wait_until(function() return web:log():find("can't read a callback's body: ", 1, true) end)
      assert.equal(1, select(2, web:log():gsub("can't read a callback's body: ", "")))
      assert.equal("pending", mj:get(j.ref).state)
    end)

    it("with 503 whatever else it is, and says so", function()
      start(BREAK:format "no memory")
      local client, j = connect(), job()
      client:send(j.head .. j.body)
      assert.equal("503", answer(client))
      kit.wait_until(function() return web:log():find("can't read a callback's body: [^\n]*no memory") end)
    end)
  end)

  describe("over HTTP/2", function()
    -- Status and body of the answer. `more` are curl's options.
    local function request(url, body, more)
      local file = kit.write(web.dir .. "/body", body)
      local out = kit.sh(("%s -s --http2-prior-knowledge -m 10 -o /dev/null "
        .. "-w '%%{http_code} %%{http_version}' %s %s <%s"):format(kit.curl,
        more or "--data-binary @-", kit.quote(url), file))
      return out
    end

    before_each(function()
      start(nil, "http2")
      kit.wait_until(function() return request(web.url .. "/ping", ""):find "^[24]" end)
    end)

    it("takes a callback with a length", function()
      local j = job()
      assert.equal("200 2", request(j.url, j.body))
      assert.equal("succeeded", mj:get(j.ref).state)
      assert.equal("400 2", request(j.url, "no JSON"))
    end)

    it("takes one without a length, or tells it to name one", function()
      local j = job()
      local code = request(j.url, j.body, "-X POST -H 'Content-Length:' -T -")
      assert.is_truthy(code == "200 2" or code == "411 2", code)
      assert.equal(code == "200 2" and "succeeded" or "pending", mj:get(j.ref).state)
      assert.equal("400 2", request(j.url, "no JSON"))
    end)
  end)

  it("lets other tasks' callbacks through among 1,100 connections that dribble bodies with one valid token", function()
    local conf = kit.read(kit.root .. "/scripts/examples/nginx.conf")
    local main = receiver.main "@DIR@"
    for _, pair in ipairs {
      { "/run/nginx.pid", "@DIR@/nginx.pid" }, { "/var/log/nginx/", "@DIR@/" },
      { "/etc/mjhook/config.lua", "@DIR@/config.lua" }, { "user mjhook;", main:match "user root;" or "" },
      { "/usr/local/share/lua/5.1/?.lua", kit.root .. "/lua/?.lua" },
      { "/usr/local/lib/lua/5.1/?.so", kit.build .. "/5.1/?.so" },
      { "include /etc/nginx/modules-enabled/*.conf;", main:match "^load_module.-\n.-\n" },
      { "listen 443 ssl;", "listen 127.0.0.1:@PORT@ backlog=2048; location = /ping { return 200; }" },
      { "ssl_certificate /etc/ssl/app.example.pem;", "" },
      { "ssl_certificate_key /etc/ssl/private/app.example.key;", "" },
      { "\nhttp {", "\nhttp { " .. receiver.http "@DIR@":gsub("access_log[^\n]*\n", "")
        :gsub("lua_package[^\n]*\n", "") },
    } do
      local from, to = conf:find(pair[1], 1, true)
      assert(from, "the example has no " .. pair[1])
      while from do
        conf = conf:sub(1, from - 1) .. pair[2] .. conf:sub(to + 1)
        from, to = conf:find(pair[1], from + #pair[2], true)
      end
    end
    web = receiver.prepare { conf = conf }
    web.settings.hook_url = web.url .. "/webhooks/midjourney"
    kit.write(web.dir .. "/config.lua", receiver.config_text(web.settings))
    web:start()
    mj, serial = kit.open({ hook_url = web.settings.hook_url }, sim), 0
    local j = job()
    j.head = j.head:gsub("Content%-Length: %d+", "Content-Length: 1000000")
    local paths = { j.path, (j.path:gsub("ref=", "%%72ef=")) } -- one that limit_conn knows, and one that it does not
    local clients = {}
    local function join(i)
      local client = assert(socket.connect("127.0.0.1", web.port))
      client:settimeout(0)
      client:send((j.head:gsub("^POST %S+", "POST " .. paths[i % 2 + 1]:gsub("%%", "%%%%"))))
      return client
    end
    kit.finally(function()
      for _, client in ipairs(clients) do
        client:close()
      end
    end)
    for i = 1, 1100 do
      clients[i] = join(i)
    end
    local slowest, refused = 0, 0
    for round = 1, 5 do
      for i, client in ipairs(clients) do
        local _, why = client:send "x"
        if why == "closed" then -- comes again
          client:close()
          clients[i] = join(i)
          refused = refused + 1
        end
      end
      for _ = 1, 4 do
        local other = job()
        local before = core.clock()
        assert.equal(200, post(other), round)
        slowest = math.max(slowest, core.clock() - before)
        assert.equal("succeeded", mj:get(other.ref).state)
      end
    end
    assert.is_true(slowest < 5000, slowest .. " ms")
    assert.equal("pending", mj:get(j.ref).state)
  end)
end)
