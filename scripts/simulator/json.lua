--- JSON for the control endpoints. cjson (the original, as distributions ship
-- it) writes an empty table as {}; here json.array{} stays [].
-- The provider's endpoints, where speed counts, use cjson directly.

local cjson = require "cjson"

local _M = { null = cjson.null }

local array_mt = {}

--- Marks t as an array, empty or not.
function _M.array(t)
    return setmetatable(t, array_mt)
end

function _M.encode(value)
    if type(value) ~= "table" then
        return cjson.encode(value)
    end
    local out = {}
    if getmetatable(value) == array_mt or #value > 0 then
        for i = 1, #value do
            out[i] = _M.encode(value[i])
        end
        return "[" .. table.concat(out, ",") .. "]"
    end
    local names = {}
    for name in pairs(value) do
        names[#names + 1] = name
    end
    table.sort(names)  -- answers that a person can compare
    for i, name in ipairs(names) do
        out[i] = cjson.encode(tostring(name)) .. ":" .. _M.encode(value[name])
    end
    return "{" .. table.concat(out, ",") .. "}"
end

--- The decoded object or array, or nil and why not.
function _M.decode(text)
    if not text or text == "" then
        return nil, "the body is empty"
    end
    local ok, value = pcall(cjson.decode, text)
    if not ok then
        return nil, "the body is not JSON"
    end
    if type(value) ~= "table" then
        return nil, "the body is not a JSON object"
    end
    return value
end

return _M
