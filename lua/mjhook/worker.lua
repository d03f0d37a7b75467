--- The far side of the thread executor: what runs inside an nginx worker thread.
-- Each thread has a Lua VM of its own that lives on between calls; it keeps a store
-- handle (all handles of a process share one environment) and an HTTP client here.
-- Only plain data goes in and out.
local core = require "mjhook.core"
local executor = require "mjhook.executor"

-- What a batch leaves behind is all garbage, and next to nothing lives on: collecting seldom costs little memory.
collectgarbage("setpause", 400)

local M = {}
local executors = {}

local function plain(err)
  return { code = err.code, message = err.message, retryable = err.retryable }
end

local deliverers = {}

local function call(id, settings, name, ...)
  local exec = executors[id]
  if not exec then
    if not settings then
      return "unconfigured"
    end
    local store, err = core.open(settings.store, executor.store_options(settings))
    if not store then
      return "failed", plain(err)
    end
    exec = executor.direct(settings, store)
    executors[id] = exec
  end
  local result, err = exec[name](exec, ...)
  if result then
    return "ok", result
  end
  return "failed", plain(err)
end

--- @tparam string id names the configuration
-- @tparam table|false settings the configuration, given when the last call said "unconfigured"
-- @treturn string "ok" and the results, "failed" and an error as plain table, or "unconfigured"
function M.commit(id, settings, ops)
  return call(id, settings, "commit", ops)
end

--- As commit(), for requests to the provider; the deadline is false for none.
function M.http(id, settings, requests, deadline)
  return call(id, settings, "http", requests, deadline or nil)
end

--- Delivers events in this thread, with a mjhook of its own that has the policy and may block.
-- @tparam string id names the configuration
-- @tparam table|false settings what mjhook.open takes, given when the last call said "unconfigured"
-- @tparam table options of mj:deliver
-- @treturn string "ok" and the report with what was logged as `said`, "failed" and an error, or "unconfigured"
function M.deliver(id, settings, options)
  local mj = deliverers[id]
  if not mj then
    if not settings then
      return "unconfigured"
    end
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
  local report, err = mj:deliver(options)
  if not report then
    return "failed", plain(err)
  end
  report.said = mj.said
  return "ok", report
end

return M
