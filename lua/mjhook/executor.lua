--- The blocking primitives, and nothing else that blocks:
--   commit(ops)                   a batch of operations in one durable transaction;
--   commit_each(ops)              the same in several transactions, where that lets other writers through
--   give_way()                    a rest between two commits of background work
--   callback(ref, attempt, body)  the same for one callback, as it came: it is read where it is committed
--   read(name, ...)               a look into the store
--   http(requests, deadline, air) requests to the provider: a batch, or those of a window (mjhook.window)
-- and a read that may have to look at many records:
--   read(method, argument)        what store:method(argument) gives
-- They take plain data and give plain data, so that they can be run here and now
-- (this file) or in another thread (resty.mjhook).  Flows reach them only through
-- an executor: a flow is written once and blocks no event loop.
local core = require "mjhook.core"
local memory = require "mjhook.memory"
local provider = require "mjhook.provider"
local stores = require "mjhook.stores"

local unpack = table.unpack or unpack

local Direct = {}
Direct.__index = Direct

local M = {}

-- The answer to a request that was sent, when there is no memory for what came.
local LOST = { outcome = "maybe_sent", error = "out of memory for the answer" }

-- What undoes an operation that took something for its caller; nil when there is nothing to undo. An event is due
-- again. A task that was claimed was not sent. No caller knows a task that was made without a key: it was told
-- that it was not stored, and may have asked for another one. One with a key is found when the caller tries again.
local function undoing(op, result, now)
  local task, event = result.task, result.event
  if result.code ~= "ok" then
    return nil
  elseif op.op == "take" and event then
    return { op = "retry", ref = event.ref, seq = event.seq, tries = event.tries, ["until"] = now }
  elseif op.op == "claim" and task then
    return { op = "signal", kind = "not_sent", source = "submit", ref = task.ref, attempt = task.attempt, wait_ms = 0,
             error_code = "not_sent", error = "the store was so slow that the caller did not wait: it was not sent" }
  elseif op.op == "create" and task and not (op.task.key or op.task_id) then
    return { op = "signal", kind = "cancel", source = "submit", ref = task.ref }
  end
end

--- Operations whose callers did not wait for the commit: `answer_by` is the core.clock() until which they do. Their
-- results become {code = "late"}. `wall`: the time by the store's clock.
-- @treturn table operations that hand back what they took: in the order in which they have to be stored
function M.late(ops, results, wall)
  local back, cancels, now = {}, {}, core.clock()
  for i, op in ipairs(ops) do
    if op.answer_by and op.answer_by < now then
      local undo = undoing(op, results[i], wall)
      local list = undo and undo.kind == "cancel" and cancels or back
      list[#list + 1] = undo
      results[i] = { code = "late" }
    end
  end
  for _, op in ipairs(cancels) do -- after its claim, if it was claimed, too
    back[#back + 1] = op
  end
  return back
end

--- The time by a store's clock, in milliseconds.
function M.now(store)
  return core.now() + store:skew()
end

--- An executor that does its work in the calling thread. It opens the store, and makes it when it is not there.
-- @treturn table|nil executor; nil and an error
function M.direct(config)
  local store, err = stores.open(config)
  if not store then
    return nil, err
  end
  return setmetatable({ config = config, store = store }, Direct)
end

--- @tparam table ops see mjhook.core's store:write
-- @treturn table|nil results in the order of ops, or nil and an error: then, and when it raises, nothing was stored,
-- unless err.code is "unsure", or err.unsure is true (see resty.mjhook.lane)
function Direct:commit(ops)
  self.written = #ops
  return self.store:write(ops, self:now())
end

-- While there are other writers, a batch holds the lock about so long. Syncing takes 0.3 to 0.8 ms of it, even if it is
-- short.
local HOLD_US, FEWEST = 1500, 16

--- Rests, if other processes want to write: between two commits of background work that makes many of them. A commit by
-- itself never rests, nor does a thread of nginx that commits callbacks.
-- @treturn number|nil microseconds that the last commit held up others; nil: there are none
function Direct:give_way()
  return self.store:give_way()
end

-- How many operations may be stored together now.
local function fitting(self, most)
  local held = self:give_way()
  local written = self.written or FEWEST -- nil: no commit() yet, only callbacks or notes
  return held and math.max(math.floor(written * HOLD_US / held), FEWEST) or most
end

--- Operations that need not be stored together: in one transaction, or, while others want to write, in several short
-- ones with rests between them, so that nothing else waits long.
-- @treturn table|nil results in the order of ops; or nil and an error: then what came before the failure is stored
function Direct:commit_each(ops)
  local results, first = {}, 1
  repeat
    local n = fitting(self, #ops)
    local part = first == 1 and n >= #ops and ops or { unpack(ops, first, math.min(first + n - 1, #ops)) }
    local stored, err = self:commit(part)
    if not stored then
      return nil, err
    elseif part == ops then
      return stored
    end
    for i, result in ipairs(stored) do
      results[first + i - 1] = result
    end
    first = first + #part
  until first > #ops
  return results
end

--- Wall-clock milliseconds by the clock of all processes that share the store: what is stored or compared with it.
function Direct:now()
  return M.now(self.store)
end

--- Calls a reading method of the store (see src/lua/store_read.c): get, find, by_key, page, stats, ...
-- @return what it gives
function Direct:read(name, ...)
  return self.store[name](self.store, ...)
end

--- Lets go of memory that was taken only to read quickly. Call it between the pages of a long walk.
function Direct:trim()
  self.store:trim()
end

--- Takes a lock that one process of all that share the store can hold: until unlock(), or its end.
-- @treturn boolean|nil true; nil and an error: "busy"
function Direct:lock(name)
  return self.store:lock(name)
end

function Direct:unlock()
  self.store:unlock()
end

--- @tparam string ref whose token it came with
-- @tparam number attempt
-- @tparam string body
-- @treturn string|nil the outcome's code, or "unreadable" and why; or nil and an error: then nothing was stored
function Direct:callback(ref, attempt, body)
  self.inbox = self.inbox or core.inbox()
  local number, err = self.inbox:put(ref, attempt, body)
  if not number then
    return nil, err
  end
  self.inbox:take()
  local results, outcomes, unreadable = self.store:write({}, self:now(), self.inbox)
  if not results then
    return nil, outcomes
  elseif unreadable then
    return "unreadable", unreadable[1]
  end
  return core.codes[outcomes:byte()]
end

-- ---- requests of a window ----

local NONE = {}

local function go_on(client, air, deadline)
  if air.withdraw then
    client:withdraw()
  end
  client:wait(math.min(air.until_ms, deadline or math.huge), air.rest_ms, air.low)
  client:collect(air.answers, LOST, deadline and core.clock() >= deadline and "out of time" or nil)
end

--- Starts requests of an air, and goes on with it: see http().
-- @tparam table complete requests as core.http takes them
-- @treturn table|nil no answers; nil and an error: nothing was started, and so when it raises
function M.fly(client, complete, air, deadline)
  air.open = true -- now: nothing may raise once something was started
  if #complete > 0 then
    local ok, err = client:start(complete)
    if not ok then
      return nil, err
    end
  end
  local ok, why = pcall(go_on, client, air, deadline)
  if not ok and not memory.is_out(why) then -- without memory, the next call gets the answers
    error(why, 0)
  end
  return NONE
end

--- Options of core.http().
function M.client_options(config)
  return { connections = config.connections, proxy = config.proxy, ca_file = config.ca_file }
end

--- Without an air it returns when all have an answer. With one it adds requests to those in the air, and returns when
-- some have ended; those that are left go on. An answer comes into air.answers, now or in a later call with that air.
-- @tparam table requests see provider.submit_request; with an air each has a `number`, of which there are no two
-- @tparam[opt] number deadline core.clock() at which what has no answer is cut off
-- @tparam[opt] table air {answers= (by number: false until there is one; true: it was withdrawn before it was begun;
-- the caller makes and removes the entries), withdraw= (whether to withdraw what waits for a connection), until_ms=
-- (core.clock()), rest_ms= (how long an answer may wait for others), low= (it does not if so few wait for a
-- connection), open= (becomes true: it takes more requests than there are connections)}
-- @treturn table|nil answers in the order of requests: with an air there may be none; or nil and an error: then, and
-- when it raises, nothing of `requests` was sent
function Direct:http(requests, deadline, air)
  local err
  if not self.client then
    self.client, err = core.http(M.client_options(self.config))
    if not self.client then
      return nil, err
    end
  end
  local complete = provider.complete(self.config, requests)
  if air then
    air.until_ms = math.min(air.until_ms, core.clock() + (self.look_ms or math.huge))
    return M.fly(self.client, complete, air, deadline)
  end
  local lost = {} -- made before anything is sent
  for i = 1, #requests do
    lost[i] = LOST
  end
  local answers
  answers, err = self.client:perform(complete, deadline)
  return answers or not err and lost or nil, err
end

--- Ends an air: what is in it is cut off.
function Direct:land(air)
  if next(air.answers) then
    self:http({}, 0, air)
  end
end

--- Nothing happens for a while, here.
function Direct.sleep(_, seconds)
  core.sleep(seconds)
end

function Direct:close()
  if self.client then
    self.client:close()
    self.client = nil
  end
  self.store:close()
end

return M
