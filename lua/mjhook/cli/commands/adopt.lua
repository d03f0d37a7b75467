-- mjhook adopt
local each = require "mjhook.cli.each"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local read_json = require("mjhook.cli.reading").json

-- Takes a job over and asks the provider once, so that what is shown is its word. That it gives none is no error: the
-- job is polled from now on.
local function adopt(mj, id, given, out)
  local task, err = mj:adopt {
    task_id = id, prompt = given.prompt, mode = given.mode, timeout = given.timeout, user_id = given.user,
    key = given.key, context = given.context, account = given.account,
  }
  if not task then
    return nil, err
  end
  local polls = task.polls
  local fresh, why = mj:refresh(task.ref)
  if not fresh then
    out:note(("%s: %s"):format(id, fail.sentence(why)))
    return task
  elseif fresh.state == "pending" and fresh.polls > polls and fresh.timeline[#fresh.timeline].signal == "absent" then
    out:note(("%s: the provider does not know this job under account %s: is the id right?"):format(id,
      fresh.account or given.account or mj.config.accounts[1].name))
  end
  fresh.duplicate = task.duplicate
  return fresh
end

return {
  name = "adopt",
  arguments = "TASK_ID...",
  summary = "take over jobs that were submitted elsewhere",
  example = "mjhook adopt MtAd7mCuc4YqK_a1iAQSW --user u1",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  makes_store = true,
  options = {
    { name = "prompt", arg = "TEXT", help = "its prompt, if the provider does not tell it", read = options.text },
    { name = "mode", arg = "MODE", help = "fast (default) or relaxed", read = options.one_of("fast", "relaxed") },
    { name = "timeout", arg = "TIME", help = "after which the provider gives up: 300 to 1200 s (600)",
      read = options.seconds },
    { name = "user", arg = "ID", help = "your user, to list by", read = options.text },
    { name = "key", arg = "KEY", help = "of one job: the same key gives the first task", read = options.text },
    { name = "context", arg = "JSON", help = "kept with the task for your handlers", read = read_json },
    { name = "account", arg = "NAME", help = "the account whose key submitted it", read = options.text },
  },
  details = [[
TASK_ID is the provider's id of a job. From now on it is a task like any other: it is polled, holds a slot while
it runs, and makes an event when it ends. The provider calls back where the job was submitted, not here. An id that is
known already gives its task.]],
  check = function(given, arguments)
    if given.key and #arguments > 1 then
      fail.stop(fail.USAGE, "adopt: --key names one job", "adopt")
    end
  end,
  run = function(mj, given, arguments, out)
    return each(out, arguments, {
      name = "tasks", id = "task_id",
      act = function(id)
        local task, err = adopt(mj, id, given, out)
        return task and json.task(task), err
      end,
      write = function(task)
        out:line(task.ref, " ", out:state(task.state), task.duplicate and " (known already)" or "",
          task.image and " " .. task.image or "")
      end,
    })
  end,
}
