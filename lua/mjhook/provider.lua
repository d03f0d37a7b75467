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
  local verdict = core.wire_submit(answer.status, answer.body)
  verdict.retry_after = answer.retry_after
  return verdict
end

--- What the provider says of the tasks it was asked for, and of no others.
-- @tparam table answer
-- @tparam table ids those that were asked for
-- @treturn table|nil words by task id; nil and an error when it gave no usable answer
function M.read_status(answer, ids)
  if answer.outcome ~= "answered" then
    return nil, core.error("network", answer.error or "no answer", true)
  end
  if answer.status == 401 or answer.status == 403 then
    return nil, core.error("auth", ("the provider refuses the API key (HTTP %d)"):format(answer.status))
  end
  local words, why
  if answer.status == 200 then
    words, why = core.wire_status(answer.body or "", ids)
  end
  if not words then
    local err = core.error("provider", ("HTTP %d: %s"):format(answer.status, why or "no usable answer"), true)
    err.retry_after = answer.retry_after
    return nil, err
  end
  return words
end

--- What a callback says.
-- @tparam string body
-- @treturn table|nil word; nil and why there is none
M.read_callback = core.wire_callback

return M
