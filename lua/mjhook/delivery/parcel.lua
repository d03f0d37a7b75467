--- Leases as text, for a process that handles more than one batch of them: records as the store has them, which are
-- decoded where they are needed.
local core = require "mjhook.core"

local M = {}

--- @tparam table leases results of `take` with `raw`
-- @treturn string
function M.pack(leases)
  local parts = {}
  for _, lease in ipairs(leases) do
    local event = lease.event
    parts[#parts + 1] = ("%d %d %d %d\n"):format(event.tries, event.next_at, #lease.event_record, #lease.record)
    parts[#parts + 1] = lease.event_record
    parts[#parts + 1] = lease.record
  end
  return table.concat(parts)
end

--- The same leases, as far as handlers need them: {event=, task=}.
function M.unpack(text)
  local leases, at = {}, 1
  while at <= #text do
    local tries, next_at, event_size, size, from = text:match("^(%d+) (%d+) (%d+) (%d+)\n()", at)
    at = from + event_size + size
    leases[#leases + 1] = M.decode(text:sub(from, from + event_size - 1), text:sub(from + event_size, at - 1),
      tonumber(tries), tonumber(next_at))
  end
  return leases
end

--- A lease from its records.
-- @treturn table {event=, task=}
function M.decode(event_record, record, tries, next_at)
  local event, task = core.leased(event_record, record, tries, next_at)
  return { event = event, task = task }
end

return M
