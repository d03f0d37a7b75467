--- Many jobs at once: one transaction that stores them, and slots filled side by side.
local core = require "mjhook.core"
local job = require "mjhook.job"
local submit = require "mjhook.submit"

local M = {}

-- What one transaction takes. The store itself sets no limit here; but while it commits nobody else can, and all of
-- it lies in memory several times. 1,000 creations take some 10 ms: a callback can wait that long.
M.JOBS, M.BYTES = 1000, 4 * 1024 * 1024

-- Everything that can be wrong with a job is found before anything is stored.
local function check(mj, jobs)
  local records, results = {}, {}
  for i, args in ipairs(jobs) do
    local wrong = job.problem("submit", args)
    local err = wrong and core.error("invalid", wrong)
    if not wrong then
      records[i], err = job.record(mj, args)
    end
    results[i] = err and { error = err }
  end
  return records, results
end

local Lot = {}
Lot.__index = Lot

-- Takes the records in portions for a transaction: their places in the list, and the operations.
function Lot:portion(first)
  local places, ops, bytes, i = {}, {}, 0, first
  while i <= #self.jobs and #ops < M.JOBS and bytes < M.BYTES do
    local record = self.records[i]
    if record then
      places[#places + 1] = i
      ops[#ops + 1] = { op = "create", task = record, source = "user", want = true }
      bytes = bytes + #record.prompt + #(record.context or "")
    end
    i = i + 1
  end
  return places, ops, i
end

-- What is known of a task now, in every place that it has in the list.
function Lot:note(task)
  local places = self.places[task.ref]
  if not places then
    return -- somebody else's, who has waited longer
  end
  self.waiting[task.ref] = task.state == "queued" or nil
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

function Lot:created(i, result)
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
end

-- Stores the lot. Gives an error when a transaction failed: what is behind it was not stored.
function Lot:store()
  local i = 1
  while i <= #self.jobs do
    local places, ops, next_one = self:portion(i)
    local results, err = {}, nil
    if #ops > 0 then
      results, err = self.mj.exec:commit(ops)
    end
    if not results then
      for k = i, #self.jobs do
        self.results[k] = self.results[k] or { error = err }
      end
      return err
    end
    self.stored = self.stored or #ops > 0
    for n, result in ipairs(results) do
      self:created(places[n], result)
    end
    i = next_one
  end
end

-- Claims and sends, as many at a time as there are connections: what is claimed has to leave at once.
-- Gives an error when the store failed.
function Lot:send()
  local tried, again = {}, false
  -- A policy may have a refused task sent again at once: once is enough for one call.
  while next(self.waiting) and not again do
    local start_by = core.clock() + submit.STALL_MS
    local results, claimed = submit.claim(self.mj, {}, self.mj.config.connections)
    if not results then
      return claimed
    elseif #claimed == 0 then
      return nil
    end
    for _, task in ipairs(claimed) do
      again = again or tried[task.ref]
      tried[task.ref] = true
      self:note(task)
    end
    local sent, err = submit.send(self.mj, claimed, start_by)
    if not sent then
      return err
    end
    for _, task in ipairs(sent) do
      self:note(task)
    end
  end
end

--- mj:submit_many, of a list.
function M.submit_many(mj, jobs)
  local records, results = check(mj, jobs)
  local lot = setmetatable({ mj = mj, jobs = jobs, records = records, results = results, places = {}, waiting = {} },
    Lot)
  local err = lot:store()
  if err and not lot.stored then
    return nil, err
  end
  return results, err or lot:send()
end

return M
