--- JSON for other programs: keys in order, whole numbers whole, empty arrays as arrays, nothing a terminal obeys.
-- (cjson has no order, cuts numbers to 14 digits and can't tell an empty array from an empty object.)
local null = require("mjhook.json").null
local text = require "mjhook.text"

local M = {}

local ARRAY = {}

--- Marks a table as an array, so that it is one when it is empty, too.
function M.array(t)
  return setmetatable(t, ARRAY)
end

local quote = text.quote

local function number(n)
  if n ~= n or n == math.huge or n == -math.huge then
    return "null"
  elseif n == math.floor(n) and n > -2 ^ 53 and n < 2 ^ 53 then
    return ("%d"):format(n)
  end
  local short = ("%.15g"):format(n)
  return tonumber(short) == n and short or ("%.17g"):format(n)
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
    return (getmetatable(v) == ARRAY or v[1] ~= nil) and array(v) or object(v)
  elseif kind == "string" then
    return quote(v)
  elseif kind == "number" then
    return number(v)
  elseif v == null or kind ~= "boolean" then
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
