--- Forgetting what is over: final tasks become tombstones, tombstones end.
-- What may be pruned is looked for in snapshots, a step at a time: the writer's lock is taken for what is pruned alone,
-- and in small transactions, so that other writers get their turn between two.
--
-- Without a policy nothing will ever handle the events that wait: they hold no task back, and go with it.
local core = require "mjhook.core"

local M = {}

local STEP = 200 -- records changed in one transaction: about 10 ms

M.LOOK = 1000  -- records looked at in one snapshot: a few milliseconds
M.VAIN = 20000 -- records of a state that one run of reconcile looks at in vain; the next one goes on behind them

local function more_time(mj, stop_at)
  return core.clock() < stop_at and not mj.stopping()
end

-- Prunes these tasks, if they still may be; how many were.
local function prune_all(mj, state, refs, finished_by)
  local pruned = 0
  for first = 1, #refs, STEP do
    local ops = {}
    for i = first, math.min(first + STEP - 1, #refs) do
      ops[#ops + 1] = { op = "prune", expect = state, ref = refs[i], ["until"] = finished_by, limit = 1,
                        no_policy = not mj.policy.present }
    end
    local results, err = mj.exec:commit_each(ops)
    if not results then
      return nil, err
    end
    for _, result in ipairs(results) do
      pruned = pruned + result.done
    end
  end
  return pruned
end

-- Walks one state, the oldest first, until nothing is left that finished by `finished_by`. Reconcile goes on where the
-- last one stopped, so that what can't be pruned is walked over a part at a time and starves nothing behind it.
local function prune_state(mj, state, finished_by, limit, stop_at, bounded)
  local pruned, vain, from, marked = 0, 0, nil, false
  repeat
    local refs, next_or_err, resumed = mj.exec:read("prunable", {
      state = state, ["until"] = finished_by, from = from, resume = bounded and not from,
      limit = math.min(M.LOOK, limit - pruned), no_policy = not mj.policy.present, now = mj.exec:now(),
    })
    if not refs then
      return nil, next_or_err
    end
    local n, err = prune_all(mj, state, refs, finished_by)
    if not n then
      return nil, err
    end
    pruned, vain, from, marked = pruned + n, vain + M.LOOK - #refs, next_or_err, marked or resumed
  until not from or pruned >= limit or (bounded and vain >= M.VAIN) or not more_time(mj, stop_at)
  if bounded and (from or marked) then
    local ok, err = mj.exec:commit { { op = "prune_from", expect = state, ref = from } }
    if not ok then
      return nil, err
    end
  end
  return pruned
end

local function drop_tombs(mj, stop_at)
  local made_by = mj.exec:now() - math.floor(mj.config.key_ttl * 1000)
  repeat
    local results, err = mj.exec:commit { { op = "forget", ["until"] = made_by, limit = STEP } }
    if not results then
      return nil, err
    end
  until not results[1].more or not more_time(mj, stop_at)
  return true
end

--- mj:prune{older_than= (seconds), limit=, budget= (seconds)}; `bounded`: a part of the walk, from where the last
-- such part stopped.
-- Without older_than the configuration's `retention` decides, state by state; a state it does not name is kept.
-- @treturn table|nil {pruned=}, or nil and an error
function M.prune(mj, options)
  local stop_at = options.budget and core.clock() + options.budget * 1e3 or math.huge
  local limit = options.limit or math.huge
  local pruned = 0
  for _, state in ipairs(core.final_states) do
    local keep = options.older_than or mj.config.retention[state] or -1
    if keep >= 0 and pruned < limit then
      local finished_by = math.max(math.floor(mj.exec:now() - keep * 1e3), 0) -- as a float: it can't wrap around
      local n, err = prune_state(mj, state, finished_by, limit - pruned, stop_at, options.bounded)
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
