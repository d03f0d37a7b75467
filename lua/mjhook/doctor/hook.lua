-- Does a callback that the provider posts to hook_url arrive, whole and with its token?
local core = require "mjhook.core"
local json = require "mjhook.json"
local provider = require "mjhook.provider"
local web = require "mjhook.doctor.web"

local P = core.provider
local SMALL, LARGE = 2048, 60 * 1024
local SLOW_MS = 1000
local TIMED = 5

-- What a status means that no receiver of ours gives, or not for this request.
local STRANGE = {
  [200] = "something else answers at this address, and takes everything: is nginx's location the path of hook_url?",
  [400] = "something in between does not like the request: look into its error log",
  [401] = "a server or proxy in front asks for a login: the provider has none",
  [403] = "a firewall, or an allow or deny rule: the provider would be refused, too",
  [404] = "nothing is at this path: is nginx's location the path of hook_url?",
  [405] = "that location takes no POST: is nginx's location the path of hook_url?",
  [413] = "see client_max_body_size of nginx and of the proxies before it",
  [500] = "the receiver's error log says why",
  [502] = "a proxy answers, but no server behind it: does the receiver run?",
  [503] = "the receiver can't commit: its error log says why. Is the disk full, does the store belong to its user?",
  [504] = "a proxy answers, but the server behind it does not: does the receiver hang?",
}

-- A ref that no task has: a ULID of now.
local function unused_ref()
  local digits, ref = "0123456789ABCDEFGHJKMNPQRSTVWXYZ", {}
  local time, noise = core.now(), core.sha256(core.now() .. " " .. core.clock() .. tostring {})
  for i = 10, 1, -1 do
    ref[i] = digits:sub(time % 32 + 1, time % 32 + 1)
    time = math.floor(time / 32)
  end
  for i = 1, 16 do
    local d = noise:byte(i) % 32 + 1
    ref[10 + i] = digits:sub(d, d)
  end
  return table.concat(ref)
end

-- A callback of so many bytes: what matters is at its end, where a cut is felt.
local function callback_of(size)
  local head = '{"pad":"'
  local tail = ('","%s":"mjhook-doctor","%s":%d}'):format(P.field.task_id, P.field.status, P.status.running)
  return head .. ("mjhook doctor "):rep(math.ceil(size / 14)):sub(1, size - #head - #tail) .. tail
end

-- Signs like a keyring, but wrongly: the first digit of the signature is another one, the key's id is good.
local function forger(keyring)
  return {
    sign = function(_, ref, attempt)
      local kid, sig = keyring:sign(ref, attempt)
      return kid, (sig:sub(1, 1) == "A" and "B" or "A") .. sig:sub(2)
    end,
  }
end

local Hook = {}
Hook.__index = Hook

-- hook_url with a token for a task that does not exist; without a keyring, without a signature.
function Hook:url_by(keyring)
  return provider.hook_url({ config = self.config, keyring = keyring }, self.ref, 1)
end

function Hook:post(url, body)
  return web.ask(self.client, { url = url, body = body, headers = { "Content-Type: application/json" } })
end

-- mjhook's word in an answer; nil when it is none of its answers.
local function word(answer)
  local doc = json.decode(answer.body or "")
  return type(doc) == "table" and doc.status or nil
end

-- "HTTP 404", and the advice for it.
local function strange(answer)
  if answer.outcome ~= "answered" then
    return answer.error or "no answer", "the server's or a proxy's error log may tell why"
  elseif word(answer) == "noted" then -- allow_unsigned
    return "taken as one without a token", "a proxy drops the query string: let it keep it"
  end
  return ("HTTP %d"):format(answer.status), STRANGE[answer.status] or STRANGE[500]
end

function Hook:check_wrong_token()
  local secrets = self.config.secrets or {}
  local keyring = assert(core.keyring(#secrets > 0 and secrets or { "a secret of no installation" }))
  local answer = self:post(self:url_by(forger(keyring)), callback_of(SMALL))
  if answer.outcome ~= "answered" then
    web.unreachable(self.patient, self.report, self, answer)
    return false
  end
  web.addresses(self.report, self)
  web.certificate(self.report, self, answer, "callbacks and their tokens belong into https")
  web.clock(self.report, self, answer)
  if web.redirects(self.report, self, answer) then
    return false
  elseif answer.status == 401 and word(answer) == "bad_token" then
    self.report:ok("hook_url.wrong_token", "is refused with 401")
    return true
  end
  local what, advice = strange(answer)
  self.report:fail("hook_url.wrong_token",
    ("a callback with a wrong token should be refused with 401 by mjhook, was: %s"):format(what), advice)
  return false
end

-- The receiver knows no token of the first secret. Of another one that is configured?
function Hook:refused_token()
  for i = 2, #(self.config.secrets or {}) do
    local answer = self:post(self:url_by(core.keyring { self.config.secrets[i] }), callback_of(SMALL))
    if answer.status == 200 and word(answer) == "unknown" then
      return self.report:fail("hook_url.token",
        ("the receiver does not know the first of the secrets yet, which signs; it knows number %d"):format(i),
        "reload nginx: a new secret has to be known to the receiver before it signs")
    end
  end
  self.report:fail("hook_url.token", "a callback with a good token is refused with 401",
    "does the receiver have the same secrets (reload nginx after a change), do proxies keep the query string, does " ..
    "allow_cidr leave out this machine?")
end

local function too_large(answer, size)
  if word(answer) == "too_large" then
    return ("mjhook refuses a body of %d bytes (413)"):format(size),
      "raise max_body, and nginx's client_body_buffer_size to the same"
  end
  return ("a body of %d bytes is refused (413)"):format(size),
    "raise client_max_body_size in nginx, and the like of proxies before it, to max_body"
end

-- A callback of so many bytes for a task that does not exist.
function Hook:check_body(size)
  size = math.min(size, self.config.max_body)
  local answer = self:post(self.good_url, callback_of(size))
  local known = word(answer)
  if answer.outcome == "answered" and answer.status == 200 and known == self.expected then
    return answer
  elseif answer.status == 401 and known == "bad_token" then
    self:refused_token()
  elseif answer.status == 400 and known == "unreadable" then
    self.report:fail("hook_url.body", ("a body of %d bytes did not arrive whole"):format(size),
      "something in between cuts or changes it; `mjhook refused` on the receiver's machine shows what came")
  elseif answer.status == 413 then
    self.report:fail("hook_url.body", too_large(answer, size))
  else
    local what, advice = strange(answer)
    self.report:fail("hook_url.body", ("a callback of %d bytes should be answered with 200 by mjhook, was: %s")
      :format(size, what), advice)
  end
  return nil
end

function Hook:check_bodies()
  local small = self:check_body(SMALL)
  if not small then
    return
  end
  self.report:ok("hook_url.token", "is taken; for a task that does not exist nothing is stored")
  if self:check_body(LARGE) then
    self.report:ok("hook_url.body", ("arrives whole: %d bytes"):format(math.min(LARGE, self.config.max_body)))
  end
  local answers = { small }
  while #answers < TIMED do
    local answer = self:post(self.good_url, callback_of(SMALL))
    if answer.outcome ~= "answered" then
      return self.report:fail("hook_url.reach", ("not every request is answered: %s"):format(answer.error),
        "does the server limit rates or connections?")
    end
    answers[#answers + 1] = answer
  end
  web.time(self.report, self, answers, SLOW_MS, "the provider may not wait: is the disk busy, the network far?")
end

function Hook:check_get()
  local answer = web.ask(self.client, { url = web.shown(self.url) })
  if answer.status == 405 then
    return self.report:ok("hook_url.get", "is refused with 405")
  end
  self.report:warn("hook_url.get", ("a GET should be refused with 405 by mjhook, was: %s"):format(
    (strange(answer))),
    "harmless by itself, but is it mjhook that answers?")
end

-- Whether a callback can be taken at all, and what mjhook will say of one for a task that does not exist.
function Hook:check_secrets()
  local secrets = self.config.secrets
  if secrets and #secrets > 0 then
    self.good_url, self.expected = self:url_by(core.keyring { secrets[1] }), "unknown"
  elseif self.config.allow_unsigned then
    self.good_url, self.expected = self:url_by(nil), "noted"
    self.report:warn("hook_url.secrets", "there are none: callbacks are only hints, each task is asked about",
      "set secrets or secrets_file")
  else
    self.report:fail("hook_url.secrets", "there are none, so every callback is refused with 401",
      "set secrets or secrets_file: a line of at least 16 bytes, such as `openssl rand -base64 32` gives")
  end
end

local function check(self)
  self:check_secrets()
  if not self:check_wrong_token() then
    return
  end
  if self.good_url then
    self:check_bodies()
  end
  self:check_get()
end

return function(patient, report)
  local config = patient.config
  if not config.hook_url then
    return report:ok("hook_url", "not set: there are no callbacks, tasks are only polled")
  end
  local self = setmetatable({
    patient = patient, report = report, config = config, client = web.client(patient, {}), ref = unused_ref(),
    name = "hook_url", url = config.hook_url, public = true,
  }, Hook)
  local ok, why = pcall(check, self)
  self.client:close()
  if not ok then
    error(why, 0)
  end
end
