-- mjhook refresh
local bulk = require "mjhook.cli.bulk"
local each = require "mjhook.cli.each"
local filters = require "mjhook.cli.filters"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"

local ALL = { { name = "all", help = "every task without an end, and lost ones" } }

return {
  name = "refresh",
  arguments = "REF... | FILTER",
  summary = "ask the provider about tasks now",
  example = "mjhook refresh 01K7Q3M8Z4T5V6W7X8Y9ZABCDE",
  least = 0, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  needs_policy = "decisions", -- next_poll
  options = filters.options(filters.OF_TASKS, ALL, filters.OF_ACTIONS),
  details = [[
REF is a task's ref, or a task id of the provider; a filter takes every task that it picks. What the
provider says is stored, as if `mjhook-reconcile` had asked.]],
  check = bulk.check "refresh",
  run = function(mj, given, arguments, out)
    if #arguments == 0 then
      return bulk.run(mj, given, out, "refresh")
    end
    return each(out, arguments, {
      name = "tasks", id = "ref",
      act = function(id)
        local task, err = find(mj, id)
        if task then
          task, err = mj:refresh(task.ref)
        end
        return task and json.task(task), err
      end,
      write = function(task)
        out:line(task.ref, " ", out:state(task.state))
      end,
    })
  end,
}
