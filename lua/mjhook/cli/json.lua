--- JSON for other programs: keys in order, whole numbers whole, empty arrays as arrays, nothing a terminal obeys.
-- (cjson has no order, cuts numbers to 14 digits and can't tell an empty array from an empty object.)
local core = require "mjhook.core"
local json = require "mjhook.json"
local text = require "mjhook.text"

local M = {}

local ARRAY = {}
local is_integer = rawget(math, "type") -- Lua 5.4's

--- Marks a table as an array, so that it is one when it is empty, too.
function M.array(t)
  return setmetatable(t, ARRAY)
end

local quote = text.quote

local function number(n)
  if n ~= n or n == math.huge or n == -math.huge then
    return "null"
  end
  return is_integer and is_integer(n) == "integer" and ("%d"):format(n) or core.number(n)
end

local encode

local function object(t)
  local keys, out = {}, {}
  for k in pairs(t) do
    keys[#keys + 1] = tostring(k)
  end
  table.sort(keys)
  for i, k in ipairs(keys) do
    out[i] = quote(k) .. ":" .. encode(t[k])
  end
  return "{" .. table.concat(out, ",") .. "}"
end

local function array(t)
  local out = {}
  for i, v in ipairs(t) do
    out[i] = encode(v)
  end
  return "[" .. table.concat(out, ",") .. "]"
end

--- The text of a value: on one line.
function encode(v)
  local kind = type(v)
  if kind == "table" then
    local given = json.kept(v)
    local is_array = getmetatable(v) == ARRAY or json.is_empty_array(v) or v[1] ~= nil
    return given and text.json(given) or (is_array and array or object)(v)
  elseif kind == "string" then
    return quote(v)
  elseif kind == "number" then
    return number(v)
  elseif v == json.null or kind ~= "boolean" then
    return "null"
  end
  return tostring(v)
end
M.encode = encode

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
