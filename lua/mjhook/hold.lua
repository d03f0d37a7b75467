--- What sends or stores is not interrupted: a handler's time-out strikes before or after it, also where a process would
-- be killed. Otherwise a claimed task, perhaps another user's, would become ambiguous.
local core = require "mjhook.core"

local function finish(before, ok, ...)
  core.release(before)
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Calls f with these arguments and gives what it gives; raises what it raises.
return function(f, ...)
  return finish(core.hold(), pcall(f, ...))
end
