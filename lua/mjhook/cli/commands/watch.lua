-- mjhook watch
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"

local LOOK_S = 0.2 -- a look is a read of mapped memory
local FINAL = {}
for _, state in ipairs(core.final_states) do
  FINAL[state] = true
end

local function show(out, task)
  if out.json then
    out:value(json.task(task))
  else
    local why = task.error and " (" .. task.error.message .. ")" or ""
    out:line(task.ref, " ", out:state(task.state), FINAL[task.state] and task.image and " " .. task.image or "", why)
  end
  out.finish()
end

return {
  name = "watch",
  arguments = "REF...",
  summary = "follow tasks until they end",
  example = "mjhook watch 01K7Q3M8Z4T5V6W7X8Y9ZABCDE --timeout 600",
  least = 1, most = math.huge,
  dash = " (an id that begins with a dash goes after --)",
  options = { { name = "timeout", arg = "SECONDS", help = "give up watching after so long",
                read = options.whole(0, 1e9) } },
  details = [[
REF is a task's ref, or a task id of the provider. A line for each state that a task is in. It sends no request:
callbacks and passes bring the news. Exit: 0 when all succeeded, 1 when one did not or the time was over.]],
  run = function(mj, given, arguments, out)
    local open, exit = {}, fail.DONE
    for _, id in ipairs(arguments) do
      local task, err = find(mj, id)
      if not task then
        fail.with(err)
      end
      open[#open + 1] = { ref = task.ref }
    end
    local stop_at = given.timeout and core.clock() + given.timeout * 1000 or math.huge
    while true do
      local left = {}
      for _, seen in ipairs(open) do
        local task, err = mj:get(seen.ref)
        if not task then
          fail.with(err)
        elseif task.state ~= seen.state then
          seen.state = task.state
          show(out, task)
        end
        if not FINAL[task.state] then
          left[#left + 1] = seen
        elseif task.state ~= "succeeded" then
          exit = fail.FAILED
        end
      end
      open = left
      if #open == 0 then
        return exit
      elseif core.clock() >= stop_at then
        out:note(("%d of them have no end yet"):format(#open))
        return fail.FAILED
      end
      core.sleep(LOOK_S)
    end
  end,
}
