--- Records as users see them.
local core = require "mjhook.core"
local json = require "mjhook.json"

local M = {}

--- Decodes what the store keeps as JSON and gives errors their shape back (tables lose their
-- metatable on the way between threads).
-- @tparam table|nil task as mjhook.core gives it
function M.view(task)
  if not task then
    return nil
  end
  if task.context then
    task.context = json.whole(json.decode(task.context))
  end
  if task.meta then
    task.meta = json.whole(json.decode(task.meta))
  end
  if task.files then
    task.files = json.whole(json.decode(task.files))
  end
  if task.error then
    task.error = core.error(task.error.code, task.error.message, task.error.retryable)
  end
  return task
end

return M
