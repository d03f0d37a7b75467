-- mjhook list
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local filters = require "mjhook.cli.filters"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local output = require "mjhook.cli.output"
local text = require "mjhook.cli.text"

local SCREENFUL = 50 -- what a terminal gets without --limit; a pipe and --json get everything

local COLUMNS = {
  { title = "REF" },
  { title = "STATE", colour = output.state_colour },
  { title = "AGE", right = true },
  { title = "TRY/POLL", right = true },
  { title = "USER", max = 20 },
  { title = "PROMPT" },
}

local function tries(task)
  local n = 0
  for _, a in ipairs(task.attempts) do
    n = n + (a.submitted_at and 1 or 0)
  end
  return n
end

local function rows(tasks, now)
  return function()
    local task = tasks()
    return task and {
      task.ref, task.state, text.age(now - task.created_at), ("%d/%d"):format(tries(task), task.polls),
      task.user_id or "", task.prompt or "",
    }
  end
end

local function read_ref(word)
  if core.is_ref(word) then
    return word
  end
  return nil, "a ref expected, as `mjhook list` shows it"
end

local function count(mj, filter, out)
  local counted, err = mj:count(filter)
  if not counted then
    fail.with(err)
  elseif out.json then
    out:value(counted)
  else
    out:line((counted.exact and "%d" or "at least %d"):format(counted.count))
  end
end

-- The page in front of a ref: those that are nearest to it, newest first.
local function in_front(mj, filter, limit)
  local found = {}
  repeat
    filter.limit = limit - #found
    local page, err = mj:page(filter)
    if not page then
      fail.with(err)
    end
    for i = #page.tasks, 1, -1 do
      found[#found + 1] = page.tasks[i]
    end
    filter.after = page.newer
  until not page.newer or #found >= limit
  return function()
    return table.remove(found)
  end
end

-- An iterator over what is shown, and a function that says at its end whether there is more.
local function choose(mj, filter, limit)
  if limit > 0 and filter.after and not filter.before then
    return in_front(mj, filter, limit), function()
      return false
    end
  end
  local left = limit > 0 and limit or math.huge
  filter.limit = limit > 0 and limit + 1 or nil
  local each, more = mj:tasks(filter), false
  return function()
    local task = each()
    left = left - 1
    more = left < 0 and task ~= nil
    return not more and task or nil
  end, function()
    return more
  end
end

return {
  name = "list",
  arguments = "",
  summary = "list tasks, newest first",
  example = "mjhook list --state failed --since 7d",
  least = 0, most = 0,
  too_many = "list takes no arguments; tasks are chosen with --state, --user, --since and the like",
  options = filters.options(filters.OF_TASKS, {
    { name = "before", arg = "REF", help = "only older tasks than this one: the next page", read = read_ref },
    { name = "after", arg = "REF", help = "only newer tasks; with --limit the page in front of it", read = read_ref },
    { name = "limit", arg = "N", help = "at most N tasks; 0: all (on a terminal 50, otherwise all)",
      read = options.whole(0, 1e9) },
    { name = "count", help = "print how many there are, and no tasks" },
  }),
  details = [[
All that is given has to hold. TRY is how many attempts were begun, POLL how often the provider was asked. With --json
each task is an object on a line of its own. --count looks at 10,000 tasks at most: "at least" says that there may be
more.]],
  run = function(mj, given, _, out)
    local filter = filters.filter(given)
    filter.before, filter.after = given.before, given.after
    if given.count then
      return count(mj, filter, out)
    end
    local limit = given.limit or (out.terminal and not out.json and SCREENFUL) or 0
    local each, is_more = choose(mj, filter, limit)
    local last
    local function tasks()
      local ok, task = pcall(each)
      if not ok then
        fail.with(task)
      end
      last = task or last
      return task
    end
    if out.json then
      for task in tasks do
        out:value(json.task(task))
      end
    elseif out:table(COLUMNS, rows(tasks, out.now)) == 0 then
      out:note(("no such tasks in %s"):format(mj.config.store))
    elseif is_more() and not given.limit then
      out:note(("the newest %d; more with --limit N (0: all), or --before %s"):format(limit, last.ref))
    end
    if given.q and not given.since then
      out:note "only the last seven days were looked at; --since goes back further"
    end
  end,
}
