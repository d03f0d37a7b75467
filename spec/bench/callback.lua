--- make bench, section callback: the receiver under nginx, beside receivers that do less.
--
--   luajit callback.lua [SECONDS] [ROUNDS] [CONNECTIONS,...] [alone [URL SCHEMA]]
--
-- One nginx worker and wrk. Every request to /hook and /single is a real change of a task of its own, with event and
-- index entries; what was acknowledged is counted in the store afterwards. Medians over rounds, in each of which all
-- receivers run one after the other, so that ratios are of neighbours in time. mjhook and (a) are measured a second
-- time with wrk kept on the last core: left to itself the kernel likes to pull both ends of a loopback connection onto
-- one core, whatever idles beside it. With "alone" nothing is run but mjhook on one worker, on the store at URL.
local core = require "mjhook.core"
local mjhook = require "mjhook"

local HERE = os.getenv "MJHOOK_ROOT" .. "/spec/bench"
local SECONDS, ROUNDS = tonumber(arg[1]) or 2, tonumber(arg[2]) or 3
local CONNECTIONS = {}
for c in (arg[3] or "1,16,64,256"):gmatch "%d+" do
  CONNECTIONS[#CONNECTIONS + 1] = tonumber(c)
end
local ALONE, STORE, SCHEMA = arg[4] == "alone", arg[5], arg[6]
local BUILD = os.getenv "MJHOOK_BUILD"
local ROOT = os.getenv "MJHOOK_ROOT"
local SECRET = "the secret of this benchmark"

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
  store = STORE or dir .. "/store", store_schema = SCHEMA, api_key = "k", secrets = { SECRET }, max_in_flight = 1000,
  base_url = "http://127.0.0.1:1", hook_url = "http://127.0.0.1:1/hook",
}

local function load(count)
  local due_soon = { poll = { first = 1, learn = false } } -- for the sweep
  for key, value in pairs(settings) do
    due_soon[key] = value
  end
  local mj = assert(mjhook.open(due_soon))
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
thread_pool mjhook threads=@THREADS@;
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

local function start_nginx(workers)
  local port = free_port()
  local values = { MODULES = modules(), USER = core.uid() == 0 and "user root;" or "", DIR = dir, ROOT = ROOT,
                   BUILD = BUILD, PORT = port, WORKERS = tostring(workers), THREADS = STORE and "4" or "1",
                   READERS = STORE and "2" or "1" }
  write(dir .. "/nginx.conf", (CONF:gsub("@(%u+)@", values)))
  must(sh(("PATH=$PATH:/usr/sbin nginx -p %s -c %s/nginx.conf -e %s/start.log"):format(dir, dir, dir)))
  must(sh(("for i in $(seq 200); do curl -sf http://127.0.0.1:%s/ping && exit 0; sleep 0.02; done; "
    .. "cat %s/error.log; exit 1"):format(port, dir)))
  local pid = read(dir .. "/nginx.pid"):match "%d+"
  started[#started + 1] = pid
  return "http://127.0.0.1:" .. port, pid
end


local function start_express()
  local _, code = sh(("mkdir -p %s/bench && cd %s/bench && { test -d node_modules/express || npm install --silent "
    .. "--no-audit --no-fund --no-package-lock express@4; }"):format(BUILD, BUILD))
  if code ~= 0 then
    return nil
  end
  local port = free_port()
  sh(("cd %s/bench && cp %s/callback_express.js . && "
    .. "{ node callback_express.js %s >%s/express.log 2>&1 & echo $! >%s/express.pid; }"):format(BUILD, HERE, port, dir,
    dir))
  started[#started + 1] = read(dir .. "/express.pid"):match "%d+"
  must(sh(("for i in $(seq 500); do grep -q listening %s/express.log && exit 0; sleep 0.02; done; exit 1"):format(dir)))
  return ("http://127.0.0.1:%s/express"):format(port), started[#started]
end

local function worker_of(master)
  return sh("ps -o pid= --ppid " .. master):match "%d+"
end

-- Memory of nginx's worker that is its own: the mapped store is the kernel's cache.
local function anonymous_mib(master)
  return (tonumber((read("/proc/" .. worker_of(master) .. "/status") or ""):match "RssAnon:%s*(%d+)") or 0) / 1024
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

local next_task, acknowledged = 0, 0

local PINNED = select(2, sh "taskset -c $(($(nproc) - 1)) true") == 0 and "taskset -c $(($(nproc) - 1)) " or ""

local function run(url, pid, connections, counts, apart)
  local cpu, loop = cpu_of(pid), loop_cpu_of(pid)
  local wrk = ("wrk -t1 -c%d -d%ds --timeout 10s -s %s/callback_wrk.lua %s -- %s/tasks %d"):format(connections, SECONDS,
    HERE, url, dir, counts and next_task or 0)
  local out = must(sh((apart and PINNED or "") .. wrk))
  local requests, us, p50, p99, failed, used = out:match "WRK (%d+) (%d+) (%d+) (%d+) (%d+) (%d+)"
  if not requests or tonumber(failed) > 0 then
    io.stderr:write(out, read(dir .. "/error.log") or "", "\n")
    finish(1)
  end
  if counts then
    next_task = next_task + used
    acknowledged = acknowledged + requests
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

local function say(name, connections, runs)
  print(("  %-34s %3d connections: %7.0f/s, p50 %6.2f ms, p99 %6.2f ms, CPU %5.1f us"):format(name, connections,
    median(runs, "rate"), median(runs, "p50"), median(runs, "p99"), median(runs, "cpu")))
end

local function write_config()
  local lines = {}
  for key, value in pairs(settings) do
    lines[#lines + 1] = ("%s = %s,"):format(key, type(value) == "table" and ("{ %q }"):format(value[1])
      or type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  write(dir .. "/config.lua", "return {\n" .. table.concat(lines, "\n") .. "\n}\n")
  sh("chmod 600 " .. dir .. "/config.lua")
end

-- Callbacks one by one and a few at a time, alone and while a reconciler goes through all that is due.
-- Nobody listens where it asks, so that it commits as often as it can.
local function during_sweep(url, worker)
  local alone, beside = {}, {}
  for i = 1, ROUNDS do
    alone[i] = run(url .. "/hook", worker, 4, true)
    local pid = must(sh(("%s/bin/mjhook-reconcile -c %s/config.lua --budget %d >/dev/null 2>&1 & echo $!"):format(BUILD,
      dir, SECONDS + 1)))
    beside[i] = run(url .. "/hook", worker, 4, true)
    must(sh(("kill -0 %s"):format(pid))) -- it was at work all the time
    sh(("kill -TERM %s; while kill -0 %s 2>/dev/null; do sleep 0.02; done"):format(pid, pid))
  end
  say("mjhook, nothing beside it", 4, alone)
  say("mjhook, during a sweep", 4, beside)
  print(("  p99 is %.1f times what it is without a sweep (aim: 2)"):format(ratios(beside, alone, "p99")))
end

-- Callbacks alone, and while eight clients ask the console for what takes longest: a text that no prompt has.
local function beside_console(url, worker)
  local alone, beside = {}, {}
  for i = 1, ROUNDS do
    alone[i] = run(url .. "/hook", worker, 64, true)
    local pid = must(sh(("wrk -t1 -c8 -d%ds '%s/mjhook/api/tasks?q=nothing&since=0' >%s/console.out 2>&1 & echo $!")
      :format(SECONDS + 2, url, dir)))
    beside[i] = run(url .. "/hook", worker, 64, true)
    must(sh(("kill -0 %s"):format(pid))) -- it was at work all the time
    sh(("while kill -0 %s 2>/dev/null; do sleep 0.02; done"):format(pid))
  end
  say("mjhook, nothing beside it", 64, alone)
  say("mjhook, a console is hammered", 64, beside)
  print(("  %s requests to the console a second; callbacks are %.2f of those without (aim: 0.9), p99 %.1f x"):format(
    (read(dir .. "/console.out") or ""):match "Requests/sec:%s*([%d.]+)" or "?", ratios(beside, alone, "rate"),
      ratios(beside, alone, "p99")))
end

-- Callbacks alone: a line for each number of connections.
local function alone()
  local needed = 0
  for _, c in ipairs(CONNECTIONS) do
    needed = needed + math.min(60000, 4000 * c)
  end
  local mj = load(needed * SECONDS * ROUNDS)
  local url, master = start_nginx(1)
  for _, c in ipairs(CONNECTIONS) do
    local runs = {}
    for i = 1, ROUNDS do
      runs[i] = run(url .. "/hook", worker_of(master), c, true)
    end
    say("mjhook", c, runs)
  end
  stop(master)
  local stored = mj:stats().tasks.succeeded
  print(("  acknowledged %d, stored %d"):format(acknowledged, stored))
  finish(stored >= acknowledged and 0 or 1)
end

local function main()
  write_config()
  if ALONE then
    return alone()
  end
  -- A second: two workers at most; those during a sweep and before, those beside a console and before.
  local needed = 90000 + 20000 + 100000
  for _, c in ipairs(CONNECTIONS) do
    needed = needed + 2 * math.min(60000, 4000 * c) + 5000
  end
  local mj = load(needed * SECONDS * ROUNDS)
  local url, master = start_nginx(1)
  local express, express_pid = start_express()
  local worker = worker_of(master)
  local memory = { anonymous_mib(master) }
  local result = {}
  for _ = 1, ROUNDS do
    for _, c in ipairs(CONNECTIONS) do
      local r = result[c] or { hook = {}, decode = {}, single = {}, express = {}, apart = {}, decode_apart = {} }
      result[c] = r
      r.hook[#r.hook + 1] = run(url .. "/hook", worker, c, true)
      r.decode[#r.decode + 1] = run(url .. "/decode", worker, c)
      r.single[#r.single + 1] = run(url .. "/single", worker, c, true)
      r.express[#r.express + 1] = express and run(express, express_pid, c) or nil
      r.apart[#r.apart + 1] = run(url .. "/hook", worker, c, true, true)
      r.decode_apart[#r.decode_apart + 1] = run(url .. "/decode", worker, c, false, true)
    end
    memory[#memory + 1] = ("%.1f"):format(anonymous_mib(master))
  end
  for _, c in ipairs(CONNECTIONS) do
    local r = result[c]
    say("mjhook", c, r.hook)
    say("(a) read and decode, store nothing", c, r.decode)
    say("(b) a transaction per request", c, r.single)
    if express then
      say("(c) Express, store nothing", c, r.express)
    end
    print(("  mjhook is %.2f of (a), %.1f times (b)%s; its p50 is %.2f of (b)'s"):format(
      ratios(r.hook, r.decode, "rate"), ratios(r.hook, r.single, "rate"),
      express and (", %.1f times (c)"):format(ratios(r.hook, r.express, "rate")) or "",
      ratios(r.hook, r.single, "p50")))
    print(("  on the event loop a callback takes %.1f us of processor, %.2f of (a)'s (aim: 1.2)"):format(
      median(r.hook, "loop"), ratios(r.hook, r.decode, "loop")))
    say("mjhook, wrk kept on the last core", c, r.apart)
    print(("  which is %.2f of (a) measured that way, %.0f/s"):format(ratios(r.apart, r.decode_apart, "rate"),
      median(r.decode_apart, "rate")))
  end
  print(("  nginx worker's own memory: %.1f MiB at start, then after each round %s MiB, at last after %d callbacks")
    :format(table.remove(memory, 1), table.concat(memory, ", "), acknowledged))
  during_sweep(url, worker)
  beside_console(url, worker)
  stop(master)
  url, master = start_nginx(2)
  local two = {}
  for i = 1, ROUNDS do
    two[i] = run(url .. "/hook", worker_of(master), 256, true)
  end
  say("two workers (wrk needs a core, too)", 256, two)
  local stored = mj:stats().tasks.succeeded
  print(("  acknowledged %d, stored %d"):format(acknowledged, stored))
  finish(stored >= acknowledged and 0 or 1)
end

local ok, why = xpcall(main, debug.traceback)
if not ok then -- whatever was started ends with us
  io.stderr:write(why, "\n")
  finish(1)
end
