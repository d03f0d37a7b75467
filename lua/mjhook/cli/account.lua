--- The account that a command is about.
local fail = require "mjhook.cli.fail"
local suggest = require "mjhook.suggest"

--- @tparam table mj
-- @tparam string|nil name nil: the only one
-- @tparam string command for what is said
-- @treturn string name; ends the command where there is no such account, or more than one
return function(mj, name, command)
  local names = {}
  for i, account in ipairs(mj.config.accounts) do
    names[i] = account.name
    if account.name == name then
      return name
    end
  end
  if name then
    fail.stop(fail.FAILED, ("no account has the name %s%s"):format(name, suggest(name, names)))
  elseif #names > 1 then
    fail.stop(fail.USAGE, ("%s: ACCOUNT expected, one of %s"):format(command, table.concat(names, ", ")), command)
  end
  return names[1]
end
