-- The simulated provider keeps the contract, and breaks it only when told to.
-- One simulator serves all tests; each starts from POST /_sim/reset. Callbacks
-- go to the simulator's own sink.

local http = require "socket.http"
local socket = require "socket"
local ltn12 = require "ltn12"
local cjson = require "cjson"

local unpack = table.unpack or unpack  -- luacheck: ignore

local HERE = debug.getinfo(1, "S").source:match("^@(.*)/[^/]*$") or "."
local LAUNCHER = HERE .. "/../scripts/simulator/simulator"
local KEY = "key-one"

local base, port, dir

local function sh(command)
    local pipe = io.popen(command .. " 2>&1; printf '\\n%s' $?")
    local out, code = pipe:read("*a"):match("^(.-)\n?\n?(%d+)$")
    pipe:close()
    return out, tonumber(code)
end

local function quote(text)
    return "'" .. text:gsub("'", "'\\''") .. "'"
end

local function new_dir()
    return (sh("mktemp -d"))
end

local function start(where, options)
    return sh(("%s start --dir %s --key %s --key key-two %s"):format(
        quote(LAUNCHER), quote(where), KEY, options or ""))
end

local function stop(where)
    return sh(("%s stop --dir %s"):format(quote(LAUNCHER), quote(where)))
end

-- status, decoded body (or its text), headers
local function request(method, url, body, headers)
    local chunks = {}
    local text = type(body) == "table" and cjson.encode(body) or body
    headers = headers or {}
    headers["content-length"] = text and #text or nil
    local ok, code, answer_headers = http.request {
        method = method, url = url, headers = headers, redirect = false,
        source = text and ltn12.source.string(text) or nil,
        sink = ltn12.sink.table(chunks),
    }
    local answer = table.concat(chunks)
    local is_json, decoded = pcall(cjson.decode, answer)
    return ok and code or nil, is_json and decoded or answer,
           type(answer_headers) == "table" and answer_headers or {}
end

local function api(endpoint, body, key)
    return request("POST", base .. "/midjourney/v1/" .. endpoint, body,
                   { ["API-KEY"] = key or KEY, ["Content-Type"] = "application/json" })
end

local function control(name, body)
    local code, answer = request(body and "POST" or "GET", base .. "/_sim/" .. name, body)
    assert.equal(200, code, type(answer) == "table" and answer.error or nil)
    return answer
end

local function config(switches) return control("config", switches) end
local function script(entries) return control("script", entries) end
local function ledger() return control("ledger") end

-- Waits for an event, not for a time: polls until fn gives something true.
local function eventually(fn)
    local deadline = socket.gettime() + 5
    repeat
        local value = fn()
        if value then
            return value
        end
        socket.sleep(0.005)
    until socket.gettime() > deadline
    error("waited in vain", 2)
end

local function hook(ref, attempt)
    return base .. "/_sim/sink?ref=" .. (ref or "R1") .. "&a=" .. (attempt or 1)
end

local function submit(prompt, extra)
    local body = extra or {}
    body.prompt = prompt or "a fox --ar 4:5"
    local code, answer = api("submit-jobs", body)
    assert.equal(200, code)
    assert.equal(0, answer.status)
    return answer.data.taskId
end

-- taskId -> task object
local function statuses(...)
    local code, answer = api("job-status", { taskIds = { ... } })
    assert.equal(200, code)
    local out = {}
    for _, task in ipairs(answer.data) do
        out[task.taskId] = task
    end
    return out
end

local function status(id)
    return statuses(id)[id]
end

local function finished(id)
    return eventually(function()
        local task = status(id)
        return task and task.status ~= 0 and task
    end)
end

local function received(n)
    return eventually(function()
        local got = control("sink").received
        return #got >= n and got
    end)
end

-- The job's callbacks in the ledger, once there are n of them.
local function callbacks(id, n)
    return eventually(function()
        local list = control("jobs/" .. id).callbacks
        return #list >= n and list
    end)
end

local function task_in(callback)
    return cjson.decode(callback.body).data
end

-- One POST on a raw connection: everything the peer sends until it closes, and
-- why the reading ended ("closed" or "timeout").
local function raw(endpoint, body, timeout)
    local connection = assert(socket.connect("127.0.0.1", port))
    local text = cjson.encode(body)
    connection:settimeout(timeout or 5)
    assert(connection:send(("POST /midjourney/v1/%s HTTP/1.1\r\nHost: sim\r\nAPI-KEY: %s\r\n"
        .. "Connection: close\r\nContent-Length: %d\r\n\r\n%s"):format(endpoint, KEY, #text, text)))
    local parts = {}
    while true do
        local data, why, partial = connection:receive(4096)
        parts[#parts + 1] = data or partial
        if why then
            connection:close()
            return table.concat(parts), why
        end
    end
end

describe("the simulated provider", function()
    setup(function()
        dir = new_dir()
        local out, code = start(dir, "--set delay_ms=20")
        assert(code == 0, out)
        base, port = out, out:match(":(%d+)$")
    end)

    teardown(function()
        stop(dir)
        sh("rm -rf " .. quote(dir))
    end)

    before_each(function()
        control("reset", {})
    end)

    describe("accepting jobs", function()
        it("answers a submission with an id that looks like the real ones", function()
            assert.matches("^[%w_-]+$", submit())
            assert.equal(21, #submit())
        end)

        it("gives every job another id", function()
            config { limit = 0 }
            local seen = {}
            for _ = 1, 200 do
                local id = submit()
                assert.is_nil(seen[id])
                seen[id] = true
            end
        end)

        it("refuses a wrong key with 401 and an envelope", function()
            for _, endpoint in ipairs { "submit-jobs", "job-status" } do
                local code, answer = api(endpoint, { prompt = "a fox", taskIds = { "x" } }, "wrong")
                assert.equal(401, code)
                assert.equal("invalid API key", answer.message)
            end
        end)

        it("refuses wrong arguments with 400 and an envelope that says why", function()
            local wrong = {
                { {}, "prompt" }, { { prompt = "" }, "prompt" }, { { prompt = 7 }, "prompt" },
                { { prompt = ("x"):rep(10001) }, "prompt" },
                { { prompt = "a", mode = "turbo" }, "mode" },
                { { prompt = "a", timeout = 299 }, "timeout" },
                { { prompt = "a", timeout = 1201 }, "timeout" },
                { { prompt = "a", timeout = 300.5 }, "timeout" },
                { { prompt = "a", timeout = "600" }, "timeout" },
                { { prompt = "a", hookUrl = "ftp://x" }, "hookUrl" },
                { "no json", "JSON" }, { "", "empty" },
            }
            for _, case in ipairs(wrong) do
                local code, answer = api("submit-jobs", case[1])
                assert.equal(400, code)
                assert.not_equal(0, answer.status)
                assert.matches(case[2], answer.message)
            end
            for _, ids in ipairs { "x", { a = "x" }, { 1 } } do
                assert.equal(400, (api("job-status", { taskIds = ids })))
            end
            assert.equal(0, #ledger().submissions)
        end)

        it("takes POST only", function()
            assert.equal(405, (request("GET", base .. "/midjourney/v1/submit-jobs")))
        end)

        it("refuses an eleventh unfinished job of a key with 1002, and only that key's", function()
            config { delay_ms = 60000 }
            local first = submit()
            for _ = 2, 10 do
                submit()
            end
            local code, answer = api("submit-jobs", { prompt = "one more" })
            assert.equal(200, code)
            assert.equal(1002, answer.status)
            assert.equal(0, select(2, api("submit-jobs", { prompt = "a" }, "key-two")).status)

            control("finish", { taskId = first })
            submit()
            assert.equal(10, ledger().counters.accounts[KEY].max_unfinished)
        end)

        it("frees the place when a job finishes, not when it is called back", function()
            config { limit = 1, callback_delay_ms = 60000 }
            finished(submit("a fox", { hookUrl = hook() }))
            submit()
            assert.equal(0, #control("sink").received)
        end)
    end)

    describe("answering for jobs", function()
        it("tells of a running and then a finished job", function()
            config { delay_ms = 60000 }
            local id = submit("a fox")
            assert.equal(0, status(id).status)
            control("finish", { taskId = id })
            local task = status(id)
            assert.equal(1, task.status)
            assert.equal("a fox", task.prompt)
            assert.equal(4, #task.images)
            assert.matches("/grid%.png$", task.image)
            assert.matches("^%x+%-%x+%-4%x+%-a%x+%-%x+$", task.jobId)
            assert.equal(64, task.meta.width)
            assert.is_true(task.createdAt > 1.6e12)
        end)

        it("answers for many tasks, in another order, and leaves unknown ones out", function()
            local a, b = submit("a"), submit("b")
            local _, answer = api("job-status", { taskIds = { a, "unknown", b } })
            assert.equal(2, #answer.data)
            assert.equal(b, answer.data[1].taskId)
            assert.equal(a, answer.data[2].taskId)
        end)

        it("answers with an empty array when it knows none", function()
            local text = raw("job-status", { taskIds = { "unknown" } })
            assert.matches('"data":%[%]', text)
        end)

        it("does not show a job to another key", function()
            local id = submit()
            assert.same({}, select(2, api("job-status", { taskIds = { id } }, "key-two")).data)
        end)

        it("refuses more ids than max_batch", function()
            config { max_batch = 2 }
            assert.equal(400, (api("job-status", { taskIds = { "a", "b", "c" } })))
        end)

        it("lets a prompt fail, at a rate or by request", function()
            local task = finished(submit("a [fail] fox"))
            assert.equal(2, task.status)
            assert.equal("failed", task.failReason)
            config { fail_rate = 1 }
            assert.equal(2, finished(submit()).status)
        end)

        it("gives a job up after its timeout", function()
            config { timeout_unit_ms = 0.1 }
            local task = finished(submit("a [stuck] fox", { timeout = 300 }))
            assert.equal(2, task.status)
            assert.equal("timeout", task.failReason)
        end)

        it("remembers only keep_jobs finished jobs", function()
            config { keep_jobs = 1 }
            local a = submit("[ms=0]")
            finished(a)
            finished(submit())
            assert.is_nil(status(a))
        end)
    end)

    describe("its images", function()
        local function decode(bytes)
            local python = [[
import sys, zlib, struct
b = sys.stdin.buffer.read(); assert b[:8] == b"\x89PNG\r\n\x1a\n"; i = 8; data = b""
while i < len(b):
    n, kind = struct.unpack(">I4s", b[i:i+8]); body = b[i+8:i+8+n]
    assert struct.unpack(">I", b[i+8+n:i+12+n])[0] == zlib.crc32(kind + body)
    if kind == b"IHDR": w, h = struct.unpack(">II", body[:8])
    if kind == b"IDAT": data += body
    i += 12 + n
assert kind == b"IEND" and len(zlib.decompress(data)) == h * (1 + 3 * w)
print(w, h)]]
            local path = dir .. "/image.png"
            local file = assert(io.open(path, "wb"))
            file:write(bytes)
            file:close()
            return (sh("python3 -c " .. quote(python) .. " <" .. quote(path)))
        end

        it("are PNG files that a decoder accepts, each of another colour", function()
            if select(2, sh("python3 -c ''")) ~= 0 then
                return pending("python3 is not here to decode them")
            end
            for _, size in ipairs { 64, 3, 200 } do  -- 200: more than one stored block
                config { image_size = size }
                local task = finished(submit())
                local code, grid, headers = request("GET", task.image)
                assert.equal(200, code)
                assert.equal("image/png", headers["content-type"])
                assert.equal(size .. " " .. size, decode(grid))
                local seen = {}
                for _, url in ipairs(task.images) do
                    local _, bytes = request("GET", url)
                    assert.equal(size .. " " .. size, decode(bytes))
                    assert.is_nil(seen[bytes])
                    seen[bytes] = true
                end
            end
        end)

        it("are not there for unknown or unfinished jobs", function()
            config { delay_ms = 60000 }
            assert.equal(404, (request("GET", base .. "/images/" .. submit() .. "/grid.png")))
            assert.equal(404, (request("GET", base .. "/images/unknown/grid.png")))
        end)

        it("meet faults too", function()
            local task = finished(submit())
            script { image = { "http_503", "truncated" } }
            assert.equal(503, (request("GET", task.image)))
            local _, short = request("GET", task.image)
            local _, whole = request("GET", task.image)
            assert.equal(math.floor(#whole / 2), #short)
        end)

        it("have the address that image_base says", function()
            config { image_base = "https://cdn.example" }
            assert.matches("^https://cdn%.example/images/", finished(submit()).image)
        end)
    end)

    describe("calling back", function()
        it("posts the task to the hookUrl and keeps the outcome", function()
            local id = submit("a fox", { hookUrl = hook("R7", 2) })
            local got = received(1)[1]
            assert.equal("/_sim/sink?ref=R7&a=2", got.uri)
            assert.equal("application/json", got.content_type)
            assert.equal(id, task_in(got).taskId)
            assert.equal(1, task_in(got).status)
            assert.equal(200, callbacks(id, 1)[1].code)
        end)

        it("wraps the task as callback_format says", function()
            local shape = {
                envelope = function(body) return body.data.taskId end,
                bare = function(body) return body.taskId end,
                array = function(body) return body.data[1].taskId end,
            }
            for format, find in pairs(shape) do
                control("reset", {})
                config { callback_format = format }
                local id = submit("a fox", { hookUrl = hook() })
                assert.equal(id, find(cjson.decode(received(1)[1].body)))
            end
            control("reset", {})
            config { callback_format = "mixed" }
            local used = {}
            for _ = 1, 3 do
                local id = submit("a fox", { hookUrl = hook() })
                used[callbacks(id, 1)[1].format] = true
            end
            assert.same({ envelope = true, bare = true, array = true }, used)
        end)

        it("looks as resellers send it, progress first", function()
            config { callback_format = "reseller", callback_progress = true }
            local id = submit("a fox", { hookUrl = hook() })
            finished(id)
            local said = {}
            for i, callback in ipairs(received(4)) do
                local body = cjson.decode(callback.body)
                assert.same({ id, id }, { body.jobId, body.data.jobId })
                said[i] = body.status .. " " .. body.data.progress
                assert.equal(body.status == "SUCCESS", body.data.cdnImage ~= nil)
            end
            assert.same({ "PENDING_QUEUE 0", "ON_QUEUE 20", "ON_QUEUE 40", "SUCCESS 100" }, said)
        end)

        it("goes to the URL that became of the hookUrl", function()
            script { callback = { "escaped_hook", "second_query" } }
            finished(submit("a", { hookUrl = hook("R1", 2) }))
            finished(submit("b", { hookUrl = hook("R1", 2) }))
            local got = {}
            for _, callback in ipairs(received(2)) do
                got[#got + 1] = callback.uri
            end
            table.sort(got)
            assert.same({ "/_sim/sink?ref=R1&a=2?utm_source=provider", "/_sim/sink?ref=R1&amp;a=2" }, got)
        end)

        it("has numbers for ids when integer_ids says so", function()
            config { integer_ids = true }
            script { submit = { "ok" } }
            local _, answer = api("submit-jobs", { prompt = "a", hookUrl = hook() })
            assert.equal("number", type(answer.data.taskId))
            assert.matches("^%d+$", ledger().submissions[1].taskId)
        end)

        it("waits callback_delay_ms after the end of the job", function()
            config { callback_delay_ms = 80 }
            local id = submit("a fox", { hookUrl = hook() })
            local at = callbacks(id, 1)[1].at
            assert.is_true(at - control("jobs/" .. id).finished_at >= 80)
        end)

        it("tells of a running job when callback_progress is on", function()
            config { callback_progress = true }
            submit("a fox", { hookUrl = hook() })
            local got = received(2)
            assert.equal(0, task_in(got[1]).status)
            assert.equal(1, task_in(got[2]).status)
        end)

        it("can overtake the answer to the submission", function()
            script { submit = { { fault = "slow", ms = 100 } } }
            submit("[ms=0]", { hookUrl = hook() })
            assert.equal(1, #control("sink").received)
        end)

        it("retries what was not answered 2xx as often as told", function()
            config { callback_retries = 2, callback_retry_ms = 5 }
            script { sink = { { fault = "http_503", n = 2 } } }
            local id = submit("a fox", { hookUrl = hook() })
            local codes = {}
            for i, outcome in ipairs(callbacks(id, 3)) do
                codes[i] = outcome.code
            end
            assert.same({ 503, 503, 200 }, codes)
        end)

        it("does not retry by default", function()
            script { sink = { "http_500" } }
            local id = submit("a fox", { hookUrl = hook() })
            assert.equal(500, callbacks(id, 1)[1].code)
            finished(submit("later", { hookUrl = hook() }))
            assert.equal(1, #callbacks(id, 1))
        end)

        it("notes why a callback reached no receiver", function()
            config { callback_timeout_ms = 50 }
            local listener = assert(socket.bind("127.0.0.1", 0))
            local _, dead = listener:getsockname()
            listener:close()
            local id = submit("a", { hookUrl = "http://127.0.0.1:" .. dead .. "/" })
            assert.equal("connection refused", callbacks(id, 1)[1].error)
            id = submit("a", { hookUrl = "http://192.0.2.1/" })
            assert.equal("not a loopback address", callbacks(id, 1)[1].error)
            script { sink = { "hang" } }
            id = submit("a", { hookUrl = hook() })
            assert.equal("timeout", callbacks(id, 1)[1].error)
        end)

        it("goes to callback_origin when the hookUrl's host is not here", function()
            config { callback_origin = base }
            submit("a fox", { hookUrl = "https://app.example/_sim/sink?ref=R9" })
            assert.equal("/_sim/sink?ref=R9", received(1)[1].uri)
        end)

        it("keeps connections open when told to", function()
            config { callback_keepalive = true, callback_connections = 1, limit = 0 }
            for _ = 1, 20 do
                submit("a fox", { hookUrl = hook() })
            end
            received(20)
            eventually(function() return ledger().counters.callbacks.ok == 20 end)
        end)

        it("sends one again on request, past all faults", function()
            local id = submit("a [drop] fox", { hookUrl = hook() })
            assert.equal("drop", callbacks(id, 1)[1].fault)
            control("callback", { taskId = id })
            assert.equal(id, task_in(received(1)[1]).taskId)
        end)
    end)

    describe("callback faults", function()
        it("drop: the callback is never sent", function()
            script { callback = { "drop" } }
            local id = submit("a fox", { hookUrl = hook() })
            assert.is_nil(callbacks(id, 1)[1].code)
            assert.equal(0, #control("sink").received)
        end)

        it("double: it is sent twice", function()
            script { callback = { "double" } }
            submit("a fox", { hookUrl = hook() })
            local got = received(2)
            assert.equal(got[1].body, got[2].body)
        end)

        it("delay: it comes late", function()
            script { callback = { { fault = "delay", ms = 80 } } }
            local id = submit("a fox", { hookUrl = hook() })
            local outcome = callbacks(id, 1)[1]
            assert.is_true(outcome.at - control("jobs/" .. id).finished_at >= 80)
        end)

        it("reorder: the next one overtakes it", function()
            config { late_ms = 60000 }
            script { callback = { "reorder" } }
            local a = submit("a", { hookUrl = hook() })
            finished(a)
            local b = submit("b", { hookUrl = hook() })
            local got = received(2)
            assert.equal(b, task_in(got[1]).taskId)
            assert.equal(a, task_in(got[2]).taskId)
        end)

        it("reorder: it comes late when there is no other", function()
            config { late_ms = 10 }
            script { callback = { "reorder" } }
            submit("a", { hookUrl = hook() })
            received(1)
        end)

        it("contradict: the opposite follows", function()
            script { callback = { "contradict" } }
            submit("a", { hookUrl = hook() })
            local got = received(2)
            assert.equal(1, task_in(got[1]).status)
            assert.equal(2, task_in(got[2]).status)
        end)

        it("damage its body", function()
            local expected = {
                garbage = "^<html>", empty_body = "^$", bad_envelope = '^{"status":0,"message":"success"}$',
                wrong_types = '"data":"nothing"', truncated = '^{"status":0.*[^}]$',
                empty_image = '"image":""', string_numbers = '"status":"1"', nulls = '"image":null',
                odd_status = '"status":7', odd_types = '"images":"none"',
                image_objects = '"images":%[{"url":', sparse = '"data":{[^,]+,[^,]+}}$',
            }
            for kind, pattern in pairs(expected) do
                control("reset", {})
                submit("a [callback:" .. kind .. "] fox", { hookUrl = hook() })
                assert.matches(pattern, received(1)[1].body)
            end
        end)
    end)

    describe("submit faults before accepting", function()
        local function refusal(kind)
            local code, answer, headers = api("submit-jobs", { prompt = "a [submit:" .. kind .. "]" })
            assert.equal(0, #ledger().submissions)
            assert.equal(1, ledger().counters.faults.submit[kind])
            return code, answer.status, headers
        end

        for kind, expected in pairs {
            quota = { 200, 1001 }, concurrency = { 200, 1002 }, error = { 200, 5000 },
            rate_limit = { 429, 429 }, unauthorized = { 401, 401 }, forbidden = { 403, 403 },
            http_404 = { 404, 404 }, http_500 = { 500, 500 }, http_502 = { 502, 502 },
            http_503 = { 503, 503 }, http_504 = { 504, 504 }, redirect = { 307, 307 },
            http_400 = { 400, 400 }, http_402 = { 402, 402 }, http_415 = { 415, 415 }, http_422 = { 422, 422 },
            error_401 = { 200, 401 }, error_404 = { 200, 404 },
        } do
            it(("%s: answers %d with envelope status %d"):format(kind, expected[1], expected[2]), function()
                local code, envelope = refusal(kind)
                assert.same(expected, { code, envelope })
                assert.equal(1, ledger().counters.refused[kind])
            end)
        end

        it("html_404, cf_403: answer as something in front of the API does", function()
            for kind, expected in pairs { html_404 = { 404 }, cf_403 = { 403, "challenge" }, html_503 = { 503 } } do
                control("reset", { dummy = true })
                script { submit = { kind } }
                local code, body, headers = api("submit-jobs", { prompt = "a" })
                assert.same(expected, { code, headers["cf-mitigated"] })
                assert.matches("^<html>", body)
                assert.equal("text/html", headers["content-type"])
                assert.equal(0, #ledger().submissions)
            end
        end)

        it("rate_limit: may say when with a fraction", function()
            script { submit = { { fault = "rate_limit", retry_after = 299.997 } } }
            local _, _, headers = api("submit-jobs", { prompt = "a" })
            assert.equal("299.997", headers["retry-after"])
        end)

        it("rate_limit: says when to come back", function()
            config { retry_after = 7 }
            local _, _, headers = refusal("rate_limit")
            assert.equal("7", headers["retry-after"])
        end)

        for _, kind in ipairs { "cut", "reset" } do
            it(kind .. ": closes the connection without an answer", function()
                local text, why = raw("submit-jobs", { prompt = "a [submit:" .. kind .. "]" })
                assert.same({ "", "closed" }, { text, why })
                assert.equal(0, #ledger().submissions)
            end)
        end

        it("hang: never answers", function()
            local text, why = raw("submit-jobs", { prompt = "a [submit:hang]" }, 0.1)
            assert.same({ "", "timeout" }, { text, why })
            assert.equal(0, #ledger().submissions)
        end)
    end)

    describe("submit faults after accepting", function()
        local function accepted()
            local jobs = ledger().submissions
            assert.equal(1, #jobs)
            received(1)  -- it runs, is billed and calls back
        end

        local function go(kind, timeout)
            return raw("submit-jobs", { prompt = "a [submit:" .. kind .. "]", hookUrl = hook() }, timeout)
        end

        for kind, pattern in pairs {
            http_500_after = "^HTTP/1.1 500", http_502_after = "^HTTP/1.1 502",
            http_503_after = "^HTTP/1.1 503", garbage = "\r\n\r\n<html>",
            truncated = '\r\n\r\n{"status":0[^}]+$', empty_body = "\r\n\r\n$",
            bad_envelope = '"success"}$', wrong_types = '"status":%[0%]', nulls = '"data":null',
            string_numbers = '"status":"0"', odd_task_id = '"taskId":"%.%./',
            cut_body = '"status":0[^}]*$',
        } do
            it(kind .. ": the job runs all the same", function()
                local text, why = go(kind)
                assert.matches(pattern, text)
                assert.equal("closed", why)
                accepted()
            end)
        end

        for _, kind in ipairs { "cut_after", "reset_after" } do
            it(kind .. ": the connection closes without an answer, the job runs", function()
                assert.same({ "", "closed" }, { go(kind) })
                accepted()
            end)
        end

        it("hang_after: there is no answer, the job runs", function()
            assert.same({ "", "timeout" }, { go("hang_after", 0.1) })
            accepted()
        end)

        it("stall: half an answer comes and then nothing, the job runs", function()
            local text, why = go("stall", 0.1)
            assert.matches("200 OK", text)
            assert.equal("timeout", why)
            accepted()
        end)

        it("slow: the answer takes ms", function()
            script { submit = { { fault = "slow", ms = 80 } } }
            local began = socket.gettime()
            submit("a", { hookUrl = hook() })
            assert.is_true(socket.gettime() - began >= 0.079)
            accepted()
        end)

        it("trickle: the answer comes byte by byte", function()
            script { submit = { { fault = "trickle", ms = 1 } } }
            assert.equal(21, #submit("a", { hookUrl = hook() }))
            accepted()
        end)

        it("huge: the answer is as long as told", function()
            script { submit = { { fault = "huge", bytes = 1048576 } } }
            local text = raw("submit-jobs", { prompt = "a", hookUrl = hook() })
            assert.is_true(#text > 1048576)
            accepted()
        end)
    end)

    describe("status faults", function()
        it("refuse, cut and damage status answers but not submissions", function()
            script { status = { "quota", "rate_limit", "http_502", "garbage", "truncated", "cut", "ok" } }
            local id = submit()
            local ask = { taskIds = { id } }
            assert.equal(1001, select(2, api("job-status", ask)).status)
            assert.equal(429, (api("job-status", ask)))
            assert.equal(502, (api("job-status", ask)))
            assert.matches("^<html>", select(2, api("job-status", ask)))
            assert.equal("string", type(select(2, api("job-status", ask))))
            assert.equal("", (raw("job-status", ask)))
            assert.equal(id, status(id).taskId)
        end)

        it("unknown: leaves the tasks out, or the one that is named", function()
            local a, b = submit(), submit()
            script { status = { "unknown", { fault = "unknown", taskId = a } } }
            assert.same({}, statuses(a, b))
            local found = statuses(a, b)
            assert.is_nil(found[a])
            assert.equal(b, found[b].taskId)
            assert.is_nil(status(submit("[status:unknown]")))
        end)

        it("dress answers", function()
            local id = submit()
            local function with(kind)
                script { status = { kind } }
                return api("job-status", { taskIds = { id } })
            end
            assert.equal(201, (with "created"))
            assert.equal(202, (with "accepted"))
            assert.equal(404, (with "accepted_404"))
            assert.equal("SUCCESS", select(2, with "word_envelope").status)
            assert.equal(cjson.null, select(2, with "null_data").data)
            assert.equal(id, select(2, with "list_wrapper").data.list[1].taskId)
            assert.matches('^\239\187\191{"status":0', (select(2, with "bom")))
            local _, packed, headers = with "gzip"
            assert.equal("gzip", headers["content-encoding"])
            assert.equal("\31\139", packed:sub(1, 2))
            local file = os.tmpname()
            local out = assert(io.open(file, "wb"))
            out:write(packed)
            out:close()
            assert.matches('^{"status":0.*' .. id:gsub("%-", "%%-"), (sh("gzip -dc <" .. file)))
            os.remove(file)
        end)

        it("happen to each request that asks for a task whose prompt says so", function()
            local sick, other = submit "[status:html_404]", submit "b"
            assert.equal(404, (api("job-status", { taskIds = { other, sick } })))
            assert.equal(200, (api("job-status", { taskIds = { other } })))
            sick = submit "[status:bad_escape]"
            local _, text = api("job-status", { taskIds = { other, sick } })
            assert.is_truthy(text:find("\\x41", 1, true)) -- which is no JSON
            assert.equal(2, #select(2, api("job-status", { taskIds = { submit "[status:twice]" } })).data)
        end)

        it("damage tasks", function()
            local id = submit()
            finished(id)
            local function with(kind)
                script { status = { kind } }
                return status(id)
            end
            local task = with "empty_image"
            assert.same({ 1, "" }, { task.status, task.image })
            assert.is_nil(task.images)
            task = with "string_numbers"
            assert.equal("1", task.status)
            assert.equal("string", type(task.createdAt))
            task = with "nulls"
            assert.equal(1, task.status)
            assert.equal(cjson.null, task.image)
            task = with "sparse"
            assert.same({ taskId = id, status = 1 }, task)
            assert.equal("string", type(with("image_objects").images[1].url))
            assert.equal(7, with("odd_status").status)
            assert.equal("SUCCESS", with("word_status").status)
            assert.is_nil(with("no_status").status)
            assert.matches("^HTTP://", with("upper_urls").image)
            script { status = { "job_id" } }
            local _, answer = api("job-status", { taskIds = { id } })
            assert.same({ id }, { answer.data[1].jobId, answer.data[1].taskId })
            assert.equal("table", type(with("odd_types").status))
        end)

        it("forget: the provider knows the task no longer and its place is free", function()
            config { limit = 1, delay_ms = 60000 }
            local id = submit()
            control("forget", { taskId = id })
            assert.is_nil(status(id))
            submit()
            assert.is_true(ledger().submissions[1].forgotten)
        end)
    end)

    describe("rates and scripts", function()
        local function pattern(n)
            local out = {}
            for i = 1, n do
                local _, answer = api("submit-jobs", { prompt = "a" })
                out[i] = answer.status == 0 and "." or "x"
            end
            return table.concat(out)
        end

        it("repeat with the seed and differ with another", function()
            config { limit = 0, seed = 5, submit = { quota = 0.5 } }
            local first = pattern(40)
            config { seed = 5 }
            assert.equal(first, pattern(40))
            config { seed = 6 }
            assert.not_equal(first, pattern(40))
            local _, hits = first:gsub("x", "")
            assert.is_true(hits > 5 and hits < 35)
        end)

        it("do not let polling change which submission fails", function()
            local id = submit()
            config { limit = 0, seed = 5, submit = { quota = 0.5 }, status = { unknown = 0.5 } }
            local first = pattern(20)
            config { seed = 5 }
            statuses(id)
            local rest = pattern(10)
            statuses(id)
            assert.equal(first, rest .. pattern(10))
        end)

        it("run a script in order, n times each, and then stop", function()
            script { submit = { { fault = "quota", n = 2 }, "ok", "quota" } }
            assert.equal("xx.x..", pattern(6))
            assert.same({}, control("script").submit)
        end)

        it("spare requests that are wrong anyway", function()
            script { submit = { "quota" } }
            assert.equal(400, (api("submit-jobs", {})))
            assert.equal("x.", pattern(2))
        end)

        it("draw damage per task in a status answer", function()
            config { limit = 0, status = { unknown = 0.5 } }
            local ids = {}
            for i = 1, 40 do
                ids[i] = submit()
            end
            local n = 0
            for _ in pairs(statuses(unpack(ids))) do
                n = n + 1
            end
            assert.is_true(n > 5 and n < 35)
        end)

        it("refuse what they do not know, and change nothing then", function()
            local before = control("config")
            for _, patch in ipairs {
                { nonsense = 1 }, { limit = "ten" }, { limit = -1 }, { submit = { drop = 0.1 } },
                { submit = { quota = 2 } }, { limit = 3, submit = { quota = 0.6, hang = 0.6 } },
                { callback_format = "xml" }, { keys = { 1 } }, { submit = { "quota" } },
            } do
                assert.equal(400, (request("POST", base .. "/_sim/config", patch)))
            end
            assert.same(before, control("config"))
            for _, entries in ipairs { { submit = { "drop" } }, { nobody = { "cut" } },
                                       { submit = { { fault = "slow", ms = "x" } } } } do
                assert.equal(400, (request("POST", base .. "/_sim/script", entries)))
            end
        end)
    end)

    describe("its books", function()
        it("show every accepted submission with ref and attempt", function()
            local id = submit("a fox", { hookUrl = hook("R3", 2), mode = "relaxed", timeout = 300 })
            local job = ledger().submissions[1]
            assert.equal(id, job.taskId)
            assert.equal("R3", job.ref)
            assert.equal("2", job.attempt)
            assert.equal(hook("R3", 2), job.hookUrl)
            assert.equal("a fox", job.prompt)
            assert.equal("relaxed", job.mode)
            assert.equal(300, job.timeout)
        end)

        it("show what was billed twice, and only that", function()
            submit("a", { hookUrl = hook("R1", 1) })
            submit("a", { hookUrl = hook("R1", 2) })
            assert.same({}, ledger().billed_twice)
            submit("a", { hookUrl = hook("R1", 2) })
            assert.same({ { ref = "R1", attempt = "2", times = 2 } }, ledger().billed_twice)
            assert.equal(3, ledger().refs.R1.accepted)
        end)

        it("count requests and refusals", function()
            api("submit-jobs", { prompt = "a" }, "wrong")
            api("submit-jobs", {})
            status(submit())
            local counters = control("counters")
            assert.same({ submit = 3, status = 1, image = 0 }, counters.requests)
            assert.same({ unauthorized = 1, invalid = 1 }, counters.refused)
        end)

        it("keep neither prompts nor URLs with ledger=false, and still call back", function()
            config { ledger = false }
            script { callback = { "double" } }
            local id = submit("a secret", { hookUrl = hook() })
            eventually(function() return control("counters").callbacks.ok == 2 end)
            assert.equal(0, #ledger().submissions)
            local job = control("jobs/" .. id)
            assert.is_nil(job.prompt)
            assert.is_nil(job.hookUrl)
            assert.equal(1, status(id).status)
        end)

        it("are empty after a reset, and the switches as at the start", function()
            config { limit = 3, submit = { quota = 1 } }
            script { status = { "cut" } }
            control("reset", {})
            local now = control("config")
            assert.same({ 10, 20, {} }, { now.limit, now.delay_ms, now.submit })
            assert.same({}, control("script").status)
            assert.equal(0, #ledger().submissions)
        end)
    end)

    describe("its launcher", function()
        local other

        before_each(function() other = new_dir() end)
        after_each(function()
            stop(other)
            sh("rm -rf " .. quote(other))
        end)

        it("says where it listens, and ends on stop", function()
            local url, code = start(other, "--set submit.quota=1 --set callback_format=bare")
            assert.equal(0, code)
            assert.equal(url, "http://127.0.0.1:" .. sh("cat " .. other .. "/port"))
            local now = select(2, request("GET", url .. "/_sim/config"))
            assert.equal(1, now.submit.quota)
            assert.equal("bare", now.callback_format)

            local pid = sh("cat " .. other .. "/pid")
            assert.equal(0, select(2, stop(other)))
            assert.is_nil((request("GET", url .. "/_sim/config")))
            assert.equal("", (sh("tr -d '\\0' 2>/dev/null </proc/" .. pid .. "/cmdline | grep nginx")))
            assert.equal(0, select(2, stop(other)))
        end)

        it("listens on the port it is told, and fails at once when that is taken", function()
            local out, code = start(other, "--port " .. port)
            assert.equal(1, code)
            assert.matches("port " .. port .. " is in use", out)
        end)

        it("refuses a second one in the same directory", function()
            local out, code = start(dir)
            assert.equal(1, code)
            assert.matches("already running", out)
        end)

        it("names a switch it does not know, or whose value is wrong, in one line", function()
            for setting, what in pairs {
                ["nonsense=1"] = "unknown switch nonsense", ["submit.nonsense=1"] = "unknown fault submit.nonsense",
                ["limit=many"] = "limit must be a number", ["delay_ms=nan"] = "delay_ms must not be negative",
                ["submit=1"] = "submit must be a table", ["callback_format=%s"] = "callback_format does not know %s",
            } do
                local out, code = start(other, "--set '" .. setting .. "'")
                assert.equal(64, code, out)
                assert.truthy(out:find("simulator: --set: " .. what, 1, true), out)
                assert.matches("^[^\n]*simulator %-%-help%)$", out)
            end
            local out, code = sh(("%s run --dir %s --set nonsense=1 2>&1"):format(quote(LAUNCHER), quote(other)))
            assert.equal(64, code)
            assert.matches("^simulator: [^\n]*$", out)
        end)

        it("explains itself", function()
            assert.matches("callback_format", (sh(quote(LAUNCHER) .. " --help")))
            assert.equal(64, select(2, sh(quote(LAUNCHER) .. " start")))
        end)

        it("runs in the foreground too", function()
            local pipe = io.popen(("%s run --dir %s 2>&1"):format(quote(LAUNCHER), quote(other)))
            local url = pipe:read("*l")
            assert.equal(200, (request("GET", url .. "/_sim/health")))
            stop(other)
            pipe:close()  -- returns because it has ended
        end)

        it("listens with TLS too, and callbacks reach https hookUrls", function()
            local made = select(2, sh(("cd %s && openssl req -x509 -newkey rsa:2048 -nodes -days 1 "
                .. "-subj /CN=localhost -keyout k.pem -out c.pem"):format(quote(other))))
            if made ~= 0 then
                return pending("openssl is not here to make a certificate")
            end
            local url, code = start(other, ("--tls-cert %s/c.pem --tls-key %s/k.pem"):format(other, other))
            assert.equal(0, code)
            local id = submit("a fox", { hookUrl = "https://localhost:"
                .. sh("cat " .. other .. "/tls_port") .. "/_sim/sink" })
            assert.equal(200, callbacks(id, 1)[1].code)
            local sunk = select(2, request("GET", url .. "/_sim/sink")).received[1]
            assert.equal("https", sunk.scheme)
        end)
    end)

    describe("clients written for the real service", function()
        for file, interpreter in pairs { ["node_fetch.mjs"] = "node", ["python_urllib.py"] = "python3" } do
            local function run(prompt)
                return sh(("MIDJOURNEY_API_KEY=%s MIDJOURNEY_API_BASE_URL=%s "
                    .. "MIDJOURNEY_WEBHOOK_URL=%s POLL_MS=10 %s %s %s"):format(
                    KEY, base, quote(hook()), interpreter,
                    quote(HERE .. "/support/vendor/" .. file), quote(prompt)))
            end

            it("work unchanged: " .. file, function()
                if select(2, sh(interpreter .. " --version")) ~= 0 then
                    return pending(interpreter .. " is not here")
                end
                local out, code = run("a fox")
                assert.equal(0, code, out)
                assert.matches(base .. "/images/[%w_-]+/grid%.png$", out)
                received(1)
                out, code = run("a [fail] fox")
                assert.equal(1, code)
                assert.matches("failed: failed", out)
            end)
        end
    end)
end)
