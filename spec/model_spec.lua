-- Random operations on the store and on a plain model of it (support/model.lua): after each of them both have to say
-- the same, and now and then every listing, count and record is compared.
--
-- MJHOOK_SEED=n      begins with that seed: what it does is the same on every machine and Lua
-- MJHOOK_STEPS=n     how many operations, over as many stores as it takes (seed, seed + 1, ...)
-- MJHOOK_REPLAY=file does the operations in that file, as a failure prints them
-- MJHOOK_TEST_STORE  the database that the store is in: see support/kit.lua
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local Model = require "model"

-- busted looks for a global of a spec in many places: five times slower than this.
local assert, error, ipairs, math, pairs, pcall, select, setmetatable, table, tostring, type =
  assert, error, ipairs, math, pairs, pcall, select, setmetatable, table, tostring, type
local unpack = table.unpack or unpack

local SEED = tonumber(os.getenv "MJHOOK_SEED" or "") or 20260415
local STEPS = tonumber(os.getenv "MJHOOK_STEPS" or "") or 30000
local REPLAY = os.getenv "MJHOOK_REPLAY"
local START = 1776211200000
local NOBODY = ("0"):rep(26)     -- a ref that no task has
local SHRINK_SECONDS = 30        -- for making a failure shorter
local SECOND = 1000

-- ---- chance: Park and Miller's generator, exact in the numbers of either Lua ----

local Random = {}
Random.__index = Random

function Random.new(seed)
  local r = setmetatable({ state = seed % 2147483646 + 1 }, Random)
  for _ = 1, 5 do
    r:below(2) -- neighbours' first numbers are alike
  end
  return r
end

function Random:below(n)
  self.state = self.state * 48271 % 2147483647
  return self.state % n
end

function Random:chance(percent)
  return self:below(100) < percent
end

function Random:pick(list)
  return list[self:below(#list) + 1]
end

--- Something or, mostly, nothing.
function Random:maybe(percent, value)
  if self:chance(percent) then
    return value
  end
end

-- ---- inventing operations ----

local ACCOUNTS = { "a", "b", "c" }
local STRANGE_ACCOUNT = "not configured"
local PROVIDER_WORDS = { "running", "running", "succeeded", "hint", "hint", "failed", "failed" }
local POLL_RESULTS = { "running", "running", "succeeded", "hint", "failed", "absent", "absent", "absent", "unanswered" }
local REPORTS = { "accepted", "accepted", "accepted", "not_sent", "refused", "rejected", "maybe_sent", "maybe_sent",
                  "owner_dead" }
local ALL_KINDS = { "accepted", "not_sent", "refused", "rejected", "maybe_sent", "owner_dead", "running", "succeeded",
                    "hint", "failed", "absent", "unanswered", "look", "give_up", "resubmit", "wait", "cancel",
                    "ready", "slot_end", "create", "kept" }
local SOURCES = { "user", "submit", "callback", "poll", "sweep", "policy" }
local FINALS = { "succeeded", "failed", "lost", "cancelled" }

-- What happens how often; each run makes some of it rarer, and some more frequent, so that it gets elsewhere.
local HABITS = {
  { "create", 10 }, { "adopt", 3 }, { "claim", 14 }, { "report", 14 }, { "callback", 10 }, { "poll", 14 },
  { "look", 4 }, { "older", 5 }, { "decide", 8 }, { "cancel", 2 }, { "resubmit", 4 }, { "noise", 8 }, { "tick", 6 },
  { "pause", 3 }, { "refuse", 1 }, { "take", 8 }, { "settle", 8 }, { "again", 4 }, { "prune", 3 },
  { "forget", 1 }, { "reopen", 1 },
  { "audit", 1 },
}

local Inventor = {}
Inventor.__index = Inventor

local function random_rules(r)
  return { poll_first = r:pick { 10, 60 } * SECOND, poll_max = r:pick { 30, 120, 900 } * SECOND,
           lost_after = r:pick { 600, 3600, 86400 } * SECOND, grace = r:pick { 0, 30, 300 } * SECOND }
end

local function random_caps(r)
  local caps = {}
  for _, name in ipairs(ACCOUNTS) do
    if r:chance(80) then
      caps[#caps + 1] = { name = name, max_in_flight = r:pick { 0, 1, 2, 3, 10 } }
    end
  end
  return caps
end

function Inventor.new(seed)
  local r = Random.new(seed)
  local self = setmetatable({ r = r, now = START, latest = START, made = 0, count = 0, last_id = 0, habits = {},
                              total = 0 }, Inventor)
  self.rules, self.caps = random_rules(r), random_caps(r)
  self.length = r:pick { 40, 100, 200, 400, 800 }
  self.population = r:pick { 1, 3, 10, 40, 100 }
  for _, habit in ipairs(HABITS) do
    local weight = habit[2] * r:pick { 0, 1, 2, 2, 4, 8 }
    weight = habit[1] == "create" and math.max(weight, 10) or weight
    self.total = self.total + weight
    self.habits[#self.habits + 1] = { habit[1], weight }
  end
  return self
end

-- Times at which something ends, from the model.  Not those that the store may have chosen by the ref, as it does for
-- polls after the first: they differ every time.
local function deadlines(model)
  local times = {}
  local function add(at)
    times[#times + 1] = at
  end
  for _, t in ipairs(model.tasks) do
    add(t.expires)
    add(t.polls == 0 and not t.spread and not t.chosen and t.due or nil)
    for _, a in ipairs(t.attempts) do
      add(a.slot and a.slot_until or nil)
    end
  end
  for _, e in ipairs(model.events) do
    add(e.next)
  end
  for _, name in ipairs(ACCOUNTS) do
    add(model.paused[name])
  end
  return times
end

-- Moves on when it is up to the store whether a wait is over: what follows would not be the same each time.
local function leave_spreads(model, now)
  repeat
    local before = now
    for _, t in ipairs(model.tasks) do
      local spread = t.state == "queued" and (t.spread or t.chosen)
      if spread and spread[1] <= now and now < spread[2] then
        now = spread[2]
      end
    end
  until now == before
  return now
end

-- Not before the end of a pause that is over: the store may have forgotten it.  Nor, by small steps, further than by
-- what is no step of the clock.
local function step_back(self, model, by)
  local earliest = math.max(self.now - by, self.latest - 59 * SECOND)
  for _, name in ipairs(ACCOUNTS) do
    local till = model.paused[name] or 0
    if till <= self.now then
      earliest = math.max(earliest, till)
    end
  end
  return earliest
end

-- Back by hours; but not into a pause that is over.
local function leap_back(self, model)
  local at = math.max(self.now - self.r:pick { 62, 600, 3600, 36000 } * SECOND, START)
  if self.now - at <= 61 * SECOND then
    return self.now
  end
  repeat
    local before = at
    for _, name in ipairs(ACCOUNTS) do
      local till, since = model.paused[name], model.paused_at[name]
      if till and till <= self.now and since - at <= 60 * SECOND and at < till then
        at = till
      end
    end
  until at == before
  self.latest = at
  return at
end

function Inventor:pass_time(model)
  local r, what, now = self.r, self.r:below(100), self.now
  if what < 35 then
    now = now + r:below(20) * SECOND + r:below(1000)
  elseif what < 45 then
    now = now + r:below(1000) * SECOND
  elseif what < 60 then
    local times = deadlines(model)
    local at = #times > 0 and r:pick(times) + r:below(3) - 1 or now
    now = at < now + 40 * 24 * 3600 * SECOND and math.max(now, at) or now
  elseif what < 61 then
    now = now + r:below(40) * 3600 * SECOND
  elseif what < 63 then
    now = step_back(self, model, r:below(60 * SECOND))
  elseif what < 64 and r:chance(30) then
    now = leap_back(self, model)
  end
  self.now = leave_spreads(model, now)
end

function Inventor:any_task(model, state)
  local some = {}
  for _, t in ipairs(model.tasks) do
    if not state or t.state == state then
      some[#some + 1] = t
    end
  end
  if #some > 0 then
    return self.r:pick(some)
  end
end

-- Mostly a task in one of these states.
function Inventor:task_in(model, ...)
  local state = self.r:pick { ... }
  return self.r:chance(80) and self:any_task(model, state) or self:any_task(model)
end

-- Any task, but rather one in a rare state.
function Inventor:some_task(model)
  return self:task_in(model, unpack(Model.STATES))
end

function Inventor:new_id()
  self.last_id = self.last_id + 1
  return "T" .. self.last_id
end

-- Mostly the id that the attempt has; or a second one, or somebody else's.
function Inventor:id_for(t, attempt)
  local what, known = self.r:below(100), t and t.attempts[attempt or #t.attempts]
  if known and known.ids[1] and what < 75 then
    return self.r:pick(known.ids)
  elseif what < 88 then
    return self:new_id()
  elseif what < 94 then
    return "T" .. self.r:below(self.last_id + 2)
  end
end

-- Tasks that something may still become of.
local function count_open(model)
  local n = 0
  for _, t in ipairs(model.tasks) do
    n = n + (t.state ~= "succeeded" and t.state ~= "cancelled" and 1 or 0)
  end
  return n
end

local invent = {} -- one maker for each habit: an operation, or nothing

-- Now and then the key or an id of a pruned task, if there is one.
function Inventor:gone(model, what)
  local r = self.r
  local t = #model.tombs > 0 and r:chance(15) and r:pick(model.tombs)
  if t then
    return what == "key" and t.key or what == "task_id" and r:pick(t.attempts).ids[1] or nil
  end
end

function invent.create(self, model)
  local r = self.r
  if count_open(model) >= self.population or #model.tasks > 150 then
    return
  end
  self.made = self.made + 1
  return {
    op = "create", name = self.made, prompt = "a fox", source = "user", user = r:maybe(50, "u" .. r:below(3)),
    key = self:gone(model, "key") or r:maybe(30, "k" .. r:below(8)), print = r:maybe(90, "x") or "y",
    priority = r:maybe(40, r:below(3) - 1) or 0, timeout = r:pick { 1, 5, 60, 600, 1200 },
    account = r:maybe(30, r:pick(ACCOUNTS)) or r:maybe(3, STRANGE_ACCOUNT),
    expires = r:maybe(25, self.now + (r:below(600) - 5) * SECOND),
  }
end

function invent.adopt(self, model)
  local op, r = invent.create(self, model), self.r
  if op then
    op.task_id = self:gone(model, "task_id") or r:chance(80) and self:new_id() or "T" .. r:below(self.last_id + 2)
    op.prompt, op.under, op.wait = r:maybe(60, op.prompt), r:maybe(60, r:pick(ACCOUNTS)), r:maybe(20, 5 * SECOND)
  end
  return op
end

function invent.claim()
  return { op = "claim" }
end

local function signal(t, kind, source)
  return t and { op = "signal", to = t.name, kind = kind, source = source }
end

-- Which attempt it says that it is about.
function Inventor:about(t)
  local what = self.r:below(100)
  return what < 45 and #t.attempts or what < 65 and 1 + self.r:below(#t.attempts + 1) or nil
end

-- What the provider says besides; a result may come in parts.
function Inventor:payload(op)
  local r, n = self.r, self.r:below(1000)
  if op.kind == "succeeded" then
    op.image = r:maybe(80, "https://cdn.example/grid" .. n)
    op.images = r:maybe(40, { "https://cdn.example/" .. n, "https://cdn.example/other" .. n })
  end
  op.meta, op.mj_prompt = r:maybe(40, ('{"n":%d}'):format(n)), r:maybe(40, "as run " .. n)
  op.error, op.error_code = r:maybe(30, "because " .. n), r:maybe(15, "code" .. n)
  return op
end

function invent.report(self, model)
  local t, r = self:task_in(model, "submitting", "submitting", "ambiguous", "lost", "cancelled"), self.r
  local op = signal(t, r:pick(REPORTS), "submit")
  if not op then
    return
  elseif op.kind == "accepted" then
    op.task_id = self:id_for(t)
  elseif op.kind == "owner_dead" then
    op.source, op.expect = "sweep", r:maybe(50, "submitting")
  end
  op.attempt, op.wait = self:about(t), r:maybe(25, r:below(60) * SECOND)
  op.error, op.error_code = r:maybe(50, "no luck"), r:maybe(50, "bad_luck")
  return op
end

function invent.callback(self, model)
  local t, r = self:task_in(model, "submitting", "ambiguous", "pending", "lost"), self.r
  local op = signal(t, r:pick(PROVIDER_WORDS), "callback")
  if op then
    op.attempt = self:about(t)
    op.task_id = self:id_for(t, op.attempt)
    op.to, op.raw = r:maybe(85, op.to), r:maybe(40, true)
    if op.raw then
      op.attempt = op.attempt or math.max(#t.attempts, 1) -- its token names it
    end
    return self:payload(op)
  end
end

function invent.poll(self, model)
  local t, r = self:task_in(model, "pending", "pending", "cancelled", "lost", "failed"), self.r
  local op = signal(t, r:pick(POLL_RESULTS), "poll")
  if not op then
    return
  elseif op.kind == "absent" or op.kind == "unanswered" then
    op.counts, op.wait = r:maybe(80, true), r:maybe(10, r:below(90) * SECOND)
  else
    op.task_id = self:id_for(t)
    self:payload(op)
  end
  op.attempt, op.wait = r:maybe(20, #t.attempts), op.wait or r:maybe(15, r:pick { 0, 1, 30, 600 } * SECOND)
  return op
end

function invent.look(self, model)
  local t = self:some_task(model)
  local op = signal(t, "look", "callback")
  if op then
    op.attempt = self:about(t)
    op.task_id = self:id_for(t, op.attempt)
  end
  return op
end

-- A word about an attempt that has a newer one.
function invent.older(self, model)
  local some, r = {}, self.r
  for _, t in ipairs(model.tasks) do
    some[#some + 1] = #t.attempts > 1 and t or nil
  end
  if #some > 0 then
    local t = r:pick(some)
    local op = signal(t, r:pick { "look", "accepted", "running", "hint", "succeeded", "failed", "refused" }, "callback")
    op.attempt = 1 + r:below(#t.attempts - 1)
    op.task_id = self:id_for(t, op.attempt)
    return self:payload(op)
  end
end

function invent.decide(self, model)
  local t, r = self:task_in(model, "ambiguous"), self.r
  local op = signal(t, r:pick { "give_up", "resubmit", "wait" }, "policy")
  if op then
    op.expect, op.attempt = r:maybe(70, "ambiguous"), r:maybe(70, #t.attempts)
    op.wait = op.kind == "wait" and r:maybe(60, r:below(600) * SECOND) or nil
  end
  return op
end

function invent.cancel(self, model)
  return signal(self:some_task(model), "cancel", "user")
end

function invent.resubmit(self, model)
  return signal(self:task_in(model, "failed", "lost", "ambiguous"), "resubmit", "user")
end

-- Any signal at all about a task, or about one that is not there.
function Inventor:anything(t)
  local r = self.r
  local op = { op = "signal", to = r:maybe(80, t and t.name), kind = r:pick(ALL_KINDS), source = r:pick(SOURCES) }
  op.attempt, op.task_id = r:maybe(40, 1 + r:below(4)), self:id_for(t)
  op.to = op.to or r:maybe(50, 1 + r:below(self.made + 2))
  op.expect, op.counts = r:maybe(20, r:pick(Model.STATES)), r:maybe(50, true)
  op.wait = r:maybe(30, r:pick { 0, 1, 5 * SECOND, 600 * SECOND, 40 * 24 * 3600 * SECOND })
  return op.kind == "ready" and op or self:payload(op) -- the store's own signal: it knows its reason
end

function invent.noise(self, model)
  return self:anything(self:some_task(model))
end

function invent.tick(self)
  return { op = "tick", limit = self.r:pick { 0, 1, 2, 100 } }
end

function invent.pause(self)
  local r = self.r
  return { op = "pause", account = r:pick(ACCOUNTS), till = r:maybe(70, self.now + r:below(100) * SECOND),
           reason = r:pick { "quota", "concurrency" } }
end

function invent.refuse(self)
  local r = self.r
  return { op = "refuse", to = 1 + r:below(self.made + 2), attempt = 1 + r:below(3), error = "no JSON " .. r:below(100),
           size = r:pick { 0, 10, 100, 65536, 65537 } }
end

function invent.take(self)
  return { op = "take", till = self.now + self.r:pick { 0, 1, 60 } * SECOND }
end

function invent.settle(self, model)
  local r = self.r
  local e = #model.events > 0 and r:pick(model.events)
  if not e then
    return
  end
  local op = { op = r:pick { "done", "done", "retry" }, to = e.task.name, seq = e.seq, tries = e.tries }
  op.tries = r:chance(90) and op.tries or math.max(0, op.tries + r:below(3) - 1)
  op.seq = r:chance(95) and op.seq or op.seq + 1
  if op.op == "retry" then
    op.till, op.error = r:maybe(70, self.now + r:below(500) * SECOND), r:maybe(70, "it raised " .. r:below(1000))
  end
  return op
end

-- An operator's hand: an event again, or no more.
function invent.again(self, model)
  local r = self.r
  local e = #model.events > 0 and r:chance(80) and r:pick(model.events)
  local t = e and e.task or #model.tasks > 0 and r:pick(model.tasks)
  if not t then
    return
  end
  local seq = e and e.seq or r:below(3)
  if r:chance(35) then
    return { op = "bury", to = t.name, seq = seq, error = "by hand " .. r:below(100) }
  end
  return { op = "kick", to = t.name, seq = r:chance(30) and 0 or seq }
end

-- A while ago, or exactly when one of these things happened, or right before.
function Inventor:some_time_ago(list, field)
  local r = self.r
  local one = #list > 0 and r:pick(list)[field]
  if one and r:chance(50) then
    return one - r:below(2)
  end
  return self.now - r:pick { 0, 0, 60, 3600 } * SECOND
end

-- Those that are over and still hold a slot.
local function tasks_with_slot(model)
  local some = {}
  for _, t in ipairs(model.tasks) do
    for _, a in ipairs(t.finished and t.attempts or {}) do
      some[#some + 1] = a.slot and t or nil
    end
  end
  return some
end

function invent.prune(self, model)
  local r, tempting = self.r, tasks_with_slot(model)
  if #tempting > 0 and r:chance(40) then
    return { op = "prune", state = r:pick(tempting).state, limit = 100, till = self.now }
  end
  return { op = "prune", state = r:maybe(95, r:pick(FINALS)) or r:pick(Model.STATES), limit = r:pick { 0, 1, 3, 100 },
           till = self:some_time_ago(model.tasks, "finished"), from = r:maybe(15, 1 + r:below(self.made + 1)) }
end

function invent.forget(self, model)
  return { op = "forget", limit = self.r:pick { 0, 1, 100 }, till = self:some_time_ago(model.tombs, "pruned") }
end

function invent.reopen(self)
  return { op = "reopen", caps = self.r:maybe(50, random_caps(self.r)) }
end

function invent.audit(self, model)
  local r, times = self.r, deadlines(model)
  return { op = "audit", limit = 1 + r:below(7), since = self.now - r:below(3600) * SECOND,
           till = #times > 0 and r:maybe(60, r:pick(times)) or self.now + r:below(3600) * SECOND }
end

-- ---- campaigns: what chance alone would hardly ever come to, one operation after the other ----

local campaigns = {} -- each gives the next operation about a task, and how long it waits before that one

-- The provider says nothing but "running", until it is lost by its silence.
function campaigns.silence(self, t)
  local op = signal(t, "running", "poll")
  op.task_id = t.attempts[#t.attempts].ids[1] or self:new_id()
  return op, math.floor(self.rules.poll_max * 3 / 2)
end

-- The provider does not know it, until it is lost; and then it does, and does not.
function campaigns.absence(self, t)
  if t.state == "lost" then
    local found = signal(t, "running", "callback")
    found.task_id = t.attempts[#t.attempts].ids[1] or self:new_id()
    return found, 0
  end
  local op, till = signal(t, "absent", "poll"), t.attempts[#t.attempts].slot_until or 0
  op.counts = true
  return op, till > self.now and self.r:maybe(30, till - self.now) or self.r:pick { 250, 300, 300, 600 } * SECOND
end

function campaigns.hints(self, t)
  local op = signal(t, "hint", "poll")
  op.task_id = t.attempts[#t.attempts].ids[1] or self:new_id()
  return op, 5 * SECOND
end

-- As many attempts as there may be, and one more.
function campaigns.attempts(self, t)
  if t.state == "queued" then
    return t.ready and { op = "claim" } or { op = "tick", limit = 100 }, 0
  elseif t.state == "submitting" then
    return signal(t, self.r:pick { "maybe_sent", "rejected", "refused" }, "submit"), 20 * SECOND
  elseif t.state == "pending" then
    return self:payload(signal(t, "failed", "poll")), 0
  end
  return signal(t, "resubmit", "user"), 700 * SECOND
end

-- Into doubt, perhaps lost, and then any word at all, which mostly ends it: and once more.
function campaigns.doubt(self, t)
  if t.state == "queued" then
    return t.ready and { op = "claim" } or { op = "tick", limit = 100 }, 0
  elseif t.state == "submitting" then
    return signal(t, self.r:pick { "maybe_sent", "owner_dead", "rejected" }, "submit"), 0
  elseif t.state == "ambiguous" and self.r:chance(50) then
    return signal(t, "give_up", "policy"), 0
  elseif t.state == "ambiguous" or t.state == "lost" or (t.ours and self.r:chance(80)) then
    return self:anything(t), self.r:below(400) * SECOND
  elseif t.state == "pending" then
    return self:payload(signal(t, "failed", "poll")), 0
  end
  return signal(t, "resubmit", "user"), 0
end

-- Its events delivered, and then pruned, if it may be.
function campaigns.tidy(self, t, model)
  local e
  for _, out in ipairs(model:outbox()) do
    e = out.event.task == t and out.event or e
  end
  if not e then
    return { op = "prune", state = t.state, limit = 100, till = self.now }, self.r:below(2)
  elseif e.tries > 0 and e.next > self.now then
    return { op = "done", to = t.name, seq = e.seq, tries = e.tries }, 0
  end
  return { op = "take", till = self.now + 60 * SECOND }, math.max(0, e.next - self.now)
end

-- More task ids than an attempt keeps.
function campaigns.ids(self, t)
  local op = signal(t, self.r:pick { "accepted", "running", "look", "hint" }, self.r:pick { "submit", "callback" })
  op.task_id = self:new_id()
  return op, 0
end

-- A handler that raises and raises.
function campaigns.raising(self, t, model)
  local e = model:event(t, t.seq)
  if e and e.tries > 0 and not e.buried and self.r:chance(60) then
    return { op = "retry", to = t.name, seq = e.seq, tries = e.tries, till = self.now + SECOND, error = "it raised" }, 0
  end
  return { op = "take", till = self.now }, e and math.max(0, e.next - self.now) or 0
end

local CROWD, WAITS_IN_VAIN = 90, 2000 * SECOND

-- So many that wait in vain that a claim has more to clear away than it does at once.
function campaigns.crowd(self)
  local c = self.campaign
  c.left = c.came and c.left or CROWD
  c.came = true
  if c.left == 1 then
    return { op = "claim" }, math.max(0, c.began + WAITS_IN_VAIN - self.now)
  end
  self.made = self.made + 1
  return { op = "create", name = self.made, print = "x", prompt = "a fox", source = "user", priority = 0, timeout = 60,
           expires = c.began + WAITS_IN_VAIN }, 0
end

-- More refused callbacks than are kept.
function campaigns.refusals(self)
  local c, op = self.campaign, invent.refuse(self)
  c.left = c.came and c.left or 260
  c.came, op.size = true, 10
  return op, 0
end

local CAMPAIGNS = { "silence", "absence", "absence", "hints", "attempts", "doubt", "doubt", "doubt", "tidy", "tidy",
                    "ids", "raising", "raising", "crowd", "refusals" }

local function tasks_with_event(model)
  local some = {}
  for i, e in ipairs(model.events) do
    some[i] = e.task
  end
  return some
end

-- Whom a campaign is best about.
local POLLED = { silence = true, absence = true, hints = true }

function Inventor:whom(name, model)
  local some = name == "raising" and tasks_with_event(model) or name == "tidy" and tasks_with_slot(model) or {}
  if #some > 0 and self.r:chance(70) then
    return self.r:pick(some)
  end
  return POLLED[name] and self:any_task(model, "pending") or self:any_task(model)
end

local LONG = { crowd = 150, refusals = 350 } -- only when the run has more than that before it

function Inventor:begin_campaign(model)
  local name, length = self.r:pick(CAMPAIGNS), 5 + self.r:below(40)
  local t = self:whom(name, model)
  if t and self.length - self.count > (LONG[name] or 0) then
    self.campaign = { make = campaigns[name], about = t, left = length, began = self.now }
  end
end

-- The campaign's next operation, if there is one and it is its turn.
function Inventor:go_on(model)
  local c = self.campaign
  if not c or self.r:chance(20) then
    return
  end
  local op, wait = c.make(self, c.about, model)
  self.now = leave_spreads(model, self.now + wait)
  c.left = c.left - 1
  self.campaign = c.left > 0 and not c.about.pruned and c or nil
  return op
end

function Inventor:habit()
  local n = self.r:below(self.total)
  for _, habit in ipairs(self.habits) do
    n = n - habit[2]
    if n < 0 then
      return habit[1]
    end
  end
end

function Inventor:by_habit(model)
  local op
  repeat
    op = invent[self:habit()](self, model)
  until op
  return op
end

--- The next operation, knowing what the model knows.  `more`: in one transaction with the one after it.
function Inventor:next(model)
  local op
  self.count = self.count + 1
  if not self.together then
    if not self.campaign and self.r:chance(2) then
      self:begin_campaign(model)
    end
    op = self:go_on(model)
    if not op then
      self:pass_time(model)
    end
  end
  op = op or self:by_habit(model)
  op.at, op.handle = self.now, 1 + self.r:below(2)
  self.latest = math.max(self.latest, self.now)
  self.together = op.op ~= "reopen" and op.op ~= "audit" and self.r:chance(25)
  op.more = self.together or nil
  return op
end

-- ---- comparing ----

local function differ(what, want, got)
  if want ~= got then
    error({ what = what, want = tostring(want), got = tostring(got) }, 0)
  end
end

local function same(a, b)
  if type(a) ~= "table" or type(b) ~= "table" then
    return a == b
  end
  for k, v in pairs(a) do
    if not same(v, b[k]) then
      return false
    end
  end
  for k in pairs(b) do
    if a[k] == nil then
      return false
    end
  end
  return true
end

local function words(...)
  local list = { ... }
  for i = 1, select("#", ...) do
    list[i] = type(list[i]) == "number" and ("%d"):format(list[i]) or tostring(list[i])
  end
  return table.concat(list, " ")
end

local function attempts_of_model(t)
  local list = {}
  for i, a in ipairs(t.attempts) do
    list[i] = words(a.word, a.account, a.sent, a.slot and a.slot_until or nil, table.concat(a.ids, "+"))
  end
  return table.concat(list, ", ")
end

local function attempts_of_record(record)
  local list = {}
  for i, a in ipairs(record.attempts) do
    list[i] = words(a.word, a.account, a.submitted_at, a.slot_until, table.concat(a.task_ids or {}, "+"))
  end
  return table.concat(list, ", ")
end

local function final_source(t)
  return t.finished and t.source or nil
end

local FIELDS = { "ref", "state", "attempt", "task_id", "account", "submitted_at", "timeout", "priority", "polls",
                 "tries", "prompt", "mj_prompt", "user_id", "key", "image", "meta", "created_at", "updated_at",
                 "finished_at", "due_at", "called_at", "expires_at", "source", "late", "owner" }

-- The model's task in the words of a record.
local function as_record(t)
  local a = t.attempts[#t.attempts]
  return {
    ref = t.ref, state = t.state, attempt = #t.attempts, task_id = a.ids[1], account = a.account or t.account,
    submitted_at = a.sent, timeout = t.timeout, priority = t.priority, polls = t.polls,
    tries = t.tries > 0 and t.tries or nil, prompt = t.prompt, mj_prompt = t.mj_prompt, user_id = t.user, key = t.key,
    image = t.image, meta = t.meta, created_at = t.created, updated_at = t.updated, finished_at = t.finished,
    due_at = t.due, called_at = t.called, expires_at = t.expires, source = final_source(t), late = t.late or nil,
    owner = t.state == "submitting" and "alive" or nil, -- it is us who claim
  }
end

local function compare_error(t, record)
  local want, got = t.error, record.error
  differ("error code", want and want.code, got and got.code)
  if want and want.message ~= Model.ANY then
    differ("error message", want.message, got.message)
  elseif want then
    differ("error message", true, #got.message > 0)
  end
end

-- The newest entry of the timeline; others were compared when they were the newest.
local function compare_moment(t, record)
  local want, got = t.moment, record.timeline[#record.timeline]
  differ("timeline", words(want.signal, want.note, want.attempt, want.from, want.to, want.source, want.at),
    words(got.signal, got.note, got.attempt, got.from, got.to, got.source, got["until"] or got.at))
end

local function compare_record(t, record)
  if not Model.learn(t, record.due_at) then
    differ("due_at", t.spread and words("from", t.spread[1], "to", t.spread[2]) or t.due, record.due_at)
  end
  local want = as_record(t)
  for _, field in ipairs(FIELDS) do
    differ(field, want[field], record[field])
  end
  differ("attempts", attempts_of_model(t), attempts_of_record(record))
  differ("images", table.concat(t.images or {}, " "), table.concat(record.images, " "))
  compare_error(t, record)
  compare_moment(t, record)
end

local function compare_tomb(t, tomb)
  differ("pruned", true, tomb.pruned)
  differ("tombstone", words(t.ref, t.state, t.key, t.created, t.finished, t.pruned),
    words(tomb.ref, tomb.state, tomb.key, tomb.created_at, tomb.finished_at, tomb.pruned_at))
  local ids = {}
  for _, a in ipairs(t.attempts) do
    ids[#ids + 1] = #a.ids > 0 and table.concat(a.ids, " ") or nil
  end
  differ("task_ids", table.concat(ids, " "), table.concat(tomb.task_ids, " "))
end

local function compare_event(e, event)
  differ("event", words(e.task.ref .. "-" .. words(e.seq), e.type, e.attempt, e.tries, e.created, e.late, e.buried),
    words(event.event_id, event.type, event.attempt, event.tries, event.created_at, event.late, event.buried))
  differ("event's errors", #e.errors, #event.errors)
  for i, err in ipairs(e.errors) do
    differ("event's error", words(err.at, err.message), words(event.errors[i].at, event.errors[i].message))
  end
  if not e.buried then
    differ("event's time", e.next, event.next_at)
  end
end

-- A full timeline keeps how it began and the newest, and counts what it leaves out.
local LONGEST, FIRST = 32, 4

local function check_left_out(before, after)
  local a, b = before.timeline, after.timeline
  if #a == LONGEST and not b[LONGEST].count then -- the new entry is no repetition of the last one
    differ("timeline_dropped", (before.timeline_dropped or 0) + 1, after.timeline_dropped)
    for i = FIRST + 1, LONGEST - 1 do
      differ("timeline moved up", true, same(a[i + 1], b[i]))
    end
  end
end

local function check_timelines(before, after, changes)
  local a, b = before.timeline, after.timeline
  differ("timeline that is not too long", true, #b <= LONGEST)
  for i = 1, math.min(FIRST, #a - 1) do
    differ("begin of the timeline", true, same(a[i], b[i]))
  end
  if changes == 1 then
    check_left_out(before, after)
  end
end

-- What PRODUCT.md promises of any two records of a task, one after the other, whatever the model thinks.
local function check_promises(before, after)
  if before.state == "succeeded" or before.state == "cancelled" then
    differ("a last word", before.state, after.state)
  end
  for i, a in ipairs(before.attempts) do
    local b = after.attempts[i]
    differ("attempts", true, b ~= nil)
    differ("first task id", a.task_id, a.task_id and b.task_id)
    if a.word ~= "unsent" and a.word ~= "refused" and a.word ~= "submitting" then
      differ("sent again", true, b.word ~= "submitting")
    end
    if a.word == "succeeded" or a.word == "failed" then
      differ("first terminal word", a.word, b.word)
    end
  end
end

-- ---- doing operations on both ----

local World = {}
World.__index = World

--- A fresh store and a fresh model.  `spoil`: changes the model, so that it is wrong.
function World.new(case, place, spoil)
  local self = setmetatable({ place = place, rules = case.rules, names = {}, seen = {}, last_ref = "", clean = 0,
                              inbox = core.inbox() }, World)
  self.model = Model.new(case.rules, case.caps)
  if spoil then
    spoil(self.model)
  end
  self:open()
  return self
end

-- Two handles, as of two workers.
function World:open()
  local rules, options = self.rules, { accounts = self.model.caps }
  for name, ms in pairs(rules) do
    options[name] = ms / SECOND
  end
  self.stores = { kit.open_store(self.place, options), kit.open_store(self.place, options) }
end

function World:close()
  self.stores[1]:close()
  self.stores[2]:close()
end

function World:ref(name)
  local t = self.names[name]
  return t and t.ref or NOBODY
end

local translate = {} -- our operations into the store's

function translate.create(_, op)
  return { op = "create", want = true, source = op.source, task_id = op.task_id, account = op.under, wait_ms = op.wait,
           task = { prompt = op.prompt, user_id = op.user, key = op.key, fingerprint = op.print:rep(16),
                    account = op.account, priority = op.priority, timeout = op.timeout, expires_at = op.expires } }
end

local STATUS = { running = 0, succeeded = 1, hint = 1, failed = 2 }

-- Whether it can come as what it is: a callback, in the words of the provider.
local function is_raw(op)
  local named = op.to and op.attempt and op.attempt <= 8 and op.task_id
  return op.raw and named and (op.kind ~= "succeeded" or op.image) and not op.error_code
end

local function in_the_providers_words(op)
  local said = { taskId = op.task_id, status = STATUS[op.kind], image = op.image, images = op.images,
                 mjPrompt = op.mj_prompt, failReason = op.error }
  return (cjson.encode(said):gsub("}$", op.meta and ',"meta":' .. op.meta:gsub("%%", "%%%%") .. "}" or "}"))
end

function translate.signal(world, op)
  return { op = "signal", want = true, ref = op.to and world:ref(op.to), kind = op.kind, source = op.source,
           attempt = op.attempt, expect = op.expect, task_id = op.task_id, wait_ms = op.wait, counts = op.counts,
           image = op.image, images = op.images, meta = op.meta, mj_prompt = op.mj_prompt, error = op.error,
           error_code = op.error_code }
end

function translate.claim()
  return { op = "claim", want = true, source = "submit" }
end

function translate.pause(_, op)
  return { op = "pause", account = op.account, error_code = op.reason, ["until"] = op.till }
end

local function body(op)
  return ("%d "):format(op.at):rep(math.ceil(op.size / 14)):sub(1, op.size)
end

function translate.refuse(world, op)
  return { op = "refuse", ref = world:ref(op.to), attempt = op.attempt, error = op.error, body = body(op) }
end

function translate.tick(_, op)
  return { op = "tick", limit = op.limit }
end

function translate.take(_, op)
  return { op = "take", ["until"] = op.till }
end

function translate.done(world, op)
  return { op = "done", ref = world:ref(op.to), seq = op.seq, tries = op.tries }
end

function translate.retry(world, op)
  return { op = "retry", ref = world:ref(op.to), seq = op.seq, tries = op.tries, error = op.error, ["until"] = op.till }
end

function translate.kick(world, op)
  return { op = "kick", ref = world:ref(op.to), seq = op.seq }
end

function translate.bury(world, op)
  return { op = "bury", ref = world:ref(op.to), seq = op.seq, error = op.error }
end

function translate.prune(world, op)
  return { op = "prune", expect = op.state, limit = op.limit, ["until"] = op.till,
           ref = op.from and world:ref(op.from) }
end

function translate.forget(_, op)
  return { op = "forget", limit = op.limit, ["until"] = op.till }
end

local foresee = {} -- what the model says to them

function foresee.create(world, op)
  local result = world.model:create(op, op.at)
  world.names[op.name] = result.task
  result.task.name = result.task.name or op.name
  return result
end

function foresee.signal(world, op)
  local s = setmetatable({ task = op.to and (world.names[op.to] or { pruned = true }) }, { __index = op })
  return world.model:signal(s, op.at)
end

function foresee.claim(world, op)
  return world.model:claim(op.at)
end

function foresee.pause(world, op)
  return world.model:pause(op.account, op.till, op.reason, op.at)
end

function foresee.refuse(world, op)
  return world.model:refuse(world:ref(op.to), op.attempt, op.error, body(op), op.at)
end

function foresee.tick(world, op)
  return world.model:tick(op.limit, op.at)
end

function foresee.take(world, op)
  return world.model:take(op.till, op.at)
end

function foresee.done(world, op)
  return world.model:done(world.names[op.to], op.seq, op.tries, op.at)
end

function foresee.retry(world, op)
  return world.model:retry(world.names[op.to], op.seq, op.tries, op.till, op.error, op.at)
end

function foresee.kick(world, op)
  return world.model:kick(world.names[op.to], op.seq, op.at)
end

function foresee.bury(world, op)
  return world.model:give_up(world.names[op.to], op.seq, op.error, op.at)
end

function foresee.prune(world, op)
  local from = op.from and world.names[op.from]
  return world.model:prune(op.state, op.till, op.limit, from and from.number, op.at)
end

function foresee.forget(world, op)
  return world.model:forget(op.till, op.limit)
end

-- A record of a task: as the model says, and not touched when the model says that nothing happened.
function World:compare_task(t, record)
  compare_record(t, record)
  local seen = self.seen[t]
  if seen then
    check_promises(seen.record, record)
    check_timelines(seen.record, record, t.changes - seen.changes)
    if seen.changes == t.changes then
      differ("a record that nothing changed", true, same(seen.record, record))
    end
  end
  self.seen[t] = { record = record, changes = t.changes }
end

-- Refs ascend, also when the clock does not.
function World:greet(t, record)
  differ("refs ascend", true, record.ref > self.last_ref)
  t.ref, self.last_ref = record.ref, record.ref
end

function World:compare_result(op, want, got)
  differ("code", want.code, got.code)
  differ("event made", want.made, got.made)
  differ("done", want.done, got.done)
  differ("more", want.next ~= nil or want.more == true, got.more == true)
  differ("next", want.next and want.next.ref, want.next and got.next)
  if op.op ~= "claim" or want.task then -- a claim that fails may show a task that it passed over: it had expired
    differ("task", want.task ~= nil, got.task ~= nil)
  end
  if want.task and not want.task.ref then
    self:greet(want.task, got.task)
  end
  if want.task and want.task.pruned then
    compare_tomb(want.task, got.task)
  elseif want.task then
    self:compare_task(want.task, got.task)
  end
  if want.event then
    compare_event(want.event, got.event)
  end
end

-- No submission starts unless fewer slots are held than the cap.
function World:check_cap(t)
  local account = t.attempts[#t.attempts].account
  for _, c in ipairs(self.model.caps) do
    if c.name == account then
      differ("slots within the cap", true, self.model:held(account) <= c.max_in_flight)
      return
    end
  end
  differ("account", "configured", account)
end

-- When the clock was set back: the store goes over what that put off, a part in each transaction, until all is done.
function World:look_at_clock(store, now)
  if (assert(store:stats(now)).latest or 0) - now <= core.clock_step then
    return
  end
  for _, t in ipairs(self.model.tasks) do
    Model.learn(t, assert(store:get(t.ref)).due_at)
  end
  repeat
    local results = assert(store:write({ { op = "tick", limit = 0 } }, now))
  until not results[1].more
  self.model:rewind(now)
end

--- Operations first..last in one transaction.
function World:commit(ops, first, last)
  local batch, order, raw = {}, {}, {} -- callbacks as they came are done after all others
  for i = first, last do
    if is_raw(ops[i]) then
      raw[#raw + 1] = i
      assert(self.inbox:put(self:ref(ops[i].to), ops[i].attempt, in_the_providers_words(ops[i])))
    else
      order[#order + 1] = i
      batch[#batch + 1] = translate[ops[i].op](self, ops[i])
    end
  end
  self.inbox:take()
  local store, untold = self.stores[ops[first].handle], {}
  self:look_at_clock(store, ops[first].at)
  local results, outcomes, unreadable = store:write(batch, ops[first].at, self.inbox)
  differ("write", nil, not results and outcomes.code or nil)
  differ("unreadable", nil, unreadable)
  for n, i in ipairs(raw) do
    order[#order + 1], results[#batch + n] = i, core.codes[outcomes:byte(n)]
  end
  for n, i in ipairs(order) do
    self.at = i
    local want, got = foresee[ops[i].op](self, ops[i]), results[n]
    if type(got) == "string" then -- of a callback no more than the code
      differ("code", want.code, got)
      untold[#untold + 1] = want.task
    else
      self:compare_result(ops[i], want, got)
    end
    if ops[i].op == "claim" and want.code == "ok" then
      self:check_cap(want.task)
    end
  end
  for _, t in ipairs(untold) do
    if not t.pruned then
      self:compare_task(t, assert(store:get(t.ref)))
    end
  end
end

-- ---- the whole of both ----

function World:page_through(op, query)
  local store, all, pages, cursor = self.stores[op.handle], {}, 0, nil
  query.limit = op.limit
  repeat
    query.cursor = cursor
    local page
    page, cursor = store:page(query)
    differ("page", true, page ~= nil and #page <= op.limit)
    for _, record in ipairs(page) do
      all[#all + 1] = record
    end
    pages = pages + 1
    differ("a listing that ends", true, pages < 2000)
  until not cursor
  return all
end

function World:compare_listing(op, query)
  local want, got = self.model:list(query), self:page_through(op, query)
  local what = words("listing by", query.by, query.state or query.user_id or query.due)
  differ(what .. ": length", #want, #got)
  for i, t in ipairs(want) do
    differ(what, t.ref, got[i].ref)
    if query.by == "age" then
      self:compare_task(t, got[i]) -- once is enough
    end
  end
end

function World:compare_events(op, buried)
  local want, got = self.model:list_events(buried), self:page_through(op, { by = "event", buried = buried })
  differ("events: length", #want, #got)
  for i, e in ipairs(want) do
    compare_event(e, got[i])
  end
end

-- What may be pruned, as a look without the writer's lock finds it.
function World:compare_prunable(op)
  for _, state in ipairs(FINALS) do
    local want, got, from = {}, {}, nil
    for _, t in ipairs(self.model:list { by = "state", state = state, oldest_first = true }) do
      want[#want + 1] = t.stamp <= op.till and self.model:may_be_pruned(t, op.till) and t.ref or nil
    end
    repeat
      local refs, next_from = self.stores[op.handle]:prunable { state = state, ["until"] = op.till, limit = op.limit,
                                                                from = from }
      for _, ref in ipairs(refs) do
        got[#got + 1] = ref
      end
      from = next_from
    until not from
    differ("prunable tasks", table.concat(want, " "), table.concat(got, " "))
  end
end

function World:compare_listings(op)
  self:compare_listing(op, { by = "age" })
  self:compare_listing(op, { by = "age", since = op.since })
  for _, state in ipairs(Model.STATES) do
    self:compare_listing(op, { by = "state", state = state })
  end
  for i = 0, 2 do
    self:compare_listing(op, { by = "user", user_id = "u" .. i, since = i == 0 and op.since or nil })
  end
  for _, due in ipairs { "poll", "queue", "resolve", "owner" } do
    self:compare_listing(op, { by = "due", due = due, ["until"] = op.till })
  end
  self:compare_events(op)
  self:compare_events(op, true)
end

function World:compare_lookups(op)
  local store, ids = self.stores[op.handle], self.model.ids
  for id, owner in pairs(ids) do
    local record, attempt = store:find(id)
    differ("found by id " .. id, not owner.task.pruned and owner.task.ref or nil, record and record.ref)
    differ("attempt of " .. id, record and owner.attempt, record and attempt)
  end
  for n = 0, 7 do
    local t, record = self.model.keys["k" .. n], store:by_key("k" .. n)
    differ("found by key k" .. n, t and t.ref, record and record.ref)
    if t and t.pruned then
      compare_tomb(t, record)
    elseif t then
      self:compare_task(t, record)
    end
  end
  for _, t in ipairs(self.model.tombs) do
    local _, err = store:get(t.ref)
    differ("a pruned task", "not_found", err and err.code)
  end
end

-- The ids of a forgotten task are nobody's, unless they were used again.
function World:compare_forgotten(op)
  for _, t in pairs(self.names) do
    for _, a in ipairs(t.forgotten and t.attempts or {}) do
      for _, id in ipairs(a.ids) do
        local owner, record = self.model.ids[id], self.stores[op.handle]:find(id)
        differ("a forgotten id", owner and not owner.task.pruned or false, record ~= nil)
      end
    end
  end
end

function World:compare_counts(op)
  local want, stats = self.model:count(), assert(self.stores[op.handle]:stats(op.at))
  for _, state in ipairs(Model.STATES) do
    differ(state .. " tasks counted", want.tasks[state], stats.tasks[state])
  end
  differ("events counted", want.events, stats.events)
  differ("buried events counted", want.buried, stats.buried)
  differ("ready tasks counted", want.ready, stats.ready)
  self:compare_accounts(op, stats.accounts)
end

function World:compare_accounts(op, list)
  local accounts = {}
  for _, account in ipairs(list) do
    accounts[account.name] = account
  end
  for _, name in ipairs(ACCOUNTS) do
    local account, till = accounts[name] or {}, self.model.paused[name]
    differ("slots held by " .. name, self.model:held(name), account.held or 0)
    if not till or self.model:rests(name, op.at) then -- one that is over may be forgotten, or not
      differ("pause of " .. name, till, account.paused_until)
      differ("reason for the pause of " .. name, self.model.why[name], account.reason)
    end
  end
  for _, c in ipairs(self.model.caps) do
    local cap = self.model:cap(c, op.at)
    differ("learned cap of " .. c.name, cap < c.max_in_flight and cap or nil, accounts[c.name].learned)
  end
end

function World:compare_refused(op)
  local list, below = {}, 0
  repeat
    local page = assert(self.stores[op.handle]:refused(below, op.limit))
    for _, refused in ipairs(page) do
      differ("a page goes on below the last", true, below == 0 or refused.id < below)
      list[#list + 1], below = refused, refused.id
    end
  until #page < op.limit
  local want = self.model.refused
  differ("refused callbacks", #want, #list)
  for i, refused in ipairs(list) do
    differ("a refused callback", true, same(want[#want + 1 - i], refused))
  end
end

function World:check(op)
  local report = assert(self.stores[op.handle]:check())
  differ("problems that check() found", "", table.concat(report.problems, "; "))
  differ("tasks, events and tombstones", words(#self.model.tasks, #self.model.events, #self.model.tombs),
    words(report.tasks, report.events, report.tombs))
end

function World:audit(op)
  self:compare_counts(op)
  self:compare_listings(op)
  self:compare_lookups(op)
  self:compare_prunable(op)
  self:compare_forgotten(op)
  self:compare_refused(op)
  self:check(op)
end

function World:reopen(op)
  self.model.caps = op.caps or self.model.caps
  self:close()
  self:open()
end

-- A task has to have its ref before it can be spoken of.
function World:ends_batch(ops, first, i)
  local after = ops[i + 1]
  if not ops[i].more or not after or after.at ~= ops[first].at or not translate[after.op] then
    return true
  end
  local whom = after.to or after.from
  return whom and not self.names[whom]
end

--- Does ops[first] and what goes together with it; gives the number of the last one.
function World:step(ops, first)
  self.at = first
  if not translate[ops[first].op] then
    self[ops[first].op](self, ops[first])
    return first
  end
  local last = first
  while not self:ends_batch(ops, first, last) do
    last = last + 1
  end
  self:commit(ops, first, last)
  return last
end

-- ---- runs ----

local scratch, used = nil, 0

local function in_fresh_world(case, spoil, f)
  used = used + 1
  local place = kit.database and kit.new_store() or { store = scratch .. "/" .. used }
  local world = World.new(case, place, spoil)
  local ok, why = pcall(f, world)
  world:close()
  for _, file in ipairs(kit.database and {} or { "/data.mdb", "/lock.mdb", "" }) do
    os.remove(place.store .. file)
  end
  if not ok then
    why = type(why) == "table" and why.what and why or { what = "error", want = "none", got = tostring(why) }
    why.step = world.at
    return why
  end
end

local function last_audit(at)
  return { op = "audit", at = at, handle = 1, limit = 100, since = START, till = at + 3600 * SECOND }
end

function World:steps(ops, first)
  while first <= #ops do
    first = self:step(ops, first) + 1
  end
end

--- Does a list of operations; how they differed, if they did.
local function replay(case, ops, spoil)
  return in_fresh_world(case, spoil, function(world)
    world:steps(ops, 1)
    world:audit(last_audit(#ops > 0 and ops[#ops].at or START))
  end)
end

--- Invents operations and does them: the list, and how they differed, if they did.
local function explore(seed, spoil)
  local inventor, ops = Inventor.new(seed), {}
  local case = { rules = inventor.rules, caps = inventor.caps, seed = seed, ops = ops }
  local why = in_fresh_world(case, spoil, function(world)
    while #ops < inventor.length do
      local first = #ops + 1
      repeat
        ops[#ops + 1] = inventor:next(world.model)
      until not inventor.together
      world:steps(ops, first)
    end
    world:audit(last_audit(inventor.now))
  end)
  return case, why
end

-- ---- making a failure short enough to read ----

local function without(ops, first, count)
  local rest = {}
  for i, op in ipairs(ops) do
    if i < first or i >= first + count then
      rest[#rest + 1] = op
    end
  end
  return rest
end

local function without_field(ops, i, field)
  local copy, op = without(ops, 0, 0), {}
  for k, v in pairs(ops[i]) do
    op[k] = v
  end
  op[field] = nil
  copy[i] = op
  return copy
end

-- Leaves out pieces of `size` operations as long as it fails without them.
local function drop_pieces(ops, size, fails)
  local i = 1
  while i <= #ops do
    local fewer = without(ops, i, size)
    if fails(fewer) then
      ops = fewer
    else
      i = i + size
    end
  end
  return ops
end

local OPTIONAL = { "more", "wait", "expect", "attempt", "error", "error_code", "image", "images", "meta", "mj_prompt",
                   "user", "key", "expires", "counts", "account", "under", "from", "caps", "raw" }

local function drop_fields(ops, fails)
  for i = 1, #ops do
    for _, field in ipairs(OPTIONAL) do
      if ops[i][field] ~= nil and fails(without_field(ops, i, field)) then
        ops = without_field(ops, i, field)
      end
    end
  end
  return ops
end

--- A shorter list that fails in the same way.
local function shorten(case, why, spoil)
  local give_up = os.time() + SHRINK_SECONDS
  local function fails(ops)
    local again = os.time() < give_up and replay(case, ops, spoil)
    return again and again.what == why.what
  end
  local ops, size = case.ops, math.ceil(#case.ops / 2)
  while size > 1 do
    ops = drop_pieces(ops, size, fails)
    size = math.ceil(size / 2)
  end
  local before
  repeat
    before = #ops
    ops = drop_pieces(ops, 1, fails)
  until #ops == before
  return drop_fields(ops, fails)
end

-- ---- telling people ----

local function literal(v)
  if type(v) == "number" then
    return ("%d"):format(v)
  elseif type(v) ~= "table" then
    return type(v) == "string" and ("%q"):format(v) or tostring(v)
  end
  local keys, parts = {}, {}
  for k in pairs(v) do
    keys[#keys + 1] = k
  end
  table.sort(keys)
  for i, k in ipairs(keys) do
    parts[i] = (type(k) == "string" and k .. " = " or "") .. literal(v[k])
  end
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function listing(case, ops)
  local lines = {}
  for i, op in ipairs(ops) do
    lines[i] = "  " .. literal(op) .. ",\n"
  end
  return ("return { rules = %s, caps = %s, ops = {\n%s} }\n"):format(literal(case.rules), literal(case.caps),
    table.concat(lines))
end

local function tell(case, why, ops)
  return ([[
the store and the model differ: %s: the model says %s, the store %s
MJHOOK_SEED=%d does it again, with operation %d of %d.  These %d are enough; in a file, MJHOOK_REPLAY=file does them:

%s]]):format(why.what, why.want, why.got, case.seed or 0, why.step or 0, #case.ops, #ops, listing(case, ops))
end

local function explore_or_fail(seed)
  local case, why = explore(seed)
  if why then
    error(tell(case, why, shorten(case, why)), 0)
  end
  return #case.ops
end

-- ---- the tests ----

describe("the store, compared with a plain model of it,", function()
  -- Mostly calls of C functions: compiling costs twice what it saves.
  if jit then
    setup(function() jit.off() end)
    teardown(function() jit.on() end)
  end

  -- In memory where there is such a place: nothing here is about what a disk keeps.
  setup(function()
    scratch = kit.sh "mktemp -d -p /dev/shm 2>/dev/null || mktemp -d"
    kit.finally(function()
      os.execute("rm -rf " .. kit.quote(scratch))
    end)
  end)
  teardown(kit.cleanup)

  if REPLAY then
    it("does what the model does in " .. REPLAY, function()
      local case = assert(loadfile(REPLAY))()
      local why = replay(case, case.ops)
      assert(not why, why and tell(case, why, case.ops))
    end)
    return
  end

  it("does the same in random operations", function()
    local seed, steps = SEED, 0
    while steps < STEPS do
      steps = steps + explore_or_fail(seed)
      seed = seed + 1
    end
  end)

  if not kit.database then
    describe("on the backend that has everything in memory,", function()
      setup(function() kit.database = "memory" end)
      teardown(function() kit.database = nil end)

      it("does the same in random operations", function()
        local seed, steps = SEED, 0
        while steps < STEPS / 3 do
          steps = steps + explore_or_fail(seed)
          seed = seed + 1
        end
      end)
    end)
  end

  it("is given the same operations for the same seed", function()
    local one, two = explore(SEED), explore(SEED)
    assert.equal(listing(one, one.ops), listing(two, two.ops))
  end)

  it("is found out when it differs, and with few operations", function()
    local function spoil(model)
      model.pause = function()
        return { code = "ok" } -- and forgets it
      end
    end
    local seed, case, why = SEED
    repeat
      case, why = explore(seed, spoil)
      seed = seed + 1
    until why
    local ops = shorten(case, why, spoil)
    assert.is_true(#ops <= 10, listing(case, ops))
    assert.equal(why.what, replay(case, ops, spoil).what)
  end)
end)
