--- Completion for bash, zsh and fish, written from the same tables as the help.
local catalog = require "mjhook.cli.catalog"
local options = require "mjhook.cli.options"

local M = {}

local FILES = { FILE = true, DIR = true, DIRECTORY = true }

-- What may stand behind an option: a list of words, "file", or nothing that is known.
local function values_of(option)
  return options.words[option.read] or FILES[option.arg] and "file" or nil
end

local function commands()
  local list = {}
  for i, name in ipairs(catalog.names()) do
    list[i] = catalog.command(name)
  end
  return list
end

-- The words that may be the first argument of a command; "file".
local function words_of(command)
  if command == catalog.HELP then
    return catalog.names()
  elseif command.words and command.words[1] == "FILE" then
    return "file"
  end
  return command.words
end

local function single_quoted(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

local NOTE = "# Completion of mjhook for %s. Written by `mjhook help --completion %s`: do not edit.\n"

-- ---- bash ----

local function flags(list, out)
  for _, option in ipairs(list) do
    out[#out + 1] = option.short and "-" .. option.short or nil
    out[#out + 1] = "--" .. option.name
  end
  return out
end

-- The case branch for words after an option, of all options that take a value.
local function bash_values(prefix, list, out)
  for _, option in ipairs(list) do
    if option.arg then
      local values = values_of(option)
      local names = ("%s--%s"):format(prefix, option.name) .. (option.short and ("|%s-%s"):format(prefix, option.short)
        or "")
      local action = values == "file" and "files=1"
        or values and ('words="%s"'):format(table.concat(values, " ")) or ":"
      out[#out + 1] = ("    %s) %s; given=1 ;;"):format(names, action)
    end
  end
end

function M.bash()
  local list, values, own = commands(), {}, {}
  bash_values("*:", catalog.GLOBAL, values)
  for _, command in ipairs(list) do
    bash_values(command.name .. ":", command.options, values)
    local words = words_of(command)
    own[#own + 1] = ("    %s) options=\"%s\"%s%s ;;"):format(command.name,
      table.concat(flags(command.options, {}), " "),
      words and words ~= "file" and ('; first="%s"'):format(table.concat(words, " ")) or "",
      (words == "file" and "; files_first=1" or "")
      .. (command.then_words and ('; second="%s"'):format(table.concat(command.then_words, " ")) or ""))
  end
  local with_value = {}
  for _, option in ipairs(catalog.GLOBAL) do
    if option.arg then
      with_value[#with_value + 1] = "--" .. option.name
      with_value[#with_value + 1] = option.short and "-" .. option.short or nil
    end
  end
  return NOTE:format("bash", "bash") .. ([[
_mjhook() {
  local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command= i
  local options= first= second= words= files= files_first= given= n=0
  # bash makes a word of the = in --name=value.
  if [ "$before" = "=" ]; then before=${COMP_WORDS[COMP_CWORD-2]}
  elif [ "$word" = "=" ]; then word=; fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
    @WITH_VALUE@) i=$((i + 1)); [ "${COMP_WORDS[i]}" != "=" ] || i=$((i + 1)) ;;
    -*) ;;
    *) if [ -z "$command" ]; then command=${COMP_WORDS[i]}; else n=$((n + 1)); fi ;;
    esac
  done
  case $command in
@OWN@
  esac
  case $command:$before in
@VALUES@
  esac
  if [ -z "$given" ]; then
    case $word in
    -*) words="$options @GLOBAL@" ;;
    *)
      if [ -z "$command" ]; then words="@COMMANDS@"
      elif [ "$n" -eq 0 ]; then words=$first files=$files_first
      elif [ "$n" -eq 1 ]; then words=$second; fi
      ;;
    esac
  fi
  if [ -n "$files" ]; then
    compopt -o filenames 2>/dev/null
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
  else
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
  fi
}
complete -F _mjhook mjhook
]]):gsub("@(%u[%u_]+)@", {
    WITH_VALUE = table.concat(with_value, "|"), OWN = table.concat(own, "\n"), VALUES = table.concat(values, "\n"),
    GLOBAL = table.concat(flags(catalog.GLOBAL, {}), " "), COMMANDS = table.concat(catalog.names(), " "),
  })
end

-- ---- zsh ----

local function zsh_text(s)
  return (s:gsub("[%[%]\\:]", "\\%0"))
end

local function zsh_action(values)
  if values == "file" then
    return "_files"
  end
  return values and ("(%s)"):format(table.concat(values, " ")) or " "
end

local function zsh_options(list, out)
  for _, option in ipairs(list) do
    local help = "[" .. zsh_text(option.help) .. "]"
    local value = option.arg and (":%s:%s"):format(zsh_text(option.arg), zsh_action(values_of(option))) or ""
    out[#out + 1] = single_quoted(("%s--%s%s%s%s"):format(option.several and "*" or "", option.name,
      option.arg and "=" or "", help, value))
    if option.short then
      out[#out + 1] = single_quoted(("-%s%s%s"):format(option.short, help, value))
    end
  end
  return out
end

function M.zsh()
  local names, cases = {}, {}
  for _, command in ipairs(commands()) do
    names[#names + 1] = "    " .. single_quoted(command.name .. ":" .. zsh_text(command.summary))
    local own = zsh_options(command.options, {})
    local words = words_of(command)
    if words then
      own[#own + 1] = single_quoted("1: :" .. zsh_action(words))
    end
    if command.then_words then
      own[#own + 1] = single_quoted("2: :" .. zsh_action(command.then_words))
    end
    cases[#cases + 1] = ("      (%s) _arguments -S $global %s ;;"):format(command.name, table.concat(own, " "))
  end
  return "#compdef mjhook\n" .. NOTE:format("zsh", "zsh") .. ([[
_mjhook() {
  local curcontext=$curcontext state line
  local -a global commands
  typeset -A opt_args
  global=(@GLOBAL@)
  commands=(
@NAMES@
  )
  _arguments -C -S $global '1: :->command' '*:: :->rest'
  case $state in
    (command) _describe -t commands command commands ;;
    (rest)
      case $words[1] in
@CASES@
      esac
      ;;
  esac
}
_mjhook "$@"
]]):gsub("@(%u[%u_]+)@", {
    GLOBAL = table.concat(zsh_options(catalog.GLOBAL, {}), " "), NAMES = table.concat(names, "\n"),
    CASES = table.concat(cases, "\n"),
  })
end

-- ---- fish ----

local function fish_options(condition, list, out)
  for _, option in ipairs(list) do
    local values = option.arg and values_of(option)
    out[#out + 1] = ("complete -c mjhook -n %s -l %s%s%s -d %s"):format(single_quoted(condition), option.name,
      option.short and " -s " .. option.short or "", not option.arg and "" or values == "file" and " -rF"
      or values and (" -x -a %s"):format(single_quoted(table.concat(values, " "))) or " -x", single_quoted(option.help))
  end
end

function M.fish()
  local out = {}
  local names = table.concat(catalog.names(), " ")
  fish_options("true", catalog.GLOBAL, out)
  for _, command in ipairs(commands()) do
    out[#out + 1] = ("complete -c mjhook -n %s -a %s -d %s"):format(
      single_quoted("not __fish_seen_subcommand_from " .. names), command.name, single_quoted(command.summary))
    local here = "__fish_seen_subcommand_from " .. command.name
    fish_options(here, command.options, out)
    local words = words_of(command)
    if words == "file" then
      out[#out + 1] = ("complete -c mjhook -n %s -F"):format(single_quoted(here))
    elseif words then
      out[#out + 1] = ("complete -c mjhook -n %s -a %s"):format(single_quoted(here),
        single_quoted(table.concat(words, " ")))
    end
    if command.then_words then
      out[#out + 1] = ("complete -c mjhook -n %s -a %s"):format(
        single_quoted(here .. "; and __fish_seen_subcommand_from " .. table.concat(words, " ")),
        single_quoted(table.concat(command.then_words, " ")))
    end
  end
  return NOTE:format("fish", "fish") .. "complete -c mjhook -f\n" .. table.concat(out, "\n") .. "\n"
end

return M
