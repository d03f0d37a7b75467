--- A file's lines, whatever it holds: a line of a gigabyte takes no gigabyte.
local M = {}

local BLOCK = 65536
M.LONGEST = 1024 * 1024 -- a job at all of its limits, every character of it escaped, is half as long

--- Goes through the lines: each one's number and text (nil: longer than LONGEST). Raises when it can't be read.
-- @treturn function iterator
-- @treturn function how many bytes were read so far
function M.each(file)
  local block, at, number, bytes, ended = "", 1, 0, 0, false
  local function more()
    local read, why = file:read(BLOCK)
    if why then
      error(why, 0)
    end
    ended = not read
    block, at = block:sub(at) .. (read or ""), 1
    bytes = bytes + (read and #read or 0)
  end
  local function next_line()
    local long, from = false, at
    while true do
      local stop = block:find("\n", from, true)
      if stop or (ended and (long or at <= #block)) then
        local line = block:sub(at, (stop or #block + 1) - 1)
        at = (stop or #block) + 1
        number = number + 1
        return number, not long and #line <= M.LONGEST and line or nil
      elseif ended then
        return nil
      end
      if #block - at >= M.LONGEST then
        long, at = true, #block + 1 -- the rest of it is passed over
      end
      from = #block - at + 2
      more()
    end
  end
  return next_line, function()
    return bytes
  end
end

return M
