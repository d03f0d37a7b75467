-- mjhook submit
local core = require "mjhook.core"
local decode = require("mjhook.json").decode
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"
local waiting = require "mjhook.cli.waiting"

local function read_json(given)
  local value, why = decode(given)
  if value == nil then
    return nil, "not JSON: " .. why
  end
  return value
end

local function read_prompt(out)
  if core.isatty(0) then
    out:note "reading the prompt from the terminal; Ctrl-D ends it"
  end
  local prompt = io.stdin:read(core.max_prompt + 2) or "" -- more than that is refused anyway
  return (prompt:gsub("\r?\n$", ""))
end

local function describe(mj, task, now)
  if task.duplicate then
    return " (this key's first task: nothing was sent)"
  end
  local why = waiting(mj, task, now)
  return why and (" (%s)"):format(why) or ""
end

return {
  name = "submit",
  arguments = "PROMPT | -",
  summary = "store a job and send it when a slot is free",
  least = 1, most = 1,
  too_many = "one prompt expected: quote it, as in mjhook submit 'a fox --ar 4:5'",
  dash = " (a prompt has to be quoted as a whole: mjhook submit 'a fox --ar 4:5')",
  makes_store = true,
  needs_policy = true, -- on_refused
  options = {
    { name = "mode", arg = "MODE", help = "fast (default) or relaxed", read = options.one_of("fast", "relaxed") },
    { name = "timeout", arg = "TIME", help = "after which the provider gives up: 300 to 1200 s (600)",
      read = options.seconds },
    { name = "user", arg = "ID", help = "your user, to list by", read = options.text },
    { name = "key", arg = "KEY", help = "makes it once only: the same key gives the first task", read = options.text },
    { name = "context", arg = "JSON", help = "kept with the task for your handlers", read = read_json },
    { name = "priority", arg = "N", help = "higher ones are sent first (0)",
      read = options.whole(-1000000, 1000000) },
    { name = "account", arg = "NAME", help = "send it under this account only", read = options.text },
    { name = "expires", arg = "TIME", help = "fail it when it could not be sent for so long",
      read = options.seconds },
  },
  details = [[
The prompt is one argument, or - to read it from standard input. What is printed first is the task's ref, then
its state: queued with the reason why it waits, or pending when the provider has it. TIME is in seconds, or with a
unit: 10m, 2h, 7d.]],
  run = function(mj, given, arguments, out)
    local prompt = arguments[1]
    if prompt == "-" then
      prompt = read_prompt(out)
    end
    local task, err = mj:submit {
      prompt = prompt, mode = given.mode, timeout = given.timeout, user_id = given.user, key = given.key,
      context = given.context, priority = given.priority, account = given.account, expires = given.expires,
    }
    if not task then
      fail.with(err)
    end
    if out.json then
      out:value(json.task(task))
    else
      out:line(task.ref, " ", out:state(task.state), text.clean(describe(mj, task, out.now)))
    end
    return task.state == "failed" and not task.duplicate and fail.FAILED or fail.DONE
  end,
}
