-- Is the provider there, and does it take our keys?  It is asked about a task that does not exist, and nothing else.
local json = require "mjhook.json"
local provider = require "mjhook.provider"
local web = require "mjhook.doctor.web"

local SLOW_MS = 5000
local NO_TASK = "mjhook-doctor-asks-about-no-task"

-- Where to look when there is an answer, and none to the question.
local function advice_for(answer)
  local doc = json.decode(answer.body or "")
  if answer.status >= 500 then
    return "trouble on the provider's side: try again later"
  elseif answer.status == 200 and type(doc) == "table" and (tonumber(doc.status) or 0) ~= 0 then
    return "that is the provider's own word: look at the account on its pages"
  end
  return "is base_url the address of the provider's API?"
end

local function check_key(report, check, account, answer)
  local words, err = provider.read_status(answer, { NO_TASK })
  if words then
    report:ok(check, ("account %s: the key is accepted"):format(account.name))
  elseif err.code == "auth" then
    report:fail(check, ("account %s: %s"):format(account.name, err.message),
      "compare the key with the one on the provider's pages")
  elseif answer.status == 429 then
    report:warn(check, ("account %s: the provider limits the rate (HTTP 429)"):format(account.name),
      "who else uses the key? Try again later")
  else
    report:fail(check, ("account %s: %s"):format(account.name, err.message), advice_for(answer))
  end
end

local function check_reach(report, who, answer)
  web.addresses(report, who)
  web.certificate(report, who, answer, "keys and prompts belong into https")
  web.clock(report, who, answer)
end

local function check_accounts(patient, report, who, client)
  local config = patient.config
  local answers = {}
  for _, account in ipairs(config.accounts) do
    if not account.api_key then
      report:fail("provider.key", ("account %s has no key"):format(account.name),
        "set api_key, api_key_file or MIDJOURNEY_API_KEY; cron's environment is not your shell's")
    else
      local request = provider.complete(config, { provider.status_request(account.name, { NO_TASK }) })[1]
      local answer = web.ask(client, request)
      if answer.outcome ~= "answered" then
        return web.unreachable(patient, report, who, answer) -- it would not be there for the others, either
      elseif #answers == 0 then
        check_reach(report, who, answer)
      end
      answers[#answers + 1] = answer
      if web.redirects(report, who, answer) then
        return
      end
      check_key(report, "provider.key", account, answer)
    end
  end
  if #answers > 0 then
    web.time(report, who, answers, SLOW_MS, "the provider is slow, or the way to it")
  end
end

return function(patient, report)
  local config = patient.config
  local who = { name = "base_url", url = config.base_url, proxy = config.proxy, ca_file = config.ca_file }
  local client = web.client(patient, who)
  local ok, why = pcall(check_accounts, patient, report, who, client)
  client:close()
  if not ok then
    error(why, 0)
  end
end
