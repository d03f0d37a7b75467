-- scripts/mjhook.cgi: as a program with the environment that CGI gives it, and behind busybox's httpd.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

local PROGRAM = kit.root .. "/scripts/mjhook.cgi"
-- It finds its modules by itself.
local CLEAN = "env -u LUA_PATH -u LUA_CPATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4"

local function success(task)
  return cjson.encode { status = 0, data = { taskId = task.task_id, status = 1, image = "https://img.example/x" } }
end

describe("mjhook.cgi", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj, dir, config

  -- This process and the program on one store. hook_url: where the provider is to call.
  local function open(more, hook_url)
    more = more or {}
    more.hook_url = hook_url or "http://127.0.0.1:1/cgi-bin/mjhook.cgi"
    mj = kit.open(more, sim)
    local settings = kit.settings(more, sim)
    settings.log = nil
    dir = kit.tmp()
    config = kit.write(dir .. "/config.lua", receiver.config_text(settings))
  end

  -- Writes `text` as it is, for what the pattern finds in the configuration.
  local function edit(pattern, text)
    kit.write(config, (kit.read(config):gsub(pattern, function() return text end)))
  end

  local function submit(prompt)
    local task = assert(mj:submit { prompt = prompt or "a fox" })
    local jobs = sim.jobs()
    return task, jobs[#jobs].hookUrl:match "^http://[^/]+(.*)$"
  end

  -- Runs it: the environment, what comes on standard input. Gives status, word, headers, what it said on stderr.
  -- Whatever comes out is checked to be a CGI answer, and to tell no secret.
  local function run(environment, input, program)
    local words = { CLEAN, "MJHOOK_CONFIG=" .. kit.quote(config) }
    local uri = environment.REQUEST_URI or environment.QUERY_STRING or ""
    for name, value in pairs(environment) do
      words[#words + 1] = name .. "=" .. kit.quote(value)
    end
    words[#words + 1] = kit.quote(program or PROGRAM)
    local said, code = kit.sh(("timeout 20 %s %s >%s/out 2>%s/err"):format(table.concat(words, " "),
      input or "</dev/null", dir, dir))
    assert.equal(0, code, said)
    local out, err = kit.read(dir .. "/out"), kit.read(dir .. "/err")
    local head, body = out:match "^(.-)\r\n\r\n(.*)$"
    assert.is_truthy(head, out .. err)
    assert.is_nil(head:gsub("\r\n", ""):find "[\r\n]", head)
    local status, headers = tonumber(head:match "^Status: (%d%d%d) %u[%a ]+\r\n"), {}
    for name, value in head:gmatch "\r\n([^:]+): ([^\r]*)" do
      headers[name] = value
    end
    assert.equal("application/json", headers["Content-Type"])
    assert.equal(#body, tonumber(headers["Content-Length"]))
    local sig = uri:match "sig=([^&]+)"
    for _, secret in ipairs { sig or kit.KEY, kit.KEY, kit.SECRET } do
      assert.is_nil((out .. err):find(secret, 1, true), out .. err)
    end
    return status, cjson.decode(body).status, headers, err
  end

  local function from_file(body)
    return "<" .. kit.quote(kit.write(dir .. "/body", body))
  end

  local function post(uri, body, more)
    local environment = { REQUEST_METHOD = "POST", REQUEST_URI = uri, CONTENT_LENGTH = tostring(#body),
                          REMOTE_ADDR = "127.0.0.1", GATEWAY_INTERFACE = "CGI/1.1" }
    for name, value in pairs(more or {}) do
      environment[name] = value or nil
    end
    return run(environment, from_file(body))
  end

  it("stores a callback and answers 200; the second time it is a duplicate", function()
    open()
    local task, uri = submit()
    local status, word, _, err = post(uri, success(task))
    assert.same({ 200, "stored", "" }, { status, word, err })
    task = mj:get(task.ref)
    assert.same({ "succeeded", "callback", "https://img.example/x" }, { task.state, task.source, task.image })
    status, word = post(uri, success(task))
    assert.same({ 200, "duplicate" }, { status, word })
    assert.equal(1, mj:stats().events)
  end)

  it("reads the token from QUERY_STRING where the server gives no REQUEST_URI, or one without its query", function()
    open()
    for _, given in ipairs { false, "/cgi-bin/mjhook.cgi" } do
      local task, uri = submit()
      local status = post(uri, success(task), { REQUEST_URI = given, SCRIPT_NAME = "/cgi-bin/mjhook.cgi",
                                                QUERY_STRING = uri:match "%?(.*)" })
      assert.equal(200, status)
      assert.equal("succeeded", mj:get(task.ref).state)
    end
  end)

  it("goes by REQUEST_URI, not by a query that the server has rewritten", function()
    open()
    local task, uri = submit()
    assert.equal(200, (post(uri, success(task), { QUERY_STRING = "page=1", PATH_INFO = "/x" })))
  end)

  it("stores what many processes are handed at once, each once", function()
    open { max_in_flight = 100 }
    sim.config { limit = 0 }
    local n, commands = 12, {}
    for i = 1, n do
      local task, uri = submit("fox " .. i)
      local body = kit.write(("%s/body%d"):format(dir, i), success(task))
      commands[i] = ("MJHOOK_CONFIG=%s REQUEST_METHOD=POST REQUEST_URI=%s CONTENT_LENGTH=%d %s %s <%s &"):format(
        kit.quote(config), kit.quote(uri), #success(task), CLEAN, kit.quote(PROGRAM), body)
    end
    local out = kit.sh(table.concat(commands, "\n") .. "\nwait")
    assert.equal(n, select(2, out:gsub("Status: 200 OK", "")), out)
    assert.same({ n, n }, { mj:stats().tasks.succeeded, mj:stats().events })
  end)

  describe("refuses, without reading a body,", function()
    -- Standard input is open and silent: a read would wait until the run is cut off.
    local function refused(change, more)
      open(more)
      local task, uri = submit()
      local environment = {
        REQUEST_METHOD = "POST", REQUEST_URI = uri, CONTENT_LENGTH = "100", REMOTE_ADDR = "192.0.2.1",
      }
      change(environment)
      kit.sh(("mkfifo %s/silent"):format(dir))
      local status, _, headers = run(environment, ("<>%s/silent"):format(dir))
      assert.equal("pending", mj:get(task.ref).state)
      return status, headers
    end

    for _, method in ipairs { "GET", "HEAD", "PUT", "" } do
      it((method == "" and "no method" or method) .. " with 405", function()
        local status, headers = refused(function(environment) environment.REQUEST_METHOD = method end)
        assert.same({ 405, "POST" }, { status, headers.Allow })
      end)
    end

    it("a bad token with 401", function()
      assert.equal(401, (refused(function(environment) environment.REQUEST_URI = environment.REQUEST_URI .. "x" end)))
    end)

    it("a bad token with 401, also when the body comes in chunks", function()
      assert.equal(401, (refused(function(environment)
        environment.REQUEST_URI = environment.REQUEST_URI .. "x"
        environment.CONTENT_LENGTH, environment.HTTP_TRANSFER_ENCODING = nil, "chunked"
      end)))
    end)

    it("no token with 401", function()
      assert.equal(401, (refused(function(environment) environment.REQUEST_URI = nil end)))
    end)

    it("an address outside of allow_cidr with 401, also one that says it speaks for another", function()
      assert.equal(401, (refused(function(environment)
        environment.HTTP_X_FORWARDED_FOR = "198.51.100.1"
      end, { allow_cidr = { "198.51.100.0/24" } })))
    end)

    it("a length over max_body with 413", function()
      assert.equal(413, (refused(function(environment)
        environment.CONTENT_LENGTH = "2001"
      end, { max_body = 2000 })))
    end)

    it("a length beyond all numbers with 413", function()
      assert.equal(413, (refused(function(environment) environment.CONTENT_LENGTH = ("9"):rep(400) end)))
    end)

    for _, length in ipairs { "", "-1", "1e2", "0x10", " 5", "two" } do
      it(("%q for a length with 411"):format(length), function()
        assert.equal(411, (refused(function(environment) environment.CONTENT_LENGTH = length end)))
      end)
    end

    it("no length at all with 411", function()
      assert.equal(411, (refused(function(environment) environment.CONTENT_LENGTH = nil end)))
    end)
  end)

  it("takes a caller in allow_cidr that a trusted proxy speaks for", function()
    open { allow_cidr = { "198.51.100.0/24" }, trusted_proxies = { "192.0.2.1" } }
    local task, uri = submit()
    local body = success(task)
    local through = { REMOTE_ADDR = "192.0.2.1", HTTP_X_FORWARDED_FOR = "198.51.100.7" }
    assert.equal(200, (post(uri, body, through)))
    through.HTTP_X_FORWARDED_FOR = "203.0.113.7"
    assert.equal(401, (post(uri, body, through)))
  end)

  it("does not accept a body that ends before its length, even if what came makes sense", function()
    open()
    local task, uri = submit()
    for _, body in ipairs { success(task), success(task):sub(1, 20), "" } do
      local status, word, _, err = post(uri, body, { CONTENT_LENGTH = tostring(#success(task) + 1) })
      assert.same({ 400, "incomplete" }, { status, word })
      assert.is_truthy(err:find(task.ref, 1, true), err)
    end
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("reads not a byte beyond the body's length", function()
    open()
    local task, uri = submit()
    local file = kit.write(dir .. "/both", success(task) .. "POST /next")
    local command = ("%s MJHOOK_CONFIG=%s REQUEST_METHOD=POST REQUEST_URI=%s CONTENT_LENGTH=%d %s"):format(CLEAN,
      kit.quote(config), kit.quote(uri), #success(task), kit.quote(PROGRAM))
    local out = kit.sh(("cat %s | { %s; echo; cat; }"):format(file, command))
    assert.matches("^Status: 200 OK\r\n", out)
    assert.matches("\nPOST /next$", out)
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("reads a body that came in chunks to its end, or to one byte over max_body", function()
    open { max_body = 2000 }
    local task, uri = submit()
    local chunked = { CONTENT_LENGTH = false, HTTP_TRANSFER_ENCODING = "chunked" }
    assert.equal(400, (post(uri, success(task):sub(1, -2), chunked)))
    assert.equal(400, (post(uri, "", chunked)))
    local command = ("%s MJHOOK_CONFIG=%s REQUEST_METHOD=POST REQUEST_URI=%s HTTP_TRANSFER_ENCODING=chunked %s"):format(
      CLEAN, kit.quote(config), kit.quote(uri), kit.quote(PROGRAM))
    local flood = kit.write(dir .. "/flood", ("x"):rep(5000))
    local out = kit.sh(("cat %s | { %s 2>/dev/null; wc -c; }"):format(flood, command))
    assert.matches("^Status: 413 Content Too Large\r\n.*\n2999$", out)
    assert.equal("pending", mj:get(task.ref).state)
    assert.equal(200, (post(uri, success(task), chunked)))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("takes a body of exactly max_body", function()
    open { max_body = 2000 }
    local task, uri = submit()
    local body = success(task)
    assert.equal(200, (post(uri, body .. (" "):rep(2000 - #body))))
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("answers 400 to what is no JSON, and says of which task in the server's log", function()
    open()
    local task, uri = submit()
    for _, body in ipairs { "", "success", "{}", ("["):rep(5000), "\0\255" } do
      local status, _, _, err = post(uri, body)
      assert.equal(400, status)
      assert.is_truthy(err:find(task.ref, 1, true), err)
    end
    assert.equal("pending", mj:get(task.ref).state)
  end)

  it("hands the server's log whole lines: Apache makes an entry of every write", function()
    open()
    local _, uri = submit()
    local environment = ("%s MJHOOK_CONFIG=%s REQUEST_METHOD=POST REQUEST_URI=%s CONTENT_LENGTH=2"):format(CLEAN,
      kit.quote(config), kit.quote(uri))
    local out = kit.sh(("%s python3 -c '%s' %s"):format(environment, [[if True:
        import socket, subprocess, sys
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        subprocess.run(sys.argv[1:], input=b"[]", stdout=subprocess.DEVNULL, stderr=far)
        far.close()
        near.settimeout(1)
        while True:
            print(near.recv(9999)) # what one write wrote
      ]], kit.quote(PROGRAM)))
    assert.matches("^b'mjhook: warn: callback for [^\n]+\\n'\n", out)
  end)

  it("keeps its answer whole when a policy prints", function()
    open()
    local policy = kit.write(dir .. "/policy.lua", [[
      print "loaded"
      return { on_callback = function(task, word) print(task.ref, word.kind) io.write "written\n" return "accept" end }
    ]])
    edit("}%s*$", ("policy = %q }"):format(policy))
    local task, uri = submit()
    local status, _, _, err = post(uri, success(task))
    assert.equal(200, status)
    assert.equal(("loaded\n%s\tsucceeded\nwritten\n"):format(task.ref), err)
  end)

  describe("answers 503 with Retry-After and tells the server's log why,", function()
    local function unavailable(reason, prepare, more)
      it("when " .. reason, function()
        open()
        local task, uri = submit()
        local says, program = prepare(task)
        local environment = { REQUEST_METHOD = "POST", REQUEST_URI = uri, CONTENT_LENGTH = tostring(#success(task)) }
        for name, value in pairs(more or {}) do
          environment[name] = value
        end
        local status, word, headers, err = run(environment, from_file(success(task)), program)
        assert.same({ 503, "unavailable" }, { status, word })
        assert.matches("^%d+$", headers["Retry-After"])
        assert.is_truthy(err:find(says, 1, true), err)
        assert.matches("^[^\n]+\n$", err) -- a line, not a traceback
        assert.equal("pending", mj:get(task.ref).state)
      end)
    end

    unavailable("the configuration has an unknown key", function()
      kit.write(config, ("return { stroe = %q, secrets = { %q } }"):format(kit.store, kit.SECRET))
      return "stroe: unknown key"
    end)
    unavailable("the configuration is no Lua", function()
      kit.write(config, ("return { secrets = { %q } "):format(kit.SECRET))
      return config
    end)
    unavailable("the configuration is not there", function()
      os.remove(config)
      return config
    end)
    unavailable("others can write the configuration", function()
      kit.sh("chmod 666 " .. config)
      return "can be written by others"
    end)
    unavailable("the policy raises", function()
      edit("}%s*$", ("policy = %q }"):format(kit.write(dir .. "/policy.lua", "error 'no way'")))
      return "no way"
    end)
    unavailable("there is no store, and makes none", function()
      local place = dir .. "/elsewhere"
      kit.finally(function() assert(not core.stat(place)) end)
      edit('store = "[^"]*"', ("store = %q"):format(place))
      return "there is none in " .. place
    end)
    unavailable("its modules can't be found", function()
      kit.sh(("cp %s %s/mjhook.cgi"):format(PROGRAM, dir))
      return "module 'mjhook' not found", dir .. "/mjhook.cgi"
    end)
    unavailable("its C module can't be loaded", function()
      return "mjhook.core"
    end, { MJHOOK_BUILD = "/nowhere" })

    it("when the store is full", function()
      open { map_max = 2 ^ 20 }
      local task, uri = submit()
      local code
      repeat
        local _, err = mj:submit { prompt = "filler", context = ("x"):rep(60000) }
        code = err and err.code
      until code
      assert.equal("no_space", code)
      local body = cjson.encode { taskId = task.task_id, status = 2, meta = { x = ("y"):rep(60000) } }
      local status, _, headers, err = post(uri, body)
      assert.equal(503, status)
      assert.matches("^%d+$", headers["Retry-After"])
      assert.is_truthy(err:find(task.ref, 1, true), err)
      assert.equal("pending", mj:get(task.ref).state)
    end)
  end)

  describe("finds its modules", function()
    local function works(program, more)
      local task, uri = submit()
      local environment = { REQUEST_METHOD = "POST", REQUEST_URI = uri, CONTENT_LENGTH = tostring(#success(task)) }
      for name, value in pairs(more or {}) do
        environment[name] = value
      end
      local status, _, _, err = run(environment, from_file(success(task)), program)
      assert.equal(200, status, err)
    end

    it("through a link to it", function()
      open()
      kit.sh(("mkdir '%s/cgi bin' && ln -s %s '%s/cgi bin/it'\\''s.cgi'"):format(dir, PROGRAM, dir))
      works(dir .. "/cgi bin/it's.cgi")
    end)

    it("by LUA_PATH, wherever it was copied", function()
      open()
      kit.sh(("cp %s %s/mjhook.cgi"):format(PROGRAM, dir))
      works(dir .. "/mjhook.cgi", { LUA_PATH = kit.root .. "/lua/?.lua;;", LUA_CPATH = kit.build .. "/5.4/?.so;;" })
    end)

    it("beside the bin directory of an installation", function()
      open()
      local prefix = dir .. "/prefix"
      kit.sh(("mkdir -p %s/bin %s/share/lua %s/lib/lua && cp %s %s/bin && ln -s %s/lua %s/share/lua/5.4 && "
        .. "ln -s %s/5.4 %s/lib/lua/5.4"):format(prefix, prefix, prefix, PROGRAM, prefix, kit.root, prefix,
        kit.build, prefix))
      works(prefix .. "/bin/mjhook.cgi", { MJHOOK_BUILD = "/nowhere" })
    end)
  end)

  describe("behind busybox's httpd", function()
    local port, httpd

    -- On a port that was free a moment ago: another one if somebody was quicker.
    local function start(more)
      open(more, "http://127.0.0.1:0/cgi-bin/mjhook.cgi")
      kit.sh(("mkdir %s/cgi-bin && ln -s %s %s/cgi-bin/mjhook.cgi"):format(dir, PROGRAM, dir))
      for _ = 1, 5 do
        local free = assert(socket.bind("127.0.0.1", 0))
        port = select(2, free:getsockname())
        free:close()
        httpd = kit.spawn(("exec %s MJHOOK_CONFIG=%s busybox httpd -f -p 127.0.0.1:%d -h %s"):format(
          CLEAN, config, port, dir))
        local home = ("http://127.0.0.1:%d/"):format(port)
        kit.wait_until(function() return httpd:status() or (sim.request("GET", home)) end)
        if not httpd:status() then
          break
        end
      end
      assert.is_nil(httpd:status(), httpd:err())
      mj.config.hook_url = ("http://127.0.0.1:%d/cgi-bin/mjhook.cgi"):format(port)
    end

    local function request(method, uri, body)
      return sim.request(method, ("http://127.0.0.1:%d%s"):format(port, uri), body)
    end

    it("stores what the provider sends, in every format, twice or in a rush", function()
      start { max_in_flight = 100 }
      sim.config { limit = 0, callback_format = "mixed", callback = { double = 0.3 } }
      for i = 1, 20 do
        assert(mj:submit { prompt = ("fox %d [ms=300]"):format(i) })
      end
      kit.wait_until(function() return mj:stats().tasks.succeeded == 20 end)
      assert.equal(20, mj:stats().events)
      kit.wait_until(function()
        local c = sim.counters().callbacks
        return c.ok == c.sent and c.ok >= 20
      end)
    end)

    it("gives its status on, with its headers", function()
      start { max_body = 2000 }
      local task, uri = submit()
      local code, text, headers = request("POST", uri, success(task))
      assert.same({ 200, '{"status":"stored"}\n' }, { code, text })
      assert.equal("application/json", headers["content-type"])
      assert.equal(200, (request("POST", uri, success(task))))
      assert.equal(401, (request("POST", uri .. "x", success(task))))
      assert.equal(400, (request("POST", uri, "success")))
      assert.equal(413, (request("POST", uri, ("x"):rep(2001))))
      code, text, headers = request("GET", uri)
      assert.equal('{"status":"method_not_allowed"}\n', text)
      assert.same({ 405, "POST" }, { code, headers.allow })
      kit.write(config, "return { stroe = '/x' }")
      code, text, headers = request("POST", uri, success(task))
      assert.same({ 503, '{"status":"unavailable"}\n' }, { code, text })
      assert.matches("^%d+$", headers["retry-after"])
      kit.wait_until(function() return httpd:err():find("stroe: unknown key", 1, true) end)
    end)

    it("does not store what a client broke off, and goes on with the next", function()
      start()
      local task, uri = submit()
      local body = success(task)
      local client = assert(socket.connect("127.0.0.1", port))
      client:send(("POST %s HTTP/1.0\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s"):format(uri, #body + 10, body))
      client:close()
      kit.wait_until(function() return httpd:err():find("bytes came", 1, true) end)
      assert.equal("pending", mj:get(task.ref).state)
      assert.is_nil(httpd:err():find(uri:match "sig=(.*)", 1, true))
      assert.equal(200, (request("POST", uri, body)))
      assert.equal("succeeded", mj:get(task.ref).state)
    end)
  end)
end)
