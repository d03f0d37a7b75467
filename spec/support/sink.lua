-- A receiver of the relay (sink.py), which does with each event what its prompt says; and events for it.
local core = require "mjhook.core"
local kit = require "kit"
local webhook = require "mjhook.handlers.webhook"

local SECRET = "whsec_" .. core.base64 "a key of 24 bytes or more"

local sink = {}
local Sink = {}
Sink.__index = Sink

--- Starts one; it is ended with the test.
-- @treturn table url, dir, hook (a relay to it)
function sink.start()
  local self = setmetatable({ dir = kit.tmp(), prompts = {} }, Sink)
  kit.spawn(("exec python3 %s %s"):format(kit.quote(kit.root .. "/spec/support/sink.py"), self.dir))
  local port = kit.wait_until(function()
    return tonumber((kit.read(self.dir .. "/port") or ""):match "%d+")
  end)
  self.url = ("http://127.0.0.1:%d/"):format(port)
  self.secret = SECRET
  self.hook = webhook { url = self.url, secret = SECRET }
  return self
end

--- Tasks that have succeeded; gives the ids of their events.
function Sink:ended(mj, count, prompt)
  local tasks, ids = {}, {}
  for i = 1, count do
    tasks[i] = { prompt = prompt, timeout = 600 }
  end
  local ops = {}
  for i, ref in ipairs(kit.put(mj, tasks)) do
    ops[i] = { op = "signal", ref = ref, kind = "succeeded", source = "callback", attempt = 1, task_id = "id-" .. ref,
               image = "https://i.test/g.png" }
    ids[i] = ref .. "-1"
    self.prompts[ids[i]] = prompt
  end
  assert(mj.exec:commit(ops))
  return ids
end

--- What it noted: a list of {word=, id=, connection=}; and how often, by word and id.
function Sink:noted()
  local list, count = {}, { begin = {}, ["end"] = {} }
  for word, id, connection in (kit.read(self.dir .. "/log") or ""):gmatch "(%w+) (%S+) (%d+)" do
    list[#list + 1] = { word = word, id = id, connection = tonumber(connection) }
    count[word][id] = (count[word][id] or 0) + 1
  end
  return list, count
end

--- Each of these events was answered once.
function Sink:assert_once(ids)
  local _, count = self:noted()
  for _, id in ipairs(ids) do
    assert(count["end"][id] == 1, ("%s: answered %s times"):format(self.prompts[id], count["end"][id] or "no"))
  end
end

--- Each event that came was answered; no more than `most` came twice, and none more often.
function Sink:assert_few_repeated(most)
  local _, count = self:noted()
  local repeated = 0
  for id, times in pairs(count.begin) do
    assert(times <= 2, ("%s: %d times"):format(self.prompts[id], times))
    repeated = repeated + times - 1
  end
  assert(repeated <= most, repeated .. " came twice")
end

--- How many requests at most it had at once.
function Sink:most_at_once()
  local here, most = 0, 0
  for _, one in ipairs((self:noted())) do
    here = here + (one.word == "begin" and 1 or -1)
    most = math.max(most, here)
  end
  return most
end

return sink
