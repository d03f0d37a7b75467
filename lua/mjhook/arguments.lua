--- Arguments of mjhook's functions: misuse raises at the caller's line. A level is that of error() in the function that
-- calls one of these.
local flow = require "mjhook.flow"

local listing = flow "listing"

local M = {}

function M.string(name, value, level)
  if type(value) ~= "string" then
    error(("%s: string expected, got %s"):format(name, type(value)), level + 1)
  end
end

function M.options(name, value, allowed, level)
  if value == nil then
    return {}
  elseif type(value) ~= "table" then
    error(("%s: table expected, got %s"):format(name, type(value)), level + 1)
  end
  for k, v in pairs(value) do
    if allowed[k] ~= type(v) or v ~= v then -- NaN: no comparison with it ever holds, so no timeout would end
      error(("%s: %s '%s'%s"):format(name, allowed[k] and "bad field" or "unknown field", tostring(k),
        allowed[k] and "" or require "mjhook.suggest"(k, allowed)), level + 1)
    end
  end
  return value
end

-- A list without holes: a hole would end it early, and what is behind it would be lost without a word.
function M.list(name, list, level)
  if type(list) ~= "table" then
    error(("%s: table expected, got %s"):format(name, type(list)), level + 1)
  end
  for k in pairs(list) do
    if type(k) ~= "number" or k < 1 or k > #list or k ~= math.floor(k) then
      error(("%s: a list of jobs expected, got a table with the key %q"):format(name, tostring(k)), level + 1)
    end
  end
  for i = 1, #list do
    if list[i] == nil then
      error(("%s: the list has a hole at %d"):format(name, i), level + 1)
    end
  end
end

-- A filter, which is checked before anything is read; nil becomes the filter that takes everything.
function M.filter(name, filter, fields, level)
  if filter == nil then
    return {}
  elseif type(filter) ~= "table" then
    error(("%s: table expected, got %s"):format(name, type(filter)), level + 1)
  end
  local fault = listing.fault(filter, fields)
  if fault then
    error(("%s: %s"):format(name, fault), level + 1)
  end
  return filter
end

return M
