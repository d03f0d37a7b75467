--- The same action on everything that a filter picks: in pages, a transaction for each.
--
-- Tasks that are stored after the beginning are not picked: what was counted before is what is acted on, but for tasks
-- whose state has changed meanwhile. These are skipped.
local job = require "mjhook.submission.job"
local listing = require "mjhook.listing"
local poll = require "mjhook.reconcile.poll"
local submit = require "mjhook.submission.submit"

local M = {}

local PAGE = 100
local ERRORS_KEPT = 20

-- Outcomes that say that the task or event has gone on by itself, or is what it is to become.
local SKIPPED = { state = true, stale = true, not_found = true, duplicate = true, changed = true }

-- ---- what is done with a page ----

local function count(report, items, results, name)
  for i, item in ipairs(items) do
    local code = results[i].code
    if code == "ok" then
      report.done = report.done + 1
    elseif SKIPPED[code] then
      report.skipped = report.skipped + 1
    else
      report.failed = report.failed + 1
      if #report.errors < ERRORS_KEPT then
        report.errors[#report.errors + 1] = { [name] = item.event_id or item.ref, code = code,
          message = ("%s %s: %s"):format(item.event_id and "event" or "task", item.event_id or item.ref, code) }
      end
    end
  end
end

-- A page of operations in one transaction. nil and an error when nothing was stored.
local function commit(make, name)
  return function(mj, items, report, options)
    local ops = {}
    for i, item in ipairs(items) do
      ops[i] = make(item, options)
    end
    local results, err = mj.exec:commit(ops)
    if not results then
      return nil, err
    end
    count(report, items, results, name)
    return true
  end
end

local function askable(items)
  local tasks, rest = {}, 0
  for _, task in ipairs(items) do
    local has_id = poll.is_askable(task)
    tasks[#tasks + 1] = has_id and task or nil
    rest = rest + (has_id and 0 or 1)
  end
  return tasks, rest
end

local function refresh(mj, items, report)
  local tasks, skipped = askable(items)
  report.skipped = report.skipped + skipped
  if #tasks == 0 then
    return true
  end
  local asked, err = poll.poll(mj, tasks)
  if not asked then
    return nil, err
  end
  for i = 1, math.min(#asked.errors, ERRORS_KEPT - #report.errors) do
    report.errors[#report.errors + 1] = { code = asked.errors[i].code, message = asked.errors[i].message }
  end
  report.failed, report.done = report.failed + asked.missed, report.done + #tasks - asked.missed
  return true
end

-- What is queued again is sent as far as slots last; the rest is sent like all that is queued.
local function dispatch(mj, report)
  if report.done > 0 and not mj.stopping() then
    local sent, err = submit.dispatch(mj)
    report.sent = sent or 0
    if not sent then
      report.errors[#report.errors + 1] = { code = err.code, message = err.message }
    end
  end
end

--- By name:
--   of        "tasks" or "events"
--   states    of tasks: those in which the action means something
--   default   of tasks: those it is done to, where the filter names none
--   only      of events: what a filter is completed with, unless it says
--   before    what has to be well before anything is done
--   run       does it to a page
--   after     is called at the end
M.ACTIONS = {
  cancel = {
    of = "tasks", states = { "queued", "submitting", "ambiguous", "pending" },
    run = commit(function(task)
      return { op = "signal", ref = task.ref, kind = "cancel", source = "user" }
    end, "ref"),
  },
  resubmit = {
    of = "tasks", states = { "ambiguous", "lost", "failed" }, before = job.sendable, after = dispatch,
    run = commit(function(task) -- the attempt that was seen, so that two calls at a time make one attempt of it
      return { op = "signal", ref = task.ref, attempt = task.attempt, kind = "resubmit", source = "user" }
    end, "ref"),
  },
  refresh = {
    of = "tasks", states = listing.STATES, default = { "submitting", "ambiguous", "pending", "lost" }, run = refresh,
  },
  replay = {
    of = "tasks", states = { "ambiguous", "succeeded", "failed", "lost" }, default = { "succeeded", "failed", "lost" },
    run = commit(function(task)
      return { op = "kick", ref = task.ref, seq = 0 }
    end, "ref"),
  },
  kick = {
    of = "events", only = { buried = true },
    run = commit(function(event)
      return { op = "kick", ref = event.ref, seq = event.seq }
    end, "event_id"),
  },
  bury = {
    of = "events", only = { waiting = true },
    run = commit(function(event, options)
      return { op = "bury", ref = event.ref, seq = event.seq, error = options.reason or "given up by hand" }
    end, "event_id"),
  },
}

-- ---- which ----

--- The states that an action is done to: those that the filter names, as far as the action means something there.
-- @treturn table list, which may be empty
function M.states(action, filter)
  local how = M.ACTIONS[action]
  if filter.state == nil then
    return how.default or how.states
  end
  local states = {}
  for _, state in ipairs(type(filter.state) == "table" and filter.state or { filter.state }) do
    for _, possible in ipairs(how.states) do
      states[#states + 1] = state == possible and state or nil
    end
  end
  return states
end

local function narrowed(mj, action, filter)
  local how, copy = M.ACTIONS[action], {}
  for k, v in pairs(filter) do
    copy[k] = v
  end
  copy["until"] = math.min(filter["until"] or math.huge, mj.exec:now())
  if how.of == "tasks" then
    copy.state = M.states(action, filter)
  elseif filter.buried == nil and filter.waiting == nil and filter.failed == nil then
    for k, v in pairs(how.only) do
      copy[k] = v
    end
  end
  return copy
end

-- Iterates over what is picked: a state after the other, so that a report can tell them apart.
local function each(mj, action, filter)
  if M.ACTIONS[action].of == "events" then
    local events = listing.events(mj, filter)
    return function()
      local event = events()
      return event, event and event.type
    end
  end
  local states, at, tasks, one = filter.state, 0, nil, {}
  for k, v in pairs(filter) do
    one[k] = v
  end
  return function()
    while true do
      local task = tasks and tasks()
      if task then
        return task, states[at]
      end
      at = at + 1
      if not states[at] then
        return nil
      end
      one.state = states[at]
      tasks = listing.each(mj, one, { brief = action ~= "refresh" or not mj.policy:decides "next_poll" })
    end
  end
end

-- ---- the whole ----

local function run_page(mj, how, page, report, options)
  if #page == 0 or report.dry_run then
    return true
  end
  return how.run(mj, page, report, options)
end

--- mj:bulk.
-- @treturn table|nil report; nil and an error when nothing was done
function M.bulk(mj, action, filter, options)
  local how = M.ACTIONS[action]
  local report = { action = action, dry_run = options.dry_run or false, matched = 0, done = 0, skipped = 0, failed = 0,
                   by = {}, errors = {} }
  if how.before and not report.dry_run then
    local ok, err = how.before(mj)
    if not ok then
      return nil, err
    end
  end
  local progress, left = options.progress or function() end, filter.limit or math.huge
  local next_of, page, failed = each(mj, action, narrowed(mj, action, filter)), {}, nil
  while true do
    local item, kind
    if left > 0 then
      item, kind = next_of()
    end
    if item then
      left = left - 1
      report.matched, report.by[kind] = report.matched + 1, (report.by[kind] or 0) + 1
      page[#page + 1] = item
    end
    if not item or #page == PAGE then
      local ok, err = run_page(mj, how, page, report, options)
      if ok then
        progress(report)
      end
      if not ok or not item then
        failed = not ok and err
        break
      elseif mj.stopping() then
        report.stopped = true
        break
      end
      page = {}
    end
  end
  if failed then -- what was done is done: its report says so
    report.failed = report.failed + #page
    report.errors[#report.errors + 1] = { code = failed.code, message = failed.message }
    report.stopped = true
  end
  if how.after and not report.dry_run then
    how.after(mj, report)
  end
  return report
end

return M
