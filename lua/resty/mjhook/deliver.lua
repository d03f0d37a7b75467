--- Delivery under nginx: events go to the policy's handlers as soon as they are committed, in threads of their own.
--
-- Handlers may block there: each thread loads the policy anew, from its file or with the configuration file in which it
-- stands. A table of functions that init() itself was given can't go into another thread: its handlers run on the event
-- loop, in a timer, and have to use nginx's own sockets.
--
-- One deliverer is enough as long as handlers are quick. While one has something slow at hand, what it took together
-- with that is taken back from it, and others are begun beside it for what waits: at most `handlers` of a worker, and
-- no more than the pool has threads.
local beside = require "mjhook.beside"
local core = require "mjhook.core"
local deliver = require "mjhook.delivery.deliver"
local guard = require "resty.mjhook.guard"
local log = require("resty.mjhook.log").log
local look_soon = require "resty.mjhook.look"
local pool = require "mjhook.delivery.pool"

local M = {}

local POOL = "mjhook_deliver"
local TURN_S = 5 -- then what was logged is told, and a worker that is to end can end
local LOOK_S = 1 -- how often a worker looks for events whose next try is due
local BEGIN_MS = 1000 -- a timer that has not begun by then is dropped: nginx runs lua_max_running_timers of them

-- What mjhook.open is given in the thread: what init() was given, as plain data.
local function plain(given)
  local settings = {}
  for k, v in pairs(given) do
    settings[k] = type(v) ~= "function" and v or nil
  end
  return settings
end

local function handles(mj)
  for name in pairs(mj.policy.functions) do
    if name:match "^on_" and name ~= "on_callback" and name ~= "on_refused" then
      return true
    end
  end
  return false
end

-- A function that delivers for a while; another thread can take back from the queue what it has not begun.
local function turn(mj, given, id)
  if type(given.policy) == "table" then
    mj.on_event_loop = true -- where no hook may interrupt: it would interrupt others, too
    return function(queue)
      return deliver.deliver(mj, { budget = TURN_S, queue = queue })
    end
  end
  local settings = plain(given)
  return function(queue)
    settings.instead = beside.texts { mj.config.config_file, mj.policy.path } -- it may be broken now
    local report, err = mj.exec:call(POOL, "deliver", id, settings, { budget = TURN_S, queue = queue })
    for _, said in ipairs(report and report.said or {}) do
      log(said.level, said.message)
    end
    return report, err
  end
end

-- ---- the deliverers of this worker ----

local Deliverers = {}
Deliverers.__index = Deliverers

-- Each has a name, under which its queue is found from here and from its thread.
local function deliverers_of(mj, given)
  local id = mj.config.store .. "\0deliver\0" .. core.now()
  local idle = {}
  for i = 1, mj.config.handlers do
    local name = id .. "\0" .. i
    idle[i] = { name = name, queue = core.workqueue(name), turn = 0 }
  end
  return setmetatable({ mj = mj, run = turn(mj, given, id), idle = idle, at_work = {}, not_before = 0, watched_by = 0 },
    Deliverers)
end

function Deliverers:deliver(one)
  local report, err = self.run(one.name)
  if err and err.code == "no_pool" then
    if not self.missing then
      log("notice", "no thread_pool " .. POOL .. " in nginx.conf: events wait for mjhook-reconcile")
    end
    self.missing = true
  elseif not report then
    self.not_before = core.clock() + LOOK_S * 1000 -- it would fail again at once, and again
    log("error", "events could not be delivered: " .. err.message)
  end
end

local function work(premature, self, one, number)
  if one.turn ~= number then
    return -- so late that it was taken for dropped
  end
  one.begin_by = nil
  local ok = guard("delivering events", function()
    self.at_work[one] = nil
    table.insert(self.idle, one)
  end, function()
    if not premature then
      self:deliver(one)
    end
  end)
  if not ok then
    self.not_before = core.clock() + LOOK_S * 1000
  elseif not premature then
    self.look_soon() -- what was committed meanwhile
  end
end

-- Events that wait behind slow handlers are due again, for another deliverer.
function Deliverers:take_back()
  local ops = {}
  for one in pairs(self.at_work) do
    for _, name in ipairs(one.queue:take_back(pool.SLOW_MS)) do
      ops[#ops + 1] = pool.taken_back(name, self.mj.exec:now())
    end
  end
  local results, err = true, nil
  if #ops > 0 then
    results, err = self.mj.exec:commit(ops)
  end
  if not results then
    log("error", ("%d events wait until their leases are over: %s"):format(#ops, err.message))
  end
end

local function watch(premature, self)
  self.watched_by = 0
  if not premature then
    self:take_back()
    self.look_soon()
  end
end

-- How long the first event that no deliverer has taken has been due, in milliseconds; negative: there is none.
function Deliverers:waited()
  local now = self.mj.exec:now()
  local stats = not self.mj.closed and self.mj.exec:read("stats", now)
  return stats and stats.event_due and now - stats.event_due or -1
end

-- Whose timer was dropped is idle again.
function Deliverers:take_in(now)
  for one in pairs(self.at_work) do
    if one.begin_by and one.begin_by < now then
      one.begin_by, one.turn = nil, one.turn + 1
      self.at_work[one] = nil
      table.insert(self.idle, one)
    end
  end
end

-- Begins one, when there is something to deliver that those at work don't get to. Not in a worker that ends: that
-- would live as long as something is due, which is for the worker that takes its place.
function Deliverers:look()
  local now = core.clock()
  if self.missing or now < self.not_before or ngx.worker.exiting() or not handles(self.mj) then
    return
  end
  self:take_in(now)
  local waited = self.idle[1] and self:waited() -- others may have gone to work meanwhile
  if self.idle[1] and waited >= (next(self.at_work) and pool.SLOW_MS or 0) then
    local one = table.remove(self.idle)
    self.at_work[one], one.begin_by = true, now + BEGIN_MS
    if not ngx.timer.at(0, work, self, one, one.turn) then
      work(true, self, one, one.turn)
    end
  end
  if next(self.at_work) and now >= self.watched_by and ngx.timer.at(pool.SLOW_MS / 1000, watch, self) then
    self.watched_by = now + pool.SLOW_MS + BEGIN_MS
  end
end

--- @tparam table mj the worker's
-- @tparam table given what init() was given
-- @treturn function to be called after each commit: looks whether there is something to deliver, and begins
function M.new(mj, given)
  if not (handles(mj) or mj.policy.file) then -- none can come
    return function() end
  end
  local deliverers = deliverers_of(mj, given)
  deliverers.look_soon = look_soon(mj.exec, "looking for events", function()
    deliverers:look()
  end)
  ngx.timer.every(LOOK_S, deliverers.look_soon)
  return deliverers.look_soon
end

return M
