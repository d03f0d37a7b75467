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

--- Decodes a document.
-- @tparam string text
-- @return the value, or nil and what is wrong with it
function M.decode(text)
  local ok, value = pcall(cjson.decode, text)
  if ok then
    return value
  end
  return nil, (tostring(value):gsub("^.-:%d+: ", ""))
end

--- Encodes a value.
-- @treturn string|nil text, or nil and why it can't be encoded
function M.encode(value)
  local ok, text = pcall(cjson.encode, value)
  if ok then
    return text
  end
  return nil, (tostring(text):gsub("^.-:%d+: ", ""))
end

local function canonical(value, out, depth)
  if type(value) ~= "table" then
    out[#out + 1] = type(value) .. ":" .. tostring(value)
    return
  end
  if depth > 24 then
    error("nested too deep", 0)
  end
  local keys = {}
  for k in pairs(value) do
    keys[#keys + 1] = k
  end
  table.sort(keys, function(a, b)
    return tostring(a) < tostring(b)
  end)
  out[#out + 1] = "{"
  for _, k in ipairs(keys) do
    out[#out + 1] = tostring(k) .. "="
    canonical(value[k], out, depth + 1)
  end
  out[#out + 1] = "}"
end

--- A text that is the same for equal values, whatever the order of their keys.
function M.canonical(value)
  local out = {}
  canonical(value, out, 0)
  return table.concat(out, "\n")
end

return M
