-- wrk's part of the callback benchmark: one callback after the other, each for a task of its own.
--
--   wrk -t1 -c64 -d3s -s callback_wrk.lua URL -- TASKS FIRST
--
-- TASKS: file of lines "ref task_id kid sig"; FIRST: the line to begin with. Prints one line for the driver.
local lines, threads

local HEAD = "POST %s?ref=%%s&a=1&kid=%%s&sig=%%s HTTP/1.1\r\nHost: localhost\r\n"
  .. "Content-Type: application/json\r\nContent-Length: %%d\r\n\r\n"
local BODY = '{"status":0,"message":"success","data":{"taskId":"%s","status":1,'
  .. '"jobId":"3dbbd469-36af-4a0f-8f02-df6c579e7011","image":"https://cdn.example.com/%s/grid_0.png","images":['
  .. '"https://cdn.example.com/%s/0_0.png","https://cdn.example.com/%s/0_1.png",'
  .. '"https://cdn.example.com/%s/0_2.png","https://cdn.example.com/%s/0_3.png"],'
  .. '"prompt":"a red fox in the snow, golden hour --ar 4:5","mjPrompt":"a red fox in the snow, golden hour --ar 4:5 '
  .. '--niji 7","failReason":"","createdAt":1776211200000,"meta":{"width":1024,"height":1024}}}'
local head

function setup(thread)
  threads = threads or {}
  threads[#threads + 1] = thread
end

function init(args)
  lines = assert(io.open(args[1]))
  for _ = 1, tonumber(args[2]) do
    lines:read "*l"
  end
  head = HEAD:format(wrk.path)
  used = 0 -- a global: the driver's side reads it
end

function request()
  local ref, id, kid, sig = (lines:read "*l" or "x x x x"):match "^(%S+) (%S+) (%S+) (%S+)"
  used = used + 1
  local body = BODY:format(id, id, id, id, id, id)
  return head:format(ref, kid, sig, #body) .. body
end

function done(summary, latency)
  local failed = summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write
    + summary.errors.timeout
  print(("WRK %d %d %d %d %d %d"):format(summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), failed, threads[1]:get "used"))
end
