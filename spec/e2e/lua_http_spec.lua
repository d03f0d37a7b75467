-- scripts/examples/receiver-lua-http.lua: a receiver on lua-http, on both Luas, with honest and hostile clients.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local PROGRAM = kit.root .. "/scripts/examples/receiver-lua-http.lua"
local WAIT_S = 5 -- the program's HEAD_S and BODY_S

-- Debian packages lua-http for LuaJIT; Lua 5.4 finds it as the program's comment says.
local PATHS = {
  luajit = ("LUA_PATH='%s/lua/?.lua;;' LUA_CPATH='%s/5.1/?.so;;'"):format(kit.root, kit.build),
  ["lua5.4"] = ("LUA_PATH_5_4='%s/lua/?.lua;;%s' LUA_CPATH_5_4='%s/5.4/?.so;;'"):format(kit.root,
    assert(kit.read(PROGRAM):match '\n%-%-   LUA_PATH_5_4=";;([^"\n]+)" lua5.4 '), kit.build),
}

local function success(task)
  return cjson.encode { status = 0, data = { taskId = task.task_id, status = 1, image = "https://img.example/x" } }
end

for _, lua in ipairs { "luajit", "lua5.4" } do
  describe("the receiver on lua-http, with " .. lua .. ",", function()
    setup(sim.start)
    teardown(sim.stop)
    before_each(sim.reset)
    after_each(kit.cleanup)

    local mj, web, port

    local function launch(config, where)
      return kit.spawn(("exec env %s MJHOOK_CONFIG=%s %s %s %s"):format(PATHS[lua], config, lua, kit.quote(PROGRAM),
        where or "127.0.0.1 0"))
    end

    local function start(more)
      mj = kit.open(more, sim)
      local settings = kit.settings(more, sim)
      settings.log = nil
      web = launch(kit.write(kit.tmp() .. "/config.lua", receiver.config_text(settings)))
      port = kit.wait_until(function()
        assert(not web:status(), web:err())
        return tonumber((web:out() or ""):match "^listening on 127%.0%.0%.1 port (%d+)\n")
      end)
      mj.config.hook_url = ("http://127.0.0.1:%d/webhooks/midjourney"):format(port)
    end

    local function submit()
      local task = assert(mj:submit { prompt = "a fox" })
      local jobs = sim.jobs()
      return task, jobs[#jobs].hookUrl, jobs[#jobs].hookUrl:match "^http://[^/]+(.*)$"
    end

    local function connect()
      local client = assert(socket.connect("127.0.0.1", port))
      kit.finally(function() client:close() end)
      client:settimeout(WAIT_S + 5)
      return client
    end

    -- The head of a POST.
    local function head(path, ...)
      return ("POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n"):format(path, table.concat({ ... }, "\r\n"))
    end

    -- Sends bytes as they are and reads all of the answer; the status of it, or nil.
    local function raw(bytes)
      local client = connect()
      client:send(bytes)
      local answer, _, part = client:receive "*a"
      client:close()
      answer = answer or part
      return tonumber(answer:match "^HTTP/1.1 (%d%d%d) "), answer
    end

    -- No secret in what it printed, and nothing that went wrong.
    local function check_silent()
      local text = web:out() .. web:err()
      for _, job in ipairs(sim.jobs()) do
        assert.is_nil(text:find(job.hookUrl:match "sig=([^&]+)", 1, true), text)
      end
      assert.is_nil(text:find(kit.SECRET, 1, true), text)
      assert.is_nil(text:find("traceback", 1, true), text)
      assert.is_nil(text:find("receiver:", 1, true), text)
    end

    local function stop()
      local before = core.clock()
      web:kill "TERM"
      assert.equal(0, web:wait(), web:err())
      check_silent()
      return core.clock() - before
    end

    it("stores what the provider sends, in every format, twice or in a rush", function()
      start { max_in_flight = 100 }
      sim.config { limit = 0, callback_format = "mixed", callback = { double = 0.3 } }
      for i = 1, 40 do
        assert(mj:submit { prompt = ("fox %d [ms=300]"):format(i) })
      end
      kit.wait_until(function() return mj:stats().tasks.succeeded == 40 end)
      assert.equal(40, mj:stats().events)
      kit.wait_until(function()
        local c = sim.counters().callbacks
        return c.ok == c.sent and c.ok >= 40
      end)
      stop()
    end)

    it("answers 200 twice to what comes twice; 401, 400 and 405 to what is no callback", function()
      start()
      local task, url, path = submit()
      local code, text, headers = sim.request("POST", url, success(task))
      assert.same({ 200, '{"status":"stored"}\n', "application/json" }, { code, text, headers["content-type"] })
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.equal('{"status":"duplicate"}\n', (select(2, sim.request("POST", url, success(task)))))
      assert.equal(401, (sim.request("POST", url .. "x", success(task))))
      assert.equal(400, (sim.request("POST", url, "success")))
      assert.equal(400, (sim.request("POST", url, "")))
      code, text, headers = sim.request("GET", url)
      assert.same({ 405, "POST", '{"status":"method_not_allowed"}\n' }, { code, headers.allow, text })
      -- Each connection is for one request: none that is idle is in the way of a stop.
      local before = core.clock()
      local _, answer = raw(head(path, "Content-Length: " .. #success(task)) .. success(task))
      assert.matches("^HTTP/1.1 200 .*\r\nconnection: close\r\n", answer)
      assert.is_true(core.clock() - before < 4000)
      _, answer = raw(("HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n"):format(path))
      assert.matches("^HTTP/1.1 405 .*\r\n\r\n$", answer)
      assert.equal(1, mj:stats().events)
    end)

    it("answers a bad token and a length over max_body before the body is sent", function()
      start { max_body = 2000 }
      local task, _, path = submit()
      local before = core.clock()
      assert.equal(401, (raw(head(path .. "x", "Content-Length: 1000"))))
      assert.equal(413, (raw(head(path, "Content-Length: 2001"))))
      assert.is_true(core.clock() - before < WAIT_S * 1000)
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("resets no client that is still sending what was refused: the answer would be lost on the way", function()
      start()
      local _, url, path = submit()
      assert.equal(401, (sim.request("POST", url .. "x", ("x"):rep(900000))))
      local client = connect()
      client:send(head(path .. "x", "Content-Length: 900000"))
      assert.matches("^HTTP/1.1 401 ", client:receive "*l")
      for _ = 1, 5 do
        assert(client:send(("x"):rep(1000)))
      end
    end)

    it("takes max_body and no byte more, in pieces of any size, when the length is not told", function()
      start { max_body = 2000 }
      local task, _, path = submit()
      local body = success(task) .. (" "):rep(2000 - #success(task))
      local start_line = head(path, "Transfer-Encoding: chunked")
      local function chunked(text, size)
        local pieces = {}
        for at = 1, #text, size do
          local piece = text:sub(at, at + size - 1)
          pieces[#pieces + 1] = ("%x\r\n%s\r\n"):format(#piece, piece)
        end
        return start_line .. table.concat(pieces) .. "0\r\n\r\n"
      end
      assert.equal(413, (raw(chunked(body .. " ", 1))))
      assert.equal(413, (raw((chunked(body .. (" "):rep(2000), 500):gsub("0\r\n\r\n$", ""))))) -- before it ends
      assert.equal(413, (raw(chunked(body .. " ", 2001))))
      assert.equal(413, (raw(start_line .. "ffffffff\r\nxxx"))) -- at once: it does not gather 4 GiB
      assert.equal(413, (raw(start_line .. "fffffffffffffffffffffff\r\nxxx")))
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(200, (raw(chunked(body, 100))))
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("knows who calls, also through a proxy that it trusts", function()
      start { allow_cidr = { "198.51.100.0/24" }, trusted_proxies = { "127.0.0.1" } }
      local task, url = submit()
      assert.equal(401, (sim.request("POST", url, success(task))))
      assert.equal(401, (sim.request("POST", url, success(task), { ["X-Forwarded-For"] = "203.0.113.1" })))
      assert.equal(200, (sim.request("POST", url, success(task), { ["X-Forwarded-For"] = "198.51.100.1" })))
      web:kill "TERM"
      web:wait()
      mj:close()
      start { allow_cidr = { "127.0.0.0/8" } }
      assert.equal(200, (sim.request("POST", select(2, submit()), success(task))))
    end)

    it("lets a client that asks send its body", function()
      start()
      local task, _, path = submit()
      local client = connect()
      client:send(head(path, "Expect: 100-continue", "Content-Length: " .. #success(task)))
      assert.matches("^HTTP/1.1 100 ", client:receive "*l")
      assert.equal("", client:receive "*l")
      client:send(success(task))
      assert.matches("^HTTP/1.1 200 ", client:receive "*l")
      assert.equal(401, (raw(head(path .. "x", "Expect: 100-continue", "Content-Length: 10"))))
    end)

    it("does not store what a client broke off, even if what came makes sense", function()
      start()
      local task, url, path = submit()
      local client = connect()
      client:send(head(path, "Content-Length: " .. #success(task) + 1) .. success(task))
      client:shutdown "send"
      assert.matches("^HTTP/1.1 400 ", client:receive "*l")
      client = connect()
      client:send(head(path, "Transfer-Encoding: chunked") .. ("%x\r\n%s\r\n"):format(#success(task), success(task)))
      client:shutdown "send"
      assert.matches("^HTTP/1.1 400 ", client:receive "*l")
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(200, (sim.request("POST", url, success(task))))
      stop()
    end)

    it("cuts off who sends half a body or half a head, serves others meanwhile, and ends when told so", function()
      start()
      local task, _, path = submit()
      local before = core.clock()
      local body, half_head = connect(), connect()
      body:send(head(path, "Content-Length: " .. #success(task)) .. success(task):sub(1, -2))
      half_head:send(("POST %s HTTP/1.1\r\nHost: "):format(path))
      local other, url = submit()
      assert.equal(200, (sim.request("POST", url, success(other))))
      assert.is_true(core.clock() - before < WAIT_S * 1000 - 500)
      web:kill "TERM"
      assert.matches("^HTTP/1.1 408 ", body:receive "*l")
      assert.matches("^HTTP/1.1 400 ", half_head:receive "*l")
      local took = core.clock() - before
      assert.is_true(took > WAIT_S * 1000 - 500 and took < WAIT_S * 1000 + 3000, took)
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(0, web:wait(), web:err())
      check_silent()
    end)

    it("outlives requests that make no sense, however many", function()
      start()
      local task, url, path = submit()
      local body = success(task)
      local oddities = {
        head(path, "Content-Length: -5") .. body, head(path, "Content-Length: abc") .. body,
        head(path .. "x", "Content-Length: -5") .. body, head(path, "Content-Length: 1e3") .. body,
        head(path, "Transfer-Encoding: gzip, chunked") .. body, head(path, "Transfer-Encoding: gzip") .. body,
        head(path, "Transfer-Encoding: ;;") .. body, head(path, "Transfer-Encoding: magic") .. body,
        head(path, "Transfer-Encoding: chunked") .. "zz\r\n", head(path, "Transfer-Encoding: chunked") .. "2\r\n{}}}",
        head(path, "Content-Length: 2", "Content-Length: 3") .. "{}",
        head(path, "Content-Length: 2", "Transfer-Encoding: chunked") .. "0\r\n\r\n",
        head(path, "Connection: ;;", "TE: ;;"), head(path .. "x", "Content-Length: 0"):rep(3),
        head(path .. "x", "Content-Length: 2") .. "{}" .. head(path, "Content-Length: 9"),
        head(path, ("X: y\r\n"):rep(200)), head(path, "X: " .. ("x"):rep(100000)), head(path, "nonsense"),
        head(path, "Content-Length : 5"), head("/" .. ("x"):rep(10000)), "POST " .. path .. " HTTP/2.0\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\22\3\1\0\5\1\0\0\1\0", "\0\r\n\r\n", "\r\n\r\n\r\n", "GET\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\n\r\n", head(path, "Upgrade: websocket", "Connection: upgrade"), " " .. head(path),
      }
      for i, bytes in ipairs(oddities) do
        for _ = 1, 12 do -- together more than it has room for at a time
          local client = connect()
          client:send(bytes)
          client:shutdown "send"
          local answer, why, part = client:receive "*a"
          assert.not_equal("timeout", why, ("oddity %d: %q"):format(i, bytes:sub(1, 99)))
          client:close()
          local code = tonumber((answer or part):match "^HTTP/1.1 (%d+)")
          assert.is_true(not code or code >= 400 and code < 600, answer)
        end
      end
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(200, (sim.request("POST", url, body)))
      -- It spins on none of them: user and system time, in 1/100 s (proc(5)).
      local user, system = kit.read(("/proc/%d/stat"):format(web.pid)):match("%) " .. ("%S+ "):rep(11) .. "(%d+) (%d+)")
      assert.is_true(user + system < 500, user .. " " .. system)
      assert.is_true(stop() < 2000)
    end)

    it("finishes what has begun when it is told to end, takes nothing new, and exits 0", function()
      start()
      local task, _, path = submit()
      local client, quiet = connect(), connect()
      local body = success(task)
      client:send(head(path, "Expect: 100-continue", "Content-Length: " .. #body))
      assert.matches("^HTTP/1.1 100 ", client:receive "*l") -- so it is at it
      assert.equal("", client:receive "*l")
      client:send(body:sub(1, 20))
      web:kill "TERM"
      kit.wait_until(function() return not socket.connect("127.0.0.1", port) end)
      assert.is_nil(web:status())
      client:send(body:sub(21))
      assert.matches("^HTTP/1.1 200 ", client:receive "*l")
      assert.equal("succeeded", mj:get(task.ref).state)
      local before = core.clock()
      assert.equal(0, web:wait())
      assert.is_true(core.clock() - before < WAIT_S * 1000 - 1000) -- one that has said nothing does not hold it up
      assert.is_nil((quiet:receive "*l"))
      check_silent()
    end)

    it("ends at once when no server is there", function()
      start()
      assert.is_true(stop() < 2000)
    end)

    it("answers 503 with Retry-After when the store is full", function()
      start { map_max = 2 ^ 20 }
      local task, url = submit()
      local code
      repeat
        local _, err = mj:submit { prompt = "filler", context = ("x"):rep(60000) }
        code = err and err.code
      until code
      assert.equal("no_space", code)
      local status, _, headers = sim.request("POST", url,
        cjson.encode { taskId = task.task_id, status = 2, meta = { x = ("y"):rep(60000) } })
      assert.equal(503, status)
      assert.matches("^%d+$", headers["retry-after"])
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("does not start with a wrong configuration, or where another one listens, and says so", function()
      start()
      local bad = launch(kit.write(kit.tmp() .. "/config.lua", "return { stroe = '/x' }"))
      assert.equal(1, bad:wait())
      assert.is_truthy(bad:err():find("stroe: unknown key", 1, true), bad:err())
      local config = kit.settings({}, sim)
      config.log = nil
      local second = launch(kit.write(kit.tmp() .. "/config.lua", receiver.config_text(config)), "127.0.0.1 " .. port)
      assert.equal(1, second:wait())
      assert.is_truthy(second:err():find("in use", 1, true), second:err())
      assert.is_nil(second:err():find(kit.SECRET, 1, true))
    end)
  end)
end
