-- The demo's report: `line` (a reconciler's report from stdin), `done DIR`, `stories DIR JOBS`.
local json = require "mjhook.json"
local mjhook = require "mjhook"

local FINAL = { succeeded = true, failed = true, lost = true, cancelled = true }
local what, dir, jobs = arg[1], arg[2], tonumber(arg[3])

local function read(path)
  local file = io.open(path)
  local text = file and file:read "a" or ""
  if file then
    file:close()
  end
  return text
end

local function line()
  local report = assert(json.decode(io.read "a"))
  print(("polled %2d  succeeded %2d  submitted %2d  delivered %2d  left: pending %2d queued %2d   %d ms"):format(
    report.polled, report.succeeded, report.submitted, report.delivered, report.pending, report.queued,
    report.elapsed_ms))
end

local function is_done(mj)
  local stats = assert(mj:stats())
  local open = stats.events
  for state, n in pairs(stats.tasks) do
    open = open + (FINAL[state] and 0 or n)
  end
  return open == 0
end

local function story(task)
  local parts = {}
  for _, m in ipairs(task.timeline) do
    local word = m.note == "taken" and m.signal or m.signal .. " (" .. m.note:gsub("_", " ") .. ")"
    parts[#parts + 1] = ("%s+%.1fs%s"):format(word, (m.at - task.created_at) / 1000, m.count and " x" .. m.count or "")
  end
  return table.concat(parts, " > ")
end

local function count_events()
  local seen, refs = {}, {}
  for id, kind, ref in read(dir .. "/events"):gmatch "(%S+) (%S+) (%S+)\n" do
    seen[id] = (seen[id] or 0) + 1
    refs[ref] = (refs[ref] or 0) + 1
    assert(kind)
  end
  return seen, refs
end

local function billed(ledger)
  local n = {}
  for _, s in ipairs(ledger.submissions) do
    n[s.ref] = (n[s.ref] or 0) + 1
  end
  return n
end

local function stories(mj)
  local ledger = assert(json.decode(read(dir .. "/ledger.json")))
  local bills, seen, events = billed(ledger), count_events()
  local total, by_state, by_source, bad = 0, {}, {}, {}
  print(("%-26s  %-9s %-8s %5s %6s  %s"):format("REF", "STATE", "BY", "POLLS", "EVENTS", "STORY"))
  for task in mj:tasks {} do
    total = total + 1
    by_state[task.state] = (by_state[task.state] or 0) + 1
    by_source[task.source or "?"] = (by_source[task.source or "?"] or 0) + 1
    print(("%-26s  %-9s %-8s %5d %6d  %s"):format(task.ref, task.state, task.source or "", task.polls,
      events[task.ref] or 0, story(task)))
    if not FINAL[task.state] then
      bad[#bad + 1] = task.ref .. " is not final"
    elseif (bills[task.ref] or 0) ~= 1 then
      bad[#bad + 1] = ("%s was billed %d times"):format(task.ref, bills[task.ref] or 0)
    elseif events[task.ref] ~= 1 then
      bad[#bad + 1] = ("%s had %d events"):format(task.ref, events[task.ref] or 0)
    end
  end
  for id, n in pairs(seen) do
    if n ~= 1 then
      bad[#bad + 1] = ("event %s was handled %d times"):format(id, n)
    end
  end
  if total ~= jobs then
    bad[#bad + 1] = ("%d tasks instead of %d"):format(total, jobs)
  end
  local account = ledger.counters.accounts["dev-key"] or {}
  print(("\n%d tasks, all final: %d succeeded, %d failed; %d learned by callback, %d by polling"):format(total,
    by_state.succeeded or 0, by_state.failed or 0, by_source.callback or 0, by_source.poll or 0))
  print(("provider: %d jobs accepted, at most %d unfinished at once"):format(#ledger.submissions,
    account.max_unfinished))
  for _, text in ipairs(bad) do
    print("WRONG: " .. text)
  end
  if #bad == 0 then
    print "none billed twice, each event handled once"
  end
  return #bad == 0
end

if what == "line" then
  line()
else
  local mj = assert(mjhook.open {})
  local ok = what == "done" and is_done(mj) or what == "stories" and stories(mj)
  mj:close()
  os.exit(ok)
end
