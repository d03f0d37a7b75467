--- What a person would have to know of a store that works: judged from its counts and the first of its events. For
-- `mjhook doctor` and `mjhook stats`.
local lines = require "mjhook.setup.lines"
local text = require "mjhook.cli.text"

local M = {}

local MINUTE, HOUR = 60000, 3600000
-- Cron's longest sensible interval is an hour. A pass that comes later than that was missed.
local SWEEP_WARN_MS, SWEEP_FAIL_MS = HOUR + 5 * MINUTE, 25 * HOUR
local EVENTS_LATE_MS = SWEEP_WARN_MS
local PAGE = 100

local function finding(status, check, message, advice)
  return { status = status, check = "store." .. check, message = message, advice = advice }
end

-- Of the first waiting events: how many have failed at each try so far, the newest error, and how often the oldest one
-- was tried.
local function failing(store)
  local page = store.page and store:page { by = "event", limit = PAGE }
  local n, newest = 0, nil
  for _, event in ipairs(page or {}) do
    local last = event.errors and event.errors[#event.errors]
    if last and not event.buried then
      n = n + 1
      newest = (not newest or last.at > newest.at) and last or newest
    end
  end
  return n, newest
end

local function events(store, stats, has_policy, now, add)
  if stats.buried > 0 then
    add(finding("warn", "events", ("%d of %d stored events are buried (%.0f %%): the policy's handlers failed too "
      .. "often; their tasks are kept"):format(stats.buried, stats.buried + stats.events,
      100 * stats.buried / (stats.buried + stats.events)),
      "correct the handlers, then hand the events out again: `mjhook kick`"))
  else
    add(finding("ok", "events", ("%d waiting, none buried"):format(stats.events)))
  end
  if stats.events == 0 then
    return
  elseif not has_policy then
    return add(finding("warn", "policy", ("%s for a policy, and there is none: nothing handles results"):format(
      stats.events == 1 and "1 event waits" or ("%d events wait"):format(stats.events)),
      "set `policy`; a program that asks with get() needs none, and the events go when their tasks are pruned"))
  end
  local n, newest = failing(store)
  if n > 0 then
    add(finding("warn", "failing", ("%d of the first %s failed at each try so far, the last %s: %s"):format(n,
      text.count(math.min(stats.events, PAGE), "waiting event"), text.relative(newest.at, now), newest.message),
      "correct the handler; `mjhook events` shows each. After 20 tries they are buried"))
  end
  if stats.event_due and now - stats.event_due > EVENTS_LATE_MS then
    add(finding("warn", "late", ("the first of %s has been due for %s: nothing delivers them"):format(
      text.count(stats.events, "waiting event"), text.duration(now - stats.event_due)),
      "mjhook-reconcile delivers, as the store's owner; in nginx a thread_pool mjhook_deliver does"))
  end
end

local function advice(config)
  if not config.config_file then -- cron does not have the environment or the options of this program
    return "cron needs a configuration: `mjhook init` writes one, and prints the line for crontab"
  end
  return ("this line belongs into the crontab of the store's owner (crontab -e): %s; what does cron mail?"):format(
    lines.crontab(config.config_file))
end

local function sweep(stats, config, now, add)
  if type(stats.sweep) ~= "table" then
    return
  end
  local at = stats.sweep.last_at
  if not at then
    local open = stats.oldest_open and now - stats.oldest_open > SWEEP_WARN_MS
    return add(finding(open and "fail" or "warn", "sweep",
      "mjhook-reconcile never ran on this store: nothing is polled, queued jobs and events wait", advice(config)))
  end
  local age = now - at
  local words = ("mjhook-reconcile last ran %s"):format(text.relative(at, now))
  if age > SWEEP_WARN_MS then
    add(finding(age > SWEEP_FAIL_MS and "fail" or "warn", "sweep",
      words .. ": nothing is polled, queued jobs and events wait", advice(config)))
  else
    add(finding("ok", "sweep", words))
  end
end

--- @tparam userdata store open
-- @tparam table stats what store:stats(now) gave
-- @tparam table config as config.resolve() gives it: its own policy, not another one
-- @tparam number now ms
-- @treturn table list of {status= "ok"|"warn"|"fail", check=, message=, advice=}
function M.findings(store, stats, config, now)
  local list = {}
  local function add(one)
    list[#list + 1] = one
  end
  events(store, stats, config.policy ~= nil, now, add)
  sweep(stats, config, now, add)
  return list
end

return M
