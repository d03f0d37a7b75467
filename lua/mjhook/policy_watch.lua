--- A policy's file, watched: processes that live on take an edited policy over without a restart.
local core = require "mjhook.core"

local M = {}

local LOOK_MS = 500    -- between two looks: a look is a stat()
local SETTLED_MS = 200 -- a file that was written a moment ago may be half of what it will be

local Watch = {}
Watch.__index = Watch

-- What tells one content of a file from another, and when it was written (ms); nil: it can't be looked at.
local function stamp_of(path)
  local st = core.stat(path)
  return st and ("%.0f %.0f %.3f"):format(st.size, st.inode, st.mtime) or nil, st and st.mtime
end

--- @tparam string path of the file
-- @tparam function load gives what is to be taken over, or nil and an error
-- @treturn table watch
function M.new(path, load)
  return setmetatable({ path = path, load = load, stamp = stamp_of(path), look_at = core.clock() + LOOK_MS }, Watch)
end

-- The stamp of a change that is worth a try: nothing has been written for a moment.
local function changed(self)
  local stamp, written_at = stamp_of(self.path)
  if stamp == self.stamp then
    self.seen = nil
    return nil
  elseif stamp and math.abs(core.now() - written_at) < SETTLED_MS and self.seen ~= stamp then
    self.seen = stamp
    return nil
  end
  return stamp or "gone"
end

--- Loads the file anew if it has changed since it was last looked at, at most twice in a second.
-- @return what was loaded; nil when nothing is new
-- @treturn table|nil an error: it changed and can't be loaded. Told once for each change
function Watch:poll()
  local now = core.clock()
  if now < self.look_at then
    return nil
  end
  self.look_at = now + LOOK_MS
  local stamp = changed(self)
  if not stamp then
    return nil
  elseif self.tried == stamp then
    return nil -- it was told
  end
  local loaded, err = self.load()
  if loaded then
    self.stamp, self.tried = stamp, nil
  elseif not err.retryable then -- a file that can't be read now may be readable at the next look
    self.tried = stamp
  end
  return loaded, err
end

return M
