-- The fenced blocks of the documents, and a place in which they are run as they stand: the paths that they name are
-- directories of a test, and the provider is the simulator.
local kit = require "kit"
local mjhook = require "mjhook"
local receiver = require "receiver"
local sim = require "sim"

local M = {}

--- The blocks of a document, in order: {kind=, text=, line=, file= (a path that its first line names)}.
function M.of(path)
  local blocks, block, number = {}, nil, 0
  for line in io.lines(kit.root .. "/" .. path) do
    number = number + 1
    local fence = line:match "^```(.*)$"
    if block and fence then
      block.text = table.concat(block.lines, "\n") .. "\n"
      block.file = block.text:match "^%S+%s+(/[%w%-_./]+)\n"
      blocks[#blocks + 1], block = block, nil
    elseif block then
      block.lines[#block.lines + 1] = line
    elseif fence then
      block = { kind = fence, line = number, lines = {}, path = path }
    end
  end
  assert(not block, path .. ": a block without an end")
  return blocks
end

--- The first block of this kind in a document.
function M.first(path, kind)
  for _, block in ipairs(M.of(path)) do
    if block.kind == kind then
      return block
    end
  end
  error(("%s has no block %q"):format(path, kind), 2)
end

-- Installing is tried by scripts/dev (packages in clean roots, containers), not beside other tests; what needs a
-- database, by spec/e2e/postgres_spec.lua.
local ELSEWHERE = { ["scripts/doc/guides/packages.md"] = true, ["scripts/doc/guides/containers.md"] = true,
                    ["scripts/doc/guides/postgresql.md"] = true }

--- The documents whose code is run here, by their paths: README and the guides.
function M.documents()
  local list = { "README.md", ".github/CONTRIBUTING.md" }
  for name in kit.sh("cd " .. kit.quote(kit.root) .. " && ls scripts/doc/guides/*.md"):gmatch "%S+" do
    list[#list + 1] = not ELSEWHERE[name] and name or nil
  end
  return list
end

-- ---- where they are run ----

local Place = {}
Place.__index = Place

local DIRS = {
  "/etc/mjhook", "/etc/cron.d", "/var/lib", "/var/log/mjhook", "/var/log/nginx", "/var/backups", "/srv/images", "/tmp",
}
local PROGRAMS = { mjhook = kit.root .. "/scripts/mjhook", ["mjhook-reconcile"] = kit.build .. "/bin/mjhook-reconcile" }

--- A directory of this test, with a configuration, keys and secrets in it, and the programs of this build.
function M.place()
  local self = setmetatable({ dir = kit.tmp() }, Place)
  for _, dir in ipairs(DIRS) do
    kit.sh("mkdir -p -m 700 " .. kit.quote(self.dir .. dir))
  end
  kit.sh("chmod 700 " .. kit.quote(self.dir) .. " && mkdir " .. kit.quote(self.dir .. "/bin"))
  kit.write(self.dir .. "/etc/mjhook/api-key", kit.KEY .. "\n")
  kit.write(self.dir .. "/etc/mjhook/api-key-2", kit.KEY .. "-2\n")
  kit.write(self.dir .. "/etc/mjhook/secrets", kit.SECRET .. "\n")
  self.settings = kit.settings({ store = self.dir .. "/var/lib/mjhook" }, sim)
  assert(mjhook.open(self.settings)):close() -- as after a first job
  self.settings.log = nil
  -- The callbacks of the simulator lead nowhere here.
  kit.write(self.dir .. "/etc/mjhook/config.lua",
    (receiver.config_text(self.settings):gsub("return {", "%0 poll = { first = 1, max = 1 },")))
  kit.write(self.dir .. "/etc/mjhook/policy.lua", "return {}\n")
  for name, command in pairs(PROGRAMS) do
    kit.write(self.dir .. "/bin/" .. name, ("#!/bin/sh\nexec %s \"$@\"\n"):format(kit.quote(command)))
    kit.sh("chmod 755 " .. kit.quote(self.dir .. "/bin/" .. name))
  end
  return self
end

--- A text with the places of this test in it.
function Place:text(text)
  text = text:gsub("/usr/local/bin/mjhook", self.dir .. "/bin/mjhook"):gsub("first = 5 ", "first = 1 ")
  for _, top in ipairs { "/etc/mjhook", "/etc/cron.d", "/var/lib", "/var/log", "/var/backups", "/srv/images" } do
    text = text:gsub("%f[%w/]" .. top:gsub("%p", "%%%0") .. "%f[^%w]", self.dir .. top)
  end
  return text
end

--- Shell words before a command: this place's environment.
function Place:environment()
  local abi = kit.quote(kit.build .. "/5.4/?.so;;")
  return ("env PATH=%s:/usr/sbin:\"$PATH\" MJHOOK_CONFIG=%s MIDJOURNEY_API_KEY=%s MIDJOURNEY_API_BASE_URL=%s "
    .. "LUA_PATH_5_4=%s LUA_CPATH_5_4=%s TMPDIR=%s MJHOOK_BUILD=%s"):format(kit.quote(self.dir .. "/bin"),
    kit.quote(self.config or self.dir .. "/etc/mjhook/config.lua"), kit.KEY, sim.url,
    kit.quote(kit.root .. "/lua/?.lua;;"), abi, kit.quote(self.dir .. "/tmp"), kit.quote(kit.build))
end

--- Puts a block that names its file there.
function Place:install(block)
  return kit.write(self.dir .. (block.file or "/tmp/block"), self:text(block.text))
end

--- Runs a block of shell commands; each must succeed. Gives what they print and the exit code.
function Place:sh(block)
  local script = kit.write(self.dir .. "/tmp/script", self:text(block.text))
  return kit.sh(("cd %s && %s sh -eu %s"):format(kit.quote(self.dir .. "/tmp"), self:environment(), kit.quote(script)))
end

--- Runs a whole program.
function Place:program(block, lua, prelude)
  return kit.sh(("cd %s && %s %s"):format(kit.quote(self.dir .. "/tmp"), self:environment(),
    kit.lua_command((prelude or "") .. self:text(block.text), lua)))
end

return M
