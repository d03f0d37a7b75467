--- Memory that runs out: what it looks like, and what is tried again after a full collection.
--
-- LuaJIT gives up without collecting anything, and in Lua 5.4 the collector may have freed too little for the call that
-- failed. Where something is stored or sent already, its caller has to hear of it: there one more try is worth it.
local core = require "mjhook.core"

local M = {}

M.OUT = core.error("no_memory", "out of memory", true) -- made while there is some
-- The same when it is not known what was stored.
M.UNKNOWN = core.error("no_memory",
  "out of memory; whether something was stored before is not known: with a key it is safe to try again")

--- Whether an error says that memory ran out: Lua's own text, which require() puts more before, or an error of
-- mjhook.core.
function M.is_out(err)
  if type(err) == "string" then
    return err:find("not enough memory", 1, true) ~= nil
  end
  return type(err) == "table" and err.code == "no_memory"
end

--- What was raised, as an error with a code.
function M.error(err)
  if type(err) == "table" and err.code and err.message then
    return err
  elseif M.is_out(err) then
    return M.OUT
  end
  return core.error("internal", tostring(err))
end

--- f(...), once more when memory ran out. f must change nothing before that.
-- @return at most three values of f
function M.insist(f, ...)
  local ok, a, b, c = pcall(f, ...)
  if ok then
    return a, b, c
  elseif not M.is_out(a) then
    error(a, 0)
  end
  collectgarbage()
  return f(...)
end

--- f(...) for a caller that wants outcomes as values: memory that ran out, and an error of mjhook.core that was raised,
-- is nil and an error.
-- @return at most two values of f
function M.outcome(f, ...)
  local ok, a, b = pcall(f, ...)
  if ok then
    return a, b
  elseif type(a) == "table" and a.code then
    return nil, a
  elseif M.is_out(a) then
    return nil, M.UNKNOWN
  end
  error(a, 0)
end

return M
