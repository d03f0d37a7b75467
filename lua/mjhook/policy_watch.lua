--- A policy's file and the modules beside it, watched: processes that live on take an edited policy over without a
-- restart.
local beside = require "mjhook.beside"
local core = require "mjhook.core"

local M = {}

local LOOK_MS = 500    -- between two looks: a look is a stat()
local SETTLED_MS = 200 -- a file that was written a moment ago may be half of what it will be

local Watch = {}
Watch.__index = Watch

-- What tells one content of a file from another, and decides whether it is trusted; and when it was written (ms). Nil:
-- it can't be looked at.
local function stamp_of(path)
  local st, above = core.stat(path), core.stat(path:match "^(.*/)[^/]*$" or ".")
  if not (st and above) then
    return nil
  end
  return ("%.0f %.0f %.3f %.0f %o %.0f %o"):format(st.size, st.inode, st.mtime, st.uid, st.mode, above.uid, above.mode),
    st.mtime
end

-- The stamps of all files by path, and of the file that was written last: its time (ms). A file that can't be looked at
-- is "gone".
local function stamps_of(path)
  local stamps, last = {}, 0
  for _, file in ipairs(beside.files(path)) do
    local stamp, written_at = stamp_of(file)
    stamps[file] = stamp or "gone"
    last = math.max(last, written_at or 0)
  end
  return stamps, last
end

-- A file whose stamp is another one; nil when none is. Files that only `now` has do not count.
local function difference(before, now)
  for file, stamp in pairs(before or {}) do
    if now[file] and now[file] ~= stamp then
      return file
    end
  end
end

--- @tparam string path of the file
-- @tparam function load gives what is to be taken over, or nil and an error
-- @treturn table watch
function M.new(path, load)
  return setmetatable({ path = path, load = load, stamps = stamps_of(path), look_at = core.clock() + LOOK_MS }, Watch)
end

-- The file whose change is worth a try, since nothing has been written for a moment; and all stamps.
local function changed(self)
  local stamps, written_at = stamps_of(self.path)
  local file = difference(self.stamps, stamps)
  if not file then
    self.seen = nil
    return nil
  elseif math.abs(core.now() - written_at) < SETTLED_MS and (not self.seen or difference(self.seen, stamps)) then
    self.seen = stamps
    return nil
  end
  return file, stamps
end

--- Loads the file anew if it has changed since it was last looked at, at most twice in a second.
-- @return what was loaded; nil when nothing is new
-- @treturn table|nil an error: it changed and can't be loaded. Told once for each change
-- @treturn string|nil the file that has changed: this one, or a module beside it
function Watch:poll()
  local now = core.clock()
  if now < self.look_at then
    return nil
  end
  self.look_at = now + LOOK_MS
  local file, stamps = changed(self)
  if not file or (self.tried and not difference(self.tried, stamps)) then
    return nil -- nothing is new, or it was told
  end
  local loaded, err = beside.anew(self.path, self.load)
  for path, stamp in pairs(stamps_of(self.path)) do
    stamps[path] = stamps[path] or stamp -- of modules that are required since now
  end
  if loaded then
    self.stamps, self.tried = stamps, nil
  elseif not err.retryable then -- a file that can't be read now may be readable at the next look
    self.tried = stamps
  end
  return loaded, err, file
end

return M
