--- make bench, section sweep: the reconciler's cost, with nothing due and with very much due.
--
--   lua5.4 sweep.lua [DUE] [STORED] [ROUNDS] [alone [URL]]
--
-- Start-up: the whole process, `mjhook-reconcile` on a store of STORED tasks of which none is due; median of ROUNDS.
-- A sweep: DUE tasks whose callbacks were lost, all finished at the provider (scripts/simulator on this machine, which
-- takes a core); with "alone" once and nothing else, on the store at URL. Afterwards every one of them is `succeeded`
-- in the store.
local core = require "mjhook.core"
local mjhook = require "mjhook"
local provider = require "mjhook.provider"

local DUE, STORED, ROUNDS = tonumber(arg[1]) or 100000, tonumber(arg[2]) or 1000000, tonumber(arg[3]) or 20
local ALONE, STORE = arg[4] == "alone", arg[5]
local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local KEY = "k"
local BATCH = 1000

local function sh(command)
  local pipe = io.popen("( " .. command .. "\n) 2>&1; printf '\\n%s' $?")
  local out, code = pipe:read("*a"):match "^(.-)\n?\n(%d+)$"
  pipe:close()
  return out, tonumber(code)
end

local function must(out, code)
  return code == 0 and out or error(out, 2)
end

local dir = must(sh(("mktemp -d -p %s"):format(BUILD)))
local SIMULATOR = ("%s/scripts/simulator/simulator"):format(ROOT)

local function settings(name, url)
  return { store = STORE or ("%s/%s"):format(dir, name), store_schema = STORE and name, api_key = KEY,
           base_url = url, poll = { first = 1, learn = false },
           max_in_flight = 1000 }
end

-- Wall milliseconds, most memory in MiB and the report of a mjhook-reconcile.
local function reconcile(name, url, more)
  local config = ("%s/%s.lua"):format(dir, name)
  local file = assert(io.open(config, "w"))
  file:write(("return { store = %q, store_schema = %s, api_key = %q, base_url = %q, "
    .. "poll = { first = 1, learn = false } }\n"):format(
    settings(name).store, STORE and ("%q"):format(name) or "nil", KEY, url))
  file:close()
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

-- Tasks that somebody else submitted: with the ids given, or made-up ones.
local function load(mj, count, ids)
  local task = { prompt = "a red fox in the snow, golden hour --ar 4:5", timeout = 600,
                 fingerprint = core.sha256 "x" }
  for first = 1, count, BATCH do
    local ops = {}
    for i = 1, math.min(BATCH, count - first + 1) do
      local n = first + i - 1
      ops[i] = { op = "create", task = task, source = "user", account = "default",
                 task_id = ids and ids[n] or ("Mt%016x"):format(n) }
    end
    assert(mj.exec:commit(ops))
  end
end

-- Jobs at the provider, with no callback to come; their ids.
local function submit(url, count)
  local conf = { accounts = { { name = "default", api_key = KEY } }, base_url = url }
  local client, ids = assert(core.http { connections = 32 }), {}
  local body = '{"prompt":"a red fox in the snow","mode":"fast","timeout":600}'
  for _ = 1, count, BATCH do
    local requests = {}
    for i = 1, math.min(BATCH, count - #ids) do
      requests[i] = { account = "default", path = "/midjourney/v1/submit-jobs", body = body }
    end
    for _, answer in ipairs(assert(client:perform(provider.complete(conf, requests)))) do
      ids[#ids + 1] = assert(answer.body and answer.body:match '"taskId":"([^"]+)"', answer.error)
    end
  end
  return ids
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

local function sweep()
  local url = must(sh(("%s start --dir %s/sim --key %s --set ledger=false --set limit=0 --set delay_ms=1"):format(
    SIMULATOR, dir, KEY)))
  local rates, rss = {}, {}
  for round = 1, ALONE and 1 or 3 do
    local name = "due" .. round
    local mj = assert(mjhook.open(settings(name, url)))
    load(mj, DUE, submit(url, DUE))
    core.sleep(1.2) -- until the last of them is due
    local wall, mib, report = reconcile(name, url, "--budget 600")
    local done = tonumber(report:match '"succeeded":(%d+)')
    assert(done == DUE and mj:stats().tasks.succeeded == DUE, report)
    mj:close()
    rates[round], rss[round] = DUE / wall * 1000, mib
    if not STORE then
      sh(("rm -rf %s"):format(settings(name).store))
    end
  end
  print(("  %d due: %.0f tasks/s, %.1f MiB (aims: 30000, 32)"):format(DUE, median(rates), median(rss)))
end

local ok, err = pcall(function()
  print "mjhook-reconcile, whole process (aims: 10 ms, 16 MiB)"
  if not ALONE then
    startup()
  end
  sweep()
end)
sh(("%s stop --dir %s/sim; rm -rf %s"):format(SIMULATOR, dir, dir))
if not ok then
  io.stderr:write(tostring(err), "\n")
  os.exit(1)
end
