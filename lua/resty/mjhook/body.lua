--- A callback's body under nginx: read with bounds on how many clients may take their time over one, and how long.
--
-- Nearly every body comes together with its head and is read at once; such a one counts for nothing here. Those that
-- have to be waited for are counted: a client with one good URL must not keep the callbacks of other tasks out.
local core = require "mjhook.core"

--- OF_ONE, OF_ALL: bodies that a worker waits for, of one task and together. WHOLE_S: seconds that it waits for a whole
-- body. Specs change them.
local M = { OF_ONE = 4, OF_ALL = 512, WHOLE_S = 15 }

local COLLECT_MS = 100

-- What is waited for: the table that read() fills, and whose body it is. nginx does not tell that a client is gone; it
-- drops the request's threads, and then nothing but this table refers to the key, which is weak. So whether those
-- that are counted still wait is known after a collection.
local waiting = setmetatable({}, { __mode = "k" })
local collected_at = -COLLECT_MS

local function is_full(key, most)
  local n, all = 0, 0
  for _, other in pairs(waiting) do
    n, all = n + (other == key and 1 or 0), all + 1
  end
  return n >= most or all >= M.OF_ALL
end

local function has_room(key, most)
  if not is_full(key, most) then
    return true
  end
  local now = core.clock()
  if now - collected_at < COLLECT_MS then
    return false
  end
  collected_at = now
  collectgarbage()
  return not is_full(key, most)
end

-- In a light thread of its own, so that a body which does not end can be given up.
local function read(result)
  result.ok, result.why = pcall(ngx.req.read_body)
  result.done = true
end

local function sleep(seconds)
  ngx.sleep(seconds)
end

local function wait_for(reader, result)
  local alarm = ngx.thread.spawn(sleep, M.WHOLE_S)
  ngx.thread.wait(reader, alarm)
  ngx.thread.kill(result.done and alarm or reader)
end

--- Reads the request's body.
-- @tparam string|nil ref the task that the request is about, when it is signed
-- @treturn string|nil the body; nil and why not: "busy", "slow", "file" (client_body_buffer_size is too small), or
-- "unreadable", which nginx explains in the third value
function M.read(ref)
  local result = {}
  local reader = ngx.thread.spawn(read, result)
  if not result.done then
    -- Requests without a token have no task: all of them together get half of the places.
    local key = ref or ""
    if not has_room(key, ref and M.OF_ONE or M.OF_ALL / 2) then
      ngx.thread.kill(reader)
      return nil, "busy"
    end
    waiting[result] = key
    wait_for(reader, result)
    waiting[result] = nil
    if not result.done then
      return nil, "slow"
    end
  end
  if not result.ok then
    return nil, "unreadable", tostring(result.why)
  end
  local body = ngx.req.get_body_data()
  if not body and ngx.req.get_body_file() then
    return nil, "file"
  end
  return body or ""
end

return M
