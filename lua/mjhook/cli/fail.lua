--- Ending with a message: exit codes (sysexits.h, the same as mjhook-reconcile's) and what to do about errors.
local M = {}

M.DONE, M.FAILED, M.USAGE, M.CANNOT_WRITE, M.BUSY, M.CONFIG = 0, 1, 64, 73, 75, 78

local EXIT = {
  config = M.CONFIG, schema = M.CONFIG, format = M.CONFIG, invalid = M.USAGE, busy = M.BUSY,
  owner = M.CANNOT_WRITE, read_only = M.CANNOT_WRITE, no_space = M.CANNOT_WRITE, io = M.CANNOT_WRITE,
}

local ADVICE = {
  config = "see mjhook-config(5)",
  format = "name another one with --store",
  invalid = "see mjhook(1)",
  key_conflict = "use another --key, or look at that task with `mjhook get`",
  no_space = "make room, or raise map_max",
  read_only = "look at the directory's owner and mode, or name another one with --store",
}

--- The exit code for an error's code.
function M.exit(code)
  return EXIT[code] or M.FAILED
end

--- An error's message and what to do about it.
function M.sentence(err)
  -- what is said of a database says what to do, and has no directory
  local advice = not err.message:find("the database ", 1, true) and ADVICE[err.code]
  return advice and ("%s: %s"):format(err.message, advice) or err.message
end

--- Ends the command: raises what mjhook.cli.main turns into a message and an exit code.
-- @tparam number exit
-- @tparam string message
-- @tparam[opt] string command whose help is worth reading
function M.stop(exit, message, command)
  error({ exit = exit, message = message, command = command }, 0)
end

--- Ends the command that a signal has told to end, with the code of a shell for it.
-- @tparam string message what is left
function M.interrupted(signal, message)
  M.stop(128 + signal, "interrupted: " .. message)
end

--- Ends the command with an error of mjhook's.
function M.with(err)
  M.stop(M.exit(err.code), M.sentence(err))
end

return M
