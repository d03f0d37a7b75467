--- The live stream: server-sent events, one when something was committed, at most one a second.
local core = require "mjhook.core"

local M = { MOST = 64 }

local LOOK_S = 1
local SILENCE_MS = 15000
local STALE_MS = 900 -- what one stream has read, the others of this worker need not read

-- When each stream was last seen to go on. nginx may drop one without a word; then it is not counted any more.
local streams = {}
local FRESH_MS = 30000

local function count()
  local n, now = 0, core.clock()
  for stream, seen in pairs(streams) do
    if now - seen > FRESH_MS then
      streams[stream] = nil
    else
      n = n + 1
    end
  end
  return n
end

local shared = { at = -STALE_MS }

local function pulse(read)
  local now = core.clock()
  if now - shared.at >= STALE_MS then
    shared.at = now
    shared.text = read() or shared.text
  end
  return shared.text
end

-- Writes, and gives whether the client is still there.
local function write(text)
  local ok = ngx.print(text)
  return ok and ngx.flush(true)
end

local function follow(read, stream)
  local told, at = nil, core.clock()
  if not write "retry: 2000\n\n" then
    return
  end
  while not ngx.worker.exiting() do
    local text = pulse(read)
    local now = core.clock()
    local ok = true
    streams[stream] = now
    if text and text ~= told then
      ok = write("event: change\ndata: " .. text .. "\n\n")
      told, at = text, now
    elseif now - at >= SILENCE_MS then
      ok = write ": still here\n\n"
      at = now
    end
    if not ok then
      return
    end
    ngx.sleep(LOOK_S)
  end
end

--- Streams until the client or the worker ends.
-- @tparam function read gives JSON text on one line
-- @treturn boolean false: there are too many streams
function M.stream(read)
  if count() >= M.MOST then
    return false
  end
  local stream = {}
  streams[stream] = core.clock()
  ngx.header["Content-Type"] = "text/event-stream"
  ngx.header["X-Accel-Buffering"] = "no"
  local ok, why = pcall(follow, read, stream)
  streams[stream] = nil
  if not ok then
    error(why, 0)
  end
  return true
end

return M
