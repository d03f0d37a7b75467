-- For busted's --helper: the collector never rests, and goes through the whole heap again and again. An object that C
-- still uses and no Lua value holds is freed soon, and the sanitizer names it.
local jit = rawget(_G, "jit")
collectgarbage("setpause", 0)
if jit then
  -- 100 KB of work for each KB that is allocated; without a limit (0) a spec takes minutes.
  collectgarbage("setstepmul", 10000)
else
  -- The most that Lua 5.4 keeps, in steps of 1 KB, not of 8 KB.
  collectgarbage("incremental", 0, 1000, 10)
end
