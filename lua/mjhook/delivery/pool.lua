--- Where the policy's handlers run: here, one after another, or in processes of their own that may hang and crash.
--
-- Both kinds have the same four functions:
--   raw               whether leases are to have their records as they are stored
--   room()            how many events it can take now
--   start(leases)     takes them
--   idle()            has nothing at hand
--   wait(stop_at)     runs or waits; gives {{lease=, handled=, reason=, how=, files=}}; one without `handled` was not
--                     run after all
local core = require "mjhook.core"
local json = require "mjhook.json"
local parcel = require "mjhook.delivery.parcel"
local view = require("mjhook.view").view

local M = {}

local MOST = 256     -- events at once when handlers are quick
local MOST_OF_ONE = 4096 -- events of one process, which may leak
local QUICK_MS = 5   -- a handler at most this slow on average lets their number grow
-- A deliverer that died may have run the event or not: it counts for little. But a handler that takes its deliverer
-- with it, every time, must not do so for ever.
local DEATHS = 100
M.SLOW_MS = 100 -- an event that waits behind a handler for so long goes to another process or thread
local LOOK_MS = 50
local SLACK_MS = 1000 -- for a handler that is interrupted to come back by itself, before its process is killed
local MOST_TOLD = 524288 -- bytes; the core takes twice as much
-- A handler that submits when its time is over may go on for so long: two rounds of requests, 30 s each, and what is
-- stored between them.
M.HOLD_MS = 90000
local FAIR_MS = 5000 -- one that had so long and was cut off by the end of the budget has had its try

-- Runs one event's handlers; nil when its lease has not enough time left for them. Its record may be gone: then there
-- is nothing left to tell of.
local function handle(mj, lease)
  if lease.record then
    lease = parcel.decode(lease.event_record, lease.record, lease.event.tries, lease.event.next_at)
  end
  local event = lease.event
  if event.round - event.failed > DEATHS then
    return false, ("the process that handles it dies: %d times so far"):format(DEATHS), { bury = true }
  elseif mj.exec:now() + mj.config.handler_timeout * 1000 > event.next_at then
    return nil
  end
  local task = view(lease.task)
  if not task then
    return true
  end
  if event.late then
    task.late = true
  end
  local timeout = not mj.on_event_loop and mj.config.handler_timeout or nil
  return mj.policy:handle(task, {
    event_id = event.event_id, type = event.type, attempt = event.attempt, created_at = event.created_at,
    log = mj.log, timeout = mj.config.handler_timeout, mj = mj,
    store = not mj.config.store_url and mj.config.store or nil, -- a directory, where a handler may leave a note

  }, timeout)
end

local function finite(value)
  return type(value) == "number" and value == value and value < math.huge and value > -math.huge and value or nil
end

-- What a child says of a handler's end: JSON; nil: it has handled the event, and that is all. A handler may have
-- answered what can't be told so, or at any length.
local function told(handled, reason, how, files)
  if handled == true and files == nil then
    return nil
  end
  local text = json.encode { handled = handled, reason = reason, how = how, files = files }
  if text and #text <= MOST_TOLD then
    return text
  end
  how = type(how) == "table" and { bury = how.bury and true or nil, retry_after = finite(how.retry_after),
    not_before = finite(how.not_before) } or nil
  return json.encode { handled = handled, reason = reason and tostring(reason):sub(1, MOST_TOLD / 8), how = how,
                       files = files ~= nil and "strange" or nil } -- which is no list: the deliverer says so
end

local function grown(pool, mean_ms)
  return mean_ms <= QUICK_MS and math.min(pool.size * 2, MOST) or 1
end

-- ---- here ----

local Direct = {}
Direct.__index = Direct

--- @tparam[opt] string queue the name of a core.workqueue: another thread takes back from it what a slow handler
-- has not begun, with M.taken_back
function M.direct(mj, queue)
  return setmetatable({ mj = mj, size = 1, leases = {}, queue = queue and core.workqueue(queue) }, Direct)
end

function Direct:room()
  return #self.leases == 0 and self.size or 0
end

function Direct:start(leases)
  self.leases = leases
  local names = {}
  for i, lease in ipairs(self.queue and leases or {}) do
    names[i] = ("%s %d %d"):format(lease.event.ref, lease.event.seq, lease.event.tries)
  end
  if self.queue and not self.queue:fill(names) then
    self.queue = nil -- no memory for it
  end
end

--- What brings an event back that was taken back from a queue: an operation.
function M.taken_back(name, now)
  local ref, seq, tries = name:match "^(%w+) (%d+) (%d+)$"
  return { op = "retry", ref = ref, seq = tonumber(seq), tries = tonumber(tries), ["until"] = now }
end

function Direct:idle()
  return #self.leases == 0
end

function Direct:wait(stop_at)
  local out, begun = {}, core.clock()
  for i, lease in ipairs(self.leases) do
    local handled, reason, how, files
    if core.clock() < stop_at and not self.mj.stopping() and (not self.queue or self.queue:begin()) then
      handled, reason, how, files = handle(self.mj, lease)
    end
    out[i] = { lease = lease, handled = handled, reason = reason, how = how, files = files }
  end
  self.size = grown(self, (core.clock() - begun) / math.max(#out, 1))
  self.leases = {}
  return out
end

-- ---- in processes ----

local Isolated = {}
Isolated.__index = Isolated

function M.isolated(mj)
  local client = core.http {} -- libcurl is set up once here, rather than in each process whose handler makes a request
  if client then
    client:close()
  end
  return setmetatable({ mj = mj, size = 1, children = {}, waiting = {}, raw = true }, Isolated)
end

-- When no process can be started, there is no point in taking more: those that run go on.
function Isolated:room()
  return self.denied and 0 or (self.mj.config.handlers - #self.children) * self.size
end

function Isolated:idle()
  return #self.children == 0
end

-- The child's side. What it inherits is right for reading; connections are the parent's.
local function serve(mj, leases)
  local parents = mj.exec.client -- kept, so that it is not collected and closed
  mj.exec.client = nil
  return function(tell, claim, more)
    mj.exec:unlock() -- the pass is the parent's: it must not last as long as what a handler leaves behind
    while leases do
      for _, lease in ipairs(leases) do
        if not claim() then
          return parents
        end
        tell(told(handle(mj, lease)))
      end
      local text = more()
      leases = text and parcel.unpack(text)
    end
    return parents
  end
end

function Isolated:fork(leases)
  local client = self.mj.exec.client
  local process, err = core.fork(serve(self.mj, leases))
  self.mj.exec.client = client
  return process and { process = process, before = 0 }, err
end

-- Gives leases to a process that waits for work, or to a new one.
function Isolated:hand_out(leases)
  local child, err = table.remove(self.waiting), nil
  if child and not child.process:give(parcel.pack(leases)) then
    child.process:stop()
    child = nil
  end
  if not child then
    child, err = self:fork(leases)
  end
  if not child then
    return nil, err
  end
  child.leases, child.at, child.begun = leases, 1, core.clock()
  child.since = child.begun
  self.children[#self.children + 1] = child
  return true
end

function Isolated:start(leases)
  local free = self.mj.config.handlers - #self.children
  local share = math.ceil(#leases / free)
  for first = 1, #leases, share do
    local mine = {}
    for i = first, math.min(first + share - 1, #leases) do
      mine[#mine + 1] = leases[i]
    end
    local ok, err = nil, self.denied
    if not err then
      ok, err = self:hand_out(mine)
    end
    if not ok then
      self.unable = self.unable or {}
      for _, lease in ipairs(mine) do
        table.insert(self.unable, { lease = lease })
      end
      if not self.denied then
        self.denied = err
        self.mj.log("error", ("events wait: %s"):format(err.message))
      end
    end
  end
end

-- The event that is at hand is over, with this outcome; the next one begins.
local function over(child, out, outcome)
  outcome.lease = child.leases[child.at]
  out[#out + 1] = outcome
  child.at = child.at + 1
end

-- It is no more: what it had at hand gets the outcome, what it had not begun was not run.
local function bury(child, out, outcome)
  if child.leases[child.at] then
    over(child, out, outcome)
  end
  while child.leases[child.at] do
    over(child, out, {})
  end
end

local function ending(how)
  if how.signal then
    return ("its process was ended by signal %d (SIG%s)"):format(how.signal, how.name)
  end
  return ("its process exited with %d"):format(how.exit)
end

local function named(child)
  local event = child.leases[child.at] and child.leases[child.at].event
  return "on_" .. (event and event.type or "event")
end

-- Whether events wait for the one that a child has at hand.
local function others_wait(child)
  return child.at < #child.leases
end

-- A handler is slow: the events that its child has not begun are handed back, so that they need not wait.
local function relieve(child, out)
  child.relieved = true
  local begun = math.max(child.process:take_back() - child.before, child.at)
  for _ = begun + 1, #child.leases do
    out[#out + 1] = { lease = table.remove(child.leases) }
  end
end

-- All that a child had to do is done. It stays for more when its handlers are quick and it has not had too many.
function Isolated:done(child)
  self.size = grown(self, (core.clock() - child.begun) / #child.leases)
  child.before = child.before + #child.leases
  if self.size > 1 and child.before < MOST_OF_ONE and not child.relieved then
    self.waiting[#self.waiting + 1] = child
  else
    child.process:stop()
  end
end

-- Hears what a child has to say. True when it has no more work.
function Isolated:hear(child, out)
  while true do
    local message, waits = child.process:hear()
    if waits then
      self:done(child)
      return true
    elseif message == nil then
      return false
    elseif message == false then
      local how = child.process:stop()
      if child.at > #child.leases then
        self.size = grown(self, (core.clock() - child.begun) / #child.leases)
      else
        bury(child, out, { handled = false, reason = ("%s: %s"):format(named(child), ending(how)) })
        self.size = 1
      end
      return true
    end
    if child.leases[child.at] then -- a handler that forks may talk for two
      over(child, out, message == true and { handled = true } or json.decode(message)
        or { handled = false, reason = "its process talked nonsense" })
    end
  end
end

-- Whether a child that is late by so many milliseconds can be ended: not while it sends or stores.
local function may_end(child, late)
  return child.process:forbid() or late > M.HOLD_MS
end

-- Ends a child whose handler is too slow, or when the time for all is over. True when it did.
function Isolated:cut(child, out, now, stop_at)
  local ran = now - child.since
  local timeout = self.mj.config.handler_timeout
  local late = ran - timeout * 1000 - SLACK_MS
  if late <= 0 and now < stop_at or not may_end(child, math.max(late, now - stop_at)) then
    return false
  end
  child.process:stop()
  if late > 0 then
    bury(child, out, { handled = false, reason = ("%s was killed: took longer than handler_timeout (%s s)"):format(
      named(child), timeout) })
  else
    bury(child, out, ran < FAIR_MS and {} or { handled = false,
      reason = ("%s was killed: after %.1f s the sweep's budget was over"):format(named(child), ran / 1000) })
  end
  self.size = 1
  return true
end

function Isolated:wait(stop_at)
  local out, left, processes = self.unable or {}, {}, {}
  self.unable = nil
  if #out > 0 then
    return out
  end
  local now = core.clock()
  local until_ms = stop_at - now
  for i, child in ipairs(self.children) do
    processes[i] = child.process
    until_ms = math.min(until_ms, child.since + self.mj.config.handler_timeout * 1000 + SLACK_MS - now,
      others_wait(child) and child.since + M.SLOW_MS - now or math.huge)
  end
  -- At most a second: whether to stop is asked in between. A child that may not be ended yet is looked at again soon.
  core.await(processes, math.max(LOOK_MS, math.min(until_ms, 1000)))
  now = core.clock()
  for _, child in ipairs(self.children) do
    child.since = math.max(child.since, child.process:began())
    if not self:hear(child, out) and not self:cut(child, out, now, stop_at) then
      left[#left + 1] = child
      if others_wait(child) and now - child.since >= M.SLOW_MS then
        relieve(child, out)
        self.size = 1
      end
    end
  end
  self.children = left
  return out
end

--- Ends what still runs: processes that wait for work, and, when the store has failed under them, others.
function Isolated:close()
  local begun = core.clock()
  for _, child in ipairs(self.children) do
    while not may_end(child, core.clock() - begun) do
      core.await({ child.process }, LOOK_MS)
      if child.process:hear() == false then
        break
      end
    end
    child.process:stop()
  end
  for _, child in ipairs(self.waiting) do
    child.process:stop()
  end
  self.children, self.waiting = {}, {}
end

function Direct:close()
  self.leases = {}
end

return M
