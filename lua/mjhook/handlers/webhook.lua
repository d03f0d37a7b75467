--- Sends events to another service, signed as the Standard Webhooks specification says (standardwebhooks.com).
---
---     on_event = require "mjhook.handlers.webhook" { url = "https://app.example/midjourney", secret = "whsec_..." }
---
--- A request is a POST with `webhook-id` (the event's id, the same for each try, so that a receiver can recognize a
--- repetition), `webhook-timestamp` (seconds, when this try was sent), `webhook-signature` ("v1," and a base64
--- HMAC-SHA256 of "id.timestamp.body", one for each secret) and this body:
---
---     {"type": "midjourney.task.succeeded", "timestamp": "2026-05-04T12:00:00.000Z", "data": {...}}
---
--- The type ends in `succeeded`, `failed`, `lost` or `ambiguous`. The timestamp says when it happened. `data` has the
--- fields that the guide "Policies and handlers" lists.
---
--- A process sends up to 16 events at once, each on a connection that is kept; fewer to a receiver that answers later
--- the more it gets. The events of one task are sent one after another.
---
--- An answer from 200 to 299 is success. Every other answer, also a redirect, is tried again with backoff, and not
--- before `Retry-After` (at most a day) when that came with 429 or 503. 410 Gone disables the target: a file in the
--- store's directory notes it, and until it is removed the target's events are buried unsent. They are kept: `mjhook
--- kick --all` sends them.

local core = require "mjhook.core"
local event = require "mjhook.handlers.event"
local json = require "mjhook.json"
local settings = require "mjhook.handlers.settings"
local turn = require "mjhook.delivery.turn"

local KNOWN = {
  url = "string", secret = "secrets", secret_file = "string", timeout = "number", allow_insecure = "boolean",
  ca_file = "string",
}
local TIMEOUT_S = 20           -- the specification recommends 15 to 30
local SECRET_MIN, SECRET_MAX = 24, 64 -- bytes; its words, too
local MAX_SECRETS = 8
local NEVER = { bury = true }

local function read_url(given)
  local scheme, authority = (given.url or ""):match "^(https?)://([^/?#]+)"
  if not scheme or given.url:find "[^!-~]" then
    return nil, "url: an https URL expected"
  elseif authority:find "@" then
    return nil, "url: no user and password in it, please: receivers check the signature"
  end
  local host = authority:match "^%[(.-)%]" or authority:match "^[^:]+" or ""
  if scheme == "http" and not settings.loopback(host) and not given.allow_insecure then
    return nil, "url: https expected; http only to a loopback address or with allow_insecure"
  end
  return { url = given.url, origin = scheme .. "://" .. authority }
end

-- "whsec_..." as the bytes that sign.
local function read_secret(text)
  local coded = type(text) == "string" and text:match "^whsec_(.*)$"
  local key = coded and core.unbase64(coded)
  if not key then
    return nil, "secret: \"whsec_\" and base64 expected"
  elseif #key < SECRET_MIN or #key > SECRET_MAX then
    return nil, ("secret: %d to %d bytes in base64 expected, got %d"):format(SECRET_MIN, SECRET_MAX, #key)
  end
  return key
end

local function read_secrets(given)
  local list, why = given.secret or {}, nil
  if given.secret and given.secret_file then
    return nil, "secret, secret_file: one of them, please"
  elseif given.secret_file then
    list, why = settings.private_lines("secret_file", given.secret_file)
  end
  if not list then
    return nil, why
  end
  list = type(list) == "string" and { list } or list
  if #list == 0 or #list > MAX_SECRETS then
    return nil, ("secret: 1 to %d secrets expected, got %d"):format(MAX_SECRETS, #list)
  end
  local keys = {}
  for i, text in ipairs(list) do
    keys[i], why = read_secret(text)
    if not keys[i] then
      return nil, why
    end
    core.hide(text)
  end
  return keys
end

local function read(given)
  local ok, why = settings.check(given, KNOWN)
  if not ok then
    return nil, why
  end
  ok, why = settings.seconds("timeout", given.timeout)
  if not ok then
    return nil, why
  end
  local target
  target, why = read_url(given)
  if not target then
    return nil, why
  end
  ok, why = settings.trusted("ca_file", given.ca_file, "code")
  if not ok then
    return nil, why
  end
  target.keys, why = read_secrets(given)
  target.timeout, target.ca_file = given.timeout or TIMEOUT_S, given.ca_file
  target.receiver = turn.receiver(target.url)
  return target.keys and target, why
end

local function body_of(task, ctx)
  return json.encode {
    type = "midjourney.task." .. ctx.type,
    timestamp = event.iso(ctx.created_at),
    data = event.data(task, ctx),
  }
end

-- The keys are set up when there is something to sign: most passes have nothing.
local function macs_of(target)
  if not target.macs then
    local macs = {}
    for i, key in ipairs(target.keys) do
      macs[i] = core.mac(key)
    end
    target.macs = macs
  end
  return target.macs
end

local function headers_of(target, id, body)
  local seconds = ("%d"):format(math.floor(core.now() / 1000))
  local content, signatures = ("%s.%s.%s"):format(id, seconds, body), {}
  for i, mac in ipairs(macs_of(target)) do
    signatures[i] = "v1," .. mac:base64(content)
  end
  return {
    "Content-Type: application/json",
    "webhook-id: " .. id,
    "webhook-timestamp: " .. seconds,
    "webhook-signature: " .. table.concat(signatures, " "),
  }
end

-- ---- a target that is gone ----

-- Named by a hash of the URL, which may itself be a secret.
local function marker_of(target, store)
  target.name = target.name or core.sha256(target.url):sub(1, 8):gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end)
  return ("%s/webhook-%s.disabled"):format(store, target.name)
end

local function buried(target, marker)
  local cure = marker and ("remove %s, then mjhook kick --all"):format(marker)
    or "mjhook kick --all, once it takes events again"
  return ("%s is disabled: it answered 410 Gone. To enable it: %s"):format(target.origin, cure)
end

local function disabled(target, ctx)
  if not ctx.store then
    return target.gone and buried(target) -- for as long as this process lives
  end
  local marker = marker_of(target, ctx.store)
  return core.stat(marker) and buried(target, marker)
end

local function disable(target, ctx)
  local known = disabled(target, ctx) -- by the answer to another event, sent at the same time
  if known then
    return false, known, NEVER
  end
  local log = ctx.log or function() end
  local marker = ctx.store and marker_of(target, ctx.store)
  local noted, err
  target.gone = true
  if marker then
    noted, err = core.write_file(marker, ("%s answered 410 Gone on %s, when it was sent event %s: it wants no more.\n"
      .. "While this file is here mjhook sends it nothing, and buries its events.\n"
      .. "To enable it again remove the file, then: mjhook kick --all\n"):format(target.origin, event.iso(core.now()),
      ctx.event_id), 384) -- 0600
  end
  if err then
    log("error", ("webhook: can't be noted: %s; it will be asked again"):format(err.message))
  end
  local reason = buried(target, noted and marker)
  log("error", "webhook: " .. reason)
  return false, reason, NEVER
end

-- ---- sending ----

local function judge(target, answer, ctx)
  local status = answer.status
  if answer.outcome ~= "answered" then
    return false, ("webhook: %s"):format(answer.error)
  elseif status >= 200 and status <= 299 then
    return true
  elseif status == 410 then
    return disable(target, ctx)
  end
  local reason = ("webhook: %s answered %d"):format(target.origin, status)
  if status >= 300 and status <= 399 then
    return false, reason .. ": redirects are not followed, set url to where it is now"
  end
  local after = (status == 429 or status == 503) and answer.retry_after
  return false, reason, after and { not_before = after } or nil
end

local function send(target, task, ctx)
  local body, why = body_of(task, ctx)
  if not body then
    return false, "webhook: the task can't be written as JSON: " .. why, NEVER
  end
  local ms = event.milliseconds(ctx, target.timeout)
  local answer, err = turn.perform({
    url = target.url, headers = headers_of(target, ctx.event_id, body), body = body, ca_file = target.ca_file,
  }, ms, target.receiver)
  if not answer then
    return false, "webhook: " .. err.message
  end
  return judge(target, answer, ctx)
end

---@param given mjhook.handlers.WebhookSettings
---@return mjhook.Handler
return function(given)
  local target, why = read(given)
  if not target then
    error("mjhook.handlers.webhook: " .. why, 2)
  end
  return function(task, ctx)
    local gone = disabled(target, ctx)
    if gone then
      return false, gone, NEVER
    end
    return send(target, task, ctx)
  end
end
