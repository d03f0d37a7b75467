--- A command that acts on the ids it is given, or on everything that its filter picks.
local bulk = require "mjhook.bulk"
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local filters = require "mjhook.cli.filters"
local land = require "mjhook.cli.land"
local text = require "mjhook.cli.text"

local M = {}

-- action -> what was done, what would be, and the question's warning
local WORDS = {
  cancel = { done = "cancelled" },
  resubmit = { done = "resubmitted",
    warning = "resubmitting may be billed twice: an ambiguous task may have arrived, and a lost one may still run" },
  refresh = { done = "refreshed" },
  replay = { done = "replayed" },
  kick = { done = "kicked" },
  bury = { done = "buried" },
}

local function noun(action)
  return bulk.ACTIONS[action].of == "events" and "event" or "task"
end

-- "3 tasks (2 failed, 1 lost)"
local function number(report)
  local parts, kinds = {}, {}
  for kind in pairs(report.by) do
    kinds[#kinds + 1] = kind
  end
  table.sort(kinds)
  for i, kind in ipairs(kinds) do
    parts[i] = ("%d %s"):format(report.by[kind], kind)
  end
  local counted = text.count(report.matched, noun(report.action))
  return #parts > 0 and ("%s (%s)"):format(counted, table.concat(parts, ", ")) or counted
end

-- Asks a person; ends the command where there is none, or the answer is not yes.
local function confirm(report)
  local action = report.action
  if not (core.isatty(0) and core.isatty(2)) then
    fail.stop(fail.USAGE, ("%s: %s; without a terminal to ask on, --yes confirms it, and --dry-run only counts"):
      format(action, number(report)), action)
  end
  io.stderr:write(("%s %s? [y/N] "):format(action, number(report)))
  local answer = (io.read() or ""):lower()
  if answer ~= "y" and answer ~= "yes" then
    fail.stop(fail.FAILED, "nothing was done")
  end
end

local function progress_of(total, out)
  if not core.isatty(2) or out.json then
    return nil
  end
  return function(report)
    io.stderr:write(("\r%d of %d"):format(report.done + report.skipped + report.failed, total))
    if report.done + report.skipped + report.failed >= total then
      io.stderr:write "\r\27[K"
    end
  end
end

local function tell(report, out)
  if out.json then
    return out:value(report)
  end
  local parts = { ("%s %s"):format(WORDS[report.action].done, text.count(report.done, noun(report.action))) }
  if report.sent then
    parts[#parts + 1] = ("%d sent, the others wait for a slot"):format(report.sent)
  end
  if report.skipped > 0 then
    parts[#parts + 1] = ("%d skipped: they had changed, or it means nothing to them"):format(report.skipped)
  end
  if report.failed > 0 then
    parts[#parts + 1] = ("%d failed"):format(report.failed)
  end
  out:line(table.concat(parts, "; "))
  for _, err in ipairs(report.errors) do
    out:note(err.message)
  end
end

--- Where a filter names states in which the action means nothing, no task can be picked.
local function check_states(action, filter)
  local how = bulk.ACTIONS[action]
  if how.of == "tasks" and #bulk.states(action, filter) == 0 then
    fail.stop(fail.USAGE, ("%s: it means nothing to these states; possible are %s"):format(action,
      table.concat(how.states, ", ")), action)
  end
end

--- The check() of such a command: ids, a filter or --all, and no two of them.
function M.check(action)
  return function(given, arguments)
    local filter, says = filters.filter(given)
    if #arguments > 0 and (says or given.all or given["dry-run"] or given.limit) then
      fail.stop(fail.USAGE, ("%s: either ids or a filter expected"):format(action), action)
    elseif #arguments == 0 and not says and not given.all and not given.failing then
      fail.stop(fail.USAGE, ("%s: %s... expected, or a filter such as --state and --user, or --all"):format(action,
        noun(action) == "event" and "EVENT" or "REF"), action)
    end
    check_states(action, filter)
  end
end

local function act(mj, action, filter, how)
  local run = action == "resubmit" and land or mj.land -- it sends
  local ok, report, err = pcall(run, mj, mj.bulk, mj, action, filter, how)
  if not ok then
    fail.with(type(report) == "table" and report or { code = "internal", message = tostring(report) })
  elseif not report then
    fail.with(err)
  end
  return report
end

--- Counts, asks, acts and reports.
-- @tparam table more fields of the filter that are no options; `sure` (true: it needs no confirmation)
-- @treturn number exit code
function M.run(mj, given, out, action, more)
  more = more or {}
  local filter = filters.filter(given)
  for k, v in pairs(more.filter or {}) do
    filter[k] = v
  end
  filter.limit, filter["until"] = given.limit, math.min(filter["until"] or math.huge, mj.exec:now())
  local report = act(mj, action, filter, { dry_run = true })
  if report.matched > 0 and WORDS[action].warning and not out.json then
    out:note(WORDS[action].warning)
  end
  if report.matched == 0 or given["dry-run"] then
    if out.json then
      out:value(report)
    elseif report.matched == 0 then
      out:note(more.none or ("there is no such %s to %s"):format(noun(action), action))
    else
      out:line(("would %s %s"):format(action, number(report)))
    end
    return fail.DONE
  end
  if not given.yes and not more.sure then
    confirm(report)
  end
  report = act(mj, action, filter, { progress = progress_of(report.matched, out), reason = given.reason })
  tell(report, out)
  if core.signalled() then
    out.finish()
    fail.interrupted(core.signalled(), "what is queued waits, and the rest is as it was")
  end
  return (report.failed > 0 or report.stopped) and fail.FAILED or fail.DONE
end

return M
