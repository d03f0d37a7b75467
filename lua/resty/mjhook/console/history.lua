--- How the counters ran lately: samples that each worker keeps in memory from the console's first request on. The
--- counters are the store's, so every worker has the same ones.
local json = require "mjhook.cli.json"

local M = {}

-- Name -> seconds between two samples, and how many are kept.
local RINGS = { hour = { every = 15, most = 240 }, day = { every = 300, most = 288 } }

local rings
local read

local function sample(premature, ring)
  if premature then
    return
  end
  local ok, text = pcall(read)
  if ok and text then
    local list = ring.samples
    list[#list + 1] = text
    if #list > ring.most then
      table.remove(list, 1)
    end
  end
end

--- Begins to keep samples, once.
-- @tparam function counters gives a sample as JSON text
function M.start(counters)
  if rings then
    return
  end
  rings, read = {}, counters
  for name, how in pairs(RINGS) do
    rings[name] = { every = how.every, most = how.most, samples = {} }
    ngx.timer.every(how.every, sample, rings[name])
    ngx.timer.at(0, sample, rings[name])
  end
end

--- The samples of a ring, the oldest first, and one of now.
-- @tparam string name "hour" or "day"
-- @treturn string JSON text
function M.json(name)
  local ring = rings[name]
  local list = { unpack(ring.samples) }
  list[#list + 1] = read() or nil
  return ('{"every_ms":%s,"samples":[%s]}'):format(json.encode(ring.every * 1000), table.concat(list, ","))
end

return M
