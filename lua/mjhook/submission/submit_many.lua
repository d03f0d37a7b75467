--- Many jobs at once: one transaction that stores them, and slots filled side by side.
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local memory = require "mjhook.memory"
local submit = require "mjhook.submission.submit"
local view = require("mjhook.view").view

local M = {}

-- What one transaction takes. The store itself sets no limit here; but while it commits no other writer can, and all of
-- it lies in memory several times. 1,000 creations take some 10 ms: a callback can wait that long.
M.JOBS, M.BYTES = 1000, 4 * 1024 * 1024

-- Everything that can be wrong with a job is found before anything is stored.
local function check(mj, jobs)
  local records, results = {}, {}
  for i, args in ipairs(jobs) do
    local wrong = job.misuse(args)
    local err = wrong and core.error("invalid", wrong)
    if not wrong then
      records[i], err = job.record(mj, args)
    end
    results[i] = err and { error = err }
  end
  return records, results
end

local NONE = {}

-- The result of a job when memory ran out before it could be told.
local UNSURE = { error = memory.UNKNOWN }

local Jobs = {}
Jobs.__index = Jobs

-- Takes the records in portions for a transaction: their places in the list, and the operations.
function Jobs:portion(first)
  local places, ops, bytes, i = {}, {}, 0, first
  while i <= #self.jobs and #ops < M.JOBS and bytes < M.BYTES do
    local record = self.records[i]
    if record then
      places[#places + 1] = i
      ops[#ops + 1] = { op = "create", task = record, source = "user", want = true, brief = true }
      bytes = bytes + #record.prompt + #(record.context or "")
    end
    i = i + 1
  end
  return places, ops, i
end

-- What is known of a task now, in every place that it has in the list.
function Jobs:note(task)
  local places = self.places[task.ref]
  if not places then
    return -- another caller's, which has waited longer
  end
  self.waiting[task.ref] = task.state == "queued" or nil
  self.brief[task.ref] = nil
  task.requests = nil
  for n, i in ipairs(places) do
    local copy = task
    if n > 1 then
      copy = {}
      for k, v in pairs(task) do
        copy[k] = v
      end
    end
    copy.duplicate = self.results[i] and self.results[i].duplicate
    self.results[i] = copy
  end
end

function Jobs:untold(place, task, why)
  self.results[place] = { error = submit.untold(task, memory.error(why)) }
end

function Jobs:note_all(tasks)
  for _, task in ipairs(tasks) do
    self:note(task)
  end
end

function Jobs:created(i, result)
  local task, err = job.created(result, self.jobs[i])
  if not task then
    self.results[i] = { error = err }
    return
  end
  self.results[i] = task
  local places = self.places[task.ref] or {}
  self.places[task.ref] = places
  places[#places + 1] = i
  self.waiting[task.ref] = task.state == "queued" or nil
  self.brief[task.ref] = result.code == "ok" or nil
end

-- Stores the list. The last transaction claims, too: between two of them another one would, a dispatcher or another
-- process, and this call would not know what became of its jobs. Gives the claimed tasks and when they were claimed;
-- nil and an error when a transaction failed: what is behind it was not stored.
function Jobs:store()
  local i, claimed, start_by = 1, {}, nil
  while i <= #self.jobs do
    local places, ops, next_one = self:portion(i)
    local results, err = {}, nil
    if #ops > 0 then
      for _, place in ipairs(places) do
        self.results[place] = UNSURE -- now: once they are stored, no memory may be left for it
      end
      start_by = core.clock() + submit.STALL_MS
      local claims = next_one > #self.jobs and self.mj.config.connections or 0
      results, err = submit.claim(self.mj, ops, claims)
    end
    if not results then
      for k = i, #self.jobs do
        self.results[k] = self.results[k] ~= UNSURE and self.results[k] or { error = err }
      end
      return nil, err
    end
    self.stored = self.stored or #places > 0
    for n, place in ipairs(places) do
      local ok, why = pcall(self.created, self, place, results[n])
      if not ok then -- it is stored all the same
        pcall(self.untold, self, place, results[n].task, why)
      end
    end
    claimed = #places > 0 and err or claimed -- the second value of claim() is what it claimed
    i = next_one
  end
  return claimed, start_by
end

-- Those of the list that were claimed: should nothing be heard of them, this is what is known.
function Jobs:left(tasks)
  for _, task in ipairs(tasks) do
    for _, i in ipairs(self.places[task.ref] or {}) do
      self.results[i].state = "submitting"
      self.waiting[task.ref] = nil
    end
  end
end

-- How what is claimed is sent: more is claimed as long as jobs of the list are queued. It is made before anything is
-- stored: later there may be no memory for it.
function Jobs:how()
  return {
    claimed = function(tasks)
      self:left(tasks)
    end,
    sent = function(tasks)
      pcall(self.note_all, self, tasks) -- without memory for it they stay what they were
    end,
    more = function()
      return next(self.waiting) ~= nil
    end,
  }
end

-- Gives an error when the store failed.
local function send(mj, claimed, start_by, how)
  if #claimed > 0 then
    return select(2, submit.send(mj, claimed, start_by, how))
  end
end

-- Reads what is not known, or not all of it: what became of a job after it was stored.
function Jobs:look(ref)
  local task = self.mj.exec:read("get", ref)
  if task then
    self:note(view(task))
  end
end

function Jobs:look_again()
  for ref, places in pairs(self.places) do
    if self.waiting[ref] or self.brief[ref] then
      local ok, why = pcall(memory.insist, self.look, self, ref)
      for _, place in ipairs(ok and NONE or places) do
        self:untold(place, self.results[place], why)
      end
    end
  end
end

--- mj:submit_many, of a list.
function M.submit_many(mj, jobs)
  local records, results = check(mj, jobs)
  local list = setmetatable({ mj = mj, jobs = jobs, records = records, results = results, places = {}, waiting = {},
    brief = {} }, Jobs) -- refs of jobs of which only what is sent is known
  local how = list:how()
  local ok, claimed, err_or_start_by = pcall(list.store, list)
  if not ok then
    if not list.stored then
      error(claimed, 0) -- nothing is known of the first transaction
    end
    claimed, err_or_start_by = nil, memory.error(claimed)
  end
  if not claimed then
    pcall(list.look_again, list)
    return list.stored and results or nil, err_or_start_by
  end
  local sent, err = pcall(send, mj, claimed, err_or_start_by, how)
  pcall(list.look_again, list)
  return results, not sent and memory.error(err) or err
end

return M
