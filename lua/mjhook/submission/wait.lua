--- Waiting for a task's end. The store is looked at; nothing is held open, and other callers go on.
--
-- A program that only waits gets its result, too: when a poll is overdue because no reconciler has made it, the
-- provider is asked from here, and a queued task is sent when there is a slot for it.
local core = require "mjhook.core"
local poll = require "mjhook.reconcile.poll"
local submit = require "mjhook.submission.submit"

local M = {}

local FIRST_S, LONGEST_S, GROWTH = 0.02, 0.5, 1.5 -- between two looks
local OVERDUE_MS = 1000 -- leaves a reconciler its turn
local REST_MS = 1000    -- between two steps of our own

local FINAL = {}
for _, state in ipairs(core.final_states) do
  FINAL[state] = true
end

-- Several callers may wait for one task: one of them is enough.
local at_work = {}

local function step(mj, task, now)
  if task.state == "queued" then
    if task.due_at and task.due_at <= now then
      mj.exec:commit { { op = "tick", limit = 100 } }
    end
    local stats = mj.exec:read("stats", now)
    if stats and submit.has_room(stats, now) then
      mj.land(mj, submit.dispatch, mj)
    end
  elseif task.state == "pending" and task.due_at and task.due_at + OVERDUE_MS <= now then
    poll.refresh(mj, task.ref)
  end
end

-- What goes wrong here is the store's or the provider's, and is said where it matters: by the next look, or in time.
local function help(mj, task)
  if not at_work[task.ref] then
    at_work[task.ref] = true
    local ok, why = pcall(step, mj, task, mj.exec:now())
    at_work[task.ref] = nil
    if not ok and tostring(why):find("interrupted!", 1, true) then -- the interpreter's word for Ctrl-C
      error(why, 0)
    end
  end
end

local function too_late(task, seconds)
  return nil, core.error("timeout", ("task %s is %s: no end within %g s"):format(task.ref, task.state, seconds), true)
end

--- mj:wait(ref, {timeout= (seconds), seen= function(task)}); `seen` is called with each look.
-- @treturn table|nil the final task; nil and an error: "timeout", "not_found", or the store's
function M.wait(mj, ref, options)
  local begun, slept = core.clock(), 0
  local limit = options.timeout and options.timeout * 1e3 or math.huge
  local pause, help_at = FIRST_S, 0
  while true do
    local task, err = mj:get(ref)
    if not task then
      return nil, err
    elseif options.seen then
      options.seen(task)
    end
    local spent = math.max(core.clock() - begun, slept * 1000) -- in tests time passes by sleeping alone
    if FINAL[task.state] then
      return task
    elseif spent >= limit then
      return too_late(task, options.timeout)
    elseif mj.stopping() then
      return nil, core.error("timeout", ("task %s is %s: told to stop"):format(ref, task.state), true)
    end
    if spent >= help_at then
      help(mj, task)
      help_at = spent + REST_MS
    end
    local rest = math.min(pause, math.max(limit - spent, 1) / 1000)
    mj.exec:sleep(rest)
    slept = slept + rest
    pause = math.min(pause * GROWTH, LONGEST_S)
  end
end

return M
