--- A step of reconcile: what is queued is sent. It is loaded when something is.
local core = require "mjhook.core"
local intake = require "mjhook.flow" "submission.intake"
local submit = require "mjhook.submission.submit"

local M = {}

-- Jobs that SQL put into the database.
local function take_in(run)
  local made, refused = intake.take_in(run.mj, function()
    return run:time_left()
  end)
  if not made then
    run:trouble(refused)
  elseif refused > 0 then
    run:trouble(core.error("invalid", ("%d jobs that SQL enqueued were refused: the table intake has the reasons")
      :format(refused), false))
  end
end

-- Why an account rests until a person has mended something: what is said when this run met no refusal of its own.
local NEEDS_A_PERSON = {
  quota = "the provider says that the quota is used up",
  auth = "the provider refuses the API key",
  redirect = "base_url answers with a redirect, which is not followed",
  endpoint = "what base_url leads to refuses every request: is base_url right?",
  blocked = "something in front of the provider refuses us",
}

-- Said in each run, also in one that comes while the account rests and so meets no refusal of its own.
-- @tparam table met error code -> what the provider said in this run
local function tell_resting(run, met)
  local now = run.mj.exec:now()
  local stats = run.mj.exec:read("stats", now)
  for _, a in ipairs(stats and stats.tasks.queued > 0 and stats.accounts or {}) do
    local why = (a.paused_until or 0) > now and NEEDS_A_PERSON[a.reason]
    if why and a.reason == "auth" then
      run:trouble(core.error("auth", ("account %s: %s; nothing is sent under it, and what is queued waits: set the "
        .. "right api_key"):format(a.name, why), false))
    elseif why then
      run:trouble(core.error(a.reason, ("account %s: nothing is sent under it, and what is queued waits: %s"):format(
        a.name, met[a.reason] or why), false))
    end
  end
end

-- A job that was not sent, or got no usable answer. Jobs with the same reason are told of in one sentence.
local function note_unsent(reasons, task)
  local list = reasons[task.error.message]
  if not list then
    list = { n = 0, ref = task.ref, err = task.error }
    reasons[task.error.message] = list
    reasons[#reasons + 1] = list
  end
  list.n = list.n + 1
end

local function tell_unsent(run, reasons)
  for _, list in ipairs(reasons) do
    run.report.errors = run.report.errors + list.n - 1
    run:trouble(core.error(list.err.code, ("task %s%s: %s"):format(list.ref,
      list.n > 1 and (" and %d more"):format(list.n - 1) or "", list.err.message), list.err.retryable))
  end
end

-- What became of tasks that were tried, for the report.
local function sent(run, tasks, reasons, met)
  for _, task in ipairs(tasks) do
    run.report.requests = run.report.requests + task.requests
    if task.state == "pending" then
      run.report.submitted = run.report.submitted + 1
    elseif task.state == "failed" then -- the provider rejects it: the job's trouble, and its event's
      run.report.failed = run.report.failed + 1
    elseif task.requests > 0 and task.error and NEEDS_A_PERSON[task.error.code] then
      met[task.error.code] = task.error.message -- its account tells
    elseif task.requests > 0 and task.error and not run:is_backpressure(task.error) then
      note_unsent(reasons, task)
    end
  end
end

local function send_queued(run, reasons, met)
  local ok, err = submit.send_queued(run.mj, {
    begin_by = run.stop_at,
    more = function()
      return run:time_left()
    end,
    sent = function(tasks)
      sent(run, tasks, reasons, met)
      run:tell()
    end,
  })
  if not ok then
    error(err, 0)
  end
end

--- @tparam table run of mjhook.reconcile.reconcile
-- @tparam boolean takes_in whether the store has an intake
function M.send(run, takes_in)
  if takes_in then
    take_in(run)
  end
  local reasons, met = {}, {}
  local stats = run.mj.exec:read "stats"
  if not stats or stats.ready > 0 then
    send_queued(run, reasons, met)
  end
  tell_unsent(run, reasons)
  tell_resting(run, met)
end

return M
