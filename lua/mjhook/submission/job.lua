--- A job as the user gives it: types, limits, and the record that is stored.
local core = require "mjhook.core"
local json = require "mjhook.json"
local memory = require "mjhook.memory"
local provider = require "mjhook.provider"
local view = require("mjhook.view").view

local M = {}

local TIMEOUT = core.provider.timeout

local FIELDS = {
  prompt = "string", mode = "string", timeout = "number", user_id = "string", key = "string",
  account = "string", priority = "number", expires = "number",
}

local NAMES = { "user_id", "key" }

local function invalid(text, ...)
  return nil, core.error("invalid", text:format(...))
end

-- The fields that a call takes, in order.
local function known_fields(what)
  local names = { "context", what == "adopt" and "task_id" or nil }
  for name in pairs(FIELDS) do
    names[#names + 1] = name
  end
  table.sort(names)
  return names
end

local function wanted_type(what, name)
  return FIELDS[name] or (what == "adopt" and name == "task_id" and "string") or nil
end

-- What is wrong with the call itself, which no form decides: no table, or a field that there is not.
local function misuse(what, args)
  if type(args) ~= "table" then
    return ("table expected, got %s"):format(type(args))
  end
  for name in pairs(args) do
    if name ~= "context" and not wanted_type(what, name) then
      return ('unknown field "%s"%s'):format(tostring(name), require "mjhook.suggest"(name, known_fields(what)))
    end
  end
end

-- What is wrong with the types of the values; of several wrong fields, the first by name.
local function bad_field(what, args)
  local needed = what == "adopt" and "task_id" or "prompt"
  local bad = args[needed] == nil and needed or nil
  for name, value in pairs(args) do
    local wanted = wanted_type(what, name)
    if wanted and type(value) ~= wanted and (not bad or name < bad) then
      bad = name
    end
  end
  return bad and ("bad field '%s' (%s expected, got %s)"):format(bad, wanted_type(what, bad), type(args[bad]))
end

--- Raises at `level` when the call is wrong: no table, or a field that there is not. A value of a wrong type is an
-- outcome instead, since such values come from forms.
-- @tparam string what "submit", or "adopt" for a job that was submitted elsewhere
function M.check(what, args, level)
  local wrong = misuse(what, args)
  if wrong then
    error(("%s: %s"):format(what, wrong), level + 1)
  end
end

--- What is wrong with one job of a list, in words: a job of a list raises for nothing.
function M.misuse(args)
  return misuse("submit", args)
end

local function is_whole(v, low, high)
  return v == math.floor(v) and v >= low and v <= high
end

local function usable(config, name)
  if name then
    return provider.usable(config, name)
  end
  local ok, err
  for _, account in ipairs(config.accounts) do
    ok, err = provider.usable(config, account.name)
    if ok then
      break
    end
  end
  return ok, err
end

--- Whether the configuration can send a job at all: under the account that it names, or else under any.
-- @treturn boolean|nil true; nil and an error
function M.sendable(mj, name)
  local config = mj.config
  if config.hook_url and not mj.keyring and not config.allow_unsigned then
    return nil, core.error("config", "secrets: not set, but hook_url is: callbacks could not be told from forgeries")
  end
  return usable(config, name)
end

-- json.canonical() of the values that many jobs have.
local canonical_of = setmetatable({}, { __index = function(self, value)
  self[value] = json.canonical(value)
  return self[value]
end })

-- Of what makes a repeated key mean the same job. It is stored: json.canonical() of a table with these fields, written
-- out because that takes a fifth of the time.
local function fingerprint(task, context)
  local canonical, digits = json.canonical, ""
  local text = json.kept(context)
  if text and not select(2, core.json_check(text)) then
    digits = text -- what is the same number to Lua may be another one in the text
  end
  return core.sha256("{\ns4:mode=\n" .. canonical_of[task.mode] .. "\ns6:prompt=\n"
    .. canonical(task.prompt or false) .. "\ns7:context=\n" .. (context == nil and "null" or canonical(context))
    .. "\ns7:timeout=\n" .. canonical_of[task.timeout] .. "\ns7:user_id=\n" .. canonical(task.user_id or false)
    .. "\n}" .. digits)
end

--- The record of a new job. Everything that can be wrong with it is found before anything is stored.
-- @tparam table mj
-- @tparam table args fields that are known
-- @tparam[opt] string what "submit" (default) or "adopt"
-- @treturn table|nil the `task` of a create operation; nil and an error
function M.record(mj, args, what)
  local adopted = what == "adopt"
  local wrong = bad_field(what or "submit", args)
  if wrong then
    return nil, core.error("invalid", wrong)
  end
  if adopted and (#args.task_id > 256 or not args.task_id:match "^[A-Za-z0-9_-]+$") then
    return invalid "task_id: 1 to 256 letters, digits, - and _ expected"
  end
  local prompt = args.prompt -- of an adopted job the provider may have to tell it
  if prompt and (prompt == "" or #prompt > core.max_prompt) then
    return invalid("prompt: 1 to %d bytes expected, got %d", core.max_prompt, #prompt)
  elseif prompt and (not core.utf8(prompt) or prompt:find "%z") then
    return invalid "prompt: not valid UTF-8 text"
  elseif args.mode and args.mode ~= "fast" and args.mode ~= "relaxed" then
    return invalid('mode: "fast" or "relaxed" expected, got %q', args.mode)
  elseif args.timeout and not is_whole(args.timeout, TIMEOUT.least, TIMEOUT.most) then
    return invalid("timeout: whole seconds from %d to %d expected, got %s", TIMEOUT.least, TIMEOUT.most, args.timeout)
  elseif args.priority and not is_whole(args.priority, -1000000, 1000000) then
    return invalid("priority: a whole number from -1000000 to 1000000 expected, got %s", args.priority)
  elseif args.expires and not (args.expires > 0 and args.expires <= 31536000) then
    return invalid("expires: seconds, more than 0 and at most a year, expected, got %s", args.expires)
  end
  for _, name in ipairs(NAMES) do
    local value = args[name]
    if value and (value == "" or #value > core.max_name) then
      return invalid("%s: 1 to %d bytes expected, got %d", name, core.max_name, #value)
    elseif value and not core.utf8(value) then
      return invalid("%s: not valid UTF-8 text", name)
    end
  end
  local context
  if args.context ~= nil then
    local text, why = json.encode(args.context)
    if not text then
      return invalid("context: can't be written as JSON: %s", why)
    elseif #text > core.max_json then
      return invalid("context: at most %d bytes as JSON expected, got %d", core.max_json, #text)
    elseif not core.utf8(text) then
      return invalid "context: not valid UTF-8 text"
    end
    context = text
  end
  local ok, err
  if adopted then
    ok, err = usable(mj.config, args.account)
  else
    ok, err = M.sendable(mj, args.account)
  end
  if not ok then
    return nil, err
  end
  local task = {
    prompt = prompt, mode = args.mode or "fast", timeout = args.timeout or TIMEOUT.usual,
    user_id = args.user_id, key = args.key, account = args.account, priority = args.priority, context = context,
    expires_at = args.expires and mj.exec:now() + math.floor(args.expires * 1000) or nil,
  }
  task.fingerprint = fingerprint(task, args.context)
  return task
end

--- What became of a create operation.
-- @treturn table|nil task, with `duplicate` when it was there before; nil and an error
function M.created(result, args)
  if result.code == "key_conflict" then
    return nil, core.error("key_conflict", ("key %q was used with other arguments by task %s"):format(args.key,
      result.task and result.task.ref or "?"))
  elseif result.code ~= "ok" and result.code ~= "duplicate" then
    return nil, core.error(result.code, "the task could not be stored: " .. result.code)
  end
  local task = memory.insist(view, result.task)
  task.duplicate = result.code == "duplicate" or nil
  return task
end

--- mj:adopt: a job that was submitted elsewhere, from its task id on. It is polled, and holds a slot, as our own.
function M.adopt(mj, args)
  local record, err = M.record(mj, args, "adopt")
  if not record then
    return nil, err
  end
  local results
  results, err = mj.exec:commit { {
    op = "create", task = record, source = "user", task_id = args.task_id, want = true,
    account = args.account or mj.config.accounts[1].name,
  } }
  if not results then
    return nil, err
  end
  return M.created(results[1], args)
end

return M
