--- Callbacks: when they are sent, in which shape, and what came back.
-- Due callbacks queue in an outbox that up to callback_connections senders
-- drain; each sender is one nginx timer, the only place where we wait for a peer.

local settings = require "settings"
local faults = require "faults"
local clock = require "clock"
local task = require "task"
local wire = require "wire"

local cfg = settings.values

local _M = {}

local outbox, first, last = {}, 1, 0
local senders = 0
local held = {}          -- callbacks that wait for another to overtake them
local sent = 0
local formats = { "envelope", "bare", "array", "reseller" }

-- A sender's allocations live until its timer ends.
local SENDS_PER_TIMER = 1000

-- One callback to send: `kind` is its fault, `status` overrules the job's.
local function new_item(job, url, kind, status)
    return { job = job, url = url, kind = kind, status = status, try = 1 }
end

local function origin_of(url)
    local scheme, authority, path = url:match("^(https?)://([^/?#]+)([^#]*)")
    if not scheme then
        return nil, "not an http URL"
    end
    local host, port = authority:match("^(.-):(%d+)$")
    host = host or authority
    return {
        scheme = scheme, authority = authority, host = host,
        port = tonumber(port) or (scheme == "https" and 443 or 80),
        path = path:sub(1, 1) == "/" and path or "/" .. path,
    }
end

-- A test double has no business outside this machine.
local function loopback(host)
    if host == "localhost" then
        return "127.0.0.1"
    end
    return (host == "[::1]" or host:match("^127%.%d+%.%d+%.%d+$")) and host or nil
end

-- Leaves the connection ready for the next request, or nil if it cannot be.
local function finish_response(sock)
    local length
    while true do
        local line, err = sock:receive("*l")
        if not line then
            return nil, err
        elseif line == "" then
            break
        end
        length = line:lower():match("^content%-length:%s*(%d+)") or length
    end
    if not length then
        return nil, "no length"
    end
    return length == "0" or sock:receive(tonumber(length))
end

-- The HTTP status, or nil and why there is none.
local function post(url, body, encoding)
    local target, err = origin_of(url)
    if not target then
        return nil, err
    end
    local peer = target
    if cfg.callback_origin ~= "" then
        peer, err = origin_of(cfg.callback_origin)
        if not peer then
            return nil, err
        end
    end
    local address = loopback(peer.host)
    if not address then
        return nil, "not a loopback address"
    end

    local sock = ngx.socket.tcp()
    sock:settimeout(cfg.callback_timeout_ms)
    local ok
    ok, err = sock:connect(address, peer.port)
    if not ok then
        return nil, err
    end
    if peer.scheme == "https" and sock:getreusedtimes() == 0 then
        ok, err = sock:sslhandshake(nil, target.host, false)
        if not ok then
            sock:close()
            return nil, err
        end
    end
    ok, err = sock:send {
        "POST ", target.path, " HTTP/1.1\r\nHost: ", target.authority,
        "\r\nContent-Type: application/json\r\nContent-Length: ", tostring(#body),
        encoding and "\r\nContent-Encoding: " .. encoding or "",
        cfg.callback_keepalive and "" or "\r\nConnection: close", "\r\n\r\n", body,
    }
    local line
    if ok then
        line, err = sock:receive("*l")
    end
    local code = line and tonumber(line:match("^HTTP/1%.[01] (%d%d%d)"))
    if cfg.callback_keepalive and code and finish_response(sock) then
        sock:setkeepalive(10000, 512)
    else
        sock:close()
    end
    return code, err or (not code and "not an HTTP answer" or nil)
end

local function body_of(item)
    local kind = item.kind
    local format = cfg.callback_format
    if format == "mixed" then
        format = formats[sent % #formats + 1]
    end
    sent = sent + 1
    local text
    if format == "reseller" then
        text = task.reseller(item.job, kind, item.status, item.progress or 100)
    else
        text = task.text(task.object(item.job, kind, item.status), kind)
    end
    if format == "array" then
        text = "[" .. text .. "]"
    end
    if format == "envelope" or format == "array" then
        text = '{"status":0,"message":"success","data":' .. text .. "}"
    end
    -- string_numbers and nulls have damaged the task already
    if not faults.task_kinds[kind] then
        text = wire.damaged(text, kind)
    end
    return text, format
end

-- What became of a hookUrl on its way through the provider.
local hooks = {
    escaped_hook = function(url)
        return (url:gsub("&", "&amp;"))
    end,
    second_query = function(url)
        return url .. "?utm_source=provider"
    end,
}

local function record(job, outcome)
    if job.callbacks then
        outcome.at = clock.ms()
        table.insert(job.callbacks, outcome)
    end
end

local function send(item)
    local job = item.job
    local body, format = body_of(item)
    local code, err = post(item.url, body, item.kind == "gzip" and "gzip")
    record(job, {
        status = item.status or job.status, code = code, error = err,
        format = format, fault = item.kind, try = item.try,
    })
    _M.counters.sent = _M.counters.sent + 1
    if code and code >= 200 and code < 300 then
        _M.counters.ok = _M.counters.ok + 1
    else
        _M.counters.failed = _M.counters.failed + 1
        if item.try <= cfg.callback_retries then
            item.try = item.try + 1
            clock.after(cfg.callback_retry_ms, _M.enqueue, item)
        end
    end
end

local function release()
    local waiting = held
    held = {}
    for _, item in ipairs(waiting) do
        _M.enqueue(item)
    end
end

local function sender(premature)
    local left = SENDS_PER_TIMER
    while not premature and left > 0 and first <= last do
        local item = outbox[first]
        outbox[first] = nil
        first = first + 1
        left = left - 1
        local ok, err = pcall(send, item)
        if not ok then
            ngx.log(ngx.ERR, "simulator: ", err)
        end
        if #held > 0 then
            release()
        end
    end
    senders = senders - 1
    if first <= last then
        _M.wake()
    end
end

--- Starts a sender if there is work and room for one.
function _M.wake()
    if senders < cfg.callback_connections and first <= last then
        senders = senders + 1
        local ok = ngx.timer.at(0, sender)
        if not ok then  -- too many timers: soon again
            senders = senders - 1
            clock.after(10, _M.wake)
        end
    end
end

--- Puts one callback into the outbox.
function _M.enqueue(item)
    last = last + 1
    outbox[last] = item
    _M.wake()
end

-- After late_ms no other callback overtakes any more.
local function release_one(item)
    for i, other in ipairs(held) do
        if other == item then
            table.remove(held, i)
            return _M.enqueue(item)
        end
    end
end

--- The job's callback is due: send it, or do to it what the next fault says.
function _M.due(job)
    if not job.hook or job.forgotten then
        return
    end
    local fault = faults.next("callback", job.wants and job.wants.callback)
    local kind = fault and fault.fault
    local url = hooks[kind] and hooks[kind](job.hook) or job.hook
    local item = new_item(job, url, kind)
    if not cfg.ledger then
        job.hook = nil  -- the longest string a job keeps
    end
    if kind == "drop" then
        return record(job, { status = job.status, fault = "drop" })
    elseif kind == "delay" then
        return clock.after(fault.ms or cfg.late_ms, _M.enqueue, item)
    elseif kind == "reorder" then
        held[#held + 1] = item
        return clock.after(fault.ms or cfg.late_ms, release_one, item)
    end
    _M.enqueue(item)
    if kind == "double" then
        _M.enqueue(new_item(job, url, kind))
    elseif kind == "contradict" then
        clock.after(fault.ms or 10, _M.enqueue,
                    new_item(job, url, kind, job.status == 1 and 2 or 1))
    end
end

--- A callback that says "still running", as soon as the job is accepted; resellers send several.
function _M.progress(job)
    for progress = 0, job.hook and cfg.callback_format == "reseller" and 40 or 0, 20 do
        if job.hook then
            local item = new_item(job, job.hook, "progress", 0)
            item.progress = progress
            _M.enqueue(item)
        end
    end
end

--- One callback now, past all faults.
function _M.now(job)
    _M.enqueue(new_item(job, job.hook))
end

function _M.reset()
    outbox, first, last, held, sent = {}, 1, 0, {}, 0
    _M.counters = { sent = 0, ok = 0, failed = 0 }
end

_M.reset()

return _M
