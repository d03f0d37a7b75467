--- Events by hand: looking at them, handing them out again, giving them up.
local core = require "mjhook.core"

local M = {}

--- The parts of an event id.
-- @treturn string|nil ref; and seq
function M.parse(event_id)
  local ref, seq = event_id:match "^(%w+)%-([1-9]%d*)$"
  if ref and #seq < 10 and core.is_ref(ref) then
    return ref, tonumber(seq)
  end
end

local function unknown(what)
  return nil, core.error("not_found", what)
end

local WHY = {
  state = "is being handled at this moment, or another event of its task is: try again when that is over",
  not_found = "is not there: it was delivered, or never was; `replay` hands out a task's last event again",
  duplicate = "is buried already",
}

local function by_hand(mj, op, event_id, reason)
  local ref, seq = M.parse(event_id)
  if not ref then
    return unknown(("%q is no event id"):format(event_id))
  end
  local results, err = mj.exec:commit { { op = op, ref = ref, seq = seq, error = reason } }
  if not results then
    return nil, err
  end
  local code = results[1].code
  if code == "ok" then
    return true
  end
  return nil, core.error(code, ("event %s %s"):format(event_id, WHY[code] or code), code == "state")
end

--- Hands an event out again at once, with all its tries ahead.
-- @treturn boolean|nil true, or nil and an error: "not_found", "state"
function M.kick(mj, event_id)
  return by_hand(mj, "kick", event_id)
end

--- Gives an event up: it is kept, with the reason, until it is kicked.
-- @treturn boolean|nil true, or nil and an error: "not_found", "state", "duplicate"
function M.bury(mj, event_id, reason)
  return by_hand(mj, "bury", event_id, reason or "given up by hand")
end

--- Hands out a task's last event again, under its own id, also when it was delivered.
-- @treturn string|nil the event's id, or nil and an error: "not_found", "state"
function M.replay(mj, ref)
  local results, err = mj.exec:commit { { op = "kick", ref = ref, seq = 0 } }
  if not results then
    return nil, err
  end
  local code = results[1].code
  if code == "ok" then
    return ("%s-%d"):format(ref, results[1].seq)
  elseif code == "not_found" then
    return unknown(("there is no task %s (any more)"):format(ref))
  elseif code == "state" then
    return nil, core.error(code, ("task %s has no event to replay: it has no end yet, or its event is being handled")
      :format(ref))
  end
  return nil, core.error(code, ("task %s: its event could not be replayed: %s"):format(ref, code))
end

return M
