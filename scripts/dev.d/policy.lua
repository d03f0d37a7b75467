-- Your policy: what happens with each result.  Edit it while mjhook dev runs: it is taken over within seconds, and a
-- broken one leaves the one before at work and says so in error.log.
local archive = require "mjhook.handlers.archive"

return {
  -- The images of the simulated provider are on this machine: only here the archive may reach loopback addresses.
  on_succeeded = archive { dir = "@DIR@/images", mode = "0644", loopback = true },

  on_failed = function(task, ctx)
    ctx.log("notice", ("task %s failed: %s"):format(task.ref, tostring(task.error)))
  end,
}
