-- mjhook readmit
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"

local read_id = options.whole(1, 2 ^ 53)

return {
  name = "readmit",
  arguments = "ID...",
  summary = "take refused callbacks in after all",
  least = 1, most = math.huge,
  options = {},
  details = [[
ID is what `mjhook refused` shows. The callback is read anew, as if it had just come; it stays in the list.]],
  run = function(mj, _, arguments, out)
    local done, exit = { readmitted = json.array {}, errors = json.array {} }, fail.DONE
    local ids = {}
    for i, word in ipairs(arguments) do
      ids[i] = read_id(word)
      if not ids[i] then
        fail.stop(fail.USAGE, ("readmit: %q is no id; see mjhook refused"):format(word), "readmit")
      end
    end
    for _, id in ipairs(ids) do
      local outcome, err = mj:readmit(id)
      if outcome then
        done.readmitted[#done.readmitted + 1] = { id = id, outcome = outcome }
        if not out.json then
          out:line(("%d %s"):format(id, outcome))
        end
      else
        done.errors[#done.errors + 1] = { id = id, code = err.code, message = err.message, retryable = err.retryable }
        out:note(err.message)
        exit = math.max(exit, err.code == "invalid" and fail.FAILED or fail.exit(err.code))
      end
    end
    if out.json then
      out:value(done)
    end
    return exit
  end,
}
