--- Tasks by what people have at hand: a ref, or one of the provider's task ids.
local core = require "mjhook.core"

--- @treturn table|nil task, or nil and an error
return function(mj, id)
  local task, err = mj:get(id)
  if not task and err.code == "not_found" then
    task, err = mj:find(id)
  end
  if not task and err.code == "not_found" then
    return nil, core.error("not_found", ("no task has the ref or task id %s in %s"):format(id, mj.config.store))
  end
  return task, err
end
