--- A command that does the same to each of its arguments: one that fails stops no other.
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"

--- @tparam table out
-- @tparam table ids the arguments
-- @tparam table how name: what the list in the JSON is called; id: what an argument is called there;
-- act(id) -> value, or nil and an error; write(value, id): for people; exit(value): the exit code of one that went well
-- @treturn number exit code
return function(out, ids, how)
  local done, exit = { [how.name] = json.array {}, errors = json.array {} }, fail.DONE
  for _, id in ipairs(ids) do
    local value, err = how.act(id)
    if value then
      table.insert(done[how.name], value)
      if not out.json then
        how.write(value, id)
      end
      exit = math.max(exit, how.exit and how.exit(value) or fail.DONE)
    else
      done.errors[#done.errors + 1] = { [how.id] = id, code = err.code, message = err.message,
                                        retryable = err.retryable }
      out:note(fail.sentence(err))
      exit = math.max(exit, how.code and how.code(err) or fail.exit(err.code))
    end
  end
  if out.json then
    out:value(done)
  end
  return exit
end
