--- A turn of handlers in one process or thread: while the handlers of one event wait for an answer, those of the next
-- begin. Each event's handlers run in a coroutine, one after another, as if they were alone; only a request that
-- perform() makes lets others go on.
--
-- Code that blocks in another way holds up all events of the turn, so the pool watches how long it does.
local core = require "mjhook.core"
local interpreted = require "mjhook.interpreted"

--- Requests that a turn has in the air, at most; and while it does not know its receivers.
local M = { WIDTH = 16, FIRST = 2 }

local MAX_ANSWER = 1048576 -- bytes
local PROMPT_MS = 100      -- an answer within this time never makes the window narrower
local LOOK_MS = 2          -- how long events are begun while answers may be there
local STALLED_MS = 1000    -- a request without an answer for so long keeps no event from another receiver
local SPARE_MS = 60000     -- libcurl's own limit of a request comes that much later than ours
local WAITS, ENDS = {}, {} -- what an event's coroutine yields

local Turn = {}
Turn.__index = Turn

local runs = setmetatable({}, { __mode = "k" }) -- by coroutine: {turn=, thread=, event=, and of its request ...}
local client, made = nil, 0                     -- one client of this Lua, and how many requests it had
local receivers, nreceivers = {}, 0             -- by URL

local function no_memory()
  return nil, core.error("no_memory", "out of memory for the answer", true)
end

-- In an event's coroutine: sends, and waits until go() has the answer.
local function await(run, http, request, ms)
  local turn = run.turn
  made = made + 1
  request.number = made
  run.ms, run.begun, run.deadline = ms, nil, nil
  turn.air[request.number] = run
  local ok, started, err = pcall(http.start, http, { request })
  if not (ok and started) then
    turn.air[request.number] = nil
    return nil, err or error(started, 0)
  end
  turn.flying = turn.flying + 1
  local watch = core.unwatch()
  coroutine.yield(WAITS)
  core.rewatch(watch)
  if not run.answer then
    return no_memory()
  end
  return run.answer
end

--- What perform() notes of a receiver: the same table for the same URL.
function M.receiver(url)
  if not receivers[url] then
    receivers[url], nreceivers = {}, nreceivers + 1
  end
  return receivers[url]
end

--- Makes one request and waits for its answer. Other events of the turn go on meanwhile, if the caller can wait: it
-- runs in a turn, not in a coroutine of its own, and below no C function.
-- @tparam table request see core.http; a new table
-- @tparam number ms how long its answer may take
-- @tparam table receiver see M.receiver()
-- @treturn table|nil the answer; nil and an error
function M.perform(request, ms, receiver)
  if not client then
    local err
    client, err = core.http { connections = M.WIDTH, max_answer = MAX_ANSWER }
    if not client then
      return nil, err
    end
  end
  local run = runs[coroutine.running() or false]
  request.timeout_ms = ms + SPARE_MS
  if run and coroutine.isyieldable() then -- luacheck: ignore 143
    run.receiver = receiver
    return await(run, client, request, ms)
  end
  local answers, err = client:perform({ request }, core.clock() + ms)
  if not answers and not err then
    return no_memory()
  end
  return answers and answers[1], err
end

--- @tparam table work with the functions
--   next(): the next event to begin, or nil;
--   run(event): runs its handlers, gives what they said;
--   done(event, ...): takes what run() gave;
--   at_hand(event, rested): this event's code goes on; nil: none does, the turn waits; `rested`: milliseconds that it
--   has waited
-- @tparam[opt] boolean alone the handlers may yield to the caller's caller: one event after another
function M.new(work, alone)
  return setmetatable({ work = work, air = {}, flying = 0, width = M.FIRST, idle = {}, all = {}, rested = 0,
                        looked_at = 0, alone = alone }, Turn)
end

-- How many requests a receiver can take, by its answer: as many as do not make it slower. One that works on one request
-- after another answers each of many later, and the last ones too late.
local function adapt(self, run, answer)
  local receiver, took = run.receiver, core.clock() - run.begun
  if self.width == 1 or took < (receiver.best or math.huge) then
    receiver.best = took
  end
  local pressed = answer.outcome ~= "answered" or answer.status == 429 or answer.status == 503
    or took > PROMPT_MS and took > 2 * receiver.best
  self.width = pressed and math.max(1, math.floor(self.width / 2)) or math.min(self.width + 1, M.WIDTH)
end

-- Goes on with a coroutine until its event waits or is done. Other values that the handlers yield are dropped.
local function go_on(run, event)
  local said
  repeat
    local ok
    ok, said = coroutine.resume(run.thread, event)
    if not ok then
      error(said, 0)
    end
  until said == WAITS or said == ENDS
  if said == ENDS then
    table.insert(run.turn.idle, run)
  end
end

-- A coroutine goes on with the next event by itself while nothing waits.
local function new_run(self)
  local run, work = { turn = self }, self.work
  run.thread = coroutine.create(function(event)
    while true do
      run.event, run.begun = event, nil
      work.done(event, work.run(event))
      event = self.flying == 0 and not run.begun and work.next() or coroutine.yield(ENDS)
    end
  end)
  runs[run.thread] = run
  self.all[#self.all + 1] = run.thread
  return run
end

--- Whether one more event may begin. With several receivers, one that does not answer holds back no event for another
-- until the turn has no place left; with one, all that waits is for that one.
function Turn:is_free()
  if self.flying < self.width or nreceivers < 2 or self.flying >= M.WIDTH then
    return self.flying < self.width
  end
  local now, young = core.clock(), 0
  for _, run in pairs(self.air) do
    young = young + (now - (run.begun or now) < STALLED_MS and 1 or 0)
  end
  return young < self.width
end

-- Begins events, as many as may be under way. True: there may be more of them.
local function begin(self)
  local stop_at = core.clock() + LOOK_MS
  while self:is_free() do
    local event = self.work.next()
    if event == nil then
      return false
    elseif self.alone then
      self.work.done(event, self.work.run(event))
    else
      go_on(table.remove(self.idle) or new_run(self), event)
    end
    if self.flying > 0 and core.clock() >= stop_at then
      return true
    end
  end
  return false
end

-- The time of a request counts from here on, where it is sent; not while code of other events blocks the turn.
local function first_deadline(self, now)
  local first, blocked = math.huge, now - self.looked_at > PROMPT_MS
  for _, run in pairs(self.air) do
    run.blocked = run.begun and blocked
    run.begun = run.begun or now
    run.deadline = math.max(run.deadline or now + run.ms, blocked and now + PROMPT_MS or 0)
    first = math.min(first, run.deadline)
  end
  return first
end

-- Waits until some requests have ended; gives their numbers.
local function land(self, until_ms)
  local landed, now = {}, core.clock()
  local first = math.min(until_ms, first_deadline(self, now), nreceivers > 1 and now + STALLED_MS or math.huge)
  self.work.at_hand(nil)
  client:wait(first)
  self.rested = self.rested + core.clock() - now
  self.work.at_hand(nil, core.clock() - now)
  now = core.clock()
  self.looked_at = now
  for number, run in pairs(self.air) do
    run.answer = client:take(number, now >= run.deadline and ("no answer within %g s"):format(run.ms / 1000) or nil)
    if run.answer ~= false then
      landed[#landed + 1] = number
    end
  end
  return landed
end

local function go(self, until_ms)
  local more = begin(self)
  if self.flying == 0 then
    return
  end
  for _, number in ipairs(land(self, more and 0 or until_ms)) do
    local run = self.air[number]
    self.air[number] = nil
    self.flying = self.flying - 1
    if run.answer and not run.blocked then
      adapt(self, run, run.answer)
    end
    self.work.at_hand(run.event)
    go_on(run)
  end
  self.work.at_hand(nil)
end

--- Begins what can begin, and goes on with what is under way until some of it has its answer, at the latest until
-- core.clock() is until_ms. Raises what run() or done() raises.
function Turn:go(until_ms)
  if self.alone then
    return go(self, until_ms) -- perhaps on nginx' event loop, whose code stays compiled
  end
  local ok, why = interpreted(pcall, go, self, until_ms)
  if not ok then
    error(why, 0)
  end
end

--- Ends what is under way: its events are not done.
function Turn:close()
  for number in pairs(self.air) do
    client:take(number, "its deliverer ends")
  end
  for _, thread in ipairs(self.all) do
    runs[thread] = nil -- LuaJIT does not collect what its own value refers to
  end
  self.air, self.idle, self.all, self.flying = {}, {}, {}, 0
end

return M
