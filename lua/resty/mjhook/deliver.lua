--- Delivery under nginx: events go to the policy's handlers as soon as they are committed, in threads of their own.
--
-- Handlers may block there. A policy that is a table of functions can't go into another thread: its handlers run on the
-- event loop, in a timer, and have to use nginx's own sockets.
local core = require "mjhook.core"
local log = require("resty.mjhook.log").log

local M = {}

local POOL = "mjhook_deliver"
local TURN = { budget = 5 } -- seconds; then what was logged is told, and a worker that is to end can end
local LOOK_S = 1 -- how often a worker looks for events whose next try is due

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
  local run, running, missing = runner(mj, given), false, false
  local look
  local function work(premature)
    if not premature then
      local report, err = run()
      missing = err and err.code == "no_pool"
      if missing then
        log("notice", "no thread_pool " .. POOL .. " in nginx.conf: events wait for mjhook-reconcile")
      elseif not report then
        log("error", "events could not be delivered: " .. err.message)
      end
    end
    running = false
    if not premature then
      look() -- what was committed meanwhile
    end
  end
  function look()
    if running or missing or not mj.store then
      return
    end
    local stats = mj.store:stats()
    if stats and stats.event_due and stats.event_due <= core.now() then
      running = ngx.timer.at(0, work) and true or false
    end
  end
  ngx.timer.every(LOOK_S, look)
  return look
end

return M
