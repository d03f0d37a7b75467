-- A real nginx with mjhook in it, on a random port. It is stopped at the end of the test (kit.cleanup).
local kit = require "kit"
local sim = require "sim"

local receiver = {}
local Receiver = {}
Receiver.__index = Receiver

local MODULES = {
  "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/local/lib/nginx/modules", "/usr/share/nginx/modules",
}

local function modules()
  for _, dir in ipairs(MODULES) do
    if kit.read(dir .. "/ngx_http_lua_module.so") then
      return dir
    end
  end
  error "nginx's Lua module is not installed"
end

-- What belongs into each part of nginx.conf, whatever the test is about.
function receiver.main(dir)
  local m = modules()
  return ([[
load_module %s/ndk_http_module.so;
load_module %s/ngx_http_lua_module.so;
%s
worker_processes 1;
pid %s/nginx.pid;
error_log %s/error.log info;
events { worker_connections 1024; }
]]):format(m, m, require("mjhook.core").uid() == 0 and "user root;" or "", dir, dir)
end

function receiver.http(dir)
  local lines = { ("access_log %s/access.log;"):format(dir) }
  for _, name in ipairs { "client_body", "proxy", "fastcgi", "uwsgi", "scgi" } do
    lines[#lines + 1] = ("%s_temp_path %s/%s;"):format(name, dir, name)
  end
  lines[#lines + 1] = ('lua_package_path "%s/lua/?.lua;;";'):format(kit.root)
  lines[#lines + 1] = ('lua_package_cpath "%s/5.1/?.so;;";'):format(kit.build)
  return table.concat(lines, "\n") .. "\n"
end

local THREADS = [[
thread_pool mjhook threads=1;
thread_pool mjhook_http threads=2;
thread_pool mjhook_deliver threads=2;
]]

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  lua_shared_dict mjhook 1m;
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@ backlog=1024;
    location = /ping { return 200 "pong\n"; }
    location = /hook {
      access_log off; error_log @DIR@/error.log emerg; # a request line carries a token
      client_max_body_size 1m; client_body_buffer_size 1m;
      content_by_lua_block { require("resty.mjhook").callback() }
    }
    location = /metrics { content_by_lua_block { require("resty.mjhook").metrics() } }
    location = /jobs {
      content_by_lua_block {
        local args = ngx.req.get_uri_args()
        local task, err = require("resty.mjhook").submit { prompt = args.prompt, key = args.key, user_id = "web" }
        if not task then
          ngx.status = 500
          return ngx.print(err.code, " ", err.message)
        end
        ngx.print(task.ref, " ", task.state)
      }
    }
  }
}
]]

--- nginx.conf for a receiver in which others can have all the timers that nginx runs: from /occupy until /leave.
receiver.CROWDED = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  lua_max_running_timers 8;
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location = /occupy {
      content_by_lua_block {
        occupied = ngx.worker.pid()
        for _ = 1, 20 do
          ngx.timer.at(0, function() while occupied do ngx.sleep(0.01) end end)
        end
      }
    }
    location = /leave { content_by_lua_block { occupied = nil } }
  }
}
]]

local function nginx(dir, more)
  return kit.sh(("PATH=$PATH:/usr/sbin:/usr/local/sbin nginx %s -p %s -c %s/nginx.conf -e %s/start.log"):format(
    more or "", dir, dir, dir))
end

local function literal(value)
  if type(value) == "string" then
    return ("%q"):format(value)
  elseif type(value) ~= "table" then
    return tostring(value)
  end
  local items = {}
  for key, item in pairs(value) do
    items[#items + 1] = ("[%s] = %s"):format(literal(key), literal(item))
  end
  return "{ " .. table.concat(items, ", ") .. " }"
end

--- The text of a Lua configuration file with these settings: strings, numbers, booleans and tables of them.
function receiver.config_text(settings)
  local lines = {}
  for key, value in pairs(settings) do
    lines[#lines + 1] = ("  %s = %s,"):format(key, literal(value))
  end
  return "return {\n" .. table.concat(lines, "\n") .. "\n}\n"
end

local function settings_of(more, port)
  local settings = kit.settings({ hook_url = ("http://127.0.0.1:%d/hook"):format(port) }, sim)
  settings.log = nil
  for k, v in pairs(more or {}) do
    settings[k] = v
  end
  return settings
end

--- A port that no program listens on.
function receiver.free_port()
  local socket = require "socket"
  local server = assert(socket.bind("127.0.0.1", 0))
  local _, port = server:getsockname()
  server:close()
  return port
end

--- Writes nginx.conf and the configuration without starting anything.
-- @tparam[opt] table options conf (nginx.conf with @MAIN@, @HTTP@, @DIR@, @PORT@, @THREADS@), threads (false:
-- none; or the pools), settings (of mjhook)
function receiver.prepare(options)
  options = options or {}
  local self = setmetatable({ dir = kit.tmp(), port = receiver.free_port() }, Receiver)
  self.url = "http://127.0.0.1:" .. self.port
  self.settings = settings_of(options.settings, self.port)
  kit.write(self.dir .. "/config.lua", receiver.config_text(self.settings))
  local values = {
    MAIN = receiver.main(self.dir), HTTP = receiver.http(self.dir), DIR = self.dir, PORT = tostring(self.port),
    THREADS = options.threads == false and "" or options.threads or THREADS,
  }
  kit.write(self.dir .. "/nginx.conf", ((options.conf or CONF):gsub("@(%u+)@", values)))
  return self
end

--- nginx -t. Gives what it says and its exit code.
function Receiver:check()
  return nginx(self.dir, "-t")
end

function Receiver:pid()
  return tonumber((kit.read(self.dir .. "/nginx.pid") or ""):match "%d+")
end

--- The pids of its workers, with blanks between.
function Receiver:workers()
  local pid = self:pid()
  return pid and kit.children(pid) or ""
end

function Receiver:start()
  local out, code = nginx(self.dir)
  assert(code == 0, out)
  kit.finally(function() self:stop() end)
  kit.wait_until(function() return self:pid() and (sim.request("GET", self.url .. "/ping")) end)
  return self
end

--- Ends nginx, master and worker, and waits for it.
function Receiver:stop()
  local pid = self:pid()
  if pid then
    kit.sh(("kill -TERM %d"):format(pid))
    pcall(kit.wait_until, function() return not self:pid() end, 5)
    if self:pid() then
      kit.sh(("kill -KILL %d"):format(pid))
    end
  end
end

function Receiver:log()
  return kit.read(self.dir .. "/error.log") or ""
end

function Receiver:access_log()
  return kit.read(self.dir .. "/access.log") or ""
end

--- A receiver that runs. Options as for prepare().
function receiver.start(options)
  return receiver.prepare(options):start()
end

return receiver
