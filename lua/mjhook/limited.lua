--- pcall of at most four values that interrupts Lua code which runs too long, also in coroutines that it makes. A call
-- that blocks inside C can't be interrupted this way.
local core = require "mjhook.core"

-- @tparam function f
-- @tparam number timeout seconds
-- @tparam string why the error that interrupts it (at most 79 bytes)
return function(f, timeout, why, ...)
  local compiled = jit and jit.status()
  if compiled then -- compiled code runs no hooks, neither the code of f nor what it calls
    jit.off()
    jit.flush()
  end
  local before = core.watch(timeout, why)
  local ok, result, reason, how = pcall(f, ...)
  core.watch(before)
  if compiled then
    jit.on()
  end
  return ok, result, reason, how
end
