--- Modules that a policy or a configuration requires while it is loaded, and that lie in its directory or below. They
-- are part of it: they are watched and loaded anew with it. Modules that are required later, or lie elsewhere, are not;
-- nor is mjhook itself. What lies there is checked whenever it is required.
local code = require "mjhook.code"
local core = require "mjhook.core"
local limited = require "mjhook.limited"
local memory = require "mjhook.memory"

local M = {}

--- Seconds that loading a file may take, with all that it requires; and what is said of one that takes longer.
M.LOAD_S = 2
M.TOO_LONG = ("did not load within %d s"):format(M.LOAD_S)

local searchers = package.searchers or package.loaders -- luacheck: ignore 143

local found = {} -- path of the policy -> name of a module -> its file
local texts = {} -- path of the policy -> what was loaded: text of the file, and modules: name -> {file=, text=}

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

-- A searcher for modules in the file's directory, which it notes. Such a module decides as the file itself does: others
-- must not be able to write it, and what was checked is what is run.
-- @tparam string path of the file
-- @tparam function note called with a module's name, and its file and text if it lies there
-- @tparam[opt] table instead modules in the place of what their files hold now: name -> {file=, text=}
local function searcher(path, note, instead)
  local directory = path:match "^(.*)/[^/]*$" or "."
  directory = directory == "" and "/" or directory
  return function(name)
    if is_ours(name) or package.preload[name] then
      return nil
    end
    local given = instead and instead[name]
    local file = given and given.file or file_of(name, directory, package.path)
    note(name, file)
    if file then
      local text = given and given.text or succeed(name, code.read(file))
      note(name, file, text)
      return succeed(name, code.compile(text, file)), file
    end
    local library = file_of(name, directory, package.cpath) or
      file_of(name:match "^[^.]*", directory, package.cpath)
    if library then -- Lua's own searcher opens it: it is the same one, since only its owner can replace it
      succeed(name, code.read(library))
    end
  end
end

local function remove(one)
  for i, there in ipairs(searchers) do
    if there == one then
      table.remove(searchers, i)
      return
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

-- Calls a file's chunk, interrupts it after LOAD_S, and notes what it requires: Lua asks the searchers for each module
-- that is not loaded, also for one that is broken.
local function run(path, call, chunk, text, instead)
  local names, asked, modules = found[path] or {}, {}, {}
  for name, module in pairs(texts[path] and texts[path].modules or {}) do
    modules[name] = module -- of one that is loaded no searcher is asked again
  end
  found[path] = names
  local ours = searcher(path, function(name, file, its_text)
    names[name] = file
    asked[#asked + 1] = file and name
    if its_text then
      modules[name] = { file = file, text = its_text }
    end
  end, instead)
  table.insert(searchers, 1, ours)
  local ok, value = call(load_in_time, chunk)
  remove(ours)
  if ok then
    texts[path] = { text = text, modules = modules }
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

--- Loads a file: reads it, unless others can write it, compiles it and calls it.
-- @tparam string path
-- @tparam[opt] table how instead (what is loaded in the place of what the files hold now: see texts()), env (the file's
-- globals), call (in the place of pcall)
-- @return true and its value; false and an error
function M.load(path, how)
  how = how or {}
  local instead = how.instead and how.instead[path] or {}
  local text, chunk, err = instead.text, nil, nil
  if not text then
    text, err = code.read(path)
  end
  if text then
    chunk, err = code.compile(text, path, how.env)
  end
  if not chunk then
    return false, err
  end
  return run(path, how.call or pcall, chunk, text, instead.modules)
end

--- What was last loaded of files and of the modules beside them, as plain data: for another Lua VM, which has to load
-- them while they are broken.
-- @tparam table paths
-- @treturn table path -> {text=, modules=}
function M.texts(paths)
  local list = {}
  for _, path in pairs(paths) do
    list[path] = texts[path]
  end
  return list
end

local guards = {} -- path of the policy -> searcher

local function unguard(one, ...)
  remove(one)
  return ...
end

--- call(...), which is a pcall of what the file gave: what it requires only now is checked, too, but not noted.
function M.guarded(path, call, ...)
  guards[path] = guards[path] or searcher(path, function() end)
  table.insert(searchers, 1, guards[path])
  return unguard(guards[path], call(...))
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
-- @tparam function load which loads the file through load(); gives what was loaded, or nil and an error
function M.anew(path, load)
  local before, loaded, held = found[path] or {}, {}, texts[path]
  for name in pairs(before) do
    loaded[name], package.loaded[name] = package.loaded[name], nil
  end
  found[path], texts[path] = nil, nil
  local fresh, err = load()
  if fresh then
    return fresh
  end
  texts[path] = held
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
