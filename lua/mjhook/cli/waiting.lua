--- Why a task waits as it does, in words.
local text = require "mjhook.cli.text"

local REASON = {
  quota = "the account's quota is used up",
  concurrency = "the provider says that all of the account's places are taken",
  rate_limit = "the provider's rate limit",
  auth = "the provider refuses the API key",
  redirect = "base_url answers with a redirect",
  endpoint = "what base_url leads to refuses every request",
  blocked = "something in front of the provider refuses us",
  not_sent = "the provider can't be reached",
  by_hand = "it was paused by hand",
}
local FOR_EVER = 2 ^ 52 -- ms: no rest that has an end ends so late

-- What keeps an account from sending, and until when, if that is known.
local function account_block(account, now)
  if account.paused_until and account.paused_until > FOR_EVER then
    return ("account %s rests until it is resumed: it was paused by hand"):format(account.name)
  elseif account.paused_until and account.paused_until > now then
    return ("account %s rests for %s: %s"):format(account.name, text.duration(account.paused_until - now),
      REASON[account.reason] or account.reason or "?"), account.paused_until
  elseif account.held >= account.max_in_flight then
    return ("all %d slots of account %s are taken"):format(account.max_in_flight, account.name)
  end
end

-- The first account that could send it says why it does not.
local function queue_block(mj, task, now)
  local stats = mj:stats()
  for _, account in ipairs(stats and stats.accounts or {}) do
    if not task.account or task.account == account.name then
      return account_block(account, now)
    end
  end
end

--- @treturn string|nil a reason; nil when there is nothing to explain
return function(mj, task, now)
  local err, why = task.error, nil
  if err then
    why = err.message ~= "" and err.message or REASON[err.code] or err.code
  end
  if task.state ~= "queued" then
    return why
  end
  local block, lifted = queue_block(mj, task, now)
  if not why then
    return block or "it waits for its turn"
  end
  local at = math.max(task.due_at or 0, lifted or 0)
  return why .. (at > now and "; next try " .. text.relative(at, now) or block and "; " .. block or "")
end
