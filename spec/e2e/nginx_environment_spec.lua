-- What is set in the environment of nginx, which clears it for its workers: it holds there, and in their threads.
local cjson = require "cjson"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local CONF = [[
@LINES@
@MAIN@ @THREADS@
http { @HTTP@
  init_by_lua_block { require("resty.mjhook").init { @ARGUMENTS@ } }
  init_worker_by_lua_block { require("resty.mjhook").init_worker() }
  server { listen 127.0.0.1:@PORT@;
    location = /ping { return 200 "pong\n"; }
    location = /hook { content_by_lua_block { require("resty.mjhook").callback() } }
    location = /jobs { content_by_lua_block {
      local task, err = require("resty.mjhook").submit { prompt = ngx.var.arg_prompt }
      ngx.print(task and task.state or err.message) } } } }
]]

describe("nginx", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local web

  -- Starts nginx with variables in its environment, and with nothing else there. Gives what it said and its exit code.
  local function start(variables, arguments, lines)
    local conf = CONF:gsub("@ARGUMENTS@", ((arguments or ""):gsub("%%", "%%%%"))):gsub("@LINES@", lines or "")
    web = receiver.prepare { conf = conf }
    local words = {}
    for name, value in pairs(variables) do
      words[#words + 1] = name .. "=" .. kit.quote((value:gsub("@(%u+)@", { DIR = web.dir, URL = web.url })))
    end
    kit.finally(function() web:stop() end)
    return kit.sh(("%s %s /usr/sbin/nginx -p %s -c %s/nginx.conf -e %s/start.log"):format(kit.bare,
      table.concat(words, " "), web.dir, web.dir, web.dir))
  end

  local function all()
    kit.settings() -- a place for the store
    return { MIDJOURNEY_API_KEY = kit.KEY, MIDJOURNEY_API_BASE_URL = sim.url, MIDJOURNEY_WEBHOOK_URL = "@URL@/hook",
             MJHOOK_STORE = kit.store, MJHOOK_SECRET = kit.SECRET }
  end

  local function works()
    kit.wait_until(function() return web:pid() and (sim.request("GET", web.url .. "/ping")) end)
    local mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    assert.equal("pending", (select(2, sim.request("GET", web.url .. "/jobs?prompt=fox"))))
    local job = sim.jobs()[1]
    assert.is_truthy(job.hookUrl:find(web.url .. "/hook?ref=", 1, true))
    assert.equal(200, (sim.request("POST", job.hookUrl, cjson.encode { taskId = job.taskId, status = 1,
      image = "https://img.example/x" })))
    assert.equal(1, mj:stats().tasks.succeeded)
    return mj
  end

  it("has key, secret, base_url, hook_url and store from the environment alone", function()
    local out, code = start(all())
    assert.equal(0, code, out)
    works()
    kit.sh("kill -HUP " .. web:pid())
    kit.wait_until(function() return web:log():find("exited with code 0", 1, true) end)
    assert.equal("pending", (select(2, sim.request("GET", web.url .. "/jobs?prompt=another"))))
  end)

  it("has its configuration file from the environment, and what that reads from there", function()
    local variables = { MJHOOK_CONFIG = kit.tmp() .. "/config.lua", THE_KEY = kit.KEY, THE_SECRET = kit.SECRET,
                        THE_URL = "@URL@/hook" }
    kit.settings()
    kit.write(variables.MJHOOK_CONFIG, ([[return { store = %q, base_url = %q, api_key = os.getenv "THE_KEY",
      secrets = { os.getenv "THE_SECRET" }, hook_url = os.getenv "THE_URL" }]]):format(kit.store, sim.url))
    local out, code = start(variables)
    assert.equal(0, code, out)
    works()
  end)

  local function policy(text)
    return ("policy = %q"):format(kit.write(kit.tmp() .. "/policy.lua", text))
  end

  it("gives a policy what it reads while it is loaded, also in threads", function()
    local variables = all()
    variables.NOTES, variables.EMPTY = "@DIR@/notes", ""
    local out, code = start(variables, policy [[
      local NOTES = assert(os.getenv "NOTES", "NOTES is not set")
      local unset, empty = tostring(os.getenv "UNSET"), os.getenv "EMPTY"
      return { on_event = function(task)
        local file = assert(io.open(NOTES, "a"))
        file:write(task.state, " ", unset, " ", empty, "\n")
        file:close()
      end }]])
    assert.equal(0, code, out)
    works()
    kit.wait_until(function() return kit.read(web.dir .. "/notes") == "succeeded nil \n" end)
  end)

  for name, values in pairs {
    gallery = { GALLERY = "@DIR@/gallery" }, email = { SENDMAIL = "/bin/true", MAIL_FROM = "us@app.example" },
    handoff = { HANDOFF_URL = "https://127.0.0.1:1/", HANDOFF_SECRET_FILE = "@DIR@/secret" },
  } do
    it("gives the shipped policy " .. name .. " its settings", function()
      local variables = all()
      for k, v in pairs(values) do
        variables[k] = v
      end
      local conf = ("policy = %q"):format(kit.root .. "/scripts/policies/" .. name .. ".lua")
      if name == "handoff" then
        local dir = kit.tmp()
        variables.HANDOFF_SECRET_FILE = kit.write(dir .. "/secret", "whsec_" .. ("QUJD"):rep(8) .. "\n")
      end
      local out, code = start(variables, conf)
      assert.equal(0, code, out)
      local mj = works()
      kit.wait_until(function() -- it was handled, or it is known why not: the network, and not its settings
        local event = mj:events()()
        return not event or event.errors[1]
      end)
      assert.is_nil(web:log():find("is not set", 1, true), web:log())
      assert.is_nil(web:log():find("could not be delivered", 1, true), web:log())
    end)
  end

  it("gives a policy what it reads when it runs, whatever it calls it, and a line of nginx.conf goes before", function()
    local variables = all()
    variables.LATE_NAME, variables.NOTES, variables.TWICE = "late", "@DIR@/notes", "from the shell"
    local out, code = start(variables, policy [[
      local function note(...)
        local file = assert(io.open(os.getenv "NOTES", "a"))
        file:write(table.concat({ ... }, " "), "\n")
        file:close()
      end
      return {
        on_callback = function() note("asked", os.getenv("LATE" .. "_NAME"), os.getenv "TWICE") end,
        on_event = function() note("told", os.getenv("LATE" .. "_NAME"), os.getenv "TWICE") end,
      }]], "env TWICE=conf;")
    assert.equal(0, code, out)
    kit.wait_until(function() return web:pid() and (sim.request("GET", web.url .. "/ping")) end)
    local mj = kit.open({ hook_url = web.url .. "/hook" }, sim)
    sim.request("GET", web.url .. "/jobs?prompt=fox")
    local job = sim.jobs()[1]
    sim.request("POST", job.hookUrl, cjson.encode { taskId = job.taskId, status = 0 })
    assert.equal("asked late conf\n", kit.read(web.dir .. "/notes"))
    assert(mj.exec:commit { { op = "signal", ref = mj:tasks()().ref, attempt = 1, kind = "failed", source = "poll",
                              task_id = job.taskId, error = "no" } })
    kit.wait_until(function() return kit.read(web.dir .. "/notes") == "asked late conf\ntold late conf\n" end)
  end)

  it("does not start with a bad value, and names it", function()
    local variables = all()
    variables.MIDJOURNEY_API_BASE_URL = "ftp://api.example"
    local out, code = start(variables)
    assert.not_equal(0, code)
    assert.is_truthy((out .. kit.read(web.dir .. "/start.log")):find("base_url: an https URL expected", 1, true), out)
  end)
end)
