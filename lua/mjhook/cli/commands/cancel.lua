-- mjhook cancel
local bulk = require "mjhook.cli.bulk"
local each = require "mjhook.cli.each"
local filters = require "mjhook.cli.filters"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"

local function cancel(mj, id)
  local task, err = find(mj, id)
  if not task then
    return nil, err
  end
  return mj:cancel(task.ref)
end

local ALL = { { name = "all", help = "every unfinished task" } }

return {
  name = "cancel",
  arguments = "REF... | FILTER",
  summary = "give tasks up",
  example = "mjhook cancel --state queued --user u1 --dry-run",
  least = 0, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = filters.options(filters.OF_TASKS, ALL, filters.OF_ACTIONS),
  details = [[
REF is a task's ref, or a task id of the provider; a filter takes every task that it picks. The provider
can't be told: a result that comes later is recorded, and makes no event. A task that is final already can't be
cancelled.]],
  check = bulk.check "cancel",
  run = function(mj, given, arguments, out)
    if #arguments == 0 then
      return bulk.run(mj, given, out, "cancel")
    end
    return each(out, arguments, {
      name = "tasks", id = "ref",
      act = function(id)
        local task, err = cancel(mj, id)
        return task and json.task(task), err
      end,
      write = function(task)
        out:line(task.ref, " ", out:state(task.state))
      end,
    })
  end,
}
