--- A flow that is loaded when it is first used: a cron job that has nothing to do spends most of its time on loading.
local core = require "mjhook.core"
local memory = require "mjhook.memory"

--- @tparam string name of a module below mjhook
-- @treturn table the module; a use of it raises an error of mjhook.core when it can't be loaded
return function(name)
  return setmetatable({}, { __index = function(self, key)
    local ok, module = pcall(require, "mjhook." .. name)
    if not ok then -- no memory, or no descriptor, for it
      error(memory.is_out(module) and memory.OUT or core.error("internal", tostring(module), true), 0)
    end
    self[key] = module[key]
    return self[key]
  end })
end
