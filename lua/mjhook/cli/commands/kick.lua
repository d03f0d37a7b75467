-- mjhook kick
local each = require "mjhook.cli.each"
local fail = require "mjhook.cli.fail"

local function buried(mj)
  local ids = {}
  for event in mj:events { buried = true } do
    ids[#ids + 1] = event.event_id
  end
  return ids
end

return {
  name = "kick",
  arguments = "EVENT...",
  summary = "hand events out again at once, buried ones too",
  least = 0, most = math.huge,
  options = { { name = "all", help = "every event that is buried" } },
  details = [[
EVENT is an id that `mjhook events` shows. A kicked event has all its tries ahead again and keeps its place among its
task's; the next delivery hands it out.]],
  check = function(given, arguments)
    if (#arguments == 0) == not given.all then
      fail.stop(fail.USAGE, "kick: either events or --all expected", "kick")
    end
  end,
  run = function(mj, given, arguments, out)
    local ids = given.all and buried(mj) or arguments
    if #ids == 0 and not out.json then
      out:note "no event is buried: there is nothing to kick"
    end
    return each(out, ids, {
      name = "kicked", id = "event_id",
      act = function(id)
        local ok, err = mj:kick(id)
        return ok and id, err
      end,
      write = function(id)
        out:line(id)
      end,
    })
  end,
}
