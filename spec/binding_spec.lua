-- The border between Lua and C: what C does with values of every kind, and with values that are nowhere else.
local core = require "mjhook.core"
local kit = require "kit"

local NAN, INF = 0 / 0, math.huge

describe("the binding", function()
  after_each(kit.cleanup)

  local store

  before_each(function()
    kit.collect_hard()
    store = assert(core.open(kit.tmp() .. "/store", {}))
    kit.finally(function() store:close() end)
  end)

  -- Makes each field's string anew whenever it is asked for, and makes garbage of it at once.
  local function conjurer(fields)
    return setmetatable({}, { __index = function(_, name)
      local value = fields[name]
      if type(value) ~= "string" then
        return value
      end
      collectgarbage()
      return value:rep(2):sub(1, #value)
    end })
  end

  local function create(task)
    return assert(store:write({ { op = "create", source = "user", want = true, task = task } }, core.now()))[1]
  end

  describe("reads fields without metamethods: what __index makes would be collected while C uses it", function()
    it("a task's", function()
      local ok, result = pcall(create, conjurer { prompt = ("p"):rep(900), user_id = ("u"):rep(200) })
      assert.is_true(ok, result)
      assert.is_nil(result.task.prompt)
      assert.is_nil(result.task.user_id)
    end)

    it("a signal's, a page's, a request's and a connection's", function()
      local fields = { op = "signal", kind = "succeeded", ref = ("0"):rep(26), by = "state", state = "pending",
                       url = "http://127.0.0.1:9/", host = "127.0.0.1", argv = { "/bin/true" } }
      assert.error_matches(function() store:write({ conjurer(fields) }, core.now()) end, "bad field 'op'")
      assert.same({}, (store:page(conjurer(fields))))
      local http = assert(core.http(conjurer { ca_file = "/nowhere" }))
      kit.finally(function() http:close() end)
      assert.error_matches(function() http:perform({ conjurer(fields) }) end, "bad field 'url'")
      assert.error_matches(function() core.stream(conjurer(fields)) end, "bad field 'host'")
    end)
  end)

  describe("refuses a number that C can't hold, and names it", function()
    local function refuses(what, call, wrong, text)
      for _, value in ipairs(wrong) do
        it(("%s: %s"):format(what, tostring(value)), function()
          assert.error_matches(function() call(value) end, text)
        end)
      end
    end

    local WHOLE = { -1, NAN, INF, -INF, 2 ^ 32, 2 ^ 53, 2 ^ 64, 1e300, -1e300, 0.5, "7", true, {} }

    local function field(op, name, value)
      local o = { op = op, ref = ("0"):rep(26), kind = "look" }
      o[name] = value
      return store:write({ o }, core.now())
    end

    for name, op in pairs { attempt = "signal", limit = "tick", seq = "done", tries = "done" } do
      refuses(name, function(value) field(op, name, value) end, WHOLE, "bad field '" .. name .. "'")
    end

    for _, name in ipairs { "until", "wait_ms" } do
      refuses(name, function(value) field("signal", name, value) end,
        { NAN, INF, -INF, 2 ^ 54, -2 ^ 54, "7", true }, "bad field '" .. name .. "'")
    end

    refuses("timeout", function(value) create { prompt = "p", timeout = value } end, WHOLE, "bad field 'timeout'")
    refuses("priority", function(value) create { prompt = "p", priority = value } end,
      { NAN, INF, -INF, 2 ^ 31, -2 ^ 31 - 1, 0.5, "7" }, "bad field 'priority'")
    refuses("expires_at", function(value) create { prompt = "p", expires_at = value } end,
      { NAN, INF, 2 ^ 54, "7" }, "bad field 'expires_at'")

    refuses("a page's limit", function(value) store:page { limit = value } end, WHOLE, "bad field 'limit'")
    refuses("the id of a refused callback", function(value) store:refused(value, 1) end,
      { -1, NAN, INF, -INF, 2 ^ 64, 0.5, "7" }, "#1")
    refuses("how many of them", function(value) store:refused(0, value) end, WHOLE, "#2")
    refuses("the time of a write", function(value) store:write({}, value) end, { NAN, "7", true, {} }, "#2")
    refuses("the time of the counters", function(value) store:stats(value) end, { NAN, "7", true, {} }, "#1")

    for _, name in ipairs { "mode", "map_max", "poll_first", "poll_max", "lost_after", "grace" } do
      refuses(name, function(value) assert(core.open(kit.tmp() .. "/other", { [name] = value })) end,
        { -1, NAN, INF, -INF, 2 ^ 60, 1e300, "7", true }, "bad field '" .. name .. "'")
    end
    refuses("max_in_flight", function(value)
      core.open(kit.tmp() .. "/other", { accounts = { { name = "a", max_in_flight = value } } })
    end, WHOLE, "bad field 'max_in_flight'")

    for _, name in ipairs { "connections", "connect_timeout_ms", "timeout_ms", "max_answer" } do
      refuses(name, function(value) core.http { [name] = value } end,
        { -1, NAN, INF, 2 ^ 40, 1e300, "7" }, "bad field '" .. name .. "'")
    end

    refuses("an attempt to sign", function(value)
      core.keyring { kit.SECRET }:sign(("0"):rep(26), value)
    end, { -1, NAN, INF, 2 ^ 32, 1.5, "1" }, "#2")
    refuses("an attempt of a callback", function(value)
      core.inbox():put(("0"):rep(26), value, "{}")
    end, { -1, 0, NAN, INF, 2 ^ 32, 257, 1.5, "1" }, "#2")
    refuses("an answer's status", function(value) core.wire_submit(value, "{}") end,
      { -1, NAN, INF, 2 ^ 40, 200.5, "200" }, "#1")
    refuses("a time to wait", function(value) core.await({}, value) end, { NAN, "1", true }, "#2")
    refuses("a time to be watched", function(value) core.watch(value, "why") end, { -1, NAN, INF, 1e300 }, "#1")
  end)

  it("refuses what is no table where fields are read", function()
    for _, wrong in ipairs { 1, "text", true, print } do
      assert.has_error(function() store:write({ wrong }, core.now()) end)
      assert.has_error(function() store:write({ { op = "create", task = wrong } }, core.now()) end)
      assert.has_error(function() store:page(wrong) end)
      assert.has_error(function() core.http(wrong) end)
      assert.has_error(function() core.stream(wrong) end)
      assert.has_error(function() core.fetch(wrong) end)
      assert.has_error(function() core.run(wrong) end)
    end
  end)

  it("takes an infinite deadline for no deadline, and one long past for past", function()
    local http = assert(core.http {})
    kit.finally(function() http:close() end)
    local request = { url = "http://127.0.0.1:9/" }
    for _, deadline in ipairs { INF, 2 ^ 60, 0 } do
      assert.equal("not_sent", assert(http:perform({ request }, deadline))[1].outcome)
    end
    assert.equal("not_sent", assert(http:perform({ request }, -INF))[1].outcome)
    core.await({}, -INF)
  end)

  it("drops fractions of milliseconds, and keeps those of seconds", function()
    local result = create { prompt = "p", expires_at = 4102444800000.75 }
    assert.equal(4102444800000, result.task.expires_at)
    local other = assert(core.open(kit.tmp() .. "/other", { poll_first = 1.5 }))
    kit.finally(function() other:close() end)
    assert.equal(1500, other:stats(0).first_poll_ms.fast)
  end)

  it("refuses a job with a key whose fingerprint is missing: it would be another one's", function()
    for _, print in ipairs { false, "", ("f"):rep(15) } do
      assert.error_matches(function()
        create { prompt = "p", key = "k", fingerprint = print or nil }
      end, "bad field 'fingerprint'")
    end
    assert.equal("ok", create { prompt = "p", key = "k", fingerprint = ("f"):rep(32) }.code)
  end)

  it("refuses a mode that it does not know", function()
    assert.error_matches(function() create { prompt = "p", mode = "turbo77" } end, "bad field 'mode'")
  end)

  it("says that the module with libcurl is missing, and that it is another version's", function()
    local dir, lua = kit.tmp(), kit.lua
    kit.sh(("mkdir %s/mjhook && cp %s %s/mjhook/"):format(dir, assert(package.searchpath("mjhook.core", package.cpath)),
      dir))
    local function clients(before)
      local script = before .. [[
        local core = require "mjhook.core"
        for _, name in ipairs { "http", "stream", "fetch", "need_curl" } do
          local client, err = core[name] { host = "localhost", port = 1, dir = "/tmp", sub = "x" }
          assert(client == nil and err.code == "io" and err.retryable)
          print(err)
        end
        assert(core.libraries().curl == nil)]]
      local out, code = kit.sh(("LUA_CPATH='%s/?.so' LUA_CPATH_5_4='%s/?.so' %s %s"):format(dir, dir, lua,
        kit.write(dir .. "/clients.lua", script)))
      assert.equal(0, code, out)
      return out
    end
    assert.equal(("the module mjhook.curl can't be loaded: module 'mjhook.curl' not found:\n"):rep(4):sub(1, -2),
      clients "")
    assert.equal(("the module mjhook.curl can't be loaded: it belongs to another version of mjhook\n"):rep(4)
      :sub(1, -2),
      clients "package.loaded['mjhook.curl'] = true; ")
  end)
end)
