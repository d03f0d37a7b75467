-- A policy: keeps every image on this machine, and a page a day to look at them.
--
-- GALLERY is a directory for a web server to serve: index.html there names the days, DAY/index.html shows what was made
-- on one, the image files lie beside it. The provider's own addresses expire.
local archive = require "mjhook.handlers.archive"

local DIR = assert(os.getenv "GALLERY", "GALLERY is not set: the directory for the images")
local keep = archive { dir = DIR, mode = "0644" }

local HEAD = "<!doctype html>\n<meta charset=utf-8>\n<title>%s</title>\n<style>img { max-width: 24%% }</style>\n"
local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }

local function escape(text)
  return (tostring(text):gsub('[&<>"]', ENTITIES))
end

-- Adds a line to a page, unless one with this mark is there: an event may come twice. Begins the page when it is new.
local function add(path, title, mark, line)
  local file = assert(io.open(path, "a+"))
  local page = file:read "*a"
  if not page:find(mark, 1, true) then
    file:setvbuf "no" -- one write, so that the lines of two deliveries don't mix
    assert(file:write((page == "" and HEAD:format(title) or "") .. line .. "\n"))
  end
  assert(file:close())
end

local function figure(task, files)
  local images = {}
  for i, file in ipairs(files) do
    images[i] = ('<img src="%s" loading=lazy>'):format(escape(file.path:match "[^/]+$"))
  end
  local words = escape(task.mj_prompt or task.prompt or ""):gsub("%c", " ")
  return ('<figure id="%s">%s<figcaption>%s</figcaption></figure>'):format(task.ref, table.concat(images), words)
end

return {
  on_succeeded = function(task, ctx)
    local kept, why, how = keep(task, ctx)
    if type(kept) == "table" then -- else there was nothing to keep, or not all is there yet
      local day = kept.files[1].path:match "([^/]+)/[^/]+$"
      add(("%s/%s/index.html"):format(DIR, day), day, ('id="%s"'):format(task.ref), figure(task, kept.files))
      add(DIR .. "/index.html", "Gallery", ('"%s/"'):format(day), ('<p><a href="%s/">%s</a></p>'):format(day, day))
    end
    return kept, why, how
  end,
}
