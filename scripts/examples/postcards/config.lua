-- /srv/postcards/config.lua, for nginx and for mjhook-reconcile.  Three files beside it: api-key (the provider's),
-- secrets (a line made by `openssl rand -base64 32`), each with mode 600, and the directory images.
return {
  store = "store",
  api_key_file = "api-key",
  secrets_file = "secrets",
  hook_url = "https://postcards.example/webhooks/midjourney",
  log = "mjhook.log",
  policy = {
    on_succeeded = require "mjhook.handlers.archive" { dir = "/srv/postcards/images", mode = "0644" },
  },
}
