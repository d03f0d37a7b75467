--- make bench, section large: what people and the reconciler do with a very large store.
--
--   lua5.4 large.lua [TASKS]       default 100,000; 10,000,000 take some 20 GB on disk and a quarter of an hour
--
-- The store's tasks are all finished, as after a year. Memory is what a process needs for itself; the pages of the
-- mapped file come on top, as long as the machine has room for them.
local gettime = require "socket".gettime
local mjhook = require "mjhook"

local TASKS = tonumber(arg[1]) or 100000
local BUILD, ROOT = os.getenv "MJHOOK_BUILD", os.getenv "MJHOOK_ROOT"
local ROUNDS = 21
local LIMIT = 50 -- what the console asks for

local function sh(command)
  local pipe = io.popen("( " .. command .. "\n) 2>&1; printf '\\n%s' $?")
  local out, code = pipe:read("*a"):match "^(.-)\n?\n(%d+)$"
  pipe:close()
  return code == "0" and out or error(command .. ": " .. out, 2)
end

local dir = sh(("mktemp -d -p %s"):format(os.getenv "TMPDIR" or BUILD))
local STORE = dir .. "/store"

local function bench(part, before)
  return sh(("%s; %s/bench/store_bench %s %d %s"):format(before or ":", BUILD, part, TASKS, STORE))
end

-- ---- find, with half of the file in memory ----

-- The line of a shell that puts it into a control group with so much memory, and the group's directory; nil where this
-- user may not make one.  Linux has two kinds of them.
local function limited(bytes)
  for _, kind in ipairs { { "/sys/fs/cgroup/memory", "memory.limit_in_bytes" }, { "/sys/fs/cgroup", "memory.max" } } do
    local group = ("%s/mjhook-bench.%s"):format(kind[1], STORE:match "([^/]+)/store$")
    if pcall(sh, ("mkdir %s && echo %d >%s/%s"):format(group, bytes, group, kind[2])) then
      return ("read -r me _ </proc/self/stat; echo $me >%s/cgroup.procs"):format(group), group
    end
    pcall(sh, "rmdir " .. group)
  end
end

local function find()
  local size = tonumber(sh(("du -B1 %s/data.mdb"):format(STORE)):match "%d+")
  sh(("cat %s/data.mdb >/dev/null"):format(STORE))
  print(("find, all of the file in memory, if it fits:\n%s"):format(bench "find"))
  if size < 256 << 20 then
    return print "find, half of the file in memory: not measured, the store is too small for that"
  end
  local enter, group = limited(size // 2)
  if not enter then
    return print "find, half of the file in memory: not measured, this user may not limit the memory of a program"
  end
  -- Out of memory with what is there; what the group reads then belongs to it, and half of that has room.
  sh(("dd of=%s/data.mdb oflag=nocache conv=notrunc,fdatasync count=0 status=none"):format(STORE))
  sh(("%s; cat %s/data.mdb >/dev/null"):format(enter, STORE))
  print(("find, half of the file in memory:\n%s"):format(bench("find", enter)))
  sh("rmdir " .. group)
end

-- ---- pages of each filter ----

local function time(run)
  local ms = {}
  for i = 1, ROUNDS do
    local before = gettime()
    run()
    ms[i] = (gettime() - before) * 1000
  end
  table.sort(ms)
  return ms[(ROUNDS + 1) // 2], ms[ROUNDS]
end

local function pages()
  local mj = assert(mjhook.open { store = STORE, api_key = "k" })
  local newest = assert(mj:page { limit = 1 }).tasks[1]
  local middle = newest
  for _ = 1, 20 do -- some pages from the newest on
    local page = assert(mj:page { before = middle.ref, limit = LIMIT })
    middle = page.tasks[#page.tasks]
  end
  local epoch = newest.created_at
  for _, one in ipairs {
    { "newest", {} },
    { "older ones", { before = middle.ref } },
    { "newer ones", { after = middle.ref } },
    { "state", { state = "succeeded" } },
    { "state that no task has", { state = "failed" } },
    { "user", { user_id = middle.user_id } },
    { "key", { key = middle.key } },
    { "account", { account = "default" } },
    { "account that no task has", { account = "other" } },
    { "mode", { mode = "relaxed" } },
    { "since and until, 1,000 tasks", { since = epoch - 1024, ["until"] = epoch - 1 } },
    { "text in 1,000 tasks", { q = "watercolour", since = epoch - 1024, ["until"] = epoch - 1 } },
    { "text that no task has, any time", { q = "no such words", since = 1 } },
  } do
    local page, count
    local filter = { limit = LIMIT }
    for name, value in pairs(one[2]) do
      filter[name] = value
    end
    local median, longest = time(function() page = assert(mj:page(filter)) end)
    local counted = time(function() count = assert(mj:count(one[2])) end)
    print(("page of %-34s %3d tasks, p50 %8.3f ms, longest %8.3f ms; count %s%d in %.3f ms"):format(one[1], #page.tasks,
      median, longest, count.exact and "" or "at least ", count.count, counted))
  end
  mj:close()
end

-- ---- whole programs ----

local function program(name, ...)
  local out = sh(("python3 %s/spec/bench/sweep_run.py --own lua5.4 %s/scripts/mjhook -c %s/config.lua %s"):format(ROOT,
    ROOT, dir, table.concat({ ... }, " ")))
  local said, wall, kib = out:match "^(.-)\n?(%d+) (%d+)$"
  print(("%s: %.1f s, %.1f MiB of its own; %s"):format(name, tonumber(wall) / 1e6, tonumber(kib) / 1024,
    said:match "[^\n]*$"))
end

local ok, err = xpcall(function()
  print(bench "load")
  local file = assert(io.open(dir .. "/config.lua", "w"))
  file:write(("return { store = %q, api_key = 'k' }\n"):format(STORE))
  file:close()
  sh(("chmod 600 %s/config.lua"):format(dir))
  find()
  pages()
  program("check", "check")
  program("backup", "backup", dir .. "/backup")
  program("prune of a tenth", "prune --older-than 1 --limit", ("%d"):format(TASKS // 10))
  program("check, after that", "check")
end, debug.traceback)
sh("rm -rf " .. dir)
if not ok then
  error(err, 0)
end
