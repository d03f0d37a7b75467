--- How many events go to one process or thread at once: many while handlers are quick, so that one commit stores what
-- became of all; one at a time while they are slow, so that none waits behind another.
local turns = require "mjhook.delivery.turn"

local M = {}

local MOST = 256   -- events at once when handlers are quick
local QUICK_MS = 5 -- a handler at most this slow on average lets their number grow

--- The next size, by the milliseconds of an event: of its handlers' own work, and with what they wait for answers. An
-- event that would wait long behind answers to others is better run by another process.
function M.grown(size, own, all)
  if own > QUICK_MS then
    return 1
  end
  return math.min(size * 2, all <= QUICK_MS and MOST or turns.WIDTH)
end

--- How many more events a process or thread takes that has some in the air, and none that waits. It asks for them.
function M.beside(size, under_way)
  return size > turns.WIDTH and size or math.max(size - under_way, 1)
end

return M
