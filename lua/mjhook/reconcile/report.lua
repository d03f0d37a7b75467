--- What mjhook-reconcile says and answers: from a pass' report to words, JSON, metrics and an exit code.
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local flow = require "mjhook.flow"
local json = require "mjhook.json"
local mjhook = require "mjhook"
local stores = require "mjhook.stores"
local clean = require("mjhook.text").clean

local submit = flow "submission.submit"

-- What a batch leaves behind is all garbage, and next to nothing lives on: collecting seldom costs little memory.
if not pcall(collectgarbage, "setpause", 300) then
  collectgarbage("param", "pause", 300) -- as Lua 5.5 calls it
end

local FIELDS = {
  "polled", "succeeded", "failed", "lost", "pending", "ambiguous", "submitted", "queued",
  "delivered", "buried", "pruned", "errors", "requests", "elapsed_ms",
}

local function say(format, ...)
  io.stderr:write("mjhook-reconcile: ", clean(core.redact(format:format(...))), "\n")
end

local function summary(report)
  local parts = {}
  for _, name in ipairs(FIELDS) do
    if report[name] and report[name] ~= 0 and name ~= "elapsed_ms" then
      parts[#parts + 1] = ("%s %d"):format(name, report[name])
    end
  end
  return ("%s in %.1f s"):format(#parts > 0 and table.concat(parts, ", ") or "nothing to do", report.elapsed_ms / 1000)
end

local METRICS_MODE = 420 -- 0644: a collector runs as another user, and cron's umask keeps it out

-- Of a store that is not there yet, what the pass did is all there is to tell.
local function write_metrics(path, mj, report)
  local written, err = "", nil
  if mj then
    written, err = mj:metrics()
  end
  if not written then
    return nil, err
  end
  local lines = { written }
  for _, name in ipairs(FIELDS) do
    lines[#lines + 1] = ("# TYPE mjhook_sweep_%s gauge\nmjhook_sweep_%s %d\n"):format(name, name, report[name])
  end
  return core.write_file(path, table.concat(lines), METRICS_MODE)
end

local BAR = 24
local DONE = { poll = "polled", submit = "submitted", deliver = "delivered" }

-- A progress bar on a terminal; silence elsewhere.
local function progress(options)
  if not options.terminal or options.quiet or options.json then
    return nil
  end
  return function(step, report, most)
    local done = report[DONE[step]] or 0
    local filled = most > 0 and math.floor(BAR * math.min(done / most, 1)) or 0
    io.stderr:write(("\r\27[K%-8s [%s%s] %s"):format(step, ("#"):rep(filled), ("."):rep(BAR - filled),
      most > 0 and ("%d of at most %d"):format(done, math.max(most, done)) or ""))
  end
end

-- The log of a pass: errors always, notices unless quiet, and all with -v. `said` gets what was said.
local function make_log(options, mj, said)
  local log = mj.config.log and mj.log
  return function(level, message)
    if log then
      log(level, message)
    end
    -- Errors also when there is a log: cron mails what is written here.
    if level == "error" or (not log and (options.verbose or (level == "notice" and not options.quiet))) then
      said[message] = true
      say("%s: %s", level, message)
    end
  end
end

local MOST_TROUBLES = 10

-- What went wrong, before the summary, which names no cause: with -q one line of it, if none was said yet.
local function tell_troubles(options, troubles, said)
  local left = options.quiet and (next(said) and 0 or 1) or MOST_TROUBLES
  local untold = 0
  for _, trouble in ipairs(troubles) do
    if not said[trouble] and left > 0 then
      left = left - 1
      say("error: %s", trouble)
    elseif not said[trouble] then
      untold = untold + 1
    end
  end
  if untold > 0 and not options.quiet then
    say("error: %d more of them; -v tells all", untold)
  end
end

-- The exit code: 73 when it can't be written. A reader that has had enough is no trouble.
local function print_out(line)
  local ok, why, number = io.stdout:write(line)
  if ok then
    ok, why, number = io.stdout:flush()
  end
  if ok or number == 32 then -- EPIPE
    return 0
  end
  say("standard output can't be written: %s", tostring(why))
  return fail.CANNOT_WRITE
end

local function finish(options, mj, report, troubles, said)
  if options.terminal and not options.quiet and not options.json then
    io.stderr:write("\r\27[K")
  end
  tell_troubles(options, troubles, said)
  local exit = 0
  if options.json then
    exit = print_out(assert(json.encode(report)) .. "\n")
  elseif options.dry_run then
    exit = print_out(("would poll %d, decide on %d ambiguous, recover %d; %d queued, %d pending\n"):format(
      report.polled, report.would_resolve, report.would_recover, report.queued, report.pending))
  elseif not options.quiet and (options.verbose or options.terminal or report.errors > 0) then
    say("%s", summary(report))
  end
  if options.metrics then
    local ok, why = write_metrics(options.metrics, mj, report)
    if not ok then
      say("metrics: %s", tostring(why))
      return fail.CANNOT_WRITE
    end
  end
  return exit ~= 0 and exit or report.errors > 0 and 1 or 0
end

-- A pass over a store that is not there yet: nothing has been submitted.
local function idle_pass(options, why)
  local report = { would_resolve = 0, would_recover = 0 }
  for _, name in ipairs(FIELDS) do
    report[name] = 0
  end
  if options.verbose or options.terminal and not options.quiet and not options.json then
    say("nothing to do: %s", why)
  end
  if not options.dry_run then
    report.would_resolve, report.would_recover = nil, nil
  end
  return finish(setmetatable({ verbose = false, terminal = false }, { __index = options }), nil, report, {}, {})
end

--- @tparam table options of the command line
-- @treturn function that makes one pass and returns the exit code
-- @treturn function that tells, between two passes, whether the next one should come at once: a task waits for a
-- slot and there is one
return function(options)
  local mj
  local in_vain = false -- there is room and the last pass sent nothing: the task waits for something else
  local function has_room()
    local now = mj and mj.exec:now()
    local stats = mj and not options.dry_run and mj.exec:read("stats", now)
    return stats and submit.has_room(stats, now) or false
  end
  local function wanted()
    local room = has_room()
    in_vain = in_vain and room
    return room and not in_vain
  end
  local said = {} -- in the pass at hand
  local function pass()
    local err
    for message in pairs(said) do
      said[message] = nil
    end
    if not mj then
      local unfit = options.store and stores.unfit_for_argument(options.store)
      if unfit then
        say("--store: %s", unfit)
        return fail.USAGE
      end
      mj, err = mjhook.open { config = options.config, store = options.store, create = false }
      if not mj and err.code == "absent" then
        return idle_pass(options, err.message)
      elseif not mj then
        say("%s", err.message)
        return fail.exit(err.code)
      end
      mj.log = make_log(options, mj, said)
      mj.stopping = function() -- asked between batches: the one in hand is finished first
        return options.stopping() or core.overdue()
      end
    end
    local report
    local troubles = {}
    report, err = mj:reconcile {
      budget = options.budget, limit = options.limit, dry_run = options.dry_run, progress = progress(options),
      isolate = true, on_trouble = function(trouble) troubles[#troubles + 1] = trouble end,
    }
    if not report then
      if not (err.code == "busy" and options.quiet) then
        say("%s", err.message)
      end
      return fail.exit(err.code)
    end
    in_vain = report.submitted == 0 and has_room()
    return finish(options, mj, report, troubles, said)
  end
  return pass, wanted
end
