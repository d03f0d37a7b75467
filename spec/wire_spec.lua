-- What of a provider's words is kept: text, addresses of images.
local cjson = require "cjson"
local core = require "mjhook.core"
local slow = require "slow"

-- What a task object says, given as a table, or text that only its bytes tell.
local function word(object)
  return assert(core.wire_callback(type(object) == "string" and object or cjson.encode(object)))
end

local MAX_REASON = 500

local function reason(text)
  return word { taskId = "T1", status = 2, failReason = text }.error
end

describe("a provider's text", function()
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
      local fine = byte > 32 and byte < 127 and not ('"<>\\'):find(string.char(byte), 1, true)
      assert.same(fine and { url } or {}, images { url }, byte)
    end
  end)
end)
