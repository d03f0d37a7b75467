-- mjhook submit
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local land = require "mjhook.cli.land"
local options = require "mjhook.cli.options"
local read_json = require("mjhook.cli.reading").json
local submit_file = require "mjhook.cli.submit_file"
local text = require "mjhook.cli.text"
local waiting = require "mjhook.cli.waiting"

local TIMEOUT = core.provider.timeout

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

local function usage(message)
  fail.stop(fail.USAGE, "submit: " .. message, "submit")
end

-- What is seen of a task that is waited for, on a terminal: one line, which the end takes away.
local function progress(begun)
  if not core.isatty(2) then
    return nil
  end
  return function(task)
    io.stderr:write("\r\27[K", text.clean(("%s, %s"):format(task.state, text.duration(core.clock() - begun))))
    io.stderr:flush()
  end, function()
    io.stderr:write "\r\27[K"
  end
end

local function stop_if_told(task, out)
  if core.signalled() then
    out.finish()
    fail.interrupted(core.signalled(), ("task %s is %s"):format(task.ref, task.state))
  end
end

-- Until the job has ended; the last line is where its image is.
local function wait(mj, task, given, out)
  out.finish()
  local seen, clear = progress(core.clock())
  local ok, final, err = pcall(mj.wait, mj, task.ref, { timeout = given["wait-for"], seen = seen })
  if clear then
    clear()
  end
  if not ok then
    error(final, 0)
  elseif not final then
    if out.json then
      out:value(json.task(mj:get(task.ref) or task))
    end
    stop_if_told(mj:get(task.ref) or task, out)
    out:note(err.message .. (err.code == "timeout" and ("; `mjhook watch %s` waits on"):format(task.ref) or ""))
    return fail.FAILED
  elseif out.json then
    out:value(json.task(final))
  elseif final.state == "succeeded" then
    out:line(final.image or final.images[1] or "")
  else
    out:note(("%s: %s"):format(final.state, final.error and final.error.message or "it has no image"))
  end
  return final.state == "succeeded" and fail.DONE or fail.FAILED
end

local function one(mj, given, prompt, out)
  if prompt == "-" then
    prompt = read_prompt(out)
  end
  local task, err = land(mj, mj.submit, mj, {
    prompt = prompt, mode = given.mode, timeout = given.timeout, user_id = given.user, key = given.key,
    context = given.context, priority = given.priority, account = given.account, expires = given.expires,
  })
  if not task then
    fail.with(err)
  end
  if not out.json then
    out:line(task.ref, " ", out:state(task.state), describe(mj, task, out.now))
  end
  if given.wait and not core.signalled() then
    return wait(mj, task, given, out)
  elseif out.json then
    out:value(json.task(task))
  end
  stop_if_told(task, out)
  return task.state == "failed" and not task.duplicate and fail.FAILED or fail.DONE
end

return {
  name = "submit",
  arguments = "PROMPT | - | --file FILE",
  summary = "store a job, or a file of them, and send it when a slot is free",
  example = "mjhook submit 'a fox on a postcard' --key order-7 --wait",
  least = 0, most = 1,
  too_many = "one prompt expected: quote it, as in mjhook submit 'a fox --ar 4:5'",
  dash = " (a prompt has to be quoted as a whole: mjhook submit 'a fox --ar 4:5')",
  makes_store = true,
  needs_policy = "decisions", -- on_refused
  options = {
    { name = "mode", arg = "MODE", help = "fast (default) or relaxed", read = options.one_of("fast", "relaxed") },
    { name = "timeout", arg = "TIME",
      help = ("after which the provider gives up: %d to %d s (%d)"):format(TIMEOUT.least, TIMEOUT.most, TIMEOUT.usual),
      read = options.seconds },
    { name = "user", arg = "ID", help = "your user, to list by", read = options.text },
    { name = "key", arg = "KEY", help = "makes it once only: the same key gives the first task", read = options.text },
    { name = "context", arg = "JSON", help = "kept with the task for your handlers", read = read_json },
    { name = "priority", arg = "N", help = "higher ones are sent first (0)",
      read = options.whole(-1000000, 1000000) },
    { name = "account", arg = "NAME", help = "send it under this account only", read = options.text },
    { name = "expires", arg = "TIME", help = "fail it when it could not be sent for so long",
      read = options.seconds },
    { name = "wait", help = "wait for its end; the last line is the image's URL" },
    { name = "wait-for", arg = "TIME", help = "wait for at most so long", read = options.seconds },
    { name = "file", arg = "FILE", help = "a job on each line, as JSON; - is standard input", read = submit_file.open },
    { name = "batch", arg = "NAME", help = "with --file: submits lines again that were submitted before",
      read = submit_file.batch },
  },
  details = [[
The prompt is one argument, or - to read it from standard input. What is printed first is the task's ref, then
its state: queued with the reason why it waits, or pending when the provider has it. TIME is in seconds, or with a
unit: 10m, 2h, 7d. With --wait the command ends when the job does: 0 with the image's URL as last line, 1 when the job
failed or the time was over.

A line of FILE is an object: {"prompt": "a fox"}, and mode, timeout, user_id, key, context, priority, account or
expires; where it does not say, the options above do. A wrong line is reported, and the rest goes on. A line without a
key gets one from what it says: to submit the same file again, as it was, longer or in another order, sends no line
twice, also after a kill. Another --batch NAME sends all of it anew. Identical lines of a file are as many jobs.]],
  check = function(given, arguments)
    given.wait = given.wait or given["wait-for"] ~= nil
    if given.wait and given.file then
      usage "--wait is for one job; `mjhook watch` follows several"
    elseif not given.file then
      if #arguments == 0 then
        usage "PROMPT | - expected, or --file FILE"
      elseif given.batch then
        usage "--batch is for --file; one job has --key"
      end
    elseif #arguments > 0 then
      usage(('unexpected argument "%s": with --file the prompts are in the file'):format(arguments[1]))
    elseif given.key then
      usage "--key makes one job once only: in a file, each line has its own"
    end
  end,
  run = function(mj, given, arguments, out)
    if given.file then
      return submit_file.run(mj, given, out, describe)
    end
    return one(mj, given, arguments[1], out)
  end,
}
