--- The provider's two requests and how their answers read. See PROVIDER.md.
local core = require "mjhook.core"
local json = require "mjhook.json"

local M = {}

local P = core.provider -- src/provider/profile.c

-- The body of a submission; its hook_url.
local BODY = ('{"%s":%%s,"%s":"%%s","%s":%%d%%s}'):format(P.request.prompt, P.request.mode, P.request.timeout)
local HOOK = (',"%s":'):format(P.request.hook_url)

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
    return nil, core.error("config", "api_key: not set (argument, config file or " .. P.environment.api_key .. ")")
  end
  return a
end

local cut = {} -- the last hook_url that was cut into parts, and those

-- What is before the token, and behind it.
local function parts_of(url)
  if cut.url ~= url then
    local base, fragment = url:match "^([^#]*)(#?.*)$"
    cut = { url = url, base = base .. (base:find("?", 1, true) and "&" or "?"), fragment = fragment }
  end
  return cut.base, cut.fragment
end

--- Where the provider reports about one attempt: hook_url with a token for just that attempt.
-- @treturn string|nil URL; nil when no hook_url is configured (then tasks are only polled)
function M.hook_url(mj, ref, attempt)
  local url = mj.config.hook_url
  if not url then
    return nil
  end
  local base, fragment = parts_of(url)
  if mj.keyring then
    local kid, sig = mj.keyring:sign(ref, attempt)
    return ("%sref=%s&a=%d&kid=%s&sig=%s%s"):format(base, ref, attempt, kid, sig, fragment)
  end
  return ("%sref=%s&a=%d%s"):format(base, ref, attempt, fragment)
end

--- The request that submits a claimed task. It must not be sent twice, nor after `start_by` (core.clock()).
function M.submit_request(mj, task, start_by)
  local hook_url = M.hook_url(mj, task.ref, task.attempt)
  return {
    account = task.account,
    path = P.path.submit,
    once = true,
    start_by_ms = start_by,
    body = BODY:format(json.encode(task.prompt), P.mode[task.mode], task.timeout,
      hook_url and HOOK .. json.encode(hook_url) or ""),
  }
end

--- The request that asks for many tasks at once.
function M.status_request(account, ids)
  return { account = account, path = P.path.status, body = json.encode { [P.request.task_ids] = ids } }
end

local UNKNOWN = {} -- an account that is not configured
local headers = setmetatable({}, { __mode = "k" }) -- by account

local function headers_of(account)
  local list = headers[account]
  local key = P.key_header .. ": " .. (account.api_key or "")
  if not list or list[2] ~= key then
    list = { "Content-Type: application/json", key }
    headers[account] = list
  end
  return list
end

--- Adds URL and headers, the API key among them, to requests that name an account.
-- Done where they are sent, so that keys go no further than they must.
-- @tparam table requests which are changed
function M.complete(config, requests)
  for _, r in ipairs(requests) do
    r.url = config.base_url .. r.path
    r.headers = headers_of(account_of(config, r.account) or UNKNOWN)
  end
  return requests
end

-- What is about the account or the way to the provider, or could not be read, tells its HTTP status, and the provider's
-- words beside ours.
local TELLS_STATUS = { endpoint = true, blocked = true, server_error = true, unreadable = true }

--- What the outcome of a submission means: the table in src/provider/answer.h.
-- @treturn table {kind = "accepted"|"refused"|"rejected"|"maybe_sent"|"not_sent", task_id=, error_code=, error=,
-- retry_after=}
function M.read_submit(answer)
  if answer.outcome ~= "answered" then
    return { kind = answer.outcome, error_code = answer.outcome, error = answer.error }
  end
  local verdict = core.wire_submit(answer.status, answer.body, answer.blocked)
  if TELLS_STATUS[verdict.error_code] then
    verdict.error = ("HTTP %d: %s%s"):format(answer.status, verdict.error,
      verdict.said and verdict.said ~= verdict.error and " (" .. verdict.said .. ")" or "")
  end
  verdict.retry_after = answer.retry_after
  return verdict
end

-- What is wrong with an answer as such: err.code is "provider" but where an account's holder or time can mend it.
local CODES = { server_error = "provider", unreadable = "provider", rejected = "provider" }

--- What the provider says of the tasks it was asked for, and of no others.
-- @tparam table answer
-- @tparam table ids those that were asked for
-- @treturn table|nil {words= (by task id), unread= (the set of ids whose entry can't be read), odd= (the number of
-- entries that name no task: while there are some, no task is known to be absent)}; nil and an error when it gave no
-- usable answer, with its `meaning` (src/provider/answer.h), `halves` when one of the tasks may be the cause,
-- `retry_after`
function M.read_status(answer, ids)
  if answer.outcome ~= "answered" then
    local err = core.error("network", answer.error or "no answer", true)
    err.halves = answer.unread ~= nil -- too long, or it broke off: one of the tasks may be the cause
    return nil, err
  end
  local words, unread, odd, halves = core.wire_status(answer.body or "", ids, answer.status, answer.blocked)
  if words then
    return { words = words, unread = unread, odd = odd }
  end
  local why, code = unread, odd
  local text = ("HTTP %d: %s"):format(answer.status, why)
  if code == "auth" and answer.status ~= 200 then
    text = ("the provider refuses the API key (HTTP %d)"):format(answer.status)
  end
  local err = core.error(CODES[code] or code, text, code ~= "auth")
  err.meaning, err.halves, err.retry_after = code, halves, answer.retry_after
  return nil, err
end

--- What a callback says.
-- @tparam string body
-- @treturn table|nil word; nil and why there is none
M.read_callback = core.wire_callback

return M
