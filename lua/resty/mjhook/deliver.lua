--- Delivery under nginx: events go to the policy's handlers as soon as they are committed, in threads of their own.
--
-- Handlers may block there. A policy that is a table of functions can't go into another thread: its handlers run on the
-- event loop, in a timer, and have to use nginx's own sockets.
--
-- One deliverer is enough as long as handlers are quick. While one has something slow at hand, others are begun beside
-- it for what waits: at most `handlers` of a worker, and no more than the pool has threads.
local core = require "mjhook.core"
local log = require("resty.mjhook.log").log

local M = {}

local POOL = "mjhook_deliver"
-- `budget` in seconds: then what was logged is told, and a worker that is to end can end. `batch`: no more are made to
-- wait behind a handler that turns out to be slow; more would be hardly quicker (measured).
local TURN = { budget = 5, batch = 32 }
local LOOK_S = 1 -- how often a worker looks for events whose next try is due
local SLOW_S = 0.1 -- what nobody took for so long waits behind a slow handler

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

local function runner(mj, given)
  if type(mj.config.policy) == "table" then
    mj.on_event_loop = true -- where no hook may interrupt: it would interrupt others, too
    return function()
      return mj:deliver(TURN)
    end
  end
  local settings, id = plain(given), mj.config.store .. "\0deliver\0" .. core.now()
  return function()
    local report, err = mj.exec:call(POOL, "deliver", id, settings, TURN)
    for _, said in ipairs(report and report.said or {}) do
      log(said.level, said.message)
    end
    return report, err
  end
end

--- @tparam table mj the worker's
-- @tparam table given what init() was given
-- @treturn function to be called after each commit: looks whether there is something to deliver, and begins
function M.new(mj, given)
  if not handles(mj) then
    return function() end
  end
  local run, busy, missing, watching, not_before = runner(mj, given), 0, false, false, 0
  local look
  local function work(premature)
    local report, err
    if not premature then
      report, err = run()
      if err and err.code == "no_pool" then
        if not missing then
          log("notice", "no thread_pool " .. POOL .. " in nginx.conf: events wait for mjhook-reconcile")
        end
        missing = true
      elseif not report then
        not_before = core.clock() + LOOK_S * 1000 -- it would fail again at once, and again
        log("error", "events could not be delivered: " .. err.message)
      end
    end
    busy = busy - 1
    if not premature then
      look() -- what was committed meanwhile
    end
  end
  local function watch(premature)
    watching = false
    if not premature then
      look()
    end
  end
  function look()
    if missing or not mj.store or core.clock() < not_before then
      return
    end
    local stats = busy < mj.config.handlers and mj.store:stats()
    local waited = stats and stats.event_due and core.now() - stats.event_due or -1
    if waited >= (busy == 0 and 0 or SLOW_S * 1000) and ngx.timer.at(0, work) then
      busy = busy + 1
    end
    if busy > 0 and not watching then
      watching = ngx.timer.at(SLOW_S, watch) and true or false
    end
  end
  ngx.timer.every(LOOK_S, look)
  return look
end

return M
