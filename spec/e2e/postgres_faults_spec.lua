-- A store on a PostgreSQL server that hangs, has no room, refuses, is read-only, has moved or lost an answer: what
-- nginx, the tools and the reconciler do and say, and that all goes on afterwards.
local cjson = require "cjson"
local kit = require "kit"
local peer = require "peer"
local pg = require "pg"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

if not pg.found() then
  describe("a store on a PostgreSQL server with faults", function()
    pending "needs PostgreSQL's server programs and libpq: apt-get install postgresql libpq-dev, then make"
  end)
  return
end

local CONNECT_S, ANSWER_MS = 2, 1500 -- less than by default, so that specs need not wait as long
local TIMES = ("&connect_timeout=%d&tcp_user_timeout=%d"):format(CONNECT_S, ANSWER_MS)
local THREADS = [[
thread_pool mjhook threads=2;
thread_pool mjhook_read threads=1;
thread_pool mjhook_http threads=2;
]]

describe("a store on a PostgreSQL server with faults", function()
  local dir, schema, web, count = nil, nil, nil, 0

  setup(function()
    sim.start()
    pg.start("synchronous_commit=on", "max_connections=24", "superuser_reserved_connections=3")
  end)
  teardown(function()
    pg.stop()
    sim.stop()
  end)
  before_each(function()
    sim.reset()
    dir = kit.tmp()
    count = count + 1
    schema = "mj" .. count
    web = nil
  end)
  after_each(kit.cleanup)

  local function configure(url, more)
    local settings = { store = url or pg.url .. TIMES, store_schema = schema, api_key = kit.KEY, base_url = sim.url }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    kit.write(dir .. "/config.lua", receiver.config_text(settings))
  end

  local function mjhook(words) return pg.mjhook(dir, words) end
  local function reconcile(words) return pg.reconcile(dir, words) end

  -- nginx, and the tools with its configuration.
  local function serve(url)
    web = receiver.start { threads = THREADS, settings = { store = url or pg.url .. TIMES, store_schema = schema,
                                                           base_url = sim.url, api_key = kit.KEY } }
    configure(url, { hook_url = web.url .. "/hook", secrets = { kit.SECRET } })
    return web
  end

  local function submit(prompt, key)
    local out, code = mjhook(("--json submit --key %s %s"):format(key or "k", kit.quote(prompt or "a fox")))
    assert.equal(0, code, out)
    return cjson.decode(out)
  end

  local function body_of(task_id, more)
    return cjson.encode { taskId = task_id, status = 1, image = "https://img.example/x.png", meta = more }
  end

  local function hook_of(task_id)
    for _, job in ipairs(sim.jobs()) do
      if job.taskId == task_id then
        return job.hookUrl
      end
    end
  end

  local function post(task_id, more)
    return sim.request("POST", hook_of(task_id), body_of(task_id, more), { ["content-type"] = "application/json" })
  end

  -- Sends a callback and does not wait for its answer.
  local function begin_post(task_id)
    local client, text = assert(socket.connect("127.0.0.1", web.port)), body_of(task_id)
    client:settimeout(30)
    client:send(("POST %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s"):format(
      hook_of(task_id):match "^http://[^/]+(/.*)$", #text, text))
    return client
  end

  local function answer_of(client)
    local text = client:receive "*a" or ""
    client:close()
    return tonumber(text:match "^HTTP/1.1 (%d+)"), text
  end

  local function ping()
    local begun = socket.gettime()
    assert.equal(200, (sim.request("GET", web.url .. "/ping")))
    assert.is_true(socket.gettime() - begun < 0.5)
  end

  local function state()
    return (pg.sql(("SELECT string_agg(state, ' ' ORDER BY ref) FROM %s.tasks"):format(schema)))
  end

  -- What tools say that write (and, if they can't either, those that read): not 0, each of the words, in time.
  local function says(words, within, ...)
    for _, command in ipairs { "submit --key x 'a wolf'", ... } do
      local begun = socket.gettime()
      local out, code = mjhook(command)
      local took = socket.gettime() - begun
      assert.not_equal(0, code, command .. ": " .. out)
      assert.is_true(took < within, ("%s took %.1f s: %s"):format(command, took, out))
      for _, word in ipairs(words) do
        assert.truthy(out:find(word, 1, true), ("%s: no %q in: %s"):format(command, word, out))
      end
      assert.is_nil(out:find("hush", 1, true), out)
    end
  end

  describe("that hangs", function()
    it("answers 503 meanwhile, holds nothing else up, and goes on when the server does", function()
      serve()
      local one, two = submit("one", "1"), submit("two", "2")
      assert.equal(200, (post(one.task_id)))
      pg.freeze()
      local begun = socket.gettime()
      local client = begin_post(two.task_id)
      for _ = 1, 5 do
        ping()
      end
      says({ "the host does not answer" }, CONNECT_S + 1, "stats")
      ping()
      local status, text = answer_of(client)
      assert.equal(503, status)
      assert.matches("[Rr]etry%-[Aa]fter: %d+", text)
      -- its own round trip, and the look whether it was stored
      assert.is_true(socket.gettime() - begun < 3 * ANSWER_MS / 1000 + 2 * CONNECT_S, socket.gettime() - begun)
      pg.thaw()
      kit.wait_until(function() return (post(two.task_id)) == 200 end, 15)
      assert.equal("succeeded succeeded", state())
      assert.equal(0, select(2, mjhook "check"))
      assert.equal(2, sim.requests "submit")
    end)

    it("answers 503 while a transaction of another program holds the tables, and says so", function()
      serve()
      local task = submit()
      local session = pg.session()
      session.send(("BEGIN; LOCK TABLE %s.task IN ACCESS EXCLUSIVE MODE"):format(schema))
      local client = begin_post(task.task_id)
      local out, code = mjhook "submit 'a hare'"
      assert.not_equal(0, code, out)
      assert.matches("another transaction holds what this one needs", out, 1, true)
      ping()
      assert.equal(503, (answer_of(client)))
      session.send "COMMIT"
      kit.wait_until(function() return (post(task.task_id)) == 200 end, 15)
      assert.equal("succeeded", state())
    end)
  end)

  describe("whose disk is full", function()
    it("answers 503 and says so, sends nothing, and goes on when there is room", function()
      local disk = dir .. "/disk"
      if select(2, kit.sh(("mkdir %s && chmod 711 %s && mount -t tmpfs -osize=16m none %s && chown --reference=%s/data "
        .. "%s"):format(disk, dir, disk, pg.dir, disk))) ~= 0 then
        return pending "no right to mount"
      end
      kit.finally(function()
        pg.sql "DROP DATABASE IF EXISTS small WITH (FORCE)"
        pg.sql "DROP TABLESPACE IF EXISTS small"
        kit.sh("umount " .. disk)
      end)
      local out, code = pg.sql(("CREATE TABLESPACE small LOCATION '%s'"):format(disk))
      assert.equal(0, code, out)
      out, code = pg.sql "CREATE DATABASE small TABLESPACE small TEMPLATE template0"
      assert.equal(0, code, out)
      local url = pg.url:gsub("/postgres%?", "/small?")
      serve(url .. TIMES)
      local task = submit()
      out = pg.sql("CREATE TABLE filler AS SELECT repeat('x', 1000) FROM generate_series(1, 3000)", url)
      for _ = 1, 30 do -- until not one page is left
        out = pg.sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 300)", url)
      end
      for _ = 1, 30 do
        out = pg.sql("INSERT INTO filler VALUES (repeat('x', 1000))", url)
      end
      assert.matches("No space left on device", out, 1, true)
      local noise = {} -- that no compression makes small
      for i = 1, 3000 do
        noise[i] = string.char(math.random(97, 122), math.random(97, 122), math.random(48, 57))
      end
      noise = table.concat(noise)
      out, code = mjhook(("submit --context %s 'a hare'"):format(kit.quote(cjson.encode { noise = noise })))
      assert.not_equal(0, code, out)
      assert.matches("its disk is full: make room", out, 1, true)
      assert.equal(1, sim.requests "submit")
      local status, _, headers = post(task.task_id, { noise = noise })
      assert.equal(503, status)
      assert.matches("^%d+$", headers["retry-after"])
      ping()
      pg.sql("DROP TABLE filler", url)
      kit.wait_until(function() return (post(task.task_id, { noise = noise })) == 200 end, 15)
      assert.equal("succeeded", (pg.sql(("SELECT state FROM %s.tasks"):format(schema), url)))
      assert.equal(0, select(2, mjhook "check"))
    end)
  end)

  describe("without room for a connection", function()
    it("answers 503 and says so, and goes on when a connection is free", function()
      pg.sql "DROP ROLE IF EXISTS plain; CREATE ROLE plain LOGIN"
      pg.sql(("CREATE SCHEMA %s AUTHORIZATION plain"):format(schema))
      serve((pg.url:gsub("mjhook@", "plain@") .. TIMES))
      local task = submit()
      local sessions = {}
      for i = 1, 21 do
        sessions[i] = pg.session()
      end
      pg.sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'plain'"
      for i = 22, 30 do
        sessions[i] = pg.session()
      end
      kit.wait_until(function() return (post(task.task_id)) == 503 end)
      ping()
      says({ "raise max_connections" }, CONNECT_S + 1, "migrate", "stats")
      for _, session in ipairs(sessions) do
        session.close()
      end
      kit.wait_until(function() return (post(task.task_id)) == 200 end, 15)
      assert.equal("succeeded", state())
    end)
  end)

  it("says which encoding a database has to have", function()
    for _, encoding in ipairs { "LATIN1", "SQL_ASCII" } do
      local out, code = pg.sql(("CREATE DATABASE e_%s ENCODING '%s' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
        :format(encoding:lower(), encoding))
      assert.equal(0, code, out)
      configure((pg.url:gsub("/postgres%?", "/e_" .. encoding:lower() .. "?")))
      says({ "has the encoding " .. encoding, "createdb -E UTF8" }, CONNECT_S, "migrate", "stats")
    end
  end)

  -- A server's first words, by the protocol's letters, and its answer to SHOW transaction_read_only.
  local function message(letter, text)
    return letter .. ("\0\0%s%s"):format(string.char(math.floor((#text + 4) / 256), (#text + 4) % 256), text)
  end

  it("says that a server is too old", function()
    local server = peer.start { {
      { "read", "\0\0" },
      { "send", message("R", "\0\0\0\0") .. message("S", "server_version\0" .. "10.23\0")
          .. message("S", "server_encoding\0UTF8\0") .. message("Z", "I") },
      { "read", "transaction_read_only\0" },
      { "send",
        message("T", "\0\1transaction_read_only\0\0\0\0\0\0\0\0\0\0\25\255\255\255\255\255\255\0\0")
          .. message("D", "\0\1\0\0\0\3off") .. message("C", "SHOW\0") .. message("Z", "I") },
      { "hang" },
    } }
    configure(("postgresql://me:hush@127.0.0.1:%d/app?sslmode=disable&gssencmode=disable"):format(server.port))
    says({ "PostgreSQL 10 is too old: 12 or newer is needed" }, CONNECT_S)
  end)

  it("says what is wrong with who connects, and how to mend it", function()
    local hba = pg.dir .. "/data/pg_hba.conf"
    local before = kit.read(hba)
    kit.finally(function()
      pg.hba(before)
    end)
    pg.sql "CREATE ROLE locked LOGIN PASSWORD 'right'; CREATE ROLE shut LOGIN; CREATE DATABASE closed"
    pg.sql "CREATE ROLE apart LOGIN; REVOKE CONNECT ON DATABASE closed FROM PUBLIC"
    pg.hba("local all locked scram-sha-256\nlocal all shut reject\n" .. before)
    local function url(user, more)
      return (pg.url:gsub("mjhook@", user .. "@")) .. (more or "")
    end
    for where, words in pairs {
      [url "locked:hush"] = { "password authentication failed", "give the right password", "~/.pgpass" },
      [url "locked"] = { "no password supplied", "give a password" },
      [url "shut"] = { "pg_hba.conf" },
      [url "nobody_here"] = { '"nobody_here" does not exist', "create that user" },
      [url("apart"):gsub("/postgres%?", "/closed?")] = { "permission denied", "GRANT CONNECT" },
      [url("mjhook"):gsub("/postgres%?", "/nosuch?")] = { '"nosuch" does not exist', "createdb" },
      [url("mjhook", "&sslmode=require&host=127.0.0.1&port=1")] = { "refused", "start the server" },
      ["postgresql://me:hush@nosuch.invalid/app"] = { "nosuch.invalid", "as DNS knows it" },
      ["postgresql://me:hush@" .. pg.dir:gsub("/", "%%2F") .. "x/app"] = { "start the server" },
    } do
      configure(where)
      says(words, CONNECT_S + 1, "migrate", "stats")
    end
    configure(url "locked:right")
    pg.sql(("CREATE SCHEMA %s AUTHORIZATION locked"):format(schema))
    submit()
  end)

  it("works with the rights that the guide lists, without those to make tables, and says which are missing", function()
    local guide = kit.read(kit.root .. "/scripts/doc/guides/postgresql.md")
    local grants = assert(guide:match "may not create tables[^\n]*\n\n```sql\n(.-)```")
    configure()
    assert.equal(0, select(2, mjhook "migrate"))
    pg.sql "CREATE ROLE worker LOGIN"
    configure((pg.url:gsub("mjhook@", "worker@")))
    says({ "GRANT" }, CONNECT_S)
    local out, code = pg.sql((grants:gsub("SCHEMA mjhook", "SCHEMA " .. schema):gsub("TO mjhook", "TO worker")))
    assert.equal(0, code, out)
    submit("one", "1")
    pg.sql(("SELECT %s.enqueue('two')"):format(schema))
    for _, job in ipairs(sim.jobs()) do
      sim.finish(job.taskId)
    end
    out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal(2, sim.requests "submit")
    for _, words in ipairs { "check", "doctor --json", "stats", "list", "migrate", "prune --older-than 0" } do
      out, code = mjhook(words)
      assert.is_nil(out:find("permission denied", 1, true), words .. ": " .. out)
      assert.is_true(code == 0 or words:match "^doctor" ~= nil, words .. ": " .. out)
    end
  end)

  describe("that takes no writes", function()
    it("says so of a database, a role or a server that is read-only", function()
      pg.sql "CREATE DATABASE still; ALTER DATABASE still SET default_transaction_read_only = on"
      configure((pg.url:gsub("/postgres%?", "/still?")))
      says({ "read-only", "name the primary" }, CONNECT_S, "migrate", "stats")
      configure((pg.url:gsub("/postgres%?", "/still?")) .. "&target_session_attrs=any")
      says({ "read-only", "connect to the primary" }, CONNECT_S, "migrate")
    end)

    it("answers 503 while the server is a standby, says so, and goes on when it is promoted", function()
      serve()
      local task = submit()
      pg.halt()
      kit.sh(("touch %s/data/standby.signal"):format(pg.dir))
      kit.finally(pg.promote)
      pg.restart()
      local status, _, headers = post(task.task_id)
      assert.equal(503, status)
      assert.matches("^%d+$", headers["retry-after"])
      ping()
      says({ "name the primary" }, CONNECT_S, "migrate", "stats")
      configure(pg.url .. TIMES .. "&target_session_attrs=any", { hook_url = web.url .. "/hook",
                                                                  secrets = { kit.SECRET } })
      says({ "it is a replica" }, CONNECT_S)
      pg.promote()
      kit.wait_until(function() return (post(task.task_id)) == 200 end, 15)
      assert.equal("succeeded", state())
      assert.equal(1, sim.requests "submit")
    end)
  end)

  describe("that has moved", function()
    it("is found at another of the hosts that the URL names", function()
      local old, new = dir .. "/old", dir .. "/new"
      kit.sh(("mkdir %s; chmod 711 %s; ln -s %s %s"):format(new, dir, pg.dir, old))
      local hosts = "host=" .. (old .. "," .. new):gsub("/", "%%2F")
      serve("postgresql://mjhook@/postgres?" .. hosts .. TIMES)
      local task = submit()
      kit.sh(("rm %s; rmdir %s; ln -s %s %s"):format(old, new, pg.dir, new))
      pg.sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'mjhook'"
      kit.wait_until(function() return (post(task.task_id)) == 200 end, 15)
      assert.equal(0, select(2, mjhook "stats"))
    end)

    it("is found where DNS says that it is now", function()
      local port = receiver.free_port()
      pg.halt()
      kit.sh(("cp %s/data/postgresql.conf %s/before; printf \"listen_addresses = '127.0.0.2,127.0.0.3'\\nport = %d\\n\""
        .. " >>%s/data/postgresql.conf"):format(pg.dir, dir, port, pg.dir))
      kit.finally(function()
        pg.halt()
        kit.sh(("cat %s/before >%s/data/postgresql.conf"):format(dir, pg.dir))
        pg.restart()
      end)
      pg.restart()
      local hosts = kit.write(dir .. "/hosts", "127.0.0.2 db.example\n")
      kit.sh("chmod 644 " .. hosts)
      if select(2, kit.sh("unshare --mount true")) ~= 0 then
        return pending "no right to make namespaces"
      end
      configure(("postgresql://mjhook@db.example:%d/postgres?connect_timeout=2"):format(port))
      -- A program that lasts: it submits a job for each file.
      local jobs = kit.spawn(("exec unshare --mount sh -c 'mount --bind %s /etc/hosts && exec \"$@\"' sh %s"):format(
        hosts, kit.lua_command(([[
          local mj = assert(require("mjhook").open { config = %q })
          for n = 1, 2 do
            repeat
              os.execute "sleep 0.02"
            until io.open(%q .. n)
            local task, err = mj:submit { prompt = "job " .. n }
            print(n, task and task.state or err.message)
            io.stdout:flush()
          end]]):format(dir .. "/config.lua", dir .. "/go"))))
      kit.write(dir .. "/go1", "")
      kit.wait_until(function() return jobs:out():find "1\tpending" end)
      kit.sh(("printf '127.0.0.3 db.example\\n' >%s"):format(hosts))
      local out = kit.sh(("psql -X -A -t -h %s -p %d -U mjhook postgres -c %s"):format(pg.dir, port, kit.quote(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'mjhook'")))
      assert.equal("1", out)
      kit.write(dir .. "/go2", "")
      kit.wait_until(function() return jobs:out():find "2\tpending" end)
    end)
  end)

  -- A proxy that loses a COMMIT, or its answer, and then takes no connection: nothing shows whether it was stored.
  describe("that can't be asked whether it stored a batch", function()
    local at

    local function proxied()
      at = dir .. "/proxy"
      kit.sh(("mkdir %s; printf pass >%s/mode"):format(at, at))
      kit.spawn(("exec python3 %s/spec/support/pg_proxy.py %s %s/.s.PGSQL.5432"):format(kit.root, at, pg.dir))
      kit.wait_until(function() return kit.sh("test -S " .. at .. "/.s.PGSQL.5432 && echo yes") == "yes" end)
      return ("postgresql://mjhook@/postgres?host=%s"):format(at:gsub("/", "%%2F"))
        .. "&connect_timeout=2&tcp_user_timeout=700"
    end

    local function mode(text)
      kit.write(at .. "/mode.new", text)
      os.rename(at .. "/mode.new", at .. "/mode")
    end

    for how, stored in pairs { cut = false, lose = true } do
      local was = stored and "it was stored" or "it was not stored"

      it("answers 503 to a callback, and stores it once when it comes again: " .. was, function()
        configure()
        assert.equal(0, select(2, mjhook "migrate"))
        serve(proxied())
        local task = submit()
        assert.equal(401, (sim.request("POST", web.url .. "/hook", "{}"))) -- nginx is there
        mode(how .. " 1")
        local status, text = answer_of(begin_post(task.task_id))
        assert.equal("away", kit.read(at .. "/mode"))
        assert.equal(503, status, text)
        ping()
        assert.equal(stored and "succeeded" or "pending", state())
        mode "pass"
        kit.wait_until(function()
          status, text = answer_of(begin_post(task.task_id))
          return status == 200
        end, 15)
        assert.matches(stored and "duplicate" or "stored", text)
        assert.equal("succeeded|1", (pg.sql(("SELECT state, (SELECT count(*) FROM %s.events) FROM %s.tasks"):format(
          schema, schema))))
        assert.equal(1, sim.requests "submit")
        assert.equal(0, select(2, mjhook "check"))
      end)

      it("sends nothing for a submission, and not twice when it is made again: " .. was, function()
        configure()
        assert.equal(0, select(2, mjhook "migrate"))
        configure(proxied())
        mode(how .. " 1")
        local out, code = mjhook "submit --key k 'a fox'"
        assert.not_equal(0, code, out)
        assert.matches("the batch is stored as a whole, or nothing of it", out, 1, true)
        assert.equal(0, sim.requests "submit")
        assert.equal(stored and "submitting" or "", state())
        mode "pass"
        mjhook "submit --key k 'a fox'"
        assert.equal(stored and 0 or 1, sim.requests "submit")
        reconcile()
        assert.equal(stored and "ambiguous" or "pending", state()) -- its sender has ended
        assert.equal(stored and 0 or 1, sim.requests "submit")
      end)

      -- What was stored is what could be sent twice; make chaos loses the others, too.
      local run = (stored or os.getenv "MJHOOK_FAULTS" == "all") and it or function() end
      run("sends no job twice, whichever commit of a pass is lost: " .. was, function()
        configure()
        assert.equal(0, select(2, mjhook "migrate"))
        configure(proxied())
        local lost = 0
        repeat
          lost = lost + 1
          pg.sql(("SELECT %s.enqueue('job %d')"):format(schema, lost))
          mode(how .. " " .. lost)
          local out, code = reconcile()
          local is_lost = kit.read(at .. "/mode") == "away"
          assert.is_true(code ~= 0 or not is_lost, out)
          mode "pass"
          out, code = reconcile()
          assert.equal(0, code, out)
        until not is_lost
        local sent = {}
        for _, job in ipairs(sim.jobs()) do
          assert.is_nil(sent[job.prompt])
          sent[job.prompt] = true
          sim.finish(job.taskId)
        end
        assert.is_true(lost > 4, lost)
        local held = pg.sql(("SELECT prompt, state FROM %s.tasks ORDER BY ref"):format(schema))
        for n = 1, lost do
          local said = held:match(("%%f[%%w]job %d|(%%a+)"):format(n))
          assert.truthy(said, held)
          -- claimed, and the claim not known: never sent
          assert.equal(sent["job " .. n] or false, said ~= "ambiguous" or sent["job " .. n] or false, held)
        end
        assert.equal(0, select(2, mjhook "check"))
      end)
    end
  end)
end)
