--- pcall of at most four values that interrupts Lua code which runs too long, also in coroutines that it makes. A call
-- that blocks inside C can't be interrupted this way.
local core = require "mjhook.core"
local interpreted = require "mjhook.interpreted"

local function watched(f, timeout, why, ...)
  local before = core.watch(timeout, why)
  local ok, result, reason, how = pcall(f, ...)
  core.watch(before)
  return ok, result, reason, how
end

-- @tparam function f
-- @tparam number timeout seconds
-- @tparam string why the error that interrupts it (at most 79 bytes)
return not rawget(_G, "jit") and watched or function(f, timeout, why, ...)
  return interpreted(watched, f, timeout, why, ...)
end
