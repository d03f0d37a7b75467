--- Asking the provider about tasks, many in one request, through a window: what has been answered is stored while other
-- requests go on.
--
-- An answer about several tasks that can't be read, is too long or is a definite error may be so because of one of
-- them. It is asked for again in halves, until the sick one is alone and the others are heard. Halving goes on while it
-- finds healthy halves: an account whose answers are all of no use costs a few requests more, not hundreds.
local core = require "mjhook.core"
local provider = require "mjhook.provider"
local window = require "mjhook.window"

local M = {}

local unpack = table.unpack or unpack

local TOGETHER = 400 -- tasks in a transaction: more of them make it no quicker, and take memory

-- A sick task's timeline says so in this way. It is asked about in a request of its own then, until that is answered.
local ALONE = "asked about alone: "

-- Why the last poll of a task got no answer; nil when it got one, or there was none.
local function unanswered_before(task)
  for i = #(task.timeline or {}), 1, -1 do
    local entry = task.timeline[i]
    if entry.source == "poll" then
      return entry.signal == "unanswered" and entry.reason or nil
    end
  end
end

-- A record in brief (see store:page), of which each attempt is an entry of a request. A whole record is put into that
-- shape, with itself as `task`.
local function entries_of(task)
  if not task.attempts then
    return task
  end
  local first, last
  for n = #task.attempts, 1, -1 do
    local a = task.attempts[n]
    if n == #task.attempts or (a.slot_until and a.task_ids) then
      local entry = { unpack(a.task_ids or {}) }
      entry.ref, entry.attempt, entry.account, entry.task = task.ref, n, a.account or task.account, task
      if last then
        last.older = entry
      else
        first, entry.unanswered = entry, unanswered_before(task)
      end
      last = entry
    end
  end
  return first
end

local function is_sick(entry)
  return entry.unanswered ~= nil and entry.unanswered:sub(1, #ALONE) == ALONE
end

-- A request for status: entries of an account, with their ids in one list.
local function new_group(account, root)
  return window.item { account = account, root = root, ids = {}, entries = {}, tasks = 0 }
end

local function put(group, entry)
  group.entries[#group.entries + 1] = entry
  for i = 1, #entry do
    group.ids[#group.ids + 1] = entry[i]
  end
end

-- Splits what is to be asked into requests: one account each, at most `batch` ids. All that is asked about one
-- attempt goes into one request, so that an answer can tell that it knows nothing of it.
local function plan(mj, tasks)
  local groups, order = {}, {}
  local function room_for(entry)
    -- An attempt that a callback told of before it was ever sent has no account of its own.
    local name = entry.account or mj.config.accounts[1].name
    local sick = is_sick(entry)
    local group = not sick and groups[name]
    if not group or #group.ids + #entry > mj.config.batch then
      group = new_group(name)
      groups[name] = not sick and group or groups[name]
      order[#order + 1] = group
    end
    return group
  end
  for _, task in ipairs(tasks) do
    local entry, counted = entries_of(task), false
    local before = entry.unanswered
    while entry do
      entry.unanswered = before
      if #entry > 0 then
        local group = room_for(entry)
        put(group, entry)
        group.tasks = group.tasks + (counted and 0 or 1)
        counted = true
      end
      entry = entry.older
    end
  end
  return order
end

-- When the policy wants an unfinished task to be polled again; nil: it does not say. It sees whole records alone.
local function wait_for(mj, task, kind)
  if task and (kind == "running" or kind == "absent") and mj.policy:decides "next_poll" then
    return (select(2, mj.policy:decide("next_poll", task, mj.exec:now())))
  end
end

local function status_op(mj, entry, status)
  local op = { op = "signal", ref = entry.ref, source = "poll", status = status }
  if entry.task then
    op.wait_ms = wait_for(mj, entry.task, core.status(status).kind)
  end
  return op
end

-- Records that an answer said nothing usable about a task. Tasks with the same reason are reported in one sentence. A
-- task with the same reason as last time is asked about seldom.
local function unread(self, entry, why)
  local list = self.unread[why] or { n = 0, ref = entry.ref }
  list.n = list.n + 1
  self.unread[why] = list
  self.ops[#self.ops + 1] = {
    op = "signal", ref = entry.ref, attempt = entry.attempt, kind = "unanswered", source = "poll",
    error_code = "provider", error = why, wait_ms = entry.unanswered == why and self.mj.config.poll.max * 1000 or nil,
  }
end

-- What one answered request says of its tasks.
local function read_group(self, group, answer)
  local known = 0
  for _, id in ipairs(group.ids) do
    known = known + (answer.words[id] and 1 or 0)
  end
  for _, entry in ipairs(group.entries) do
    local said, is_unread = 0, false
    for i = 1, #entry do
      local status = answer.words[entry[i]]
      is_unread = is_unread or answer.unread[entry[i]]
      if status then
        self.ops[#self.ops + 1] = status_op(self.mj, entry, status)
        said = said + 1
      end
    end
    if said == 0 and is_unread then
      unread(self, entry, "the answer has no usable status of the task, or two that contradict each other")
    elseif said == 0 and answer.odd > 0 then
      unread(self, entry, "the answer does not name the task, but holds what can't be read")
    elseif said == 0 then
      self.ops[#self.ops + 1] = {
        op = "signal", ref = entry.ref, attempt = entry.attempt, kind = "absent", source = "poll",
        -- Absence proves something only of a whole attempt, and in an answer that knew another task.
        counts = known > 0 and not entry.partial, wait_ms = wait_for(self.mj, entry.task, "absent"),
      }
    end
  end
end

local function unanswered(self, group, err)
  for _, entry in ipairs(group.entries) do
    self.ops[#self.ops + 1] = {
      op = "signal", ref = entry.ref, attempt = entry.attempt, kind = "unanswered", source = "poll",
      error_code = err.code, error = err.message, wait_ms = err.retry_after and err.retry_after * 1000,
    }
  end
end

local function trouble(self, err)
  if self.how.trouble then
    self.how.trouble(err)
  else
    self.report.errors[#self.report.errors + 1] = err
  end
end

-- An answer that may be of no use because of one of the tasks.
local function suspect(self, group, err)
  local root = group.root or group
  group.err = err
  if #group.ids == 1 then
    self.alone[#self.alone + 1] = group
    root.found = true
    return
  end
  if not root.parts then
    root.parts, root.asked = {}, 0
    self.roots[#self.roots + 1] = root
  end
  table.insert(root.parts, group)
end

-- Half of a group: its entries from `first` to `last`, or of a single entry those ids. Its tasks are counted already.
local function part(group, first, last)
  local half = new_group(group.account, group.root or group)
  if #group.entries > 1 then
    for i = first, last do
      put(half, group.entries[i])
    end
  else
    local whole = group.entries[1]
    local entry = { unpack(whole, first, last) }
    entry.ref, entry.attempt, entry.task = whole.ref, whole.attempt, whole.task
    entry.unanswered, entry.partial = whole.unanswered, true
    put(half, entry)
  end
  return half
end

-- Whether nothing more is to be asked.
local function is_over(self)
  return self.halted or self.deadline and core.clock() >= self.deadline
end

-- The next halves of a request that was of no use, when the last ones are answered. The part that was found last goes
-- on, so that a sick task is soon alone. An account pays for two requests, and each that is answered pays for the next
-- two.
local function divide(self, root)
  local name = root.account
  self.credit[name] = self.credit[name] or 2 * math.ceil(math.log(self.mj.config.batch) / math.log(2))
  if #root.parts == 0 or root.asked > 0 or self.credit[name] < 2 or is_over(self) or self.mj.stopping() then
    return
  end
  local group = table.remove(root.parts)
  local n = #group.entries > 1 and #group.entries or #group.ids
  self.credit[name] = self.credit[name] - 2
  root.asked = 2
  self.items[#self.items + 1] = part(group, 1, math.floor(n / 2))
  self.items[#self.items + 1] = part(group, math.floor(n / 2) + 1, n)
end

-- A task that is alone in its request and gets no usable answer, while the account gets others: it is sick.
local function settle_alone(self, group)
  local entry, err = group.entries[1], group.err
  local sick = is_sick(entry)
  if not (self.answered[group.account] or sick) then
    trouble(self, err)
    return unanswered(self, group, err)
  end
  trouble(self, core.error(err.code, ("task %s, %s%s"):format(entry.ref, ALONE, err.message), err.retryable))
  local message = ALONE .. err.message
  local wait = err.retry_after or (sick and self.mj.config.poll.max) or nil
  unanswered(self, group, { code = err.code, message = message, retry_after = wait })
end

local function settle(self)
  for _, root in ipairs(self.roots) do
    for _, group in ipairs(root.parts) do
      trouble(self, group.err)
      unanswered(self, group, group.err)
      root.found = true
    end
    if not root.found then
      self.mj.log("warn", ("an answer about %d tasks was of no use (%s), and those about halves of them were: is "
        .. "batch = %d too large for the provider?"):format(#root.ids, root.err.message, self.mj.config.batch))
    end
  end
  for _, group in ipairs(self.alone) do
    settle_alone(self, group)
  end
  for why, list in pairs(self.unread) do
    trouble(self, core.error("provider", ("task %s%s: %s"):format(list.ref,
      list.n > 1 and (" and %d more"):format(list.n - 1) or "", why), true))
  end
end

-- Counts the tasks that the provider said nothing usable about.
local function count_missed(self)
  for _, op in ipairs(self.ops) do
    if op.kind == "unanswered" and not self.missed[op.ref] then
      self.missed[op.ref] = true
      self.report.missed = self.report.missed + 1
    end
  end
end

-- ---- the window's work ----

local Poll = {}
Poll.__index = Poll

-- Takes in tasks, but for those that are being asked about at this moment.
local function add(self, tasks)
  local fresh = {}
  for _, task in ipairs(tasks) do
    if not self.asked[task.ref] then
      self.asked[task.ref] = true
      fresh[#fresh + 1] = task
    end
  end
  for _, group in ipairs(plan(self.mj, fresh)) do
    self.items[#self.items + 1] = group
  end
end

-- Whether the account can be asked under; an error is the answer, otherwise.
local function is_usable(self, group)
  local usable, err = provider.usable(self.mj.config, group.account)
  if not usable then
    trouble(self, err)
    unanswered(self, group, err)
    self:settle(group)
  end
  return usable
end

function Poll:settle(group)
  group.ended = true
  self.ended = self.ended + 1
end

-- What is not begun stays due.
function Poll:drop()
  local kept = {}
  for _, group in ipairs(self.items) do
    if group.request or group.ended then
      kept[#kept + 1] = group
    end
  end
  self.items, self.more = kept, false
end

function Poll:waiting()
  local list = {}
  for _, group in ipairs(self.items) do
    if not (group.request or group.ended) then
      list[#list + 1] = group
    end
  end
  return list
end

function Poll:ready(room)
  if is_over(self) then
    self:drop()
  end
  local waiting = self:waiting()
  while self.more and #waiting < room do
    local tasks = self.how.next()
    self.more = tasks ~= nil
    add(self, tasks or {})
    waiting = self:waiting()
  end
  local list = {}
  for _, group in ipairs(waiting) do
    if #list < room and is_usable(self, group) then
      list[#list + 1] = group
    end
  end
  return list
end

function Poll:is_ready()
  return #self:waiting() > 0
end

function Poll.request(_, group)
  return provider.status_request(group.account, group.ids)
end

function Poll:read(group, given, why)
  local answer, err = nil, why
  if given then
    answer, err = provider.read_status(given, group.ids)
  end
  self.report.requests = self.report.requests + 1
  self.report.polled = self.report.polled + group.tasks
  if group.root then
    group.root.asked = group.root.asked - 1
  end
  if self.how.heard then
    self.how.heard(self.report.polled)
  end
  if answer then
    self.answered[group.account] = true
    if group.root then
      self.credit[group.account] = self.credit[group.account] + 2
    end
    read_group(self, group, answer)
  elseif err.halves then
    suspect(self, group, err)
  else
    trouble(self, err)
    unanswered(self, group, err)
  end
  self:settle(group)
  local root = group.root or group
  if root.parts then
    divide(self, root)
  end
end

function Poll:halt()
  self.halted = true
end

-- More to ask about does not come from what is stored.
function Poll.wants_more()
  return false
end

local function commit(self)
  if #self.ops == 0 then
    return
  end
  local results, err = self.mj.exec:commit_each(self.ops)
  count_missed(self)
  self.ops = {}
  if not results then
    self.err, self.halted = self.err or err, true
  elseif self.how.stored then
    self.how.stored(results)
  end
end

function Poll:store()
  local kept = {}
  for _, group in ipairs(self.items) do
    if not group.ended then
      kept[#kept + 1] = group
    end
  end
  commit(self)
  for _, group in ipairs(self.items) do
    for _, entry in ipairs(group.ended and not group.parts and group.entries or {}) do
      self.asked[entry.ref] = nil
    end
  end
  self.items, self.ended = kept, 0
end

--- Asks about tasks and stores what the provider says.
-- @tparam table how next(): gives a list of records with at least one task id, again and again until it gives nil;
-- deadline, if given: core.clock() at which waiting ends, and what was not asked about stays due; stored(results), if
-- given: gets what each transaction gives; heard(polled), if given: gets how many tasks were asked about so far, with
-- each answer; trouble(err), if given: gets each error
-- @treturn table|nil {requests=, errors={err} (without `trouble`), polled= tasks that were asked about, missed= tasks
-- without a usable answer}; nil and an error when the store failed
function M.poll_all(mj, how)
  local self = setmetatable({
    mj = mj, how = how, deadline = how.deadline, items = {}, ended = 0, more = true, halted = false,
    enough = math.ceil(TOGETHER / mj.config.batch),
    ops = {}, unread = {}, report = { requests = 0, errors = {}, polled = 0, missed = 0 },
    roots = {}, alone = {}, -- requests whose answer was of no use, with what is left of them; tasks that are alone
    answered = {},          -- accounts that got a usable answer
    credit = {},            -- requests that halving may still cost, by account
    asked = {},             -- refs of tasks that are being asked about
    missed = {},            -- refs of those that got no usable answer
  }, Poll)
  window.run(mj, self)
  settle(self)
  commit(self)
  if self.err then
    return nil, self.err
  end
  return self.report
end

--- Asks about these tasks: see poll_all().
function M.poll(mj, tasks)
  local rest = tasks
  return M.poll_all(mj, { next = function()
    local list = rest
    rest = nil
    return list
  end })
end

--- Whether a task, which may be in brief, has an id to ask about.
function M.is_askable(task)
  local entry = entries_of(task)
  while entry and #entry == 0 do
    entry = entry.older
  end
  return entry ~= nil
end

--- mj:refresh: asks about one task now.
function M.refresh(mj, ref)
  local task, err = mj.exec:read("get", ref)
  if not task then
    return nil, err
  end
  if not M.is_askable(task) then
    return nil, core.error("state", ("task %s has no task_id: there is nothing to ask the provider about"):format(ref))
  end
  local report, why = M.poll(mj, { task })
  if not report then
    return nil, why
  elseif report.errors[1] then
    return nil, report.errors[1]
  end
  return mj:get(ref)
end

return M
