--- What happens later: a binary heap of due calls and one pump that runs them.
-- One nginx timer per job would cost a fake request each and hit
-- lua_max_pending_timers; the heap holds millions.

local semaphore = require "ngx.semaphore"

local now, floor = ngx.now, math.floor

local _M = {}

local heap, size, sequence = {}, 0, 0
local wake            -- posted when a call is due before the pump would look
local sleeping_until  -- nil while the pump is running calls

-- Calls due at the same millisecond run in the order they were made.
local function earlier(a, b)
    if a.due ~= b.due then
        return a.due < b.due
    end
    return a.sequence < b.sequence
end

local function push(entry)
    size = size + 1
    local i = size
    while i > 1 do
        local up = floor(i / 2)
        if not earlier(entry, heap[up]) then
            break
        end
        heap[i] = heap[up]
        i = up
    end
    heap[i] = entry
end

local function pop()
    local top, last = heap[1], heap[size]
    heap[size] = nil
    size = size - 1
    if size == 0 then
        return top
    end
    local i = 1
    while true do
        local down = 2 * i
        if down > size then
            break
        end
        if down < size and earlier(heap[down + 1], heap[down]) then
            down = down + 1
        end
        if not earlier(heap[down], last) then
            break
        end
        heap[i] = heap[down]
        i = down
    end
    heap[i] = last
    return top
end

--- Milliseconds since the epoch, as nginx last read the clock.
function _M.ms()
    return floor(now() * 1000 + 0.5)
end

--- Calls fn(arg) in `ms` milliseconds.
function _M.after(ms, fn, arg)
    sequence = sequence + 1
    local due = _M.ms() + ms
    push { due = due, sequence = sequence, fn = fn, arg = arg }
    if sleeping_until and due < sleeping_until then
        sleeping_until = nil
        wake:post()
    end
end

--- Forgets every call that is not due yet.
function _M.clear()
    heap, size = {}, 0
end

local function pump(premature)
    while not premature and not ngx.worker.exiting() do
        while size > 0 and heap[1].due <= _M.ms() do
            local entry = pop()
            local ok, err = pcall(entry.fn, entry.arg)
            if not ok then
                ngx.log(ngx.ERR, "simulator: ", err)
            end
        end
        local pause = size > 0 and heap[1].due - _M.ms() or 60000
        sleeping_until = _M.ms() + pause
        wake:wait(math.max(pause, 1) / 1000)
        sleeping_until = nil
    end
end

--- Starts the pump (init_worker).
function _M.start()
    wake = assert(semaphore.new())
    assert(ngx.timer.at(0, pump))
end

return _M
