--- Submission: the intent is durable before a byte leaves, and nothing leaves twice.
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local memory = require "mjhook.memory"
local send = require "mjhook.submission.send"
local view = require("mjhook.view").view

local M = {}

M.STALL_MS, M.claim, M.send = send.STALL_MS, send.claim, send.send

-- Hears what becomes of one task. It is made before anything is stored: later there may be no memory for it.
local function listener()
  local how = { ref = false, task = false }
  function how.sent(tasks)
    for _, task in ipairs(tasks) do
      how.task = task.ref == how.ref and task or how.task
    end
  end
  return how
end

-- Sends what a commit claimed, also another caller's task: what is claimed and not sent would be ambiguous one day.
-- Gives the task as it is afterwards; nil and an error when that could not be stored.
local function send_claimed(mj, claimed, start_by, task, how)
  if #claimed == 0 then
    return task
  end
  how.ref = task and task.ref or false
  local ok, err = M.send(mj, claimed, start_by, how)
  if not ok then
    return nil, M.untold(task, err)
  end
  if how.task then
    how.task.duplicate, how.task.requests = task.duplicate, nil
  end
  return how.task or task
end

--- The error for tasks that were stored, and perhaps sent, when what became of them could not be stored.
function M.untold(task, err)
  if not task then
    return err
  end
  return core.error(err.code, ("task %s was stored and its outcome could not be: %s"):format(task.ref, err.message),
    false)
end

-- Reads the result of what the caller asked for, with read(result, seen), and sends what was claimed with it. Both
-- whatever happens: the task is stored, and its caller has to hear of it.
local function settle(mj, result, claimed, unsure, start_by, read, seen, how)
  local ok, task, refused = pcall(read, result, seen)
  local sent, settled, untold = pcall(send_claimed, mj, claimed, start_by, ok and task or nil, how)
  if ok and not task then
    return nil, refused
  elseif ok and sent and not unsure then
    return settled, untold
  end
  return nil, M.untold(result.task, unsure and memory.OUT or memory.error(ok and settled or task))
end

--- mj:submit, of checked arguments. See PRODUCT.md.
function M.submit(mj, args)
  local new, err = job.record(mj, args)
  if not new then
    return nil, err
  end
  local how, start_by = listener(), core.clock() + M.STALL_MS
  -- The task that has waited longest goes first, also when this call found the free slot.
  local results, claimed, unsure = M.claim(mj, { { op = "create", task = new, source = "user", want = true } },
    mj.config.connections)
  if not results then
    return nil, claimed
  end
  return settle(mj, results[1], claimed, unsure, start_by, job.created, args, how)
end

--- Whether a task waits while an account has a slot for it.
-- @tparam table stats of the store
function M.has_room(stats, now)
  if stats.ready > 0 then
    for _, a in ipairs(stats.accounts) do
      if a.held < (a.learned or a.max_in_flight) and (a.paused_until or 0) <= now then
        return true
      end
    end
  end
  return false
end

local function always()
  return true
end

--- Claims and sends what is queued, until no slot is free or nothing is queued.
-- @tparam table how see mjhook.submission.send; more(), if given: whether to go on claiming
-- @treturn boolean|nil true; nil and an error when the store failed
function M.send_queued(mj, how)
  local start_by = core.clock() + M.STALL_MS
  local results, claimed = M.claim(mj, {}, mj.config.connections)
  if not results then
    return nil, claimed
  elseif #claimed == 0 then
    return true
  end
  how.more = how.more or always
  return M.send(mj, claimed, start_by, how)
end

--- The same for a worker of nginx, which reports nothing but their number.
-- @tparam[opt] function heard called whenever something has been answered
-- @treturn number|nil how many were sent; nil and an error
function M.dispatch(mj, heard)
  local count = 0
  local ok, err = M.send_queued(mj, { sent = function(tasks)
    count = count + #tasks
    if heard then
      heard()
    end
  end })
  return ok and count, err
end

local AGAIN = { ambiguous = true, lost = true, failed = true }

local function not_again(task, text, ...)
  return nil, core.error("state", ("task %s "):format(task.ref) .. text:format(...))
end

-- Why the reducer made no new attempt of a task.
local function refused_again(result, seen)
  local task = result.task or seen
  if result.code == "limit" then
    return nil, core.error("limit", ("task %s has had %d attempts, and there is no room for another"):format(task.ref,
      task.attempt))
  elseif result.code == "stale" then
    return not_again(task, "was resubmitted meanwhile, and is %s", task.state)
  elseif result.code ~= "state" then
    return nil, core.error(result.code, ("task %s could not be resubmitted: %s"):format(task.ref, result.code))
  elseif AGAIN[task.state] then
    return not_again(task, "was adopted and its prompt never learned: there is nothing to send")
  end
  return not_again(task, "is %s: only an ambiguous, lost or failed task can be resubmitted", task.state)
end

local function resubmitted(result, seen)
  if result.code == "ok" then
    return memory.insist(view, result.task)
  end
  return refused_again(result, seen)
end

--- mj:resubmit: a new attempt, by the user's own decision, sent as submit sends.
function M.resubmit(mj, ref)
  local seen, err = mj.exec:read("get", ref)
  if not seen then
    return nil, err
  elseif not AGAIN[seen.state] then
    return refused_again({ code = "state" }, seen)
  end
  local ok, why = job.sendable(mj)
  if not ok then
    return nil, why
  end
  local how, start_by = listener(), core.clock() + M.STALL_MS
  -- The attempt that was seen: two callers that resubmit the same failure at a time make one attempt.
  local results, claimed, unsure = M.claim(mj, { {
    op = "signal", ref = ref, attempt = seen.attempt, kind = "resubmit", source = "user", want = true,
  } }, mj.config.connections)
  if not results then
    return nil, claimed
  end
  return settle(mj, results[1], claimed, unsure, start_by, resubmitted, seen, how)
end

return M
