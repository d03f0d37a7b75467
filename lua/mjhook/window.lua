--- A rolling window of requests to the provider: as many in the air as connections allow. What has ended is stored
-- while the others go on, so one slow answer holds back no other request.
--
-- Submissions and polls are its two uses. What to send and what to store is the work's; when, is decided here:
--   a request begins as soon as a connection is free and an item is ready: the HTTP client is given more than it has
--   connections for, if the work has them, so it begins the next ones while the store commits;
--   what has ended is stored in one transaction: at once, if nothing is left in the air, if it is as much as the work
--   wants in one, or if the transaction can bring more to send and few wait for a connection; else within 5 ms.
-- No transaction spans a request: the store commits between two looks at the air.
local core = require "mjhook.core"
local memory = require "mjhook.memory"

local M = {}

--- How long an answer waits for others to be stored with it, at most (milliseconds).
M.STORE_MS = 5

local FEW_MS = 1 -- the same while a connection is idle for want of more to send
local TRIES = 3 -- of a step that memory runs out for

--- Makes an item of a window. What happens to it later takes no memory.
-- @return a table for the work's own fields, too: request (false, or a number while it is in the air), ended
function M.item(fields)
  fields.request, fields.ended = false, false
  return fields
end

local numbers = 0 -- of requests so far
local NUMBERS = 2 ^ 30

-- A number that no other request has that is under way.
local function next_number()
  numbers = numbers % NUMBERS + 1
  return numbers
end

-- Begins items that are ready, and goes on with what is in the air until some of it has ended.
local function exchange(self, ready)
  local answers, requests = self.air.answers, {}
  for i, item in ipairs(ready) do
    requests[i] = self.work:request(item)
    requests[i].number = next_number()
    answers[requests[i].number] = false
  end
  local ok, given, err = pcall(self.mj.exec.http, self.mj.exec, requests, self.work.deadline, self.air)
  if not ok or not given then -- none of these was sent
    for _, request in ipairs(requests) do
      answers[request.number] = nil
    end
  end
  if not ok then
    error(given, 0)
  end
  self.misses = given and 0 or self.misses + 1
  for i, item in ipairs(ready) do
    if given then
      item.request = requests[i].number
      self.flying = self.flying + 1
      answers[item.request] = given[i] or answers[item.request]
    else
      self.work:read(item, nil, err)
    end
  end
  if self.misses == TRIES then
    self.mj.exec:land(self.air)
  end
end

local function read_answers(self)
  for _, item in ipairs(self.work.items) do
    local answer = item.request and self.air.answers[item.request]
    if answer then
      self.air.answers[item.request] = nil
      item.request = false
      self.flying = self.flying - 1
      if answer ~= true then -- true: withdrawn, so it is ready again
        self.work:read(item, answer)
      end
    end
  end
end

-- Whether what has ended is stored at once. `waiting`: how many requests wait for a connection; negative: how many
-- connections are idle. `more`: there is something to claim.
local function is_due(self, waiting, more)
  local work = self.work
  if work.ended >= (work.enough or math.huge) or self.flying == 0 and not work:is_ready() then
    return true
  end
  return more and waiting <= self.air.low and (waiting >= 0 or work.ended > self.flying)
end

-- When what has ended is to be stored (core.clock()), and how long until then the air may be left alone.
local function plan(self)
  local air, work = self.air, self.work
  local waiting = self.flying - self.mj.config.connections
  local more = not work:is_ready() and work:wants_more()
  local time = math.huge
  air.low = more and work.low or 0
  air.rest_ms = M.STORE_MS
  if self.since then
    time = is_due(self, waiting, more) and 0 or self.since + (waiting < 0 and more and FEW_MS or M.STORE_MS)
  end
  air.until_ms = math.min(time, work.begin_by and core.clock() < work.begin_by and work.begin_by or math.huge)
  return time
end

-- One turn of the window. False: nothing is left.
local function step(self)
  local connections = self.mj.config.connections
  local room = self.work.low and self.air.open and math.huge or connections - self.flying
  local ready = self.work:ready(room, math.min(self.flying, connections))
  self.air.withdraw = self.work.halted and self.flying > connections
  if self.flying + #ready > 0 then
    exchange(self, ready)
    read_answers(self)
  end
  if self.work.ended > 0 then
    self.since = self.since or core.clock()
  end
  if core.clock() >= plan(self) then
    self.work:store(core.clock() < self.since + M.STORE_MS)
    self.since = nil
    plan(self)
  end
  return #self.work.items > 0 or self.work.more
end

--- Runs a window until nothing is left of its work.
-- @tparam table mj
-- @tparam table work with the fields items (a list of M.item(); those that have ended stay until they are stored),
-- ended (how many have), enough (so many are stored without waiting for more; nil: it does not matter), more (whether
-- ready() may find more items than these), deadline (core.clock() at which what is in the air is cut off, or nil),
-- begin_by (core.clock() at which ready() is to look again, or nil), low (if all that is ready may wait for a
-- connection: when so few do, more is wanted), halted (what waits for a connection is not to be begun), and the methods
--   ready(room, flying): gives a list of the items to begin now, at most `room`; marks as ended what will not be sent;
--   `flying`: how many requests use a connection;
--   is_ready(): whether it would give some;
--   request(item): gives the request, a new table of plain data;
--   read(item, answer, err): takes the answer, or the reason why it was not sent, and marks the item as ended;
--   wants_more(): whether store() may bring more items;
--   store(hurried): stores what has ended in one transaction, takes it out of items, and adds more items; `hurried`:
--   sooner than it need be, since little was left to send;
--   halt(): memory ran out: nothing more is to be begun.
-- Items that have a request do not move. A step that raises for want of memory is made again.
function M.run(mj, work)
  local self = { mj = mj, work = work, air = { answers = {} }, flying = 0, misses = 0 }
  local tries = 0
  plan(self)
  repeat
    local ok, more = pcall(step, self)
    if ok then
      tries = 0
    else
      tries = tries + 1
      if not memory.is_out(more) or tries == TRIES then
        mj.exec:land(self.air)
        error(more, 0)
      end
      work:halt()
      collectgarbage()
      more = true
    end
  until not more
  mj.exec:land(self.air)
end

return M
