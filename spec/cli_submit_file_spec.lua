-- mjhook submit --file, through the real program: a report for each line, and no line sent twice, whatever happens.
-- And mjhook resubmit.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local lines = require "mjhook.cli.lines"
local receiver = require "receiver"
local sim = require "sim"

local PROGRAM = kit.root .. "/scripts/mjhook"

describe("mjhook", function()
  local dir, config, file

  setup(sim.start)
  teardown(sim.stop)
  after_each(kit.cleanup)
  before_each(function()
    sim.reset()
    dir = kit.tmp()
    config, file = dir .. "/config.lua", dir .. "/jobs.jsonl"
  end)

  -- Settings as a file, for the program.
  local function configure(more)
    local settings = kit.settings(more, sim)
    settings.log = nil
    kit.write(config, receiver.config_text(settings))
  end

  local function command(arguments)
    return ("env -u COLUMNS NO_COLOR=1 TERM=xterm MJHOOK_BUILD=%s %s %s -c %s %s"):format(kit.quote(kit.build), kit.lua,
      kit.quote(PROGRAM), kit.quote(config), arguments)
  end

  -- Runs a shell command in which `mjhook` is the program. Gives {code, out, err}.
  local function shell(text, more)
    if more or not kit.read(config) then
      configure(more)
    end
    kit.write(dir .. "/run", ("mjhook() { %s \"$@\"; }\n%s\n"):format(command "", text))
    local _, code = kit.sh(("cd %s && bash run >out 2>err </dev/null"):format(kit.quote(dir)))
    return { code = code, out = kit.read(dir .. "/out"), err = kit.read(dir .. "/err") }
  end

  local function run(arguments, more)
    return shell("mjhook submit --file jobs.jsonl " .. (arguments or ""), more)
  end

  local function put(list)
    for i, line in ipairs(list) do
      list[i] = type(line) == "table" and cjson.encode(line) or line
    end
    kit.write(file, table.concat(list, "\n") .. "\n")
  end

  local function prompts(n)
    local list = {}
    for i = 1, n do
      list[i] = { prompt = "job " .. i }
    end
    return list
  end

  local function objects(result)
    local list = {}
    for line in result.out:gmatch "[^\n]+" do
      list[#list + 1] = cjson.decode(line)
    end
    return list
  end

  local function count(list, field)
    local counts = {}
    for _, o in ipairs(list) do
      local word = o.ref and tostring(o[field or "state"]) or "refused"
      counts[word] = (counts[word] or 0) + 1
    end
    return counts
  end

  -- Runs again: nothing may be sent. Gives what it reported.
  local function known(arguments)
    local before = #sim.jobs()
    local result = run("--json " .. (arguments or ""))
    assert.equal(before, #sim.jobs())
    assert.equal(0, result.code, result.err)
    for _, o in ipairs(objects(result)) do
      assert.is_true(o.duplicate)
    end
    return objects(result)
  end

  describe("submit --file", function()
    it("sends a job for each line, and reports each", function()
      put { { prompt = "a fox", user_id = "u1" }, { prompt = "a wolf", mode = "relaxed", timeout = 300 } }
      local result = run()
      assert.same({ 0, "" }, { result.code, result.err })
      local rows = {}
      for row in result.out:gmatch "[^\n]+" do
        rows[#rows + 1] = row
      end
      assert.matches("^LINE  REF +STATE +WHY$", rows[1])
      assert.matches("^   1  %w+  pending$", rows[2])
      assert.matches("^   2  %w+  pending$", rows[3])
      assert.equal(26, #rows[2]:match "%w+  pending":match "^%w+")
      assert.equal(3, #rows)
      assert.same({ "a fox", "a wolf" }, { sim.jobs()[1].prompt, sim.jobs()[2].prompt })
      assert.same({ "relaxed", 300 }, { sim.jobs()[2].mode, sim.jobs()[2].timeout })
    end)

    it("gives with --json a task for each line, with its number", function()
      put { "", { prompt = "a fox", context = { order = 7 } }, { prompt = "" }, { prompt = "a wolf" } }
      local list = objects(run "--json")
      assert.equal(3, #list)
      assert.same({ 2, 3, 4 }, { list[1].line, list[2].line, list[3].line })
      assert.same({ "a fox", { order = 7 }, "pending" }, { list[1].prompt, list[1].context, list[1].state })
      assert.equal("a wolf", list[3].prompt)
      local err = list[2].error
      assert.same({ "invalid", false }, { err.code, err.retryable })
      assert.matches("^prompt: ", err.message)
      assert.is_nil(list[2].ref)
    end)

    it("reads standard input", function()
      put(prompts(3))
      local result = shell "mjhook submit --json --file - <jobs.jsonl"
      assert.same({ 0, 3 }, { result.code, #objects(result) })
      assert.equal(3, #sim.jobs())
      assert.equal(3, #known()) -- what the file is called is no matter
    end)

    it("takes lines as other systems end them, an empty file, and a last line without an end", function()
      kit.write(file, "\239\187\191{\"prompt\":\"one\"}\r\n\r\n  \t\n{\"prompt\":\"two\"}\r\n\n{\"prompt\":\"three\"}")
      local list = objects(run "--json")
      assert.same({ 1, 4, 6 }, { list[1].line, list[2].line, list[3].line })
      assert.same({ pending = 3 }, count(list))
      kit.write(file, "")
      assert.same({ code = 0, out = "", err = "" }, run())
    end)

    it("reports wrong lines with their number and what is wrong, sends the others and exits 1", function()
      put {
        { prompt = "a fox" }, "{", "7", "[]", '["a fox"]', { prompt = 7 }, { promt = "a" },
        { prompt = "x", mode = "y" }, { prompt = "x", timeout = "600" }, { prompt = "x", timeout = 5 },
        { prompt = "x", user = "u1" },
        '{"prompt":"\255"}', { prompt = "x", account = "elsewhere" }, "null", { prompt = "a wolf" },
      }
      local result = run()
      assert.equal(1, result.code)
      for number, what in pairs {
        [2] = "not JSON: ", [3] = "an object expected", [4] = "bad field 'prompt'", [5] = "an object expected",
        [6] = "bad field 'prompt' (string expected, got number)", [7] = 'unknown field "promt"', [8] = "mode: ",
        [9] = "bad field 'timeout' (number expected, got string)", [10] = "timeout: whole seconds",
        [11] = 'unknown field "user"', [12] = "prompt: not valid UTF-8", [13] = 'accounts: "elsewhere"',
        [14] = "an object expected",
      } do
        assert.truthy(result.err:find(("mjhook: jobs.jsonl:%d: %s"):format(number, what), 1, true), result.err)
        assert.truthy(result.out:find(("\n *%d  %%-  +refused  +"):format(number)), result.out)
      end
      assert.truthy(result.err:find("mjhook: 15 jobs: 2 pending, 13 refused\n", 1, true), result.err)
      assert.same({ "a fox", "a wolf" }, { sim.jobs()[1].prompt, sim.jobs()[2].prompt })
    end)

    local OBJECTS = '{"prompt": "a"},\n{"prompt": "b"},\n{"prompt": "c"}\n'
    for what, case in pairs {
      ["a JSON array over lines"] = { "[\n" .. OBJECTS .. "]\n", "a JSON array: ", "jq -c '.[]' FILE" },
      ["a JSON array on a line"] = { '[{"prompt": "a"}, {"prompt": "b"}]', "a JSON array: ", "jq -c '.[]' FILE" },
      ["a JSON array after a byte order mark and blank lines"] = {
        "\239\187\191\r\n \n" .. '[{"prompt": "a"},\n{"prompt": "b"}]', "a JSON array: ", "jobs.jsonl:3: ",
      },
      ["an empty array"] = { "[]\n" .. '{"prompt": "a"}', "a JSON array: ", "a job on each line" },
      ["an object around a list"] = { '{"jobs": [\n' .. OBJECTS .. "]}\n", "over several lines: ", "jq -c . FILE" },
      ["pretty-printed JSON"] = {
        '{\n  "prompt": "a {",\n  "context":\n{"prompt": "b"}\n}\n{\n "prompt": "c"\n}\n', "over several lines: ",
        "jq -c . FILE",
      },
      ["an object that goes on after a brace in a string"] = {
        '{"prompt": "a \\"}",\n"mode": "fast"}\n{"prompt": "b"}', "over several lines: ", "jobs.jsonl:1: ",
      },
      ["CSV"] = { 'prompt,mode\na fox,fast\n{"prompt": "a"}\n', "no JSON object: ", "a job on each line" },
      ["prompts alone"] = { 'a fox\na wolf\n{"prompt": "a"}\n', "no JSON object: ", "a job on each line" },
      ["prompts as JSON"] = { '"a fox"\n{"prompt": "a"}\n', "no JSON object: ", "a job on each line" },
    } do
      it("refuses " .. what .. " as a whole, says what is expected, and sends nothing of it", function()
        kit.write(file, case[1])
        for _, how in ipairs { "", "--json" } do
          local result = run(how)
          assert.same({ 1, "" }, { result.code, result.out })
          assert.truthy(result.err:find(case[2], 1, true), result.err)
          assert.truthy(result.err:find(case[3], 1, true), result.err)
          assert.truthy(result.err:find("Nothing was submitted\n", 1, true), result.err)
          assert.equal(1, select(2, result.err:gsub("\n", "")))
        end
        assert.equal(0, #sim.jobs())
        local left = shell "mjhook list --json"
        assert.equal("", left.out)
      end)
    end

    it("refuses a line with two objects, or one that is broken off, alone", function()
      kit.write(file, '{"prompt": "a"}{"prompt": "b"}\n{"prompt": "c"}\n{"prompt": "d\n'
        .. '{"prompt": "e"} {"prompt": "f"}\n')
      local result = run "--json"
      assert.equal(1, result.code)
      assert.same({ pending = 1, refused = 3 }, count(objects(result)))
      assert.equal("c", sim.jobs()[1].prompt)
    end)

    it("goes on after a wrong line, and counts identical lines, also far behind", function()
      local list = prompts(600)
      list[1], list[300], list[599] = { prompt = "" }, { prompt = "twice" }, { prompt = "twice" }
      put(list)
      local result = run("--json", { max_in_flight = 1 })
      assert.equal(1, result.code)
      local found = objects(result)
      assert.same({ refused = 1, ["nil"] = 599 }, count(found, "duplicate"))
      assert.equal(600, found[600].line)
      assert.is_false(found[300].ref == found[599].ref)
    end)

    it("exits 1 when the provider refuses a line for good, and says why", function()
      sim.script { submit = { "ok", "http_400" } }
      put(prompts(3))
      local result = run("", { connections = 1 })
      assert.equal(1, result.code)
      assert.matches("\n +2  %w+  failed   bad prompt\n", result.out)
      assert.equal(0, run().code) -- which it was told
    end)

    it("leaves queued what finds no slot, says why, and the reconciler sends it", function()
      put(prompts(5))
      local result = run("", { max_in_flight = 2 })
      assert.equal(0, result.code)
      assert.equal(3, select(2, result.out:gsub("queued   all 2 slots of account default are taken\n", "")))
      for _, job in ipairs(sim.jobs()) do
        sim.finish(job.taskId)
      end
      local mj = kit.open({ max_in_flight = 2 }, sim)
      kit.travel(100)
      assert(mj:reconcile {})
      assert.equal(4, #sim.jobs())
      assert.equal(2, sim.counters().accounts[kit.KEY].max_unfinished)
    end)

    it("takes from the options what a line does not say", function()
      put { { prompt = "a", user_id = "u2", timeout = 400 }, { prompt = "b", context = { n = 2 }, priority = 3 } }
      local list = objects(run "--json --user u1 --mode relaxed --timeout 10m --priority 5 --expires 2h \\\
        --account default --context '{\"n\":1}'")
      assert.same({ "u2", "relaxed", 400, 5, { n = 1 } },
        { list[1].user_id, list[1].mode, list[1].timeout, list[1].priority, list[1].context })
      assert.same({ "u1", "relaxed", 600, 3, { n = 2 } },
        { list[2].user_id, list[2].mode, list[2].timeout, list[2].priority, list[2].context })
      assert.near(7200000, list[1].expires_at - list[1].created_at, 5000)
    end)

    it("takes null for a field that is not there", function()
      put { '{"prompt":"a fox","mode":null,"key":null,"context":null}' }
      assert.same({ pending = 1 }, count(objects(run "--json")))
      put { { prompt = "a fox" } }
      known()
    end)

    it("passes over a line that is too long", function()
      put { { prompt = "a" }, ("x"):rep(3 * 1024 * 1024), { prompt = "b" }, ("y"):rep(lines.LONGEST + 1),
            { prompt = "c" } }
      local list = objects(run "--json")
      assert.same({ pending = 3, refused = 2 }, count(list))
      assert.equal("longer than 1048576 bytes", list[2].error.message)
      assert.equal("longer than 1048576 bytes", list[4].error.message)
      assert.same({ "a", "b", "c" }, { list[1].prompt, list[3].prompt, list[5].prompt })
    end)

    it("submits what it has read before it reads on", function()
      configure { max_in_flight = 1 }
      kit.sh("mkfifo " .. kit.quote(dir .. "/pipe"))
      local child = kit.spawn("exec " .. command("submit --json --file " .. kit.quote(dir .. "/pipe")))
      local pipe = assert(io.open(dir .. "/pipe", "w"))
      local mj = kit.open({ max_in_flight = 1 }, sim)
      for i = 1, 600 do
        pipe:write(cjson.encode { prompt = ("%04d"):format(i) .. (" a fox"):rep(50) }, "\n")
      end
      pipe:flush()
      local function stored()
        local stats = mj:stats().tasks
        return stats.queued + stats.pending + stats.submitting
      end
      kit.wait_until(function() return stored() >= 256 end)
      assert.is_nil(child:status())
      assert.is_true(stored() < 600)
      pipe:close()
      assert.equal(0, child:wait(20))
      assert.equal(600, stored())
    end)

    it("shows on a terminal how far it is, and a summary", function()
      if kit.sh "command -v script" == "" then
        pending "script(1) of util-linux is not here"
        return
      end
      configure { max_in_flight = 2 }
      put(prompts(300))
      kit.write(dir .. "/tty", "stty cols 100\n" .. command("submit --file " .. kit.quote(file)))
      local out = kit.sh(("script -qec %s /dev/null </dev/null"):format(kit.quote("bash " .. dir .. "/tty")))
      assert.truthy(out:find("\r\27[Ksubmitting lines 1 to 256 (100 %)\r\27[K", 1, true), out:sub(1, 200))
      assert.truthy(out:find("\r\27[Ksubmitting lines 257 to 300", 1, true))
      assert.truthy(out:find("mjhook: 300 jobs: 2 pending, 298 queued", 1, true))
      out = kit.sh(("script -qec %s /dev/null </dev/null"):format(kit.quote("bash " .. dir .. "/tty")))
      assert.truthy(out:find("mjhook: 300 jobs: 300 known (nothing was sent)", 1, true))
    end)
  end)

  describe("submit --file of what was submitted before", function()
    it("sends nothing, and gives the first tasks", function()
      put(prompts(4))
      local first = objects(run "--json")
      for i, task in ipairs(known()) do
        assert.equal(first[i].ref, task.ref)
      end
      assert.equal(4, select(2, run().out:gsub("this key's first task: nothing was sent", "")))
    end)

    it("sends only what is new when lines were added, removed or put in another order", function()
      put { { prompt = "1" }, { prompt = "2" }, { prompt = "3" } }
      run()
      put { { prompt = "new" }, { prompt = "3" }, { prompt = "1" }, { prompt = "newer" } }
      local list = objects(run "--json")
      assert.same({ ["nil"] = 2, ["true"] = 2 }, count(list, "duplicate"))
      assert.equal(5, #sim.jobs())
    end)

    it("knows a line that another program wrote in other words", function()
      put { '{"prompt":"a fox","timeout":600,"context":{"a":[1,2],"b":"\\u00fc"}}' }
      run()
      put { ' { "timeout" : 6e2, "context": { "b":"ü", "a" :[1.0, 2]}, "prompt":"a f\\u006fx", "key": null }  \r' }
      known()
    end)

    it("sends identical lines as many times as there are, and no time more", function()
      put { { prompt = "a" }, { prompt = "a" }, { prompt = "b" }, { prompt = "a" } }
      assert.same({ pending = 4 }, count(objects(run "--json")))
      known()
      put { { prompt = "b" }, { prompt = "a" }, { prompt = "a" }, { prompt = "a" }, { prompt = "a" } }
      assert.same({ ["nil"] = 1, ["true"] = 4 }, count(objects(run "--json"), "duplicate"))
      assert.equal(5, #sim.jobs())
    end)

    it("tells apart lines that look alike", function()
      put { { prompt = "a", timeout = 600 }, { prompt = "a", context = { 600 } }, { prompt = "a" },
            { prompt = "a", context = { "600" } }, { prompt = "a", context = 600 }, { prompt = "a", mode = "fast" } }
      assert.same({ pending = 6 }, count(objects(run "--json")))
    end)

    it("uses a line's own key, also one that other commands used", function()
      configure()
      shell "mjhook submit --key order-7 'a fox'"
      put { { prompt = "a fox", key = "order-7" }, { prompt = "a wolf", key = "order-8" },
            { prompt = "a wolf", key = "order-8" }, { prompt = "a bear", key = "order-8" } }
      local result = run "--json"
      assert.equal(1, result.code)
      local list = objects(result)
      assert.same({ true, nil, true }, { list[1].duplicate, list[2].duplicate, list[3].duplicate })
      assert.equal("key_conflict", list[4].error.code)
      assert.truthy(list[4].error.message:find(list[2].ref, 1, true))
      assert.is_nil(list[4].error.message:find("--batch", 1, true))
      assert.equal(2, #sim.jobs())
    end)

    it("sends all of it again in another batch, and in each batch once", function()
      put { { prompt = "a" }, { prompt = "b" }, { prompt = "c", key = "mine" } }
      run()
      local list = objects(run "--json --batch monday")
      assert.same({ ["nil"] = 2, ["true"] = 1 }, count(list, "duplicate"))
      assert.equal("mine", list[3].key)
      known "--batch monday"
      assert.same({ ["nil"] = 2, ["true"] = 1 }, count(objects(run "--json --batch=2"), "duplicate"))
      known()
      assert.equal(7, #sim.jobs())
    end)

    it("refuses it with other options, and says how to go on", function()
      put { { prompt = "a fox" } }
      run()
      local result = run "--mode relaxed"
      assert.equal(1, result.code)
      assert.truthy(result.err:find("--batch NAME submits it again", 1, true))
      assert.equal(1, #sim.jobs())
    end)
  end)

  describe("submit --file that is cut short", function()
    it("goes on where it was when it is submitted again, whenever it was killed, and sends no line twice", function()
      local n, killed = 160, 0
      local seed = os.time() + math.floor(core.clock() % 1000)
      math.randomseed(seed)
      sim.config { limit = 0, submit = { slow = 0.5, cut_after = 0.02 }, slow_ms = 15 }
      -- Killed senders leave slots taken; large lines, so that it submits in several portions.
      configure { max_in_flight = 1000 }
      local list = {}
      for i = 1, n do
        list[i] = { prompt = "job " .. i, context = { note = ("x"):rep(30000) }, key = i % 3 == 0 and "k" .. i or nil }
      end
      list[n + 1], list[n + 2] = list[1], list[1] -- three identical lines
      put(list)
      local words = command("submit --json --file " .. kit.quote(file))
      for _ = 1, 20 do
        local child = kit.spawn("exec " .. words)
        kit.sleep(math.random() * 0.15) -- any moment will do: that is what is tested
        child:kill "KILL"
        killed = killed + (child:wait() == 137 and 1 or 0)
      end
      local last
      for _ = 1, 3 do
        last = run "--json"
        assert.equal(0, last.code, last.err)
      end
      local mj = kit.open({ max_in_flight = 1000 }, sim)
      assert(mj:reconcile {})
      local message = ("seed %d, killed %d"):format(seed, killed)
      assert.is_true(killed >= 5, message)
      local ledger, accepted, tasks = sim.ledger(), {}, 0
      assert.same({}, ledger.billed_twice, message)
      for _, job in ipairs(ledger.submissions) do
        accepted[job.prompt] = (accepted[job.prompt] or 0) + 1
      end
      for task in mj:tasks {} do
        tasks = tasks + 1
        local of = ledger.refs[task.ref]
        assert.equal(1, task.attempt)
        assert.is_true(task.state == "ambiguous" or (task.state == "pending" and of ~= nil),
          message .. ": " .. task.state .. " " .. kit.story(task))
        assert.is_true((of and of.accepted or 1) == 1, message)
      end
      assert.equal(n + 2, tasks, message)
      assert.equal(n + 2, #objects(last))
      for i = 1, n do
        assert.is_true((accepted["job " .. i] or 0) <= (i == 1 and 3 or 1), message)
      end
      assert.is_true(mj:check().ok)
    end)

    it("by a store that is full exits 73, says from where on, and goes on when there is room", function()
      local list = {}
      for i = 1, 120 do
        list[i] = { prompt = "job " .. i, context = { note = ("x"):rep(60000) } }
      end
      put(list)
      local result = run("--json", { map_max = 4 * 1024 * 1024, max_in_flight = 1 })
      assert.equal(73, result.code)
      local line = tonumber(result.err:match "what follows line (%d+) was not submitted")
      assert.truthy(line, result.err)
      assert.equal(line, #objects(result))
      assert.is_true(line > 0 and line < 120, line)
      result = run("--json", { max_in_flight = 1 })
      assert.equal(0, result.code)
      assert.same({ ["nil"] = 120 - line, ["true"] = line }, count(objects(result), "duplicate"))
      assert.equal(1, #sim.jobs())
    end)

    it("by a reader that has had enough exits 1 and says so, and goes on when it is submitted again", function()
      put(prompts(2000))
      local result = shell("mjhook submit --json --file jobs.jsonl | head -n 1; echo ${PIPESTATUS[0]}",
        { max_in_flight = 1 })
      assert.matches("\n1\n$", result.out)
      assert.matches("the report has no reader: what follows line %d+ was not submitted", result.err)
      assert.same({ 2000, 0 }, { #objects(run "--json"), run().code })
      assert.equal(1, #sim.jobs())
    end)

    it("when all was read anyway is no failure", function()
      put(prompts(3))
      local result = shell "mjhook submit --json --file jobs.jsonl | true; echo ${PIPESTATUS[0]}"
      assert.same({ "0\n", "" }, { result.out, result.err })
      assert.equal(3, #sim.jobs())
    end)
  end)

  describe("submit --file with a command line that is wrong", function()
    local cases = {
      { "a file that is not there", "--file nothing.jsonl", '--file "nothing.jsonl": No such file' },
      { "no file", "--file=", "--file" },
      { "a prompt beside it", "--file jobs.jsonl fox", 'unexpected argument "fox"' },
      { "a key", "--file jobs.jsonl --key k", "--key makes one job" },
      { "a batch and no file", "--batch b fox", "--batch is for --file" },
      { "an empty batch", "--file jobs.jsonl --batch=", '--batch "": 1 to 128 bytes' },
      { "a batch that is too long", "--file jobs.jsonl --batch " .. ("b"):rep(129), "1 to 128 bytes of text" },
      { "a batch that is no text", "--file jobs.jsonl --batch $'\\xff'", "1 to 128 bytes of text" },
    }
    for _, case in ipairs(cases) do
      it("exits 64 and makes no store: " .. case[1], function()
        put { { prompt = "a" } }
        local result = shell("mjhook submit " .. case[2])
        assert.equal(64, result.code)
        assert.truthy(result.err:find(case[3], 1, true), result.err)
        assert.is_nil(core.stat(kit.store))
      end)
    end

    it("takes a batch of the longest name, on the longest count", function()
      put { { prompt = "a" } }
      assert.equal(0, run("--batch " .. ("b"):rep(128)).code)
    end)

    it("exits 1 when the file can't be read", function()
      local result = shell "mjhook submit --file ."
      assert.equal(1, result.code)
      assert.truthy(result.err:find(".: can't be read: Is a directory: what follows line 0", 1, true), result.err)
    end)

    it("says once, and not for each line, that nothing can be sent", function()
      put(prompts(3))
      local result = run("", { hook_url = "https://app.example/hook", secrets = {} })
      assert.equal(78, result.code)
      assert.equal(1, select(2, result.err:gsub("\n", "")))
      assert.truthy(result.err:find("secrets: ", 1, true))
      result = run("--account other", {})
      assert.equal(78, result.code)
      assert.truthy(result.err:find('"other" is not configured', 1, true))
    end)
  end)

  describe("lines", function()
    -- A file that gives its content in pieces of its own.
    local function reading(pieces)
      local i = 0
      local each, bytes = lines.each { read = function()
        i = i + 1
        return pieces[i]
      end }
      local list = {}
      for number, line in each do
        list[#list + 1] = number .. ":" .. (line or "?")
      end
      return list, bytes()
    end

    it("are the same wherever a block ends", function()
      local whole = "a\n\nbc\r\nd"
      for size = 1, #whole do
        local pieces = {}
        for at = 1, #whole, size do
          pieces[#pieces + 1] = whole:sub(at, at + size - 1)
        end
        assert.same({ "1:a", "2:", "3:bc\r", "4:d" }, (reading(pieces)))
      end
      assert.same({}, (reading {}))
      assert.same({ "1:", "2:" }, (reading { "\n", "\n" }))
    end)

    it("may be as long as LONGEST and no longer", function()
      local longest = ("x"):rep(lines.LONGEST)
      local list, bytes = reading { longest, "\n", longest, "y\n", longest .. "z", "\nshort" }
      assert.same({ "1:" .. longest, "2:?", "3:?", "4:short" }, list)
      assert.equal(3 * lines.LONGEST + 10, bytes)
    end)

    it("take no more memory the longer they are", function()
      local block, n = ("x"):rep(65536), 0
      collectgarbage()
      local before, most = collectgarbage "count", 0
      local each = lines.each { read = function()
        n = n + 1
        if n % 64 == 0 then
          collectgarbage()
          most = math.max(most, collectgarbage "count")
        end
        return n <= 1024 and block or nil
      end }
      assert.same({ 1, nil }, { each() })
      assert.is_nil(each())
      assert.is_true(most - before < 4096, most - before)
    end)
  end)

  describe("resubmit", function()
    local function failed(n)
      sim.script { submit = { { fault = "http_400", n = n } } }
      local mj = kit.open({}, sim)
      local refs = {}
      for i = 1, n do
        refs[i] = mj:submit({ prompt = "a fox" }).ref
      end
      return refs, mj
    end

    it("sends tasks again, by ref or by task id, and prints each", function()
      local refs, mj = failed(1)
      local task = mj:submit { prompt = "a wolf" }
      sim.finish(task.task_id, 2)
      mj:refresh(task.ref)
      local result = shell(("mjhook resubmit %s -- %s"):format(refs[1], task.task_id))
      assert.same({ 0, "" }, { result.code, result.err })
      assert.equal(("%s pending\n%s pending\n"):format(refs[1], task.ref), result.out)
      assert.equal(2, mj:get(refs[1]).attempt)
      assert.equal(2, mj:get(task.ref).attempt)
    end)

    it("says of one that waits why", function()
      local refs, mj = failed(1)
      for i = 1, 10 do
        mj:submit { prompt = "job " .. i }
      end
      assert.equal(refs[1] .. " queued (all 10 slots of account default are taken)\n",
        shell("mjhook resubmit " .. refs[1]).out)
    end)

    it("tries each, reports what could not be, and exits with the highest code", function()
      local refs, mj = failed(2)
      local pending_one = mj:submit { prompt = "a wolf" }
      local result = shell(("mjhook resubmit --json %s nothing %s %s"):format(pending_one.ref, refs[1], refs[2]))
      assert.equal(1, result.code)
      local done = cjson.decode(result.out)
      assert.same({ refs[1], refs[2] }, { done.tasks[1].ref, done.tasks[2].ref })
      assert.same({ "state", pending_one.ref, "not_found", "nothing" },
        { done.errors[1].code, done.errors[1].ref, done.errors[2].code, done.errors[2].ref })
      assert.truthy(result.err:find(pending_one.ref .. " is pending", 1, true))
    end)

    it("exits 1 when the provider refuses it again", function()
      local refs = failed(1)
      sim.script { submit = { "http_400" } }
      local result = shell("mjhook resubmit " .. refs[1])
      assert.equal(1, result.code)
      assert.matches("^%w+ failed %(bad prompt%)\n$", result.out)
    end)

    it("warns in its help that it may be billed twice", function()
      local result = shell "mjhook help resubmit"
      assert.equal(0, result.code)
      assert.truthy(result.out:find("billed twice", 1, true))
      assert.truthy(kit.read(kit.root .. "/scripts/man/mjhook.1"):find("may be billed twice", 1, true))
      assert.equal(64, shell("mjhook resubmit").code)
    end)
  end)
end)
