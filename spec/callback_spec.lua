-- mj:callback: refused cheaply, stored before it is acknowledged, the first terminal word wins.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"
local zlib = require "zlib"

local IMAGE = "https://img.example/grid.png"
local function gzip(text)
  return (zlib.deflate(9, 15 + 16)(text, "finish"))
end

local UNKNOWN_REF = "01ARZ3NDEKTSV4RRFFQ69G5FAV"

describe("callback", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  local function open(more)
    mj = kit.open(more, sim)
    return mj
  end

  -- A pending task and the path and query that its provider was told.
  local function submit(prompt)
    local task = assert(mj:submit { prompt = prompt or "a fox" })
    local jobs = sim.jobs()
    return task, jobs[#jobs].hookUrl:match "^http://[^/]+(.*)$"
  end

  local function post(uri, body, more)
    local request = {
      method = "POST", uri = uri, headers = {}, peer = "127.0.0.1",
      body = type(body) == "table" and cjson.encode(body) or body,
    }
    for k, v in pairs(more or {}) do
      request[k] = v
    end
    local reply = mj:callback(request)
    assert.equal("application/json", reply.headers["Content-Type"])
    reply.word = cjson.decode(reply.body).status
    return reply
  end

  local function success(task_id, more)
    local data = { taskId = task_id, status = 1, image = IMAGE }
    for k, v in pairs(more or {}) do
      data[k] = v
    end
    return { status = 0, message = "success", data = data }
  end

  local function failure(task_id, reason)
    return { status = 0, data = { taskId = task_id, status = 2, failReason = reason } }
  end

  local function token(ref, attempt, secret)
    local ring = assert(core.keyring { secret or kit.SECRET })
    local kid, sig = ring:sign(ref, attempt)
    return ("/_sim/sink?ref=%s&a=%d&kid=%s&sig=%s"):format(ref, attempt, kid, sig)
  end

  local function events()
    local list = {}
    for i, event in ipairs((assert(mj.store:page { by = "event", limit = 1000 }))) do
      list[i] = event.type
    end
    return list
  end

  describe("with a result", function()
    it("finishes the task and stores everything that was said", function()
      open()
      local task, uri = submit()
      local reply = post(uri, (([[{"status":0,"message":"success","data":{
        "taskId":"ID","status":1,"jobId":"3dbbd469","image":"IMAGE","prompt":"a fox",
        "images":["https://img.example/0.png","https://img.example/1.png"],"mjPrompt":"a fox --v 7",
        "failReason":"","createdAt":1776211200000,
        "meta":{"width":1024,"seed":1776211200000123,"tags":["x"]}}}]]):gsub("ID", task.task_id):gsub("IMAGE", IMAGE)))
      assert.equal(200, reply.status)
      assert.equal("stored", reply.word)
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.equal("callback", task.source)
      assert.equal(IMAGE, task.image)
      assert.same({ "https://img.example/0.png", "https://img.example/1.png" }, task.images)
      assert.equal("a fox --v 7", task.mj_prompt)
      assert.same({ width = 1024, seed = 1776211200000123, tags = { "x" } }, task.meta)
      assert.equal("1024", tostring(task.meta.width))
      assert.is_true(task.finished_at >= task.submitted_at)
      assert.is_nil(task.error)
      assert.same({ "succeeded" }, events())
      assert.equal(0, mj:stats().accounts[1].held)
    end)

    it("is on disk when it is acknowledged", function()
      kit.needs "processes"
      open()
      local task, uri = submit()
      assert.equal(200, post(uri, success(task.task_id)).status)
      local out = kit.sh(kit.lua_command(([[
        local mj = assert(require("mjhook").open { store = %q })
        io.stdout:write(mj:get(%q).state)
      ]]):format(kit.store, task.ref), kit.other_lua))
      assert.equal("succeeded", out)
    end)

    it("fails the task with the provider's reason", function()
      open()
      local task, uri = submit()
      assert.equal("stored", post(uri, failure(task.task_id, "banned word")).word)
      task = mj:get(task.ref)
      assert.equal("failed", task.state)
      assert.equal("provider", task.error.code)
      assert.equal("banned word", task.error.message)
      assert.equal("banned word", tostring(task.error))
      assert.is_false(task.error.retryable)
      assert.same({ "failed" }, events())
    end)

    it("leaves a task pending that is still running", function()
      open()
      local task, uri = submit()
      assert.equal(200, post(uri, { taskId = task.task_id, status = 0 }).status)
      assert.equal("pending", mj:get(task.ref).state)
      assert.same({}, events())
    end)

    for _, format in ipairs { "envelope", "bare", "array" } do
      it("is understood as the provider sends it: " .. format, function()
        sim.config { callback_format = format }
        open()
        local task = submit()
        sim.finish(task.task_id)
        assert.equal(200, sim.hand(mj, 1).status)
        task = mj:get(task.ref)
        assert.equal("succeeded", task.state)
        assert.equal(4, #task.images)
      end)
    end
  end)

  describe("in any form", function()
    -- ID stands for the task id, URL for an image's. Each: name, body, the state it leads to, perhaps more to look at.
    local forms = {
      { "bare", '{"taskId":"ID","status":1,"image":"URL"}', "succeeded" },
      { "an array of one", '{"data":[{"taskId":"ID","status":1,"image":"URL"}]}', "succeeded" },
      { "no envelope status", '{"data":{"taskId":"ID","status":1,"image":"URL"}}', "succeeded" },
      { "data null beside a bare task", '{"data":null,"taskId":"ID","status":2}', "failed" },
      { "status as a string", '{"taskId":"ID","status":"1","image":"URL"}', "succeeded" },
      { "status as a float", '{"taskId":"ID","status":2.0}', "failed" },
      { "an envelope that says error", '{"status":500,"data":{"taskId":"ID","status":2}}', "failed" },
      { "nothing but images", '{"taskId":"ID","status":1,"images":["URL"]}', "succeeded",
        function(task) assert.is_nil(task.image) assert.same({ IMAGE }, task.images) end },
      { "images that are objects", '{"taskId":"ID","status":1,"images":[{"url":"URL"},{"no":1},null]}',
        "succeeded", function(task) assert.same({ IMAGE }, task.images) end },
      { "an image that is an object", '{"taskId":"ID","status":1,"image":{"url":"URL"}}', "succeeded",
        function(task) assert.equal(IMAGE, task.image) end },
      { "every other field null",
        '{"taskId":"ID","status":2,"image":null,"images":null,"prompt":null,"mjPrompt":null,"failReason":null,'
        .. '"createdAt":null,"meta":null,"jobId":null}', "failed",
        function(task) assert.equal("the provider gave no reason", task.error.message) end },
      { "every other field of a wrong type",
        '{"taskId":"ID","status":2,"image":7,"images":"none","prompt":[],"mjPrompt":{},"failReason":[1],'
        .. '"createdAt":"x","meta":false,"jobId":9}', "failed",
        function(task) assert.is_nil(task.image) assert.same({}, task.images) assert.is_nil(task.meta) end },
      { "many images", '{"taskId":"ID","status":1,"images":[' .. ('"URL",'):rep(99) .. '"x"]}', "succeeded",
        function(task) assert.equal(16, #task.images) end },
      { "a reason that goes on and on", '{"taskId":"ID","status":2,"failReason":"' .. ("é"):rep(3000) .. '"}', "failed",
        function(task) assert.equal(("é"):rep(250), task.error.message) end },
      { "bytes that are no UTF-8", '{"taskId":"ID","status":2,"failReason":"a\255b\1c","mjPrompt":"\192\175"}',
        "failed",
        function(task) assert.equal("a?b?c", task.error.message) assert.equal("??", task.mj_prompt) end },
      { "a meta that is no UTF-8", '{"taskId":"ID","status":2,"meta":{"a":"\255"}}', "failed",
        function(task) assert.is_nil(task.meta) end },
      { "a meta that is too large", '{"taskId":"ID","status":2,"meta":{"a":"' .. ("x"):rep(70000) .. '"}}', "failed",
        function(task) assert.is_nil(task.meta) end },
      { "a list for meta", '{"taskId":"ID","status":2,"meta":[1,2]}', "failed",
        function(task) assert.same({ 1, 2 }, task.meta) end },
      { "escapes", '{"taskId":"\\u0049D","status":2,"failReason":"\\u00e9\\n"}', "failed",
        function(task) assert.equal("é\n", task.error.message) end, true },
      { "names twice: the last counts", '{"taskId":"ID","status":2,"failReason":"a","failReason":"b"}', "failed",
        function(task) assert.equal("b", task.error.message) end },
      { "its id and status twice, the same", '{"taskId":"ID","status":2,"taskId":"ID","status":2}', "failed" },
      { "blanks around it", ' \n\t{"taskId":"ID","status":2}\r\n ', "failed" },
      { "an unknown status number: still running", '{"taskId":"ID","status":7}', "pending" },
      { "a negative status number: still running", '{"taskId":"ID","status":-1}', "pending" },
      { "success without an image: asked about", '{"taskId":"ID","status":1}', "pending" },
      { "success with an empty image: asked about", '{"taskId":"ID","status":1,"image":"","images":[]}', "pending" },
      { "success with an image that is no link: asked about", '{"taskId":"ID","status":1,"image":"grid.png"}',
        "pending" },
      { "image URLs with blanks, other letters and a loud scheme",
        '{"taskId":"ID","status":1,"image":"HTTPS://a/a red fox.png","images":["https://a/fuchs-\195\188ber.png"]}',
        "succeeded", function(task)
          assert.equal("https://a/a%20red%20fox.png", task.image)
          assert.same({ "https://a/fuchs-%C3%BCber.png" }, task.images)
        end },
      { "image URLs of which one can't be used: the timeline tells",
        '{"taskId":"ID","status":1,"image":"URL","images":["URL","//a/1.png","URL","URL"]}', "succeeded",
        function(task)
          assert.equal(3, #task.images)
          assert.equal("1 of 5 URLs unusable", task.timeline[#task.timeline].reason)
          assert.is_nil(task.error)
        end },
      { "image URLs of which none can be used: asked about, and the timeline tells",
        '{"taskId":"ID","status":1,"image":"grid.png","images":["https://u:p@a/1.png"]}', "pending",
        function(task) assert.equal("2 of 2 URLs unusable", task.timeline[#task.timeline].reason) end },
      { "a javascript: image", '{"taskId":"ID","status":1,"image":"javascript:alert(1)"}', "pending" },
      { "a file: image", '{"taskId":"ID","status":1,"image":"file:///etc/passwd"}', "pending" },
      { "an image with a line break", '{"taskId":"ID","status":1,"image":"https://x/\\n"}', "pending" },
      { "an image with a quote", '{"taskId":"ID","status":1,"image":"https://x/\\"><b>"}', "pending" },
      { "an image that is too long", '{"taskId":"ID","status":1,"image":"https://x/' .. ("y"):rep(4096) .. '"}',
        "pending" },
    }
    for _, form in ipairs(forms) do
      it("takes " .. form[1], function()
        open()
        local task, uri = submit()
        local body = form[2]
        if form[5] then -- an escaped id: only its first letter can be written so
          body = body:gsub("\\u0049D", ("\\u%04x"):format(task.task_id:byte()) .. task.task_id:sub(2))
        end
        body = body:gsub("ID", task.task_id):gsub("URL", IMAGE)
        local reply = post(uri, body)
        assert.equal(200, reply.status)
        task = mj:get(task.ref)
        assert.equal(form[3], task.state)
        if form[4] then
          form[4](task)
        end
      end)
    end

    local refused = {
      { "two statuses", '{"taskId":"ID","status":1,"status":2}' },
      { "two ids", '{"taskId":"ID","status":1,"taskId":"ID2"}' },
      { "nothing", "" }, { "blanks", "  " }, { "a word", "success" }, { "HTML", "<html></html>" }, { "null", "null" },
      { "a number", "7" }, { "a string", '"x"' }, { "true", "true" }, { "an empty object", "{}" },
      { "an empty array", "[]" }, { "half a document", '{"taskId":"ID","sta' },
      { "a document and more", '{"taskId":"ID","status":2} x' }, { "no taskId", '{"status":1}' },
      { "an empty taskId", '{"taskId":"","status":2}' }, { "a taskId null", '{"taskId":null,"status":2}' },
      { "a broken number as taskId", '{"taskId":7.5,"status":2}' },
      { "an object as taskId", '{"taskId":{},"status":2}' },
      { "a taskId that is too long", '{"taskId":"' .. ("x"):rep(257) .. '","status":2}' },
      { "a taskId with odd characters", '{"taskId":"../etc/passwd","status":2}' },
      { "a taskId with a NUL", '{"taskId":"ID\\u0000","status":2}' },
      { "no status", '{"taskId":"ID"}' }, { "a status null", '{"taskId":"ID","status":null}' },
      { "a status true", '{"taskId":"ID","status":true}' },
      { "a status that is no word", '{"taskId":"ID","status":"1x"}' },
      { "an empty status", '{"taskId":"ID","status":""}' }, { "a broken status", '{"taskId":"ID","status":1.5}' },
      { "a huge status", '{"taskId":"ID","status":1e300}' }, { "a hex status", '{"taskId":"ID","status":"0x1"}' },
      { "a status list", '{"taskId":"ID","status":[1]}' }, { "NaN", '{"taskId":"ID","status":NaN}' },
      { "data that is text", '{"status":0,"data":"nothing"}' }, { "data null", '{"status":0,"data":null}' },
      { "an empty data array", '{"data":[]}' },
      { "two tasks", '{"data":[{"taskId":"ID","status":2},{"taskId":"ID2","status":2}]}' },
      { "a well", ("["):rep(100000) .. ("]"):rep(100000) }, { "a well of objects", ('{"a":'):rep(5000) },
      { "a well in meta", '{"taskId":"ID","status":2,"meta":' .. ("["):rep(1000) .. ("]"):rep(1000) .. "}" },
    }
    for _, case in ipairs(refused) do
      it("answers 400 to " .. case[1] .. " and changes nothing but when the provider is asked", function()
        open()
        local task, uri = submit()
        local before = mj:get(task.ref)
        assert.equal(400, post(uri, (case[2]:gsub("ID", task.task_id))).status)
        local after = mj:get(task.ref)
        assert.is_true(after.due_at <= core.now() + 10000)
        assert.equal("create claim accepted look", kit.story(after))
        table.remove(after.timeline)
        after.due_at, after.updated_at = before.due_at, before.updated_at
        assert.same(before, after)
      end)
    end
  end)

  it("needs no file once mjhook is open", function()
    local code = ([[
      local mjhook = require "mjhook"
      local mj = assert(mjhook.open { store = %q, api_key = "key", secrets = { %q }, hook_url = "http://127.0.0.1/hook",
        log = function() end })
      local task = assert(mj:adopt { task_id = "T1", prompt = "a fox" })
      local uri = require("mjhook.provider").hook_url(mj, task.ref, 1)
      local loaders = package.searchers or package.loaders
      for i = #loaders, 1, -1 do
        loaders[i] = nil
      end
      for _, body in ipairs { "no JSON", ("x"):rep(2 ^ 20 + 1), '{"taskId":"T1","status":0}',
                              '{"taskId":"T1","status":1,"image":"https://img.example/x.png"}' } do
        print(mj:callback({ method = "POST", uri = uri, body = body }).status)
      end
      print(mj:callback({ method = "POST", uri = "/hook", body = "", peer = "192.0.2.1" }).status)
    ]]):format(kit.tmp() .. "/store", kit.SECRET)
    assert.equal("400\n413\n200\n200\n401", (kit.sh(kit.lua_command(code))))
  end)

  it("answers 503 whatever raises under it, the log included", function()
    open()
    local task, uri = submit()
    for _, part in ipairs { "callback", "commit" } do
      local f = mj.exec[part]
      mj.exec[part] = function() error "not enough memory" end
      assert.equal(503, post(uri, success(task.task_id), { body = part == "commit" and "no JSON" or nil }).status)
      mj.log = function() error "not enough memory" end
      assert.equal(503, post(uri, success(task.task_id), { body = part == "commit" and "no JSON" or nil }).status)
      mj.exec[part] = f
    end
    assert.equal(503, post("/hook", "").status) -- a 401 of which the log can't tell
    mj.log = function() end
    assert.equal("stored", post(uri, success(task.task_id)).word)
  end)

  describe("of a poor request", function()
    for _, method in ipairs { "GET", "PUT", "HEAD", "OPTIONS", "post", "" } do
      it("answers 405 to " .. (method == "" and "no method" or method), function()
        open()
        local task, uri = submit()
        local reply = post(uri, success(task.task_id), { method = method })
        assert.equal(405, reply.status)
        assert.equal("POST", reply.headers.Allow)
        assert.equal("pending", mj:get(task.ref).state)
      end)
    end

    local function altered(s)
      return s:sub(1, -2) .. (s:sub(-1) == "A" and "g" or "A")
    end
    local forgeries = {
      ["no query"] = function(uri) return (uri:gsub("%?.*", "")) end,
      ["no sig"] = function(uri) return (uri:gsub("&sig=[^&]*", "")) end,
      ["no kid"] = function(uri) return (uri:gsub("&kid=[^&]*", "")) end,
      ["no ref"] = function(uri) return (uri:gsub("ref=[^&]*&", "")) end,
      ["no attempt"] = function(uri) return (uri:gsub("&a=[^&]*", "")) end,
      ["an empty sig"] = function(uri) return (uri:gsub("&sig=[^&]*", "&sig=")) end,
      ["an altered sig"] = function(uri) return (uri:gsub("sig=([^&]*)", function(s)
        return "sig=" .. altered(s)
      end)) end,
      ["a shortened sig"] = function(uri) return uri:sub(1, -2) end,
      ["a longer sig"] = function(uri) return uri .. "A" end,
      ["an altered kid"] = function(uri) return (uri:gsub("kid=([^&]*)", function(s)
        return "kid=" .. altered(s)
      end)) end,
      ["another ref"] = function(uri) return (uri:gsub("ref=[^&]*", "ref=" .. UNKNOWN_REF)) end,
      ["another attempt"] = function(uri) return (uri:gsub("&a=1", "&a=2")) end,
      ["attempt 0"] = function(uri) return (uri:gsub("&a=1", "&a=0")) end,
      ["a negative attempt"] = function(uri) return (uri:gsub("&a=1", "&a=-1")) end,
      ["a huge attempt"] = function(uri) return (uri:gsub("&a=1", "&a=" .. ("9"):rep(400))) end,
      ["an attempt that is a word"] = function(uri) return (uri:gsub("&a=1", "&a=one")) end,
      ["a NUL in the ref"] = function(uri) return (uri:gsub("&a=", "%%00&a=")) end,
      ["a second sig"] = function(uri) return uri .. "&sig=x" end,
      ["a token in the fragment"] = function(uri) return (uri:gsub("%?", "#")) end,
      ["a query as long as a book"] = function(uri) return (uri:gsub("%?", "?" .. ("x"):rep(9000) .. "&")) end,
      ["another secret's sig"] = function(uri) return token(uri:match "ref=([^&]*)", 1, "a secret nobody gave us") end,
      ["sig and ref swapped"] = function(uri) return (uri:gsub("ref=([^&]*)(.*)sig=(.*)", "ref=%3%2sig=%1")) end,
    }
    for name, forge in pairs(forgeries) do
      it("answers 401 to a token with " .. name .. " and writes nothing", function()
        open()
        local task, uri = submit()
        local before = mj:get(task.ref)
        local forged = forge(uri)
        assert.not_equal(uri, forged)
        assert.equal(401, post(forged, success(task.task_id)).status)
        assert.same(before, mj:get(task.ref))
        assert.is_nil(kit.log_text():find("sig=", 1, true))
      end)
    end

    it("takes a token that a proxy has escaped or that stands among others", function()
      open()
      local task, uri = submit()
      local escaped = uri:gsub("(sig=)(.)", function(name, c)
        return name .. ("%%%02x"):format(c:byte())
      end)
      assert.equal("stored", post(escaped:gsub("%?", "?sig=theirs&x&=&a=9&why=what?&"), success(task.task_id)).word)
    end)

    local dressings = {
      ["escaped for HTML"] = function(uri) return (uri:gsub("&", "&amp;")) end,
      ["escaped for HTML twice"] = function(uri) return (uri:gsub("&", "&amp;amp;")) end,
      ["escaped for HTML by number"] = function(uri) return (uri:gsub("&", "&#38;")) end,
      ["escaped for JSON"] = function(uri) return (uri:gsub("&", "\\u0026")) end,
      ["escaped for URLs"] = function(uri) return (uri:gsub("[&=]", { ["&"] = "%26", ["="] = "%3d" })) end,
      ["escaped for URLs twice"] = function(uri) return (uri:gsub("[&=]", { ["&"] = "%2526", ["="] = "%253D" })) end,
      ["escaped down to its question mark"] = function(uri)
        return (uri:gsub("[?&=]", { ["?"] = "%3F", ["&"] = "%26" }))
      end,
      ["followed by a second query"] = function(uri) return uri .. "?taskId=x&status=1" end,
      ["followed by itself"] = function(uri) return uri .. "?" .. uri:match "%?(.*)" end,
      ["followed by parameters of the same names"] = function(uri) return uri .. "&ref=theirs&a=2" end,
      ["followed by a fragment"] = function(uri) return uri .. "#top" end,
      ["followed by blanks"] = function(uri) return uri .. "%20%20" end,
      ["put into quotes"] = function(uri) return '"' .. uri .. '"' end,
      ["cut by semicolons"] = function(uri) return (uri:gsub("&", ";")) end,
      ["put in another order"] = function(uri)
        local parts = {}
        for part in uri:match "%?(.*)":gmatch "[^&]+" do
          table.insert(parts, 1, part)
        end
        return uri:match "^[^?]*" .. "?" .. table.concat(parts, "&")
      end,
    }
    for name, dress in pairs(dressings) do
      it("takes a token whose URL was " .. name .. ", and no forged one", function()
        open()
        local task, uri = submit()
        local dressed = dress(uri)
        assert.not_equal(uri, dressed)
        local forged = dress((uri:gsub("sig=([^&]*)", function(sig) return "sig=" .. altered(sig) end)))
        assert.equal(401, post(forged, success(task.task_id)).status)
        assert.equal(401, post(dress((uri:gsub("ref=[^&]*", "ref=" .. UNKNOWN_REF))), success(task.task_id)).status)
        assert.equal("stored", post(dressed, success(task.task_id)).word)
      end)
    end

    it("answers 503 to a token that can't be checked, since that says nothing about the caller", function()
      open()
      local task, uri = submit()
      local ring = mj.keyring
      mj.keyring = { authorize = function() return nil, true, core.error("no_memory", "out of memory", true) end }
      assert.equal(503, post(uri, success(task.task_id)).status)
      assert.is_truthy(kit.log_text():find("out of memory", 1, true))
      mj.keyring = ring
      assert.equal("stored", post(uri, success(task.task_id)).word)
    end)

    it("answers 401 to a token of an attempt that none can be", function()
      open()
      local task = submit()
      assert.equal(200, post(token(task.ref, 8), success(task.task_id)).status)
      assert.equal(401, post(token(task.ref, 9), success(task.task_id)).status)
    end)

    it("answers 401 to a token of another task", function()
      open()
      local one = submit "1"
      local two = submit "2"
      local uri = token(one.ref, 1):gsub("ref=[^&]*", "ref=" .. two.ref)
      assert.equal(401, post(uri, success(two.task_id)).status)
    end)

    it("answers 413 beyond max_body, before it looks into it", function()
      open { max_body = 2048 }
      local task, uri = submit()
      local fits = cjson.encode(success(task.task_id))
      assert.equal(413, post(uri, fits .. (" "):rep(2049 - #fits)).status)
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(200, post(uri, fits .. (" "):rep(2048 - #fits)).status)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("lets a length of max_body pass before the body is read, and no byte more", function()
      open { max_body = 2048 }
      local _, uri = submit()
      local precheck = require("mjhook.callback").precheck
      local refused, how = precheck(mj, { method = "POST", uri = uri, length = 2048 })
      assert.same({ nil, "signed" }, { refused, how })
      assert.equal(413, precheck(mj, { method = "POST", uri = uri, length = 2049 }).status)
    end)

    it("refuses two MiB by default, and takes them when told so", function()
      open()
      local task, uri = submit()
      local body = cjson.encode(success(task.task_id, { meta = { junk = ("x"):rep(2 ^ 21) } }))
      assert.equal(413, post(uri, body).status)
      mj:close()
      open { max_body = 2 ^ 22 }
      assert.equal(200, post(uri, body).status)
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.is_nil(task.meta) -- more than is kept
    end)

    it("reads a body that is gzipped without being asked for, and no more of it than max_body", function()
      local policy = { on_callback = function() return "accept" end }
      for _, more in ipairs { {}, { trust = "verify" }, { policy = policy } } do -- each weighs it elsewhere
        more.max_body = 4096
        open(more)
        local task, uri = submit()
        sim.finish(task.task_id)
        local body = gzip(cjson.encode(success(task.task_id)))
        assert.equal(200, post(uri, body, { headers = { ["content-encoding"] = "gzip" } }).status)
        if more.trust then
          assert(mj:refresh(task.ref))
        end
        assert.equal("succeeded", mj:get(task.ref).state)
        kit.another_store()
        sim.reset()
      end
      open { max_body = 4096 }
      local task, uri = submit()
      local body = cjson.encode(success(task.task_id))
      local reply = post(uri, gzip(body .. (" "):rep(4097 - #body)))
      assert.same({ 413, "too_large" }, { reply.status, reply.word })
      reply = post(uri, gzip(body):sub(1, -2))
      assert.same({ 400, "unreadable" }, { reply.status, reply.word })
      local refused = assert(mj:refused {})
      assert.matches("damaged or cut short", refused[1].reason)
      assert.matches("longer than allowed", refused[2].reason)
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(401, post(token(UNKNOWN_REF, 1, "another secret, of nobody"), gzip(body)).status)
      mj:close()
      open { max_body = 8192 }
      assert.equal("stored", mj:readmit(refused[2].id)) -- as it was kept: gzipped
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("checks the token before the size, and the method before the token", function()
      open { max_body = 1024 }
      local _, uri = submit()
      local huge = ("x"):rep(5000)
      assert.equal(401, post("/_sim/sink", huge).status)
      assert.equal(405, post("/_sim/sink", huge, { method = "GET" }).status)
      assert.equal(413, post(uri, huge).status)
    end)

    local odd = {
      { {}, 405 }, { { method = "POST" }, 401 }, { { method = 7 }, 405 }, { { method = {} }, 405 },
      { { method = "POST", uri = "" }, 401 }, { { method = "POST", uri = {} }, 401 },
      { { method = "POST", uri = 7 }, 401 }, { { method = "POST", uri = "?&&==&ref&a=&kid=&sig=" }, 401 },
    }
    for i, case in ipairs(odd) do
      it("never raises, however odd the request: " .. i, function()
        open()
        assert.equal(case[2], mj:callback(case[1]).status)
      end)
    end

    it("answers 400 when a good token comes with a body that is no string", function()
      open()
      local _, uri = submit()
      for _, body in ipairs { 7, {}, true } do
        assert.equal(400, mj:callback({ method = "POST", uri = uri, body = body }).status)
      end
      assert.equal(400, mj:callback({ method = "POST", uri = uri }).status)
    end)

    it("raises at the caller's line when the request is no table", function()
      open()
      local line = debug.getinfo(1, "l").currentline + 2
      local ok, err = pcall(function()
        local reply = mj:callback "POST"
        return reply
      end)
      assert.is_false(ok)
      assert.matches("callback_spec.lua:" .. line .. ": callback: table expected", err)
    end)
  end)

  describe("that comes again", function()
    it("is a duplicate: 200, no event, timeline only", function()
      open()
      local task, uri = submit()
      post(uri, success(task.task_id))
      local first = mj:get(task.ref)
      local reply = post(uri, success(task.task_id))
      assert.equal(200, reply.status)
      assert.equal("duplicate", reply.word)
      local again = mj:get(task.ref)
      assert.equal(first.finished_at, again.finished_at)
      assert.equal("create claim accepted succeeded succeeded/duplicate", kit.story(again))
      assert.same({ "succeeded" }, events())
    end)

    it("may fill what was empty, without an event", function()
      open()
      local task, uri = submit()
      post(uri, success(task.task_id))
      local more = { image = "https://img.example/other.png", images = { IMAGE }, meta = { w = 1 } }
      post(uri, success(task.task_id, more))
      task = mj:get(task.ref)
      assert.equal(IMAGE, task.image)
      assert.same({ IMAGE }, task.images)
      assert.same({ w = 1 }, task.meta)
      assert.same({ "succeeded" }, events())
    end)

    for _, case in ipairs { { "succeeded", success, failure }, { "failed", failure, success } } do
      it("and contradicts: the first status stays, " .. case[1], function()
        open()
        local task, uri = submit()
        post(uri, case[2](task.task_id))
        local reply = post(uri, case[3](task.task_id))
        assert.equal(200, reply.status)
        assert.equal("stale", reply.word)
        task = mj:get(task.ref)
        assert.equal(case[1], task.state)
        assert.matches("/contradiction$", kit.story(task))
        assert.same({ case[1] }, events())
        if case[1] == "failed" then
          assert.is_nil(task.image)
        end
      end)
    end

    it("and says running: it stays finished", function()
      open()
      local task, uri = submit()
      post(uri, success(task.task_id))
      assert.equal(200, post(uri, { taskId = task.task_id, status = 0 }).status)
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.same({ "succeeded" }, events())
    end)

    it("a thousand times: the record does not grow without end", function()
      open()
      local task, uri = submit()
      for i = 1, 300 do
        kit.travel(1) -- more often than that it is not written
        post(uri, i % 2 == 0 and success(task.task_id) or failure(task.task_id))
      end
      task = mj:get(task.ref)
      assert.is_true(#task.timeline <= 32)
      assert.is_true(task.timeline_dropped > 200)
      assert.equal("failed", task.state)
      assert.same({ "failed" }, events())
    end)
  end)

  describe("that comes early or late", function()
    local function ambiguous(fault)
      sim.script { submit = { fault or "cut_after" } }
      local task, uri = submit()
      assert.equal("ambiguous", task.state)
      return task, uri, sim.jobs()[1].taskId
    end

    it("finishes an ambiguous task and binds its id", function()
      open()
      local task, uri, id = ambiguous()
      assert.equal("stored", post(uri, success(id)).word)
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.equal(id, task.task_id)
      assert.equal(task.ref, mj:find(id).ref)
      assert.same({ "ambiguous", "succeeded" }, events())
    end)

    it("makes an ambiguous task pending when it says running", function()
      open()
      local task, uri, id = ambiguous()
      post(uri, { taskId = id, status = 0 })
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(id, mj:get(task.ref).task_id)
    end)

    it("finishes a task whose submit answer is still to come, which then is a duplicate", function()
      open()
      local perform = mj.exec.http
      mj.exec.http = function(self, ...)
        local answers = perform(self, ...)
        sim.finish(sim.jobs()[1].taskId)
        assert.equal(200, sim.hand(mj, 1).status)
        return answers
      end
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("succeeded", task.state)
      assert.equal("create claim succeeded accepted/duplicate", kit.story(task))
      assert.same({ "succeeded" }, events())
    end)

    it("finishes a task that we had given up as lost, and says so", function()
      open()
      local task, uri, id = ambiguous()
      kit.travel(1000)
      assert(mj:reconcile {})
      assert.equal("lost", mj:get(task.ref).state)
      assert.equal("stored", post(uri, success(id)).word)
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.is_true(task.late)
      assert.same({ "ambiguous", "lost", "succeeded" }, events())
    end)

    it("takes a lost task back to pending when it says running", function()
      open()
      local task, uri, id = ambiguous()
      kit.travel(1000)
      assert(mj:reconcile {})
      post(uri, { taskId = id, status = 0 })
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("is recorded for a cancelled task, without an event", function()
      open()
      local task, uri = submit()
      assert(mj:cancel(task.ref))
      assert.equal(200, post(uri, success(task.task_id)).status)
      task = mj:get(task.ref)
      assert.equal("cancelled", task.state)
      assert.equal(IMAGE, task.image)
      assert.same({}, events())
      assert.equal(0, mj:stats().accounts[1].held)
    end)

    it("keeps a failed task of ours failed when the provider says so too, with its reason", function()
      sim.script { submit = { "http_400" } }
      open()
      local task = assert(mj:submit { prompt = "a fox" })
      assert.equal("failed", task.state)
      assert.equal(200, post(token(task.ref, 1), failure("AnId", "banned")).status)
      assert.equal("banned", mj:get(task.ref).error.message)
      assert.same({ "failed" }, events())
    end)

    it("overturns a failure that we decided", function()
      sim.script { submit = { "http_400" } }
      open()
      local task = assert(mj:submit { prompt = "a fox" })
      post(token(task.ref, 1), success "AnId")
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.is_true(task.late)
      assert.is_nil(task.error)
      assert.same({ "failed", "succeeded" }, events())
    end)
  end)

  describe("with another task id", function()
    it("never replaces the first; the timeline says conflict; both are asked about", function()
      open()
      local task, uri = submit()
      local first = task.task_id
      assert.equal(200, post(uri, { taskId = "SecondId", status = 0 }).status)
      task = mj:get(task.ref)
      assert.equal("pending", task.state)
      assert.equal(first, task.task_id)
      assert.same({ first, "SecondId" }, task.attempts[1].task_ids)
      assert.matches("/conflict$", kit.story(task))
      local asked
      local perform = mj.exec.http
      mj.exec.http = function(self, requests, ...)
        asked = cjson.decode(requests[1].body).taskIds
        return perform(self, requests, ...)
      end
      kit.travel(100)
      assert(mj:reconcile {})
      assert.same({ first, "SecondId" }, asked)
    end)

    it("is believed when it is the first final status", function()
      open()
      local task, uri = submit()
      local first = task.task_id
      post(uri, success "SecondId")
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.equal("stale", post(uri, failure(first)).word)
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.same({ "succeeded" }, events())
    end)

    it("that is another task's changes neither", function()
      open()
      local one, uri = submit "1"
      local two = submit "2"
      assert.equal(200, post(uri, success(two.task_id)).status)
      assert.equal("pending", mj:get(one.ref).state)
      assert.equal("pending", mj:get(two.ref).state)
      assert.matches("/conflict$", kit.story(mj:get(one.ref)))
      assert.same({}, events())
    end)
  end)

  describe("with a good token for nothing we know", function()
    it("answers 200 for an unknown ref and creates nothing", function()
      open()
      local reply = post(token(UNKNOWN_REF, 1), success "AnId")
      assert.equal(200, reply.status)
      assert.equal("unknown", reply.word)
      assert.is_nil(mj:tasks {}())
      assert.is_nil(mj:find "AnId")
    end)

    it("answers 200 for an attempt that never was and changes nothing", function()
      open()
      local task = submit()
      local before = mj:get(task.ref)
      assert.equal(200, post(token(task.ref, 2), success "OtherId").status)
      assert.same(before, mj:get(task.ref))
    end)
  end)

  describe("about an older attempt", function()
    local function resubmitted(more)
      sim.script { submit = { "cut_after" } }
      more = more or {}
      more.policy = more.policy or { resolve_ambiguous = function() return "resubmit" end }
      open(more)
      local task, uri = submit()
      local old = sim.jobs()[1].taskId
      kit.travel(1000)
      assert(mj:reconcile {})
      task = mj:get(task.ref)
      assert.equal("pending", task.state)
      assert.equal(2, task.attempt)
      return task, uri, old, sim.jobs()[2].hookUrl:match "^http://[^/]+(.*)$"
    end

    it("its failure is not the task's", function()
      local task, uri, old = resubmitted()
      assert.equal(200, post(uri, failure(old, "nope")).status)
      local now = mj:get(task.ref)
      assert.equal("pending", now.state)
      assert.equal("failed", now.attempts[1].word)
      assert.equal(task.task_id, now.task_id)
    end)

    it("its success is the task's", function()
      local task, uri, old, new_uri = resubmitted()
      assert.equal("stored", post(uri, success(old)).word)
      assert.equal("succeeded", mj:get(task.ref).state)
      assert.equal(200, post(new_uri, failure(task.task_id)).status)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    local WORDS = {
      running = function(id) return { taskId = id, status = 0 } end,
      hint = function(id) return { taskId = id, status = 1 } end,
      succeeded = success,
      failed = function(id) return failure(id, "nope") end,
    }
    for _, trust in ipairs { "payload", "verify" } do
      for kind, word in pairs(WORDS) do
        it(("with the task id of the newer one it is a conflict and no status: %s, %s"):format(trust, kind), function()
          local task, uri = resubmitted { trust = trust }
          local reply = post(uri, word(task.task_id))
          assert.equal(200, reply.status)
          assert.equal("stale", reply.word)
          local now = mj:get(task.ref)
          assert.matches("/conflict$", kit.story(now))
          now.timeline, now.updated_at, task.timeline, task.updated_at = nil, nil, nil, nil
          assert.same(task, now)
          assert.same({}, events())
        end)

        it(("and its task id with the URL of the newer one: %s, %s"):format(trust, kind), function()
          local task, uri, old, new_uri = resubmitted { trust = trust }
          post(uri, { taskId = old, status = 0 }) -- now its id is known
          kit.travel(2)
          local before = mj:get(task.ref)
          assert.equal(old, before.attempts[1].task_id)
          local reply = post(new_uri, word(old))
          assert.equal(200, reply.status)
          assert.equal("stale", reply.word)
          local now = mj:get(task.ref)
          assert.matches("/conflict$", kit.story(now))
          now.timeline, now.updated_at, before.timeline, before.updated_at = nil, nil, nil, nil
          assert.same(before, now)
        end)
      end
    end

    it("with the task id of the newer one a policy can't turn it into a status either", function()
      local task, uri = resubmitted { policy = { on_callback = function() return "accept" end,
                                                 resolve_ambiguous = function() return "resubmit" end } }
      assert.equal("stale", post(uri, failure(task.task_id, "nope")).word)
      assert.equal("pending", mj:get(task.ref).state)
    end)

    it("each token is good for its own attempt alone", function()
      local task, uri, _, new_uri = resubmitted()
      assert.matches("&a=1&", uri)
      assert.matches("&a=2&", new_uri)
      local mixed = new_uri:gsub("sig=.*", uri:match "sig=.*")
      assert.equal(401, post(mixed, success(task.task_id)).status)
    end)
  end)

  describe("after secrets were rotated", function()
    local NEW = "the second secret of these specs"

    it("is accepted under the old one as long as it is listed", function()
      open()
      local task, uri = submit()
      mj:close()
      open { secrets = { NEW, kit.SECRET } }
      assert.equal("stored", post(uri, success(task.task_id)).word)
    end)

    it("is refused under one that is listed no more", function()
      open()
      local task, uri = submit()
      mj:close()
      open { secrets = { NEW } }
      assert.equal(401, post(uri, success(task.task_id)).status)
    end)

    it("is signed with the first", function()
      open { secrets = { NEW, kit.SECRET } }
      local task, uri = submit()
      assert.equal(token(task.ref, 1, NEW), uri)
    end)
  end)

  describe("with trust = verify", function()
    it("is a hint: 200, then asked about, then believed", function()
      open { trust = "verify" }
      local task, uri = submit()
      local reply = post(uri, success(task.task_id, { image = "https://evil.example/x.png" }))
      assert.equal(200, reply.status)
      assert.equal("pending", mj:get(task.ref).state)
      assert.is_nil(mj:get(task.ref).image)
      assert.equal(0, sim.requests "status") -- not from the request handler
      sim.finish(task.task_id)
      assert(mj:reconcile {})
      task = mj:get(task.ref)
      assert.equal("succeeded", task.state)
      assert.equal("poll", task.source)
      assert.matches("/grid.png$", task.image)
    end)

    it("a lie is not believed", function()
      open { trust = "verify" }
      local task, uri = submit()
      post(uri, failure(task.task_id))
      assert(mj:reconcile {})
      assert.equal("pending", mj:get(task.ref).state)
      assert.equal(1, sim.requests "status")
    end)

    it("that could not be confirmed yet is asked about again in seconds, and ever more seldom", function()
      open { trust = "verify" }
      local task, uri = submit()
      kit.travel(1000) -- by then it is asked about every quarter of an hour
      for _ = 1, 4 do
        assert(mj:reconcile {})
        kit.travel(1000)
      end
      post(uri, success(task.task_id))
      local asked, waits = sim.requests "status", {}
      for i = 1, 5 do
        assert(mj:reconcile {})
        assert.equal(asked + i, sim.requests "status")
        local wait = mj:get(task.ref).due_at - core.now()
        waits[i] = wait / 1000
        kit.travel(math.ceil(wait / 1000))
      end
      assert.is_true(waits[1] < 15 and waits[2] < 15 and waits[3] < 40, table.concat(waits, ", "))
      assert.is_true(waits[5] > 2 * waits[2], table.concat(waits, ", "))
      sim.finish(task.task_id)
      assert(mj:reconcile {})
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("is asked about again in seconds also when a poll was due anyway", function()
      open { trust = "verify" }
      local task, uri = submit()
      for _ = 1, 5 do
        kit.travel(1100)
        assert(mj:reconcile {})
      end
      kit.travel(1100)
      assert.is_true(mj:get(task.ref).due_at < core.now())
      post(uri, success(task.task_id))
      assert(mj:reconcile {})
      assert.is_true(mj:get(task.ref).due_at - core.now() < 15000)
    end)

    it("that tells of progress alone changes nothing of a task that is known to run", function()
      open { trust = "verify" }
      local task, uri = submit()
      local before = mj:get(task.ref)
      assert.equal("noted", post(uri, { taskId = task.task_id, status = 0 }).word)
      assert.same(before, mj:get(task.ref))
    end)

    it("a flood makes one question in ten seconds", function()
      open { trust = "verify" }
      local task, uri = submit()
      for _ = 1, 20 do
        assert.equal(200, post(uri, failure(task.task_id)).status)
      end
      for _ = 1, 5 do
        assert(mj:reconcile {})
        post(uri, failure(task.task_id))
      end
      assert.equal(1, sim.requests "status")
      kit.travel(11)
      assert(mj:reconcile {})
      assert.equal(2, sim.requests "status")
    end)

    it("gives an ambiguous task its id", function()
      sim.script { submit = { "cut_after" } }
      open { trust = "verify" }
      local task, uri = submit()
      local id = sim.jobs()[1].taskId
      post(uri, success(id))
      assert.equal("pending", mj:get(task.ref).state)
      sim.finish(id)
      assert(mj:reconcile {})
      assert.equal("succeeded", mj:get(task.ref).state)
    end)
  end)

  describe("without a token, with allow_unsigned", function()
    it("is a hint by its task id", function()
      open { allow_unsigned = true }
      local task = submit()
      sim.finish(task.task_id, 2, "really failed")
      local reply = post("/_sim/sink", success(task.task_id))
      assert.equal(200, reply.status)
      assert.equal("pending", mj:get(task.ref).state)
      assert(mj:reconcile {})
      assert.equal("really failed", mj:get(task.ref).error.message)
    end)

    it("writes nothing and asks nothing about an unknown id", function()
      open { allow_unsigned = true }
      local commit, writes = mj.exec.commit, 0
      mj.exec.commit = function(...)
        writes = writes + 1
        return commit(...)
      end
      assert.equal(200, post("/_sim/sink", success "Unknown").status)
      assert.equal(0, writes)
      assert(mj:reconcile {})
      assert.equal(0, sim.requests "status")
    end)

    it("a flood writes once", function()
      open { allow_unsigned = true }
      local task = submit()
      local commit, writes = mj.exec.commit, 0
      mj.exec.commit = function(...)
        writes = writes + 1
        return commit(...)
      end
      for _ = 1, 50 do
        assert.equal(200, post("/_sim/sink", success(task.task_id)).status)
      end
      assert.equal(1, writes)
    end)

    it("writes nothing about a task that is asked about within ten seconds anyway", function()
      open { allow_unsigned = true, poll = { first = 8, max = 900, learn = false } }
      local task = submit()
      local due = mj:get(task.ref).due_at
      mj.exec.commit = function() error "a commit" end
      local reply = post("/_sim/sink", success(task.task_id))
      assert.same({ 200, "noted" }, { reply.status, reply.word })
      assert.equal(due, mj:get(task.ref).due_at)
    end)

    it("a bad token is still a bad token", function()
      open { allow_unsigned = true }
      local task, uri = submit()
      assert.equal(401, post(uri .. "x", success(task.task_id)).status)
      for _, part in ipairs { "kid", "sig" } do -- nor does what is left of one count as none
        assert.equal(401, post("/_sim/sink?" .. uri:match(part .. "=[^&]*"), success(task.task_id)).status)
      end
    end)

    it("a good token is still believed", function()
      open { allow_unsigned = true }
      local task, uri = submit()
      assert.equal("stored", post(uri, success(task.task_id)).word)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("is refused without allow_unsigned", function()
      open()
      local task = submit()
      assert.equal(401, post("/_sim/sink", success(task.task_id)).status)
    end)
  end)

  describe("with on_callback", function()
    local function decide(f)
      open { policy = { on_callback = f } }
      local task, uri = submit()
      local reply = post(uri, success(task.task_id))
      return mj:get(task.ref), reply, uri
    end

    it("asks with the task and the provider's status", function()
      local got
      local task = decide(function(...)
        got = { ... }
        return "accept"
      end)
      assert.equal(task.ref, got[1].ref)
      assert.equal("pending", got[1].state)
      assert.equal("succeeded", got[2].kind)
      assert.equal(IMAGE, got[2].image)
    end)

    it("accepts", function()
      assert.equal("succeeded", (decide(function() return "accept" end)).state)
    end)

    it("accepts over trust = verify", function()
      open { trust = "verify", policy = { on_callback = function() return "accept" end } }
      local task, uri = submit()
      post(uri, success(task.task_id))
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("ignores: 200 and nothing is changed", function()
      local task, reply = decide(function() return "ignore" end)
      assert.equal(200, reply.status)
      assert.equal("pending", task.state)
      assert.equal("create claim accepted", kit.story(task))
    end)

    local careful = {
      ["when told to"] = function() return "verify" end,
      ["when it raises"] = function() error "no idea" end,
      ["when it answers nothing"] = function() end,
      ["when it answers nonsense"] = function() return "yes" end,
      ["when it answers true"] = function() return true end,
    }
    for name, f in pairs(careful) do
      it("verifies " .. name, function()
        local task, reply = decide(f)
        assert.equal(200, reply.status)
        assert.equal("pending", task.state)
        sim.finish(task.task_id)
        assert(mj:reconcile {})
        assert.equal("succeeded", mj:get(task.ref).state)
      end)
    end

    it("applies an answer only to what it was asked about, and asks again", function()
      local asked = {}
      local task
      open { policy = { on_callback = function(t)
        asked[#asked + 1] = t.state
        if #asked == 1 then
          assert(mj:cancel(t.ref)) -- meanwhile
        end
        return "accept"
      end } }
      local uri
      task, uri = submit()
      assert.equal(200, post(uri, success(task.task_id)).status)
      assert.same({ "pending", "cancelled" }, asked)
      assert.equal("cancelled", mj:get(task.ref).state)
    end)

    it("is not asked about an unknown ref, nor about refused requests", function()
      local asked = 0
      open { policy = { on_callback = function() asked = asked + 1 return "accept" end } }
      local _, uri = submit()
      post(token(UNKNOWN_REF, 1), success "AnId")
      post(uri .. "x", success "AnId")
      post(uri, "nonsense")
      assert.equal(0, asked)
    end)
  end)

  describe("when the store can't commit", function()
    it("answers 503 with Retry-After and changes nothing; later it is taken", function()
      kit.needs "directory"
      open { map_max = 2 ^ 20, max_in_flight = 1000 }
      sim.config { limit = 0 }
      local task, uri = submit()
      local code
      for i = 1, 100 do
        local _, err = mj:submit { prompt = "filler " .. i, context = ("x"):rep(60000) }
        code = err and err.code
        if code then
          break
        end
      end
      assert.equal("no_space", code)
      local big = success(task.task_id, { meta = { x = ("y"):rep(60000) } })
      local reply = post(uri, big)
      assert.equal(503, reply.status)
      assert.matches("^%d+$", reply.headers["Retry-After"])
      assert.equal("pending", mj:get(task.ref).state)
      assert.matches("map_max", kit.log_text())
      mj:close()
      open { map_max = 2 ^ 26 }
      assert.equal(200, post(uri, big).status)
      assert.equal("succeeded", mj:get(task.ref).state)
    end)

    it("answers 503 to whatever else goes wrong inside, and says what in the log", function()
      open()
      local task, uri = submit()
      mj.exec.callback = function()
        error "the roof is on fire"
      end
      local reply = post(uri, success(task.task_id))
      assert.equal(503, reply.status)
      assert.matches("the roof is on fire", kit.log_text())
      assert.is_nil(kit.log_text():find("sig=", 1, true))
    end)

    it("answers 503 when something goes wrong before the body is read", function()
      open()
      local _, uri = submit()
      mj.keyring:close()
      local refused = require("mjhook.callback").precheck(mj, { method = "POST", uri = uri })
      assert.equal(503, refused.status)
      assert.matches("the keyring is closed", kit.log_text())
      assert.is_nil(kit.log_text():find("sig=", 1, true))
    end)
  end)
end)
