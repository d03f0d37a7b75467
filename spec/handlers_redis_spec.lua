-- The Redis handler: against a real redis-server in all its moods, and against servers that are none.
local core = require "mjhook.core"
local kit = require "kit"
local peer = require "peer"
local real = require "redis"
local redis = require "mjhook.handlers.redis"

local PASSWORD = "p@ss:w/rd %41?#"
local ESCAPED = "p%40ss%3Aw%2Frd%20%2541%3F%23"
local AUTH = ("REDISCLI_AUTH=%s"):format(kit.quote(PASSWORD))
local STREAM = "mjhook:events"

local n = 0

local function a_task(more)
  local task = {
    ref = "01KBQ6Z0000000000000000000", attempt = 1, task_id = "MtAd7mCuc4YqK_a1iAQSW", state = "succeeded",
    prompt = "ein Füchslein\n\0 🦊", mode = "fast", context = { order = 7 }, images = { "https://img.example/0.png" },
    timeline = { { at = 1 } }, account = "default", created_at = 1776211200000, finished_at = 1776211260999,
  }
  for name, value in pairs(more or {}) do
    task[name] = value
  end
  return task
end

-- Hands the next event to a handler: handled, reason, the third value or {}.
local function run(handler, task, ctx)
  n = n + 1
  local context = {
    event_id = ("01KBQ6Z0000000000000000000-%d"):format(n), type = "succeeded", attempt = 1, created_at = 1776211261000,
    timeout = 2,
  }
  for name, value in pairs(ctx or {}) do
    context[name] = value
  end
  local handled, reason, how = handler(a_task(task), context)
  assert.is_true(handled == true or handled == false and type(reason) == "string")
  if reason then
    for _, secret in ipairs { PASSWORD, ESCAPED, "TOKEN" } do
      assert.is_nil(reason:find(secret, 1, true), reason)
    end
    assert.matches("^redis [%w.]+:%d+: ", reason)
    assert.is_nil(reason:find "[%c\128-\255]")
  end
  return handled, reason, how or {}
end

local function retried(words, handler, ...)
  local handled, reason, how = run(handler, ...)
  assert.is_false(handled)
  assert.same({}, how)
  assert.matches(words, reason)
end

local function buried(words, handler, ...)
  local handled, reason, how = run(handler, ...)
  assert.is_false(handled)
  assert.same({ bury = true }, how)
  assert.matches(words, reason)
end

local function url_of(server, more)
  return ("redis://%s127.0.0.1:%d"):format(more or "", server.port)
end

describe("the Redis handler", function()
  after_each(kit.cleanup)

  describe("with a real server", function()
    it("appends the event and its task, once for each call", function()
      local server = real.start()
      local handler = redis { url = url_of(server) }
      assert.same({ true }, { handler(a_task { state = "failed", error = core.error("provider", "banned", false) },
        { event_id = "01K-1", type = "failed", attempt = 1, created_at = 1776211261000 }) })
      assert.is_true(run(handler))
      local entries = server:entries(STREAM)
      assert.equal(2, #entries)
      assert.same({
        event_id = "01K-1", type = "failed", ref = "01KBQ6Z0000000000000000000",
        task = {
          ref = "01KBQ6Z0000000000000000000", attempt = 1, task_id = "MtAd7mCuc4YqK_a1iAQSW", state = "failed",
          prompt = "ein Füchslein\n\0 🦊", mode = "fast", context = { order = 7 },
          images = { "https://img.example/0.png" }, error = { code = "provider", message = "banned" },
          created_at = "2026-04-15T00:00:00.000Z", finished_at = "2026-04-15T00:01:00.999Z",
        },
      }, entries[1])
    end)

    it("keeps one connection, and two handlers have two", function()
      local server = real.start()
      local first, second = redis { url = url_of(server) }, redis { url = url_of(server), stream = "other" }
      for _ = 1, 20 do
        assert.is_true(run(first))
      end
      assert.same({ "1" }, { tostring(#server:clients()) })
      local before = server:clients()
      assert.is_true(run(second))
      assert.is_true(run(first))
      assert.equal(2, #server:clients())
      assert.equal(before[1], server:clients()[1])
      assert.equal(1, #server:entries "other")
    end)

    it("trims to about maxlen, and not at all without", function()
      local server = real.start()
      local handler = redis { url = url_of(server), maxlen = 100 }
      local other = redis { url = url_of(server), stream = "all" }
      for _ = 1, 500 do
        assert.is_true(run(handler))
        assert.is_true(run(other))
      end
      local kept = tonumber(server:cli("XLEN " .. STREAM))
      assert.is_true(kept >= 100 and kept < 300, tostring(kept))
      assert.equal("500", server:cli "XLEN all")
    end)

    it("selects the database of the url, also on a new connection", function()
      local server = real.start { "timeout 0" }
      local handler = redis { url = url_of(server) .. "/3" }
      assert.is_true(run(handler))
      assert.equal("1", server:cli "CLIENT KILL TYPE normal SKIPME yes")
      assert.is_true(run(handler))
      assert.equal("0", server:cli("XLEN " .. STREAM))
      assert.equal("2", server:cli("-n 3 XLEN " .. STREAM))
    end)

    it("buries what goes to a database that there is not, and adds nothing elsewhere", function()
      local server = real.start()
      buried("SELECT 99: ERR DB index is out of range", redis { url = url_of(server) .. "/99" })
      assert.equal("", server:cli "KEYS '*'")
      assert.same({}, server:clients())
    end)

    it("buries when another kind of value has the stream's name, and goes on when it has not", function()
      local server = real.start()
      server:cli("SET " .. STREAM .. " taken")
      local handler = redis { url = url_of(server) }
      buried("WRONGTYPE.*another kind of value", handler)
      server:cli("DEL " .. STREAM)
      assert.is_true(run(handler))
    end)

    it("tries again while its memory is full, and gets through when it is not", function()
      local server = real.start { "maxmemory-policy noeviction" }
      local handler = redis { url = url_of(server) }
      assert.is_true(run(handler))
      server:cli "CONFIG SET maxmemory 1"
      retried("OOM.*maxmemory", handler)
      local clients = server:clients()
      server:cli "CONFIG SET maxmemory 0"
      assert.is_true(run(handler))
      assert.same(clients, server:clients())
      assert.equal(2, #server:entries(STREAM))
    end)

    it("tries again with a replica that takes no writes, on a new connection when it has become the master", function()
      local master = real.start()
      local server = real.start { ("replicaof 127.0.0.1 %d"):format(master.port) }
      local handler = redis { url = url_of(server) }
      retried("READONLY.*replica", handler)
      kit.wait_until(function() return #server:clients() == 0 end)
      server:cli "REPLICAOF NO ONE"
      assert.is_true(run(handler))
      assert.equal(1, #server:entries(STREAM))
    end)

    it("tries again while it is down, and uses what is started in its place without losing a try", function()
      local server = real.start { "appendonly yes", "appendfsync always" }
      local handler = redis { url = url_of(server) }
      assert.is_true(run(handler))
      server:stop()
      server:start()
      assert.is_true(run(handler))
      server:stop()
      retried("127.0.0.1", handler)
      server:start()
      assert.is_true(run(handler))
      assert.equal(3, #server:entries(STREAM))
    end)

    it("loses no event when it is killed and started again in the middle of a hundred", function()
      local server = real.start { "appendonly yes", "appendfsync always" }
      local handler = redis { url = url_of(server), timeout = 0.5 }
      local waiting, ids = {}, {}
      for i = 1, 100 do
        waiting[i] = "e" .. i
      end
      for round = 1, 20 do
        local rest = {}
        for i, id in ipairs(waiting) do
          if round <= 3 and i == 30 then
            server.process:kill "KILL"
            server.process:wait()
          end
          if not run(handler, nil, { event_id = id }) then
            rest[#rest + 1] = id
          end
        end
        waiting = rest
        if server.process:status() then
          server:start()
        end
        if #waiting == 0 then
          break
        end
      end
      for _, entry in ipairs(server:entries(STREAM)) do
        ids[entry.event_id] = true
      end
      for i = 1, 100 do
        assert.is_true(ids["e" .. i])
      end
    end)

    it("tries again when it does not answer in time, and does not take the late answer for the next", function()
      local server = real.start()
      local handler = redis { url = url_of(server), timeout = 0.3 }
      assert.is_true(run(handler))
      server:cli "CLIENT PAUSE 20000 WRITE"
      local begun = core.clock()
      retried("no answer in time", handler)
      assert.is_true(core.clock() - begun >= 290 and core.clock() - begun < 10000)
      server:cli "CLIENT UNPAUSE"
      assert.is_true(run(handler))
      local entries = server:entries(STREAM)
      assert.equal(("01KBQ6Z0000000000000000000-%d"):format(n), entries[#entries].event_id)
    end)

    it("tries again when it has too many clients", function()
      local server = real.start()
      server:cli "CONFIG SET maxclients 1"
      local handler = redis { url = url_of(server) }
      local one = redis { url = url_of(server) }
      assert.is_true(run(one))
      retried("max number of clients", handler)
      retried("too many clients", redis { url = url_of(server), password = PASSWORD })
    end)

    it("lets a consumer drop what comes twice, by the event's id", function()
      local server = real.start()
      local handler = redis { url = url_of(server) }
      server:cli(("XGROUP CREATE %s workers '$' MKSTREAM"):format(STREAM))
      for _, id in ipairs { "e1", "e1", "e2" } do
        assert.is_true(run(handler, nil, { event_id = id }))
      end
      local done = {}
      server:cli(("XREADGROUP GROUP workers w1 COUNT 10 STREAMS %s '>'"):format(STREAM))
      for _, entry in ipairs(server:entries(STREAM)) do
        if server:cli(("SET mjhook:seen:%s w1 NX EX 86400"):format(entry.event_id)) == "OK" then
          done[#done + 1] = entry.event_id
        end
      end
      assert.same({ "e1", "e2" }, done)
    end)
  end)

  describe("with a password", function()
    local server

    before_each(function()
      server = real.start { 'requirepass "' .. PASSWORD .. '"' }
    end)

    it("takes it from the url, from a setting, or from a private file", function()
      local file = kit.write(kit.tmp() .. "/password", PASSWORD .. "\n")
      assert.is_true(run(redis { url = url_of(server, ":" .. ESCAPED .. "@") .. "/1" }))
      assert.is_true(run(redis { url = url_of(server, "default:" .. ESCAPED .. "@") .. "/1" }))
      assert.is_true(run(redis { url = url_of(server, "default@") .. "/1", password = PASSWORD }))
      assert.is_true(run(redis { url = url_of(server) .. "/1", password_file = file }))
      assert.equal(4, tonumber(server:cli("-n 1 XLEN " .. STREAM, AUTH)))
    end)

    it("takes it from the environment", function()
      local out, code = kit.sh(("MJHOOK_REDIS_PASSWORD=%s %s"):format(kit.quote(PASSWORD), kit.lua_command(([[
        local handler = require "mjhook.handlers.redis" { url = %q }
        print(handler({ ref = "r" }, { event_id = "e", type = "lost", attempt = 1, created_at = 1 }))
      ]]):format(url_of(server)))))
      assert.same({ "true", 0 }, { out, code })
    end)

    it("tries again when it is missing or wrong, so that it can be put right, and never says it", function()
      retried("XADD: ERR Protocol error: unauthenticated.*wants a password", redis { url = url_of(server) })
      retried("SELECT 1: NOAUTH.*wants a password", redis { url = url_of(server) .. "/1" })
      retried("AUTH: WRONGPASS %(it refuses user or password%)", redis { url = url_of(server), password = "TOKEN" })
      retried("AUTH: WRONGPASS", redis { url = url_of(server, "somebody@"), password = PASSWORD })
      local open = real.start()
      retried("AUTH: ERR %(no password is set there%)", redis { url = url_of(open), password = PASSWORD })
      assert.equal("", open:cli "KEYS '*'")
    end)

    it("introduces itself anew when the password has been changed under it", function()
      local handler = redis { url = url_of(server), password = PASSWORD }
      assert.is_true(run(handler))
      server:cli("CONFIG SET requirepass other", AUTH)
      server:cli("CLIENT KILL TYPE normal SKIPME yes", "REDISCLI_AUTH=other")
      retried("WRONGPASS", handler)
      server:cli(("CONFIG SET requirepass %s"):format(kit.quote(PASSWORD)), "REDISCLI_AUTH=other")
      assert.is_true(run(handler))
    end)

    it("makes do with a user who may only XADD, and tries again with one who may not", function()
      server:cli(("ACL SETUSER teller on '>TOKEN' '~%s' +xadd"):format(STREAM), AUTH)
      server:cli("ACL SETUSER reader on '>TOKEN' '~*' +xread", AUTH)
      assert.is_true(run(redis { url = url_of(server, "teller@"), password = "TOKEN" }))
      retried("NOPERM.*%+xadd", redis { url = url_of(server, "reader@"), password = "TOKEN" })
      retried("NOPERM", redis { url = url_of(server, "teller@"), password = "TOKEN", stream = "other" })
      local handler = redis { url = url_of(server, "reader@"), password = "TOKEN" }
      retried("NOPERM", handler)
      server:cli("ACL SETUSER reader +xadd", AUTH)
      assert.is_true(run(handler))
    end)
  end)

  describe("over TLS", function()
    local certs

    setup(function()
      certs = kit.sh "mktemp -d"
      local out, code = kit.sh(("cd %s && "):format(certs) .. [[
        new="openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes" &&
        $new -x509 -days 2 -subj /CN=Authority -keyout ca.key -out ca.pem &&
        for name in server client; do
          $new -subj /CN=localhost -keyout $name.key -out $name.csr &&
          printf 'subjectAltName=DNS:localhost' >$name.ext &&
          openssl x509 -req -days 2 -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile $name.ext \
            -out $name.pem
        done]])
      assert(code == 0, out)
    end)

    teardown(function()
      kit.sh("rm -rf " .. certs)
    end)

    local function settings(server, more)
      local given = {
        url = ("rediss://localhost:%d/2"):format(server.port), ca_file = certs .. "/ca.pem", password = PASSWORD,
      }
      for name, value in pairs(more or {}) do
        given[name] = value or nil
      end
      return given
    end

    it("appends, on one connection, large tasks, too", function()
      local server = real.start({ "tls-auth-clients no", 'requirepass "' .. PASSWORD .. '"' }, certs)
      local handler = redis(settings(server))
      for _ = 1, 10 do
        assert.is_true(run(handler, { prompt = ("ä"):rep(5000), context = { text = ("x"):rep(60000) } }))
      end
      assert.equal(1, #server:clients(AUTH))
      assert.equal(60000, #server:entries(STREAM, AUTH, 2)[10].task.context.text)
    end)

    it("says nothing to who can't prove to be the server", function()
      local server = real.start({ "tls-auth-clients no" }, certs)
      retried("certificate", redis(settings(server, { ca_file = false })))
      retried("certificate", redis(settings(server, { ca_file = certs .. "/client.pem" })))
      retried("127.0.0.1", redis(settings(server, { url = ("rediss://127.0.0.1:%d"):format(server.port) })))
      retried("certificate file: .*none.pem", redis(settings(server, { ca_file = certs .. "/none.pem" })))
      assert.equal("0", server:cli "INFO commandstats | grep -c xadd")
    end)

    it("shows a certificate of its own to a server that asks for one", function()
      local server = real.start({ "tls-auth-clients yes", 'requirepass "' .. PASSWORD .. '"' }, certs)
      retried("localhost", redis(settings(server)))
      assert.is_true(run(redis(settings(server,
        { cert_file = certs .. "/client.pem", key_file = certs .. "/client.key" }))))
    end)

    it("notices that the server was started anew", function()
      local server = real.start({ "tls-auth-clients no", 'requirepass "' .. PASSWORD .. '"' }, certs)
      local handler = redis(settings(server))
      assert.is_true(run(handler))
      server:stop()
      server:start()
      assert.is_true(run(handler))
    end)

    it("is not spoken with a server that does not", function()
      local server = real.start()
      retried("localhost", redis { url = ("rediss://localhost:%d"):format(server.port) })
      retried("127.0.0.1", redis { url = url_of(real.start({ "tls-auth-clients no" }, certs)) })
    end)
  end)

  describe("with a hostile server", function()
    local ADDED = "$15\r\n1776211261000-0\r\n"

    -- Handler, server.
    local function against(script, settings)
      local there = peer.start(script)
      local given = { url = url_of(there), timeout = 0.5 }
      for name, value in pairs(settings or {}) do
        given[name] = value
      end
      return redis(given), there
    end

    local function within(words, steps, settings)
      local handler = against({ steps }, settings)
      local begun = core.clock()
      retried(words, handler)
      assert.is_true(core.clock() - begun < 4000)
      return core.clock() - begun
    end

    it("that never answers gives up in time", function()
      assert.is_true(within("no answer in time", { { "redis" }, { "hang" } }) >= 490)
      assert.is_true(within("no answer in time", { { "hang" } }, { password = PASSWORD }) >= 490)
    end)

    it("gives up a little before the time of its own is up", function()
      local least
      for _ = 1, 10 do -- a busy machine may wake it late, but not each time
        local handler = against({ { { "hang" } } }, { timeout = 60 })
        local begun = core.clock()
        retried("no answer in time", handler, nil, { timeout = 0.5 })
        local took = core.clock() - begun
        assert.is_true(took >= 440, took)
        least = math.min(least or took, took)
        if least < 500 then
          break
        end
      end
      assert.is_true(least < 500, least)
    end)

    it("that reads nothing gives up", function()
      within("in time", { { "pause", 3 } })
      within("out of time", { { "pause", 3 } }, { stream = ("x"):rep(20000000) })
    end)

    it("that answers byte by byte is understood, or given up in time", function()
      local handler = against { { { "redis" }, { "drip", ADDED, 0.005 }, { "hang" } } }
      assert.is_true(run(handler))
      within("no answer in time", { { "redis" }, { "drip", ADDED, 0.1 } })
    end)

    it("that answers without end, or in a strange way, is not listened to", function()
      within("not Redis': a line", { { "redis" }, { "send", "+" }, { "flood", ("x"):rep(1000), 3 } })
      within("not Redis': a reply of more", {
        { "redis" }, { "send", "*1000\r\n" }, { "flood", "$1000\r\n" .. ("x"):rep(1000) .. "\r\n", 3 },
      })
      within("not Redis': bytes of more", { { "redis" }, { "send", "$9999999\r\n" }, { "hang" } })
      within("not Redis': no reply begins", { { "redis" }, { "send", "HTTP/1.1 400 Bad Request\r\n\r\n" } })
      within("not Redis': no reply begins", { { "send", "SSH-2.0-OpenSSH\r\n" }, { "hang" } })
      within("not Redis'", { { "redis" }, { "send", "$3\r\nabcdef\r\n" } })
    end)

    it("that answers something else to XADD is not believed", function()
      for _, answer in ipairs { "+OK\r\n", ":1\r\n", "$-1\r\n", "*0\r\n", "$2\r\nid\r\n", "$0\r\n\r\n" } do
        within("answer to XADD is not Redis'", { { "redis" }, { "send", answer }, { "hang" } })
      end
      for _, answer in ipairs { "+NO\r\n", ":1\r\n", "$2\r\nOK\r\n" } do
        within("answer to AUTH is not Redis'", { { "redis" }, { "send", answer }, { "hang" } }, { password = PASSWORD })
      end
    end)

    it("that closes or resets before it has answered all may have done it: tries again", function()
      within("before it answered", { { "redis" } })
      within("before it answered", { { "redis" }, { "send", "$15\r\n17762" } })
      within("127.0.0.1", { { "redis" }, { "reset" } })
      within("127.0.0.1", { { "redis" }, { "send", "+OK\r\n" }, { "redis" } }, { password = PASSWORD })
      within("127.0.0.1", {})
      local handler, there = against { { { "redis" } }, { { "redis" }, { "send", ADDED } } }
      retried("before it answered", handler)
      assert.is_true(run(handler))
      assert.equal(2, #there:received())
    end)

    it("that closes a kept connection between two events costs no try", function()
      local handler, there = against { { { "redis" }, { "send", ADDED } } }
      for i = 1, 3 do
        assert.is_true(run(handler))
        there:wait_closed(i)
      end
      local got = there:received()
      assert.same({ 1, 2, 3 }, { got[1].connection, got[2].connection, got[3].connection })
    end)

    it("that says more than it was asked loses the connection, and its answers are not mixed up", function()
      local handler, there = against {
        { { "redis" }, { "send", ADDED .. "-OOM not yours\r\n" }, { "hang" } },
        { { "redis" }, { "send", ADDED }, { "pause", 0.05 }, { "send", "-OOM" } },
        { { "redis" }, { "send", ADDED }, { "hang" } },
      }
      assert.is_true(run(handler))
      assert.is_true(run(handler))
      there:wait_closed(2)
      assert.is_true(run(handler))
      assert.equal(3, there:received()[3].connection)
    end)

    it("that repeats what it was sent can't make the handler say it", function()
      for _, text in ipairs {
        "-ERR unknown command 'AUTH', with args beginning with: '%s'\r\n", "-%s\r\n", "-WRONGPASS %s\r\n", "+%s\r\n",
      } do
        within("AUTH", { { "redis" }, { "send", (text:format(PASSWORD)) }, { "hang" } }, { password = PASSWORD })
      end
      within("AUTH: an error", { { "redis" }, { "send", "-TOKEN8\r\n" }, { "hang" } }, { password = "TOKEN8" })
      local ok, known = { "send", "+OK\r\n" }, { password = PASSWORD }
      within("XADD: OOM %(", { { "redis" }, ok, { "redis" }, { "send", "-OOM " .. PASSWORD .. "\r\n" } }, known)
      within("XADD: an error", { { "redis" }, ok, { "redis" }, { "send", "-\27[2J" .. PASSWORD .. "\r\n" } }, known)
      within("XADD: OOM  %[2Jx", { { "redis" }, { "send", "-OOM \27[2Jx\255\r\n" } })
    end)

    it("sends no event before AUTH and SELECT were answered well", function()
      local there = peer.start {
        { { "redis", 2 }, { "send", "+OK\r\n-ERR DB index is out of range\r\n" }, { "redis" }, { "hang" } },
      }
      local handler = redis { url = url_of(there) .. "/7", password = PASSWORD, timeout = 0.5 }
      buried("DB index", handler)
      assert.equal(2, #there:received())
      assert.equal(("*2\r\n$4\r\nAUTH\r\n$%d\r\n%s\r\n"):format(#PASSWORD, PASSWORD), there:received()[1].text)
      assert.equal("*2\r\n$6\r\nSELECT\r\n$1\r\n7\r\n", there:received()[2].text)
    end)

    it("sorts errors: of itself and our access again, of the command never", function()
      for text, words in pairs {
        ["LOADING Redis is loading the dataset in memory"] = "LOADING.*still loads", ["BUSY script"] = "BUSY",
        ["MASTERDOWN Link with MASTER is down"] = "MASTERDOWN", ["MISCONF Redis is configured"] = "MISCONF.*its disk",
        ["NOREPLICAS Not enough good replicas to write."] = "NOREPLICAS", ["CLUSTERDOWN Hash slot"] = "CLUSTERDOWN",
        ["MOVED 1 10.0.0.1:6379"] = "MOVED.*another node", ["TRYAGAIN later"] = "TRYAGAIN",
        ["DENIED Redis is running in protected mode"] = "DENIED.*protected", ["ERR something new"] = "something new",
        ["UNKNOWNCODE x"] = "UNKNOWNCODE", [""] = "an error",
      } do
        within("XADD: .*" .. words, { { "redis" }, { "send", "-" .. text .. "\r\n" }, { "hang" } })
      end
      for _, text in ipairs {
        "WRONGTYPE Operation against a key", "ERR unknown command 'XADD'", "ERR wrong number of arguments for 'xadd'",
        "ERR syntax error", "ERR Protocol error: invalid bulk length",
        "ERR The stream has exhausted the last possible ID",
      } do
        buried(text, (against { { { "redis" }, { "send", "-" .. text .. "\r\n" }, { "hang" } } }))
      end
    end)
  end)

  it("buries a task that can't be written as JSON", function()
    buried("JSON", redis { url = "redis://127.0.0.1:1" }, { context = { [1] = "a", b = "c" } })
  end)

  describe("refuses at the caller's line", function()
    local function refused(settings, words)
      local ok, why = pcall(function() redis(settings) end)
      assert.is_false(ok)
      assert.matches("handlers_redis_spec.lua:%d+: mjhook.handlers.redis: " .. words, why)
      assert.is_nil(why:find("TOKEN", 1, true))
    end

    it("urls that are none", function()
      for _, url in ipairs {
        "http://a", "redis:/a", "a:6379", "redis://", "redis://:TOKEN@", "redis://a:0", "redis://a:65536",
        "redis://a:x",
        "redis://a:1:2", "redis://a b", "redis://[::1", "redis://::1", "redis://a/0?x=TOKEN", "redis://u:TOKEN@a/x",
        "redis://a/-1", "redis://a/0/1", "redis://a/1234567", "redis://a\\b",
      } do
        refused({ url = url }, "url: ")
      end
      for _, url in ipairs {
        "redis://a", "rediss://a.b-c_d:6380/15", "redis://[::1]:1/", "redis://u:p@a", "redis://:p@a/0",
      } do
        assert.is_function(redis { url = url })
      end
    end)

    it("passwords from two places, from files that others can read, or none for a user", function()
      local file = kit.write(kit.tmp() .. "/password", "TOKEN\n")
      refused({ url = "redis://:TOKEN@a", password = "TOKEN" }, "password: .*one of them")
      refused({ url = "redis://a", password = "TOKEN", password_file = file }, "password: .*one of them")
      refused({ url = "redis://u@a" }, "password: there is a user")
      refused({ url = "redis://a", password_file = file .. "x" }, "password_file: .*No such file")
      kit.write(file, "TOKEN\nTOKEN\n")
      refused({ url = "redis://a", password_file = file }, "password_file: one line")
      os.execute("chmod 644 " .. file)
      for _, name in ipairs { "ca_file", "cert_file", "key_file" } do
        os.execute("chmod 622 " .. file)
        refused({ url = "rediss://a", [name] = file }, name .. ": .*chmod")
        os.execute("chmod 644 " .. file)
      end
      refused({ url = "rediss://a", key_file = file }, "key_file: .*chmod 600")
      refused({ url = "redis://a", password_file = file }, "password_file: .*chmod 600")
    end)

    it("settings that it does not know or that make no sense", function()
      refused("redis://a", "a table of settings")
      refused({ url = "redis://a", retries = 3 }, "retries: unknown")
      refused({ url = "redis://a", maxlen = 0 }, "maxlen: a whole number")
      refused({ url = "redis://a", maxlen = 1.5 }, "maxlen: a whole number")
      refused({ url = "redis://a", maxlen = "9" }, "maxlen: number")
      refused({ url = "redis://a", stream = "" }, "stream: a line")
      refused({ url = "redis://a", timeout = -1 }, "timeout: seconds")
      refused({ url = "redis://a", ca_file = "/x" }, "ca_file.*rediss")
    end)
  end)
end)

describe("core.stream", function()
  after_each(kit.cleanup)

  it("raises for arguments of the wrong kind and when it is closed, which it may be twice", function()
    local there = peer.start { { { "hang" } } }
    local stream = assert(core.stream { host = "127.0.0.1", port = there.port, deadline_ms = core.clock() + 5000 })
    assert.error_matches(function() core.stream { port = 1 } end, "bad field 'host'")
    assert.error_matches(function() core.stream { host = 1 } end, "bad field 'host'")
    assert.error_matches(function() core.stream { host = "a", port = "1" } end, "bad field 'port'")
    assert.has_error(function() core.stream "a" end)
    assert.has_error(function() stream:send({}, 1) end)
    assert.has_error(function() stream:recv() end)
    stream:close()
    stream:close()
    assert.error_matches(function() stream:send("x", 1) end, "the stream is closed")
    assert.error_matches(function() stream:recv(1) end, "the stream is closed")
    assert.is_nil(tostring(stream):find("127", 1, true))
  end)

  it("gives errors as values", function()
    local stream, err = core.stream { host = "127.0.0.1", port = 0, deadline_ms = core.clock() + 100 }
    assert.is_nil(stream)
    assert.same({ "invalid", false }, { err.code, err.retryable })
    stream, err = core.stream { host = "127.0.0.1", port = 1, deadline_ms = core.clock() + 1000 }
    assert.is_nil(stream)
    assert.same({ "io", true }, { err.code, err.retryable })
    assert.matches("^127.0.0.1:1: ", tostring(err))
    local there = peer.start { {} }
    stream = assert(core.stream { host = "127.0.0.1", port = there.port, deadline_ms = core.clock() + 5000 })
    stream, err = stream:recv(core.clock() + 5000)
    assert.is_nil(stream)
    assert.equal("closed", err.code)
  end)
end)
