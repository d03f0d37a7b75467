-- Listings: filters, pages in both directions, numbers; the same for events.
local core = require "mjhook.core"
local kit = require "kit"

describe("a listing", function()
  after_each(kit.cleanup)

  local mj

  before_each(function()
    mj = kit.open { base_url = "http://127.0.0.1:1" }
  end)

  -- Stores tasks; gives their refs, the oldest first.
  local function put(tasks) return kit.put(mj, tasks) end

  local function signal(ref, kind, more) kit.signal(mj, ref, kind, more) end

  local function succeed(ref) kit.succeed(mj, ref) end

  local function list(filter)
    local prompts = {}
    for task in mj:tasks(filter) do
      prompts[#prompts + 1] = task.prompt
    end
    return table.concat(prompts, " ")
  end

  local function texts(page)
    local prompts = {}
    for i, task in ipairs(page.tasks) do
      prompts[i] = task.prompt
    end
    return table.concat(prompts, " ")
  end

  describe("of tasks", function()
    it("is picked by account, mode and key, and by all of them together", function()
      put {
        { prompt = "p1", account = "a", mode = "fast", key = "k1" },
        { prompt = "p2", account = "b", mode = "relaxed", key = "k2", user_id = "u" },
        { prompt = "p3", account = "b", mode = "fast", key = "k3", user_id = "u" },
        { prompt = "p4" },
      }
      assert.equal("p3 p2", list { account = "b" })
      assert.equal("p2", list { mode = "relaxed" })
      assert.equal("p4 p3 p1", list { mode = "fast" })
      assert.equal("p2", list { key = "k2" })
      assert.equal("p3", list { account = "b", mode = "fast", user_id = "u", key = "k3", state = "queued" })
      assert.equal("", list { account = "a", key = "k3" })
      assert.equal("", list { key = "k3", state = "lost" })
      assert.equal("", list { key = "k3", user_id = "v" })
      assert.equal("", list { key = "k3", q = "p2" })
      assert.equal("p4 p3 p2 p1", list { state = "queued", q = "P" })
    end)

    it("finds nothing for names that nothing can have", function()
      put { { prompt = "p1", account = "a", key = "k", user_id = "u" } }
      for _, name in ipairs { "user_id", "account", "key" } do
        for _, value in ipairs { "", ("x"):rep(257), ("x"):rep(100000), "u\0", "\255" } do
          assert.equal("", list { [name] = value })
          assert.same({ count = 0, exact = true }, mj:count { [name] = value })
          assert.same({}, mj:page { [name] = value }.tasks)
        end
      end
    end)

    it("takes several states, as one list in the order of time", function()
      local refs = put { { prompt = "p1" }, { prompt = "p2" }, { prompt = "p3" }, { prompt = "p4" }, { prompt = "p5" } }
      signal(refs[2], "cancel")
      succeed(refs[4])
      assert.equal("p5 p4 p3 p1", list { state = { "queued", "succeeded" } })
      assert.equal("p4 p2", list { state = { "succeeded", "cancelled", "succeeded" } })
      assert.equal("p4", list { state = { "succeeded", "cancelled" }, limit = 1 })
      assert.equal("p3 p2", list { state = { "cancelled", "queued" }, before = refs[4], limit = 2 })
      assert.equal("", list { state = {} })
      assert.same({ count = 4, exact = true }, mj:count { state = { "queued", "succeeded" } })
    end)

    it("finds a part of the prompt: ASCII letters in either case, other bytes as they are", function()
      put { { prompt = "A Fox in the SNOW" }, { prompt = "wolf 100%" }, { prompt = "狐 in the snow" }, { prompt = "É" } }
      assert.equal("狐 in the snow A Fox in the SNOW", list { q = "the sNoW" })
      assert.equal("狐 in the snow", list { q = "狐" })
      assert.equal("wolf 100%", list { q = "0%" })
      assert.equal("", list { q = "." })
      assert.equal("", list { q = "é" })
      assert.equal("", list { q = ("x"):rep(20000) })
      assert.equal("É 狐 in the snow wolf 100% A Fox in the SNOW", list { q = "" })
    end)

    it("looks for a text in the last seven days, unless it is told since when", function()
      local travelled = core.now()
      put { { prompt = "old fox" } }
      kit.travel(8 * 86400)
      put { { prompt = "new fox" } }
      assert.equal("new fox", list { q = "fox" })
      assert.equal("new fox old fox", list { q = "fox", since = 0 })
      assert.equal("new fox old fox", list { q = "fox", since = travelled - 1 })
      assert.equal("old fox", list { q = "fox", ["until"] = travelled + 60000 })
      assert.equal("new fox old fox", list {})
    end)

    it("lies between two times, both included", function()
      local at = {}
      for i = 1, 4 do
        local ref = put({ { prompt = "p" .. i, user_id = "u", key = "k" .. i } })[1]
        at[i] = mj:get(ref).created_at
        kit.travel(10)
      end
      local more_of = { {}, { state = "queued" }, { user_id = "u" }, { user_id = "u", state = "queued" }, { q = "p" } }
      for _, more in ipairs(more_of) do
        local function window(since, till)
          local filter = { since = since, ["until"] = till }
          for k, v in pairs(more) do
            filter[k] = v
          end
          return list(filter)
        end
        assert.equal("p3 p2", window(at[2], at[3]))
        assert.equal("p2 p1", window(nil, at[2]))
        assert.equal("p2 p1", window(0, at[3] - 1))
        assert.equal("p4", window(at[3] + 1, 2 ^ 53))
        assert.equal("", window(at[3], at[2]))
        assert.equal("", window(nil, 1))
        assert.equal("p4 p3 p2 p1", window(-5, 1e300))
      end
      assert.equal("p2", list { key = "k2", since = at[2], ["until"] = at[2] })
      assert.equal("", list { key = "k2", since = at[2] + 1 })
      assert.equal("", list { key = "k2", ["until"] = at[2] - 1 })
    end)

    it("goes on behind a ref, and ends in front of one", function()
      local refs = put { { prompt = "p1", key = "k" }, { prompt = "p2" }, { prompt = "p3" }, { prompt = "p4" } }
      assert.equal("p2 p1", list { before = refs[3] })
      assert.equal("p4 p3", list { after = refs[2] })
      assert.equal("p3", list { after = refs[2]:lower(), before = refs[4]:lower() })
      assert.equal("", list { after = refs[4] })
      assert.equal("", list { before = refs[1] })
      assert.equal("p4 p3 p2 p1", list { before = "7ZZZZZZZZZZZZZZZZZZZZZZZZZ" })
      assert.equal("p1", list { key = "k", before = refs[2] })
      assert.equal("", list { key = "k", before = refs[1] })
      assert.equal("", list { key = "k", after = refs[1] })
      assert.equal("p2 p1", list { before = refs[3], since = 1, ["until"] = 2 ^ 50 })
    end)

    it("has a page of any limit", function()
      assert(mj:submit { prompt = "one" })
      assert(mj:submit { prompt = "two" })
      for _, limit in ipairs { math.huge, 1e99, tonumber "9223372036854775807", 2 ^ 32 } do
        assert.equal(2, #mj:page({ limit = limit }).tasks)
      end
      assert.equal(1, #mj:page({ limit = -math.huge }).tasks)
    end)

    local misuse = {
      { { account = 7 }, "bad field 'account'" }, { { mode = "slow" }, 'no mode "slow"' },
      { { q = {} }, "bad field 'q'" },
      { { before = "x" }, "bad field 'before'" }, { { after = "" }, "bad field 'after'" },
      { { state = { 7 } }, "bad field 'state'" }, { { state = { "queued", "done" } }, 'no state "done"' },
      { { state = { a = "queued" } }, "bad field 'state'" }, { { ["until"] = "1h" }, "bad field 'until'" },
      { { since = 0 / 0 }, "bad field 'since'" }, { { buried = true }, "unknown field 'buried'" },
      { { user = "u1" }, [[unknown field 'user': did you mean "user_id"?]] },
    }
    for i, case in ipairs(misuse) do
      it("raises at the caller's line when it is misused: " .. i, function()
        for _, method in ipairs { "tasks", "count", "page" } do
          local ok, err = pcall(function()
            local x = mj[method](mj, case[1])
            return x
          end)
          assert.is_false(ok)
          assert.matches("listing_spec.lua:%d+: " .. method .. ": " .. case[2]:gsub("%p", "%%%0"), err)
        end
      end)
    end
  end)

  describe("in pages", function()
    local refs

    local function fill(n)
      local tasks = {}
      for i = 1, n do
        tasks[i] = { prompt = "p" .. i, user_id = i % 2 == 1 and "odd" or "even" }
      end
      refs = put(tasks)
      return refs
    end

    it("goes forward and back over the same pages", function()
      fill(7)
      for _, case in ipairs {
        { {}, { "p7 p6 p5", "p4 p3 p2", "p1" } }, { { user_id = "odd" }, { "p7 p5 p3", "p1" } },
        { { state = "queued" }, { "p7 p6 p5", "p4 p3 p2", "p1" } },
        { { state = { "queued", "lost" } }, { "p7 p6 p5", "p4 p3 p2", "p1" } },
      } do
        local filter, want = case[1], case[2]
        filter.limit = 3
        local page, newer = assert(mj:page(filter)), {}
        assert.is_nil(page.newer)
        for i, expected in ipairs(want) do
          assert.equal(expected, texts(page))
          newer[i] = page.newer
          filter.before = page.older
          page = i < #want and assert(mj:page(filter)) or page
        end
        assert.is_nil(page.older)
        for i = #want - 1, 1, -1 do
          filter.before, filter.after = nil, newer[i + 1]
          page = assert(mj:page(filter))
          assert.equal(want[i], texts(page))
          assert.truthy(page.older)
        end
        filter.after = page.tasks[1].ref
        page = assert(mj:page(filter))
        assert.same({}, page.tasks)
        assert.is_nil(page.newer)
      end
    end)

    it("looks at no more than some thousand records at a time, and comes to the end all the same", function()
      local tasks = {}
      for i = 1, 2600 do
        tasks[i] = { prompt = i % 1200 == 1 and "needle" or "hay" }
      end
      put(tasks)
      local filter, found, pages, most = { q = "needle", limit = 10, since = 0 }, 0, 0, 0
      local page = mj.store.page
      repeat
        local got = assert(mj:page(filter))
        found, pages, most = found + #got.tasks, pages + 1, math.max(most, #got.tasks)
        filter.before = got.older
      until not got.older
      assert.same({ 3, 3 }, { found, pages })
      assert.equal("needle needle needle", list { q = "needle" })
      local _, _, looked = page(mj.store, { by = "age", text = "nothing", limit = 10 })
      assert.equal(1000, looked)
      -- and back
      filter, found = { q = "needle", limit = 10, since = 0, after = mj:page({ limit = 1 }).tasks[1].ref }, 0
      assert.same({}, mj:page(filter).tasks)
      filter.after, pages = "00000000000000000000000000", 0
      repeat
        local got = assert(mj:page(filter))
        found, pages = found + #got.tasks, pages + 1
        filter.after = got.newer
      until not got.newer
      assert.same({ 3, 3 }, { found, pages })
    end)

    it("is complete for several states when one of them ends a page early", function()
      local tasks = {}
      for i = 1, 1500 do
        tasks[i] = { prompt = (i == 1 or i == 1400) and "needle" or "hay" }
      end
      refs = put(tasks)
      signal(refs[1400], "cancel")
      local filter, got = { q = "needle", state = { "queued", "cancelled" }, limit = 5 }, {}
      repeat
        local page = assert(mj:page(filter))
        for _, task in ipairs(page.tasks) do
          got[#got + 1] = task.ref
        end
        filter.before = page.older
      until not page.older
      assert.same({ refs[1400], refs[1] }, got)
    end)
  end)

  describe("as a number", function()
    it("is exact from counters, and by looking as far as it may", function()
      local tasks = {}
      for i = 1, 300 do
        tasks[i] = { prompt = "fox", user_id = i <= 50 and "u" or "v" }
      end
      local refs = put(tasks)
      signal(refs[1], "cancel")
      assert.same({ count = 300, exact = true }, mj:count())
      assert.same({ count = 299, exact = true }, mj:count { state = "queued" })
      assert.same({ count = 50, exact = true }, mj:count { user_id = "u" })
      assert.same({ count = 1, exact = true }, mj:count { user_id = "u", state = "cancelled" })
      assert.same({ count = 100, exact = true }, mj:count { before = refs[101] })
      assert.same({ count = 10, exact = true }, mj:count { after = refs[290] })
    end)

    it("says that there are at least so many when it looked at ten thousand and there is more", function()
      local function add(n)
        local tasks = {}
        for i = 1, n do
          tasks[i] = { prompt = "fox", mode = i % 2 == 0 and "fast" or "relaxed" }
        end
        put(tasks)
      end
      for _ = 1, 5 do
        add(2000)
      end
      assert.same({ count = 5000, exact = true }, mj:count { mode = "fast" })
      assert.same({ count = 10000, exact = true }, mj:count { q = "fox" })
      assert.same({ count = 10000, exact = true }, mj:count { q = "fox", state = { "queued", "failed" } })
      add(2000)
      local count = assert(mj:count { mode = "fast" })
      assert.is_false(count.exact)
      assert.is_true(count.count >= 5000 and count.count < 6000)
      assert.is_false(mj:count({ q = "hare" }).exact)
      assert.is_false(mj:count({ q = "fox", state = { "failed", "queued" } }).exact)
      assert.same({ count = 12000, exact = true }, mj:count {})
    end)
  end)

  describe("of events", function()
    local refs, ids

    before_each(function()
      refs = put {
        { prompt = "a fox", user_id = "u", account = "a" }, { prompt = "a wolf", user_id = "v" },
        { prompt = "a fox", user_id = "v" },
      }
      ids = {}
      for i, ref in ipairs(refs) do
        succeed(ref)
        ids[i] = ref .. "-1"
      end
      assert(mj:bury(ids[2], "enough"))
      local taken = assert(mj.exec:commit { { op = "take", ["until"] = core.now() + 60000 } })[1].event
      assert.equal(refs[1], taken.ref)
      assert(mj.exec:commit { { op = "retry", ref = refs[1], seq = 1, tries = taken.tries, error = "no",
                                ["until"] = core.now() + 60000 } })
    end)

    local function events(filter)
      local got = {}
      for event in mj:events(filter) do
        for i, id in ipairs(ids) do
          got[#got + 1] = event.event_id == id and i or nil
        end
      end
      return table.concat(got, " ")
    end

    it("is picked by what became of them, and by their tasks", function()
      assert.equal("1 2 3", events {})
      assert.equal("2", events { buried = true })
      assert.equal("1 3", events { waiting = true })
      assert.equal("1", events { waiting = true, failed = true })
      assert.equal("2 3", events { user_id = "v" })
      assert.equal("3", events { user_id = "v", q = "FOX" })
      assert.equal("2", events { user_id = "v", buried = true, state = { "succeeded", "lost" } })
      assert.equal("", events { state = "failed" })
      assert.equal("1", events { ref = refs[1], user_id = "u", waiting = true })
      assert.equal("", events { ref = refs[1], user_id = "v" })
      assert.equal("1 2 3", events { since = mj:get(refs[1]).created_at, ["until"] = core.now() })
      assert.equal("", events { since = core.now() + 1000 })
      assert.equal("", events { ["until"] = 1 })
      assert.equal("", events { user_id = "" })
      assert.equal("1", events { limit = 1 })
    end)
  end)
end)
