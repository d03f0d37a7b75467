--- make bench, section callback: the receiver under nginx, beside receivers that do less.
--
--   luajit callback.lua [SECONDS] [ROUNDS] [CONNECTIONS,...] [alone [URL SCHEMA]]
--
-- One nginx worker and wrk. Every request to /hook and /single is a real change of a task of its own, with event and
-- index entries; what was acknowledged is counted in the store afterwards. Medians over rounds, in each of which all
-- receivers run one after the other, so that ratios are of neighbours in time. mjhook and (a) are measured a second
-- time with wrk kept on the last core: left to itself the kernel likes to pull both ends of a loopback connection onto
-- one core, whatever idles beside it. With "alone" nothing is run but mjhook on one worker, on the store at URL.
package.path = os.getenv "MJHOOK_ROOT" .. "/spec/bench/?.lua;" .. package.path
local receiver = require "callback_kit"

local HERE = os.getenv "MJHOOK_ROOT" .. "/spec/bench"
local SECONDS, ROUNDS = tonumber(arg[1]) or 2, tonumber(arg[2]) or 3
local CONNECTIONS = {}
for c in (arg[3] or "1,16,64,256"):gmatch "%d+" do
  CONNECTIONS[#CONNECTIONS + 1] = tonumber(c)
end
local ALONE, STORE, SCHEMA = arg[4] == "alone", arg[5], arg[6]
local BUILD = os.getenv "MJHOOK_BUILD"
local AIMS = { [64] = 0.6, [256] = 0.75 } -- of (a), the load generator on its own core
receiver.seconds = SECONDS
receiver.settings.store, receiver.settings.store_schema = STORE or receiver.settings.store, SCHEMA

local sh, must, read, dir, started = receiver.sh, receiver.must, receiver.read, receiver.dir, receiver.started
local run, median, ratios, worker_of = receiver.run, receiver.median, receiver.ratios, receiver.worker_of

local function start_express()
  local _, code = sh(("mkdir -p %s/bench && cd %s/bench && { test -d node_modules/express || npm install --silent "
    .. "--no-audit --no-fund --no-package-lock express@4; }"):format(BUILD, BUILD))
  if code ~= 0 then
    return nil
  end
  local port = receiver.free_port()
  sh(("cd %s/bench && cp %s/callback_express.js . && "
    .. "{ node callback_express.js %s >%s/express.log 2>&1 & echo $! >%s/express.pid; }"):format(BUILD, HERE, port, dir,
    dir))
  started[#started + 1] = read(dir .. "/express.pid"):match "%d+"
  must(sh(("for i in $(seq 500); do grep -q listening %s/express.log && exit 0; sleep 0.02; done; exit 1"):format(dir)))
  return ("http://127.0.0.1:%s/express"):format(port), started[#started]
end

-- Memory of nginx's worker that is its own: the mapped store is the kernel's cache.
local function anonymous_mib(master)
  return (tonumber((read("/proc/" .. worker_of(master) .. "/status") or ""):match "RssAnon:%s*(%d+)") or 0) / 1024
end

local function say(name, connections, runs)
  print(("  %-34s %3d connections: %7.0f/s, p50 %6.2f ms, p99 %6.2f ms, CPU %5.1f us"):format(name, connections,
    median(runs, "rate"), median(runs, "p50"), median(runs, "p99"), median(runs, "cpu")))
end

-- Callbacks alone, and while eight clients ask the console for what takes longest: a text that no prompt has.
local function beside_console(url, worker)
  local alone, beside = {}, {}
  for i = 1, ROUNDS do
    alone[i] = run(url .. "/hook", worker, 64, true)
    local pid = must(sh(("wrk -t1 -c8 -d%ds '%s/mjhook/api/tasks?q=nothing&since=0' >%s/console.out 2>&1 & echo $!")
      :format(SECONDS + 2, url, dir)))
    beside[i] = run(url .. "/hook", worker, 64, true)
    must(sh(("kill -0 %s"):format(pid))) -- it was at work all the time
    sh(("while kill -0 %s 2>/dev/null; do sleep 0.02; done"):format(pid))
  end
  say("mjhook, nothing beside it", 64, alone)
  say("mjhook, a console is hammered", 64, beside)
  print(("  %s requests to the console a second; callbacks are %.2f of those without (aim: 0.9), p99 %.1f x"):format(
    (read(dir .. "/console.out") or ""):match "Requests/sec:%s*([%d.]+)" or "?", ratios(beside, alone, "rate"),
      ratios(beside, alone, "p99")))
end

-- Callbacks alone: a line for each number of connections.
local function alone()
  local needed = 0
  for _, c in ipairs(CONNECTIONS) do
    needed = needed + math.min(60000, 4000 * c)
  end
  local mj = receiver.load(needed * SECONDS * ROUNDS)
  local url, master = receiver.start_nginx(1)
  for _, c in ipairs(CONNECTIONS) do
    local runs = {}
    for i = 1, ROUNDS do
      runs[i] = run(url .. "/hook", worker_of(master), c, true)
    end
    say("mjhook", c, runs)
  end
  receiver.stop(master)
  local stored = mj:stats().tasks.succeeded
  print(("  acknowledged %d, stored %d"):format(receiver.acknowledged, stored))
  receiver.finish(stored >= receiver.acknowledged and 0 or 1)
end

local function main()
  receiver.write_config()
  if ALONE then
    return alone()
  end
  -- A second: two workers at most; those beside a console and before.
  local needed = 90000 + 100000
  for _, c in ipairs(CONNECTIONS) do
    needed = needed + 2 * math.min(60000, 4000 * c) + 5000
  end
  local mj = receiver.load(needed * SECONDS * ROUNDS)
  local url, master = receiver.start_nginx(1)
  local express, express_pid = start_express()
  local worker = worker_of(master)
  local memory = { anonymous_mib(master) }
  local result = {}
  for _ = 1, ROUNDS do
    for _, c in ipairs(CONNECTIONS) do
      local r = result[c] or { hook = {}, decode = {}, single = {}, express = {}, apart = {}, decode_apart = {} }
      result[c] = r
      r.hook[#r.hook + 1] = run(url .. "/hook", worker, c, true)
      r.decode[#r.decode + 1] = run(url .. "/decode", worker, c)
      r.single[#r.single + 1] = run(url .. "/single", worker, c, true)
      r.express[#r.express + 1] = express and run(express, express_pid, c) or nil
      r.apart[#r.apart + 1] = run(url .. "/hook", worker, c, true, true)
      r.decode_apart[#r.decode_apart + 1] = run(url .. "/decode", worker, c, false, true)
    end
    memory[#memory + 1] = ("%.1f"):format(anonymous_mib(master))
  end
  for _, c in ipairs(CONNECTIONS) do
    local r = result[c]
    say("mjhook", c, r.hook)
    say("(a) read and decode, store nothing", c, r.decode)
    say("(b) a transaction per request", c, r.single)
    if express then
      say("(c) Express, store nothing", c, r.express)
    end
    print(("  mjhook is %.2f of (a), %.1f times (b)%s; its p50 is %.2f of (b)'s"):format(
      ratios(r.hook, r.decode, "rate"), ratios(r.hook, r.single, "rate"),
      express and (", %.1f times (c)"):format(ratios(r.hook, r.express, "rate")) or "",
      ratios(r.hook, r.single, "p50")))
    print(("  on the event loop a callback takes %.1f us of processor, %.2f of (a)'s (aim: 1.2)"):format(
      median(r.hook, "loop"), ratios(r.hook, r.decode, "loop")))
    say("mjhook, wrk kept on the last core", c, r.apart)
    print(("  which is %.2f of (a) measured that way%s, %.0f/s"):format(ratios(r.apart, r.decode_apart, "rate"),
      AIMS[c] and (" (aim: %s)"):format(AIMS[c]) or "", median(r.decode_apart, "rate")))
  end
  print(("  nginx worker's own memory: %.1f MiB at start, then after each round %s MiB, at last after %d callbacks")
    :format(table.remove(memory, 1), table.concat(memory, ", "), receiver.acknowledged))
  beside_console(url, worker)
  receiver.stop(master)
  url, master = receiver.start_nginx(2)
  local two = {}
  for i = 1, ROUNDS do
    two[i] = run(url .. "/hook", worker_of(master), 256, true)
  end
  say("two workers (wrk needs a core, too)", 256, two)
  local stored = mj:stats().tasks.succeeded
  print(("  acknowledged %d, stored %d"):format(receiver.acknowledged, stored))
  receiver.finish(stored >= receiver.acknowledged and 0 or 1)
end

local ok, why = xpcall(main, debug.traceback)
if not ok then -- whatever was started ends with us
  io.stderr:write(why, "\n")
  receiver.finish(1)
end
