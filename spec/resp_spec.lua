-- Redis' protocol without Redis: bytes to replies, however they are cut, and limits for each kind of too much.
local resp = require "mjhook.handlers.resp"

local REPLIES = {
  { "+OK\r\n", { kind = "status", value = "OK" } },
  { "+\r\n", { kind = "status", value = "" } },
  { "-ERR no such thing\r\n", { kind = "error", value = "ERR no such thing" } },
  { ":1000\r\n", { kind = "integer", value = 1000 } },
  { ":-1\r\n", { kind = "integer", value = -1 } },
  { "$5\r\na\r\nb\0\r\n", { kind = "bulk", value = "a\r\nb\0" } },
  { "$0\r\n\r\n", { kind = "bulk", value = "" } },
  { "$-1\r\n", { kind = "null" } },
  { "*-1\r\n", { kind = "null" } },
  { "*0\r\n", { kind = "array", value = {} } },
  { "*2\r\n:7\r\n*2\r\n$1\r\nx\r\n$-1\r\n", { kind = "array", value = {
    { kind = "integer", value = 7 },
    { kind = "array", value = { { kind = "bulk", value = "x" }, { kind = "null" } } },
  } } },
}

describe("resp", function()
  it("writes a command as it is, whatever bytes it has", function()
    assert.equal("*3\r\n$4\r\nXADD\r\n$0\r\n\r\n$6\r\na\r\n\0\255b\r\n", resp.command("XADD", "", "a\r\n\0\255b"))
  end)

  it("reads every kind of reply, in one piece, byte by byte, and many at once", function()
    local all, one = {}, resp.reader()
    for i, case in ipairs(REPLIES) do
      all[i] = case[1]
      local reader = resp.reader()
      reader:feed(case[1])
      assert.same(case[2], reader:next())
      assert.is_true(reader:empty())
      assert.same({ nil, nil }, { reader:next() })
      for k = 1, #case[1] do
        assert.same({ nil, nil }, { one:next() })
        one:feed(case[1]:sub(k, k))
      end
      assert.same(case[2], one:next())
    end
    one:feed(table.concat(all))
    for _, case in ipairs(REPLIES) do
      assert.is_false(one:empty())
      assert.same(case[2], one:next())
    end
    assert.is_true(one:empty())
  end)

  it("calls nonsense by its name and believes nothing behind it", function()
    for text, words in pairs {
      ["HTTP/1.1 200 OK\r\n"] = "no reply begins", ["\0"] = "no reply begins", ["\r\n+OK\r\n"] = "no reply begins",
      ["_\r\n"] = "no reply begins", ["+O\nK\r\n"] = "line break", ["-a\rb\r\n"] = "line break",
      [":1.5\r\n"] = "number", [":\r\n"] = "number", [":0x1\r\n"] = "number", [":123456789012345678901\r\n"] = "number",
      ["$-2\r\n"] = "length", ["$\r\n"] = "length", ["$1e1\r\n"] = "length", ["$ 1\r\n"] = "length",
      ["$00000000001\r\n"] = "length", ["*x\r\n"] = "length", ["*-2\r\n"] = "length",
      ["$1\r\nab\r\n"] = "longer", ["$2\r\nab\n\n"] = "longer", ["*1\r\nx"] = "no reply begins",
    } do
      local reader = resp.reader()
      reader:feed(text)
      local reply, why = reader:next()
      assert.is_nil(reply)
      assert.is_truthy(why and why:find(words, 1, true), text .. ": " .. tostring(why))
      reader:feed "+OK\r\n"
      assert.same({ nil, why }, { reader:next() })
    end
  end)

  it("keeps to its limits, also when the reply is not complete", function()
    local limits = { max_line = 10, max_bulk = 20, max_items = 3, max_depth = 2, max_reply = 40 }
    for text, words in pairs {
      ["+" .. ("x"):rep(12)] = "a line of more than 10", ["+" .. ("x"):rep(11) .. "\r\n"] = "a line of more than 10",
      ["$" .. ("1"):rep(12)] = "a line of more than 10",
      ["$21\r\n"] = "bytes of more than 20", ["*4\r\n"] = "items of more than 3",
      ["*2\r\n*2\r\n"] = "more than 3 items", ["*1\r\n*1\r\n*1\r\n"] = "more than 2 deep",
      ["*3\r\n$20\r\n" .. ("x"):rep(20) .. "\r\n$20\r\n" .. ("x"):rep(10)] = "a reply of more than 40",
    } do
      local reader = resp.reader(limits)
      reader:feed(text)
      local reply, why = reader:next()
      assert.is_nil(reply)
      assert.is_truthy(why and why:find(words, 1, true), text .. ": " .. tostring(why))
    end
    for _, text in ipairs {
      "+" .. ("x"):rep(10) .. "\r\n", "$20\r\n" .. ("x"):rep(20) .. "\r\n", "*2\r\n*1\r\n:1\r\n:1\r\n",
    } do
      local reader = resp.reader(limits)
      reader:feed(text)
      assert.is_table(reader:next())
    end
  end)

  it("never raises and never grows, whatever it is fed", function()
    local bytes = { "+", "-", ":", "$", "*", "\r", "\n", "\r\n", "0", "1", "9", "-1", "x", "\0", "\255" }
    math.randomseed(7)
    for _ = 1, 3000 do
      local reader, text = resp.reader { max_line = 30, max_bulk = 30, max_items = 9, max_reply = 60 }, {}
      for i = 1, 40 do
        text[i] = bytes[math.random(#bytes)]
        reader:feed(text[i])
        local reply, why
        repeat
          reply, why = reader:next()
          assert.is_true(reply == nil or type(reply.kind) == "string")
        until not reply
        assert.is_true(why == nil or type(why) == "string")
        assert.is_true(#reader.buffer <= 100)
      end
    end
  end)
end)
