--- Tasks from a file: recorded ones, a JSON object on each line, as `mjhook list --json` and `get --json` print them.
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.json"
local lines = require "mjhook.cli.lines"

local M = {}

local STATES = {}
for _, state in ipairs(core.states) do
  STATES[state] = true
end

local function is(kind)
  return function(value)
    return type(value) == kind
  end
end

local function is_whole(value)
  return type(value) == "number" and value >= 0 and value < 2 ^ 53 and value == math.floor(value)
end

local function is_attempt(value)
  return is_whole(value) and value >= 1 and value <= 64 -- the core has 8
end

local function is_state(value)
  return STATES[value] or false
end

local function list_of(check)
  return function(value)
    if type(value) ~= "table" then
      return false
    end
    for k, v in pairs(value) do
      if type(k) ~= "number" or not check(v) then
        return false
      end
    end
    return true
  end
end

local function optional(check)
  return function(value)
    return value == nil or check(value)
  end
end

local function fits(fields, value)
  if type(value) ~= "table" then
    return nil
  end
  for _, field in ipairs(fields) do
    if not field[2](value[field[1]]) then
      return field[1]
    end
  end
end

local function shaped(fields)
  return function(value)
    return type(value) == "table" and fits(fields, value) == nil
  end
end

local ENTRY = shaped {
  { "at", is_whole }, { "signal", is "string" }, { "source", is "string" }, { "from", is_state }, { "to", is_state },
  { "attempt", is_attempt }, { "note", optional(is "string") }, { "reason", optional(is "string") },
  { "count", optional(is_whole) }, { "until", optional(is_whole) },
}

local TASK = {
  { "ref", is "string" }, { "state", is_state }, { "created_at", is_whole }, { "timeline", list_of(ENTRY) },
  { "attempts", optional(list_of(shaped { { "task_ids", optional(list_of(is "string")) } })) },
  { "images", optional(list_of(is "string")) }, { "polls", optional(is_whole) }, { "tries", optional(is_whole) },
  { "timeout", optional(is_whole) }, { "due_at", optional(is_whole) }, { "updated_at", optional(is_whole) },
  { "called_at", optional(is_whole) }, { "timeline_dropped", optional(is_whole) },
  { "error", optional(shaped { { "code", is "string" }, { "message", is "string" } }) },
}

-- Why a decoded value is no record of a task; nothing when it is one.
local function fault_of(value)
  if type(value) ~= "table" or value.ref == nil then
    return "not a task: an object with ref, state, created_at and timeline expected"
  end
  local wrong = fits(TASK, value)
  if wrong then
    return ("not a task as `mjhook get --json` prints it: %s is missing or strange"):format(wrong)
  end
end

--- Goes through the tasks of a file. Ends the command at a line that is none.
-- @tparam table file {handle=, name=}
-- @treturn function iterator
function M.tasks(file)
  local each = lines.each(file.handle)
  local function stop(text, ...)
    fail.stop(fail.USAGE, ("%s%s"):format(file.name, text:format(...)), "policy")
  end
  return function()
    while true do
      local ok, number, line = pcall(each)
      if not ok then
        stop(": can't be read: %s", tostring(number))
      elseif not number then
        return nil
      elseif not line then
        stop(":%d: longer than %d bytes", number, lines.LONGEST)
      elseif line:find "%S" then
        local value, why = json.decode(line)
        why = value == nil and "not JSON: " .. tostring(why) or fault_of(value)
        if why then
          stop(":%d: %s", number, why)
        end
        return json.whole(value)
      end
    end
  end
end

return M
