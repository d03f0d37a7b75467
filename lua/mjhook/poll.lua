--- Asking the provider about tasks, many in one request.
local core = require "mjhook.core"
local provider = require "mjhook.provider"

local M = {}

-- The ids of a task that are still worth asking about: those of its open attempts, else of the current one.
local function ids_of(mj, task)
  local ids = {}
  for n, a in ipairs(task.attempts) do
    local open = a.slot_until or n == #task.attempts
    for _, id in ipairs(open and a.task_ids or {}) do
      -- An attempt that a callback told of before it was ever sent has no account of its own.
      ids[#ids + 1] = { id = id, attempt = n, account = a.account or task.account or mj.config.accounts[1].name }
    end
  end
  return ids
end

-- Splits what is to be asked into requests: one account each, at most `batch` ids. All that is asked about one
-- attempt goes into one request, so that an answer can tell that it knows nothing of it.
local function plan(mj, tasks)
  local groups, order = {}, {}
  local function room_for(name, n)
    local group = groups[name]
    if not group or #group.ids + n > mj.config.batch then
      group = { account = name, ids = {}, entries = {} }
      groups[name] = group
      order[#order + 1] = group
    end
    return group
  end
  for _, task in ipairs(tasks) do
    local entry
    for _, asked in ipairs(ids_of(mj, task)) do
      if not entry or entry.attempt ~= asked.attempt then
        local group = room_for(asked.account, #task.attempts[asked.attempt].task_ids)
        entry = { task = task, attempt = asked.attempt, ids = {} }
        group.entries[#group.entries + 1] = entry
        entry.group = group
      end
      entry.ids[#entry.ids + 1] = asked.id
      entry.group.ids[#entry.group.ids + 1] = asked.id
    end
  end
  return order
end

local function wait_for(mj, task, kind)
  if (kind == "running" or kind == "absent") and mj.policy:decides "next_poll" then
    return (select(2, mj.policy:decide("next_poll", task, core.now())))
  end
end

local function word_op(mj, task, word, source)
  return {
    op = "signal", ref = task.ref, kind = word.kind, source = source, task_id = word.task_id,
    image = word.image, images = word.images, mj_prompt = word.mj_prompt, meta = word.meta, remark = word.remark,
    error_code = word.error_code, error = word.error, wait_ms = wait_for(mj, task, word.kind),
  }
end

-- What one answered request says of its tasks.
local function read_group(mj, group, words, ops)
  local known = 0
  for _, id in ipairs(group.ids) do
    known = known + (words[id] and 1 or 0)
  end
  for _, entry in ipairs(group.entries) do
    local said = 0
    for _, id in ipairs(entry.ids) do
      if words[id] then
        ops[#ops + 1] = word_op(mj, entry.task, words[id], "poll")
        said = said + 1
      end
    end
    if said == 0 then
      ops[#ops + 1] = {
        op = "signal", ref = entry.task.ref, attempt = entry.attempt, kind = "absent", source = "poll",
        -- Absence proves something only in an answer that knew somebody else.
        counts = known > 0, wait_ms = wait_for(mj, entry.task, "absent"),
      }
    end
  end
end

local function unanswered(group, err, ops)
  for _, entry in ipairs(group.entries) do
    ops[#ops + 1] = {
      op = "signal", ref = entry.task.ref, attempt = entry.attempt, kind = "unanswered", source = "poll",
      error_code = err.code, error = err.message, wait_ms = err.retry_after and err.retry_after * 1000,
    }
  end
end

--- Asks about tasks and stores what the provider says.
-- @tparam table tasks records with at least one task id
-- @tparam[opt] number deadline core.clock() at which waiting ends
-- @treturn table|nil {requests=, errors={err}, results={{code=, made=}}}; nil and an error when the store failed
function M.poll(mj, tasks, deadline)
  local groups, requests, sent, ops = plan(mj, tasks), {}, {}, {}
  local report = { requests = 0, errors = {}, results = {} }
  for _, group in ipairs(groups) do
    local usable, err = provider.usable(mj.config, group.account)
    if usable then
      requests[#requests + 1] = provider.status_request(group.account, group.ids)
      sent[#sent + 1] = group
    else
      report.errors[#report.errors + 1] = err
      unanswered(group, err, ops)
    end
  end
  local answers, failed
  if #requests > 0 then
    answers, failed = mj.exec:http(requests, deadline)
    report.requests = #requests
  end
  for i, group in ipairs(sent) do
    local words, err = nil, failed
    if answers then
      words, err = provider.read_status(answers[i], group.ids)
    end
    if words then
      read_group(mj, group, words, ops)
    else
      report.errors[#report.errors + 1] = err
      unanswered(group, err, ops)
    end
  end
  if #ops > 0 then
    local results, err = mj.exec:commit(ops)
    if not results then
      return nil, err
    end
    report.results = results
  end
  return report
end

--- mj:refresh: asks about one task now.
function M.refresh(mj, ref)
  local task, err = mj.store:get(ref)
  if not task then
    return nil, err
  end
  if #ids_of(mj, task) == 0 then
    return nil, core.error("state", ("task %s has no task_id: there is nothing to ask the provider about"):format(ref))
  end
  local report, why = M.poll(mj, { task })
  if not report then
    return nil, why
  elseif report.errors[1] then
    return nil, report.errors[1]
  end
  return mj:get(ref)
end

return M
