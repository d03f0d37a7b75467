-- Runs one flow again and again, each time with another allocation, write or descriptor that fails, and looks after
-- each run whether anything is lost, billed twice or told wrong.  A program of its own, under LD_PRELOAD of faults.c:
--
--   starve.lua FLOW WHAT TIMES FROM STEP [WHAT TIMES FROM STEP ...]
--
-- FLOW: open, submit, many, callback, reconcile, deliver.  WHAT: a library of faults.alloc, an errno of faults.disk, or
-- "descriptors".  The FROM-th passage fails first, then every STEP-th after it, until a run has fewer passages.
local cjson = require "cjson"
local faults = require "faults"
local kit = require "kit"
local sim = require "sim"

local flow, what, times = arg[1], nil, nil
local DISK = { EIO = true, ENOSPC = true, EDQUOT = true, short = true }
local FRESH = 40 -- runs on one store: then a check takes no time

local mj, run = nil, 0
local counts = {}

local function fail(text, ...)
  error(("%s, %s, number %d, %d times: "):format(flow, what, run, times) .. text:format(...), 0)
end

local function check(condition, ...)
  if not condition then
    fail(...)
  end
  return condition
end

local handled = {}
local policy = {
  on_succeeded = function(_, ctx)
    handled[ctx.event_id] = true
  end,
}

local function fresh()
  if mj then
    mj:close()
  end
  kit.sh("rm -rf " .. kit.quote(kit.store))
  sim.reset()
  mj = kit.open({ max_in_flight = 1000, policy = policy, connections = 2 }, sim)
  sim.config { limit = 1000 }
  assert(mj:submit { prompt = "warm" }) -- what is loaded and opened once
end

-- f(...) with the run's fault. Gives whether it raised nothing, and its values.
local function starve(f, ...)
  if DISK[what] then
    faults.disk(what, run, times)
  elseif what == "descriptors" then
    faults.descriptors(run - 1)
  else
    faults.alloc(what, run, times)
  end
  local ok, a, b = pcall(f, ...)
  local passed = faults.off()
  counts[not ok and "raised" or a and "ok" or "error"] = counts[not ok and "raised" or a and "ok" or "error"] + 1
  return passed, ok, a, b
end

local function newest()
  return mj:tasks { limit = 1 } ()
end

-- How often the provider was given a prompt; each time with a whole callback URL.
local function submissions(prompt)
  local n = 0
  for _, j in ipairs(sim.jobs()) do
    if j.prompt == prompt then
      n = n + 1
      check(j.hookUrl:find "&kid=[%w_-]+&sig=[%w_-]+$" and not j.hookUrl:find "=nil", "sent with %s", j.hookUrl)
    end
  end
  return n
end

local function is_whole()
  local report = check(mj:check(), "the store can't be checked")
  check(report.ok, "the store: %s", table.concat(report.problems, "; "))
  check(#sim.ledger().billed_twice == 0, "billed twice")
end

-- Memory may be gone for so long that nothing can be said but that.
local UNKNOWN = "is not known: with a key it is safe"

local function names(err, ref)
  return tostring(err):find(ref, 1, true) or times > 2 and tostring(err):find(UNKNOWN, 1, true)
end

-- Leaves nothing behind that would make the next run another one.
local function wind_up()
  for _, account in ipairs(mj:stats().accounts) do
    assert(mj.exec:commit { { op = "pause", account = account.name, ["until"] = 0 } })
  end
  for task in mj:tasks() do
    if task.state == "queued" then
      mj:cancel(task.ref)
    elseif task.state == "pending" then
      sim.finish(task.task_id)
      mj:refresh(task.ref)
    end
  end
end

-- What the store holds of a prompt that was submitted must be what the caller heard and what the provider got.
local function judge_submission(prompt, ok, task, err)
  local stored, sent = newest(), submissions(prompt)
  stored = stored.prompt == prompt and stored or nil
  check(sent <= 1, "sent %d times", sent)
  if task and ok then
    check(stored and stored.ref == task.ref, "told of task %s, which is not stored", tostring(task.ref))
    check(task.state == stored.state, "told %s, is %s", task.state, stored.state)
  elseif stored then
    check(names(err or task, stored.ref), "stored as %s (%s), and told: %s", stored.ref, stored.state,
      tostring(err or task))
  end
  check(stored or sent == 0, "sent and not stored")
  if stored and stored.state == "submitting" and times <= 2 then
    check(sent == 1, "claimed and neither sent nor handed back")
  end
end

local flows = {}

function flows.submit()
  local prompt = "fox " .. run
  local job = { prompt = prompt, context = { n = run }, user_id = "u", key = "key " .. run }
  local passed, ok, task, err = starve(mj.submit, mj, job)
  judge_submission(prompt, ok, task, err)
  if ok and task then
    check(task.context and task.context.n == run, "the context is %s", cjson.encode(task.context or cjson.null))
  end
  local stored = newest()
  local again = check(mj:submit(job), "the same job again is refused")
  check(stored.prompt ~= prompt or again.duplicate and again.ref == stored.ref, "the same job again is another task")
  check(submissions(prompt) <= 1, "sent twice")
  wind_up()
  return passed
end

function flows.many()
  local jobs = {}
  for i = 1, 3 do
    jobs[i] = { prompt = ("fox %d %d"):format(run, i), context = { n = i } }
  end
  local passed, ok, results, err = starve(mj.submit_many, mj, jobs)
  local stored = {}
  for task in mj:tasks { limit = 3 } do
    stored[task.prompt] = task
  end
  for i, j in ipairs(jobs) do
    local task, sent = stored[j.prompt], submissions(j.prompt)
    local told = ok and results and results[i]
    check(sent <= (task and 1 or 0), "%s was sent %d times, is %s", j.prompt, sent, task and task.state or "not stored")
    if told and told.ref then
      check(task and task.ref == told.ref, "told of a task that is not stored")
      check(told.state == task.state or err or told.state == "queued" or told.state == "submitting", "told %s, is %s",
        told.state, task.state)
    elseif task then
      check(names(told and told.error or err, task.ref), "%s is stored, and told: %s", task.ref,
        tostring(told and told.error or err or results))
    end
  end
  wind_up()
  return passed
end

function flows.callback()
  local id = ("T%d"):format(run)
  local task = assert(mj:adopt { task_id = id, prompt = "fox" })
  local request = {
    method = "POST", uri = require("mjhook.provider").hook_url(mj, task.ref, 1), headers = {}, peer = "127.0.0.1",
    body = cjson.encode { taskId = id, status = 1, image = "https://img.example/" .. id },
  }
  local passed, ok, reply = starve(mj.callback, mj, request)
  check(ok, "it raised: %s", tostring(reply))
  check(reply.status == 200 or reply.status == 503, "answered %d", reply.status)
  check(reply.status ~= 200 or mj:get(task.ref).state == "succeeded", "answered 200, is %s", mj:get(task.ref).state)
  check(mj:callback(request).status == 200, "the next one is not stored")
  check(mj:get(task.ref).state == "succeeded", "is %s", mj:get(task.ref).state)
  return passed
end

-- A pass with something to do in each step, and then one that nothing keeps from it.
function flows.reconcile()
  local due = assert(mj:submit { prompt = "due " .. run })
  sim.finish(due.task_id)
  kit.travel(100)
  local record = assert(require("mjhook.submission.job").record(mj, { prompt = "waits " .. run }))
  local waits = assert(mj.exec:commit { { op = "create", task = record, source = "user", want = true } })[1].task.ref
  local passed, ok, report, err = starve(mj.reconcile, mj, { budget = 20 })
  check(ok or report == "not enough memory", "it raised: %s", tostring(report)) -- as any call of Lua's may
  check(report or err.code, "no reason")
  check(submissions("waits " .. run) <= 1, "sent twice")
  is_whole()
  kit.travel(3600)
  check(mj:reconcile {}, "the next pass fails")
  check(mj:get(due.ref).state == "succeeded", "what was due is %s", mj:get(due.ref).state)
  local sent = submissions("waits " .. run)
  local state = mj:get(waits).state
  check(sent == 1 or state == "queued" or times > 2, "sent %d times, and %s", sent, state)
  kit.travel(3600)
  check(mj:reconcile {}, "the last pass fails")
  check(handled[due.ref .. "-1"], "the event was never delivered")
  wind_up()
  return passed
end

function flows.deliver()
  local id = ("T%d"):format(run)
  local task = assert(mj:adopt { task_id = id, prompt = "fox" })
  assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = "succeeded", source = "poll", task_id = id,
                            image = "https://img.example/1" } })
  local event = task.ref .. "-1"
  local passed, ok, report, err = starve(mj.deliver, mj, {})
  check(ok or report == "not enough memory", "it raised: %s", tostring(report))
  check(report or err.code, "no reason")
  local waiting = mj:stats().events
  check(handled[event] or waiting == 1, "neither delivered nor waiting")
  kit.travel(3600)
  check(mj:deliver {}, "the next delivery fails")
  check(handled[event] and mj:stats().events == 0, "not delivered")
  return passed
end

-- Everything that a start reads: what can't be read for want of memory or descriptors is no fault of the configuration,
-- which would keep a service down.
function flows.open()
  local dir = kit.tmp()
  kit.write(dir .. "/secrets", kit.SECRET .. "\n")
  kit.write(dir .. "/key", kit.KEY .. "\n")
  kit.write(dir .. "/policy.lua", "return { on_succeeded = function() end }\n")
  local file = kit.write(dir .. "/config.lua", ([[local dir, url = %q, %q
    return { store = %q, secrets_file = dir .. "/secrets", api_key_file = dir .. "/key", policy = dir .. "/policy.lua",
      base_url = url, hook_url = url .. "/_sim/sink" }]]):format(dir, sim.url, kit.store))
  local passed, ok, opened, err = starve(require("mjhook").open, { config = file })
  check(ok or opened == "not enough memory", "it raised: %s", tostring(opened))
  check(not ok or opened or err.code ~= "config", "called the configuration's fault: %s", tostring(err))
  if ok and opened then
    opened:close()
  end
  return passed
end

local function try(from, step)
  local n, struck, passed = 0, 0
  counts.ok, counts.error, counts.raised, run = 0, 0, 0, from
  repeat
    if n % FRESH == 0 then
      fresh()
    end
    passed = flows[flow]()
    is_whole()
    local unharmed = passed < run
    n, run, struck = n + 1, run + step, unharmed and struck or struck + 1
  until what == "descriptors" and n == 12 or what ~= "descriptors" and unharmed
  print(("%s, %s %d times: %d runs, the last one had %d passages: %d struck, %d ok, %d errors, %d raised"):format(flow,
    what, times, n, passed, struck, counts.ok, counts.error, counts.raised))
end

sim.start()
local went_well, why = pcall(function()
  kit.another_store()
  kit.logged = {}
  for i = 2, #arg, 4 do
    what, times = arg[i], tonumber(arg[i + 1])
    try(tonumber(arg[i + 2]), tonumber(arg[i + 3]))
  end
end)
faults.off()
if mj then
  mj:close()
end
mj = nil
pcall(sim.stop)
pcall(kit.cleanup)
if not went_well then
  io.stderr:write(tostring(why), "\n")
  os.exit(1)
end
