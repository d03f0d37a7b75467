--- Sending claimed tasks through a window: what has an answer is stored, and what may go next is claimed, in one
-- transaction, while the other requests go on.
local core = require "mjhook.core"
local memory = require "mjhook.memory"
local provider = require "mjhook.provider"
local view = require("mjhook.view").view
local window = require "mjhook.window"

local M = {}

--- A sender that stalled longer than this between intent and request does not send (milliseconds).
M.STALL_MS = 60000

-- Tasks are claimed ahead of a free connection, so that none is idle while the store commits: as many as ended since
-- the last commit, since as many will have ended by the next one, and twice as many if few of them were left before it;
-- at least half as many as connections, since answers come in bursts. What is claimed has to leave soon: a crash
-- between claim and send makes tasks ambiguous.
M.AHEAD_MAX = 256

-- How long an account rests after a refusal (milliseconds); PRODUCT.md and PROVIDER.md name the first three.
local PAUSE = {
  quota = 900000,       -- 1001: no account is topped up within seconds
  concurrency = 10000,  -- 1002 though our ledger has room: the key is shared with others
  rate_limit = 30000,   -- 429 without a Retry-After
  auth = 60000,         -- a wrong key: asked again once in a while, so that a corrected one is noticed
  redirect = 60000,
  endpoint = 60000,     -- a wrong base_url, or a deployment in progress
  blocked = 60000,
  not_sent = 5000,      -- unreachable: the next ones would fare no better
}

-- Made while there is memory.
local NONE = {}
local UNSENT = { kind = "not_sent", held_back = true, error_code = "no_memory", error = "out of memory" }
local UNREAD = { kind = "maybe_sent", error_code = "maybe_sent", error = "out of memory for the answer" }
local TOO_LATE = { kind = "not_sent", held_back = true, wait_ms = 0, error_code = "not_sent",
                   error = "out of time before it was sent" }
local STOPPED = { kind = "not_sent", held_back = true, wait_ms = 0, error_code = "not_sent",
                  error = "told to stop before it was sent" }
local NOT_STORED = { kind = "not_sent", held_back = true, wait_ms = 0, error_code = "not_sent",
                     error = "the store failed before it was sent" }

-- ---- claims ----

-- Tasks that were claimed and will not be sent. Without memory even for that they stay `submitting` and a sweep takes
-- them over.
local function hand_back(mj, tasks)
  local ops = {}
  for i, task in ipairs(tasks) do
    ops[i] = { op = "signal", ref = task.ref, attempt = task.attempt, kind = "not_sent", source = "submit",
               error_code = UNSENT.error_code, error = UNSENT.error }
  end
  return #ops == 0 or mj.exec:commit(ops)
end

-- The same, also when memory is scarce.
local function try_to_hand_back(mj, tasks)
  pcall(memory.insist, hand_back, mj, tasks)
end

local function claimed_of(results, first)
  local claimed = {}
  for i = first + 1, #results do
    if results[i].code == "ok" then
      local task = results[i].task
      task.rested = results[i].rested -- until it is in a window
      claimed[#claimed + 1] = task
    end
  end
  return claimed
end

--- Claims as many queued tasks as slots and `limit` allow, in the queue's order. Of each task it gives what is sent:
-- ref, attempt, account, prompt, mode and timeout.
-- @tparam table ops operations to commit in the same transaction, before the claims
-- @treturn table|nil results of all operations; then the claimed tasks; nil and an error
-- @treturn[opt] boolean true: memory ran out, and tasks may be claimed that nothing is known of
function M.claim(mj, ops, limit)
  local first = #ops
  for _ = 1, limit do
    ops[#ops + 1] = { op = "claim", source = "submit", want = true, brief = true }
  end
  local results, err = mj.exec:commit(ops)
  if not results then
    return nil, err
  end
  -- What is claimed is sent or handed back, and the caller hears the results: nothing raises from here on.
  local ok, claimed = pcall(memory.insist, claimed_of, results, first)
  return results, ok and claimed or NONE, not ok or nil
end

-- ---- what an answer means ----

-- What the policy makes of a definite refusal; nothing: the default sorting.
local function decide_refused(mj, task, verdict)
  if not mj.policy:decides "on_refused" then
    return
  end
  local err = core.error(verdict.error_code, verdict.error, verdict.kind == "refused")
  local what, ms = mj.policy:decide("on_refused", view(mj.exec:read("get", task.ref)) or task, err)
  if what == "fail" then
    verdict.kind = "rejected"
  elseif what == "retry" then
    verdict.kind, verdict.wait_ms = "refused", ms
  end
end

local function pause_ms(verdict)
  local ms, asked = PAUSE[verdict.error_code], verdict.retry_after
  if ms and asked then
    asked = math.min(math.max(asked, 1), 3600) * 1000
    ms = verdict.error_code == "rate_limit" and asked or math.max(ms, asked)
  end
  return ms
end

local function read_answer(answer, failed)
  if not answer and memory.is_out(failed) then
    return UNSENT
  end
  return provider.read_submit(answer or { outcome = "not_sent", error = failed.message })
end

-- What is done about it: `pause` is how long its account rests.
local function judge(mj, task, verdict)
  if verdict.kind == "refused" or verdict.kind == "rejected" then
    decide_refused(mj, task, verdict)
  end
  if verdict.kind == "refused" or (verdict.kind == "not_sent" and not verdict.held_back) then
    verdict.pause = pause_ms(verdict)
    -- The account's rest is the wait; a task that was not sent or may be the cause has its own, too.
    if verdict.pause and verdict.kind == "refused" and not verdict.job_waits then
      verdict.wait_ms = verdict.wait_ms or 0
    end
  end
  return verdict
end

-- ---- the window's work ----

local Sending = {}
Sending.__index = Sending

-- An account that has rested sends one task first, the probe: the others only if the provider takes that one or finds
-- fault with the job alone. `verdict`: why nothing more is sent under the account.
local function new_rest()
  return { probe = false, lifted = false, verdict = false }
end

local function may_begin(rest, item)
  return not rest or rest.lifted or not rest.probe or rest.probe == item
end

-- The end of an item, for which there must be no need of memory.
function Sending:settle(item, verdict)
  local rest = self.rests[item.task.account]
  item.verdict, item.ended = verdict, true
  self.ended = self.ended + 1
  if rest and rest.probe == item then
    if verdict.kind == "accepted" or verdict.kind == "rejected" then
      rest.lifted = true
    else
      rest.verdict = verdict
    end
    self.waiting = self.waiting + 1 -- those that waited for it go on, or are handed back
  end
end

-- A task that waits is handed back, since its account takes nothing now.
local function held_back(why)
  return { kind = "not_sent", held_back = true, wait_ms = 0, error_code = why.error_code, error = why.error }
end

function Sending:ready(room, flying)
  if self.mj.stopping(flying) then
    self.halted = self.halted or STOPPED
  end
  if self.begin_by and core.clock() >= self.begin_by then
    self.halted = self.halted or TOO_LATE
  end
  local list = NONE
  self.waiting = 0
  for _, item in ipairs(self.items) do
    if not item.request and not item.ended then
      local rest = self.rests[item.task.account]
      if self.halted then
        self:settle(item, self.halted)
      elseif rest and rest.verdict then
        self:settle(item, held_back(rest.verdict))
      elseif may_begin(rest, item) and #list < room then
        list = list == NONE and {} or list
        list[#list + 1] = item
        if rest then
          rest.probe = rest.probe or item
        end
      elseif may_begin(rest, item) then
        self.waiting = self.waiting + 1
      end
    end
  end
  return list
end

function Sending:is_ready()
  return self.waiting > 0
end

function Sending:request(item)
  self.tried[item.task.ref .. item.task.account] = true
  return provider.submit_request(self.mj, item.task, item.start_by)
end

local function read(mj, task, answer, err)
  return judge(mj, task, read_answer(answer, err))
end

function Sending:read(item, answer, err)
  if answer and answer.outcome == "not_sent" and core.clock() > item.start_by then
    self:settle(item, TOO_LATE)
    return
  end
  local ok, verdict = pcall(memory.insist, read, self.mj, item.task, answer, err)
  if not ok and not memory.is_out(verdict) then
    error(verdict, 0)
  end
  self:settle(item, ok and verdict or answer and UNREAD or UNSENT)
  if ok and verdict.pause then
    self.rests[item.task.account] = new_rest()
    self.rests[item.task.account].verdict = verdict
  end
end

function Sending:halt()
  self.halted = self.halted or UNSENT
end

-- How many tasks to claim, when so many items stay.
function Sending:claims(staying)
  local how = self.how
  if self.halted or self.again or not how.more or self.mj.stopping() or not how.more() then
    return 0
  end
  local most = math.max(self.mj.config.connections + self.ahead - staying, 0)
  return self.dry and math.min(most, 1) or most
end

function Sending:wants_more()
  return not self.dry and self:claims(#self.items - self.ended) > 0
end

-- Takes in claimed tasks. When it raises, none of them is in it.
function Sending:add(claimed, start_by)
  local items = {}
  for i, task in ipairs(claimed) do
    items[i] = window.item { task = task, verdict = false, start_by = math.min(start_by, self.begin_by or math.huge) }
  end
  for _, item in ipairs(self.items) do
    items[#items + 1] = item
  end
  for _, task in ipairs(claimed) do
    local name = task.account
    local rest = self.rests[name]
    if task.rested and (not rest or rest.verdict or rest.lifted) then
      self.rests[name] = new_rest()
    elseif not task.rested and rest and rest.verdict then
      self.rests[name] = nil -- its rest is over, or it would not have been claimed
    end
    task.rested = nil
    -- A policy may have a refused task sent again at once, and again: once one is back under the same account, no more
    -- is claimed.
    self.again = self.again or self.tried[task.ref .. name] or false
  end
  if self.how.claimed then
    self.how.claimed(claimed)
  end
  self.items = items
end

-- The operations that store what has ended: signals in the order of the items; then what becomes of accounts.
local function outcome(self, ended)
  local ops, pauses = {}, {}
  for i, item in ipairs(ended) do
    local task, verdict = item.task, item.verdict
    ops[i] = {
      op = "signal", ref = task.ref, attempt = task.attempt, kind = verdict.kind, source = "submit",
      task_id = verdict.task_id, error_code = verdict.error_code, error = verdict.error,
      wait_ms = verdict.wait_ms, want = true,
    }
    local rest = self.rests[task.account]
    if rest and rest.probe == item and rest.lifted then
      pauses[#pauses + 1] = { op = "pause", account = task.account, ["until"] = 0 }
    elseif verdict.pause then
      pauses[#pauses + 1] = { op = "pause", account = task.account, ["until"] = self.mj.exec:now() + verdict.pause,
                              error_code = verdict.error_code }
    end
  end
  for _, op in ipairs(pauses) do
    ops[#ops + 1] = op
  end
  return ops
end

-- What the store has of the tasks now.
local function look_at(ended, results)
  local tasks = {}
  for i, item in ipairs(ended) do
    tasks[i] = memory.insist(view, results[i].task) or item.task
    tasks[i].requests = item.verdict.held_back and 0 or 1
  end
  return tasks
end

-- Whether a commit that failed so may have stored everything, or do so later.
local function may_be_stored(err)
  return err.unsure or err.code == "unsure" or err.code == "internal"
end

-- The store failed. If the outcomes of these are certainly not in it, those that were not sent are handed back. To hand
-- one back twice would be wrong: others may have claimed it meanwhile, and are sending it. The rest stays `submitting`
-- until a sweep takes it over as `ambiguous`.
function Sending:fail(err, ended)
  self.err = self.err or err
  self.halted = self.halted or NOT_STORED
  local tasks = {}
  for _, item in ipairs(ended) do
    if item.verdict.kind == "not_sent" then
      tasks[#tasks + 1] = item.task
    end
  end
  if not may_be_stored(err) then
    try_to_hand_back(self.mj, tasks)
  end
end

local function tell(self, ended, results)
  if self.how.sent then
    self.how.sent(look_at(ended, results))
  end
end

function Sending:store(hurried)
  if self.how.more then -- one commit after the other
    self.mj.exec:give_way()
  end
  local ended, staying, all_accepted = {}, {}, true
  for _, item in ipairs(self.items) do
    local list = item.ended and ended or staying
    list[#list + 1] = item
    all_accepted = all_accepted and (not item.ended or item.verdict.kind == "accepted")
  end
  local ops = outcome(self, ended)
  self.ahead = all_accepted and math.min(math.max(hurried and 2 * #ended or #ended,
    math.floor(self.mj.config.connections / 2)), M.AHEAD_MAX) or 0
  self.low = math.floor(self.ahead / 2)
  local claims, start_by = self:claims(#staying), core.clock() + M.STALL_MS
  local results, claimed = M.claim(self.mj, ops, claims)
  self.items, self.ended = staying, 0
  if not results then
    self:fail(claimed, ended)
    return
  end
  self.dry = #claimed < claims
  local told, why = pcall(tell, self, ended, results)
  if not told then
    self.err = self.err or memory.error(why)
    self:halt()
  end
  if #claimed > 0 and not pcall(memory.insist, self.add, self, claimed, start_by) then
    try_to_hand_back(self.mj, claimed)
    self:halt()
  end
end

-- ---- the way in ----

local function new(mj, how)
  return setmetatable({
    mj = mj, how = how,
    begin_by = how.begin_by,  -- and no `deadline` for the window: what is begun gets its answer
    items = {}, ended = 0,
    waiting = 0,              -- items that are ready and found no connection
    ahead = 0, dry = false,   -- how many to claim ahead; whether the last commit had nothing more to claim
    low = 0,                  -- when so few of them are left, more is claimed
    rests = {},               -- by account: see new_rest()
    tried = {}, again = false, -- refs with the account that sent them; whether one came back there
    halted = false,           -- the verdict of what is not begun from now on
    err = false,              -- the store's first error
  }, Sending)
end

-- Hands back the items that no request was made for.
local function hand_back_unsent(mj, items)
  local tasks = {}
  for _, item in ipairs(items) do
    if not item.request and (not item.ended or item.verdict.kind == "not_sent") then
      tasks[#tasks + 1] = item.task
    end
  end
  try_to_hand_back(mj, tasks)
end

--- Sends claimed tasks and stores what became of each.
-- @tparam table claimed tasks (`submitting`, ours)
-- @tparam number start_by core.clock() after which nothing of them is sent
-- @tparam[opt] table how sent(tasks): gets the records of tasks once they are stored, with `requests`, how many were
-- made; claimed(tasks): gets what was claimed, before it is sent; more(): whether to go on claiming what is queued,
-- without it nothing more is claimed; begin_by: core.clock() after which no request is begun; what is in the air gets
-- its answer, since a request that is cut off is probably billed and never sent again
-- @treturn boolean|nil true; nil and an error when the store failed: what it could not store stays `submitting` until
-- a sweep takes it over as `ambiguous`
function M.send(mj, claimed, start_by, how)
  local made, self = pcall(memory.insist, new, mj, how or NONE)
  local added, ran, why = false, false, self
  if made then
    added, why = pcall(memory.insist, self.add, self, claimed, start_by)
  end
  if added then
    ran, why = pcall(window.run, mj, self)
  end
  if ran then
    return not self.err or nil, self.err or nil
  elseif not memory.is_out(why) then
    error(why, 0)
  elseif added then
    pcall(memory.insist, hand_back_unsent, mj, self.items)
  else
    try_to_hand_back(mj, claimed)
  end
  return nil, memory.OUT
end

return M
