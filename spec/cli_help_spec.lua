-- Help and completion come from the same tables as the parser. (spec/e2e/completion_spec.lua runs completion.)
local catalog = require "mjhook.cli.catalog"
local cli = require "cli"
local completion = require "mjhook.cli.completion"
local kit = require "kit"
local options = require "mjhook.cli.options"

local COMPLETION = kit.root .. "/scripts/completion/"
local FILES = { bash = "mjhook", zsh = "_mjhook", fish = "mjhook.fish" }

-- The words of a shell line: quotes are all there is in the examples.
local function words_of(line)
  local out, open = {}, nil
  for word in line:gmatch "%S+" do
    if open then
      open = open .. " " .. word
    elseif word:sub(1, 1) == "'" then
      open = word
    else
      out[#out + 1] = word
    end
    if open and open:sub(-1) == "'" then
      out[#out + 1], open = open:sub(2, -2), nil
    end
  end
  return out
end

describe("mjhook help", function()
  after_each(kit.cleanup)

  it("has every command in one group, with what it does and an example", function()
    local general = cli.run({ "help" }).out
    local seen = {}
    for _, group in ipairs(catalog.GROUPS) do
      assert.truthy(general:find("\n" .. group[1] .. ":\n", 1, true))
    end
    for _, name in ipairs(catalog.names()) do
      assert.is_nil(seen[name])
      seen[name] = true
      local command = catalog.command(name)
      assert.equal(name, command.name)
      assert.truthy(general:find(("\n  %-20s  %s\n"):format(name, command.summary), 1, true), name)
      assert.truthy(general:find("$ " .. command.example .. "\n", 1, true), name)
    end
    for line in general:gmatch "[^\n]+" do
      assert.is_true(#line <= 100, line)
    end
  end)

  it("is like the manual pages in that JSON has its quotes", function()
    if select(2, kit.sh "command -v groff") ~= 0 then
      return pending "groff is not installed"
    end
    local objects = 0
    for page in kit.sh("ls " .. kit.root .. "/scripts/man/*.[1-8]"):gmatch "[^\n]+" do
      local shown = kit.sh(("groff -mdoc -Tascii %s 2>/dev/null"):format(page)):gsub(".\8", ""):gsub("\27%[[%d;]*m", "")
      for object in shown:gmatch "{%s*[\"']?prompt[\"']?%s*:[^}]*}" do
        assert.truthy(object:find('^{%s*"prompt"%s*:%s*"'), object)
        objects = objects + 1
      end
    end
    assert.is_true(objects > 0)
  end)

  it("has a module for each command, and none that it does not show", function()
    for file in kit.sh("ls " .. kit.root .. "/lua/mjhook/cli/commands"):gmatch "(%w+)%.lua" do
      assert.equal(file, catalog.command(file).name)
    end
  end)

  for _, name in ipairs(catalog.names()) do
    it("shows an example of " .. name .. " that the parser takes, also in the command's own help", function()
      local command = catalog.command(name)
      local words = words_of(command.example)
      assert.equal("mjhook", table.remove(words, 1))
      local values, found, arguments = options.parse(words, catalog.GLOBAL, catalog.command)
      assert.equal(command, found)
      assert.is_true(#arguments >= command.least and #arguments <= command.most, command.example)
      if command.check then
        command.check(values, arguments)
      end
      local own = cli.run({ "help", name }).out
      if name ~= "help" then
        assert.truthy(own:find("\n  " .. command.example .. "\n", 1, true), own)
      end
    end)
  end

  it("prints completion for three shells and no other", function()
    for shell in pairs(FILES) do
      assert.equal(completion[shell](), cli.run({ "help", "--completion", shell }).out)
    end
    local result = cli.run { "help", "--completion", "tcsh" }
    assert.equal(64, result.code)
    assert.truthy(result.err:find("one of bash, zsh, fish expected", 1, true))
  end)

  for shell, name in pairs(FILES) do
    it("is what is installed for " .. shell .. ": otherwise `make completion` writes it anew", function()
      assert.equal(completion[shell](), kit.read(COMPLETION .. name))
    end)
  end
end)
