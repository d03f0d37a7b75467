--- make bench, section sweep: the reconciler's cost, with nothing due and with very much due.
--
--   lua5.4 sweep.lua [DUE,...] [STORED] [ROUNDS] [alone [URL]]
--
-- Start-up: the whole process, `mjhook-reconcile` on a store of STORED tasks of which none is due; median of ROUNDS.
-- A sweep: DUE tasks whose callbacks were lost, all finished at the provider (quick_provider.lua on this machine); with
-- "alone" once and nothing else, on the store at URL. Afterwards every one of them is `succeeded` in the store.
package.path = os.getenv "MJHOOK_ROOT" .. "/spec/bench/?.lua;" .. package.path
local core = require "mjhook.core"
local kit = require "callback_kit"
local mjhook = require "mjhook"
local quick_provider = require "quick_provider"

local DUE, STORED, ROUNDS = arg[1] or "20000,100000", tonumber(arg[2]) or 1000000, tonumber(arg[3]) or 20
local ALONE, STORE = arg[4] == "alone", arg[5]
local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local KEY = "k"
local BATCH = 1000

local sh, must, dir = kit.sh, kit.must, kit.dir

local function settings(name, url)
  return { store = STORE or ("%s/%s"):format(dir, name), store_schema = STORE and name, api_key = KEY,
           base_url = url, poll = { first = 1, learn = false },
           max_in_flight = 1000 }
end

-- Wall milliseconds, most memory in MiB and the report of a mjhook-reconcile.
local function reconcile(name, url, more)
  local config = ("%s/%s.lua"):format(dir, name)
  kit.write(config, ("return { store = %q, store_schema = %s, api_key = %q, base_url = %q, "
    .. "poll = { first = 1, learn = false } }\n"):format(
    settings(name).store, STORE and ("%q"):format(name) or "nil", KEY, url))
  must(sh("chmod 600 " .. config))
  local before = core.clock()
  local out = must(sh(("python3 %s/spec/bench/sweep_run.py %s/bin/mjhook-reconcile -c %s --json %s"):format(ROOT, BUILD,
    config, more or "")))
  local report, wall, kib = out:match "(%b{})\n(%d+) (%d+)"
  assert(report, out)
  return tonumber(wall) / 1000, tonumber(kib) / 1024, report, core.clock() - before
end

local function median(list)
  table.sort(list)
  return list[math.floor((#list + 1) / 2)]
end

-- Tasks that were submitted elsewhere.
local function load(mj, count)
  local task = { prompt = "a red fox in the snow, golden hour --ar 4:5", timeout = 600,
                 fingerprint = core.sha256 "x" }
  for first = 1, count, BATCH do
    local ops = {}
    for i = 1, math.min(BATCH, count - first + 1) do
      -- Ids in no order, as the provider's are.
      local id = ("Mt%016x%07d"):format((first + i) * 2654435761 % 2 ^ 32 * 65536, first + i)
      ops[i] = { op = "create", task = task, source = "user", account = "default", task_id = id }
    end
    assert(mj.exec:commit(ops))
  end
end

local function startup()
  local mj = assert(mjhook.open(settings("idle", "http://127.0.0.1:1")))
  mj:close()
  local wall, rss = {}, {}
  for i = 1, ROUNDS do
    wall[i], rss[i] = reconcile("idle", "http://127.0.0.1:1")
  end
  print(("  nothing due, empty store:        %5.1f ms, %4.1f MiB"):format(median(wall), median(rss)))
  mj = assert(mjhook.open { store = settings("idle").store, api_key = KEY, base_url = "http://127.0.0.1:1",
                            poll = { first = 86400, max = 86400, learn = false } })
  load(mj, STORED)
  mj:close()
  for i = 1, ROUNDS do
    wall[i], rss[i] = reconcile("idle", "http://127.0.0.1:1")
  end
  print(("  nothing due, %8d stored:     %5.1f ms, %4.1f MiB"):format(STORED, median(wall), median(rss)))
end

-- One of them over so many due tasks: tasks a second, MiB.
local function sweep(name, url, due)
  local mj = assert(mjhook.open(settings(name, url)))
  load(mj, due)
  core.sleep(1.2) -- until the last of them is due
  local wall, mib, report = reconcile(name, url, "--budget 600")
  local done = tonumber(report:match '"succeeded":(%d+)')
  assert(done == due and mj:stats().tasks.succeeded == due, report)
  mj:close()
  if not STORE then
    sh(("rm -rf %s"):format(settings(name).store))
  end
  return due / wall * 1000, mib
end

local function sweeps()
  local url = quick_provider.start(kit)
  for due in DUE:gmatch "%d+" do
    local rates, rss = {}, {}
    for round = 1, ALONE and 1 or 3 do
      rates[round], rss[round] = sweep(("due%s_%d"):format(due, round), url, tonumber(due))
    end
    print(("  %s due: %.0f tasks/s, %.1f MiB (aims: 1.3 times commit 53a303b, and its 21 MiB at 20000, 24 at 100000)")
      :format(due, median(rates), median(rss)))
  end
end

local ok, err = pcall(function()
  print "mjhook-reconcile, whole process (aims with nothing due: 8 ms, 16 MiB)"
  if not ALONE then
    startup()
  end
  sweeps()
end)
if not ok then
  io.stderr:write(tostring(err), "\n")
end
kit.finish(ok and 0 or 1)
