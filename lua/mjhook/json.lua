--- JSON with limits: a cjson of our own, so that nobody's settings change ours.
-- Debian's lua-cjson 2.1.0 takes NaN and any depth by default; this one does not.
local cjson = require("cjson").new()

cjson.decode_max_depth(24)           -- the provider nests 4 deep; a well is refused, not climbed into
cjson.encode_max_depth(24)
cjson.decode_invalid_numbers(false)
cjson.encode_invalid_numbers(false)
cjson.encode_sparse_array(false, 2, 64)
cjson.encode_keep_buffer(false)

local M = { null = cjson.null }

local OUT_OF_MEMORY = "not enough memory" -- as both Luas say it

local tointeger = rawget(math, "tointeger") -- Lua 5.4 has integers beside floats, LuaJIT has not

--- Decodes a document.
-- @tparam string text
-- @return the value, or nil and what is wrong with it
function M.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok then
    return value
  elseif value == OUT_OF_MEMORY then
    error(value, 0) -- nothing is wrong with the document
  end
  return nil, (tostring(value):gsub("^.-:%d+: ", ""))
end

-- cjson writes numbers with 14 digits, which damages ids: they are written here, shortest first.
local function number(v)
  if v ~= v or v == math.huge or v == -math.huge then
    error("a number that JSON does not have", 0)
  elseif tointeger and (v > 2 ^ 53 or v < -2 ^ 53) and tointeger(v) and tointeger(v + 0.0) ~= v then
    error(("%d is more than a JSON number holds: give it as a string"):format(v), 0)
  elseif v == math.floor(v) and v > -2 ^ 53 and v < 2 ^ 53 then
    return ("%.0f"):format(v)
  end
  for _, format in ipairs { "%.14g", "%.15g", "%.16g" } do
    local text = format:format(v)
    if tonumber(text) == v then
      return text
    end
  end
  return ("%.17g"):format(v)
end

-- The length of a list; nil when the table is an object. The empty table is an object, as for cjson.
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
  return n > 0 and n or nil
end

local write

local function write_table(t, out, depth)
  if depth > 24 then
    error("nested too deep", 0)
  end
  local n = length(t)
  out[#out + 1] = n and "[" or "{"
  if n then
    for i = 1, n do
      out[#out + 1] = i > 1 and "," or nil
      write(t[i], out, depth)
    end
  else
    local first = true
    for k, v in pairs(t) do
      if type(k) ~= "string" then
        error("keys of an object have to be strings", 0)
      end
      out[#out + 1] = first and cjson.encode(k) or "," .. cjson.encode(k)
      out[#out + 1] = ":"
      write(v, out, depth)
      first = false
    end
  end
  out[#out + 1] = n and "]" or "}"
end

function write(v, out, depth)
  local kind = type(v)
  if kind == "table" then
    write_table(v, out, depth + 1)
  elseif kind == "number" then
    out[#out + 1] = number(v)
  else
    out[#out + 1] = cjson.encode(v) -- strings, booleans, null; an error for functions and the like
  end
end

--- Encodes a value.
-- @treturn string|nil text, or nil and why it can't be encoded
function M.encode(value)
  if type(value) == "string" then
    return cjson.encode(value) -- never fails
  end
  local out = {}
  local ok, why = pcall(write, value, out, 0)
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
    return ("n%.17g"):format(value)
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

return M
