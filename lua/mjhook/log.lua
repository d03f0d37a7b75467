--- The log file: a line for each message, as logfmt or JSON.
--
-- The file is opened anew for every line, so that whoever rotates it has nobody to tell; a line is one write at the
-- file's end, so that nginx, cron and the command line can share it. Whatever a message holds, it is one line of
-- sound UTF-8.
-- @module mjhook.log
local core = require "mjhook.core"

local M = {}

local RANK = { info = 1, notice = 2, warn = 3, error = 4 }
local MAX_BYTES = 8192 -- of a message: an answer of the provider's, say, that is quoted in full
local ESCAPES = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }
local REPLACEMENT = "\239\191\189" -- U+FFFD

-- Ranges of the second byte by the first (RFC 3629): no overlong forms, no surrogates, nothing above U+10FFFF.
local function second_range(first)
  if first == 0xE0 then
    return 0xA0, 0xBF
  elseif first == 0xED then
    return 0x80, 0x9F
  elseif first == 0xF0 then
    return 0x90, 0xBF
  elseif first == 0xF4 then
    return 0x80, 0x8F
  end
  return 0x80, 0xBF
end

-- The length of the character that begins at byte i; nil when there is none that is sound.
local function sound(s, i)
  local first = s:byte(i)
  local n = first >= 0xC2 and first <= 0xDF and 2 or first >= 0xE0 and first <= 0xEF and 3
    or first >= 0xF0 and first <= 0xF4 and 4
  if not n then
    return nil
  end
  local low, high = second_range(first)
  for k = 1, n - 1 do
    local b = s:byte(i + k)
    if not b or b < low or b > high then
      return nil
    end
    low, high = 0x80, 0xBF
  end
  return n
end

-- A byte that may not stand as it is, or a sequence of those above 127.
local function escape_ascii(c)
  return ESCAPES[c] or ("\\u%04x"):format(c:byte())
end

local function escape_high(run)
  local out, i = {}, 1
  while i <= #run do
    local n = sound(run, i)
    if not n then
      out[#out + 1] = REPLACEMENT
    elseif n == 2 and run:byte(i) == 0xC2 and run:byte(i + 1) < 0xA0 then
      out[#out + 1] = ("\\u%04x"):format(run:byte(i + 1)) -- U+0080 to U+009F: controls, and terminals obey them
    else
      out[#out + 1] = run:sub(i, i + n - 1)
    end
    i = i + (n or 1)
  end
  return table.concat(out)
end

--- A JSON string, which is a value of logfmt as well.
function M.quote(s)
  if #s > MAX_BYTES then
    s = s:sub(1, MAX_BYTES) .. ("... (%d bytes)"):format(#s)
  end
  s = s:gsub('[%c"\\]', escape_ascii):gsub("[\128-\255]+", escape_high)
  return '"' .. s .. '"'
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
      io.stderr:write(why ~= told and ("mjhook: log: %s\n"):format(why) or "", line)
    end
    told = not ok and why or nil
  end
  return function(level, message)
    pcall(log, level, message)
  end
end

return M
