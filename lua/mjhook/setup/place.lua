--- Where this installation lies: its programs and its share/mjhook. Found from the running program, as its modules are.
local core = require "mjhook.core"

local M = {}

-- The directory of the program that runs, if it is ours: through links, to an absolute name.
local function program_dir()
  local script = rawget(_G, "arg") and arg[0] or ""
  local path = script:find "mjhook" and core.realpath(script)
  return path and path:match "^(.*)/[^/]*$"
end

local function is_file(path)
  local found = core.stat(path)
  return found and found.type == "file"
end

-- A source tree is known by what else lies in scripts, as in scripts/mjhook.
local function is_source(dir)
  return is_file(dir .. "/dev/run-tests")
end

local function build_of(dir)
  return os.getenv "MJHOOK_BUILD" or (dir:gsub("/scripts$", "/build"))
end

local function in_path(name)
  for dir in (os.getenv "PATH" or ""):gmatch "[^:]+" do
    if dir:match "^/" and is_file(dir .. "/" .. name) then
      return dir .. "/" .. name
    end
  end
end

--- The absolute name of mjhook or mjhook-reconcile.
-- @treturn string where it is; where `make install` puts it when it is not found
function M.program(name)
  local dir = program_dir()
  if dir and is_source(dir) then
    local built = build_of(dir) .. "/bin/" .. name
    return is_file(built) and built or dir .. "/" .. name
  elseif dir then
    local tree = dir:match "^(.*)/lib/luarocks/rocks" -- a rock's own directory: users start the tree's programs
    for _, one in ipairs { tree and tree .. "/bin" or dir, dir } do
      if is_file(one .. "/" .. name) then
        return one .. "/" .. name
      end
    end
  end
  return in_path(name) or "/usr/local/bin/" .. name
end

--- The directory of examples, policies, the simulator and the playground.
-- @treturn string|nil where it is; nil when it is not found
function M.share()
  local dir = program_dir()
  for _, one in ipairs { dir and is_source(dir) and dir or "", dir and dir .. "/../share/mjhook" or "",
                         "/usr/local/share/mjhook", "/usr/share/mjhook" } do
    if is_file(one .. "/simulator/simulator") then
      return core.realpath(one)
    end
  end
end

--- The directories from which Lua finds our modules: for LuaJIT ("5.1") or Lua ("5.4").
-- @treturn string the place of *.lua; and that of mjhook/core.so
function M.modules(version)
  local dir = program_dir()
  if dir and is_source(dir) then
    return (dir:gsub("/scripts$", "/lua")), build_of(dir) .. "/" .. version
  end
  local prefix = dir and (dir:match "^(.*)/lib/luarocks/rocks" or dir:match "^(.*)/bin$") or "/usr/local"
  return prefix .. "/share/lua/" .. version, prefix .. "/lib/lua/" .. version
end

return M
