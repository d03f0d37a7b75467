-- For busted's --helper: the collector never rests, and each of its steps is as long as it can be. An object that C
-- still uses and no Lua value holds is freed at the next allocation, and the sanitizer names it.
local jit = rawget(_G, "jit")
collectgarbage("setpause", 0)
-- LuaJIT: 0 is a whole cycle in each step. Lua 5.4 keeps a byte: 1000 is what its manual allows.
collectgarbage("setstepmul", jit and 0 or 1000)
if not jit then
  -- A step after every 2^4 bytes, not after every 2^13.
  collectgarbage("incremental", 0, 1000, 4)
  collectgarbage("setpause", 0)
end
