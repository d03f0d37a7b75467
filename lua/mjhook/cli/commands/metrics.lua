-- mjhook metrics
local fail = require "mjhook.cli.fail"

return {
  name = "metrics",
  arguments = "",
  summary = "print what there is to watch, for Prometheus",
  example = "mjhook metrics",
  least = 0, most = 0,
  too_many = "metrics takes no arguments",
  options = {},
  details = "The same as mjhook-reconcile writes with --metrics, and nginx at /metrics. With --json as one string.",
  run = function(mj, _, _, out)
    local written, err = mj:metrics()
    if not written then
      fail.with(err)
    elseif out.json then
      out:value { metrics = written }
    else
      out:lines((written:gsub("\n$", "")))
    end
  end,
}
