--- Lua files that decide something, configuration and policy: read only if no other user can have written them, and
-- compiled without quoting their text in an error, since it may be a secret.
local core = require "mjhook.core"
local memory = require "mjhook.memory"

local M = {}

-- Reserved words and signs, which a message may quote.  A name or a literal is the user's own.
local QUOTABLE = { ["<eof>"] = true, ["<name>"] = true, ["<goto>"] = true, ["..."] = true }
for word in ([[and break do else elseif end false for function goto if in local nil not or repeat return then true until
    while]]):gmatch "%a+" do
  QUOTABLE[word] = true
end

local function quoted(word)
  return (QUOTABLE[word] or word:find "^%p%p?$") and ("'%s'"):format(word) or "a name"
end

-- Where a compiler's error is, and of what kind: "3: '}' expected (to close '{' at line 1)".
local function place_and_kind(message)
  local line, kind = message:match "^x:(%d+): (.*)$"
  if not line then
    return "1: not a Lua text"
  end
  return line .. ": " .. kind:gsub(" near .*$", ""):gsub("'([^']*)'", quoted)
end

--- Compiles a file's text.
-- @tparam string text
-- @tparam string path for messages
-- @tparam[opt] table env its globals
-- @treturn function|nil chunk; nil and an error, which names file and line
function M.compile(text, path, env)
  text = text:gsub("^\239\187\191", ""):gsub("^#[^\n]*", "") -- a BOM and a first line for the shell, as loadfile() does
  local chunk, wrong = load(text, "@" .. path, "bt", env or _G)
  if chunk then
    return chunk
  end
  local fine, why = load(text, "=x", "bt") -- so that the place is found, whatever the path looks like
  if fine or memory.is_out(wrong) or memory.is_out(why) then
    return nil, memory.OUT
  end
  return nil, core.error("config", ("%s:%s"):format(path, place_and_kind(tostring(why))))
end

--- Reads a file that only root or the caller can have written.
-- @treturn string|nil text; nil and an error
function M.read(path)
  return core.read_file(path, "code")
end

--- Reads and compiles such a file.
-- @treturn function|nil chunk; nil and an error
function M.load(path)
  local text, err = M.read(path)
  if not text then
    return nil, err
  end
  return M.compile(text, path)
end

--- What a file's code raised, as one line, without what Lua quotes of the code: a constant or a key may be a secret.
-- Of a module that is not found its name is told, not each place where Lua looked.
function M.raised(err)
  local text = tostring(err):gsub("(module '[^\n]*' not found):\n.*", "%1"):gsub(":\n%s*", ": ", 1):match "^[^\n]*"
  for _, kind in ipairs { "constant", "field", "method" } do
    text = text:gsub(kind .. " '[^\n]*'", "a " .. kind)
  end
  return text
end

return M
