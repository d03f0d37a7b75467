--- Asking the provider about tasks, many in one request.
--
-- An answer about several tasks that can't be read, is too long or is a definite error may be so because of one of
-- them. It is asked for again in halves, until the sick one is alone and the others are heard. Halving goes on while it
-- finds healthy halves: an account whose answers are all of no use costs a few requests more, not hundreds.
local core = require "mjhook.core"
local provider = require "mjhook.provider"

local M = {}

local unpack = table.unpack or unpack

-- A sick task's timeline says so in this way. It is asked about in a request of its own then, until that is answered.
local ALONE = "asked about alone: "

-- The ids of a task that are still worth asking about: those of its open attempts, else of the current one.
local function ids_of(mj, task)
  local ids = {}
  for n, a in ipairs(task.attempts) do
    local open = a.slot_until or n == #task.attempts
    for _, id in ipairs(open and a.task_ids or {}) do
      -- An attempt that a callback told of before it was ever sent has no account of its own.
      ids[#ids + 1] = { id = id, attempt = n, account = a.account or task.account or mj.config.accounts[1].name }
    end
  end
  return ids
end

-- Why the last poll of a task got no answer; an empty string when it got one, or there was none.
local function unanswered_before(task)
  for i = #(task.timeline or {}), 1, -1 do
    local entry = task.timeline[i]
    if entry.source == "poll" then
      return entry.signal == "unanswered" and entry.reason or ""
    end
  end
  return task.unanswered or "" -- of a brief record
end

-- Splits what is to be asked into requests: one account each, at most `batch` ids. All that is asked about one
-- attempt goes into one request, so that an answer can tell that it knows nothing of it.
local function plan(mj, tasks)
  local groups, order = {}, {}
  local function room_for(name, n, sick)
    local group = not sick and groups[name]
    if not group or #group.ids + n > mj.config.batch then
      group = { account = name, ids = {}, entries = {} }
      groups[name] = not sick and group or groups[name]
      order[#order + 1] = group
    end
    return group
  end
  for _, task in ipairs(tasks) do
    local entry
    local before = unanswered_before(task)
    local sick = before:sub(1, #ALONE) == ALONE
    for _, asked in ipairs(ids_of(mj, task)) do
      if not entry or entry.attempt ~= asked.attempt then
        local group = room_for(asked.account, #task.attempts[asked.attempt].task_ids, sick)
        entry = { task = task, attempt = asked.attempt, ids = {}, sick = sick, before = before }
        group.entries[#group.entries + 1] = entry
        entry.group = group
      end
      entry.ids[#entry.ids + 1] = asked.id
      entry.group.ids[#entry.group.ids + 1] = asked.id
    end
  end
  return order
end

local function wait_for(mj, task, kind)
  if (kind == "running" or kind == "absent") and mj.policy:decides "next_poll" then
    return (select(2, mj.policy:decide("next_poll", task, mj.exec:now())))
  end
end

local function word_op(mj, task, word, source)
  return {
    op = "signal", ref = task.ref, kind = word.kind, source = source, task_id = word.task_id,
    image = word.image, images = word.images, mj_prompt = word.mj_prompt, meta = word.meta, remark = word.remark,
    error_code = word.error_code, error = word.error, wait_ms = wait_for(mj, task, word.kind),
  }
end

-- Records that an answer said nothing usable about a task. Tasks with the same reason are reported in one sentence. A
-- task with the same reason as last time is asked about seldom.
local function unread(self, entry, why)
  local list = self.unread[why] or { n = 0, ref = entry.task.ref }
  list.n = list.n + 1
  self.unread[why] = list
  self.ops[#self.ops + 1] = {
    op = "signal", ref = entry.task.ref, attempt = entry.attempt, kind = "unanswered", source = "poll",
    error_code = "provider", error = why, wait_ms = entry.before == why and self.mj.config.poll.max * 1000 or nil,
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
    for _, id in ipairs(entry.ids) do
      is_unread = is_unread or answer.unread[id]
      if answer.words[id] then
        self.ops[#self.ops + 1] = word_op(self.mj, entry.task, answer.words[id], "poll")
        said = said + 1
      end
    end
    if said == 0 and is_unread then
      unread(self, entry, "the answer has no usable status of the task, or two that contradict each other")
    elseif said == 0 and answer.odd > 0 then
      unread(self, entry, "the answer does not name the task, but holds what can't be read")
    elseif said == 0 then
      self.ops[#self.ops + 1] = {
        op = "signal", ref = entry.task.ref, attempt = entry.attempt, kind = "absent", source = "poll",
        -- Absence proves something only of a whole attempt, and in an answer that knew another task.
        counts = known > 0 and not entry.partial, wait_ms = wait_for(self.mj, entry.task, "absent"),
      }
    end
  end
end

local function unanswered(self, group, err)
  for _, entry in ipairs(group.entries) do
    self.ops[#self.ops + 1] = {
      op = "signal", ref = entry.task.ref, attempt = entry.attempt, kind = "unanswered", source = "poll",
      error_code = err.code, error = err.message, wait_ms = err.retry_after and err.retry_after * 1000,
    }
  end
end

local function trouble(self, err)
  self.report.errors[#self.report.errors + 1] = err
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
    root.parts = {}
    self.roots[#self.roots + 1] = root
  end
  table.insert(root.parts, group)
end

-- Sends groups, side by side, and reads the answers.
local function ask(self, groups)
  local requests, sent = {}, {}
  for _, group in ipairs(groups) do
    local usable, err = provider.usable(self.mj.config, group.account)
    if usable then
      requests[#requests + 1] = provider.status_request(group.account, group.ids)
      sent[#sent + 1] = group
    else
      trouble(self, err)
      unanswered(self, group, err)
    end
  end
  if #requests == 0 then
    return
  end
  local answers, failed = self.mj.exec:http(requests, self.deadline)
  self.report.requests = self.report.requests + #requests
  for i, group in ipairs(sent) do
    local answer, err = nil, failed
    if answers then
      answer, err = provider.read_status(answers[i], group.ids)
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
  end
end

-- Half of a group: its entries from `first` to `last`, or of a single entry those ids.
local function part(group, first, last)
  local half = { account = group.account, root = group.root or group, ids = {}, entries = {} }
  if #group.entries > 1 then
    half.entries = { unpack(group.entries, first, last) }
  else
    local entry = group.entries[1]
    half.entries[1] = { task = entry.task, attempt = entry.attempt, sick = entry.sick, before = entry.before,
                        partial = true, ids = { unpack(entry.ids, first, last) } }
  end
  for _, entry in ipairs(half.entries) do
    for _, id in ipairs(entry.ids) do
      half.ids[#half.ids + 1] = id
    end
  end
  return half
end

-- The next halves to ask for. Of each request that was of no use the part that was found last goes on, so that a sick
-- task is soon alone. An account pays for two requests, and each that is answered pays for the next two.
local function divide(self)
  local halves = {}
  if self.mj.stopping() or (self.deadline and core.clock() >= self.deadline) then
    return halves
  end
  for _, root in ipairs(self.roots) do
    local name = root.account
    self.credit[name] = self.credit[name] or 2 * math.ceil(math.log(self.mj.config.batch) / math.log(2))
    if #root.parts > 0 and self.credit[name] >= 2 then
      local group = table.remove(root.parts)
      local n = #group.entries > 1 and #group.entries or #group.ids
      self.credit[name] = self.credit[name] - 2
      halves[#halves + 1] = part(group, 1, math.floor(n / 2))
      halves[#halves + 1] = part(group, math.floor(n / 2) + 1, n)
    end
  end
  return halves
end

-- A task that is alone in its request and gets no usable answer, while the account gets others: it is sick.
local function settle_alone(self, group)
  local entry, err = group.entries[1], group.err
  if not (self.answered[group.account] or entry.sick) then
    trouble(self, err)
    return unanswered(self, group, err)
  end
  trouble(self, core.error(err.code, ("task %s, %s%s"):format(entry.task.ref, ALONE, err.message), err.retryable))
  local message = ALONE .. err.message
  local wait = err.retry_after or (entry.sick and self.mj.config.poll.max) or nil
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

-- How many tasks the provider said nothing usable about.
local function missed(ops)
  local refs, n = {}, 0
  for _, op in ipairs(ops) do
    if op.kind == "unanswered" and not refs[op.ref] then
      refs[op.ref], n = true, n + 1
    end
  end
  return n
end

--- Asks about tasks and stores what the provider says.
-- @tparam table tasks records with at least one task id
-- @tparam[opt] number deadline core.clock() at which waiting ends
-- @treturn table|nil {requests=, errors={err}, results={{code=, made=}}, missed= tasks without a usable answer}; nil
-- and an error when the store failed
function M.poll(mj, tasks, deadline)
  local self = {
    mj = mj, deadline = deadline, ops = {}, unread = {}, report = { requests = 0, errors = {}, results = {} },
    roots = {}, alone = {}, -- requests whose answer was of no use, with what is left of them; tasks that are alone
    answered = {},          -- accounts that got a usable answer
    credit = {},            -- requests that halving may still cost, by account
  }
  local groups = plan(mj, tasks)
  repeat
    ask(self, groups)
    groups = divide(self)
  until #groups == 0
  settle(self)
  if #self.ops > 0 then
    local results, err = mj.exec:commit(self.ops)
    if not results then
      return nil, err
    end
    self.report.results = results
  end
  self.report.missed = missed(self.ops)
  return self.report
end

--- mj:refresh: asks about one task now.
function M.refresh(mj, ref)
  local task, err = mj.exec:read("get", ref)
  if not task then
    return nil, err
  end
  if #ids_of(mj, task) == 0 then
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
