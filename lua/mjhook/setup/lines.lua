--- The lines that crontab, systemd and nginx need, for this installation and this configuration: each works as it
-- stands where it says.
local place = require "mjhook.setup.place"

local M = {}

local DEFAULT_FILE = "/etc/mjhook/config.lua" -- as lua/mjhook/config.lua

-- A word for a shell, quoted only where it has to be.
local function word(s)
  return s:find "[^%w/._+:@,=-]" and "'" .. s:gsub("'", "'\\''") .. "'" or s
end

-- cron makes a line break of a bare %.
local function for_cron(s)
  return (s:gsub("%%", "\\%%"))
end

-- A word for systemd, which has specifiers of its own; and variables in a command, but nowhere else.
local function for_systemd(s, in_command)
  s = s:gsub("%%", "%%%%"):gsub("%$", in_command and "$$" or "$"):gsub("\\", "\\\\"):gsub('"', '\\"')
  return s:find "[%s'\";]" and '"' .. s .. '"' or s
end

local function for_command(s)
  return for_systemd(s, true)
end

-- Nothing where the programs find the configuration by themselves.
local function with_configuration(path, quote)
  return path and path ~= DEFAULT_FILE and " -c " .. quote(path) or ""
end

--- A line for `crontab -e` of the store's owner: a pass every minute, silent while all is well.
-- @tparam string|nil config_file
function M.crontab(config_file)
  return "* * * * * " .. for_cron(word(place.program "mjhook-reconcile") .. " -q"
    .. with_configuration(config_file, word))
end

--- The same for a file in /etc/cron.d, where a line names its user.
function M.cron_d(config_file, user)
  return (M.crontab(config_file):gsub("^%* %* %* %* %* ", "%0" .. user:gsub("%%", "%%%%") .. " "))
end

local function directory_of(path)
  return path:match "^(.*)/[^/]*$" or "/"
end

local UNIT = [[
[Unit]
Description=mjhook: poll, submit and deliver what is due
Documentation=man:mjhook-reconcile(1)
After=network-online.target
Wants=network-online.target

[Service]
User=%s
ExecStart=%s --interval 20%s
Restart=always
RestartSec=10
# 64, 78: a bad command line or configuration does not mend by itself.
RestartPreventExitStatus=64 78
TimeoutStopSec=60
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
%s
[Install]
WantedBy=multi-user.target
]]

--- A unit for /etc/systemd/system/mjhook.service: a pass every 20 s from one process, instead of cron.
-- @tparam table what config_file, user (a name), store (a directory or a URL)
function M.systemd(what)
  local writable = what.store:match "^/" and ("# Where the policy's handlers write has to be named, too:\n"
    .. "ReadWritePaths=%s\n"):format(for_systemd(what.store)) or ""
  return UNIT:format(what.user, for_command(place.program "mjhook-reconcile"),
    with_configuration(what.config_file, for_command), writable)
end

local function for_nginx(s)
  return (s:gsub('[\\"]', "\\%0"))
end

-- A Lua string in a block of nginx.conf.
local function lua_string(s)
  return ("%q"):format(s):gsub("\\\n", "\\n")
end

--- The lines for nginx.conf, by the part of it in which they belong.
-- @tparam table what config_file, user, hook_url
-- @treturn table main, http, server: texts
function M.nginx(what)
  local lua, modules = place.modules "5.1"
  local path = (what.hook_url or ""):match "^https?://[^/?#]+([^?#]*)" or "/webhooks/midjourney"
  path = path == "" and "/" or path
  local pattern = path:gsub("[%^%$%(%)%[%]%*%+%?%.%-{}|\\]", "\\%0")
  return {
    main = ([[
user %s;
thread_pool mjhook threads=1;
thread_pool mjhook_http threads=4;
thread_pool mjhook_read threads=1;
thread_pool mjhook_deliver threads=2;
]]):format(what.user),
    http = ([[
lua_package_path "%s/?.lua;;";
lua_package_cpath "%s/?.so;;";
lua_shared_dict mjhook 1m;
limit_conn_zone $arg_ref zone=mjhook_task:1m;
map $status $mjhook_succeeded { ~^2 1; default 0; }
log_format mjhook '$remote_addr [$time_iso8601] $request_method $uri $status $body_bytes_sent $request_time';
init_by_lua_block { require("resty.mjhook").init { config = %s } }
init_worker_by_lua_block { require("resty.mjhook").init_worker() }
]]):format(for_nginx(lua), for_nginx(modules), lua_string(what.config_file)),
    server = ([[
# nginx writes a request's line, and with it the token, to error logs; a 2xx and nothing else to this access log.
access_log /var/log/nginx/access.log mjhook if=$mjhook_succeeded;
location ~ "(?s)^%s([^/].*)?$" {
  access_log off;
  error_log /var/log/nginx/mjhook.log emerg;
  limit_conn mjhook_task 16;
  client_max_body_size 1m;
  client_body_buffer_size 1m;
  error_page 413 @mjhook_too_large;
  content_by_lua_block { require("resty.mjhook").callback() }
}
location @mjhook_too_large {
  access_log off;
  error_log /var/log/nginx/mjhook.log emerg;
  content_by_lua_block { require("resty.mjhook").callback() }
}
location = /mjhook-metrics {
  allow 127.0.0.1;
  deny all;
  content_by_lua_block { require("resty.mjhook").metrics() }
}
]]):format(for_nginx(pattern)),
  }
end

M.directory_of = directory_of

return M
