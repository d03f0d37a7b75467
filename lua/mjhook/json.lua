--- JSON with limits, and nothing lost on the way: empty arrays stay arrays, numbers have a point in every locale, and
-- text that is not ours to read is passed on as it is (`keep`).
local core = require "mjhook.core"

local M = {}

local EMPTY = {} -- metatable of empty arrays, which nothing else tells from empty objects
local texts = setmetatable({}, { __mode = "k" }) -- of tables that keep() made

--- What stands for null: a light userdata, the same as cjson.null.
M.null = core.json_decode("null", EMPTY)

local OUT_OF_MEMORY = "not enough memory" -- as both Luas say it
local tointeger = rawget(math, "tointeger") -- Lua 5.4 has integers beside floats, LuaJIT has not

--- Decodes a document.
-- @tparam string text
-- @return the value, or nil and what is wrong with it
function M.decode(text)
  return core.json_decode(text, EMPTY)
end

--- Marks a table as an array, so that it is one when it is empty, too.
function M.array(t)
  return setmetatable(t, EMPTY)
end

--- Whether a table is an array that is empty, as decode() gives it.
function M.is_empty_array(t)
  return getmetatable(t) == EMPTY and next(t) == nil
end

local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then
    error("a number that JSON does not have", 0)
  elseif tointeger and (v > 2 ^ 53 or v < -2 ^ 53) and tointeger(v) and tointeger(v + 0.0) ~= v then
    error(("%d is more than a JSON number holds: give it as a string"):format(v), 0)
  end
  return core.number(v)
end

-- The length of a list; nil when the table is an object. The empty table is an object, unless it was decoded as array.
local function length(t)
  local n = 0
  for k in pairs(t) do
    if type(k) ~= "number" then
      return nil
    end
    n = n + 1
  end
  if n > 0 and n ~= #t then
    error("a list with holes", 0)
  end
  return n > 0 and n or M.is_empty_array(t) and 0 or nil
end

-- In order, so that the same value is the same text in each process.
local function sorted_keys(t)
  local names = {}
  for k in pairs(t) do
    if type(k) ~= "string" then
      error("keys of an object have to be strings", 0)
    end
    names[#names + 1] = k
  end
  table.sort(names)
  return names
end

-- How values are written: text as it is, and what JSON does not have is an error.
local EXACT = {
  string = core.json_string,
  length = length,
  number = number,
  kept = function(text)
    return text
  end,
  other = function(kind)
    error("a " .. kind .. " can't be written", 0)
  end,
}

local write

local function write_table(t, out, style, depth)
  local text = M.kept(t)
  if text then
    out[#out + 1] = style.kept(text)
    return
  end
  if depth > 24 then
    error("nested too deep", 0)
  end
  local n = style.length(t)
  out[#out + 1] = n and "[" or "{"
  if n then
    for i = 1, n do
      out[#out + 1] = i > 1 and "," or nil
      write(t[i], out, style, depth)
    end
  else
    for i, k in ipairs(sorted_keys(t)) do
      out[#out + 1] = i == 1 and style.string(k) or "," .. style.string(k)
      out[#out + 1] = ":"
      write(t[k], out, style, depth)
    end
  end
  out[#out + 1] = n and "]" or "}"
end

function write(v, out, style, depth)
  local kind = type(v)
  if kind == "table" then
    write_table(v, out, style, depth + 1)
  elseif kind == "number" then
    out[#out + 1] = style.number(v)
  elseif kind == "string" then
    out[#out + 1] = style.string(v)
  elseif kind == "boolean" then
    out[#out + 1] = tostring(v)
  elseif v == M.null then
    out[#out + 1] = "null"
  else
    out[#out + 1] = style.other(kind)
  end
end

--- Encodes a value.
-- @param value
-- @tparam[opt] table style how values are written: functions `string`, `number`, `kept` (a text of keep()) and `other`,
-- which give JSON text, and `length` (nil: the table is an object)
-- @treturn string|nil text, or nil and why it can't be encoded
function M.encode(value, style)
  style = style or EXACT
  if type(value) == "string" then
    return style.string(value) -- never fails
  end
  local out = {}
  local ok, why = pcall(write, value, out, style, 0)
  if ok then
    return table.concat(out)
  elseif why == OUT_OF_MEMORY then
    error(why, 0)
  end
  return nil, (tostring(why):gsub("^.-:%d+: ", ""))
end

-- The same text for equal numbers, however they are kept: 7 and 7.0, on either Lua.
local function scalar(value)
  if type(value) == "number" then
    return value == value and math.abs(value) < math.huge and "n" .. core.number(value, 17) or tostring(value)
  elseif type(value) == "string" then
    return ("s%d:%s"):format(#value, value)
  end
  return value == M.null and "null" or tostring(value)
end

local function canonical(value, out, depth)
  if type(value) ~= "table" then
    out[#out + 1] = scalar(value)
    return
  end
  if depth > 24 then
    error("nested too deep", 0)
  end
  local keys, of = {}, {}
  for k, v in pairs(value) do
    local name = scalar(k)
    keys[#keys + 1] = name
    of[name] = v
  end
  table.sort(keys)
  out[#out + 1] = "{"
  for _, name in ipairs(keys) do
    out[#out + 1] = name .. "="
    canonical(of[name], out, depth + 1)
  end
  out[#out + 1] = "}"
end

--- A text that is the same for equal values, whatever the order of their keys, and differs for others.
function M.canonical(value)
  if type(value) ~= "table" then
    return scalar(value)
  end
  local out = {}
  canonical(value, out, 0)
  return table.concat(out, "\n")
end

--- Turns the whole numbers in a decoded value into integers, where Lua has them: cjson gives floats.
function M.whole(value)
  if not tointeger then
    return value
  elseif type(value) == "number" then
    return tointeger(value) or value
  elseif type(value) == "table" then
    for k, v in pairs(value) do
      value[k] = M.whole(v)
    end
  end
  return value
end

--- Decodes a document that is passed on later: encode() of the table writes the text as it was, digit by digit, as long
-- as nothing in it is changed. (Of a document that is no array and no object it writes the value.)
-- @treturn value whole numbers as integers, where Lua has them; nil and what is wrong
function M.keep(text)
  local value, why = M.decode(text)
  value = M.whole(value)
  if type(value) == "table" then
    texts[value] = text
  end
  return value, why
end

--- The text of a table that keep() made, if it was not changed since; nil of any other.
function M.kept(value)
  local text = type(value) == "table" and texts[value]
  return text and M.canonical(value) == M.canonical(M.whole(M.decode(text))) and text or nil
end

return M
