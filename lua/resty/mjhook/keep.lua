--- Calls to threads, for which a worker of nginx that ends waits.
--
-- A worker that ends (reload, quit) goes as soon as no timer is left, and a request that waits for a thread has none:
-- its client would get no answer, and what the thread says would not be stored. So as long as a call is out, one light
-- thread of the worker sleeps again and again. A call pays for a look at the clock, and an idle worker for nothing.
local core = require "mjhook.core"

local LOOK_S = 0.2     -- how long the light thread sleeps: that much later than it could a worker ends
local BEGIN_MS = 1000  -- a light thread that has not looked for so long is none: nginx drops timers
local LOST_MS = 600000 -- nothing hears of the end of a call whose request was cut off: a worker waits so long for one

local out, newest, looked_at = 0, 0, -BEGIN_MS

local function keep()
  repeat
    looked_at = core.clock()
    ngx.sleep(LOOK_S)
    if core.clock() - newest > LOST_MS then
      out = 0
    end
  until out == 0
  looked_at = -BEGIN_MS
end

local function back(ran, ...)
  out = math.max(out - 1, 0)
  if not ran then
    error((...), 0)
  end
  return ...
end

--- ngx.run_worker_thread, whose answer the worker lives to see. (Not so if nginx drops the timer, as it does while
-- lua_max_running_timers of them run.)
return function(...)
  local now = core.clock()
  if now - looked_at >= BEGIN_MS then
    ngx.timer.at(0, keep) -- nginx takes one without delay also while the worker ends
    looked_at = now
  end
  out, newest = out + 1, now
  return back(pcall(ngx.run_worker_thread, ...))
end
