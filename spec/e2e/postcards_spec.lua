-- scripts/examples/postcards as it is shipped, but for paths, port and user: real nginx, a real browser, the simulator.
local browser = require "browser"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"

local APP = kit.root .. "/scripts/examples/postcards"

local function put(text, old, new)
  local from, to = text:find(old, 1, true)
  assert(from, "the example has no " .. old)
  return text:sub(1, from - 1) .. new .. text:sub(to + 1)
end

-- Its policy downloads from public addresses only, so a handler stands in for the archive that copies a file.
local POLICY = [[
return { on_succeeded = function(task)
  local dir = "%s/images/2026-05-04"
  local path = ("%%s/%%s-0.png"):format(dir, task.ref)
  os.execute(("mkdir -p %%s && cp %%s %%s"):format(dir, "%s", path))
  return { files = { { index = 0, path = path } } }
end }
]]

describe("postcards", function()
  setup(function() sim.start "--set image_size=96" end)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local function start(policy)
    local conf = kit.read(APP .. "/nginx.conf")
    conf = put(conf, "include /etc/nginx/modules-enabled/*.conf;", "@MAIN@")
    for _, line in ipairs { "user mjhook;", "worker_processes 1;", "pid postcards.pid;", "error_log error.log warn;",
                            "events { worker_connections 4096; }", 'lua_package_path "/srv/postcards/?.lua;;";' } do
      conf = put(conf, line, "")
    end
    conf = put(conf, "rate=30r/m", "rate=3000r/m")
    conf = put(conf, "http {", "http {\n" .. receiver.http("@DIR@"):gsub("access_log[^\n]*\n", "")
      :gsub('lua_package_path "', "%0@DIR@/?.lua;"))
    conf = put(conf, "listen 8080;", "listen 127.0.0.1:@PORT@; location = /ping { return 200; }")
    conf = conf:gsub("access%.log", "@DIR@/access.log"):gsub("mjhook%.log", "@DIR@/mjhook.log")
      :gsub("/srv/postcards", "@DIR@")
    local web = receiver.prepare { conf = conf }
    assert(kit.sh(("cp %s/postcards.* %s/"):format(kit.quote(APP), kit.quote(web.dir))))
    web.settings.hook_url = web.url .. "/webhooks/midjourney"
    if policy then
      web.settings.policy = kit.write(web.dir .. "/policy.lua", policy:format(web.dir, web.dir .. "/picture"))
    end
    kit.write(web.dir .. "/config.lua", receiver.config_text(web.settings))
    return web:start()
  end

  it("are written, wait, arrive and are kept, in light, in dark and on a phone", function()
    local missing = browser.missing()
    if missing then
      return pending(missing)
    end
    local web = start()
    local seen = browser.visit("postcards", { url = web.url, provider = sim.url })
    assert.matches("No postcards yet", seen.empty)
    assert.equal("Being painted", seen.waits)
    assert.is_true(seen.same_page)
    assert.is_true(seen.loaded)
    assert.equal(6, #seen.first_page)
    assert.equal('the last table at a seaside café in October', seen.first_page[1])
    assert.equal('<b>bold</b> & "quoted" prompt', seen.first_page[2])
    assert.equal(0, seen.bold)
    assert.equal("Could not be painteda banned word", seen.failed)
    assert.equal(2, #seen.second_page)
    assert.same(seen.first_page, seen.back)
    assert.same({ 303, 303 }, seen.twice)
    assert.same({ 403, 400, 403 }, { seen.forged, seen.no_prompt, seen.get })
    assert.same({ 0, 404 }, { seen.stranger, seen.stranger_card })
    assert.equal(9, seen.jobs)
    for _, look in ipairs { seen, seen.dark, seen.phone } do
      assert.is_false(look.overflow)
      assert.same({}, look.unnamed)
    end
    assert.equal("rgb(25, 23, 20)", seen.dark.ground)
    assert.same({}, seen.trouble)
  end)

  -- A visitor without a browser: keeps the cookie, fills in the form.
  local function write(web, prompt)
    local _, page, headers = sim.request("GET", web.url .. "/")
    local cookie = headers["set-cookie"]:match "^[^;]+"
    local form = ("token=%s&key=%s&prompt=%s"):format(page:match('name="token" value="([^"]+)"'):gsub("[+/=]", {
      ["+"] = "%2B", ["/"] = "%2F", ["="] = "%3D" }), page:match 'name="key" value="([^"]+)"', prompt:gsub(" ", "+"))
    local code = sim.request("POST", web.url .. "/cards", form, {
      cookie = cookie, ["content-type"] = "application/x-www-form-urlencoded" })
    return code, cookie
  end

  it("show what the archive has stored, rather than addresses that expire", function()
    local web = start(POLICY)
    kit.write(web.dir .. "/picture", "a picture")
    local code, cookie = write(web, "a fox")
    assert.equal(303, code)
    sim.finish(sim.jobs()[1].taskId)
    local src = kit.wait_until(function()
      return select(2, sim.request("GET", web.url .. "/", nil, { cookie = cookie })):match 'img src="(/images/[^"]+)"'
    end)
    local got, body, headers = sim.request("GET", web.url .. src)
    assert.same({ 200, "a picture", "image/png" }, { got, body, headers["content-type"] })
  end)

  it("take no job from a cookie alone, and open no page for what is no ref", function()
    local web = start()
    local code = sim.request("POST", web.url .. "/cards", "prompt=a+fox&key=12345678", {
      cookie = "postcards=" .. ("0"):rep(32), ["content-type"] = "application/x-www-form-urlencoded" })
    assert.same({ 403, 0 }, { code, #sim.jobs() })
    for _, query in ipairs { "before=x", "after=%00", "before=a&before=b", "before", "after=../../etc/passwd" } do
      assert.equal(200, (sim.request("GET", web.url .. "/?" .. query)))
    end
    assert.equal(404, (sim.request("GET", web.url .. "/cards/01ARZ3NDEKTSV4RRFFQ69G5FAV")))
    assert.is_nil(web:log():find("%[error%]"))
  end)
end)
