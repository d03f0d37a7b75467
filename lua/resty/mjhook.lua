--- mjhook under OpenResty: no disk commit and no network wait runs on nginx's event loop.
---
---     thread_pool mjhook threads=1;         # commits
---     thread_pool mjhook_read threads=2;    # long reads, and on PostgreSQL all of them
---     thread_pool mjhook_http threads=4;    # requests to the provider
---     thread_pool mjhook_deliver threads=2; # the policy's handlers; without it events wait for mjhook-reconcile
---     init_by_lua_block        { require("resty.mjhook").init { config = "/etc/mjhook/config.lua" } }
---     init_worker_by_lua_block { require("resty.mjhook").init_worker() }
---     location = /webhooks/midjourney { content_by_lua_block { require("resty.mjhook").callback() } }
---
--- These lines are part of an nginx.conf: the guide "OpenResty" shows a whole one.

local body = require "resty.mjhook.body"
local callback = require "mjhook.callback"
local beside = require "mjhook.beside"
local config = require "mjhook.config"
local core = require "mjhook.core"
local environment = require "mjhook.environment"
local delivery = require "resty.mjhook.deliver"
local guard = require "resty.mjhook.guard"
local journal = require "resty.mjhook.log"
local intake = require "mjhook.submission.intake"
local look_soon = require "resty.mjhook.look"
local metrics = require "mjhook.metrics"
local mjhook = require "mjhook"
local policy = require "mjhook.policy"
local submit = require "mjhook.submission.submit"
local threads = require "resty.mjhook.threads"

---@class resty.mjhook
---@field version string
local M = { version = mjhook.version }
local log = journal.log

local REOPEN_MS = 1000
local BUSY_S = 0.1
local DISPATCH_REST_MS = 1000
local DISPATCHERS, SLOW_MS = 3, 100 -- at a time; an answer that takes longer is waited for beside other work
local SOON_MS, LOOK_MS = 50, 1000 -- between two looks into a database while jobs are known to be queued; when none is
local INTAKE_S = 2 -- between two looks for jobs that SQL has put into the database
local POLICY_S = 1 -- between two looks at the policy's file

-- ---- set-up ----

local given, arguments, instance -- what init() was given, with the environment; what mjhook.open is given
local loaded -- what init() loaded of configuration and policy: for a worker that begins while they are broken
local tried_at = -REOPEN_MS
local said -- why the store could not be opened, since requests last asked

--- Call it in `init_by_lua`. It checks configuration and policy, so that nginx does not start with wrong ones. It hands
--- the environment on to workers and threads, for which nginx clears it. It opens nothing: nginx's master process must
--- not hold a store open across its forks. An nginx has one configuration, so a second call raises.
---@param args? mjhook.Options
function M.init(args)
  if given then
    error("mjhook: init() was called before: an nginx has one configuration", 0)
  end
  local conf, err = config.resolve(args)
  if not conf then
    error("mjhook: " .. err.message, 0)
  end
  local _, bad = policy.load(conf.policy, log)
  if bad then
    error("mjhook: " .. bad.message, 0)
  end
  for _, flow in ipairs { "submission.submit_many", "delivery.deliver", "delivery.events", "reconcile.poll" } do
    require("mjhook." .. flow) -- here, rather than from disk under a request
  end
  require("resty.mjhook.console.assets").load()
  local ready, why = core.need_curl() -- the same
  if not ready then
    error("mjhook: " .. why.message, 0)
  end
  loaded = beside.texts { conf.config_file, type(conf.policy) == "string" and conf.policy or nil }
  given = { environment = core.environment() }
  for k, v in pairs(args or {}) do
    given[k] = v
  end
end

-- On a database a look is several round trips, so not each commit is followed by one: a commit tells how many jobs are
-- queued, as far as its connection knows; what other hosts have queued is found by the looks that come all the same.
local function seldom(look)
  local looked_at, planned = -LOOK_MS, nil
  local function look_now(premature)
    if not premature then
      looked_at, planned = core.clock(), nil
      look()
    end
  end
  return function(ready)
    local now = core.clock()
    local at = looked_at + ((ready or 1) > 0 and SOON_MS or LOOK_MS)
    if now >= at then
      look_now()
    elseif (not planned or planned > at) and ngx.timer.at((at - now) / 1000, look_now) then
      planned = at
    end
  end
end

-- What a commit may have made possible: if a slot is free and a job is queued, it is sent now. Looked at once a commit,
-- whatever number of callbacks was in it. A dispatcher claims what has become free with each answer; what comes
-- meanwhile is looked at afterwards. While it waits for a slow answer, another one may begin.
local function dispatcher(mj)
  local running, wanted, planned, not_before, heard_at = 0, false, false, 0, 0
  local look
  local function heard()
    heard_at = core.clock()
  end
  local function run(premature)
    local sent, err = 0, nil
    running, wanted, not_before = running + 1, false, 0
    heard()
    guard("sending queued tasks", function()
      running = running - 1
      not_before = sent and sent > 0 and 0 or core.clock() + DISPATCH_REST_MS
    end, function()
      if not premature then
        sent, err = submit.dispatch(mj, heard)
      end
    end)
    if not sent then
      log("error", "queued tasks could not be sent: " .. err.message)
    end
    if wanted and not premature then
      look()
    end
  end
  local function look_later(ms)
    planned = planned or ngx.timer.at(ms / 1000, function(premature)
      planned = false
      if not premature then
        look()
      end
    end)
  end
  look = look_soon(mj.exec, "looking for queued tasks", function(ready)
    if ready == 0 then -- the commit knows, and has spared a look at the store
      return
    end
    wanted = running > 0
    if mj.closed or running == DISPATCHERS then
      return
    elseif core.clock() < not_before then -- a slot that is freed now would be forgotten
      return look_later(not_before - core.clock())
    elseif running > 0 and core.clock() < heard_at + SLOW_MS then
      return look_later(SLOW_MS)
    end
    if not mj.exec.store and mj.exec:read "sums" == 0 then -- one round trip, of many
      return
    end
    local now = mj.exec:now()
    local stats = mj.exec:read("stats", now)
    if stats and submit.has_room(stats, now) and ngx.timer.at(0, run) then
      not_before = core.clock() + DISPATCH_REST_MS -- by then it has begun, or lua_max_running_timers dropped it
    end
  end)
  return mj.exec.store and look or seldom(look)
end

local function prepare()
  if not arguments then
    environment.install(given.environment)
    arguments = { executor = threads.new, log = log, instead = loaded }
    for k, v in pairs(given) do
      arguments[k] = k ~= "environment" and v or arguments[k]
    end
  end
end

-- Jobs that SQL has put into the database: no commit of ours tells of them, so one worker of a host looks.
local function watch_intake(mj, dispatch)
  if ngx.worker.id() ~= 0 or mj.store then -- LMDB has none
    return
  end
  ngx.timer.every(INTAKE_S, function(premature)
    if premature or mj.closed then
      return
    end
    local made, err
    guard("taking in jobs of the database", function() end, function()
      made, err = intake.take_in(mj)
    end)
    if made and made > 0 then
      dispatch()
    elseif err and not made then
      log("error", "jobs that SQL enqueued could not be taken in: " .. err.message)
    end
  end)
end

local open_in_thread

-- A store that another process is making or restoring is opened as soon as that is done.
local function not_open(err)
  if err.message ~= said then
    log("error", "the store can't be opened: " .. err.message)
  end
  said = err.message
  if err.code == "busy" then
    ngx.timer.at(BUSY_S, open_in_thread)
  end
end

-- In a timer: a request does not wait for a file that is read and compiled.
local function watch_policy(mj)
  if mj.policy.file then
    mj.policy.file.by_timer = true
    ngx.timer.every(POLICY_S, function(premature)
      if not premature and not mj.closed then
        guard("loading the policy anew", function() end, function() mj.policy:refresh() end)
      end
    end)
  end
end

local function open_here()
  local err
  instance, err = mjhook.open(arguments)
  if not instance then
    return not_open(err)
  end
  local dispatch, deliver = dispatcher(instance), delivery.new(instance, given)
  watch_policy(instance)
  watch_intake(instance, dispatch)
  function instance.exec.committed(ready)
    dispatch(ready)
    deliver()
  end
  return instance
end

-- Opening may have to wait for a commit of another process. So a thread does it, and then it is open for this worker.
function open_in_thread(premature)
  if premature or instance then
    return
  end
  prepare()
  local conf, err = config.resolve(arguments)
  if conf then
    local opened, why = threads.new(conf):in_thread(threads.COMMIT_POOL, "open")
    err = not opened and why
  end
  if err then
    not_open(err)
  else
    open_here()
  end
end

-- Tries again, at most once a second. Requests are answered 503 until it is open.
local function open_anew()
  local now = core.clock()
  if now - tried_at >= REOPEN_MS and ngx.timer.at(0, open_in_thread) then
    tried_at, said = now, nil
  end
end

-- Kept apart from the part that runs once: with that in it, the compiler would leave out every caller.
local function open()
  return instance or given and open_anew()
end

local function warm_up(premature)
  if instance and not premature then
    instance.exec:warm_up()
  end
end

--- Call it in `init_worker_by_lua`. It opens the store in this worker. A failure is logged; until a later try succeeds,
--- callbacks are answered 503.
function M.init_worker()
  if not given then
    error("mjhook: call init() in init_by_lua first: without it every callback is answered 503", 0)
  end
  journal.start()
  prepare()
  open_here() -- here: this worker serves no request yet
  tried_at = core.clock()
  ngx.timer.at(0, warm_up)
end

-- ---- request handlers ----

local function send(reply)
  local header, headers = ngx.header, reply.headers
  ngx.status = reply.status
  header["Content-Type"] = headers["Content-Type"]
  header["Content-Length"] = #reply.body
  if reply.close then
    ngx.header["Connection"] = "close"
  end
  if reply.status ~= 200 then -- without a loop, which the compiler would stop at
    header["Retry-After"], header["Allow"] = headers["Retry-After"], headers["Allow"]
  end
  ngx.print(reply.body)
end

local UNAVAILABLE = {
  status = 503, headers = { ["Retry-After"] = "5", ["Content-Type"] = "application/json" },
  body = '{"status":"unavailable"}\n',
}

local seen = {} -- what precheck is shown: filled and read without a yield in between, so one table does

local function closing(status, word, retry_after)
  return {
    status = status, close = true, body = ('{"status":"%s"}\n'):format(word),
    headers = { ["Content-Type"] = "application/json", ["Retry-After"] = retry_after },
  }
end

local BUSY, SLOW = closing(503, "busy", "5"), closing(408, "timeout")
local LENGTH_REQUIRED = closing(411, "length_required")

-- What is answered when there is no body to take in.
local function bodiless(mj, ref, attempt, why, detail)
  if why == "file" then
    return callback.refuse(mj, ref, attempt, "nginx put it into a file: client_body_buffer_size is too small")
  elseif why == "slow" then
    return SLOW
  elseif why == "busy" then
    callback.say(mj, "busy", "more bodies of one task are in the air than are waited for: answered 503")
    return BUSY
  end
  callback.say(mj, "unreadable", "nginx can't read a callback's body: " .. detail)
  return detail:lower():find("content-length", 1, true) and LENGTH_REQUIRED or UNAVAILABLE
end

local function respond()
  local mj = open()
  if not mj then
    return UNAVAILABLE
  end
  local var = ngx.var
  seen.method, seen.uri, seen.length = ngx.req.get_method(), var.request_uri, tonumber(var.content_length)
  if mj.config.allow_cidr then
    seen.peer, seen.forwarded = var.remote_addr, var.http_x_forwarded_for
  end
  local refused, how, ref, attempt = callback.precheck(mj, seen)
  if refused then
    if refused.status == 401 then
      callback.unauthenticated(mj, { peer = var.remote_addr, forwarded = var.http_x_forwarded_for })
      if ngx.shared.mjhook then
        ngx.shared.mjhook:incr("unauthenticated", 1, 0)
      end
    end
    return refused
  end
  if ngx.status == 413 then -- by error_page: nginx itself found the body too large
    return callback.refuse(mj, ref, attempt, "nginx found it too large: client_max_body_size")
  end
  local text, why, detail = body.read(ref)
  if not text then
    return bodiless(mj, ref, attempt, why, detail)
  end
  return callback.accept(mj, text, how, ref, attempt)
end

--- Takes the provider's callback, as a content handler. It authenticates before it reads the body, answers after the
--- commit, and never raises.
function M.callback()
  local ok, reply = pcall(respond)
  if not ok then
    pcall(log, "error", "callback: " .. tostring(reply))
    reply = UNAVAILABLE
  end
  send(reply)
end

--- Submits a job from a request handler, without blocking the worker. Takes what `mj:submit` takes.
---@param args mjhook.Job
---@return mjhook.Task? task
---@return mjhook.Error? err
function M.submit(args)
  local mj = open()
  if not mj then
    return nil, core.error("io", "the store can't be opened: see the error log", true)
  end
  return mj:submit(args)
end

--- Reads a task from the store by its ref.
---@param ref string
---@param options? {refresh?: boolean} `refresh`: ask the provider first, without blocking the worker
---@return mjhook.Task? task
---@return mjhook.Error? err
function M.status(ref, options)
  local mj = open()
  if not mj then
    return nil, core.error("io", "the store can't be opened: see the error log", true)
  elseif options and options.refresh then
    return mj:refresh(ref)
  end
  return mj:get(ref)
end

--- Waits until a task has ended, without blocking the worker. See `mj:wait`. Limit the number of such requests
--- (`limit_conn`): each keeps its connection for as long as it waits.
---@param ref string
---@param options? {timeout?: number} seconds; without it until the task has ended
---@return mjhook.Task? task
---@return mjhook.Error? err
function M.wait(ref, options)
  local mj = open()
  if not mj then
    return nil, core.error("io", "the store can't be opened: see the error log", true)
  end
  return mj:wait(ref, options)
end

--- Sends Prometheus' metrics, as a content handler. With `lua_shared_dict mjhook 1m` they count also unauthenticated
--- requests, which write nothing to disk, over all workers since nginx started.
function M.metrics()
  local mj = open()
  local more = ngx.shared.mjhook and { { "callbacks_unauthenticated_total", "counter",
    "Requests without a good token or from an address that is not allowed",
    ngx.shared.mjhook:get "unauthenticated" or 0 } }
  local text = mj and metrics.text(mj, more)
  if not text then
    return send(UNAVAILABLE)
  end
  send { status = 200, headers = { ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8" }, body = text }
end

local console

--- Serves the console, as the content handler of one location: a page for operators and its JSON API. It is read-only
--- unless `actions` is set; nginx has to authenticate. See mjhook-console(7).
---@param options? resty.mjhook.ConsoleOptions
---@usage location /mjhook/ { allow 127.0.0.1; deny all; content_by_lua_block { require("resty.mjhook").console() } }
function M.console(options)
  console = console or require "resty.mjhook.console"
  local mj = open()
  console.handle(mj, options or {}, mj and function()
    local plain = {}
    for k, v in pairs(given) do
      plain[k] = type(v) ~= "function" and v or nil
    end
    plain.policy = type(plain.policy) ~= "table" and plain.policy or nil
    return mj.exec:doctor(plain)
  end)
end

--- Gives this worker's mjhook object, for all functions that this module does not wrap; nil while its store cannot be
--- opened. Its functions that commit or send yield: call them where nginx allows that (content, access, timers).
---@return mjhook.Instance?
function M.instance()
  return open()
end

return M
