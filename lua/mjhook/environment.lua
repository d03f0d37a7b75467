--- The environment of nginx, which clears it for its workers and so for their threads: what configuration and policies
-- look for with os.getenv() is handed on to them.
local M = {}

--- From now on os.getenv() of this Lua VM also finds what was there in another process.
-- @tparam table values name = value; what this process has itself goes before
function M.install(values)
  os.getenv "PATH" -- resty.core has its own function here until it is called after init_by_lua
  local real = os.getenv
  rawset(os, "getenv", function(name)
    local value = real(name)
    if value == nil then
      value = values[name]
    end
    return value
  end)
end

return M
