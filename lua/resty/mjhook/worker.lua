--- The far side of the thread executor: what runs inside an nginx worker thread.
-- Each thread has a Lua VM of its own that lives on between calls; it keeps a store
-- handle (all handles of a process share one environment) and an HTTP client here.
-- Only plain data goes in and out.
local core = require "mjhook.core"
local environment = require "mjhook.environment"
local executor = require "mjhook.executor"

-- What a batch leaves behind is all garbage, and next to nothing lives on: collecting seldom costs little memory.
collectgarbage("setpause", 400)

local unpack = table.unpack or unpack

local M = {}
local executors, inboxes = {}, {}

local function plain(err)
  return { code = err.code, message = err.message, retryable = err.retryable }
end

local deliverers = {}

-- What to work with under that id: made once, from settings.
local function executor_of(id, settings)
  if not executors[id] then
    local err
    executors[id], err = executor.direct(settings)
    return executors[id], err
  end
  return executors[id]
end

local function unknown(id, settings)
  return not (executors[id] or settings)
end

local function write(id, settings, ops, inbox)
  local exec, err = executor_of(id, settings)
  if not exec then
    return nil, err
  end
  local results, outcomes, unreadable = exec.store:write(ops, core.now(), inbox)
  return results, outcomes, unreadable, exec.store
end

-- Hands back at once what callers took that no longer wait. Here, not on the event loop: a worker of nginx that ends
-- waits for its threads, but not for what they say. Gives what could not be stored.
local function hand_back(store, ops, results)
  local back = executor.late(ops, results)
  if #back > 0 and not store:write(back, core.now()) then
    return back
  end
end

--- Commits operations and whatever is in the inbox at this moment, in one transaction. Once something was taken out it
-- does not raise: the requests that wait for it must receive a result.
-- @tparam string id names the configuration and the inbox
-- @tparam table|false settings the configuration, given when the last call said "unconfigured"
-- @tparam table ops see mjhook.core's store:write
-- @treturn string "ok", "failed" or "unconfigured"
-- @treturn table the results; or the error, as plain table
-- @treturn number|false the lot that was taken
-- @treturn string the outcomes of the lot
-- @treturn table|false what of it could not be read
-- @treturn table|false operations that hand back what was taken for callers that no longer wait, when they could not be
-- stored: the next call has to
function M.commit(id, settings, ops)
  if unknown(id, settings) then
    return "unconfigured"
  end
  inboxes[id] = inboxes[id] or core.inbox(id)
  local lot = inboxes[id]:take() or false
  local ran, results, outcomes, unreadable, store = pcall(write, id, settings, ops, inboxes[id])
  if not ran then
    return "failed", { code = "internal", message = tostring(results), retryable = true }, lot
  elseif not results then
    return "failed", plain(outcomes), lot
  end
  local _, owed = pcall(hand_back, store, ops, results)
  return "ok", results, lot, outcomes, unreadable or false, type(owed) == "table" and owed or false
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
  local mj = deliverers[id]
  if not mj then
    if not settings then
      return "unconfigured"
    end
    environment.install(settings.environment)
    settings.environment = nil
    settings.log = function(level, message)
      table.insert(mj.said, { level = level, message = message })
    end
    local err
    mj, err = require("mjhook").open(settings)
    if not mj then
      return "failed", plain(err)
    end
    deliverers[id] = mj
  end
  mj.said = {}
  local report, err = require("mjhook.delivery.deliver").deliver(mj, options)
  if not report then
    return "failed", plain(err)
  end
  report.said = mj.said
  return "ok", report
end

return M
