-- Delivery under SIGKILL, at any moment, again and again: every event is handled at least once, each task's in order,
-- and none is given up. MJHOOK_KILLS and MJHOOK_TASKS make it longer; MJHOOK_SEED repeats the moments.
local kit = require "kit"
local receiver = require "receiver"

local KILLS = tonumber(os.getenv "MJHOOK_KILLS") or 40
local TASKS = tonumber(os.getenv "MJHOOK_TASKS") or 1500
local SEED = tonumber(os.getenv "MJHOOK_SEED") or os.time()
local KILLED = 128 + 9
local STEP_S = 35 -- beyond handler_timeout and a lease's slack: what the dead held is due again
-- The environment for a clock that is so many seconds ahead.
local AHEAD = ("ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s FAKETIME=+%%d FAKETIME_DONT_FAKE_MONOTONIC=1")
  :format((kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"))

-- Notes what it is handed, in one write; one of seven fails the first time.
local POLICY = [[
  local function note(name, text)
    local file = assert(io.open("DIR/" .. name, "a"))
    file:write(text, "\n")
    file:close()
  end
  return { on_event = function(task, ctx)
    note("begun", ctx.event_id)
    if tonumber(task.task_id:match "%d+") % 7 == 0 and not io.open("DIR/failed-" .. ctx.event_id) then
      note("failed-" .. ctx.event_id, "x")
      return false, "not the first time", { retry_after = 0 }
    end
    note("done", ctx.event_id)
  end }
]]

describe("delivery", function()
  after_each(kit.cleanup)

  it("loses, doubles and gives up nothing when the deliverer is killed again and again", function()
    math.randomseed(SEED)
    local dir = kit.tmp()
    local mj = kit.open {}
    local refs = {}
    for first = 1, TASKS, 500 do
      local ops = {}
      for i = first, math.min(first + 499, TASKS) do
        ops[#ops + 1] = { op = "create", source = "user", account = "default", task_id = "T" .. i, want = true,
                          task = { prompt = "p", fingerprint = ("f"):rep(16) } }
      end
      local made = assert(mj.exec:commit(ops))
      ops = {}
      for i, result in ipairs(made) do -- three events each
        local ref, id = result.task.ref, result.task.task_id
        refs[#refs + 1] = ref
        for attempt = 1, 3 do
          ops[#ops + 1] = { op = "signal", ref = ref, attempt = attempt, kind = "failed", source = "callback",
                            task_id = id .. "-" .. attempt, error = "no " .. i }
          ops[#ops + 1] = attempt < 3 and { op = "signal", ref = ref, kind = "resubmit", source = "user" } or nil
        end
      end
      assert(mj.exec:commit(ops))
    end
    assert.equal(3 * TASKS, mj:stats().events)
    local config = kit.write(dir .. "/config.lua", receiver.config_text {
      store = kit.store, api_key = kit.KEY, base_url = "http://127.0.0.1:1", handler_timeout = 2, log = dir .. "/log",
      policy = kit.write(dir .. "/policy.lua", (POLICY:gsub("DIR", { DIR = dir }))),
    })

    local function begun()
      return #(kit.read(dir .. "/begun") or "")
    end
    local kills, rounds = 0, 0
    while kills < KILLS and mj:stats().events > 0 do
      rounds = rounds + 1
      local before = begun()
      local child = kit.spawn(("exec env %s %s/bin/mjhook-reconcile -c %s -q"):format(AHEAD:format(rounds * STEP_S),
        kit.build, config))
      pcall(kit.wait_until, function() -- until it is at work
        return begun() > before or child:status()
      end)
      kit.sleep(math.random() ^ 2 * 0.03)
      child:kill "KILL"
      kills = kills + (child:wait() == KILLED and 1 or 0)
      if rounds % 10 == 0 then
        assert.is_true(mj:check().ok)
      end
    end
    assert.is_true(kills >= math.min(KILLS, 20), ("only %d of %d rounds were killed"):format(kills, rounds))
    for _ = 1, 6 do -- what failed for the first time is due a moment later
      rounds = rounds + 1
      local out, code = kit.sh(("env %s %s/bin/mjhook-reconcile -c %s -q"):format(AHEAD:format((rounds + 2) * STEP_S),
        kit.build, config))
      assert.is_true(code <= 1, code) -- 1: handlers failed, of which one line tells with -q, too
      assert.matches(code == 0 and "^$" or "^mjhook%-reconcile: error: event [^\n]* not the first time$", out)
    end
    local stats = mj:stats()
    assert.same({ 0, 0 }, { stats.events, stats.buried })
    assert.is_true(mj:check().ok)

    local last, times = {}, {}
    for line in io.lines(dir .. "/done") do
      local ref, seq = line:match "^(%w+)%-(%d+)$"
      seq = tonumber(seq)
      -- Once done and noted in the store, an event does not come again behind a later one.
      assert.is_true(seq >= (last[ref] or 0), line .. " after " .. (last[ref] or 0))
      last[ref] = seq
      times[line] = (times[line] or 0) + 1
    end
    for _, ref in ipairs(refs) do
      for seq = 1, 3 do
        assert.is_truthy(times[ref .. "-" .. seq], ref .. "-" .. seq .. " was never handled")
      end
    end
  end)
end)
