-- What the provider says, read the slow and simple way: a model of src/mj_wire.c for specs to compare it with.
local cjson = require "cjson"

local slow = {}

local MAX = { id = 256, url = 4096, prompt = 10000, reason = 500, images = 16, looked_at = 64, whole = 2 ^ 53 }

-- Well-formed UTF-8 (Unicode, table 3-7): patterns of one character that may be kept.
local CHARACTERS = {
  "^[\n\t\32-\126]", "^[\194-\223][\128-\191]", "^\224[\160-\191][\128-\191]",
  "^[\225-\236\238\239][\128-\191][\128-\191]", "^\237[\128-\159][\128-\191]",
  "^\240[\144-\191][\128-\191][\128-\191]", "^[\241-\243][\128-\191][\128-\191][\128-\191]",
  "^\244[\128-\143][\128-\191][\128-\191]",
}

local function good(text, from)
  for _, pattern in ipairs(CHARACTERS) do
    local found = text:sub(from, from + 3):match(pattern)
    if found then
      return found
    end
  end
end

--- At most max bytes of text, a character at a time, with ? for each byte that may not be kept.
function slow.cleaned(text, max)
  local out, length, at = {}, 0, 1
  while at <= #text do
    local character = good(text, at)
    local kept = character or "?"
    if length + #kept > max then
      break
    end
    out[#out + 1] = kept
    length, at = length + #kept, at + (character and #character or 1)
  end
  return table.concat(out)
end

--- lua-cjson, as near to RFC 8259 as it can be made.
function slow.json()
  local json = cjson.new()
  json.decode_invalid_numbers(false)
  json.decode_max_depth(24)
  return json
end

local function text(value, max)
  return type(value) == "string" and value ~= "" and slow.cleaned(value, max) or nil
end

local function whole(value)
  if type(value) == "string" then
    value = value:match "^%-?%d+$" and #value:match "%d+" <= 16 and tonumber(value)
  end
  return type(value) == "number" and value % 1 == 0 and math.abs(value) <= MAX.whole and value or nil
end

local function address(value)
  if type(value) == "table" then
    value = value.url
  end
  return type(value) == "string" and #value <= MAX.url and value:match "^https?://." and
    not value:find '[^\33-\126]' and not value:find '["<>\\]' and value or nil
end

local function images(list)
  local out = {}
  if type(list) == "table" then
    for i = 1, math.min(#list, MAX.looked_at) do
      if #out < MAX.images then
        out[#out + 1] = address(list[i])
      end
    end
  end
  return out
end

local KINDS = { "succeeded", "failed" }

--- The word in a callback whose body was decoded, with meta as a table; nil: there is none.
function slow.word(doc)
  local object = doc.taskId ~= nil and doc.taskId ~= cjson.null and doc or doc.data
  if type(object) == "table" and #object > 0 then
    object = #object == 1 and object[1]
  end
  if type(object) ~= "table" then
    return nil
  end
  local id, status = object.taskId, whole(object.status)
  if type(id) ~= "string" or #id > MAX.id or not id:match "^[%w_-]+$" or not status then
    return nil
  end
  local word = {
    task_id = id, kind = KINDS[status] or "running", image = address(object.image), images = images(object.images),
    mj_prompt = text(object.mjPrompt, MAX.prompt) or text(object.prompt, MAX.prompt),
    meta = type(object.meta) == "table" and object.meta or nil,
  }
  if word.kind == "succeeded" and not word.image and #word.images == 0 then
    word.kind = "hint"
  elseif word.kind == "failed" then
    word.error_code, word.error = "provider", text(object.failReason, MAX.reason) or ""
  end
  return word
end

return slow
