--- Handlers in processes of their own: see mjhook.delivery.pool.
local core = require "mjhook.core"
local handling = require "mjhook.delivery.handling"
local json = require "mjhook.json"
local parcel = require "mjhook.delivery.parcel"
local sizes = require "mjhook.delivery.size"
local turns = require "mjhook.delivery.turn"

local unpack = table.unpack or unpack

local M = {}

local MOST_OF_ONE = 4096 -- events of one process, which may leak
local MOST_GIVEN = 65536 -- bytes for a process that has something under way: as many as its socket takes at once
local LOOK_MS = 50
local SLACK_MS = 1000 -- for a handler that is interrupted to come back by itself, before its process is killed
local FAIR_MS = 5000 -- one that had so long and was cut off by the end of the budget has had its try

local Isolated = {}
Isolated.__index = Isolated

-- A child has the leases that are open, by number; `given`: how many it got so far; `low`: none below is open;
-- `heard`: when it last told of one; `marked`, `rested`, `counted`: since when, with how much waiting, and from how
-- many events on its speed is measured.
--- @tparam table limits SLOW_MS, HOLD_MS: see mjhook.delivery.pool
function M.new(mj, limits)
  local client = core.http {} -- libcurl is set up once here, rather than in each process whose handler makes a request
  if client then
    client:close()
  end
  return setmetatable({ mj = mj, limits = limits, size = 1, children = {}, waiting = {}, raw = true }, Isolated)
end

-- How many more events a child takes that is at work.
local function room_of(self, child)
  local may = child.hungry and not child.full and not child.relieved and child.given < MOST_OF_ONE
  return may and sizes.beside(self.size, child.open) or 0
end

-- When no process can be started, there is no point in taking more: those that run go on.
function Isolated:room()
  if self.denied then
    return 0
  end
  local room = (self.mj.config.handlers - #self.children) * self.size
  for _, child in ipairs(self.children) do
    room = room + room_of(self, child)
  end
  return room
end

function Isolated:idle()
  return #self.children == 0
end

function Isolated:fork(leases)
  local client = self.mj.exec.client
  local process, err = core.fork(handling.serve(self.mj, leases))
  self.mj.exec.client = client
  return process and { process = process, leases = {}, given = 0, open = 0, low = 0, rested = 0, counted = 0 }, err
end

local function note_given(child, leases)
  for _, lease in ipairs(leases) do
    child.leases[child.given] = lease
    child.given = child.given + 1
  end
  child.open = child.open + #leases
  child.handed, child.hungry = core.clock(), false
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
  note_given(child, leases)
  child.marked, child.full = child.handed, false
  self.children[#self.children + 1] = child
  return true
end

-- Gives leases to a process that has others in the air, as many as it can take without making this one wait. Gives
-- those that are left.
local function hand_over(child, leases)
  local mine, size = {}, 0
  for i, lease in ipairs(leases) do
    size = size + #parcel.pack { lease }
    if size > MOST_GIVEN then
      break
    end
    mine[i] = lease
  end
  child.full = #mine < #leases
  if #mine > 0 and child.process:give(parcel.pack(mine)) then
    note_given(child, mine)
    return { unpack(leases, #mine + 1) }
  end
  child.full = true
  return leases
end

-- They were not run after all.
function Isolated:hand_back(leases)
  self.unable = self.unable or {}
  for _, lease in ipairs(leases) do
    table.insert(self.unable, { lease = lease })
  end
end

function Isolated:deny(err)
  self.denied = err
  self.mj.log("error", ("events wait: %s"):format(err.message))
end

function Isolated:start(leases)
  local places, first = {}, 1
  for _, child in ipairs(self.children) do
    local room = room_of(self, child)
    if room > 0 then
      places[#places + 1] = { child = child, room = room }
    end
  end
  for _ = #self.children + 1, self.mj.config.handlers do
    places[#places + 1] = { room = self.size }
  end
  table.sort(places, function(a, b) return a.room < b.room end) -- what has no room here fits into those that follow
  for i, place in ipairs(places) do
    local share = math.min(place.room, math.ceil((#leases - first + 1) / (#places - i + 1)))
    local mine = { unpack(leases, first, first + share - 1) }
    first = first + share
    if #mine > 0 and place.child then
      self:hand_back(hand_over(place.child, mine))
    elseif #mine > 0 then
      local ok, err = nil, self.denied
      if not err then
        ok, err = self:hand_out(mine)
      end
      if not ok then
        self:hand_back(mine)
        if not self.denied then
          self:deny(err)
        end
      end
    end
  end
end

-- An event of a child is over, with this outcome.
local function over(child, out, piece, outcome)
  outcome.lease = child.leases[piece]
  out[#out + 1] = outcome
  child.leases[piece] = nil
  child.open = child.open - 1
end

-- The oldest event that a child has not ended; nil: there is none. Events are begun in order.
local function oldest(child)
  while child.low < child.given and not child.leases[child.low] do
    child.low = child.low + 1
  end
  return child.low < child.given and child.low or nil
end

-- How a child stands: how many events it has begun; the one that its code works on, nil: it waits for answers; the
-- oldest of those that can be blamed for its time, if it was begun; and since when.
local function state_of(child)
  local begun, at_hand, at = child.process:look()
  at_hand = at_hand and child.leases[at_hand] and at_hand or nil
  local piece = at_hand or oldest(child)
  local is_begun = piece and piece < begun
  return { begun = begun, at_hand = at_hand, piece = piece, at = math.max(at, child.handed),
           since = is_begun and child.process:since(piece) or child.handed }
end

-- A child is no more: an event that it had begun, or was to begin next, gets the outcome that blame(piece) gives; what
-- it had not begun was not run.
local function bury(child, out, state, blame)
  for piece = child.low, child.given - 1 do
    if child.leases[piece] then
      over(child, out, piece, (piece < state.begun or piece == state.piece) and blame(piece) or {})
    end
  end
end

local function ending(how)
  if how.signal then
    return ("its process was ended by signal %d (SIG%s)"):format(how.signal, how.name)
  end
  return ("its process exited with %d"):format(how.exit)
end

local function named(child, piece)
  return "on_" .. child.leases[piece].event.type
end

-- Whether events wait for those that a child has under way.
local function others_wait(child, state)
  return state.begun < child.given and not child.relieved
end

-- The events that a child has not begun are handed back; it begins no more.
local function take_back(child, out)
  child.relieved, child.hungry = true, false
  for piece = child.process:take_back(), child.given - 1 do
    if child.leases[piece] then
      over(child, out, piece, {})
    end
  end
end

-- The same for one whose events take long, so that those behind them need not wait.
local function relieve(self, child, out, at_hand)
  take_back(child, out)
  self.size = at_hand and 1 or math.max(1, math.min(child.open, turns.WIDTH))
end

-- How many events go to a process at once: by those that this one has ended since it was last measured.
local function measure(self, child)
  local _, _, _, rested = child.process:look()
  local now, ended = core.clock(), child.given - child.open
  local n = ended - child.counted
  if n > 0 then
    local took = now - child.marked
    self.size = sizes.grown(self.size, (took - (rested - child.rested)) / n, took / n)
    child.marked, child.rested, child.counted = now, rested, ended
  end
end

-- All that a child had to do is done. It stays for more when its handlers are quick and it has not had too many.
local function done(self, child)
  if self.size > 1 and child.given < MOST_OF_ONE and not child.relieved then
    self.waiting[#self.waiting + 1] = child
  else
    child.process:stop()
  end
end

-- A child has ended by itself.
local function ended(self, child, out)
  local state = state_of(child)
  local how = child.process:stop()
  if child.open == 0 then
    return
  end
  -- The event that its code worked on is to blame; when it only waited, each that it waited for may be.
  bury(child, out, state, function(piece)
    if not state.at_hand or piece == state.at_hand then
      return { handled = false, reason = ("%s: %s"):format(named(child, piece), ending(how)) }
    end
  end)
  self.size = 1
end

-- Hears what a child has to say. True when it has no more work.
local function hear(self, child, out)
  while true do
    local piece, message = child.process:hear()
    if piece == false then
      ended(self, child, out)
      return true
    elseif piece then
      child.heard = core.clock()
      if child.leases[piece] then -- a handler that forks may talk for two
        over(child, out, piece, message == nil and { handled = true } or json.decode(message)
          or { handled = false, reason = "its process talked nonsense" })
      end
    elseif message then
      child.hungry = message == child.given -- or it has not seen yet what it was given
      if child.hungry then
        measure(self, child)
      end
    else
      break
    end
  end
  if child.hungry and child.open == 0 then
    done(self, child)
    return true
  end
  return false
end

-- Whether a child that is late by so many milliseconds can be ended: not while it sends or stores.
local function may_end(self, child, late)
  return child.process:forbid() or late > self.limits.HOLD_MS
end

-- Ends a child whose handler is too slow, or when the time for all is over. True when it did.
local function cut(self, child, out, state, now, stop_at)
  local timeout = self.mj.config.handler_timeout
  -- An event that has its answer can't go on while another one's code blocks: it has SLACK_MS after that one's end.
  local late = now - math.max(state.since + timeout * 1000, child.heard or 0) - SLACK_MS
  local after = now - stop_at - (state.at_hand and 0 or SLACK_MS) -- what is in the air may be answered in a moment
  if now >= stop_at and not child.relieved then
    relieve(self, child, out, state.at_hand)
  end
  if late <= 0 and after < 0 or not may_end(self, child, math.max(late, after)) then
    return false
  end
  local ran = {}
  for piece = child.low, child.given - 1 do
    local since = child.leases[piece] and child.process:since(piece) or 0
    ran[piece] = now - (since > 0 and since or child.handed)
  end
  child.process:stop()
  bury(child, out, state, function(piece)
    if state.at_hand and piece ~= state.at_hand then
      return nil
    elseif late > 0 and (piece == state.piece or ran[piece] > timeout * 1000 + SLACK_MS) then
      return { handled = false, reason = ("%s was killed: took longer than handler_timeout (%s s)"):format(
        named(child, piece), timeout) }
    elseif late <= 0 and ran[piece] >= FAIR_MS then
      return { handled = false, reason = ("%s was killed: after %.1f s the sweep's budget was over"):format(
        named(child, piece), ran[piece] / 1000) }
    end
  end)
  self.size = 1
  return true
end

-- Until one of the children has something to say, or is to be looked at: milliseconds.
local function patience(self, now, stop_at)
  local least, processes = math.min(stop_at - now, 1000), {} -- whether to stop is asked in between
  for i, child in ipairs(self.children) do
    local state = state_of(child)
    processes[i] = child.process
    least = math.min(least, state.since + self.mj.config.handler_timeout * 1000 + SLACK_MS - now,
      others_wait(child, state) and state.at + self.limits.SLOW_MS - now or math.huge,
      not state.at_hand and child.open > 0 and LOOK_MS or math.huge) -- it has answers to tell of
  end
  return processes, math.max(LOOK_MS, least) -- a child that may not be ended yet is looked at again soon
end

function Isolated:wait(stop_at)
  local out, left = self.unable or {}, {}
  self.unable = nil
  if #out > 0 then
    return out
  end
  core.await(patience(self, core.clock(), stop_at))
  local now = core.clock()
  for _, child in ipairs(self.children) do
    if not hear(self, child, out) then
      local state = state_of(child)
      if not cut(self, child, out, state, now, stop_at) then
        left[#left + 1] = child
        if others_wait(child, state) and now - state.at >= self.limits.SLOW_MS then
          relieve(self, child, out, state.at_hand)
        end
      end
    end
  end
  self.children = left
  return out
end

--- Processes that were forked with the functions from before begin no more events.
function Isolated:renew()
  self.unable = self.unable or {}
  for _, child in ipairs(self.children) do
    take_back(child, self.unable)
  end
  for _, child in ipairs(self.waiting) do
    child.process:stop()
  end
  self.waiting = {}
end

--- Ends what still runs: processes that wait for work, and, when the store has failed under them, others.
function Isolated:close()
  local begun = core.clock()
  for _, child in ipairs(self.children) do
    while not may_end(self, child, core.clock() - begun) do
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

return M
