-- mjhook dev
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local find = require "mjhook.cli.lookup"
local json = require "mjhook.cli.json"
local options = require "mjhook.cli.options"
local place = require "mjhook.setup.place"
local suggest = require "mjhook.suggest"
local text = require "mjhook.cli.text"
local trigger = require "mjhook.setup.trigger"

local BASH = "/bin/bash"

-- One place for each user, so that `trigger` finds what runs.
local function directory(values)
  local dir = values.dir or ("%s/mjhook-dev-%d"):format((os.getenv "TMPDIR" or "/tmp"):gsub("/+$", ""), core.uid())
  return dir:match "^/" and dir or core.cwd() .. "/" .. dir
end

local function share()
  return place.share() or fail.stop(fail.FAILED,
    "share/mjhook is not where it should be, beside bin: install mjhook again, or run it from a source tree")
end

-- From here on this process is the launcher: signals go to it, and it ends what it has started.
local function start(values)
  local lua, modules = place.modules "5.1"
  if not core.stat(modules .. "/mjhook/core.so") then
    fail.stop(fail.FAILED, ("nginx runs LuaJIT, and there is no mjhook for it in %s: build it with LuaJIT's headers")
      :format(modules))
  end
  local argv = {
    BASH, share() .. "/dev.d/dev", "run", directory(values), "--mjhook", place.program "mjhook",
    "--reconcile", place.program "mjhook-reconcile", "--lua", lua, "--modules", modules,
    "--port", tostring(values.port or 0), "--provider-port", tostring(values["provider-port"] or 0),
  }
  for _, switch in ipairs(values.set or {}) do
    argv[#argv + 1] = "--set"
    argv[#argv + 1] = switch
  end
  argv[#argv + 1] = values.json and "--json" or nil
  local _, err = core.exec(argv)
  fail.stop(fail.FAILED, err.message)
end

local function progress(out)
  if out.json or not core.isatty(2) then
    return nil
  end
  local begun = core.clock()
  return function(task, what)
    io.stderr:write("\r\27[K", text.clean(("%s, waiting for %s, %s"):format(task.state, what,
      text.duration(core.clock() - begun))))
  end
end

local function make(values, word, id, out)
  local config = directory(values) .. "/config.lua"
  if not core.stat(config) then
    fail.stop(fail.FAILED, ("no mjhook dev runs in %s: start it in another terminal, or name its --dir")
      :format(directory(values)))
  end
  local mj, err = require("mjhook").open { config = config, policy = {} }
  if not mj then
    fail.with(err)
  end
  local task
  if id then
    task, err = find(mj, id)
  end
  if not err then
    task, err = trigger.run(mj, word, task, progress(out))
  end
  mj:close()
  if core.isatty(2) and not out.json then
    io.stderr:write "\r\27[K"
  end
  if not task then
    fail.with(err)
  elseif out.json then
    out:value(json.task(task))
  else
    out:line(task.ref, " ", out:state(task.state), task.late and " (late)" or "",
      task.image and " " .. task.image or "", task.error and (" (%s)"):format(task.error.message) or "")
  end
end

local function read_port(given)
  return options.whole(0, 65535)(given)
end

local function is_word(word)
  for _, known in ipairs(trigger.WORDS) do
    if known == word then
      return true
    end
  end
end

return {
  name = "dev",
  arguments = "[trigger WORD [REF]]",
  summary = "try everything on this machine, without an account",
  example = "mjhook dev trigger late",
  words = { "trigger" },
  then_words = trigger.WORDS,
  least = 0, most = 3,
  too_many = "dev trigger takes a word and a ref",
  opens_nothing = true,
  options = {
    { name = "dir", arg = "DIR", help = "where everything is kept ($TMPDIR or /tmp, then mjhook-dev-UID)",
      read = options.text },
    { name = "port", arg = "N", help = "of nginx on 127.0.0.1 (a free one, then the same again)", read = read_port },
    { name = "provider-port", arg = "N", help = "of the simulated provider", read = read_port },
    { name = "set", arg = "NAME=VALUE", help = "a switch of the simulated provider; several times", several = true,
      read = function(given)
        return given:match "^%l[%w_.]*=" and given or nil, "NAME=VALUE expected"
      end },
  },
  details = [[
Starts a simulated provider, nginx with an application (a form and a gallery), the console and metrics, and the
reconciler, all on loopback and in one directory, and prints the addresses. Ctrl-C stops all. What was submitted stays
in the directory; the provider forgets its jobs. policy.lua there is yours to edit.

trigger makes something happen to a task, by default to the newest that it can happen to, or to a new one:
  succeeded, failed   the provider ends the job, and calls back
  lost                the provider does not know the job any more: it is given up after about ten seconds
  duplicate           the callback comes again
  late                the provider tells of a success after the job was given up]],
  check = function(_, arguments)
    if #arguments == 0 then
      return
    elseif arguments[1] ~= "trigger" then
      fail.stop(fail.USAGE, ('dev: trigger expected, got "%s"%s'):format(arguments[1],
        suggest(arguments[1], { "trigger" })), "dev")
    elseif not is_word(arguments[2]) then
      fail.stop(fail.USAGE, ("dev trigger: one of %s expected%s"):format(table.concat(trigger.WORDS, ", "),
        arguments[2] and suggest(arguments[2], trigger.WORDS) or ""), "dev")
    end
  end,
  run = function(_, values, arguments, out)
    if #arguments == 0 then
      return start(values)
    end
    return make(values, arguments[2], arguments[3], out)
  end,
}
