--- Modules that a policy or a configuration requires while it is loaded, and that lie in its directory or below. They
-- are part of it: they are watched and loaded anew with it. Modules that are required later, or lie elsewhere, are not;
-- nor is mjhook itself.
local core = require "mjhook.core"

local M = {}

local searchers = package.searchers or package.loaders -- luacheck: ignore 143

local found = {} -- path of the policy -> name of a module -> its file

-- By inode: a directory has many names.
local function is_below(file, directory)
  local top, up = core.stat(directory), file:match "^(.*)/[^/]*$"
  while top and up and up ~= "" do
    local there = core.stat(up)
    if there and there.inode == top.inode then
      return true
    end
    up = up:match "^(.*)/[^/]*$"
  end
  return false
end

local function is_ours(name)
  return name:find "^mjhook%f[.%z]" or name:find "^resty%.mjhook%f[.%z]"
end

--- Calls a file's chunk, and notes what it requires: Lua asks the searchers for each module that is not loaded, also
-- for one that is broken.
-- @tparam string path of the file
-- @tparam function call pcall, or what is in its place
-- @tparam function chunk
-- @return what `call` gives
function M.call(path, call, chunk)
  local directory = path:match "^(.*)/[^/]*$"
  local names = found[path] or {}
  found[path] = names
  local function note(name)
    local file = directory and not is_ours(name) and package.searchpath(name, package.path) -- luacheck: ignore 143
    names[name] = file and is_below(file, directory) and file or nil
  end
  table.insert(searchers, 1, note)
  local function done(...)
    for i = #searchers, 1, -1 do
      if searchers[i] == note then
        table.remove(searchers, i)
      end
    end
    return ...
  end
  return done(call(chunk))
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
