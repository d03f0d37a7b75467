-- The annotations (lua/mjhook/types.lua and those of the public functions) and the code say the same: what a function
-- takes and gives, which keys, codes and functions there are.  What is only on one side fails.
package.path = require("kit").root .. "/scripts/doc/?.lua;" .. package.path
local annotations = require "annotations"
local config = require "mjhook.config"
local core = require "mjhook.core"
local job = require "mjhook.submission.job"
local kit = require "kit"
local mjhook = require "mjhook"
local policy = require "mjhook.policy"
local testing = require "mjhook.testing"

local model = annotations.load(kit.root)

-- Whether a value of this Lua type may be given where this is expected.
local function admits(kind, value)
  if kind.kind == "union" then
    for _, one in ipairs(kind) do
      if admits(one, value) then
        return true
      end
    end
    return false
  elseif kind.kind == "literal" then
    return value == kind.value
  elseif kind.kind == "fun" then
    return type(value) == "function"
  elseif kind.kind ~= "name" then
    return type(value) == "table"
  elseif model.aliases[kind.name] then
    return admits(model.aliases[kind.name].type, value)
  elseif kind.name == "integer" then
    return type(value) == "number" and value % 1 == 0
  elseif kind.name == "any" then
    return true
  elseif kind.name == "true" or kind.name == "false" then
    return value == (kind.name == "true")
  elseif model.classes[kind.name] then
    return type(value) == "table" or type(value) == "userdata"
  end
  return type(value) == kind.name
end

local function fields_of(name)
  local fields, class = {}, assert(model.classes[name], "no class " .. name)
  while class do
    for _, field in ipairs(class.fields) do
      fields[field.name] = fields[field.name] or field
    end
    class = model.classes[class.parent]
  end
  return fields
end

-- A value is what its annotation says: no field more, none missing, each of its type, and so on down.
local matches

local function match_class(where, value, class)
  local fields = fields_of(class)
  for name, field in pairs(fields) do
    if value[name] == nil then
      assert.is_truthy(field.optional or admits(field.type, nil), ("%s has no field %q"):format(where, name))
    else
      matches(where .. "." .. name, value[name], field.type)
    end
  end
  for name in pairs(value) do
    assert.is_truthy(fields[name] or model.classes[class].open or model.classes[class].functions[name],
      ("%s: %s has no annotation of %q"):format(where, class, tostring(name)))
  end
end

function matches(where, value, kind)
  if kind.kind == "name" and model.classes[kind.name] and type(value) == "table" then
    match_class(where, value, kind.name)
  elseif kind.kind == "list" and type(value) == "table" then
    for i, item in ipairs(value) do
      matches(("%s[%d]"):format(where, i), item, kind.of)
    end
  elseif kind.kind == "map" and type(value) == "table" then
    for key, item in pairs(value) do
      matches(where .. "." .. tostring(key), item, kind.of)
    end
  elseif kind.kind == "table" and type(value) == "table" then
    local known = {}
    for _, field in ipairs(kind.fields) do
      known[field.name] = true
      if value[field.name] ~= nil then
        matches(where .. "." .. field.name, value[field.name], field.type)
      end
    end
    for name in pairs(value) do
      assert.is_truthy(known[name], ("%s has no annotation of %q"):format(where, tostring(name)))
    end
  elseif kind.kind == "union" then
    local why = ("%s is %s, not %s"):format(where, tostring(value), kind.text)
    for _, one in ipairs(kind) do
      if admits(one, value) then
        local ok, err = pcall(matches, where, value, one)
        if ok then
          return
        end
        why = err
      end
    end
    error(why, 0)
  elseif kind.kind == "name" and model.aliases[kind.name] then
    matches(where, value, model.aliases[kind.name].type)
  else
    assert.is_truthy(admits(kind, value), ("%s is %s, not %s"):format(where, tostring(value), kind.text or kind.name))
  end
end

-- What a function gives, by its annotation.
local function gives(name, ...)
  local f = model.classes["mjhook.Instance"].functions[name]
  for i, kind in ipairs(f.returns) do
    local value = select(i, ...)
    if value ~= nil then
      matches(name, value, kind)
    end
  end
  return ...
end

-- The names in a table of a source: `NAME =` in it, or the texts of a list.
local function names_in(path, before)
  local text = kit.read(kit.root .. "/" .. path)
  local from = assert(select(2, text:find(before, 1, true)), ("%s has no %q"):format(path, before))
  local names = {}
  local inside = text:match("^%s*(%b{})", from + 1)
  for name in inside:gmatch(inside:find "=" and "([%w_]+) =" or '"([%w_]+)"') do
    names[#names + 1] = name
  end
  assert(#names > 0, path)
  return names
end

local SAMPLES = { "a text", 1.5, true, { "a list" }, function() end }

-- Every text of the sources below a folder.
local function sources(folder)
  return coroutine.wrap(function()
    for path in kit.sh(("find %s/%s -name '*.[chl]*' -not -name types.lua"):format(kit.quote(kit.root), folder))
      :gmatch "[^\n]+" do
      coroutine.yield(kit.read(path), path)
    end
  end)
end

describe("the annotations", function()
  after_each(kit.cleanup)

  describe("of the configuration", function()
    local keys = require("mjhook.config.keys").KEYS

    it("name every key, and no other", function()
      local fields = fields_of "mjhook.Config"
      for key in pairs(keys) do
        assert.is_truthy(fields[key], "mjhook.Config has no annotation of " .. key)
      end
      for key in pairs(fields) do
        assert.is_truthy(keys[key], "there is no key " .. key)
      end
    end)

    it("admit nothing that is refused", function()
      for key, field in pairs(fields_of "mjhook.Config") do
        for _, value in ipairs(SAMPLES) do
          if not admits(field.type, value) then
            local settings, err = config.resolve { store = "/x", [key] = value }
            assert.is_nil(settings, ("%s = %s is taken, not %s"):format(key, tostring(value), field.type.text))
            assert.matches(key, err.message, 1, true)
          end
        end
      end
    end)

    it("name the fields of the tables in it", function()
      local inside = { accounts = "mjhook.Account", poll = "mjhook.PollConfig", retention = "mjhook.Retention",
                       log = "mjhook.LogConfig" }
      for key, class in pairs(inside) do
        for name in pairs(fields_of(class)) do
          local value = { [name] = {} }
          local _, err = config.resolve { store = "/x", [key] = key == "accounts" and { value } or value }
          assert.is_nil(err.message:find("unknown key", 1, true), ("%s.%s: %s"):format(key, name, err.message))
        end
        local _, err = config.resolve { store = "/x", [key] = key == "accounts" and { { x = 1 } } or { x = 1 } }
        assert.matches("unknown key", err.message)
      end
    end)
  end)

  describe("of a job", function()
    it("name every field that is taken, and no other", function()
      for what, class in pairs { submit = "mjhook.Job", adopt = "mjhook.AdoptedJob" } do
        local fields = fields_of(class)
        for name in pairs(fields) do
          assert.has_no_error(function() job.check(what, { [name] = print }, 1) end)
        end
        assert.has_error(function() job.check(what, { nope = print }, 1) end)
        for _, name in ipairs(names_in("lua/mjhook/submission/job.lua", "local FIELDS =")) do
          assert.is_truthy(fields[name], ("%s has no annotation of %q"):format(class, name))
        end
      end
    end)

    it("admit nothing that is refused", function()
      local t = testing.new()
      kit.finally(function() t:close() end)
      for name, field in pairs(fields_of "mjhook.Job") do
        for _, value in ipairs(SAMPLES) do
          if not admits(field.type, value) then
            local args = { prompt = "x" }
            args[name] = value
            local task, err = t.mj:submit(args)
            assert.is_nil(task, ("%s = %s"):format(name, tostring(value)))
            assert.equal("invalid", err.code)
            assert.matches(name, err.message, 1, true)
          end
        end
      end
    end)
  end)

  it("of a policy name its functions, and no other", function()
    local fields = fields_of "mjhook.Policy"
    for name in pairs(fields) do
      assert.is_truthy(policy.load({ [name] = function() end }, print), name)
    end
    for _, list in ipairs { "local HANDLERS =", "local DECISIONS =" } do
      for _, name in ipairs(names_in("lua/mjhook/policy.lua", list)) do
        assert.is_truthy(fields[name], name)
      end
    end
  end)

  it("of error codes name every code that the sources have, and no other", function()
    local words, said = {}, {}
    for _, one in ipairs(model.aliases["mjhook.ErrorCode"].words) do
      words[one.word] = true
    end
    for _, code in ipairs(core.codes) do
      said[code] = code ~= "ok" or nil
    end
    for text in sources "lua" do
      for code in text:gmatch 'core%.error%("([%l_]+)"' do
        said[code] = code ~= "unconfigured" or nil -- which never leaves resty.mjhook.threads
      end
      for code in text:gmatch 'error_code = "([%l_]+)"' do
        said[code] = true
      end
    end
    for text, path in sources "src" do
      if path:find "provider/answer" then
        for code in text:gmatch 'X%(MJ_[%u_]+, "([%l_]+)"' do
          said[code] = true
        end
      end
      for code in text:gmatch 'error_code = MJ_LIT%("([%l_]+)"%)' do
        said[code] = true
      end
    end
    for code in pairs(said) do
      assert.is_truthy(words[code], "mjhook.ErrorCode has no " .. code)
    end
    local all = {}
    for text in sources "src" do
      all[#all + 1] = text
    end
    for text in sources "lua" do
      all[#all + 1] = text
    end
    all = table.concat(all)
    for code in pairs(words) do
      assert.is_truthy(all:find(('"%s"'):format(code), 1, true), "no source has the code " .. code)
    end
  end)

  it("of states and sources are the core's", function()
    local words = {}
    for i, one in ipairs(model.aliases["mjhook.State"].words) do
      words[i] = one.word
    end
    assert.same(core.states, words)
  end)

  describe("of functions", function()
    it("are there for each public function, and for no other", function()
      local t = testing.new()
      local things = {
        ["mjhook"] = mjhook, ["mjhook.testing"] = testing, ["mjhook.Instance"] = getmetatable(t.mj).__index,
        ["mjhook.testing.Kit"] = getmetatable(t).__index,
        ["mjhook.testing.Provider"] = getmetatable(t.provider).__index,
      }
      t:close()
      for name, thing in pairs(things) do
        local functions = model.classes[name].functions
        for key, value in pairs(thing) do
          if type(value) == "function" and not key:find "^__" then
            local described = functions[key] and functions[key].text ~= ""
            assert.is_truthy(described, ("%s.%s has no annotation"):format(name, key))
          end
        end
        for _, f in ipairs(functions) do
          assert.is_function(thing[f.name], f.name)
        end
      end
    end)

    it("name the parameters that the functions have", function()
      local n, owners = 0, { M = true, Mjhook = true, Kit = true, Provider = true }
      for _, name in ipairs(annotations.PUBLIC) do
        for line in io.lines(("%s/lua/%s.lua"):format(kit.root, name:gsub("%.", "/"))) do
          local owner, key, params = line:match "^function ([%w_]+)[.:]([%w_]+)%((.-)%)"
          local found = not owners[owner] or key:find "^__" ~= nil
          for _, class in ipairs(owner and model.classes or {}) do
            local f = class.functions[key]
            if f and f.at == line then
              found = found or f.text ~= ""
              local names = {}
              for i, p in ipairs(f.params) do
                names[i] = p.name
              end
              assert.equal(params, table.concat(names, ", "), ("%s.%s"):format(name, key))
              n = n + 1
            end
          end
          assert.is_truthy(not line:find "^function" or found, ("%s: %s has no annotation"):format(name, line))
        end
      end
      assert.is_truthy(n > 50)
    end)

    -- A call with this one field in its table; a bad value is said to be bad, and an unknown field to be unknown.
    local function said_of(name, field, before)
      local t = testing.new()
      local args = before or {}
      args[#args + 1] = { [field] = setmetatable({}, { __name = "nothing" }) }
      local ok, err = pcall(t.mj[name], t.mj, (table.unpack or unpack)(args))
      t:close()
      return not ok and tostring(err) or ""
    end

    local TAKES = { "refused", "tasks", "count", "page", "reconcile", "deliver", "events", "prune" }

    it("name the options that they take", function()
      for _, name in ipairs(TAKES) do
        local kind = model.classes["mjhook.Instance"].functions[name].params[1].type
        local fields = kind.kind == "table" and kind.fields or fields_of(kind.name)
        for key, field in pairs(fields) do
          field = type(field) == "table" and field.name or key
          assert.is_nil(said_of(name, field):find("unknown", 1, true), ("%s: %s"):format(name, said_of(name, field)))
        end
        assert.matches("unknown field 'nope'", said_of(name, "nope"))
      end
    end)

    it("name every option that the code knows", function()
      local text, n = kit.read(kit.root .. "/lua/mjhook.lua"), 0
      for name, options in text:gmatch 'check%.options%("([%w_]+)", options,%s*(%b{})' do
        n = n + 1
        for _, param in ipairs(model.classes["mjhook.Instance"].functions[name].params) do
          local kind = param.type
          if param.name == "options" then
            local known = {}
            for _, field in pairs(kind.kind == "table" and kind.fields or fields_of(kind.name)) do
              known[field.name] = true
            end
            for option in options:gmatch "([%w_]+) =" do
              assert.is_truthy(known[option], ("%s has no annotation of its option %q"):format(name, option))
            end
          end
        end
      end
      assert.equal(select(2, text:gsub("check%.options%(", "")), n)
      local listing = require "mjhook.listing"
      for class, known in pairs { ["mjhook.Filter"] = listing.FIELDS, ["mjhook.EventFilter"] = listing.EVENT_FIELDS } do
        for name in pairs(known) do
          assert.is_truthy(fields_of(class)[name], ("%s has no annotation of %q"):format(class, name))
        end
      end
    end)
  end)

  it("of what functions and handlers are given are true of each state", function()
    local seen = {}
    local t
    t = testing.new {
      on_callback = nil,
      policy = {
        on_succeeded = function(task, ctx)
          matches("task", task, { kind = "name", name = "mjhook.Task" })
          matches("ctx", ctx, { kind = "name", name = "mjhook.Context" })
          seen[#seen + 1] = ctx.type
          return { files = { { index = 0, path = "/x", sha256 = "x", bytes = 1, type = "image/png" } } }
        end,
        on_failed = function()
          return false, "not today"
        end,
        on_callback = function(_, result)
          matches("result", result, { kind = "name", name = "mjhook.Result" })
          seen[#seen + 1] = result.kind
          return "accept"
        end,
      },
    }
    kit.finally(function() t:close() end)
    local mj = t.mj
    local function submit(more)
      local args = { prompt = "a fox", user_id = "u1", context = { n = 1 } }
      for k, v in pairs(more or {}) do
        args[k] = v
      end
      return (gives("submit", mj:submit(args)))
    end
    local states = {}
    local function look()
      for task in mj:tasks() do
        matches(task.state, task, { kind = "name", name = "mjhook.Task" })
        states[task.state] = true
      end
    end
    local done = submit { key = "k", expires = 60 }
    gives("submit", mj:submit { prompt = "a fox", user_id = "u1", context = { n = 1 }, key = "k", expires = 60 })
    gives("callback", t.provider:finish(done, { meta = { width = 1 } }))
    t.provider:fail(submit(), "a banned word")
    t.provider:finish(submit(), { images = {}, image = "" }) -- a hint
    t.provider:timeout()
    local doubtful = submit()
    gives("get", mj:get(doubtful.ref))
    gives("cancel", mj:cancel(submit().ref))
    t.provider:forget(submit())
    gives("adopt", mj:adopt { task_id = "elsewhere-1" })
    gives("refresh", mj:refresh(submit().ref))
    gives("submit_many", mj:submit_many { { prompt = "x" }, { prompt = "" } })
    gives("reconcile", mj:reconcile { budget = 5 })
    gives("reconcile", mj:reconcile { dry_run = true })
    t.provider:refuse(1001)
    submit()
    submit { account = "default" }
    local uri = t.provider.requests[1].hookUrl:match "^%w+://[^/]+(.*)$"
    mj:callback { method = "POST", uri = uri, headers = {}, body = "?" }
    assert.equal(1, #gives("refused", mj:refused()))
    look()
    for _ = 1, 3 do
      t:advance(50000)
      t:drain()
    end
    gives("reconcile", mj:reconcile { budget = 5 })
    gives("resubmit", mj:resubmit(doubtful.ref))
    look()
    for event in mj:events() do
      matches("event", event, { kind = "name", name = "mjhook.Event" })
      gives("kick", mj:kick(event.event_id))
      gives("bury", mj:bury(event.event_id, "no use"))
    end
    gives("stats", mj:stats())
    gives("check", mj:check())
    gives("count", mj:count { user_id = "u1" })
    gives("page", mj:page { limit = 2 })
    gives("metrics", mj:metrics())
    gives("deliver", mj:deliver())
    gives("replay", mj:replay(done.ref))
    gives("bulk", mj:bulk("cancel", { user_id = "u1" }, { dry_run = true }))
    gives("prune", mj:prune { older_than = 1 })
    gives("find_key", mj:find_key "k")
    gives("submit", mj:submit { prompt = 7 })
    for _, state in ipairs { "succeeded", "failed", "cancelled", "queued", "pending", "ambiguous", "lost" } do
      assert.is_truthy(states[state], "no task was " .. state)
    end
    assert.is_truthy(#seen > 2)
  end)

  it("of handlers' settings name every setting, and no other", function()
    local classes = { archive = "ArchiveSettings", webhook = "WebhookSettings", exec = "ExecSettings",
                      redis = "RedisSettings" }
    for name, class in pairs(classes) do
      local path = ("lua/mjhook/handlers/%s.lua"):format(name)
      local fields, known = fields_of("mjhook.handlers." .. class), {}
      for _, setting in ipairs(names_in(path, name == "exec" and "local OPTIONS =" or "local KNOWN =")) do
        assert.is_truthy(fields[setting], ("mjhook.handlers.%s has no annotation of %q"):format(class, setting))
        known[setting] = true
      end
      for setting in pairs(fields) do
        assert.is_truthy(known[setting], ("mjhook.handlers.%s has no setting %q"):format(name, setting))
      end
    end
  end)
end)
