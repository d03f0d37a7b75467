-- How results look: tables in pipes and on narrow terminals, what is nearest to a mistyped word, what is in the way.
local cli = require "cli"
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local text = require "mjhook.cli.text"

local LONG_USER, LONG_PROMPT = ("u"):rep(60), ("a long prompt "):rep(40) .. "to its end"

local function lines_of(s)
  local lines = {}
  for line in s:gmatch "[^\n]+" do
    lines[#lines + 1] = line
  end
  return lines
end

describe("mjhook", function()
  after_each(kit.cleanup)

  describe("writes a table that", function()
    local function put(n, prompt)
      local mj = kit.open()
      for i = 1, n do
        assert(mj:adopt { task_id = "T" .. i, prompt = prompt or "a fox", user_id = "u1" })
      end
      return mj
    end

    it("has all of each cell in a pipe, also in rows that come after the table was laid out", function()
      local mj = put(0)
      assert(mj:adopt { task_id = "first", prompt = LONG_PROMPT, user_id = LONG_USER })
      for i = 1, 210 do -- the newest 200 decide how wide the columns are
        assert(mj:adopt { task_id = "T" .. i, prompt = "p", user_id = "u" })
      end
      local result = cli.run({ "list" }, { COLUMNS = "40" })
      local lines = lines_of(result.out)
      assert.equal(212, #lines)
      assert.truthy(lines[212]:find(LONG_USER .. "  " .. LONG_PROMPT .. "$"), lines[212])
      assert.is_nil(result.out:find("…", 1, true))
    end)

    for _, columns in ipairs { 20, 30, 40, 50, 60, 80, 200 } do
      it(("keeps a row on one line of a terminal of %d columns"):format(columns), function()
        put(3, LONG_PROMPT)
        local out = cli.terminal(columns, "mjhook list; mjhook events", { NO_COLOR = "1" })
        local lines = lines_of(out)
        assert.equal(5, #lines, out) -- and events, which there are none of, in words
        for i = 1, 4 do
          assert.is_true(text.width(lines[i]) <= columns, lines[i])
        end
        if columns >= 40 then
          assert.matches("^REF +STATE", lines[1])
          assert.matches("^" .. ("%w"):rep(26) .. "  pending", lines[2])
        end
        if columns >= 80 then
          assert.matches("PROMPT$", lines[1])
        end
      end)
    end
  end)

  it("prints meta and context in a stable order", function()
    local mj = kit.open()
    local context = { z = 1, a = { y = 2, b = 3 }, m = 4 }
    local ref = assert(mj:adopt { task_id = "T1", prompt = "a fox", context = context }).ref
    local provider = require "mjhook.provider"
    local meta = '{"width":1,"height":2,"alpha":3,"k":4}' -- the provider's order
    local body = '{"taskId":"T1","status":1,"image":"https://img.example/x","meta":' .. meta .. "}"
    assert.equal(200, mj:callback { method = "POST", uri = provider.hook_url(mj, ref, 1), headers = {}, body = body }
      .status)
    for _ = 1, 3 do -- Lua 5.4 draws a new order for each process
      local out = cli.run({ "get", ref }).out
      assert.truthy(out:find('context     {"a":{"b":3,"y":2},"m":4,"z":1}', 1, true), out)
      assert.truthy(out:find("meta        " .. meta, 1, true), out)
    end
  end)

  it("says that there is nothing to kick, and in JSON shows an empty list", function()
    kit.open()
    local result = cli.run { "kick", "--all" }
    assert.same({ 0, "", "mjhook: no event is buried\n" },
      { result.code, result.out, result.err })
    result = cli.run { "kick", "--all", "--json" }
    assert.equal("", result.err)
    assert.same({ errors = {}, kicked = {} }, cjson.decode(result.out))
  end)

  describe("asks whether something else was meant by", function()
    for _, case in ipairs {
      { "a command", { "sumbit", "a fox" }, 'unknown command "sumbit": did you mean "submit"?' },
      { "an option", { "list", "--stat", "queued" }, 'unknown option "--stat": did you mean "--state"?' },
      { "an option of all commands", { "list", "--stroe", "/x" }, 'unknown option "--stroe": did you mean "--store"?' },
      { "a word of a few", { "list", "--state", "faild" }, ': did you mean "failed"?' },
      { "a part of a command", { "policy", "tets", "x" }, ': did you mean "test"?' },
    } do
      it(case[1], function()
        local result = cli.run(case[2])
        assert.equal(64, result.code)
        assert.truthy(result.err:find(case[3], 1, true), result.err)
      end)
    end

    it("a field of a job in a file", function()
      local result = cli.shell [[echo '{"prompt":"a fox","user":"u1","timeuot":600}' >jobs; mjhook submit --file jobs]]
      assert.equal(1, result.code)
      assert.matches('jobs:1: unknown field "[%w_]+": did you mean "[%w_]+"%?', result.err)
    end)
  end)

  describe("takes times with a unit", function()
    it("in a file of jobs, as on the command line", function()
      local result = cli.shell [[
        echo '{"prompt":"a fox","timeout":"10m","expires":"2h"}' >jobs
        echo '{"prompt":"a wolf","timeout":900,"expires":60}' >>jobs
        mjhook submit --file jobs --json]]
      assert.equal(0, result.code, result.err)
      local tasks = {}
      for line in result.out:gmatch "[^\n]+" do
        tasks[#tasks + 1] = cjson.decode(line)
      end
      assert.same({ 600, 900 }, { tasks[1].timeout, tasks[2].timeout })
      assert.is_true(math.abs(tasks[1].expires_at - core.now() - 7200000) < 60000)
    end)

    for written, what in pairs { ["10x"] = "timeout: seconds expected, or a number with s, m, h, d or w",
                                 ["1y"] = "timeout: seconds expected", ["99h"] = "timeout: whole seconds from 300",
                                 ["600"] = "bad field 'timeout' (number expected, got string)",
                                 [""] = "bad field 'timeout'" } do
      it(("but not %q"):format(written), function()
        local result = cli.shell(([[echo '{"prompt":"a fox","timeout":"%s"}' >jobs; mjhook submit --file jobs]])
          :format(written))
        assert.equal(1, result.code)
        assert.truthy(result.err:find("jobs:1: " .. what, 1, true), result.err)
      end)
    end
  end)

  describe("says what is in the way of a backup:", function()
    for what, case in pairs {
      ["a store"] = { "mjhook backup there >/dev/null; mjhook backup there", "there/data.mdb is in the way" },
      ["a file"] = { "touch there; mjhook backup there", "there is no directory" },
      ["a directory that is not there"] = { "mjhook backup not/there", "not/there: No such file or directory" },
      ["a link that leads nowhere"] = { "ln -s nowhere there; mjhook backup there", "there: " },
    } do
      it(what, function()
        kit.open()
        local result = cli.shell(case[1])
        assert.is_true(result.code == 1 or result.code == 73, result.code)
        assert.truthy(result.err:find(case[2], 1, true), result.err)
        assert.is_nil(result.err:find("--store", 1, true), result.err) -- it is the copy's place that is wrong
      end)
    end
  end)
end)
