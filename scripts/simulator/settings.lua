--- The switches: defaults, what the launcher was given, and changes at run time.
-- `settings.values` is one table for the life of the process, so that modules
-- may keep a reference to it. What the switches mean is in `simulator --help`.

local faults = require "faults"
local json = require "json"

local _M = {}

local HOME = debug.getinfo(1, "S").source:match("^@(.*/)") or ""

local defaults = {
    keys = { "test-key" },
    seed = 1,
    limit = 10,
    max_batch = 0,
    status_order = "reverse",
    delay_ms = 100,
    jitter_ms = 0,
    fail_rate = 0,
    timeout_unit_ms = 1000,
    callback_delay_ms = 0,
    callback_format = "envelope",
    callback_retries = 0,
    callback_retry_ms = 1000,
    callback_timeout_ms = 5000,
    callback_connections = 64,
    callback_keepalive = false,
    callback_origin = "",
    callback_progress = false,
    late_ms = 1000,
    slow_ms = 1000,
    retry_after = 1,
    image_base = "",
    image_size = 64,
    integer_ids = false,
    ledger = true,
    keep_jobs = 0,
    submit = {}, status = {}, callback = {}, image = {}, sink = {},
}

local choices = {
    callback_format = { envelope = true, bare = true, array = true, reseller = true, mixed = true },
    status_order = { reverse = true, asked = true },
}

_M.values = {}
_M.key_set = {}

local initial = {}  -- what reset returns to

local function copy(value)
    if type(value) ~= "table" then
        return value
    end
    local out = {}
    for k, v in pairs(value) do
        out[k] = copy(v)
    end
    return out
end

-- nil, or what is wrong with this value.
local function complaint(name, value)
    local default = defaults[name]
    if default == nil then
        return "unknown switch " .. tostring(name)
    elseif type(value) ~= type(default) then
        return name .. " must be a " .. type(default)
    elseif type(value) == "number" and not (value >= 0 and value < 2 ^ 40) then
        return name .. " must not be negative or huge"
    elseif choices[name] and not choices[name][value] then
        return name .. " does not know " .. value
    elseif name == "image_size" and (value < 2 or value > 4096 or value % 1 ~= 0) then
        return "image_size must be an integer from 2 to 4096"
    elseif name == "keys" then
        for _, key in ipairs(value) do
            if type(key) ~= "string" or key == "" then
                return "keys must be non-empty strings"
            end
        end
        if #value == 0 then
            return "keys must not be empty"
        end
    end
end

local function apply(values, patch)
    for name, value in pairs(patch) do
        if faults.targets[name] then
            for kind, rate in pairs(value) do
                values[name][kind] = rate
            end
        else
            values[name] = copy(value)
        end
    end
end

--- Merges patch into the switches, all of it or, with nil and a reason, nothing.
function _M.merge(patch)
    for name, value in pairs(patch) do
        local err = complaint(name, value)
        if err then
            return nil, err
        end
    end
    local values = copy(_M.values)
    apply(values, patch)
    for target in pairs(faults.targets) do
        local ok, err = faults.check_rates(target, values[target])
        if not ok then
            return nil, err
        end
    end
    apply(_M.values, patch)

    for key in pairs(_M.key_set) do
        _M.key_set[key] = nil
    end
    for _, key in ipairs(_M.values.keys) do
        _M.key_set[key] = true
    end
    faults.set_rates(_M.values, patch.seed)
    return true
end

--- Back to the switches the simulator was started with.
function _M.reset()
    for name in pairs(_M.values) do
        _M.values[name] = nil
    end
    for name, value in pairs(initial) do
        _M.values[name] = copy(value)
    end
    assert(_M.merge { seed = initial.seed })
end

-- A --set value is JSON, or else a string as it is.
local function parse(text)
    local value = json.decode("[" .. text .. "]")
    if value and #value == 1 then
        return value[1]
    end
    return text
end

--- Reads the launcher's file: one name=value a line, `key` may repeat,
-- `submit.quota` is a rate. With a switch that is wrong, nginx does not start: it ends
-- with 64.
function _M.load(path)
    initial = copy(defaults)
    _M.reset()

    local patch, keys = {}, {}
    for line in io.lines(path) do
        local name, text = line:match("^([%w_.]+)=(.*)$")
        assert(name, "not name=value: " .. line)
        local target, kind = name:match("^(%a+)%.([%w_]+)$")
        if name == "key" then
            keys[#keys + 1] = text
        elseif target then
            patch[target] = patch[target] or {}
            patch[target][kind] = parse(text)
        elseif type(defaults[name]) == "string" then
            patch[name] = text
        else
            patch[name] = parse(text)
        end
    end
    if #keys > 0 then
        patch.keys = keys
    end

    local ok, err = _M.merge(patch)
    if not ok then
        -- nginx would add a traceback to an error raised here. It is not in the background yet, and owns nothing.
        io.stderr:write("simulator: --set: ", err, " (try ", HOME, "simulator --help)\n")
        os.exit(64)
    end
    initial = copy(_M.values)
end

return _M
