-- Callbacks in a rush while nginx is killed, reloaded and stopped under them: what was acknowledged is in the store.
-- MJHOOK_CALLBACKS and MJHOOK_ROUNDS make it longer.
local cjson = require "cjson"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"

local COUNT = tonumber(os.getenv "MJHOOK_CALLBACKS") or 3000
local ROUNDS = tonumber(os.getenv "MJHOOK_ROUNDS") or 2

describe("the nginx receiver under fire", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj

  local function processes()
    return web:pid(), web:workers()
  end

  local function gone(pid)
    kit.wait_until(function() return kit.read(("/proc/%d/stat"):format(pid)) == nil end)
  end

  local function start_again()
    os.remove(web.dir .. "/nginx.pid")
    kit.wait_until(function() return pcall(web.start, web) end, 10) -- the port may be taken for a moment
  end

  local harm = {
    kill = function()
      local master, workers = processes()
      kit.sh(("kill -KILL %d %s"):format(master, workers))
      gone(master)
      start_again()
    end,
    reload = function()
      local _, before = processes()
      kit.sh("kill -HUP " .. web:pid())
      kit.wait_until(function()
        local _, now = processes()
        return now ~= before and not now:find(before:match "%d+", 1, true)
      end)
    end,
    stop = function()
      local master = web:pid()
      kit.sh("kill -QUIT " .. master)
      gone(master)
      start_again()
    end,
  }

  -- Sends a callback for each of these refs, many at a time, in a process of its own. It writes a line for each.
  local function rush(tasks, refs)
    local lines = {}
    for _, ref in ipairs(refs) do
      local id = tasks[ref].id
      local body = tasks[ref].body or cjson.encode { taskId = id, status = 1, image = "https://img.example/" .. id }
      lines[#lines + 1] = ('silent\nurl = "%s"\ndata = "%s"\noutput = "/dev/null"\nmax-time = 20\n'
        .. 'write-out = "%s %%{http_code}\\n"\nnext\n'):format(tasks[ref].url, (body:gsub('[\\"]', "\\%0")), ref)
    end
    local file = kit.write(kit.tmp() .. "/requests", (table.concat(lines):gsub("next\n$", "")))
    return kit.spawn(("exec %s -Z --parallel-immediate --parallel-max 60 -K %s"):format(kit.curl, file))
  end

  it("keeps every callback that it acknowledged, and makes one event of each", function()
    web = receiver.start()
    mj = kit.open { hook_url = web.url .. "/hook" }
    local tasks, refs, acknowledged = {}, {}, 0
    for i = 1, COUNT do
      local task = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox" })
      tasks[task.ref] = { id = "Id" .. i, url = provider.hook_url(mj, task.ref, 1) }
      refs[i] = task.ref
    end
    local names, refused, rounds = { "kill", "reload", "stop", "kill" }, 0, 0
    while #refs > 0 do
      rounds = rounds + 1
      assert.is_true(rounds < 50, "callbacks are refused for ever")
      local sender = rush(tasks, refs)
      if rounds <= ROUNDS then
        for i, name in ipairs(names) do
          local from = mj:stats().tasks.succeeded
          kit.wait_until(function() -- in the midst of it: more was stored since the last harm
            return sender:status() or mj:stats().tasks.succeeded > from + #refs / 20
          end)
          if sender:status() then
            assert.is_true(i > 1, "the rush was over before anything was done to it")
            break
          end
          harm[name]()
        end
      end
      sender:wait(60)
      local again = {}
      for ref, code in sender:out():gmatch "(%w+) (%d+)\n" do
        if code == "200" then
          acknowledged = acknowledged + 1
          assert.equal("succeeded", mj:get(ref).state, "acknowledged and not stored")
        else
          refused = refused + 1
          assert.is_true(code == "000" or code == "503" or code == "502", code)
          again[#again + 1] = ref
        end
      end
      refs = again
    end
    assert.equal(COUNT, acknowledged)
    assert.is_true(refused > 0, "nothing was ever in the air when nginx died: the test tests nothing")
    local stats = mj:stats()
    assert.same({ COUNT, COUNT, 0 }, { stats.tasks.succeeded, stats.events, stats.tasks.pending })
    local check = assert(mj:check())
    assert.same({}, check.problems)
  end)

  -- A task and the bytes of its callback.
  local function job(name)
    local task = assert(mj:adopt { task_id = name, prompt = "fox" })
    local url = provider.hook_url(mj, task.ref, 1)
    local body = cjson.encode { taskId = name, status = 1, image = "https://img.example/" .. name }
    return task, url, ("POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s")
      :format(url:match "^http://[^/]+(.*)$", #body, body), body
  end

  it("answers 503 with Retry-After when more callbacks wait than may, and loses none of the others", function()
    web = receiver.start { settings = { queue_max = 3 } }
    mj = kit.open { hook_url = web.url .. "/hook" }
    local tasks, refs = {}, {}
    for i = 1, 300 do
      local task, url = job("Id" .. i)
      tasks[task.ref], refs[i] = { id = "Id" .. i, url = url }, task.ref
    end
    local sender = rush(tasks, refs)
    sender:wait(30)
    local codes = {}
    for ref, code in sender:out():gmatch "(%w+) (%d+)\n" do
      codes[code] = (codes[code] or 0) + 1
      assert.equal(code == "200" and "succeeded" or "pending", mj:get(ref).state)
    end
    assert.equal(300, (codes["200"] or 0) + (codes["503"] or 0))
    assert.is_true((codes["200"] or 0) > 0)
    assert.is_true((codes["503"] or 0) > 0, "the queue was never full: the test tests nothing")
    local _, url, _, body = job "last"
    assert.equal(200, (sim.request("POST", url, body, { ["content-type"] = "application/json" })))
  end)

  it("is not kept waiting by clients that go away before their answer", function()
    web = receiver.start { settings = { queue_max = 8 } }
    mj = kit.open { hook_url = web.url .. "/hook" }
    local socket = require "socket"
    for i = 1, 200 do
      local _, _, bytes = job("Id" .. i)
      local client = assert(socket.connect("127.0.0.1", web.port))
      client:send(i % 3 == 0 and bytes:sub(1, -10) or bytes)
      client:setoption("linger", { on = true, timeout = 0 }) -- a reset rather than a goodbye
      client:close()
    end
    -- Had any of them left its place in the queue taken, there would be none by now.
    for i = 1, 20 do
      local task, url, _, body = job("Later" .. i)
      assert.equal(200, (sim.request("POST", url, body, { ["content-type"] = "application/json" })))
      assert.equal("succeeded", mj:get(task.ref).state)
    end
    assert.same({}, assert(mj:check()).problems)
  end)

  it("lets one poisoned callback of a batch fail alone, and tells each client of its own", function()
    web = receiver.start()
    mj = kit.open { hook_url = web.url .. "/hook" }
    local tasks, refs, expected = {}, {}, {}
    for i = 1, 300 do
      local task, url = job("Id" .. i)
      -- Every tenth can't be read, and the one after it speaks of a task that is another's.
      local poison, foreign = i % 10 == 0, i % 10 == 1 and i > 1
      tasks[task.ref] = { id = foreign and "Id" .. i - 2 or "Id" .. i, url = url, body = poison and "poison" or nil }
      refs[i] = task.ref
      expected[task.ref] = { poison and "400" or "200", (poison or foreign) and "pending" or "succeeded" }
    end
    local sender, heard = rush(tasks, refs), 0
    sender:wait(30)
    for ref, code in sender:out():gmatch "(%w+) (%d+)\n" do
      heard = heard + 1
      assert.same(expected[ref], { code, mj:get(ref).state })
    end
    assert.equal(300, heard)
    assert.equal(30, #assert(mj:refused { limit = 100 }))
  end)
end)
