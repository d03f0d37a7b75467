--- A command that does the same to each of its arguments: one that fails stops no other.
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"

--- @tparam table out
-- @tparam table ids the arguments
-- @tparam table how name: what the list in the JSON is called; id: what an argument is called there;
-- act(id) -> value, or nil and an error; write(value, id): for people; exit(value): the exit code of one that went
-- well; signalled(): if given, the signal that told the command to end, or nil
-- @treturn number exit code
return function(out, ids, how)
  local done, exit = { [how.name] = json.array {}, errors = json.array {} }, fail.DONE
  local signal, left = nil, 0
  for i, id in ipairs(ids) do
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
    signal, left = how.signalled and how.signalled(), #ids - i
    if signal then
      break
    end
  end
  if out.json then
    out:value(done)
  end
  if signal then
    out.finish()
    fail.interrupted(signal, ("%d of %d %s were left"):format(left, #ids, how.name))
  end
  return exit
end
