-- Examples, policies and the code in the guides use what there is: scripts/dev/types compares them with annotations.
local kit = require "kit"
local snippets = require "snippets"

local TYPES = kit.quote(kit.root .. "/scripts/dev/types")

-- What the checker says of a text, and its exit code.
local function check(text, as)
  local path = kit.write(kit.tmp() .. "/code.lua", text)
  local out, code = kit.sh(("%s %s %s"):format(TYPES, as and "--as " .. as or "", kit.quote(path)))
  return out:gsub("[^\n]*code.lua:", ""), code
end

local AS = { ["lua config"] = "mjhook.Config", ["lua policy"] = "mjhook.Policy" }
local PART = "local mj = assert(require('mjhook').open()); local task = assert(mj:submit { prompt = 'x' }); "

describe("by the annotations", function()
  after_each(kit.cleanup)

  it("examples and policies use what there is", function()
    local files = kit.sh(("cd %s && ls scripts/examples/*.lua scripts/examples/*/*.lua scripts/policies/*.lua "
      .. "scripts/demo.d/*.lua scripts/mjhook.cgi"):format(kit.quote(kit.root))):gsub("\n", " ")
    assert.same({ "", 0 }, { kit.sh(("cd %s && %s %s"):format(kit.quote(kit.root), TYPES, files)) })
  end)

  it("the code in README and the guides uses what there is", function()
    local n = 0
    for _, path in ipairs(snippets.documents()) do
      for _, block in ipairs(snippets.of(path)) do
        local texts = {}
        if block.kind:find "^lua " then
          texts[1] = (block.kind == "lua part" and PART or "") .. block.text
        end
        for code in block.text:gmatch "_by_lua_block%s*(%b{})" do
          texts[#texts + 1] = code:sub(2, -2)
        end
        for _, text in ipairs(texts) do
          local said, code = check(text, AS[block.kind])
          assert.same({ "", 0 }, { said, code }, ("%s:%d"):format(path, block.line))
          n = n + 1
        end
      end
    end
    assert.is_truthy(n > 10)
  end)

  local OPEN = 'local mj = assert(require("mjhook").open()) '
  local FAULTS = {
    { "a key of the configuration", 'require("mjhook").open { stoer = "/x" }', "mjhook.Options", "stoer" },
    { "a function", 'require("mjhook").open():sumbit { prompt = "x" }', "mjhook.Instance", "sumbit" },
    { "a function behind assert", OPEN .. "mj:sumbit {}", "mjhook.Instance", "sumbit" },
    { "a field of a job", 'require("resty.mjhook").submit { promt = "x" }', "mjhook.Job", "promt" },
    { "a word", 'require("resty.mjhook").submit { prompt = "x", mode = "slow" }', "mjhook.Mode", "slow" },
    { "a field of a task", 'print(require("resty.mjhook").status("x").stat)', "mjhook.Task", "stat" },
    { "a field of an error", 'local _, err = require("mjhook").open() print(err.cod)', "mjhook.Error", "cod" },
    { "a field of a listed task", OPEN .. "for t in mj:tasks {} do print(t.imgs) end", "mjhook.Task", "imgs" },
    { "a field in a list", OPEN .. 'for _, a in ipairs(mj:get("x").attempts) do print(a.wrd) end', "mjhook.Attempt",
      "wrd" },
    { "a handler's setting", 'return require "mjhook.handlers.archive" { dirr = "/x" }',
      "mjhook.handlers.ArchiveSettings", "dirr" },
    { "a script of the testing kit", 'require("mjhook.testing").new().provider:finnish("x")',
      "mjhook.testing.Provider", "finnish" },
    { "a function of a policy", "return { on_succeded = function() end }", "mjhook.Policy", "on_succeded",
      "mjhook.Policy" },
    { "what a handler is given", "local function f(task, ctx) return task.ref, ctx.evnt end return { on_lost = f }",
      "mjhook.Context", "evnt", "mjhook.Policy" },
    { "a policy in a configuration", "return { policy = { on_event = { function(t) return t.urll end } } }",
      "mjhook.Task", "urll", "mjhook.Config" },
  }
  for _, fault in ipairs(FAULTS) do
    it(("%s that is not there is found"):format(fault[1]), function()
      local said, code = check(fault[2], fault[5])
      assert.equal(1, code, said)
      assert.matches(fault[3], said, 1, true)
      assert.matches(('"%s"'):format(fault[4]), said, 1, true)
    end)
  end
end)
