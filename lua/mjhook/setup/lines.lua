--- The lines that crontab, systemd and nginx need, for this installation and this configuration: each works as it
-- stands where it says.
local place = require "mjhook.setup.place"

local M = {}

-- A word for a shell, quoted only where it has to be.
local function word(s)
  return s:find "[^%w/._+:@,-]" and "'" .. s:gsub("'", "'\\''") .. "'" or s
end

-- cron makes a line break of a bare %.
local function for_cron(s)
  return (s:gsub("%%", "\\%%"))
end

-- Nothing where the programs find the configuration by themselves.
local function configuration(path)
  return path and path ~= "/etc/mjhook/config.lua" and " -c " .. word(path) or ""
end

--- A line for `crontab -e` of the store's owner: a pass every minute, silent while all is well.
-- @tparam string|nil config_file
function M.crontab(config_file)
  return "* * * * * " .. for_cron(word(place.program "mjhook-reconcile") .. " -q" .. configuration(config_file))
end

--- The same for /etc/cron.d, where a line names its user.
function M.cron_d(config_file, user)
  return "* * * * * " .. user .. " " .. M.crontab(config_file):sub(11)
end

return M
