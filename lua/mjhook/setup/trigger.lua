--- mjhook dev trigger: makes the simulated provider do something with a job, and waits for what comes of it.
local core = require "mjhook.core"
local json = require "mjhook.json"

local M = {}

--- Whose jobs the page of `mjhook dev` shows: see scripts/dev.d/nginx.conf.
M.VISITOR = ("0"):rep(32)

local PROMPTS = { "a lighthouse in the first snow", "a night train through the Alps", "an orchard after rain",
                  "a harbour at six in the morning", "a café on the corner, in October" }
local FINAL = {}
for _, state in ipairs(core.final_states) do
  FINAL[state] = true
end
local ACCEPTED_S, ENDED_S = 10, 20

local Trigger = {}
Trigger.__index = Trigger

local function stop(code, text, ...)
  error(core.error(code, text:format(...)), 0)
end

-- ---- the provider's side ----

function Trigger:control(name, args)
  local answers, err = self.client:perform { { url = self.mj.config.base_url .. "/_sim/" .. name,
    body = args and json.encode(args), headers = { "Content-Type: application/json" } } }
  local answer = answers and answers[1] or { error = err and err.message }
  local doc = answer.status == 200 and json.decode(answer.body)
  if not doc then
    stop("network", "the simulated provider at %s does not do it: %s", self.mj.config.base_url,
      answer.body or answer.error or "no answer")
  end
  return doc
end

-- The provider does not know the job in its answers any more, and its callbacks get lost.
function Trigger:withhold(id)
  self:control("script", {
    status = { { fault = "unknown", taskId = id, n = 1000000 } },
    callback = { { fault = "drop", taskId = id, n = 1000 } },
  })
end

local function status_of(self, id)
  return self:control("jobs/" .. id).status
end

-- ---- our side ----

-- Looks until a task is as it should be.
function Trigger:wait(ref, seconds, wanted, what)
  local stop_at = core.clock() + seconds * 1000
  while true do
    local task = assert(self.mj:get(ref))
    if self.seen then
      self.seen(task, what)
    end
    if wanted(task) then
      return task
    elseif core.clock() >= stop_at then
      stop("timeout", "task %s is %s: %s did not happen within %d s; do nginx and the reconciler of mjhook dev run?",
        ref, task.state, what, seconds)
    end
    core.sleep(0.1)
  end
end

local function ended(task)
  return FINAL[task.state]
end

function Trigger:until_sent(ref)
  return self:wait(ref, ACCEPTED_S, function(task)
    return task.task_id or FINAL[task.state]
  end, "its submission")
end

-- The newest task that `word` is about; a new one when there is none.
function Trigger:choose(word)
  local fallback
  for task in self.mj:tasks { limit = 50 } do
    if word == "late" and task.state == "lost" then
      return task
    elseif not FINAL[task.state] then
      return task
    elseif word == "duplicate" and task.state == "succeeded" and task.task_id then
      fallback = fallback or task
    end
  end
  if fallback then
    return fallback
  end
  return assert(self.mj:submit { prompt = PROMPTS[math.floor(core.now() / 1000) % #PROMPTS + 1], user_id = M.VISITOR })
end

local function unfinished(task, word)
  if FINAL[task.state] then
    stop("state", "task %s is %s: only an unfinished one can be made to end as %s", task.ref, task.state, word)
  end
end

local WORDS = {}

function WORDS.succeeded(self, task)
  unfinished(task, "succeeded")
  self:control("finish", { taskId = task.task_id, status = 1 })
  return self:wait(task.ref, ENDED_S, ended, "its end")
end

function WORDS.failed(self, task)
  unfinished(task, "failed")
  self:control("finish", { taskId = task.task_id, status = 2, failReason = "made to fail by mjhook dev trigger" })
  return self:wait(task.ref, ENDED_S, ended, "its end")
end

function WORDS.lost(self, task)
  unfinished(task, "lost")
  self:withhold(task.task_id)
  -- Silence counts from poll to poll.
  return self:wait(task.ref, self.mj.config.lost_after + 4 * self.mj.config.poll.max, ended, "giving it up")
end

local function duplicates(task)
  local n = 0
  for _, m in ipairs(task.timeline) do
    n = n + (m.source == "callback" and m.note == "duplicate" and (m.count or 1) or 0)
  end
  return n
end

function WORDS.duplicate(self, task)
  if not FINAL[task.state] then
    task = WORDS.succeeded(self, task)
  end
  local before = duplicates(task)
  for _ = 1, 2 do -- within a second of another one the first may not be written down
    self:control("callback", { taskId = task.task_id })
    core.sleep(1.1)
  end
  return self:wait(task.ref, ENDED_S, function(now)
    return duplicates(now) > before
  end, "a second callback")
end

function WORDS.late(self, task)
  if not FINAL[task.state] then
    task = WORDS.lost(self, task)
  end
  if task.state ~= "lost" then
    stop("state", "task %s is %s: late news is about a task that was given up", task.ref, task.state)
  end
  if status_of(self, task.task_id) == 0 then
    self:control("finish", { taskId = task.task_id, status = 1 }) -- its callback gets lost, as before
  end
  self:control("callback", { taskId = task.task_id })
  return self:wait(task.ref, ENDED_S, function(now)
    return now.state ~= "lost"
  end, "the late callback")
end

--- The words, in the order of the help.
M.WORDS = { "succeeded", "failed", "lost", "duplicate", "late" }

--- @tparam table mj on the store of mjhook dev
-- @tparam string word one of WORDS
-- @tparam table|nil task which; else the newest that the word may be about, or a new one
-- @tparam[opt] function seen called with (task, what is waited for) again and again
-- @treturn table|nil the task afterwards; nil and an error
function M.run(mj, word, task, seen)
  local client = assert(core.http { connections = 1, timeout_ms = 5000 })
  local self = setmetatable({ mj = mj, client = client, seen = seen }, Trigger)
  local ok, result = pcall(function()
    self:control "health"
    local chosen = task or self:choose(word)
    return WORDS[word](self, FINAL[chosen.state] and chosen or self:until_sent(chosen.ref))
  end)
  client:close()
  if ok then
    return result
  elseif type(result) == "table" and result.code then
    return nil, result
  end
  error(result, 0)
end

return M
