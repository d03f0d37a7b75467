-- The relay with several events in the air, and receivers that are slow, out of order, gone, or killed in between.
local core = require "mjhook.core"
local kit = require "kit"
local sink = require "sink"
local webhook = require "mjhook.handlers.webhook"

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
      local slow_it = isolate and it or function() end -- takes a while, and the turn is the same

      local function deliver(options)
        options = options or {}
        options.isolate = isolate
        return assert(mj:deliver(options))
      end

      it("goes on with others while a receiver takes its time over one", function()
        open()
        local slow = ended(1, "after 120")
        ended(120, "plain")
        assert.same({ delivered = 121, buried = 0, errors = 0 }, deliver())
        local list = there:noted()
        assert.same({ word = "end", id = slow[1], connection = 1 }, list[#list])
        there:assert_once(slow)
      end)

      it("sends a task's events in order, each after the answer to the one before", function()
        open()
        local refs = kit.put(mj, { { prompt = "wait 0.01" }, { prompt = "wait 0.02" }, { prompt = "plain" } })
        for i, ref in ipairs(refs) do
          for attempt = 1, 4 do
            kit.signal(mj, ref, "failed", { source = "callback", attempt = attempt, task_id = i .. "-" .. attempt,
                                            error = "no" })
            if attempt < 4 then
              kit.signal(mj, ref, "resubmit", { source = "user", attempt = attempt })
            end
          end
        end
        assert.same({ delivered = 12, buried = 0, errors = 0 }, deliver())
        local last = {}
        for _, one in ipairs(there:noted()) do
          local ref, seq = one.id:match "^(.*)%-(%d)$"
          last[ref] = (last[ref] or "") .. seq .. one.word:sub(1, 1)
        end
        for _, ref in ipairs(refs) do
          assert.equal("1b1e2b2e3b3e4b4e", last[ref])
        end
      end)

      it("is wrong about no event when answers come in another order", function()
        open()
        ended(40, "plain")
        local bad, good = ended(1, "status 500"), {}
        for i = 1, 12 do
          good[i] = ended(1, ("wait 0.0%d"):format(9 - i % 9))[1]
        end
        local late = ended(1, "status 429")
        assert.same({ delivered = 52, buried = 0, errors = 2 }, deliver())
        assert.matches("answered 500", error_of(bad[1]))
        assert.matches("answered 429", error_of(late[1]))
        there:assert_once(good)
        local event = mj:events { ref = (late[1]:gsub("%-1$", "")) }()
        assert.is_true(math.abs(event.next_at - core.now() - 100000) < 5000) -- Retry-After
      end)

      it("sends again what a kept connection swallowed, and nothing else", function()
        open()
        ended(20, "plain")
        local dead, closed = ended(2, "die"), ended(30, "once")
        local after = ended(30, "plain")
        local report = deliver()
        assert.same({ 80, 2 }, { report.delivered, report.errors })
        there:assert_once(closed)
        there:assert_once(after)
        assert.truthy(error_of(dead[1]))
      end)

      slow_it("goes on with other receivers while one does not answer", function()
        open({ handler_timeout = 8 }, function(hook)
          local other = webhook { url = there.url .. "other", secret = there.secret }
          return { on_event = function(task, ctx)
            return (task.prompt:find "^wait" and other or hook)(task, ctx)
          end }
        end)
        local hung = ended(4, "wait 3")
        local good = ended(60, "plain")
        assert.same({ delivered = 64, buried = 0, errors = 0 }, deliver())
        local open_ones = #hung
        for _, one in ipairs(there:noted()) do
          if one.word == "end" and there.prompts[one.id] == "plain" then
            assert.equal(#hung, open_ones)
          elseif one.word == "end" then
            open_ones = open_ones - 1
          end
        end
        there:assert_once(good)
      end)

      slow_it("sends less at once to a receiver that takes longer the more it gets", function()
        open { handlers = 4, handler_timeout = 1 } -- of which the relay has 0.9 s
        local ids = ended(30, "alone 0.05")
        assert.same({ delivered = 30, buried = 0, errors = 0 }, deliver())
        there:assert_once(ids)
      end)

      it("disables a target that is gone once, whatever is in the air", function()
        open()
        ended(40, "plain")
        local gone = ended(30, "status 410")
        local report = deliver()
        assert.same({ 40, 30 }, { report.delivered, report.buried })
        assert.equal("1", (kit.sh(("ls %s | grep -c disabled"):format(kit.store))))
        local _, count = there:noted()
        local sent = 0
        for _, id in ipairs(gone) do
          sent = sent + (count.begin[id] or 0)
          assert.matches("410 Gone", error_of(id))
        end
        assert.is_true(sent <= 16, sent)
      end)

      slow_it("gives up each event a little before its own time is up, and no other with it", function()
        open { handler_timeout = 0.5 }
        ended(40, "plain")
        local hung = ended(3, "wait 2")
        local good = ended(40, "plain")
        local begun = core.clock()
        assert.same({ delivered = 80, buried = 0, errors = 3 }, deliver())
        assert.is_true(core.clock() - begun < 2500)
        for _, id in ipairs(hung) do
          assert.matches("no answer within 0.45 s", error_of(id))
        end
        there:assert_once(good)
      end)

      it("lets what is in the air be answered when the budget is over, and begins nothing more", function()
        open()
        ended(40, "plain")
        local ids = ended(8, "wait 0.6")
        ended(400, "wait 0.2")
        local report = deliver { budget = 0.4 }
        assert.equal(0, report.errors)
        assert.is_true(report.delivered >= 1 and report.delivered < 300, report.delivered)
        local _, count = there:noted()
        local sent = 0
        for id, times in pairs(count.begin) do
          sent = sent + 1
          assert.equal(1, times)
          assert.equal(1, count["end"][id])
        end
        assert.equal(sent, report.delivered)
        assert.is_true(#ids == 8)
        for event in mj:events { limit = 1000 } do
          assert.same({ 0, false }, { event.tries, event.leased })
        end
      end)
    end)
  end

  it("whose process is ended by a handler repeats only what had no answer, at once, and blames that handler", function()
    open({}, function(hook)
      return { on_event = function(task, ctx)
        if task.prompt == "bad" then
          os.exit(7)
        end
        return hook(task, ctx)
      end }
    end)
    local quick = ended(40, "plain")
    ended(5, "wait 0.2")
    local bad = ended(1, "bad")
    local late = ended(40, "plain")
    assert.same({ delivered = 85, buried = 0, errors = 1 }, mj:deliver { isolate = true })
    assert.equal("on_succeeded: its process exited with 7", error_of(bad[1]))
    there:assert_few_repeated(16)
    there:assert_once { quick[1], quick[10], quick[20] }
    there:assert_once(late)
  end)

  it("whose process is killed in the middle repeats only what had no answer, and blames what was in the air", function()
    open({}, function(hook)
      return { on_event = function(task, ctx)
        if task.prompt:find "^kill" and not kit.read(there.dir .. "/known") then
          kit.write(there.dir .. "/known", "")
          kit.write(there.dir .. "/pid", (kit.read("/proc/self/stat"):match "^%d+"))
        end
        return hook(task, ctx)
      end }
    end)
    local quick = ended(40, "plain")
    ended(1, "after 55")
    local killer = ended(1, "kill 41")
    ended(20, "plain")
    local report = assert(mj:deliver { isolate = true })
    assert.equal(62, report.delivered + report.errors)
    assert.is_true(report.errors >= 1 and report.errors <= 16, report.errors)
    assert.matches("SIGKILL", error_of(killer[1]))
    there:assert_once { quick[1], quick[10], quick[20] }
    kit.travel(60)
    assert.equal(report.errors, mj:deliver({ isolate = true }).delivered)
    assert.equal(0, mj:stats().events)
    there:assert_few_repeated(16)
  end)

  it("takes events of a megabyte beside small ones", function()
    open()
    ended(40, "plain")
    local files = '["' .. ("x"):rep(60000) .. '"]'
    local ids, context = {}, '{"a":"' .. ("y"):rep(60000) .. '"}'
    for i = 1, 40 do
      local ref = kit.put(mj, { { prompt = "wait 0.01", context = context } })[1]
      kit.signal(mj, ref, "succeeded", { source = "callback", task_id = "id-" .. ref, image = "https://i.test/g.png",
                                         files = files })
      ids[i] = ref .. "-1"
      there.prompts[ids[i]] = "large"
    end
    local small = ended(100, "plain")
    assert.same({ delivered = 180, buried = 0, errors = 0 }, mj:deliver { isolate = true })
    there:assert_once(ids)
    there:assert_once(small)
  end)
end)
