-- Reads LuaCATS annotations: of classes and aliases (lua/mjhook/types.lua) and of functions (the public modules).
--
-- A type is a table: {kind = "name", name=}, {kind = "literal", value=}, {kind = "union", ...}, {kind = "list", of=},
-- {kind = "map", of=}, {kind = "fun", params=, returns=} or {kind = "table", fields=}. Each has its `text`.
local M = {}

-- ---- types ----

local Reader = {}
Reader.__index = Reader

function Reader:skip()
  self.at = self.text:match("^%s*()", self.at)
end

function Reader:take(pattern)
  self:skip()
  local found, after = self.text:match("^(" .. pattern .. ")()", self.at)
  if found then
    self.at = after
  end
  return found
end

function Reader:need(pattern)
  return self:take(pattern) or error(("%s: no type at column %d: %s"):format(self.where, self.at, self.text), 0)
end

-- Names and types, up to the closing bracket.
function Reader:fields(close)
  local list = {}
  while not self:take(close) do
    local name = self:need "[%w_]+" or self:need "%[integer%]"
    local optional = self:take "%?" ~= nil
    local kind = self:take ":" and self:type() or { kind = "name", name = "any", text = "any" }
    list[#list + 1] = { name = name, optional = optional, type = kind }
    self:take ","
  end
  return list
end

function Reader:returns()
  local list = {}
  repeat
    list[#list + 1] = self:type()
  until not self:take ","
  return list
end

function Reader:atom()
  local word = self:take '"[^"]*"'
  if word then
    return { kind = "literal", value = word:sub(2, -2) }
  elseif self:take "fun%(" then
    local params = self:fields "%)"
    return { kind = "fun", params = params, returns = self:take ":" and self:returns() or {} }
  elseif self:take "{" then
    return { kind = "table", fields = self:fields "}" }
  elseif self:take "%(" then
    local inner = self:type()
    self:need "%)"
    return inner
  elseif self:take "table<" then
    self:type()
    self:need ","
    local of = self:type()
    self:need ">"
    return { kind = "map", of = of }
  end
  return { kind = "name", name = self:need "[%a_][%w_.]*" }
end

function Reader:type()
  self:skip()
  local from = self.at
  local union = { kind = "union" }
  repeat
    local one = self:atom()
    while self.text:find("^%[%]", self.at) do
      one, self.at = { kind = "list", of = one }, self.at + 2
    end
    union[#union + 1] = one
    if self.text:find("^%?", self.at) then
      union[#union + 1], self.at = { kind = "name", name = "nil" }, self.at + 1
    end
  until not self:take "|"
  local whole = #union == 1 and union[1] or union
  whole.text = self.text:sub(from, self.at - 1):gsub("%s+$", "")
  return whole
end

--- Reads a type and gives what follows it.
function M.type(text, where)
  local reader = setmetatable({ text = text, at = 1, where = where or "?" }, Reader)
  local kind = reader:type()
  return kind, text:sub(reader.at):match "^%s*#?%s*(.-)%s*$"
end

-- ---- comments ----

local function field(class, line, where)
  local indexer, rest = line:match "^%[(%w+)%]%s+(.*)$"
  if indexer then
    class.open = M.type(rest, where)
    return
  end
  local name, optional, more = line:match "^([%w_]+)(%??)%s+(.*)$"
  local kind, words = M.type(more, where)
  local one = { name = name, optional = optional == "?", type = kind, text = words }
  class.fields[#class.fields + 1], class.fields[name] = one, one
end

local function heading(model, block)
  local text = {}
  for _, line in ipairs(block) do
    if line:find "^@" then
      break
    end
    text[#text + 1] = line
  end
  return table.concat(text, "\n"), model
end

local function class_of(model, block, name, parent)
  local class = { name = name, parent = parent ~= "" and parent or nil, fields = {}, functions = {} }
  class.text = heading(model, block)
  for _, line in ipairs(block) do
    local rest = line:match "^@field%s+(.*)$"
    if rest then
      field(class, rest, name)
    end
  end
  model.classes[#model.classes + 1], model.classes[name] = class, class
  return class
end

local function alias_of(model, block, name, rest)
  local alias = { name = name, words = {} }
  alias.text = heading(model, block)
  if rest ~= "" then
    alias.type = M.type(rest, name)
  else
    alias.type = { kind = "union", text = name }
    for _, line in ipairs(block) do
      local word, words = line:match '^|%s*"([^"]*)"%s*#%s*(.*)$'
      if word then
        alias.words[#alias.words + 1] = { word = word, text = words }
        alias.type[#alias.type + 1] = { kind = "literal", value = word }
      end
    end
  end
  model.aliases[#model.aliases + 1], model.aliases[name] = alias, alias
end

local function function_of(model, block, name)
  local f = { kind = "fun", name = name, params = {}, returns = {}, described = {} }
  f.text = heading(model, block)
  for _, line in ipairs(block) do
    local param, optional, rest = line:match "^@param%s+([%w_]+)(%??)%s+(.*)$"
    local result = line:match "^@return%s+(.*)$"
    if param then
      local kind, words = M.type(rest, name)
      f.params[#f.params + 1] = { name = param, optional = optional == "?", type = kind, text = words }
    elseif result then
      local kind, words = M.type(result, name)
      f.returns[#f.returns + 1] = kind
      f.described[#f.described + 1] = { type = kind, name = words:match "^[%a_][%w_]*", text = words }
    end
  end
  return f
end

-- What a block of comments says of the line of code behind it.
local function bind(model, block, code, state)
  local class
  for _, line in ipairs(block) do
    local name, parent = line:match "^@class%s+([%w_.]+)%s*:?%s*([%w_.]*)"
    local alias, rest = line:match "^@alias%s+([%w_.]+)%s*(.*)$"
    if name then
      class = class_of(model, block, name, parent)
    elseif alias then
      alias_of(model, block, alias, rest)
    end
  end
  local var = code:match "^local%s+([%w_]+)"
  if class and var then
    state.vars[var] = class
  end
  local owner, sign, name = code:match "^function%s+([%w_]+)([.:])([%w_]+)%("
  local of = owner and state.vars[owner]
  if of then
    local f = function_of(model, block, name)
    f.method, f.at = sign == ":", code
    of.functions[#of.functions + 1], of.functions[name] = f, f
  elseif code:find "^return function%(" then
    state.value = function_of(model, block, state.module)
  elseif code:find "^return [%w_]+$" then
    state.value = { kind = "name", name = (state.vars[code:match "^return ([%w_]+)$"] or {}).name }
  end
end

--- Reads a file's annotations into the model: classes, aliases, modules (type of what `require` gives, by name).
function M.read(model, path, module)
  local state, block = { vars = {}, module = module }, {}
  local head
  for line in io.lines(path) do
    local comment = line:match "^%-%-%-%s?(.*)$"
    if comment and comment:find "^[^@|%s]" and (block[#block] or ""):find "^@" then
      block[#block] = block[#block] .. " " .. comment -- a tag that goes on
    elseif comment then
      block[#block + 1] = comment
    else
      bind(model, block, line, state)
      head = head or (#block > 0 and table.concat(block, "\n"))
      block = {}
    end
  end
  bind(model, block, "", state)
  if module then
    model.modules[#model.modules + 1] = { name = module, path = path, text = head, value = state.value }
    model.modules[module] = state.value
  end
end

M.PUBLIC = {
  "mjhook", "resty.mjhook", "mjhook.testing", "mjhook.handlers.archive", "mjhook.handlers.webhook",
  "mjhook.handlers.exec", "mjhook.handlers.redis",
}

--- The whole public API, read from a source tree.
function M.load(root)
  local model = { classes = {}, aliases = {}, modules = {} }
  M.read(model, root .. "/lua/mjhook/types.lua")
  for _, name in ipairs(M.PUBLIC) do
    M.read(model, ("%s/lua/%s.lua"):format(root, name:gsub("%.", "/")), name)
  end
  return model
end

return M
