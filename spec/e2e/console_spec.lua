-- The console's page in a real browser, on a real nginx: each view, each action's effect in the store.
local browser = require "browser"
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
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
    location /console/ { client_body_buffer_size 64k; content_by_lua_block { require("resty.mjhook").console {
      actions = true, images = "archived", archive = "@DIR@/images", archive_location = "/images/" } } }
    location = /jobs { content_by_lua_block {
      local args = ngx.req.get_uri_args()
      ngx.print(require("resty.mjhook").submit { prompt = args.prompt, user_id = args.user }.ref, " stored") } }
    location /look/ { content_by_lua_block { require("resty.mjhook").console() } }
    location /private/ { content_by_lua_block { require("resty.mjhook").console { private = true } } }
    location /images/ { internal; alias @DIR@/images/; }
  }
}
]]

local PNG = [[
import struct, sys, zlib
def chunk(kind, data): return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
rows = b"".join(b"\0" + bytes(v for x in range(64) for v in (x * 4, y * 4, 160)) for y in range(64))
open(sys.argv[1], "wb").write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
  + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))]]
local BIDI = "abc \226\128\174 dlrow olleh \226\128\172 \226\128\139zero\226\128\139width \27[31m"
local MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script> &amp; \"quoted\" 'single' {{7*7}} ${7*7}"

describe("the console", function()
  local web, mj

  setup(sim.start)
  teardown(sim.stop)
  before_each(function()
    sim.reset()
    web = receiver.start { conf = CONF, threads = THREADS, settings = { api_key = kit.KEY } }
    mj = kit.open({ hook_url = web.settings.hook_url }, sim)
  end)
  after_each(kit.cleanup)

  local function put(tasks) return kit.put(mj, tasks) end

  local function signal(ref, kind, more) kit.signal(mj, ref, kind, more) end

  local function claim(ref)
    for _ = 1, 50 do
      local result = assert(mj.exec:commit { { op = "claim", source = "submit", want = true } })[1]
      if result.task and result.task.ref == ref then
        return
      end
    end
  end

  -- A store with something of everything.
  local function furnish()
    local refs = {}
    local function one(name, task)
      task.priority = 1000
      refs[name] = put({ task })[1]
      return refs[name]
    end
    local image = web.dir .. "/images/d/g.png"
    kit.sh(("mkdir -p %s/images/d && python3 -c %s %s"):format(web.dir, kit.quote(PNG), image))
    local files = cjson.encode { { index = 0, path = image, type = "image/png" } }
    for i = 1, 24 do
      local ref = put({ { prompt = "fox number " .. i .. ", in the snow", user_id = i % 2 == 0 and "ann" or "bob",
                          key = "sale-" .. i } })[1]
      if i <= 12 then
        signal(ref, "succeeded", { source = "callback", task_id = "s" .. i, image = "https://i.test/" .. i .. ".png",
          images = { "https://i.test/a.png", "https://i.test/b.png" },
          meta = '{"width":1024,"height":9007199254740993}' })
        local taken = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1].event
        assert(mj.exec:commit { { op = "done", ref = taken.ref, seq = taken.seq, tries = taken.tries,
          files = i % 3 ~= 0 and files or nil } })
        refs.done = i ~= 12 and ref or refs.done
      end
    end
    claim(one("ambiguous", { prompt = "an owl over the old harbour, woodcut", user_id = "ann", key = "order-7" }))
    signal(refs.ambiguous, "maybe_sent", { error_code = "maybe_sent", error = "the connection broke" })
    claim(one("pending", { prompt = "tea on a balcony in Kyoto", user_id = "bob" }))
    signal(refs.pending, "accepted", { task_id = "p1" })
    claim(one("failed", { prompt = "something forbidden", user_id = "bob" }))
    signal(refs.failed, "failed", { source = "poll", task_id = "f1", error_code = "provider",
                                    error = "Sorry! The prompt was refused by the moderator." })
    claim(one("hostile", { prompt = MARKUP .. " " .. BIDI, user_id = "<b>" .. BIDI, key = MARKUP, context =
      '{"order":9007199254740993,"html":"<script>alert(3)</script>"}' }))
    signal(refs.hostile, "failed", { source = "callback", task_id = "h1", error_code = "provider", error = MARKUP })
    one("long", { prompt = ("x"):rep(10000), user_id = ("u"):rep(256), key = ("k"):rep(256) })
    one("empty", { prompt = "no image at all" })
    signal(refs.empty, "succeeded", { source = "poll", task_id = "e1", image = "https://i.test/none.png" })
    assert(mj:bury(refs.hostile .. "-1", MARKUP))
    local taken = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1].event
    assert(mj.exec:commit { { op = "retry", ref = taken.ref, seq = taken.seq, tries = taken.tries,
                              error = "on_failed raised: no route to mail.test", ["until"] = core.now() + 90000 } })
    assert(mj.exec:commit {
      { op = "refuse", ref = refs.pending, attempt = 1, error = "not JSON", body = MARKUP },
      { op = "pause", account = "default", ["until"] = core.now() + 600000, error_code = "quota" },
    })
    return refs
  end

  it("has no fault that axe-core finds, in any view, in light, dark and on a phone", function()
    local why = browser.missing()
    if why then
      pending(why)
      return
    end
    local seen = browser.visit("console_views", { url = web.url, refs = furnish() })
    assert.same({}, seen.violations)
    assert.same({}, seen.wide)
    assert.same({}, seen.unnamed)
    assert.same({}, seen.alien)
    for _, said in ipairs(seen.trouble) do -- the view of a task that is not there, in each look
      assert.matches("status of 404", said)
    end
    assert.equal(3, #seen.trouble)
  end)

  it("finds, shows, acts and watches, through the page alone", function()
    local why = browser.missing()
    if why then
      pending(why)
      return
    end
    local refs = furnish()
    local crowd = {}
    for i = 1, 120 do
      crowd[i] = { prompt = "one of many " .. i, user_id = "crowd" }
    end
    crowd = put(crowd)
    local seen = browser.visit("console_acts", { url = web.url, pid = web:pid(), refs = refs })

    assert.same({ "q", 1, true }, { seen.searches, seen.filtered, seen.found })
    assert.matches("prompt%s+OWL", seen.shared)
    assert.same({ true, true, 0, true, "U+202E" }, { seen.exact, seen.context, seen.markup, seen.shown, seen.reversed })
    assert.same({ true, "solid", "1 selected:" }, { seen.second, seen.outlined, seen.chosen })
    assert.matches("next, previous row", seen.help)

    assert.equal("120 tasks", seen.total)
    assert.matches("Picked by: user “crowd”", seen.asked, 1, true)
    assert.matches("120 queued", seen.asked, 1, true)
    assert.matches("120 tasks cancelled", seen.report, 1, true)
    assert.equal("cancelled", mj:get(crowd[1]).state)
    assert.equal("cancelled", mj:get(crowd[120]).state)

    assert.matches("billed twice", seen.warned, 1, true)
    assert.equal(2, mj:get(refs.ambiguous).attempt)

    assert.same({ true, true }, { seen.error, seen.body })
    assert.matches("JSON", seen.readmitted) -- it is still none
    local fates = {}
    for event in mj:events {} do
      fates[event.event_id] = event.buried
    end
    assert.is_false(fates[refs.hostile .. "-1"])
    assert.is_true(fates[refs.failed .. "-1"])

    assert.matches("it was paused by hand", seen.rests, 1, true)
    assert.equal("by_hand", mj:stats().accounts[1].reason)
    assert.is_true(seen.findings > 3)

    assert.equal(0, seen.paused)
    assert.equal("Connection lost", seen.lost)
    assert.same({ 0, true, true }, { seen.readonly, seen.hidden, seen.hiddenstory })
    assert.same({ {}, {}, false }, { seen.broken, seen.quiet, seen.alarmed })
    assert.is_true(seen.bytes < 100000)
    if os.getenv "MJHOOK_SHOTS" then
      print(("first paint after %d ms, %d bytes"):format(seen.paint, seen.bytes))
    end
  end)
end)
