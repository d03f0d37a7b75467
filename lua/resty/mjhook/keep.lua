--- Calls to threads, for which a worker of nginx that ends waits.
--
-- A worker that ends (reload, quit) goes as soon as no timer is left, and a request that waits for a thread has none:
-- its client would get no answer, and what the thread says would not be stored. So as long as a call is out, one light
-- thread of the worker sleeps again and again. An idle worker pays for nothing.
local core = require "mjhook.core"

local LOOK_S = 0.2    -- how long the light thread sleeps: that much later than it could a worker ends
local BEGIN_MS = 1000 -- a light thread that has not looked for so long is none: nginx drops timers

local status = rawget(coroutine, "__status") or coroutine.status -- ngx_lua's own status() knows those of one request
local out = setmetatable({}, { __mode = "k" }) -- the coroutines that wait for a call
local looked_at = -BEGIN_MS

-- nginx cuts requests off (worker_shutdown_timeout, lua_check_client_abort). Then the coroutine never hears that its
-- call has ended: it is dead, or garbage.
local function forget_dead()
  collectgarbage()
  for thread in pairs(out) do
    if status(thread) == "dead" then
      out[thread] = nil
    end
  end
end

local function keep()
  repeat
    looked_at = core.clock()
    ngx.sleep(LOOK_S)
    if next(out) and ngx.worker.exiting() then
      forget_dead()
    end
  until not next(out)
  looked_at = -BEGIN_MS
end

local function back(ran, ...)
  out[coroutine.running()] = nil
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
  out[coroutine.running()] = true
  return back(pcall(ngx.run_worker_thread, ...))
end
