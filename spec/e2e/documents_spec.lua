-- README and the guides: every block of code in them is run as it stands, but for paths, ports and the provider.
local cjson = require "cjson"
local config = require "mjhook.config"
local core = require "mjhook.core"
local kit = require "kit"
local policy = require "mjhook.policy"
local receiver = require "receiver"
local sim = require "sim"
local snippets = require "snippets"
local socket = require "socket"

local LUAS = { "lua5.4", "luajit" }

-- The same text where ids and addresses differ from run to run.
local function plain(text)
  return (text:gsub("https?://%S+", "URL"):gsub("%f[%w]01[0-9A-Z]+%f[^%w]", "REF"):gsub("%s+$", ""))
end

local RUN = {}

RUN["lua program"] = function(block, next_block)
  for _, lua in ipairs(LUAS) do
    sim.reset()
    local out, code = snippets.place():program(block, lua)
    assert.equal(0, code, out)
    if next_block and next_block.kind == "text output" then
      assert.equal(plain(next_block.text), plain(out))
    end
  end
end

RUN["lua config"] = function(block, _, place)
  local path = place:install(block)
  local settings, err = config.resolve { config = path }
  assert.is_nil(err, tostring(err))
  assert.is_truthy(policy.load(settings.policy, print))
end

RUN["lua policy"] = function(block, _, place)
  for _, lua in ipairs(LUAS) do
    local path = place:install(block)
    local out, code = place:program({ text = ([[
      local loaded, err = require("mjhook.policy").load(%q, print)
      print(loaded and "loaded" or err.message)]]):format(path) }, lua)
    assert.same({ "loaded", 0 }, { out, code })
  end
  place:sh { text = "mjhook submit 'a fox'\nmjhook submit 'an owl'\n" }
  local out, code = place:sh { text = "mjhook policy test " .. (block.file or place.dir .. "/tmp/block") .. "\n" }
  assert.equal(0, code, out)
end

RUN["lua part"] = function(block, _, place)
  local prelude = [[local mj = assert(require("mjhook").open()); local task = assert(mj:submit { prompt = "a fox" });
    local _ = task; ]]
  for _, lua in ipairs(LUAS) do
    local out, code = place:program(block, lua, prelude)
    assert.equal(0, code, out)
  end
end

RUN["lua spec"] = function(block, _, place)
  local path = kit.write(place.dir .. "/tmp/example_spec.lua", block.text)
  for _, lua in ipairs(LUAS) do
    local out, code = place:program({ text = ([[arg = { [0] = "busted", "--ignore-lua", "-o", "plainTerminal", %q }
      require "busted.runner" { standalone = false }]]):format(path) }, lua)
    assert.equal(0, code, out)
    assert.matches("[1-9]%d* success%a* / 0 failures / 0 errors", out)
  end
end

RUN["sh"] = function(block, _, place)
  local out, code = place:sh(block)
  assert.equal(0, code, out)
  place.printed = out
end

-- On a machine where nothing is yet.
RUN["sh init"] = function(block, _, place)
  place.config = nil
  kit.sh(("rm -rf %s/etc/mjhook/* %s/var/lib/mjhook"):format(kit.quote(place.dir), kit.quote(place.dir)))
  local out, code = place:sh(block)
  assert.equal(0, code, out)
  for _, word in ipairs { "crontab", "systemctl", "location", "secrets" } do
    assert.matches(word, out, 1, true)
  end
  kit.write(place.dir .. "/etc/mjhook/api-key", kit.KEY .. "\n")
  local settings = kit.read(place.dir .. "/etc/mjhook/config.lua")
  kit.write(place.dir .. "/etc/mjhook/config.lua", (settings:gsub("return {", "%0 poll = { first = 1 },", 1)))
end

-- What installs or takes minutes: that make knows the goals.
RUN["sh make"] = function(block)
  for line in block.text:gmatch "[^\n]+" do
    local goals = line:match "^make%f[%s%z]([^#]*)"
    assert.is_truthy(goals, line)
    local out, code = kit.sh(("cd %s && make -n -o luas %s DEPS=true"):format(kit.quote(kit.root), goals))
    assert.equal(0, code, out)
  end
end

local function crontab(block, fields)
  local place = snippets.place()
  for line in place:text(block.text):gmatch "[^\n]+" do
    if not line:find "^#" then
      local command = line:match("^" .. ("%S+%s+"):rep(fields) .. "(.*)$")
      local out, code = kit.sh("env -i HOME=/ SHELL=/bin/sh PATH=/usr/bin:/bin MJHOOK_CONFIG="
        .. kit.quote(place.dir .. "/etc/mjhook/config.lua") .. " sh -c " .. kit.quote(command))
      assert.same({ "", 0 }, { out, code })
    end
  end
end

RUN["crontab system"] = function(block) crontab(block, 6) end
RUN["crontab user"] = function(block) crontab(block, 5) end

RUN["text output"] = function() end -- compared with what the block before it prints

-- What runs until it is told to stop: from here on the guide's commands are about it.
RUN["sh dev"] = function(block, next_block, place)
  local dev = kit.spawn(("cd %s && exec %s %s"):format(kit.quote(place.dir .. "/tmp"), place:environment(), block.text))
  kit.finally(function()
    dev:kill "TERM"
    assert.equal(0, dev:wait())
  end)
  kit.wait_until(function() return dev:out():find "Ctrl%-C" or dev:status() end)
  local said = dev:out()
  assert.is_nil(dev:status(), said .. dev:err())
  place.config = said:match "MJHOOK_CONFIG=(%S+)"
  local function shape(text)
    return (plain(text):gsub("/%S*/mjhook%-dev%-%d+", "DIR"):gsub("/%S*/mjhook ", "mjhook "):gsub("URL +", "URL "))
  end
  assert.equal("text dev", next_block.kind)
  assert.equal(shape(next_block.text), shape(said))
end

RUN["text dev"] = function() end -- compared with what mjhook dev prints

RUN["text story"] = function(block, _, place)
  local printed = place.printed:gsub("%s+$", "") .. "\n"
  local function shape(text)
    return (plain(text):gsub("%d%d%d%d%-%d%d%-%d%d %d%d:%d%d:%d%d", "TIME"):gsub("%b()", "AGO")
      :gsub("task id %S+", "ID"):gsub("prompt +[^\n]+", "PROMPT"):gsub("%+%d+ %l+", "SINCE"):gsub(" +", " "))
  end
  assert.equal(shape(block.text), shape(printed))
end

-- The nginx.conf of a guide, with places and port of this test.
local function nginx_conf(text)
  local function put(old, new)
    local from, to = text:find(old, 1, true)
    assert(from, "the guide's nginx.conf has no " .. old)
    text = text:sub(1, from - 1) .. new .. text:sub(to + 1)
  end
  put("include /etc/nginx/modules-enabled/*.conf;", "@MAIN@")
  put("user mjhook;", "#")
  put("worker_processes 1;", "#")
  put("pid /run/nginx.pid;", "#")
  put("error_log /var/log/nginx/error.log warn;", "#")
  put("events { worker_connections 4096; }", "#")
  put("http {", "http {\n" .. receiver.http("@DIR@"):gsub("access_log[^\n]*\n", ""))
  put("/etc/mjhook/config.lua", "@DIR@/config.lua")
  put("listen 8080;", "listen 127.0.0.1:@PORT@; location = /ping { return 200; }")
  return (text:gsub("/var/log/nginx/", "@DIR@/"))
end

local function start_nginx(conf)
  local web = receiver.prepare { conf = conf }
  web.settings.hook_url = web.url .. "/webhooks/midjourney"
  kit.write(web.dir .. "/config.lua", receiver.config_text(web.settings))
  return web:start(), kit.open({}, sim)
end

RUN["nginx conf"] = function(block)
  start_nginx(nginx_conf(block.text)):stop()
end

-- Lines for a server: they stand in one that has all else.
local function with_part(part)
  local conf = nginx_conf(snippets.first("scripts/doc/guides/openresty.md", "nginx conf").text)
  return (conf:gsub("listen 127.0.0.1[^\n]*", function(line) return line .. "\n" .. part end, 1))
end

RUN["nginx part"] = function(block)
  start_nginx(with_part(block.text)):stop()
end

describe("the documents:", function()
  setup(function() sim.start "--set delay_ms=50" end)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  for _, path in ipairs(snippets.documents()) do
    local blocks = snippets.of(path)
    if #blocks > 0 then
      it("every block of code in " .. path .. " works as it stands", function()
        local place = snippets.place()
        for i, block in ipairs(blocks) do
          local run = RUN[block.kind]
          assert.is_truthy(run, ("%s:%d: what kind of code is %q?"):format(path, block.line, block.kind))
          local ok, err = pcall(run, block, blocks[i + 1], place)
          if not ok then
            error(("%s:%d: %s"):format(path, block.line, tostring(type(err) == "table" and err.message or err)), 0)
          end
        end
      end)
    end
  end

  it("every link and every file of ours that they name is there", function()
    local files = kit.sh(("cd %s && ls README.md .github/*.md scripts/doc/guides/*.md"):format(kit.quote(kit.root)))
    for path in files:gmatch "%S+" do
      local text = kit.read(kit.root .. "/" .. path)
      for link in text:gmatch "%]%(([^)#]+)#?[^)]*%)" do
        if not link:find "^%a+:" then
          local file = path:match "^.*/" or ""
          assert.is_truthy(core.stat(("%s/%s%s"):format(kit.root, file, link)), ("%s: %s"):format(path, link))
        end
      end
      for top, rest in text:gmatch "`(%l+)(/[%w_/.-]+)`" do
        if top == "src" or top == "lua" or top == "scripts" or top == "spec" then
          assert.is_truthy(core.stat(("%s/%s%s"):format(kit.root, top, rest)), ("%s: %s%s"):format(path, top, rest))
        end
      end
    end
  end)

  describe("the nginx.conf of the OpenResty guide", function()
    local web, mj

    before_each(function()
      web, mj = start_nginx(nginx_conf(snippets.first("scripts/doc/guides/openresty.md", "nginx conf").text))
    end)

    local function submit(form)
      return sim.request("POST", web.url .. "/jobs", form, { ["content-type"] = "application/x-www-form-urlencoded" })
    end

    it("takes a job from a form and its callback", function()
      local code, text = submit "prompt=a+fox&key=order-7"
      assert.equal(200, code)
      local ref = text:match "^%w+"
      kit.wait_until(function() return mj:get(ref).state == "succeeded" end)
      assert.same({ "callback", "u1", "order-7" }, { mj:get(ref).source, mj:get(ref).user_id, mj:get(ref).key })
      assert.equal(401, (sim.request("POST", web.url .. "/webhooks/midjourney", "{}")))
      assert.is_nil(web:log():find("no thread_pool", 1, true))
    end)

    it("submits by POST only, and tells a form what is wrong with it", function()
      assert.equal(403, (sim.request("GET", web.url .. "/jobs?prompt=a+fox")))
      local code, text = submit "key=order-7"
      assert.equal(400, code)
      assert.matches("prompt", text)
      assert.equal(0, #sim.jobs())
    end)

    it("keeps the token out of access and error log", function()
      sim.config { delay_ms = 3600000 }
      assert.equal(200, (submit "prompt=a+fox"))
      local job = sim.jobs()[1]
      local url = job.hookUrl
      local body = cjson.encode { taskId = job.taskId, status = 1, image = ("x"):rep(2 ^ 20) }
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
      local access = web:access_log():gsub("[^\n]* /p?i?n?g?j?o?b?s? 200\n", "")
      local sig = url:match "sig=(.*)"
      assert.equal("", access)
      assert.is_nil(kit.read(web.dir .. "/mjhook.log"):find(sig, 1, true))
      assert.is_nil((web:log():gsub("[^\n]*%[info%][^\n]*\n", "")):find(sig, 1, true)) -- nginx's own level is error
    end)

    it("shows metrics to this machine", function()
      local code, text = sim.request("GET", web.url .. "/metrics")
      assert.equal(200, code)
      assert.matches('mjhook_tasks{state="queued"} 0', text, 1, true)
    end)
  end)

  it("the console's locations let in what the guide says, and nothing else", function()
    local parts = {}
    for _, block in ipairs(snippets.of "scripts/doc/guides/console.md") do
      parts[#parts + 1] = block.text
    end
    local expected = { { "/mjhook/", 200 }, { "/operators/", 401 }, { "/mjhook/", 401 } }
    assert.equal(#expected, #parts)
    for i, part in ipairs(parts) do
      local web = start_nginx(with_part(part))
      local code, text = sim.request("GET", web.url .. expected[i][1] .. "api/console")
      assert.equal(expected[i][2], code)
      assert.is_truthy(code ~= 200 or not cjson.decode(text).actions)
      web:stop()
    end
  end)

  it("the status locations of the OpenResty guide answer", function()
    local web, mj = start_nginx(with_part(snippets.first("scripts/doc/guides/openresty.md", "nginx part").text))
    local task = assert(mj:submit { prompt = "a fox", user_id = "u1" })
    kit.wait_until(function() return mj:refresh(task.ref).state == "succeeded" end)
    local code, text = sim.request("GET", web.url .. "/jobs/" .. task.ref)
    assert.equal(200, code)
    assert.equal("succeeded", cjson.decode(text).state)
    assert.equal(404, (sim.request("GET", web.url .. "/jobs/01ARZ3NDEKTSV4RRFFQ69G5FAV")))
    assert.equal(task.ref .. " succeeded\n", select(2, sim.request("GET", web.url .. "/mine")))
  end)
end)
