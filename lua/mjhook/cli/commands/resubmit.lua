-- mjhook resubmit
local each = require "mjhook.cli.each"
local fail = require "mjhook.cli.fail"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"
local waiting = require "mjhook.cli.waiting"

local function resubmit(mj, id)
  local task, err = find(mj, id)
  if not task then
    return nil, err
  end
  return mj:resubmit(task.ref)
end

return {
  name = "resubmit",
  arguments = "REF...",
  summary = "submit ambiguous, lost or failed tasks once more",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  needs_policy = true, -- on_refused
  options = {},
  details = [[
REF is a task's ref, or a task id of the provider. Each gets a new attempt, which is sent when a slot is free.
What is ambiguous may have arrived, and what is lost may still run: resubmitting it may be billed twice. mjhook never
does that by itself; here you decide it.]],
  run = function(mj, _, arguments, out)
    return each(out, arguments, {
      name = "tasks", id = "ref",
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
