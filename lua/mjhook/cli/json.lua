--- JSON for other programs: keys in order, whole numbers whole, empty arrays as arrays, nothing a terminal obeys.
-- (cjson has no order, cuts numbers to 14 digits and can't tell an empty array from an empty object.)
local core = require "mjhook.core"
local json = require "mjhook.json"
local text = require "mjhook.text"

local M = {}

local is_integer = rawget(math, "type") -- Lua 5.4's

local STYLE = {
  string = text.quote,
  length = function(t) -- of a list with named fields beside, as latencies have, the list is shown
    return (t[1] ~= nil or json.is_empty_array(t)) and #t or nil
  end,
  kept = text.json,
  number = function(n)
    if n ~= n or n == math.huge or n == -math.huge then
      return "null"
    end
    return is_integer and is_integer(n) == "integer" and ("%d"):format(n) or core.number(n)
  end,
  other = function()
    return "null"
  end,
}

M.array = json.array

--- The text of a value: on one line.
function M.encode(value)
  return assert(json.encode(value, STYLE))
end

--- A task's text: as mjhook gives it, without an empty `images`.
function M.task(task)
  local copy = {}
  for k, v in pairs(task) do
    copy[k] = v
  end
  if copy.images and #copy.images == 0 then
    copy.images = nil
  end
  return copy
end

return M
