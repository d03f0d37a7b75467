-- The console's JSON API and what it lets in, through a real nginx.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local lfs = require "lfs"
local receiver = require "receiver"
local sim = require "sim"

local THREADS = [[
thread_pool mjhook threads=1;
thread_pool mjhook_http threads=2;
thread_pool mjhook_deliver threads=1;
thread_pool mjhook_read threads=1;
]]

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server {
    listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location /look/ { content_by_lua_block { require("resty.mjhook").console() } }
    location /act/ { client_body_buffer_size 64k; content_by_lua_block {
      require("resty.mjhook").console {
        actions = true, images = "archived", archive = "@DIR@/images", archive_location = "/images/" } } }
    location /private/ { content_by_lua_block { require("resty.mjhook").console { private = true, actions = true } } }
    location /wrong/ { content_by_lua_block { require("resty.mjhook").console { action = true } } }
    location /images/ { internal; alias @DIR@/images/; }
  }
}
]]

local POSTGRES = kit.root .. "/spec/support/postgres"

-- All of it on LMDB; on PostgreSQL, where a read may wait, what reads and writes.
local STORES = { LMDB = {}, PostgreSQL = { tests = {
  ["lists tasks by every filter and in pages, and counts them"] = true,
  ["tells a task's story, with what JavaScript would lose as text"] = true,
  ["lists events and refused callbacks, and gives the numbers and the gallery"] = true,
  ["acts on ids and on all that a filter picks, with a dry run, progress and a report"] = true,
  ["pauses, drains and resumes an account, and a refusal does not end that"] = true,
  ["tells live what was committed"] = true,
} } }
local HAS_POSTGRES = select(2, kit.sh(POSTGRES .. " found")) == 0
  and lfs.attributes(kit.build .. "/5.1/mjhook/store_postgres.so") ~= nil

for store_name, on in pairs(STORES) do describe("the console's API on " .. store_name, function()
  local web, mj, place
  local schema = 0

  setup(function()
    sim.start()
    if on.tests and HAS_POSTGRES then
      place = kit.sh "mktemp -d" .. "/server"
      on.url = kit.sh("MJHOOK_POSTGRES_PARENT=$PPID " .. POSTGRES .. " start " .. place):match "postgresql://%S+"
    end
  end)
  teardown(function()
    sim.stop()
    if place then
      kit.sh(POSTGRES .. " remove " .. place)
    end
  end)
  before_each(function()
    sim.reset()
    schema = schema + 1
    local store = on.url and { store = on.url, store_schema = "console" .. schema } or {}
    web = receiver.start { conf = CONF, threads = THREADS, settings = store }
    store.hook_url = web.settings.hook_url
    mj = kit.open(store, sim)
  end)

  local function check(what, f)
    if not on.tests then
      it(what, f)
    elseif on.tests[what] then
      (HAS_POSTGRES and it or pending)(what, f)
    end
  end
  after_each(kit.cleanup)

  -- One request. Gives the status, the body and the head of the answer.
  local function request(method, path, more, body)
    kit.write(web.dir .. "/body", body or "")
    local out, code = kit.sh(("%s -sS -m 20 -X %s -o %s/answer -D - %s %s %s"):format(kit.curl, method, web.dir,
      more or "", body and "--data-binary @" .. web.dir .. "/body" or "", kit.quote(web.url .. path)))
    assert(code == 0, out)
    return tonumber(out:match "^HTTP/1.1 (%d+)"), kit.read(web.dir .. "/answer"), out
  end

  local function get(path, more)
    local status, body = request("GET", path, more)
    return cjson.decode(body), status
  end

  local function lines(body)
    local list = {}
    for line in body:gmatch "[^\n]+" do
      list[#list + 1] = cjson.decode(line)
    end
    return list
  end

  local function post(path, value, more)
    local token = get "/act/api/console".token
    local head = ("-H 'Content-Type: application/json' -H 'X-Mjhook-Token: %s' %s"):format(token,
      more or "-H 'Sec-Fetch-Site: same-origin'")
    local status, body = request("POST", path, head, type(value) == "string" and value or cjson.encode(value))
    local list = lines(body)
    return list[#list], status, list
  end

  local function put(tasks) return kit.put(mj, tasks) end

  local function succeed(ref) kit.succeed(mj, ref) end

  local function refs_of(list)
    local refs = {}
    for i, task in ipairs(list) do
      refs[i] = task.ref
    end
    return refs
  end

  check("lists tasks by every filter and in pages, and counts them", function()
    local refs = put {
      { prompt = "red fox", account = "default", key = "k1" },
      { prompt = "RED wolf", mode = "relaxed", user_id = "u 1" },
      { prompt = "owl", user_id = "u 1" },
    }
    local page, status = get "/look/api/tasks?limit=2"
    assert.equal(200, status)
    assert.same({ refs[3], refs[2] }, refs_of(page.tasks))
    page = get("/look/api/tasks?limit=2&before=" .. page.older)
    assert.same({ refs[1] }, refs_of(page.tasks))
    assert.is_nil(page.older)
    assert.same({ refs[3], refs[2] }, refs_of(get("/look/api/tasks?after=" .. page.newer).tasks))
    assert.same({ refs[2], refs[1] }, refs_of(get("/look/api/tasks?q=red&since=0").tasks))
    assert.same({ refs[3] }, refs_of(get("/look/api/tasks?user_id=u%201&mode=fast&state=queued,lost").tasks))
    assert.same({ refs[1] }, refs_of(get("/look/api/tasks?key=k1").tasks))
    assert.same({ count = 3, exact = true }, get "/look/api/count")
    assert.same({ count = 2, exact = true }, get "/look/api/count?user_id=u+1")
    assert.same({ ref = refs[1] }, get "/look/api/find?id=k1")
    assert.equal(404, select(2, get "/look/api/find?id=k9"))
  end)

  check("tells a task's story, with what JavaScript would lose as text", function()
    local refs = put { { prompt = "a fox", context = '{"order":9007199254740993}' } }
    succeed(refs[1])
    local story = get("/look/api/task?ref=" .. refs[1])
    assert.equal('{"order":9007199254740993}', story.context_text)
    assert.is_nil(story.task.context)
    assert.truthy(story.raw:find("9007199254740993", 1, true))
    assert.equal("stored", story.task.timeline[1].text)
    assert.truthy(story.task.timeline[1].moved)
    assert.equal(refs[1] .. "-1", story.events[1].event_id)
    assert.same({}, story.refused)
    assert.same({ { index = 0, url = "https://i.test/g.png", archived = false } }, story.images)
    assert.equal(404, select(2, get "/look/api/task?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV"))
  end)

  check("lists events and refused callbacks, and gives the numbers and the gallery", function()
    local refs = put { { user_id = "u" }, { user_id = "v" } }
    succeed(refs[1])
    succeed(refs[2])
    assert(mj:bury(refs[1] .. "-1"))
    assert.same({ refs[1] .. "-1" }, { get("/look/api/events?buried=1").events[1].event_id })
    assert.same({ refs[2] .. "-1" }, { get("/look/api/events?waiting=1&user_id=v").events[1].event_id })
    local page = get "/look/api/events?limit=1"
    assert.equal(refs[1] .. "-1", page.more)
    assert.equal(refs[2] .. "-1", get("/look/api/events?after=" .. page.more).events[1].event_id)
    assert(mj.exec:commit { { op = "refuse", ref = refs[1], attempt = 1, error = "not JSON", body = "<html>" } })
    local refused = get "/look/api/refused"
    assert.same({ "<html>", "not JSON" }, { refused.refused[1].body, refused.refused[1].reason })
    local stats = get "/look/api/stats"
    assert.same({ 2, 1, 1 }, { stats.tasks.succeeded, stats.events, stats.buried })
    assert.equal(0, stats.finish.relaxed.n)
    assert.same({ refs[2], refs[1] }, refs_of(get("/look/api/gallery").items))
  end)

  local wrong = {
    "tasks?state=done", "tasks?mode=turbo", "tasks?before=x", "tasks?since=soon", "tasks?bogus=1", "tasks?buried=1",
    "tasks?state=queued&state=lost", "tasks?q", "task", "task?ref=x", "events?after=x", "events?before=" ..
    "01ARZ3NDEKTSV4RRFFQ69G5FAV", "refused?below=-1", "refused?limit=1e9", "find", "find?id=",
    "find?id", "find?id=a&id=b",
    "events?buried=0x10", "events?buried=0", "events?buried", "events?buried=1&buried=1", "events?waiting=yes",
    "events?failed=", "events?failed=1&failed=0", "events?after", "events?after=x&after=y", "events?state",
    "history?span=anything", "history?span", "history?span=", "history?span=day&span=hour", "history?spam=day",
    "stats?x=1", "console?x=1", "live?x", "task?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV&x=1",
    "task?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV&ref=01ARZ3NDEKTSV4RRFFQ69G5FAV", "refused?limit=1&limit=2", "refused?after=1",
    "image?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV&n=-1", "image?ref=01ARZ3NDEKTSV4RRFFQ69G5FAV&n=0&n=1",
  }
  for _, number in ipairs { "0x10", "inf", "nan", "1e3", "1.5", "-1", "%2B5", "%205", "", "9999999999999999",
                            "1%00" } do
    for _, path in ipairs { "tasks?limit", "tasks?since", "count?until", "events?limit", "gallery?limit",
                            "refused?limit", "refused?below" } do
      wrong[#wrong + 1] = path .. "=" .. number
    end
  end
  check("names what is wrong with a request", function()
    for _, path in ipairs(wrong) do
      local answer, status = get("/look/api/" .. path)
      assert.equal(400, status, path)
      assert.equal("invalid", answer.error.code)
    end
    assert.equal(404, (request("GET", "/look/api/nothing")))
    assert.equal(405, (request("POST", "/look/api/tasks", nil, "{}")))
    assert.equal(405, (request("GET", "/act/api/act")))
    assert.equal(500, (request("GET", "/wrong/")))
    assert.truthy(web:log():find("console: unknown option 'action'", 1, true))
  end)

  check("is read-only unless actions are allowed", function()
    local refs = put { {} }
    local answer, status = post("/look/api/act", { action = "cancel", ids = refs })
    assert.same({ 403, "read_only" }, { status, answer.error.code })
    assert.equal("queued", mj:get(refs[1]).state)
    assert.is_false(get("/look/api/console").actions)
  end)

  check("acts on ids and on all that a filter picks, with a dry run, progress and a report", function()
    local tasks = {}
    for i = 1, 250 do
      tasks[i] = { user_id = i <= 205 and "u" or "v" }
    end
    local refs = put(tasks)
    local last = post("/act/api/act", { action = "cancel", filter = { user_id = "u" }, dry_run = true })
    assert.same({ 205, 0, true }, { last.report.matched, last.report.done, last.report.dry_run })
    assert.equal(250, mj:stats().tasks.queued)
    local _, list
    last, _, list = post("/act/api/act", { action = "cancel", filter = { user_id = "u" } })
    assert.same({ 205, 205, 0 }, { last.report.matched, last.report.done, last.report.failed })
    assert.equal(100, list[1].progress.done)
    assert.equal(45, mj:stats().tasks.queued)
    last = post("/act/api/act", { action = "cancel", ids = { refs[250], refs[1] } })
    assert.same({ 1, 1 }, { last.report.done, last.report.failed })
    assert.truthy(last.report.errors[1].message:find("is cancelled", 1, true))
    succeed(refs[249])
    assert.equal(1, post("/act/api/act", { action = "bury", filter = { user_id = "v" } }).report.done)
    assert.equal(1, post("/act/api/act", { action = "kick", ids = { refs[249] .. "-1" } }).report.done)
    last = post("/act/api/act", { action = "cancel", filter = { state = { "succeeded" } } })
    assert.equal("invalid", last.error.code)
  end)

  check("pauses, drains and resumes an account, and a refusal does not end that", function()
    local function account()
      return get("/look/api/stats").accounts[1]
    end
    local name = account().name
    assert.equal(1, post("/act/api/act", { action = "pause", account = name, seconds = 3600 }).report.done)
    assert.equal("by_hand", account().reason)
    assert.truthy(account().paused_until > core.now() + 3500000)
    assert(mj.exec:commit { { op = "pause", account = name, ["until"] = core.now() + 1000, error_code = "quota" } })
    assert(mj.exec:commit { { op = "pause", account = name, ["until"] = 0 } })
    assert.equal("by_hand", account().reason)
    post("/act/api/act", { action = "drain", account = name })
    assert.equal("queued", assert(mj:submit { prompt = "a fox" }).state)
    assert.equal(1, post("/act/api/act", { action = "resume", account = name }).report.done)
    assert.is_nil(account().reason)
    assert.equal("not_found", post("/act/api/act", { action = "pause", account = "nobody", seconds = 1 }).error.code)
    assert.equal("invalid", post("/act/api/act", { action = "pause", account = name }).error.code)
  end)

  check("lets no other origin act, nor a page without a good token", function()
    local refs = put { {} }
    local wanted = { action = "cancel", ids = refs }
    for more, code in pairs {
      ["-H 'Sec-Fetch-Site: cross-site'"] = "origin", ["-H 'Sec-Fetch-Site: same-site'"] = "origin",
      ["-H 'Sec-Fetch-Site: none'"] = "origin", ["-H 'Origin: https://evil.test'"] = "origin", [" "] = "origin",
      ["-H 'Origin: null'"] = "origin", ["-H 'Sec-Fetch-Site: same-origin' -H 'X-Mjhook-Token: x'"] = "token",
      ["-H 'Sec-Fetch-Site: same-origin' -H 'X-Mjhook-Token: 99999999999.abc.AAAA'"] = "token",
    } do
      local token = more:find "Token" and "" or ("-H 'X-Mjhook-Token: %s'"):format(get("/act/api/console").token)
      local head = ("-H 'Content-Type: application/json' %s %s"):format(token, more)
      local status, body = request("POST", "/act/api/act", head, cjson.encode(wanted))
      assert.same({ 403, code }, { status, cjson.decode(body).error.code }, more)
    end
    assert.equal("queued", mj:get(refs[1]).state)
    assert.equal(1, post("/act/api/act", wanted, "-H 'Origin: " .. web.url .. "'").report.done)
    assert.equal(403, (request("GET", "/act/api/tasks", "-H 'Sec-Fetch-Site: cross-site'")))
  end)

  -- What it says of an order that is refused, by the order; what the message has to name.
  local REFUSED = {
    ['{"action":"cancel","filter":{},"dry_run":"true"}'] = 'dry_run: true or false expected, not "true"',
    ['{"action":"cancel","filter":{},"dry_run":"yes"}'] = 'dry_run: true or false expected, not "yes"',
    ['{"action":"cancel","filter":{},"dry_run":1}'] = "dry_run: true or false expected, not 1",
    ['{"action":"cancel","filter":{},"dry_run":null}'] = "dry_run: true or false expected, not null",
    ['{"action":"cancel","filter":{},"dry_run":{}}'] = "dry_run: true or false expected, not an object",
    ['{"action":"cancel","filter":{},"dry_run":[]}'] = "dry_run: true or false expected, not an array",
    ['{"action":"cancel","filter":{},"limit":"2"}'] = 'limit: a whole number from 1 expected, not "2"',
    ['{"action":"cancel","filter":{},"limit":null}'] = "limit: a whole number from 1 expected, not null",
    ['{"action":"cancel","filter":{},"limit":2.5}'] = "limit: a whole number from 1 expected, not 2.5",
    ['{"action":"cancel","filter":{},"limit":0}'] = "limit: a whole number from 1 expected, not 0",
    ['{"action":"cancel","filter":{},"limit":-1}'] = "limit: a whole number from 1 expected, not -1",
    ['{"action":"cancel","filter":{},"limit":true}'] = "limit: a whole number from 1 expected, not true",
    ['{"action":"cancel","filter":{},"limit":1e300}'] = "limit: a whole number from 1 expected",
    ['{"action":"cancel","filter":{"limit":2}}'] = "limit stands beside the filter",
    ['{"action":"cancel","filter":{},"dryrun":true}'] = '"dryrun": cancel takes no such field: did you mean "dry_run"?',
    ['{"action":"cancel","filter":{},"seconds":1}'] = '"seconds": cancel takes no such field',
    ['{"action":"cancel","filter":{},"account":"default"}'] = '"account": cancel takes no such field',
    ['{"action":"cancel","filter":[]}'] = "filter: an object expected, not an array",
    ['{"action":"cancel","filter":null}'] = "filter: an object expected, not null",
    ['{"action":"cancel","filter":"all"}'] = 'filter: an object expected, not "all"',
    ['{"action":"cancel","filter":{"since":"7d"}}'] = "filter: bad field 'since' (a number expected)",
    ['{"action":"cancel","filter":{"since":1.5}}'] = "filter.since: a whole number of milliseconds since 1970 expected",
    ['{"action":"cancel","filter":{"until":-1}}'] = "filter.until: a whole number of milliseconds since 1970 expected",
    ['{"action":"cancel","filter":{"user_id":null}}'] = "filter: bad field 'user_id' (a string expected)",
    ['{"action":"cancel","filter":{"state":null}}'] = "filter: bad field 'state' (a state or a list",
    ['{"action":"cancel","filter":{"buried":true}}'] = "filter: unknown field 'buried'",
    ['{"action":"kick","filter":{"ref":"x"}}'] = 'filter.ref: the ref of a task expected, not "x"',
    ['{"action":"kick","filter":{"buried":1}}'] = "filter: bad field 'buried' (a boolean expected)",
    ['{"action":"cancel","ids":["@REF@"],"dry_run":true}'] = '"dry_run": cancel on ids takes no such field',
    ['{"action":"cancel","ids":["@REF@"],"limit":1}'] = '"limit": cancel on ids takes no such field',
    ['{"action":"cancel","ids":["@REF@"],"filter":{}}'] = '"filter": cancel on ids takes no such field',
    ['{"action":"cancel","ids":["@REF@",[]]}'] = "ids: the ref of a task expected, not an array",
    ['{"action":"cancel","ids":["@REF@",null]}'] = "ids: the ref of a task expected, not null",
    ['{"action":"cancel","ids":["@REF@",true]}'] = "ids: the ref of a task expected, not true",
    ['{"action":"cancel","ids":["@REF@-1"]}'] = "ids: the ref of a task expected, not \"@REF@-1\"",
    ['{"action":"kick","ids":["@REF@"]}'] = "ids: the id of an event expected, not \"@REF@\"",
    ['{"action":"readmit","ids":["1"]}'] = 'ids: the number of a refused callback expected, not "1"',
    ['{"action":"readmit","ids":[1.5]}'] = "ids: the number of a refused callback expected, not 1.5",
    ['{"action":"cancel","ids":null,"filter":{}}'] = "ids: a list of 1 to 1000 expected, not null",
    ['{"action":"cancel","ids":{"1":"@REF@"}}'] = "ids: a list of 1 to 1000 expected, not an object",
    ['{"action":"cancel","ids":"@REF@"}'] = "ids: a list of 1 to 1000 expected, not \"@REF@\"",
    ['{"action":"cancel"}'] = "cancel: ids or a filter expected",
    ['{"action":"readmit"}'] = "readmit: ids expected",
    ['{}'] = "action: a name expected, not nothing",
    ['{"action":null}'] = "action: a name expected, not null",
    ['{"action":["cancel"]}'] = "action: a name expected, not an array",
    ['{"action":"erase","ids":["@REF@"]}'] = 'action: there is no "erase"',
    ['[]'] = "a JSON object expected, not an array",
    ['[{"action":"cancel","filter":{}}]'] = "a JSON object expected, not an array",
    ['{"action":"pause","account":"default"}'] = "seconds: a whole number from 1 to 31536000 expected, not nothing",
    ['{"action":"pause","account":"default","seconds":"60"}'] = 'expected, not "60"',
    ['{"action":"pause","account":"default","seconds":0}'] = "expected, not 0",
    ['{"action":"pause","account":"default","seconds":1.5}'] = "expected, not 1.5",
    ['{"action":"pause","account":"default","seconds":31536001}'] = "expected, not 31536001",
    ['{"action":"pause","account":["default"],"seconds":1}'] = "account: a name expected, not an array",
    ['{"action":"pause","account":"default","seconds":1,"dry_run":true}'] = '"dry_run": pause takes no such field',
    ['{"action":"drain","account":"default","seconds":1}'] = '"seconds": drain takes no such field',
    ['{"action":"drain","account":null}'] = "account: a name expected, not null",
    ['{"action":"resume"}'] = "account: a name expected, not nothing",
    ['{"action":"resume","account":""}'] = 'account: a name expected, not ""',
    ['{"action":"resume","account":7}'] = "account: a name expected, not 7",
  }
  check("does nothing for an order with a field of a wrong type or range, and says which", function()
    local ref = put({ {}, {}, {} })[1]
    for order, said in pairs(REFUSED) do
      order, said = order:gsub("@REF@", ref), said:gsub("@REF@", ref)
      local answer, status = post("/act/api/act", order)
      assert.same({ 400, "invalid" }, { status, answer.error and answer.error.code }, order)
      assert.truthy(answer.error.message:find(said, 1, true), order .. " -> " .. answer.error.message)
    end
    local answer, status = post("/act/api/act", { action = "resume", account = "nobody" })
    assert.same({ 404, "not_found" }, { status, answer.error.code })
    assert.equal(3, mj:stats().tasks.queued)
    assert.equal(0, mj:stats().accounts[1].paused_until or 0)
    assert.same({ 2, 0, true }, (function(r) return { r.matched, r.done, r.dry_run } end)(
      post("/act/api/act", '{"action":"cancel","filter":{},"limit":2,"dry_run":true}').report))
    assert.same({ 2, 2, false }, (function(r) return { r.matched, r.done, r.dry_run } end)(
      post("/act/api/act", '{"action":"cancel","filter":{},"limit":2.0,"dry_run":false}').report))
  end)

  check("takes only JSON of some size that says something it knows", function()
    for _, body in ipairs { "", "[", "7", '{"action":"erase"}', '{"action":"cancel"}', '{"action":"cancel","ids":[]}',
                            '{"action":"cancel","ids":["x"]}', '{"action":"cancel","ids":[7]}',
                            '{"action":"cancel","filter":{"bogus":1}}', '{"action":"readmit","filter":{}}',
                            '{"action":"kick","filter":{"before":"x"}}', '{"action":"cancel","filter":7}',
                            '{"action":"cancel","filter":{"state":[7]}}', '{"action":{}}' } do
      local answer, status = post("/act/api/act", body)
      assert.equal(400, status, body)
      assert.equal("invalid", answer.error.code)
    end
    assert.equal(400, select(2, post("/act/api/act", ("x"):rep(70000))))
    local status = request("POST", "/act/api/act", ("-H 'Sec-Fetch-Site: same-origin' -H 'X-Mjhook-Token: %s'"):format(
      get("/act/api/console").token), "{}")
    assert.equal(415, status)
  end)

  check("gives every answer the headers that keep it to itself", function()
    for _, path in ipairs { "/look/", "/look/api/console", "/look/assets/app.js", "/look/api/no", "/look/nothing" } do
      local _, _, head = request("GET", path)
      assert.truthy(head:find("Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'", 1, true))
      assert.truthy(head:find("frame-ancestors 'none'", 1, true))
      assert.is_nil(head:find("unsafe", 1, true))
      assert.truthy(head:find("X-Content-Type-Options: nosniff", 1, true))
      assert.truthy(head:find("Cache-Control: no-store", 1, true))
      assert.truthy(head:find("Referrer-Policy: no-referrer", 1, true))
    end
    for _, path in ipairs { "/look/assets/..%2fapp.js", "/look/assets/.app.js", "/look/assets/nginx.conf" } do
      assert.equal(404, (request("GET", path, "--path-as-is")))
    end
  end)

  check("hides what users wrote when it is private", function()
    local refs = put { { prompt = "SECRETWORD", user_id = "SECRETWORD", key = "SECRETWORD", context = '"SECRETWORD"' } }
    succeed(refs[1])
    assert(mj.exec:commit { { op = "refuse", ref = refs[1], attempt = 1, error = "SECRETWORD", body = "SECRETWORD" } })
    assert(mj:bury(refs[1] .. "-1", "SECRETWORD"))
    for _, path in ipairs { "tasks", "task?ref=" .. refs[1], "events", "refused", "gallery", "stats", "console" } do
      local status, body = request("GET", "/private/api/" .. path)
      assert.equal(200, status)
      assert.is_nil(body:find("SECRETWORD", 1, true), path)
      assert.is_nil(body:find("i.test", 1, true), path)
    end
    for _, path in ipairs { "tasks?q=SECRET&since=0", "count?user_id=SECRETWORD", "events?key=SECRETWORD",
                            "gallery?q=S" } do -- an answer would tell
      assert.equal(400, (request("GET", "/private/api/" .. path)), path)
    end
    assert.equal(404, (request("GET", "/private/api/find?id=SECRETWORD")))
    assert.equal(200, (request("GET", "/private/api/find?id=" .. refs[1])))
    assert.equal("invalid", post("/private/api/act", { action = "replay", dry_run = true,
                                                       filter = { q = "SECRET" } }).error.code)
  end)

  check("sends archived images, and no other file", function()
    kit.sh(("mkdir -p %s/images/d && printf pngpng > '%s/images/d/a b.png' && ln -s /etc/passwd %s/images/p.png")
      :format(web.dir, web.dir, web.dir))
    local refs = put { {}, {}, {}, {} }
    local paths = { web.dir .. "/images/d/a b.png", "/etc/passwd", web.dir .. "/images/../config.lua",
                    web.dir .. "/images2/x.png" }
    for i, path in ipairs(paths) do
      succeed(refs[i])
      local taken = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1].event
      assert(mj.exec:commit { { op = "done", ref = taken.ref, seq = taken.seq, tries = taken.tries,
        files = cjson.encode { { index = 0, path = path, type = "image/png" } } } })
    end
    local status, body, head = request("GET", "/act/api/image?ref=" .. refs[1] .. "&n=0")
    assert.same({ 200, "pngpng" }, { status, body })
    assert.truthy(head:find("Content-Type: image/png", 1, true))
    assert.truthy(head:find("nosniff", 1, true), head)
    for i = 2, 4 do
      assert.equal(404, (request("GET", "/act/api/image?ref=" .. refs[i])))
    end
    assert.equal(404, (request("GET", "/look/api/image?ref=" .. refs[1])))
    assert.equal(404, (request("GET", "/images/d/a%20b.png")))
    local story = get("/act/api/task?ref=" .. refs[1])
    assert.equal("api/image?ref=" .. refs[1] .. "&n=0", story.images[1].src)
  end)

  check("tells live what was committed", function()
    kit.spawn(("exec %s -sN -m 8 %s/look/api/live >%s/stream"):format(kit.curl, web.url, web.dir))
    local function stream()
      return kit.read(web.dir .. "/stream") or ""
    end
    kit.wait_until(function() return stream():find("event: change", 1, true) end)
    put { {} }
    kit.wait_until(function() return stream():find('"queued":1', 1, true) end)
  end)

  check("has its page, and says so, while the store can't be opened", function()
    web:stop()
    kit.sh(("chmod 600 %s/config.lua; mkdir -p %s/other; echo x >%s/other/data.mdb"):format(web.dir, web.dir, web.dir))
    web.settings.store = web.dir .. "/other"
    kit.write(web.dir .. "/config.lua", receiver.config_text(web.settings))
    web:start()
    local status, body = request("GET", "/look/")
    assert.equal(200, status)
    assert.truthy(body:find("assets/app.js", 1, true))
    local answer
    answer, status = get "/look/api/tasks"
    assert.same({ 503, "unavailable" }, { status, answer.error.code })
  end)

  check("answers what is asked too fast slowly, and still answers", function()
    put { {} }
    local begun = core.clock()
    local out = kit.sh(("%s -s -o /dev/null -w '%%{http_code} ' '%s/look/api/tasks?limit=[1-200]'"):format(kit.curl,
      web.url))
    assert.equal(200, select(2, out:gsub("200", "")))
    assert.is_true(core.clock() - begun > 1000) -- sixty at once, the others 8 ms apart
    assert.equal(200, (request("GET", "/look/")))
  end)
end) end
