--- make bench, section deliver: events a second through the policy, beside Redis streams.
--
--   lua5.4 deliver.lua [EVENTS] [ROUNDS]
--
-- EVENTS tasks have ended; their events go through a handler that does nothing: here, in processes of their own, and in
-- a thread of nginx; and through the relay (mjhook.handlers.webhook, signed) to the simulator's sink on this machine,
-- also when each of its answers takes 20 ms.
-- Redis takes as many by XADD with every write on disk before its answer (`appendfsync always`), from redis-benchmark
-- with 64 clients. Medians over rounds, in each of which everything runs one after the other. At last, with nothing
-- else to do: how long it takes from a callback's commit under nginx to the handler. All of it lies in TMPDIR, which
-- should be on a disk.
local core = require "mjhook.core"
local kit = require "kit"
local mjhook = require "mjhook"
local receiver = require "receiver"
local redis = require "redis"
local sim = require "sim"
local webhook = require "mjhook.handlers.webhook"

local EVENTS, ROUNDS = tonumber(arg[1]) or 20000, tonumber(arg[2]) or 3
local CALLBACKS = 60
local LATENCY_MS, SHARE = 20, 5 -- of the slow receiver, which gets one event of so many
local made = 0

local function open(name, policy)
  return assert(mjhook.open { store = kit.tmp() .. "/" .. name, api_key = "k", base_url = sim.url, policy = policy })
end

-- Pending tasks: what takes them to their end.
local function endings(mj, count)
  local task = { prompt = "a red fox in the snow, golden hour --ar 4:5", timeout = 600, fingerprint = core.sha256 "x" }
  local ops = {}
  for i = 1, count do
    made = made + 1
    ops[i] = { op = "create", task = task, source = "user", account = "default", task_id = "T" .. made, want = true }
  end
  for i, result in ipairs(assert(mj.exec:commit(ops))) do
    ops[i] = { op = "signal", ref = result.task.ref, kind = "succeeded", source = "callback",
               task_id = result.task.task_id, image = "https://img.example/x.png" }
  end
  return ops
end

local function store_events(mj, count)
  for first = 1, count, 1000 do
    assert(mj.exec:commit(endings(mj, math.min(1000, count - first + 1))))
  end
end

local function deliver(mj, options, count)
  count = count or EVENTS
  store_events(mj, count)
  local before = core.clock()
  local report = assert(mj:deliver(options))
  assert(report.delivered == count, report.delivered)
  return count / (core.clock() - before) * 1000
end

-- To a receiver of which each answer takes a while.
local function deliver_slowly(mj)
  sim.config { sink = { slow = 1 }, slow_ms = LATENCY_MS }
  local rate = deliver(mj, { isolate = true }, math.ceil(EVENTS / SHARE))
  sim.reset()
  return rate
end

-- All at once, to nginx, which finds them by itself.
local function under_nginx(mj)
  store_events(mj, EVENTS)
  kit.wait_until(function() return mj:stats().events < EVENTS end, 60)
  local before, left = core.clock(), mj:stats().events
  kit.wait_until(function() return mj:stats().events == 0 end, 60)
  return left / (core.clock() - before) * 1000
end

local function xadd(server)
  local out = kit.sh(("redis-benchmark -p %d -n %d -c 64 -q XADD events '*' event_id 01KB5QW0000000000000000000-1 type "
    .. "succeeded task '{\"ref\":\"01KB5QW0000000000000000000\"}'"):format(server.port, EVENTS))
  local rate = 0
  for figure in out:gmatch "([%d.]+) requests per second" do
    rate = tonumber(figure)
  end
  return rate
end

local function at(list, share)
  table.sort(list)
  return list[math.max(1, math.ceil(#list * share))]
end

-- A receiver whose handler does what `text` says; and a mjhook on its store, without a policy.
local function start_nginx(text)
  local path = kit.write(kit.tmp() .. "/policy.lua", ("return { on_event = function(task, ctx) %s end }"):format(text))
  local web = receiver.start { settings = { policy = path } }
  return kit.open({ hook_url = web.url .. "/hook" }, sim)
end

-- Milliseconds from each callback's commit to its handler, one callback at a time.
local function latencies()
  local told = kit.tmp() .. "/told"
  local mj = start_nginx(([[
    local file = io.open(%q, "a")
    file:write(require("mjhook.core").now() - ctx.created_at, "\n")
    file:close()
  ]]):format(told))
  for i = 1, CALLBACKS do
    sim.finish(assert(mj:submit { prompt = "a fox" }).task_id)
    kit.wait_until(function() return select(2, (kit.read(told) or ""):gsub("\n", "")) == i end)
  end
  local list = {}
  for line in io.lines(told) do
    list[#list + 1] = tonumber(line)
  end
  return list
end

local function main()
  local nothing = { on_event = function() end }
  local mj = open("store", nothing)
  local relaying = open("relay", { on_event = webhook { url = sim.url .. "/_sim/sink",
    secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=" } })
  local web = start_nginx ""
  local server = redis.start { "appendonly yes", "appendfsync always" }
  local here, apart, threaded, relayed, slow, stream = {}, {}, {}, {}, {}, {}
  for i = 1, ROUNDS do
    here[i] = deliver(mj, {})
    apart[i] = deliver(mj, { isolate = true })
    threaded[i] = under_nginx(web)
    relayed[i] = deliver(relaying, { isolate = true })
    slow[i] = deliver_slowly(relaying)
    stream[i] = xadd(server)
  end
  local function say(what, list)
    print(("  %-50s %.0f/s"):format(what .. ":", at(list, 0.5)))
  end
  say("a handler that does nothing, in this process", here)
  say("the same in processes of its own", apart)
  say("the same in a thread of nginx", threaded)
  say("through the signed relay, 4 processes", relayed)
  say(("the same to a receiver whose answers take %d ms"):format(LATENCY_MS), slow)
  print(("  the relay beside this process: %.2f (aim: 0.33, or 20,000/s)"):format(at(relayed, 0.5) / at(here, 0.5)))
  say("redis XADD, 64 clients, appendfsync always", stream)
  local late = latencies()
  print(("  from a callback's commit to the handler under nginx: p50 %d ms, p95 %d ms, longest of %d %d ms"):format(
    at(late, 0.5), at(late, 0.95), #late, at(late, 1)))
end

sim.start "--set ledger=false"
local ok, err = pcall(main)
pcall(kit.cleanup)
sim.stop()
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
