--- Settings of the handlers that ship: checked by name when the policy is loaded, secrets read from private files.
-- Everything here gives nil and a text on failure, never the value: it may be a secret.
local core = require "mjhook.core"

local M = {}

local function is_line(value)
  return type(value) == "string" and value ~= "" and not value:find "[%z\r\n]"
end

local function are_lines(list)
  local n = 0
  for _ in pairs(type(list) == "table" and list or {}) do
    n = n + 1
    if not is_line(list[n]) then
      return false
    end
  end
  return n > 0
end

--- Checks a table of settings.
-- @tparam table given
-- @tparam table known type by name ("string", "number", "boolean", "strings": a list of them, "secrets": a string or a
-- list of strings)
-- @treturn boolean|nil true; nil and what is wrong
function M.check(given, known)
  if type(given) ~= "table" then
    return nil, ("a table of settings expected, got %s"):format(type(given))
  end
  for name, value in pairs(given) do
    local wanted, got = known[name], type(value)
    if not wanted then
      return nil, ("%s: unknown setting%s"):format(tostring(name), require "mjhook.suggest"(name, known))
    elseif wanted == "secrets" then
      if got ~= "string" and got ~= "table" then
        return nil, ("%s: string or list expected, got %s"):format(name, got)
      end
    elseif wanted == "strings" then
      if not are_lines(value) then
        return nil, ("%s: a list of texts expected"):format(name)
      end
    elseif got ~= wanted then
      return nil, ("%s: %s expected, got %s"):format(name, wanted, got)
    elseif wanted == "string" and not is_line(value) then
      return nil, ("%s: a line of text expected"):format(name)
    end
  end
  return true
end

--- Checks a number of seconds.
function M.seconds(name, value)
  if value and not (value > 0 and value <= 3600) then
    return nil, ("%s: seconds from 0 to 3600 expected"):format(name)
  end
  return true
end

--- The lines of a private file.
-- @treturn table|nil lines that are not empty; nil and what is wrong
function M.private_lines(name, path)
  local content, err = core.read_file(path, "secret")
  if not content then
    return nil, ("%s: %s"):format(name, err.message)
  end
  local lines = {}
  for text in content:gmatch "[^\r\n]+" do
    lines[#lines + 1] = text
  end
  if #lines == 0 then
    return nil, ("%s: there is nothing in %s"):format(name, path)
  end
  return lines
end

--- Checks a file that libcurl will read by its path: no other user can have written it, nor, of a "secret", read it.
-- @tparam string name of the setting
-- @tparam string|nil path
-- @tparam string kind "code" or "secret"
-- @treturn boolean|nil true, also without a path; nil and what is wrong
function M.trusted(name, path, kind)
  if path then
    local content, err = core.read_file(path, kind)
    if not content and err.code ~= "not_found" then -- a missing one is an error of each connection, as it may come
      return nil, ("%s: %s"):format(name, err.message)
    end
  end
  return true
end

--- Whether a host of a URL (IPv6 without brackets) can only be this machine.
function M.loopback(host)
  return host == "localhost" or core.address(host) == "loopback"
end

return M
