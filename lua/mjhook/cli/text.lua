--- Text for terminals: columns line up in any script.
local text = require "mjhook.text"

local M = { clean = text.clean, characters = text.characters, quote = text.quote }
local within = text.within

-- Code points that take two columns, and none: the ranges of Unicode's EastAsianWidth (W, F) and of combining marks
-- that occur in prompts and names.  A rare one that is missing costs a ragged line, nothing else.
local WIDE = {
  { 0x1100, 0x115F }, { 0x231A, 0x231B }, { 0x2329, 0x232A }, { 0x23E9, 0x23EC }, { 0x23F0, 0x23F0 },
  { 0x23F3, 0x23F3 }, { 0x25FD, 0x25FE }, { 0x2614, 0x2615 }, { 0x2648, 0x2653 }, { 0x267F, 0x267F },
  { 0x2693, 0x2693 }, { 0x26A1, 0x26A1 }, { 0x26AA, 0x26AB }, { 0x26BD, 0x26BE }, { 0x26C4, 0x26C5 },
  { 0x26CE, 0x26CE }, { 0x26D4, 0x26D4 }, { 0x26EA, 0x26EA }, { 0x26F2, 0x26F3 }, { 0x26F5, 0x26F5 },
  { 0x26FA, 0x26FA }, { 0x26FD, 0x26FD }, { 0x2705, 0x2705 }, { 0x270A, 0x270B }, { 0x2728, 0x2728 },
  { 0x274C, 0x274C }, { 0x274E, 0x274E }, { 0x2753, 0x2755 }, { 0x2757, 0x2757 }, { 0x2795, 0x2797 },
  { 0x27B0, 0x27B0 }, { 0x27BF, 0x27BF }, { 0x2B1B, 0x2B1C }, { 0x2B50, 0x2B50 }, { 0x2B55, 0x2B55 },
  { 0x2E80, 0x303E }, { 0x3041, 0xA4CF }, { 0xA960, 0xA97C }, { 0xAC00, 0xD7A3 }, { 0xF900, 0xFAFF },
  { 0xFE10, 0xFE19 }, { 0xFE30, 0xFE6F }, { 0xFF00, 0xFF60 }, { 0xFFE0, 0xFFE6 }, { 0x16FE0, 0x18CFF },
  { 0x1B000, 0x1B2FF }, { 0x1F004, 0x1F004 }, { 0x1F0CF, 0x1F0CF }, { 0x1F18E, 0x1F18E }, { 0x1F191, 0x1F19A },
  { 0x1F200, 0x1F265 }, { 0x1F300, 0x1F64F }, { 0x1F680, 0x1F6FF }, { 0x1F7E0, 0x1F7EB }, { 0x1F900, 0x1F9FF },
  { 0x1FA70, 0x1FAFF }, { 0x20000, 0x3FFFD },
}
local NARROW = {
  { 0x0300, 0x036F }, { 0x0483, 0x0489 }, { 0x0591, 0x05BD }, { 0x0610, 0x061A }, { 0x064B, 0x065F },
  { 0x0900, 0x0902 }, { 0x093C, 0x093C }, { 0x0941, 0x0948 }, { 0x094D, 0x094D }, { 0x0E31, 0x0E31 },
  { 0x0E34, 0x0E3A }, { 0x0E47, 0x0E4E }, { 0x1AB0, 0x1AFF }, { 0x1DC0, 0x1DFF }, { 0x200B, 0x200D },
  { 0x20D0, 0x20FF }, { 0xFE00, 0xFE0F }, { 0xFE20, 0xFE2F }, { 0xE0000, 0xE01EF },
}
local function columns(code)
  return not code and 1 or code < 0x300 and 1 or within(NARROW, code) and 0 or within(WIDE, code) and 2 or 1
end

--- How many columns of a terminal a clean text takes.
function M.width(s)
  if not s:find "[\128-\255]" then
    return #s
  end
  local n = 0
  for _, code in M.characters(s) do
    n = n + columns(code)
  end
  return n
end

--- A clean text in at most `room` columns; the cut shows.
function M.cut(s, room)
  if M.width(s) <= room then
    return s
  end
  local out, n = {}, 1 -- one for the ellipsis
  for bytes, code in M.characters(s) do
    n = n + columns(code)
    if n > room then
      break
    end
    out[#out + 1] = bytes
  end
  return room > 0 and table.concat(out) .. "…" or ""
end

--- A clean text, filled with spaces up to `room` columns.
function M.pad(s, room)
  return s .. (" "):rep(room - M.width(s))
end

--- A duration for a column: 12s, 5m, 3h, 12d.
function M.age(ms)
  local s = math.floor(math.max(ms, 0) / 1000)
  for _, unit in ipairs { { 86400 * 2, 86400, "d" }, { 3600 * 2, 3600, "h" }, { 120, 60, "m" } } do
    if s >= unit[1] then
      return ("%d%s"):format(math.floor(s / unit[2]), unit[3])
    end
  end
  return ("%ds"):format(s)
end

local function pair(large, unit, small, smaller)
  return small > 0 and ("%d %s %d %s"):format(large, unit, small, smaller) or ("%d %s"):format(large, unit)
end

--- A duration for a sentence: 0.3 s, 12 s, 5 min 12 s, 3 h, 2 d 4 h.
function M.duration(ms)
  local s = math.max(ms, 0) / 1000
  if s < 10 then
    return (("%.1f s"):format(s):gsub("%.0 ", " "))
  end
  s = math.floor(s)
  if s < 60 then
    return ("%d s"):format(s)
  elseif s < 3600 then
    return pair(math.floor(s / 60), "min", s % 60, "s")
  elseif s < 86400 then
    return pair(math.floor(s / 3600), "h", math.floor(s % 3600 / 60), "min")
  end
  return pair(math.floor(s / 86400), "d", math.floor(s % 86400 / 3600), "h")
end

--- A time seen from now: "5 min 12 s ago", "in 3 h", "now".
function M.relative(at, now)
  local ms = at - now
  if math.abs(ms) < 1000 then
    return "now"
  end
  return ms < 0 and M.duration(-ms) .. " ago" or "in " .. M.duration(ms)
end

--- A number of bytes: 512 B, 1.4 MiB.
function M.bytes(n)
  local unit = 1
  local units = { "B", "KiB", "MiB", "GiB", "TiB" }
  while n >= 1024 and unit < #units do
    n, unit = n / 1024, unit + 1
  end
  return ((unit == 1 and "%d %s" or "%.1f %s"):format(n, units[unit]):gsub("%.0 ", " "))
end

--- A noun with its number: 1 task, 3 tasks.
function M.count(n, noun)
  return ("%d %s%s"):format(n, noun, n == 1 and "" or "s")
end

return M
