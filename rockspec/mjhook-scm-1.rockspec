rockspec_format = "3.0"
package = "mjhook"
version = "scm-1"
source = { url = "git+file://." } -- "luarocks make" in a checkout
description = {
  summary = "Midjourney API jobs made dependable",
  detailed = [[
A C module and a cron reconciler: each job is in LMDB before anything is sent,
callbacks are acknowledged when they are on disk, polling finds what was missed,
and no job is billed twice. For Lua 5.4 and OpenResty (LuaJIT), on Linux.]],
  homepage = "https://github.com/mjhook/mjhook",
  issues_url = "https://github.com/mjhook/mjhook/issues",
  maintainer = "mjhook authors",
  license = "MIT",
  labels = { "midjourney", "webhook", "queue", "openresty", "lmdb", "cron" },
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.1, < 5.6, ~= 5.2", -- 5.1 means LuaJIT: the Makefile refuses plain Lua 5.1
  "lua-cjson >= 2.1",
}
-- By their libraries, which LuaRocks finds also where a system keeps them by
-- architecture; headers elsewhere: luarocks make CURL_INCDIR=...
external_dependencies = {
  CURL = { library = "curl" },
  LMDB = { library = "lmdb" },
  CRYPTO = { library = "crypto" },
  ZLIB = { library = "z" },
}
-- The Makefile knows how; both passes get the same variables, or the second
-- would build again with other flags.
build = {
  type = "make",
  variables = {
    LUA = "$(LUA)", -- the Makefile asks it for its version
    LUA_DIR = "$(LUA_DIR)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    CFLAGS = "$(CFLAGS)",
    CURL_INCDIR = "$(CURL_INCDIR)",
    CURL_LIBDIR = "$(CURL_LIBDIR)",
    LMDB_INCDIR = "$(LMDB_INCDIR)",
    LMDB_LIBDIR = "$(LMDB_LIBDIR)",
    CRYPTO_INCDIR = "$(CRYPTO_INCDIR)",
    CRYPTO_LIBDIR = "$(CRYPTO_LIBDIR)",
    ZLIB_INCDIR = "$(ZLIB_INCDIR)",
    ZLIB_LIBDIR = "$(ZLIB_LIBDIR)",
    PREFIX = "$(PREFIX)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    BINDIR = "$(BINDIR)",
    POSTGRES = "0", -- a rock of its own: mjhook-postgresql
  },
}
-- "luarocks test rockspec/mjhook-scm-1.rockspec" in a checkout: both Luas, on Debian with what it installs.
test = {
  type = "command",
  command = "make test",
}
