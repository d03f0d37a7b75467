-- Memory, the disk and descriptors that run out in the middle of a flow: nothing crashes, is told wrong, sent twice or
-- lost, and the store is whole after each.  A sample here; MJHOOK_STARVE=all, as in make chaos, tries every passage.
-- What is not ours and dies by itself: lua-cjson ends the process ("Out of memory") when its buffers can't grow, LuaJIT
-- when it has no memory for an error message.
local kit = require "kit"

local ALL = os.getenv "MJHOOK_STARVE" == "all"

describe("a process that", function()
  local module

  setup(function()
    module = kit.tmp() .. "/faults.so"
    local includes = kit.lua == "luajit" and "luajit" or "lua5.4"
    local out, code = kit.sh(("cc -shared -fPIC -O1 $(pkg-config --cflags %s) -o %s %s/spec/support/faults.c -ldl")
      :format(includes, module, kit.root))
    assert(code == 0, out)
  end)

  teardown(kit.cleanup)

  -- Tries a sample of some `size` passages, or all.
  local function starve(flow, what, times, passages, size)
    local step = ALL and 1 or math.max(1, math.floor(passages / size))
    local from = ALL and 1 or math.random(step)
    local here = module:match "^(.*/)" .. "?.so;"
    local out, code = kit.sh(("LUA_CPATH=%s LUA_CPATH_5_4=%s LD_PRELOAD=%s timeout 240 %s %s/spec/support/starve.lua "
      .. "%s %s %d %d %d"):format(kit.quote(here .. (os.getenv "LUA_CPATH" or ";;")),
      kit.quote(here .. (os.getenv "LUA_CPATH_5_4" or ";;")), module, kit.lua, kit.root, flow, what, times, from, step))
    assert(code == 0, out)
    assert.matches("%d runs", out)
    if ALL then
      print(out)
    end
  end

  -- What each has, roughly: the sample is spread over it.
  local FLOWS = {
    open = { core = 16, crypto = 24, lua = 110 },
    submit = { core = 14, lmdb = 24, crypto = 15, curl = 56, lua = 220, disk = 8 },
    many = { core = 28, lmdb = 40, crypto = 43, curl = 174, lua = 580, disk = 8 },
    callback = { core = 4, lmdb = 11, crypto = 12, lua = 7, disk = 4 },
    reconcile = { core = 52, lmdb = 95, crypto = 12, curl = 110, lua = 620, disk = 40 },
    deliver = { core = 10, lmdb = 14, lua = 80, disk = 8 },
  }

  for _, flow in ipairs { "open", "submit", "many", "callback", "reconcile", "deliver" } do
    for library, passages in pairs(FLOWS[flow]) do
      if library == "disk" then
        for _, how in ipairs { "EIO", "ENOSPC", "EDQUOT", "short" } do
          it(("meets a disk with %s in %s"):format(how, flow), function()
            starve(flow, how, 1, passages, 4)
          end)
        end
      else
        for _, times in ipairs { 1, 2, 5 } do -- once; the next try, too; for a while
          it(("runs out of memory in %s, in %s, %d times"):format(flow, library, times), function()
            starve(flow, library, times, passages, 8)
          end)
        end
      end
    end
    it("has no descriptors left in " .. flow, function()
      starve(flow, "descriptors", 1, 12, 12)
    end)
  end
end)
