--- Forgetting what is over: final tasks become tombstones, tombstones end.
-- In small transactions, so that other writers get their turn between two.
local core = require "mjhook.core"

local M = {}

local STEP = 200 -- records looked at in one transaction: about 10 ms
local FINAL = { "succeeded", "failed", "lost", "cancelled" }

local function more_time(mj, stop_at)
  return core.clock() < stop_at and not mj.stopping()
end

-- Walks one state, the oldest first, until nothing is left that finished by `finished_by`.
local function prune_state(mj, state, finished_by, limit, stop_at)
  local pruned, from = 0, nil
  repeat
    local results, err = mj.exec:commit {
      { op = "prune", expect = state, ref = from, ["until"] = finished_by, limit = math.min(STEP, limit - pruned) },
    }
    if not results then
      return nil, err
    end
    pruned = pruned + results[1].done
    from = results[1].next
  until not results[1].more or pruned >= limit or not more_time(mj, stop_at)
  return pruned
end

local function drop_tombs(mj, stop_at)
  local made_by = core.now() - math.floor(mj.config.key_ttl * 1000)
  repeat
    local results, err = mj.exec:commit { { op = "forget", ["until"] = made_by, limit = STEP } }
    if not results then
      return nil, err
    end
  until not results[1].more or not more_time(mj, stop_at)
  return true
end

--- mj:prune{older_than= (seconds), limit=, budget= (seconds)}.
-- Without older_than the configuration's `retention` decides, state by state; a state it does not name is kept.
-- @treturn table|nil {pruned=}, or nil and an error
function M.prune(mj, options)
  local stop_at = options.budget and core.clock() + options.budget * 1000 or math.huge
  local limit = options.limit or math.huge
  local pruned = 0
  for _, state in ipairs(FINAL) do
    local keep = options.older_than or mj.config.retention[state] or -1
    if keep >= 0 and pruned < limit then
      local n, err = prune_state(mj, state, core.now() - math.floor(keep * 1000), limit - pruned, stop_at)
      if not n then
        return nil, err
      end
      pruned = pruned + n
    end
  end
  local ok, err = drop_tombs(mj, stop_at)
  if not ok then
    return nil, err
  end
  return { pruned = pruned }
end

--- Rewrites records of older versions, a step at a time, as long as the time lasts.
function M.upgrade(mj, stop_at)
  repeat
    local results, err = mj.exec:commit { { op = "upgrade", limit = STEP } }
    if not results then
      return nil, err
    end
  until not results[1].more or not more_time(mj, stop_at)
  return true
end

return M
