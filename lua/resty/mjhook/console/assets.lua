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

local function find()
  for _, place in ipairs(places()) do
    if read(place .. "/index.html") then
      return place
    end
  end
end

local sets = {} -- by directory, or "": what the page consists of, by name

local function load(where)
  local place, files = where or find(), {}
  local index = place and read(place .. "/index.html")
  files["index.html"] = index and { text = index, type = TYPES.html }
  for name, kind in (index or ""):gmatch 'assets/([%w_-]+%.(%a+))"' do
    local text = TYPES[kind] and read(place .. "/" .. name)
    files[name] = text and { text = text, type = TYPES[kind] }
  end
  return files
end

--- Reads all of the page, once: in init_by_lua, rather than from disk under a request.
-- @tparam[opt] string where a directory that has it, other than the package's
function M.load(where)
  sets[where or ""] = sets[where or ""] or load(where)
  return sets[where or ""]
end

--- A file of the page.
-- @tparam string name
-- @tparam[opt] string where as for load()
-- @treturn table|nil {text=, type=}; nil when the page has none of that name
function M.get(name, where)
  return M.load(where)[name]
end

return M
