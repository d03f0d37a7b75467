--- Which fault, if any, the next request or callback meets.
-- A fault is a table { fault = KIND, ms =, retry_after =, ... }: either the next
-- entry of the target's script, or one drawn at the target's rates.

local bit = require "bit"

local bxor, lshift, rshift = bit.bxor, bit.lshift, bit.rshift

local _M = {}

local function set(words)
    local out = {}
    for word in words:gmatch("%S+") do
        out[word] = true
    end
    return out
end

local function union(...)
    local out = {}
    for _, kinds in ipairs { ... } do
        for kind in pairs(kinds) do
            out[kind] = true
        end
    end
    return out
end

-- The request is not acted on.
local before = set [[
    quota concurrency error rate_limit unauthorized forbidden
    error_number error_401 error_404 http_400 http_402 http_404 http_405 http_406
    http_409 http_413 http_415 http_422 http_500 http_502 http_503 http_504
    html_400 html_401 html_402 html_403 html_404 html_405 html_413 html_415
    html_422 html_429 html_503 cf_401 cf_403 cf_429 cf_503
    redirect hang cut reset ]]
-- The request is acted on; its answer is withheld or damaged.
local after = set [[
    http_500_after http_502_after http_503_after hang_after cut_after reset_after
    cut_body stall slow trickle huge garbage truncated empty_body
    bad_envelope wrong_types null_data created accepted accepted_404 bom gzip
    gzip_unsaid gzip_cut word_envelope ]]
-- The same to the body of a callback.
local body = set [[
    garbage truncated empty_body bad_envelope wrong_types bom gzip gzip_unsaid
    gzip_cut oversized ]]
-- One task object is damaged (in a status answer or in a callback).
local task = set [[
    empty_image string_numbers nulls sparse image_objects image_map odd_status odd_types
    word_status unknown_word no_status job_id message_reason error_reason
    odd_urls upper_urls nan bad_escape deep giant ]]

_M.task_kinds = union(task, set "unknown twice contradictory")
_M.before_kinds = before

--- target -> the kinds it can meet
_M.targets = {
    submit = union(before, after, set "string_numbers nulls odd_task_id"),
    status = union(before, after, _M.task_kinds, set "list_wrapper"),
    callback = union(task, body, set [[
        drop double delay reorder contradict escaped_hook second_query ]]),
    image = union(before, after),
    sink = union(before, after),
}

local scripts, tables, streams, counts = {}, {}, {}, {}

-- xorshift32 in [0, 1). Each target draws from its own stream, so that polling
-- does not change which submission fails.
local function stream(seed, name)
    local x = bit.tobit(ngx.crc32_long(name .. ":" .. seed))
    if x == 0 then
        x = 1
    end
    return function()
        x = bxor(x, lshift(x, 13))
        x = bxor(x, rshift(x, 17))
        x = bxor(x, lshift(x, 5))
        return x % 4294967296 / 4294967296
    end
end

local function count(target, kind)
    local of = counts[target]
    of[kind] = (of[kind] or 0) + 1
end

--- A number in [0, 1) from the seeded stream of that name.
function _M.random(name)
    local draw = streams[name]
    if not draw then
        draw = stream(_M.seed, name)
        streams[name] = draw
    end
    return draw()
end

--- Are these rates of known kinds that add up to at most 1? Or nil and why not.
function _M.check_rates(target, rates)
    local sum = 0
    for kind, rate in pairs(rates) do
        if not _M.targets[target][kind] then
            return nil, "unknown fault " .. target .. "." .. tostring(kind)
        elseif type(rate) ~= "number" or not (rate >= 0 and rate <= 1) then
            return nil, target .. "." .. kind .. " must be a rate from 0 to 1"
        end
        sum = sum + rate
    end
    if sum > 1 + 1e-9 then
        return nil, "the rates of " .. target .. " add up to more than 1"
    end
    return true
end

-- A sorted array, because the order of pairs() would not repeat per seed.
local function cumulative(rates, wanted)
    local kinds, out, sum = {}, {}, 0
    for kind, rate in pairs(rates) do
        if rate > 0 and wanted(kind) then
            kinds[#kinds + 1] = kind
        end
    end
    table.sort(kinds)
    for i, kind in ipairs(kinds) do
        sum = sum + rates[kind]
        out[i] = { fault = kind, below = sum }
    end
    return out
end

--- Takes over checked rates; a new seed, if given, restarts every stream.
function _M.set_rates(values, seed)
    for target in pairs(_M.targets) do
        tables[target] = cumulative(values[target], function(kind)
            return target ~= "status" or not _M.task_kinds[kind]
        end)
    end
    -- Damage to a task is drawn per task, not per status request.
    tables.task = cumulative(values.status, function(kind)
        return _M.task_kinds[kind]
    end)
    if seed then
        _M.seed, streams = seed, {}
    end
end

--- Forgets scripts and counts.
function _M.reset()
    for target in pairs(_M.targets) do
        scripts[target], counts[target] = {}, {}
    end
end

--- Appends entries ("KIND" or {fault=KIND, n=, ms=, bytes=, retry_after=,
-- taskId=}; "ok" is no fault) to the target's script. All of them, or nil and why not.
function _M.script(target, entries)
    local kinds = _M.targets[target]
    if not kinds or type(entries) ~= "table" then
        return nil, "no script for " .. tostring(target)
    end
    local checked = {}
    for i, given in ipairs(entries) do
        local entry = { n = 1 }
        if type(given) == "table" then
            for name, value in pairs(given) do
                entry[name] = value
            end
        else
            entry.fault = given
        end
        if not kinds[entry.fault] and entry.fault ~= "ok" then
            return nil, "unknown fault " .. target .. "." .. tostring(entry.fault)
        elseif type(entry.n) ~= "number" or entry.n < 1 then
            return nil, "n must be a number of at least 1"
        end
        for _, name in ipairs { "ms", "bytes", "retry_after" } do
            local value = entry[name]
            if value ~= nil and not (type(value) == "number" and value >= 0) then
                return nil, name .. " must be a number"
            end
        end
        checked[i] = entry
    end
    for _, entry in ipairs(checked) do
        table.insert(scripts[target], entry)
    end
    return true
end

--- What is left of the scripts.
function _M.scripts()
    return scripts
end

function _M.counts()
    return counts
end

local function draw(name, target)
    local rates = tables[name]
    if not rates[1] then
        return nil
    end
    local x = _M.random(name)
    for i = 1, #rates do
        if x < rates[i].below then
            count(target, rates[i].fault)
            return rates[i]
        end
    end
end

--- The fault of this request or callback, or nil. `wanted` is the kind asked
-- for in the prompt, if any; it goes before the script.
function _M.next(target, wanted)
    if wanted and _M.targets[target][wanted] then
        count(target, wanted)
        return { fault = wanted }
    end
    local entry = scripts[target][1]
    if not entry then
        return draw(target, target)
    end
    entry.n = entry.n - 1
    if entry.n < 1 then
        table.remove(scripts[target], 1)
    end
    if entry.fault ~= "ok" then
        count(target, entry.fault)
        return entry
    end
end

--- The damage to one task of a status answer, or nil.
function _M.next_task()
    local fault = draw("task", "status")
    return fault and fault.fault
end

_M.reset()

return _M
