--- Text that comes from outside, on its way to people and programs: terminals, logs, metrics, JSON.
--
-- One line of a message stays one line; nothing in it moves a cursor, changes a colour, hides, or reads as what it is
-- not. What is not shown as it is becomes visible: \x1b, \u{202e}.
-- @module mjhook.text
local core = require "mjhook.core"

local M = {}

-- Code points that are not shown as they are: controls, which a terminal may obey; marks that reorder text; and what
-- takes no place and so may hide something: zero-width characters, fillers, tags, variation selectors (but for U+FE0F,
-- which makes emoji colourful), code points for private agreement between programs.
local UNSAFE = {
  { 0x00, 0x1F }, { 0x7F, 0x9F }, { 0xAD, 0xAD }, { 0x034F, 0x034F }, { 0x061C, 0x061C }, { 0x115F, 0x1160 },
  { 0x17B4, 0x17B5 }, { 0x180B, 0x180F }, { 0x200B, 0x200F }, { 0x2028, 0x202E }, { 0x2060, 0x206F },
  { 0x3164, 0x3164 }, { 0xFE00, 0xFE0E }, { 0xFEFF, 0xFEFF }, { 0xFFA0, 0xFFA0 }, { 0xFFF0, 0xFFFB },
  { 0xFFFE, 0xFFFF }, { 0x1BCA0, 0x1BCA3 }, { 0x1D173, 0x1D17A }, { 0xE0000, 0xE0FFF }, { 0xF0000, 0x10FFFF },
}

--- Whether a sorted list of {first, last} has a code point.
function M.within(ranges, code)
  local low, high = 1, #ranges
  while low <= high do
    local middle = math.floor((low + high) / 2)
    local range = ranges[middle]
    if code < range[1] then
      high = middle - 1
    elseif code > range[2] then
      low = middle + 1
    else
      return true
    end
  end
  return false
end

--- Goes through a text's characters: each one's bytes, and its code point (nil: no UTF-8).
function M.characters(s)
  local i = 1
  return function()
    if i > #s then
      return nil
    end
    local n, code = core.character(s, i)
    local bytes = s:sub(i, i + n - 1)
    i = i + n
    return bytes, code
  end
end

local SPACES = { ["\n"] = " ", ["\r"] = " ", ["\t"] = " " }

-- Every character that is not shown as it is, replaced by what `escape` makes of its bytes and code point.
local function replace(s, escape)
  local out = {}
  for bytes, code in M.characters(s) do
    out[#out + 1] = code and not M.within(UNSAFE, code) and bytes or escape(bytes, code)
  end
  return table.concat(out)
end

local function visible(bytes, code)
  if SPACES[bytes] then
    return " "
  elseif not code or code < 0x100 then
    return ("\\x%02x"):format(code or bytes:byte())
  end
  return ("\\u{%x}"):format(code)
end

local function visible_lines(bytes, code)
  return bytes == "\n" and bytes or visible(bytes, code)
end

--- The text with everything visible that is not shown as it is.
-- @tparam string s
-- @tparam[opt] boolean lines keep line feeds; otherwise white space of every kind becomes a space
function M.clean(s, lines)
  s = tostring(s)
  if not s:find "[^\32-\126]" then
    return s
  end
  return replace(s, lines and visible_lines or visible)
end

local SHORT = { ['"'] = '\\"', ["\\"] = "\\\\", ["\n"] = "\\n", ["\r"] = "\\r", ["\t"] = "\\t" }

local function escaped(bytes, code)
  if not code then
    return "\239\191\189" -- U+FFFD, replacement character: JSON has no bytes that are no text
  elseif SHORT[bytes] then
    return SHORT[bytes]
  elseif code > 0xFFFF then
    code = code - 0x10000
    return ("\\u%04x\\u%04x"):format(0xD800 + math.floor(code / 0x400), 0xDC00 + code % 0x400)
  end
  return ("\\u%04x"):format(code)
end

--- The text as a JSON string, whose reader gets all of it back, but for bytes that are no UTF-8.
function M.quote(s)
  if s:find '["\\]' then
    s = s:gsub('["\\]', SHORT)
  end
  return '"' .. (s:find "[^\32-\126]" and replace(s, escaped) or s) .. '"'
end

--- JSON text on one line, its strings written as quote() writes them: still the same JSON.
function M.json(s)
  return s:find "[^\32-\126]" and replace(s, function(bytes, code)
    return SPACES[bytes] or escaped(bytes, code)
  end) or s
end

return M
