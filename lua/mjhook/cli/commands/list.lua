-- mjhook list
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local output = require "mjhook.cli.output"
local text = require "mjhook.cli.text"
local times = require "mjhook.cli.times"

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

return {
  name = "list",
  arguments = "",
  summary = "list tasks, newest first",
  least = 0, most = 0,
  too_many = "list takes no arguments; tasks are chosen with --state, --user and --since",
  options = {
    { name = "state", arg = "STATE", help = "only tasks in this state", read = options.one_of("queued", "submitting",
      "ambiguous", "pending", "succeeded", "failed", "lost", "cancelled") },
    { name = "user", arg = "ID", help = "only this user's tasks", read = options.text },
    { name = "since", arg = "TIME", help = "stored since: 7d, 2h, 2026-01-31, 2026-01-31T12:00Z or milliseconds",
      read = times.since },
    { name = "limit", arg = "N", help = "at most N tasks; 0: all (on a terminal 50, otherwise all)",
      read = options.whole(0, 1e9) },
  },
  details = [[
TRY is how many attempts were begun, POLL how often the provider was asked. With --json each task is an object on
a line of its own.]],
  run = function(mj, given, _, out)
    local limit = given.limit or (out.terminal and not out.json and SCREENFUL) or 0
    local left = limit > 0 and limit or math.huge
    local more = false
    local each = mj:tasks { state = given.state, user_id = given.user, since = given.since,
                            limit = limit > 0 and limit + 1 or nil }
    local function tasks()
      local ok, task = pcall(each)
      if not ok then
        fail.with(task)
      end
      left = left - 1
      more = left < 0 and task ~= nil
      return not more and task or nil
    end
    if out.json then
      for task in tasks do
        out:value(json.task(task))
      end
    elseif out:table(COLUMNS, rows(tasks, out.now)) == 0 then
      out:note(("no such tasks in %s"):format(mj.config.store))
    elseif more and not given.limit then
      out:note(("the newest %d; more with --limit N (0: all)"):format(limit))
    end
  end,
}
