--- Listings: which tasks and events there are, picked by a filter, as an iterator, a page or a number.
--
-- A filter says what a task must be; all of its fields have to hold:
--   state     a state, or a list of them
--   user_id, account, mode, key
--   q         a part of the prompt, ASCII letters in either case. Without `since` only tasks of the last seven days are
--             looked at
--   since     created at or after, milliseconds since 1970
--   ["until"] created at or before
--   before    a ref: only older tasks
--   after     a ref: only newer tasks
-- The core compares each record that an index leads to, at most some thousand in a page: so no read takes long, and a
-- page may be short while there are more.
local core = require "mjhook.core"
local view = require("mjhook.view").view

local M = {}

local PAGE = 100
local LOOK_MOST = 10000 -- records that count() looks at, unless it is told otherwise
local WINDOW_MS = 7 * 86400000
local LATEST = 2 ^ 53 -- ms

M.STATES = core.states
local IS_STATE = {}
for _, state in ipairs(M.STATES) do
  IS_STATE[state] = true
end
-- States that few tasks are in: their index is shorter than a user's.
local PASSING = { submitting = true, ambiguous = true, pending = true }

local OF_TASKS = {
  user_id = "string", account = "string", mode = "string", key = "string", since = "number", ["until"] = "number",
  q = "string", limit = "number",
}

local function with(more)
  local fields = {}
  for _, list in ipairs { OF_TASKS, more } do
    for name, kind in pairs(list) do
      fields[name] = kind
    end
  end
  return fields
end

--- The fields that a filter may have beside `state`, with their types: of tasks, and of events.
M.FIELDS = with { before = "string", after = "string" }
M.EVENT_FIELDS = with { buried = "boolean", waiting = "boolean", failed = "boolean", ref = "string" }

-- ---- filters ----

local function states_of(given)
  local list = type(given) == "string" and { given } or given
  if type(list) ~= "table" then
    return nil, "bad field 'state' (a state or a list of states expected)"
  end
  local states, seen = {}, {}
  for k, state in pairs(list) do
    if type(k) ~= "number" or type(state) ~= "string" then
      return nil, "bad field 'state' (a state or a list of states expected)"
    elseif not IS_STATE[state] then
      return nil, ("no state %q"):format(state)
    end
    states[#states + 1] = not seen[state] and state or nil
    seen[state] = true
  end
  return states
end

local function check_values(filter)
  if filter.mode and filter.mode ~= "fast" and filter.mode ~= "relaxed" then
    return ("no mode %q"):format(filter.mode)
  end
  for _, name in ipairs { "before", "after" } do
    if filter[name] and not core.is_ref(filter[name]) then
      return ("bad field '%s' (a ref expected)"):format(name)
    end
  end
end

--- What is wrong with a filter, in words; nil when nothing is.
-- @tparam table filter
-- @tparam table fields FIELDS or EVENT_FIELDS
function M.fault(filter, fields)
  for name, value in pairs(filter) do
    local kind = fields[name]
    if name == "state" then
      local _, why = states_of(value)
      if why then
        return why
      end
    elseif not kind then
      return ("unknown field '%s'%s"):format(tostring(name), require "mjhook.suggest"(name, fields))
    elseif type(value) ~= kind or value ~= value then
      return ("bad field '%s' (a %s expected)"):format(name, kind)
    end
  end
  return check_values(filter)
end

-- No name is empty or longer than the store takes, and no task has another word for a ref: nothing can have such a one.
local function is_impossible(filter)
  if filter.ref and not core.is_ref(filter.ref) then
    return true
  end
  for _, name in ipairs { "user_id", "account", "key" } do
    local value = filter[name]
    if value and (value == "" or #value > core.max_name) then
      return true
    end
  end
  return filter.state ~= nil and #states_of(filter.state) == 0
end

-- When the window of a filter begins: 0 for always.
local function since_of(mj, filter)
  if filter.since or not filter.q or filter.q == "" then
    return math.max(filter.since or 0, 0)
  end
  return math.max(math.min(filter["until"] or math.huge, mj.exec:now()) - WINDOW_MS, 0)
end

local function index_for(filter, state)
  if filter.key then
    return "key"
  elseif filter.user_id and not PASSING[state] then
    return "user"
  end
  return state and "state" or "age"
end

local function query_for(mj, filter, state, more)
  local query = {
    by = index_for(filter, state), state = state, user_id = filter.user_id, key = filter.key,
    account = filter.account, mode = filter.mode, text = filter.q, since = math.min(since_of(mj, filter), LATEST),
    ["until"] = filter["until"] and math.min(math.max(filter["until"], 1), LATEST), from = filter.before, limit = PAGE,
  }
  for k, v in pairs(more or {}) do
    query[k] = v
  end
  return query
end

-- A query for each state that is asked for: each has an index of its own. The key's task is only one.
local function queries_for(mj, filter, more)
  local states, queries = filter.state and states_of(filter.state), {}
  if is_impossible(filter) then
    return queries
  end
  for i, state in ipairs(states or { false }) do
    queries[i] = query_for(mj, filter, state or nil, more)
  end
  return queries
end

-- ---- reading ----

-- What a page may have to look through for long is read in another thread, where there is one.
local function read(mj, query)
  return mj.exec:read("page", query)
end

-- Iterates over one query's records, which are tasks, refs or events; those that can't be read are passed over.
local function stream(mj, query)
  local list, at, done = {}, 0, false
  return function()
    while true do
      at = at + 1
      local item = list[at]
      if item == nil then
        if done then
          return nil
        end
        local cursor
        list, cursor = read(mj, query)
        if not list then
          error(cursor, 0)
        end
        query.cursor, query.from, done, at = cursor, nil, cursor == nil, 0
      elseif type(item) ~= "table" or item.ref then
        return item
      end
    end
  end
end

local function ref_of(item)
  return type(item) == "table" and item.ref or item
end

-- Several streams as one: refs ascend with time.
local function merged(streams)
  if #streams < 2 then
    return streams[1] or function() end
  end
  local heads = {}
  for i, next_of in ipairs(streams) do
    heads[i] = next_of() or false
  end
  return function()
    local newest
    for i, head in ipairs(heads) do
      if head and (not newest or ref_of(head) > ref_of(heads[newest])) then
        newest = i
      end
    end
    local item = newest and heads[newest]
    if item then
      heads[newest] = streams[newest]() or false
    end
    return item or nil
  end
end

--- Iterates over the records of tasks, newest first.
-- @tparam table mj
-- @tparam table filter
-- @tparam[opt] table more `brief` or `refs`: see mjhook.core's store:page
-- @treturn function iterator, which raises an error of mjhook.core when the store can't be read
function M.each(mj, filter, more)
  local streams = {}
  for i, query in ipairs(queries_for(mj, filter, more)) do
    streams[i] = stream(mj, query)
  end
  local next_of, after = merged(streams), filter.after and filter.after:upper()
  return function()
    local item = next_of()
    if item and after and ref_of(item) <= after then
      next_of = function() end
      return nil
    end
    return item
  end
end

--- mj:tasks.
function M.tasks(mj, filter)
  local left, each = filter.limit or math.huge, nil
  return function()
    if left <= 0 then
      return nil
    end
    each = each or M.each(mj, filter)
    left = left - 1
    return view(each())
  end
end

-- ---- pages ----

local function newest_first(a, b)
  return a.ref > b.ref
end

local function oldest_first(a, b)
  return a.ref < b.ref
end

-- What the queries give together, up to where the first of them ended before it had looked at everything.
local function gather(mj, queries, is_before)
  local all, horizon = {}, nil
  for _, query in ipairs(queries) do
    local list, cursor, _, ref = read(mj, query)
    if not list then
      return nil, cursor
    end
    for _, task in ipairs(list) do
      all[#all + 1] = task.ref and task or nil
    end
    if cursor and (not horizon or is_before({ ref = ref }, { ref = horizon })) then
      horizon = ref
    end
  end
  table.sort(all, is_before)
  return all, horizon
end

--- A page of tasks, newest first. One read for each state that is asked for, each of bounded length: so the page may be
-- short, even empty, while there are more.
-- @tparam table mj
-- @tparam table filter with `after` the page is the one that ends at that ref, not the first one of all newer tasks
-- @tparam number limit
-- @treturn table|nil {tasks=, older= a ref to go on before, newer= a ref to go on after; nil at the end}; nil, err
function M.page(mj, filter, limit)
  local backwards = filter.after ~= nil and filter.before == nil
  local is_before = backwards and oldest_first or newest_first
  local all, horizon = gather(mj, queries_for(mj, filter, { limit = limit, oldest_first = backwards or nil,
    from = backwards and filter.after or filter.before }), is_before)
  if not all then
    return nil, horizon
  end
  local tasks, last = {}, horizon
  for _, task in ipairs(all) do
    if horizon and is_before({ ref = horizon }, task) then
      break
    elseif #tasks == limit then
      last = tasks[limit].ref
      break
    end
    tasks[#tasks + 1] = view(task)
  end
  if not backwards then
    return { tasks = tasks, older = last, newer = filter.before and (tasks[1] and tasks[1].ref or filter.before) }
  end
  table.sort(tasks, newest_first)
  return { tasks = tasks, newer = last, older = tasks[#tasks] and tasks[#tasks].ref or filter.after }
end

-- ---- numbers ----

-- The store counts tasks by state, and nothing else.
local function is_counted(filter)
  for name in pairs(filter) do
    if name ~= "state" and name ~= "limit" then
      return false
    end
  end
  return true
end

local function counted(mj, filter)
  local stats, err = mj.exec:read("stats", mj.exec:now())
  if not stats then
    return nil, err
  end
  local n = 0
  for _, state in ipairs(filter.state and states_of(filter.state) or M.STATES) do
    n = n + stats.tasks[state]
  end
  return { count = n, exact = true }
end

-- How many refs of a page count, and whether the page was the last one that does.
local function counted_in(list, after)
  for i, ref in ipairs(list) do
    if after and ref <= after then
      return i - 1, true
    end
  end
  return #list, false
end

--- mj:count. When it has looked at so many records, one more page tells whether there is more.
-- @tparam table mj
-- @tparam table filter
-- @tparam[opt] number most records to look at
function M.count(mj, filter, most)
  if is_counted(filter) then
    return counted(mj, filter)
  end
  local n, left = 0, most or LOOK_MOST
  local after = filter.after and filter.after:upper()
  for _, query in ipairs(queries_for(mj, filter, { refs = true })) do
    repeat
      local is_over = left <= 0
      query.limit = is_over and 1 or 1000
      local list, cursor, looked = read(mj, query)
      if not list then
        return nil, cursor
      end
      local found, ends = counted_in(list, after)
      cursor = not ends and cursor or nil
      if is_over and (found > 0 or cursor) then
        return { count = n, exact = false }
      end
      n, left = n + found, left - looked
      query.cursor, query.from = cursor, nil
    until not cursor
  end
  return { count = n, exact = true }
end

-- ---- events ----

-- One query: an event is found by its own index, and its task is compared in place.
local function event_query(mj, filter, limit)
  local states = filter.state and states_of(filter.state)
  return query_for(mj, filter, nil, {
    by = "event", states = states, buried = filter.buried, waiting = filter.waiting, failed = filter.failed,
    ref = filter.ref, limit = limit or PAGE, since = filter.since or 0,
  })
end

--- Iterates over events as the store has them, the oldest task's first.
function M.events(mj, filter)
  local left, each = filter.limit or math.huge, nil
  return function()
    if left <= 0 or is_impossible(filter) then
      return nil
    end
    each = each or stream(mj, event_query(mj, filter))
    left = left - 1
    return each()
  end
end

--- A page of events, the oldest task's first; short or empty, perhaps, while there are more.
-- @tparam string|nil ref, and seq: where the last page ended
-- @treturn table|nil {events=, more= the id of an event to go on behind}; nil and an error
function M.event_page(mj, filter, limit, ref, seq)
  if is_impossible(filter) then
    return { events = {} }
  end
  local query = event_query(mj, filter, limit)
  query.from, query.from_seq = ref, seq
  local list, cursor, _, at, n = read(mj, query)
  if not list then
    return nil, cursor
  end
  local page = {}
  for _, event in ipairs(list) do
    page[#page + 1] = event.event_id and event or nil
  end
  return { events = page, more = at and ("%s-%d"):format(at, n) }
end

return M
