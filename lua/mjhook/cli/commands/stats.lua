-- mjhook stats
local config = require "mjhook.config"
local fail = require "mjhook.cli.fail"
local health = require "mjhook.doctor.health"
local json = require "mjhook.cli.json"
local text = require "mjhook.cli.text"

local FOR_EVER = 2 ^ 52 -- ms: a rest without an end ends later

local function account(out, a)
  local words = ("%d of %d slots held"):format(a.held, a.max_in_flight)
  if a.paused_until and a.paused_until > FOR_EVER then
    words = words .. ", rests until `mjhook resume`"
  elseif a.paused_until and a.paused_until > out.now then
    words = ("%s, rests for %s more (%s)"):format(words, text.duration(a.paused_until - out.now), a.reason or "?")
  end
  if a.learned then
    words = ("%s, at most %d now: the provider said 1002 while there was room, so others use the key, too")
      :format(words, a.learned)
  end
  out:field(a.name, words)
end

local function write(out, stats, store)
  out:heading "Tasks"
  local total = 0
  for _, state in ipairs(require("mjhook.core").states) do
    local n = stats.tasks[state]
    total = total + n
    out:line("  ", n > 0 and out:state(state, 12) or text.pad(state, 12), ("%8d"):format(n))
  end
  out:line("  ", text.pad("all", 12), ("%8d"):format(total))
  out:heading "Events"
  out:line("  ", text.pad("waiting", 12), ("%8d"):format(stats.events))
  out:line("  ", out:paint(stats.buried > 0 and "red" or nil, text.pad("buried", 12)), ("%8d"):format(stats.buried))
  if stats.accounts[1] then
    out:heading "Accounts"
    for _, a in ipairs(stats.accounts) do
      account(out, a)
    end
  end
  out:heading "Callbacks"
  local seen = stats.webhook
  out:field("this hour", seen.ended == 0 and "no task ended in this hour and the last"
    or ("%d of %d tasks that ended in this hour and the last had one"):format(seen.called, seen.ended))
  if seen.broken_since then
    out:field("broken", ("since %s: results are learned of by polling; see `mjhook doctor`")
      :format(text.relative(seen.broken_since, out.now)), "red")
  end
  out:field("first poll", ("after %s in fast mode, %s in relaxed"):format(text.duration(stats.first_poll_ms.fast),
    text.duration(stats.first_poll_ms.relaxed)))
  out:heading "Reconciler"
  out:field("last sweep", stats.sweep.last_at and ("%s, took %s"):format(text.relative(stats.sweep.last_at, out.now),
    text.duration(stats.sweep.elapsed_ms)) or "never", not stats.sweep.last_at and "yellow" or nil)
  out:heading "Store"
  out:field(stats.bytes_mapped > 0 and "directory" or "database", store)
  out:field("in use", text.bytes(stats.bytes_used) ..
    (stats.bytes_mapped > 0 and (" of %s mapped"):format(text.bytes(stats.bytes_mapped)) or ""))
end

-- What a person would have to know, by the configuration's own policy: this command was given another one.
local function attention(mj, values, stats, now)
  local settings = config.resolve { config = values.config, store = values.store } or mj.config
  local list = {}
  for _, one in ipairs(health.findings(mj.store, stats, settings, now)) do
    if one.status ~= "ok" then
      list[#list + 1] = one
    end
  end
  return list
end

local function write_attention(out, list)
  if #list > 0 then
    out:heading "Needs attention"
  end
  for _, one in ipairs(list) do
    out:line("  ", out:paint(one.status == "fail" and "red" or "yellow", one.message))
    out:line("    -> ", one.advice)
  end
end

return {
  name = "stats",
  arguments = "",
  summary = "count tasks, events, slots and bytes",
  example = "mjhook stats",
  least = 0, most = 0,
  too_many = "stats takes no arguments",
  options = {},
  details = "What needs a person's attention comes last; `mjhook doctor` looks at everything else, too.",
  run = function(mj, values, _, out)
    local stats, err = mj:stats()
    if not stats then
      fail.with(err)
    end
    local needed = attention(mj, values, stats, out.now)
    if out.json then
      stats.attention = json.array(needed)
      stats.store = mj.config.store
      stats.accounts = json.array(stats.accounts)
      out:value(stats)
    else
      write(out, stats, mj.config.store)
      write_attention(out, needed)
    end
  end,
}
