--- What the console lets in: the same origin, a token that one of its pages was given, and headers that keep a page to
-- itself.
local core = require "mjhook.core"

local M = {}

local TOKEN_S = 12 * 3600

-- ---- headers ----

local CSP = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'%s; "
  .. "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
  .. "trusted-types 'none'"

--- Sets what every answer has.
-- @tparam table options images
function M.headers(options)
  local header = ngx.header
  header["Content-Security-Policy"] = CSP:format(options.images == "provider" and " https:" or "")
  header["X-Content-Type-Options"] = "nosniff"
  header["X-Frame-Options"] = "DENY"
  header["Referrer-Policy"] = "no-referrer"
  header["Cross-Origin-Opener-Policy"] = "same-origin"
  header["Cross-Origin-Resource-Policy"] = "same-origin"
  header["Cache-Control"] = "no-store"
end

-- ---- what is hidden ----

--- Why a filter may not be used here; nil when it may. What is not shown can't be asked for either: its answers would
-- tell.
-- @tparam table filter
-- @tparam table options private
function M.hidden(filter, options)
  for _, name in ipairs { "q", "user_id", "key" } do
    if options.private and filter[name] ~= nil then
      return name .. ": hidden in this console"
    end
  end
end

-- ---- origin ----

--- Whether the request was begun by a page of this origin, as far as a browser says. A browser always says so with a
-- POST; with a GET only newer ones do.
-- @tparam boolean strictly a request that says nothing does not do
function M.same_origin(strictly)
  local site = ngx.var.http_sec_fetch_site
  if site then
    return site == "same-origin" or (site == "none" and not strictly)
  end
  local origin = ngx.var.http_origin
  if not origin then
    return not strictly
  end
  return origin:match "^https?://(.+)$" == ngx.var.http_host and ngx.var.http_host ~= nil
end

-- ---- token ----

-- Derived from what every worker and every host of one store has: a token outlives a reload of nginx.
local function key(mj)
  local config = mj.config
  local account = config.accounts and config.accounts[1]
  local secret = config.secrets and config.secrets[1] or account and account.api_key
  return secret and core.hmac_sha256(secret, "mjhook console")
end

local function tag(mj, expires, nonce)
  local bytes = core.hmac_sha256(key(mj), ("1 %d %s %s"):format(expires, nonce, ngx.var.remote_user or ""))
  return (core.base64(bytes:sub(1, 16)):gsub("[+/=]", { ["+"] = "-", ["/"] = "_", ["="] = "" }))
end

local function same(a, b)
  local different = #a == #b and 0 or 1
  for i = 1, math.min(#a, #b) do
    different = different + (a:byte(i) == b:byte(i) and 0 or 1)
  end
  return different == 0
end

--- A token for a page: of this user, for half a day. nil when there is no secret to make one with.
function M.token(mj)
  if not key(mj) then
    return nil
  end
  local expires = math.floor(core.now() / 1000) + TOKEN_S
  local nonce = ngx.var.request_id
  return ("%d.%s.%s"):format(expires, nonce, tag(mj, expires, nonce))
end

--- Whether a token is one of ours and still good.
function M.is_good(mj, token)
  local expires, nonce, given = (token or ""):match "^(%d+)%.(%w+)%.([%w_-]+)$"
  if not expires or #expires > 12 or not key(mj) then
    return false
  end
  return same(tag(mj, tonumber(expires), nonce), given) and tonumber(expires) > core.now() / 1000
end

return M
