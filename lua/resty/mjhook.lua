--- mjhook under OpenResty: no disk commit and no network wait on the event loop.
--
--   thread_pool mjhook threads=1;        # commits: LMDB has one writer anyway
--   thread_pool mjhook_http threads=4;   # requests to the provider
--   init_by_lua_block        { require("resty.mjhook").init{ config = "/etc/mjhook/config.lua" } }
--   init_worker_by_lua_block { require("resty.mjhook").init_worker() }
--   location = /webhooks/midjourney { content_by_lua_block { require("resty.mjhook").callback() } }
-- @module resty.mjhook
local callback = require "mjhook.callback"
local config = require "mjhook.config"
local core = require "mjhook.core"
local executor = require "mjhook.executor"
local metrics = require "mjhook.metrics"
local mjhook = require "mjhook"
local policy = require "mjhook.policy"
local semaphore = require "ngx.semaphore"
local submit = require "mjhook.submit"

local M = { version = mjhook.version }

local COMMIT_POOL, HTTP_POOL = "mjhook", "mjhook_http"
local COMMIT_WAIT_S = 30  -- a disk that takes longer is no disk; the caller hears 503
local REOPEN_MS = 1000
local DISPATCH_REST_MS = 1000

-- ---- logging without the request line, which carries the callback's token ----

local LEVELS = { error = ngx.ERR, warn = ngx.WARN, notice = ngx.NOTICE, info = ngx.INFO }
local LOG_MAX = 100
local LOG_EVERY_S = 1
local pending_log, dropped, ticking = {}, 0, false

local function flush_log()
  local lines = pending_log
  pending_log = {}
  for _, line in ipairs(lines) do
    ngx.log(line[1], "mjhook: ", line[2])
  end
  if dropped > 0 then
    ngx.log(ngx.WARN, "mjhook: ", dropped, " more messages were dropped")
    dropped = 0
  end
end

local function log(level, message)
  if #pending_log >= LOG_MAX then
    dropped = dropped + 1
    return
  end
  pending_log[#pending_log + 1] = { LEVELS[level] or ngx.WARN, message }
  if #pending_log == 1 and not ticking and not ngx.timer.at(0, flush_log) then
    pending_log = {}
  end
end

-- ---- the executor: worker threads, and one commit for all who wait for one ----

local Threads = {}
Threads.__index = Threads

local function settings_of(conf)
  return {
    store = conf.store, store_mode = conf.store_mode, map_max = conf.map_max, poll = conf.poll,
    lost_after = conf.lost_after, ambiguous_grace = conf.ambiguous_grace, accounts = conf.accounts,
    base_url = conf.base_url, connections = conf.connections,
  }
end

local function new_threads(conf, store)
  return setmetatable({
    settings = settings_of(conf), id = conf.store .. "\0" .. core.now(), direct = executor.direct(conf, store),
    missing = {}, committed = function() end, queue_max = conf.queue_max, queued = 0,
  }, Threads)
end

function Threads:in_thread(pool, name, payload, extra)
  if self.missing[pool] then
    return self.direct[name](self.direct, payload, extra or nil)
  end
  local settings = false
  for _ = 1, 2 do
    local ran, status, result = ngx.run_worker_thread(pool, "mjhook.worker", name, self.id, settings, payload,
      extra or false)
    if not ran then
      if not tostring(status):find "thread pool" then
        return nil, core.error("internal", "worker thread: " .. tostring(status), true)
      end
      self.missing[pool] = true
      log("error", ("no thread_pool %s in nginx.conf: the event loop waits for every commit and request"):format(pool))
      return self.direct[name](self.direct, payload, extra or nil)
    end
    if status == "ok" then
      return result
    elseif status == "failed" then
      return nil, core.error(result.code, result.message, result.retryable)
    end
    settings = self.settings -- a fresh VM: it needs the configuration once
  end
  return nil, core.error("internal", "worker thread: not configured", true)
end

-- One batch: into the thread, and its waiters woken with what became of it.
local function commit_batch(self, batch)
  local ok, results, err = pcall(self.in_thread, self, COMMIT_POOL, "commit", batch.ops)
  if ok then
    batch.results, batch.err = results, err
  else
    batch.err = core.error("internal", tostring(results), true)
  end
  batch.done = true
  self.queued = self.queued - batch.waiters
  batch.wake:post(batch.waiters)
  if batch.heard then
    pcall(self.committed) -- whatever it raises, the next batch must not wait for ever
  end
end

-- Commits whole batches as long as there are any, one at a time: a second one in the thread's queue would have been
-- gathered for a shorter time, and small batches cost more than the thread's idling does (measured). Between the last
-- look and the flag's fall nothing yields, so that no batch is left behind.
local function commit_batches(_, self)
  while self.batch do
    local batch = self.batch
    self.batch = nil
    commit_batch(self, batch)
  end
  self.committing = false
end

--- Joins the batch that is being gathered and waits until it is on disk.
function Threads:commit(ops)
  if self.queued >= self.queue_max then
    return nil, core.error("busy", "too many callbacks wait for the disk", true)
  end
  local batch = self.batch
  if not batch then
    batch = { ops = {}, waiters = 0, wake = semaphore.new() }
    self.batch = batch
  end
  local first = #batch.ops
  for i, op in ipairs(ops) do
    batch.ops[first + i] = op
    -- The provider's word may free a slot. What a submission stores is its own to go on with.
    batch.heard = batch.heard or type(op) == "string" or op.source == "callback" or op.source == "poll"
  end
  batch.waiters = batch.waiters + 1
  self.queued = self.queued + 1
  if not self.committing then
    self.committing = true
    if not ngx.timer.at(0, commit_batches, self) then
      commit_batches(false, self) -- no timer to be had: wait here rather than not at all
    end
  end
  if not batch.done and not batch.wake:wait(COMMIT_WAIT_S) and not batch.done then
    return nil, core.error("io", ("the store did not commit within %d s"):format(COMMIT_WAIT_S), true)
  end
  if not batch.results then
    return nil, batch.err
  end
  local results = {}
  for i = 1, #ops do
    results[i] = batch.results[first + i]
  end
  return results
end

function Threads:http(requests, deadline)
  return self:in_thread(HTTP_POOL, "http", requests, deadline)
end

-- ---- set-up ----

local arguments, instance
local tried_at = -REOPEN_MS

--- In init_by_lua: checks configuration and policy, so that nginx does not start with wrong ones.
-- Opens nothing: nginx's master must not hold a store open across its forks.
-- @tparam table args as for mjhook.open
function M.init(args)
  local conf, err = config.resolve(args)
  if not conf then
    error("mjhook: " .. err.message, 0)
  end
  local _, bad = policy.load(conf.policy, log)
  if bad then
    error("mjhook: " .. bad.message, 0)
  end
  arguments = {}
  for k, v in pairs(args or {}) do
    arguments[k] = v
  end
end

-- What a commit may have made possible: a slot became free and somebody waits for one, so he is sent at once. Looked
-- at once a commit, whatever number of callbacks was in it; one at a time, and what comes meanwhile is looked at then.
local function dispatcher(mj)
  local running, not_before = false, 0
  local function run(premature)
    local sent, err = 0, nil
    if not premature then
      sent, err = submit.dispatch(mj)
    end
    running = false
    if sent == 0 then
      not_before = core.clock() + DISPATCH_REST_MS -- who waits waits for something else than a slot
    end
    if not sent then
      log("error", "queued tasks could not be sent: " .. err.message)
    end
  end
  return function()
    if running or not mj.store or core.clock() < not_before then
      return
    end
    local now = core.now()
    local stats = mj.store:stats(now)
    if stats and submit.has_room(stats, now) then
      running = ngx.timer.at(0, run) and true or false
    end
  end
end

local function open()
  if instance or not arguments then
    return instance
  end
  local now = core.clock()
  if now - tried_at < REOPEN_MS then
    return nil
  end
  tried_at = now
  arguments.executor = new_threads
  arguments.log = arguments.log or log
  local err
  instance, err = mjhook.open(arguments)
  if not instance then
    log("error", "the store can't be opened: " .. err.message)
    return nil
  end
  instance.exec.committed = dispatcher(instance)
  return instance
end

-- Nothing to commit and nothing to send: but the threads make their Lua VMs and open the store before the first
-- callback comes, and a pool that is missing is told of at start.
local function warm_up(premature)
  if instance and not premature then
    instance.exec:in_thread(COMMIT_POOL, "commit", {})
    instance.exec:in_thread(HTTP_POOL, "http", {})
  end
end

--- In init_worker_by_lua: opens the store in this worker. A failure is logged, answered with 503 and tried again.
function M.init_worker()
  -- A timer of a request logs by its location's error_log, which is silenced there: it tells request lines.
  ticking = ngx.timer.every(LOG_EVERY_S, flush_log) and true
  open()
  ngx.timer.at(0, warm_up)
end

-- ---- request handlers ----

local function send(reply)
  ngx.status = reply.status
  for name, value in pairs(reply.headers) do
    ngx.header[name] = value
  end
  ngx.header["Content-Length"] = #reply.body
  ngx.print(reply.body)
end

local UNAVAILABLE = {
  status = 503, headers = { ["Retry-After"] = "5", ["Content-Type"] = "application/json" },
  body = '{"status":"unavailable"}\n',
}

local seen = {} -- what precheck is shown: filled and read without a yield in between, so one table does

--- The provider's callback, as a content handler: authenticated before the body is read, answered after the commit.
function M.callback()
  local mj = open()
  if not mj then
    return send(UNAVAILABLE)
  end
  local var = ngx.var
  seen.method, seen.uri, seen.length = ngx.req.get_method(), var.request_uri, tonumber(var.http_content_length)
  if mj.config.allow_cidr then
    seen.peer, seen.forwarded = var.remote_addr, var.http_x_forwarded_for
  end
  local refused, how, ref, attempt = callback.precheck(mj, seen)
  if refused then
    if refused.status == 401 then
      callback.stranger(mj, var.remote_addr)
      if ngx.shared.mjhook then
        ngx.shared.mjhook:incr("strangers", 1, 0)
      end
    end
    return send(refused)
  end
  ngx.req.read_body()
  local body = ngx.req.get_body_data()
  if not body and ngx.req.get_body_file() then
    return send { status = 413, headers = {}, body = '{"status":"too_large"}\n' } -- beyond client_body_buffer_size
  end
  return send(callback.accept(mj, body or "", how, ref, attempt))
end

--- Submits a job from a request handler, without blocking the worker. See mjhook's submit.
-- @treturn table|nil task, or nil and an error
function M.submit(args)
  local mj = open()
  if not mj then
    return nil, core.error("io", "the store can't be opened: see the error log", true)
  end
  return mj:submit(args)
end

--- A task by its ref, as the store has it: a look into mapped memory.
-- @tparam string ref
-- @tparam[opt] table options refresh = true: the provider is asked first, without blocking the worker
-- @treturn table|nil task, or nil and an error
function M.status(ref, options)
  local mj = open()
  if not mj then
    return nil, core.error("io", "the store can't be opened: see the error log", true)
  elseif options and options.refresh then
    return mj:refresh(ref)
  end
  return mj:get(ref)
end

--- Prometheus' metrics, as a content handler. With `lua_shared_dict mjhook 1m` also the requests of strangers, counted
-- across the workers since nginx started: nothing of them is written to disk.
function M.metrics()
  local mj = open()
  local strangers = ngx.shared.mjhook and { { "callbacks_unauthenticated_total", "counter",
    "Requests without a good token or from an address that is not allowed", ngx.shared.mjhook:get "strangers" or 0 } }
  local text = mj and metrics.text(mj, strangers)
  if not text then
    return send(UNAVAILABLE)
  end
  send { status = 200, headers = { ["Content-Type"] = "text/plain; version=0.0.4; charset=utf-8" }, body = text }
end

--- The mjhook object of this worker; nil while its store can't be opened.
function M.instance()
  return open()
end

return M
