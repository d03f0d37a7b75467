-- Backup and restore, through the operator's tool: a store is put back only while no process has it open.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local lfs = require "lfs"
local mjhook = require "mjhook"

describe("mjhook restore", function()
  local dir, store

  before_each(function()
    dir = kit.tmp()
    store = dir .. "/store"
  end)

  after_each(kit.cleanup)

  local function run(...)
    local words = { kit.quote(kit.root .. "/scripts/mjhook") }
    for _, word in ipairs { ... } do
      words[#words + 1] = kit.quote(word)
    end
    return kit.sh(("env -u MJHOOK_CONFIG MJHOOK_STORE=%s MIDJOURNEY_API_KEY=k %s %s"):format(kit.quote(store), kit.lua,
      table.concat(words, " ")))
  end

  local function open()
    return assert(mjhook.open { store = store, api_key = "k", base_url = "http://127.0.0.1:1" })
  end

  -- Adds n tasks; gives how many there are.
  local function add(n)
    local mj = open()
    for _ = 1, n do
      assert(mj:submit { prompt = "a fox" })
    end
    local count = mj:stats().tasks.queued
    mj:close()
    return count
  end

  local function count()
    return add(0)
  end

  it("puts a backup in the store's place, as directory or as file, and names the former file", function()
    add(3)
    local out, code = run("backup", dir .. "/copy")
    assert.equal(0, code, out)
    assert.equal(5, add(2))
    out, code = run("restore", dir .. "/copy")
    assert.equal(0, code, out)
    assert.truthy(out:find("restored 3 tasks and 0 events to " .. store, 1, true), out)
    local kept = out:match "kept as (%S+)"
    assert.truthy(core.stat(kept))
    assert.equal(3, count())
    out, code = run("--json", "restore", kept)
    assert.equal(0, code, out)
    local report = cjson.decode(out)
    assert.same({ 5, 0, store, kept }, { report.tasks, report.found, report.store, report.restored })
    assert.truthy(core.stat(report.kept))
    assert.equal(5, count())
  end)

  it("sends nothing that is queued in the backup before a person has looked: it may have been sent since", function()
    add(3)
    assert.equal(0, select(2, run("backup", dir .. "/copy")))
    local mj = open()
    for task in mj:tasks {} do
      mj:cancel(task.ref)
    end
    mj:close()
    local out, code = run("restore", dir .. "/copy")
    assert.equal(0, code, out)
    assert.truthy(out:find("3 queued jobs in it", 1, true), out)
    assert.truthy(out:find("then `mjhook resume`", 1, true), out)
    mj = open()
    local account = mj:stats().accounts[1]
    assert.equal("by_hand", account.reason)
    assert.is_true(account.paused_until > core.now() + 1e12)
    assert.equal(0, mj:reconcile({ budget = 5 }).requests)
    assert(mj:resume(account.name))
    assert.is_nil(mj:stats().accounts[1].paused_until)
    mj:close()
  end)

  it("lets accounts be when nothing is queued in the backup", function()
    local mj = open()
    assert(mj:adopt { task_id = "T1", prompt = "a fox" })
    mj:close()
    run("backup", dir .. "/copy")
    local out, code = run("restore", dir .. "/copy")
    assert.equal(0, code, out)
    assert.is_nil(out:find("resume", 1, true), out)
    mj = open()
    assert.is_nil(mj:stats().accounts[1].paused_until)
    mj:close()
  end)

  it("makes a store where there is none", function()
    add(2)
    run("backup", dir .. "/copy")
    kit.sh("rm -r " .. kit.quote(store))
    local out, code = run("restore", dir .. "/copy/data.mdb")
    assert.equal(0, code, out)
    assert.is_nil(out:find "kept as")
    assert.equal(2, count())
  end)

  it("is refused while a process has the store open: exit 75, and nothing changes", function()
    add(2)
    run("backup", dir .. "/copy")
    local mj = open()
    assert(mj:submit { prompt = "a later one" })
    local out, code = run("restore", dir .. "/copy")
    assert.equal(75, code, out)
    assert.truthy(out:find "process %d+ has open" or out:find "has the store", out)
    assert(mj:submit { prompt = "one more" }) -- it goes on with what it has
    mj:close()
    assert.equal(4, count())
    local names = {}
    for name in lfs.dir(store) do
      names[name] = true
    end
    assert.same({ ["."] = true, [".."] = true, ["data.mdb"] = true, ["lock.mdb"] = true }, names)
  end)

  it("says why a backup is not taken", function()
    add(1)
    local out, code = run("restore", dir .. "/nowhere")
    assert.equal(1, code)
    assert.truthy(out:find(dir .. "/nowhere", 1, true), out)
    kit.write(dir .. "/text", ("no store\n"):rep(1000))
    out, code = run("restore", dir .. "/text")
    assert.equal(78, code)
    assert.truthy(out:find("no LMDB file", 1, true), out)
    run("backup", dir .. "/copy")
    kit.sh("truncate -s -4096 " .. kit.quote(dir .. "/copy/data.mdb"))
    out, code = run("restore", dir .. "/copy")
    assert.equal(1, code)
    assert.truthy(out:find("broken off", 1, true), out)
    out, code = run "restore"
    assert.equal(64, code, out)
    assert.equal(1, count())
  end)

  it("mends a store that is broken off, of which every tool says what to do", function()
    add(40)
    run("backup", dir .. "/copy")
    kit.sh(("truncate -s 12288 %s/data.mdb"):format(kit.quote(store)))
    for _, command in ipairs { { "list" }, { "stats" }, { "check" }, { "backup", dir .. "/other" },
                               { "submit", "a fox" }, { "events" }, { "refused" }, { "metrics" }, { "doctor" } } do
      local out, code = run((unpack or table.unpack)(command))
      assert.is_true(code > 0 and code < 128, command[1] .. ": " .. out)
      assert.truthy(out:find("mjhook restore", 1, true), command[1] .. ": " .. out)
    end
    local out, code = kit.sh(("env MIDJOURNEY_API_KEY=k %s/bin/mjhook-reconcile --store %s"):format(kit.build,
      kit.quote(store)))
    assert.is_true(code > 0 and code < 128, out)
    assert.truthy(out:find("mjhook restore", 1, true), out)
    out, code = run("restore", dir .. "/copy")
    assert.equal(0, code, out)
    assert.equal(40, count())
  end)
end)
