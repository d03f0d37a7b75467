--- What an order to the console may say: POST api/act. A field of a wrong type is refused rather than read as something
--- else: an order that was meant as a dry run must not be carried out.
local access = require "resty.mjhook.console.access"
local accounts = require "mjhook.accounts"
local bulk = require "mjhook.bulk"
local core = require "mjhook.core"
local events = require "mjhook.delivery.events"
local json = require "mjhook.json"
local listing = require "mjhook.listing"
local suggest = require "mjhook.suggest"

local M = {}

local IDS_MOST = 1000
local PAUSE_S_MOST = 365 * 86400
local WHOLE_MOST = 2 ^ 53 - 1 -- exact
local QUOTED_MOST = 40 -- bytes of a value in a message

-- The actions on tasks, events and refused callbacks, by what ids they take.
local OF_IDS = {
  cancel = "task", resubmit = "task", refresh = "task", replay = "task", kick = "event", bury = "event",
  readmit = "refused callback",
}
local OF_ACCOUNTS = { pause = true, drain = true, resume = true }

-- ---- words ----

local function invalid(message, ...)
  return nil, core.error("invalid", message:format(...))
end

-- A value of the order as a message shows it.
local function shown(value)
  if value == nil then
    return "nothing"
  elseif type(value) == "table" then
    return (#value > 0 or json.is_empty_array(value)) and "an array" or "an object"
  elseif type(value) == "string" and #value > QUOTED_MOST then
    return ("a string of %d bytes"):format(#value)
  end
  return json.encode(value) or "a number that is too large"
end

local function expected(name, what, value)
  return invalid("%s: %s expected, not %s", name, what, shown(value))
end

local function is_whole(value, least, most)
  return type(value) == "number" and value % 1 == 0 and value >= least and value <= most
end

local function is_object(value)
  return type(value) == "table" and #value == 0 and not json.is_empty_array(value)
end

-- ---- fields ----

local function check_names(order, ...)
  local known = { action = true }
  for _, name in ipairs { ... } do
    known[name] = true
  end
  for name in pairs(order) do
    if not known[name] then
      return invalid("%s: %s%s takes no such field%s", shown(name), order.action, order.ids ~= nil and " on ids" or "",
        suggest(name, known))
    end
  end
  return true
end

-- ---- on ids ----

local IS_ID = {
  task = function(id) return type(id) == "string" and core.is_ref(id) end,
  event = function(id) return type(id) == "string" and events.parse(id) ~= nil end,
  ["refused callback"] = function(id) return is_whole(id, 1, WHOLE_MOST) end,
}
local ID_OF = { task = "the ref of a task", event = "the id of an event",
                ["refused callback"] = "the number of a refused callback" }

local function check_ids(order)
  local kind, ids = OF_IDS[order.action], order.ids
  if type(ids) ~= "table" or #ids == 0 then
    return expected("ids", ("a list of 1 to %d"):format(IDS_MOST), ids)
  elseif #ids > IDS_MOST then
    return invalid("ids: a list of 1 to %d expected, not of %d", IDS_MOST, #ids)
  end
  for _, id in ipairs(ids) do
    if not IS_ID[kind](id) then
      return expected("ids", ID_OF[kind], id)
    end
  end
  return check_names(order, "ids")
end

-- ---- on a filter ----

-- The parts of a filter that another module does not look at: their range.
local function check_numbers(filter)
  for _, name in ipairs { "since", "until" } do
    if filter[name] ~= nil and not is_whole(filter[name], 0, WHOLE_MOST) then
      return expected("filter." .. name, "a whole number of milliseconds since 1970", filter[name])
    end
  end
  if filter.limit ~= nil then
    return invalid "filter: limit stands beside the filter, not in it"
  elseif filter.ref ~= nil and not core.is_ref(filter.ref) then
    return expected("filter.ref", "the ref of a task", filter.ref)
  end
  return true
end

local function check_filter(order, options)
  local action, filter = order.action, order.filter
  local how = bulk.ACTIONS[action]
  if not is_object(filter) then
    return expected("filter", "an object", filter)
  end
  local fault = access.hidden(filter, options)
    or listing.fault(filter, how.of == "events" and listing.EVENT_FIELDS or listing.FIELDS)
  if fault then
    return invalid("filter: %s", fault)
  end
  local ok, err = check_numbers(filter)
  if not ok then
    return nil, err
  elseif how.of == "tasks" and #bulk.states(action, filter) == 0 then
    return invalid("%s: it means nothing to these states; possible are %s", action, table.concat(how.states, ", "))
  elseif order.dry_run ~= nil and type(order.dry_run) ~= "boolean" then
    return expected("dry_run", "true or false", order.dry_run)
  elseif order.limit ~= nil and not is_whole(order.limit, 1, WHOLE_MOST) then
    return expected("limit", "a whole number from 1", order.limit)
  end
  return check_names(order, "filter", "dry_run", "limit")
end

-- ---- on an account ----

local function check_account(mj, order)
  local pauses = order.action == "pause"
  if type(order.account) ~= "string" or order.account == "" then
    return expected("account", "a name", order.account)
  elseif pauses and not is_whole(order.seconds, 1, PAUSE_S_MOST) then
    return expected("seconds", ("a whole number from 1 to %d"):format(PAUSE_S_MOST), order.seconds)
  end
  local ok, err = check_names(order, "account", pauses and "seconds" or nil)
  if not ok then
    return nil, err
  end
  return accounts.known(mj, order.account)
end

--- What has to be right before anything is done.
-- @tparam table mj the worker's
-- @tparam table order decoded JSON
-- @tparam table options private
-- @treturn boolean|nil true; nil and an error ("invalid"; "not_found" for an account)
function M.check(mj, order, options)
  if not is_object(order) then
    return invalid("a JSON object expected, not %s", shown(order))
  elseif type(order.action) ~= "string" then
    return expected("action", "a name", order.action)
  elseif OF_ACCOUNTS[order.action] then
    return check_account(mj, order)
  elseif not OF_IDS[order.action] then
    return invalid("action: there is no %s", shown(order.action))
  elseif order.ids ~= nil then
    return check_ids(order)
  elseif not bulk.ACTIONS[order.action] or order.filter == nil then
    return invalid("%s: %s expected", order.action, bulk.ACTIONS[order.action] and "ids or a filter" or "ids")
  end
  return check_filter(order, options)
end

return M
