--- The user's policy: loading it, and asking it without trusting it.
-- Handlers tell the user's code what happened. Decisions ask it; an error or a bad answer means the careful answer.
local beside = require "mjhook.beside"
local core = require "mjhook.core"
local limited = require "mjhook.limited"
local memory = require "mjhook.memory"

local M = {}
local Policy = {}
Policy.__index = Policy

local HANDLERS = { "on_succeeded", "on_failed", "on_lost", "on_ambiguous", "on_event" }
local DECISIONS = { "on_callback", "next_poll", "on_refused", "resolve_ambiguous" }

local known = {}
for _, list in ipairs { HANDLERS, DECISIONS } do
  for _, name in ipairs(list) do
    known[name] = true
  end
end

local is_handler = {}
for _, name in ipairs(HANDLERS) do
  is_handler[name] = true
end

local function callable(f)
  return type(f) == "function" or type((getmetatable(f) or {}).__call) == "function"
end

local function bad(text, ...)
  return nil, core.error("config", "policy: " .. text:format(...))
end

--- Loads a policy.
-- @param given a table of functions, the path of a Lua file that returns one, or nil
-- @tparam function log called with (level, message)
-- @tparam[opt] table how instead (of what the files hold now: see mjhook.beside); for mjhook.policy_test.sandbox: load
-- and call (instead of pcall, for the file and for decisions), env (the file's globals)
-- @return a policy, or nil and an error
function M.load(given, log, how)
  local functions = given
  if type(given) == "string" then
    local ok, value = beside.load(given, how and { instead = how.instead, env = how.env, call = how.load })
    if not ok and value.retryable then
      return nil, value
    elseif not ok then
      return bad("%s", value.message)
    elseif type(value) ~= "table" then
      return bad("%s should return a table of functions", given)
    end
    functions = value
  end
  for name, f in pairs(functions or {}) do
    if not known[name] then
      return bad("unknown function %q%s", tostring(name), require "mjhook.suggest"(name, known))
    end
    local list = is_handler[name] and type(f) == "table" and not callable(f) and f or { f }
    for _, one in ipairs(list) do
      if not callable(one) then
        return bad("%s: function expected, got %s", name, type(one))
      end
    end
    if #list == 0 then
      return bad("%s: function expected, got an empty list", name)
    end
  end
  return setmetatable({ functions = functions or {}, present = functions ~= nil, log = log,
                        path = type(given) == "string" and given or nil, call = how and how.call or pcall }, Policy)
end

--- Watches the file that the policy comes from: see refresh().
-- @tparam string path
-- @tparam function load gives a policy as load() does, or nil and an error
function Policy:watch(path, load)
  self.path, self.file = path, require("mjhook.policy_watch").new(path, load)
end

--- Takes an edited policy over, if its file has changed. A broken one leaves the functions at work that are there.
-- @treturn boolean|nil true: the functions are other ones
function Policy:refresh()
  if not self.file then
    return
  end
  local fresh, err, path = self.file:poll()
  if fresh then
    self.functions, self.present = fresh.functions, fresh.present
    self.log("notice", ("policy: %s has changed and is loaded anew"):format(path))
    return true
  elseif err then
    self.log("error", ("policy: %s has changed and can't be loaded, so the policy from before stays at work: %s")
      :format(path, err.message))
  end
end

--- Whether there is a decision function of that name.
function Policy:decides(name)
  if self.file and not self.file.by_timer then
    self:refresh()
  end
  return self.functions[name] ~= nil
end

-- A wait that a decision may name, in milliseconds; nil when it is no usable number of seconds.
local function wait_ms(seconds)
  if type(seconds) == "number" and seconds == seconds and seconds >= 0 and seconds <= 30 * 86400 then
    return math.floor(seconds * 1000)
  end
end

-- What a decision may say, and what is done when it raises or says something else: the careful thing.
local WORDS = {
  on_callback = { accept = true, verify = true, ignore = true },
  on_refused = { retry = true, fail = true },
  resolve_ambiguous = { lost = true, resubmit = true, wait = true },
}
local CAREFUL = { on_callback = "verify", on_refused = "default", resolve_ambiguous = "lost", next_poll = "default" }

local function interpret(name, answer, seconds)
  if name == "next_poll" then
    local ms = wait_ms(answer)
    return ms and "wait" or nil, ms
  elseif WORDS[name][answer] then
    return answer, wait_ms(seconds)
  end
end

local DECISION_S = 1
local TOO_LONG = ("took longer than %s s"):format(DECISION_S)

-- call(...), which is a pcall of the user's code.
local function guarded(self, call, ...)
  if self.path then
    return beside.guarded(self.path, call, ...)
  end
  return call(...)
end

-- While a handler's own call sends, its time-out is held off. A decision that this call asks for is the user's code all
-- the same, and gets a time of its own.
local function ask(self, f, ...)
  if core.held() then
    return guarded(self, limited, f, DECISION_S, TOO_LONG, ...)
  end
  return guarded(self, self.call, f, ...)
end

--- Asks a decision function and reads its answer. "default" is for the caller to know.
-- @tparam string name on_callback, next_poll, on_refused, resolve_ambiguous
-- @treturn string|nil what it decided ("wait" of next_poll), the careful thing when it was at fault; nil when there is
-- no such function
-- @treturn number|nil milliseconds, when it named a time
-- @treturn string|nil its fault: it raised, or answered what means nothing
function Policy:decide(name, ...)
  local f = self.functions[name]
  if not f then
    return nil
  end
  local ok, answer, seconds = ask(self, f, ...)
  local what, ms
  if ok then
    what, ms = interpret(name, answer, seconds)
    if what then
      return what, ms
    elseif answer == nil then
      return CAREFUL[name] -- it has no opinion
    end
  end
  if not ok and memory.is_out(answer) then
    error(answer, 0) -- not what the policy thinks
  end
  local fault = ok and ("answered %s"):format(tostring(answer)) or ("raised: %s"):format(tostring(answer))
  self.log("error", ("policy: %s %s"):format(name, fault))
  return CAREFUL[name], nil, fault
end

local LEAST_S = 0.001
local NONE = {}

-- Appends the handlers of one name to a list of names and functions, in turns.
local function add_handlers(list, name, f)
  if f and callable(f) then
    list[#list + 1], list[#list + 2] = name, f
  end
  for _, one in ipairs(f and not callable(f) and f or NONE) do
    list[#list + 1], list[#list + 2] = name, one
  end
end

local limits = {} -- what is said of a time-out, by the seconds

local function limit_of(timeout)
  limits[timeout] = limits[timeout] or ("took longer than handler_timeout (%s s)"):format(timeout)
  return limits[timeout]
end

-- One handler. False, why and what the handler said of it besides; or true and the files that it stored.
local function run(self, name, f, left, timeout, task, ctx)
  local ok, result, reason, how
  if left then
    ok, result, reason, how = guarded(self, limited, f, left, limit_of(timeout), task, ctx)
  else
    ok, result, reason, how = guarded(self, pcall, f, task, ctx)
  end
  if not ok then
    return false, ("%s raised: %s"):format(name, tostring(result))
  elseif result == false then
    return false, ("%s: %s"):format(name, tostring(reason or "returned false")), type(how) == "table" and how or nil
  elseif type(result) == "table" and result.files ~= nil then
    return true, result.files
  elseif result ~= nil and result ~= true then
    self.log("warn", ("policy: %s returned a %s: nothing, true, false and why, or { files = ... } expected"):format(
      name, type(result)))
  end
  return true
end

--- Runs the handlers of one event: on_<type>, then on_event; of a list one after the other.
-- @tparam table task
-- @tparam table ctx event_id, type, attempt, created_at (ms); log(level, message), timeout (seconds that are left, kept
-- up to date), store (its directory), mj
-- @tparam[opt] number timeout seconds for all of them together; without it nothing interrupts a handler
-- @treturn boolean handled
-- @treturn string|nil the reason when not
-- @treturn table|nil {retry_after = seconds} or {bury = true} when not
-- @treturn table|nil files that handlers stored
function Policy:handle(task, ctx, timeout)
  local files
  local whole, begun = ctx.timeout, core.clock()
  local list, own = {}, "on_" .. ctx.type
  add_handlers(list, own, self.functions[own])
  add_handlers(list, "on_event", self.functions.on_event)
  for i = 1, #list, 2 do
    local left = timeout
    if i > 1 then -- its share is what the others have left
      local spent = (core.clock() - begun) / 1000
      left = timeout and math.max(timeout - spent, LEAST_S)
      ctx.timeout = whole and math.max(whole - spent, LEAST_S)
    end
    local handled, what, how = run(self, list[i], list[i + 1], left, timeout, task, ctx)
    if not handled then
      return false, what, how
    end
    files = what or files
  end
  return true, nil, nil, files
end

return M
