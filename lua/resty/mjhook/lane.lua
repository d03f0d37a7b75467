--- A lane: operations and callbacks of a worker that are committed in the order in which they came.
--
-- All that wait share the next transaction. Callbacks go into an inbox, which the committing thread empties when it
-- begins, not when it was called: so while it is at work the next call already stands behind it, and what comes until
-- that begins is in its transaction. One commit at a time, on a database with many writers, too: two of half the size
-- cost more processor time, and at 64 connections stored less.
local core = require "mjhook.core"
local guard = require "resty.mjhook.guard"
local semaphore = require "ngx.semaphore"

--- COMMIT_WAIT_S: how long a caller waits for a commit; then it hears 503. Specs shorten it.
local M = { POOL = "mjhook", COMMIT_WAIT_S = 30 }

local BEGIN_S = 1 -- by when a timer has begun that nginx did not drop
local OWED_S = 1  -- between two tries to store what is owed

local Lane = {}
Lane.__index = Lane

local CALLS = 2 -- under way at a time: one that a thread works on, and one behind it

--- @tparam table exec the worker's executor: in_thread(), queued (how many wait), queue_max, committed()
-- @tparam string id names the inbox, which the thread finds by it
function M.new(exec, id)
  return setmetatable({
    exec = exec, id = id,
    inbox = core.inbox(id), groups = {}, -- callbacks that wait, by the number of their batch in the inbox
    newest = 0, called = 0, -- the newest batch in the inbox with something in it; the one that a call will take
    runners = 0, owed = {},
  }, Lane)
end

local function new_group()
  return { waiters = 0, wake = semaphore.new() }
end

-- Each waiting request of the group receives its result, or the error.
local function settle(self, group, err)
  group.err = err
  group.done = true
  self.exec.queued = self.exec.queued - group.waiters
  group.wake:post(group.waiters)
end

local function settle_callbacks(self, number, err, outcomes, unreadable)
  local group = self.groups[number]
  self.groups[number] = nil
  if group then
    group.outcomes, group.unreadable = outcomes, unreadable
    settle(self, group, err)
  end
end

local function settle_all(self, err)
  for number in pairs(self.groups) do
    settle_callbacks(self, number, err)
  end
end

local function append(list, more)
  for _, item in ipairs(more) do
    list[#list + 1] = item
  end
  return list
end

-- What a thread could not hand back is stored with the next commit. It is kept only while it is certain that it was not
-- stored: a task that is handed back twice may be under way to the provider again.
local commit_next

local function owe(self, ops)
  self.owed = append(self.owed, ops)
  if not self.paying then
    self.paying = ngx.timer.at(OWED_S, function()
      self.paying = false
      commit_next(self)
    end) and true or false
  end
end

local UNCERTAIN = { internal = true, unsure = true }

-- One transaction: the batch of operations that was gathered, and what is in the inbox when the thread comes to it.
-- Gives whether the provider's word was in it, and how many queued jobs may be sent.
local function commit_in_thread(self, batch)
  local owed, ops = self.owed, batch and batch.ops or {}
  if #owed > 0 then
    self.owed, ops = {}, append(append({}, ops), owed)
  end
  local ran, results, err, number, outcomes, unreadable, more = pcall(self.exec.in_thread, self.exec, M.POOL, "commit",
    ops, self.id)
  if not ran then
    results, err, number = nil, core.error("internal", tostring(results), true), nil
  end
  if batch then
    batch.results = results
    settle(self, batch, err)
  end
  if number then
    settle_callbacks(self, number, err, outcomes, unreadable)
  elseif number == nil then -- the thread said nothing: no request is to wait for another one's call
    settle_all(self, err)
    self.inbox:take() -- drops what failed; otherwise the inbox grows with every call that dies
  end
  local owes = more and more.owed
  if owes or #owed > 0 and err and not UNCERTAIN[err.code] then
    owe(self, owes or owed)
  end
  return results and (number or batch and batch.heard), more and more.ready
end

local BROKEN = core.error("internal", "the commit failed: see the error log", true)

function commit_next(self)
  local batch, told, heard_of, ready = self.batch, false, false, nil
  self.batch, self.called = nil, self.newest
  guard("a commit", function()
    if not told and batch and not batch.done then
      settle(self, batch, BROKEN)
    end
    if not told then
      settle_all(self, BROKEN)
    end
  end, function()
    heard_of, ready = commit_in_thread(self, batch)
    told = true
  end)
  if heard_of then
    guard("what follows a commit", function() end, self.exec.committed, ready)
  end
end

--- Lets the thread make its Lua VM and open the store before the first callback comes. What came all the same is
-- committed: a call that takes it has to tell the requests that wait.
function Lane:warm_up()
  commit_next(self)
end

local function has_work(self)
  return self.batch or self.newest > self.called
end

-- Commits as long as there is something. Between the last look and the end nothing yields, so that nothing is left.
-- With a group: until that is done, too.
local function run(_, self, group)
  self.starting, self.runners = false, self.runners + 1
  while has_work(self) and not (group and group.done) do
    commit_next(self)
  end
  self.runners = self.runners - 1
end

-- A timer commits, if there is one to be had.
local function start(self)
  if not self.starting and self.runners < CALLS and has_work(self) then
    self.starting = ngx.timer.at(0, run, self) and true or false
  end
end

-- `unsure`: it may be stored yet.
local function too_slow()
  local err = core.error("io", ("the store did not commit within %g s"):format(M.COMMIT_WAIT_S), true)
  err.unsure = true
  return err
end

-- Waits until the group's transaction is on disk. True, or nil and an error.
local function wait(self, group)
  group.waiters = group.waiters + 1
  self.exec.queued = self.exec.queued + 1
  start(self)
  if self.starting or self.runners > 0 then
    group.wake:wait(BEGIN_S)
  end
  -- Nothing has begun: nginx drops timers when lua_max_running_timers of them run. Then this request commits, its own
  -- group and no other.
  if not group.done and self.runners == 0 then
    run(false, self, group)
    start(self)
  end
  if not group.done and not group.wake:wait(M.COMMIT_WAIT_S) and not group.done then
    return nil, too_slow()
  end
  return not group.err or nil, group.err
end

--- Joins the batch that is being gathered and waits until it is on disk. See executor's commit().
function Lane:commit(ops)
  local batch = self.batch
  if not batch then
    batch = new_group()
    batch.ops = {}
    self.batch = batch
  end
  local first, answer_by = #batch.ops, core.clock() + M.COMMIT_WAIT_S * 1000
  for i, op in ipairs(ops) do
    batch.ops[first + i] = op
    op.answer_by = answer_by -- what it takes after that is handed back
    -- The provider's word may free a slot. What a submission stores is its own to go on with.
    batch.heard = batch.heard or op.source == "callback" or op.source == "poll"
  end
  local ok, err = wait(self, batch)
  if not ok then
    return nil, err
  end
  local results = {}
  for i = 1, #ops do
    results[i] = batch.results[first + i]
    if results[i].code == "late" then
      return nil, too_slow()
    end
  end
  return results
end

--- Puts a callback into the inbox and waits until it is on disk. See executor's callback().
function Lane:callback(ref, attempt, body)
  local number, index = self.inbox:put(ref, attempt, body)
  if not number then
    return nil, index
  end
  local group = self.groups[number]
  if not group then
    group = new_group()
    self.groups[number], self.newest = group, number
  end
  local ok, err = wait(self, group)
  if not ok then
    return nil, err
  end
  local why = group.unreadable and group.unreadable[index]
  if why then
    return "unreadable", why
  end
  return core.codes[group.outcomes:byte(index)]
end

return M
