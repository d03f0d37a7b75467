--- Jobs that were put into the database by its own means, SELECT mjhook.enqueue(...), become tasks: as submit() would
-- have made them, once each, whichever process comes to them.
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local json = require "mjhook.json"

local M = {}

local BATCH = 256

-- The arguments of submit() that a row stands for. What is NULL in SQL is not there.
local function arguments(text)
  local args, why = json.decode(text)
  if type(args) ~= "table" then
    return nil, core.error("invalid", "not a JSON object: " .. tostring(why or type(args)))
  end
  for name, value in pairs(args) do
    if value == json.null then
      args[name] = nil
    end
  end
  if args.context then
    args.context, why = json.keep(args.context)
    if why then
      return nil, core.error("invalid", "context: " .. why)
    end
  end
  local wrong = job.misuse(args)
  if wrong then
    return nil, core.error("invalid", wrong)
  end
  return args
end

local function refusal(row, err)
  return { op = "refuse_intake", intake = row.name, error = err.message }
end

-- Trouble of this configuration is none of the job's: it waits until the configuration can send it. An account that is
-- not configured while others are is the job's: it must not hold up the jobs behind it.
local function is_ours(mj, err, args)
  return err.code == "config" and not (args and args.account and job.sendable(mj))
end

local function operation(mj, row)
  local args, err = arguments(row.job)
  local task
  if args then
    task, err = job.record(mj, args)
  end
  if task then
    return { op = "create", task = task, source = "user", intake = row.name, want = true }
  elseif is_ours(mj, err, args) then
    return nil, err
  end
  return refusal(row, err)
end

-- A key that was used with other arguments, and what else a record shows only when it is stored.
local function refusals(mj, rows, ops, results)
  local back = {}
  for i, result in ipairs(results) do
    if ops[i].op == "create" and result.code ~= "ok" and result.code ~= "duplicate" and result.code ~= "not_found" then
      local _, err = job.created(result, { key = ops[i].task.key })
      back[#back + 1] = refusal(rows[i], err)
    end
  end
  if #back > 0 then
    return mj.exec:commit(back)
  end
  return back
end

--- Takes in what waits.
-- @tparam table mj
-- @tparam[opt] function more whether to go on, asked between batches
-- @treturn number|nil how many tasks were made; nil and an error: the rows stay
-- @treturn number|nil how many rows were refused: each stays in the database with the reason
function M.take_in(mj, more)
  local made, refused = 0, 0
  repeat
    local rows, err = mj.exec:read("intake", BATCH)
    if not rows then
      return nil, err
    elseif #rows == 0 then
      break
    end
    local ops = {}
    for i, row in ipairs(rows) do
      ops[i], err = operation(mj, row)
      if not ops[i] then
        return nil, err
      end
    end
    local results, back
    results, err = mj.exec:commit(ops)
    if not results then
      return nil, err
    end
    back, err = refusals(mj, rows, ops, results)
    if not back then
      return nil, err
    end
    local gone = #back
    for i, result in ipairs(results) do
      gone = gone + ((result.code == "ok" or result.code == "duplicate") and 1 or 0)
      made = made + (ops[i].op == "create" and result.code == "ok" and 1 or 0)
      refused = refused + (ops[i].op == "refuse_intake" and result.code == "ok" and 1 or 0)
    end
    refused = refused + #back
    -- what an open transaction of a user has locked stays
  until #rows < BATCH or gone == 0 or more and not more()
  return made, refused
end

return M
