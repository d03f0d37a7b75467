-- mjhook-reconcile as cron runs it: the program, its options, what it says and its exit codes.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local PROGRAM = kit.build .. "/bin/mjhook-reconcile"
local AS_ROOT = core.uid() == 0
local FIELDS = {
  "ambiguous", "buried", "delivered", "elapsed_ms", "errors", "failed", "lost", "pending", "polled", "pruned", "queued",
  "requests", "submitted", "succeeded",
}

describe("mjhook-reconcile", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir, config, mj

  -- A configuration file and an empty store.
  local function prepare(more, policy)
    dir = kit.tmp()
    mj = kit.open(more, sim)
    local settings = kit.settings(more, sim)
    settings.log, settings.policy = nil, nil
    if policy then
      settings.policy = kit.write(dir .. "/policy.lua", policy)
    end
    config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
  end

  -- Submitted so long ago that it is to be polled now.
  local function submit(prompt)
    kit.travel(-100)
    local task = assert(mj:submit { prompt = prompt or "a fox" })
    kit.travel(100)
    return task
  end

  -- Like cron: nothing in the environment, another directory, no terminal.
  local function command(arguments, environment)
    return ("cd / && exec env -i PATH=/usr/bin:/bin %s %s %s"):format(environment or "", kit.quote(PROGRAM), arguments)
  end

  local function run(arguments, environment)
    local child = kit.spawn(command(arguments, environment))
    local code = child:wait()
    return { code = code, out = child:out(), err = child:err() }
  end

  local function with_config(arguments)
    return "-c " .. kit.quote(config) .. " " .. (arguments or "")
  end

  it("says its version and its options", function()
    local version = run "--version"
    assert.same({ 0, "" }, { version.code, version.err })
    assert.matches("^mjhook%-reconcile %d+%.%d+%.%d+ ", version.out)
    local help = run "--help"
    assert.same({ 0, "" }, { help.code, help.err })
    for option in ("-c FILE|--store|--budget|--limit|--interval|--dry-run|--json|--metrics|-q"):gmatch "[^|]+" do
      assert.is_truthy(help.out:find(option, 1, true), option)
    end
  end)

  for _, arguments in ipairs {
    "--nonsense", "-x", "extra", "--budget", "--budget x", "--budget 0", "--budget -1", "--budget 1e9", "--budget nan",
    "--limit 0", "--limit many", "--interval 0", "--interval ''", "-c", "--store", "--budget 0x10", "--budget 1e3",
    "--budget ' 5'", "--budget +5", "--budget 5s", "--budget .5", "--budget 1.5.5", "--limit 1.5", "--limit 0x10",
    "--limit inf", "--interval 1e1", "--budget 5 --budget=6", "-c a --config b", "--limit 1 --json --limit 2",
  } do
    it("exits 64 when called with " .. arguments, function()
      local result = run(arguments)
      assert.equal(64, result.code)
      assert.equal("", result.out)
      assert.is_true(#result.err > 0)
    end)
  end

  it("is silent and exits 0 when there is nothing to do", function()
    prepare()
    assert.same({ code = 0, out = "", err = "" }, run(with_config()))
  end)

  it("loads libcurl when it makes a request, and not before", function()
    prepare()
    local loads = ("LD_DEBUG=files %s -c %s"):format(PROGRAM, config)
    assert.is_nil((kit.sh(loads):find("libcurl", 1, true)))
    sim.finish(submit().task_id)
    assert.truthy((kit.sh(loads):find("libcurl", 1, true)))
    assert.equal(1, mj:stats().tasks.succeeded)
  end)

  it("is batch work to the kernel, and keeps what its caller has set", function()
    prepare({}, ([[
      local stat = io.open("/proc/self/stat"):read "*a"
      local fields = {}
      for field in stat:match("%%) (.*)"):gmatch "%%S+" do
        fields[#fields + 1] = field
      end
      io.open(%q, "w"):write(fields[39], " ", fields[17]) -- proc(5): policy, nice
      return {}
    ]]):format(kit.tmp() .. "/scheduling"))
    local file = kit.read(dir .. "/policy.lua"):match '"([^"]+/scheduling)"'
    for before, expected in pairs { [""] = "3 0", ["nice -n 3"] = "3 3", ["chrt -i 0"] = "5 0" } do -- sched(7)
      assert.equal(0, run(with_config(), before).code)
      assert.equal(expected, kit.read(file), before)
    end
  end)

  it("makes one pass, silently: polls, submits, delivers", function()
    local mark
    prepare({ max_in_flight = 1 }, [[
      return { on_event = function(task, ctx)
        local file = assert(io.open(os.getenv "MARK", "a"))
        file:write(ctx.type, " ", task.prompt, "\n")
        file:close()
      end }]])
    mark = dir .. "/mark"
    local one, two = submit "1", submit "2"
    sim.finish(one.task_id)
    assert.same({ code = 0, out = "", err = "" }, run(with_config(), "MARK=" .. mark))
    assert.equal("succeeded", mj:get(one.ref).state)
    assert.equal("pending", mj:get(two.ref).state)
    assert.equal("succeeded 1\n", kit.read(mark))
  end)

  it("prints one JSON object with --json, and exactly the fields that are promised", function()
    prepare({ max_in_flight = 2 }, "return {}")
    local one = submit "1"
    submit "2"
    submit "3"
    sim.finish(one.task_id)
    local result = run(with_config "--json")
    assert.same({ 0, "" }, { result.code, result.err })
    assert.equal(1, select(2, result.out:gsub("\n", "")))
    local report, names = cjson.decode(result.out), {}
    for name, value in pairs(report) do
      names[#names + 1] = name
      assert.equal("number", type(value), name)
    end
    table.sort(names)
    assert.same(FIELDS, names)
    local elapsed = report.elapsed_ms
    report.elapsed_ms = nil
    assert.same({
      polled = 2, succeeded = 1, failed = 0, lost = 0, pending = 2, ambiguous = 0, submitted = 1, queued = 0,
      delivered = 1, buried = 0, pruned = 0, errors = 0, requests = 2,
    }, report)
    assert.is_true(elapsed >= 0 and elapsed < 10000)
    assert.is_nil(result.out:find("%d%.%d")) -- whole numbers, written so
  end)

  it("says what it did with -v, and shows progress on a terminal", function()
    prepare()
    submit()
    local result = run(with_config "-v")
    assert.same({ 0, "" }, { result.code, result.out })
    assert.matches("^mjhook%-reconcile: polled 1, pending 1, requests 1 in %d", result.err)
    local shown = kit.sh(("script -qec %s /dev/null </dev/null"):format(kit.quote(PROGRAM .. " " .. with_config())))
    assert.matches("\27%[Kpoll     %[%.+%] 0 of at most 1", shown)
    assert.matches("pending 1", shown)
  end)

  it("finds its configuration through the environment; -c and --store go first", function()
    prepare()
    submit()
    local other = kit.write(dir .. "/other.lua", receiver.config_text { stroe = dir .. "/no-such-store" })
    local environment = "MJHOOK_CONFIG=" .. kit.quote(config)
    assert.equal(1, cjson.decode(run("--json", environment).out).pending)
    assert.equal(78, run("-c " .. kit.quote(other), environment).code)
    kit.write(other, receiver.config_text { store = dir .. "/no-such-store" })
    local result = run("--json --store " .. kit.quote(kit.store), "MJHOOK_CONFIG=" .. kit.quote(other)
      .. " MIDJOURNEY_API_KEY=" .. kit.KEY .. " MIDJOURNEY_API_BASE_URL=" .. sim.url)
    assert.equal(1, cjson.decode(result.out).pending)
  end)

  describe("exits 78 and says why", function()
    local broken = {
      { "there is no file", nil, "No such file" },
      { "the file does not compile", "return {", "expected" },
      { "a key is unknown", "return { stroe = '/x' }", "stroe: unknown key" },
      { "a value is bad", "return { store = '/x', batch = 'many' }", "batch: " },
      { "there is no store in it", "return {}", "store: not set" },
      { "the policy does not compile", "return { store = '@DIR@/store', policy = 'policy.lua' }", "policy: " },
    }
    for _, case in ipairs(broken) do
      it("when " .. case[1], function()
        dir = kit.tmp()
        kit.write(dir .. "/policy.lua", "return {")
        local path = dir .. "/config.lua"
        if case[2] then
          kit.write(path, (case[2]:gsub("@DIR@", { ["@DIR@"] = dir })))
        end
        local result = run("-c " .. path)
        assert.equal(78, result.code)
        assert.equal("", result.out)
        assert.matches("^mjhook%-reconcile: [^\n]+\n$", result.err)
        assert.is_truthy(result.err:find(case[3], 1, true), result.err)
        assert.is_nil(core.stat(dir .. "/store")) -- a mistyped store is not made
      end)
    end

    it("when others can write the file", function()
      prepare()
      os.execute("chmod 666 " .. config)
      assert.equal(78, run(with_config()).code)
    end)
  end)

  it("exits 75 at once when another pass runs", function()
    prepare()
    assert(mj.store:lock "reconcile")
    local result = run(with_config())
    assert.same({ 75, "" }, { result.code, result.out })
    assert.matches("another reconciler", result.err)
    assert.same({ code = 75, out = "", err = "" }, run(with_config "-q"))
    mj.store:unlock()
    assert.equal(0, run(with_config()).code)
  end)

  if AS_ROOT then
    it("exits 73 for another user's store, and leaves it alone", function()
      prepare()
      mj:close()
      os.execute("chown -R 65534 " .. kit.quote(kit.store))
      local result = run(with_config())
      assert.equal(73, result.code)
      assert.is_truthy(result.err:find("65534", 1, true) or result.err:find("nobody", 1, true))
    end)
  end

  it("writes metrics for a collector, and exits 73 when it can't", function()
    prepare()
    submit()
    assert.equal(0, run(with_config("--metrics " .. dir .. "/mjhook.prom")).code)
    local text = kit.read(dir .. "/mjhook.prom")
    assert.matches("\nmjhook_sweep_polled 1\n", text)
    assert.matches("\nmjhook_sweep_pending 1\n", text)
    assert.matches("\nmjhook_last_sweep_timestamp_seconds %d+%.?%d*\n", text)
    for line in text:gmatch "[^\n]+" do
      assert.is_truthy(line:match "^# TYPE mjhook_[%l_]+ %l+$" or line:match "^# HELP mjhook_[%l_]+ .+%.$"
        or line:match "^mjhook_[%l_]+ %d+%.?%d*$" or line:match '^mjhook_[%l_]+{[^}]+} %d+%.?%d*$', line)
    end
    local result = run(with_config "--metrics /nowhere/x.prom")
    assert.equal(73, result.code)
    assert.matches("metrics: .*/nowhere/x.prom", result.err)
  end)

  it("exits 1 when the provider can't be reached; nothing is lost", function()
    prepare()
    local task = submit()
    local away = kit.write(dir .. "/away.lua", receiver.config_text {
      store = kit.store, api_key = kit.KEY, base_url = "http://127.0.0.1:1",
    })
    local result = run("--json -c " .. away)
    assert.equal(1, result.code)
    assert.equal(1, cjson.decode(result.out).errors)
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("exits 1 under a wrong key and says so once, without the key", function()
    prepare()
    submit "1"
    submit "2"
    sim.config { keys = { "another" } }
    local result = run(with_config())
    assert.equal(1, result.code)
    assert.equal(1, select(2, result.err:gsub("refuses the API key", "")))
    assert.is_nil(result.err:find(kit.KEY, 1, true))
  end)

  describe("says what went wrong in the first line of what cron mails", function()
    for _, quiet in ipairs { "", "-q" } do
      local function first_line(more)
        local result = run(with_config(quiet .. (more or "")))
        assert.equal(1, result.code)
        local lines = select(2, result.err:gsub("\n", ""))
        assert.equal(quiet == "-q" and 1 or 2, lines, result.err) -- the other one is the summary
        return (result.err:match "^mjhook%-reconcile: error: (.-)\n")
      end

      it("when the provider can't be reached " .. quiet, function()
        prepare()
        submit()
        config = kit.write(dir .. "/away.lua", receiver.config_text {
          store = kit.store, api_key = kit.KEY, base_url = "http://127.0.0.1:1",
        })
        assert.matches("connect to 127.0.0.1", first_line())
      end)

      it("when one task spoils the answers about its neighbours " .. quiet, function()
        prepare()
        local sick, fine = submit "[status:nan]", submit "2"
        sim.finish(fine.task_id)
        assert.matches("^task " .. sick.ref .. ", asked about alone: HTTP 200: not JSON", first_line())
        assert.equal("succeeded", mj:get(fine.ref).state)
      end)

      it("when base_url is wrong " .. quiet, function()
        prepare()
        sim.config { submit = { html_404 = 1 } }
        for i = 1, 9 do
          assert(mj:submit { prompt = tostring(i) })
        end
        assert.matches("^account default: nothing is sent under it.*base_url", first_line())
        assert.equal(9, mj:stats().tasks.queued)
      end)

      it("when a handler raises, in words that a log file gets, too " .. quiet, function()
        prepare({ log = kit.tmp() .. "/log" }, "return { on_event = function() error('no disk', 0) end }")
        sim.finish(submit().task_id)
        assert.matches("^event .*no disk$", first_line())
      end)
    end

    it("and tells ten kinds at most", function()
      prepare({ max_in_flight = 256 }, "return { on_event = function(task) error('no ' .. task.prompt, 0) end }")
      sim.config { limit = 0 }
      for i = 1, 15 do
        sim.finish(submit(tostring(i)).task_id)
      end
      local result = run(with_config())
      assert.equal(1, result.code)
      assert.equal(10, select(2, result.err:gsub("error: event ", "")), result.err)
      assert.matches("error: 5 more of them; %-v tells all\n", result.err)
    end)
  end)

  it("exits 0, silently, when the provider only limits the rate", function()
    prepare()
    submit()
    sim.config { status = { rate_limit = 1 } }
    local result = run(with_config())
    assert.same({ 0, "", "" }, { result.code, result.out, result.err })
  end)

  it("exits 1 when a handler raises, and says what", function()
    prepare({}, "return { on_event = function() error('no disk', 0) end }")
    sim.finish(submit().task_id)
    local result = run(with_config "-v")
    assert.equal(1, result.code)
    assert.matches("no disk", result.err)
    assert.equal(1, mj:stats().events)
  end)

  it("ends a handler that hangs, and goes on", function()
    prepare({ handler_timeout = 0.2 }, "return { on_event = function() while true do pcall(function() end) end end }")
    sim.finish(submit().task_id)
    local result = run(with_config "-v")
    assert.equal(1, result.code)
    assert.matches("handler_timeout", result.err)
  end)

  it("writes nothing with --dry-run, and says what it would do", function()
    prepare({}, "return { on_event = function() error 'called' end }")
    local task = submit()
    sim.finish(task.task_id)
    local before = mj:get(task.ref)
    local result = run(with_config "--dry-run")
    assert.same({ 0, "" }, { result.code, result.err })
    assert.matches("^would poll 1, ", result.out)
    assert.same(before, mj:get(task.ref))
    assert.equal(0, sim.requests "status")
    result = run(with_config "--dry-run --json")
    assert.equal(1, cjson.decode(result.out).polled)
    assert.same(before, mj:get(task.ref))
  end)

  it("keeps to --limit and --budget", function()
    prepare { batch = 1, connections = 1 }
    for i = 1, 3 do
      submit(tostring(i))
    end
    assert.equal(1, cjson.decode(run(with_config "--json --limit 1").out).polled)
    sim.script { status = { "hang" } }
    local report = cjson.decode(run(with_config "--json --budget 0.5").out)
    assert.is_true(report.elapsed_ms >= 400 and report.elapsed_ms < 15000, report.elapsed_ms)
    assert.equal(0, report.lost)
  end)

  describe("on a signal", function()
    for _, signal in ipairs { "TERM", "INT" } do
      it("finishes the batch in hand and exits 0: " .. signal, function()
        prepare { batch = 1, connections = 1 }
        local tasks = { submit "1", submit "2", submit "3" }
        for _, task in ipairs(tasks) do
          sim.finish(task.task_id)
        end
        sim.script { status = { { fault = "slow", ms = 500 } } }
        local child = kit.spawn(command(with_config "--json"))
        kit.wait_until(function() return sim.requests "status" == 1 end)
        child:kill(signal)
        assert.equal(0, child:wait())
        local report = cjson.decode(child:out())
        assert.same({ 1, 1, 2, 0 }, { report.polled, report.succeeded, report.pending, report.errors })
        assert.equal(1, sim.requests "status")
        assert.equal(0, run(with_config()).code)
        assert.equal(3, mj:stats().tasks.succeeded)
      end)
    end

    it("kill -9 in the middle of a pass loses nothing and blocks no other", function()
      prepare()
      local task = submit()
      sim.finish(task.task_id)
      sim.script { status = { "hang" } }
      local child = kit.spawn(command(with_config()))
      kit.wait_until(function() return sim.requests "status" == 1 end)
      assert.equal(75, run(with_config()).code)
      child:kill "KILL"
      child:wait()
      assert.equal(0, run(with_config()).code)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)
  end)

  describe("with --interval", function()
    it("makes a pass every so often until it is told to end", function()
      prepare()
      local child = kit.spawn(command(with_config "--interval 0.2 --json"))
      kit.wait_until(function() return select(2, child:out():gsub("\n", "")) >= 2 end)
      local task = submit()
      sim.finish(task.task_id)
      kit.wait_until(function() return mj:get(task.ref).state == "succeeded" end)
      assert.is_nil(child:status())
      child:kill "TERM"
      assert.equal(0, child:wait())
      assert.equal("", child:err())
    end)

    it("sends who waits as soon as a slot is free, long before the next pass", function()
      prepare { max_in_flight = 1 }
      local one, two = submit(), submit()
      assert.equal("queued", two.state)
      local child = kit.spawn(command(with_config "--interval 3600 --json"))
      kit.wait_until(function() return child:out() ~= "" end)
      assert.equal("queued", mj:get(two.ref).state)
      assert(mj:callback { method = "POST", uri = require("mjhook.provider").hook_url(mj, one.ref, 1), headers = {},
                           body = ('{"taskId":"%s","status":2,"failReason":"x"}'):format(one.task_id) }.status == 200)
      kit.wait_until(function() return mj:get(two.ref).state == "pending" end)
      kit.wait_until(function() return select(2, child:out():gsub("\n", "")) == 2 end)
      child:kill "TERM"
      assert.equal(0, child:wait())
    end)

    it("does not run in circles for one who waits for something else than a slot", function()
      prepare()
      mj = kit.open({ accounts = { { name = "default", api_key = kit.KEY },
                                   { name = "other", api_key = kit.KEY, max_in_flight = 1 } } }, sim)
      for _ = 1, 2 do -- the second one waits for an account that the reconciler does not have
        assert(mj:submit { prompt = "a fox", account = "other" })
      end
      assert.equal(1, mj:stats().ready)
      local child = kit.spawn(command(with_config "--interval 3600 --json"))
      kit.wait_until(function() return child:out() ~= "" end)
      kit.sleep(0.5)
      assert.equal(1, select(2, child:out():gsub("\n", "")))
      child:kill "TERM"
      assert.equal(0, child:wait())
    end)

    it("ends at once while it rests", function()
      prepare()
      local child = kit.spawn(command(with_config "--interval 3600 --json"))
      kit.wait_until(function() return child:out() ~= "" end)
      kit.sleep(0.1)
      child:kill "TERM"
      assert.equal(0, child:wait())
    end)

    it("goes on when a pass fails or another one runs", function()
      prepare()
      assert(mj.store:lock "reconcile")
      local child = kit.spawn(command(with_config "--interval 0.1 --json"))
      kit.wait_until(function() return child:err():find "another reconciler" end)
      mj.store:unlock()
      kit.wait_until(function() return child:out() ~= "" end)
      child:kill "TERM"
      assert.equal(0, child:wait())
    end)

    it("ends when its configuration is bad", function()
      assert.equal(78, run("--interval 1 -c /nowhere/config.lua").code)
    end)
  end)
end)
