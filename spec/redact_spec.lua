-- What a provider, a proxy or a handler quotes of our secrets: it is in no record, event, error, log line or file.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"

local KEY = "sk-spec-9f8e7d/6c5b+4a\"x"
local SECOND = "sk-spec-of-the-second-account-1"
local SECRET = "a secret/of+these & specs\"1"

local function percent(s)
  return (s:gsub("[^%w]", function(c) return ("%%%02X"):format(c:byte()) end))
end

local function in_json(s)
  return (cjson.encode(s):sub(2, -2))
end

local function in_html(s)
  return (s:gsub("[&\"<>/+=?]", function(c) return ("&#%d;"):format(c:byte()) end))
end

local WAYS = {
  plain = function(s) return s end,
  percent = percent,
  ["percent twice"] = function(s) return percent(percent(s)) end,
  JSON = in_json,
  ["JSON in JSON"] = function(s) return in_json(in_json(s)) end,
  HTML = in_html,
  ["a URL in JSON"] = function(s) return in_json(percent(s)) end,
}

describe("a quoted secret", function()
  after_each(kit.cleanup)

  local mj, token

  -- All that a provider was sent, written in some way.
  local function quoted(way, request)
    local hook_url = cjson.decode(request.body).hookUrl
    token = hook_url:match "sig=([%w_-]+)"
    local function as(s)
      return WAYS[way](s)
    end
    return ("%s and %s; POST %s\r\nAPI-KEY: %s\r\nX-Forwarded: sig=%s\r\nvia http://me:proxy-pass-1@proxy %s"):format(
      as(KEY), as(SECOND), as(hook_url), as(KEY), token, as(SECRET))
  end

  -- A mjhook whose provider answers a submission with what answer(request) gives: HTTP status and a table.
  local function open(answer, more)
    local settings = {
      api_key = false, secrets = { SECRET }, hook_url = "https://app.example/hook?x=1",
      accounts = { { name = "a", api_key = KEY, max_in_flight = 5 }, { name = "b", api_key = SECOND } },
    }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    settings = kit.settings(settings)
    settings.api_key = nil
    mj = assert(require("mjhook").open(settings))
    kit.finally(function() mj:close() end)
    function mj.exec.http(_, requests)
      local answers = {}
      for i, r in ipairs(requests) do
        local status, value, failure = answer(r)
        answers[i] = { outcome = failure and "maybe_sent" or "answered", status = status, error = failure,
                       body = value and cjson.encode(value), elapsed_ms = 1 }
      end
      return answers
    end
    return mj
  end

  local function everything(value, out)
    out = out or {}
    if type(value) == "table" then
      for k, v in pairs(value) do
        everything(k, out)
        everything(v, out)
      end
    else
      out[#out + 1] = tostring(value)
    end
    return table.concat(out, "\n")
  end

  -- No secret in any of the texts, in whatever way it is written.
  local function check(...)
    for _, text in ipairs { ... } do
      for _, one in ipairs { KEY, SECOND, SECRET, token, "proxy-pass-1" } do
        for way, as in pairs(WAYS) do
          assert.is_nil(text:find(as(one), 1, true), ("%s (%s) in: %s"):format(one, way, text:sub(1, 2000)))
        end
      end
      assert.is_nil(text:find("spec-9f8e7d", 1, true))
    end
  end

  local function check_all(task)
    local refused = assert(mj:refused {})
    local all = { everything(task), everything(refused), kit.log_text(), kit.read(kit.store .. "/data.mdb") }
    for event in mj:events {} do
      all[#all + 1] = everything(event)
    end
    check((table.unpack or unpack)(all)) -- luacheck: ignore
    return all[1]
  end

  local function submit()
    return mj:submit { prompt = "a fox" }
  end

  for way in pairs(WAYS) do
    it("is hidden in a refusal: " .. way, function()
      open(function(r) return 200, { status = 7, message = quoted(way, r) } end)
      local task = assert(submit())
      assert.equal("failed", task.state)
      assert.matches("[redacted]", task.error.message, 1, true)
      check_all(task)
      check(everything(mj:get(task.ref)))
    end)

    it("is hidden in what callbacks say: " .. way, function()
      local said
      open(function(r)
        said = quoted(way, r)
        return 200, { status = 0, data = { taskId = "Id1" } }
      end)
      local task = assert(submit())
      local uri = provider.hook_url(mj, task.ref, 1)
      assert.equal(200, mj:callback({ method = "POST", uri = uri, headers = {}, body = cjson.encode {
        taskId = "Id1", status = 2, failReason = said, mjPrompt = said, meta = { [said] = { said } } } }).status)
      task = mj:get(task.ref)
      assert.equal("failed", task.state)
      assert.is_not_nil(task.meta)
      assert.matches("[redacted]", check_all(task), 1, true)
    end)

    it("is hidden in callbacks that are refused: " .. way, function()
      local said
      open(function(r)
        said = quoted(way, r)
        return 200, { status = 0, data = { taskId = "Id1" } }
      end)
      local task = assert(submit())
      local uri = provider.hook_url(mj, task.ref, 1)
      for _, body in ipairs { said, cjson.encode { strange = said }, cjson.encode { status = said } } do
        assert.equal(400, mj:callback({ method = "POST", uri = uri, headers = {}, body = body }).status)
      end
      assert.equal(3, #mj:refused {})
      check_all(mj:get(task.ref))
    end)

    it("is hidden in what a policy is asked, and in what a handler gives as reason: " .. way, function()
      local said, heard = nil, {}
      open(function(r)
        said = quoted(way, r)
        return 200, { status = 1001, message = said }
      end, { policy = {
        on_refused = function(_, err)
          heard[#heard + 1] = err.message
          return "fail"
        end,
        on_failed = function(task)
          heard[#heard + 1] = everything(task)
          error("handler quotes " .. said)
        end,
      } })
      local task = assert(submit())
      assert(mj:deliver())
      assert.equal(2, #heard)
      check(heard[1], heard[2])
      check_all(mj:get(task.ref))
      assert.matches("[redacted]", kit.log_text(), 1, true)
    end)
  end

  it("is hidden in what polls and refresh() give", function()
    local said
    open(function(r)
      if r.path:find "submit" then
        said = quoted("JSON", r)
        return 200, { status = 0, data = { taskId = "Id1" } }
      end
      return 200, { status = 5, message = said }
    end)
    local task = assert(submit())
    local _, err = mj:refresh(task.ref)
    check(err.message)
    check_all(mj:get(task.ref))
  end)

  it("is hidden in errors of the network", function()
    open(function(r)
      return 0, nil, "recv failure: " .. quoted("plain", r)
    end)
    local task = assert(submit())
    assert.equal("ambiguous", task.state)
    check_all(task)
  end)

  it("is hidden in the beginning of a refused body that is too long to be kept whole", function()
    open(function(r)
      quoted("plain", r)
      return 200, { status = 0, data = { taskId = "Id1" } }
    end)
    local task = assert(submit())
    local uri = provider.hook_url(mj, task.ref, 1)
    for _, body in ipairs { ("x " .. KEY .. " y"):rep(10000), (" "):rep(65536 - 10) .. KEY .. (" "):rep(100000) } do
      assert.equal(400, mj:callback({ method = "POST", uri = uri, headers = {}, body = body }).status)
      local kept = mj:refused({ limit = 1 })[1]
      assert.same({ 65536, #body }, { #kept.body, kept.size })
      check(kept.body, everything(kept))
      assert.is_nil(kept.body:find(KEY:sub(1, 6), 1, true))
    end
    assert.is_nil((mj:readmit(mj:refused({ limit = 1 })[1].id)))
  end)

  it("is hidden in what mjhook-reconcile says of a handler, also with -v", function()
    open(function(r)
      quoted("plain", r)
      return 200, { status = 3, message = "no" }
    end)
    assert(submit())
    mj:close()
    local dir = kit.tmp()
    kit.write(dir .. "/config.lua", ([[return { store = %q, secrets = { %q }, base_url = "http://127.0.0.1:1",
      accounts = { { name = "a", api_key = %q }, { name = "b", api_key = %q } },
      policy = { on_event = function() return false, %q end } }]]):format(kit.store, SECRET, KEY, SECOND,
      "the far side says: API-KEY " .. KEY .. ", " .. percent(SECRET) .. " at http://x/?sig=" .. token))
    local out = kit.sh(("%s/bin/mjhook-reconcile -v -c %s/config.lua"):format(kit.build, dir))
    assert.matches("the far side says", out, 1, true)
    check(out)
  end)

  it("leaves images' addresses as they are, also signed ones", function()
    open(function(r)
      quoted("plain", r)
      return 200, { status = 0, data = { taskId = "Id1" } }
    end)
    local task = assert(submit())
    local url = "https://cdn.example/x.png?sig=0123456789abcdef&se=2026"
    mj:callback { method = "POST", uri = provider.hook_url(mj, task.ref, 1), headers = {}, body = cjson.encode {
      taskId = "Id1", status = 1, image = url, images = { url } } }
    task = mj:get(task.ref)
    assert.same({ url, { url } }, { task.image, task.images })
  end)

  it("is known to core.redact() once a configuration names it", function()
    open(function() return 200, {} end)
    assert.equal("x [redacted] y", core.redact("x " .. KEY .. " y"))
    assert.equal("a fox", core.redact "a fox")
  end)
end)
