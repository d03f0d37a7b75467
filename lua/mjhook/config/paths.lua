--- Paths in a configuration: nginx, cron and people at a shell have different working directories, so a path in a file
-- counts from that file, and one from elsewhere has to be absolute.
local core = require "mjhook.core"
local keys = require "mjhook.config.keys"

local M = {}

local PATHS = { "store", "policy", "ca_file", "api_key_file", "secrets_file", "log" }

-- A copy in which these fields, where they are relative paths, begin with the directory.
local function anchored(t, dir, fields)
  local copy = {}
  for key, value in pairs(t) do
    copy[key] = value
  end
  for _, key in ipairs(fields) do
    local value = copy[key]
    if type(value) == "string" and value ~= "" and not value:match "^/" and not value:match "^%w+://" then
      copy[key] = dir .. "/" .. value
    end
  end
  return copy
end

--- A file's path that stays right in another working directory: the process's later, or cron's.
function M.anywhere(path)
  return path:match "^/" and path or (core.cwd() or ".") .. "/" .. path:gsub("^%./+", "")
end

--- What a configuration file says, its relative paths made absolute.
-- @tparam table file what it returned: nothing in it was checked yet
-- @tparam string path the file's own
function M.anchor(file, path)
  local dir = M.anywhere(path):match "^(.*)/"
  local copy = anchored(file, dir, PATHS)
  if type(copy.log) == "table" then
    copy.log = anchored(copy.log, dir, { "path" })
  end
  if type(copy.accounts) == "table" then
    copy.accounts = anchored(copy.accounts, dir, {})
    for i, account in pairs(copy.accounts) do
      copy.accounts[i] = type(account) == "table" and anchored(account, dir, { "api_key_file" }) or account
    end
  end
  return copy
end

--- Fails by the key's name for a path that would be another file for each working directory.
function M.absolute(key, path)
  if not path:match "^/" then
    keys.fail(key, "an absolute path expected, got %s", path)
  end
  return path
end

return M
