--- What there is: commands in their groups, and the options of all of them. Help, suggestions and completion come from
-- here and from the commands' own tables.
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"
local suggest = require "mjhook.suggest"

local M = {}

-- In the order of the help. Each name is that of a module mjhook.cli.commands.<name>, a table:
--   name, arguments, summary, details   for the help
--   example                             a command line that works where the store has what it names
--   options                             see mjhook.cli.options
--   words, then_words                   for completion: what the first argument may be ("FILE": a file), and the second
--   least, most, too_many               how many arguments, and what to say when there are more
--   check(values, arguments)            may be there: what else there is to find fault with, before a store is opened
--   dash                                what to add about words that begin with a dash
--   makes_store                         the store need not be there yet
--   opens_nothing                       it gets no mj: it is about what keeps one from being opened; or a function of
--                                       values that says whether
--   needs_policy                        the policy is loaded; otherwise a broken one is no obstacle. "decisions": only
--                                       to decide, so a broken one is told, and the careful decision is taken
--   run(mj, values, arguments, out)     gives the exit code, nothing for 0; ends early through mjhook.cli.fail
M.GROUPS = {
  { "Set up", "init", "dev", "doctor" },
  { "Jobs", "submit", "get", "list", "watch", "refresh", "cancel", "resubmit", "adopt" },
  { "Results", "events", "kick", "bury", "replay", "refused", "readmit", "policy" },
  { "Numbers and accounts", "stats", "metrics", "pause", "resume" },
  { "Store", "prune", "check", "backup", "restore", "migrate", "copy" },
}

M.GLOBAL = {
  { name = "config", short = "c", arg = "FILE", read = options.text,
    help = "configuration (else $MJHOOK_CONFIG, else /etc/mjhook/config.lua)" },
  { name = "store", arg = "DIR", help = "the store, instead of the configuration's", read = options.store },
  { name = "json", help = "print JSON" },
  { name = "help", short = "h", help = "print help" },
  { name = "version", help = "print the version" },
}

M.HELP = {
  name = "help",
  arguments = "[COMMAND]",
  summary = "say more about a command, or print completion for a shell",
  example = "mjhook help submit",
  least = 0, most = 1,
  options = {
    { name = "completion", arg = "SHELL", help = "print completion for bash, zsh or fish",
      read = options.one_of("bash", "zsh", "fish") },
  },
  details = [[
Completion is installed with mjhook. For a shell that looks elsewhere: source <(mjhook help --completion bash).]],
}

--- The names of all commands, in the order of the help.
function M.names()
  local names = {}
  for _, group in ipairs(M.GROUPS) do
    for i = 2, #group do
      names[#names + 1] = group[i]
    end
  end
  names[#names + 1] = "help"
  return names
end

--- A command by its name; does not return when there is none.
function M.command(name)
  for _, known in ipairs(M.names()) do
    if known == name then
      return name == "help" and M.HELP or require("mjhook.cli.commands." .. name)
    end
  end
  fail.stop(fail.USAGE, ('unknown command "%s"%s'):format(name, suggest(name, M.names())), "")
end

return M
