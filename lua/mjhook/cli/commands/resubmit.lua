-- mjhook resubmit
local bulk = require "mjhook.cli.bulk"
local core = require "mjhook.core"
local each = require "mjhook.cli.each"
local fail = require "mjhook.cli.fail"
local filters = require "mjhook.cli.filters"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"
local land = require "mjhook.cli.land"
local waiting = require "mjhook.cli.waiting"

local function resubmit(mj, id)
  local task, err = find(mj, id)
  if not task then
    return nil, err
  end
  return land(mj, mj.resubmit, mj, task.ref)
end

local ALL = { { name = "all", help = "every ambiguous, lost or failed task" } }

return {
  name = "resubmit",
  arguments = "REF... | FILTER",
  summary = "submit ambiguous, lost or failed tasks once more",
  example = "mjhook resubmit --state lost --since 1d --dry-run",
  least = 0, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  needs_policy = "decisions", -- on_refused
  options = filters.options(filters.OF_TASKS, ALL, filters.OF_ACTIONS),
  details = [[
REF is a task's ref, or a task id of the provider; a filter takes every task that it picks. Each gets a
new attempt, which is sent when a slot is free. An ambiguous task may have arrived, and a lost one may still run:
resubmitting it may be billed twice. mjhook never does that by itself; here you decide it.]],
  check = bulk.check "resubmit",
  run = function(mj, given, arguments, out)
    if #arguments == 0 then
      return bulk.run(mj, given, out, "resubmit")
    end
    return each(out, arguments, {
      name = "tasks", id = "ref", signalled = core.signalled,
      act = function(id)
        local task, err = resubmit(mj, id)
        return task and json.task(task), err
      end,
      write = function(task)
        local why = waiting(mj, task, out.now)
        out:line(task.ref, " ", out:state(task.state), why and (" (%s)"):format(why) or "")
      end,
      exit = function(task)
        return task.state == "failed" and fail.FAILED
      end,
    })
  end,
}
