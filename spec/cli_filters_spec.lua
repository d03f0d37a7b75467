-- The operator's tool with filters: listing both ways, and acting on everything that a filter picks.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"

describe("mjhook", function()
  after_each(kit.cleanup)

  local mj, config

  before_each(function()
    mj = kit.open { base_url = "http://127.0.0.1:1" }
    config = kit.write(kit.tmp() .. "/config.lua", ([[return {
      store = %q, api_key = %q, base_url = "http://127.0.0.1:1", policy = {} }]]):format(kit.store, kit.KEY))
  end)

  -- Runs the program with these words; gives its output, both streams, and its exit code.
  local function run(words, input)
    return kit.sh(("%s %s %s/scripts/mjhook -c %s %s %s"):format(kit.env or "", kit.lua, kit.root, config, words,
      input or "</dev/null"))
  end

  local function put(tasks) return kit.put(mj, tasks) end

  local function signal(ref, kind, more) kit.signal(mj, ref, kind, more) end

  local function succeed(ref) kit.succeed(mj, ref) end

  local function states(refs)
    local list = {}
    for i, ref in ipairs(refs) do
      list[i] = mj:get(ref).state
    end
    return table.concat(list, " ")
  end

  local function listed(refs, words)
    local out, code = run("list --json " .. words)
    assert.equal(0, code, out)
    local got = {}
    for line in out:gmatch "[^\n]+" do
      for i, ref in ipairs(refs) do
        got[#got + 1] = line:find(('"ref":"%s"'):format(ref), 1, true) and i or nil
      end
    end
    return table.concat(got, " ")
  end

  describe("list", function()
    it("takes every filter, and pages both ways", function()
      local refs = put {
        { prompt = "red fox", account = "a", key = "k1" }, { prompt = "RED wolf", mode = "relaxed", key = "k2" },
        { prompt = "blue fox", user_id = "u" }, { prompt = "owl", user_id = "u" },
      }
      signal(refs[4], "cancel", { source = "user" })
      for words, want in pairs {
        ["--account a"] = "1", ["--mode relaxed"] = "2", ["--key k2"] = "2", ["-q red --since 1h"] = "2 1",
        ["--q=FOX --since 1h"] = "3 1", ["--state queued,cancelled --user u"] = "4 3",
        ["--state queued --state cancelled --user u"] = "4 3", ["--state cancelled --state=cancelled"] = "4",
        ["--until 1h"] = "",
        ["--before " .. refs[3]] = "2 1", ["--after " .. refs[2]] = "4 3",
        ["--after " .. refs[1] .. " --limit 1"] = "2", ["--after " .. refs[1] .. " --limit 2"] = "3 2",
        ["--before " .. refs[4] .. " --limit 2"] = "3 2", ["--since 1h --until 0s"] = "4 3 2 1",
      } do
        assert.equal(want, listed(refs, words), words)
      end
    end)

    it("counts", function()
      put { { user_id = "u" }, { user_id = "u" }, {} }
      assert.same({ "3", 0 }, { run "list --count" })
      assert.same({ "2", 0 }, { run "list --count --user u" })
      assert.same({ '{"count":2,"exact":true}', 0 }, { run "list --count --user u --json" })
    end)

    it("says that a text was looked for in the last days alone", function()
      put { { prompt = "owl" } }
      assert.matches("the last seven days were looked at", (run "list -q owl"))
      assert.is_nil((run "list -q owl --since 0s"):find("seven days", 1, true))
    end)

    for i, case in ipairs {
      { "--state queued,quued", 'did you mean "queued"?' }, { "--state ''", "one of queued" },
      { "--mode turbo", "one of fast, relaxed expected" }, { "--before x", "a ref expected" },
      { "--key=", "it is empty" }, { "--state queued --state quued", 'did you mean "queued"?' },
      { "--user a --user b", "--user was given twice" }, { "-q a --q b", "--q was given twice" },
      { "--since 1h --until 2h", "later than --until" },
    } do
      it("refuses a filter that is wrong: " .. i, function()
        local out, code = run("list " .. case[1])
        assert.equal(64, code)
        assert.truthy(out:find(case[2], 1, true), out)
      end)
    end
  end)

  describe("on everything that a filter picks", function()
    it("cancels what is unfinished, when it is confirmed", function()
      local refs = put { { user_id = "u" }, { user_id = "u" }, { user_id = "v" }, { user_id = "u" } }
      succeed(refs[4])
      local out, code = run "cancel --user u --dry-run"
      assert.same({ "would cancel 2 tasks (2 queued)", 0 }, { out, code })
      out, code = run "cancel --user u"
      assert.equal(64, code)
      assert.truthy(out:find("cancel: 2 tasks (2 queued); without a terminal to ask on, --yes confirms", 1, true), out)
      assert.equal("queued queued queued succeeded", states(refs))
      assert.same({ "cancelled 2 tasks", 0 }, { run "cancel --user u --yes" })
      assert.equal("cancelled cancelled queued succeeded", states(refs))
      assert.same({ "mjhook: there is no such task to cancel", 0 }, { run "cancel --user u --yes" })
      assert.same({ "cancelled 1 task", 0 }, { run "cancel --all -y" })
    end)

    it("acts on a thousand in transactions of a hundred, and reports as JSON", function()
      local tasks = {}
      for i = 1, 1000 do
        tasks[i] = { user_id = "u" }
      end
      local refs = put(tasks)
      local report = cjson.decode((run "cancel --user u --limit 950 --yes --json"))
      assert.same({ "cancel", 950, 950, 0, 0, false }, { report.action, report.matched, report.done, report.skipped,
        report.failed, report.dry_run })
      assert.equal("queued", mj:get(refs[50]).state)
      assert.equal("cancelled", mj:get(refs[51]).state)
      report = cjson.decode((run "cancel --user u --dry-run --json"))
      assert.same({ 50, true, 50 }, { report.matched, report.dry_run, report.by.queued })
    end)

    it("warns of double billing before it resubmits what may have arrived", function()
      local refs = put { {}, {}, {} }
      for i, ref in ipairs(refs) do
        assert(mj.exec:commit { { op = "claim", source = "submit" } })
        signal(ref, i == 2 and "rejected" or "maybe_sent", { error_code = "x", error = "no" })
      end
      assert.equal("ambiguous failed ambiguous", states(refs))
      local out, code = run "resubmit --state ambiguous,failed"
      assert.equal(64, code)
      assert.truthy(out:find("may be billed twice", 1, true), out)
      assert.truthy(out:find("3 tasks (2 ambiguous, 1 failed)", 1, true), out)
      for _, words in ipairs { "resubmit --state failed", "resubmit --all --dry-run" } do
        assert.truthy((run(words)):find("billed twice", 1, true))
      end
      out, code = run "resubmit --state failed,ambiguous --yes"
      assert.equal(0, code, out)
      assert.truthy(out:find("resubmitted 3 tasks", 1, true), out)
      assert.equal(2, mj:get(refs[1]).attempt)
      assert.equal(2, mj:get(refs[2]).attempt)
    end)

    it("kicks and buries events by their tasks", function()
      local refs = put { { user_id = "u" }, { user_id = "v" }, { user_id = "u" } }
      for _, ref in ipairs(refs) do
        succeed(ref)
      end
      assert.same({ "would bury 2 events (2 succeeded)", 0 }, { run "bury --user u --dry-run" })
      assert.same({ "buried 2 events", 0 }, { run "bury --user u --reason 'not wanted' --yes" })
      assert.same({ 1, 2 }, { mj:stats().events, mj:stats().buried })
      assert.truthy((run "events --user u"):find("not wanted", 1, true))
      assert.same({ "mjhook: no such event is buried", 0 }, { run "kick --user v --yes" })
      assert.same({ "kicked 2 events", 0 }, { run "kick --user u --yes" })
      assert.same({ 3, 0 }, { mj:stats().events, mj:stats().buried })
      assert.same({ "mjhook: no event is buried", 0 }, { run "kick --all" })
      assert.same({ "mjhook: no such event is buried", 0 }, { run "kick --user nobody --dry-run" })
    end)

    it("replays the events of those that ended, also when they were delivered", function()
      local refs = put { { user_id = "u" }, { user_id = "u" } }
      succeed(refs[1])
      local taken = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1].event
      assert(mj.exec:commit { { op = "done", ref = taken.ref, seq = taken.seq, tries = taken.tries } })
      assert.equal(0, mj:stats().events)
      assert.same({ "replayed 1 task", 0 }, { run "replay --user u --yes" })
      assert.equal(1, mj:stats().events)
    end)

    it("asks the provider, and says what it could not learn", function()
      local refs = put { {}, {} }
      assert(mj.exec:commit { { op = "claim", source = "submit" } })
      signal(refs[1], "accepted", { task_id = "t1" })
      local out, code = run "refresh --all --yes"
      assert.equal(1, code)
      assert.truthy(out:find("1 failed", 1, true), out)
    end)

    for i, case in ipairs {
      { "cancel", "REF... expected, or a filter" }, { "kick", "EVENT... expected, or a filter" },
      { "bury --dry-run", "EVENT... expected, or a filter" }, { "cancel X --user u", "either ids or a filter" },
      { "cancel X --all", "either ids or a filter" }, { "cancel X --dry-run", "either ids or a filter" },
      { "cancel --state succeeded --yes", "possible are queued, submitting, ambiguous, pending" },
      { "resubmit --state queued,pending --yes", "possible are ambiguous, lost, failed" },
      { "cancel --all --limit 0 --yes", "a whole number from 1" },
      { "cancel --state queued --state succeeded --limit 1 --limit 2 --yes", "--limit was given twice" },
    } do
      it("refuses a command that says too little or too much: " .. i, function()
        put { {} }
        local out, code = run(case[1])
        assert.equal(64, code)
        assert.truthy(out:find(case[2], 1, true), out)
        assert.equal(1, mj:stats().tasks.queued)
      end)
    end

    it("asks on a terminal, and does nothing without a yes", function()
      if kit.sh "command -v script" == "" then
        pending "script is not here"
        return
      end
      local refs = put { { user_id = "u" } }
      local function on_terminal(answer)
        return kit.sh(("printf '%%s\\n' %s | script -qec %s /dev/null"):format(kit.quote(answer),
          kit.quote(("%s %s/scripts/mjhook -c %s cancel --user u"):format(kit.lua, kit.root, config))))
      end
      local out, code = on_terminal "n"
      assert.truthy(out:find("cancel 1 task (1 queued)? [y/N]", 1, true), out)
      assert.truthy(out:find("nothing was done", 1, true), out)
      assert.same({ 1, "queued" }, { code, states(refs) })
      out, code = on_terminal "y"
      assert.truthy(out:find("cancelled 1 task", 1, true), out)
      assert.same({ 0, "cancelled" }, { code, states(refs) })
    end)
  end)
end)
