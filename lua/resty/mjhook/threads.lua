--- The executor under nginx: worker threads for all that waits, and one commit for all requests that wait for one.
local core = require "mjhook.core"
local lane = require "resty.mjhook.lane"
local log = require("resty.mjhook.log").log
local run_in_thread = require "resty.mjhook.keep"
local stores = require "mjhook.stores"

--- AIRS: windows of requests that are open side by side, of a worker, each with
-- connections of its own.
local M = { COMMIT_POOL = lane.POOL, HTTP_POOL = "mjhook_http", READ_POOL = "mjhook_read", AIRS = 4 }

local unpack = table.unpack or unpack

local NONE = {}

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
  end
  local kind = core.backend(backend or nil)
  if not kind.waits then
    store, err = stores.open(conf, true)
    if not store then
      return nil, err
    end
  end
  local self = setmetatable({
    store = store, settings = settings_of(conf), id = id, missing = {}, committed = function() end,
    queued = 0, skew = 0, queue_max = conf.queue_max, airs = {},
  }, Threads)
  for i = 1, M.AIRS do
    self.airs[i] = id .. "\0air" .. i
  end
  self.lane = lane.new(self, id)
  return self
end

-- What a function of resty.mjhook.worker said, in a thread or here. A commit says more: see there.
local function heard(ran, status, result, batch, outcomes, unreadable, owed)
  if not ran then
    local missing = tostring(status):find "^thread pool .- not found"
    return nil, core.error(missing and "no_pool" or "internal", "worker thread: " .. tostring(status), true)
  elseif status == "ok" then
    return result, nil, batch, outcomes, unreadable, owed
  elseif status == "failed" then
    return nil, core.error(result.code, result.message, result.retryable), batch
  end
  return nil, core.error("unconfigured", "worker thread: not configured", true)
end

--- Calls a function of resty.mjhook.worker in a thread. Its Lua VM is told the settings when it does not know the id
-- yet.
-- @treturn table|nil its result, or nil
-- @treturn table|nil an error: "no_pool" when nginx.conf has none of that name
-- @return what else a commit says
function Threads.call(_, pool, name, id, settings, payload, extra)
  local result, err, batch, outcomes, unreadable, owed
  for attempt = 1, 2 do
    result, err, batch, outcomes, unreadable, owed = heard(run_in_thread(pool, "resty.mjhook.worker", name, id,
      attempt == 2 and settings, payload, extra or false))
    if not err or err.code ~= "unconfigured" then
      break
    end
  end
  return result, err, batch, outcomes, unreadable, owed
end

--- As call(), with this worker's settings; here and now where there is no such pool.
function Threads:in_thread(pool, name, payload, extra)
  if not self.missing[pool] then
    local result, err, batch, outcomes, unreadable, owed = self:call(pool, name, self.id, self.settings, payload, extra)
    if not err or err.code ~= "no_pool" then
      return result, err, batch, outcomes, unreadable, owed
    end
    self.missing[pool] = true
    log("error", ("no thread_pool %s in nginx.conf: the event loop waits for every commit and request"):format(pool))
  end
  return heard(true, require("resty.mjhook.worker")[name](self.id, self.settings, payload, extra or false))
end

local function go_on() end

-- Where lua_check_client_abort is on, nginx ends the coroutine of a client that goes, unless the request has a function
-- for that. What a flow has begun must come to its end: a claimed task that is not sent is never sent again.
local function outlive_client()
  pcall(ngx.on_abort, go_on) -- raises where no client waits; refused where nginx does not look, or the caller has one
end

-- ---- commits ----

--- Lets the threads make their Lua VMs and open the store before the first callback comes; a pool that is missing is
-- told of.
function Threads:warm_up()
  self.lane:warm_up()
  self:in_thread(M.HTTP_POOL, "http", {})
end

local function full()
  return nil, core.error("busy", "too many callbacks wait for the disk", true)
end

--- See executor's commit(): the operations share a transaction with others that wait.
function Threads:commit(ops)
  outlive_client()
  if self.queued >= self.queue_max then
    return full()
  end
  return self.lane:commit(ops)
end

-- Nothing rests here: the lane commits callbacks, too.
function Threads.give_way() end

Threads.commit_each = Threads.commit

--- See executor's callback().
function Threads:callback(ref, attempt, body)
  if self.queued >= self.queue_max then
    return full()
  end
  return self.lane:callback(ref, attempt, body)
end

--- This request waits; the worker does not.
function Threads.sleep(_, seconds)
  ngx.sleep(seconds)
end

-- ---- requests ----

-- An air is a client of this process that each thread finds by its name; the threads of the pool take turns in going on
-- with it. A request that is alone needs none, and without a free one a batch is sent as a whole.
local function take_off(self, air, requests)
  if not air.name and #requests > 1 then
    air.name = table.remove(self.airs)
  end
  return air.name
end

local function fly(self, requests, deadline, air)
  local answers, err = self:in_thread(M.HTTP_POOL, "fly", { requests = requests, air = air }, deadline)
  if not answers then
    return nil, err
  end
  for number, answer in pairs(answers) do
    air.answers[number] = answer
  end
  air.open = true
  return NONE
end

--- See executor's http().
function Threads:http(requests, deadline, air)
  if air and take_off(self, air, requests) then
    return fly(self, requests, deadline, air)
  end
  return self:in_thread(M.HTTP_POOL, "http", requests, deadline)
end

--- See executor's land(). An air whose client may still have requests is given to no other window.
function Threads:land(air)
  if air.name and (not next(air.answers) or fly(self, {}, 0, air)) then
    self.airs[#self.airs + 1] = air.name
    air.name = nil
  end
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
  self.skew = values.skew
  return unpack(values, 1, values.n)
end

--- See executor's now(). A database's clock is known from the last read.
function Threads:now()
  return core.now() + self.skew
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

--- See executor's lock(). A lock of a database is kept alive by the handle that holds it, and here there is none: each
-- call may go to another thread's.
function Threads:lock(name)
  if self.store then
    return self.store:lock(name)
  end
  return nil, core.error("config", "a store in a database can't be reconciled inside nginx, whose threads take turns: "
    .. "one process has to hold its lock: run mjhook-reconcile")
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
