-- Memory, the disk and descriptors that run out in the middle of a flow: nothing crashes, is told wrong, sent twice or
-- lost, and the store is whole after each.  A sample here; MJHOOK_STARVE=all, as in make chaos, tries every passage.
-- What is not ours and dies by itself: lua-cjson ends the process ("Out of memory") when its buffers can't grow, LuaJIT
-- when it has no memory for an error message.
local kit = require "kit"
local mjhook = require "mjhook"

local ALL = os.getenv "MJHOOK_STARVE" == "all"
local SAMPLE = 6

-- How many allocations a flow makes in each library, how many writes and syncs of the store: roughly, since the sample
-- is spread over it.
local FLOWS = {
  open = { core = 16, crypto = 24, lua = 110 },
  submit = { core = 14, lmdb = 24, crypto = 15, curl = 56, lua = 220, disk = 13 },
  many = { core = 28, lmdb = 40, crypto = 43, curl = 174, lua = 580, disk = 17 },
  callback = { core = 6, lmdb = 11, crypto = 12, lua = 7, disk = 3 },
  reconcile = { core = 65, lmdb = 95, crypto = 12, curl = 110, lua = 700, disk = 40 },
  deliver = { core = 10, lmdb = 14, lua = 80, disk = 6 },
}
local TIMES = { 1, 2, 5 } -- once; the next try, too; for a while
local DISK = { "EIO", "ENOSPC", "EDQUOT", "short" }

describe("memory, the disk and descriptors run out", function()
  local module

  setup(function()
    module = kit.tmp() .. "/faults.so"
    local headers = kit.lua == "luajit" and "luajit" or "lua5.4"
    local out, code = kit.sh(("cc -shared -fPIC -O1 $(pkg-config --cflags %s) -o %s %s/spec/support/faults.c -ldl")
      :format(headers, module, kit.root))
    assert(code == 0, out)
  end)

  teardown(kit.cleanup)

  -- The words of starve.lua for one thing that fails: where it begins and how far it goes on each time.
  local function words(what, times, passages)
    local step = ALL and 1 or math.max(1, math.floor(passages / SAMPLE))
    return ("%s %d %d %d"):format(what, times, ALL and 1 or math.random(step), step)
  end

  local function starve(flow, list)
    local here = module:match "^(.*/)" .. "?.so;"
    local paths = ("LUA_CPATH=%s LUA_CPATH_5_4=%s"):format(kit.quote(here .. (os.getenv "LUA_CPATH" or ";;")),
      kit.quote(here .. (os.getenv "LUA_CPATH_5_4" or ";;")))
    local out, code = kit.sh(("%s LD_PRELOAD=%s timeout 600 %s %s/spec/support/starve.lua %s %s"):format(paths, module,
      kit.lua, kit.root, flow, table.concat(list, " ")))
    assert(code == 0, out)
    assert.equal(#list, select(2, out:gsub("runs, the last one had", "")))
    for what, struck in out:gmatch ", (%w+) %d+ times: [^\n]* (%d+) struck" do
      assert(what == "descriptors" or tonumber(struck) > 0, ("nothing failed of %s:\n%s"):format(what, out))
    end
    if ALL then
      print(out)
    end
  end

  for _, flow in ipairs { "open", "submit", "many", "callback", "reconcile", "deliver" } do
    it("in " .. flow .. ": nothing is lost, sent twice or told wrong, and the store is whole", function()
      local list = { words("descriptors", 1, 1) }
      for what, passages in pairs(FLOWS[flow]) do
        for _, how in ipairs(what == "disk" and DISK or TIMES) do
          list[#list + 1] = what == "disk" and words(how, 1, passages) or words(what, how, passages)
        end
      end
      starve(flow, list)
    end)
  end

  -- 78 would keep a service down.  Lua's own allocator, too: outside of a protected call it would end the process.
  it("at the start of mjhook-reconcile: it exits with 0 or 1, and says why", function()
    local dir = kit.tmp()
    local config = kit.write(dir .. "/config.lua", ("return { store = %q, api_key = 'key', base_url = %q }\n"):format(
      dir .. "/store", "http://127.0.0.1:1"))
    assert(mjhook.open { config = config }):close()
    local program = ("LD_PRELOAD=%s %s/bin/mjhook-reconcile -c %s"):format(module, kit.build, config)
    for _, times in ipairs { 1, 2, 1000000 } do
      local n, out, code = 1, "", 1
      while n < 20000 and (times == 1 or code ~= 0 or out ~= "") do
        out, code = kit.sh(("FAULTS='lua %d %d' %s"):format(n, times, program))
        local well = code == 0 or code == 1 and out:find("memory", 1, true)
        assert(well, ("number %d, %d times: %d %s"):format(n, times, code, out))
        n = ALL and n + 7 or n * 2 + 1
      end
    end
  end)
end)
