--- What a policy was asked about a task, or would have been, read from the task's record. Pure: no disk, no network,
-- no clock.
--
-- A record does not tell everything (see also mjhook.policy_test.replay). Where it does not, this is assumed:
--
-- - What a callback said besides its status was kept only if it was believed. So a word's image, images, mj_prompt and
--   meta are the task's. Of a callback that was verified not even the status was kept: it is taken to have said what
--   the provider said next of that attempt; where it said nothing, nothing is asked. Of those that were not signed the
--   policy was not asked at all, and the record can't tell them from others. Ignored ones left no trace, nor did those
--   that told of progress alone; and of those that came again within a second one was written.
-- - Equal entries in a row are kept as one, with their number, the first time and the last: those in between are spread
--   evenly. Of more than MOST some are left out. Entries that a full timeline has dropped ask for nothing.
-- - Why a job was refused was kept, its code only if it is still the task's error: otherwise the text tells the code.
--   A policy that was at work then has sorted the refusal, and the code tells better how it would have been.
local core = require "mjhook.core"
local replay = require "mjhook.policy_test.replay"
local json = require "mjhook.json"

local copy = replay.copy

local M = {}

--- Of equal entries at most so many are asked about.
M.MOST = 100

local WORD = { running = true, succeeded = true, hint = true, failed = true }
local RESOLVED = { give_up = "given up", resubmit = "submitted again", wait = "waited for longer" }

-- What a callback said that was to be verified: what the provider said next of that attempt.
local function said_next(task, i)
  local attempt = task.timeline[i].attempt
  for n = i + 1, #task.timeline do
    local m = task.timeline[n]
    if m.attempt == attempt and WORD[m.signal] then
      return m
    end
  end
end

local function word_of(task, i)
  local m = task.timeline[i]
  local told = m.signal == "look" and said_next(task, i) or m
  if not WORD[told.signal] then
    return nil
  end
  local ids = (task.attempts and task.attempts[m.attempt] or {}).task_ids or {}
  local word = { kind = told.signal, task_id = ids[m.note == "conflict" and #ids or 1], images = {},
                 mj_prompt = task.mj_prompt or task.prompt }
  if told.signal == "failed" then
    word.error_code, word.error = "provider", told.reason or ""
  elseif told.signal == "succeeded" then
    word.image, word.images = task.image, copy(task.images or {})
    word.meta = task.meta ~= nil and json.encode(task.meta) or nil -- as text: so it is on its way to the store
  end
  return word
end

local function on_callback(record, i, options)
  local m = record.task.timeline[i]
  local word = m.source == "callback" and (m.signal == "look" or WORD[m.signal]) and word_of(record.task, i)
  if word then
    return { decision = "on_callback", about = ("callback: %s%s"):format(word.kind, m.signal == "look"
      and " (was verified)" or m.note == "taken" and "" or (" (%s)"):format(m.note)),
      default = options.trust == "verify" and "verify" or "accept", second = word }
  end
end

local function next_poll(record, i)
  local m = record.task.timeline[i]
  if m.source == "poll" and (m.signal == "running" or m.signal == "absent") then
    return { decision = "next_poll", about = "poll: " .. m.signal, default = "default", timed = true }
  end
end

local function on_refused(record, i)
  local m = record.task.timeline[i]
  if m.source == "submit" and (m.signal == "refused" or m.signal == "rejected") then
    local code = replay.error_code(record.task, m)
    local final = code == "rejected"
    return { decision = "on_refused", about = ("refused: %s"):format(m.reason or code),
             default = final and "fail" or "retry", second = core.error(code, m.reason or code, not final),
             as_claimed = true }
  end
end

local function resolve_ambiguous(record, i)
  local m = record.task.timeline[i]
  if RESOLVED[m.signal] and m.from == "ambiguous" and m.source ~= "user" then
    return { decision = "resolve_ambiguous", about = ("ambiguous: was %s"):format(RESOLVED[m.signal]),
             default = "lost", timed = true }
  end
end

local KINDS = { on_callback, next_poll, on_refused, resolve_ambiguous }

local function question_about(record, i, options)
  for _, kind in ipairs(KINDS) do
    local q = kind(record, i, options)
    if q then
      return q
    end
  end
end

-- A decision point, which gives a fresh copy of the decision's arguments each time.
local function put(kind, at, i, task)
  if kind.timed then
    task.due_at = at -- it was asked because its time had come
  end
  local second = kind.timed and at or kind.second
  return {
    at = at, ref = task.ref, attempt = task.attempt, decision = kind.decision, about = kind.about,
    default = kind.default, entry = i,
    arguments = function()
      return copy(task), copy(second)
    end,
  }
end

-- The times of equal entries, at most MOST of them: each one's number and time.
local function occasions(m)
  local count = m.count or 1
  local last = math.max(m["until"] or m.at, m.at)
  local asked = math.min(count, M.MOST)
  local n = 0
  return function()
    n = n + 1
    if n <= asked then
      local k = asked == 1 and 1 or 1 + math.floor((n - 1) * (count - 1) / (asked - 1))
      return k, count == 1 and m.at or m.at + math.floor((last - m.at) * (k - 1) / (count - 1))
    end
  end
end

local function last_refused(task)
  for i = #task.timeline, 1, -1 do
    if task.timeline[i].signal == "refused" or task.timeline[i].signal == "rejected" then
      return i
    end
  end
  return 0
end

--- The decision points of a task, in the order of time.
-- @tparam table task as mj:get() gives it
-- @tparam[opt] table options trust ("payload" or "verify": what is done with a callback without a policy), grace_ms
-- @treturn table list of {at= (ms), ref=, attempt=, decision=, about= (a few words), default= (what is done without a
-- policy), entry= (which entry of the timeline it is about), arguments= (function that gives a fresh copy of what the
-- decision is called with)}
function M.about(task, options)
  options = options or {}
  local record, list, claimed = replay.new(task, options.grace_ms), {}, {}
  local refused = last_refused(task)
  for i, m in ipairs(task.timeline) do
    local kind = question_about(record, i, options)
    local before
    for k, at in occasions(m) do
      if not kind then
        break
      end
      local seen = kind.as_claimed and claimed[m.attempt] or record:snapshot(i, k, k > 1 and before or nil)
      list[#list + 1] = put(kind, at, i, copy(seen))
      before = at
    end
    if m.signal == "claim" and i < refused then
      claimed[m.attempt] = record:snapshot(i + 1)
      claimed[m.attempt].state, claimed[m.attempt].owner = "submitting", "alive"
    end
  end
  if task.state == "ambiguous" then
    local n = #task.timeline + 1
    list[#list + 1] = put({ decision = "resolve_ambiguous", about = "ambiguous: is so now", default = "lost",
                            timed = true }, task.due_at or task.updated_at or task.created_at, n, record:snapshot(n, 1))
  end
  return list
end

-- A task as a decision would meet it: unfinished, and its time has come.
local function as_met(task, state, at)
  local met = copy(task)
  met.state, met.due_at, met.updated_at = state, at, at
  met.finished_at, met.error, met.late, met.image, met.meta = nil, nil, nil, nil, nil
  met.images = {}
  met.submitted_at = met.submitted_at or met.created_at
  met.attempt = math.max(met.attempt or 1, 1)
  return met
end

local function a_word(task)
  local url = "https://img.example/0.png"
  return { kind = "succeeded", task_id = task.task_id or "none", image = url, images = { url },
           mj_prompt = task.mj_prompt or task.prompt }
end

-- For each decision: the state in which it is asked, its second argument, and what is done without a policy.
local TRIED = {
  on_callback = { "pending", a_word, "accept" },
  next_poll = { "pending", function(_, at) return at end, "default" },
  on_refused = { "submitting", function() return core.error("rejected", "refused", false) end, "fail" },
  resolve_ambiguous = { "ambiguous", function(_, at) return at end, "lost" },
}

--- A decision point that the record of a task does not have: so a decision is tried on every task, and a fault in it is
-- found before the day on which it is needed.
-- @tparam string decision
-- @tparam table task as mj:get() gives it
-- @treturn table a decision point, as about() gives them
function M.tried(decision, task)
  local state, second, default = TRIED[decision][1], TRIED[decision][2], TRIED[decision][3]
  local at = task.finished_at or task.updated_at or task.created_at
  return {
    at = at, ref = task.ref, attempt = task.attempt, decision = decision, about = "not asked so far: tried",
    default = default, entry = 0, tried = true,
    arguments = function()
      return as_met(task, state, at), second(task, at)
    end,
  }
end

return M
