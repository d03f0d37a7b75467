--- Downloads a task's images into a directory, before the provider's URLs expire.
---
---     on_succeeded = require "mjhook.handlers.archive" { dir = "/var/lib/mjhook-images" }
---
--- The grid is stored as DIR/DAY/REF-0.png and `images[n]` as DIR/DAY/REF-n.png. The extension follows from the first
--- bytes of the image: png, jpg, webp or gif. DAY is the day on which the task was created (UTC), such as 2026-05-04.
--- The task's record, and the handlers after this one, get
---
---     files = { { index = 0, path = "...", sha256 = "...", bytes = 123, type = "image/png" }, ... }
---
--- An image URL is not trusted. The archive uses only https on port 443, no redirect and no proxy, and it connects only
--- to public addresses, whatever the name resolves to. A file under its final name is complete and on disk. An
--- interrupted download continues where it stopped; complete files are not downloaded again.
---
--- A URL that may not be fetched, an image that is too large, and one that is gone (410) cannot succeed later: when
--- nothing else is missing, the event is buried. Every other failure is tried again, not before the server's
--- `Retry-After` (at most a day). When only time was lacking, the next try follows after 5 seconds.

local core = require "mjhook.core"
local event = require "mjhook.handlers.event"
local settings = require "mjhook.handlers.settings"

local KNOWN = {
  dir = "string", mode = "string", max_bytes = "number", connections = "number", timeout = "number", hosts = "strings",
  ca_file = "string",
  -- For mjhook dev and tests: a URL can then reach this machine's own services.
  loopback = "boolean",
}
local MAX_BYTES = 64 * 1048576   -- a grid is a few MiB
local MAX_CONNECTIONS = 64
local TYPES = { png = "image/png", jpg = "image/jpeg", webp = "image/webp", gif = "image/gif" }
local GO_ON_S = 5                -- till the next try, when this one only lacked time
local HOPELESS = { url = true, address = true, size = true }

local function whole(name, value, most)
  if value and not (value >= 1 and value <= most and value == math.floor(value)) then
    return nil, ("%s: a whole number from 1 to %.0f expected"):format(name, most)
  end
  return true
end

local function check(given)
  local ok, why = settings.check(given, KNOWN)
  if not ok then
    return nil, why
  elseif not (given.dir or ""):match "^/" then
    return nil, "dir: an absolute path expected"
  elseif given.mode and not given.mode:match "^0?[0-7][0-7][0-7]$" then
    return nil, "mode: as for chmod expected, such as \"0640\""
  end
  ok, why = settings.seconds("timeout", given.timeout)
  if ok then
    ok, why = whole("max_bytes", given.max_bytes, 2 ^ 53)
  end
  if ok then
    ok, why = whole("connections", given.connections, MAX_CONNECTIONS)
  end
  return ok, why
end

-- The images by index. One that is named twice is fetched once.
local function images(task)
  local list, by_url = {}, {}
  local function add(index, url)
    list[#list + 1] = { index = index, url = url, name = ("%s-%d"):format(task.ref, index), same = by_url[url] }
    by_url[url] = by_url[url] or list[#list]
  end
  if task.image then
    add(0, task.image)
  end
  for i, url in ipairs(task.images or {}) do
    add(i, url)
  end
  return list
end

local function kept(image, place, ext, sha, bytes)
  image.file = { path = ("%s/%s.%s"):format(place.path, image.name, ext), sha256 = sha, bytes = bytes,
                 type = TYPES[ext] }
end

-- What an earlier try has brought home.
local function look(image, place)
  for ext in pairs(TYPES) do
    local sha, bytes = place.downloads:hash(image.name .. "." .. ext)
    if sha then
      return kept(image, place, ext, sha, bytes)
    end
  end
end

-- One download's end: the image's file, or why there is none.
local function settle(image, place, i, got)
  if got.outcome == "done" then
    local sha, bytes = place.downloads:keep(i, image.name .. "." .. got.ext)
    if sha then
      return kept(image, place, got.ext, sha, bytes)
    end
    image.why = bytes.message
    return
  elseif got.outcome ~= "net" and got.outcome ~= "time" and got.outcome ~= "disk" then
    place.downloads:drop(i) -- what came, if anything, is nothing to go on from
  end
  image.why = got.error
  image.hopeless = HOPELESS[got.outcome] or got.status == 410
  image.not_before = got.retry_after
  image.goes_on = got.outcome == "time" and got.received > 0
end

local function download(list, place, deadline)
  local running = {}
  for _, image in ipairs(list) do
    if not image.same then
      look(image, place)
    end
    if not image.same and not image.file then
      local i, err = place.downloads:add(image.name, image.url)
      if i then
        running[i] = image
      else
        image.why = err.message
      end
    end
  end
  while true do
    local i, got = place.downloads:next(deadline)
    if not i then
      break
    end
    settle(running[i], place, i, got)
  end
  return place.downloads:sync()
end

-- What the handler returns.
local function report(list)
  local files, missing, how = {}, {}, { bury = true }
  for _, image in ipairs(list) do
    local source = image.same or image
    if source.file then
      local file = { index = image.index }
      for name, value in pairs(source.file) do
        file[name] = value
      end
      files[#files + 1] = file
    elseif not image.same then
      missing[#missing + 1] = ("image %d: %s"):format(image.index, image.why)
      how.bury = how.bury and image.hopeless or nil
      how.not_before = image.not_before and math.max(how.not_before or 0, image.not_before) or how.not_before
      how.retry_after = image.goes_on and GO_ON_S or how.retry_after
    end
  end
  if #missing == 0 then
    return { files = files }
  end
  return false, ("archive: %d of %d kept; %s"):format(#files, #list, table.concat(missing, "; ")),
    { bury = how.bury, not_before = how.not_before, retry_after = not how.not_before and how.retry_after or nil }
end

---@param given mjhook.handlers.ArchiveSettings
---@return mjhook.Handler
return function(given)
  local ok, why = check(given)
  if not ok then
    error("mjhook.handlers.archive: " .. why, 2)
  end
  local dir = given.dir:gsub("(.)/+$", "%1")
  return function(task, ctx)
    local list = images(task)
    if ctx.type ~= "succeeded" or #list == 0 then
      return true
    end
    local place = { day = os.date("!%Y-%m-%d", math.floor(task.created_at / 1000)) }
    place.path = dir .. "/" .. place.day
    local err
    place.downloads, err = core.fetch {
      dir = dir, sub = place.day, mode = tonumber(given.mode or "0600", 8), max_bytes = given.max_bytes or MAX_BYTES,
      connections = given.connections, hosts = given.hosts, ca_file = given.ca_file, loopback = given.loopback,
    }
    if not place.downloads then
      return false, "archive: " .. err.message
    end
    ok, err = download(list, place, event.deadline(ctx, given.timeout))
    place.downloads:close()
    if not ok then
      return false, "archive: " .. err.message
    end
    return report(list)
  end
end
