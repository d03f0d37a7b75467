-- nginx' event loop never waits for a commit (invariant 10): which calls it makes into the core, and that each of them
-- comes back while a commit is held in the middle, in a thread of the same nginx or in another process.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local provider = require "mjhook.provider"
local receiver = require "receiver"
local sim = require "sim"

local function set(words)
  local names = {}
  for name in words:gmatch "%S+" do
    names[name] = true
  end
  return names
end

-- What the event loop may call of the parts that know a store or share a lock with threads: each is tried below.
local ALLOWED = set [[
  store.get store.find store.by_key store.page store.stats store.refused store.prunable store.trim store.close
  inbox.put inbox.take inbox.close workqueue.take_back workqueue.fill workqueue.begin workqueue.close
  keyring.authorize keyring.sign keyring.verify keyring.close core.open core.inbox core.workqueue core.keyring ]]

-- Of the core's functions these wait for something: a file's lock, the network, a program, a whole store.
local WAIT = set [[ core.restore core.http core.fetch core.stream core.resolve core.fork core.run core.await
  core.sleep ]]

local CONF = [[
env MJHOOK_FAULT_HOLD;
@MAIN@ @THREADS@
http { @HTTP@
  init_by_lua_block {
    local core = require "mjhook.core"
    called = {}
    local function record(t, prefix)
      for name, f in pairs(t) do
        if type(f) == "function" and not name:find "^__" then
          t[name] = function(...)
            called[prefix .. name] = true
            return f(...)
          end
        end
      end
    end
    record(core, "core.")
    for class, object in pairs { inbox = core.inbox(), workqueue = core.workqueue "spec", keyring = core.keyring {} } do
      record(getmetatable(object).__index, class .. ".")
    end
    local open = core.open
    local seen
    core.open = function(...)
      local store, err = open(...)
      if store and not seen then
        seen = true
        record(getmetatable(store).__index, "store.")
      end
      return store, err
    end
    require("resty.mjhook").init { config = "@DIR@/config.lua" }
  }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server { listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location = /metrics { content_by_lua_block { require("resty.mjhook").metrics() } }
    location = /called { content_by_lua_block { for name in pairs(called) do ngx.say(name) end } }
    location = /jobs { content_by_lua_block {
      local m = require "resty.mjhook"
      local task = m.submit { prompt = "a fox", key = ngx.var.arg_key }
      m.status(task.ref)
      m.status(task.ref, { refresh = true })
      ngx.print(task.ref, " ", task.state) } }
    # A handle of another id, in a thread of another pool: so the map's ceiling is raised beside the commit.
    location = /open { content_by_lua_block {
      local exec = require("resty.mjhook").instance().exec
      local settings = {}
      for k, v in pairs(exec.settings) do settings[k] = v end
      settings.map_max = 2 ^ 33
      local _, status = ngx.run_worker_thread("mjhook_http", "resty.mjhook.worker", "open", "another", settings)
      ngx.print(status) } }
    # Every call, one after the other, on the event loop.
    location = /calls { content_by_lua_block {
      local core = require "mjhook.core"
      local mj = require("resty.mjhook").instance()
      local ref, ring = ngx.var.arg_ref, core.keyring { "a secret of this spec" }
      local store, queue = mj.store, core.workqueue "another"
      local kid, sig = ring:sign(ref, 1)
      local failed = {}
      local function try(name, f, ...)
        local before = core.clock()
        local ok, result, err = pcall(f, ...)
        if not ok or result == nil and err and err.code ~= "not_found" and err.code ~= "busy" then
          failed[#failed + 1] = name .. ": " .. tostring(ok and err or result)
        elseif core.clock() - before > 500 then
          failed[#failed + 1] = name .. " took long"
        end
        return result
      end
      try("get", store.get, store, ref)
      try("find", store.find, store, "Id1")
      try("by_key", store.by_key, store, "k")
      try("page", store.page, store, { by = "age", limit = 10 })
      try("page by event", store.page, store, { by = "event", limit = 10 })
      try("stats", store.stats, store, core.now())
      try("refused", store.refused, store, 0, 10)
      try("prunable", store.prunable, store, { state = "succeeded", ["until"] = core.now(), limit = 1 })
      try("trim", store.trim, store)
      try("metrics", mj.metrics, mj)
      local options = require("mjhook.stores").options(mj.config)
      options.no_wait = true
      options.map_max = 2 ^ 34
      local another = try("open", core.open, mj.config.store, options)
      if another then
        try("get of another", another.get, another, ref)
        try("close", another.close, another)
      end
      local inbox = core.inbox "another"
      try("put", inbox.put, inbox, ref, 1, "{}")
      try("take", inbox.take, inbox)
      try("inbox.close", inbox.close, inbox)
      try("fill", queue.fill, queue, { "a" })
      try("take_back", queue.take_back, queue, 0)
      try("begin", queue.begin, queue)
      try("workqueue.close", queue.close, queue)
      try("authorize", ring.authorize, ring, "/hook?ref=" .. ref .. "&a=1&kid=" .. kid .. "&sig=" .. sig)
      try("verify", ring.verify, ring, ref, 1, kid, sig)
      try("keyring.close", ring.close, ring)
      collectgarbage()
      ngx.print(#failed == 0 and "all" or table.concat(failed, "; ")) } }
  }
}
]]

describe("nginx' event loop", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web, mj, hold

  local function start(settings)
    hold = kit.tmp() .. "/hold"
    web = receiver.prepare { conf = CONF, settings = settings }
    local out, code = kit.sh(("PATH=$PATH:/usr/sbin MJHOOK_FAULT_HOLD=store.commit:%s nginx -p %s -c %s/nginx.conf "
      .. "-e %s/start.log"):format(hold, web.dir, web.dir, web.dir))
    assert(code == 0, out)
    kit.finally(function()
      os.remove(hold)
      web:stop()
    end)
    kit.wait_until(function() return web:pid() and (sim.request("GET", web.url .. "/ping")) end)
    mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
  end

  local function get(path)
    return kit.sh(("%s -s -m 20 '%s%s'"):format(kit.curl, web.url, path))
  end

  local function post(task, body)
    return kit.spawn(("exec %s -s -m 20 -o /dev/null -w '%%{http_code}' -d %s '%s'"):format(kit.curl, kit.quote(body),
      provider.hook_url(mj, task.ref, 1)))
  end

  local function success(task)
    return cjson.encode { taskId = task.task_id, status = 1, image = "https://img.example/x" }
  end

  it("calls nothing of the core but what is listed here", function()
    for _, trust in ipairs { "payload", "verify" } do
      start { trust = trust, allow_unsigned = true, policy = kit.write(kit.tmp() .. "/policy.lua", [[return {
        on_event = function() end, on_callback = function() return "accept" end,
        next_poll = function() return 60 end }]]) }
      get "/jobs?key=a"
      get "/jobs?key=a"
      local task = assert(mj:find_key "a")
      for _, body in ipairs { "no JSON", success(task) } do
        assert.is_truthy(post(task, body):wait() == 0)
      end
      sim.request("POST", web.url .. "/hook", success(task))
      sim.request("POST", web.url .. "/hook?sig=x", "{}")
      get "/metrics"
      kit.wait_until(function() return mj:stats().events == 0 end)
      local unknown = {}
      for name in get "/called":gmatch "%S+" do
        local pure = name:find "^core%." and not WAIT[name]
        unknown[#unknown + 1] = not ALLOWED[name] and not pure and name or nil
      end
      table.sort(unknown)
      assert.same({}, unknown)
      kit.cleanup()
    end
  end)

  it("comes back from each call while a thread holds a commit, and another thread opens the store", function()
    start()
    local task = assert(mj:adopt { task_id = "Id1", prompt = "a fox", key = "k" })
    assert.equal("all", get("/calls?ref=" .. task.ref))
    kit.write(hold, "")
    local held = post(task, success(task))
    kit.wait_until(function() return kit.read(web.dir .. "/nginx.pid") end)
    kit.sleep(0.2) -- it is in the thread
    assert.is_nil(held:status())
    local opener = kit.spawn(("exec %s -s -m 20 %s/open"):format(kit.curl, web.url))
    for _ = 1, 10 do
      assert.equal("all", get("/calls?ref=" .. task.ref))
      assert.equal("pong", get "/ping")
    end
    assert.is_nil(held:status())
    os.remove(hold)
    opener:wait()
    assert.equal("ok", opener:out())
    held:wait()
    assert.equal("200", held:out())
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("comes back from each call while another process holds a commit and the map has to grow", function()
    start()
    local task = assert(mj:adopt { task_id = "Id1", prompt = "a fox", key = "k" })
    assert.equal("all", get("/calls?ref=" .. task.ref))
    -- That process makes the store larger than the map that nginx has, and then stops in the middle of a commit.
    local file = hold .. ".other"
    local code = ([[
      local core = require "mjhook.core"
      local mj = assert(require("mjhook").open { store = %q, api_key = "k", log = print })
      local ops = {}
      for i = 1, 2000 do
        ops[i] = { op = "create", source = "user", task = { prompt = ("x"):rep(9000) .. i, mode = "fast", timeout = 600,
                   fingerprint = core.sha256 "x" } }
      end
      assert(mj.exec:commit(ops))
      assert(io.open(%q, "w")):close()
      print "grown"
      io.stdout:flush()
      assert(mj.exec:commit { ops[1] })
    ]]):format(kit.store, file)
    local other = kit.spawn(("MJHOOK_FAULT_HOLD=store.commit:%s exec %s"):format(file, kit.lua_command(code)))
    kit.finally(function() os.remove(file) end)
    kit.wait_until(function() return other:out():find "grown" end)
    kit.sleep(0.2) -- it is in its second commit
    local waiting = post(task, success(task)) -- a thread of nginx waits for that process
    kit.sleep(0.2)
    for _ = 1, 5 do
      assert.equal("all", get("/calls?ref=" .. task.ref))
    end
    assert.is_nil(waiting:status())
    assert.is_nil(other:status())
    os.remove(file)
    assert.equal(0, other:wait())
    waiting:wait()
    assert.equal("200", waiting:out())
    assert.equal("all", get("/calls?ref=" .. task.ref))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("starts while another process holds a commit, and opens again in a thread what could not be opened", function()
    local settings = kit.settings()
    start { store = settings.store .. "-later/deeper" } -- whose directory's parent is not there
    local begun = core.clock()
    assert.equal("503", (kit.sh(("%s -s -o /dev/null -w '%%{http_code}' -d {} %s/hook"):format(kit.curl, web.url))))
    assert.is_true(core.clock() - begun < 4000)
    assert(os.execute("mkdir " .. settings.store .. "-later"))
    kit.finally(function() os.execute("rm -rf " .. settings.store .. "-later") end)
    kit.wait_until(function()
      return kit.sh(("%s -s -o /dev/null -w '%%{http_code}' -d {} %s/hook"):format(kit.curl, web.url)) == "401"
    end)
  end)
end)
