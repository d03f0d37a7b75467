-- mjhook bury
local each = require "mjhook.cli.each"
local options = require "mjhook.cli.options"

return {
  name = "bury",
  arguments = "EVENT...",
  summary = "give events up",
  least = 1, most = math.huge,
  options = { { name = "reason", arg = "TEXT", help = "why, for who looks at it later", read = options.text } },
  details = [[
EVENT is an id that `mjhook events` shows. A buried event is kept, and its task with it, until it is kicked; the next
event of its task is handed out.]],
  run = function(mj, given, arguments, out)
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
