--- The jobs the provider has accepted, and the books about them.

local settings = require "settings"
local faults = require "faults"
local clock = require "clock"
local callbacks = require "callbacks"
local bit = require "bit"

local cfg = settings.values
local band, rshift = bit.band, bit.rshift

local _M = {}

local jobs          -- taskId -> job
local accounts      -- key -> { unfinished, max_unfinished, accepted, finished }
local accepted      -- every job in order, with ledger = true
local refs          -- ref -> { accepted, attempts = { attempt -> times } }
local finished_ids  -- ring of ids, with keep_jobs > 0
local finished_first, finished_last

local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

-- Ids do not follow the seed: a restarted simulator must not hand out the ids
-- of the one before, which its clients still remember.
local random32
do
    local file = assert(io.open("/dev/urandom", "rb"))
    local a, b, c, d = file:read(4):byte(1, 4)
    file:close()
    local x = bit.bor(bit.lshift(a, 24), bit.lshift(b, 16), bit.lshift(c, 8), d, 1)
    function random32()
        x = bit.bxor(x, bit.lshift(x, 13))
        x = bit.bxor(x, rshift(x, 17))
        x = bit.bxor(x, bit.lshift(x, 5))
        return x
    end
end

local function five(bits)
    local out = ""
    for shift = 0, 24, 6 do
        local at = band(rshift(bits, shift), 63) + 1
        out = out .. ALPHABET:sub(at, at)
    end
    return out
end

-- Odd, so that the product mod 2^30 is a permutation; below 2^23, so that it is
-- exact in a double.
local SPREAD = 6017513
local serial = 0

-- 21 characters, unique within a run by the serial number in the first five.
local function new_id()
    serial = serial + 1
    if cfg.integer_ids then  -- beyond 2^53 some of them, which a double does not hold
        return ("%d%09d%07d"):format(1 + serial % 9, random32() % 1000000000, serial % 10000000)
    end
    local salt = band(random32(), 63) + 1
    return five(serial % 2 ^ 30 * SPREAD % 2 ^ 30) .. five(random32()) .. five(random32())
           .. five(random32()) .. ALPHABET:sub(salt, salt)
end

-- What the prompt asks for: [fail], [stuck], [drop], [ms=250], [submit:KIND],
-- [status:KIND], [callback:KIND]. Nil for the ordinary prompt.
function _M.wishes(prompt)
    if not prompt:find("[", 1, true) then
        return nil
    end
    local wants = {}
    for word in prompt:gmatch("%[([%w_:=]+)%]") do
        local target, kind = word:match("^(%a+):([%w_]+)$")
        if target then
            wants[target] = kind
        elseif word == "drop" then
            wants.callback = "drop"
        elseif word:match("^ms=%d+$") then
            wants.ms = tonumber(word:sub(4))
        else
            wants[word] = true
        end
    end
    return wants
end

local function account(key)
    local found = accounts[key]
    if not found then
        found = { unfinished = 0, max_unfinished = 0, accepted = 0, finished = 0 }
        accounts[key] = found
    end
    return found
end

-- Drops the oldest finished job when more than keep_jobs are kept.
local function forget_oldest(id)
    finished_last = finished_last + 1
    finished_ids[finished_last] = id
    while finished_last - finished_first >= cfg.keep_jobs do
        jobs[finished_ids[finished_first]] = nil
        finished_ids[finished_first] = nil
        finished_first = finished_first + 1
    end
end

--- Ends a running job with status 1 or 2; false if it is not running.
function _M.finish(job, status, reason)
    if job.status ~= 0 or job.forgotten then
        return false
    end
    job.status, job.reason, job.finished_at = status, reason, clock.ms()
    local of = account(job.key)
    of.unfinished = of.unfinished - 1
    of.finished = of.finished + 1
    if cfg.keep_jobs > 0 then
        forget_oldest(job.id)
    end
    if job.hook then
        clock.after(cfg.callback_delay_ms, callbacks.due, job)
    end
    return true
end

local function end_of_run(job)
    _M.finish(job, job.outcome, job.outcome == 2 and (job.gives_up and "timeout" or "failed") or nil)
end

-- When and how the job is going to end.
local function plan(job, wants, timeout)
    local ms = wants and wants.ms or cfg.delay_ms
    if cfg.jitter_ms > 0 then
        ms = ms + math.floor(faults.random("jitter") * cfg.jitter_ms)
    end
    local fails = wants and wants.fail
    if cfg.fail_rate > 0 and faults.random("fail") < cfg.fail_rate then
        fails = true
    end
    local patience = timeout * cfg.timeout_unit_ms
    if (wants and wants.stuck) or ms > patience then
        ms, fails, job.gives_up = patience, true, true
    end
    job.outcome = fails and 2 or 1
    clock.after(ms, end_of_run, job)
end

local function enter(job, args)
    local ref, attempt
    if args.hookUrl then
        ref = args.hookUrl:match("[?&]ref=([^&#]*)")
        attempt = args.hookUrl:match("[?&]a=([^&#]*)")
    end
    job.ref, job.attempt = ref, attempt
    job.prompt, job.mode, job.timeout = args.prompt, args.mode, args.timeout
    job.callbacks = {}
    accepted[#accepted + 1] = job
    if ref then
        local of = refs[ref] or { accepted = 0, attempts = {} }
        refs[ref] = of
        of.accepted = of.accepted + 1
        local a = attempt or "none"
        of.attempts[a] = (of.attempts[a] or 0) + 1
    end
end

--- Is another job of this key too many?
function _M.full(key)
    return cfg.limit > 0 and account(key).unfinished >= cfg.limit
end

--- Accepts a checked submission and sets it running.
function _M.accept(key, args, wants)
    local job = {
        id = new_id(), key = key, status = 0, accepted_at = clock.ms(),
        hook = args.hookUrl, wants = wants,
    }
    if cfg.ledger then
        enter(job, args)
    end
    jobs[job.id] = job

    local of = account(key)
    of.accepted = of.accepted + 1
    of.unfinished = of.unfinished + 1
    if of.unfinished > of.max_unfinished then
        of.max_unfinished = of.unfinished
    end

    if cfg.callback_progress then
        callbacks.progress(job)
    end
    plan(job, wants, args.timeout)
    return job
end

--- The job of this id, of this key if one is given.
function _M.get(id, key)
    local job = jobs[id]
    if job and (not key or job.key == key) then
        return job
    end
end

--- The provider does not know this job any more; its place is free.
function _M.forget(job)
    if job.status == 0 then
        local of = account(job.key)
        of.unfinished = of.unfinished - 1
    end
    job.forgotten = true
    jobs[job.id] = nil
end

--- accounts, accepted jobs in order, refs
function _M.books()
    return accounts, accepted, refs
end

function _M.reset()
    jobs, accounts, accepted, refs = {}, {}, {}, {}
    finished_ids, finished_first, finished_last = {}, 1, 0
end

_M.reset()

return _M
