-- Is the provider there, and does it take our keys?  It is asked about a task that does not exist, and nothing else.
local core = require "mjhook.core"
local provider = require "mjhook.provider"
local web = require "mjhook.doctor.web"

local SLOW_MS = 5000
local NO_TASK = "mjhook-doctor-asks-about-no-task"

-- Where to look, by what the answer means.
local ADVICE = {
  auth = "compare the key with the one on the provider's pages",
  blocked = "not the key: ask the provider, or the operator of what stands before it, to let this host through",
  quota = "that is the provider's own word: look at the account on its pages",
  concurrency = "that is the provider's own word: look at the account on its pages",
  rejected = "that is the provider's own word: look at the account on its pages",
  server_error = "trouble on the provider's side: try again later",
  endpoint = "is base_url the address of the provider's API, and no more than that?",
  unreadable = "is base_url the address of the provider's API?",
}

local function check_key(report, check, account, answer)
  local said, err = provider.read_status(answer, { NO_TASK })
  if said and said.odd > 0 then
    report:warn(check, ("account %s: the answer to a question about no job holds what can't be read"):format(
      account.name), "tasks are not lost by such answers, but callbacks alone tell of them")
  elseif said then
    report:ok(check, ("account %s: the key is accepted"):format(account.name))
  elseif err.meaning == "rate_limit" then
    report:warn(check, ("account %s: the provider limits the rate (HTTP %d)"):format(account.name, answer.status),
      "do other programs use the key? Try again later")
  else
    report:fail(check, ("account %s: %s"):format(account.name, err.message), ADVICE[err.meaning] or ADVICE.unreadable)
  end
end

local function check_reach(report, target, answer)
  web.addresses(report, target)
  web.certificate(report, target, answer, "keys and prompts belong into https")
  web.clock(report, target, answer)
end

local function check_accounts(patient, report, target, client)
  local config = patient.config
  local answers = {}
  for _, account in ipairs(config.accounts) do
    if not account.api_key then
      report:fail("provider.key", ("account %s has no key"):format(account.name),
        "set api_key, api_key_file or " .. core.provider.environment.api_key
          .. "; cron's environment is not your shell's")
    else
      local request = provider.complete(config, { provider.status_request(account.name, { NO_TASK }) })[1]
      local answer = web.ask(client, request)
      if answer.outcome ~= "answered" then
        return web.unreachable(patient, report, target, answer) -- it would not be there for the others, either
      elseif #answers == 0 then
        check_reach(report, target, answer)
      end
      answers[#answers + 1] = answer
      if web.redirects(report, target, answer) then
        return
      end
      check_key(report, "provider.key", account, answer)
    end
  end
  if #answers > 0 then
    web.time(report, target, answers, SLOW_MS, "the provider is slow, or the way to it")
  end
end

return function(patient, report)
  local config = patient.config
  local target = { name = "base_url", url = config.base_url, proxy = config.proxy, ca_file = config.ca_file }
  local client = web.client(patient, target)
  local ok, why = pcall(check_accounts, patient, report, target, client)
  client:close()
  if not ok then
    error(why, 0)
  end
end
