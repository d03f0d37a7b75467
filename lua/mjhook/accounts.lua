--- Accounts by hand: one rests for a while or until it is resumed. What it has sent goes on; nothing new is sent.
local core = require "mjhook.core"

local M = {}

local FOR_EVER = 2 ^ 53 -- ms

--- The reason that the store keeps of a rest that a person ordered. A refusal of the provider does not shorten it.
M.BY_HAND = "by_hand"

--- Whether the configuration has an account of this name.
-- @treturn boolean|nil true; nil and an error ("not_found")
function M.known(mj, name)
  for _, account in ipairs(mj.config.accounts) do
    if account.name == name then
      return true
    end
  end
  return nil, core.error("not_found", ("no account has the name %s"):format(name))
end

local function store(mj, name, till)
  local ok, err = M.known(mj, name)
  if not ok then
    return nil, err
  end
  local results
  results, err = mj.exec:commit { { op = "pause", account = name, ["until"] = till, error_code = M.BY_HAND } }
  if not results then
    return nil, err
  elseif results[1].code ~= "ok" then
    return nil, core.error(results[1].code, ("account %s: %s"):format(name, results[1].code))
  end
  return true
end

--- Nothing new is sent under an account for so many seconds; without a number until it is resumed.
function M.pause(mj, name, seconds)
  return store(mj, name, seconds and mj.exec:now() + math.floor(seconds * 1000) or FOR_EVER)
end

--- Ends an account's rest, whatever its reason.
function M.resume(mj, name)
  return store(mj, name, 0)
end

return M
