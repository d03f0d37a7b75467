--- Where the policy's handlers run: here, or in processes of their own that may hang and crash. Either way several
-- events may be under way, see mjhook.delivery.turn.
--
-- Both kinds have the same functions:
--   raw               whether leases are to have their records as they are stored
--   room()            how many events it can take now
--   start(leases)     takes them
--   idle()            has nothing at hand
--   wait(stop_at)     runs or waits; gives {{lease=, handled=, reason=, how=, files=}}; one without `handled` was not
--                     run after all
--   renew()           the policy's functions are other ones: what has not begun is run with them
--   close()           ends what still runs
local core = require "mjhook.core"
local handling = require "mjhook.delivery.handling"
local processes = require "mjhook.delivery.processes"
local sizes = require "mjhook.delivery.size"
local turns = require "mjhook.delivery.turn"

--- SLOW_MS: an event that waits behind a handler for so long goes to another process or thread.
-- HOLD_MS: a handler that submits when its time is over may go on for so long: two rounds of requests, 30 s each, and
-- what is stored between them.
local M = { SLOW_MS = 100, HOLD_MS = 90000 }

local STORE_MS = 5 -- how long outcomes, and events that are due, wait while requests are in the air
local LOOK_MS = 50 -- the same while events wait that were taken, or when none was due a moment ago

local Direct = {}
Direct.__index = Direct

-- Whether handlers may yield to code that knows nothing of a turn: nginx, or the program that called deliver().
local function among_others(mj)
  local thread, main = coroutine.running()
  return mj.on_event_loop or thread ~= nil and not main
end

--- @tparam[opt] string queue the name of a core.workqueue: another thread takes back from it what a slow handler
-- has not begun, with M.taken_back
function M.direct(mj, queue)
  local self = setmetatable({ mj = mj, size = 1, leases = {}, at = 0, out = {}, queue = queue and core.workqueue(queue),
                              stop_at = math.huge }, Direct)
  self.turn = turns.new({
    next = function() return self:next() end,
    run = function(lease) return handling.handle(mj, lease) end,
    done = function(lease, handled, reason, how, files)
      self.out[#self.out + 1] = { lease = lease, handled = handled, reason = reason, how = how, files = files }
    end,
    at_hand = function() end,
  }, among_others(mj))
  return self
end

function Direct:next()
  if self.at < #self.leases and core.clock() < self.stop_at and not self.mj.stopping()
    and (not self.queue or self.queue:begin()) then
    self.at = self.at + 1
    return self.leases[self.at]
  end
  while self.at < #self.leases do
    self.at = self.at + 1
    self.out[#self.out + 1] = { lease = self.leases[self.at] }
  end
end

function Direct:room()
  local flying = self.turn.flying
  if self.at < #self.leases or not self.turn:is_free() then
    return 0
  end
  return flying == 0 and self.size or sizes.beside(self.size, flying)
end

function Direct:start(leases)
  self.leases, self.at, self.fresh = leases, 0, true
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
  return self.at == #self.leases and self.turn.flying == 0
end

function Direct:wait(stop_at)
  local turn, begun = self.turn, core.clock()
  local rested = turn.rested
  self.stop_at = stop_at
  repeat
    local soon = #self.out > 0 or self.fresh
    local until_ms = begun + (soon and self.at == #self.leases and STORE_MS or LOOK_MS)
    local now = core.clock()
    turn:go(now < until_ms and until_ms or now + LOOK_MS) -- later: no place is free until an answer comes
  until self:idle() or core.clock() >= until_ms and (#self.out > 0 or turn:is_free())
  self.fresh = false
  local out, took = self.out, core.clock() - begun
  self.out = {}
  if #out > 0 then
    self.size = sizes.grown(self.size, (took - turn.rested + rested) / #out, took / #out)
  end
  return out
end

function Direct.renew() end -- each event asks for the functions as they are

function Direct:close()
  self.turn:close()
  self.leases, self.at = {}, 0
end

--- Handlers in processes of their own.
function M.isolated(mj)
  return processes.new(mj, M)
end

return M
