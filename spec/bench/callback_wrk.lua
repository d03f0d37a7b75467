-- wrk's part of the callback benchmark: one callback after the other, each for a task of its own.
--
--   wrk -t1 -c64 -d3s -s callback_wrk.lua URL -- TASKS FIRST
--
-- TASKS: file of lines "ref task_id kid sig"; FIRST: the line to begin with. Prints one line for the driver.
local lines, threads

local head, middle
local HEADERS = " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: "

-- One expression that joins everything at once: what the generator needs is taken from what it measures.
local function body(id)
  return '{"status":0,"message":"success","data":{"taskId":"' .. id .. '","status":1,'
    .. '"jobId":"3dbbd469-36af-4a0f-8f02-df6c579e7011","image":"https://cdn.example.com/' .. id
    .. '/grid_0.png","images":["https://cdn.example.com/' .. id .. '/0_0.png","https://cdn.example.com/' .. id
    .. '/0_1.png","https://cdn.example.com/' .. id .. '/0_2.png","https://cdn.example.com/' .. id
    .. '/0_3.png"],"prompt":"a red fox in the snow, golden hour --ar 4:5","mjPrompt":"a red fox in the snow, golden '
    .. 'hour --ar 4:5 --niji 7","failReason":"","createdAt":1776211200000,"meta":{"width":1024,"height":1024}}}'
end

function setup(thread)
  threads = threads or {}
  threads[#threads + 1] = thread
end

function init(args)
  lines = assert(io.open(args[1]))
  for _ = 1, tonumber(args[2]) do
    lines:read "*l"
  end
  head = "POST " .. wrk.path .. "?ref="
  middle = HEADERS .. #body(("x"):rep(25)) .. "\r\n\r\n"
  used = 0 -- a global: the driver's side reads it
end

-- Lines are of fixed width: 26 of the ref, 25 of the task id, 8 of the kid, 22 of the signature, and blanks between.
function request()
  local line = lines:read "*l"
  used = used + 1
  return head .. line:sub(1, 26) .. "&a=1&kid=" .. line:sub(54, 61) .. "&sig=" .. line:sub(63, 84) .. middle
    .. body(line:sub(28, 52))
end

function done(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  print(("WRK %d %d %d %d %d %d"):format(summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), failed, threads[1]:get "used"))
end
