--- A task as it was at each entry of its timeline, as far as its record tells. Pure: no disk, no network, no clock.
-- The reducer goes along the timeline again (mj_state_retrace); what that can't rebuild is read from the record.
--
-- What the record does not tell:
--
-- - A full timeline has lost entries behind its fourth. `polls` and `tries` are right all the same, but for attempts
--   before the last one; `updated_at` just behind the gap is from before it.
-- - Whether a refusal named its wait, and so cost no try, is not kept: the account's refusals do, as submit.lua has it.
-- - An earlier error's code is that of its text, `due_at` is nil, `expires_at` before a resubmission is nil, and an
--   adopted task has the prompt that it learned later.
local core = require "mjhook.core"

local M = {}

local FIRST_KEPT = 4 -- of a full timeline the core keeps so many from the beginning (src/domain/timeline.c)

--- A deep copy.
local function copy(value)
  if type(value) ~= "table" then
    return value
  end
  local out = {}
  for k, v in pairs(value) do
    out[k] = copy(v)
  end
  return setmetatable(out, getmetatable(value))
end

M.copy = copy

-- Refusals that are about the account: its rest is the wait, and they cost the job no try.
local RESTS = { quota = true, concurrency = true, rate_limit = true, auth = true, redirect = true, endpoint = true,
                blocked = true }

local ERROR_CODES = { failed = "provider", ready = "expired" } -- others are their signals' names

-- What the texts of refusals tell of their codes: src/provider/answer.h's, and PROVIDER.md's.
local REFUSALS = {
  { "is base_url right", "endpoint" }, { "in front of the provider", "blocked" },
  { "quota", "quota" }, { "concurren", "concurrency" }, { "rate", "rate_limit" }, { "too many", "rate_limit" },
  { "redirect", "redirect" }, { "key", "auth" }, { "auth", "auth" },
}

--- The code of the error that an entry of the timeline tells of.
function M.error_code(task, m)
  local err, text = task.error, (m.reason or ""):lower()
  if err and err.message == m.reason and err.code then
    return err.code
  elseif m.signal ~= "refused" then
    return ERROR_CODES[m.signal] or m.signal
  end
  for _, known in ipairs(REFUSALS) do
    if text:find(known[1], 1, true) then
      return known[2]
    end
  end
  return "refused"
end

-- The timeline, and what its signals held besides: each conflict told of one task id more.
local function signals(task)
  local list, conflicts = {}, {}
  for i, m in ipairs(task.timeline) do
    local sent, s, n = (task.attempts or {})[m.attempt] or {}, copy(m), 1
    if m.note == "conflict" then
      n = (conflicts[m.attempt] or 1) + 1
      conflicts[m.attempt] = n
    end
    if m.signal ~= "create" or m.to == "pending" then
      s.task_id = (sent.task_ids or {})[n]
    end
    s.account = sent.account or task.account
    s.error_code = M.error_code(task, m)
    s.wait_ms = m.signal == "refused" and RESTS[s.error_code] and 0 or nil
    list[i] = s
  end
  return list
end

-- The task has the sums since its last resubmission. Where the timeline gives others, entries that told of the rest
-- were dropped: it was counted before those that are left.
local function correct(task, tasks, first)
  for name, none in pairs { polls = 0, tries = false } do
    local missing = (task[name] or 0) - (tasks[#tasks][name] or 0)
    for i = first, #tasks do
      local n = math.max((tasks[i][name] or 0) + missing, 0)
      tasks[i][name] = n > 0 and n or none or nil
    end
  end
end

local Record = {}
Record.__index = Record

--- Goes along a task's timeline.
-- @tparam table task as mj:get() gives it
-- @tparam[opt=300000] number grace_ms the configuration's ambiguous_grace, in milliseconds
function M.new(task, grace_ms)
  local self = setmetatable({ task = task, settled = 0, kept = 0 }, Record)
  local counted = task.timeline_dropped and FIRST_KEPT or 0
  for i, m in ipairs(task.timeline) do
    self.settled = (m.from ~= m.to or m.signal == "resubmit") and i or self.settled
    self.kept = m.signal == "kept" and i or self.kept
    counted = m.signal == "resubmit" and m.to == "queued" and math.max(i, counted) or counted
  end
  self.tasks = core.replay(task, signals(task), grace_ms or 300000)
  correct(task, self.tasks, counted + 1)
  return self
end

-- Fields that stay as they were when the task was made.
local CONSTANT = {
  "ref", "mode", "timeout", "priority", "prompt", "user_id", "context", "key", "created_at", "expires_at",
}

--- The task as it was before an entry.
-- @tparam number i its place in the timeline, or one more than there are
-- @tparam[opt=1] number k of equal entries kept as one, the k-th
-- @tparam[opt] number before when the one before that was (ms)
function Record:snapshot(i, k, before)
  k = k or 1
  local task, m = self.task, self.task.timeline[i]
  local first, out = self.tasks[i], copy(self.tasks[k > 1 and i + 1 or i]) -- the first of equal entries changes it
  for _, name in ipairs(CONSTANT) do
    out[name] = copy(task[name])
  end
  if m then
    out.state = m.signal == "create" and m.to or m.from
  end
  if k > 1 then
    out.polls = first.polls + (out.polls > first.polls and k - 1 or 0)
  end
  out.updated_at = before or first.updated_at
  if task.called_at and task.timeline_dropped and i > FIRST_KEPT and task.called_at <= out.updated_at then
    out.called_at = task.called_at -- the first callback may be among what was lost
  end
  out.owner = out.state == "submitting" and "alive" or nil
  out.due_at, out.image, out.mj_prompt, out.meta, out.images, out.files = nil, nil, nil, nil, {}, nil
  if i > self.settled then -- nothing but this was ever in this state
    out.image, out.mj_prompt, out.meta = task.image, task.mj_prompt, copy(task.meta)
    out.images = copy(task.images or {})
    out.files = i > self.kept and copy(task.files) or nil
  end
  out.timeline = {}
  for n = 1, i - 1 do
    out.timeline[n] = copy(task.timeline[n])
  end
  if k > 1 then
    out.timeline[i] = copy(m)
    out.timeline[i].count, out.timeline[i]["until"] = k > 2 and k - 1 or nil, k > 2 and before or nil
  end
  out.timeline_dropped = i > FIRST_KEPT and task.timeline_dropped or nil
  return out
end

return M
