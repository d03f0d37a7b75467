--- What the console changes: an action on some ids, or on everything that a filter picks; accounts; refused callbacks.
--
-- Answers are lines of JSON, one for each page of an action, so that a browser can show how far it is. What comes here
-- is an order that resty.mjhook.console.orders found right.
local accounts = require "mjhook.accounts"
local bulk = require "mjhook.bulk"
local json = require "mjhook.cli.json"

local M = {}

local function line(value)
  ngx.print(json.encode(value), "\n")
  ngx.flush(true)
end

-- Messages may quote what users and the provider wrote.
local function public(report, options)
  local copy = {}
  for k, v in pairs(report) do
    copy[k] = v
  end
  copy.errors = json.array(copy.errors)
  for _, err in ipairs(options.private and copy.errors or {}) do
    err.message = err.code
  end
  return copy
end

local function progress(report)
  line { progress = { matched = report.matched, done = report.done, skipped = report.skipped, failed = report.failed } }
end

-- ---- on ids ----

local ONE = {
  cancel = function(mj, id) return mj:cancel(id) end,
  resubmit = function(mj, id) return mj:resubmit(id) end,
  refresh = function(mj, id) return mj:refresh(id) end,
  replay = function(mj, id) return mj:replay(id) end,
  kick = function(mj, id) return mj:kick(id) end,
  bury = function(mj, id) return mj:bury(id, "given up in the console") end,
  readmit = function(mj, id) return mj:readmit(id) end,
}

local function on_ids(mj, action, ids)
  local report = { action = action, dry_run = false, matched = #ids, done = 0, skipped = 0, failed = 0, by = {},
                   errors = {} }
  for i, id in ipairs(ids) do
    local ok, err = ONE[action](mj, id)
    if ok then
      report.done = report.done + 1
      report.outcome = action == "readmit" and ok or nil
    else
      report.failed = report.failed + 1
      report.errors[#report.errors + 1] = #report.errors < 20 and
        { id = id, code = err.code, message = err.message } or nil
    end
    if i % 50 == 0 then
      progress(report)
    end
  end
  return report
end

-- ---- on a filter ----

local function on_filter(mj, order)
  order.filter.limit = order.limit
  return bulk.bulk(mj, order.action, order.filter, { dry_run = order.dry_run, progress = progress,
                                                     reason = "given up in the console" })
end

-- ---- accounts ----

local ON_ACCOUNT = {
  pause = function(mj, order) return accounts.pause(mj, order.account, order.seconds) end,
  drain = function(mj, order) return accounts.pause(mj, order.account) end,
  resume = function(mj, order) return accounts.resume(mj, order.account) end,
}

local function on_account(mj, order)
  local ok, err = ON_ACCOUNT[order.action](mj, order)
  if not ok then
    return nil, err
  end
  return { action = order.action, dry_run = false, matched = 1, done = 1, skipped = 0, failed = 0, by = {},
           errors = {} }
end

--- Does it, and answers with lines of JSON, the last of which is the report or an error.
-- @tparam table mj the worker's
-- @tparam table order which orders.check() found right
-- @tparam table options private
function M.run(mj, order, options)
  local report, err
  if ON_ACCOUNT[order.action] then
    report, err = on_account(mj, order)
  elseif order.ids then
    report = on_ids(mj, order.action, order.ids)
  else
    report, err = on_filter(mj, order)
  end
  if report then
    line { report = public(report, options) }
  else
    line { error = { code = err.code, message = options.private and err.code or err.message } }
  end
end

return M
