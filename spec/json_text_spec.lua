-- JSON that is not ours to read, a context and the provider's meta: kept digit by digit and passed on as it was.
local json = require "mjhook.json"
local kit = require "kit"
local mjhook = require "mjhook"

local is_luajit = rawget(_G, "jit") ~= nil
local BIG = '{"id":9007199254740993,"snow":1234567890123456789,"huge":123456789012345678901234567890,'
  .. '"list":[],"map":{},"deep":[[],{},[{}]],"price":1.10,"text":"a\\u00e9\\/b","n":-0,"null":null}'

describe("JSON text", function()
  after_each(kit.cleanup)

  it("as context is stored as it was given", function()
    local mj = kit.open()
    local task = assert(mj:adopt { task_id = "Id1", context = assert(mjhook.raw_json(" " .. BIG .. "\n")) })
    assert.equal(BIG, mj.store:get(task.ref).context)
    task = mj:get(task.ref)
    assert.equal(1.1, task.context.price)
    assert.equal("aé/b", task.context.text)
    assert.equal(json.null, task.context.null)
    assert.is_true(json.is_empty_array(task.context.list))
    assert.is_false(json.is_empty_array(task.context.map))
    if not is_luajit then
      assert.equal("9007199254740993", tostring(task.context.id))
      assert.equal("1234567890123456789", ("%d"):format(task.context.snow))
    end
  end)

  it("as the provider's meta is kept as it came", function()
    local mj = kit.open { hook_url = "https://app.example/hook" }
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox" })
    local uri = require("mjhook.provider").hook_url(mj, task.ref, 1)
    assert.equal(200, mj:callback({ method = "POST", uri = uri, headers = {},
      body = '{"taskId":"Id1","status":1,"image":"https://x.example/1.png","meta":' .. BIG .. "}" }).status)
    assert.equal(BIG, mj.store:get(task.ref).meta)
    assert.equal(BIG, json.encode(mj:get(task.ref).meta))
  end)

  it("is passed on by encode() as long as nothing in it is changed", function()
    local value = json.keep(BIG)
    assert.equal('{"a":' .. BIG .. "}", json.encode { a = value })
    assert.equal(BIG, require("mjhook.cli.json").encode(value))
    value.price = 2
    value.id, value.snow, value.huge = nil, nil, nil
    local text = json.encode(value)
    assert.matches('"price":2', text, 1, true)
    assert.matches('"list":[]', text, 1, true)
    assert.matches('"map":{}', text, 1, true)
    assert.matches('"deep":[[],{},[{}]]', text, 1, true)
  end)

  it("goes to other services as it was", function()
    local dir = kit.tmp()
    local mj = kit.open { policy = { on_event = require "mjhook.handlers.exec" { "/usr/bin/tee", dir .. "/told" } } }
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox", context = assert(mjhook.raw_json(BIG)) })
    mj.exec:commit { { op = "signal", kind = "succeeded", source = "poll", ref = task.ref, task_id = "Id1",
      image = "https://x.example/1.png" } }
    assert.equal(1, assert(mj:deliver()).delivered)
    assert.matches('"context":' .. BIG, kit.read(dir .. "/told"), 1, true)
  end)

  it("of a task may be the context of another, digit by digit", function()
    local mj = kit.open()
    local first = assert(mj:adopt { task_id = "Id1", context = assert(mjhook.raw_json(BIG)) })
    local second = assert(mj:adopt { task_id = "Id2", context = mj:get(first.ref).context })
    assert.equal(BIG, mj.store:get(second.ref).context)
  end)

  it("that differs in a digit which Lua's numbers lose is another job", function()
    local mj = kit.open()
    local function adopt(text)
      return mj:adopt { task_id = "Id1", prompt = "fox", key = "k", context = assert(mjhook.raw_json(text)) }
    end
    assert(adopt '{"id":9007199254740993}')
    assert.is_true(adopt('{"id":9007199254740993}').duplicate)
    assert.equal("key_conflict", select(2, adopt '{"id":9007199254740992}').code)
    assert.equal("key_conflict", select(2, adopt '{"id":9007199254740994}').code)
  end)

  it("means the same job as the table that it stands for", function()
    local mj = kit.open()
    local text = assert(mjhook.raw_json ' {"b" : [1.50, "x"], "a":1 }')
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox", key = "k", context = text })
    local again = assert(mj:adopt { task_id = "Id1", prompt = "fox", key = "k", context = { a = 1, b = { 1.5, "x" } } })
    assert.is_true(again.duplicate)
    assert.equal(task.ref, again.ref)
  end)

  it("that is none, or a number that loses digits, is refused", function()
    for _, text in ipairs { "", "{", "[1,]", "{'a':1}", "nan", "[1e999]", '"\255"', "9007199254740993", "1 2" } do
      local value, err = mjhook.raw_json(text)
      assert.is_nil(value)
      assert.equal("invalid", err.code)
    end
    assert.equal(9007199254740992, mjhook.raw_json "9007199254740992")
    assert.equal("x", mjhook.raw_json '"x"')
    assert.same({}, mjhook.raw_json "[]")
  end)

  describe("on the command line", function()
    local dir

    local function run(words)
      return kit.sh(("env MJHOOK_STORE=%s/store MIDJOURNEY_API_KEY=a-key-of-the-spec %s %s %s/scripts/mjhook %s")
        :format(dir, "MIDJOURNEY_API_BASE_URL=http://127.0.0.1:1", kit.lua, kit.root, words))
    end

    before_each(function() dir = kit.tmp() end)

    it("comes out of get and list as it was given to submit", function()
      local ref = run("submit --context " .. kit.quote(BIG) .. " fox"):match "^%S+"
      for _, words in ipairs { "get --json " .. ref, "list --json", "get " .. ref } do
        assert.matches(BIG, run(words), 1, true)
      end
    end)

    it("comes out of a file's lines as it was, and lines that differ in a digit are two jobs", function()
      local lines = { '{"prompt":"a","context":' .. BIG .. "}", '{"context":{"id":9007199254740993},"prompt":"b"}',
                      '{"context":{"id":9007199254740992},"prompt":"b"}', '{"prompt":"c","context":[]}',
                      '{"prompt":"d","context":{}}' }
      local path = kit.write(dir .. "/jobs", table.concat(lines, "\n") .. "\n")
      run("submit --file " .. path)
      local out = run "list --json"
      for _, text in ipairs { BIG, '{"id":9007199254740993}', '{"id":9007199254740992}', "[]", "{}" } do
        assert.matches('"context":' .. text, out, 1, true)
      end
      assert.equal(5, select(2, out:gsub("\n", "\n")) + 1)
      path = kit.write(dir .. "/again", table.concat({ lines[3], lines[2], lines[1] }, "\n") .. "\n")
      run("submit --file " .. path)
      assert.equal(5, select(2, run("list --json"):gsub("\n", "\n")) + 1)
    end)

    it("is harmless on a terminal, and still the same JSON", function()
      local given = '{"a":"x\226\128\174y\226\128\139z\243\160\129\129"}'
      local ref = run("submit --context " .. kit.quote(given) .. " fox"):match "^%S+"
      local out = run("get --json " .. ref)
      assert.matches('"context":{"a":"x\\u202ey\\u200bz\\udb40\\udc41"}', out, 1, true)
      assert.equal("x\226\128\174y\226\128\139z\243\160\129\129", json.decode(out).context.a)
    end)
  end)

  it("is read the same by both Luas", function()
    assert.same({ 1, 2.5, "x", true, false, {}, { a = 1 } }, json.decode ' [1, 2.5, "x", true, false, {}, {"a":1}] ')
    assert.equal(json.null, json.decode "null")
    assert.equal("A\195\169\240\159\166\138\n/", json.decode [["\u0041\u00e9\ud83e\udd8a\n\/"]])
    for _, text in ipairs { "", "{", "nul", "[1 2]", "01", "1.", ".5", "+1", "'x'", "[1e400]", ("["):rep(30) } do
      local value, why = json.decode(text)
      assert.is_nil(value)
      assert.is_string(why)
    end
    assert.equal('{"a":"\\"\\\\\\n\\u0001\\u007f/"}', json.encode { a = '"\\\n\1\127/' })
  end)
end)
