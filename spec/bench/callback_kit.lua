--- What the sections of `make bench` share that measure callbacks: a store, nginx with its receivers, and wrk.
local core = require "mjhook.core"
local mjhook = require "mjhook"

local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local HERE = ROOT .. "/spec/bench"
local SECRET = "the secret of this benchmark"

-- seconds: how long wrk runs; acknowledged: callbacks so far.
local M = { seconds = 2, acknowledged = 0 }

local function sh(command)
  local pipe = io.popen("( " .. command .. "\n) 2>&1; printf '\\n%s' $?")
  local out, code = pipe:read("*a"):match "^(.-)\n?\n(%d+)$"
  pipe:close()
  return out, tonumber(code)
end

local function read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then
    file:close()
  end
  return text
end

local function write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
end

local dir = sh "mktemp -d"
local started = {} -- pids

local function stop(pid)
  sh(("kill -TERM %s; for i in $(seq 500); do kill -0 %s || break; sleep 0.02; done"):format(pid, pid))
end

local function finish(code)
  for _, pid in ipairs(started) do
    stop(pid)
  end
  sh("rm -rf " .. dir)
  os.exit(code)
end

local function must(out, code)
  if code ~= 0 then
    io.stderr:write(out, "\n")
    finish(1)
  end
  return out
end

-- ---- the store: pending tasks, a line each for wrk ----

local settings = {
  store = dir .. "/store", api_key = "k", secrets = { SECRET }, max_in_flight = 1000,
  base_url = "http://127.0.0.1:1", hook_url = "http://127.0.0.1:1/hook",
}

local function load(count)
  local mj = assert(mjhook.open(settings))
  local file = assert(io.open(dir .. "/tasks", "w"))
  local task = { prompt = "a red fox in the snow, golden hour --ar 4:5", mode = "fast", timeout = 600,
                 fingerprint = core.sha256 "x" }
  for first = 1, count, 1000 do
    local ops = {}
    for i = 1, 1000 do
      -- Ids in no order, as the provider's are.
      local id = ("Mt%016x%07d"):format((first + i) * 2654435761 % 2 ^ 32 * 65536, first + i)
      ops[i] = { op = "create", task = task, source = "user", task_id = id, account = "default", want = true }
    end
    for _, result in ipairs(assert(mj.exec:commit(ops))) do
      assert(result.code == "ok", result.code)
      local t = result.task
      local kid, sig = mj.keyring:sign(t.ref, 1)
      file:write(t.ref, " ", t.task_id, " ", kid, " ", sig, "\n")
    end
  end
  file:close()
  return mj
end

-- ---- the receivers ----

local function modules()
  for _, path in ipairs { "/usr/lib/nginx/modules", "/usr/lib64/nginx/modules", "/usr/share/nginx/modules" } do
    if read(path .. "/ngx_http_lua_module.so") then
      return path
    end
  end
end

local CONF = [[
load_module @MODULES@/ndk_http_module.so;
load_module @MODULES@/ngx_http_lua_module.so;
@USER@
worker_processes @WORKERS@;
pid @DIR@/nginx.pid;
error_log @DIR@/error.log warn;
events { worker_connections 2048; }
thread_pool mjhook threads=1;
thread_pool mjhook_http threads=1;
thread_pool mjhook_read threads=@READERS@;
http {
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path @DIR@/body; proxy_temp_path @DIR@/proxy; fastcgi_temp_path @DIR@/fastcgi;
  uwsgi_temp_path @DIR@/uwsgi; scgi_temp_path @DIR@/scgi;
  lua_package_path "@ROOT@/lua/?.lua;;";
  lua_package_cpath "@BUILD@/5.1/?.so;;";
  init_by_lua_block {
    cjson = require("cjson").new()
    require("resty.mjhook").init { config = "@DIR@/config.lua" }
  }
  init_worker_by_lua_block {
    require("resty.mjhook").init_worker()
    single = assert(require("mjhook").open { config = "@DIR@/config.lua" })
  }
  server {
    listen 127.0.0.1:@PORT@ backlog=2048 reuseport;
    client_max_body_size 1m; client_body_buffer_size 1m;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location /mjhook/ { content_by_lua_block { require("resty.mjhook").console() } }
    location = /decode { content_by_lua_block {
      ngx.req.read_body()
      local doc = cjson.decode(ngx.req.get_body_data())
      ngx.status = doc.data.taskId and 200 or 400
      ngx.header["Content-Type"] = "application/json"
      ngx.header["Content-Length"] = 20
      ngx.print('{"status":"stored"}\n')
    } }
    location = /single { content_by_lua_block {
      ngx.req.read_body()
      local reply = single:callback { method = ngx.req.get_method(), uri = ngx.var.request_uri,
                                      body = ngx.req.get_body_data(), headers = {}, peer = ngx.var.remote_addr }
      ngx.status = reply.status
      ngx.header["Content-Type"] = "application/json"
      ngx.header["Content-Length"] = #reply.body
      ngx.print(reply.body)
    } }
  }
}
]]

local function free_port()
  return must(sh [[python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
  ]])
end

-- An nginx of this configuration, with its @NAMES@ filled in; its URL and pid.
local function start_server(home, conf, values)
  values.MODULES, values.USER, values.DIR = modules(), core.uid() == 0 and "user root;" or "", home
  write(home .. "/nginx.conf", (conf:gsub("@(%u+)@", values)))
  must(sh(("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf -e %s/start.log"):format(home, home, home)))
  must(sh(("for i in $(seq 200); do curl -sf http://127.0.0.1:%s/ping && exit 0; sleep 0.02; done; "
    .. "cat %s/error.log; exit 1"):format(values.PORT, home)))
  local pid = read(home .. "/nginx.pid"):match "%d+"
  started[#started + 1] = pid
  return "http://127.0.0.1:" .. values.PORT, pid
end

local function start_nginx(workers)
  local remote = settings.store:find("://", 1, true)
  return start_server(dir, CONF, { ROOT = ROOT, BUILD = BUILD, PORT = free_port(), WORKERS = tostring(workers),
                                   READERS = remote and "2" or "1" })
end

local function worker_of(master)
  return sh("ps -o pid= --ppid " .. master):match "%d+"
end

-- Seconds of processor that a process has had, all threads: tells more than the rate on a machine that others use.
local function cpu_of(pid)
  local fields = {}
  for field in read("/proc/" .. pid .. "/stat"):match("%) (.*)"):gmatch "%S+" do
    fields[#fields + 1] = field
  end
  return (fields[12] + fields[13]) / 100 -- proc(5): utime and stime, in ticks of 1/100 s
end

-- Seconds of processor that its first thread has had: under nginx the event loop (proc(5): schedstat, in ns).
local function loop_cpu_of(pid)
  return tonumber((read(("/proc/%s/task/%s/schedstat"):format(pid, pid)) or "0"):match "%d+") / 1e9
end

-- ---- measuring ----

local next_task = 0

local PINNED = select(2, sh "taskset -c $(($(nproc) - 1)) true") == 0 and "taskset -c $(($(nproc) - 1)) " or ""

local function run(url, pid, connections, counts, apart)
  local cpu, loop = cpu_of(pid), loop_cpu_of(pid)
  local wrk = ("wrk -t1 -c%d -d%ds --timeout 10s -s %s/callback_wrk.lua %s -- %s/tasks %d"):format(connections,
    M.seconds, HERE, url, dir, counts and next_task or 0)
  local out = must(sh((apart and PINNED or "") .. wrk))
  local requests, us, p50, p99, failed, used = out:match "WRK (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)"
  if not requests or tonumber(failed) > 0 then
    io.stderr:write(out, read(dir .. "/error.log") or "", "\n")
    finish(1)
  end
  if counts then
    next_task = next_task + used
    M.acknowledged = M.acknowledged + requests
  end
  return { rate = requests / us * 1e6, p50 = p50 / 1000, p99 = p99 / 1000,
           cpu = (cpu_of(pid) - cpu) / requests * 1e6, loop = (loop_cpu_of(pid) - loop) / requests * 1e6 }
end

local function median(runs, field)
  local values = {}
  for i, r in ipairs(runs) do
    values[i] = r[field]
  end
  table.sort(values)
  return values[math.floor((#values + 1) / 2)]
end

local function ratios(a, b, field)
  local values = {}
  for i in ipairs(a) do
    values[i] = { ratio = a[i][field] / b[i][field] }
  end
  return median(values, "ratio")
end

local function lua_text(value)
  if type(value) ~= "table" then
    return type(value) == "string" and ("%q"):format(value) or tostring(value)
  end
  local fields = {}
  for key, field in pairs(value) do
    fields[#fields + 1] = ("[%s] = %s"):format(lua_text(key), lua_text(field))
  end
  return "{ " .. table.concat(fields, ", ") .. " }"
end

-- From settings.
local function write_config()
  write(dir .. "/config.lua", "return " .. lua_text(settings) .. "\n")
  sh("chmod 600 " .. dir .. "/config.lua")
end

M.sh, M.must, M.read, M.write, M.free_port = sh, must, read, write, free_port
M.dir, M.settings, M.started, M.stop, M.finish = dir, settings, started, stop, finish
M.load, M.write_config, M.start_nginx, M.worker_of = load, write_config, start_nginx, worker_of
M.start_server = start_server
M.run, M.median, M.ratios = run, median, ratios

return M
