-- mjhook inside a real nginx: callbacks, submissions, a store that comes and goes, what nginx refuses to start with.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

describe("the nginx receiver", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web

  -- nginx and this process on one store.
  local function start(options)
    web = receiver.start(options)
    local more = { hook_url = web.url .. "/hook" }
    for k, v in pairs(options and options.settings or {}) do
      more[k] = v
    end
    return kit.open(more, sim)
  end

  local function hook_of(task_id)
    for _, job in ipairs(sim.jobs()) do
      if job.taskId == task_id then
        return job.hookUrl
      end
    end
  end

  local function post(url, body, headers)
    headers = headers or {}
    headers["content-type"] = "application/json"
    local code, text, got = sim.request("POST", url, type(body) == "table" and cjson.encode(body) or body, headers)
    return code, text, got
  end

  local function success(task_id)
    return { status = 0, message = "success", data = { taskId = task_id, status = 1, image = "https://img.example/x" } }
  end

  -- Bytes as they are, to see what is answered before everything was sent. Gives the answer.
  local function raw(bytes, seconds)
    local client = assert(socket.connect("127.0.0.1", web.port))
    client:settimeout(seconds or 5)
    client:send(bytes)
    local answer = client:receive "*l"
    client:close()
    return answer
  end

  it("stores a callback of the provider and answers 200", function()
    local mj = start()
    local task = assert(mj:submit { prompt = "a fox" })
    sim.finish(task.task_id)
    kit.wait_until(function() return mj:get(task.ref).state == "succeeded" end)
    kit.wait_until(function() return sim.counters().callbacks.ok == 1 end)
    assert.equal("callback", mj:get(task.ref).source)
    assert.equal(200, sim.jobs()[1].callbacks[1].code)
    assert.equal(1, mj:stats().events)
  end)

  it("answers 200 after the commit: what was acknowledged survives kill -9 of nginx", function()
    local mj = start()
    for i = 1, 5 do
      local task = assert(mj:submit { prompt = tostring(i) })
      local code = post(hook_of(task.task_id), success(task.task_id))
      assert.equal(200, code)
      assert.equal("succeeded", mj:get(task.ref).state)
    end
    kit.sh(("kill -KILL %d %s"):format(web:pid(), web:workers()))
    assert.equal(5, mj:stats().tasks.succeeded)
    os.remove(web.dir .. "/nginx.pid")
    kit.wait_until(function() return not sim.request("GET", web.url .. "/ping") end)
    web:start()
    local task = assert(mj:submit { prompt = "after" })
    assert.equal(200, (post(hook_of(task.task_id), success(task.task_id))))
  end)

  it("stores hundreds of callbacks at once, each exactly once", function()
    sim.config { limit = 0 }
    local mj = start { settings = { max_in_flight = 1000 } }
    local n, lines, ids = 300, {}, {}
    local request = 'silent\nurl = "%s"\ndata = "%s"\noutput = "%s/answer"\nwrite-out = "%%{http_code}\\n"\nnext\n'
    for i = 1, n do
      local task = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox " .. i })
      ids[task.ref] = "Id" .. i
      local url = require("mjhook.provider").hook_url(mj, task.ref, 1)
      for _ = 1, 2 do -- everybody says everything twice
        lines[#lines + 1] = request:format(url, (cjson.encode(success("Id" .. i)):gsub('[\\"]', "\\%0")), web.dir)
      end
    end
    local file = kit.write(web.dir .. "/requests", (table.concat(lines):gsub("next\n$", "")))
    local out = kit.sh(("%s -Z --parallel-immediate --parallel-max 100 -K %s 2>/dev/null"):format(kit.curl, file))
    local codes = {}
    for code in out:gmatch "%d+" do
      codes[code] = (codes[code] or 0) + 1
    end
    assert.same({ ["200"] = 2 * n }, codes)
    local stats = mj:stats()
    assert.same({ n, 0, n }, { stats.tasks.succeeded, stats.tasks.pending, stats.events })
    for task in mj:tasks {} do
      assert.equal(ids[task.ref], task.task_id)
      assert.equal("create succeeded succeeded/duplicate", kit.story(task))
    end
  end)

  it("stores what the provider itself sends in a rush", function()
    sim.config { limit = 0, callback_format = "mixed", callback = { double = 0.3 } }
    local mj = start { settings = { max_in_flight = 100 } }
    for i = 1, 60 do
      assert(mj:submit { prompt = ("fox %d [ms=%d]"):format(i, 300) })
    end
    kit.wait_until(function() return mj:stats().tasks.succeeded == 60 end)
    assert.equal(60, mj:stats().events)
    kit.wait_until(function()
      local c = sim.counters().callbacks
      return c.ok == c.sent and c.ok >= 60
    end)
  end)

  describe("refuses", function()
    it("other methods with 405", function()
      local mj = start()
      local task = assert(mj:submit { prompt = "a fox" })
      for _, method in ipairs { "GET", "PUT", "DELETE", "HEAD", "OPTIONS" } do
        local code, _, headers = sim.request(method, hook_of(task.task_id))
        assert.equal(405, code)
        assert.equal("POST", headers.allow)
      end
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("bad tokens with 401, before the body is read", function()
      local mj = start()
      local task = assert(mj:submit { prompt = "a fox" })
      local url = hook_of(task.task_id)
      assert.equal(401, (post(url .. "x", success(task.task_id))))
      assert.equal(401, (post(web.url .. "/hook", success(task.task_id))))
      -- A body is promised and never comes; the answer does.
      assert.matches("^HTTP/1.1 401 ", raw("POST /hook?ref=x HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n"))
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("bad tokens with a line in the log at once, without them, and no second one for those that follow", function()
      start()
      for _ = 1, 20 do
        assert.equal(401, (post(web.url .. "/hook?ref=x&sig=abcdefghijk", "{}")))
      end
      kit.wait_until(function() return web:log():find("1 request without a good token", 1, true) end)
      assert.is_truthy(web:log():find("the last one from 127.0.0.1", 1, true))
      assert.equal(1, select(2, web:log():gsub("without a good token", "")))
      assert.is_nil(web:log():find("abcdefghijk", 1, true))
    end)

    it("who is not in allow_cidr with 401, seen past trusted proxies", function()
      local mj = start { settings = { allow_cidr = { "203.0.113.0/24", "2001:db8::/32" },
                                      trusted_proxies = { "127.0.0.1", "10.0.0.0/8" } } }
      local task = assert(mj:submit { prompt = "a fox" })
      local url = hook_of(task.task_id)
      local function from(forwarded)
        return (post(url, success(task.task_id), { ["x-forwarded-for"] = forwarded }))
      end
      for _, forwarded in ipairs { "203.0.113.9, 198.51.100.1", "unknown", "198.51.100.1:80", ("1.1.1.1,"):rep(500) } do
        assert.equal(401, from(forwarded))
      end
      assert.equal(401, from(nil))
      local twice = raw(("POST %s HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 1.1.1.1\r\n"
        .. "Content-Length: 2\r\n\r\n{}"):format(url:match "^http://[^/]+(.*)$"))
      assert.matches("^HTTP/1.1 401 ", twice)
      assert.equal("pending", mj:get(task.ref).state)
      for _, forwarded in ipairs { "198.51.100.1, 203.0.113.9, 10.0.0.1", "2001:DB8::1", "::ffff:203.0.113.9",
                               "203.0.113.9:51234", '"[2001:db8::1]:443"' } do
        assert.equal(200, from(forwarded))
      end
    end)

    it("what is too large with 413, also when its length is not told", function()
      local mj = start { settings = { max_body = 2000 } }
      local task = assert(mj:submit { prompt = "a fox" })
      local url = hook_of(task.task_id)
      assert.equal(413, (post(url, ("x"):rep(2001))))
      -- A body is announced and never comes; the answer does.
      assert.matches("^HTTP/1.1 413 ", raw(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 2001\r\n\r\n"):format(
        url:match "^http://[^/]+(.*)$")))
      local head = ("POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"):format(
        url:match "^http://[^/]+(.*)$")
      local chunk = ("bb8\r\n%s\r\n"):format(("x"):rep(3000))
      assert.matches("^HTTP/1.1 413 ", raw(head .. chunk .. "0\r\n\r\n"))
      local body = cjson.encode(success(task.task_id))
      chunk = ("%x\r\n%s\r\n"):format(#body, body)
      assert.matches("^HTTP/1.1 200 ", raw(head .. chunk .. "0\r\n\r\n"))
    end)

    it("what nginx put into a file with 413, and says why", function()
      local conf = [[@MAIN@ @THREADS@
        http { @HTTP@
          init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
          init_worker_by_lua_block { require("resty.mjhook").init_worker() }
          server { listen 127.0.0.1:@PORT@;
            location = /ping { return 200 "pong\n"; }
            location = /hook {
              client_body_buffer_size 1k;
              content_by_lua_block { require("resty.mjhook").callback() }
            } } }]]
      local mj = start { conf = conf }
      local task = assert(mj:submit { prompt = "a fox" })
      local code, _, headers = post(hook_of(task.task_id), cjson.encode(success(task.task_id)) .. (" "):rep(5000))
      assert.same({ 413, "application/json" }, { code, headers["content-type"] })
      assert.matches("client_body_buffer_size is too small", assert(mj:refused())[1].reason)
      kit.wait_until(function() return web:log():find("client_body_buffer_size is too small", 1, true) end)
      assert.equal(200, (post(hook_of(task.task_id), success(task.task_id))))
    end)

    it("what is no JSON with 400", function()
      local mj = start()
      local task = assert(mj:submit { prompt = "a fox" })
      for _, body in ipairs { "", "success", "{}", ("["):rep(5000) } do
        assert.equal(400, (post(hook_of(task.task_id), body)))
      end
    end)
  end)

  it("submits without blocking others, and tells what became of it", function()
    local mj = start()
    local code, text = sim.request("GET", web.url .. "/jobs?prompt=a%20fox&key=k")
    assert.equal(200, code)
    local ref = text:match "^(%w+) pending$"
    assert.equal("a fox", mj:get(ref).prompt)
    assert.equal(ref .. " pending", (select(2, sim.request("GET", web.url .. "/jobs?prompt=a%20fox&key=k"))))
    assert.equal(1, sim.requests "submit")
    code, text = sim.request("GET", web.url .. "/jobs?prompt=")
    assert.equal(500, code)
    assert.matches("^invalid prompt: ", text)
    -- While the provider thinks, nginx answers others.
    sim.script { submit = { { fault = "slow", ms = 1500 } } }
    local child = kit.spawn(("exec %s -s '%s/jobs?prompt=slow'"):format(kit.curl, web.url))
    kit.wait_until(function() return sim.requests "submit" == 2 end)
    local task = mj:tasks {}()
    assert.equal("submitting", task.state)
    assert.equal(200, (post(hook_of(mj:get(ref).task_id), success(mj:get(ref).task_id))))
    assert.is_nil(child:status())
    child:wait()
    assert.matches(" pending$", child:out())
  end)

  it("sends who waits as soon as a callback has freed a slot", function()
    local mj = start { settings = { max_in_flight = 2 } }
    local tasks = {}
    for i = 1, 6 do
      tasks[i] = assert(mj:submit { prompt = tostring(i) })
    end
    assert.equal(2, sim.requests "submit")
    for i = 1, 5 do
      local task = mj:get(tasks[i].ref)
      assert.equal(200, (post(hook_of(task.task_id), success(task.task_id))))
      local waiting = tasks[i + 2]
      kit.wait_until(function() return not waiting or mj:get(waiting.ref).state == "pending" end)
    end
    assert.equal(6, sim.requests "submit")
    assert.equal(1, mj:stats().accounts[1].held)
  end)

  it("sends who waits also after an error while it did, and says that there was one", function()
    local conf = [[@MAIN@ @THREADS@
      http { @HTTP@
        init_by_lua_block {
          local submit = require "mjhook.submission.submit"
          local dispatch, times = submit.dispatch, 0
          submit.dispatch = function(mj)
            times = times + 1
            if times <= 2 then error("not enough memory") end
            return dispatch(mj)
          end
          require("resty.mjhook").init { config = "@DIR@/config.lua" }
        }
        init_worker_by_lua_block { require("resty.mjhook").init_worker() }
        server { listen 127.0.0.1:@PORT@;
          location = /ping { return 200 "pong\n"; }
          location = /hook { content_by_lua_block { require("resty.mjhook").callback() } } } }]]
    local mj = start { conf = conf, settings = { max_in_flight = 1 } }
    local tasks = {}
    for i = 1, 2 do
      tasks[i] = assert(mj:submit { prompt = tostring(i) })
    end
    kit.wait_until(function() -- each word is a commit, after which is looked at who waits
      assert.equal(200, (post(hook_of(tasks[1].task_id), success(tasks[1].task_id))))
      return mj:get(tasks[2].ref).state == "pending"
    end)
    kit.wait_until(function()
      return select(2, web:log():gsub("sending queued tasks failed: [^\n]*not enough memory", "")) == 2
    end)
  end)

  it("stores and sends, though others have all the timers that nginx runs", function()
    local mj = start { conf = receiver.CROWDED, settings = { max_in_flight = 2 } }
    local tasks = {}
    for i = 1, 4 do
      tasks[i] = assert(mj:submit { prompt = tostring(i) })
    end
    sim.request("GET", web.url .. "/occupy")
    assert.equal(200, (post(hook_of(tasks[1].task_id), success(tasks[1].task_id))))
    assert.equal("succeeded", mj:get(tasks[1].ref).state)
    sim.request("GET", web.url .. "/leave")
    kit.wait_until(function() -- each word is a commit, after which is looked at who waits
      assert.equal(200, (post(hook_of(tasks[2].task_id), success(tasks[2].task_id))))
      return sim.requests "submit" == 4
    end)
  end)

  it("sends no waiting job while the account rests", function()
    local mj = start { settings = { max_in_flight = 2 } }
    local one = assert(mj:submit { prompt = "1" })
    sim.script { submit = { "quota" } }
    assert.equal("queued", assert(mj:submit { prompt = "2" }).state)
    assert.equal(200, (post(hook_of(one.task_id), success(one.task_id))))
    assert.equal(200, (post(hook_of(one.task_id), success(one.task_id)))) -- a commit later
    assert.equal(2, sim.requests "submit")
    assert.equal(1, mj:stats().tasks.queued)
  end)

  it("tells a task's state, and asks the provider first when it is to", function()
    local conf = [[@MAIN@ @THREADS@
      http { @HTTP@
        init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
        init_worker_by_lua_block { require("resty.mjhook").init_worker() }
        server { listen 127.0.0.1:@PORT@;
          location = /ping { return 200 "pong\n"; }
          location = /status { content_by_lua_block {
            local args = ngx.req.get_uri_args()
            local task, err = require("resty.mjhook").status(args.ref, { refresh = args.refresh == "1" })
            ngx.print(task and task.state or err.code)
          } } } }]]
    local mj = start { conf = conf }
    local task = assert(mj:submit { prompt = "a fox" })
    local function status(more)
      return (select(2, sim.request("GET", web.url .. "/status?ref=" .. task.ref .. (more or ""))))
    end
    assert.equal("pending", status())
    sim.config { callback = { drop = 1 } }
    sim.finish(task.task_id)
    assert.equal("pending", status())
    assert.equal("succeeded", status "&refresh=1")
    assert.equal("succeeded", status())
    assert.equal("not_found", (select(2, sim.request("GET", web.url .. "/status?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV"))))
  end)

  it("misuse in a request handler raises at that handler's line", function()
    local conf = [[@MAIN@ @THREADS@
      http { @HTTP@
        init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
        init_worker_by_lua_block { require("resty.mjhook").init_worker() }
        server { listen 127.0.0.1:@PORT@;
          location = /ping { return 200 "pong\n"; }
          location = /jobs { content_by_lua_block {
            local ok, err = pcall(function()
              local task = require("resty.mjhook").submit { promt = "x" }
              return task
            end)
            ngx.print(tostring(ok), " ", err)
          } } } }]]
    web = receiver.start { conf = conf }
    local _, text = sim.request("GET", web.url .. "/jobs")
    assert.matches('^false content_by_lua%(nginx.conf:%d+%):3: submit: unknown field "promt"', text)
  end)

  it("works without thread pools, and says so in the error log when it starts", function()
    local mj = start { threads = false }
    for _, pool in ipairs { "mjhook", "mjhook_http" } do
      kit.wait_until(function() return web:log():find(("no thread_pool %s in nginx.conf"):format(pool), 1, true) end)
    end
    local task = assert(mj:submit { prompt = "a fox" })
    assert.equal(200, (post(hook_of(task.task_id), success(task.task_id))))
    assert.equal("succeeded", mj:get(task.ref).state)
    local code, text = sim.request("GET", web.url .. "/jobs?prompt=x")
    assert.equal(200, code)
    assert.matches(" pending$", text)
    assert.equal(2, select(2, web:log():gsub("no thread_pool", ""))) -- once each
  end)

  it("says so when it starts and init() was not called", function()
    web = receiver.prepare()
    local conf = kit.read(web.dir .. "/nginx.conf")
    kit.write(web.dir .. "/nginx.conf", (conf:gsub("init_by_lua_block .-\n", "", 1)))
    web:start()
    assert.equal(503, (post(web.url .. "/hook?x", "{}")))
    assert.is_truthy(web:log():find("call init() in init_by_lua first", 1, true))
  end)

  describe("while the store can't be used", function()
    it("starts, answers 503 with Retry-After, and recovers by itself", function()
      local parent = kit.tmp()
      local blocked = kit.write(parent .. "/blocked", "") -- a file where the store's parent should be
      web = receiver.prepare { settings = { store = blocked .. "/store" } }
      web:start()
      local code, _, headers = post(web.url .. "/hook?x", "{}")
      assert.equal(503, code)
      assert.matches("^%d+$", headers["retry-after"])
      for _ = 1, 30 do
        assert.equal(500, (sim.request("GET", web.url .. "/jobs?prompt=x")))
      end
      kit.wait_until(function() return web:log():find("the store can't be opened", 1, true) end)
      assert.is_true(select(2, web:log():gsub("the store can't be opened", "")) <= 4) -- once a second at most
      os.remove(blocked)
      os.execute("mkdir " .. kit.quote(blocked))
      kit.wait_until(function() return (post(web.url .. "/hook?x", "{}")) == 401 end)
      assert.matches(" pending$", (select(2, sim.request("GET", web.url .. "/jobs?prompt=x"))))
    end)

    it("answers 503 after it was moved away, with another in its place or none, until it is back or nginx reloads",
      function()
        local mj = start()
        local tasks = {}
        for i = 1, 3 do
          tasks[i] = assert(mj:submit { prompt = tostring(i) })
        end
        local function say(i)
          return (post(hook_of(tasks[i].task_id), success(tasks[i].task_id)))
        end
        assert.equal(200, say(1))
        mj:close()
        local away = kit.store .. ".away"
        assert(os.rename(kit.store, away))
        assert.equal(503, say(2))
        kit.sh(("cp -R %s %s"):format(away, kit.store)) -- as a backup is put back
        assert.equal(503, say(2))
        kit.wait_until(function() return web:log():find("was moved, removed or replaced", 1, true) end)
        kit.sh(("rm -r %s"):format(kit.store))
        assert(os.rename(away, kit.store))
        assert.equal(200, say(2))
        kit.sh(("mv %s %s && cp -R %s %s"):format(kit.store, away, away, kit.store))
        kit.sh("kill -HUP " .. web:pid())
        kit.wait_until(function() return say(3) == 200 end)
        mj = kit.open()
        assert.equal(3, mj:stats().tasks.succeeded)
      end)

    it("answers 503 while the disk is full, and 200 by itself as soon as it is not", function()
      local disk = kit.tmp()
      if select(2, kit.sh(("mount -t tmpfs -o size=6m none %s"):format(disk))) ~= 0 then
        return pending "needs to mount a small file system, as root"
      end
      kit.finally(function() kit.sh("umount -l " .. disk) end)
      local mj = start { settings = { store = disk .. "/store" } }
      local tasks = {}
      for i = 1, 200 do
        tasks[i] = assert(mj:adopt { task_id = "Id" .. i, prompt = "fox" })
      end
      local function say(i)
        return (post(require("mjhook.provider").hook_url(mj, tasks[i].ref, 1), success("Id" .. i)))
      end
      assert.equal(200, say(1))
      kit.sh(("cat /dev/zero >%s/filler 2>/dev/null"):format(disk))
      local refused = {}
      for i = 2, 200 do -- some fit into pages that are free inside the store
        local code = say(i)
        assert.is_true(code == 200 or code == 503, code)
        refused[#refused + 1] = code == 503 and i or nil
      end
      assert.is_true(#refused > 0)
      assert.equal("pending", mj:get(tasks[refused[1]].ref).state)
      kit.wait_until(function() return web:log():find("not stored", 1, true) end)
      assert.equal(200, (sim.request("GET", web.url .. "/ping")))
      os.remove(disk .. "/filler")
      for _, i in ipairs(refused) do
        assert.equal(200, say(i))
      end
      assert.same({ 200, 200 }, { mj:stats().tasks.succeeded, mj:stats().events })
      assert.same({}, assert(mj:check()).problems)
    end)

    it("answers 503 when it is full, and 200 again when it is not", function()
      local mj = start { settings = { map_max = 2 ^ 20 } }
      local task = assert(mj:submit { prompt = "a fox" })
      local code
      repeat
        local _, err = mj:submit { prompt = "filler", context = ("x"):rep(60000) }
        code = err and err.code
      until code
      assert.equal("no_space", code)
      local body = success(task.task_id)
      body.data.meta = { x = ("y"):rep(60000) }
      local status, _, headers = post(hook_of(task.task_id), body)
      assert.equal(503, status)
      assert.matches("^%d+$", headers["retry-after"])
      assert.equal("pending", mj:get(task.ref).state)
      kit.wait_until(function() return web:log():find("map_max", 1, true) end)
      -- Others are still answered, and what fits is still taken.
      assert.equal(200, (sim.request("GET", web.url .. "/ping")))
      assert.equal(401, (post(web.url .. "/hook", "{}")))
    end)
  end)

  it("keeps the token out of error and access log", function()
    local mj = start()
    local task = assert(mj:submit { prompt = "a fox" })
    local url = hook_of(task.task_id)
    post(url, success(task.task_id))
    post(url, "no JSON")
    post(url .. "x", "no JSON")
    sim.request("GET", url)
    post(url, ("x"):rep(100000))
    raw(("POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"):format(url:match "^http://[^/]+(.*)$"), 0.1)
    kit.wait_until(function() return web:log():find("refused: not JSON", 1, true) end)
    local sig = url:match "sig=(.*)"
    assert.is_truthy(web:log():find(task.ref, 1, true)) -- it does say which task
    assert.is_nil(web:log():find(sig, 1, true), web:log())
    assert.is_nil(web:access_log():find(sig, 1, true))
    assert.is_nil(web:log():find(kit.SECRET, 1, true))
    assert.is_nil(web:log():find(kit.KEY, 1, true))
  end)

  it("keeps the token out of the error log when nginx itself refuses the body", function()
    local mj = start { settings = { max_body = 2 ^ 22 } }
    local task = assert(mj:submit { prompt = "a fox" })
    local url = hook_of(task.task_id)
    assert.equal(413, (post(url, ("x"):rep(2 ^ 20 + 1))))
    kit.sleep(0.1)
    assert.is_nil(web:log():find(url:match "sig=(.*)", 1, true))
  end)

  -- nginx -t runs no Lua (ngx_lua's choice), so these are found when nginx starts, or reloads.
  describe("does not start", function()
    local many_secrets = {}
    for i = 1, 17 do
      many_secrets[i] = kit.SECRET
    end
    local broken = {
      { "an unknown key", { stroe = "/x" }, "stroe: unknown key" },
      { "a bad value", { batch = "many" }, "batch: " },
      { "an http hook_url", { hook_url = "http://app.example/hook" }, "hook_url: https expected" },
      { "a policy that is not there", { policy = "/nowhere/policy.lua" }, "policy: " },
      { "more secrets than it can hold", { secrets = many_secrets }, "secrets: at most 16 secrets expected, got 17" },
    }
    for _, case in ipairs(broken) do
      it("with " .. case[1] .. ", and names it", function()
        web = receiver.prepare { settings = case[2] }
        local ok, out = pcall(web.start, web)
        assert.is_false(ok)
        out = tostring(out) .. web:log() .. kit.read(web.dir .. "/start.log")
        assert.is_truthy(out:find(case[3], 1, true), out)
        assert.is_nil(out:find(kit.SECRET, 1, true))
        assert.is_nil(core.stat(kit.store)) -- the master opens nothing
      end)
    end

    it("when init() is called twice", function()
      web = receiver.prepare()
      local conf = kit.read(web.dir .. "/nginx.conf")
      conf = conf:gsub("init_by_lua_block { (.-) }\n", "init_by_lua_block { %1 %1 }\n", 1)
      kit.write(web.dir .. "/nginx.conf", conf)
      local ok, out = pcall(web.start, web)
      assert.is_false(ok)
      out = tostring(out) .. web:log() .. kit.read(web.dir .. "/start.log")
      assert.is_truthy(out:find("init() was called before", 1, true), out)
    end)

    it("with a configuration that others can write", function()
      web = receiver.prepare()
      os.execute("chmod 666 " .. web.dir .. "/config.lua")
      local ok, out = pcall(web.start, web)
      assert.is_false(ok)
      assert.is_truthy((tostring(out) .. web:log()):find("can be written by others", 1, true), out)
    end)

    it("and when it is to reload a bad one, goes on with the good one", function()
      local mj = start()
      local task = assert(mj:submit { prompt = "a fox" })
      kit.write(web.dir .. "/config.lua", "return { stroe = '/x' }")
      kit.sh("kill -HUP " .. web:pid())
      kit.wait_until(function() return web:log():find("stroe: unknown key", 1, true) end)
      assert.equal(200, (post(hook_of(task.task_id), success(task.task_id))))
    end)

    it("but does with a good one, and the master leaves the store alone", function()
      web = receiver.prepare()
      local out, code = web:check()
      assert.equal(0, code, out)
      assert.is_nil(core.stat(kit.store))
      web:start()
      local maps = kit.sh(("grep -c data.mdb /proc/%d/maps"):format(web:pid()))
      assert.equal("0", maps)
    end)
  end)

  it("goes on through a reload", function()
    local mj = start()
    local one, two = assert(mj:submit { prompt = "1" }), assert(mj:submit { prompt = "2" })
    assert.equal(200, (post(hook_of(one.task_id), success(one.task_id))))
    kit.sh("kill -HUP " .. web:pid())
    kit.wait_until(function() return web:log():find("exited with code 0", 1, true) end)
    assert.equal(200, (post(hook_of(two.task_id), success(two.task_id))))
    assert.equal(2, mj:stats().tasks.succeeded)
  end)
end)
