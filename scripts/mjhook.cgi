#!/usr/bin/env -S lua5.4 -E
-- mjhook.cgi: takes the provider's callbacks behind any web server that runs CGI programs.
--
-- To deploy it, copy it (or link to it) where the server looks for CGI programs, and point hook_url there.  The URL
-- carries a token, also in its path when the "?" came escaped, so no log is to keep it.  Nor is one to grow with requests
-- that have no token:
--
--   Apache           ScriptAliasMatch "^/webhooks/midjourney" "/usr/lib/cgi-bin/mjhook.cgi"
--                    SetEnvIf Request_URI "^/webhooks/midjourney" callback
--                    CustomLog ${APACHE_LOG_DIR}/access.log combined env=!callback
--   nginx, fcgiwrap  location ^~ /webhooks/midjourney {
--                      include fastcgi_params; fastcgi_param SCRIPT_FILENAME /usr/lib/cgi-bin/mjhook.cgi;
--                      fastcgi_pass unix:/run/fcgiwrap.socket; client_max_body_size 1m;
--                      access_log off; error_log /var/log/nginx/mjhook.log emerg; }
--   busybox httpd    /srv/www/cgi-bin/mjhook.cgi
--
-- It has to run as the user that owns the store (suexec, or fcgiwrap as that user), or share it by store_mode.
-- Its modules are found beside a source tree or an installation that it lies in or links to, in LUA_PATH and LUA_CPATH
-- (only absolute names count), or in Lua's default path (which has /usr/local and /usr); the configuration is
-- $MJHOOK_CONFIG, else /etc/mjhook/config.lua.  A request's header can set none of these: what headers become begins
-- with HTTP_.  -E: the interpreter takes nothing from the environment, LUA_INIT least of all.
--
-- Every callback is a process, of some 10 ms.  How long a slow client may take is the web server's to limit (Apache:
-- mod_reqtimeout), since plain Lua can't leave a read.
local REASONS = {
  [200] = "OK", [400] = "Bad Request", [401] = "Unauthorized", [405] = "Method Not Allowed",
  [411] = "Length Required", [413] = "Content Too Large", [503] = "Service Unavailable",
}
local UNAVAILABLE = { status = 503, word = "unavailable", headers = { ["Retry-After"] = "5" } }

io.stderr:setvbuf "line" -- Apache makes an entry of every write

-- A policy that prints must not spoil the answer: only send() writes to standard output.
io.output(io.stderr)
rawset(_G, "print", function(...)
  for i = 1, select("#", ...) do
    io.stderr:write(i > 1 and "\t" or "", tostring((select(i, ...))))
  end
  io.stderr:write "\n"
end)

-- To the server's error log: one line, and never anything of the request's URL.
local function complain(why)
  local line = tostring(why):match "^[^\n]*"
  local found, text = pcall(require, "mjhook.text")
  io.stderr:write("mjhook.cgi: ", found and text.clean(line) or line:gsub("[^\32-\126]", "?"), "\n")
end

local function send(reply)
  local body = reply.body or ('{"status":"%s"}\n'):format(reply.word)
  local lines = { ("Status: %d %s"):format(reply.status, REASONS[reply.status] or "Other") }
  for name, value in pairs(reply.headers or {}) do
    lines[#lines + 1] = name .. ": " .. value
  end
  if not (reply.headers or {})["Content-Type"] then
    lines[#lines + 1] = "Content-Type: application/json"
  end
  lines[#lines + 1] = "Content-Length: " .. #body
  local sent, why, number = io.stdout:write(table.concat(lines, "\r\n"), "\r\n\r\n", body)
  if sent then
    sent, why, number = io.stdout:flush()
  end
  if not sent then
    if number ~= 32 then -- EPIPE: the client is gone
      complain("standard output can't be written: " .. tostring(why))
    end
    os.exit(73)
  end
end

local version = _VERSION:match "%d+%.%d+"

local function exists(path)
  local file = io.open(path, "rb")
  if file then
    file:close()
    return true
  end
end

-- Templates with absolute names.  A relative one would load what lies in the working directory.
local function absolute(templates)
  local kept = {}
  for template in templates:gmatch "[^;]+" do
    if template:sub(1, 1) == "/" then
      kept[#kept + 1] = template
    end
  end
  return table.concat(kept, ";")
end

local function named(variable)
  return os.getenv(variable .. "_" .. version:gsub("%.", "_")) or os.getenv(variable) or ""
end

package.path = absolute(named "LUA_PATH" .. ";" .. package.path)
package.cpath = absolute(named "LUA_CPATH" .. ";" .. package.cpath)

-- PREFIX/bin or PREFIX/share/mjhook beside PREFIX/share/lua and PREFIX/lib/lua; or scripts beside lua and build in a
-- source tree, which is known by what else lies in scripts.
local function use_modules_beside(script)
  local dir = script:match "^(/.*)/[^/]*$"
  local lua, modules
  if dir and dir:match "/bin$" then
    lua, modules = dir .. "/../share/lua/" .. version, dir .. "/../lib/lua/" .. version
  elseif dir and dir:match "/share/mjhook$" then -- where `make install` puts this one
    lua, modules = dir .. "/../lua/" .. version, dir .. "/../../lib/lua/" .. version
  elseif dir and exists(dir .. "/dev/run-tests") then
    lua, modules = dir .. "/../lua", (os.getenv "MJHOOK_BUILD" or dir .. "/../build") .. "/" .. version
  end
  if lua and exists(lua .. "/mjhook.lua") then
    package.path = lua .. "/?.lua;" .. package.path
    package.cpath = absolute(modules .. "/?.so;" .. package.cpath)
    return true
  end
end

-- Through links, to an absolute name.  Lua has no call for this.
local function resolved(script)
  local pipe = io.popen("PATH=/usr/bin:/bin exec readlink -f -- '" .. script:gsub("'", "'\\''") .. "' 2>/dev/null")
  local path = pipe and pipe:read "*l"
  if pipe then
    pipe:close()
  end
  return path or script
end

local function load_mjhook()
  if use_modules_beside(arg[0]) then
    return require "mjhook"
  end
  local found, mjhook = pcall(require, "mjhook")
  if not found and use_modules_beside(resolved(arg[0])) then
    return require "mjhook"
  end
  return assert(found and mjhook, mjhook)
end

-- With its query.  REQUEST_URI is no part of CGI, but it is what the client sent, whatever the server rewrote.
local function request_uri()
  local given = os.getenv "REQUEST_URI"
  if given and given:find("?", 1, true) then
    return given
  end
  return (os.getenv "SCRIPT_NAME" or "") .. (os.getenv "PATH_INFO" or "") .. "?" .. (os.getenv "QUERY_STRING" or "")
end

local function answer()
  local mjhook = load_mjhook()
  require("mjhook.core").begin_program() -- before anything else is opened
  -- A store that is not there is a mistake in the set-up: made here it would belong to the wrong user.
  local mj, err = mjhook.open { create = false }
  if not mj then
    complain(err.message)
    return UNAVAILABLE
  end
  local callback = require "mjhook.callback"
  local length = (os.getenv "CONTENT_LENGTH" or ""):match "^%d+$"
  local refused, how, ref, attempt = callback.precheck(mj, {
    method = os.getenv "REQUEST_METHOD", uri = request_uri(), length = tonumber(length),
    peer = os.getenv "REMOTE_ADDR", forwarded = os.getenv "HTTP_X_FORWARDED_FOR",
  })
  if refused then
    return refused
  end
  io.stdin:setvbuf "no" -- not a byte more than is due: what follows may be the next request's
  if not length and os.getenv "HTTP_TRANSFER_ENCODING" then
    -- Apache takes chunks apart but does not count them.  One that was broken off ends alike, and is no JSON then.
    return callback.accept(mj, io.stdin:read(mj.config.max_body + 1) or "", how, ref, attempt)
  elseif not length then
    return { status = 411, word = "length_required" }
  end
  length = tonumber(length) -- at most max_body: precheck saw to it
  local body = length > 0 and io.stdin:read(length) or ""
  if #body < length then
    complain(("callback for %s: only %d of %d bytes came"):format(ref or "an unsigned task", #body, length))
    return { status = 400, word = "incomplete" }
  end
  return callback.accept(mj, body, how, ref, attempt)
end

local ok, reply = pcall(answer)
if not ok then
  complain(reply)
  reply = UNAVAILABLE
end
send(reply)
