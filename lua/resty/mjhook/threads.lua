--- The executor under nginx: worker threads, and one commit for all requests that wait for one.
--
-- Callbacks go into an inbox, which the committing thread empties when it begins, not when it was called: so while it
-- is at work the next call already stands behind it, and what comes until that begins is in its transaction.
local core = require "mjhook.core"
local guard = require "resty.mjhook.guard"
local log = require("resty.mjhook.log").log
local semaphore = require "ngx.semaphore"
local stores = require "mjhook.stores"

--- COMMIT_WAIT_S: how long a caller waits for a commit; then it hears 503. Specs shorten it.
local M = { COMMIT_POOL = "mjhook", HTTP_POOL = "mjhook_http", READ_POOL = "mjhook_read", COMMIT_WAIT_S = 30 }

local unpack = table.unpack or unpack

local BEGIN_S = 1        -- by when a timer has begun that nginx did not drop
local OWED_S = 1         -- between two tries to store what is owed
local CALLS = 2          -- one that the thread works on, one that stands behind it

local Threads = {}
Threads.__index = Threads

local function settings_of(conf)
  return {
    store = conf.store, store_url = conf.store_url, store_schema = conf.store_schema,
    store_mode = conf.store_mode, map_max = conf.map_max, poll = conf.poll,
    lost_after = conf.lost_after, ambiguous_grace = conf.ambiguous_grace, accounts = conf.accounts,
    base_url = conf.base_url, hook_url = conf.hook_url,
    connections = conf.connections, proxy = conf.proxy, ca_file = conf.ca_file,
  }
end

--- An executor for mjhook.open. It has a store of its own for reads in place; not so on a database behind a network,
-- where all that could wait is done by threads.
-- @treturn table|nil executor; nil and an error
function M.new(conf)
  local id, store = conf.store .. "\0" .. core.now(), nil
  local backend, err = stores.backend(conf.store)
  if backend == nil then
    return nil, err
  elseif not core.backend(backend or nil).waits then
    store, err = stores.open(conf, true)
    if not store then
      return nil, err
    end
  end
  return setmetatable({
    store = store,
    settings = settings_of(conf), id = id, missing = {}, committed = function() end,
    inbox = core.inbox(id), lots = {}, -- the requests that wait for a batch of the inbox, by its number
    newest = 0, called = 0,                    -- the newest lot with something in it; the one that a call will take
    runners = 0, queued = 0, owed = {}, queue_max = conf.queue_max,
  }, Threads)
end

-- What a function of resty.mjhook.worker said, in a thread or here. A commit says more: see there.
local function heard(ran, status, result, lot, outcomes, unreadable, owed)
  if not ran then
    local missing = tostring(status):find "^thread pool .- not found"
    return nil, core.error(missing and "no_pool" or "internal", "worker thread: " .. tostring(status), true)
  elseif status == "ok" then
    return result, nil, lot, outcomes, unreadable, owed
  elseif status == "failed" then
    return nil, core.error(result.code, result.message, result.retryable), lot
  end
  return nil, core.error("unconfigured", "worker thread: not configured", true)
end

--- Calls a function of resty.mjhook.worker in a thread. Its Lua VM is told the settings when it does not know the id
-- yet.
-- @treturn table|nil its result, or nil
-- @treturn table|nil an error: "no_pool" when nginx.conf has none of that name
-- @return what else a commit says
function Threads.call(_, pool, name, id, settings, payload, extra)
  local result, err, lot, outcomes, unreadable, owed
  for attempt = 1, 2 do
    result, err, lot, outcomes, unreadable, owed = heard(ngx.run_worker_thread(pool, "resty.mjhook.worker", name, id,
      attempt == 2 and settings, payload, extra or false))
    if not err or err.code ~= "unconfigured" then
      break
    end
  end
  return result, err, lot, outcomes, unreadable, owed
end

--- As call(), with this worker's settings; here and now where there is no such pool.
function Threads:in_thread(pool, name, payload, extra)
  if not self.missing[pool] then
    local result, err, lot, outcomes, unreadable, owed = self:call(pool, name, self.id, self.settings, payload, extra)
    if not err or err.code ~= "no_pool" then
      return result, err, lot, outcomes, unreadable, owed
    end
    self.missing[pool] = true
    log("error", ("no thread_pool %s in nginx.conf: the event loop waits for every commit and request"):format(pool))
  end
  return heard(true, require("resty.mjhook.worker")[name](self.id, self.settings, payload, extra or false))
end

-- ---- commits ----

local function gathering()
  return { waiters = 0, wake = semaphore.new() }
end

local function settle(self, group, err)
  group.err = err
  group.done = true
  self.queued = self.queued - group.waiters
  group.wake:post(group.waiters)
end

local function settle_lot(self, number, err, outcomes, unreadable)
  local lot = self.lots[number]
  self.lots[number] = nil
  if lot then
    lot.outcomes, lot.unreadable = outcomes, unreadable
    settle(self, lot, err)
  end
end

local function settle_all(self, err)
  for number in pairs(self.lots) do
    settle_lot(self, number, err)
  end
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
  return list
end

-- What a thread could not hand back is stored with the next commit. It is kept only while it is sure that it was not
-- stored: a task that is handed back twice may be in the air again.
local commit_next

local function owe(self, ops)
  self.owed = append(self.owed, ops)
  if not self.paying then
    self.paying = ngx.timer.at(OWED_S, function()
      self.paying = false
      commit_next(self)
    end) and true or false
  end
end

-- One transaction: the batch of operations that was gathered, and what is in the inbox when the thread comes to it.
-- Gives whether the provider's word was in it.
local function commit_in_thread(self, batch)
  local owed, ops = self.owed, batch and batch.ops or {}
  if #owed > 0 then
    self.owed, ops = {}, append(append({}, ops), owed)
  end
  local ran, results, err, lot, outcomes, unreadable, owes = pcall(self.in_thread, self, M.COMMIT_POOL, "commit", ops)
  if not ran then
    results, err, lot = nil, core.error("internal", tostring(results), true), nil
  end
  if batch then
    batch.results = results
    settle(self, batch, err)
  end
  if lot then
    settle_lot(self, lot, err, outcomes, unreadable)
  elseif lot == nil then -- no word from the thread: the waiting requests get their answer now, not from a later call
    settle_all(self, err)
    self.inbox:take() -- drop the failed batch; otherwise the inbox grows with every failed call
  end
  if owes or #owed > 0 and err and err.code ~= "internal" then
    owe(self, owes or owed)
  end
  return results and (lot or batch and batch.heard)
end

local BROKEN = core.error("internal", "the commit failed: see the error log", true)

function commit_next(self)
  local batch, told, heard_of = self.batch, false, false
  self.batch, self.called = nil, self.newest
  guard("a commit", function()
    if not told and batch and not batch.done then
      settle(self, batch, BROKEN)
    end
    if not told then
      settle_all(self, BROKEN)
    end
  end, function()
    heard_of = commit_in_thread(self, batch)
    told = true
  end)
  if heard_of then
    guard("what follows a commit", function() end, self.committed)
  end
end

--- Lets the threads make their Lua VMs and open the store before the first callback comes; a pool that is missing is
-- told of. Callbacks that came all the same are committed: the requests that wait must receive a result.
function Threads:warm_up()
  commit_next(self)
  self:in_thread(M.HTTP_POOL, "http", {})
end

local function has_work(self)
  return self.batch or self.newest > self.called
end

-- Commits as long as there is something. Between the last look and the end nothing yields, so that nothing is left.
-- With a group: until that is done, too.
local function run(_, self, group)
  self.starting, self.runners = false, self.runners + 1
  while has_work(self) and not (group and group.done) do
    commit_next(self)
  end
  self.runners = self.runners - 1
end

-- Starts a commit in a timer, unless nginx has no timer left.
local function start(self)
  if not self.starting and self.runners < CALLS and has_work(self) then
    self.starting = ngx.timer.at(0, run, self) and true or false
  end
end

local function too_slow()
  return core.error("io", ("the store did not commit within %g s"):format(M.COMMIT_WAIT_S), true)
end

-- Waits until the group's transaction is on disk. True, or nil and an error.
local function wait(self, group)
  group.waiters = group.waiters + 1
  self.queued = self.queued + 1
  start(self)
  if self.starting or self.runners > 0 then
    group.wake:wait(BEGIN_S)
  end
  -- No commit has begun: nginx also drops timers, when lua_max_running_timers of them run. Each group starts its own.
  if not group.done and self.runners == 0 then
    run(false, self, group)
    start(self)
  end
  if not group.done and not group.wake:wait(M.COMMIT_WAIT_S) and not group.done then
    return nil, too_slow()
  end
  return not group.err or nil, group.err
end

local function full()
  return nil, core.error("busy", "too many callbacks wait for the disk", true)
end

--- Joins the batch that is being gathered and waits until it is on disk. See executor's commit().
function Threads:commit(ops)
  if self.queued >= self.queue_max then
    return full()
  end
  local batch = self.batch
  if not batch then
    batch = gathering()
    batch.ops = {}
    self.batch = batch
  end
  local first, answer_by = #batch.ops, core.clock() + M.COMMIT_WAIT_S * 1000
  for i, op in ipairs(ops) do
    batch.ops[first + i] = op
    op.answer_by = answer_by -- what it takes after that is handed back
    -- The provider's word may free a slot. What a submission stores is its own to go on with.
    batch.heard = batch.heard or op.source == "callback" or op.source == "poll"
  end
  local ok, err = wait(self, batch)
  if not ok then
    return nil, err
  end
  local results = {}
  for i = 1, #ops do
    results[i] = batch.results[first + i]
    if results[i].code == "late" then
      return nil, too_slow()
    end
  end
  return results
end

--- Puts a callback into the inbox and waits until it is on disk. See executor's callback().
function Threads:callback(ref, attempt, body)
  if self.queued >= self.queue_max then
    return full()
  end
  local number, index = self.inbox:put(ref, attempt, body)
  if not number then
    return nil, index
  end
  local lot = self.lots[number]
  if not lot then
    lot = gathering()
    self.lots[number], self.newest = lot, number
  end
  local ok, err = wait(self, lot)
  if not ok then
    return nil, err
  end
  local why = lot.unreadable and lot.unreadable[index]
  if why then
    return "unreadable", why
  end
  return core.codes[lot.outcomes:byte(index)]
end

--- This request waits; the worker does not.
function Threads.sleep(_, seconds)
  ngx.sleep(seconds)
end

function Threads:http(requests, deadline)
  return self:in_thread(M.HTTP_POOL, "http", requests, deadline)
end

-- ---- reads ----

-- Where a light thread may wait for a worker thread.
local MAY_WAIT = { rewrite = true, access = true, content = true, timer = true, ssl_cert = true }

local LONG = { check = true, backup = true, prunable = true }

-- Whether a read looks at few records. Then it is a look into mapped memory, if that is where the store is.
local function is_quick(name, query)
  if name ~= "page" then
    return not LONG[name]
  end
  return not (query.account or query.mode or query.text or query.refs or query.by == "event")
    and (query.by ~= "user" or not query.state)
end

-- In a pool of its own, if nginx.conf has one, a read waits for no request to the provider. A long one is never where
-- commits would wait for it, nor a quick one where requests may take half a minute.
local function pool_for(self, quick)
  if not self.missing[M.READ_POOL] then
    return M.READ_POOL
  end
  return quick and M.COMMIT_POOL or M.HTTP_POOL
end

--- See executor's read(): in place what is quick and can't wait, the rest in a thread.
function Threads:read(name, ...)
  local quick = is_quick(name, ...)
  if self.store and (quick or not MAY_WAIT[ngx.get_phase()]) then
    return self.store[name](self.store, ...)
  end
  local args, pool = { n = select("#", ...), ... }, pool_for(self, quick)
  local values, err = self:call(pool, "read", self.id, self.settings, name, args)
  if err and err.code == "no_pool" and pool == M.READ_POOL then
    self.missing[pool] = true
    return self:read(name, ...)
  elseif err and err.code == "no_pool" then
    values, err = self:in_thread(pool, "read", name, args) -- which says what is missing
  end
  if not values then
    return nil, err
  end
  return unpack(values, 1, values.n)
end

-- In the pool for reads, else where requests to the provider are made: never where commits would wait.
local function beside(self, name, payload)
  local pool = self.missing[M.READ_POOL] and M.HTTP_POOL or M.READ_POOL
  local result, err, more = self:call(pool, name, self.id, self.settings, payload)
  if err and err.code == "no_pool" and pool == M.READ_POOL then
    self.missing[pool] = true
    return beside(self, name, payload)
  elseif err and err.code == "no_pool" then
    return self:in_thread(pool, name, payload) -- which says what is missing
  end
  return result, err, more
end

--- What the console reads: see resty.mjhook.console.reads.
-- @treturn string|nil JSON text; nil and an error
-- @treturn[opt] number milliseconds that it took in the thread
function Threads:console(name, args, options)
  return beside(self, "console", { name = name, args = args, options = options })
end

--- What mjhook.doctor finds, which takes seconds.
-- @tparam table given what init() was given, as plain data
-- @treturn table|nil findings; nil and an error
function Threads:doctor(given)
  return self:in_thread(M.HTTP_POOL, "doctor", given)
end

function Threads:trim()
  if self.store then
    self.store:trim()
  end
end

--- See executor's lock(). A lock of a database is kept alive by the handle that holds it, and here there is none.
function Threads:lock(name)
  if self.store then
    return self.store:lock(name)
  end
  return nil, core.error("config", "this store can't be reconciled inside nginx: run mjhook-reconcile")
end

function Threads:unlock()
  if self.store then
    self.store:unlock()
  end
end

function Threads:close()
  if self.store then
    self.store:close()
  end
end

return M
