-- A store on PostgreSQL among others who use the database: their locks, their rows, their rights, odd names.
local cjson = require "cjson"
local kit = require "kit"
local pg = require "pg"
local receiver = require "receiver"
local sim = require "sim"

if not pg.found() then
  describe("a store in a database that others use", function()
    pending "needs PostgreSQL's server programs and libpq: apt-get install postgresql libpq-dev, then make"
  end)
  return
end

describe("a store in a database that others use", function()
  local dir

  setup(function()
    sim.start()
    pg.start()
  end)
  teardown(function()
    pg.stop()
    sim.stop()
  end)
  before_each(function()
    sim.reset()
    dir = kit.tmp()
  end)
  after_each(kit.cleanup)

  local function configure(schema, store)
    kit.write(dir .. "/config.lua", receiver.config_text {
      store = store or pg.url, store_schema = schema, api_key = kit.KEY, base_url = sim.url,
    })
  end

  local function mjhook(words) return pg.mjhook(dir, words) end
  local function reconcile(words) return pg.reconcile(dir, words) end

  local function prompts()
    local list = {}
    for i, job in ipairs(sim.jobs()) do
      list[i] = job.prompt
    end
    table.sort(list)
    return list
  end

  it("takes in the other jobs when one names an account that is not configured", function()
    configure "account"
    assert.equal(0, select(2, mjhook "migrate"))
    pg.sql "SELECT account.enqueue(prompt => 'a fox', account => 'nosuch'), account.enqueue(prompt => 'a hare')"
    local out, code = reconcile()
    assert.equal(1, code, out)
    assert.same({ "a hare" }, prompts())
    assert.matches('"nosuch" is not configured', (pg.sql "SELECT refused FROM account.intake"), 1, true)
  end)

  it("takes in the other jobs while a transaction that enqueues a waiting key again stays open", function()
    configure "locked"
    assert.equal(0, select(2, mjhook "migrate"))
    pg.sql "SELECT locked.enqueue(prompt => 'a fox', key => 'k'), locked.enqueue(prompt => 'a hare')"
    local session = assert(io.popen(("psql -X -q %s >%s/out 2>&1"):format(kit.quote(pg.url), dir), "w"))
    session:write "BEGIN; SELECT locked.enqueue(prompt => 'a fox', key => 'k'); SELECT 'locked';\n"
    session:flush()
    kit.wait_until(function() return (kit.read(dir .. "/out") or ""):find("locked", 1, true) end)
    local out, code = reconcile()
    assert.equal(0, code, out)
    assert.truthy(cjson.decode(out).elapsed_ms < 8000, out) -- without a wait for the lock, which is given up after 10 s
    assert.same({ "a hare" }, prompts())
    session:write "COMMIT;\n"
    session:close()
    kit.wait_until(function()
      return reconcile() and #sim.jobs() == 2
    end)
    assert.same({ "a fox", "a hare" }, prompts())
  end)

  it("is made by a role that owns the schema and has no right to make one, as the guide says", function()
    pg.sql "CREATE ROLE plain LOGIN; CREATE SCHEMA plain AUTHORIZATION plain"
    configure("plain", (pg.url:gsub("mjhook@", "plain@")))
    local out, code = mjhook "submit 'a fox'"
    assert.equal(0, code, out)
    assert.equal("1", (pg.sql "SELECT count(*) FROM plain.tasks"))
  end)

  it("prints what is to be run to make the tables, which needs no other right, and the rights of a user without it",
    function()
      pg.sql "CREATE ROLE maker LOGIN; CREATE ROLE user_only LOGIN; CREATE SCHEMA printed AUTHORIZATION maker"
      configure("printed", (pg.url:gsub("mjhook@", "user_only@")))
      assert.not_equal(0, select(2, mjhook "submit 'a fox'"))
      configure("unmade", (pg.url:gsub("mjhook@", "user_only@")))
      assert.matches('CREATE SCHEMA IF NOT EXISTS "unmade"', mjhook "migrate --print", 1, true)
      configure("printed", (pg.url:gsub("mjhook@", "user_only@")))
      local text, code = mjhook "migrate --print"
      assert.equal(0, code, text)
      local out
      out, code = pg.sql(text, (pg.url:gsub("mjhook@", "maker@")))
      assert.equal(0, code, out)
      out = mjhook "submit 'a fox'"
      assert.matches("permission denied", out, 1, true)
      local grants = {}
      for line in text:gmatch "%-%- (GRANT [^\n]+)" do
        grants[#grants + 1] = line
      end
      out, code = pg.sql(table.concat(grants, "\n"), (pg.url:gsub("mjhook@", "maker@")))
      assert.equal(0, code, out)
      out, code = mjhook "submit 'a fox'"
      assert.equal(0, code, out)
      out, code = mjhook "migrate"
      assert.equal(0, code, out)
      assert.matches("already", out, 1, true)
      out, code = mjhook "migrate --print"
      assert.equal(0, code, out)
      assert.is_nil(out:find("CREATE", 1, true), out)
    end)

  it("says what is at fault of the database, and nothing of directories", function()
    pg.sql "CREATE ROLE stranger LOGIN; CREATE SCHEMA theirs; CREATE ROLE few LOGIN CONNECTION LIMIT 0"
    for role, words in pairs { stranger = "GRANT", few = "CONNECTION LIMIT" } do
      configure("theirs", (pg.url:gsub("mjhook@", role .. "@")))
      for _, command in ipairs { "submit 'a fox'", "migrate" } do
        local out, code = mjhook(command)
        assert.not_equal(0, code, out)
        assert.matches(words, out, 1, true)
        assert.is_nil(out:find("directory", 1, true), out)
      end
    end
  end)

  it("is not moved while jobs that SQL enqueued wait, and takes none once it has moved", function()
    configure "moving"
    assert.equal(0, select(2, mjhook "migrate"))
    pg.sql "SELECT moving.enqueue(prompt => 'a fox')"
    local out, code = mjhook("copy --finish " .. kit.quote(dir .. "/lmdb"))
    assert.equal(75, code, out)
    assert.matches("intake", out, 1, true)
    out, code = reconcile()
    assert.equal(0, code, out)
    out, code = mjhook("copy --finish " .. kit.quote(dir .. "/lmdb"))
    assert.equal(0, code, out)
    out, code = pg.sql "SELECT moving.enqueue(prompt => 'a hare')"
    assert.not_equal(0, code)
    assert.matches("is being moved", out, 1, true)
    assert.equal("0", (pg.sql "SELECT count(*) FROM moving.intake"))
    configure("moving", dir .. "/lmdb")
    out = mjhook "--json list"
    assert.truthy(out:find("a fox", 1, true), out)
  end)

  it("leaves no job behind of a transaction that enqueues while the store is moved", function()
    configure("late", pg.url .. "&tcp_user_timeout=600")
    assert.equal(0, select(2, mjhook "migrate"))
    local move = "copy --finish " .. kit.quote(dir .. "/lmdb")
    local open, old = pg.session(), pg.session()
    open.send "BEGIN; SELECT late.enqueue(prompt => 'a fox')"
    local out, code = mjhook(move)
    assert.equal(75, code, out)
    assert.matches("still open: end it", out, 1, true)
    open.send "COMMIT"
    out, code = mjhook(move)
    assert.equal(75, code, out)
    assert.matches("wait in the table intake", out, 1, true)
    assert.equal(0, select(2, reconcile())) -- the store was given back
    assert.same({ "a fox" }, prompts())
    old.send "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1" -- it sees no note that comes later
    out, code = mjhook(move)
    assert.equal(0, code, out)
    old.send "SELECT late.enqueue(prompt => 'a hare'); COMMIT"
    assert.equal("0", (pg.sql "SELECT count(*) FROM late.intake"))
  end)

  it("takes writes again when a move was interrupted and is cancelled, and can be moved later", function()
    configure "midway"
    assert.equal(0, select(2, mjhook "migrate"))
    configure("midway", dir .. "/lmdb")
    for i = 1, 3 do
      assert.equal(0, select(2, mjhook(("submit --key k%d 'fox %d'"):format(i, i))))
    end
    local holder = pg.session() -- the copy waits on its way
    holder.send "BEGIN; LOCK TABLE midway.task IN ACCESS EXCLUSIVE MODE"
    local copy = kit.spawn(("exec env MJHOOK_CONFIG=%s/config.lua %s %s/scripts/mjhook copy --finish %s"):format(dir,
      kit.lua, kit.root, kit.quote(pg.url)))
    kit.wait_until(function() return select(2, mjhook "resume default") ~= 0 end) -- a write, and sends nothing
    copy:kill "KILL"
    copy:wait()
    holder.send "COMMIT"
    local out, code = mjhook "submit --key k5 'fox 5'"
    assert.not_equal(0, code, out)
    assert.matches("is being moved", out, 1, true)
    local sent = #sim.jobs()
    configure "midway"
    out, code = mjhook "submit 'fox 5'" -- nor can the other one be used
    assert.not_equal(0, code, out)
    configure("midway", dir .. "/lmdb")
    out, code = mjhook "copy --cancel"
    assert.equal(64, code, out)
    out, code = mjhook("copy --cancel " .. dir .. "/lmdb")
    assert.equal(0, code, out)
    assert.equal(0, select(2, mjhook "submit --key k5 'fox 5'"))
    out, code = mjhook("copy --cancel " .. dir .. "/lmdb")
    assert.not_equal(0, code, out)
    out, code = mjhook("copy --finish " .. kit.quote(pg.url))
    assert.equal(0, code, out)
    configure "midway"
    assert.equal(tostring(sent + 1), (pg.sql "SELECT count(*) FROM midway.tasks WHERE state = 'pending'"))
    assert.equal(sent + 1, #sim.jobs())
    assert.equal(0, select(2, mjhook "check"))
  end)

  it("finds a task by its whole ref alone, and names the task that a refused row's key belongs to", function()
    configure "refs"
    assert.equal(0, select(2, mjhook "submit --key k 'a fox'"))
    local ref = pg.sql "SELECT ref FROM refs.tasks"
    assert.equal("1|0|0|0|0|1", (pg.sql(("SELECT (SELECT count(*) FROM refs.task_by_ref(r)), " ..
      "(SELECT count(*) FROM refs.task_by_ref(r || 'X')), (SELECT count(*) FROM refs.task_by_ref('x')), " ..
      "(SELECT count(*) FROM refs.task_by_ref('')), (SELECT count(*) FROM refs.task_by_ref(left(r, 25))), " ..
      "(SELECT count(*) FROM refs.task_by_ref(lower(r))) FROM (VALUES ('%s')) AS v(r)"):format(ref))))
    pg.sql "SELECT refs.enqueue(prompt => 'a wolf', key => 'k')"
    assert.equal(1, select(2, reconcile()))
    assert.matches(ref, pg.sql "SELECT refused FROM refs.intake", 1, true)
  end)

  it("may have a word of SQL as its schema", function()
    configure "user"
    local out, code = mjhook "submit --key k 'a fox'"
    assert.equal(0, code, out)
    assert.equal("pending", (pg.sql [[SELECT state FROM "user".task_by_key('k')]]))
    out, code = mjhook "check"
    assert.equal(0, code, out)
    out, code = mjhook "migrate --print"
    assert.equal(0, code, out)
    out = cjson.decode((mjhook "--json stats"))
    assert.truthy(out.bytes_used > 0)
  end)

  it("can be read by a role that has the rights which the guide lists for an application", function()
    configure "mjhook"
    assert.equal(0, select(2, mjhook "submit --key k --user u1 'a fox'"))
    local guide = kit.read(kit.root .. "/scripts/doc/guides/postgresql.md")
    local out, code = pg.sql(assert(guide:match "CREATE ROLE app;.-\n```"):gsub("```", ""), nil)
    assert.equal(0, code, out)
    out, code = pg.sql [[
      SET ROLE app;
      SELECT state FROM mjhook.task_by_key('k') JOIN mjhook.attempts USING (ref, state);
      SELECT count(*) FROM mjhook.tasks_of_user('u1') AS t CROSS JOIN LATERAL mjhook.task_by_ref(t.ref);
      SELECT count(*) FROM mjhook.events;
      SELECT mjhook.enqueue(prompt => 'a hare') > 0]]
    assert.equal(0, code, out)
    assert.equal("1\n0\nt", out:gsub("^pending\n", ""), out)
    for _, text in ipairs { "SELECT * FROM mjhook.task", "DELETE FROM mjhook.intake", "SELECT * FROM mjhook.writer" } do
      out, code = pg.sql("SET ROLE app; " .. text)
      assert.not_equal(0, code, out)
    end
  end)

  it("says that an @ of a password is to be escaped, and shows nothing of the password", function()
    for _, password in ipairs { "top@hush", "top@hush:5", "top:hush@x", "top/hush@x", "top@hush/x", "top?hush@x" } do
      configure("at", ("postgresql://me:%s@127.0.0.1:1/app"):format(password))
      for _, words in ipairs { "stats", "doctor" } do
        local out, code = mjhook(words)
        assert.not_equal(0, code, out)
        assert.is_nil(out:find("hush", 1, true), out)
      end
    end
  end)

  it("shows no password of a URL that stands on a command line", function()
    configure "secret"
    local url = "postgresql://me:hush@127.0.0.1:1/app"
    for _, words in ipairs { "--store " .. url .. " stats", "stats --store=" .. url, "stats " .. url, url,
                             "migrate " .. url, "copy " .. url .. " " .. dir .. "/x", "init " .. url,
                             "copy a b " .. url } do
      local out, code = mjhook(words)
      assert.equal(64, code, out)
      assert.is_nil(out:find("hush", 1, true), words .. ": " .. out)
    end
  end)

  it("takes mjhook_careful=1 in its URL", function()
    configure("careful", pg.url .. "&mjhook_careful=1")
    local out, code = mjhook "submit 'a fox'"
    assert.equal(0, code, out)
    assert.same({ "a fox" }, prompts())
    configure("careful", pg.url .. "&mjhook_careful=maybe")
    out, code = mjhook "stats"
    assert.not_equal(0, code)
    assert.matches("mjhook_careful", out, 1, true)
  end)
end)
