-- Every file runs on Lua 5.4 and LuaJIT: "min" is what all Luas have in common,
-- the rest is what the code may ask for and do without.
std = "min"
read_globals = { "jit", "unpack", "setfenv", "loadstring",
  table = { fields = { "unpack", "pack", "move" } }, package = { fields = { "searchpath" } },
}
max_line_length = 120

-- Inside nginx there is ngx, and only there.
files["lua/resty"] = { std = "+ngx_lua", read_globals = { ngx = { fields = { "run_worker_thread" } } } }
files["scripts/simulator"] = { std = "+ngx_lua" }
files["scripts/examples/postcards"] = { std = "+ngx_lua" }
files["spec"] = { std = "+busted" }
files["spec/bench/callback_wrk.lua"] = { globals = { "setup", "init", "request", "done", "used" }, read_globals = { "wrk" } }
files["**/*.rockspec"] = { std = "+rockspec" }
exclude_files = { "spec/support/vendor", "build*" }
