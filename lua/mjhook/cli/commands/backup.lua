-- mjhook backup
local fail = require "mjhook.cli.fail"

return {
  name = "backup",
  arguments = "DIRECTORY",
  summary = "make a consistent copy of the store while others write",
  example = "mjhook backup /var/backups/mjhook-2026-01-31",
  words = { "FILE" },
  least = 1, most = 1,
  too_many = "backup takes one directory",
  options = {},
  details = [[
DIRECTORY is made, or is there and holds no store. The copy is compact and is a store itself: `mjhook --store DIRECTORY
check` looks at it.]],
  run = function(mj, _, arguments, out)
    local ok, err = mj:backup(arguments[1])
    if not ok then
      fail.stop(fail.exit(err.code), err.message) -- the advice for that code is about the store, not about the copy
    end
    if out.json then
      out:value { backup = arguments[1] }
    else
      out:line("copied to ", arguments[1])
    end
  end,
}
