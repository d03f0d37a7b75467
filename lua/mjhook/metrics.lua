--- What there is to watch, in Prometheus' text format. All of it is read in constant time.
local core = require "mjhook.core"
local text = require "mjhook.text"

local M = {}

-- Counters of the store, by metric: the label, and the label's value for each counter; false: there is no label.
-- (nil would be a hole, and what # gives for a list with a hole differs from Lua to Lua.)
local COUNTERS = {
  { "callbacks_total", "Callbacks with a good token, by what became of them", "outcome",
    { "stored", "callback_stored" }, { "duplicate", "callback_duplicate" }, { "stale", "callback_stale" },
    { "unknown", "callback_unknown" }, { "refused", "callback_refused" }, { "hint", "callback_hint" } },
  { "submissions_total", "Submissions, by how they ended", "outcome",
    { "accepted", "submit_accepted" }, { "refused", "submit_refused" }, { "rejected", "submit_rejected" },
    { "not_sent", "submit_not_sent" }, { "ambiguous", "submit_ambiguous" } },
  { "ended_total", "Tasks whose end the provider told, by how we learned of it", "source",
    { "callback", "ended_callback" }, { "poll", "ended_poll" } },
  { "polled_tasks_total", "Tasks that the provider was asked about", "result",
    { "answered", "poll_answered" }, { "unanswered", "poll_unanswered" } },
  { "poll_requests_total", "Status requests of sweeps", false, { false, "poll_requests" } },
  { "events_total", "Events, by what became of them", "outcome",
    { "delivered", "event_delivered" }, { "retried", "event_retried" }, { "buried", "event_buried" } },
  { "sweeps_total", "Passes of the reconciler", false, { false, "sweeps" } },
}

local Text = {}
Text.__index = Text

local function escape(value)
  return (text.clean(value):gsub('[\\"]', { ["\\"] = "\\\\", ['"'] = '\\"' }))
end

function Text:head(name, kind, help)
  self[#self + 1] = ("# HELP mjhook_%s %s.\n# TYPE mjhook_%s %s\n"):format(name, help, name, kind)
end

-- labels: pairs in a list, so that their order is always the same
function Text:sample(name, value, labels)
  local parts = {}
  for i = 1, #(labels or {}), 2 do
    parts[#parts + 1] = ('%s="%s"'):format(labels[i], escape(labels[i + 1]))
  end
  local written = ("%.3f"):format(value):gsub("[^%d-]+", "."):gsub("%.000$", "") -- some locales have a comma
  self[#self + 1] = ("mjhook_%s%s %s\n"):format(name, #parts > 0 and "{" .. table.concat(parts, ",") .. "}" or "",
    written)
end

function Text:gauge(name, help, value)
  self:head(name, "gauge", help)
  self:sample(name, value)
end

local function tasks(out, stats, now)
  out:head("tasks", "gauge", "Tasks in the store, by state")
  for _, state in ipairs(core.states) do
    out:sample("tasks", stats.tasks[state], { "state", state })
  end
  out:gauge("oldest_unresolved_seconds", "Age of the oldest task without an end; 0 when there is none",
    stats.oldest_open and math.max(0, now - stats.oldest_open) / 1000 or 0)
end

local ACCOUNT = {
  { "slots_held", "Slots that are taken, by account", function(a) return a.held end },
  { "slots_max", "Slots that there are now, by account", function(a) return a.learned or a.max_in_flight end },
  { "account_paused", "1 while nothing is sent under the account",
    function(a, now) return a.paused_until and a.paused_until > now and 1 or 0 end },
}

local function accounts(out, stats, now)
  for _, metric in ipairs(ACCOUNT) do
    out:head(metric[1], "gauge", metric[2])
    for _, a in ipairs(stats.accounts) do
      out:sample(metric[1], metric[3](a, now), { "account", a.name })
    end
  end
end

local function counters(out, stats)
  for _, metric in ipairs(COUNTERS) do
    out:head(metric[1], "counter", metric[2])
    for i = 4, #metric do
      out:sample(metric[1], stats.counts[metric[i][2]], metric[3] and { metric[3], metric[i][1] })
    end
  end
end

local function webhook(out, stats)
  local seen = stats.webhook
  out:gauge("callback_missing_ratio", "Share of the tasks that ended in this hour and the last without a callback",
    seen.ended > 0 and (seen.ended - seen.called) / seen.ended or 0)
  out:gauge("webhook_broken", "1 while callbacks are held not to come", seen.broken_since and 1 or 0)
  out:head("first_poll_seconds", "gauge", "How long a callback is waited for before the first poll, by mode")
  for _, mode in ipairs { "fast", "relaxed" } do
    out:sample("first_poll_seconds", stats.first_poll_ms[mode] / 1000, { "mode", mode })
  end
end

local function latency(out, stats)
  out:head("task_duration_seconds", "histogram", "From submission to the provider's last word")
  for _, mode in ipairs { "fast", "relaxed" } do
    local h, seen = stats.latency[mode], 0
    for i, n in ipairs(h) do
      seen = seen + n
      out:sample("task_duration_seconds_bucket", seen, { "mode", mode, "le", core.latency_bounds[i] or "+Inf" })
    end
    out:sample("task_duration_seconds_sum", h.sum_ms / 1000, { "mode", mode })
    out:sample("task_duration_seconds_count", seen, { "mode", mode })
  end
end

local function outbox(out, stats, now)
  out:gauge("events_waiting", "Events that wait to be delivered", stats.events)
  out:gauge("events_buried", "Events that were given up", stats.buried)
  out:gauge("events_overdue_seconds", "How long the first event in the outbox has been due; 0 when none is",
    stats.event_due and math.max(0, now - stats.event_due) / 1000 or 0)
end

local function sweeps(out, stats, now)
  local sweep = stats.sweep
  if sweep.last_at then
    out:gauge("last_sweep_timestamp_seconds", "End of the last pass of the reconciler", sweep.last_at / 1000)
    out:gauge("last_sweep_age_seconds", "Since the end of the last pass", math.max(0, now - sweep.last_at) / 1000)
    out:gauge("last_sweep_duration_seconds", "Length of the last pass", sweep.elapsed_ms / 1000)
  end
  out:gauge("store_bytes", "Bytes of the store's file that are in use", stats.bytes_used)
end

--- @tparam table mj
-- @tparam[opt] table extra more gauges or counters: a list of {name, kind, help, value}
-- @treturn string|nil the text, or nil and an error
function M.text(mj, extra)
  local stats, err = mj:stats()
  if not stats then
    return nil, err
  end
  local out, now = setmetatable({}, Text), mj.exec:now()
  tasks(out, stats, now)
  accounts(out, stats, now)
  counters(out, stats)
  webhook(out, stats)
  latency(out, stats)
  outbox(out, stats, now)
  sweeps(out, stats, now)
  for _, metric in ipairs(extra or {}) do
    out:head(metric[1], metric[2], metric[3])
    out:sample(metric[1], metric[4])
  end
  return table.concat(out)
end

return M
