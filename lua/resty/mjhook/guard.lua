--- Work that a flag tells of: a dispatcher that runs, a deliverer that is taken, a commit that others wait for.
--
-- Whatever the work raises, the flag is cleared; otherwise it would say until the next reload that the work goes on.
-- So each such flag is set before guard() and cleared in its cleanup, and nowhere else.
local log = require("resty.mjhook.log").log

--- Runs f(...), then cleanup(), also when f raised; what it raised goes to the log.
-- @tparam string what the work, for the log
-- @tparam function cleanup clears the flag; it must not yield
-- @tparam function f
-- @treturn boolean whether f returned
local function guard(what, cleanup, f, ...)
  local ok, why = pcall(f, ...)
  local clean, also = pcall(cleanup)
  if not ok or not clean then
    pcall(log, "error", ("%s failed: %s"):format(what, tostring(ok and also or why)))
  end
  return ok
end

return guard
