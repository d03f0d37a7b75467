-- Clients of the nginx receiver that trickle, stall, lie about lengths and send far too much. Meanwhile the callbacks
-- of a good client are answered within their usual time, what is answered 200 is in the store, no worker dies, none
-- grows, and everybody is let go of in the end. The time-outs are those of scripts/examples/nginx.conf, made shorter.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local GROWTH_KIB = 16 * 1024 -- what a worker may grow by under any of this
local LET_GO_S = 12          -- by when nginx has ended every connection that waits for its client

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@ backlog=1024;
    client_header_timeout 1s; client_body_timeout 1s; send_timeout 1s; keepalive_timeout 2s;
    location = /ping { return 200 "pong\n"; }
    location = /hook {
      access_log off; error_log @DIR@/hook.log crit;
      client_max_body_size 1m; client_body_buffer_size 1m;
      lingering_time 2s; lingering_timeout 1s;
      content_by_lua_block { require("resty.mjhook").callback() }
    }
  }
}
]]

describe("the nginx receiver among", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj, worker, serial

  local function rss()
    return tonumber((kit.read(("/proc/%d/status"):format(worker)) or ""):match "VmRSS:%s*(%d+) kB")
  end

  before_each(function()
    web = receiver.start { conf = CONF }
    mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    serial = 0
    worker = tonumber(web:workers())
  end)

  -- A task, and the callback of its success: {ref=, path=, body=, head=, bytes= (all of it)}.
  local function job(more)
    serial = serial + 1
    local id = "Id" .. serial
    local task = assert(mj:adopt { task_id = id, prompt = "fox" })
    local j = { ref = task.ref, url = provider.hook_url(mj, task.ref, 1) }
    j.path = j.url:match "^http://[^/]+(.*)$"
    j.body = cjson.encode { taskId = id, status = 1, image = "https://img.example/" .. id, meta = more }
    j.start = ("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"):format(j.path)
    j.head = ("%sContent-Length: %d\r\n\r\n"):format(j.start, #j.body)
    j.bytes = j.head .. j.body
    return j
  end

  local function state(j)
    return mj:get(j.ref).state
  end

  local clients

  local function connect()
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:setoption("tcp-nodelay", true)
    client:settimeout(0)
    clients[#clients + 1] = client
    return client
  end

  -- All that comes until nginx ends the connection, or for so long; and whether it did end it.
  local function hear(client, seconds)
    local parts, deadline = {}, core.clock() + (seconds or 5) * 1000
    repeat
      client:settimeout(math.max(deadline - core.clock(), 0) / 1000)
      local chunk, why, part = client:receive(65536)
      parts[#parts + 1] = chunk or part
      if why == "closed" then
        return table.concat(parts), true
      end
    until core.clock() >= deadline
    return table.concat(parts), false
  end

  local function codes(text)
    local all = {}
    for code in text:gmatch "HTTP/1%.1 (%d+) [^\r]*\r\n" do
      all[#all + 1] = code
    end
    return table.concat(all, " ")
  end

  -- Sends n good callbacks, one after the other; `between` is called after each. Gives the median and the longest time.
  local function good(n, between)
    local times = {}
    for i = 1, n do
      local j = job()
      local before = socket.gettime()
      local code = sim.request("POST", j.url, j.body, { ["content-type"] = "application/json" })
      times[i] = (socket.gettime() - before) * 1000
      assert.equal(200, code)
      assert.equal("succeeded", state(j))
      if between then
        between(i)
      end
    end
    table.sort(times)
    return times[math.ceil(n / 2)], times[n]
  end

  -- `attack` opens what it likes with connect() and gives a function that goes on with it, step by step.
  local function endure(attack, growth)
    clients = {}
    kit.finally(function()
      for _, client in ipairs(clients) do
        client:close()
      end
    end)
    good(30) -- warm
    local usual = good(30)
    local before = rss()
    local median, longest = good(60, attack())
    local grown = rss() - before
    assert.is_true(median < 3 * usual + 50, ("%.1f ms, usually %.1f ms"):format(median, usual))
    assert.is_true(longest < 1000, longest) -- nobody waits for a time-out of somebody else's
    assert.is_true(kit.sanitized or grown < (growth or GROWTH_KIB), grown .. " KiB more")
    assert.equal(worker, tonumber(web:workers()))
    local log = web:log() .. (kit.read(web.dir .. "/hook.log") or "")
    for _, word in ipairs { "%[emerg%]", "%[alert%]", "%[crit%]", "lua entry thread", "worker process %d+ exited" } do
      assert.is_nil(log:find(word), log)
    end
  end

  -- Everybody is let go of, by himself or by nginx.
  local function let_go()
    local deadline = core.clock() + LET_GO_S * 1000
    for i, client in ipairs(clients) do
      local _, over = hear(client, math.max(deadline - core.clock(), 1) / 1000)
      assert.is_true(over, ("client %d of %d is still connected"):format(i, #clients))
    end
  end

  local function each_client(f)
    return function(step)
      for i, client in ipairs(clients) do
        f(client, i, step)
      end
    end
  end

  it("clients that trickle their heads", function()
    endure(function()
      local j = job()
      for _ = 1, 200 do
        connect()
      end
      return each_client(function(client, _, step)
        client:send(j.bytes:sub(step, step))
      end)
    end)
    let_go()
  end)

  it("clients that trickle their bodies, and those who come to an end are stored", function()
    local jobs = {}
    endure(function()
      for i = 1, 100 do
        jobs[i] = job()
        connect():send(jobs[i].head)
      end
      return each_client(function(client, i, step)
        local size = math.ceil(#jobs[i].body / 40)
        client:send(jobs[i].body:sub((step - 1) * size + 1, step * size))
      end)
    end)
    for i, client in ipairs(clients) do
      assert.equal("200", codes((hear(client))))
      assert.equal("succeeded", state(jobs[i]))
    end
  end)

  it("clients that send half a body and go away, with a goodbye or with a reset", function()
    local jobs = {}
    endure(function()
      return function()
        for i = 1, 10 do
          local j = job()
          local client = connect()
          client:send(j.head .. j.body:sub(1, i == 1 and 0 or 20))
          if i % 2 == 0 then
            client:setoption("linger", { on = true, timeout = 0 })
          end
          client:close()
          jobs[#jobs + 1] = j
        end
        clients = {}
      end
    end)
    for _, j in ipairs(jobs) do
      assert.equal("pending", state(j))
    end
  end)

  it("clients that send half a body and then nothing", function()
    local jobs = {}
    endure(function()
      for i = 1, 200 do
        jobs[i] = job()
        connect():send(jobs[i].head .. jobs[i].body:sub(1, i % 2 == 0 and -2 or 0))
      end
    end)
    let_go()
    for _, j in ipairs(jobs) do
      assert.equal("pending", state(j))
    end
  end)

  it("clients that announce a megabyte each and send a byte of it", function()
    endure(function()
      for _ = 1, 200 do
        connect():send(job().start .. "Content-Length: 1048576\r\n\r\n{")
      end
    end)
    let_go()
  end)

  it("clients that say nothing, by the hundreds", function()
    endure(function()
      for i = 1, 700 do
        connect():send(i % 2 == 0 and "" or "POST /hook HTTP/1.1\r\n")
      end
    end)
    let_go()
  end)

  it("clients that send megabytes without a token", function()
    local block = ("x"):rep(65536)
    endure(function()
      for i = 1, 20 do
        connect():send(("POST /hook?ref=x HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n"):format(
          i % 2 == 0 and "Content-Length: 1000000" or "Transfer-Encoding: chunked"))
      end
      return each_client(function(client, i)
        client:send(i % 2 == 0 and block or ("10000\r\n%s\r\n"):format(block)) -- as much as it takes
      end)
    end)
    for _, client in ipairs(clients) do
      assert.matches("^HTTP/1.1 401 ", (hear(client, LET_GO_S)))
    end
  end)

  -- Who has a token may fill a buffer, as large as max_body, until he is refused. Then others get it.
  it("clients with good tokens whose bodies never end", function()
    local block = ("x"):rep(65536)
    good(30)
    local before = rss()
    for _ = 1, 4 do
      endure(function()
        for _ = 1, 20 do
          connect():send(job().start .. "Transfer-Encoding: chunked\r\n\r\n")
        end
        return each_client(function(client)
          client:send(("10000\r\n%s\r\n"):format(block))
        end)
      end, GROWTH_KIB + 20 * 1024)
      for _, client in ipairs(clients) do
        assert.matches("^HTTP/1.1 413 ", (hear(client, LET_GO_S)))
        client:close()
      end
      assert.is_true(kit.sanitized or rss() - before < GROWTH_KIB + 20 * 1024, rss() - before)
    end
  end)

  it("clients with heads that never end", function()
    local block = ("X-Y: %s\r\n"):format(("x"):rep(1000))
    endure(function()
      for _ = 1, 50 do
        connect():send(job().start)
      end
      return each_client(function(client)
        client:send(block)
      end)
    end)
    for _, client in ipairs(clients) do
      assert.matches("^HTTP/1.1 400 ", (hear(client, LET_GO_S)))
    end
  end)

  it("clients that ask nine hundred times and read no answer", function()
    local jobs, rest = {}, {}
    endure(function()
      local repeated = job().bytes:rep(900)
      for i = 1, 10 do
        jobs[i] = job()
        rest[i] = repeated .. jobs[i].bytes
        connect()
      end
      return each_client(function(client, i)
        local _, _, at = client:send(rest[i])
        rest[i] = rest[i]:sub((at or #rest[i]) + 1)
      end)
    end)
    for i, client in ipairs(clients) do
      if rest[i] == "" then
        kit.wait_until(function() return state(jobs[i]) == "succeeded" end)
        assert.equal(("200 "):rep(901), codes((hear(client))) .. " ")
      end
    end
    assert.equal("", rest[1])
    assert.same({}, assert(mj:check()).problems)
  end)

  describe("requests that are odd:", function()
    before_each(function()
      clients = {}
    end)

    -- What is answered to these bytes, and whether the task got its result. The client then ends its side.
    local function say(j, bytes)
      local client = connect()
      client:settimeout(10)
      client:send(bytes)
      client:shutdown "send"
      local answer = hear(client, LET_GO_S)
      client:close()
      return codes(answer), state(j)
    end

    local function chunks(body, size)
      local parts = {}
      for at = 1, #body, size do
        local part = body:sub(at, at + size - 1)
        parts[#parts + 1] = ("%x\r\n%s\r\n"):format(#part, part)
      end
      return table.concat(parts)
    end

    local CHUNKED = "Transfer-Encoding: chunked\r\n\r\n"
    local odd = {
      { "a body in chunks of a byte", "200", function(j)
        return j.start .. CHUNKED .. chunks(j.body, 1) .. "0\r\n\r\n"
      end },
      { "chunks with extensions and a trailer", "200", function(j)
        return j.start .. CHUNKED .. ("%x;a=b\r\n%s\r\n0;c\r\nX-Trailer: y\r\n\r\n"):format(#j.body, j.body)
      end },
      { "a chunk whose size is no number", "400", function(j) return j.start .. CHUNKED .. "zz\r\n" .. j.body end },
      { "a chunk whose size is negative", "400", function(j) return j.start .. CHUNKED .. "-1\r\n" .. j.body end },
      { "a chunk that announces exabytes", "413 400", function(j)
        return j.start .. CHUNKED .. "7fffffffffffffff\r\n" .. j.body
      end },
      { "a chunk longer than it says", "400", function(j)
        return j.start .. CHUNKED .. "5\r\n" .. j.body .. "\r\n0\r\n\r\n"
      end },
      { "chunks that stop before their end", "400 408 ", function(j)
        return j.start .. CHUNKED .. chunks(j.body, 10)
      end },
      { "a length shorter than the body", "400", function(j)
        return ("%sContent-Length: %d\r\n\r\n%s"):format(j.start, #j.body - 5, j.body)
      end },
      { "a length longer than the body", "400 408 ", function(j)
        return ("%sContent-Length: %d\r\n\r\n%s"):format(j.start, #j.body + 5, j.body)
      end },
      { "a length that is no number", "400", function(j)
        return j.start .. "Content-Length: many\r\n\r\n" .. j.body
      end },
      { "a negative length", "400", function(j) return j.start .. "Content-Length: -1\r\n\r\n" .. j.body end },
      { "a length of more digits than any number has", "400 413", function(j)
        return j.start .. "Content-Length: 99999999999999999999999\r\n\r\n" .. j.body
      end },
      { "two lengths", "400", function(j)
        return ("%sContent-Length: %d\r\nContent-Length: 5\r\n\r\n%s"):format(j.start, #j.body, j.body)
      end },
      { "a length and chunks", "400", function(j)
        return ("%sContent-Length: 5\r\n%s%x\r\n%s\r\n0\r\n\r\n"):format(j.start, CHUNKED, #j.body, j.body):gsub(
          "5\r\n\r\n", "5\r\n", 1)
      end },
      { "an encoding that nobody knows", "400 501", function(j)
        return ("%sTransfer-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s"):format(j.start, #j.body, j.body)
      end },
      { "no length at all", "400 411", function(j) return j.start .. "\r\n" .. j.body end },
      { "no body", "400", function(j) return j.start .. "Content-Length: 0\r\n\r\n" end },
      { "a header line of 40 KB", "400", function(j)
        return j.start .. ("X: %s\r\n\r\n"):format(("x"):rep(40000))
      end },
      { "a request line of 40 KB", "414", function(j)
        return (j.bytes:gsub("/hook%?", "/hook?" .. ("x"):rep(40000) .. "&"))
      end },
      { "ten thousand header lines", "400", function(j) return j.start .. ("X: y\r\n"):rep(10000) .. "\r\n" end },
      { "a zero byte in a header", "400", function(j) return j.start .. "X: a\0b\r\n\r\n" end },
      { "a body of zero bytes", "400", function(j)
        return ("%sContent-Length: 1000\r\n\r\n%s"):format(j.start, ("\0"):rep(1000))
      end },
      { "TLS where there is none", "400", function() return "\22\3\1\2\0\1\0\1\252\3\3" .. ("\7"):rep(512) end },
      { "HTTP/2 where there is none", "400", function() return "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" end },
      { "HTTP/0.9", "400 ", function(j) return ("GET %s\r\n"):format(j.path) end },
      { "HTTP/1.0 with a body", "200", function(j) return (j.bytes:gsub("HTTP/1%.1", "HTTP/1.0")) end },
      { "a method that nobody knows", "400 405", function(j) return (j.bytes:gsub("^POST", "BREW")) end },
    }
    for _, case in ipairs(odd) do
      local answer = case[2]:gsub(" $", " or not at all"):gsub(" (%d)", " or %1")
      it(("%s is answered %s"):format(case[1], answer), function()
        local j = job()
        local code, became = say(j, (case[3](j)))
        code = code:match "^%d*" -- whatever comes after a request that was cut short is a request of its own
        assert.is_truthy((case[2] .. " "):find(code .. " ", 1, true) or (code == "" and case[2]:find " $"), code)
        assert.equal(code == "200" and "succeeded" or "pending", became)
        good(3)
        assert.equal(worker, tonumber(web:workers()))
      end)
    end

    it("Expect: 100-continue is told to go on, and answered when it did", function()
      local j, client = job(), connect()
      client:settimeout(10)
      client:send((j.head:gsub("\r\n\r\n$", "\r\nExpect: 100-continue\r\n\r\n")))
      assert.equal("HTTP/1.1 100 Continue", client:receive "*l")
      assert.equal("", client:receive "*l")
      client:send(j.body)
      assert.equal("HTTP/1.1 200 OK", client:receive "*l")
      assert.equal("succeeded", state(j))
    end)

    it("Expect: 100-continue without a good token, or with too much to say, is refused at once", function()
      local j = job()
      local expect = "\r\nExpect: 100-continue\r\n\r\n"
      local function refusal(head)
        local client = connect()
        client:settimeout(10)
        client:send(head)
        local text = ""
        -- nginx may tell it to go on first, as it is about to read away what comes.
        while not text:find "\r\n\r\n$" or text:find "^HTTP/1.1 100 Continue\r\n\r\n$" do
          text = text .. assert(client:receive(1))
        end
        return text:match "HTTP/1.1 ([^1]%d+)"
      end
      local before = core.clock()
      assert.equal("401", refusal((j.head:gsub("sig=", "sig=x"):gsub("\r\n\r\n$", expect))))
      assert.equal("413", refusal(j.start .. "Content-Length: 1048577" .. expect))
      assert.is_true(core.clock() - before < 900) -- no time-out made it speak
      local client = connect()
      client:settimeout(10)
      client:send((j.head:gsub("\r\n\r\n$", expect))) -- it may go on, and does not
      assert.equal("HTTP/1.1 100 Continue", client:receive "*l")
      let_go()
      assert.equal("pending", state(j))
    end)

    it("many in one write are answered in their order, the bad ones among them for themselves", function()
      local jobs, bytes, expected = {}, {}, {}
      for i = 1, 30 do
        local j = job()
        jobs[i], bytes[i], expected[i] = j, j.bytes, "200"
        if i % 7 == 0 then
          bytes[i], expected[i] = j.bytes:gsub("sig=", "sig=x"), "401"
        elseif i % 5 == 0 then
          bytes[i], expected[i] = ("%sContent-Length: 4\r\n\r\n{{{{"):format(j.start), "400"
        end
      end
      local client = connect()
      client:send(table.concat(bytes))
      assert.equal(table.concat(expected, " "), codes((hear(client, 4))))
      for i, j in ipairs(jobs) do
        assert.equal(expected[i] == "200" and "succeeded" or "pending", state(j), i)
      end
    end)
  end)

  it("all of them at once", function()
    local half, whole = {}, {}
    local block = ("x"):rep(32768)
    endure(function()
      local trickled = job()
      for i = 1, 400 do
        local client, j = connect(), job()
        if i % 8 == 0 then
          client:send(j.head .. j.body:sub(1, -2))
          half[#half + 1] = j
        elseif i % 8 == 1 then
          client:send("POST /hook?x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        elseif i % 40 == 2 then
          client:send(j.start .. "Transfer-Encoding: chunked\r\n\r\n")
        end
      end
      return function(step)
        for i, client in ipairs(clients) do
          if i % 8 == 1 or i % 40 == 2 then
            client:send(("8000\r\n%s\r\n"):format(block))
          elseif i % 8 == 3 then
            client:send(trickled.bytes:sub(step, step))
          elseif i % 8 == 4 and step == 1 + i % 40 then
            local j = job()
            whole[client] = j
            client:send(j.bytes)
          end
        end
      end
    end, GROWTH_KIB + 10 * 1024) -- for those with a good token and no end
    for client, j in pairs(whole) do
      local answer = hear(client, 3)
      if answer ~= "" then -- it may have been silent for too long
        assert.equal("200", codes(answer))
        assert.equal("succeeded", state(j))
      end
    end
    for _, j in ipairs(half) do
      assert.equal("pending", state(j))
    end
    good(10)
    assert.same({}, assert(mj:check()).problems)
  end)
end)
