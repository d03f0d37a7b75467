--- Points in time as people write them.
local core = require "mjhook.core"
local options = require "mjhook.cli.options"

local M = {}

local WHAT = "a time expected, as in 7d, 2h, 2026-01-31, 2026-01-31T12:00Z or milliseconds since 1970"

local function days(year, month, day) -- since 1970-01-01 in the Gregorian calendar
  if month < 3 then
    year, month = year - 1, month + 12
  end
  return 365 * year + math.floor(year / 4) - math.floor(year / 100) + math.floor(year / 400)
    + math.floor((153 * (month - 3) + 2) / 5) + day - 719469
end

local function zone_seconds(zone)
  if zone == "Z" or zone == "z" then
    return 0
  end
  local sign, hours, minutes = zone:match "^([+-])(%d%d):?(%d%d)$"
  return sign and (sign == "-" and -1 or 1) * (hours * 3600 + minutes * 60)
end

local function calendar(given)
  local year, month, day, rest = given:match "^(%d%d%d%d)%-(%d%d)%-(%d%d)(.*)$"
  if not year then
    return nil
  end
  local clock, zone = rest:match "^[T ]([%d:]+)(.*)$"
  local hour, minute, second = 0, 0, 0
  if clock then
    hour, minute, second = clock:match "^(%d%d):(%d%d):(%d%d)$"
    if not hour then
      hour, minute = clock:match "^(%d%d):(%d%d)$"
      second = 0
    end
  elseif rest ~= "" then
    return nil
  end
  year, month, day = tonumber(year), tonumber(month), tonumber(day)
  hour, minute, second = tonumber(hour), tonumber(minute), tonumber(second)
  if not hour or hour > 23 or minute > 59 or second > 59 then
    return nil
  end
  local next_month = month == 12 and days(year + 1, 1, 1) or days(year, month + 1, 1)
  if month < 1 or month > 12 or day < 1 or days(year, month, day) >= next_month then
    return nil
  end
  if zone and zone ~= "" then
    local offset = zone_seconds(zone)
    return offset and (days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset) * 1000
  end
  local local_time = os.time { year = year, month = month, day = day, hour = hour, min = minute, sec = second }
  return local_time and local_time * 1000
end

--- Reads a time: so long ago (7d), a date or time (local unless it names a zone), or milliseconds.
-- @treturn number|nil milliseconds since 1970, or nil and what was expected
function M.since(given)
  if given:match "^%d%d%d%d%d%d%d%d%d%d%d%d+$" and #given <= 15 then
    return tonumber(given)
  elseif given:match "^%d+[smhdw]$" then
    local seconds = options.seconds(given) or math.huge -- so long ago that all tasks are younger
    return math.max(core.now() - seconds * 1000, 0)
  end
  local ms = calendar(given)
  if not ms or ms < 0 then
    return nil, WHAT
  end
  return ms
end

return M
