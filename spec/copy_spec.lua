-- mjhook copy: a store moves to another place while it is used, and is never used in both.
local cjson = require "cjson"
local kit = require "kit"
local mjhook = require "mjhook"

describe("mjhook copy", function()
  local dir, from, to

  before_each(function()
    dir = kit.tmp()
    from, to = dir .. "/from", dir .. "/to"
  end)

  after_each(kit.cleanup)

  local function run(...)
    local words = { kit.quote(kit.root .. "/scripts/mjhook") }
    for _, word in ipairs { ... } do
      words[#words + 1] = kit.quote(word)
    end
    return kit.sh(("env -u MJHOOK_CONFIG MJHOOK_STORE=%s MIDJOURNEY_API_KEY=k %s %s"):format(kit.quote(from), kit.lua,
      table.concat(words, " ")))
  end

  local function open(store)
    return assert(mjhook.open { store = store, api_key = "k", base_url = "http://127.0.0.1:1" })
  end

  local function refs(store)
    local mj, list = open(store), {}
    for task in mj:tasks {} do
      list[#list + 1] = task.ref .. " " .. task.prompt .. " " .. task.state .. " " .. (task.key or "")
    end
    local found = mj:check()
    mj:close()
    assert.equal(0, #found.problems)
    return list
  end

  it("brings all tasks to another store, what is new with the next one, and moves there with --finish", function()
    local mj = open(from)
    for i = 1, 5 do
      assert(mj:submit { prompt = "fox " .. i, key = "order-" .. i })
    end
    local out, code = run("copy", from, to)
    assert.equal(0, code, out)
    assert.truthy(out:find("5 copied", 1, true), out)
    assert.truthy(out:find("mjhook copy --finish", 1, true), out)
    assert(mj:submit { prompt = "a later fox" })
    out, code = run("--json", "copy", "--finish", to)
    assert.equal(0, code, out)
    local report = cjson.decode(out)
    assert.same({ 1, 6, true, 0 }, { report.written, report.records, report.finished, report.damaged })
    mj:close()
    assert.same(refs(from), refs(to))
    assert.equal(6, #refs(to))
  end)

  it("lets no process write to a store that moved, nor to one whose copy is not finished", function()
    local mj = open(from)
    local task = assert(mj:submit { prompt = "a fox", key = "k1" })
    assert.equal(0, select(2, run("copy", to)))
    local unfinished = open(to)
    local _, err = unfinished:submit { prompt = "another" }
    assert.equal("moved", err.code)
    assert.truthy(err.message:find("from " .. from, 1, true), err.message)
    unfinished:close()
    assert(mj:submit { prompt = "still taken" })
    assert.equal(0, select(2, run("copy", "--finish", to)))
    _, err = mj:submit { prompt = "too late" }
    assert.equal("moved", err.code)
    assert.truthy(err.message:find("moved to " .. to, 1, true), err.message)
    _, err = mj:cancel(task.ref)
    assert.equal("moved", err.code)
    assert.equal("a fox", mj:get(task.ref).prompt)
    mj:close()
    local moved = open(to)
    assert.is_true(moved:submit({ prompt = "a fox", key = "k1" }).duplicate)
    assert(moved:submit { prompt = "goes on here" })
    moved:close()
  end)

  it("takes writes again when a move is given up, and moves later", function()
    local mj = open(from)
    assert(mj:submit { prompt = "a fox" })
    assert.equal(0, select(2, run("copy", to)))
    local out, code = run("copy", "--cancel", from)
    assert.equal(1, code, out)
    assert.truthy(out:find("no copy of this store is being finished", 1, true), out)
    assert(mj:submit { prompt = "another" })
    mj:close()
    assert.equal(0, select(2, run("copy", "--finish", to)))
    out, code = run("copy", "--cancel", from)
    assert.equal(1, code, out)
  end)

  it("is refused without a store to copy, into a store with tasks, and into itself: nothing changes", function()
    local out, code = run("copy", to)
    assert.equal(78, code, out)
    assert.truthy(out:find("there is no store in " .. from, 1, true), out)
    for _, store in ipairs { from, to } do
      local mj = open(store)
      assert(mj:submit { prompt = store })
      mj:close()
    end
    out, code = run("copy", to)
    assert.equal(1, code, out)
    assert.truthy(out:find(to .. " holds tasks already", 1, true), out)
    out, code = run("copy", from, from)
    assert.equal(64, code, out)
    out, code = run("copy", "--finish", "--cancel", from)
    assert.equal(64, code, out)
    out, code = run("copy", "postgresql://me:secret@db/app")
    assert.equal(64, code, out)
    assert.is_nil(out:find("secret", 1, true))
    assert.equal(1, #refs(from))
    assert.equal(1, #refs(to))
  end)

  -- Prunes all tasks of a store, of which one with that key succeeded.
  local function pruned(store, key)
    local mj = open(store)
    local task = assert(mj:adopt { task_id = "T1", prompt = "a fox", key = key })
    local results = assert(mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, source = "poll",
      kind = "succeeded", task_id = "T1", image = "https://img.example/x" } })
    assert.equal("ok", results[1].code)
    assert.equal(1, mj:prune({ older_than = 0 }).pruned)
    mj:close()
  end

  it("is refused into a store that remembers keys of pruned tasks: a job would be sent again", function()
    local mj = open(from)
    assert(mj:submit { prompt = "another" })
    mj:close()
    pruned(to, "order-1")
    for _, how in ipairs { "--json", "--finish" } do
      local out, code = run("copy", how, to)
      assert.equal(1, code, out)
      assert.truthy(out:find(to .. " remembers the keys of pruned tasks", 1, true), out)
    end
    mj = open(to)
    assert.is_true(mj:find_key("order-1").pruned)
    assert(mj:submit { prompt = "takes writes" })
    mj:close()
  end)

  it("is refused into itself by another name, also a store without tasks, which goes on to take writes", function()
    open(from):close()
    kit.sh(("ln -s %s %s"):format(from, to))
    for _, how in ipairs { "--json", "--finish" } do
      local out, code = run("copy", how, from, to)
      assert.equal(64, code, out)
      assert.truthy(out:find("the same store", 1, true), out)
    end
    local mj = open(from)
    assert(mj:submit { prompt = "a fox" })
    mj:close()
  end)
end)

describe("mjhook migrate", function()
  after_each(kit.cleanup)

  it("says that a directory needs none", function()
    local dir = kit.tmp()
    local out, code = kit.sh(("env -u MJHOOK_CONFIG MJHOOK_STORE=%s/s MIDJOURNEY_API_KEY=k %s %s migrate"):format(dir,
      kit.lua, kit.quote(kit.root .. "/scripts/mjhook")))
    assert.equal(64, code, out)
    assert.truthy(out:find("is a directory, and needs no migration", 1, true), out)
  end)
end)
