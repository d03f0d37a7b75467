--- Submission: the intent is durable before a byte leaves, and nothing leaves twice.
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local memory = require "mjhook.memory"
local provider = require "mjhook.provider"
local view = require("mjhook.view").view

local M = {}

--- A sender that stalled longer than this between intent and request does not send (milliseconds).
M.STALL_MS = 60000

-- What is claimed has to leave at once: a crash between claim and send makes tasks ambiguous. So
-- there are as many to a lot as connections, and more when the provider took all of the last batch: as many as would be
-- gone within BATCH_MS at its pace, so that a fast one does not wait for the disk all the time.
M.BATCH_MS, M.BATCH_MAX = 100, 256

-- How long an account rests after a refusal (milliseconds); PRODUCT.md and PROVIDER.md name the first three.
local PAUSE = {
  quota = 900000,       -- 1001: no account is topped up within seconds
  concurrency = 10000,  -- 1002 though our ledger has room: the key is shared with others
  rate_limit = 30000,   -- 429 without a Retry-After
  auth = 60000,         -- a wrong key: asked again once in a while, so that a corrected one is noticed
  redirect = 60000,
  endpoint = 60000,     -- a wrong base_url, or a deployment in progress
  blocked = 60000,
  not_sent = 5000,      -- unreachable: the next ones would fare no better
}

-- What the policy makes of a definite refusal; nothing: the default sorting.
local function decide_refused(mj, task, verdict)
  if not mj.policy:decides "on_refused" then
    return
  end
  local err = core.error(verdict.error_code, verdict.error, verdict.kind == "refused")
  local what, ms = mj.policy:decide("on_refused", task, err)
  if what == "fail" then
    verdict.kind = "rejected"
  elseif what == "retry" then
    verdict.kind, verdict.wait_ms = "refused", ms
  end
end

local function pause_ms(verdict)
  local ms, asked = PAUSE[verdict.error_code], verdict.retry_after
  if ms and asked then
    asked = math.min(math.max(asked, 1), 3600) * 1000
    ms = verdict.error_code == "rate_limit" and asked or math.max(ms, asked)
  end
  return ms
end

-- Accounts whose rest after a refusal is over. Whether that helped is for one job to find out, not for all of them.
local function rested(mj)
  local names, now = {}, mj.exec:now()
  local stats = mj.exec:read("stats", now)
  for _, a in ipairs(stats and stats.accounts or {}) do
    names[a.name] = a.paused_until and a.paused_until <= now
  end
  return names
end

-- Made while there is memory.
local NONE = {}
local UNSENT = { kind = "not_sent", held_back = true, error_code = "no_memory", error = "out of memory" }
local UNREAD = { kind = "maybe_sent", error_code = "maybe_sent", error = "out of memory for the answer" }

local function read_answer(answer, failed)
  if not answer and memory.is_out(failed) then
    return UNSENT
  end
  return provider.read_submit(answer or { outcome = "not_sent", error = failed.message })
end

-- Sends the tasks with these places in the list, side by side, and notes what the provider says of each. When it
-- raises for want of memory, those without a verdict were not sent.
local function ask(mj, tasks, places, verdicts, start_by, deadline)
  local requests = {}
  for n, i in ipairs(places) do
    requests[n] = provider.submit_request(mj, tasks[i], start_by)
  end
  for _, i in ipairs(places) do
    verdicts[i] = UNREAD -- now: once something is sent, no memory may be left for it
  end
  local ok, answers, failed = pcall(mj.exec.http, mj.exec, requests, deadline)
  if not ok then
    for _, i in ipairs(memory.is_out(answers) and places or NONE) do
      verdicts[i] = false
    end
    error(answers, 0)
  end
  for n, i in ipairs(places) do
    verdicts[i] = memory.insist(read_answer, answers and answers[n], failed)
  end
end

-- Sends tasks, of an account that has rested one first: the others only if the provider took that one or found fault
-- with the job alone. Fills in a verdict for each, and gives operations that end the rest of accounts.
local function ask_all(mj, tasks, verdicts, start_by, deadline)
  local places, probes, waiting, ops = {}, {}, {}, {}
  local names = rested(mj)
  for i, task in ipairs(tasks) do
    if probes[task.account] then
      waiting[#waiting + 1] = i
    else
      places[#places + 1] = i
      probes[task.account] = names[task.account] and i or nil
    end
  end
  ask(mj, tasks, places, verdicts, start_by, deadline)
  for account, i in pairs(probes) do
    if verdicts[i].kind == "accepted" or verdicts[i].kind == "rejected" then
      ops[#ops + 1] = { op = "pause", account = account, ["until"] = 0 }
      probes[account] = nil
    end
  end
  local go = {}
  for _, i in ipairs(waiting) do
    local probe = verdicts[probes[tasks[i].account]]
    if probe then
      verdicts[i] = { kind = "not_sent", held_back = true, wait_ms = 0, error_code = probe.error_code,
                      error = probe.error }
    else
      go[#go + 1] = i
    end
  end
  if #go > 0 then
    ask(mj, tasks, go, verdicts, start_by, deadline)
  end
  return ops
end

-- Asks, also when memory runs out: what could not be sent then is handed back.
local function fill(verdicts, mj, tasks, start_by, deadline)
  local ok, lifted = pcall(ask_all, mj, tasks, verdicts, start_by, deadline)
  if ok then
    return lifted
  elseif not memory.is_out(lifted) then
    error(lifted, 0)
  end
  for i in ipairs(tasks) do
    verdicts[i] = verdicts[i] or UNSENT
  end
  pcall(mj.log, "error", "jobs could not be sent, and wait again: out of memory")
  return NONE
end

-- What a batch came to: a signal for each task, and how long accounts rest.
local function outcome(mj, tasks, verdicts)
  local ops, pauses, all_accepted = {}, {}, true
  for i, task in ipairs(tasks) do
    local verdict = verdicts[i]
    if verdict.kind == "refused" or verdict.kind == "rejected" then
      decide_refused(mj, task, verdict)
    end
    if verdict.kind == "refused" or (verdict.kind == "not_sent" and not verdict.held_back) then
      local ms = pause_ms(verdict)
      if ms then
        pauses[#pauses + 1] = { op = "pause", account = task.account, ["until"] = mj.exec:now() + ms,
                                error_code = verdict.error_code }
        -- The account's rest is the wait; a task that was not sent or may be the cause has its own, too.
        local rest_only = verdict.kind == "refused" and not verdict.job_waits
        verdict.wait_ms = verdict.wait_ms or (rest_only and 0 or nil)
      end
    end
    ops[i] = {
      op = "signal", ref = task.ref, attempt = task.attempt, kind = verdict.kind, source = "submit",
      task_id = verdict.task_id, error_code = verdict.error_code, error = verdict.error,
      wait_ms = verdict.wait_ms, want = true,
    }
    all_accepted = all_accepted and verdict.kind == "accepted"
  end
  return ops, pauses, all_accepted
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
end

-- Tasks that were claimed and will not be sent: not by this call, says their verdict, if there is one. Without memory
-- even for that they stay `submitting` and a sweep takes them over.
local function hand_back(mj, tasks, verdicts)
  local ops = {}
  for i, task in ipairs(tasks) do
    if not verdicts[i] or verdicts[i].kind == "not_sent" then
      ops[#ops + 1] = { op = "signal", ref = task.ref, attempt = task.attempt, kind = "not_sent", source = "submit",
                        error_code = UNSENT.error_code, error = UNSENT.error }
    end
  end
  return #ops == 0 or mj.exec:commit(ops)
end

-- What the store has of the tasks now, in place of what was claimed.
local function look_at(tasks, results, verdicts)
  for i, task in ipairs(tasks) do
    tasks[i] = memory.insist(view, results[i].task) or task
    tasks[i].requests = verdicts[i].held_back and 0 or 1
  end
end

local function no_verdicts(tasks)
  local verdicts = {}
  for i in ipairs(tasks) do
    verdicts[i] = false
  end
  return verdicts
end

local function send(mj, tasks, verdicts, start_by, deadline, more)
  local begun = core.clock()
  local lifted = fill(verdicts, mj, tasks, start_by, deadline)
  local elapsed = core.clock() - begun
  local ops, pauses, all_accepted = memory.insist(outcome, mj, tasks, verdicts)
  append(ops, lifted)
  append(ops, pauses)
  start_by = core.clock() + M.STALL_MS
  more = more and not mj.stopping()
  local claims = more and mj.config.connections or 0
  if more and all_accepted then
    local at_its_pace = math.floor(#tasks * M.BATCH_MS / math.max(elapsed, 1))
    claims = math.max(claims, math.min(at_its_pace, 2 * #tasks, M.BATCH_MAX))
  end
  local out = {}
  for i, task in ipairs(tasks) do
    out[i] = task
  end
  local results, claimed = M.claim(mj, ops, claims)
  if not results then
    return nil, claimed
  end
  local ok, err = pcall(look_at, out, results, verdicts)
  if not ok then
    pcall(hand_back, mj, claimed, NONE)
    return nil, memory.error(err)
  end
  return out, claimed, start_by
end

--- Sends claimed tasks, side by side, and stores what became of each.
-- @tparam table tasks claimed ones (`submitting`, ours)
-- @tparam number start_by core.clock() after which nothing is sent
-- @tparam[opt] number deadline core.clock() at which waiting ends
-- @tparam[opt=false] boolean more whether to claim the next batch in the transaction that stores the outcome
-- @treturn table|nil their records afterwards, in the same order; nil and an error when the store failed: the
-- tasks stay `submitting` until a sweep takes them over as `ambiguous`
-- @treturn[opt] table what was claimed; then the core.clock() after which none of it is to be sent
function M.send(mj, tasks, start_by, deadline, more)
  local ready, verdicts = pcall(memory.insist, no_verdicts, tasks)
  local ok, sent, claimed, next_start_by = ready, verdicts, nil, nil
  if ready then
    ok, sent, claimed, next_start_by = pcall(send, mj, tasks, verdicts, start_by, deadline, more)
  end
  if ok then
    return sent, claimed, next_start_by
  elseif not memory.is_out(sent) then
    error(sent, 0)
  end
  pcall(hand_back, mj, tasks, ready and verdicts or NONE)
  return nil, memory.OUT
end

local function claimed_of(results, first)
  local claimed = {}
  for i = first + 1, #results do
    if results[i].code == "ok" then
      claimed[#claimed + 1] = results[i].task
    end
  end
  return claimed
end

local function view_all(tasks)
  for _, task in ipairs(tasks) do
    memory.insist(view, task)
  end
end

--- Claims as many queued tasks as slots and connections allow, in the queue's order.
-- @tparam table ops operations to commit in the same transaction, before the claims
-- @treturn table|nil results of all operations; then the claimed tasks; nil and an error
-- @treturn[opt] boolean true: memory ran out, and tasks may be claimed that nothing is known of
function M.claim(mj, ops, limit)
  local first = #ops
  for _ = 1, limit do
    ops[#ops + 1] = { op = "claim", source = "submit", want = true }
  end
  local results, err = mj.exec:commit(ops)
  if not results then
    return nil, err
  end
  -- What is claimed is sent or handed back, and the caller hears the results: nothing raises from here on.
  local ok, claimed = pcall(memory.insist, claimed_of, results, first)
  if not ok then
    return results, NONE, true
  end
  if not pcall(view_all, claimed) then
    local back
    ok, back = pcall(hand_back, mj, claimed, NONE)
    return results, NONE, not (ok and back)
  end
  return results, claimed
end

-- Sends what a commit claimed, also another caller's task: what is claimed and not sent would be ambiguous one day.
-- Gives the task as it is afterwards; nil and an error when that could not be stored.
local function send_claimed(mj, claimed, start_by, task)
  if #claimed == 0 then
    return task
  end
  local sent, err = M.send(mj, claimed, start_by)
  if not sent then
    return nil, M.untold(task, err)
  end
  for _, t in ipairs(sent) do
    if task and t.ref == task.ref then
      t.duplicate, t.requests = task.duplicate, nil
      return t
    end
  end
  return task
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
local function settle(mj, result, claimed, unsure, start_by, read, seen)
  local ok, task, refused = pcall(read, result, seen)
  local sent, settled, untold = pcall(send_claimed, mj, claimed, start_by, ok and task or nil)
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
  local start_by = core.clock() + M.STALL_MS
  -- The task that has waited longest goes first, also when this call found the free slot.
  local results, claimed, unsure = M.claim(mj, { { op = "create", task = new, source = "user", want = true } },
    mj.config.connections)
  if not results then
    return nil, claimed
  end
  return settle(mj, results[1], claimed, unsure, start_by, job.created, args)
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

-- Whether one of the tasks is in the set `tried`, which all of them join.
local function was_there(tried, tasks)
  local again = false
  for _, task in ipairs(tasks) do
    again = again or tried[task.ref] or false
    tried[task.ref] = true
  end
  return again
end

--- Sends what was claimed, and what can be claimed with each outcome, batch by batch, until nothing is left to claim.
-- A policy may have a refused task sent again at once, and again: once one is back, no more is claimed.
-- @tparam table claimed tasks
-- @tparam number start_by core.clock() after which nothing of them is sent
-- @tparam table how sent(tasks): gets each batch as it is afterwards; claimed(tasks), if given: gets it before that;
-- more(), if given: whether to go on claiming; deadline, if given: core.clock() at which waiting ends
-- @treturn boolean|nil true; nil and an error when the store failed
function M.send_all(mj, claimed, start_by, how)
  local tried, again = {}, false
  while #claimed > 0 do
    local ok, back = pcall(was_there, tried, claimed)
    again = again or not ok or back
    if how.claimed then
      how.claimed(claimed)
    end
    local more = not again and (not how.more or how.more())
    local sent, next_claimed, next_start_by = M.send(mj, claimed, start_by, how.deadline, more)
    if not sent then
      return nil, next_claimed
    end
    how.sent(sent)
    claimed, start_by = next_claimed, math.min(next_start_by, how.deadline or math.huge)
  end
  return true
end

--- Claims and sends what is queued, until no slot is free or nothing is queued. See send_all().
-- @treturn boolean|nil true; nil and an error when the store failed
function M.send_queued(mj, how)
  local start_by = math.min(core.clock() + M.STALL_MS, how.deadline or math.huge)
  local results, claimed = M.claim(mj, {}, mj.config.connections)
  if not results then
    return nil, claimed
  end
  return M.send_all(mj, claimed, start_by, how)
end

--- The same for a worker of nginx, which reports nothing but their number.
-- @treturn number|nil how many were sent; nil and an error
function M.dispatch(mj)
  local count = 0
  local ok, err = M.send_queued(mj, { sent = function(tasks)
    count = count + #tasks
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
  local start_by = core.clock() + M.STALL_MS
  -- The attempt that was seen: two callers that resubmit the same failure at a time make one attempt.
  local results, claimed, unsure = M.claim(mj, { {
    op = "signal", ref = ref, attempt = seen.attempt, kind = "resubmit", source = "user", want = true,
  } }, mj.config.connections)
  if not results then
    return nil, claimed
  end
  return settle(mj, results[1], claimed, unsure, start_by, resubmitted, seen)
end

return M
