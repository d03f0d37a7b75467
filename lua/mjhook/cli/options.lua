--- The command line, strictly: what is not known is refused, with the nearest thing that is.
-- An option is {name=, short=, arg= (what it takes, for the help), help=, read= (text -> value | nil, why),
-- several= (true: it may repeat, and gives a list of all values, also of those that are lists themselves)}.
local fail = require "mjhook.cli.fail"
local suggest = require "mjhook.suggest"

local M = {}

--- Reads a whole number, in decimal digits. Only a number below 0 has a sign.
function M.whole(low, high)
  return function(text)
    local n = #text <= 16 and text:match "^%-?%d+$" and tonumber(text)
    if n and n >= low and n <= high and (n < 0 or not text:find("-", 1, true)) then
      return n
    end
    return nil, ("a whole number from %d to %d expected"):format(low, high)
  end
end

local UNITS = { s = 1, m = 60, h = 3600, d = 86400, w = 7 * 86400 }

local LONGEST = 1000 * 366 * 86400 -- s: a point in time that far away is still exact in milliseconds

--- Reads a duration in seconds: 90, 90s, 10m, 2h, 7d, 1w; at most some thousand years.
function M.seconds(text)
  local n, unit = text:match "^(%d+)([smhdw]?)$"
  if not n then
    return nil, "seconds expected, or a number with s, m, h, d or w"
  end
  local seconds = tonumber(n) * (UNITS[unit] or 1)
  if #n > 12 or seconds > LONGEST then -- with more digits the product may be beyond Lua 5.4's integers
    return nil, "that is longer than a thousand years"
  end
  return seconds
end

--- What a reader takes, for completion: a list of words by reader, where there are but a few.
M.words = setmetatable({}, { __mode = "k" })

--- Reads one of a few words.
function M.one_of(...)
  local words = { ... }
  local function read(text)
    for _, word in ipairs(words) do
      if text == word then
        return text
      end
    end
    return nil, ("one of %s expected%s"):format(table.concat(words, ", "), suggest(text, words))
  end
  M.words[read] = words
  return read
end

--- Reads a text that is not empty.
function M.text(text)
  if text == "" then
    return nil, "it is empty"
  end
  return text
end

--- Reads a store: a directory, or a URL without a password.
function M.store(text)
  local why = require("mjhook.stores").unfit_for_argument(text)
  if why then
    return nil, why
  end
  return M.text(text)
end

local function find(sets, field, name)
  for _, set in ipairs(sets) do
    for _, option in ipairs(set) do
      if option[field] == name then
        return option
      end
    end
  end
end

local function names(sets)
  local out = {}
  for _, set in ipairs(sets) do
    for _, option in ipairs(set) do
      out[#out + 1] = "--" .. option.name
    end
  end
  return out
end

-- Splits "--name=value", "-cvalue"; gives the option, how it was written and its value so far.
local function recognize(word, sets, command)
  local name, value = word:match "^%-%-([^=]+)=(.*)$"
  name = name or word:match "^%-%-(.+)$"
  if name then
    local option = find(sets, "name", name)
    if option then
      return option, "--" .. name, value
    end
    fail.stop(fail.USAGE, ('unknown option "--%s"%s%s'):format(name, suggest("--" .. name, names(sets)),
      command and command.dash or ""), command and command.name)
  end
  local option = find(sets, "short", word:sub(2, 2))
  if option and (option.arg or #word == 2) then
    return option, word:sub(1, 2), #word > 2 and word:sub(3) or nil
  end
  fail.stop(fail.USAGE, ('unknown option "%s"%s'):format(word, command and command.dash or ""),
    command and command.name)
end

--- Parses a command line.
-- @tparam table argv
-- @tparam table global options that every command takes
-- @tparam function lookup name -> command ({name=, options=, dash= what to say about words that begin with
-- a dash}), or it does not return
-- @treturn table values by option name
-- @treturn table|nil command
-- @treturn table the other arguments
function M.parse(argv, global, lookup)
  local values, rest, command = {}, {}, nil
  local i, open = 1, true
  while i <= #argv do
    local word = argv[i]
    if open and word == "--" then
      open = false
    elseif open and word:match "^%-." then
      local option, written, value = recognize(word, { command and command.options or {}, global }, command)
      if not option.arg and value then
        fail.stop(fail.USAGE, ("%s takes no value"):format(written), command and command.name)
      elseif option.arg and not value then
        i = i + 1
        value = argv[i]
        if not value or value:match "^%-%-" then
          fail.stop(fail.USAGE, ("%s needs a value: %s %s%s"):format(written, written, option.arg,
            value and (" (or --%s=%s)"):format(option.name, value) or ""), command and command.name)
        end
      end
      if option.read then
        local read, why = option.read(value)
        if read == nil then
          fail.stop(fail.USAGE, ('%s "%s": %s'):format(written, value, why), command and command.name)
        end
        value = read
      end
      if option.several then
        local list = values[option.name] or {}
        for _, one in ipairs(type(value) == "table" and value or { value }) do
          list[#list + 1] = one
        end
        value = list
      elseif option.arg and values[option.name] ~= nil and values[option.name] ~= value then
        fail.stop(fail.USAGE, ("%s was given twice, and takes one value"):format(written), command and command.name)
      end
      values[option.name] = option.arg and value or not option.arg
    elseif not command then
      command = lookup(word)
    else
      rest[#rest + 1] = word
    end
    i = i + 1
  end
  return values, command, rest
end

return M
