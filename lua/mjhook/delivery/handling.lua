--- One event's handlers, run and told of; and the process that runs them for others.
local core = require "mjhook.core"
local json = require "mjhook.json"
local parcel = require "mjhook.delivery.parcel"
local turns = require "mjhook.delivery.turn"
local view = require("mjhook.view").view

local M = {}

-- A deliverer that died may have run the event or not: it counts for little. But a handler that takes its deliverer
-- with it, every time, must not do so for ever.
local DEATHS = 100
local MOST_TOLD = 524288 -- bytes; the core takes twice as much
local LOOK_MS = 5        -- how often a process that has requests in the air looks whether there are more events for it

--- Runs one event's handlers; nil when its lease has not enough time left for them. Its record may be gone: then there
-- is nothing left to tell of.
function M.handle(mj, lease)
  if lease.record then
    lease = parcel.decode(lease.event_record, lease.record, lease.event.tries, lease.event.next_at)
  end
  local event = lease.event
  if event.round - event.failed > DEATHS then
    return false, ("the process that handles it dies: %d times so far"):format(DEATHS), { bury = true }
  elseif mj.exec:now() + mj.config.handler_timeout * 1000 > event.next_at then
    return nil
  end
  local task = view(lease.task)
  if not task then
    return true
  end
  if event.late then
    task.late = true
  end
  local timeout = not mj.on_event_loop and mj.config.handler_timeout or nil
  return mj.policy:handle(task, {
    event_id = event.event_id, type = event.type, attempt = event.attempt, created_at = event.created_at,
    log = mj.log, timeout = mj.config.handler_timeout, mj = mj,
    store = not mj.config.store_url and mj.config.store or nil, -- a directory, where a handler may leave a note
  }, timeout)
end

local function finite(value)
  return type(value) == "number" and value == value and value < math.huge and value > -math.huge and value or nil
end

-- What a child says of a handler's end: JSON; nil: it has handled the event, and that is all. A handler may have
-- answered what can't be told so, or at any length.
local function told(handled, reason, how, files)
  if handled == true and files == nil then
    return nil
  end
  local text = json.encode { handled = handled, reason = reason, how = how, files = files }
  if text and #text <= MOST_TOLD then
    return text
  end
  how = type(how) == "table" and { bury = how.bury and true or nil, retry_after = finite(how.retry_after),
    not_before = finite(how.not_before) } or nil
  return json.encode { handled = handled, reason = reason and tostring(reason):sub(1, MOST_TOLD / 8), how = how,
                       files = files ~= nil and "strange" or nil } -- which is no list: the deliverer says so
end

--- The function for core.fork: handles these leases, and what else it is given, until it is told to begin no more.
-- What it inherits is right for reading; connections are the parent's.
function M.serve(mj, leases)
  local parents = mj.exec.client -- kept, so that it is not collected and closed
  mj.exec.client = nil
  return function(tell, claim, more, at_hand)
    mj.exec:unlock() -- the pass is the parent's: it must not last as long as what a handler leaves behind
    local given, known, begun, stopped = {}, 0, 0, false -- given: leases by their number, until they are begun
    local function add(list)
      for _, lease in ipairs(list) do
        given[known], known = lease, known + 1
      end
    end
    local turn = turns.new {
      next = function()
        local piece = begun < known and claim() or nil
        if not piece then
          stopped = begun < known
          return nil
        end
        begun = piece + 1
        return piece
      end,
      run = function(piece)
        local lease = given[piece]
        given[piece] = nil
        return M.handle(mj, lease)
      end,
      done = function(piece, ...)
        tell(piece, told(...))
      end,
      at_hand = at_hand,
    }
    add(leases)
    local until_ms = 0
    repeat
      turn:go(until_ms)
      local text = false
      until_ms = math.huge
      if not stopped and begun == known and turn:is_free() then
        text = more(known, turn.flying == 0)
        until_ms = text and 0 or core.clock() + LOOK_MS
      end
      if text then
        add(parcel.unpack(text))
      end
    until text == nil or stopped and turn.flying == 0
    return parents
  end
end

return M
