-- What the provider says, read the slow and simple way: a model of src/provider/reader.c for specs to compare it with.
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

local function encoded(url)
  local out = {}
  for i = 1, #url do
    local c = url:sub(i, i)
    local keep = c:find "[\33-\126]" and (c ~= "%" or url:find("^%%%x%x", i))
    out[i] = keep and c or ("%%%02X"):format(c:byte())
  end
  return table.concat(out)
end

local function mended(url)
  local scheme, rest = url:match "^([hH][tT][tT][pP][sS]?://)(.+)$"
  local host = rest and rest:match "^[^/?#]*"
  if not host or host == "" or host:find "^:" or host:find "[@ ]" or url:find '[%c"<>\\]' or
    slow.cleaned(host, #host) ~= host then
    return nil
  end
  local out = scheme:lower() .. encoded((rest:gsub(" +$", "")))
  return #out <= MAX.url and out or nil
end

local function is_there(value)
  return value ~= nil and value ~= cjson.null
end

local function address(value, count)
  if not is_there(value) or value == "" then
    return nil
  end
  if type(value) == "table" then
    value = value.url
  end
  count.given = count.given + 1
  local url = type(value) == "string" and mended(value) or nil
  count.unusable = count.unusable + (url and 0 or 1)
  return url
end

-- A list of URLs, an object whose members are some (cjson forgets their order), or a single one.
local function images(list, count)
  local out = {}
  if type(list) == "string" or type(list) == "table" and is_there(list.url) then
    out[1] = address(list, count)
  elseif type(list) == "table" then
    local members = {}
    for _, value in pairs(#list == 0 and list or {}) do
      members[#members + 1] = value
    end
    list = #list == 0 and members or list
    for i = 1, #list do
      if #out < MAX.images and i <= MAX.looked_at then
        out[#out + 1] = address(list[i], count)
      elseif is_there(list[i]) then
        count.given, count.surplus = count.given + 1, count.surplus + 1
      end
    end
  end
  return out
end

local function remark(count)
  local out = {}
  if count.unusable > 0 then
    out[1] = ("%d of %d URLs unusable"):format(count.unusable, count.given)
  end
  if count.surplus > 0 then
    out[#out + 1] = ("%d of %d URLs more than are kept"):format(count.surplus, count.given)
  end
  return out[1] and table.concat(out, ", ")
end

local KINDS = { [0] = "running", "succeeded", "failed" }
local WORDS = {
  success = 1, succeeded = 1, successful = 1, completed = 1, complete = 1, finished = 1, done = 1,
  failure = 2, failed = 2, fail = 2, error = 2, cancelled = 2, canceled = 2,
}

-- A status's number, and whether it was a word.
local function status_of(value)
  local number = whole(value)
  if number then
    return number, false
  elseif type(value) == "string" and value:find "^%a" then
    return WORDS[value:lower()] or 0, true
  end
end

-- The id in an object; whether it was given as a number, of which cjson does not keep every digit.
local function id_of(object)
  local id = object.taskId
  if not is_there(id) then
    id = object.jobId
  end
  if type(id) == "number" then
    return id >= 0 and id % 1 == 0 and id <= MAX.whole and ("%.0f"):format(id) or nil, true
  end
  return type(id) == "string" and #id <= MAX.id and id:match "^[%w_-]+$" or nil, false
end

local function complaint(object)
  local inner = type(object.error) == "table" and object.error.message
  return text(object.message, MAX.reason) or text(inner, MAX.reason) or text(object.error, MAX.reason)
end

-- The object in a callback's data; nil: there is none, or more than one.
local function inner_of(data)
  if type(data) == "table" and #data > 0 then
    data = #data == 1 and data[1]
  end
  return type(data) == "table" and #data == 0 and data or nil
end

--- The word in a callback whose body was decoded, with meta as a table; nil: there is none. Then whether an id in it
-- was given as a number.
function slow.word(doc)
  local inner = inner_of(doc.data)
  local data = inner or {}
  local top_id, top_number = id_of(doc)
  local data_id, data_number = id_of(data)
  local bare = is_there(doc.taskId) or is_there(doc.jobId) and not is_there(data.taskId) and
    not (inner and data_id and is_there(data.status))
  local number = top_number or data_number
  if not bare and not inner then
    return nil, number
  end
  local object, beside = bare and doc or data, bare and data or doc
  local id, other = bare and top_id or not bare and data_id or nil, bare and data_id or not bare and top_id or nil
  if id and other and id ~= other then
    beside, other = {}, nil
  end
  if not id and not is_there(object.taskId) then
    id = other
  end
  local status = status_of(object.status)
  local by_word = false
  if not status then
    status, by_word = status_of(beside.status)
    local word = by_word and beside.status:lower()
    by_word = by_word and word ~= "fail" and word ~= "error" -- which beside a task are JSend's
  end
  if not id or not status or (by_word == false and not status_of(object.status)) then
    return nil, number
  end
  local count = { given = 0, unusable = 0, surplus = 0 }
  local word = { task_id = id, kind = KINDS[status] or "running", images = {} }
  for _, from in ipairs { object, beside } do
    word.image = word.image or address(from.image, count)
    word.image = word.image or address(from.cdnImage, count)
    word.images = #word.images > 0 and word.images or images(from.images, count)
    word.mj_prompt = word.mj_prompt or text(from.mjPrompt, MAX.prompt) or text(from.prompt, MAX.prompt)
    word.meta = word.meta or (type(from.meta) == "table" and from.meta or nil)
  end
  word.remark = remark(count) or nil
  if word.kind == "succeeded" and not word.image and #word.images == 0 then
    word.kind = "hint"
  elseif word.kind == "failed" then
    word.error_code = "provider"
    word.error = text(object.failReason, MAX.reason) or complaint(object) or text(beside.failReason, MAX.reason) or
      (by_word and complaint(beside)) or ""
  end
  return word, number
end

return slow
