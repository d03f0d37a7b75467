--- The simulated Midjourney API: its two endpoints and the images.
-- A fault meets only requests that are otherwise right: the key and the
-- arguments are checked first, so a bad request uses up no scripted entry.

local settings = require "settings"
local faults = require "faults"
local jobs = require "jobs"
local task = require "task"
local wire = require "wire"
local png = require "png"
local json = require "json"
local cjson = require "cjson"

local cfg = settings.values
local keys = settings.key_set
local null = cjson.null

local _M = {}

local function new_counters()
    return { requests = { submit = 0, status = 0, image = 0 }, refused = {}, polled = 0 }
end

_M.counters = new_counters()

function _M.reset()
    _M.counters = new_counters()
end

local function count_refusal(kind)
    local refused = _M.counters.refused
    refused[kind] = (refused[kind] or 0) + 1
end

local function refuse(kind, http, code, message)
    count_refusal(kind)
    return wire.refuse_with(http, code, message)
end

-- The key and the decoded body, or nil after an answer was given.
local function read_request(endpoint)
    local requests = _M.counters.requests
    requests[endpoint] = requests[endpoint] + 1
    if ngx.req.get_method() ~= "POST" then
        return refuse("method", 405, 405, "POST only")
    end
    local key = ngx.var.http_api_key
    if not key or not keys[key] then
        return refuse("unauthorized", 401, 401, "invalid API key")
    end
    ngx.req.read_body()
    local args, err = json.decode(ngx.req.get_body_data())
    if not args then
        return refuse("invalid", 400, 400, err)
    end
    return key, args
end

-- nil, or what is wrong. Fills in the defaults.
local function check_submit(args)
    for name, value in pairs(args) do
        if value == null then
            args[name] = nil
        end
    end
    local prompt = args.prompt
    if type(prompt) ~= "string" or not prompt:find("%S") then
        return "prompt is required"
    elseif #prompt > 10000 then
        return "prompt is too long"
    end
    args.mode = args.mode or "fast"
    if args.mode ~= "fast" and args.mode ~= "relaxed" then
        return "mode must be fast or relaxed"
    end
    local timeout = args.timeout or 600
    if type(timeout) ~= "number" or timeout % 1 ~= 0 or timeout < 300 or timeout > 1200 then
        return "timeout must be an integer from 300 to 1200"
    end
    args.timeout = timeout
    local hook = args.hookUrl
    if hook and (type(hook) ~= "string" or not hook:find("^https?://[^/?#]")
                 or hook:find("[%c ]")) then
        return "hookUrl must be an http URL"
    end
end

--- POST /midjourney/v1/submit-jobs
function _M.submit()
    local key, args = read_request("submit")
    if not key then
        return
    end
    local err = check_submit(args)
    if err then
        return refuse("invalid", 400, 400, err)
    end

    local wants = jobs.wishes(args.prompt)
    local fault = faults.next("submit", wants and wants.submit)
    if fault and faults.before_kinds[fault.fault] then
        count_refusal(fault.fault)
        return wire.refused(fault)
    end
    if jobs.full(key) then
        return refuse("concurrency", 200, 1002, "concurrency limit reached")
    end
    local job = jobs.accept(key, args, wants)
    local text = '{"status":0,"message":"success","data":{"taskId":"' .. job.id .. '"}}'
    return wire.answer(cfg.integer_ids and task.with_integer_ids(text) or text, fault)
end

local function check_ids(args)
    local ids = args.taskIds
    if type(ids) ~= "table" then
        return "taskIds must be an array"
    elseif cfg.max_batch > 0 and #ids > cfg.max_batch then
        return "too many taskIds"
    end
    for name, id in pairs(ids) do
        if type(name) ~= "number" or type(id) ~= "string" then
            return "taskIds must be an array of strings"
        end
    end
end

--- POST /midjourney/v1/job-status
function _M.status()
    local key, args = read_request("status")
    if not key then
        return
    end
    local err = check_ids(args)
    if err then
        return refuse("invalid", 400, 400, err)
    end

    local fault = faults.next("status")
    if wire.refused(fault) then
        return
    end
    local ids = args.taskIds
    local scripted = fault and faults.task_kinds[fault.fault] and fault.fault
    local from, to, step = 1, #ids, 1
    if cfg.status_order == "reverse" then  -- no client may rely on the order
        from, to, step = #ids, 1, -1
    end

    local found, n = {}, 0
    for i = from, to, step do
        local id = ids[i]
        local job = jobs.get(id, key)
        if job then
            local kind = job.wants and job.wants.status or faults.next_task()
            if scripted and (not fault.taskId or fault.taskId == id) then
                kind = scripted
            end
            if kind and not faults.task_kinds[kind] then  -- because of this task the whole request fares so
                fault, kind = { fault = kind }, nil
                if wire.refused(fault) then
                    return
                end
            end
            if kind ~= "unknown" then
                n = n + 1
                found[n] = task.text(task.object(job, kind), kind)
            end
            if kind == "twice" or kind == "contradictory" then
                local status = kind == "contradictory" and (job.status == 2 and 1 or 2) or job.status
                n = n + 1
                found[n] = task.text(task.object(job, kind, status))
            end
        end
    end
    _M.counters.polled = _M.counters.polled + n

    local text = "[" .. table.concat(found, ",") .. "]"
    if fault and fault.fault == "list_wrapper" then
        text = '{"list":' .. text .. ',"total":' .. n .. "}"
    end
    return wire.answer('{"status":0,"message":"success","data":' .. text .. "}",
                       not scripted and fault or nil)
end

--- GET /images/<taskId>/<grid|0..3>.png
function _M.image()
    _M.counters.requests.image = _M.counters.requests.image + 1
    local id, name = ngx.var.uri:match("^/images/([%w_-]+)/(%w+)%.png$")
    local job = id and jobs.get(id)
    if not job or job.status ~= 1 or not (name == "grid" or name:find("^[0-3]$")) then
        return wire.refuse_with(404, 404, "no such image")
    end
    local fault = faults.next("image")
    if wire.refused(fault) then
        return
    end
    ngx.header.content_type = "image/png"
    local size = cfg.image_size
    return wire.answer(name == "grid" and png.grid(id, size)
                       or png.single(id, tonumber(name), size), fault)
end

return _M
