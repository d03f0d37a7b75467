-- mjhook resume
local account_of = require "mjhook.cli.account"
local accounts = require "mjhook.accounts"
local fail = require "mjhook.cli.fail"
local text = require "mjhook.cli.text"

local function seen(mj, name)
  local stats, err = mj:stats()
  if not stats then
    fail.with(err)
  end
  for _, account in ipairs(stats.accounts) do
    if account.name == name then
      return account, stats
    end
  end
  return {}, stats
end

return {
  name = "resume",
  arguments = "[ACCOUNT]",
  summary = "end an account's rest, for example after topping up",
  example = "mjhook resume default",
  least = 0, most = 1,
  too_many = "resume takes one account",
  options = {},
  details = [[
An account rests after a refusal that is about the account: its quota, its key, a rate limit. After the rest one job
finds out whether that helped. Without ACCOUNT the only one is meant. Queued jobs are sent with the next pass of
mjhook-reconcile, or at once by nginx.]],
  run = function(mj, _, arguments, out)
    local name = account_of(mj, arguments[1], "resume")
    local before, stats = seen(mj, name)
    local rested = (before.paused_until or 0) > out.now
    local ok, err = accounts.resume(mj, name)
    if not ok then
      fail.with(err)
    end
    if out.json then
      out:value { account = name, rested = rested, reason = rested and before.reason or nil,
                  queued = stats.tasks.queued }
    elseif rested then
      out:line(("account %s: its rest is over (%s); %s"):format(name, before.reason or "?",
        text.count(stats.tasks.queued, "queued job")))
    else
      out:line(("account %s was not at rest; %s"):format(name, text.count(stats.tasks.queued, "queued job")))
    end
  end,
}
