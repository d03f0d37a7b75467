-- The relay with several events in the air: each handler's process sends the next while others wait for their answers.
-- The rest of it: spec/e2e/relay_spec.lua.
local core = require "mjhook.core"
local kit = require "kit"
local pool = require "mjhook.delivery.pool"
local sink = require "sink"

describe("the relay", function()
  after_each(kit.cleanup)

  local mj, there

  -- A mjhook whose handlers `policy` makes of the relay to a receiver.
  local function open(settings, policy)
    there = sink.start()
    local all = { policy = policy and policy(there.hook) or { on_event = there.hook }, handlers = 1 }
    for name, value in pairs(settings or {}) do
      all[name] = value
    end
    mj = kit.open(all)
  end

  local function ended(count, prompt)
    return there:ended(mj, count, prompt)
  end

  local function error_of(id)
    local event = mj:events { ref = (id:gsub("%-%d+$", "")) }()
    local last = event and event.errors[#event.errors]
    return last and last.message
  end

  for what, isolate in pairs { ["a process of its own"] = true, ["this process"] = false } do
    describe("in " .. what, function()
      local function deliver()
        return assert(mj:deliver { isolate = isolate })
      end

      it("sends events while others wait for their answers, and has a connection for each", function()
        open()
        ended(60, "plain")
        local ids = ended(32, "together 8")
        assert.same({ delivered = 92, buried = 0, errors = 0 }, deliver())
        there:assert_once(ids)
        local list, used = there:noted(), {}
        for _, one in ipairs(list) do
          used[one.connection] = true
        end
        assert.is_true(#used >= 8 and #used <= 32, #used)
      end)

      it("works in a handler that calls it, in a coroutine of the handler's, and where nothing can wait", function()
        open({}, function(hook)
          return { on_event = {
            function(task, ctx) return hook(task, ctx) end,
            function(task, ctx)
              return coroutine.wrap(function() return hook(task, ctx) end)()
            end,
            function(task, ctx)
              local handled
              ("x"):gsub("x", function() handled = hook(task, ctx) end)
              return handled
            end,
          } }
        end)
        local ids = ended(20, "plain")
        assert.same({ delivered = 20, buried = 0, errors = 0 }, deliver())
        local _, count = there:noted()
        for _, id in ipairs(ids) do
          assert.equal(3, count["end"][id])
        end
      end)

      it("takes no processor time while it waits for a receiver that is slow", function()
        open()
        ended(2, "wait 1")
        local begun = os.clock()
        assert.same({ delivered = 2, buried = 0, errors = 0 }, deliver())
        assert.is_true(os.clock() - begun < 0.3, os.clock() - begun)
      end)

      it("beside a handler that hangs in Lua: that one is interrupted, what was answered is done", function()
        open({ handler_timeout = 0.6 }, function(hook)
          return { on_event = function(task, ctx)
            while task.prompt == "hang" do end
            return hook(task, ctx)
          end }
        end)
        local good = ended(30, "plain")
        local beside = ended(4, "wait 0.2")
        local hang = ended(1, "hang")
        local late = ended(10, "plain")
        assert.same({ delivered = 44, buried = 0, errors = 1 }, deliver())
        assert.matches("handler_timeout", error_of(hang[1]))
        there:assert_once(good)
        there:assert_once(beside)
        there:assert_once(late)
      end)

      it("that waits longer than its time since another handler hangs is done all the same, with its answer", function()
        open({ handler_timeout = 3 }, function(hook)
          return { on_event = function(task, ctx)
            while task.prompt == "hang" do end
            return hook(task, ctx)
          end }
        end)
        local good = ended(1, "wait 2")
        local first = ended(1, "wait 1.3")
        local hang = ended(1, "hang") -- begins when that one is done
        assert.same({ delivered = 2, buried = 0, errors = 1 }, deliver())
        assert.matches("handler_timeout", error_of(hang[1]))
        there:assert_once(good)
        there:assert_once(first)
      end)
    end)
  end

  it("in a process whose functions are old gets no more events, also if that process asks for them", function()
    open()
    ended(1, "wait 2")
    local handlers = pool.isolated(mj)
    local leases = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 3600000, raw = true } })
    handlers:start(leases)
    kit.wait_until(function() return #there:noted() > 0 end)
    core.await({}, 100) -- by then it has asked
    handlers:renew()
    assert.same({}, handlers:wait(core.clock() + 5000))
    assert.equal(0, handlers:room())
    local outcomes = {}
    while not outcomes[1] do
      outcomes = handlers:wait(core.clock() + 5000)
    end
    assert.is_true(outcomes[1].handled)
    handlers:close()
  end)
end)
