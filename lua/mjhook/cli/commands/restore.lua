-- mjhook restore
local fail = require "mjhook.cli.fail"
local text = require "mjhook.cli.text"

-- The store itself is not opened: it may be what keeps one from being opened.
local function resolve(values)
  local config = require "mjhook.config"
  local resolved, err = config.resolve { config = values.config, store = values.store, policy = {} }
  return resolved or fail.with(err)
end

-- Says why nothing is sent.
local function hold(out, config, queued)
  local resume = "`mjhook resume`"
  if #config.accounts > 1 then
    resume = "`mjhook resume ACCOUNT` for each account"
  end
  out:line(("%s in it: what was sent since the backup was made would be sent again, and billed twice. So nothing is "
    .. "sent now"):format(text.count(queued, "queued job")))
  out:line("look at them with `mjhook list --state queued`, cancel what was sent, then ", resume)
end

return {
  name = "restore",
  arguments = "FILE|DIRECTORY",
  summary = "put a backup in the place of the store",
  example = "mjhook restore /var/backups/mjhook-2026-01-31",
  words = { "FILE" },
  least = 1, most = 1,
  too_many = "restore takes one backup",
  opens_nothing = true,
  options = {
    { name = "force", help = "also if records and indexes of the backup disagree" },
  },
  details = [[
Stop nginx, mjhook-reconcile and whatever else has the store open first: while a process has, nothing is done. A copy of
the backup is checked, page by page and record by record, and takes the place of data.mdb in one step, with the owner
and mode of that file. The former file is kept beside it under another name: remove it when it is no longer needed.
What was submitted after the backup was made is not known to the restored store, though the provider was paid for it.
Jobs that are queued in the backup may have been sent since: nothing is sent until `mjhook resume`.]],
  run = function(_, values, arguments, out)
    local core = require "mjhook.core"
    local stores = require "mjhook.stores"
    local config = resolve(values)
    local done, err = core.restore(arguments[1], config.store, stores.options(config), values.force)
    if not done then
      fail.with(err)
    end
    local kept = done.kept and config.store .. "/" .. done.kept
    if out.json then
      out:value { restored = arguments[1], store = config.store, tasks = done.tasks, events = done.events,
                  queued = done.queued, found = done.found, kept = kept }
    else
      out:line(("restored %d tasks and %d events to %s"):format(done.tasks, done.events, config.store))
      if done.found > 0 then
        out:line(("%d things are wrong in it: `mjhook check` tells which"):format(done.found))
      end
      if kept then
        out:line("the former data file is kept as ", kept)
      end
      if done.queued > 0 then
        hold(out, config, done.queued)
      end
    end
  end,
}
