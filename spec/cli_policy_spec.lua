-- mjhook policy test and diff: the real program, on stores whose tasks the flows made with the simulated provider.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

local unpack = table.unpack or unpack

describe("mjhook policy", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)

  local dir

  before_each(function()
    dir = kit.tmp()
  end)

  after_each(kit.cleanup)

  -- Runs the program. Gives {code, out, err}.
  local function run(words, input)
    local quoted = {}
    for i, word in ipairs(words) do
      quoted[i] = kit.quote(word)
    end
    kit.write(dir .. "/in", input or "")
    local _, code = kit.sh(("cd / && env -u MJHOOK_CONFIG -u MJHOOK_STORE TZ=UTC timeout 60 %s %s/scripts/mjhook %s "
      .. "<%s/in >%s/out 2>%s/err"):format(kit.lua, kit.quote(kit.root), table.concat(quoted, " "), dir, dir, dir))
    return { code = code, out = kit.read(dir .. "/out"), err = kit.read(dir .. "/err") }
  end

  -- The same, on the test's store.
  local function policy(...)
    return run { "--store", kit.store, "policy", ... }
  end

  local function file(name, text)
    return kit.write(dir .. "/" .. name .. ".lua", text)
  end

  -- The objects printed, and the summary.
  local function objects(result)
    local list = {}
    for line in result.out:gmatch "[^\n]+" do
      list[#list + 1] = cjson.decode(line)
    end
    return list, table.remove(list).summary
  end

  -- "decision: answer" of each object.
  local function answers(list)
    local words = {}
    for i, o in ipairs(list) do
      words[i] = ("%s: %s"):format(o.decision, o.answer)
    end
    return words
  end

  local function has(text, part)
    assert.truthy(text:find(part, 1, true), ("%q is not in\n%s"):format(part, text))
  end

  -- A task polled twice and then called back about; one rejected; one ambiguous; one refused. The newest is the last.
  local function history(more)
    local mj = kit.open(more, sim)
    local refs = {}
    refs[1] = assert(mj:submit { prompt = "a fox", user_id = "u1", context = { tier = "gold" } }).ref
    for _ = 1, 2 do
      kit.travel(200)
      assert(mj:reconcile {})
    end
    sim.finish(mj:get(refs[1]).task_id)
    assert.equal(200, sim.hand(mj, 1).status)
    for i, fault in ipairs { "http_400", "cut_after", "quota" } do
      kit.travel(1000)
      sim.script { submit = { fault } }
      refs[i + 1] = assert(mj:submit { prompt = fault }).ref
    end
    return mj, refs
  end

  local ACCEPT = "return { on_callback = function() return 'accept' end }"

  describe("test", function()
    it("prints what a policy decides, newest task first, and what that comes to", function()
      local mj, refs = history()
      local result = policy("test", file("p", [[
        return {
          on_callback = function(task, word)
            return task.context.tier == "gold" and task.state == "pending" and word.kind == "succeeded" and "accept"
          end,
          next_poll = function(task, now)
            if task.due_at == now and task.polls == 0 then
              return 90
            end
          end,
          on_refused = function(task, err)
            return err.code == "quota" and "fail" or "retry", 60
          end,
          resolve_ambiguous = function(task, now)
            if task.state == "ambiguous" and now == task.due_at then
              return "wait", 3600
            end
          end,
        }]]))
      assert.same({ 0, "" }, { result.code, result.err })
      local lines = {}
      for line in result.out:gmatch "[^\n]*\n" do
        lines[#lines + 1] = (line:gsub("\n", ""):gsub("  +", "|"))
      end
      local function at(ms)
        return os.date("!%Y-%m-%d %H:%M:%S", math.floor(ms / 1000))
      end
      local fox, rejected, quota = mj:get(refs[1]), mj:get(refs[2]), mj:get(refs[4])
      assert.same({
        "TIME|REF|DECISION|ABOUT|ANSWER",
        at(quota.timeline[3].at) .. "|" .. refs[4] .. "|on_refused|refused: quota not enough|fail",
        at(mj:get(refs[3]).due_at) .. "|" .. refs[3] .. "|resolve_ambiguous|ambiguous: is so now|wait 1 h",
        at(rejected.finished_at) .. "|" .. refs[2] .. "|on_refused|refused: " .. rejected.error.message
          .. "|retry 1 min",
        at(fox.timeline[4].at) .. "|" .. refs[1] .. "|next_poll|poll: running|wait 1 min 30 s",
        at(fox.timeline[4]["until"]) .. "|" .. refs[1] .. "|next_poll|poll: running|default",
        at(fox.finished_at) .. "|" .. refs[1] .. "|on_callback|callback: succeeded|accept",
        "",
        "6 decisions of 4 tasks, 0 at fault",
        "|on_callback|accept 1",
        "|next_poll|default 1, wait 1",
        "|on_refused|fail 1, retry 1",
        "|resolve_ambiguous|wait 1",
      }, lines)
    end)

    it("gives one JSON object for each decision, and the summary", function()
      local mj, refs = history()
      local list, total = objects(policy("test", "--json", file("p",
        "return { next_poll = function() return 30 end, on_refused = function() return 'later' end }")))
      local fox = mj:get(refs[1])
      assert.same({
        { at = mj:get(refs[4]).timeline[3].at, ref = refs[4], attempt = 1, decision = "on_refused", answer = "retry",
          about = "refused: quota not enough", fault = "answered later" },
        { at = mj:get(refs[2]).finished_at, ref = refs[2], attempt = 1, decision = "on_refused", answer = "fail",
          about = "refused: " .. mj:get(refs[2]).error.message, fault = "answered later" },
        { at = fox.timeline[4].at, ref = refs[1], attempt = 1, decision = "next_poll", answer = "wait", seconds = 30,
          about = "poll: running", count = 2, ["until"] = fox.timeline[4]["until"] },
      }, list)
      assert.same({ tasks = 4, decisions = 6, faults = 2,
                    undecided = { on_callback = 1, resolve_ambiguous = 1, next_poll = 0, on_refused = 0 },
                    answers = { on_callback = {}, resolve_ambiguous = {}, next_poll = { wait = 2 },
                                on_refused = { ["fail, at fault"] = 1, ["retry, at fault"] = 1 } } }, total)
    end)

    it("gives equal entries in a row a line of their own each time", function()
      local mj = history()
      local ref = assert(mj:adopt { task_id = "Elsewhere", prompt = "a wolf" }).ref
      for _, kind in ipairs { "running", "running", "unanswered", "running" } do
        local signal = { op = "signal", ref = ref, kind = kind, source = "poll" }
        assert.equal("ok", assert(mj.exec:commit { signal })[1].code)
      end
      local list = objects(policy("test", "--json", "--limit", "1", file("p",
        "return { next_poll = function() return 30 end }")))
      assert.same({ 2, "none" }, { list[1].count, list[2].count or "none" })
      assert.equal(2, #list)
      list = objects(policy("test", "--json", "--limit", "1", file("q", -- and one that is answered otherwise, too
        "return { next_poll = function(task) return 30 + task.polls end }")))
      assert.same({ { 30 }, { 31 }, { 32 } }, { { list[1].seconds }, { list[2].seconds }, { list[3].seconds } })
    end)

    it("says which decisions a policy leaves to mjhook", function()
      history()
      local result = policy("test", file("p", "return { on_succeeded = function() end }"))
      assert.equal(0, result.code)
      has(result.out, "0 decisions of 4 tasks, 0 at fault")
      has(result.out, "next_poll          not in this policy: the default, 2 times")
      assert.equal(result.out, policy("test", "none").out)
    end)

    for name, case in pairs {
      raises = { "error 'boom'", "verify", "boom" },
      ["answers nonsense"] = { "return 7", "verify", "answered 7" },
      ["never comes back"] = { "while true do end", "verify", "took longer than 1 s" },
      ["never comes back and catches what stops it"] = {
        "while true do pcall(function() while true do end end) end", "verify", "took longer than 1 s" },
      ["never comes back from a coroutine"] = {
        "coroutine.wrap(function() while true do end end)()", "verify", "took longer than 1 s" },
      ["takes too long where nothing interrupts it"] = {
        "require('mjhook.core').sleep(1.1) return 'accept'", "verify", "took longer than 1 s" },
    } do
      it("exits 1 when a policy " .. name .. ", and takes the careful answer", function()
        history()
        local result = policy("test", "--json", file("p", "return { on_callback = function() " .. case[1] .. " end }"))
        assert.same({ 1, "" }, { result.code, result.err })
        local list, total = objects(result)
        assert.equal(1, total.faults)
        assert.equal(case[2], list[1].answer)
        has(list[1].fault, case[3])
      end)
    end

    it("says in the table what was at fault, and exits 1", function()
      history()
      local result = policy("test", file("p", "return { on_callback = function() error('boom', 0) end }"))
      assert.equal(1, result.code)
      has(result.out, "verify (raised: boom)\n")
      has(result.out, "1 decision of 4 tasks, 1 at fault\n")
      has(result.out, "verify, at fault 1\n")
    end)

    local harm = {
      ["os.execute"] = "os.execute('touch ' .. target)", ["io.popen"] = "io.popen('touch ' .. target):close()",
      ["os.remove"] = "os.remove(precious)", ["os.rename"] = "os.rename(precious, target)", ["os.exit"] = "os.exit(0)",
      ["os.tmpname"] = "os.tmpname()", ["io.tmpfile"] = "io.tmpfile()", ["io.output to a file"] = "io.output(target)",
      ["mjhook.core.open"] = "require('mjhook').open { store = target, api_key = 'k' }",
      ["mjhook.core.http"] = "require('mjhook.core').http {}",
      ["mjhook.core.run"] = "require('mjhook.core').run { 'touch', target }",
      ["mjhook.core.fork"] = "require('mjhook.core').fork(function() io.open(target, 'w') end)",
      ["mjhook.core.stream"] = "require('mjhook.core').stream {}",
      ["mjhook.core.fetch"] = "require('mjhook.core').fetch { dir = target, sub = 'x' }",
      ["mjhook.core.restore"] = "require('mjhook.core').restore(target, target, {})",
    }
    for _, mode in ipairs { "w", "a", "r+", "w+", "wb", "a+b" } do
      harm["io.open for writing (" .. mode .. ")"] = ("io.open(target, %q):close()"):format(mode)
    end
    for name, code in pairs(harm) do
      it("lets no policy do harm: " .. name, function()
        history()
        local target, precious = dir .. "/target", kit.write(dir .. "/precious", "x")
        local path = file("p", ([[
          local target, precious = %q, %q
          return {
            on_callback = function() pcall(function() %s end) return "accept" end,
            next_poll = function() %s end,
          }]]):format(target, precious, code, code))
        local result = policy("test", "--json", path)
        assert.same({ 1, "" }, { result.code, result.err })
        local list, total = objects(result)
        assert.same({ "next_poll: default", "on_callback: verify" }, answers(list))
        local said = name:gsub(" %(.*", "") .. ": a policy under test changes nothing"
        for _, one in ipairs(list) do
          has(one.fault, said)
          if name ~= "mjhook.core.open" then
            has(one.fault, "p.lua:") -- where
          end
        end
        assert.equal(3, total.faults)
        assert.same({ nil, "x" }, { kit.read(target), kit.read(precious) })
      end)
    end

    it("lets no policy do harm while it is loaded, and exits 78", function()
      history()
      local precious = kit.write(dir .. "/precious", "x")
      local result = policy("test", file("p", ("os.remove(%q)\n%s"):format(precious, ACCEPT)))
      assert.same({ 78, "" }, { result.code, result.out })
      has(result.err, "os.remove: a policy under test changes nothing")
      assert.equal("x", kit.read(precious))
    end)

    it("lets a policy read files and variables, and load the handlers that come with mjhook", function()
      history()
      kit.write(dir .. "/rules", "gold\n")
      local result = policy("test", file("p", ([[
        local tier = io.open(%q):read "*l"
        for line in io.lines(%q) do assert(line == tier) end
        assert(io.open(%q, "rb")):close()
        return {
          on_callback = function(task)
            return os.getenv "HOME" and os.time() and task.context.tier == tier and "accept" or "ignore"
          end,
          on_failed = require "mjhook.handlers.exec" { "/bin/true" },
          on_succeeded = require "mjhook.handlers.webhook" {
            url = "https://app.example/events", secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" },
        }]]):format(dir .. "/rules", dir .. "/rules", dir .. "/rules")))
      assert.same({ 0, "" }, { result.code, result.err })
      has(result.out, "accept 1")
    end)

    it("runs no handler, and leaves events and tasks as they are", function()
      local mj = history()
      local function all()
        local tasks = {}
        for task in mj:tasks {} do
          tasks[#tasks + 1] = task
        end
        return { tasks, mj:stats().events }
      end
      local before = all()
      local shout = "function() io.stderr:write 'a handler ran' end"
      local path = file("p", (([[return {
        on_succeeded = SHOUT, on_failed = { SHOUT }, on_lost = SHOUT, on_ambiguous = SHOUT, on_event = SHOUT,
        on_callback = function(task) task.state = nil return "accept" end,
      }]]):gsub("SHOUT", shout)))
      assert.same({ 0, "" }, { policy("test", path).code, policy("test", path).err })
      assert.same({ 0, "" }, { policy("diff", path, path).code, policy("diff", path, path).err })
      assert.same(before, all())
      assert.truthy(before[2] > 0)
    end)

    it("puts what a policy prints on standard error", function()
      history()
      local result = policy("test", "--json", file("p", [[
        print("loaded", 1)
        local out = io.stdout
        return { on_callback = function()
          print "one" io.write "two\n" io.stdout:write "three\n" out:write "four\n" io.output():write "five\n"
          return "accept"
        end }]]))
      assert.same({ 0, "loaded\t1\none\ntwo\nthree\nfour\nfive\n" }, { result.code, result.err })
      assert.same({ "on_callback: accept" }, answers((objects(result))))
    end)

    it("looks at the tasks that it is told to", function()
      local mj = history()
      local path = file("p", ACCEPT)
      for _, case in ipairs {
        { 4 }, { 4, "--limit", "0" }, { 2, "--limit", "2" }, { 1, "--state", "succeeded" }, { 0, "--state", "lost" },
        { 2, "--state", "succeeded", "--state", "queued" },
        { 4, "--since", "1h" }, { 0, "--since", "2999-01-01" },
        { 3, "--since", ("%d"):format(mj:stats() and core.now() - 2500000) },
        { 1, "--since", "1h", "--state", "queued", "--limit", "3" },
      } do
        local result = policy("test", path, "--json", unpack(case, 2))
        assert.equal(0, result.code)
        assert.equal(case[1], select(2, objects(result)).tasks, table.concat(case, " "))
      end
    end)

    it("asks as the configuration does: its trust, its grace, not its policy", function()
      local _, refs = history()
      local config = file("config", ("return { store = %q, trust = 'verify', ambiguous_grace = 60, api_key = 'k', "
        .. "policy = %q }"):format(kit.store, file("broken", "error 'this policy is not to be loaded'")))
      local result = run { "-c", config, "policy", "diff", "none", file("p", ACCEPT) }
      assert.equal(1, result.code)
      has(result.out, "verify  accept")
      result = run { "-c", config, "policy", "test", "--json", file("q", [[
        return { next_poll = function(task)
          return (task.attempts[1].slot_until - task.attempts[1].submitted_at) / 1000
        end }]]) }
      local list = objects(result)
      assert.same({ refs[1], 660 }, { list[1].ref, list[1].seconds })
    end)

    it("reads a store that others write to", function()
      local mj = history()
      local writer = kit.spawn("exec " .. kit.lua_command(([[
        local mj = require("mjhook").open { store = %q, api_key = "k", policy = {} }
        while true do
          local task = { prompt = "a wolf", fingerprint = ("x"):rep(32) }
          assert(mj.exec:commit { { op = "create", source = "user", task = task } })
        end]]):format(kit.store)))
      kit.wait_until(function()
        return mj:stats().tasks.queued > 50
      end)
      for _ = 1, 3 do
        local result = policy("test", "--json", file("p", ACCEPT))
        assert.same({ 0, "" }, { result.code, result.err })
        assert.same({ "on_callback: accept" }, answers((objects(result))))
      end
      assert.is_nil(writer:status())
    end)

    it("takes as much memory for many tasks as for some", function()
      local mj = kit.open({}, sim)
      for batch = 1, 20 do
        local ops, signals = {}, {}
        for i = 1, 500 do
          local prompt = batch .. " " .. i
          ops[i] = { op = "create", source = "user", want = true, task = { prompt = prompt:rep(100),
            context = '{"n":1}', fingerprint = core.sha256(prompt) } }
        end
        for i, made in ipairs(assert(mj.exec:commit(ops))) do
          for _, kind in ipairs { "accepted", "hint", "succeeded" } do
            signals[#signals + 1] = { op = "signal", kind = kind, ref = made.task.ref, attempt = 1,
              source = kind == "accepted" and "submit" or "callback", image = "https://x/y",
              task_id = ("t-%d-%d"):format(batch, i) }
          end
        end
        assert(mj.exec:commit(signals))
      end
      local result = policy("test", file("p", [[
        local n = 0
        return { on_callback = function()
          n = n + 1
          if n == 2000 or n == 20000 then
            print(io.open("/proc/self/status"):read("*a"):match "VmHWM:%s*(%d+)")
          end
          return "accept"
        end }]]))
      assert.equal(0, result.code)
      local early, late = result.err:match "^(%d+)\n(%d+)\n$"
      assert.truthy(late, result.err)
      if not kit.sanitized then
        assert.truthy(late - early < 4096, result.err) -- kB
      end
      has(result.out, "20000 decisions of 10000 tasks")
    end)

    it("stops quietly when its reader has had enough", function()
      history()
      local out, code = kit.sh(("%s %s --store %s policy test %s --json | head -n 1 | wc -l"):format(kit.lua,
        kit.quote(kit.root .. "/scripts/mjhook"), kit.quote(kit.store), file("p", ACCEPT)))
      assert.same({ "1", 0 }, { out, code })
    end)
  end)

  describe("diff", function()
    it("prints only what differs, the old answer and the new one, and exits 1", function()
      local _, refs = history()
      local old = file("old", "return { on_callback = function() return 'accept' end, "
        .. "next_poll = function() return 30 end }")
      local new = file("new", [[return {
        on_callback = function() return "accept" end,
        next_poll = function(task) return task.polls < 1 and 30 or 60 end,
        on_refused = function(task, err) return "fail" end,
      }]])
      local result = policy("diff", old, new)
      assert.same({ 1, "" }, { result.code, result.err })
      assert.equal(2 + 5, select(2, result.out:gsub("\n", "\n")))
      has(result.out, "OLD        NEW\n")
      has(result.out, refs[4] .. "  on_refused  refused: quota not enough  retry      fail\n")
      has(result.out, refs[1] .. "  next_poll   poll: running              wait 30 s  wait 1 min\n")
      has(result.out, "\n2 of 6 decisions differ, of 4 tasks\n")
      has(result.out, "next_poll          wait, other time 1\n")
      has(result.out, "on_refused         retry -> fail 1\n")
    end)

    it("exits 0 when nothing differs, however it is written", function()
      history()
      local old = file("old", "return { on_callback = function() return 'accept' end }")
      local new = file("new", [[return {
        on_callback = function() return "accept", 60 end,
        next_poll = function() end,
        on_refused = function(task, err) return err.retryable and "retry" or "fail", nil end,
        resolve_ambiguous = function() return "lost" end,
      }]])
      for _, pair in ipairs { { old, old }, { old, new }, { new, old }, { "none", new }, { old, "none" },
                              { "none", "none" } } do
        local result = policy("diff", pair[1], pair[2])
        assert.same({ 0, "0 of 6 decisions differ, of 4 tasks\n", "" }, { result.code, result.out, result.err })
      end
    end)

    it("gives JSON: both answers, and how many differ in which way", function()
      local _, refs = history()
      local list, total = objects(policy("diff", "none", "--json",
        file("new", "return { on_callback = function() error('boom', 0) end, "
          .. "resolve_ambiguous = function() return 'wait', 9 end }")))
      list[1].at, list[2].at = nil, nil
      assert.same({
        { ref = refs[3], attempt = 1, decision = "resolve_ambiguous", about = "ambiguous: is so now",
          old = { answer = "lost" }, new = { answer = "wait", seconds = 9 } },
        { ref = refs[1], attempt = 1, decision = "on_callback", about = "callback: succeeded",
          old = { answer = "accept" }, new = { answer = "verify", fault = "raised: boom" } },
      }, list)
      assert.same({ tasks = 4, decisions = 6, differ = 2, faults = 1, changes = {
        on_callback = { ["accept -> verify, at fault"] = 1 }, resolve_ambiguous = { ["lost -> wait"] = 1 },
        next_poll = {}, on_refused = {} } }, total)
    end)

    it("counts it as a difference when a decision begins to be at fault, or is no longer", function()
      history()
      local good = file("good", "return { on_callback = function() return 'verify' end }")
      local bad = file("bad", "return { on_callback = function() return 'vrify' end }")
      has(policy("diff", good, bad).out, "verify -> verify, at fault 1\n")
      has(policy("diff", bad, good).out, "verify, at fault -> verify 1\n")
      assert.equal(0, policy("diff", bad, file("worse", "return { on_callback = function() error 'x' end }")).code)
    end)

    it("keeps the two apart: their globals, and what they do to what they are asked with", function()
      history()
      local spoil = [[
        limit = %s
        _G.answer = %q
        function decide() return _G.answer end
        return { on_callback = function(task, word)
          if task.spoilt or word.spoilt or task.state ~= "pending" or limit ~= %s then error "spoilt" end
          task.spoilt, word.spoilt, task.state, task.attempts[1] = true, true, "lost", nil
          return decide()
        end }]]
      local result = policy("diff", "--json", file("old", spoil:format(1, "ignore", 1)),
        file("new", spoil:format(2, "verify", 2)))
      local list = objects(result)
      assert.same({ { answer = "ignore" }, { answer = "verify" } }, { list[1].old, list[1].new })
    end)
  end)

  describe("with --fixtures", function()
    local function recorded()
      history()
      return run({ "--store", kit.store, "list", "--json" }).out
    end

    it("takes recorded tasks from a file or standard input, and gives what the store gives", function()
      local text = recorded()
      local path = file("p", "return { next_poll = function(t) return 10 + t.polls end, "
        .. "on_refused = function(t, e) return e.retryable and tostring(e):find 'quota' and 'fail' or nil end, "
        .. "on_callback = function(t, w) return t.context.tier == 'gold' and "
        .. "tostring(t.created_at):find '^%d+$' and w.image and 'accept' or 'ignore' end }")
      local expected = policy("test", path).out
      local name = kit.write(dir .. "/recorded.jsonl", "\n" .. text:gsub("\n", "\n  \n"))
      for _, words in ipairs { { "test", path, "--fixtures", name }, { "test", path, "--fixtures=-" } } do
        local result = run({ "--store", dir .. "/none", "policy", unpack(words) }, text)
        assert.same({ 0, "", expected }, { result.code, result.err, result.out })
      end
      assert.is_nil(core.stat(dir .. "/none"))
      assert.equal(policy("diff", "none", path).out, run({ "policy", "diff", "none", path, "--fixtures", name }).out)
    end)

    it("chooses among them as among a store's", function()
      local name = kit.write(dir .. "/recorded.jsonl", recorded())
      for _, case in ipairs { { 4 }, { 1, "--limit", "1" }, { 1, "--state", "failed" }, { 0, "--since", "2999-01-01" },
        { 3, "--state", "succeeded,failed", "--state=queued" },
                              { 4, "--since", "1h" }, { 4, "--limit", "0" } } do
        local result = run { "policy", "test", "none", "--json", "--fixtures", name, unpack(case, 2) }
        assert.equal(case[1], select(2, objects(result)).tasks, table.concat(case, " "))
      end
    end)

    local GOOD = '{"ref":"R","state":"failed","created_at":1,"timeline":[{"at":1,"signal":"create","source":"user",'
      .. '"from":"queued","to":"queued","attempt":1},{"at":2,"signal":"failed","source":"callback","from":"queued",'
      .. '"to":"failed","attempt":1}]}'

    it("takes a record with no more than it needs", function()
      local list = objects(run({ "policy", "test", file("p", ACCEPT), "--json", "--fixtures", "-" }, GOOD))
      assert.same({ "on_callback: accept" }, answers(list))
    end)

    for name, case in pairs {
      ["no JSON"] = { "{", "not JSON" }, ["a number"] = { "7", "not a task" }, ["null"] = { "null", "not a task" },
      ["another object"] = { '{"id":1}', "not a task: an object with ref" },
      ["a timeline that is none"] = { (GOOD:gsub('"timeline":%[.*%]', '"timeline":7')), "timeline is missing" },
      ["an entry without a time"] = { (GOOD:gsub('"at":2,', "")), "timeline is missing or strange" },
      ["an entry with a strange attempt"] = { (GOOD:gsub('"attempt":1}%]', '"attempt":1e12}]')), "timeline is" },
      ["an entry with a strange state"] = { (GOOD:gsub('"to":"failed"', '"to":"gone"')), "timeline is" },
      ["a state that nobody knows"] = { (GOOD:gsub('"state":"failed"', '"state":"gone"')), "state is" },
      ["attempts that are strange"] = { (GOOD:gsub("^{", '{"attempts":[7],')), "attempts is" },
      ["an error that is a text"] = { (GOOD:gsub("^{", '{"error":"x",')), "error is" },
      ["too much"] = { '"' .. ("x"):rep(1100000) .. '"', "longer than 1048576 bytes" },
    } do
      it("exits 64 and names the line when it is " .. name, function()
        local result = run({ "policy", "test", "--json", file("p", ACCEPT), "--fixtures", "-" },
          GOOD .. "\n\n" .. case[1] .. "\n")
        assert.equal(64, result.code)
        has(result.err, "mjhook: standard input:3: ")
        has(result.err, case[2])
        has(result.out, "accept") -- of the first line
      end)
    end

    it("exits 64 when the file is not there", function()
      local result = run { "policy", "test", "none", "--fixtures", dir .. "/none" }
      assert.equal(64, result.code)
      has(result.err, "--fixtures \"" .. dir .. "/none\": No such file or directory")
    end)
  end)

  for name, case in pairs {
    ["is not there"] = { nil, "No such file" },
    ["is no Lua"] = { "return {", "p.lua:1:" },
    ["raises"] = { "error 'boom'", "p.lua:1: boom" },
    ["returns no table"] = { "return 7", "p.lua should return a table" },
    ["has a function that nobody knows"] = { "return { on_calback = print }", 'p.lua: policy: unknown function "on_c' },
    ["has a decision that is no function"] = { "return { on_callback = 7 }", "p.lua: policy: on_callback: function" },
    ["never comes back"] = { "while true do end", "p.lua did not load within 2 s" },
  } do
    it("exits 78 when a policy " .. name, function()
      local path = case[1] and file("p", case[1]) or dir .. "/p.lua"
      local good = file("good", ACCEPT)
      local all = { { "test", path }, { "diff", good, path }, { "diff", path, good } }
      for i = 1, name == "never comes back" and 1 or 3 do
        local result = run({ "policy", "--fixtures", "-", unpack(all[i]) }, "")
        assert.same({ 78, "" }, { result.code, result.out })
        has(result.err, case[2])
      end
    end)
  end

  it("exits 64 when the command line is wrong, and says how it is written", function()
    for _, case in ipairs {
      { { "policy" }, "policy: test FILE | diff OLD NEW expected" },
      { { "policy", "test" }, "test takes one policy" }, { { "policy", "test", "a", "b" }, "test takes one policy" },
      { { "policy", "diff", "a" }, "diff takes two policies" },
      { { "policy", "diff", "a", "b", "c" }, 'unexpected argument "c"' },
      { { "policy", "tset", "a" }, 'got "tset": did you mean "test"?' },
      { { "policy", "test", "a", "--state", "gone" }, "one of queued" },
      { { "policy", "test", "a", "--since", "yesterday" }, "a time expected" },
      { { "policy", "test", "a", "--limit", "-1" }, "a whole number" },
    } do
      local result = run(case[1])
      assert.same({ 64, "" }, { result.code, result.out })
      has(result.err, case[2])
    end
  end)

  it("exits 78 and makes nothing where there is no store", function()
    local result = run { "--store", dir .. "/none", "policy", "test", "none" }
    assert.same({ 78, "" }, { result.code, result.out })
    assert.is_nil(core.stat(dir .. "/none"))
  end)

  describe("test", function()
    -- One task that was called back about, and none that was polled, refused or ambiguous.
    local function uneventful()
      local mj = kit.open({}, sim)
      local ref = assert(mj:submit { prompt = "a fox" }).ref
      sim.finish(mj:get(ref).task_id)
      assert.equal(200, sim.hand(mj, 1).status)
      return ref
    end

    for name, text in pairs {
      next_poll = "next_poll = function() error 'not today' end",
      resolve_ambiguous = "resolve_ambiguous = function(task) return task.nonsense.more end",
      on_refused = "on_refused = function() return 'perhaps' end",
    } do
      it("tries a decision that no record needs on every task, and tells that it is at fault: " .. name, function()
        local ref = uneventful()
        local path = file("p", "return { " .. text .. " }")
        local result = policy("test", path, "--json")
        assert.equal(1, result.code)
        local list, summary = objects(result)
        assert.same({ 1, name, ref }, { #list, list[1].decision, list[1].ref })
        assert.same({ 1, 1, 1 }, { summary.decisions, summary.tried, summary.faults })
        local shown = policy("test", path)
        assert.equal(1, shown.code)
        has(shown.out, name)
        has(shown.out, "not asked so far: tried")
        has(shown.out, "0 decisions of 1 task, 0 at fault; 1 that no record needed tried on every task, 1 at fault")
      end)
    end

    it("tries them on a task as they would meet it: unfinished, with a time", function()
      uneventful()
      local path = file("p", [[
        local function check(state)
          return function(task, second)
            assert(task.state == state and task.finished_at == nil and task.error == nil, task.state)
            assert(task.due_at >= task.submitted_at and #task.attempts == 1 and #task.images == 0)
            return second ~= nil and nil
          end
        end
        return {
          next_poll = function(task, now) check "pending"(task, now); return now - task.due_at end,
          on_refused = function(task, err) check "submitting"(task, err); assert(err.code and err.message) end,
          resolve_ambiguous = function(task, now) check "ambiguous"(task, now); assert(now >= task.due_at) end,
        }]])
      local result = policy("test", path, "--json")
      assert.equal(0, result.code, result.out)
      local list, summary = objects(result)
      assert.same({ 0, 0 }, { #list, summary.faults })
      has(policy("test", path).out, "0 decisions of 1 task, 0 at fault; 3 that no record needed")
    end)

    it("tries them on every task: on a later one that is another case, too", function()
      local mj = kit.open({}, sim)
      for i, mode in ipairs { "relaxed", "fast", "fast" } do
        assert(mj:submit { prompt = "p" .. i, mode = mode })
      end
      local result = policy("test", file("p", [[
        return { next_poll = function(task) if task.mode == "relaxed" then error "not this one" end end }]]), "--json")
      assert.equal(1, result.code)
      local list = objects(result)
      assert.equal(1, #list)
      has(list[1].fault, "not this one")
    end)

    for name, how in pairs { ["a file"] = "--fixtures %s", ["a pipe"] = "--fixtures - < %s" } do
      it("tries them on recorded tasks, too: from " .. name, function()
        uneventful()
        local path = file("p", "return { next_poll = function() error 'not today' end }")
        kit.write(dir .. "/tasks", run({ "--store", kit.store, "list", "--json" }).out)
        how = how == "--fixtures %s" and how or "--fixtures - < <(cat %s)"
        local out, code = kit.sh(("bash -c '%s %s/scripts/mjhook policy test %s %s'"):format(kit.lua, kit.root, path,
          how:format(dir .. "/tasks")))
        assert.equal(1, code)
        has(out, "not today")
      end)
    end

    it("tries none when two policies are compared, and none that the policy does not have", function()
      uneventful()
      local path = file("p", "return { next_poll = function() error 'not today' end }")
      assert.equal(0, policy("diff", "none", path).code)
      assert.equal(0, policy("test", "none").code)
    end)
  end)
end)
