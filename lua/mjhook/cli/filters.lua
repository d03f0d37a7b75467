--- Filters on the command line: the same options for every command that picks tasks or events.
local fail = require "mjhook.cli.fail"
local listing = require "mjhook.listing"
local options = require "mjhook.cli.options"
local times = require "mjhook.cli.times"

local M = {}

local unpack = table.unpack or unpack
local read_state = options.one_of(unpack(listing.STATES))

local function read_states(text)
  local states = {}
  for word in (text .. ","):gmatch "([^,]*)," do
    local state, why = read_state(word)
    if not state then
      return nil, why
    end
    states[#states + 1] = state
  end
  return states
end

options.words[read_states] = options.words[read_state]

--- The states, as a list.
M.STATE = { name = "state", arg = "STATE", help = "only tasks in this state; several: a,b", read = read_states,
            several = true }

--- What a task must be. `field` is the filter's name for it, where that is another one.
M.OF_TASKS = {
  M.STATE,
  { name = "user", arg = "ID", help = "only this user's tasks", read = options.text, field = "user_id" },
  { name = "account", arg = "NAME", help = "only tasks of this account", read = options.text },
  { name = "mode", arg = "MODE", help = "only tasks of this mode: fast or relaxed",
    read = options.one_of("fast", "relaxed") },
  { name = "key", arg = "KEY", help = "only the task with this key", read = options.text },
  { name = "q", short = "q", arg = "TEXT", help = "only prompts with this text; without --since, of the last 7 days",
    read = options.text },
  { name = "since", arg = "TIME", help = "stored since: 7d, 2h, 2026-01-31, 2026-01-31T12:00Z or milliseconds",
    read = times.since },
  { name = "until", arg = "TIME", help = "stored until then", read = times.since },
}

--- How far an action goes, and whether it asks.
M.OF_ACTIONS = {
  { name = "limit", arg = "N", help = "at most N", read = options.whole(1, 1e9) },
  { name = "dry-run", help = "count them, and do nothing" },
  { name = "yes", short = "y", help = "do not ask" },
}

--- The options of a command: lists, one after the other.
function M.options(...)
  local all = {}
  for _, list in ipairs { ... } do
    for _, option in ipairs(list) do
      all[#all + 1] = option
    end
  end
  return all
end

--- The filter that a command line makes.
-- @tparam table given values of the options
-- @treturn table filter; and whether it says anything
function M.filter(given)
  local filter, says = {}, false
  for _, option in ipairs(M.OF_TASKS) do
    if given[option.name] ~= nil then
      filter[option.field or option.name], says = given[option.name], true
    end
  end
  if filter.since and filter["until"] and filter.since > filter["until"] then
    fail.stop(fail.USAGE, "--since is later than --until: no task can be between them", "")
  end
  return filter, says
end

return M
