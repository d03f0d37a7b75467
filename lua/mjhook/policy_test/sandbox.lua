--- A sandbox for a policy: it is loaded and asked as the flows do, but changes nothing and ends in time.
--
-- While its code runs, what starts a program, writes a file, sends something or opens a store raises instead, and what
-- it prints goes to standard error. That keeps side effects out of a test; it does not protect against hostile
-- code: a policy is code, and runs with the permissions of the user that tests it.
local beside = require "mjhook.beside"
local core = require "mjhook.core"
local limited = require "mjhook.limited"
local policy = require "mjhook.policy"

local M = {}

local DECISION_S = 1
local TOO_LONG = ("took longer than %d s"):format(DECISION_S)

local FORBIDDEN = {
  os = { "execute", "exit", "remove", "rename", "tmpname" },
  io = { "popen", "tmpfile" },
  ["mjhook.core"] = { "open", "http", "stream", "fetch", "fork", "run", "restore", "write_file", "append_file" },
}
local PLACES = { os = os, io = io, ["mjhook.core"] = core }

-- A caller that catches the error has still done what it must not.
local breach

local function forbidden(name, level)
  return function()
    local caller = debug.getinfo(level or 2, "Sl")
    local where = caller and caller.currentline > 0 and ("%s:%d: "):format(caller.short_src, caller.currentline) or ""
    breach = ("%s%s: a policy under test changes nothing"):format(where, name)
    error(breach, 0)
  end
end

local no_writing, no_output = forbidden("io.open for writing", 3), forbidden("io.output to a file", 3)
local real_open, real_output, stderr = io.open, io.output, io.stderr

-- What stands in for what, while a policy's code runs: {table, field, stand-in}.
local STAND_INS = {
  { io, "stdout", stderr },
  { io, "open", function(path, mode)
    if mode ~= nil and mode ~= "r" and mode ~= "rb" then
      no_writing()
    end
    return real_open(path, mode)
  end },
  { io, "output", function(to)
    if type(to) == "string" then
      no_output()
    end
    return real_output(to)
  end },
  { _G, "print", function(...)
    local words = { ... }
    for i = 1, select("#", ...) do
      words[i] = tostring(words[i])
    end
    stderr:write(table.concat(words, "\t"), "\n")
  end },
}
for place, names in pairs(FORBIDDEN) do
  for _, name in ipairs(names) do
    STAND_INS[#STAND_INS + 1] = { PLACES[place], name, forbidden(place .. "." .. name) }
  end
end

-- run(...), which is a pcall. What takes longer than `limit` seconds is at fault, also if it did so in C code, which
-- nothing interrupts.
local function within(limit, why, run, ...)
  local real, output = {}, io.output()
  for i, s in ipairs(STAND_INS) do
    real[i] = s[1][s[2]]
    s[1][s[2]] = s[3]
  end
  real_output(stderr)
  breach = nil
  local begun = core.clock()
  local ok, answer, seconds, more = run(...)
  for i, s in ipairs(STAND_INS) do
    s[1][s[2]] = real[i]
  end
  real_output(output)
  if breach then
    return false, breach
  elseif ok and core.clock() - begun > limit * 1000 then
    return false, why
  end
  return ok, answer, seconds, more
end

--- Loads a policy to be tried.
-- @tparam string|table|nil given as for mjhook.policy's load(); nil: no policy
-- @treturn table|nil a policy for decide(); nil and an error
function M.load(given)
  -- Globals of its own: two policies that are compared must not overwrite each other's.
  local env = setmetatable({}, { __index = _G })
  env._G = env
  return policy.load(given, function() end, {
    env = env,
    load = function(...)
      return within(beside.LOAD_S, beside.TOO_LONG, pcall, ...)
    end,
    call = function(f, ...)
      return within(DECISION_S, TOO_LONG, limited, f, DECISION_S, TOO_LONG, ...)
    end,
  })
end

return M
