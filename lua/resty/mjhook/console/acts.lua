--- What the console changes: an action on some ids, or on everything that a filter picks; accounts; refused callbacks.
--
-- Answers are lines of JSON, one for each page of an action, so that a browser can show how far it is.
local access = require "resty.mjhook.console.access"
local accounts = require "mjhook.accounts"
local bulk = require "mjhook.bulk"
local core = require "mjhook.core"
local events = require "mjhook.delivery.events"
local json = require "mjhook.cli.json"
local listing = require "mjhook.listing"

local M = {}

local IDS_MOST = 1000
local PAUSE_S_MOST = 365 * 86400

local function invalid(message, ...)
  return nil, core.error("invalid", message:format(...))
end

local function is_whole(value, most)
  return type(value) == "number" and value % 1 == 0 and value >= 1 and value <= most
end

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

local function check_ids(action, ids)
  if type(ids) ~= "table" or #ids == 0 or #ids > IDS_MOST then
    return invalid("ids: a list of 1 to %d expected", IDS_MOST)
  end
  for _, id in ipairs(ids) do
    local number = is_whole(id, 2 ^ 53)
    local text = type(id) == "string" and (core.is_ref(id) or events.parse(id) ~= nil)
    if not (action == "readmit" and number or action ~= "readmit" and text) then
      return invalid("ids: %s is none", tostring(id))
    end
  end
  return true
end

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

local function check_filter(action, filter, options)
  local how = bulk.ACTIONS[action]
  if type(filter) ~= "table" then
    return invalid "filter: an object expected"
  end
  local hidden = access.hidden(filter, options)
  if hidden then
    return invalid("filter: %s", hidden)
  end
  local fault = listing.fault(filter, how.of == "events" and listing.EVENT_FIELDS or listing.FIELDS)
  if fault then
    return invalid("filter: %s", fault)
  elseif how.of == "tasks" and #bulk.states(action, filter) == 0 then
    return invalid("%s: it means nothing to these states; possible are %s", action, table.concat(how.states, ", "))
  end
  return true
end

local function on_filter(mj, action, wanted)
  return bulk.bulk(mj, action, wanted.filter, { dry_run = wanted.dry_run == true, progress = progress,
                                                reason = "given up in the console" })
end

-- ---- accounts ----

local function on_account(mj, action, wanted)
  if type(wanted.account) ~= "string" then
    return invalid "account: a name expected"
  elseif action == "resume" then
    return accounts.resume(mj, wanted.account)
  elseif action == "drain" then
    return accounts.pause(mj, wanted.account)
  elseif not is_whole(wanted.seconds, PAUSE_S_MOST) then
    return invalid("seconds: a whole number from 1 to %d expected", PAUSE_S_MOST)
  end
  return accounts.pause(mj, wanted.account, wanted.seconds)
end

local OF_ACCOUNTS = { pause = true, drain = true, resume = true }

--- What has to be right before the answer begins.
-- @treturn boolean|nil true; nil and an error ("invalid")
function M.check(wanted, options)
  local action = type(wanted) == "table" and wanted.action
  if OF_ACCOUNTS[action] then
    return true
  elseif not ONE[action] then
    return invalid("action: %s is none", tostring(action))
  elseif wanted.ids ~= nil then
    return check_ids(action, wanted.ids)
  elseif not bulk.ACTIONS[action] then
    return invalid("%s: ids expected", action)
  end
  return check_filter(action, wanted.filter, options)
end

--- Does it, and answers with lines of JSON, the last of which is the report or an error.
-- @tparam table mj the worker's
-- @tparam table wanted which check() found right
-- @tparam table options private
function M.run(mj, wanted, options)
  local action = wanted.action
  local report, err
  if OF_ACCOUNTS[action] then
    report, err = on_account(mj, action, wanted)
    report = report and { action = action, dry_run = false, matched = 1, done = 1, skipped = 0, failed = 0, by = {},
                          errors = {} }
  elseif wanted.ids then
    report = on_ids(mj, action, wanted.ids)
  else
    if wanted.limit and type(wanted.limit) == "number" then
      wanted.filter.limit = math.max(1, wanted.limit)
    end
    report, err = on_filter(mj, action, wanted)
  end
  if report then
    line { report = public(report, options) }
  else
    line { error = { code = err.code, message = options.private and err.code or err.message } }
  end
end

return M
