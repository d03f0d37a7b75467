-- What a callback costs that tells nothing new: no write, or one a second, and the same answer.
local cjson = require "cjson"
local kit = require "kit"
local sim = require "sim"

local RECORD = 400 * 1024 -- bytes; more than any record and what is written with it

describe("a callback that tells nothing new", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  local function submit()
    local task = assert(mj:submit { prompt = ("a fox "):rep(1000), context = { text = ("x"):rep(60000) } })
    local jobs = sim.jobs()
    return task, jobs[#jobs].hookUrl:match "^http://[^/]+(.*)$"
  end

  local function post(uri, body)
    local reply = mj:callback { method = "POST", uri = uri, headers = {}, peer = "127.0.0.1",
                                body = cjson.encode(body) }
    return reply.status, cjson.decode(reply.body).status
  end

  local function word(task, status, more)
    local data = { taskId = task.task_id, status = status, image = status == 1 and "https://img.example/0.png" or nil }
    for k, v in pairs(more or {}) do
      data[k] = v
    end
    return { status = 0, data = data }
  end

  -- Bytes that this process has written to files, and how long f took.
  local function written(f)
    local function count()
      return tonumber(kit.read("/proc/self/io"):match "wchar: (%d+)")
    end
    local socket = require "socket"
    local before, begun = count(), socket.gettime()
    f()
    return count() - before, socket.gettime() - begun
  end

  local function counts()
    return mj:stats().counts
  end

  it("is written at most once a second, and answered and counted each time", function()
    mj = kit.open(nil, sim)
    local task, uri = submit()
    assert.equal(200, (post(uri, word(task, 1, { meta = { text = ("y"):rep(60000) } }))))
    local before = counts()
    local bytes, seconds = written(function()
      for i = 1, 300 do
        local status, said = post(uri, word(task, i % 3 == 0 and 2 or 1))
        assert.equal(200, status)
        assert.equal(i % 3 == 0 and "stale" or "duplicate", said)
      end
    end)
    assert.is_true(bytes <= (2 + math.floor(seconds)) * RECORD, ("%d bytes in %.1f s"):format(bytes, seconds))
    mj:close() -- what was counted without a write is stored at the latest here
    mj = kit.open(nil, sim)
    local after = counts()
    assert.equal(before.callback_duplicate + 200, after.callback_duplicate)
    assert.equal(before.callback_stale + 100, after.callback_stale)
    assert.equal("succeeded", mj:get(task.ref).state)
  end)

  it("is written again when a second has passed", function()
    mj = kit.open(nil, sim)
    local task, uri = submit()
    post(uri, word(task, 1))
    for _ = 1, 3 do
      for _ = 1, 10 do
        post(uri, word(task, 1))
      end
      kit.travel(2)
    end
    local timeline = mj:get(task.ref).timeline
    local last = timeline[#timeline]
    assert.equal("duplicate", last.note)
    assert.is_true(last.count >= 3 and last.count <= 6, last.count)
  end)

  it("is counted with the next write of its process", function()
    mj = kit.open(nil, sim)
    local task, uri = submit()
    post(uri, word(task, 1))
    local before = counts().callback_duplicate
    for _ = 1, 20 do
      post(uri, word(task, 1))
    end
    submit()
    assert.equal(before + 20, counts().callback_duplicate)
  end)

  it("is counted when it is about an unknown task, with the next write of its process", function()
    mj = kit.open(nil, sim)
    submit()
    local before = counts().callback_unknown
    local unknown = require("mjhook.provider").hook_url(mj, "01ARZ3NDEKTSV4RRFFQ69G5FAV", 1):match "^http://[^/]+(.*)$"
    for _ = 1, 3 do
      local status, said = post(unknown, { taskId = "T", status = 1 })
      assert.same({ 200, "unknown" }, { status, said })
    end
    submit()
    assert.equal(before + 3, counts().callback_unknown)
  end)

  it("does not hide a fact that comes right after it", function()
    mj = kit.open(nil, sim)
    local task, uri = submit()
    post(uri, word(task, 1))
    post(uri, word(task, 1))
    post(uri, word(task, 1, { mjPrompt = "as run" }))
    assert.equal("as run", mj:get(task.ref).mj_prompt)
  end)

  for _, trust in ipairs { "payload", "verify" } do
    it("changes nothing on disk when it tells of progress alone, with trust " .. trust, function()
      mj = kit.open({ trust = trust }, sim)
      local task, uri = submit()
      if trust == "verify" then
        post(uri, word(task, 0)) -- the first one is a reason to ask soon
      end
      local before, file = mj:get(task.ref), kit.read(kit.store .. "/data.mdb")
      for i = 1, 50 do
        local status = post(uri, word(task, 0, { progress = tostring(i) }))
        assert.equal(200, status)
        kit.travel(0.05)
      end
      assert.same(before, mj:get(task.ref))
      mj:close()
      assert.is_true(file == kit.read(kit.store .. "/data.mdb"), "the file differs")
    end)
  end

  it("changes nothing on disk when it tells of progress after the end", function()
    mj = kit.open(nil, sim)
    local task, uri = submit()
    post(uri, word(task, 1))
    local file = kit.read(kit.store .. "/data.mdb")
    for _ = 1, 5 do
      assert.equal(200, (post(uri, word(task, 0))))
      kit.travel(10)
    end
    assert.is_true(file == kit.read(kit.store .. "/data.mdb"), "the file differs")
  end)

  it("is still news when it is the first that is heard of an accepted submission", function()
    sim.script { submit = { "cut_after" } }
    mj = kit.open(nil, sim)
    local task, uri = submit()
    assert.equal("ambiguous", task.state)
    task.task_id = sim.jobs()[1].taskId
    post(uri, word(task, 0))
    assert.equal("pending", mj:get(task.ref).state)
    assert.is_number(mj:get(task.ref).called_at)
  end)
end)
