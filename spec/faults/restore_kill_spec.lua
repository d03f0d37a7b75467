-- A restore and a backup that are killed at every fault point in turn: the store is the former one or the new one, the
-- backup is whole or not there, and the next try needs no repair.
local kit = require "kit"
local core = require "mjhook.core"

local KILLED = 128 + 9
local POINTS = { "backup.copied", "restore.copied", "restore.checked", "restore.exchanged" }

describe("a process that is killed while it backs up or restores", function()
  after_each(kit.cleanup)

  local OPTIONS = { mode = 384, accounts = {} }

  local function count(store)
    local s = assert(core.open(store, OPTIONS))
    local report = assert(s:check())
    s:close()
    assert.is_true(report.ok)
    return report.tasks
  end

  local function make(store, n)
    local s = assert(core.open(store, OPTIONS))
    for _ = 1, n do
      assert(s:write({ { op = "create", task = { prompt = "a fox", timeout = 600 }, signal = "create",
                         source = "submit" } }, core.now()))
    end
    s:close()
  end

  -- Runs Lua code so that it dies at its n-th passage. Gives exit code, output, passages.
  local function run(dir, code, n)
    local log = dir .. "/passages"
    os.remove(log)
    local out, exit = kit.sh(("env MJHOOK_FAULT='%s' MJHOOK_FAULT_LOG=%s "):format(n and "*:" .. n or "", log)
      .. kit.lua_command(code))
    local passages = {}
    for name in (kit.read(log) or ""):gmatch "%S+" do
      passages[#passages + 1] = name
    end
    return exit, out, passages
  end

  local BACKUP = [[
    local core = require "mjhook.core"
    local s = assert(core.open(%q, { mode = 384, accounts = {} }))
    assert(s:backup(%q))
    s:close()
  ]]
  local RESTORE = [[
    local core = require "mjhook.core"
    assert(core.restore(%q, %q, { mode = 384 }))
  ]]

  it("leaves a store and a backup that are whole, whichever step was its last", function()
    local dir = kit.tmp()
    local seen = {}
    for _, case in ipairs { "backup", "restore" } do
      local n = 0
      repeat
        n = n + 1
        local at = ("%s/%s%d"):format(dir, case, n)
        kit.sh("mkdir " .. at)
        make(at .. "/store", 3)
        make(at .. "/other", 5)
        local code = case == "backup" and BACKUP:format(at .. "/store", at .. "/copy")
          or RESTORE:format(at .. "/other", at .. "/store")
        local exit, out, passages = run(dir, code, n)
        for _, name in ipairs(passages) do
          seen[name] = true
        end
        assert.is_true(exit == 0 or exit == KILLED, out)
        if case == "backup" then
          if core.stat(at .. "/copy/data.mdb") then
            assert.equal(3, count(at .. "/copy"))
          else
            assert.equal(0, (run(dir, code)))
          end
          assert.equal(3, count(at .. "/store"))
        else
          local tasks = count(at .. "/store")
          assert.is_true(tasks == 3 or tasks == 5, tasks)
          assert.equal(0, (run(dir, code)))
          assert.equal(5, count(at .. "/store"))
        end
      until exit == 0
      assert.is_true(n > 3)
    end
    for _, name in ipairs(POINTS) do
      assert.is_true(seen[name], name .. " was never passed")
    end
  end)
end)
