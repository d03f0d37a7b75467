--- What a GET of the console's API may ask for. A parameter that is unknown, given twice or of a wrong kind is refused
--- rather than passed over: otherwise the answer is to another question.
local access = require "resty.mjhook.console.access"
local core = require "mjhook.core"
local events = require "mjhook.delivery.events"
local listing = require "mjhook.listing"

local M = {}

-- The parameters of filters, by how they are read.
local TEXTS = { user_id = true, account = true, mode = true, key = true, q = true, before = true, after = true }
local NUMBERS = { since = true, ["until"] = true, limit = true }
local FLAGS = { buried = true, waiting = true, failed = true }

local function split(text)
  local list = {}
  for word in text:gmatch "[^,]+" do
    list[#list + 1] = word
  end
  return list
end

local MOST = 999999999999999 -- of 15 digits: exact, and in milliseconds far enough

-- A parameter that is a whole number, in decimal digits. nil where it is not given; nil and what is wrong.
local function whole(args, name)
  local value = args[name]
  if value == nil then
    return nil
  end
  local n = type(value) == "string" and #value <= 15 and value:match "^%d+$" and tonumber(value)
  return n or nil, not n and ("%s: a whole number from 0 to %d expected"):format(name, MOST) or nil
end

local function text(args, name, what)
  local value = args[name]
  if type(value) == "string" and value ~= "" then
    return value
  end
  return nil, ("%s: %s expected"):format(name, what)
end

-- The filter that a query makes, or nil and what is wrong with it.
local function filter_of(args, fields, options)
  local filter, hidden = {}, access.hidden(args, options)
  if hidden then
    return nil, hidden
  end
  for name, value in pairs(args) do
    local why
    if name == "state" and type(value) == "string" then
      filter.state = split(value)
    elseif TEXTS[name] and fields[name] and type(value) == "string" then
      filter[name] = value
    elseif NUMBERS[name] then
      filter[name], why = whole(args, name)
    elseif FLAGS[name] and fields[name] then
      filter[name] = value == "1" or value == "true" or nil
      why = not filter[name] and ("%s: 1 expected, or no such parameter"):format(name)
    elseif fields[name] or name == "state" then
      why = ("%s: a value expected"):format(name)
    else
      why = ("unknown parameter %s"):format(name)
    end
    if why then
      return nil, why
    end
  end
  local fault = listing.fault(filter, fields)
  return not fault and filter or nil, fault
end

local function tasks_filter(args, options)
  local filter, fault = filter_of(args, listing.FIELDS, options)
  return filter and { filter = filter }, fault
end

local function events_filter(args, options)
  local after = args.after
  if after ~= nil and not (type(after) == "string" and events.parse(after)) then
    return nil, "after: an event id expected"
  end
  args.after = nil
  local filter, fault = filter_of(args, listing.EVENT_FIELDS, options)
  return filter and { filter = filter, after = after }, fault
end

local function one_ref(args)
  if type(args.ref) ~= "string" or not core.is_ref(args.ref) then
    return nil, "ref: a task's ref expected"
  end
  return { ref = args.ref:upper() }
end

local function only(names, f)
  return function(args)
    for name in pairs(args) do
      if not names[name] then
        return nil, ("unknown parameter %s"):format(name)
      end
    end
    return f(args)
  end
end

local nothing = only({}, function() return {} end)

-- By the name of the GET: makes of its parameters what is asked for; or gives nil, and what is wrong with them.
local GETS = {
  tasks = tasks_filter, count = tasks_filter, gallery = tasks_filter, events = events_filter,
  task = only({ ref = true }, one_ref),
  find = only({ id = true }, function(args)
    local id, fault = text(args, "id", "a ref, a task id or a key")
    return id and { id = id }, fault
  end),
  refused = only({ below = true, limit = true }, function(args)
    local below, fault = whole(args, "below")
    local limit, also = whole(args, "limit")
    fault = fault or also
    return not fault and { below = below, limit = limit } or nil, fault
  end),
  image = only({ ref = true, n = true }, function(args)
    local wanted, fault = one_ref(args)
    local n, also = whole(args, "n")
    if fault or also then
      return nil, fault or also
    end
    wanted.n = n or 0
    return wanted
  end),
  history = only({ span = true }, function(args)
    local span = args.span or "hour"
    if span ~= "hour" and span ~= "day" then
      return nil, "span: hour or day expected"
    end
    return { span = span }
  end),
  stats = nothing, console = nothing, live = nothing,
}

--- Whether the API has a GET of this name.
function M.exists(name)
  return GETS[name] ~= nil
end

--- What a GET asks for.
-- @tparam string name of the GET, which exists
-- @tparam table args what ngx.req.get_uri_args gives
-- @tparam table options private
-- @treturn table|nil what is asked for; nil and what is wrong, a sentence
function M.read(name, args, options)
  for parameter, value in pairs(args) do
    if type(value) == "table" then
      return nil, ("%s: given twice"):format(parameter)
    end
  end
  return GETS[name](args, options)
end

return M
