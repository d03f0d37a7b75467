-- mjhook cancel
local each = require "mjhook.cli.each"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"

local function cancel(mj, id)
  local task, err = find(mj, id)
  if not task then
    return nil, err
  end
  return mj:cancel(task.ref)
end

return {
  name = "cancel",
  arguments = "REF...",
  summary = "give tasks up",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = {},
  details = [[
REF is a task's ref, or a task id of the provider. The provider can't be told: a result that comes later is recorded,
and makes no event. A task that is final already can't be cancelled.]],
  run = function(mj, _, arguments, out)
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
