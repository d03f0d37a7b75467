-- A host program whose locale has a decimal comma: what is stored, sent, measured and compared has a point.
local core = require "mjhook.core"
local kit = require "kit"

-- Lua 5.4 compiles no "0.5" in a locale whose point has several bytes; LuaJIT reads and writes numbers by itself.
local NAMES = rawget(_G, "jit") and { "de_DE", "fr_FR", "ps_AF" } or { "de_DE", "fr_FR" }

describe("a decimal comma", function()
  local places

  -- Real locales, made in a directory of their own; the machine's stay as they are.
  setup(function()
    places = kit.sh "mktemp -d"
    for _, name in ipairs(NAMES) do
      local said, code = kit.sh(("localedef -c -i %s -f UTF-8 %s/%s.UTF-8"):format(name, places, name))
      assert(kit.read(("%s/%s.UTF-8/LC_NUMERIC"):format(places, name)), said .. code)
    end
  end)
  teardown(function()
    os.execute("rm -rf " .. kit.quote(places))
  end)
  after_each(kit.cleanup)

  -- Runs code in a child that has set the locale, before or after it loaded mjhook. Gives what it printed.
  local function run(name, first, code)
    local set = ("assert(os.setlocale(%q))\n"):format(name .. ".UTF-8")
    local load = "local core, json = require 'mjhook.core', require 'mjhook.json'\nlocal mjhook = require 'mjhook'\n"
    local out, status = kit.sh(("LOCPATH=%s %s"):format(places, kit.lua_command((first and set .. load or load .. set)
      .. "local STORE = " .. ("%q"):format(kit.store or "") .. "\n" .. code)))
    assert.equal(0, status, out)
    return out
  end

  if not rawget(_G, "jit") then
    it("is what the C library writes in these tests", function()
      assert.equal("1,5", run("de_DE", true, "io.write((('%.1f'):format(1.5)))"))
    end)
  end

  local FLOWS = [[
    local mj = assert(mjhook.open { store = STORE, api_key = "a-key-of-the-spec", base_url = "http://127.0.0.1:1",
      log = function() end,
      policy = { on_event = require "mjhook.handlers.exec" { "/usr/bin/tee", STORE .. "/told" } } })
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox", key = "k",
      context = { price = 1.5, small = 1e-7, big = 1234567.25, whole = 7 } })
    mj.exec:commit { { op = "signal", kind = "succeeded", source = "poll", ref = task.ref, task_id = "Id1",
      image = "https://x.example/1.png", meta = '{"seed":0.125,"list":[2.5e3]}' } }
    task = mj:get(task.ref)
    print(task.context.price == 1.5, task.context.big == 1234567.25, task.meta.seed == 0.125, task.meta.list[1] == 2500)
    print(json.encode { a = 0.1 }, json.encode { 1.5, 2.25e-10 }, core.number(0.5), core.number(1 / 3, 3))
    print(json.decode("[-1.5e3]")[1] == -1500, json.decode("0.5") == 0.5, (json.decode "1,5"))
    print(require("mjhook.cli.json").encode { a = 1.5 })
    assert(mj:deliver())
    local again = assert(mj:adopt { task_id = "Id1", prompt = "fox", key = "k",
      context = { price = 1.5, small = 1e-7, big = 1234567.25, whole = 7 } })
    print(again.duplicate)
    for line in mj:metrics():gmatch "[^\n]+" do
      assert(line:match "^#" or line:match " %-?%d+$" or line:match " %-?%d+%.%d+$", line)
    end
    mj:close() ]]

  for _, name in ipairs(NAMES) do
    for _, first in ipairs { true, false } do
      it(("changes nothing that is stored, told or measured: %s, set %s"):format(name, first and "before" or "after"),
        function()
          kit.settings {}
          local out = run(name, first, FLOWS)
          assert.same({
            "true\ttrue\ttrue\ttrue", '{"a":0.1}\t[1.5,2.25e-10]\t0.5\t0.333', "true\ttrue\tnil", '{"a":1.5}', "true",
          }, (function()
            local lines = {}
            for line in out:gmatch "[^\n]+" do
              lines[#lines + 1] = line
            end
            return lines
          end)())
          local told = kit.read(kit.store .. "/told")
          assert.matches('"price":1.5', told, 1, true)
          assert.matches('"small":1e-07', told, 1, true)
          assert.is_nil(told:find("%d,%d%d*[,}]"))
          -- Another process, without the locale, knows the job again.
          local mj = kit.open()
          local again = assert(mj:adopt { task_id = "Id1", prompt = "fox", key = "k",
            context = { price = 1.5, small = 1e-7, big = 1234567.25, whole = 7 } })
          assert.is_true(again.duplicate)
          assert.equal(1.5, again.context.price)
        end)
    end
  end

  it("does not change how numbers are written here", function()
    for v, text in pairs { [0.1] = "0.1", [1e21] = "1e+21", [123456789012] = "123456789012",
                           [1 / 3] = "0.3333333333333333", [2 ^ 53] = "9007199254740992", [-2.5] = "-2.5",
                           [1e-300] = "1e-300" } do
      assert.equal(text, core.number(v))
      assert.equal(v, tonumber(text))
    end
  end)
end)
