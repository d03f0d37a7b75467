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
  -- Changed only when all of it is there: memory that runs out leaves a task that can be viewed again.
  local context = task.context and json.keep(task.context)
  local meta = task.meta and json.keep(task.meta)
  local files = task.files and json.keep(task.files)
  local err = task.error and core.error(task.error.code, task.error.message, task.error.retryable)
  task.context, task.meta, task.files, task.error = context, meta, files, err
  return task
end

return M
