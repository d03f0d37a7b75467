-- mjhook readmit
local each = require "mjhook.cli.each"
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"

local read_id = options.whole(1, 2 ^ 53)

return {
  name = "readmit",
  arguments = "ID...",
  summary = "take refused callbacks in after all",
  example = "mjhook readmit 12",
  least = 1, most = math.huge,
  options = {},
  details = [[
ID is what `mjhook refused` shows. The callback is read anew, as if it had just come; it stays in the list.]],
  run = function(mj, _, arguments, out)
    local ids = {}
    for i, word in ipairs(arguments) do
      ids[i] = read_id(word)
      if not ids[i] then
        fail.stop(fail.USAGE, ("readmit: %q is no id; see mjhook refused"):format(word), "readmit")
      end
    end
    return each(out, ids, {
      name = "readmitted", id = "id",
      act = function(id)
        local outcome, err = mj:readmit(id)
        return outcome and { id = id, outcome = outcome }, err
      end,
      write = function(done)
        out:line(("%d %s"):format(done.id, done.outcome))
      end,
      code = function(err)
        return err.code == "invalid" and fail.FAILED
      end,
    })
  end,
}
