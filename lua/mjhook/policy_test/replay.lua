--- A task as it was at each moment of its timeline, as far as its record tells. Pure: no disk, no network, no clock.
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

local FIRST_KEPT = 4 -- of a full timeline the core keeps so many from the beginning (src/domain/state.c)

local FINAL = { succeeded = true, failed = true, lost = true, cancelled = true }
local WORD = { running = true, succeeded = true, hint = true, failed = true }
local BEARS_ERROR = { queued = true, ambiguous = true, failed = true, lost = true }

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

local function is_poll(m)
  return m.source == "poll" and (WORD[m.signal] or m.signal == "absent") and 1 or 0
end

local function is_call(m)
  return m.source == "callback" and (m.signal == "look" or WORD[m.signal] ~= nil)
end

-- Refusals that are about the account: its rest is the wait, and they cost the job no try.
local RESTS = { quota = true, concurrency = true, rate_limit = true, auth = true, redirect = true, endpoint = true,
                blocked = true }

local function is_try(m, task)
  local back = m.to == "queued" and m.from ~= "queued" and m.signal ~= "resubmit"
  return back and not (m.signal == "refused" and RESTS[M.refusal_code(task, m)]) and 1 or 0
end

-- How much was counted before each moment. The task has the sum since its last resubmission, so what comes after that
-- is counted from the end; what comes before, from the beginning.
local function counted(task, total, weight)
  local before, n = {}, 0
  for i, m in ipairs(task.timeline) do
    before[i] = n
    n = m.signal == "resubmit" and m.to == "queued" and 0 or n + weight(m, task) * (m.count or 1)
  end
  n = total
  for i = #task.timeline, 1, -1 do
    local m = task.timeline[i]
    if (m.signal == "resubmit" and m.to == "queued") or (task.timeline_dropped and i <= FIRST_KEPT) then
      break
    end
    n = math.max(n - weight(m, task) * (m.count or 1), 0)
    before[i] = n
  end
  before[#task.timeline + 1] = total
  return before
end

local function last_index(task, is)
  for i = #task.timeline, 1, -1 do
    if is(task.timeline[i]) then
      return i
    end
  end
  return 0
end

local Record = {}
Record.__index = Record

--- Begins at a task's creation.
-- @tparam table task as mj:get() gives it
-- @tparam[opt=300000] number grace_ms the configuration's ambiguous_grace, in milliseconds
function M.new(task, grace_ms)
  return setmetatable({
    task = task,
    grace_ms = grace_ms or 300000,
    state = "queued",
    attempts = { { attempt = 1, word = "unsent" } },
    polls = counted(task, task.polls or 0, is_poll),
    tries = counted(task, task.tries or 0, is_try),
    settled = last_index(task, function(m) return m.from ~= m.to or m.signal == "resubmit" end),
    kept = last_index(task, function(m) return m.signal == "kept" end),
    updated_at = task.created_at,
  }, Record)
end

-- The attempt of that number; those that entries now lost told of are made up.
function Record:attempt(n)
  for i = #self.attempts + 1, n do
    self.attempts[i] = { attempt = i, word = "unsent" }
  end
  return self.attempts[n]
end

local function recorded_attempt(task, n)
  return task.attempts and task.attempts[n] or {}
end

-- What a moment tied to its attempt: the first id, and one more with each conflict.
function Record:bind(a, m)
  local known = recorded_attempt(self.task, a.attempt).task_ids or {}
  local n = a.task_ids and #a.task_ids or 0
  if (n == 0 or m.note == "conflict") and known[n + 1] then
    a.task_ids = a.task_ids or {}
    a.task_ids[n + 1] = known[n + 1]
    a.task_id = a.task_ids[1]
  end
end

function Record:hold(a, at)
  a.account = recorded_attempt(self.task, a.attempt).account or self.task.account
  a.submitted_at = a.submitted_at or at
  a.slot_until = a.submitted_at + (self.task.timeout or 600) * 1000 + self.grace_ms
end

-- What a moment says of its attempt, as src/domain/state.c's hear().
function Record:hear(m)
  local a = self:attempt(m.attempt)
  local open = a.word == "submitting" or a.word == "ambiguous"
  local final = a.word == "succeeded" or a.word == "failed"
  local kind = m.signal
  if kind == "claim" then
    a.word, a.submitted_at = "submitting", nil
    self:hold(a, m.at)
  elseif kind == "accepted" or kind == "running" or kind == "hint" or (kind == "create" and m.to == "pending") then
    self:bind(a, m)
    if not final and a.word ~= "accepted" then
      a.word = "accepted"
      if not open then
        self:hold(a, m.at)
      end
    end
  elseif kind == "look" then
    self:bind(a, m)
  elseif (kind == "not_sent" or kind == "refused" or kind == "rejected") and open then
    a.word, a.slot_until = "refused", nil
  elseif (kind == "maybe_sent" or kind == "owner_dead") and open then
    a.word = "ambiguous"
  elseif kind == "succeeded" or kind == "failed" then
    self:bind(a, m)
    if not final then
      a.word, a.slot_until = kind, nil
    end
  elseif kind == "slot_end" then
    a.slot_until = nil
  end
end

local ERROR_CODES = {
  maybe_sent = "maybe_sent", not_sent = "not_sent", owner_dead = "owner_dead", give_up = "lost", absent = "lost",
  ready = "expired", failed = "provider", rejected = "rejected", running = "lost",
}

-- What the texts of refusals tell of their codes: src/provider/answer.h's, and PROVIDER.md's.
local REFUSALS = {
  { "is base_url right", "endpoint" }, { "in front of the provider", "blocked" },
  { "quota", "quota" }, { "concurren", "concurrency" }, { "rate", "rate_limit" }, { "too many", "rate_limit" },
  { "redirect", "redirect" }, { "key", "auth" }, { "auth", "auth" },
}

--- The code of a refusal that a moment of the task tells of.
function M.refusal_code(task, m)
  local err, text = task.error, (m.reason or ""):lower()
  if err and err.message == m.reason and err.code then
    return err.code
  elseif m.signal == "rejected" then
    return "rejected"
  end
  for _, known in ipairs(REFUSALS) do
    if text:find(known[1], 1, true) then
      return known[2]
    end
  end
  return "refused"
end

local UNKNOWN = "the provider does not know this task" -- src/domain/state.c's, of a lost task without a reason

function Record:error_of(m)
  local err, reason = self.task.error, m.reason or (m.to == "lost" and UNKNOWN) or ""
  local code = err and err.message == reason and err.code or ERROR_CODES[m.signal] or M.refusal_code(self.task, m)
  local made = core.error(code, reason, m.to == "queued")
  made.message = reason -- also an empty one
  return made
end

-- What entering a state makes of the task, as src/domain/state.c's enter().
function Record:enter(m)
  local to = m.to
  self.late = (to == "pending" and (m.from == "lost" or m.from == "failed"))
    or ((to == "succeeded" or to == "failed") and (self.late or m.from == "lost" or m.from == "failed")) or nil
  self.error = nil
  if m.signal ~= "resubmit" and m.signal ~= "create" and BEARS_ERROR[to] then
    self.error = self:error_of(m)
  end
  self.finished_at, self.source = nil, nil
  if FINAL[to] then
    self.finished_at, self.source = m.at, m.source
  end
end

--- Goes on past a moment.
-- @tparam number i its place in the timeline; they are passed in order
-- @tparam number till when it was said last (ms)
function Record:pass(i, till)
  local m = self.task.timeline[i]
  if m.signal == "create" or m.from ~= m.to then
    self:enter(m)
  end
  self:hear(m)
  if m.signal == "resubmit" and m.to == "queued" then
    self:attempt(m.attempt + 1)
    self.error, self.late, self.finished_at, self.source = nil, nil, nil, nil
  end
  self.called_at = self.called_at or (is_call(m) and m.at or nil)
  self.state = m.to
  self.updated_at = till
end

-- Fields that stay as they were when the task was made.
local CONSTANT = {
  "ref", "mode", "timeout", "priority", "prompt", "user_id", "context", "key", "created_at", "expires_at",
}

--- The task as it was before a moment; all before it have been passed.
-- @tparam number i its place in the timeline, or one more than there are
-- @tparam[opt=1] number k of equal moments kept as one, the k-th
-- @tparam[opt] number before when the one before that was (ms)
function Record:snapshot(i, k, before)
  k = k or 1
  local task, out = self.task, {}
  for _, name in ipairs(CONSTANT) do
    out[name] = copy(task[name])
  end
  local m = task.timeline[i]
  local current = self.attempts[#self.attempts]
  out.state = m and m.from or self.state
  if m and m.signal == "create" then
    out.state = m.to
  end
  out.attempts = copy(self.attempts)
  out.attempt = #self.attempts
  out.task_id, out.submitted_at = current.task_id, current.submitted_at
  out.account = current.account or task.account
  out.polls = self.polls[i] + (m and is_poll(m) or 0) * (k - 1)
  out.tries = self.tries[i] > 0 and self.tries[i] or nil
  out.updated_at = before or self.updated_at
  out.called_at = self.called_at or (k > 1 and is_call(m) and m.at or nil)
  if task.called_at and task.timeline_dropped and i > FIRST_KEPT and task.called_at <= out.updated_at then
    out.called_at = task.called_at -- the first callback may be among what was lost
  end
  out.images = {}
  if out.state == "submitting" then
    out.owner = "alive"
  end
  out.error, out.late, out.finished_at, out.source = self.error, self.late, self.finished_at, self.source
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
