-- What every spec needs: a place on disk, a mjhook on it, time that can be moved, programs that are ended.
--
-- after_each(kit.cleanup) undoes all of it, in reverse order, also when the test failed.
local core = require "mjhook.core"
local lfs = require "lfs"
local mjhook = require "mjhook"
local socket = require "socket"

local kit = { SECRET = "the first secret of these specs", KEY = "test-key" }

local HERE = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."

function kit.quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

-- What programs on the current test's store have to be told beside its name.
local function environment()
  local schema = kit.place and kit.place.store_schema
  return schema and ("export MJHOOK_STORE_SCHEMA=%s\n"):format(schema) or ""
end

-- Output (without its last newline) and exit code of a shell command.
function kit.sh(command)
  command = environment() .. command
  local pipe = io.popen("{ " .. command .. "\n} 2>&1; printf '\\n%s' $?")
  local out, code = pipe:read("*a"):match "^(.-)\n?\n(%d+)$"
  pipe:close()
  return out, tonumber(code)
end

kit.root = kit.sh("cd " .. kit.quote(HERE .. "/../..") .. " && pwd")
kit.build = os.getenv "MJHOOK_BUILD" or "build"
if not kit.build:match "^/" then
  kit.build = kit.root .. "/" .. kit.build
end
kit.lua = os.getenv "MJHOOK_LUA" or (rawget(_G, "jit") and "luajit" or "lua5.4")
-- Under a sanitizer, which keeps what is freed for a while: how much memory something takes is not to be seen then.
kit.sanitized = os.getenv "ASAN_OPTIONS" ~= nil
-- Without the sanitizers' libraries: what is linked with libgpg-error hangs under them.
kit.curl = "env -u LD_PRELOAD curl"
-- A command's environment that is empty, but for where to find programs and what the sanitizers need.
kit.bare = "env -i PATH=/usr/bin:/bin"
for _, name in ipairs { "LD_PRELOAD", "ASAN_OPTIONS" } do
  local value = os.getenv(name)
  kit.bare = kit.bare .. (value and (" %s=%s"):format(name, kit.quote(value)) or "")
end
kit.other_lua = rawget(_G, "jit") and "lua5.4" or "luajit"

-- ---- undoing ----

local undo = {}

--- Runs f at the end of the test.
function kit.finally(f)
  undo[#undo + 1] = f
end

--- Under a sanitizer, until the end of the test: the collector never rests, and goes all the way each time. What C
-- uses and no table holds is freed at once then, and found.
function kit.collect_hard()
  if kit.sanitized then
    local pause, multiplier = collectgarbage("setpause", 0), collectgarbage("setstepmul", 1000)
    kit.finally(function()
      collectgarbage("setpause", pause)
      collectgarbage("setstepmul", multiplier)
    end)
  end
end

function kit.cleanup()
  local first
  while #undo > 0 do
    local ok, err = pcall(table.remove(undo))
    first = first or (not ok and err)
  end
  assert(not first, first)
end

-- ---- files ----

function kit.read(path)
  local file = io.open(path, "rb")
  local text = file and file:read "*a"
  if file then
    file:close()
  end
  return text
end

--- Writes a private file (mode 600, whatever the umask) and gives its path.
function kit.write(path, text)
  local file = assert(io.open(path, "wb"))
  file:write(text)
  file:close()
  os.execute("chmod 600 " .. kit.quote(path))
  return path
end

--- A directory that is gone after the test.
function kit.tmp()
  local dir = kit.sh "mktemp -d"
  kit.finally(function()
    os.execute("rm -rf " .. kit.quote(dir))
  end)
  return dir
end

-- ---- waiting and time ----

--- Polls until condition() gives something true, and gives that. Patient: it waits longer than a busy machine takes,
-- which costs nothing where the condition comes true.
function kit.wait_until(condition, seconds)
  local deadline = socket.gettime() + (seconds or 30)
  repeat
    local value = condition()
    if value then
      return value
    end
    socket.sleep(0.01)
  until socket.gettime() > deadline
  error("waited in vain", 2)
end

kit.sleep = socket.sleep

local real_now = core.now

--- Moves this process' wall clock forward (or back) until the end of the test.
function kit.travel(seconds)
  if core.now == real_now then
    kit.finally(function()
      core.now = real_now
    end)
  end
  local before = core.now
  core.now = function()
    return before() + math.floor(seconds * 1000)
  end
end

-- ---- programs ----

local Process = {}
Process.__index = Process

--- Starts a shell command in the background; it is killed at the end of the test if it still runs.
-- The command should begin with `exec` if signals are to reach the program itself.
function kit.spawn(command)
  local dir = kit.tmp()
  local self = setmetatable({ dir = dir }, Process)
  kit.write(dir .. "/run", environment() .. command .. "\n")
  os.execute(("{ sh %s/run </dev/null >%s/out 2>%s/err & echo $! >%s/pid; wait $!; echo $? >%s/rc; } >%s/shell 2>&1 &")
    :format(dir, dir, dir, dir, dir, dir))
  self.pid = kit.wait_until(function()
    return tonumber((kit.read(dir .. "/pid") or ""):match "%d+\n")
  end)
  kit.finally(function()
    if not self:status() then
      self:kill "KILL"
      self:wait()
    end
  end)
  return self
end

--- The exit code; nil while it runs.
function Process:status()
  return tonumber((kit.read(self.dir .. "/rc") or ""):match "%d+\n")
end

function Process:wait(seconds)
  return kit.wait_until(function()
    return self:status()
  end, seconds)
end

function Process:kill(signal)
  os.execute(("kill -%s %d 2>%s/kill"):format(signal, self.pid, self.dir))
end

function Process:out()
  return kit.read(self.dir .. "/out") or "" -- the shell makes it a moment later
end

function Process:err()
  return kit.read(self.dir .. "/err") or ""
end

--- How many descriptors this process has open. Looked at from inside: a program that looks may be there before popen()
-- has closed its end of the pipe to it.
function kit.descriptors()
  local n = 0
  for _ in lfs.dir "/proc/self/fd" do
    n = n + 1
  end
  return n
end

--- The pids of a process' children, with blanks between. Not by ps, which hangs like curl.
function kit.children(pid)
  return ((kit.read(("/proc/%d/task/%d/children"):format(pid, pid)) or ""):gsub("%s+$", ""))
end

--- Shell words that run Lua code on `lua` with the modules of this build.
function kit.lua_command(code, lua)
  local path = kit.write(kit.tmp() .. "/chunk.lua", code)
  local abi = (lua or kit.lua):find "luajit" and "5.1" or "5.4"
  return ("env LUA_PATH=%s LUA_PATH_5_4=%s LUA_CPATH=%s LUA_CPATH_5_4=%s %s %s"):format(
    kit.quote(kit.root .. "/lua/?.lua;;"), kit.quote(kit.root .. "/lua/?.lua;;"),
    kit.quote(kit.build .. "/" .. abi .. "/?.so;;"), kit.quote(kit.build .. "/" .. abi .. "/?.so;;"),
    lua or kit.lua, path)
end

-- ---- stores ----

--- Where the stores of these specs are: MJHOOK_TEST_STORE, "memory" or the URL of a database, in which each store has a
-- schema of its own. nil: each in a directory of its own.
kit.database = os.getenv "MJHOOK_TEST_STORE"

local PID, made = (kit.read "/proc/self/stat"):match "^%d+", 0
local LOADED = ("%x"):format(math.floor(socket.gettime() * 1e4) % 2 ^ 40) -- busted loads this anew for each file

--- A store that is not there yet.
-- @treturn table {store=, store_schema=}: settings
function kit.new_store()
  made = made + 1
  local name = ("spec_%s_%s_%d"):format(PID, LOADED, made)
  if not kit.database then
    return { store = kit.tmp() .. "/store" }
  elseif kit.database == "memory" then
    return { store = "memory://" .. name }
  end
  return { store = kit.database, store_schema = name }
end

--- Opens such a store as core.open() does.
function kit.open_store(place, options)
  local all = { backend = require("mjhook.stores").backend(place.store) or nil, schema = place.store_schema }
  for k, v in pairs(options) do
    all[k] = v
  end
  return assert(core.open(place.store, all))
end

--- Skips the current test, which is counted.
function kit.skip(why)
  require("busted.core")().pending(why)
end

--- Skips the current test where the store has no "directory", or no other "processes" can use it.
function kit.needs(what)
  if kit.database and (what == "directory" or kit.database == "memory") then
    kit.skip "this database has none"
  end
end

-- ---- mjhook ----

--- From now on the current test has another store, which is not there yet.
function kit.another_store()
  kit.place = kit.new_store()
  kit.store = kit.place.store
end

--- Settings for the current test: a fresh store, the simulator `sim` as provider and its sink for callbacks.
function kit.settings(more, sim)
  if not kit.store then
    kit.another_store()
    kit.logged = {}
    kit.finally(function()
      kit.place, kit.store, kit.logged = nil, nil, nil
    end)
  end
  local settings = {
    store = kit.store, store_schema = kit.place.store_schema, api_key = kit.KEY, secrets = { kit.SECRET },
    base_url = sim and sim.url or "http://127.0.0.1:1",
    hook_url = (sim and sim.url or "http://127.0.0.1:1") .. "/_sim/sink",
    log = function(level, message)
      table.insert(kit.logged, { level = level, message = message })
    end,
  }
  for k, v in pairs(more or {}) do
    settings[k] = v
  end
  return settings
end

--- A mjhook on the current test's store; what is opened twice shares it. Requests give up after half a second.
function kit.open(more, sim)
  local mj = assert(mjhook.open(kit.settings(more, sim)))
  mj.exec.client = assert(core.http { connections = mj.config.connections, timeout_ms = 500 })
  kit.finally(function()
    mj:close()
  end)
  return mj
end

--- Stores new tasks, with a prompt where they have none; gives their refs, the oldest first.
function kit.put(mj, tasks)
  local ops, refs = {}, {}
  for i, task in ipairs(tasks) do
    task.prompt = task.prompt or "a fox"
    task.fingerprint = core.sha256(task.prompt)
    ops[i] = { op = "create", source = "user", task = task, want = true }
  end
  for i, result in ipairs(assert(mj.exec:commit(ops))) do
    assert(result.code == "ok", result.code)
    refs[i] = result.task.ref
  end
  return refs
end

--- A signal about the first attempt of a task, which has to be taken; `more`: other fields of the operation.
function kit.signal(mj, ref, kind, more)
  local op = { op = "signal", ref = ref, kind = kind, source = "submit", attempt = 1 }
  for k, v in pairs(more or {}) do
    op[k] = v
  end
  local code = assert(mj.exec:commit { op })[1].code
  assert(code == "ok", ("%s of a task that is %s: %s"):format(kind, mj:get(ref).state, code))
end

--- The task succeeds, by a callback with one image.
function kit.succeed(mj, ref)
  kit.signal(mj, ref, "succeeded", { source = "callback", task_id = "id-" .. ref, image = "https://i.test/g.png" })
end

--- The messages logged in this test, one a line.
function kit.log_text()
  local lines = {}
  for i, line in ipairs(kit.logged) do
    lines[i] = line.level .. ": " .. line.message
  end
  return table.concat(lines, "\n")
end

--- Signals of a task's timeline in order, "signal" or "signal/note".
function kit.story(task)
  local words = {}
  for i, m in ipairs(task.timeline) do
    words[i] = m.note == "taken" and m.signal or m.signal .. "/" .. m.note
  end
  return table.concat(words, " ")
end

-- How often f() asks a store of this process whether it has to rest: see store:give_way().
function kit.rests(f)
  local store, n = debug.getregistry()["mjhook.store"], 0
  local give_way = store.give_way
  store.give_way = function(self)
    n = n + 1
    return give_way(self)
  end
  local ok, err = pcall(f)
  store.give_way = give_way
  assert(ok, err)
  return n
end

return kit
