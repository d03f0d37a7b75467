--- A rolling window of requests to the provider: as many in the air as connections allow. What has ended is stored
-- while the others go on, so one slow answer holds back no other request.
--
-- Submissions and polls are its two uses. What to send and what to store is the work's; when, is decided here:
--   a request begins as soon as a connection is free and an item is ready;
--   what has ended is stored in one transaction, 5 ms after the first of it at the latest; sooner, if a connection is
--   idle and the transaction can bring more to send; at once, if nothing is left in the air, or if it is as much as the
--   work wants in one transaction.
-- No transaction spans a request: the store commits between two looks at the air.
local core = require "mjhook.core"
local memory = require "mjhook.memory"

local M = {}

--- How long an answer waits for others to be stored with it, at most (milliseconds).
M.STORE_MS = 5

local FEW_MS = 1 -- the same while a connection is idle for want of more to send
local TRIES = 3 -- of a step that memory runs out for

--- Makes an item of a window. What happens to it later takes no memory.
-- @return a table for the work's own fields, too: request (false until it is begun), ended
function M.item(fields)
  fields.request, fields.ended = false, false
  return fields
end

-- Begins items that are ready, and goes on with what is in the air until some of it has ended.
local function exchange(self, ready)
  local air, requests = self.air, {}
  for i, item in ipairs(ready) do
    requests[i] = self.work:request(item)
    air.answers[requests[i]] = false
  end
  local ok, answers, err = pcall(self.mj.exec.http, self.mj.exec, requests, self.work.deadline, air)
  if not ok then -- none of these was sent
    for _, request in ipairs(requests) do
      air.answers[request] = nil
    end
    error(answers, 0)
  end
  self.misses = answers and 0 or self.misses + 1
  for i, item in ipairs(ready) do
    if answers then
      item.request = requests[i]
      self.flying = self.flying + 1
      air.answers[item.request] = answers[i] or air.answers[item.request]
    else
      air.answers[requests[i]] = nil
      self.work:read(item, nil, err)
    end
  end
  if self.misses == TRIES then
    self.mj.exec:land(air)
  end
end

local function read_answers(self)
  for _, item in ipairs(self.work.items) do
    local answer = item.request and self.air.answers[item.request]
    if answer then
      self.air.answers[item.request] = nil
      item.request = false
      self.flying = self.flying - 1
      self.work:read(item, answer)
    end
  end
end

-- When what has ended is to be stored (core.clock()).
local function store_time(self)
  local idle = self.flying < self.mj.config.connections and not self.work:is_ready()
  if not self.since then
    return math.huge
  elseif self.work.ended >= (self.work.enough or math.huge) or idle and self.flying == 0 then
    return 0
  elseif idle and self.work:wants_more() then
    return self.work.ended > self.flying and 0 or self.since + FEW_MS
  end
  return self.since + M.STORE_MS
end

-- One turn of the window. False: nothing is left.
local function step(self)
  local ready = self.work:ready(self.mj.config.connections - self.flying, self.flying)
  if self.flying + #ready > 0 then
    exchange(self, ready)
    read_answers(self)
  end
  if self.work.ended > 0 then
    self.since = self.since or core.clock()
  end
  self.air.until_ms = store_time(self)
  if core.clock() >= self.air.until_ms then
    self.work:store(core.clock() < self.since + M.STORE_MS)
    self.since, self.air.until_ms = nil, math.huge
  end
  return #self.work.items > 0 or self.work.more
end

--- Runs a window until nothing is left of its work.
-- @tparam table mj
-- @tparam table work with the fields items (a list of M.item(); those that have ended stay until they are stored),
-- ended (how many have), enough (so many are stored without waiting for more; nil: it does not matter), more (whether
-- ready() may find more items than these), deadline (core.clock() at which what is in the air is cut off, or nil), and
-- the methods
--   ready(room, flying): gives a list of the items to begin now, at most `room`; marks as ended what will not be sent;
--   `flying`: how many requests are in the air;
--   is_ready(): whether it would give some;
--   request(item): gives the request, a new table of plain data;
--   read(item, answer, err): takes the answer, or the reason why it was not sent, and marks the item as ended;
--   wants_more(): whether store() may bring more items;
--   store(hurried): stores what has ended in one transaction, takes it out of items, and adds more items; `hurried`:
--   sooner than after 5 ms, since a connection was idle;
--   halt(): memory ran out: nothing more is to be begun.
-- Items that have a request do not move. A step that raises for want of memory is made again.
function M.run(mj, work)
  local self = { mj = mj, work = work, air = { answers = {}, until_ms = math.huge }, flying = 0, misses = 0 }
  local tries = 0
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
