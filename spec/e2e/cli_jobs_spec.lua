-- mjhook submit --wait, adopt and resume: the real program against the simulated provider.
local cjson = require "cjson"
local core = require "mjhook.core"
local cli = require "cli"
local kit = require "kit"
local sim = require "sim"

describe("mjhook", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function run(arguments, more)
    local environment = { MIDJOURNEY_API_BASE_URL = sim.url }
    for name, value in pairs(more or {}) do
      environment[name] = value
    end
    return cli.run(arguments, environment)
  end

  local function last_line(s)
    return s:match "([^\n]*)\n$"
  end

  describe("submit --wait", function()
    -- No hook_url and no reconciler: the command finds the end by itself. Polls come after a second.
    local config

    before_each(function()
      config = kit.write(kit.tmp() .. "/config.lua", ("return { store = %q, poll = { first = 1, max = 5 } }"):format(
        kit.settings().store))
    end)

    it("ends with the image's URL, and says the ref first", function()
      local result = run { "-c", config, "submit", "a fox [ms=500]", "--wait" }
      assert.same({ 0, "" }, { result.code, result.err })
      local first, last = result.out:match "^([^\n]*)\n([^\n]*)\n$"
      assert.matches("^%w+ pending$", first)
      assert.equal(sim.url .. "/images/" .. sim.jobs()[1].taskId .. "/grid.png", last)
    end)

    it("gives the finished task as JSON", function()
      local result = run { "-c", config, "submit", "a fox [ms=500]", "--wait", "--json" }
      assert.same({ 0, "" }, { result.code, result.err })
      local task = cjson.decode(result.out)
      assert.same({ "succeeded", "poll" }, { task.state, task.source })
    end)

    it("ends with 1 and the reason when the job fails", function()
      local result = run { "-c", config, "submit", "a fox [fail] [ms=500]", "--wait" }
      assert.equal(1, result.code)
      assert.matches("^%w+ pending\n$", result.out)
      assert.matches("^mjhook: failed: .", result.err)
    end)

    it("gives up after --wait-for, and says how to wait on", function()
      local result = run { "-c", config, "submit", "a fox", "--wait-for", "1s" }
      assert.equal(1, result.code)
      local ref = result.out:match "^(%w+) pending\n$"
      assert.truthy(result.err:find("no end within 1 s; `mjhook watch " .. ref .. "` waits on", 1, true), result.err)
    end)

    it("gives a repeated key's image again, and sends nothing", function()
      local first = run { "-c", config, "submit", "a fox [ms=500]", "--key", "k", "--wait" }
      local again = run { "-c", config, "submit", "a fox [ms=500]", "--key", "k", "--wait" }
      assert.equal(0, again.code)
      assert.equal(last_line(first.out), last_line(again.out))
      assert.equal(1, #sim.jobs())
    end)

    it("shows its progress on a terminal, and leaves the image's URL as last line", function()
      local out, code = cli.terminal(100, ("mjhook -c %s submit 'a fox [ms=500]' --wait"):format(config),
        { MIDJOURNEY_API_BASE_URL = sim.url, NO_COLOR = "1" })
      assert.equal(0, code, out)
      assert.matches("\27%[Kpending, [%d.]+ s", out)
      assert.matches("\27%[Khttp://[^\n]+/grid.png\n?$", out)
    end)

    it("is for one job", function()
      local result = cli.shell("echo '{\"prompt\":\"a\"}' >jobs; mjhook submit --file jobs --wait")
      assert.equal(64, result.code)
      assert.truthy(result.err:find("--wait is for one job", 1, true))
    end)
  end)

  describe("adopt", function()
    local function elsewhere(prompt)
      local mj = kit.open({ store = kit.tmp() .. "/other" }, sim)
      return assert(mj:submit { prompt = prompt or "a fox" }).task_id
    end

    it("takes a job over and shows what the provider says of it", function()
      local running, done = elsewhere "a fox", elsewhere "a wolf"
      sim.finish(done)
      local result = run { "adopt", running, done, "--user", "u1" }
      assert.same({ 0, "" }, { result.code, result.err })
      local first, second = result.out:match "^([^\n]*)\n([^\n]*)\n$"
      assert.matches("^%w+ pending$", first)
      assert.matches("^%w+ succeeded http://[^ ]+/grid.png$", second)
      local task = cjson.decode(run({ "get", second:match "^%w+", "--json" }).out)
      assert.same({ "u1", "a wolf" }, { task.user_id, task.prompt })
    end)

    it("says so when it knows the job already", function()
      local id = elsewhere()
      local first = run { "adopt", id }
      local again = run { "adopt", id }
      assert.equal(0, again.code)
      assert.equal(first.out:match "^%w+" .. " pending (known already)\n", again.out)
    end)

    it("asks whether the id is right when the provider does not know it", function()
      local result = run { "adopt", "nobody-knows-me" }
      assert.equal(0, result.code)
      assert.truthy(result.err:find("nobody-knows-me: the provider does not know this job under account default", 1,
        true), result.err)
      assert.matches("^%w+ pending\n$", result.out)
    end)

    it("takes it all the same while the provider can't be reached", function()
      local result = run({ "adopt", "T1", "--json" }, { MIDJOURNEY_API_BASE_URL = "http://127.0.0.1:1" })
      assert.equal(0, result.code)
      assert.equal("pending", cjson.decode(result.out).tasks[1].state)
      assert.matches("T1: ", result.err)
    end)

    it("refuses what is no id, and goes on with the others", function()
      local id = elsewhere()
      local result = run { "adopt", "no good", id }
      assert.equal(64, result.code)
      assert.truthy(result.err:find("task_id: 1 to 256 letters", 1, true), result.err)
      assert.matches("^%w+ pending\n$", result.out)
      assert.equal(64, run({ "adopt", "a", "b", "--key", "k" }).code)
      assert.equal(64, run({ "adopt" }).code)
    end)
  end)

  describe("pause", function()
    it("keeps an account from sending until it is resumed, whatever the provider says meanwhile", function()
      local mj = kit.open({}, sim)
      local result = run { "pause" }
      assert.same({ 0, "", "account default: nothing new is sent until `mjhook resume default`\n" },
        { result.code, result.err, result.out })
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("queued", task.state)
      assert(mj.exec:commit { { op = "pause", account = "default", ["until"] = 0 } }) -- as a refusal's rest ends
      assert(mj:reconcile { budget = 5 })
      assert.equal(0, #sim.jobs())
      assert.truthy(run({ "get", task.ref }).out:find("rests until it is resumed: it was paused by hand", 1, true))
      assert.truthy(run({ "stats" }).out:find("rests until `mjhook resume`", 1, true))
      run { "resume" }
      assert(mj:reconcile { budget = 5 })
      assert.equal(1, #sim.jobs())
    end)

    it("takes a time, and names what is wrong", function()
      local mj = kit.open({}, sim)
      assert.equal("account default: nothing new is sent for 30 min\n", run({ "pause", "--for", "30m" }).out)
      assert.is_true(math.abs(mj:stats().accounts[1].paused_until - core.now() - 1800000) < 60000)
      assert.same({ account = "default", seconds = 5 }, cjson.decode(run({ "pause", "--for=5s", "--json" }).out))
      assert.equal(64, run({ "pause", "--for", "0" }).code)
      assert.equal(64, run({ "pause", "--for", "soon" }).code)
      assert.equal(1, run({ "pause", "nobody" }).code)
      assert.is_true(mj:resume "default")
      assert.equal("not_found", select(2, mj:pause "nobody").code)
      assert.has_error(function() mj:pause("default", 0) end)
    end)
  end)

  describe("resume", function()
    it("ends the rest of an account whose quota was topped up", function()
      local mj = kit.open({}, sim)
      sim.script { submit = { "quota" } }
      assert.equal("queued", assert(mj:submit { prompt = "a fox" }).state)
      local result = run { "resume" }
      assert.same({ 0, "", "account default: its rest is over (quota); 1 queued job\n" },
        { result.code, result.err, result.out })
      assert(mj:reconcile { budget = 5 })
      assert.equal(1, #sim.jobs())
      assert.equal("account default was not at rest; 0 queued jobs\n", run({ "resume", "default" }).out)
    end)

    it("says it to a program", function()
      local mj = kit.open({}, sim)
      sim.script { submit = { "quota" } }
      assert(mj:submit { prompt = "a fox" })
      assert.same({ account = "default", rested = true, reason = "quota", queued = 1 },
        cjson.decode(run({ "resume", "default", "--json" }).out))
    end)

    it("asks which account is meant, and knows no other", function()
      local config = kit.write(kit.tmp() .. "/config.lua", ([[return { store = %q,
        accounts = { { name = "one", api_key = "k1" }, { name = "two", api_key = "k2" } } }]]):format(
        kit.settings().store))
      kit.open()
      local result = run { "-c", config, "resume" }
      assert.equal(64, result.code)
      assert.truthy(result.err:find("ACCOUNT expected, one of one, two", 1, true), result.err)
      result = run { "-c", config, "resume", "tow" }
      assert.equal(1, result.code)
      assert.truthy(result.err:find('no account has the name tow: did you mean "two"?', 1, true), result.err)
    end)
  end)
end)
