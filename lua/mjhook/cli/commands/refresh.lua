-- mjhook refresh
local each = require "mjhook.cli.each"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"

return {
  name = "refresh",
  arguments = "REF...",
  summary = "ask the provider about tasks now",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  needs_policy = true, -- next_poll
  options = {},
  details = [[
REF is a task's ref, or a task id of the provider. What the provider says is stored, as if a sweep had asked.]],
  run = function(mj, _, arguments, out)
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
