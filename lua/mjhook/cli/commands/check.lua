-- mjhook check
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"

return {
  name = "check",
  arguments = "",
  summary = "compare every record with every index, both ways",
  example = "mjhook check",
  least = 0, most = 0,
  too_many = "check takes no arguments",
  options = {},
  details = [[
Takes time in proportion to the store, and others may go on working meanwhile. Exits 1 if anything is wrong, and says
what; nothing is changed.]],
  run = function(mj, _, _, out)
    local report, err = mj:check()
    if not report then
      fail.with(err)
    end
    if out.json then
      report.problems = json.array(report.problems)
      out:value(report)
    else
      for _, problem in ipairs(report.problems) do
        out:line(out:paint("red", "wrong: "), problem)
      end
      out:line(("%d tasks, %d events, %d tombstones: %s"):format(report.tasks, report.events, report.tombs,
        report.ok and "nothing wrong" or ("%d things wrong"):format(report.found)))
      if report.upgrading then
        out:line("records of an older version are still being rewritten by mjhook-reconcile")
      end
    end
    return report.ok and fail.DONE or fail.FAILED
  end,
}
