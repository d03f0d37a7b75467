--- Redis' protocol (RESP2) without any IO: commands as bytes, bytes as replies, with limits. Why this is not hiredis:
-- src/net/stream.h.
--
--     local reader = resp.reader()
--     reader:feed(bytes)
--     local reply, why = reader:next()   -- nil: more bytes are needed; nil and why: this is not Redis
--
-- A reply is {kind = "status"|"error"|"integer"|"bulk"|"null"|"array", value = ...}; an array's value is a list of
-- replies. A reader that found nonsense stays broken: it can't know where the next reply begins.
local M = {}
local Reader = {}
Reader.__index = Reader

local LIMITS = {
  max_line = 4096,   -- bytes of a status, an error or a number
  max_bulk = 65536,  -- bytes of a string
  max_items = 1024,  -- replies within a reply
  max_depth = 4,     -- arrays within arrays
  max_reply = 65536 + 4096, -- bytes of a reply altogether
}

--- A command and its arguments, strings of any bytes.
function M.command(...)
  local words = { ... }
  local out = { ("*%d\r\n"):format(#words) }
  for _, word in ipairs(words) do
    out[#out + 1] = ("$%d\r\n"):format(#word)
    out[#out + 1] = word
    out[#out + 1] = "\r\n"
  end
  return table.concat(out)
end

--- A reader of replies.
-- @tparam[opt] table limits max_line, max_bulk, max_items, max_depth, max_reply: see the defaults above
function M.reader(limits)
  local self = { buffer = "" }
  for name, default in pairs(LIMITS) do
    self[name] = limits and limits[name] or default
  end
  return setmetatable(self, Reader)
end

--- Takes bytes as they come, however they are cut.
function Reader:feed(bytes)
  self.buffer = self.buffer .. bytes
end

--- Whether there is nothing that was fed and not yet read.
function Reader:empty()
  return self.buffer == ""
end

-- The parsers below give a value and where it ends, or nil for "more", or nil and what is wrong.

local function line(self, at)
  local stop = self.buffer:find("\r\n", at, true)
  if (stop or #self.buffer) - at > self.max_line then
    return nil, ("a line of more than %d bytes"):format(self.max_line)
  elseif not stop then
    return nil
  end
  local text = self.buffer:sub(at, stop - 1)
  if text:find "[\r\n]" then
    return nil, "a line break within a line"
  end
  return text, stop + 2
end

-- The length that begins a string or an array; -1: null.
local function length(self, at, max, what)
  local text, after = line(self, at)
  if not text then
    return nil, after
  elseif text == "-1" then
    return -1, after
  end
  local n = text:find "^%d+$" and #text <= 10 and tonumber(text)
  if not n then
    return nil, "a length that is no number"
  elseif n > max then
    return nil, ("%s of more than %d"):format(what, max)
  end
  return n, after
end

local parse

local function simple(kind)
  return function(self, at)
    local text, after = line(self, at)
    return text and { kind = kind, value = text }, after
  end
end

local function integer(self, at)
  local text, after = line(self, at)
  if not text then
    return nil, after
  elseif not text:find "^[+-]?%d+$" or #text > 20 then
    return nil, "a number that is none"
  end
  return { kind = "integer", value = tonumber(text) }, after
end

local function bulk(self, at)
  local n, after = length(self, at, self.max_bulk, "bytes")
  if not n then
    return nil, after
  elseif n == -1 then
    return { kind = "null" }, after
  elseif #self.buffer < after + n + 1 then
    return nil
  elseif self.buffer:sub(after + n, after + n + 1) ~= "\r\n" then
    return nil, "a string that is longer than it says"
  end
  return { kind = "bulk", value = self.buffer:sub(after, after + n - 1) }, after + n + 2
end

local function array(self, at, depth)
  local n, after = length(self, at, self.max_items, "items")
  if not n then
    return nil, after
  elseif n == -1 then
    return { kind = "null" }, after
  end
  self.items = self.items + n
  if self.items > self.max_items then
    return nil, ("more than %d items"):format(self.max_items)
  elseif depth >= self.max_depth then
    return nil, ("arrays more than %d deep"):format(self.max_depth)
  end
  local list = {}
  for i = 1, n do
    list[i], after = parse(self, after, depth + 1)
    if not list[i] then
      return nil, after
    end
  end
  return { kind = "array", value = list }, after
end

local BY_TYPE = {
  ["+"] = simple "status", ["-"] = simple "error", [":"] = integer, ["$"] = bulk, ["*"] = array,
}

function parse(self, at, depth)
  if at > #self.buffer then
    return nil
  end
  local read = BY_TYPE[self.buffer:sub(at, at)]
  if not read then
    return nil, "no reply begins like this"
  end
  return read(self, at + 1, depth)
end

--- The next reply, if all of it is there.
-- @treturn table|nil reply; nil when more bytes are needed; nil and why when these bytes are not Redis'
function Reader:next()
  if self.broken then
    return nil, self.broken
  end
  self.items = 0
  local reply, after = parse(self, 1, 0)
  if reply then
    self.buffer = self.buffer:sub(after)
    return reply
  elseif not after and #self.buffer > self.max_reply then
    after = ("a reply of more than %d bytes"):format(self.max_reply)
  end
  if after then
    self.broken, self.buffer = after, ""
  end
  return nil, after
end

return M
