-- mjhook refused
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"

local COLUMNS = {
  { title = "ID", right = true },
  { title = "AGE", right = true },
  { title = "REF" },
  { title = "SIZE", right = true },
  { title = "WHY", max = 60 },
  { title = "BODY" },
}

local function rows(list, now)
  local i = 0
  return function()
    i = i + 1
    local kept = list[i]
    return kept and { ("%d"):format(kept.id), text.age(now - kept.at), kept.ref, text.bytes(kept.size),
                      kept.reason or "", kept.body }
  end
end

return {
  name = "refused",
  arguments = "",
  summary = "show callbacks that could not be taken",
  example = "mjhook refused --limit 5",
  least = 0, most = 0,
  too_many = "refused takes no arguments; readmit takes ids",
  options = { { name = "limit", arg = "N", help = "at most N, the newest (20)", read = options.whole(1, 256) } },
  details = [[
A callback with a good token whose body can't be read (answered 400) or is too large (413) is kept: the newest 256, at
most 64 KiB of each. `mjhook readmit ID` takes one in after all. With --json each is an object on a line of its own.]],
  run = function(mj, given, _, out)
    local list, err = mj:refused { limit = given.limit }
    if not list then
      fail.with(err)
    elseif out.json then
      for _, kept in ipairs(list) do
        out:value(kept)
      end
    elseif out:table(COLUMNS, rows(list, out.now)) == 0 then
      out:note "no callback was refused after its token had been found good"
    end
  end,
}
