-- Processes that are killed at every fault point in turn while they archive: a file that has its name is whole, what
-- came is not fetched again, and the next try needs no repair.
local cjson = require "cjson"
local images = require "images"
local kit = require "kit"

local KILLED = 128 + 9

-- Where a download can be parted, all of which it must have passed: else the test tests less than it says.
local POINTS = { "fetch.written", "download.synced", "download.renamed" }
local SIZES = { 300000, 1000 }

describe("a process that is killed while it archives", function()
  after_each(kit.cleanup)

  local server, dir

  before_each(function()
    server, dir = images.start(), kit.tmp()
  end)

  -- Runs the handler on both images so that it dies at its n-th passage. Gives its exit code, its answer, its passages.
  local function run(to, n)
    local log = dir .. "/passages"
    os.remove(log)
    local out, code = kit.sh(("env MJHOOK_FAULT='%s' MJHOOK_FAULT_LOG=%s "):format(n and "*:" .. n or "", log)
      .. kit.lua_command(([[
        local archive = require "mjhook.handlers.archive"
        local handled, why = archive { dir = %q, ca_file = %q, loopback = true }(
          { ref = "01KC", created_at = 0, images = { %q, %q } }, { type = "succeeded", timeout = 20 })
        print(require "cjson".encode(handled or { why = why }))
      ]]):format(to, server.dir .. "/ca.pem",
        server:url("a?seed=1&size=" .. SIZES[1]), server:url("b?seed=2&size=" .. SIZES[2]))))
    local passages = {}
    for name in (kit.read(log) or ""):gmatch "%S+" do
      passages[#passages + 1] = name
    end
    return code, out, passages
  end

  local function file(to, index)
    return kit.read(("%s/1970-01-01/01KC-%d.png"):format(to, index))
  end

  it("leaves whole files or none, whichever step was its last", function()
    local code, out, all = run(dir .. "/whole")
    assert.equal(0, code, out)
    local whole = { file(dir .. "/whole", 1), file(dir .. "/whole", 2) }
    assert.same(SIZES, { #whole[1], #whole[2] })
    local seen = {}
    for _, name in ipairs(all) do
      seen[name] = true
    end
    for _, name in ipairs(POINTS) do
      assert.is_true(seen[name], name .. " was never passed")
    end
    local n, deaths = 0, 0
    repeat
      n = n + 1
      local to = dir .. "/" .. n
      local died, _, passages = run(to, n)
      for i = 1, 2 do
        local text = file(to, i)
        assert.is_true(text == nil or text == whole[i], ("image %d after %s"):format(i, passages[#passages]))
      end
      if died == KILLED then
        deaths = deaths + 1
        code, out = run(to)
        assert.equal(0, code, out)
        local files = cjson.decode(out).files
        assert.is_table(files, out)
        assert.same({ #SIZES, file(to, 1), file(to, 2) }, { #files, whole[1], whole[2] })
        -- But for the note about a part that got its name with the last step, nothing is left beside them.
        local left = kit.sh("cd " .. to .. "/1970-01-01 && ls -A | grep -v '^01KC-[12].png$'")
        if passages[#passages] == "download.renamed" then
          assert.matches("^%.01KC%-[12]%.from$", left)
        else
          assert.equal("", left)
        end
      end
    until died ~= KILLED
    assert.is_true(deaths >= 6)
    -- Nothing that was there was asked for again.
    local ranges = 0
    for _, request in ipairs(server:requests()) do
      ranges = ranges + (request.headers.range and 1 or 0)
    end
    assert.is_true(ranges >= 2)
  end)
end)
