--- The far side of the thread executor: what runs inside an nginx worker thread.
-- Each thread has a Lua VM of its own that lives on between calls; it keeps a store
-- handle (all handles of a process share one environment) and an HTTP client here.
-- Only plain data goes in and out.
local core = require "mjhook.core"
local environment = require "mjhook.environment"
local executor = require "mjhook.executor"
local provider = require "mjhook.provider"

-- What a batch leaves behind is all garbage, and next to nothing lives on: collecting seldom costs little memory.
collectgarbage("setpause", 400)

local unpack = table.unpack or unpack

local M = {}
local executors, inboxes = {}, {}

local function plain(err)
  return { code = err.code, message = err.message, retryable = err.retryable }
end

local deliverers = {}

local FIRST_REST_MS, LAST_REST_MS = 100, 5000
local resting = {} -- by id, while the store can't be opened: {rest=, till=, err=}

-- What to work with under that id: made once, from settings. A database that can't be reached is tried again after a
-- rest, which doubles: otherwise each request would wait until its time to connect is over.
local function executor_of(id, settings)
  local rests = resting[id]
  if executors[id] then
    return executors[id]
  elseif rests and core.clock() < rests.till then
    return nil, rests.err
  end
  local exec, err = executor.direct(settings)
  if exec then
    executors[id], resting[id] = exec, nil
  elseif settings.store_url then
    local rest = rests and math.min(rests.rest * 2, LAST_REST_MS) or FIRST_REST_MS
    resting[id] = { rest = rest, till = core.clock() + rest, err = err }
  end
  return exec, err
end

local function unknown(id, settings)
  return not (executors[id] or settings)
end

local function write(id, settings, ops, inbox)
  local exec, err = executor_of(id, settings)
  if not exec then
    return nil, err
  end
  local results, outcomes, unreadable = exec.store:write(ops, executor.now(exec.store), inbox)
  return results, outcomes, unreadable, exec.store
end

-- Hands back at once what callers took that no longer wait. Here, not on the event loop: a worker of nginx that ends
-- waits for its threads, but not for what they say. Gives what could not be stored.
local function hand_back(store, ops, results)
  local back = executor.late(ops, results, executor.now(store))
  local stored, err = true, nil
  if #back > 0 then
    stored, err = store:write(back, executor.now(store))
  end
  if not stored and err.code ~= "unsure" then -- twice would be wrong: it may have been claimed again
    return back
  end
end

-- What commit() does while no other thread works on that lane.
local function commit(id, settings, ops, inbox, heard)
  heard.number = inbox:take() or false
  local results, outcomes, unreadable, store = write(id, settings, ops, inbox)
  if not results then
    return "failed", plain(outcomes), heard.number
  end
  local _, owed = pcall(hand_back, store, ops, results)
  return "ok", results, heard.number, outcomes, unreadable or false,
    { ready = store:last_ready(), owed = type(owed) == "table" and owed or nil }
end

local function left(inbox, heard, ran, ...)
  inbox:leave()
  if ran then
    return ...
  end
  return "failed", { code = "internal", message = tostring((...)), retryable = true }, heard.number
end

--- Commits operations and whatever is in the inbox at this moment, in one transaction. While another thread does that
-- for the same lane, it waits. Once something was taken out it does not raise: the requests that wait for it must
-- receive a result.
-- @tparam string id names the configuration
-- @tparam table|false settings the configuration, given when the last call said "unconfigured"
-- @tparam table ops see mjhook.core's store:write
-- @tparam string lane names the inbox
-- @treturn string "ok", "failed" or "unconfigured"
-- @treturn table the results; or the error, as plain table
-- @treturn number|false the inbox' batch that was taken
-- @treturn string the outcomes of that batch
-- @treturn table|false what of it could not be read
-- @treturn table {ready=, owed=}: how many queued jobs may be sent, store:last_ready(); what of it was taken for
-- callers that no longer wait and could not be handed back: the next call has to
function M.commit(id, settings, ops, lane)
  if unknown(id, settings) then
    return "unconfigured"
  end
  inboxes[lane] = inboxes[lane] or core.inbox(lane)
  local inbox, heard = inboxes[lane], {}
  inbox:enter()
  return left(inbox, heard, pcall(commit, id, settings, ops, inbox, heard))
end

--- Opens the store in this thread, so that for others of the process it is open.
-- @treturn string "ok", "failed" and an error as plain table, or "unconfigured"
function M.open(id, settings)
  if unknown(id, settings) then
    return "unconfigured"
  end
  local exec, err = executor_of(id, settings)
  if exec then
    return "ok", true
  end
  return "failed", plain(err)
end

-- Values that may be nil, as a table: what a thread gives is plain data.
local function packed(...)
  return { n = select("#", ...), ... }
end

--- A look into the store: see the executor's read().
-- @tparam string id names the configuration
-- @tparam table|false settings the configuration, given when the last call said "unconfigured"
-- @tparam string name of the store's method
-- @tparam table args what it is given, with their number as n
-- @treturn string "ok" and what the method gave, with the number of values as n; "failed" and an error as plain table;
-- or "unconfigured"
function M.read(id, settings, name, args)
  if unknown(id, settings) then
    return "unconfigured"
  end
  local exec, err = executor_of(id, settings)
  local values = exec and packed(exec:read(name, unpack(args, 1, args.n)))
  if values and values[1] ~= nil then
    values.skew = exec.store:skew()
    return "ok", values
  end
  return "failed", plain(values and values[2] or err)
end

--- Requests to the provider; the deadline is false for none.
-- @treturn string "ok" and the answers, "failed" and an error as plain table, or "unconfigured"
function M.http(id, settings, requests, deadline)
  if unknown(id, settings) then
    return "unconfigured"
  end
  local exec, err = executor_of(id, settings)
  local answers
  if exec then
    answers, err = exec:http(requests, deadline or nil)
  end
  if answers then
    return "ok", answers
  end
  return "failed", plain(err)
end

local clients = {} -- of airs, by name: other threads have the same ones

local function client_of(name, config)
  local err
  if not clients[name] then
    clients[name], err = core.http(executor.client_options(config), name)
  end
  return clients[name], err
end

local configs = {} -- by id

-- What fly() needs of a configuration: no store, which may be out of reach while requests are in the air.
local function config_of(id, settings)
  configs[id] = configs[id] or executors[id] and executors[id].config or settings or nil
  return configs[id]
end

--- Goes on with the requests of an air: see mjhook.executor.
-- @tparam table flight {requests= (new ones), air= (with its name)}
-- @treturn string "ok" and the answers by number, "failed" and an error as plain table, or "unconfigured"
function M.fly(id, settings, flight, deadline)
  local config = config_of(id, settings)
  if not config then
    return "unconfigured"
  end
  local client, err = client_of(flight.air.name, config)
  local flown
  if client then
    flown, err = executor.fly(client, provider.complete(config, flight.requests), flight.air, deadline or nil)
  end
  if flown then
    return "ok", flight.air.answers
  end
  return "failed", plain(err)
end

--- What the console reads, see resty.mjhook.console.reads.
-- @treturn string "ok", JSON text and the milliseconds it took; "failed" and an error as plain table; or "unconfigured"
function M.console(id, settings, wanted)
  if unknown(id, settings) then
    return "unconfigured"
  end
  local exec, err = executor_of(id, settings)
  local text, begun = nil, core.clock()
  if exec then
    text, err = require("resty.mjhook.console.reads").run(exec, wanted.name, wanted.args, wanted.options)
  end
  if text then
    return "ok", text, core.clock() - begun
  end
  return "failed", plain(err)
end

--- What mjhook.doctor finds.
-- @tparam table given what mjhook.open takes, with the environment
-- @treturn string "ok" and the findings
function M.doctor(_, _, given)
  environment.install(given.environment)
  local args = {}
  for k, v in pairs(given) do
    args[k] = k ~= "environment" and v or nil
  end
  return "ok", (require("mjhook.doctor").run(args))
end

--- Delivers events in this thread, with a mjhook of its own that has the policy and may block.
-- @tparam string id names the configuration
-- @tparam table|false settings what mjhook.open takes, given when the last call said "unconfigured"
-- @tparam table options see mjhook.delivery.deliver
-- @treturn string "ok" and the report with what was logged as `said`, "failed" and an error, or "unconfigured"
function M.deliver(id, settings, options)
  local one = deliverers[id]
  if not one then
    if not settings then
      return "unconfigured"
    end
    one = { said = {} }
    environment.install(settings.environment)
    settings.environment = nil
    settings.log = function(level, message)
      table.insert(one.said, { level = level, message = message })
    end
    local err
    one.mj, err = require("mjhook").open(settings)
    if not one.mj then
      return "failed", plain(err)
    end
    deliverers[id] = one
  end
  local said = one.said
  local report, err = require("mjhook.delivery.deliver").deliver(one.mj, options)
  if not report then
    return "failed", plain(err)
  end
  report.said, one.said = said, {}
  return "ok", report
end

return M
