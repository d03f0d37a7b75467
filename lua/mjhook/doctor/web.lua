-- What looking at hook_url and at the provider have in common.
local core = require "mjhook.core"

local M = {}

local TIMEOUT_MS, CONNECT_MS = 15000, 8000
local CLOCK_S = 30
local DAY = 86400
local CERT_WARN_DAYS = 14

--- A URL without its query, which may hold a secret.
function M.shown(url)
  return (url:gsub("[?#].*$", ""))
end

--- The host of a URL, without port, brackets, user and password.
function M.host(url)
  local authority = (url:match "^%w+://([^/?#]+)" or ""):match "[^@]*$"
  return authority:match "^%[(.-)%]" or authority:match "^[^:]+" or authority
end

--- A client that keeps one connection.
-- @tparam table patient
-- @tparam table target ca_file and proxy to use; the doctor's own ca_file goes before
-- @tparam[opt] boolean insecure
function M.client(patient, target, insecure)
  return assert(core.http {
    connections = 1, timeout_ms = patient.timeout_ms or TIMEOUT_MS, connect_timeout_ms = CONNECT_MS,
    ca_file = patient.ca_file or target.ca_file, proxy = target.proxy, insecure = insecure,
  })
end

--- One request, with details.
function M.ask(client, request)
  request.details = true
  local answers, err = client:perform({ request })
  local answer = answers and answers[1] or err and { outcome = "not_sent", error = err.message }
    or { outcome = "maybe_sent", error = "out of memory for the answer" }
  answer.details = answer.details or {}
  answer.at = core.now()
  return answer
end

local function date(seconds)
  return os.date("!%Y-%m-%d", seconds)
end

-- What certificate it is that was refused: asked for without trusting it, and without a token or a key.
local function refused_certificate(patient, target)
  local client = M.client(patient, target, true)
  local seen = M.ask(client, { url = M.shown(target.url) }).details
  client:close()
  if not seen.cert_expires then
    return "", false
  end
  local expired = seen.cert_expires * 1000 < core.now()
  return (" (by %s, %s %s)"):format(seen.issuer or "?", expired and "expired" or "valid until",
    date(seen.cert_expires)), expired
end

--- Says why there is no answer.
-- @tparam table target name (of the key in the configuration), url
function M.unreachable(patient, report, target, answer)
  local failure, host = answer.details.failure, M.host(target.url)
  local why = answer.error or "no answer"
  if failure == "dns" then
    report:fail(target.name .. ".dns", why,
      ("is %s spelled right in %s, does it have an A or AAAA record, and is there a network?")
        :format(host, target.name))
  elseif failure == "certificate" then
    local what, expired = refused_certificate(patient, target)
    report:fail(target.name .. ".tls", why .. what, expired and "renew the certificate, and reload the server" or
      ("it has to name %s, be valid by now, and come with its whole chain (fullchain.pem) from an authority that " ..
       "all clients trust%s"):format(host, target.proxy and "; a proxy that opens TLS shows its own: name its " ..
       "authority in ca_file" or ""))
  elseif failure == "authorities" then
    report:fail(target.name .. ".tls", why, "no list of trusted authorities: install ca-certificates")
  elseif failure == "tls" then
    report:fail(target.name .. ".tls", why, "does that port speak TLS, version 1.2 or newer?")
  elseif failure == "connect" then
    report:fail(target.name .. ".reach", why, "does the server run, is its port open in the firewall? Some routers " ..
      "do not let machines inside call the outside address: then look from elsewhere")
  elseif failure == "timeout" then
    report:fail(target.name .. ".reach", why, "a firewall that drops what comes, or a server that hangs")
  else
    report:fail(target.name .. ".reach", why, "the server's or a proxy's error log may tell why")
  end
end

--- Says which addresses a name has.
-- @tparam table target name, url, public (the other side has to reach it, not we), proxy (which looks the name up)
function M.addresses(report, target)
  local host = M.host(target.url)
  if target.proxy then
    return report:ok(target.name .. ".proxy", ("%s is asked through %s"):format(host, M.host(target.proxy)))
  end
  local found, err = core.resolve(host)
  if not found then
    return report:fail(target.name .. ".dns", err.message, ("is %s spelled right?"):format(host))
  end
  local list = table.concat(found, ", ")
  local shown = list == host and host or ("%s is %s"):format(host, list)
  for _, address in ipairs(found) do
    if target.public and core.address((address:gsub("%%.*$", ""))) ~= "public" then
      return report:warn(target.name .. ".dns", ("%s: %s cannot be reached from outside"):format(shown, address),
        ("the provider has to reach it: %s needs a public address"):format(target.name))
    end
  end
  report:ok(target.name .. ".dns", shown)
end

--- Says how long the certificate lasts, of the request that made the connection.
function M.certificate(report, target, answer, plain_advice)
  local check = target.name .. ".tls"
  local expires = answer.details.cert_expires
  if target.url:match "^http://" then
    report:warn(check, ("%s is plain http: it can be read on its way"):format(M.shown(target.url)), plain_advice)
  elseif not expires then
    report:ok(check, "the certificate is valid")
  else
    local days = math.floor((expires * 1000 - core.now()) / 1000 / DAY)
    local words = ("the certificate is valid until %s, %d day%s; %d in the chain, by %s"):format(date(expires), days,
      days == 1 and "" or "s", answer.details.certs or 0, answer.details.issuer or "?")
    if days < CERT_WARN_DAYS then
      report:warn(check, words, "renew it, and see to it that this happens by itself")
    else
      report:ok(check, words)
    end
  end
end

--- Compares the clocks.
function M.clock(report, target, answer)
  local theirs = answer.details.date
  if not theirs then
    return
  end
  local off = answer.at / 1000 - theirs
  if math.abs(off) > CLOCK_S then
    report:warn(target.name .. ".clock", ("our clock is %.0f s %s that of %s"):format(math.abs(off),
      off > 0 and "ahead of" or "behind", M.host(target.url)), "let NTP keep the time: chrony or systemd-timesyncd")
  else
    report:ok(target.name .. ".clock", ("within %d s of ours"):format(CLOCK_S))
  end
end

--- Says how long answers take, in the median.
function M.time(report, target, answers, limit_ms, advice)
  local times = {}
  for _, answer in ipairs(answers) do
    times[#times + 1] = (answer.details.total_us or answer.elapsed_ms * 1000) / 1000
  end
  table.sort(times)
  local median = times[math.floor((#times + 1) / 2)]
  local words = ("%.0f ms, the median of %d"):format(median, #times)
  if #times == 1 then
    words = ("%.0f ms"):format(median)
  end
  if median > limit_ms then
    report:warn(target.name .. ".time", words, advice)
  else
    report:ok(target.name .. ".time", words)
  end
end

--- Fails for an answer that points elsewhere.
-- @treturn boolean whether it does
function M.redirects(report, target, answer)
  if answer.status < 300 or answer.status > 399 then
    return false
  end
  report:fail(target.name .. ".redirect", ("HTTP %d to %s: a redirect drops the request"):format(answer.status,
    answer.details.location or "nowhere"), ("set %s to the address that answers by itself"):format(target.name))
  return true
end

return M
