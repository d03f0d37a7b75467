-- Is there a configuration, can it be read, and by the right people only?
local config = require "mjhook.config"
local core = require "mjhook.core"
local policy = require "mjhook.policy"

local function owner_and_mode(path)
  local st = core.stat(path)
  return st and ("%s, uid %d, mode %03o"):format(path, st.uid, st.mode) or path
end

local function check_file(settings, report)
  local path = settings.config_file
  if not path then
    return report:ok("configuration.file", "no file: environment, options and defaults")
  end
  local st = core.stat(path)
  if settings.keys_inside and st and st.mode % 8 ~= 0 then
    return report:fail("configuration.file", ("%s holds keys or secrets, and all users can read it"):format(path),
      ("chmod o-rwx %s, or move them into an api_key_file and a secrets_file of their own"):format(path))
  end
  report:ok("configuration.file", owner_and_mode(path))
end

-- That no other user can read them has been checked: otherwise there would be no configuration.
local function check_secret_file(settings, key, report)
  local path = settings[key]
  local st = path and core.stat(path)
  if not st then
    return
  end
  local check = "configuration." .. key
  if st.uid ~= 0 and st.uid ~= core.uid() then
    report:warn(check, ("%s belongs to uid %d, which can replace it"):format(path, st.uid),
      ("chown it to root or to uid %d"):format(core.uid()))
  else
    report:ok(check, owner_and_mode(path))
  end
end

local function check_policy(settings, report)
  local loaded, err = policy.load(settings.policy, function() end)
  if not loaded then
    report:fail("configuration.policy", err.message,
      "correct it: until then a new mjhook-reconcile does nothing, and a running one goes by the policy from before")
  elseif type(settings.policy) == "string" then
    report:ok("configuration.policy", owner_and_mode(settings.policy))
  else
    report:ok("configuration.policy", loaded.present and "in the configuration"
      or "none: events wait, and are forgotten with their tasks")
  end
end

return function(patient, report)
  local settings, err = config.resolve(patient.args)
  if not settings then
    return report:fail("configuration", err.message, "correct that first: see mjhook-config(5)")
  end
  patient.config = settings
  check_file(settings, report)
  check_secret_file(settings, "api_key_file", report)
  check_secret_file(settings, "secrets_file", report)
  check_policy(settings, report)
end
