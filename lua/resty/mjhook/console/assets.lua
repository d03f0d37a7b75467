--- The console's page: static files, read once, from where the package keeps them.
local core = require "mjhook.core"

local M = {}

local TYPES = { html = "text/html; charset=utf-8", css = "text/css; charset=utf-8",
                js = "text/javascript; charset=utf-8", svg = "image/svg+xml" }

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then
    file:close()
  end
  return text
end

-- Seen from the directory of Lua modules: in a checkout; installed; in a tree of LuaRocks. And what is usual.
local ROCK = "%s/../../../lib/luarocks/rocks-5.1/mjhook/%s/share/mjhook/console"
local function places()
  local here = debug.getinfo(1, "S").source:match "^@(.*)/resty/mjhook/console/assets%.lua$" or "lua"
  return {
    here .. "/../scripts/console", here .. "/../../mjhook/console", here .. "/../share/mjhook/console",
    ROCK:format(here, "scm-1"), ROCK:format(here, core.version .. "-1"),
    "/usr/local/share/mjhook/console", "/usr/share/mjhook/console",
  }
end

local directory

local function find()
  for _, place in ipairs(places()) do
    if read(place .. "/index.html") then
      return place
    end
  end
end

local files = {}

--- A file of the page.
-- @tparam string name
-- @tparam[opt] string where another directory that has them
-- @treturn table|nil {text=, type=}; nil when there is none of that name
function M.get(name, where)
  if files[name] then
    return files[name]
  end
  local kind = name:match "^%w[%w_-]*%.(%a+)$"
  directory = directory or where or find()
  local text = directory and kind and TYPES[kind] and read(directory .. "/" .. name)
  if not text then
    return nil
  end
  files[name] = { text = text, type = TYPES[kind] }
  return files[name]
end

--- Reads all of them: in init_by_lua, rather than from disk under a request.
function M.load(where)
  local index = M.get("index.html", where)
  for name in (index and index.text or ""):gmatch 'assets/([%w_-]+%.%a+)"' do
    M.get(name, where)
  end
end

return M
