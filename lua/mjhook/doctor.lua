--- mjhook doctor: looks at an installation from outside in, and says of each thing that is wrong what to do about it.
--
-- Nothing is changed and no job is submitted. A callback for a task that does not exist is posted to hook_url, under a
-- good token, and the provider is asked about a task that does not exist; that is all that others see of it.
local core = require "mjhook.core"

local M = {}

-- In order. Each is a module mjhook.doctor.<name>, a function(patient, report):
--   patient   args (as for config.resolve), config (nil when it is wrong), ca_file, timeout_ms
--   report    report:ok(check, message), report:warn(check, message, advice), report:fail(check, message, advice)
-- `needs_config`: it can't be made without a configuration.
local CHECKS = {
  { name = "configuration" },
  { name = "store", needs_config = true },
  { name = "hook", needs_config = true },
  { name = "provider", needs_config = true },
  { name = "libraries" },
}

local Report = {}
Report.__index = Report

local function add(self, status, check, message, advice)
  -- It may quote what a server answered.
  local finding = { check = check, status = status, message = core.redact(message), advice = advice }
  self.findings[#self.findings + 1] = finding
  self.count[status] = self.count[status] + 1
  self.count.config = self.count.config or (status == "fail" and check:find "^configuration" ~= nil)
  self.heard(finding)
end

--- All is well.
function Report:ok(check, message)
  add(self, "ok", check, message)
end

--- It works, and a person should know.
function Report:warn(check, message, advice)
  add(self, "warn", check, message, advice)
end

--- It does not work.
function Report:fail(check, message, advice)
  add(self, "fail", check, message, advice)
end

--- Makes every check that can be made.
-- @tparam table args where the configuration is and what goes before it, as for mjhook.open
-- @tparam[opt] table options ca_file: certificates to trust instead of the system's; timeout_ms: of a request (15 s);
-- heard: function(finding), called as soon as there is one
-- @treturn table findings, list of {check=, status= "ok"|"warn"|"fail", message=, advice=}
-- @treturn table how many of each status, and `config`: true when the configuration is among what failed
function M.run(args, options)
  options = options or {}
  local report = setmetatable({
    findings = {}, count = { ok = 0, warn = 0, fail = 0, config = false }, heard = options.heard or function() end,
  }, Report)
  local patient = { args = args, ca_file = options.ca_file, timeout_ms = options.timeout_ms }
  for _, check in ipairs(CHECKS) do
    if patient.config or not check.needs_config then
      local ok, why = pcall(require("mjhook.doctor." .. check.name), patient, report)
      if not ok then -- what is wrong with one must not hide the others
        report:fail(check.name, "could not be checked: " .. tostring(why), "this is a bug, please report it")
      end
    end
  end
  return report.findings, report.count
end

return M
