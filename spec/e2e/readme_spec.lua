-- README's quick starts, taken from README and run as they stand but for places and the provider's address.
local cjson = require "cjson"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local socket = require "socket"

-- The block of code after a heading.
local function block(heading, language)
  local text = assert(kit.read(kit.root .. "/README.md"))
  local from = select(2, assert(text:find("\n## " .. heading .. "\n", 1, true)))
  return assert(text:sub(from):match("^.-\n```" .. language .. "\n(.-)\n```"))
end

-- Replaces what has to be there.
local function put(text, old, new)
  local from, to = text:find(old, 1, true)
  assert(from, "README has no " .. old)
  return text:sub(1, from - 1) .. new .. text:sub(to + 1)
end

describe("README", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  for _, lua in ipairs { "lua5.4", "luajit" } do
    it("has a quick start for plain Lua that works on " .. lua, function()
      local mj = kit.open({ hook_url = "https://app.example/webhooks/midjourney" }, sim)
      local code = put(block("Quick start: plain Lua", "lua"), "/var/lib/mjhook", kit.store)
      local environment = ("MIDJOURNEY_API_KEY=%s MIDJOURNEY_API_BASE_URL=%s "):format(kit.KEY, sim.url)
      local out, status = kit.sh(environment .. kit.lua_command(code, lua))
      assert.equal(0, status, out)
      local ref = out:match "^(%w+)\tpending\npending$"
      assert.is_truthy(ref, out)
      local task = mj:get(ref)
      assert.equal("order-7", task.key)
      assert.equal("a fox --ar 4:5 --niji 7", sim.jobs()[1].prompt)
      assert.matches("^https://app.example/webhooks/midjourney%?ref=" .. ref .. "&a=1&kid=", sim.jobs()[1].hookUrl)
      -- Once more, when the job is done: the same key, no second job, and the handler prints.
      sim.finish(task.task_id)
      assert(mj:refresh(ref))
      out, status = kit.sh(environment .. kit.lua_command(code, lua))
      assert.equal(0, status, out)
      assert.matches(("^%s\tsucceeded\n%s\thttp://[^\n]+/grid.png\nsucceeded$"):format(ref, ref), out)
      assert.equal(1, #sim.jobs())
    end)
  end

  for _, lua in ipairs { "lua5.4", "luajit" } do
    it("has an example of a spec that passes on " .. lua, function()
      local path = kit.write(kit.tmp() .. "/orders_spec.lua", block("Testing your own code", "lua"))
      local busted = ([[arg = { [0] = "busted", "--ignore-lua", "-o", "plainTerminal", %q }
        require "busted.runner" { standalone = false }]]):format(path)
      local out, status = kit.sh(kit.lua_command(busted, lua))
      assert.equal(0, status, out)
      assert.matches("1 success / 0 failures / 0 errors", out)
    end)
  end

  describe("has a quick start for OpenResty that", function()
    local function start()
      local conf = block("Quick start: OpenResty", "nginx")
      conf = put(conf, "http {", "@MAIN@\nhttp {\n" .. receiver.http("@DIR@"):gsub("access_log[^\n]*\n", ""))
      conf = put(conf, "/var/log/nginx/access.log", "@DIR@/access.log")
      conf = put(conf, "/var/log/nginx/mjhook.log", "@DIR@/mjhook.log")
      conf = put(conf, "server {", "server { listen 127.0.0.1:@PORT@; location = /ping { return 200; }")
      conf = put(conf, "/etc/mjhook/config.lua", "@DIR@/config.lua")
      local web = receiver.prepare { conf = conf }
      local settings = web.settings
      settings.hook_url = web.url .. "/webhooks/midjourney"
      kit.write(web.dir .. "/config.lua", receiver.config_text(settings))
      web:start()
      local code, text = sim.request("GET", web.url .. "/jobs")
      assert.equal(200, code)
      return web, text:match "^%w+", kit.open({}, sim)
    end

    it("works", function()
      local web, ref, mj = start()
      local task = assert(mj:get(ref))
      assert.same({ "pending", "u1" }, { task.state, task.user_id })
      sim.finish(task.task_id)
      kit.wait_until(function() return mj:get(ref).state == "succeeded" end)
      assert.equal("callback", mj:get(ref).source)
      assert.equal(401, (sim.request("POST", web.url .. "/webhooks/midjourney", "{}")))
      assert.is_nil(web:log():find("no thread_pool", 1, true))
    end)

    it("keeps the token out of access and error log", function()
      local web = start()
      local url = sim.jobs()[1].hookUrl
      local body = cjson.encode { taskId = sim.jobs()[1].taskId, status = 1, image = ("x"):rep(2 ^ 20) }
      assert.equal(413, (sim.request("POST", url, body)))
      assert.equal(400, (sim.request("POST", url, "nonsense")))
      kit.wait_until(function() return web:log():find("bytes, max_body is", 1, true) end)
      local client = assert(socket.connect("127.0.0.1", web.port)) -- nginx refuses it before it looks for a location
      client:send(("POST %s HTTP/1.1\r\n\r\n"):format(url:match "^http://[^/]+(.*)$"))
      assert.matches(" 400 ", (client:receive "*l"))
      client:close()
      assert.equal(401, (sim.request("POST", url .. "x", "{}")))
      for _, path in ipairs { "/webhooks/midjourney%3F", "/webhooks/midjourney;", "/webhooks%2Fmidjourney%3F",
                              "//webhooks/./midjourney/%3f", "/webhooks/midjourney/..%3F" } do
        sim.request("POST", url:match "^http://[^/]+" .. path .. url:match "%?(.*)", "{}")
      end
      web:stop()
      local access = web:access_log():gsub("[^\n]* GET /p?i?n?g?j?o?b?s? 200\n", "")
      local sig = url:match "sig=(.*)"
      assert.equal("", access)
      assert.is_nil(access:find(sig, 1, true), access)
      assert.is_nil(kit.read(web.dir .. "/mjhook.log"):find(sig, 1, true))
      assert.is_nil((web:log():gsub("[^\n]*%[info%][^\n]*\n", "")):find(sig, 1, true)) -- nginx's own level is error
    end)
  end)
end)
