-- A plain model of the store: what PRODUCT says of tasks, attempts, slots, events and pruning, as lists that are
-- searched from one end to the other.  It shares no code with the state machine or the store; model_spec.lua gives
-- both the same operations and compares.  Time is passed in, nothing is stored, nothing is fast.
--
-- Where the store may choose (the spread of a wait), the model says between which two times, and is told what the
-- store chose: see Model.learn.
local Model = {}
Model.__index = Model

-- Numbers that PRODUCT.md gives, or src/domain/task.h and src/domain/state.h where it gives none.
local BELIEVED_HINTS = 3              -- status 1 without an image, polled so often, is believed
local BELIEVED_ABSENCES = 3           -- answers without the task ...
local ABSENCE_SPAN = 10 * 60 * 1000   -- ... over at least this long make it lost
local LOOK_GAP = 10 * 1000            -- hints make at most one poll per task in this time
local TIMELINE = 32                   -- entries of a timeline that are kept
local RETRY_CAP = 15 * 60 * 1000      -- n^4 seconds between sendings, at most this
local WAIT_CAP = 31 * 24 * 3600 * 1000 -- no provider's Retry-After is worth more
local TICKED_BY_CLAIM = 64            -- what a claim clears away of each kind before it looks at the queue
local MAX_ATTEMPTS, MAX_IDS, MAX_ERRORS = 8, 4, 5
local MAX_REFUSED, MAX_REFUSED_OF_ONE, MAX_BODY = 256, 16, 65536
local CLOCK_STEP = 60 * 1000           -- a clock that is off by no more was not stepped
local TIMELINE_GAP = 1000             -- what changes the timeline alone, or is refused too often, is written so often
local RECOVERY = 60 * 1000            -- a cap that was learned rises by one slot in this time

Model.ANY = "(any text)" -- what the store says when nobody gave a reason

local function set(words)
  local members = {}
  for word in words:gmatch "%S+" do
    members[word] = true
  end
  return members
end

local FINAL = set "succeeded failed lost cancelled"
local WORD = set "running succeeded hint failed"              -- the provider speaks of the job
local ANSWER = set "running succeeded hint failed absent"     -- what a job-status answer can mean
local COMMAND = set "give_up resubmit wait cancel"
local TELLS = { ambiguous = "ambiguous", succeeded = "succeeded", failed = "failed", lost = "lost" }
local JOB = { queued = "queue", submitting = "owner", ambiguous = "resolve" } -- of a sweep, with a task that is due
Model.STATES = { "queued", "submitting", "ambiguous", "pending", "succeeded", "failed", "lost", "cancelled" }

--- rules: poll_first, poll_max, lost_after, grace (ms); caps: a list of {name=, max_in_flight=}, the preferred first.
function Model.new(rules, caps)
  return setmetatable({
    rules = rules, caps = caps,
    tasks = {},               -- in the order they were made
    tombs = {},               -- of pruned tasks, in the order they were pruned
    events = {},              -- undelivered and buried ones, in the order they were made
    ids = {}, keys = {},      -- whose a task id or a key is, also a tombstone's
    paused = {}, why = {}, learned = {}, made = 0, stamp = 0,
    paused_at = {},           -- when an account was told to rest
    refused = {},             -- callbacks that were refused, the oldest first
  }, Model)
end

local function current(t)
  return t.attempts[#t.attempts]
end

-- ---- when to look again ----

local function due_at(t, at)
  t.due, t.spread, t.chosen, t.drawn = at, nil, nil, nil
end

-- Somewhere within `percent` of `wait` from now; the store says where, and says the same when it is asked the same.
local function due_about(t, now, wait, percent, last)
  local drawn = table.concat({ now, wait, percent, tostring(last), t.polls, t.tries }, " ")
  if t.drawn == drawn then
    return
  end
  t.drawn = drawn
  local low, high = now + wait - wait * percent / 100, now + wait + wait * percent / 100
  low, high = math.min(low, last or low), math.min(high, last or high)
  t.due, t.spread, t.chosen = high, { math.floor(low), math.ceil(high) }, nil
end

--- Takes over the store's choice of a time.  False when it could not choose that.
function Model.learn(t, at)
  if t.spread and at and at >= t.spread[1] and at <= t.spread[2] then
    t.due, t.spread, t.chosen = at, nil, t.spread
  end
  return t.due == at
end

-- When a callback last gave a reason to ask about the newest attempt, as far as the timeline remembers: that keeps the
-- first four entries and the newest ones.
local function hinted_at(t)
  for i = #t.reasons, 1, -1 do
    local r = t.reasons[i]
    if r.attempt == #t.attempts and (r.entry <= 4 or t.entries - r.entry < TIMELINE - 4) then
      return r.at
    end
  end
end

-- After a reason to ask, a poll comes after as long again as has passed since, ten seconds at least.
local function soon_after_hint(t, wait, now)
  local at = hinted_at(t)
  return at and math.min(math.max(now - at, LOOK_GAP), wait) or wait
end

-- The first poll is exactly on time, later ones wait twice as long each, give or take a fifth; and give or take half
-- while the provider does not answer.
local function poll_later(m, t, s, now)
  local outage = s.kind == "unanswered"
  if s.wait then
    due_at(t, now + s.wait)
  elseif t.polls == 0 and not outage then
    due_at(t, now + soon_after_hint(t, m.rules.poll_first, now))
  else
    local wait = math.min(m.rules.poll_first * 2 ^ math.min(t.polls, 30), m.rules.poll_max)
    wait = soon_after_hint(t, wait, now)
    due_about(t, now, wait, outage and 50 or 20)
  end
end

-- At once, but ten seconds after the last question, and never later than it would have been.
local function poll_soon(t, now)
  local at = now
  if t.asked and t.asked <= now and t.asked + LOOK_GAP > now then
    at = t.asked + LOOK_GAP
  end
  if not t.due or at < t.due then
    due_at(t, at)
  end
end

local function has_slot_and_id(t)
  for _, a in ipairs(t.attempts) do
    if a.slot and a.ids[1] then
      return true
    end
  end
  return false
end

-- Is the task polled regularly: while it is pending, and cancelled as long as it holds a slot.
local function is_polled(t)
  return t.state == "pending" or t.state == "cancelled"
end

-- No poll leaves its task due at once, and what need not be asked about any more is not due.
local function plan(m, t, s, now)
  local polled = s.source == "poll" and (ANSWER[s.kind] or s.kind == "unanswered")
  if not t.due or JOB[t.state] then
    return
  elseif t.state == "pending" or (t.state == "cancelled" and has_slot_and_id(t)) then
    if polled and t.due <= now then
      poll_later(m, t, s, now)
    end
  elseif t.state == "cancelled" or (polled and s.kind ~= "unanswered" and t.due <= now) then
    due_at(t, nil)
  end
end

-- ---- what is known of an attempt ----

-- Ties a task id to the attempt.  "conflict": it had another one before.
local function bind(m, t, a, id)
  if not id then
    return "taken"
  end
  for _, known in ipairs(a.ids) do
    if known == id then
      return "taken"
    end
  end
  local first = #a.ids == 0
  if #a.ids < MAX_IDS then
    a.ids[#a.ids + 1] = id
    m.ids[id] = { task = t, attempt = a.number }
  end
  return first and "taken" or "conflict"
end

-- The provider has the job, so it takes a slot, unless its time is over.
local function hold(m, t, a, now)
  a.sent = a.sent or now
  a.slot_until = a.sent + t.timeout * 1000 + m.rules.grace
  a.slot = a.account ~= nil and a.slot_until > now
end

local function is_open(a) -- sent, perhaps, and no answer that says what became of it
  return a.word == "submitting" or a.word == "ambiguous"
end

local function has_ended(a)
  return a.word == "succeeded" or a.word == "failed"
end

local note = {} -- what each signal says of its attempt, the current one or an older one; how it was taken

function note.accepted(m, t, a, s, now)
  local how = bind(m, t, a, s.task_id)
  if has_ended(a) or a.word == "accepted" then
    return s.kind == "accepted" and how == "taken" and "duplicate" or how
  end
  if not is_open(a) then -- we had not sent it, or thought that it was refused
    hold(m, t, a, now)
  end
  a.word = "accepted"
  return how
end
note.running, note.hint = note.accepted, note.accepted

function note.look(m, t, a, s)
  return bind(m, t, a, s.task_id)
end

function note.refused(_, _, a)
  if not is_open(a) then
    return "stale"
  end
  a.word, a.slot = "refused", false
  return "taken"
end
note.not_sent, note.rejected = note.refused, note.refused

function note.maybe_sent(_, _, a)
  if not is_open(a) then
    return "stale"
  end
  a.word = "ambiguous"
  return "taken"
end
note.owner_dead = note.maybe_sent

function note.succeeded(m, t, a, s)
  local how = bind(m, t, a, s.task_id)
  if has_ended(a) then
    return a.word == s.kind and "duplicate" or "contradiction"
  end
  a.word, a.slot = s.kind, false
  return how
end
note.failed = note.succeeded

function note.claim(m, t, a, s, now)
  a.word, a.account, a.sent = "submitting", s.under, now
  hold(m, t, a, now)
  return "taken"
end

function note.slot_end(_, _, a)
  a.slot = false
  return "taken"
end

-- ---- the result and the error ----

local function fill(t, s)
  t.image, t.mj_prompt, t.meta = t.image or s.image, t.mj_prompt or s.mj_prompt, t.meta or s.meta
  t.images = t.images or s.images
  t.prompt = t.prompt or s.mj_prompt -- an adopted task learns its prompt from the provider
end

local function forget_result(t)
  t.image, t.mj_prompt, t.meta, t.images = nil, nil, nil, nil
end

local function set_error(t, code, text)
  t.error = (code or text) and { code = code or "provider", message = text or "" } or nil
end

local function provider_error(t, s)
  set_error(t, s.error_code or "provider", s.error or Model.ANY)
end

-- ---- entering a state ----

local enter = {}

local function enter_final(t, s, now)
  t.ready = false
  due_at(t, nil)
  t.finished, t.source = now, s.source
end

local function new_attempt(t)
  t.attempts[#t.attempts + 1] = { number = #t.attempts + 1, word = "unsent", ids = {} }
end

function enter.queued(_, t, s, now)
  if s.kind == "resubmit" then
    new_attempt(t)
    t.polls, t.hints, t.absences, t.tries, t.silence = 0, 0, 0, 0, 0
    t.finished, t.expires, t.asked, t.late, t.ours = nil, nil, nil, false, false
    forget_result(t)
    set_error(t)
    t.ready = true
    due_at(t, nil)
    return
  end
  t.ready = false
  if s.wait then -- its own wait, and not the backoff's: it costs no try
    due_at(t, math.min(now + s.wait, t.expires or math.huge))
  else
    t.tries = t.tries + 1
    due_about(t, now, math.min(t.tries ^ 4 * 1000, RETRY_CAP), 10, t.expires)
  end
  set_error(t, s.error_code, s.error)
end

function enter.submitting(_, t, _, now)
  t.ready = false
  due_at(t, now)
  set_error(t)
end

function enter.ambiguous(_, t, s)
  due_at(t, current(t).slot_until)
  set_error(t, s.error_code, s.error)
end

function enter.pending(m, t, s, now, from)
  t.late = from == "lost"
  t.ready, t.ours, t.finished, t.absences, t.silence, t.asked = false, false, nil, 0, 0, nil
  set_error(t)
  if s.kind == "look" or s.kind == "hint" then
    due_at(t, now)
  else
    poll_later(m, t, s, now)
  end
end

-- `late`: the provider's word came after we had said otherwise.
local function yields(t, from)
  t.late = t.late or from == "lost" or from == "failed"
end

function enter.succeeded(_, t, s, now, from)
  enter_final(t, s, now)
  yields(t, from)
  t.ours = false
  forget_result(t)
  fill(t, s)
  set_error(t)
end

function enter.failed(_, t, s, now, from)
  enter_final(t, s, now)
  yields(t, from)
  t.ours = not WORD[s.kind]
  fill(t, s)
  if s.kind == "failed" then
    provider_error(t, s)
  elseif s.kind == "ready" then
    set_error(t, "expired", Model.ANY)
  else
    set_error(t, s.error_code, s.error)
  end
end

function enter.lost(_, t, s, now)
  enter_final(t, s, now)
  t.late = false
  set_error(t, "lost", s.error or Model.ANY)
end

-- What was sent is asked about while it holds a slot, so that the slot is freed early.
function enter.cancelled(m, t, s, now)
  enter_final(t, s, now)
  t.late = false
  if has_slot_and_id(t) then
    due_at(t, now + m.rules.poll_first)
  end
end

-- ---- what a signal about the current attempt means for its task ----

-- A state: it goes there.  "keep": taken, and it stays where it is.  "again": said before.  "late": too late to matter.
local on = {}

local UNANSWERED = set "queued submitting ambiguous"  -- nobody has told us a task id yet
local IN_DOUBT = set "submitting ambiguous"           -- the request may have left

-- A failure that we decided on yields; one that the provider told of is the last word.
local function kept_if_ours(t)
  return t.state == "failed" and t.ours and "keep" or "late"
end

function on.accepted(t)
  if UNANSWERED[t.state] or t.state == "lost" then
    return "pending"
  end
  return t.state == "cancelled" and "keep" or "again"
end

function on.refused(t)
  return IN_DOUBT[t.state] and "queued" or t.state == "cancelled" and "keep" or "late"
end
on.not_sent = on.refused

function on.rejected(t)
  return IN_DOUBT[t.state] and "failed" or t.state == "cancelled" and "keep" or "late"
end

function on.maybe_sent(t)
  if t.state == "ambiguous" then
    return "again"
  end
  return t.state == "submitting" and "ambiguous" or t.state == "cancelled" and "keep" or "late"
end
on.owner_dead = on.maybe_sent

function on.running(t, _, lost)
  if t.state == "pending" then
    return lost and "lost" or "keep"
  elseif UNANSWERED[t.state] or t.state == "lost" then
    return "pending"
  end
  return t.state == "cancelled" and "keep" or "late"
end

function on.hint(t)
  if UNANSWERED[t.state] or t.state == "lost" then
    return "pending"
  elseif t.state == "failed" then
    return kept_if_ours(t)
  end
  return t.state == "succeeded" and "again" or "keep"
end

function on.succeeded(t)
  return t.state == "succeeded" and "again" or t.state == "cancelled" and "keep" or "succeeded"
end

function on.failed(t)
  if t.state == "succeeded" then
    return "late"
  elseif t.state == "failed" then
    return t.ours and "keep" or "again"
  end
  return t.state == "cancelled" and "keep" or "failed"
end

function on.absent(t, _, lost)
  if t.state == "pending" then
    return lost and "lost" or "keep"
  elseif t.state == "lost" or t.state == "cancelled" then
    return "keep"
  end
  return kept_if_ours(t)
end

function on.unanswered(t)
  return on.absent(t)
end

function on.look(t)
  if UNANSWERED[t.state] then
    return "pending"
  elseif t.state == "failed" then
    return kept_if_ours(t)
  end
  return t.state == "succeeded" and "late" or "keep"
end

function on.give_up()
  return "lost"
end

function on.resubmit()
  return "queued"
end

function on.wait()
  return "keep"
end

function on.cancel()
  return "cancelled"
end

function on.claim()
  return "submitting"
end

function on.slot_end()
  return "keep"
end

function on.ready(t, now)
  if t.state ~= "queued" or (t.ready and not t.due) or (t.due and now < t.due) then
    return "late"
  end
  return t.expires and now >= t.expires and "failed" or "keep"
end

-- ---- staying in a state, and yet something happened ----

local keep = {}

function keep.ready(_, t)
  t.ready = true
  due_at(t, t.expires)
end

function keep.wait(m, t, s, now)
  due_at(t, now + (s.wait or m.rules.grace))
end

function keep.look(_, t, _, now)
  local before = t.due
  poll_soon(t, now)
  return t.due == before and "duplicate" or "ok"
end

function keep.hint(_, t, s, now)
  if s.source == "poll" then
    due_at(t, now + LOOK_GAP)
  else
    poll_soon(t, now)
  end
end

function keep.absent(m, t, s, now)
  if is_polled(t) then
    poll_later(m, t, s, now)
  else
    due_at(t, nil)
  end
end
keep.accepted = keep.absent

function keep.running(m, t, s, now)
  if s.source ~= "callback" or not t.due then
    keep.absent(m, t, s, now)
  end
end

function keep.unanswered(m, t, s, now)
  if is_polled(t) or t.due then
    poll_later(m, t, s, now)
  end
end

function keep.succeeded(m, t, s, now)
  fill(t, s)
  t.ours = false
  keep.absent(m, t, s, now)
end

function keep.failed(m, t, s, now)
  provider_error(t, s)
  keep.succeeded(m, t, s, now)
end

-- ---- one signal ----

-- Is there an id to ask about, and anything left to learn?
local function can_look(t, a)
  return #a.ids > 0 and not has_ended(a) and (t.state ~= "cancelled" or a.slot)
end

-- Of an older attempt only a success is the task's, and a hint that may lead to one.
local function on_older(t, s)
  if s.kind == "succeeded" then
    return on.succeeded(t)
  elseif s.kind == "look" and not UNANSWERED[t.state] and t.state ~= "succeeded" then
    return "keep"
  end
  return "late"
end

-- Silence: time between answered polls.  What is longer than two waits was an outage, ours or theirs.
local function seems_lost(m, t, s, gap, now)
  t.silence = t.silence + math.max(0, math.min(gap, 2 * m.rules.poll_max))
  if s.kind ~= "absent" then
    t.absences = 0
  elseif s.counts and now >= (current(t).slot_until or 0) then
    t.absences = t.absences + 1
    t.absent_since = (t.absences == 1 or t.absent_since > now) and now or t.absent_since
    if t.absences >= BELIEVED_ABSENCES and now - t.absent_since >= ABSENCE_SPAN then
      return true
    end
  end
  return t.silence >= m.rules.lost_after
end

-- Counts the question that this is the answer to; the time since the one before.
local function asked(t, s, now)
  local gap = t.asked and now - t.asked or 0
  if s.source ~= "poll" or not (ANSWER[s.kind] or s.kind == "unanswered") then
    return 0
  end
  t.asked = now
  t.polls = t.polls + (ANSWER[s.kind] and 1 or 0)
  return gap
end

local function verdict(m, t, a, s, gap, now)
  local newest = a == current(t)
  if s.kind == "kept" then
    return "keep"
  elseif (s.kind == "look" or s.kind == "hint") and not can_look(t, a) then
    return s.kind == "hint" and t.state == "succeeded" and "again" or "late"
  elseif not newest and s.kind ~= "slot_end" then
    return on_older(t, s)
  end
  local lost = t.state == "pending" and s.source == "poll" and ANSWER[s.kind] and seems_lost(m, t, s, gap, now)
  return on[s.kind](t, now, lost)
end

-- Commands that a state does not allow; a claim is the queue's own and is not asked for here.
local function allows(t, s)
  if s.kind == "cancel" then
    return not FINAL[t.state]
  elseif s.kind == "resubmit" then
    return t.state == "ambiguous" or t.state == "lost" or t.state == "failed"
  end
  return t.state == "ambiguous"
end

-- Why the signal is refused, if it is; then nothing changes.
local function refusal(t, a, s)
  if not a or s.kind == "create" then
    return "invalid"
  elseif (WORD[s.kind] or s.kind == "accepted") and not s.task_id and #a.ids == 0 then
    return "invalid" -- nothing is pending or done under no name
  elseif s.expect and (a ~= current(t) or t.state ~= s.expect) then
    return "changed"
  elseif COMMAND[s.kind] and not allows(t, s) then
    return "state"
  elseif s.kind == "resubmit" and #t.attempts == MAX_ATTEMPTS then
    return "limit"
  elseif s.kind == "resubmit" and not t.prompt then
    return "state"
  end
end

local function log(t, s, how, number, from, now)
  local what = table.concat({ s.kind, how, number, tostring(from), t.state, tostring(s.source), tostring(s.error) }, "")
  t.changes = t.changes + 1
  t.entries = t.entries + (t.moment and t.moment.what == what and 0 or 1)
  if s.source == "callback" and (s.kind == "look" or s.kind == "hint") then
    t.reasons[#t.reasons + 1] = { at = now, attempt = number, entry = t.entries }
  end
  t.moment = { what = what, signal = s.kind, note = how, attempt = number, from = from, to = t.state,
               source = s.source, at = now }
end

local function add_event(m, t, kind, now)
  t.seq = t.seq + 1
  m.events[#m.events + 1] = { task = t, seq = t.seq, type = kind, attempt = #t.attempts, late = t.late, tries = 0,
                              created = now, next = now, since = now, buried = false, errors = {} }
end

local function move(m, t, to, s, now)
  local from = t.state
  t.state = to
  enter[to](m, t, s, now, from)
  if TELLS[to] then
    add_event(m, t, TELLS[to], now)
  end
  return TELLS[to]
end

-- The verdict, once it is known whether the attempt had heard that before.
local function temper(what, how)
  if how == "contradiction" or (how == "stale" and what ~= "again") then
    return "late"
  end
  return how == "duplicate" and what ~= "late" and "again" or what
end

-- Does it; the code, how the timeline tells it, the event.
local function follow(m, t, s, what, how, now, newest)
  if what == "late" then
    return "stale", how == "taken" and (newest and "stale" or "old_attempt") or how
  elseif what == "again" then
    if s.kind == "succeeded" or s.kind == "failed" then
      fill(t, s)
    end
    return how == "conflict" and "stale" or "duplicate", how == "taken" and "duplicate" or how
  elseif what == "keep" then
    local code = keep[s.kind] and keep[s.kind](m, t, s, now) or "ok"
    return code == "ok" and how == "conflict" and "stale" or code, how
  end
  return "ok", how, move(m, t, what, s, now)
end

-- What is known of a task but for its timeline.
local function facts(t)
  local list = { t.state, t.ready, t.due, t.expires, t.polls, t.tries, t.hints, t.absences, t.absent_since, t.silence,
                 t.late, t.ours, t.finished, t.source, t.asked, t.called, t.image, t.mj_prompt, t.meta, t.prompt,
                 t.images, t.files, t.error and t.error.code, t.error and t.error.message, n = 24 }
  local words = {}
  for i = 1, list.n do
    words[i] = tostring(list[i])
  end
  for _, a in ipairs(t.attempts) do
    words[#words + 1] = table.concat({ a.word, tostring(a.account), tostring(a.sent), tostring(a.slot),
                                       tostring(a.slot_until), #a.ids }, " ")
  end
  return table.concat(words, ", ")
end

-- Whether the newest entry told of nothing but itself, less than a second ago.
local function is_fresh(t, now)
  local m = t.moment
  return (m.note ~= "taken" or m.signal == "hint") and now >= m.at and now - m.at < TIMELINE_GAP
end

-- Writes an entry of the timeline, unless there is nothing else to write and it is not worth a write.
local function tell(t, s, how, number, from, before, called, now, code)
  if s.kind == "running" and s.source == "callback" and how ~= "conflict" then
    local since = t.called
    t.called = called -- that a callback came is no fact by itself
    if facts(t) == before then
      return
    end
    t.called = since
  end
  local hint = hinted_at(t)
  if facts(t) == before and (s.kind == "look" and how ~= "conflict"
      and (code ~= "duplicate" or hint and hint >= (t.asked or 0)) or s.source == "callback" and is_fresh(t, now)) then
    return
  end
  t.updated = now
  log(t, s, how, number, from, now)
end

-- The answer to a submission that names the id of another one: it arrived, and which id is its own is not known.
local function in_doubt(s)
  s.kind, s.task_id = "maybe_sent", false
  s.error_code, s.error = "conflict", Model.ANY
end

-- Applies a signal to a task: {code=, task=, made=}.
local function apply(m, t, given, now)
  local s = setmetatable({}, { __index = given })
  local a = t.attempts[given.attempt or #t.attempts]
  local code = refusal(t, a, s)
  if code then
    return { code = code, task = t }
  end
  local from, newest, before, called = t.state, a == current(t), facts(t), t.called
  if s.foreign then -- the id of another task or attempt: never believed, never bound
    if s.kind ~= "accepted" or a.word ~= "submitting" then
      tell(t, s, "conflict", a.number, from, before, called, now)
      return { code = "stale", task = t }
    end
    in_doubt(s)
  end
  if s.kind == "slot_end" and not (a.slot and now >= a.slot_until) then
    return { code = "stale", task = t } -- nobody asked the clock
  end
  s.wait = s.wait and math.min(s.wait, WAIT_CAP)
  local gap = asked(t, s, now)
  if s.source == "callback" and (WORD[s.kind] or s.kind == "look" and s.task_id) then
    t.called = t.called or now
  end
  if s.kind == "hint" and s.source == "poll" and newest then
    t.hints = t.hints + 1
    s.kind = t.hints >= BELIEVED_HINTS and "succeeded" or "hint"
  end
  local how = note[s.kind] and note[s.kind](m, t, a, s, now) or "taken"
  local what = temper(verdict(m, t, a, s, gap, now), how)
  local made
  code, how, made = follow(m, t, s, what, how, now, newest)
  plan(m, t, s, now)
  tell(t, s, s.foreign and "conflict" or how, a.number, from, before, called, now, code)
  return { code = code, task = t, made = made }
end

--- A signal about a task, or about the one that its task id is bound to.  What names an attempt and the id of another
-- one is in conflict with itself.
function Model:signal(s, now)
  local owner = s.task_id and self.ids[s.task_id]
  local about = setmetatable({}, { __index = s })
  local t = s.task
  if owner and (not t or t == owner.task) then
    t, about.attempt = owner.task, s.attempt or owner.attempt
    about.foreign = about.attempt ~= owner.attempt
  elseif owner then
    about.foreign = true
  end
  if not t or t.pruned then
    return { code = "unknown" }
  end
  return apply(self, t, about, now)
end

-- ---- creating ----

--- A new task, or the first one with its key or task id.
function Model:create(s, now)
  local known = s.key and self.keys[s.key]
  if known then
    return { code = known.print == s.print and "duplicate" or "key_conflict", task = known }
  end
  known = s.task_id and self.ids[s.task_id]
  if known then
    return { code = "duplicate", task = known.task }
  end
  return { code = "ok", task = self:add(s, now) }
end

function Model:add(s, now)
  self.made = self.made + 1
  self.stamp = math.max(self.stamp, now) -- what a ref tells of time: it ascends when the clock does not
  local t = {
    number = self.made, stamp = self.stamp, state = "queued", ready = true, due = s.expires, expires = s.expires,
    prompt = s.prompt, user = s.user, key = s.key, print = s.print, account = s.account, priority = s.priority,
    timeout = s.timeout, attempts = {}, reasons = {}, entries = 0,
    created = now, updated = now, polls = 0, tries = 0, hints = 0, absences = 0,
    silence = 0, late = false, ours = false, seq = 0, changes = 0,
  }
  new_attempt(t)
  self.tasks[#self.tasks + 1] = t
  if s.key then
    self.keys[s.key] = t
  end
  if s.task_id then
    self:adopt(t, s, now)
  end
  log(t, { kind = "create", source = s.source }, "taken", 1, t.state, now)
  return t
end

function Model:adopt(t, s, now)
  local a = current(t)
  t.state, t.ready, a.word, a.account = "pending", false, "accepted", s.under
  bind(self, t, a, s.task_id)
  hold(self, t, a, now)
  poll_later(self, t, s, now)
end

-- ---- slots, the queue and time ----

function Model:held(account)
  local n = 0
  for _, t in ipairs(self.tasks) do
    for _, a in ipairs(t.attempts) do
      n = n + (a.slot and a.account == account and 1 or 0)
    end
  end
  return n
end

--- How many slots an account may hold now.  When the provider is full and we are not, others use the key, too: what we
-- hold is what there is room for.
function Model:cap(c, now)
  local l = self.learned[c.name]
  if not l then
    return c.max_in_flight
  end
  return math.min(c.max_in_flight, math.max(l.held, 1) + math.floor(math.max(0, now - l.at) / RECOVERY))
end

-- The caps of the accounts that may send now, by name, and the least loaded one of them.
function Model:open_accounts(now)
  local open, least, load = {}, nil, math.huge
  for _, c in ipairs(self.caps) do
    local held = self:held(c.name)
    if held < self:cap(c, now) and not self:rests(c.name, now) then
      open[c.name] = c.max_in_flight
      if held / c.max_in_flight < load then
        least, load = c.name, held / c.max_in_flight
      end
    end
  end
  return open, least
end

function Model:is_configured(account)
  for _, c in ipairs(self.caps) do
    if c.name == account then
      return true
    end
  end
  return false
end

-- Who is sent next and under which account: the highest priority, then the oldest, of those that a slot is free for.
function Model:next_in_queue(now)
  local open, least = self:open_accounts(now)
  local best, under, waiting
  for _, t in ipairs(self.tasks) do
    if t.state == "queued" and t.ready then
      local account = t.account and open[t.account] and t.account or not t.account and least
      waiting = waiting or not t.account or self:is_configured(t.account)
      if account and (not best or t.priority > best.priority) then
        best, under = t, account
      end
    end
  end
  return best, under, waiting
end

--- Gives a slot to the task that is next.
function Model:claim(now)
  self:tick(TICKED_BY_CLAIM, now)
  local t, account, waiting = self:next_in_queue(now)
  while t and t.expires and now >= t.expires do -- the tick did not come to it
    apply(self, t, { kind = "ready", source = "sweep" }, now)
    t, account, waiting = self:next_in_queue(now)
  end
  if not t then
    return { code = waiting and "limit" or "not_found" }
  end
  return apply(self, t, { kind = "claim", source = "submit", under = account }, now)
end

local function earliest(list, limit)
  table.sort(list, function(a, b)
    return a.at ~= b.at and a.at < b.at or a.at == b.at and a.order < b.order
  end)
  for i = #list, limit + 1, -1 do
    list[i] = nil
  end
  return list
end

function Model:ended_slots(now)
  local list = {}
  for _, t in ipairs(self.tasks) do
    for _, a in ipairs(t.attempts) do
      if a.slot and a.slot_until <= now then
        list[#list + 1] = { at = a.slot_until, order = t.number * 100 + a.number, task = t, attempt = a.number }
      end
    end
  end
  return list
end

function Model:waited_out(now)
  local list = {}
  for _, t in ipairs(self.tasks) do
    if t.state == "queued" and t.due and t.due <= now then
      list[#list + 1] = { at = t.due, order = t.number, task = t }
    end
  end
  return list
end

--- Ends slots and waits whose time is over, at most `limit` of each.
function Model:tick(limit, now)
  local done = 0
  for _, slot in ipairs(earliest(self:ended_slots(now), limit)) do
    apply(self, slot.task, { kind = "slot_end", source = "sweep", attempt = slot.attempt }, now)
    done = done + 1
  end
  -- One at a time: what is ready may be due again at once, when it has expired meanwhile.
  for _ = 1, limit do
    local first = earliest(self:waited_out(now), 1)[1]
    if not first then
      break
    end
    apply(self, first.task, { kind = "ready", source = "sweep" }, now)
    done = done + 1
  end
  return { code = "ok", done = done }
end

local function is_ahead(at, now)
  return at ~= nil and at - now > CLOCK_STEP
end

--- Whether an account rests.  A rest that a clock gave which was ahead is over when that clock is set right.
function Model:rests(account, now)
  local till = self.paused[account]
  return till ~= nil and now < till and not is_ahead(self.paused_at[account], now)
end

--- Nothing is claimed for the account until then; nil lifts it.
function Model:pause(account, till, reason, now)
  self.paused[account], self.why[account], self.paused_at[account] = till, till and reason, till and now
  if till and reason == "concurrency" then
    self.learned[account] = { held = self:held(account), at = now }
  end
  return { code = "ok" }
end

-- Some index keeps it under a time that has not come.
local function is_put_off(t, now)
  local put_off = t.due ~= nil and t.due >= now
  for _, a in ipairs(t.attempts) do
    put_off = put_off or (a.slot and a.slot_until >= now)
  end
  return put_off
end

-- What a clock put off that was ahead is due, or bounded by what it can wait from now on.
local function rewind(m, t, now)
  local before, wait = facts(t), t.due and t.due - t.updated
  for _, a in ipairs(t.attempts) do
    if is_ahead(a.sent, now) then
      a.sent = now
      a.slot_until = a.slot_until and math.min(a.slot_until, now + t.timeout * 1000 + m.rules.grace)
    end
  end
  if t.expires and is_ahead(t.updated, now) and is_ahead(t.created, now) then
    t.expires = t.expires - (t.created - now)
  end
  if is_ahead(t.asked, now) then
    t.asked = now
  end
  if t.state == "queued" and t.ready then
    due_at(t, t.expires)
  elseif is_ahead(t.updated, now) and t.due and t.due > now then
    due_at(t, t.state == "ambiguous" and now + math.max(wait, 0) or now)
  end
  if facts(t) ~= before then
    t.updated = now
    log(t, { kind = "ready", source = "sweep" }, "taken", #t.attempts, t.state, now)
  end
end

-- The same of an event: due, or leased for as long as it was.
local function rewind_event(e, now)
  if is_ahead(e.since, now) then
    e.next = math.min(e.next, now + (e.leased and math.max(e.next - e.since, 0) or 0))
    e.since = now
  end
end

--- The clock was set back by more than a minute since the last commit.
function Model:rewind(now)
  for _, out in ipairs(self:outbox()) do
    if out.at >= now then
      rewind_event(out.event, now)
    end
  end
  for _, t in ipairs(self.tasks) do
    if is_put_off(t, now) then
      rewind(self, t, now)
    end
  end
  for _, l in pairs(self.learned) do
    l.at = is_ahead(l.at, now) and now or l.at
  end
end

-- The task's first open event, when another one was settled.
function Model:promote(task, now)
  for _, out in ipairs(self:outbox()) do
    if out.event.task == task then
      rewind_event(out.event, now)
    end
  end
end

--- Keeps a callback that was refused; only the newest, and of one ref only so many, the last of which not too often.
function Model:refuse(ref, attempt, why, body, now)
  local last, mine = self.refused[#self.refused], {}
  for i, refused in ipairs(self.refused) do
    mine[#mine + 1] = refused.ref == ref and i or nil
  end
  if #mine >= MAX_REFUSED_OF_ONE then
    local at = self.refused[mine[#mine]].at
    if now >= at and now - at < TIMELINE_GAP then
      return { code = "limit" }
    end
    table.remove(self.refused, mine[1])
  end
  self.refused[#self.refused + 1] = { id = last and last.id + 1 or 1, at = now, ref = ref, attempt = attempt,
                                      reason = why, size = #body, body = body:sub(1, MAX_BODY) }
  if #self.refused > MAX_REFUSED then
    table.remove(self.refused, 1)
  end
  return { code = "ok" }
end

-- ---- events ----

function Model:event(task, seq)
  for i, e in ipairs(self.events) do
    if e.task == task and e.seq == seq then
      return e, i
    end
  end
end

-- In order per task: of each only the first that is neither delivered nor buried.
function Model:outbox()
  local seen, out = {}, {}
  for _, e in ipairs(self.events) do
    if not e.buried and not seen[e.task] then
      seen[e.task] = true
      out[#out + 1] = { at = e.next, order = e.task.number, event = e }
    end
  end
  return earliest(out, #out)
end

--- Leases the event that has been due longest.
function Model:take(till, now)
  local first = self:outbox()[1]
  if not first or first.at > now then
    return { code = "not_found" }
  end
  local e = first.event
  e.tries, e.leased = e.tries + 1, true
  e.next, e.since = math.max(till, now + 1), now
  return { code = "ok", task = e.task, event = e }
end

-- The event that {task, seq, tries} is a lease of, and its place; or a code.
function Model:leased(task, seq, tries)
  local e, i = self:event(task, seq)
  if not e then
    return nil, "not_found"
  elseif not e.leased or e.tries ~= tries then
    return nil, "changed"
  end
  return e, i
end

--- The handler returned.
function Model:done(task, seq, tries, now)
  local e, i = self:leased(task, seq, tries)
  if not e then
    return { code = i }
  end
  table.remove(self.events, i)
  self:promote(task, now)
  return { code = "ok" }
end

local function add_error(e, text, now)
  e.errors[#e.errors + 1] = { at = now, message = text }
  if #e.errors > MAX_ERRORS then
    table.remove(e.errors, 1)
  end
end

--- The handler failed: again at `till`, or never.  Without an error it was not run, and the try does not count.
function Model:retry(task, seq, tries, till, text, now)
  local e, i = self:leased(task, seq, tries)
  if not e then
    return { code = i }
  end
  if not text and till then
    e.tries = e.tries - 1
  else
    add_error(e, text, now)
  end
  e.buried, e.next, e.leased = not till, till or e.next, false
  e.since = till and now or e.since
  self:promote(task, now)
  return { code = "ok" }
end

local function at_work(e, now)
  return e.leased and not e.buried and e.next > now
end

-- Due now, with all its tries ahead; but not while one of the task that would have to come after it is at work.
function Model:release(e, now)
  for _, entry in ipairs(self:outbox()) do
    if entry.event.task == e.task and at_work(entry.event, now) then
      return { code = "state" }
    end
  end
  e.buried, e.leased, e.before, e.next, e.since = false, false, e.tries, now, now
  return { code = "ok" }
end

local REPLAYED = { succeeded = true, failed = true, lost = true, ambiguous = true }

--- Hands an event out again; with seq 0 the task's last one, also when it was delivered.
function Model:kick(task, seq, now)
  if not task or task.pruned then
    return { code = "not_found" }
  elseif seq == 0 and (task.seq == 0 or not REPLAYED[task.state]) then
    return { code = "state" }
  end
  local e = self:event(task, seq == 0 and task.seq or seq)
  if e then
    return at_work(e, now) and { code = "state" } or self:release(e, now)
  elseif seq > 0 then
    return { code = "not_found" }
  end
  self.events[#self.events + 1] = { task = task, seq = task.seq, type = task.state, attempt = #task.attempts,
                                    late = task.late, tries = 0, created = now, next = now, since = now,
                                    buried = false,
                                    errors = {} }
  return { code = "ok" }
end

--- Gives an event up.
function Model:give_up(task, seq, text, now)
  local e = task and self:event(task, seq)
  if not e then
    return { code = "not_found" }
  elseif at_work(e, now) then
    return { code = "state" }
  elseif e.buried then
    return { code = "duplicate" }
  end
  add_error(e, text, now)
  e.buried, e.leased = true, false
  self:promote(task, now)
  return { code = "ok" }
end

-- ---- pruning ----

function Model:has_event(t)
  for _, e in ipairs(self.events) do
    if e.task == t then
      return true
    end
  end
  return false
end

local function holds_slot(t)
  for _, a in ipairs(t.attempts) do
    if a.slot then
      return true
    end
  end
  return false
end

function Model:may_be_pruned(t, till)
  return FINAL[t.state] and t.finished <= till and not holds_slot(t) and not self:has_event(t)
end

function Model:bury(t, now)
  for i, known in ipairs(self.tasks) do
    if known == t then
      table.remove(self.tasks, i)
      break
    end
  end
  t.pruned = now
  self.tombs[#self.tombs + 1] = t
end

--- Makes tombstones of the tasks in a state that finished at or before `till`; looks at `limit` of them, the oldest
-- first, from number `from` on.  `next`: where to go on.
function Model:prune(state, till, limit, from, now)
  local result, seen = { code = "ok", done = 0 }, 0
  for _, t in ipairs(self:list { by = "state", state = state, oldest_first = true }) do
    if t.number >= (from or 0) then
      if t.stamp > till then
        break -- it was made later, and so finished later
      elseif seen == limit then
        result.next = t
        break
      end
      seen = seen + 1
      if self:may_be_pruned(t, till) then
        self:bury(t, now)
        result.done = result.done + 1
      end
    end
  end
  return result
end

local function forget_names(names, t, whose)
  for name, owner in pairs(names) do
    if whose(owner) == t then
      names[name] = nil
    end
  end
end

--- Drops up to `limit` tombstones made at or before `till`, with their keys and ids.
function Model:forget(till, limit)
  local old = {}
  for _, t in ipairs(self.tombs) do
    if t.pruned <= till then
      old[#old + 1] = { at = t.pruned, order = t.number, task = t }
    end
  end
  local more = #old > limit
  for _, grave in ipairs(earliest(old, limit)) do
    local t = grave.task
    t.forgotten = true
    forget_names(self.ids, t, function(owner) return owner.task end)
    forget_names(self.keys, t, function(owner) return owner end)
  end
  for i = #self.tombs, 1, -1 do
    if self.tombs[i].forgotten then
      table.remove(self.tombs, i)
    end
  end
  return { code = "ok", done = #old, more = more }
end

-- ---- listings and counts ----

local matches = {}

function matches.age()
  return true
end

function matches.state(t, q)
  return t.state == q.state
end

function matches.user(t, q)
  return t.user == q.user_id
end

function matches.due(t, q)
  return t.due and (JOB[t.state] or "poll") == q.due and t.due <= q["until"]
end

--- Tasks {by = "age" | "state" | "user" | "due", state=, user_id=, due=, until=, since=}: the newest first, or the
-- longest due.
function Model:list(q)
  local list = {}
  for _, t in ipairs(self.tasks) do
    if matches[q.by](t, q) and (q.by == "due" or t.stamp >= (q.since or 0)) then
      list[#list + 1] = { at = q.by == "due" and t.due or 0, order = t.number * (q.oldest_first and 1 or -1), task = t }
      if q.by == "due" then
        list[#list].order = t.number
      end
    end
  end
  earliest(list, #list)
  for i, entry in ipairs(list) do
    list[i] = entry.task
  end
  return list
end

--- Events that are stored, or only buried ones: of the oldest task first, and each task's oldest first.
function Model:list_events(buried)
  local list = {}
  for _, e in ipairs(self.events) do
    if e.buried or not buried then
      list[#list + 1] = { at = e.task.number, order = e.seq, event = e }
    end
  end
  earliest(list, #list)
  for i, entry in ipairs(list) do
    list[i] = entry.event
  end
  return list
end

function Model:count()
  local counts = { tasks = {}, events = 0, buried = 0, ready = 0 }
  for _, state in ipairs(Model.STATES) do
    counts.tasks[state] = 0
  end
  for _, t in ipairs(self.tasks) do
    counts.tasks[t.state] = counts.tasks[t.state] + 1
    counts.ready = counts.ready + (t.state == "queued" and t.ready and 1 or 0)
  end
  for _, e in ipairs(self.events) do
    local which = e.buried and "buried" or "events"
    counts[which] = counts[which] + 1
  end
  return counts
end

return Model
