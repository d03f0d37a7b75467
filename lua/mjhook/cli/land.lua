--- Ctrl-C while jobs are sent: nothing more is begun, and the answers that are under way come in and are stored. An
-- interruption anywhere in between would leave jobs that are billed and unknown. The second signal ends at once.
local core = require "mjhook.core"
local text = require "mjhook.cli.text"

local LOOK_MS = 100 -- so soon a signal is noticed while answers are awaited

local function watch(mj)
  local stopping, said = mj.stopping, false
  return function(in_air)
    if core.signalled() and in_air and in_air > 0 and not said then
      said = true
      io.stderr:write(("mjhook: waiting for the answer of %s, at most 30 s; a second signal ends at once, and what was "
        .. "sent may be billed\n"):format(text.count(in_air, "request")))
      io.stderr:flush()
    end
    return core.signalled() ~= nil or stopping(in_air)
  end
end

local function finish(mj, ok, ...)
  core.catch_signals(false)
  mj.exec.look_ms = nil
  if not ok then
    error((...), 0)
  end
  return ...
end

--- Calls f(...), which sends. Afterwards core.signalled() tells whether a signal came meanwhile: then the command ends,
-- with 128 and its number, once it has told what became of its jobs.
-- @return what f gives
local land
function land(mj, f, ...)
  if mj.land ~= land then
    mj.land, mj.stopping = land, watch(mj) -- what the library sends later lands so, too
  end
  mj.exec.look_ms = LOOK_MS
  core.catch_signals(true)
  return finish(mj, pcall(f, ...))
end

return land
