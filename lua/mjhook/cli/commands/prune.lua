-- mjhook prune
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"

return {
  name = "prune",
  arguments = "",
  summary = "forget old final tasks",
  example = "mjhook prune --older-than 90d",
  least = 0, most = 0,
  too_many = "prune takes no arguments",
  needs_policy = true, -- without one, events hold nothing back
  options = {
    { name = "older-than", arg = "TIME", help = "finished longer ago than that: 90d, 12h, or seconds",
      read = options.seconds },
    { name = "limit", arg = "N", help = "at most so many", read = options.whole(1, 1e9) },
  },
  details = [[
Without --older-than the configuration's `retention` decides, state by state. A task with an undelivered or buried event
or a slot is kept; without a policy, undelivered events are forgotten with their tasks. What is left of a pruned task
keeps its key from being used again (`key_ttl`).]],
  run = function(mj, given, _, out)
    local report, err = mj:prune { older_than = given["older-than"], limit = given.limit }
    if not report then
      fail.with(err)
    end
    if out.json then
      out:value(report)
    else
      out:line(("%d pruned"):format(report.pruned))
    end
  end,
}
