-- A store on PostgreSQL, as its users meet it: the tools, the reconciler, nginx, SQL of their own, a move from LMDB.
local cjson = require "cjson"
local kit = require "kit"
local pg = require "pg"
local receiver = require "receiver"
local sim = require "sim"
local snippets = require "snippets"

if not pg.found() then
  describe("a store on PostgreSQL", function()
    pending "needs PostgreSQL's server programs and libpq: apt-get install postgresql libpq-dev, then make"
  end)
  return
end

describe("a store on PostgreSQL", function()
  local dir, schema, count = nil, nil, 0

  setup(function()
    sim.start()
    pg.start("synchronous_commit=on") -- it crashes below
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
  end)
  after_each(kit.cleanup)

  local function configure(more)
    local settings = { store = pg.url, store_schema = schema, api_key = kit.KEY, base_url = sim.url }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    kit.write(dir .. "/config.lua", receiver.config_text(settings))
    return dir .. "/config.lua"
  end

  local function mjhook(words) return pg.mjhook(dir, words) end
  local function reconcile(words) return pg.reconcile(dir, words) end

  local function sql(text, ...)
    local out, code = pg.sql(text:gsub("@", schema):format(...))
    return out, code
  end

  it("is used by changing one line: a job is submitted, finished, found and looked at with SQL", function()
    configure()
    local out, code = mjhook "migrate"
    assert.equal(0, code, out)
    assert.matches("from version 0 to", out, 1, true)
    out, code = mjhook "submit --key order-1 --user u1 'a fox'"
    assert.equal(0, code, out)
    assert.equal(1, #sim.jobs())
    sim.finish(sim.jobs()[1].taskId)
    local ref = out:match "%f[%w](%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w%w)%f[%W]"
    out, code = mjhook("refresh " .. ref)
    assert.equal(0, code, out)
    out, code = mjhook("--json get " .. ref)
    assert.equal(0, code, out)
    assert.equal("succeeded", cjson.decode(out).state)
    assert.equal(ref .. "|succeeded|a fox|order-1|u1",
      sql "SELECT ref, state, prompt, key, user_id FROM @.tasks WHERE created_at > now() - interval '1 hour'")
    out, code = mjhook "check"
    assert.equal(0, code, out)
    out, code = mjhook "--json list --state succeeded"
    assert.equal(0, code, out)
    assert.truthy(out:find(ref, 1, true))
    out, code = mjhook "stats"
    assert.equal(0, code, out)
  end)

  it("takes in what SQL enqueued when its transaction commits, and nothing of one that is rolled back", function()
    configure()
    assert.equal(0, select(2, mjhook "migrate"))
    local out, code = sql [[
      BEGIN; SELECT @.enqueue(prompt => 'never'); ROLLBACK;
      BEGIN; SELECT @.enqueue(prompt => 'a fox', key => 'o-1', context => '{"order": 7, "big": 9007199254740993}');
             SELECT @.enqueue(prompt => 'a hare', mode => 'relaxed', user_id => 'u2'); COMMIT;]]
    assert.equal(0, code, out)
    out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal(2, cjson.decode(out).submitted)
    local prompts = {}
    for _, job in ipairs(sim.jobs()) do
      prompts[#prompts + 1] = job.prompt
    end
    table.sort(prompts)
    assert.same({ "a fox", "a hare" }, prompts)
    out = mjhook "--json list"
    assert.truthy(out:find("9007199254740993", 1, true), out)
    assert.equal("0", sql "SELECT count(*) FROM @.intake")
    -- the same order once more, and one whose key means something else by now
    sql "SELECT @.enqueue(prompt => 'a fox', key => 'o-1', context => '{\"order\": 7, \"big\": 9007199254740993}')"
    out, code = sql "SELECT @.enqueue(prompt => 'a wolf', key => 'o-1')"
    assert.not_equal(0, code)
    assert.matches("key o%-1 waits already, with other arguments", out)
    out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal(2, #sim.jobs())
    assert.equal(0, select(2, sql "SELECT @.enqueue(prompt => 'a wolf', key => 'o-1')"))
    out, code = reconcile()
    assert.equal(1, code, out)
    assert.equal(2, #sim.jobs())
    assert.matches("key .o%-1. was used with other arguments", sql "SELECT refused FROM @.intake")
    out = reconcile()
    assert.is_nil(out:find("refused", 1, true), out)
    assert.equal("1", sql "SELECT count(*) FROM @.intake")
  end)

  it("refuses in SQL what no job can be", function()
    configure()
    assert.equal(0, select(2, mjhook "migrate"))
    for _, arguments in ipairs {
      "prompt => ''", "prompt => NULL", "prompt => 'x', mode => 'quick'", "prompt => 'x', expires => 0",
      "prompt => 'x', timeout => 299", "prompt => 'x', timeout => 1201", "prompt => 'x', key => ''",
      "prompt => repeat('x', 10001)",
    } do
      local out, code = sql("SELECT @.enqueue(%s)", arguments)
      assert.not_equal(0, code, arguments .. ": " .. out)
    end
    assert.equal("0", sql "SELECT count(*) FROM @.intake")
  end)

  it("is served by nginx: callbacks are stored, freed slots used, what SQL enqueues is sent", function()
    local web = receiver.start { settings = { store = pg.url, store_schema = schema, max_in_flight = 1,
                                              base_url = sim.url, api_key = kit.KEY } }
    kit.finally(function() web:stop() end)
    configure { hook_url = web.url .. "/hook", secrets = { kit.SECRET }, max_in_flight = 1 }
    kit.wait_until(function()
      return sql "SELECT 1 FROM @.migration" == "1" or mjhook "migrate"
    end)
    sql "SELECT @.enqueue(prompt => 'one'), @.enqueue(prompt => 'two')"
    kit.wait_until(function() return #sim.jobs() == 1 end)
    local job = sim.jobs()[1]
    assert.equal(200, (sim.request("POST", job.hookUrl, cjson.encode { taskId = job.taskId, status = 1,
      image = "https://img.example/x.png" })))
    assert.equal("1", sql "SELECT count(*) FROM @.tasks WHERE state = 'succeeded'")
    kit.wait_until(function() return #sim.jobs() == 2 end)
    assert.equal(401, (sim.request("POST", job.hookUrl:gsub("sig=.", "sig=~"), "{}")))
  end)

  it("answers 503 while the database is down, and goes on when it is back: nothing acknowledged is lost", function()
    local web = receiver.start { settings = { store = pg.url, store_schema = schema, base_url = sim.url,
                                            api_key = kit.KEY } }
    kit.finally(function() web:stop() end)
    configure { hook_url = web.url .. "/hook", secrets = { kit.SECRET } }
    assert.equal(0, select(2, mjhook "submit 'a fox'"))
    local job = sim.jobs()[1]
    local body = cjson.encode { taskId = job.taskId, status = 1, image = "https://img.example/x.png" }
    pg.crash()
    local code, _, headers = sim.request("POST", job.hookUrl, body)
    assert.equal(503, code)
    assert.truthy(headers["retry-after"])
    local out
    out, code = mjhook "stats"
    assert.not_equal(0, code)
    assert.is_nil(out:find("bug", 1, true), out)
    pg.restart()
    kit.wait_until(function() return (sim.request("POST", job.hookUrl, body)) == 200 end)
    assert.equal("succeeded", sql "SELECT state FROM @.tasks")
  end)

  -- The golden records of spec/c/task_golden_test.c.
  local VERSION_3 = "03303132333435363738396162636465660601030ad80409ac020301020480a080e7b16782a080e7b16784a080e7" ..
    "b16786a080e7b16788a080e7b1678aa080e7b1678ca080e7b16780f0b252046d61696e056120666f780661732d72" ..
    "756e0275310b7b226f72646572223a377d056b65792d3704677269640a7b2277223a313032347d0870726f766964" ..
    "65720c62616e6e656420776f72647366696e6765727072696e742d31362d62020130013102048ea080e7b1670005" ..
    "6f74686572008390a080e7b167d08eeee7b167046d61696e02025431025432626f6f742d69642d31362d62797465" ..
    "73fcffffff0ee724959aef3a0902000001010000000000cf0fa09c0107020d0202660c62616e6e656420776f7264" ..
    "7386a080e7b167035b315d"
  local VERSION_4 = "04303132333435363738396162636465660601032ad80409ac020301020480a080e7b16782a080e7b16784a080e7" ..
    "b16786a080e7b16788a080e7b1678aa080e7b1678ca080e7b16780f0b252046d61696e056120666f78000275310b" ..
    "7b226f72646572223a377d056b65792d3704677269640a7b2277223a313032347d0870726f76696465720c62616e" ..
    "6e656420776f72647366696e6765727072696e742d31362d620203013000013102048ea080e7b16700056f746865" ..
    "72008390a080e7b167d08eeee7b167046d61696e02025431025432626f6f742d69642d31362d6279746573fcffff" ..
    "ff0ee724959aef3a0902000001010000000000cf0fa09c0107020d0202660c62616e6e656420776f72647386a080" ..
    "e7b167035b315d"

  it("is brought to the next version by migrate: the views read old and new records, a run rewrites the old ones",
    function()
      configure()
      assert.equal(0, select(2, mjhook "migrate"))
      assert.equal(0, select(2, mjhook "submit 'a fox'"))
      -- A pending task's record differs from one of version 3 in nothing but that number.
      sql("UPDATE @.task SET record = set_byte(record, 0, 3)")
      sql("DELETE FROM @.migration WHERE version > 1")
      -- A store that was copied from LMDB may be in the middle of an earlier rewriting.
      sql("INSERT INTO @.meta VALUES ('upgrade', decode(repeat('ff', 16), 'hex'))")
      sql("CREATE OR REPLACE FUNCTION @.task_fields(r bytea) RETURNS @.task_fields LANGUAGE sql AS " ..
        "'SELECT NULL::@.task_fields'")
      local out, code = mjhook "list"
      assert.not_equal(0, code)
      assert.matches("run mjhook migrate", out, 1, true)
      out, code = mjhook "migrate"
      assert.equal(0, code, out)
      assert.equal("a fox", sql "SELECT prompt FROM @.tasks")
      out, code = mjhook "check"
      assert.equal(0, code, out)
      assert.equal("3", sql "SELECT get_byte(record, 0) FROM @.task")
      out, code = reconcile()
      assert.equal(0, code, out)
      assert.equal("4", sql "SELECT get_byte(record, 0) FROM @.task")
      assert.equal("0", sql "SELECT count(*) FROM @.meta WHERE name = 'upgrade'")
      local fields = "SELECT f.mj_prompt, f.image, f.images, f.task_id FROM @.task_fields(decode('%s', 'hex')) AS f"
      assert.equal("as-run|grid|{0,1}|T1", (sql(fields, VERSION_3)))
      assert.equal("a fox|grid|{gri0,1}|T1", (sql(fields, VERSION_4)))
    end)

  it("takes over a store from LMDB, and gives it back, with mjhook copy", function()
    configure { store = dir .. "/lmdb" }
    for i = 1, 8 do
      assert.equal(0, select(2, mjhook(("submit --key k%d 'fox %d'"):format(i, i))))
    end
    for i = 1, 3 do
      sim.finish(sim.jobs()[i].taskId)
    end
    local before = mjhook "--json list --limit 100"
    configure { store = dir .. "/lmdb" }
    local out, code = mjhook("copy --finish " .. kit.quote(pg.url))
    assert.equal(0, code, out)
    out, code = mjhook "submit 'too late'"
    assert.not_equal(0, code)
    assert.matches("moved to", out, 1, true)
    configure()
    assert.equal(before, (mjhook "--json list --limit 100"))
    assert.equal(0, select(2, mjhook "check"))
    out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal(0, select(2, mjhook "submit --key k1 'fox 1'"))
    assert.equal(8, #sim.jobs())
    before = mjhook "--json list --limit 100"
    out, code = mjhook("copy --finish " .. kit.quote(dir .. "/back"))
    assert.equal(0, code, out)
    configure { store = dir .. "/back" }
    assert.equal(before, (mjhook "--json list --limit 100"))
    assert.equal(0, select(2, mjhook "check"))
  end)

  -- Another host: a boot of its own, as far as this machine lets a test say so.
  local HOST = [[unshare --mount --pid --uts --fork --mount-proc sh -c '
    mount --bind "$0" /proc/sys/kernel/random/boot_id && hostname elsewhere && exec "$@"' ]]

  it("judges a submission on another host by that host's heartbeats, never by process ids", function()
    configure()
    kit.write(dir .. "/boot", "00000000-0000-4000-8000-00000000abcd\n")
    if select(2, kit.sh(HOST .. dir .. "/boot true")) ~= 0 then
      return pending "no right to make namespaces"
    end
    assert.equal(0, select(2, mjhook "migrate"))
    sim.script { submit = { "hang" } }
    kit.sh(("env -u MJHOOK_STORE MJHOOK_CONFIG=%s/config.lua %s%s/boot %s %s submit 'a fox' >%s/out 2>&1 & "
      .. "echo $! >%s/pid"):format(dir, HOST, dir, kit.lua, kit.quote(kit.root .. "/scripts/mjhook"), dir, dir))
    kit.finally(function()
      kit.sh(("kill -9 $(cat %s/pid); pkill -9 -P $(cat %s/pid)"):format(dir, dir))
    end)
    kit.wait_until(function() return sim.requests "submit" == 1 end)
    assert.equal("submitting", sql "SELECT state FROM @.tasks")
    local out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal("submitting", sql "SELECT state FROM @.tasks")
    sql "UPDATE @.host SET seen_at = seen_at - interval '2 minutes' WHERE boot = '00000000-0000-4000-8000-00000000abcd'"
    out, code = reconcile()
    assert.equal(0, code, out)
    assert.equal("ambiguous", sql "SELECT state FROM @.tasks")
  end)

  it("says what is wrong and what to do, and no password", function()
        for url, words in pairs {
      ["postgresql://me:hush@127.0.0.1:1/app"] = "refused",
      ["postgresql://mjhook:hush@/nosuch?host=" .. pg.dir:gsub("/", "%%2F")] = "nosuch",
      ["postgresql://nosuch:hush@/postgres?host=" .. pg.dir:gsub("/", "%%2F")] = "nosuch",
      ["postgresql://127.0.0.1:99999/app?password=hush"] = "port",
    } do
      configure { store = url }
      for _, words_of in ipairs { "stats", "submit 'a fox'", "migrate", "doctor" } do
        local out, code = mjhook(words_of)
        assert.not_equal(0, code, url .. " " .. words_of)
        assert.is_nil(out:find("hush", 1, true), out)
        assert.is_nil(out:find("bug", 1, true), out)
        assert.truthy(out:find(words, 1, true), words_of .. ": " .. out)
      end
      local out, code = reconcile "-q"
      assert.not_equal(0, code, url)
      assert.is_nil(out:find("hush", 1, true), out)
    end
    configure()
    assert.equal(0, select(2, mjhook "migrate"))
    local out, code = mjhook("backup " .. dir .. "/copy")
    assert.not_equal(0, code)
    assert.matches("pg_dump", out, 1, true)
  end)

  it("is what its guide says, block by block", function()
    schema = "mjhook"
    configure { store_schema = "mjhook" }
    local seen = {}
    for _, block in ipairs(snippets.of "scripts/doc/guides/postgresql.md") do
      local out, code
      if block.kind == "sql" then
        if block.text:find("mjhook.task_by_key", 1, true) then
          assert.equal(0, select(2, reconcile "-q"))
        end
        out, code = pg.sql((block.text:gsub("CREATE ROLE mjhook LOGIN;\n", ""))) -- the server's user has that name
      elseif block.kind == "sh" then
        kit.sh("mkdir -p " .. dir .. "/bin")
        kit.write(dir .. "/bin/mjhook", ("#!/bin/sh\nexec %s %s/scripts/mjhook \"$@\"\n"):format(kit.lua, kit.root))
        kit.sh("chmod +x " .. dir .. "/bin/mjhook")
        out, code = kit.sh(("PATH=%s/bin:$PATH MJHOOK_CONFIG=%s/config.lua sh -eu -c %s"):format(dir, dir,
          kit.quote(block.text)))
      else
        assert.equal("lua config", block.kind)
        out, code = type(assert(load(block.text))().store), 0
        assert.equal("string", out)
      end
      assert.equal(0, code, ("line %d: %s"):format(block.line, tostring(out)))
      seen[block.kind] = (seen[block.kind] or 0) + 1
      if block.text:find("mjhook.task_by_key", 1, true) then
        assert.matches("^7|pending|", out)
      end
    end
    assert.same({ ["lua config"] = 1, sql = 5, sh = 2 }, seen)
  end)
end)
