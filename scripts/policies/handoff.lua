-- A policy: hands every event on to another service, signed by the Standard Webhooks specification.
--
-- HANDOFF_URL (https) and HANDOFF_SECRET_FILE, a private file with a secret a line: "whsec_" and base64, made by
-- `printf 'whsec_%s\n' "$(openssl rand -base64 32)"`. The receiver drops repeats by webhook-id. For workers that fetch
-- their jobs from Redis, take mjhook.handlers.redis instead.
local webhook = require "mjhook.handlers.webhook"

return {
  on_event = webhook {
    url = assert(os.getenv "HANDOFF_URL", "HANDOFF_URL is not set"),
    secret_file = assert(os.getenv "HANDOFF_SECRET_FILE", "HANDOFF_SECRET_FILE is not set"),
  },
}
