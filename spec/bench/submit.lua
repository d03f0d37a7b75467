--- make bench, section submit: submissions end to end, beside libcurl alone.
--
--   lua submit.lua [COUNT] [ROUNDS] [CONNECTIONS,...]
--
-- The provider is scripts/simulator with its limit lifted, on this machine: it takes a core, we take the other. The
-- store lies in BUILD, on a disk. COUNT submissions a measurement, medians over rounds, in each of which everything
-- runs one after the other, so that ratios are of neighbours in time. In the end the provider has accepted as many
-- jobs as we have counted, and every one of them is `pending` or ended in the store.
local core = require "mjhook.core"
local mjhook = require "mjhook"

local COUNT, ROUNDS = tonumber(arg[1]) or 4000, tonumber(arg[2]) or 5
local CONNECTIONS = {}
for c in (arg[3] or "8,32"):gmatch "%d+" do
  CONNECTIONS[#CONNECTIONS + 1] = tonumber(c)
end
local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local LUA = rawget(_G, "jit") and "LuaJIT" or _VERSION
local KEY = "k"
local SLOTS = 1000 -- the most that an account may have: so many are sent in one list
local SINGLE = math.max(1, math.floor(COUNT / 8)) -- one after another is slower
local SLOW = { -- providers that are not next door
  { text = "each answer takes 20 ms", on = '{"submit":{"slow":1},"slow_ms":20}' },
  { text = "every other answer takes 40 ms", on = '{"submit":{"slow":0.5},"slow_ms":40}' }, -- drawn: many of them
}

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
local url

local function start_simulator()
  url = must(sh(("%s start --dir %s/sim --key %s --set ledger=false --set limit=0 --set delay_ms=3600000 "
    .. "--set timeout_unit_ms=36000000"):format(SIMULATOR, dir, KEY)))
end

local function accepted()
  local counters = must(sh(("curl -sf %s/_sim/counters"):format(url)))
  return tonumber(counters:match '"accepted":(%d+)') or 0
end

local function open(connections)
  return assert(mjhook.open {
    store = ("%s/store-%d"):format(dir, connections), api_key = KEY, secrets = { "the secret of this benchmark" },
    base_url = url, hook_url = url .. "/_sim/sink", max_in_flight = SLOTS, connections = connections,
  })
end

local function configure(json)
  must(sh(("curl -sf -o %s/config -d '%s' %s/_sim/config"):format(dir, json, url)))
end

-- ---- what is measured ----

local sent = 0 -- by whomever

local function libcurl(count, connections, log)
  local out = must(sh(("%s/bench/submit_curl_bench %s/midjourney/v1/submit-jobs %s %d %d %s"):format(BUILD, url, KEY,
    count, connections, log or "")))
  local n, wall, cpu = out:match "^(%d+) (%d+) (%d+)$"
  sent = sent + n
  return { rate = n / wall * 1e6, cpu = cpu / n }
end

local take = 0

local function job()
  take = take + 1
  return { prompt = ("a red fox in the snow, golden hour, take %06d --ar 4:5 --niji 7"):format(take) }
end

-- The provider's word on each task, so that its slot is free again. Nobody measures this.
local function finish(mj, tasks)
  local ops = {}
  for i, task in ipairs(tasks) do
    assert(task.state == "pending", tostring(task.error and task.error.message or task.state))
    ops[i] = { op = "signal", ref = task.ref, attempt = 1, kind = "succeeded", source = "callback",
               task_id = task.task_id, image = ("https://img.example/%s.png"):format(task.ref) }
  end
  assert(mj.exec:commit(ops))
  sent = sent + #tasks
end

-- Times `send(list)`, which gives tasks, with lists of at most `slots` jobs.
local function measure(mj, count, send)
  local wall, cpu, done = 0, 0, 0
  while done < count do
    local jobs = {}
    for i = 1, math.min(SLOTS, count - done) do
      jobs[i] = job()
    end
    local wall_before, cpu_before = core.clock(), os.clock() -- the latter is of all threads
    local tasks = send(jobs)
    cpu = cpu + os.clock() - cpu_before
    wall = wall + core.clock() - wall_before
    finish(mj, tasks)
    done = done + #jobs
  end
  return { rate = count / wall * 1e3, cpu = cpu / count * 1e6 }
end

local function submit(mj, count)
  return measure(mj, count, function(jobs)
    local tasks = {}
    for i, j in ipairs(jobs) do
      tasks[i] = assert(mj:submit(j))
    end
    return tasks
  end)
end

local function submit_many(mj, count)
  return measure(mj, count, function(jobs)
    return assert(mj:submit_many(jobs))
  end)
end

-- ---- what is said ----

local function median(values)
  table.sort(values)
  return values[math.floor((#values + 1) / 2)]
end

local function column(runs, field)
  local values = {}
  for i, r in ipairs(runs) do
    values[i] = r[field]
  end
  return values
end

local function ratio(a, b, field)
  local values = {}
  for i in ipairs(a) do
    values[i] = a[i][field] / b[i][field]
  end
  return median(values)
end

local function say(name, connections, runs)
  print(("  %-46s %2d connection%s: %6.0f/s, CPU %5.1f us"):format(name, connections,
    connections == 1 and " " or "s", median(column(runs, "rate")), median(column(runs, "cpu"))))
end

-- A figure is beside its aim: the rate is to be at least so much, the processor time at most so much.
local function compare(ours, theirs, what, rate, cpu)
  print(("  mjhook is %.2f of %s%s, with %.1f times the CPU%s"):format(ratio(ours, theirs, "rate"), what,
    rate and (" (aim: at least %.2f)"):format(rate) or "", ratio(ours, theirs, "cpu"),
    cpu and (" (aim: at most %.1f)"):format(cpu) or ""))
end

local function main()
  start_simulator()
  local handles, many = { [1] = open(1) }, {}
  for _, c in ipairs(CONNECTIONS) do
    handles[c] = handles[c] or open(c)
    many[c] = { ours = {}, curl = {} }
    submit_many(handles[c], 100) -- connections are made, code is compiled
  end
  local one = { ours = {}, curl = {}, log = {} }
  submit(handles[1], 100)
  for round = 1, ROUNDS do
    one.ours[round] = submit(handles[1], SINGLE)
    one.curl[round] = libcurl(SINGLE, 1)
    one.log[round] = libcurl(SINGLE, 1, dir .. "/log")
    for _, c in ipairs(CONNECTIONS) do
      many[c].ours[round] = submit_many(handles[c], COUNT)
      many[c].curl[round] = libcurl(COUNT, c)
    end
  end
  for _, slow in ipairs(SLOW) do
    slow.ours, slow.curl = {}, {}
    configure(slow.on)
    for round = 1, ROUNDS do
      slow.ours[round] = submit_many(handles[CONNECTIONS[1]], math.min(SLOTS, math.floor(COUNT / 4)))
      slow.curl[round] = libcurl(math.min(SLOTS, math.floor(COUNT / 4)), CONNECTIONS[1])
    end
  end
  print(("  on %s"):format(LUA))
  say("mj:submit, one after another", 1, one.ours)
  say("(a) libcurl alone, stores nothing", 1, one.curl)
  say("(b) libcurl, and a log synced twice", 1, one.log)
  compare(one.ours, one.curl, "(a)")
  compare(one.ours, one.log, "(b)", 0.6, 2)
  for _, c in ipairs(CONNECTIONS) do
    say("mj:submit_many", c, many[c].ours)
    say("(a) libcurl alone, stores nothing", c, many[c].curl)
    compare(many[c].ours, many[c].curl, "(a)", 0.5, 3)
  end
  for _, slow in ipairs(SLOW) do
    say("mj:submit_many, " .. slow.text, CONNECTIONS[1], slow.ours)
    say("(a) libcurl alone, stores nothing", CONNECTIONS[1], slow.curl)
    compare(slow.ours, slow.curl, "(a)", 0.95, 3)
  end
  local stored = 0
  for _, mj in pairs(handles) do
    local tasks = mj:stats().tasks
    stored = stored + tasks.pending + tasks.succeeded
    assert(tasks.queued + tasks.submitting + tasks.ambiguous + tasks.failed + tasks.lost == 0)
    mj:close()
  end
  print(("  counted %d, of them stored %d; the provider accepted %d"):format(sent, stored, accepted()))
  assert(sent == accepted())
end

local ok, why = xpcall(main, debug.traceback)
sh(("%s stop --dir %s/sim; rm -rf %s"):format(SIMULATOR, dir, dir)) -- whatever was started ends with us
if not ok then
  io.stderr:write(why, "\n")
  os.exit(1)
end
