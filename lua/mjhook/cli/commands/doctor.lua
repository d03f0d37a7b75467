-- mjhook doctor
local doctor = require "mjhook.doctor"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"

local SHOWN = { ok = { "ok", "green" }, warn = { "warn", "yellow" }, fail = { "FAIL", "red" } }
local CHECK_WIDTH = 22
local INDENT = (" "):rep(6)

-- At once: some checks take seconds, and the terminal shows how far it got.
local function show(out)
  return function(finding)
    local word = SHOWN[finding.status]
    out:line(out:paint(word[2], text.pad(word[1], 4)), "  ", text.pad(finding.check, CHECK_WIDTH), "  ",
      finding.message)
    if finding.advice then
      out:line(INDENT, "-> ", finding.advice)
    end
    out.finish()
  end
end

return {
  name = "doctor",
  arguments = "",
  summary = "check an installation from outside in, and say what to do",
  example = "mjhook doctor",
  least = 0, most = 0,
  too_many = "doctor takes no arguments",
  opens_nothing = true,
  options = {
    { name = "ca-file", arg = "FILE", read = options.text,
      help = "trust the authorities in FILE, instead of the system's" },
  },
  details = [[
Configuration and permissions, the store and the room it has, hook_url as the provider sees it, the provider and its
keys, the libraries. Run it as the user that owns the store. Nothing is changed and no job is submitted: hook_url gets
callbacks for a task that does not exist, the provider is asked about one. Exits 0 when there are but warnings, 1 when
something failed, 78 when the configuration is wrong.]],
  run = function(_, values, _, out)
    local findings, count = doctor.run({ config = values.config, store = values.store }, {
      ca_file = values["ca-file"], heard = not out.json and show(out) or nil,
    })
    if out.json then
      out:value(json.array(findings))
    else
      out:line(("%d ok, %s, %d failed"):format(count.ok, text.count(count.warn, "warning"), count.fail))
    end
    return count.config and fail.CONFIG or count.fail > 0 and fail.FAILED or fail.DONE
  end,
}
