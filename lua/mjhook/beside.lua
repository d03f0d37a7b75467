--- Modules that a policy or a configuration requires while it is loaded, and that lie in its directory or below. They
-- are part of it: they are watched and loaded anew with it. Modules that are required later, or lie elsewhere, are not;
-- nor is mjhook itself.
local code = require "mjhook.code"
local core = require "mjhook.core"
local limited = require "mjhook.limited"
local memory = require "mjhook.memory"

local M = {}

--- Seconds that loading a file may take, with all that it requires; and what is said of one that takes longer.
M.LOAD_S = 1
M.TOO_LONG = ("did not load within %d s"):format(M.LOAD_S)

local searchers = package.searchers or package.loaders -- luacheck: ignore 143

local found = {} -- path of the policy -> name of a module -> its file

-- By inode, since a directory has many names; or, if a link leads there from elsewhere, by the name without links.
local function is_below(file, directory)
  local top, up = core.stat(directory), file:match "^(.*)/[^/]*$"
  while top and up and up ~= "" do
    local there = core.stat(up)
    if there and there.inode == top.inode then
      return true
    end
    up = up:match "^(.*)/[^/]*$"
  end
  local real, above = core.realpath(file), core.realpath(directory)
  return real and above and real:sub(1, #above + 1) == above .. "/"
end

local function is_ours(name)
  return name:find "^mjhook%f[.%z]" or name:find "^resty%.mjhook%f[.%z]"
end

-- The file of a module that lies in the directory or below; nil: it lies elsewhere, or nowhere.
local function file_of(name, directory, paths)
  local file = package.searchpath(name, paths) -- luacheck: ignore 143
  return file and is_below(file, directory) and file or nil
end

local function succeed(name, content, err)
  if not content then
    error(core.error(err.code, ("module '%s': %s"):format(name, err.message), err.retryable), 0)
  end
  return content
end

-- A searcher for modules in the directory, which it notes. Such a module decides as the file itself does: others must
-- not be able to write it, and what was checked is what is run.
local function searcher(directory, names, asked)
  return function(name)
    if is_ours(name) or package.preload[name] then
      return nil
    end
    local file = file_of(name, directory, package.path)
    names[name] = file
    if file then
      asked[#asked + 1] = name
      return succeed(name, code.load(file)), file
    end
    local library = file_of(name, directory, package.cpath) or
      file_of(name:match "^[^.]*", directory, package.cpath)
    if library then -- Lua's own searcher opens it: it is the same one, since only its owner can replace it
      succeed(name, code.read(library))
    end
  end
end

local function load_in_time(chunk)
  local ok, value = limited(chunk, M.LOAD_S, M.TOO_LONG)
  if not ok then
    error(value, 0)
  end
  return value
end

--- Calls a file's chunk, interrupts it after LOAD_S, and notes what it requires: Lua asks the searchers for each module
-- that is not loaded, also for one that is broken.
-- @tparam string path of the file
-- @tparam function call pcall, or what is in its place
-- @tparam function chunk
-- @return true and its value; false and an error
function M.call(path, call, chunk)
  local directory = path:match "^(.*)/[^/]*$" or "."
  local names = found[path] or {}
  found[path] = names
  local asked = {}
  local ours = searcher(directory == "" and "/" or directory, names, asked)
  table.insert(searchers, 1, ours)
  local ok, value = call(load_in_time, chunk)
  for i = #searchers, 1, -1 do
    if searchers[i] == ours then
      table.remove(searchers, i)
    end
  end
  if ok then
    return true, value
  end
  for _, name in ipairs(asked) do -- LuaJIT would take one that raised for a loop at the next try
    package.loaded[name] = nil
  end
  if memory.is_out(value) then
    return false, memory.OUT
  elseif type(value) == "table" and value.retryable and value.code and value.message then
    return false, value
  elseif tostring(value):find(M.TOO_LONG, 1, true) then -- after a place, perhaps: see coroutine.wrap
    return false, core.error("config", ("%s %s"):format(path, M.TOO_LONG))
  end
  return false, core.error("config", code.raised(value))
end

--- The files that a file's content depends on: itself first.
function M.files(path)
  local list = { path }
  for _, file in pairs(found[path] or {}) do
    list[#list + 1] = file
  end
  return list
end

--- Loads a file with what lies beside it. When that fails, its modules are again those of before.
-- @tparam string path
-- @tparam function load which calls the chunk through call(); gives what was loaded, or nil and an error
function M.anew(path, load)
  local before, loaded = found[path] or {}, {}
  for name in pairs(before) do
    loaded[name], package.loaded[name] = package.loaded[name], nil
  end
  found[path] = nil
  local fresh, err = load()
  if fresh then
    return fresh
  end
  -- What the attempt required is watched, too: to mend it is to change it.
  for name in pairs(found[path] or {}) do
    package.loaded[name] = nil
  end
  for name, file in pairs(before) do
    package.loaded[name] = loaded[name]
    found[path] = found[path] or {}
    found[path][name] = file
  end
  return nil, err
end

return M
