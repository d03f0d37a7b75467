-- A policy: keeps every image on this machine, and a page to look at them.
--
-- GALLERY is a directory; images, their checksums and a page for each job go there, under names made of the job's ref,
-- and index.html gets a line for each. Point a web server at it. The provider's own addresses expire.
local archive = require "mjhook.handlers.archive"

local DIR = assert(os.getenv "GALLERY", "GALLERY is not set: the directory for the images")
local keep = archive { dir = DIR }

local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(text)
  return (tostring(text or ""):gsub('[&<>"]', ENTITIES))
end

-- Whole or not at all: written beside and renamed.
local function write(path, text)
  local file = assert(io.open(path .. ".new", "w"))
  assert(file:write(text))
  assert(file:close())
  assert(os.rename(path .. ".new", path))
end

local function page(task, files)
  local lines = { "<!doctype html><meta charset=utf-8><title>", escape(task.prompt), "</title>\n<p>",
                  escape(task.mj_prompt or task.prompt), "</p>\n" }
  for _, file in ipairs(files) do
    lines[#lines + 1] = ('<img src="%s" loading=lazy>\n'):format(escape(file.path:sub(#DIR + 2)))
  end
  return table.concat(lines)
end

local function exists(path)
  local file = io.open(path)
  return file and file:close()
end

return {
  on_succeeded = function(task, ctx)
    local kept, why, how = keep(task, ctx)
    if not kept then
      return kept, why, how
    end
    local name = task.ref .. ".html"
    if not exists(DIR .. "/" .. name) then -- the second time that the event comes, the line is there already
      local index = assert(io.open(DIR .. "/index.html", "a"))
      assert(index:write(('<p><a href="%s">%s</a></p>\n'):format(name, escape(task.prompt))))
      assert(index:close())
    end
    write(DIR .. "/" .. name, page(task, type(kept) == "table" and kept.files or {}))
    return kept
  end,
}
