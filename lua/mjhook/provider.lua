--- The provider's two requests and how their answers read. See PROVIDER.md.
local core = require "mjhook.core"
local json = require "mjhook.json"

local M = {}

local SUBMIT = "/midjourney/v1/submit-jobs"
local STATUS = "/midjourney/v1/job-status"

local function account_of(config, name)
  for _, a in ipairs(config.accounts) do
    if a.name == name then
      return a
    end
  end
end

--- Whether requests under this account can be made at all; nil and an error otherwise.
function M.usable(config, name)
  local a = account_of(config, name)
  if not a then
    return nil, core.error("config", ("accounts: %q is not configured (any more)"):format(tostring(name)))
  end
  if not a.api_key then
    return nil, core.error("config", "api_key: not set (argument, config file or MIDJOURNEY_API_KEY)")
  end
  return a
end

--- Where the provider reports about one attempt: hook_url with a token for just that attempt.
-- @treturn string|nil URL; nil when no hook_url is configured (then tasks are only polled)
function M.hook_url(mj, ref, attempt)
  local url = mj.config.hook_url
  if not url then
    return nil
  end
  local base, fragment = url:match "^([^#]*)(#?.*)$"
  local query = ("ref=%s&a=%d"):format(ref, attempt)
  if mj.keyring then
    local kid, sig = mj.keyring:sign(ref, attempt)
    query = ("%s&kid=%s&sig=%s"):format(query, kid, sig)
  end
  return base .. (base:find("?", 1, true) and "&" or "?") .. query .. fragment
end

--- The request that submits a claimed task. It must not be sent twice, nor after `start_by` (core.clock()).
function M.submit_request(mj, task, start_by)
  local hook_url = M.hook_url(mj, task.ref, task.attempt)
  return {
    account = task.account,
    path = SUBMIT,
    once = true,
    start_by_ms = start_by,
    body = ('{"prompt":%s,"mode":"%s","timeout":%d%s}'):format(json.encode(task.prompt), task.mode, task.timeout,
      hook_url and ',"hookUrl":' .. json.encode(hook_url) or ""),
  }
end

--- The request that asks for many tasks at once.
function M.status_request(account, ids)
  return { account = account, path = STATUS, body = json.encode { taskIds = ids } }
end

--- Adds URL and headers, the API key among them, to requests that name an account.
-- Done where they are sent, so that keys go no further than they must.
function M.complete(config, requests)
  local out = {}
  for i, r in ipairs(requests) do
    local a = account_of(config, r.account) or {}
    out[i] = {
      url = config.base_url .. r.path,
      headers = { "Content-Type: application/json", "API-KEY: " .. (a.api_key or "") },
      body = r.body,
      once = r.once,
      start_by_ms = r.start_by_ms,
      timeout_ms = r.timeout_ms,
    }
  end
  return out
end

--- What the outcome of a submission means.
-- @treturn table {kind = "accepted"|"refused"|"rejected"|"maybe_sent"|"not_sent", task_id=, error_code=, error=,
-- retry_after=}
function M.read_submit(answer)
  if answer.outcome ~= "answered" then
    return { kind = answer.outcome, error_code = answer.outcome, error = answer.error }
  end
  local verdict = core.wire_submit(answer.status, (json.decode(answer.body or "")))
  verdict.retry_after = answer.retry_after
  return verdict
end

-- What the provider tells besides, as JSON; nil when there is none that can be stored.
local function meta_text(meta)
  local text = type(meta) == "table" and json.encode(meta)
  return text and #text <= core.max_json and core.utf8(text) and text or nil
end

local function encode_meta(word)
  word.meta = meta_text(word.meta)
  return word
end

--- What the provider says of the tasks it was asked for.
-- @treturn table|nil words by task id; nil and an error when it gave no usable answer
function M.read_status(answer)
  if answer.outcome ~= "answered" then
    return nil, core.error("network", answer.error or "no answer", true)
  end
  if answer.status == 401 or answer.status == 403 then
    return nil, core.error("auth", ("the provider refuses the API key (HTTP %d)"):format(answer.status))
  end
  local doc = json.decode(answer.body or "")
  local words, why
  if answer.status == 200 then
    words, why = core.wire_status(doc)
  end
  if not words then
    local err = core.error("provider", ("HTTP %d: %s"):format(answer.status, why or "no usable answer"), true)
    err.retry_after = answer.retry_after
    return nil, err
  end
  local by_id = {}
  for _, word in ipairs(words) do
    by_id[word.task_id] = encode_meta(word)
  end
  return by_id
end

--- The task object in a callback's body, as it came.
-- @treturn table|nil the object; nil and why there is none
function M.read_callback(body)
  local doc, why = json.decode(body)
  if doc == nil then
    return nil, "not JSON: " .. tostring(why)
  end
  return core.wire_callback(doc)
end

--- What a task object says.
-- @treturn table|nil word; nil and why there is none
function M.word(object)
  local word, why = core.wire_word(object)
  if not word then
    return nil, why
  end
  return encode_meta(word)
end

-- A callback on its way to the disk is one string, the cheapest thing to hand to another thread:
-- ref, attempt as a byte, body.
local REF_TEXT = 26

--- A callback as an operation for an executor's commit().
function M.callback_operation(ref, attempt, body)
  return ref .. string.char(attempt) .. body
end

--- The signal that such an operation stands for, as the store takes it.
-- @treturn string|nil the signal; nil and why there is none in the body
function M.read_operation(op)
  local object, why = M.read_callback(op:sub(REF_TEXT + 2))
  if not object then
    return nil, why
  end
  return core.wire_signal(object, meta_text(object.meta), op:sub(1, REF_TEXT), op:byte(REF_TEXT + 1))
end

return M
