-- Which libraries run here? What was compiled against one version may be started with another.
local cjson = require "cjson"
local core = require "mjhook.core"

local CURL_MAJOR, CURL_MINOR = 7, 87 -- src/net/http.c says why

return function(_, report)
  local loaded, err = core.need_curl()
  local libraries = core.libraries()
  local version = libraries.curl or ""
  local major, minor = version:match "^libcurl/(%d+)%.(%d+)"
  major, minor = tonumber(major), tonumber(minor)
  local shown = version:match "^%S+ %S+" or version -- with the library that does its TLS
  if not loaded then
    report:fail("libraries.libcurl", err.message, "mjhook/curl.so belongs beside mjhook/core.so: install both again")
  elseif not major or major < CURL_MAJOR or (major == CURL_MAJOR and minor < CURL_MINOR) then
    report:fail("libraries.libcurl", ("%s: mjhook needs %d.%d or newer"):format(shown, CURL_MAJOR, CURL_MINOR),
      "install a newer libcurl; is an old one in LD_LIBRARY_PATH?")
  else
    report:ok("libraries.libcurl", shown)
  end
  report:ok("libraries.lmdb", libraries.lmdb)
  report:ok("libraries.cjson", "lua-cjson " .. tostring(cjson._VERSION))
  report:ok("libraries.lua", ("%s, mjhook %s"):format(jit and jit.version or _VERSION, core.version))
end
