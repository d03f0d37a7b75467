--- How an answer leaves, or fails to leave, the simulator.

local settings = require "settings"
local faults = require "faults"

local cfg = settings.values

local _M = {}

local FOR_EVER = 86400  -- a hanging answer ends with the client or with us

-- HTTP status, envelope status, message
local refusals = {
    quota = { 200, 1001, "quota not enough" },
    concurrency = { 200, 1002, "concurrency limit reached" },
    error = { 200, 5000, "something went wrong" },
    rate_limit = { 429, 429, "too many requests" },
    unauthorized = { 401, 401, "invalid API key" },
    forbidden = { 403, 403, "forbidden" },
    http_404 = { 404, 404, "not found" },
    http_500 = { 500, 500, "internal error" },
    http_502 = { 502, 502, "bad gateway" },
    http_503 = { 503, 503, "service unavailable" },
    http_504 = { 504, 504, "gateway timeout" },
    redirect = { 307, 307, "see there" },
}

--- Answers with this HTTP status and body.
function _M.send(status, text)
    ngx.status = status
    ngx.header.content_length = #text
    ngx.print(text)
end

local send = _M.send

--- An error envelope.
function _M.refuse_with(http, code, message)
    send(http, '{"status":' .. code .. ',"message":"' .. message .. '","data":null}')
end

-- Ends the request without (the rest of) an answer. Does not return.
local ending = {
    hang = function()
        ngx.sleep(FOR_EVER)
        return ngx.exit(444)
    end,
    cut = function()
        return ngx.exit(444)
    end,
    reset = function()
        return ngx.exec("@reset")
    end,
}

local function refuse(kind, fault)
    if ending[kind] then
        return ending[kind]()
    end
    local how = refusals[kind]
    if kind == "rate_limit" then
        ngx.header["Retry-After"] = fault.retry_after or cfg.retry_after
    elseif kind == "redirect" then
        ngx.header["Location"] = ngx.var.request_uri
    end
    return _M.refuse_with(how[1], how[2], how[3])
end

--- Refuses the request if the fault says so, before anything was done.
-- True when it was answered; the kinds that end the connection do not return.
function _M.refused(fault)
    if fault and faults.before_kinds[fault.fault] then
        refuse(fault.fault, fault)
        return true
    end
    return false
end

local damage = {
    garbage = function()
        return "<html><body><h1>It works!</h1></body></html>"
    end,
    truncated = function(text)
        return text:sub(1, math.floor(#text / 2))
    end,
    empty_body = function()
        return ""
    end,
    bad_envelope = function()
        return '{"status":0,"message":"success"}'
    end,
    wrong_types = function()
        return '{"status":[0],"message":{"text":7},"data":"nothing"}'
    end,
    nulls = function()
        return '{"status":0,"message":null,"data":null}'
    end,
    string_numbers = function(text)
        return (text:gsub('"status":0', '"status":"0"', 1))
    end,
    odd_task_id = function()
        return '{"status":0,"message":"success","data":{"taskId":"../'
               .. ("x"):rep(300) .. '"}}'
    end,
}

-- Promises the whole body, sends half of it.
local function send_half(text)
    ngx.header.content_length = #text
    ngx.print(text:sub(1, math.floor(#text / 2)))
    ngx.flush(true)
end

local delivery = {
    slow = function(text, fault)
        ngx.sleep((fault.ms or cfg.slow_ms) / 1000)
        send(200, text)
    end,
    trickle = function(text, fault)
        ngx.header.content_length = #text
        for i = 1, #text do
            ngx.print(text:sub(i, i))
            ngx.flush(true)
            ngx.sleep((fault.ms or 10) / 1000)
        end
    end,
    -- The true answer, with fault.bytes (16 MiB) of white space before it.
    huge = function(text, fault)
        local left, blank = fault.bytes or 16777216, (" "):rep(65536)
        while left > 0 do
            ngx.print(blank)
            ngx.flush(true)
            left = left - #blank
        end
        ngx.print(text)
    end,
    cut_body = function(text)
        send_half(text)
        return ngx.exit(ngx.ERROR)
    end,
    stall = function(text)
        send_half(text)
        ngx.sleep(FOR_EVER)
    end,
}

--- The body of a callback or answer after the fault, if it damages bodies.
function _M.damaged(text, kind)
    local change = damage[kind]
    return change and change(text) or text
end

--- Answers 200 with text, unless the fault does something else to it.
function _M.answer(text, fault)
    if not fault then
        return send(200, text)
    end
    local kind = fault.fault
    local late = kind:match("^(.+)_after$")
    if late then
        return refuse(late, fault)
    elseif delivery[kind] then
        return delivery[kind](text, fault)
    end
    return send(200, _M.damaged(text, kind))
end

return _M
