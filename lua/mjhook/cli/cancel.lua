-- mjhook cancel
local fail = require "mjhook.cli.fail"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"

local function cancel(mj, id)
  local task, err = find(mj, id)
  if not task then
    return nil, err
  end
  return mj:cancel(task.ref)
end

return {
  name = "cancel",
  arguments = "REF...",
  summary = "give tasks up",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = {},
  details = [[
REF is a task's ref, or a task id of the provider. The provider can't be told: a result that comes later is recorded,
and makes no event. A task that is final already can't be cancelled.]],
  run = function(mj, _, arguments, out)
    local done, exit = { tasks = json.array {}, errors = json.array {} }, fail.DONE
    for _, id in ipairs(arguments) do
      local task, err = cancel(mj, id)
      if task then
        done.tasks[#done.tasks + 1] = json.task(task)
        if not out.json then
          out:line(task.ref, " ", out:state(task.state))
        end
      else
        done.errors[#done.errors + 1] = { ref = id, code = err.code, message = err.message, retryable = err.retryable }
        out:note(fail.sentence(err))
        exit = math.max(exit, fail.exit(err.code))
      end
    end
    if out.json then
      out:value(done)
    end
    return exit
  end,
}
