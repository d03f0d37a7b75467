--- The tests' side of the simulator, below /_sim/.

local settings = require "settings"
local faults = require "faults"
local clock = require "clock"
local jobs = require "jobs"
local callbacks = require "callbacks"
local simulator = require "simulator"
local wire = require "wire"
local json = require "json"

local cfg = settings.values

local _M = {}

local sink, sunk = {}, 0

local function answer(value)
    wire.send(200, json.encode(value))
    return true
end

local function bad(why)
    wire.send(400, json.encode { error = why })
end

local function job_view(job)
    return {
        taskId = job.id, status = job.status, failReason = job.reason,
        ref = job.ref, attempt = job.attempt, hookUrl = job.hook,
        prompt = job.prompt, mode = job.mode, timeout = job.timeout,
        accepted_at = job.accepted_at, finished_at = job.finished_at,
        forgotten = job.forgotten, callbacks = json.array(job.callbacks or {}),
    }
end

local function counters()
    local accounts = jobs.books()
    return {
        requests = simulator.counters.requests,
        refused = simulator.counters.refused,
        polled = simulator.counters.polled,
        faults = faults.counts(),
        callbacks = callbacks.counters,
        sink = sunk,
        accounts = accounts,
        lua_kib = math.floor(collectgarbage("count")),
    }
end

local function ledger()
    local _, accepted, refs = jobs.books()
    local list, twice = json.array {}, json.array {}
    for i, job in ipairs(accepted) do
        list[i] = job_view(job)
    end
    for ref, of in pairs(refs) do
        for attempt, times in pairs(of.attempts) do
            if times > 1 then
                twice[#twice + 1] = { ref = ref, attempt = attempt, times = times }
            end
        end
    end
    return { submissions = list, refs = refs, billed_twice = twice, counters = counters() }
end

local function scripts()
    local out = {}
    for target, entries in pairs(faults.scripts()) do
        out[target] = json.array(entries)
    end
    return out
end

local function reset()
    clock.clear()
    jobs.reset()
    callbacks.reset()
    faults.reset()
    simulator.reset()
    settings.reset()
    sink, sunk = {}, 0
end

-- The job a request body names, or nil after an answer was given.
local function named_job(args)
    local job = args.taskId and jobs.get(args.taskId)
    if not job then
        return bad("no such taskId")
    end
    return job
end

-- A callback receiver for tests; what follows /_sim/sink in the URL is free.
local function serve_sink(method)
    if method ~= "POST" then
        return answer { received = json.array(sink), count = sunk }
    end
    ngx.req.read_body()
    local fault = faults.next("sink")
    if wire.refused(fault) then
        return
    end
    sunk = sunk + 1
    if cfg.ledger then
        sink[#sink + 1] = {
            at = clock.ms(), uri = ngx.var.request_uri, scheme = ngx.var.scheme,
            content_type = ngx.var.http_content_type, body = ngx.req.get_body_data() or "",
        }
    end
    return wire.answer("{}", fault)
end

local get = {
    health = function() return answer { pid = ngx.worker.pid() } end,
    config = function() return answer(cfg) end,
    script = function() return answer(scripts()) end,
    ledger = function() return answer(ledger()) end,
    counters = function() return answer(counters()) end,
}

local post = {}

function post.config(args)
    local ok, err = settings.merge(args)
    return ok and answer(cfg) or bad(err)
end

function post.script(args)
    for target, entries in pairs(args) do
        local ok, err = faults.script(target, entries)
        if not ok then
            return bad(err)
        end
    end
    return answer(scripts())
end

function post.reset()
    reset()
    return answer {}
end

function post.finish(args)
    local job = named_job(args)
    if job then
        local status = args.status or job.outcome
        if status ~= 1 and status ~= 2 then
            return bad("status must be 1 or 2")
        end
        if not jobs.finish(job, status, args.failReason or (status == 2 and "failed" or nil)) then
            return bad("the job is finished already")
        end
        return answer(job_view(job))
    end
end

function post.callback(args)
    local job = named_job(args)
    if job then
        if not job.hook then
            return bad("the job has no hookUrl")
        end
        callbacks.now(job)
        return answer(job_view(job))
    end
end

function post.forget(args)
    local job = named_job(args)
    if job then
        jobs.forget(job)
        return answer(job_view(job))
    end
end

--- Everything below /_sim/
function _M.serve()
    local method = ngx.req.get_method()
    local name, rest = ngx.var.uri:match("^/_sim/(%l+)(.*)$")
    if name == "sink" then
        return serve_sink(method)
    elseif name == "jobs" and method == "GET" then
        local job = jobs.get(rest:sub(2))
        return job and answer(job_view(job)) or bad("no such taskId")
    end
    local handler = (method == "POST" and post or get)[name]
    if not handler then
        return wire.refuse_with(404, 404, "no such control")
    end
    if method ~= "POST" or name == "reset" then
        return handler()
    end
    ngx.req.read_body()
    local args, err = json.decode(ngx.req.get_body_data())
    if not args then
        return bad(err)
    end
    return handler(args)
end

return _M
