--- Readers of options that need more than the command line's own.
local raw_json = require("mjhook").raw_json

local M = {}

--- Reads JSON that is kept digit by digit.
function M.json(given)
  local value, err = raw_json(given)
  if value == nil then
    return nil, err.message
  end
  return value
end

return M
