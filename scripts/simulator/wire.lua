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
    error_401 = { 200, 401, "invalid API key" },
    error_404 = { 200, 404, "not found" },
    http_400 = { 400, 400, "bad prompt" },
    http_402 = { 402, 402, "payment required" },
    http_404 = { 404, 404, "not found" },
    http_405 = { 405, 405, "method not allowed" },
    http_406 = { 406, 406, "not acceptable" },
    http_409 = { 409, 409, "conflict" },
    http_413 = { 413, 413, "too large" },
    http_415 = { 415, 415, "unsupported media type" },
    http_422 = { 422, 422, "bad prompt" },
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

-- html_NNN and cf_NNN: something in front of the provider answers, Cloudflare in its way.
local function from_the_front(who, status)
    ngx.header.content_type = "text/html"
    if who == "cf" then
        ngx.header["cf-mitigated"] = "challenge"
    end
    send(status, "<html>\r\n<head><title>" .. status .. "</title></head>\r\n<body>nginx</body>\r\n</html>\r\n")
end

local function refuse(kind, fault)
    if ending[kind] then
        return ending[kind]()
    elseif kind == "error_number" then
        return send(200, '{"error":5000,"message":"something went wrong"}')
    end
    local who, status = kind:match("^(%l+)_(%d+)$")
    if who == "html" or who == "cf" then
        return from_the_front(who, tonumber(status))
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

-- Little-endian, n bytes.
local function bytes(value, n)
    local out = {}
    for i = 1, n do
        out[i] = string.char(value % 256)
        value = math.floor(value / 256)
    end
    return table.concat(out)
end

-- gzip (RFC 1952) without compressing: stored blocks.
local function gzip(text)
    local out = { "\31\139\8\0\0\0\0\0\0\255" }
    for at = 1, math.max(#text, 1), 65535 do
        local block = text:sub(at, at + 65534)
        local last = at + 65535 > #text
        out[#out + 1] = (last and "\1" or "\0") .. bytes(#block, 2) .. bytes(65535 - #block, 2) .. block
    end
    out[#out + 1] = bytes(ngx.crc32_long(text), 4) .. bytes(#text, 4)
    return table.concat(out)
end

local damage = {
    bom = function(text)
        return "\239\187\191" .. text
    end,
    gzip = gzip,
    gzip_unsaid = gzip,
    gzip_cut = function(text)
        local packed = gzip(text)
        return packed:sub(1, math.floor(#packed / 2))
    end,
    null_data = function()
        return '{"status":0,"message":"success","data":null}'
    end,
    word_envelope = function(text)
        return (text:gsub('"status":0', '"status":"SUCCESS"', 1))
    end,
    -- A true callback behind as many blanks as a receiver may not take.
    oversized = function(text)
        return (" "):rep(3 * 1024 * 1024) .. text
    end,
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
    created = function(text)
        send(201, text)
    end,
    accepted = function(text)
        send(202, text)
    end,
    accepted_404 = function(text) -- contradicts itself
        send(404, text)
    end,
    gzip = function(text)
        ngx.header.content_encoding = "gzip"
        send(200, gzip(text))
    end,
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
