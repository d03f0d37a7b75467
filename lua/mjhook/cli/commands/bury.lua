-- mjhook bury
local bulk = require "mjhook.cli.bulk"
local each = require "mjhook.cli.each"
local filters = require "mjhook.cli.filters"
local options = require "mjhook.cli.options"

return {
  name = "bury",
  arguments = "EVENT... | FILTER",
  summary = "give events up",
  example = "mjhook bury 01K7Q3M8Z4T5V6W7X8Y9ZABCDE-1 --reason 'no such order'",
  least = 0, most = math.huge,
  options = filters.options(filters.OF_TASKS, {
    { name = "failing", help = "only events whose handler has failed" },
    { name = "all", help = "every event that waits" },
    { name = "reason", arg = "TEXT", help = "why: it is kept as the event's last error", read = options.text },
  }, filters.OF_ACTIONS),
  details = [[
EVENT is an id that `mjhook events` shows; a filter takes the waiting events of every task that it picks. A buried
event is kept, and its task with it, until it is kicked; the next event of its task is handed out.]],
  check = bulk.check "bury",
  run = function(mj, given, arguments, out)
    if #arguments == 0 then
      local filter = given.failing and { waiting = true, failed = true } or nil
      return bulk.run(mj, given, out, "bury", { filter = filter })
    end
    return each(out, arguments, {
      name = "buried", id = "event_id",
      act = function(id)
        local ok, err = mj:bury(id, given.reason)
        return ok and id, err
      end,
      write = function(id)
        out:line(id)
      end,
    })
  end,
}
