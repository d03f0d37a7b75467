-- What LDoc reads instead of the sources: comments in its own syntax, made of the annotations.
local tables = require "tables"

local M = {}

local function words(text)
  return (text:gsub("\n", "\n-- "))
end

local function kind(model, text)
  return ("<code>%s</code>"):format(tables.link(model, text, "../"))
end

local function describe(model, f, out, level)
  local text = f.text:gsub("^%s+", "")
  if text == "" and f.name then
    text = f.name
  end
  out[#out + 1] = "--- " .. words(text)
  if level then
    out[#out + 1] = "-- @function " .. level
  end
  for _, p in ipairs(f.params) do
    local optional = p.optional and "[opt]" or ""
    out[#out + 1] = ("-- @param%s %s %s %s"):format(optional, p.name, kind(model, p.type.text), p.text)
  end
  for _, r in ipairs(f.described) do
    local name, more = r.text:match "^([%a_][%w_]*)%s*(.*)$"
    local said = name and ("<em>%s</em>%s"):format(name, more ~= "" and ": " .. more or "") or r.text
    out[#out + 1] = ("-- @return %s %s"):format(kind(model, r.type.text), said)
  end
  out[#out + 1] = ""
end

local function class_of(model, value)
  return value and value.kind == "name" and model.classes[value.name]
end

local function functions(model, class, prefix, out)
  for _, f in ipairs(class.functions) do
    if not f.name:find "^__" then
      describe(model, f, out, f.method and prefix .. ":" .. f.name or f.name)
    end
  end
end

--- The text of a file for LDoc.
function M.of(model, module)
  local out = { "--- " .. words(module.text:gsub("^%-*%s*", "")), "-- @module " .. module.name, "" }
  local class = class_of(model, module.value)
  if not class then
    describe(model, module.value, out, (module.name:match "[^.]*$"))
    return table.concat(out, "\n")
  end
  functions(model, class, "", out)
  for _, other in ipairs(model.classes) do
    local mine = other.name:match "^(.*)%.[%w_]+$" == module.name
    if mine and #other.functions > 0 and not model.modules[other.name] then
      local short = module.name == "mjhook" and "mj" or other.name:match "%w+$":lower()
      out[#out + 1] = "--- " .. words(other.text ~= "" and other.text or other.name)
      out[#out + 1] = "-- @section " .. short .. "\n"
      functions(model, other, short, out)
    end
  end
  return table.concat(out, "\n")
end

return M
