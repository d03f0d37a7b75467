--- What of an event other services are told: the same fields, whichever way it goes to them.
--
-- | field | what |
-- | --- | --- |
-- | `ref` | mjhook's id of the task |
-- | `attempt` | the attempt that the event is about |
-- | `task_id` | the provider's id of it |
-- | `state` | of the task when this was written: `succeeded`, `failed`, `lost`, `ambiguous`, ... |
-- | `prompt`, `mj_prompt`, `mode` | as sent; as the provider ran it; `fast` or `relaxed` |
-- | `user_id`, `key`, `context` | yours, as given to `submit` |
-- | `image`, `images` | URLs of the grid and of the single images; the provider's URLs expire |
-- | `files` | what handlers stored of it before, such as the images' paths |
-- | `error` | `{code, message}`, of a task that did not succeed |
-- | `late` | true when it overrules what was told before (a success after `lost`) |
-- | `created_at`, `submitted_at`, `finished_at` | ISO 8601, UTC, milliseconds |
--
-- A field without a value is not there. No secret is among them, no callback URL, no account.
local core = require "mjhook.core"
local json = require "mjhook.json"

local M = {}

local FIELDS = {
  "ref", "task_id", "state", "prompt", "mj_prompt", "mode", "user_id", "key", "context", "image", "late", "files",
}
local TIMES = { "created_at", "submitted_at", "finished_at" }
local DEFAULT_S = 30 -- for a handler, if nothing else is known
local SPARE = 0.1    -- of the time, so that the handler says itself that it was up

local day, date = nil, nil -- the newest that was asked for: tasks of a batch have the same

--- Milliseconds since 1970 as ISO 8601.
function M.iso(ms)
  local seconds = math.floor(ms / 1000)
  local today = math.floor(seconds / 86400)
  if today ~= day then
    day, date = today, os.date("!%Y-%m-%d", seconds)
  end
  local left = seconds - today * 86400
  return ("%sT%02d:%02d:%02d.%03dZ"):format(date, math.floor(left / 3600), math.floor(left / 60) % 60, left % 60,
    ms - seconds * 1000)
end

--- The fields above of a task.
function M.data(task, ctx)
  local data = { attempt = ctx.attempt }
  for _, name in ipairs(FIELDS) do
    data[name] = task[name]
  end
  for _, name in ipairs(TIMES) do
    data[name] = task[name] and M.iso(task[name])
  end
  if task.images and #task.images > 0 then
    data.images = task.images
  end
  if task.error and task.state ~= "succeeded" then
    data.error = { code = task.error.code, message = task.error.message }
  end
  return data
end

--- The same as JSON.
-- @treturn string|nil JSON; nil and why it can't be
function M.json(task, ctx)
  return json.encode(M.data(task, ctx))
end

--- Milliseconds that a handler with this context may take, a little less than it has.
-- @tparam[opt] number own seconds that the handler's own settings allow
function M.milliseconds(ctx, own)
  local seconds = (ctx.timeout or DEFAULT_S) * (1 - SPARE)
  return math.max(1, math.floor(math.min(seconds, own or math.huge) * 1000))
end

--- The moment of core.clock() by which it has to be done.
function M.deadline(ctx, own)
  return core.clock() + M.milliseconds(ctx, own)
end

return M
