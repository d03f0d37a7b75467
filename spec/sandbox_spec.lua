-- A policy in the sandbox, in this process: what was replaced for it is back afterwards.
local core = require "mjhook.core"
local sandbox = require "mjhook.policy_test.sandbox"

describe("a policy in the sandbox", function()
  local function policy(functions)
    return assert(sandbox.load(functions))
  end

  local function places()
    return { os.execute, os.exit, os.remove, os.rename, os.tmpname, io.popen, io.tmpfile, io.open, io.output, io.stdout,
             print, core.open, core.http, core.stream, core.fetch, core.fork, core.run, io.output() }
  end

  it("leaves everything in its place, whatever it did", function()
    local before = places()
    local asked = policy {
      on_callback = function() return "accept" end, on_refused = function() error "x" end,
      next_poll = function() os.remove "/nowhere/at/all" end,
      resolve_ambiguous = function() while true do end end,
    }
    for name, answer in pairs { on_callback = "accept", on_refused = "default", next_poll = "default",
                                resolve_ambiguous = "lost" } do
      assert.equal(answer, (asked:decide(name, {}, {})))
      assert.same(before, places(), name)
    end
    assert.is_nil(sandbox.load "/no such file")
    assert.same(before, places())
  end)

  it("is at fault once for what it did once", function()
    local harmful = true
    local asked = policy { on_callback = function()
      if harmful then
        pcall(os.remove, "/nowhere/at/all")
      end
      return "accept"
    end }
    assert.equal("verify", (asked:decide "on_callback"))
    harmful = false
    assert.same({ "accept" }, { asked:decide "on_callback" })
  end)

  it("hands over what it is asked with, and the time that it names", function()
    local got
    local asked = policy { on_refused = function(...)
      got = { ... }
      return "retry", 1.5
    end }
    assert.same({ "retry", 1500 }, { asked:decide("on_refused", "task", "err") })
    assert.same({ "task", "err" }, got)
  end)
end)
