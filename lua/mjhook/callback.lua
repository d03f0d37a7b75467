--- The callback's way: cheap refusals first, then one commit, and only then 200.
local cidr = require "mjhook.cidr"
local core = require "mjhook.core"
local provider = require "mjhook.provider"
local view = require("mjhook.view").view

local M = {}

local HINT_GAP_MS = 10000 -- PRODUCT.md: hints make at most one poll per task per 10 s

local function reply(status, word, headers)
  headers = headers or {}
  headers["Content-Type"] = "application/json"
  return { status = status, headers = headers, body = ('{"status":"%s"}\n'):format(word) }
end

-- Made once, so that no answer fails for want of memory.
local UNAVAILABLE = reply(503, "unavailable", { ["Retry-After"] = "5" })

M.UNAVAILABLE = UNAVAILABLE

local no_keys = assert(core.keyring {}) -- verifies nothing, but tells whether there is a token

--- How a request is authenticated: "signed" with ref and attempt, "unsigned" where that is allowed, or nil; nil and an
-- error when that could not be found out.
function M.authenticate(mj, request)
  local uri = type(request.uri) == "string" and request.uri or ""
  local ref, attempt, err = (mj.keyring or no_keys):authorize(uri)
  if ref then
    return "signed", ref, attempt
  elseif attempt then -- a token, and a wrong one
    return nil, err
  end
  return mj.config.allow_unsigned and "unsigned" or nil
end

-- The address that a request came from, seen past trusted proxies; nil when there is none that can be read.
local function caller(mj, request)
  return cidr.caller(request.peer, request.forwarded, mj.config.trusted_proxies)
end

-- ---- what is said, and how often ----

local TELL_MS = 60000
local TELL_MAX = 256 -- subjects that are remembered

local function forget_old(told, now)
  local left = 0
  for subject, one in pairs(told) do
    if now - one.at >= TELL_MS then
      told[subject] = nil
    else
      left = left + 1
    end
  end
  return left
end

-- Whether something about a subject is to be logged: at once, and then at most once a minute. A flood of requests must
-- not become a flood of log lines. Gives how many such things there were since the last line, with this one; else nil.
local function seldom(mj, subject)
  local told, now = mj.told or {}, core.clock()
  mj.told = told
  local one = told[subject]
  if not one and forget_old(told, now) >= TELL_MAX then
    subject = "others"
    one = told[subject]
  end
  if not one then
    told[subject] = { at = now, count = 0 }
    return 1
  end
  one.count = one.count + 1
  if now - one.at < TELL_MS then
    return nil
  end
  local count = one.count
  one.at, one.count = now, 0
  return count
end

--- Logs at once, and then at most once a minute.
-- @tparam table mj
-- @tparam string subject what it is about
-- @tparam string text
-- @tparam[opt="warn"] string level
function M.say(mj, subject, text, level)
  local n = seldom(mj, subject)
  if n then
    mj.log(level or "warn", n == 1 and text or ("%s (and %d more since this was last said)"):format(text, n - 1))
  end
end

--- Counts a request without a good token, and says so at once and then at most once a minute.
-- @tparam table mj
-- @tparam[opt] table request peer and forwarded, as for precheck()
function M.unauthenticated(mj, request)
  local n = seldom(mj, "unauthenticated")
  if n then
    mj.log("warn", ("%d request%s without a good token or from an address that is not allowed, the last one from %s")
      :format(n, n == 1 and "" or "s", request and caller(mj, request) or "an unknown address"))
  end
end

-- What came with a good token and can't be taken is kept, for a person to look at, and it is a reason to ask the
-- provider about the task. A store that can't keep it may be able to when it comes again. What came without a token
-- leaves no line each.
local function refuse(mj, answer, ref, attempt, body, why)
  if not ref then
    M.unauthenticated(mj)
    return answer
  end
  M.say(mj, ref, ("callback for %s refused: %s"):format(ref, why))
  local kept, err = mj.exec:commit {
    { op = "refuse", ref = ref, attempt = attempt, error = why, body = body },
    { op = "signal", kind = "look", source = "callback", ref = ref, attempt = attempt },
  }
  if not kept then
    M.say(mj, "not kept", ("callback for %s refused and not kept: %s"):format(ref, err.message), "error")
    return UNAVAILABLE
  end
  return answer
end

local function too_large(mj, ref, attempt, body, size)
  return refuse(mj, reply(413, "too_large"), ref, attempt, body, ("%.0f bytes, max_body is %d"):format(size,
    mj.config.max_body))
end

local function precheck(mj, request)
  if request.method ~= "POST" then
    return reply(405, "method_not_allowed", { Allow = "POST" })
  end
  local how, ref, attempt = M.authenticate(mj, request)
  if not how and ref then
    M.say(mj, "token", "callback: " .. ref.message, "error")
    return UNAVAILABLE
  elseif not how or mj.config.allow_cidr and not cidr.contains(mj.config.allow_cidr, caller(mj, request)) then
    return reply(401, "bad_token")
  end
  if request.length and request.length > mj.config.max_body then
    return too_large(mj, ref, attempt, "", request.length)
  end
  return nil, how, ref, attempt
end

-- The answer to a request whose handling raised. It raises nothing itself, also when memory is short or the log fails.
local function failed(mj, why)
  pcall(function()
    M.say(mj, "failed", "callback: " .. tostring(why), "error")
  end)
  return UNAVAILABLE
end

--- What can be refused before the body is read; nil when nothing. Never raises.
-- @tparam table mj
-- @tparam table request method, uri, peer, forwarded (X-Forwarded-For), length (of the body, when known)
-- @return a reply; or nil, then how it is authenticated, ref and attempt
function M.precheck(mj, request)
  local ok, refused, how, ref, attempt = pcall(precheck, mj, request)
  if not ok then
    return failed(mj, refused)
  end
  return refused, how, ref, attempt
end

-- The task that a callback is about, and the attempt when its id told it; nil when there is none. A store that can't be
-- read raises: its answer is 503, since what is not known is not decided.
local function known(mj, ref, task_id)
  local task, err
  if ref then
    task, err = mj.exec:read("get", ref)
  end
  if not task and task_id and (not err or err.code == "not_found") then
    task, err = mj.exec:read("find", task_id)
  end
  if not task and err.code ~= "not_found" then
    error(err, 0)
  end
  return task, task and err
end

-- Whether the word is believed at once ("accept"), asked about ("verify") or dropped ("ignore").
local function trust(mj, how, ref, word)
  if how == "unsigned" then
    return "verify"
  end
  local answer = mj.config.trust == "verify" and "verify" or "accept"
  if mj.policy:decides "on_callback" then
    local task = view((known(mj, ref, word.task_id)))
    if task then
      return mj.policy:decide("on_callback", task, word), task
    end
  end
  return answer
end

-- An unsigned word is worth a poll only if it is about a task that we know and do not ask about soon anyway.
local function worth_a_look(mj, word)
  local task = known(mj, nil, word.task_id)
  if not task then
    return false
  end
  local open = task.state == "pending" or task.state == "lost" or task.state == "cancelled" or task.state == "failed"
  return open and not (task.due_at and task.due_at <= mj.exec:now() + HINT_GAP_MS)
end

local ANSWERS = { ok = "stored", duplicate = "duplicate", stale = "stale", unknown = "unknown", invalid = "stale" }

local function operation(how, ref, attempt, word, decision, seen)
  local op = { op = "signal", ref = ref, attempt = attempt, source = "callback" }
  if decision == "verify" then
    op.kind, op.task_id = "look", word.task_id
    return op
  end
  op.status = word
  if seen and how == "signed" and seen.attempt == attempt then
    op.expect = seen.state -- a decision counts only for what it was made about
  end
  return op
end

local STORED = {}
for code, word in pairs(ANSWERS) do
  STORED[code] = reply(200, word)
end

local function outcome(mj, name, code)
  if STORED[code] then
    return STORED[code]
  end
  M.say(mj, "not stored", ("callback for %s not stored: %s"):format(name, code), "error")
  return UNAVAILABLE
end

-- Progress is no reason to ask about a task that is known to run.
local function tells_nothing(mj, ref, attempt, word)
  if word.kind ~= "running" then
    return false
  end
  local task, its = known(mj, nil, word.task_id)
  return task and task.state == "pending" and (not ref or task.ref == ref and its == attempt)
end

-- A callback that has to be judged before it is believed, or that only triggers a status check. What is answered; or
-- nil, the outcome's code, and an error if there is one.
local function weigh(mj, how, ref, attempt, word)
  if how == "unsigned" and not worth_a_look(mj, word) then
    return "noted"
  end
  for _ = 1, 3 do
    local decision, seen = trust(mj, how, ref, word)
    if decision == "ignore" then
      return "ignored"
    elseif decision == "verify" and tells_nothing(mj, ref, attempt, word) then
      return "noted"
    end
    local results, err = mj.exec:commit { operation(how, ref, attempt, word, decision, seen) }
    local code = results and results[1].code or err.message
    if code ~= "changed" then
      return ANSWERS[code], code, err
    end
  end
  return nil, "changed" -- under three decisions in a row
end

local function unreadable(mj, ref, attempt, body, why)
  return refuse(mj, reply(400, "unreadable"), ref, attempt, body, why)
end

local function accept(mj, body, how, ref, attempt)
  if #body > mj.config.max_body then
    return too_large(mj, ref, attempt, body, #body)
  end
  local plain, damaged = core.gunzip(body, mj.config.max_body) -- some compress whatever they send
  if not plain and damaged.code == "limit" then
    return refuse(mj, reply(413, "too_large"), ref, attempt, body, damaged.message)
  elseif not plain and damaged.code ~= "invalid" then
    return failed(mj, damaged)
  elseif not plain then
    return unreadable(mj, ref, attempt, body, damaged.message)
  end
  body = plain
  if how == "signed" and mj.config.trust ~= "verify" and not mj.policy:decides "on_callback" then
    local code, why = mj.exec:callback(ref, attempt, body)
    if code == "unreadable" then
      return unreadable(mj, ref, attempt, body, why)
    end
    return outcome(mj, ref, code or why.message)
  end
  local word, why = provider.read_callback(body)
  if not word then
    return unreadable(mj, ref, attempt, body, why)
  end
  local answer, code = weigh(mj, how, ref, attempt, word)
  return answer and reply(200, answer) or outcome(mj, ref or word.task_id, code)
end

local function guarded(mj, f, ...)
  local ok, answer = pcall(f, mj, ...)
  return ok and answer or failed(mj, answer)
end

--- The second half: the body of a request that precheck() let through. Never raises.
-- @treturn table {status=, headers=, body=}
function M.accept(mj, body, how, ref, attempt)
  return guarded(mj, accept, body, how, ref, attempt)
end

--- A body that the server did not hand over whole. Never raises.
-- @treturn table as accept()
function M.refuse(mj, ref, attempt, why)
  return guarded(mj, refuse, reply(413, "too_large"), ref, attempt, "", why)
end

local function header(headers, wanted) -- whatever the case that the server gives names in
  for name, value in pairs(type(headers) == "table" and headers or {}) do
    if type(name) == "string" and name:lower() == wanted then
      return type(value) == "table" and table.concat(value, ",") or tostring(value)
    end
  end
end

local function handle(mj, request)
  local body = type(request.body) == "string" and request.body or ""
  local seen = {
    method = request.method, uri = request.uri, peer = type(request.peer) == "string" and request.peer or nil,
    forwarded = header(request.headers, "x-forwarded-for"),
  }
  local refused, how, ref, attempt = M.precheck(mj, seen)
  if refused and refused.status == 401 then
    M.unauthenticated(mj, seen)
  end
  return refused or accept(mj, body, how, ref, attempt)
end

--- Takes a refused callback in after all, as if it had just come: what has to be weighed is weighed.
-- @tparam table mj
-- @tparam number id as in mj:refused()
-- @treturn string|nil "stored", "duplicate", "stale", "unknown" or "ignored"; nil and an error
function M.readmit(mj, id)
  local page, err = mj.exec:read("refused", id + 1, 1)
  if not page then
    return nil, err
  end
  local kept = page[1]
  if not kept or kept.id ~= id then
    return nil, core.error("not_found", ("there is no refused callback %.0f: the newest %d are kept"):format(id,
      core.max_refused))
  elseif #kept.body < kept.size then
    return nil, core.error("invalid", ("of the refused callback %d only %d of %d bytes were kept"):format(id,
      #kept.body, kept.size))
  end
  local word, why = provider.read_callback(core.gunzip(kept.body, mj.config.max_body) or kept.body)
  local answer, code
  if word then
    answer, code, err = weigh(mj, "signed", kept.ref, kept.attempt, word)
  end
  if answer or err then
    return answer, err
  end
  return nil, core.error("invalid", ("the refused callback %d is still refused: %s"):format(id,
    code or "unreadable: " .. why))
end

--- mj:callback. Never raises.
-- @tparam table request method, uri (with query), headers, body, peer
-- @treturn table {status=, headers=, body=}
function M.callback(mj, request)
  return guarded(mj, handle, request)
end

return M
