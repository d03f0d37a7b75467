--- The log file: a line for each message, as logfmt or JSON.
--
-- The file is opened for every line, so a program that rotates it need not send a signal; a line is one write at the
-- file's end, so that nginx, cron and the command line can share it. Whatever a message holds, it is one line of
-- sound UTF-8.
-- @module mjhook.log
local core = require "mjhook.core"
local text = require "mjhook.text"

local M = {}

local RANK = { info = 1, notice = 2, warn = 3, error = 4 }
local MAX_BYTES = 8192 -- of a message: an answer of the provider's, say, that is quoted in full

--- A JSON string, which is a value of logfmt as well.
function M.quote(s)
  if #s > MAX_BYTES then
    s = s:sub(1, MAX_BYTES) .. ("... (%d bytes)"):format(#s)
  end
  return text.quote(s)
end

local function timestamp(ms)
  local seconds = math.floor(ms / 1000)
  return ("%s.%03dZ"):format(os.date("!%Y-%m-%dT%H:%M:%S", seconds), ms % 1000)
end

local LINES = {
  logfmt = "time=%s level=%s msg=%s\n",
  json = '{"time":"%s","level":"%s","msg":%s}\n',
}

local MODE = 416 -- 0640: a log is for its owner and for a group that reads logs
local STREAMS = { ["/dev/stdout"] = io.stdout, ["/dev/stderr"] = io.stderr } -- as containers log

local function append(path, line)
  local stream = STREAMS[path]
  if stream then
    return stream:write(line) and stream:flush(), "can't be written"
  end
  return core.append_file(path, line, MODE)
end

--- A function that logs to a file; it never raises. What can't be written goes to standard error, and why.
-- @tparam string|table settings path, or {path=, format= ("logfmt" or "json"), level= ("info", "notice", "warn" or
-- "error": what is less is left out)}
-- @treturn function(level, message)
function M.open(settings)
  if type(settings) == "string" then
    settings = { path = settings }
  end
  local path, form = settings.path, LINES[settings.format or "logfmt"]
  local least = RANK[settings.level or "info"]
  local told -- why it could not be written, so that it is said once until it changes
  local function log(level, message)
    level, message = tostring(level), tostring(message)
    if (RANK[level] or RANK.error) < least then
      return
    end
    if not RANK[level] then
      level = "error"
    end
    local line = form:format(timestamp(core.now()), level, M.quote(message))
    local ok, err = append(path, line)
    local why = tostring(err)
    if not ok then
      io.stderr:write(why ~= told and ("mjhook: log: %s\n"):format(text.clean(why)) or "", line)
    end
    told = not ok and why or nil
  end
  return function(level, message)
    pcall(log, level, message)
  end
end

return M
