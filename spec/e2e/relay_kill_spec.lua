-- The relay, whose deliverer is killed, reloaded or edited while several events are in the air: none is lost or given
-- up, and a task's events stay in order.
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local sink = require "sink"

local KILLS = tonumber(os.getenv "MJHOOK_KILLS") or 6
local STEP_S = 35 -- beyond handler_timeout and a lease's slack: what the dead held is due again
local AHEAD = ("ASAN_OPTIONS=verify_asan_link_order=0 LD_PRELOAD=%s FAKETIME=+%%d FAKETIME_DONT_FAKE_MONOTONIC=1")
  :format((kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"))

local POLICY = [[return { on_event = require "mjhook.handlers.webhook" { url = "%s", secret = "%s" } }]]

describe("the relay", function()
  after_each(kit.cleanup)

  -- Tasks with two events each.
  local function failed_twice(mj, count, prompt)
    local tasks, ops = {}, {}
    for i = 1, count do
      tasks[i] = { prompt = prompt, timeout = 600 }
    end
    local refs = kit.put(mj, tasks)
    for _, ref in ipairs(refs) do
      for attempt = 1, 2 do
        ops[#ops + 1] = { op = "signal", ref = ref, attempt = attempt, kind = "failed", source = "callback",
                          task_id = ref .. "-" .. attempt, error = "no" }
        ops[#ops + 1] = attempt == 1 and { op = "signal", ref = ref, kind = "resubmit", source = "user" } or nil
      end
    end
    assert(mj.exec:commit(ops))
    return refs
  end

  -- Both events of each task were answered, and after the second had begun the first did not come again.
  local function assert_complete_and_in_order(there, refs)
    local list, count = there:noted()
    local last = {}
    for _, one in ipairs(list) do
      local ref, seq = one.id:match "^(.*)%-(%d)$"
      assert.is_true(tonumber(seq) >= (last[ref] or 0), one.id .. " after its next one")
      assert.is_true(seq == "1" or (count["end"][ref .. "-1"] or 0) > 0)
      last[ref] = tonumber(seq)
    end
    for _, ref in ipairs(refs) do
      assert.is_truthy(count["end"][ref .. "-1"] and count["end"][ref .. "-2"], ref .. " is incomplete")
    end
    return count
  end

  it("loses and gives up nothing when mjhook-reconcile is killed again and again", function()
    local there, dir = sink.start(), kit.tmp()
    local mj = kit.open {}
    local refs = failed_twice(mj, 600, "wait 0.005")
    local config = kit.write(dir .. "/config.lua", receiver.config_text {
      store = kit.store, api_key = kit.KEY, base_url = "http://127.0.0.1:1", handler_timeout = 2, log = dir .. "/log",
      policy = kit.write(dir .. "/policy.lua", POLICY:format(there.url, there.secret)),
    })
    local function begun()
      return #(kit.read(there.dir .. "/log") or "")
    end
    local rounds = 0
    for _ = 1, KILLS do
      rounds = rounds + 1
      local before = begun()
      local child = kit.spawn(("exec env %s %s/bin/mjhook-reconcile -c %s -q"):format(AHEAD:format(rounds * STEP_S),
        kit.build, config))
      pcall(kit.wait_until, function()
        return begun() > before or child:status()
      end)
      kit.sleep(math.random() * 0.05)
      child:kill "KILL"
      child:wait()
    end
    assert.is_true(mj:stats().events > 0, "all were delivered before the last kill")
    local out, code = kit.sh(("env %s %s/bin/mjhook-reconcile -c %s -q"):format(AHEAD:format((rounds + 1) * STEP_S),
      kit.build, config))
    assert.same({ "", 0 }, { out, code })
    local stats = mj:stats()
    assert.same({ 0, 0 }, { stats.events, stats.buried })
    assert.is_true(mj:check().ok)
    local count = assert_complete_and_in_order(there, refs)
    for id, times in pairs(count.begin) do
      assert.is_true(times <= KILLS + 1, id)
    end
  end)

  it("goes on in the new worker when nginx reloads, and with the edited policy's target", function()
    sim.start()
    kit.finally(sim.stop)
    local there, other, dir = sink.start(), sink.start(), kit.tmp()
    local path = kit.write(dir .. "/policy.lua", POLICY:format(there.url, there.secret))
    local web = receiver.start { settings = { policy = path, handler_timeout = 5 } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local refs = failed_twice(mj, 300, "wait 0.02")
    kit.wait_until(function() return #there:noted() > 50 end)
    kit.sh("kill -HUP " .. web:pid())
    kit.wait_until(function() return mj:stats().events == 0 end)
    local count = assert_complete_and_in_order(there, refs)
    for id, times in pairs(count.begin) do
      assert.equal(1, times, id) -- a worker that ends finishes what it has in the air
    end
    kit.write(path, POLICY:format(other.url, other.secret))
    local later = {}
    kit.wait_until(function() -- a new target is taken over within seconds
      for _, ref in ipairs(failed_twice(mj, 5, "plain")) do
        later[#later + 1] = ref
      end
      kit.sleep(0.1)
      return #other:noted() > 0
    end)
    kit.wait_until(function() return mj:stats().events == 0 end)
    local _, here = there:noted()
    local _, now = other:noted()
    for _, ref in ipairs(later) do
      for seq = 1, 2 do
        local id = ref .. "-" .. seq
        assert.equal(1, (here["end"][id] or 0) + (now["end"][id] or 0))
      end
    end
  end)
end)
