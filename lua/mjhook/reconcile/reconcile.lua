--- One pass over what is due: the cron job's work.
-- recover dead submitters → decide on ambiguous tasks → poll → submit what waits → deliver → report.
local core = require "mjhook.core"
local flow = require "mjhook.flow"
local memory = require "mjhook.memory"
local prune = require "mjhook.reconcile.prune"
local view = require("mjhook.view").view

local deliver, poll = flow "delivery.deliver", flow "reconcile.poll"
local queue, submit = flow "reconcile.queue", flow "submission.submit"

local M = {}

local DEFAULT_BUDGET_S = 45
-- A request of a live sender does not start after submit.STALL_MS, and the client's timeout (30 s) cuts it off.
-- Evidence decides sooner; a request that would be so much older is over.
local CUT_OFF_MS = 60000
-- A host that works writes a heartbeat every ten seconds, and with each claim.
local HOST_SILENT_MS = 60000
local PAGE = 500
local SOON_MS = 15000 -- what is due so soon may as well be asked about in a request that has room

-- Refusals that are the provider's way of saying "later": no person needs to hear of them.
local BACKPRESSURE = { concurrency = true, rate_limit = true }

-- One run of it.
local Reconcile = {}
Reconcile.__index = Reconcile

function Reconcile:time_left()
  return core.clock() < self.stop_at and not self.mj.stopping()
end

-- Tells how far it is: how many there may be to do in the step is read from counters, and is the most.
local MOST = { poll = function(stats) return stats.tasks.pending end, submit = function(stats) return stats.ready end,
               deliver = function(stats) return stats.events end }

function Reconcile:enter(step)
  if self.progress then
    local stats = MOST[step] and self.mj.exec:read "stats"
    self.step, self.most = step, stats and MOST[step](stats) or 0
    self:tell()
  end
end

function Reconcile:tell()
  if self.progress then
    self.progress(self.step, self.report, self.most)
  end
end

-- Counts what a committed operation did to a task, for the report.
function Reconcile:count(result)
  if result.code == "ok" and result.made then
    self.report[result.made] = (self.report[result.made] or 0) + 1
  end
end

function Reconcile:commit(ops)
  if #ops == 0 then
    return {}
  end
  local results, err = self.mj.exec:commit_each(ops)
  if not results then
    error(err, 0)
  end
  for _, result in ipairs(results) do
    self:count(result)
  end
  return results
end

-- The tasks that are due for one job, a page at a time: each call gives the next page that has some, and whether it is
-- the last one; nil in the end. Each task is seen once in a pass: a page goes on after the last one, and what is due
-- again by then is later.
function Reconcile:pager(due, size, brief)
  local cursor
  local now, more = self.mj.exec:now(), true
  return function()
    while more do
      local tasks, err_or_cursor = self.mj.exec:read("page", { by = "due", due = due, ["until"] = now, limit = size,
                                                        brief = brief, cursor = cursor })
      if not tasks then
        error(err_or_cursor, 0)
      end
      local readable = {}
      for _, task in ipairs(tasks) do
        if task.ref then
          readable[#readable + 1] = brief and task or view(task)
        else
          self:trouble(task)
        end
      end
      cursor = err_or_cursor
      local last, restart = not cursor, self:catch_up(now)
      if restart then -- what is left is due under earlier times
        now, cursor = self.mj.exec:now(), nil
      end
      more = (cursor or restart) and self:time_left()
      if #readable > 0 then
        return readable, last
      end
    end
  end
end

-- Walks over them: work(page).
function Reconcile:pages(due, size, work)
  for tasks in self:pager(due, size) do
    work(tasks)
    self.mj.exec:trim() -- as much memory for a hundred thousand as for a page
  end
end

-- Each kind is said once in a pass.
function Reconcile:say(level, text)
  local is_new = not self.said[text]
  self.said[text] = true
  if is_new then
    self.mj.log(level, text)
  end
  return is_new
end

-- Something that a person may have to look at.
function Reconcile:trouble(err)
  local text = tostring(err.message)
  self.report.errors = self.report.errors + 1
  if self:say(err.retryable and "warn" or "error", text) and self.on_trouble then
    self.on_trouble(text)
  end
end

function Reconcile.is_backpressure(_, err)
  return BACKPRESSURE[err.code] or false
end

-- What a clock which was ahead has stored would be put off until the time that it showed. The store bounds it when it
-- meets an earlier time than the newest commit's, a part in each transaction: here all of it, before this run looks for
-- what is due. True when the clock was set back since `before`, or since the newest commit.
function Reconcile:catch_up(before)
  local now = self.mj.exec:now()
  if self.dry_run then
    return false
  elseif before - now <= core.clock_step then
    local ready, latest = self.mj.exec:read "sums"
    before = assert(ready, latest) and latest or now
  end
  if before - now <= core.clock_step then
    return false
  end
  self.mj.log("warn", ("the clock was set back by %d s: what it put off is due now"):format(
    math.floor((before - now) / 1000)))
  self:tick()
  self.begun = now
  return true
end

-- Whether the process that was submitting a task is dead, or its request over: by evidence of its own host; of another
-- one by its heartbeats; else by age. A boot that the store does not know was this host's: no process outlives it.
function Reconcile:is_over(task)
  local over = task.owner == "dead" or self.mj.exec:now() - task.submitted_at > submit.STALL_MS + CUT_OFF_MS
  if not over and task.owner_boot then
    local ago, err = self.mj.exec:read("host", task.owner_boot)
    over = ago and ago > HOST_SILENT_MS or not ago and err.code == "not_found"
  end
  return over
end

function Reconcile:recover()
  self:pages("owner", PAGE, function(tasks)
    local ops = {}
    for _, task in ipairs(tasks) do
      if self:is_over(task) then
        ops[#ops + 1] = {
          op = "signal", ref = task.ref, attempt = task.attempt, kind = "owner_dead", source = "sweep",
          expect = "submitting", error_code = "owner_dead",
          error = "the process that was submitting it died; it may or may not have been sent",
        }
      end
    end
    self:commit(ops)
  end)
end

local DECISIONS = { lost = "give_up", resubmit = "resubmit", wait = "wait" }

function Reconcile:resolve()
  self:pages("resolve", PAGE, function(tasks)
    local ops = {}
    for _, task in ipairs(tasks) do
      local what, ms = self.mj.policy:decide("resolve_ambiguous", task, self.mj.exec:now())
      local kind = DECISIONS[what] or "give_up"
      ops[#ops + 1] = {
        op = "signal", ref = task.ref, attempt = task.attempt, kind = kind, expect = "ambiguous",
        source = DECISIONS[what] and "policy" or "sweep", wait_ms = kind == "wait" and ms or nil,
      }
    end
    self:commit(ops)
  end)
end

-- Tasks are read as a whole only for a policy that looks at them.
function Reconcile:brief()
  return not self.mj.policy:decides "next_poll"
end

-- A request that goes half empty takes along tasks that are due soon anyway.
function Reconcile:fill(tasks)
  local room = -#tasks % self.mj.config.batch
  if room == 0 or self.limit then
    return
  end
  local known = {}
  for _, task in ipairs(tasks) do
    known[task.ref] = true
  end
  local soon = self.mj.exec:read("page", { by = "due", due = "poll", ["until"] = self.mj.exec:now() + SOON_MS,
                                    limit = #tasks + room, brief = self:brief() })
  for _, task in ipairs(soon or {}) do
    if room > 0 and task.ref and not known[task.ref] and task.updated_at < self.begun then
      tasks[#tasks + 1] = view(task)
      room = room - 1
    end
  end
end

function Reconcile:poll()
  local size = self.mj.config.batch * self.mj.config.connections
  local pages = self:pager("poll", size, self:brief())
  local left, asked, told = self.limit or math.huge, false, 0
  local report, err = poll.poll_all(self.mj, {
    deadline = self.stop_at,
    next = function()
      if left == 0 or asked and not self:time_left() then
        return nil
      end
      local tasks, last = pages()
      if last then
        self:fill(tasks)
      end
      while tasks and #tasks > left do
        tasks[#tasks] = nil
      end
      left = left - (tasks and #tasks or 0)
      asked = true
      return tasks
    end,
    stored = function(results)
      for _, result in ipairs(results) do
        self:count(result)
      end
      self.mj.exec:trim() -- as in pages()
    end,
    heard = function(polled)
      self.report.polled = polled
      if polled - told >= size then
        told = polled
        self:tell()
      end
    end,
    trouble = function(e)
      if self:is_backpressure(e) then
        self:say("warn", e.message)
      else
        self:trouble(e)
      end
    end,
  })
  if not report then
    error(err, 0)
  end
  self.report.requests = self.report.requests + report.requests
  if report.polled > told then
    self:tell()
  end
end

function Reconcile:tick()
  repeat
    local result = self:commit({ { op = "tick", limit = PAGE } })[1]
  until result.done < PAGE and not result.more or not self:time_left()
end

function Reconcile:submit()
  local takes_in, stats = self.mj.config.store_url ~= nil, self.mj.exec:read "stats"
  if takes_in or not stats or stats.tasks.queued > 0 then
    queue.send(self, takes_in)
  end
end

function Reconcile:deliver()
  local stats = self.mj.exec:read "stats"
  if stats and stats.events == 0 then
    return
  end
  local left = math.max(self.stop_at - core.clock(), 0) / 1000
  local report, err = deliver.deliver(self.mj, { budget = left, limit = self.limit, isolate = self.isolate,
                                                 on_trouble = self.on_trouble })
  if not report then
    error(err, 0)
  end
  self.report.delivered = report.delivered
  self.report.buried = report.buried
  self.report.errors = self.report.errors + report.errors
end

function Reconcile:prune()
  local left = math.max(self.stop_at - core.clock(), 0) / 1000
  local report, err = prune.prune(self.mj, { budget = left, bounded = true })
  if not report then
    error(err, 0)
  end
  self.report.pruned = report.pruned
end

function Reconcile:upgrade()
  local ok, err = prune.upgrade(self.mj, self.stop_at)
  if not ok then
    error(err, 0)
  end
end

local VERDICTS = {
  broken = { "error", "callbacks do not come: most tasks that ended in this hour and the last were learned of by "
    .. "polling alone. Polls come sooner now; `mjhook doctor` looks at hook_url from outside" },
  mended = { "notice", "callbacks come again" },
}

-- The last step: the run is noted, and what it shows of the webhook is said once.
function Reconcile:judge(started)
  local verdict = self:commit({ {
    op = "swept", elapsed_ms = core.clock() - started, requests = self.report.requests,
    judge = self.mj.config.hook_url ~= nil,
  } })[1].verdict
  if verdict then
    self.mj.log(VERDICTS[verdict][1], VERDICTS[verdict][2])
  end
end

local STEPS = { "recover", "resolve", "poll", "tick", "submit", "deliver", "prune", "upgrade" }

-- What a pass would do, from reading alone.
function Reconcile:preview()
  local count = function(due)
    local n = 0
    self:pages(due, PAGE, function(tasks)
      n = n + #tasks
    end)
    return n
  end
  self.report.polled = count "poll"
  self.report.would_resolve = count "resolve"
  self.report.would_recover = 0
  self:pages("owner", PAGE, function(tasks)
    for _, task in ipairs(tasks) do
      if self:is_over(task) then
        self.report.would_recover = self.report.would_recover + 1
      end
    end
  end)
end

local function new_report()
  return {
    polled = 0, succeeded = 0, failed = 0, lost = 0, pending = 0, ambiguous = 0, submitted = 0, queued = 0,
    delivered = 0, buried = 0, pruned = 0, errors = 0, requests = 0, elapsed_ms = 0,
  }
end

local function finish(self, started)
  local stats = self.mj.exec:read "stats"
  if stats then
    self.report.pending = stats.tasks.pending
    self.report.ambiguous = stats.tasks.ambiguous
    self.report.queued = stats.tasks.queued
  end
  self.report.elapsed_ms = core.clock() - started
  return self.report
end

local function locked_pass(self, started)
  local locked, err = self.mj.exec:lock "reconcile"
  if not locked then
    if err.code == "busy" then
      err.message = ("another reconciler is at work on %s"):format(self.mj.config.store)
    end
    return nil, err
  end
  self:catch_up(self.begun)
  for _, step in ipairs(STEPS) do
    self:enter(step)
    if self:time_left() then
      self[step](self)
    end
  end
  self:catch_up(self.begun)
  self:judge(started)
  return finish(self, started)
end

--- mj:reconcile{budget= (seconds), limit=, dry_run=, progress=function(step, report, most), on_trouble=function(text)}.
-- `progress` is called before each step and as it goes on; `most`: how many there may be to do in it. `on_trouble` is
-- called with each kind of error that the report counts, once.
-- In the report succeeded, failed and lost count what this pass changed; pending, ambiguous and queued what is left.
-- @treturn table|nil report; nil and an error: "busy" when another pass runs on this store
function M.reconcile(mj, options)
  local started = core.clock()
  mj.policy:refresh()
  local self = setmetatable({
    mj = mj, report = new_report(), said = {}, on_trouble = options.on_trouble,
    limit = options.limit, dry_run = options.dry_run, begun = mj.exec:now(), progress = options.progress,
    isolate = options.isolate,
    stop_at = started + (options.budget or DEFAULT_BUDGET_S) * 1e3,
  }, Reconcile)
  if options.dry_run then
    local ok, err = pcall(self.preview, self)
    if not ok then
      return nil, memory.error(err)
    end
    return finish(self, started)
  end
  local ok, report, err = pcall(locked_pass, self, started)
  mj.exec:unlock()
  if not ok then
    return nil, memory.error(report)
  end
  return report, err
end

return M
