-- /etc/mjhook/config.lua: read by nginx (LuaJIT) and by cron (Lua 5.4), see mjhook-config(5).
-- It must be writable by its owner only: chown root:mjhook, chmod 640.
local clean = require("mjhook.text").clean -- the words are the provider's: no terminal is to obey them

return {
  store = "/var/lib/mjhook",

  -- Both files hold nothing but keys: chown root:mjhook, chmod 640.
  api_key_file = "/etc/mjhook/api-key",
  -- One secret a line, at least 16 bytes, such as `openssl rand -base64 32` makes.  The first signs, all verify.
  secrets_file = "/etc/mjhook/secrets",

  -- Where the provider can reach you; leave it out and tasks are only polled.
  hook_url = "https://app.example/webhooks/midjourney",

  max_in_flight = 10,              -- the provider's own limit
  poll = { first = 60, max = 900 }, -- seconds
  log = "/var/log/mjhook/mjhook.log",

  policy = {
    -- Raising, or returning false and a reason, means: call me again later.
    on_succeeded = function(task, ctx)
      local path = "/var/lib/mjhook/done-" .. ctx.event_id
      local file, why = io.open(path .. ".tmp", "w")
      if not file then
        return false, why
      end
      file:write(task.ref, "\t", task.image or task.images[1] or "", "\n")
      file:close()
      local ok
      ok, why = os.rename(path .. ".tmp", path) -- a reader sees all of it or nothing
      if not ok then
        return false, why
      end
    end,

    -- Told, so that a person hears of it: cron mails what it prints.
    on_failed = function(task)
      io.stderr:write("failed: ", task.ref, ": ", clean(task.error), "\n")
    end,
    on_lost = function(task)
      io.stderr:write("lost: ", task.ref, ": ", clean(task.error), "\n")
    end,

    -- "resubmit" would rather be billed twice than lose a job.
    resolve_ambiguous = function(_task, _now)
      return "lost"
    end,
  },
}
