--- The executor under nginx: worker threads, and one commit for all who wait for one.
local core = require "mjhook.core"
local executor = require "mjhook.executor"
local log = require("resty.mjhook.log").log
local semaphore = require "ngx.semaphore"

local M = { COMMIT_POOL = "mjhook", HTTP_POOL = "mjhook_http" }

local COMMIT_WAIT_S = 30  -- a disk that takes longer is no disk; the caller hears 503

local Threads = {}
Threads.__index = Threads

local function settings_of(conf)
  return {
    store = conf.store, store_mode = conf.store_mode, map_max = conf.map_max, poll = conf.poll,
    lost_after = conf.lost_after, ambiguous_grace = conf.ambiguous_grace, accounts = conf.accounts,
    base_url = conf.base_url, connections = conf.connections,
  }
end

--- An executor for mjhook.open.
function M.new(conf, store)
  return setmetatable({
    settings = settings_of(conf), id = conf.store .. "\0" .. core.now(), direct = executor.direct(conf, store),
    missing = {}, committed = function() end, queue_max = conf.queue_max, queued = 0,
  }, Threads)
end

--- Calls a function of mjhook.worker in a thread. Its Lua VM is told the settings when it does not know the id yet.
-- @treturn table|nil its result, or nil and an error: "no_pool" when nginx.conf has none of that name
function Threads.call(_, pool, name, id, settings, payload, extra)
  local known = false
  for _ = 1, 2 do
    local ran, status, result = ngx.run_worker_thread(pool, "mjhook.worker", name, id, known, payload, extra or false)
    if not ran then
      local missing = tostring(status):find "thread pool"
      return nil, core.error(missing and "no_pool" or "internal", "worker thread: " .. tostring(status), true)
    elseif status == "ok" then
      return result
    elseif status == "failed" then
      return nil, core.error(result.code, result.message, result.retryable)
    end
    known = settings -- a fresh VM: it needs the configuration once
  end
  return nil, core.error("internal", "worker thread: not configured", true)
end

function Threads:in_thread(pool, name, payload, extra)
  if not self.missing[pool] then
    local result, err = self:call(pool, name, self.id, self.settings, payload, extra)
    if result or err.code ~= "no_pool" then
      return result, err
    end
    self.missing[pool] = true
    log("error", ("no thread_pool %s in nginx.conf: the event loop waits for every commit and request"):format(pool))
  end
  return self.direct[name](self.direct, payload, extra or nil)
end

-- One batch: into the thread, and its waiters woken with what became of it.
local function commit_batch(self, batch)
  local ok, results, err = pcall(self.in_thread, self, M.COMMIT_POOL, "commit", batch.ops)
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
  return self:in_thread(M.HTTP_POOL, "http", requests, deadline)
end

return M
