-- mjhook replay
local each = require "mjhook.cli.each"
local find = require "mjhook.cli.lookup"

return {
  name = "replay",
  arguments = "REF...",
  summary = "hand out tasks' last events again, also delivered ones",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = {},
  details = [[
REF is a task's ref, or a task id of the provider. The event comes under its own id, so that who handled it before can
tell. A pruned task has none.]],
  run = function(mj, _, arguments, out)
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
