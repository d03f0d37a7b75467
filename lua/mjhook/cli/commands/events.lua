-- mjhook events
local fail = require "mjhook.cli.fail"
local filters = require "mjhook.cli.filters"
local find = require "mjhook.cli.lookup"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"

local SCREENFUL = 50 -- what a terminal gets without --limit

local COLUMNS = {
  { title = "EVENT" },
  { title = "TYPE" },
  { title = "AGE", right = true },
  { title = "TRIES", right = true },
  { title = "NEXT" },
  { title = "LAST ERROR" },
}

local function fate(event, now)
  if event.buried then
    return "buried"
  elseif event.leased and event.next_at > now then
    return "at work"
  end
  return event.next_at <= now and "due" or text.relative(event.next_at, now)
end

local function row(event, now)
  local last = event.errors[#event.errors]
  return { event.event_id, event.type, text.age(now - event.created_at), ("%d"):format(event.tries), fate(event, now),
           last and last.message or "" }
end

return {
  name = "events",
  arguments = "[REF]",
  summary = "show events that wait to be delivered or were given up",
  example = "mjhook events --buried",
  least = 0, most = 1,
  too_many = "events takes at most one ref",
  options = filters.options(filters.OF_TASKS, {
    { name = "buried", help = "only those that were given up" },
    { name = "failing", help = "only those that wait and whose handler has failed" },
    { name = "limit", arg = "N", help = "at most N; 0: all (on a terminal 50, otherwise all)",
      read = options.whole(0, 1e9) },
  }),
  details = [[
REF is a task's ref, or a task id of the provider. An event is handed to the policy until its handler returns; after 20
tries it is buried, and waits for `mjhook kick`. With --json each is an object on a line of its own, with its newest
five errors.]],
  run = function(mj, given, arguments, out)
    local limit = given.limit or (out.terminal and not out.json and SCREENFUL) or 0
    local ref
    if arguments[1] then
      local task, err = find(mj, arguments[1])
      if not task then
        fail.with(err)
      end
      ref = task.ref
    end
    local filter = filters.filter(given)
    filter.buried, filter.ref, filter.limit = given.buried, ref, limit > 0 and limit or nil
    filter.waiting, filter.failed = given.failing, given.failing
    local each = mj:events(filter)
    local function events()
      local ok, event = pcall(each)
      if not ok then
        fail.with(event)
      end
      return event
    end
    if out.json then
      for event in events do
        out:value(event)
      end
    else
      local n = out:table(COLUMNS, function()
        local event = events()
        return event and row(event, out.now)
      end)
      if n == 0 then
        out:note(given.buried and "no event is buried" or "no event waits to be delivered")
      end
    end
  end,
}
