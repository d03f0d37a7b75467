--- Delivery: each event to the policy's handlers, in order per task, until they return.
local core = require "mjhook.core"
local json = require "mjhook.json"
local pool = require "mjhook.delivery.pool"

local M = {}

-- PRODUCT.md, Policy: 15 s + 2^n, at most 1 h, 10 % jitter, 20 tries, then buried.
local FIRST_S, CAP_S, JITTER, TRIES = 15, 3600, 0.1, 20

-- A lease is for one handler, however many are taken at once: what was not begun in this time is handed back, and what
-- a process leaves behind that was killed is taken up by another so much later than handler_timeout.
local LEASE_SLACK_MS = 30000
local RETRY_MAX_S = 86400 -- that a handler may name

-- Seconds that a handler has named; nil when they are none.
local function named(seconds)
  if type(seconds) == "number" and seconds >= 0 then -- which NaN is not
    return math.min(seconds, RETRY_MAX_S)
  end
end

-- When it is tried again; 0: never, it is buried. `retry_after` is the handler's own wish. `not_before` is a
-- server's: a server that names one second each time must not be asked twenty times within twenty seconds.
local function retry_at(mj, failed, how)
  if failed >= TRIES or how.bury then
    return 0
  end
  local backoff = math.min(CAP_S, FIRST_S + 2 ^ failed) * (1 + JITTER * (2 * math.random() - 1))
  local seconds = named(how.retry_after) or math.max(backoff, named(how.not_before) or 0)
  return mj.exec:now() + math.floor(seconds * 1000)
end

-- What a handler stored of the task, for its record.
local function files_text(mj, event, files)
  local text = type(files) == "table" and #files > 0 and json.encode(files)
  if text and #text <= core.max_json and core.utf8(text) then
    return text
  elseif files ~= nil then
    mj.log("warn", ("event %s: files: a list that makes at most %d bytes of JSON expected; nothing is recorded"):format(
      event.event_id, core.max_json))
  end
end

local function outcome_op(mj, outcome, report, on_trouble)
  local event = outcome.lease.event
  local op = { op = "done", ref = event.ref, seq = event.seq, tries = event.tries }
  if outcome.handled then
    report.delivered = report.delivered + 1
    op.files = files_text(mj, event, outcome.files)
  elseif outcome.handled == nil then -- not run after all: due again at once, and not counted against it
    op.op, op["until"] = "retry", mj.exec:now()
  else
    op.op, op.error = "retry", outcome.reason
    op["until"] = retry_at(mj, event.failed + 1, type(outcome.how) == "table" and outcome.how or {})
    report.errors = report.errors + 1
    report.buried = report.buried + (op["until"] == 0 and 1 or 0)
    local text = ("event %s (try %d): %s"):format(event.event_id, event.failed + 1, outcome.reason)
    mj.log("warn", text)
    if on_trouble then
      on_trouble(text)
    end
  end
  return op
end

-- Stores outcomes and takes n leases: in one transaction, if no other process wants to write.
local function exchange(mj, ops, n, raw)
  local first = #ops
  local take = {
    op = "take", ["until"] = mj.exec:now() + math.floor(mj.config.handler_timeout * 1000) + LEASE_SLACK_MS,
    raw = raw,
  }
  for i = first + 1, first + n do
    ops[i] = take
  end
  local results, err = mj.exec:commit_each(ops)
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

local function deliver(mj, options, handlers, report)
  local limit = options.limit or math.huge
  local stop_at = options.budget and core.clock() + options.budget * 1e3 or math.huge
  local started, ops = 0, {}
  while true do
    if mj.policy:refresh() then
      handlers:renew()
    end
    local open = core.clock() < stop_at and not mj.stopping()
    local room = open and math.min(handlers:room(), limit - started) or 0
    local leased = {}
    if room > 0 or #ops > 0 then
      local err
      leased, err = exchange(mj, ops, room, handlers.raw)
      if not leased then
        return nil, err
      end
      ops, started = {}, started + #leased
    end
    if #leased > 0 then
      handlers:start(leased)
    end
    if handlers:idle() and #leased == 0 then
      return report
    end
    for _, outcome in ipairs(handlers:wait(stop_at)) do
      if outcome.handled == nil then
        started = started - 1
      end
      ops[#ops + 1] = outcome_op(mj, outcome, report, options.on_trouble)
    end
  end
end

--- mj:deliver{limit=, budget= (seconds), isolate=}; `queue`: see pool.direct; `on_trouble`: see mj:reconcile.
-- @treturn table|nil {delivered=, buried=, errors=}; nil and an error when the store failed
function M.deliver(mj, options)
  local report = { delivered = 0, buried = 0, errors = 0 }
  mj.policy:refresh()
  if not mj.policy.present then
    return report -- without a policy events wait
  end
  local handlers = options.isolate and pool.isolated(mj) or pool.direct(mj, options.queue)
  local ran, done, err = pcall(deliver, mj, options, handlers, report)
  handlers:close() -- processes of handlers must not outlive the call, whatever it raises
  if not ran then
    error(done, 0)
  end
  return done, err
end

return M
