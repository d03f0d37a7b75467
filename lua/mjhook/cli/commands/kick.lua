-- mjhook kick
local bulk = require "mjhook.cli.bulk"
local each = require "mjhook.cli.each"
local filters = require "mjhook.cli.filters"

local function buried(mj)
  local ids = {}
  for event in mj:events { buried = true } do
    ids[#ids + 1] = event.event_id
  end
  return ids
end

-- --all alone says what it kicks, and asks nothing: it can do no harm.
local function is_all_alone(given)
  local _, says = filters.filter(given)
  return given.all and not (says or given.failing or given["dry-run"] or given.limit or given.yes)
end

return {
  name = "kick",
  arguments = "EVENT... | FILTER",
  summary = "hand events out again at once, buried ones too",
  example = "mjhook kick --all",
  least = 0, most = math.huge,
  options = filters.options(filters.OF_TASKS, {
    { name = "failing", help = "waiting events whose handler has failed, instead of buried ones" },
    { name = "all", help = "every event that is buried" },
  }, filters.OF_ACTIONS),
  details = [[
EVENT is an id that `mjhook events` shows; a filter takes the buried events of every task that it picks. A kicked event
has all its tries ahead again and keeps its place among its task's; the next delivery hands it out.]],
  check = bulk.check "kick",
  run = function(mj, given, arguments, out)
    if #arguments == 0 and not is_all_alone(given) then
      local filter = given.failing and { waiting = true, failed = true } or nil
      local none = not given.failing and "no such event is buried" or nil
      return bulk.run(mj, given, out, "kick", { filter = filter, none = none })
    end
    local ids = given.all and buried(mj) or arguments
    if #ids == 0 and not out.json then
      out:note "no event is buried"
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
