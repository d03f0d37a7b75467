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

-- Appends to one flat list: LuaJIT hashes only a few bytes of a string when it
-- interns it, so thousands of long and similar intermediate strings collide.
local function append(out, value)
    if type(value) ~= "table" then
        out[#out + 1] = cjson.encode(value)
    elseif getmetatable(value) == array_mt or #value > 0 then
        out[#out + 1] = "["
        for i = 1, #value do
            out[#out + 1] = i > 1 and "," or ""
            append(out, value[i])
        end
        out[#out + 1] = "]"
    else
        local names = {}
        for name in pairs(value) do
            names[#names + 1] = name
        end
        table.sort(names)  -- answers that a person can compare
        out[#out + 1] = "{"
        for i, name in ipairs(names) do
            out[#out + 1] = i > 1 and "," or ""
            out[#out + 1] = cjson.encode(tostring(name))
            out[#out + 1] = ":"
            append(out, value[name])
        end
        out[#out + 1] = "}"
    end
end

--- The JSON text of value.
function _M.encode(value)
    local out = {}
    append(out, value)
    return table.concat(out)
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
