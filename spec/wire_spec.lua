-- What of a provider's words is kept: text, addresses of images.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local slow = require "slow"

-- What a task object says, given as a table, or text that only its bytes tell: the same in a callback and in an answer.
local function word(object)
  local text = type(object) == "string" and object or cjson.encode(object)
  local told = assert(core.wire_callback(text))
  local words = assert(core.wire_status('{"status":0,"data":[' .. text .. "]}", { told.task_id }))
  assert.same(told, core.status(words[told.task_id]))
  return told
end

local MAX_REASON = 500

local function reason(text)
  return word { taskId = "T1", status = 2, failReason = text }.error
end

describe("a provider's text", function()
  before_each(kit.collect_hard)
  after_each(kit.cleanup)

  it("is kept as it is when it is well-formed", function()
    for _, text in ipairs { "", "a fox", "two\nlines\tand a tab", ("x"):rep(500),
                            "f\195\188chse \240\159\166\138 \239\191\191" } do
      assert.equal(text, reason(text))
    end
  end)

  it("has a ? for each byte that is no UTF-8 or a control character", function()
    assert.equal("a?b?c??d", reason "a\0b\127c\192\128d")
    assert.equal("??? ?? ????", reason "\237\160\128 \195\x1b \244\144\128\128") -- a surrogate; beyond Unicode
    assert.equal("?", reason "\226")
    assert.equal("??", reason "\226\130")
  end)

  it("is cut at a character, not inside of one", function()
    assert.equal(("x"):rep(499), reason(("x"):rep(499) .. "\195\188"))
    assert.equal(("x"):rep(498) .. "\195\188", reason(("x"):rep(498) .. "\195\188y"))
    assert.equal(("x"):rep(499) .. "?", reason(("x"):rep(499) .. "\255\255"))
    assert.equal(("?"):rep(500), reason(("\0"):rep(501)))
  end)

  it("is cleaned as a slow and simple cleaner does it, whatever the bytes", function()
    local parts = { "x", "\195\188", "\226\130\172", "\240\159\166\138", "\n", "\0", "\127", "\195", "\255",
                    "\226\130", "\128" }
    local state = 7
    for _ = 1, 3000 do
      local text = {}
      state = (state * 16807) % 2147483647
      for i = 1, state % 300 do
        state = (state * 16807) % 2147483647
        text[i] = parts[state % (state % 2 == 0 and 4 or #parts) + 1]
      end
      text = table.concat(text)
      assert.equal(slow.cleaned(text, MAX_REASON), reason(text))
    end
  end)
end)

describe("a provider's images", function()
  local function images(list)
    return word { taskId = "T1", status = 1, images = list }.images
  end

  it("are addresses, as strings or as objects with a url, without what is none", function()
    assert.same({ "https://a.example/1", "http://a.example/2" },
      images { "https://a.example/1", { url = "http://a.example/2" }, "ftp://a.example", "", 7, {}, true })
  end)

  it("are at most sixteen, of a list of any length", function()
    local list, expected = {}, {}
    for i = 1, 100 do
      list[i] = i % 2 == 0 and "none" or "https://a.example/" .. i
      expected[(i + 1) / 2] = i % 2 == 1 and i < 32 and list[i] or expected[(i + 1) / 2]
    end
    assert.same(expected, images(list))
    assert.same({}, images {})
  end)

  it("have no character that could end an attribute or a header", function()
    for byte = 0, 255 do
      local url = "https://a.example/" .. string.char(byte) .. "x"
      local fine = byte >= 32 and byte ~= 127 and not ('"<>\\'):find(string.char(byte), 1, true)
      local encode = byte == 32 or byte > 127 or byte == ("%"):byte()
      local expected = encode and ("https://a.example/%%%02Xx"):format(byte) or url
      assert.same(fine and { expected } or {}, images { url }, byte)
    end
  end)
end)

describe("an answer to a status request", function()
  local function answer(entries)
    return '{"status":0,"data":[' .. table.concat(entries, ",") .. "]}"
  end

  local function many(id)
    local entries = {}
    for i = 1, 125000 do
      entries[i] = ('{"taskId":"%s","status":0}'):format(id:format(i))
    end
    return entries
  end

  local function memory_of(f)
    collectgarbage()
    collectgarbage "stop"
    local before = collectgarbage "count"
    local result = f()
    local kib = collectgarbage "count" - before
    collectgarbage "restart"
    return kib, result
  end

  it("gives the words by the ids that were asked for, one of each, and of others none", function()
    local body = answer { '{"taskId":"T2","status":2}', '{"taskId":"X","status":1}', '{"taskId":"T1","status":2}', "7",
                          '{"taskId":"T3"}', '{"taskId":"T\\u0031","status":"2"}', '{"status":0}' }
    local words, unread, odd = core.wire_status(body, { "T1", "T2", "T3", "T4" })
    assert.same({ T3 = true }, unread)
    assert.equal(2, odd)
    local first, second = core.status(words.T1), core.status(words.T2)
    assert.equal("failed", first.kind)
    assert.equal("failed", second.kind)
    assert.same({ "T1", "T2" }, { first.task_id, second.task_id })
    words.T1, words.T2 = nil, nil
    assert.same({}, words)
    assert.same({}, core.wire_status(body, {}))
    assert.is_nil((core.wire_status("{", {})))
  end)

  it("makes no tables of 125,000 ids that were not asked for, nor of one that is there as often", function()
    for _, id in ipairs { "N%06d", "T1" } do
      local body = answer(many(id))
      local kib, words = memory_of(function()
        return core.wire_status(body, { "T1", "T2" })
      end)
      assert.equal(id == "T1" and "running" or nil, words.T1 and core.status(words.T1).kind)
      assert.is_true(kib < #body / 1024 + 100, kib) -- the scratch, which is as large as the text, and next to nothing
    end
  end)

  it("is gone through as quickly for a thousand ids as when it is only checked for being JSON", function()
    local body, asked = answer(many "N%06d"), {}
    for i = 1, 1000 do
      asked[i] = ("N%06d"):format(i * 100)
    end
    local function seconds(f)
      local best = math.huge
      for _ = 1, 5 do
        local from = os.clock()
        f()
        best = math.min(best, os.clock() - from)
      end
      return best
    end
    local checked = seconds(function()
      return core.wire_callback(body) -- reads all of it, and finds no task
    end)
    local picked = seconds(function()
      return core.wire_status(body, asked)
    end)
    assert.is_true(picked < 10 * checked, ("%f s against %f s"):format(picked, checked))
  end)
end)

describe("a status in bytes", function()
  it("is nothing but what an answer gave", function()
    local body = '{"status":0,"data":[{"taskId":"T1","status":1,"image":"https://a.example/x"}]}'
    local bytes = core.wire_status(body, { "T1" }).T1
    assert.equal("succeeded", core.status(bytes).kind)
    for _, wrong in ipairs { "", "x", bytes .. "x", bytes:sub(1, -2), "\255" .. bytes:sub(2), "\0" .. bytes:sub(2) } do
      assert.is_false(pcall(core.status, wrong))
    end
  end)
end)

describe("the provider's profile", function()
  it("is seen by Lua, names what is sent, and can't be changed", function()
    local P = core.provider
    local request = provider.submit_request({ config = {} }, { ref = "R", attempt = 1, account = "a", prompt = "a fox",
                                                                mode = "relaxed", timeout = 600 })
    assert.equal(P.path.submit, request.path)
    assert.same({ [P.request.prompt] = "a fox", [P.request.mode] = P.mode.relaxed, [P.request.timeout] = 600 },
      cjson.decode(request.body))
    assert.equal(core.wire_callback(('{"%s":"T1","%s":%d}'):format(P.field.task_id, P.field.status,
      P.status.failed)).kind, "failed")
    for _, t in ipairs { P, P.field, P.status, P.envelope } do
      local ok, why = pcall(function()
        t.status = "another"
      end)
      assert.is_false(ok)
      assert.truthy(why:find("core.provider can't be changed", 1, true))
    end
  end)
end)
