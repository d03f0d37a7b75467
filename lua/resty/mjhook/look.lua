--- Looks at the store after commits: is there a job to send, an event to deliver?
local core = require "mjhook.core"
local guard = require "resty.mjhook.guard"

local BEGIN_MS = 1000 -- a timer that has not begun by then is dropped: nginx runs lua_max_running_timers of them

--- @tparam table exec the worker's executor
-- @tparam string what for the log
-- @tparam function f looks; it may wait if the executor's reads do
-- @treturn function f itself where reads are in place. Otherwise a function that returns at once: f runs in a timer,
-- never twice at a time, and once more if it was asked for meanwhile
return function(exec, what, f)
  if exec.store then
    return f
  end
  local running, again, begin_by = false, false, 0
  local look
  local function run(premature)
    running, again, begin_by = true, false, 0
    guard(what, function()
      running = false
    end, function()
      if not premature then
        f()
      end
    end)
    if again and not premature then
      look()
    end
  end
  function look()
    local now = core.clock()
    if running then
      again = true
    elseif now >= begin_by and ngx.timer.at(0, run) then
      begin_by = now + BEGIN_MS
    end
  end
  return look
end
