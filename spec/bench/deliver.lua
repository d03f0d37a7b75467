--- make bench, section deliver: events a second through the policy, beside Redis streams.
--
--   lua deliver.lua [EVENTS] [ROUNDS]
--
-- The store lies in BUILD, on a disk. EVENTS tasks have ended; their events go through a handler that does nothing,
-- here and in processes of their own; and through the relay (mjhook.handlers.webhook, signed) to the simulator's sink
-- on this machine. Redis, where it is installed, takes as many by XADD with every write on disk
-- before its answer (`appendfsync always`), from redis-benchmark with 64 clients. Medians over rounds, in each of which
-- everything runs one after the other.
local core = require "mjhook.core"
local mjhook = require "mjhook"

local EVENTS, ROUNDS = tonumber(arg[1]) or 20000, tonumber(arg[2]) or 3
local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local SIMULATOR = ("%s/scripts/simulator/simulator"):format(ROOT)

local function sh(command)
  local pipe = io.popen("( " .. command .. "\n) 2>&1; printf '\\n%s' $?")
  local out, code = pipe:read("*a"):match "^(.-)\n?\n(%d+)$"
  pipe:close()
  return out, tonumber(code)
end

local dir = assert((sh(("mktemp -d -p %s"):format(BUILD))))
local made = 0

local function ended(mj)
  local task = { prompt = "a red fox in the snow, golden hour --ar 4:5", timeout = 600, fingerprint = core.sha256 "x" }
  for _ = 1, EVENTS, 1000 do
    local ops = {}
    for i = 1, 1000 do
      made = made + 1
      ops[i] = { op = "create", task = task, source = "user", account = "default", task_id = "T" .. made, want = true }
    end
    for i, result in ipairs(assert(mj.exec:commit(ops))) do
      ops[i] = { op = "signal", ref = result.task.ref, kind = "succeeded", source = "callback",
                 task_id = result.task.task_id, image = "https://img.example/x.png" }
    end
    assert(mj.exec:commit(ops))
  end
end

local function measure(mj, options)
  ended(mj)
  local before = core.clock()
  local report = assert(mj:deliver(options))
  assert(report.delivered == EVENTS, report.delivered)
  return EVENTS / (core.clock() - before) * 1000
end

local function relay()
  local url = assert(sh(("%s start --dir %s/sim --key k --set ledger=false"):format(SIMULATOR, dir)))
  local handler = require "mjhook.handlers.webhook" { url = url .. "/_sim/sink",
    secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" }
  return assert(mjhook.open { store = dir .. "/relay", api_key = "k", base_url = url, policy = { on_event = handler } })
end

local redis -- port

local function start_redis()
  if select(2, sh "command -v redis-server redis-benchmark") ~= 0 then
    return
  end
  local port = sh [[python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
  ]]
  sh(("redis-server --port %s --bind 127.0.0.1 --dir %s --appendonly yes --appendfsync always --save '' "
    .. "--daemonize yes --pidfile %s/redis.pid --logfile %s/redis.log"):format(port, dir, dir, dir))
  local _, code = sh(("for i in $(seq 200); do redis-cli -p %s ping && exit 0; sleep 0.02; done; exit 1"):format(port))
  redis = code == 0 and port or nil
end

local function xadd()
  local out = sh(("redis-benchmark -p %s -n %d -c 64 -q XADD events '*' event_id 01KB5QW0000000000000000000-1 type "
    .. "succeeded task '{\"ref\":\"01KB5QW0000000000000000000\"}'"):format(redis, EVENTS))
  local rate = 0
  for figure in out:gmatch "([%d.]+) requests per second" do
    rate = tonumber(figure)
  end
  return rate
end

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

local ok, err = pcall(function()
  local mj = assert(mjhook.open { store = dir .. "/store", api_key = "k", base_url = "http://127.0.0.1:1",
                                  policy = { on_event = function() end } })
  start_redis()
  local relaying = relay()
  local here, apart, relayed, stream = {}, {}, {}, {}
  for i = 1, ROUNDS do
    here[i] = measure(mj, {})
    apart[i] = measure(mj, { isolate = true })
    relayed[i] = measure(relaying, { isolate = true })
    stream[i] = redis and xadd() or nil
  end
  print(("  a handler that does nothing, in this process (%s): %.0f events/s"):format(
    rawget(_G, "jit") and "LuaJIT" or _VERSION, median(here)))
  print(("  the same in processes of its own:                  %.0f events/s"):format(median(apart)))
  print(("  through the signed relay, 4 processes:             %.0f events/s"):format(median(relayed)))
  if redis then
    print(("  redis XADD, 64 clients, appendfsync always:        %.0f/s"):format(median(stream)))
  end
  mj:close()
end)
sh(("%s stop --dir %s/sim"):format(SIMULATOR, dir))
sh(("test -f %s/redis.pid && kill $(cat %s/redis.pid) && sleep 0.3; rm -rf %s"):format(dir, dir, dir))
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
