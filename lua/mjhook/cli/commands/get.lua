-- mjhook get
local fail = require "mjhook.cli.fail"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"
local story = require "mjhook.cli.story"
local text = require "mjhook.cli.text"
local waiting = require "mjhook.cli.waiting"

local DUE = {
  queued = "it may be sent again", submitting = "its sender is looked after", ambiguous = "it is decided on",
}

local function at(ms, now)
  return ms and ("%s (%s)"):format(os.date("%Y-%m-%d %H:%M:%S", math.floor(ms / 1000)), text.relative(ms, now))
end

local function attempt(out, a, now)
  local parts = { a.word }
  if a.account then
    parts[#parts + 1] = "account " .. a.account
  end
  if a.task_ids then
    parts[#parts + 1] = "task id " .. table.concat(a.task_ids, " and ")
  end
  if a.slot_until then
    parts[#parts + 1] = "holds a slot, at most until " .. at(a.slot_until, now)
  end
  out:field("attempt " .. a.attempt, table.concat(parts, ", "))
end

local function encoded(value)
  return value ~= nil and json.encode(value) or nil
end

local function write(out, mj, task)
  local now = out.now
  out:line(out:paint("bold", task.ref), "  ", out:state(task.state), task.late and "  (late)" or "")
  out:field("why", waiting(mj, task, now), task.state ~= "queued" and "yellow" or nil)
  out:field("prompt", task.prompt)
  if task.mj_prompt ~= task.prompt then
    out:field("run as", task.mj_prompt)
  end
  out:field("mode", ("%s, timeout %s"):format(task.mode, text.duration(task.timeout * 1000)))
  out:field("priority", task.priority ~= 0 and task.priority or nil)
  out:field("user", task.user_id)
  out:field("key", task.key)
  out:field("context", encoded(task.context))
  out:field("stored", at(task.created_at, now))
  out:field("tried", at(task.submitted_at, now))
  out:field("finished", at(task.finished_at, now))
  out:field("told by", task.source)
  out:field("expires", at(task.expires_at, now))
  if task.due_at and task.due_at ~= task.expires_at then
    out:field("next", ("%s: %s"):format(at(task.due_at, now), DUE[task.state] or "the provider is asked"))
  end
  out:field("polls", task.polls > 0 and task.polls or nil)
  for _, a in ipairs(task.attempts) do
    if a.word ~= "unsent" or #task.attempts > 1 then
      attempt(out, a, now)
    end
  end
  out:field("image", task.image)
  for i, url in ipairs(task.images or {}) do
    out:field(i == 1 and "images" or "", url)
  end
  out:field("meta", encoded(task.meta))
  out:line()
  out:heading "What happened"
  story.write(out, task)
end

return {
  name = "get",
  arguments = "REF",
  summary = "show a task and its story",
  example = "mjhook get 01K7Q3M8Z4T5V6W7X8Y9ZABCDE",
  least = 1, most = 1,
  too_many = "one ref expected",
  dash = " (an id that begins with a dash goes after --)",
  options = {},
  details = "REF is a task's ref, or a task id of the provider.",
  run = function(mj, _, arguments, out)
    local task, err = find(mj, arguments[1])
    if not task then
      fail.with(err)
    end
    if out.json then
      out:value(json.task(task))
    else
      write(out, mj, task)
    end
  end,
}
