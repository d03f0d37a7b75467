-- mjhook init
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"

local AS_ROOT = core.uid() == 0
local ETC, VAR = "/etc/mjhook/config.lua", "/var/lib/mjhook"

-- ---- what is to be done: from the command line, else asked on a terminal, else the default ----

local function home()
  local me = core.user(core.uid())
  return os.getenv "HOME" or me.home
end

-- The answer to a question; the default for an empty line.
local function ask(question, default)
  io.stderr:write(("%s%s: "):format(question, default and (" [%s]"):format(default) or ""))
  local answer = io.read "*l"
  if not answer then
    fail.stop(fail.FAILED, "nothing was written: the input ended before all questions were answered")
  end
  answer = answer:match "^%s*(.-)%s*$"
  return answer ~= "" and answer or default
end

-- The same for what must not be seen.
local function ask_secret(question)
  os.execute "stty -echo 2>/dev/null </dev/tty"
  local ok, answer = pcall(ask, question)
  os.execute "stty echo 2>/dev/null </dev/tty"
  io.stderr:write "\n"
  if not ok then
    error(answer, 0)
  end
  return answer
end

local function default_user()
  local me = core.user(core.uid())
  if AS_ROOT then
    local theirs = core.user "mjhook"
    return (theirs or me).name
  end
  return me.name
end

local function absolute(path)
  return path:match "^/" and path or core.cwd() .. "/" .. path:gsub("^%./", "")
end

local function plan_of(values, arguments)
  local asks = not values.yes and core.isatty(0) and core.isatty(2)
  local function choose(given, question, default)
    if given ~= nil then
      return given
    end
    return asks and ask(question, default) or default
  end
  local plan = { config_file = absolute(values.config or os.getenv "MJHOOK_CONFIG"
    or AS_ROOT and ETC or home() .. "/.config/mjhook/config.lua") }
  plan.user = choose(values.user, "User that owns the store, and runs nginx's workers and the reconciler",
    default_user())
  plan.group = values.group
  plan.store = arguments[1] or values.store
  plan.store = choose(plan.store, "Directory of the store, or postgresql://...",
    AS_ROOT and VAR or home() .. "/.local/share/mjhook")
  if not plan.store:match "^%l[%w+.-]*://" then
    plan.store = absolute(plan.store):gsub("(.)/+$", "%1")
  end
  plan.hook_url = choose(values["hook-url"], "URL that the provider calls back, https://... (empty: poll only)")
  plan.base_url = os.getenv(core.provider.environment.base_url)
  local key = os.getenv(core.provider.environment.api_key)
  plan.api_key_file = values["api-key-file"] and absolute(values["api-key-file"])
  if not plan.api_key_file then
    plan.api_key = key and key ~= "" and key or asks and ask_secret "API key (not shown; empty: later)" or nil
  end
  return plan
end

local function check(plan)
  local store, why = options.store(plan.store)
  if not store then
    fail.stop(fail.USAGE, "init: " .. why, "init")
  elseif core.stat(plan.config_file) then
    fail.stop(fail.CANNOT_WRITE, ("%s is there already: it is left as it is; name another configuration with -c")
      :format(plan.config_file))
  end
  local user, err = core.user(plan.user)
  if not user then
    fail.stop(fail.FAILED, ("%s: useradd --system --shell /usr/sbin/nologin %s makes one"):format(err.message,
      plan.user))
  elseif not AS_ROOT and user.uid ~= core.uid() then
    fail.stop(fail.CANNOT_WRITE, ("only root can make a store for %s: run it as root, or as %s"):format(plan.user,
      plan.user))
  end
end

-- ---- afterwards ----

-- What doctor says, run as the user that owns the store: the store refuses any other user.
local function doctor(plan)
  local place = require "mjhook.setup.place"
  local user = core.user(plan.user)
  local words = { place.program "mjhook", "-c", plan.config_file, "doctor", "--json" }
  if AS_ROOT and user.uid ~= 0 then
    words = { "setpriv", "--reuid", user.uid, "--regid", user.gid, "--init-groups", (table.unpack or unpack)(words) }
  end
  for i, word in ipairs(words) do
    words[i] = "'" .. tostring(word):gsub("'", "'\\''") .. "'"
  end
  local pipe = io.popen("cd / && " .. table.concat(words, " ") .. " 2>/dev/null")
  local findings = require("mjhook.json").decode(pipe:read "*a")
  pipe:close()
  return type(findings) == "table" and findings or {}
end

local function indented(s, by)
  return (s:gsub("[^\n]+", (" "):rep(by) .. "%0"):gsub("\n$", ""))
end

local function print_lines(out, plan, lines)
  out:heading "The reconciler, by cron (a) or by systemd (b)"
  out:line(("(a) crontab -u %s -e"):format(plan.user))
  out:line("    ", lines.crontab)
  out:line "    or a line in /etc/cron.d/mjhook:"
  out:line("    ", lines.cron_d)
  out:line "(b) /etc/systemd/system/mjhook.service, then systemctl enable --now mjhook.service"
  out:lines(indented(lines.systemd, 4))
  if plan.hook_url then
    out:heading "nginx: at the top of nginx.conf"
    out:lines(indented(lines.nginx.main, 4))
    out:heading "nginx: in http { }"
    out:lines(indented(lines.nginx.http, 4))
    out:heading(("nginx: in the server { } of %s"):format(plan.hook_url:match "^https?://([^/?#]+)"))
    out:lines(indented(lines.nginx.server, 4))
  end
end

local function print_findings(out, findings)
  local shown = 0
  for _, f in ipairs(findings) do
    if f.status ~= "ok" then
      if shown == 0 then
        out:heading "What mjhook doctor has found so far"
      end
      shown = shown + 1
      out:line("  ", out:paint(f.status == "fail" and "red" or "yellow", text.pad(f.status, 4)), "  ", f.check, ": ",
        f.message)
      out:line("        -> ", f.advice or "")
    end
  end
end

local function report(out, plan, done, lines, findings)
  for _, path in ipairs(done.written) do
    out:line("wrote ", path)
  end
  if plan.store:match "^/" then
    out:line(("the store will be in %s and belongs to %s%s"):format(plan.store, plan.user,
      plan.group and (", shared with the group " .. plan.group) or ""))
  else
    out:line(("the store is a database: `mjhook%s migrate` makes its tables"):format(
      plan.config_file ~= ETC and " -c " .. plan.config_file or ""))
  end
  if plan.config_file ~= ETC then
    out:line("export MJHOOK_CONFIG=", plan.config_file)
  end
  if not (plan.api_key or plan.api_key_file) then
    out:line(("write the API key to %s/api-key, and uncomment api_key_file"):format(plan.config_file:match "^(.*)/"))
  end
  out:line()
  print_lines(out, plan, lines)
  print_findings(out, findings)
end

return {
  name = "init",
  arguments = "[DIR|URL]",
  summary = "write a configuration, and make the store's directory",
  example = "mjhook init /var/lib/mjhook --hook-url https://app.example/hook",
  words = { "FILE" },
  least = 0, most = 1,
  too_many = "init takes one store",
  opens_nothing = true,
  options = {
    { name = "user", arg = "NAME", read = options.text,
      help = "the user that owns the store (root's default: mjhook)" },
    { name = "group", arg = "NAME", help = "share the store with a group: store_mode 0660", read = options.text },
    { name = "hook-url", arg = "URL", help = "where the provider calls back", read = options.text },
    { name = "api-key-file", arg = "FILE", help = "a file that has the API key, and nothing else",
      read = options.text },
    { name = "no-check", help = "do not look at what was written as doctor does" },
    { name = "yes", short = "y", help = "ask nothing: what was not said has its default" },
  },
  details = [[
Writes the configuration (-c FILE; root: /etc/mjhook/config.lua), with a fresh secret and a policy to begin with beside
it, and makes the store's directory DIR for the user that it will belong to. Then it looks at all of it as doctor does,
and prints the lines for crontab, systemd and nginx that fit. On a terminal it asks for what was not said. The API key
is taken from MIDJOURNEY_API_KEY or asked for, and kept in a file of its own. Nothing that is there is changed.]],
  run = function(_, values, arguments, out)
    local init = require "mjhook.setup.init"
    local plan = plan_of(values, arguments)
    check(plan)
    local done, err = init.run(plan)
    if not done then
      fail.stop(fail.exit(err.code == "exists" and "read_only" or err.code), err.message)
    end
    local lines = init.lines(plan)
    local findings = values["no-check"] and {} or doctor(plan)
    if out.json then
      out:value { config = plan.config_file, store = plan.store, user = plan.user, group = plan.group,
                  written = json.array(done.written), lines = lines, findings = json.array(findings) }
    else
      report(out, plan, done, lines, findings)
    end
  end,
}
