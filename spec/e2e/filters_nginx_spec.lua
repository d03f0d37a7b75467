-- Listings, counts and actions on many, called in a request of nginx: with and without a thread pool for reads.
local core = require "mjhook.core"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local CONF = [[
@MAIN@ @THREADS@
http {
  @HTTP@
  init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }
  init_worker_by_lua_block {
    require("resty.mjhook").init_worker()
    counted = require("resty.mjhook").instance():count({ q = "fox", since = 0 }).count -- where nothing may yield
  }
  server {
    listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /try { content_by_lua_block {
      local mj, out = require("resty.mjhook").instance(), {}
      local function list(filter)
        local n = 0
        for _ in mj:tasks(filter) do
          n = n + 1
        end
        return n
      end
      out[#out + 1] = counted
      out[#out + 1] = list { q = "FOX" }
      out[#out + 1] = list { mode = "relaxed", state = { "queued", "cancelled" } }
      out[#out + 1] = mj:count({ user_id = "u" }).count
      local page = mj:page { user_id = "u", limit = 100 }
      out[#out + 1] = #page.tasks
      out[#out + 1] = #mj:page({ user_id = "u", limit = 100, before = page.older }).tasks
      local steps = 0
      local report = mj:bulk("cancel", { user_id = "u" }, { progress = function() steps = steps + 1 end })
      out[#out + 1] = report.done
      out[#out + 1] = steps
      out[#out + 1] = list { state = "cancelled" }
      local events = 0
      for _ in mj:events { waiting = true, user_id = "v" } do
        events = events + 1
      end
      out[#out + 1] = events
      ngx.print(table.concat(out, " "))
    } }
  }
}
]]

describe("filters under nginx", function()
  setup(sim.start)
  teardown(sim.stop)
  after_each(kit.cleanup)

  for name, threads in pairs {
    ["a pool for reads"] = "thread_pool mjhook threads=1; thread_pool mjhook_http threads=1; "
      .. "thread_pool mjhook_read threads=1;",
    ["no pool for reads"] = "thread_pool mjhook threads=1; thread_pool mjhook_http threads=1;",
    ["the pool for commits alone"] = "thread_pool mjhook threads=1;",
  } do
    it("give what they give in plain Lua, with " .. name, function()
      local mj = kit.open({}, sim)
      local ops = {}
      for i = 1, 250 do
        ops[i] = { op = "create", source = "user", want = true, task = {
          prompt = i % 2 == 0 and "a fox" or "an owl", mode = i % 5 == 0 and "relaxed" or "fast",
          user_id = i <= 120 and "u" or "v", fingerprint = core.sha256(tostring(i)) } }
      end
      local results = assert(mj.exec:commit(ops))
      assert(mj.exec:commit { { op = "signal", ref = results[250].task.ref, attempt = 1, kind = "succeeded",
        source = "callback", task_id = "t", image = "https://i.test/g.png" } })
      assert.is_true(mj:pause "default") -- so that nginx sends none of them
      local web = receiver.start { conf = CONF, threads = threads }
      local status, body = sim.request("GET", web.url .. "/try")
      assert.same({ 200, "125 125 49 120 100 20 120 2 120 1" }, { status, body })
    end)
  end
end)
