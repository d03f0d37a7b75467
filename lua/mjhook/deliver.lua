--- Delivery: each event to the policy's handlers, in order per task, until they return.
local core = require "mjhook.core"
local view = require("mjhook.task").view

local M = {}

-- PRODUCT.md, Policy: 15 s + 2^n, at most 1 h, 10 % jitter, 20 tries, then buried.
local FIRST_S, CAP_S, JITTER, TRIES = 15, 3600, 0.1, 20

local BATCH_MAX = 64    -- events leased at once when handlers are quick
local QUICK_MS = 5      -- a handler at most this slow on average lets the batch grow
local LEASE_SLACK_MS = 30000

local function retry_at(tries)
  if tries >= TRIES then
    return 0 -- buried
  end
  local seconds = math.min(CAP_S, FIRST_S + 2 ^ tries)
  return core.now() + math.floor(seconds * (1 + JITTER * (2 * math.random() - 1)) * 1000)
end

local function run(mj, leased)
  local event = leased.event
  local task = view(leased.task)
  local ctx = { event_id = event.event_id, type = event.type, attempt = event.attempt, created_at = event.created_at }
  if not task then
    return true -- its record is gone; there is nothing left to tell of
  end
  if event.late then
    task.late = true
  end
  return mj.policy:handle(task, ctx, mj.config.handler_timeout)
end

local function outcome_op(mj, leased, handled, reason, report)
  local event = leased.event
  local op = { op = "done", ref = event.ref, seq = event.seq, tries = event.tries }
  if handled then
    report.delivered = report.delivered + 1
    return op
  end
  op.op, op.error, op["until"] = "retry", reason, retry_at(event.round)
  report.errors = report.errors + 1
  if op["until"] == 0 then
    report.buried = report.buried + 1
  end
  mj.log("warn", ("event %s (try %d): %s"):format(event.event_id, event.tries, reason))
  return op
end

-- Takes a batch of leases; the outcomes of the last batch ride in the same transaction.
local function exchange(mj, ops, n)
  local first = #ops
  for _ = 1, n do
    ops[#ops + 1] = {
      op = "take", ["until"] = core.now() + math.floor(mj.config.handler_timeout * 1000) * n + LEASE_SLACK_MS,
    }
  end
  local results, err = mj.exec:commit(ops)
  if not results then
    return nil, err
  end
  local leased = {}
  for i = first + 1, #results do
    if results[i].code == "ok" and results[i].event then
      leased[#leased + 1] = results[i]
    end
  end
  return leased
end

-- An event that will not be run after all: due again at once, not counted against it.
local function hand_back(leased, ops)
  local event = leased.event
  ops[#ops + 1] = {
    op = "retry", ref = event.ref, seq = event.seq, tries = event.tries, ["until"] = core.now(),
  }
end

--- mj:deliver{limit=, budget= (seconds)}.
-- @treturn table|nil {delivered=, buried=, errors=}; nil and an error when the store failed
function M.deliver(mj, options)
  local report = { delivered = 0, buried = 0, errors = 0 }
  if not mj.policy.present then
    return report -- without a policy events wait
  end
  local limit = options.limit or math.huge
  local stop_at = options.budget and core.clock() + options.budget * 1000 or math.huge
  local size, started, ops = 1, 0, {}
  while true do
    local room = core.clock() < stop_at and not mj.stopping() and math.min(size, limit - started) or 0
    if room == 0 and #ops == 0 then
      return report
    end
    local leased, err = exchange(mj, ops, room)
    if not leased then
      return nil, err
    end
    ops = {}
    local begun = core.clock()
    for _, lease in ipairs(leased) do
      if core.clock() >= stop_at or mj.stopping() then
        hand_back(lease, ops)
      else
        local handled, reason = run(mj, lease)
        ops[#ops + 1] = outcome_op(mj, lease, handled, reason, report)
        started = started + 1
      end
    end
    if #leased == 0 then
      return report
    end
    local mean = (core.clock() - begun) / #leased
    size = mean <= QUICK_MS and math.min(size * 2, BATCH_MAX) or 1
  end
end

return M
