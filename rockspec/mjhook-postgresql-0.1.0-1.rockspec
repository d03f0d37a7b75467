rockspec_format = "3.0"
package = "mjhook-postgresql"
version = "0.1.0-1"
source = {
  url = "https://github.com/mjhook/mjhook/releases/download/v0.1.0/mjhook-0.1.0.tar.gz",
  dir = "mjhook-0.1.0",
}
description = {
  summary = "Stores in PostgreSQL for mjhook, which makes Midjourney API jobs dependable",
  detailed = [[
The module that keeps mjhook's store in PostgreSQL, so that several hosts can share
it: store = "postgresql://...". For Lua 5.4 and OpenResty (LuaJIT), on Linux.]],
  homepage = "https://github.com/mjhook/mjhook",
  issues_url = "https://github.com/mjhook/mjhook/issues",
  maintainer = "mjhook authors",
  license = "MIT",
  labels = { "midjourney", "webhook", "queue", "openresty", "postgresql" },
}
supported_platforms = { "linux" }
dependencies = {
  "lua >= 5.1, < 5.6, ~= 5.2", -- 5.1 means LuaJIT: the Makefile refuses plain Lua 5.1
  "mjhook",
}
-- By their libraries, which LuaRocks finds also where a system keeps them by
-- architecture; headers elsewhere: luarocks make PQ_INCDIR=...
external_dependencies = {
  CRYPTO = { library = "crypto" },
  ZLIB = { library = "z" },
  PQ = { library = "pq" },
}
-- The Makefile knows how; both passes get the same variables, or the second
-- would build again with other flags.
build = {
  type = "make",
  build_target = "postgres",
  install_target = "install-postgres",
  variables = {
    LUA = "$(LUA)", -- the Makefile asks it for its version
    LUA_DIR = "$(LUA_DIR)",
    LUA_INCDIR = "$(LUA_INCDIR)",
    CFLAGS = "$(CFLAGS)",
    CRYPTO_INCDIR = "$(CRYPTO_INCDIR)",
    CRYPTO_LIBDIR = "$(CRYPTO_LIBDIR)",
    ZLIB_INCDIR = "$(ZLIB_INCDIR)",
    ZLIB_LIBDIR = "$(ZLIB_LIBDIR)",
    PREFIX = "$(PREFIX)",
    LUADIR = "$(LUADIR)",
    LIBDIR = "$(LIBDIR)",
    PQ_INCDIR = "$(PQ_INCDIR)",
    PQ_LIBDIR = "$(PQ_LIBDIR)",
    POSTGRES = "1",
  },
}
