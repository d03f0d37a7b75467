-- Processes of one store whose clocks differ: none sends more than there are slots.
local kit = require "kit"
local sim = require "sim"

local FAKETIME = kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"

describe("a process whose clock runs ahead of the others'", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  -- Runs Lua code with `mj` on the test's store, in a process whose wall clock is ahead by so many seconds.
  local function ahead(seconds, code)
    local out, rc = kit.sh(("env LD_PRELOAD=%s FAKETIME_DONT_FAKE_MONOTONIC=1 FAKETIME=%+d %s"):format(FAKETIME,
      seconds,
      kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q, api_key = %q, secrets = { %q }, base_url = %q,
          hook_url = %q, max_in_flight = 3 })
        %s
        mj:close()
      ]]):format(kit.store, kit.KEY, kit.SECRET, sim.url, sim.url .. "/_sim/sink", code))))
    assert(rc == 0, out)
    return out
  end

  local function unfinished()
    local n = 0
    for _, job in ipairs(sim.jobs()) do
      n = n + (job.status == 0 and 1 or 0)
    end
    return n
  end

  it("frees no slot that is held, however often it and they write", function()
    assert(FAKETIME ~= "", "libfaketime is not installed")
    local mj = kit.open({ max_in_flight = 3 }, sim)
    for i = 1, 8 do
      mj:submit { prompt = "fox " .. i }
    end
    assert.equal(3, unfinished())
    for _ = 1, 3 do
      ahead(3600, [[
        mj:submit { prompt = "one more" }
        assert(mj:reconcile { budget = 5 })
        mj:submit { prompt = "and one more" }
      ]])
      assert(mj:reconcile { budget = 5 })
      assert.equal(3, unfinished())
    end
    assert.equal(3, mj:stats().accounts[1].held)
  end)

  it("frees them in time, by a clock that all share", function()
    assert(FAKETIME ~= "", "libfaketime is not installed")
    local mj = kit.open({ max_in_flight = 3 }, sim)
    for i = 1, 4 do
      mj:submit { prompt = "fox " .. i, timeout = 300 }
    end
    kit.travel(700) -- this process' time, which the other one goes on from
    mj:adopt { task_id = "other", prompt = "p" }
    ahead(700, "assert(mj:reconcile { budget = 5 })")
    assert.equal(4, #sim.jobs())
  end)
end)
