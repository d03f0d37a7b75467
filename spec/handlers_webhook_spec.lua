-- The webhook handler: what it sends, believed by the specification's own library; what it makes of answers.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local peer = require "peer"
local webhook = require "mjhook.handlers.webhook"

local KEY = "a key of 24 bytes or more"
local SECRET = "whsec_" .. core.base64(KEY)
local OTHER = "whsec_" .. core.base64 "another key that has 32 bytes..."
local LIBRARY = "standardwebhooks@1.1.1"

local function answer(status, more, body)
  body = body or ""
  return ("HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s"):format(status, more or "", #body, body)
end

local function a_task(more)
  local task = {
    ref = "01KBQ6Z0000000000000000000", attempt = 2, task_id = "MtAd7mCuc4YqK_a1iAQSW", account = "default",
    state = "succeeded", prompt = "a fox --ar 4:5", mj_prompt = "a fox --ar 4:5 --v 7", mode = "fast", timeout = 600,
    user_id = "u1", key = "order-7", context = { order = 7 }, image = "https://img.example/grid.png",
    images = { "https://img.example/0.png", "https://img.example/1.png" }, meta = { hookUrl = "sig-in-meta" },
    attempts = { { attempt = 1 } }, timeline = { { at = 1, signal = "create" } }, polls = 3,
    created_at = 1776211200000, submitted_at = 1776211200250, finished_at = 1776211260999,
  }
  for name, value in pairs(more or {}) do
    task[name] = value
  end
  return task
end

local function a_ctx(more)
  local ctx = {
    event_id = "01KBQ6Z0000000000000000000-3", type = "succeeded", attempt = 2, created_at = 1776211261000, timeout = 5,
  }
  for name, value in pairs(more or {}) do
    ctx[name] = value
  end
  return ctx
end

local function run(handler, task, ctx)
  local handled, reason, how = handler(a_task(task), a_ctx(ctx))
  return handled, reason, how or {}
end

-- Header by lower-case name, and the body.
local function request_of(text)
  local head, body = text:match "^(.-)\r\n\r\n(.*)$"
  local headers = { first = head:match "^[^\r]*" }
  for name, value in head:gmatch "\r\n([^:\r]+): ([^\r]*)" do
    headers[name:lower()] = value
  end
  return headers, body
end

describe("the webhook handler", function()
  after_each(kit.cleanup)

  describe("and the specification's own library", function()
    local modules

    -- Once for all runs of this build; whoever comes second finds it, whole.
    setup(function()
      local home = kit.build .. "/standardwebhooks"
      if not core.stat(home .. "/node_modules/standardwebhooks") then
        local dir = kit.sh "mktemp -d"
        local _, code = kit.sh(("cd %s && npm install --silent --no-audit --no-fund --no-package-lock %s && "
          .. "mkdir -p %s && { mv node_modules %s/ 2>/dev/null || test -d %s/node_modules; }"):format(dir, LIBRARY,
          kit.quote(home), kit.quote(home), kit.quote(home)))
        kit.sh("rm -rf " .. dir)
        if code ~= 0 then
          return
        end
      end
      modules = home .. "/node_modules"
    end)

    local function receiver(secret, more)
      if not modules then
        pending("npm can't install " .. LIBRARY .. " here")
      end
      local dir = kit.tmp()
      kit.sh(("ln -s %s %s/node_modules"):format(kit.quote(modules), dir))
      kit.spawn(("exec node %s %s %s %s"):format(kit.quote(kit.root .. "/spec/support/webhook_receiver.mjs"), dir,
        secret, more or ""))
      local port = kit.wait_until(function()
        return tonumber((kit.read(dir .. "/port") or ""):match "%d+")
      end, 20)
      local function received()
        local list = {}
        for line in (kit.read(dir .. "/received") or ""):gmatch "[^\n]+" do
          list[#list + 1] = cjson.decode(line)
        end
        return list
      end
      return ("http://127.0.0.1:%d/hook?of=mjhook"):format(port), received
    end

    it("agree on the signature and on what was said", function()
      local url, received = receiver(SECRET)
      local handler = webhook { url = url, secret = SECRET }
      assert.same({ true }, { handler(a_task(), a_ctx()) })
      local got = received()[1]
      assert.is_nil(got.refused)
      assert.equal("/hook?of=mjhook", got.path)
      assert.equal("application/json", got.headers["content-type"])
      assert.equal("01KBQ6Z0000000000000000000-3", got.headers["webhook-id"])
      assert.same({
        type = "midjourney.task.succeeded",
        timestamp = "2026-04-15T00:01:01.000Z",
        data = {
          ref = "01KBQ6Z0000000000000000000", attempt = 2, task_id = "MtAd7mCuc4YqK_a1iAQSW", state = "succeeded",
          prompt = "a fox --ar 4:5", mj_prompt = "a fox --ar 4:5 --v 7", mode = "fast", user_id = "u1",
          key = "order-7", context = { order = 7 }, image = "https://img.example/grid.png",
          images = { "https://img.example/0.png", "https://img.example/1.png" },
          created_at = "2026-04-15T00:00:00.000Z", submitted_at = "2026-04-15T00:00:00.250Z",
          finished_at = "2026-04-15T00:01:00.999Z",
        },
      }, got.payload)
    end)

    it("agree on every type, on errors, on text of all kinds and on keys of 24 to 64 bytes", function()
      for _, length in ipairs { 24, 25, 26, 64 } do
        local secret = "whsec_" .. core.base64(("\0k\255"):rep(22):sub(1, length))
        local url, received = receiver(secret)
        local handler = webhook { url = url, secret = secret }
        for _, kind in ipairs { "failed", "lost", "ambiguous" } do
          assert.is_true(run(handler, {
            state = kind, prompt = 'ein "Füchslein" \\ 🦊\n.', image = false, images = {},
            error = core.error("provider", "banned word: blut", false), context = { deep = { 1, { a = cjson.null } } },
          }, { type = kind }))
        end
        for i, kind in ipairs { "failed", "lost", "ambiguous" } do
          local payload = received()[i].payload
          assert.equal("midjourney.task." .. kind, payload.type)
          assert.equal('ein "Füchslein" \\ 🦊\n.', payload.data.prompt)
          assert.same({ code = "provider", message = "banned word: blut" }, payload.data.error)
          assert.is_nil(payload.data.images)
        end
      end
    end)

    it("agree on an event that is old, since the timestamp is that of the sending", function()
      local url, received = receiver(SECRET)
      local handler = webhook { url = url, secret = SECRET }
      assert.is_true(run(handler, nil, { created_at = 1000 }))
      assert.equal("1970-01-01T00:00:01.000Z", received()[1].payload.timestamp)
      kit.travel(600)
      local handled, reason = run(handler)
      assert.is_false(handled)
      assert.matches("answered 401", reason)
      assert.equal("Message timestamp too new", received()[2].refused)
    end)

    it("agree while a secret is replaced, whichever of the two the receiver has", function()
      for _, theirs in ipairs { SECRET, OTHER } do
        local url, received = receiver(theirs)
        assert.is_true(run(webhook { url = url, secret = { OTHER, SECRET } }))
        local _, spaces = received()[1].headers["webhook-signature"]:gsub(" ", "")
        assert.equal(1, spaces)
      end
    end)

    it("agree that another secret's signature is none", function()
      local url, received = receiver(SECRET)
      local handled, reason = run(webhook { url = url, secret = OTHER })
      assert.is_false(handled)
      assert.matches("answered 401", reason)
      assert.matches("signature", received()[1].refused)
    end)

    it("meet over TLS when the certificate is trusted, and else nothing is sent", function()
      local dir = kit.tmp()
      local out, code = kit.sh(("cd %s && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 "
        .. "-subj /CN=localhost -addext subjectAltName=DNS:localhost -keyout key.pem -out cert.pem"):format(dir))
      assert.equal(0, code, out)
      local url, received = receiver(SECRET, dir .. "/key.pem " .. dir .. "/cert.pem")
      url = url:gsub("^http://127.0.0.1", "https://localhost")
      local handled, reason = run(webhook { url = url, secret = SECRET })
      assert.is_false(handled)
      assert.matches("localhost", reason)
      assert.matches("certificate", reason)
      assert.equal(0, #received())
      assert.is_true(run(webhook { url = url, secret = SECRET, ca_file = dir .. "/cert.pem" }))
      assert.is_table(received()[1].payload)
      handled = run(webhook { url = url:gsub("localhost", "127.0.0.1"), secret = SECRET, ca_file = dir .. "/cert.pem" })
      assert.is_false(handled)
      assert.equal(1, #received())
    end)
  end)

  describe("sends", function()
    it("what openssl signs the same way, with nothing else that a receiver could take for it", function()
      local there = peer.http(answer "200 OK")
      local from = math.floor(core.now() / 1000)
      assert.is_true(run(webhook { url = there.url .. "/in", secret = { SECRET, OTHER } }))
      local headers, body = request_of(there:received()[1].text)
      assert.equal("POST /in HTTP/1.1", headers.first)
      assert.matches("^mjhook/", headers["user-agent"])
      assert.is_nil(headers.expect)
      local at = tonumber(headers["webhook-timestamp"])
      assert.is_true(at >= from and at <= core.now() / 1000)
      local file = kit.write(kit.tmp() .. "/content",
        ("%s.%s.%s"):format(headers["webhook-id"], headers["webhook-timestamp"], body))
      local signatures = {}
      for i, key in ipairs { KEY, "another key that has 32 bytes..." } do
        signatures[i] = "v1," .. kit.sh(("openssl dgst -sha256 -mac HMAC -macopt key:%s -binary %s | openssl base64 -A")
          :format(kit.quote(key), file))
      end
      assert.equal(table.concat(signatures, " "), headers["webhook-signature"])
    end)

    it("neither account, attempts, timeline, meta nor settings of the task", function()
      local there = peer.http(answer "200 OK")
      assert.is_true(run(webhook { url = there.url, secret = SECRET }, { late = true }))
      local text = there:received()[1].text
      for _, word in ipairs { "account", "attempts", "timeline", "sig-in-meta", "polls", "whsec_", KEY } do
        assert.is_nil(text:find(word, 1, true), word)
      end
      local _, body = request_of(text)
      assert.is_true(cjson.decode(body).data.late)
    end)

    it("the same id and body each time, on one connection, and on a new one when the old is dead", function()
      local ok = answer "200 OK"
      local once = { { "http" }, { "send", ok } }
      local there = peer.start { { once[1], once[2], once[1], once[2] }, once }
      local handler = webhook { url = there.url, secret = SECRET }
      for _ = 1, 3 do
        assert.is_true(run(handler))
      end
      local got = there:received()
      assert.same({ 1, 1, 2 }, { got[1].connection, got[2].connection, got[3].connection })
      local first, body = request_of(got[1].text)
      for _, again in ipairs { got[2], got[3] } do
        local headers, same = request_of(again.text)
        assert.equal(first["webhook-id"], headers["webhook-id"])
        assert.equal(body, same)
      end
    end)

    it("it by no proxy of the environment", function()
      local proxy, there = peer.http(answer "200 OK"), peer.http(answer "200 OK")
      local out = kit.sh(("no_proxy= NO_PROXY= http_proxy=%s ALL_PROXY=%s "):format(proxy.url, proxy.url)
        .. kit.lua_command(([[
          print(require "mjhook.handlers.webhook" { url = %q, secret = %q }({ ref = "01KB" },
            { event_id = "01KB-1", type = "lost", created_at = 1776211261000, timeout = 5 }))
        ]]):format(there.url, SECRET)))
      assert.equal("true", out)
      assert.same({ 0, 1 }, { #proxy:received(), #there:received() })
    end)

    it("with secrets from a private file, and with no other", function()
      local path = kit.write(kit.tmp() .. "/secret", SECRET .. "\n" .. OTHER .. "\n")
      local there = peer.http(answer "200 OK")
      assert.is_true(run(webhook { url = there.url, secret_file = path }))
      assert.matches("^v1,%S+ v1,%S+$", (request_of(there:received()[1].text))["webhook-signature"])
      os.execute("chmod 644 " .. path)
      assert.error_matches(function() webhook { url = there.url, secret_file = path } end, "chmod 600")
      kit.write(path, "\n")
      assert.error_matches(function() webhook { url = there.url, secret_file = path } end, "nothing in")
      assert.error_matches(function() webhook { url = there.url, secret_file = path .. "x" } end, "No such file")
    end)
  end)

  describe("takes", function()
    -- What is made of each of these answers, by a handler that has seen no other: {handled, reason, how}.
    local function outcomes(...)
      local script, list = {}, {}
      for i, text in ipairs { ... } do
        script[i] = { { "http" }, { "send", text } }
      end
      local there = peer.start(script)
      for i = 1, #script do
        list[i] = { run(webhook { url = there.url, secret = SECRET }) }
      end
      return list
    end

    it("any 2xx as success, whatever its body is", function()
      for _, got in ipairs(outcomes(answer "200 OK", answer "201 Created", answer "202 Accepted", answer "299 Strange",
        answer("200 OK", "", "<html>\0\255"), "HTTP/1.1 204 No Content\r\n\r\n",
        answer("200 OK", "", ("x"):rep(1000000)))) do
        assert.same({ true, nil, {} }, got)
      end
    end)

    it("any other status as a reason to try again", function()
      local statuses, answers = { 300, 304, 400, 401, 403, 404, 409, 418, 500, 502, 503, 504, 599 }, {}
      for i, status in ipairs(statuses) do
        answers[i] = answer(status .. " No")
      end
      for i, got in ipairs(outcomes((unpack or table.unpack)(answers))) do
        assert.is_false(got[1])
        assert.matches(("http://127.0.0.1:%%d+ answered %d"):format(statuses[i]), got[2])
        assert.same({}, got[3])
      end
    end)

    it("a redirect as a failure, and goes nowhere", function()
      local elsewhere = peer.http(answer "200 OK")
      local to = "Location: " .. elsewhere.url .. "/?token=x\r\n"
      for _, got in ipairs(outcomes(answer("301 Moved", to), answer("302 Found", to), answer("303 See Other", to),
        answer("307 Temporary", to), answer("308 Permanent", to))) do
        assert.is_false(got[1])
        assert.matches("redirects are not followed", got[2])
        assert.is_nil(got[2]:find("token", 1, true))
      end
      assert.equal(0, #elsewhere:received())
    end)

    it("Retry-After of 429 and 503 as its word, in seconds or as a date, a day at most", function()
      local soon = os.date("!%a, %d %b %Y %H:%M:%S GMT", os.time() + 100)
      local cases = {
        { "7", 7 }, { "0", 0 }, { "86400", 86400 }, { "99999999999999999999", 86400 }, { soon, 100 },
        { "Thu, 01 Jan 1970 00:00:00 GMT", 0 }, { "Fri, 31 Dec 9999 23:59:59 GMT", 86400 }, { "soon", nil },
        { "-5", nil },
      }
      for _, status in ipairs { "429 Too Many Requests", "503 Service Unavailable", "500 Oops" } do
        local answers = {}
        for i, case in ipairs(cases) do
          answers[i] = answer(status, "Retry-After: " .. case[1] .. "\r\n")
        end
        for i, got in ipairs(outcomes((unpack or table.unpack)(answers))) do
          local wanted, after = cases[i][2], got[3].not_before
          assert.is_false(got[1])
          assert.is_nil(got[3].bury)
          if status == "500 Oops" then
            assert.is_nil(after)
          elseif cases[i][1] == soon then
            assert.is_true(after > 80 and after <= 100)
          else
            assert.equal(wanted, after)
          end
        end
      end
    end)
  end)

  describe("after 410 Gone", function()
    local store, there, handler, lines

    local function log(level, message)
      lines[#lines + 1] = level .. ": " .. message
    end

    local function marker()
      local name, code = kit.sh(("ls -d %s/webhook-*.disabled"):format(store))
      return code == 0 and name
    end

    before_each(function()
      store, lines = kit.tmp(), {}
      there = peer.start { { { "http" }, { "send", answer "410 Gone" } }, { { "http" }, { "send", answer "200 OK" } } }
      handler = webhook { url = there.url .. "/hook/TOKEN-IN-PATH?t=TOKEN", secret = SECRET }
    end)

    it("buries, tells how to go on, and sends nothing more, from other processes either", function()
      local handled, reason, how = run(handler, nil, { store = store, log = log })
      assert.is_false(handled)
      assert.is_true(how.bury)
      assert.matches("410 Gone", reason)
      assert.is_truthy(reason:find(marker(), 1, true))
      assert.matches("mjhook kick %-%-all", reason)
      assert.equal("error: webhook: " .. reason, table.concat(lines, "\n"))
      local note = kit.read(marker())
      assert.matches("410 Gone", note)
      assert.matches("01KBQ6Z0000000000000000000%-3", note)
      assert.matches("remove the file", note)
      assert.is_nil((note .. reason):find("TOKEN", 1, true))

      handled, reason, how = run(handler, nil, { store = store })
      assert.same({ false, true }, { handled, how.bury })
      assert.matches("is disabled", reason)
      local out = kit.sh(kit.lua_command(([[
        local handler = require "mjhook.handlers.webhook" { url = %q, secret = %q }
        local handled, reason, how = handler({ ref = "r" }, { event_id = "e", type = "lost", attempt = 1,
          created_at = 1, store = %q })
        print(handled, how and how.bury, reason)
      ]]):format(there.url .. "/hook/TOKEN-IN-PATH?t=TOKEN", SECRET, store), kit.other_lua))
      assert.matches("^false\ttrue\t.*is disabled", out)
      assert.equal(1, #there:received())
    end)

    it("is enabled again by removing the file, also where it is running", function()
      run(handler, nil, { store = store })
      assert(os.remove(marker()))
      assert.is_true(run(handler, nil, { store = store }))
      assert.is_false(marker())
    end)

    it("goes on sending to other URLs", function()
      run(handler, nil, { store = store })
      assert.is_true(run(webhook { url = there.url .. "/other", secret = SECRET }, nil, { store = store }))
    end)

    it("without a store remembers it for as long as the process lives", function()
      local _, reason, how = run(handler)
      assert.is_true(how.bury)
      assert.matches("kick", reason)
      _, _, how = run(handler)
      assert.is_true(how.bury)
      assert.equal(1, #there:received())
    end)

    it("asks again when it could not be noted, and says so", function()
      local _, reason, how = run(handler, nil, { store = store .. "/missing", log = log })
      assert.is_true(how.bury)
      assert.is_nil(reason:find("missing", 1, true))
      assert.matches("can't be noted: .*No such file", lines[1])
      assert.is_true(run(handler, nil, { store = store .. "/missing" }))
    end)
  end)

  describe("with a hostile receiver", function()
    local function within(seconds, script, settings)
      local there = peer.start { script }
      local given = { url = there.url .. "/?token=TOKEN", secret = SECRET }
      for name, value in pairs(settings or {}) do
        given[name] = value
      end
      local begun = core.clock()
      local handled, reason, how = run(webhook(given), nil, { timeout = 1 })
      assert.is_true(core.clock() - begun < seconds * 1000)
      assert.is_false(handled)
      assert.same({}, how)
      assert.matches("^webhook: 127.0.0.1:%d+: ", reason)
      for _, secret in ipairs { "TOKEN", SECRET, KEY } do
        assert.is_nil(reason:find(secret, 1, true))
      end
      return reason, core.clock() - begun
    end

    it("that never answers gives up a little before its own time is up", function()
      local _, took = within(1, { { "http" }, { "hang" } })
      assert.is_true(took >= 850)
    end)

    it("that never answers gives up at its own limit when that comes first", function()
      local _, took = within(0.7, { { "http" }, { "hang" } }, { timeout = 0.2 })
      assert.is_true(took >= 190)
    end)

    it("that reads nothing gives up", function()
      within(1.5, { { "pause", 3 } })
    end)

    it("that answers byte by byte gives up", function()
      within(1.5, { { "http" }, { "drip", answer("200 OK", ("X-Long: %s\r\n"):format(("x"):rep(200))), 0.05 } })
      within(1.5, {
        { "http" }, { "send", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n" }, { "drip", ("x"):rep(99), 0.05 },
      })
    end)

    it("that sends header without end gives up", function()
      local line = ("X: %s\r\n"):format(("x"):rep(1000))
      within(1.5, { { "http" }, { "send", "HTTP/1.1 200 OK\r\n" }, { "flood", line, 5 } })
      within(1.5, { { "http" }, { "send", "HTTP/1.1 200 OK\r\nX: " }, { "flood", ("x"):rep(10000), 5 } })
      within(1.5, { { "http" }, { "flood", "HTTP/1.1 100 Continue\r\n\r\n", 5 } })
    end)

    it("that sends a body without end stops reading", function()
      local reason, took = within(1.5, {
        { "http" }, { "send", "HTTP/1.1 200 OK\r\n\r\n" }, { "flood", ("x"):rep(9999), 5 },
      })
      assert.matches("longer", reason)
      assert.is_true(took < 900)
    end)

    it("that closes in mid-answer, resets, or talks of something else tries again", function()
      within(1, { { "http" }, { "send", "HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nhalf" } })
      within(1, { { "http" }, { "send", "HTTP/1.1 200 OK\r\nX: half" } })
      within(1, { { "http" }, { "reset" } })
      within(1, { { "http" } })
      within(1, { { "http" }, { "send", "+OK\r\n-ERR\0\255\r\n" } })
      within(1, { { "http" }, { "send", "HTTP/1.1 2000000000 OK\r\n\r\n" } })
    end)

    it("that is not there tries again", function()
      local handled, reason = run(webhook { url = "http://127.0.0.1:1/TOKEN", secret = SECRET })
      assert.is_false(handled)
      assert.matches("127.0.0.1", reason)
      assert.is_nil(reason:find("TOKEN", 1, true))
    end)
  end)

  it("buries a task that can't be written as JSON", function()
    local handled, reason, how = run(webhook { url = "http://127.0.0.1:1", secret = SECRET },
      { context = { [1] = "a", b = "c" } })
    assert.same({ false, true }, { handled, how.bury })
    assert.matches("JSON", reason)
  end)

  describe("refuses at the caller's line", function()
    local function refused(settings, words)
      local ok, why = pcall(function() webhook(settings) end)
      assert.is_false(ok)
      assert.matches("handlers_webhook_spec.lua:%d+: mjhook.handlers.webhook: " .. words, why)
      assert.is_nil(why:find(core.base64(KEY), 1, true))
      assert.is_nil(why:find("TOKEN", 1, true))
    end

    it("URLs that are none, or not safe", function()
      for url, words in pairs {
        ["ftp://a.example/"] = "url: an https URL", ["https://"] = "url: an https URL",
        ["a.example"] = "url: an https URL", ["https://a.example/a b"] = "url: an https URL",
        ["https://a.example/ü"] = "url: an https URL", ["http://a.example/?TOKEN"] = "url: https expected",
        ["http://10.0.0.1/"] = "url: https expected", ["http://127.0.0.1.evil.example/"] = "url: https expected",
        ["http://localhost.example/"] = "url: https expected", ["https://user:TOKEN@a.example/"] = "url: no user",
      } do
        refused({ url = url, secret = SECRET }, words)
      end
      refused({ secret = SECRET }, "url: an https URL")
      refused({ url = 7, secret = SECRET }, "url: string expected")
      for _, url in ipairs { "http://localhost:1/", "http://127.9.9.9/", "http://[::1]:8080/", "https://a.example" } do
        assert.is_function(webhook { url = url, secret = SECRET })
      end
      assert.is_function(webhook { url = "http://10.0.0.1/", secret = SECRET, allow_insecure = true })
    end)

    it("secrets that are none, too short, too long, too many or missing", function()
      local url = "https://a.example/"
      for _, secret in ipairs {
        "", "whsec_", "whsec_?", core.base64(KEY), "whsec_" .. core.base64(KEY:sub(1, 23)), SECRET .. "=", 7,
        "whsec_" .. core.base64(("x"):rep(65)), "whsk_" .. core.base64(KEY), { SECRET, 7 }, { SECRET, "whsec_" }, {},
        { SECRET, SECRET, SECRET, SECRET, SECRET, SECRET, SECRET, SECRET, SECRET },
      } do
        refused({ url = url, secret = secret }, "secret: ")
      end
      refused({ url = url }, "secret: ")
      refused({ url = url, secret = SECRET, secret_file = "/x" }, "secret, secret_file: one")
    end)

    it("settings that it does not know or that make no sense", function()
      refused("https://a.example/", "a table of settings")
      refused({ url = "https://a.example/", secret = SECRET, retries = 3 }, "retries: unknown")
      refused({ url = "https://a.example/", secert = SECRET }, 'secert: unknown setting: did you mean "secret"?')
      refused({ url = "https://a.example/", secret = SECRET, timeout = "5" }, "timeout: number")
      refused({ url = "https://a.example/", secret = SECRET, timeout = 0 }, "timeout: seconds")
      refused({ url = "https://a.example/", secret = SECRET, timeout = 0 / 0 }, "timeout: seconds")
      refused({ url = "https://a.example/", secret = SECRET, ca_file = "" }, "ca_file: a line")
    end)
  end)
end)
