--- Runs a program for each event, with the event as JSON on its standard input. No shell is involved.
---
---     on_event = require "mjhook.handlers.exec" { "/usr/local/bin/notify", "--quiet" }
---
--- The program gets one line, {"event_id", "type", "attempt", "created_at" (ms), "task"}, with the fields of the task
--- that the guide "Policies and handlers" lists. Its standard output is discarded. Exit status 0 is success. 65
--- (EX_DATAERR) and 100 mean that no further try makes sense: the event is buried. Any other status, a signal and a
--- time-out are tried again; the last line of standard error is stored as the reason.
---
--- Its environment is PATH, HOME, LANG, LC_ALL, TZ, USER, LOGNAME and TMPDIR of this process, and what `env` adds: no
--- key and no secret. It inherits standard input, output and error, and no other file or socket. Processes that it
--- leaves running when it ends are killed, unless `background` is set.

local core = require "mjhook.core"
local event = require "mjhook.handlers.event"
local json = require "mjhook.json"

local INHERITED = { "PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER", "LOGNAME", "TMPDIR" }
local MOST_WORDS = 256 -- of its arguments, and of its environment; the core takes no more
local NEVER_AGAIN = { [65] = true, [100] = true }

local function check(condition, text, ...)
  if not condition then
    error("mjhook.handlers.exec: " .. text:format(...), 3)
  end
end

local function environment(more)
  local env = {}
  for _, name in ipairs(INHERITED) do
    local value = os.getenv(name)
    if value then
      env[#env + 1] = name .. "=" .. value
    end
  end
  for name, value in pairs(more or {}) do
    check(type(name) == "string" and name:match "^[%a_][%w_]*$" and type(value) == "string"
      and not value:find("\0", 1, true), "env: names and texts expected")
    env[#env + 1] = name .. "=" .. value
  end
  return env
end

local function event_text(task, ctx)
  local text, why = json.encode { event_id = ctx.event_id, type = ctx.type, attempt = ctx.attempt,
                                  created_at = ctx.created_at, task = event.data(task, ctx) }
  return text and text .. "\n", why and "the task can't be written as JSON: " .. why
end

local function last_line(said)
  local line = said:gsub("%s+$", ""):match "[^\n]*$" or ""
  return core.utf8(line) and line or line:gsub("[^\32-\126]", "?")
end

local function reason(how, path)
  local words
  if how.timed_out then
    words = ("%s was killed: it took too long"):format(path)
  elseif how.signal then
    words = ("%s was ended by signal %d (SIG%s)"):format(path, how.signal, how.name)
  else
    words = ("%s exited with %d"):format(path, how.exit)
  end
  local line = last_line(how.said)
  return line ~= "" and words .. ": " .. line or words
end

local OPTIONS = { env = true, timeout = true, input = true, background = true }

local function check_command(command)
  check(type(command) == "table" and type(command[1]) == "string" and command[1]:match "^/",
    "a list with the program's absolute path first expected")
  for i, word in ipairs(command) do
    check(type(word) == "string" and not word:find("\0", 1, true), "argument %d: text expected", i)
  end
  for key in pairs(command) do
    if not OPTIONS[key] and not (type(key) == "number" and key <= #command) then
      check(false, "unknown option %q%s", tostring(key), require "mjhook.suggest"(key, OPTIONS))
    end
  end
  check(#command <= MOST_WORDS, "at most %d words expected", MOST_WORDS)
  check(command.timeout == nil or (type(command.timeout) == "number" and command.timeout > 0),
    "timeout: seconds expected")
  check(command.input == nil or type(command.input) == "function", "input: function expected")
  check(command.background == nil or type(command.background) == "boolean", "background: true or false expected")
end

---@param command mjhook.handlers.ExecSettings
---@return mjhook.Handler
return function(command)
  check_command(command)
  local env = environment(command.env)
  check(#env <= MOST_WORDS, "env: at most %d expected", MOST_WORDS)
  local input = command.input or event_text
  return function(task, ctx)
    local text, bad = input(task, ctx)
    if bad then
      return false, ("%s: %s"):format(command[1], bad), { bury = true }
    elseif text == nil then
      return true
    end
    local how, err = core.run {
      argv = command, env = env, input = text, background = command.background,
      timeout_ms = event.milliseconds(ctx, command.timeout),
    }
    if not how then
      return false, err.message
    elseif how.exit == 0 and not how.timed_out then
      return true
    end
    return false, reason(how, command[1]), { bury = NEVER_AGAIN[how.exit] }
  end
end
