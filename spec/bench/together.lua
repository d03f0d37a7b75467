--- make bench, section together: callbacks beside what else writes to the store.
--
--   luajit together.lua [SECONDS] [CONNECTIONS,...] [DUE]
--
-- One nginx worker and wrk, as in section callback: alone, and beside a reconcile run over tasks that have ended at the
-- provider (quick_provider.lua on this machine), beside a process that submits and one that delivers, and beside all
-- three. Each of these also runs alone. On a machine whose cores are all busy a part of each loss is the processor's: a
-- row beside two busy loops, which never touch the store and are scheduled as a reconcile run is, shows how much.
package.path = os.getenv "MJHOOK_ROOT" .. "/spec/bench/?.lua;" .. package.path
local core = require "mjhook.core"
local mjhook = require "mjhook"
local quick_provider = require "quick_provider"

local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local TAIL_S = 0.5 -- that other work goes on after wrk

-- ---- the other processes: this file again, with the work's name ----

local JOBS = {}
for i = 1, 200 do
  JOBS[i] = { prompt = "a red fox in the snow, golden hour --ar 4:5", timeout = 600, account = "bulk" }
end

local WORK = {}

function WORK.submission(mj)
  local ops = {}
  for i, result in ipairs(assert(mj:submit_many(JOBS))) do
    local task = result.task or result
    ops[i] = { op = "signal", kind = "succeeded", source = "poll", ref = task.ref, task_id = task.task_id,
               image = "https://cdn.example.com/0.png" }
  end
  assert(mj.exec:commit_each(ops)) -- their slots are free again
  return #ops
end

function WORK.delivery(mj)
  return assert(mj:deliver { budget = 0.2 }).delivered
end

function WORK.loop()
  local sum = 0
  for i = 1, 5000000 do
    sum = sum + i
  end
  return sum > 0 and 1 or 0
end

if WORK[arg[1]] then
  local mj = assert(mjhook.open { config = arg[2] })
  local done, begun = 0, core.clock()
  local stop_at = begun + tonumber(arg[3]) * 1000
  while core.clock() < stop_at do
    done = done + WORK[arg[1]](mj)
  end
  print(("%d %d"):format(done, core.clock() - begun))
  os.exit(0)
end

-- ---- the store ----

local receiver = require "callback_kit"
local sh, must, read, dir = receiver.sh, receiver.must, receiver.read, receiver.dir
local SECONDS = tonumber(arg[1]) or 1
local CONNECTIONS = {}
for c in (arg[2] or "4,64,256"):gmatch "%d+" do
  CONNECTIONS[#CONNECTIONS + 1] = tonumber(c)
end
local DUE = tonumber(arg[3]) or 60000 -- for each reconcile run: more than it gets done meanwhile
receiver.seconds = SECONDS

local KINDS = { "reconcile", "submission", "delivery" }

-- Jobs that have ended at the provider and whose callbacks were lost.
local function load_due(url, count)
  local mj = assert(mjhook.open { store = receiver.settings.store, api_key = "k", base_url = url,
                                  poll = { first = 1, learn = false } })
  local task = { prompt = "a red fox", timeout = 600, fingerprint = core.sha256 "x" }
  for first = 1, count, 1000 do
    local ops = {}
    for i = 1, 1000 do
      ops[i] = { op = "create", task = task, source = "user", account = "default",
                 task_id = ("D%016x%07d"):format((first + i) * 2654435761 % 2 ^ 32 * 65536, first + i) }
    end
    assert(mj.exec:commit(ops))
  end
  mj:close()
end

-- ---- measuring ----

local COMMAND = {
  reconcile = function(seconds)
    return ("%s/bin/mjhook-reconcile -c %s/config.lua --json --budget %g"):format(BUILD, dir, seconds)
  end,
}

local started = 0

-- Starts work in a process of its own that goes on for so long.
local function start(kind, seconds)
  started = started + 1
  local command = COMMAND[kind] and COMMAND[kind](seconds)
    or ("%sluajit %s/spec/bench/together.lua %s %s/config.lua %g"):format(kind == "loop" and "chrt -b 0 " or "", ROOT,
      kind, dir, seconds)
  local out = ("%s/work%d"):format(dir, started)
  return { kind = kind, out = out, pid = must(sh(("%s >%s.out 2>%s.err & echo $!"):format(command, out, out))) }
end

-- Waits for its end; how much it did in a second.
local function finished(work)
  sh(("while kill -0 %s 2>/dev/null; do sleep 0.02; done"):format(work.pid))
  local out = read(work.out .. ".out")
  local done, ms = out:match "^(%d+) (%d+)"
  if work.kind == "reconcile" then
    done, ms = out:match '"polled":(%d+)', out:match '"elapsed_ms":(%d+)'
  end
  return tonumber(must(done or out .. (read(work.out .. ".err") or ""), done and 0 or 1)) / ms * 1000
end

local function alone(kind)
  return finished(start(kind, SECONDS))
end

-- Callbacks at so many connections, beside work; their figures, and the rates of the work.
local function beside(url, worker, connections, kinds)
  local works, rates = {}, {}
  for i, kind in ipairs(kinds) do
    works[i] = start(kind, SECONDS + TAIL_S)
  end
  core.sleep(0.1)
  local figures = receiver.run(url .. "/hook", worker, connections, true)
  for i in ipairs(kinds) do
    rates[i] = finished(works[i])
  end
  return figures, rates
end

local function main()
  local url = quick_provider.start(receiver)
  receiver.settings.base_url, receiver.settings.api_key = url, nil
  receiver.settings.accounts = { { name = "default", api_key = "k" }, { name = "bulk", api_key = "k" } }
  receiver.write_config()
  receiver.load(math.ceil(SECONDS * #CONNECTIONS * 6) * 45000)
  load_due(url, DUE * (2 * #CONNECTIONS + 1))
  core.sleep(1.2) -- until the last of them is due
  local policy = ("%s/policy.lua"):format(dir)
  receiver.write(policy, "return { on_event = function() end }\n")
  receiver.settings.policy = policy
  receiver.write_config()
  local hook, master = receiver.start_nginx(1)
  local worker, speed = receiver.worker_of(master), {}
  for _, kind in ipairs { "loop", unpack(KINDS) } do
    speed[kind] = alone(kind)
  end
  print(("  alone: reconcile %.0f tasks/s, submission %.0f/s, delivery %.0f/s"):format(speed.reconcile,
    speed.submission, speed.delivery))
  for _, c in ipairs(CONNECTIONS) do
    local quiet = receiver.run(hook .. "/hook", worker, c, true)
    print(("  callbacks alone, %3d connections:       %6.0f/s, p99 %6.2f ms"):format(c, quiet.rate, quiet.p99))
    for _, kinds in ipairs { { "loop", "loop" }, { "reconcile" }, { "submission" }, { "delivery" }, KINDS } do
      local now, rates = beside(hook, worker, c, kinds)
      local texts = {}
      for i, kind in ipairs(kinds) do
        texts[i] = ("%s %.2f"):format(kind, rates[i] / speed[kind])
      end
      print(("  ... beside %-26s %6.0f/s, p99 %6.2f ms: %.2f of the rate (aim: 0.7), p99 %.1f x (2); %s of alone (0.5)")
        :format(#kinds == 1 and kinds[1] or kinds == KINDS and "all of it" or "two busy loops", now.rate, now.p99,
          now.rate / quiet.rate, now.p99 / quiet.p99,
          table.concat(texts, ", ")))
    end
  end
end

local ok, why = xpcall(main, function(err) return debug.traceback(tostring(err)) end)
if not ok then
  io.stderr:write(tostring(why), "\n")
end
receiver.finish(ok and 0 or 1)
