-- mjhook replay
local bulk = require "mjhook.cli.bulk"
local each = require "mjhook.cli.each"
local filters = require "mjhook.cli.filters"
local find = require "mjhook.cli.lookup"

local ALL = { { name = "all", help = "every succeeded, failed or lost task" } }

return {
  name = "replay",
  arguments = "REF... | FILTER",
  summary = "hand out tasks' last events again, also delivered ones",
  example = "mjhook replay 01K7Q3M8Z4T5V6W7X8Y9ZABCDE",
  least = 0, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = filters.options(filters.OF_TASKS, ALL, filters.OF_ACTIONS),
  details = [[
REF is a task's ref, or a task id of the provider; a filter takes every task that it picks. The event
comes under its own id, so that a handler can tell that it had it before. A pruned task has none.]],
  check = bulk.check "replay",
  run = function(mj, given, arguments, out)
    if #arguments == 0 then
      return bulk.run(mj, given, out, "replay")
    end
    return each(out, arguments, {
      name = "replayed", id = "ref",
      act = function(id)
        local task, err = find(mj, id)
        if not task then
          return nil, err
        end
        return mj:replay(task.ref)
      end,
      write = function(event_id)
        out:line(event_id)
      end,
    })
  end,
}
