--- A kit for your own tests: a real mjhook on a temporary store, with a provider that you script and a clock that you
--- move. It opens no socket and waits for nothing.
---
---     local t = require("mjhook.testing").new { policy = "policy.lua" }
---     local task = t.mj:submit { prompt = "a fox", key = "order-7" }
---     t:assert_submitted { prompt = "a fox" }
---     t.provider:finish(task.ref)            -- makes the callback, as the provider does
---     t:drain()                              -- until nothing is due: the policy's handlers have run
---     assert(t:delivered("succeeded")[1].ref == task.ref)
---     t:close()
---
--- Flows, state machine and store are the real ones; only HTTP and the clock are not. The clock is the process' own:
--- all mjhook objects of the process use it until `close`.

-- The file is long because the annotations of each function stand beside it; 315 lines are code.
local compile = require("mjhook.code").compile
local core = require "mjhook.core"
local executor = require "mjhook.executor"
local json = require "mjhook.json"
local mjhook = require "mjhook"

local P = core.provider
local F, R = P.field, P.request

---@class mjhook.testing
local M = {}

local function fail(level, text, ...)
  error(text:format(...), level + 1)
end

-- ---- the provider ----

---@class mjhook.testing.Provider
---@field polls integer status requests so far
local Provider = {}
Provider.__index = Provider

local function envelope(status, message, data)
  return { outcome = "answered", status = 200,
           body = json.encode { [F.status] = status, [F.message] = message or "success", [F.data] = data } }
end

-- The job that a ref, a task or a task id is about: the newest submission of it.
local function job_of(self, which, level)
  local ref = type(which) == "table" and which.ref or which
  local task = self.kit.mj:get(tostring(ref))
  for i = #self.jobs, 1, -1 do
    local job = self.jobs[i]
    if job.ref == ref or job.id == ref or (task and job.id == task.task_id) then
      return job
    end
  end
  fail(level + 1, "the provider has no job %s; it has accepted %d", tostring(ref), #self.jobs)
end

local function accept(self, request)
  local job = { id = ("test-%06d"):format(#self.jobs + 1), status = P.status.running,
                prompt = request.prompt, mode = request.mode, timeout = request.timeout, account = request.account,
                hook = request.hookUrl, ref = (request.hookUrl or ""):match "[?&]ref=(%w+)" }
  self.jobs[#self.jobs + 1] = job
  return envelope(P.envelope.ok, nil, { [F.task_id] = job.id })
end

local function submit(self, body, account)
  local request = { prompt = body[R.prompt], mode = body[R.mode], timeout = body[R.timeout], hookUrl = body[R.hook_url],
                    account = account }
  self.requests[#self.requests + 1] = request
  local scripted = table.remove(self.script, 1)
  request.accepted = not scripted or scripted.accepted or false
  return scripted and scripted.answer(self, request) or accept(self, request)
end

local function view(job)
  return { [F.task_id] = job.id, [F.status] = job.status, [F.image] = job.image, [F.images] = job.images,
           [F.fail_reason] = job.reason, [F.meta] = job.meta, [F.prompt] = job.prompt }
end

local function status(self, ids)
  self.polls = self.polls + 1
  local scripted = table.remove(self.status_script, 1)
  if scripted then
    local body = scripted.body
    if type(body) == "function" then
      body = body(ids)
    end
    return { outcome = "answered", status = scripted.status, body = body or "", retry_after = scripted.retry_after }
  end
  local list = {}
  for _, id in ipairs(ids) do
    for _, job in ipairs(self.jobs) do
      if job.id == id and not job.forgotten then
        list[#list + 1] = view(job)
      end
    end
  end
  return envelope(P.envelope.ok, nil, #list > 0 and list or json.decode "[]") -- an empty table would be an object
end

-- What an executor's http() gives for a batch.
local function answer(self, requests)
  local answers = {}
  for i, request in ipairs(requests) do
    local body = json.decode(request.body)
    if self.is_down then
      answers[i] = { outcome = "not_sent", error = "the scripted provider is down" }
    elseif request.path == P.path.submit then
      answers[i] = submit(self, body, request.account)
    else
      answers[i] = status(self, body[R.task_ids])
    end
  end
  return answers
end

local function script(self, times, entry)
  for _ = 1, times or 1 do
    self.script[#self.script + 1] = entry
  end
  return self
end

--- The next submission is accepted. So is every submission for which nothing else is scripted.
---@param times? integer 1 if not given
---@return mjhook.testing.Provider
function Provider:accept(times)
  return script(self, times, { accepted = true, answer = accept })
end

--- The next submission is refused with an envelope.
---@param code integer its status: 1001 quota, 1002 no free slot, any other number an error
---@param message? string
---@param times? integer
---@return mjhook.testing.Provider
function Provider:refuse(code, message, times)
  return script(self, times, { answer = function()
    return envelope(code, message or "refused")
  end })
end

--- The next submission is answered with this HTTP status and body.
---@param http_status integer
---@param body? string
---@param retry_after? number seconds
---@return mjhook.testing.Provider
function Provider:answer(http_status, body, retry_after)
  return script(self, 1, { answer = function()
    return { outcome = "answered", status = http_status, body = body or "", retry_after = retry_after }
  end })
end

--- The next status request is answered with this HTTP status and body.
---@param http_status integer
---@param body? string|fun(task_ids: string[]): string
---@param retry_after? number seconds
---@return mjhook.testing.Provider
function Provider:answer_status(http_status, body, retry_after)
  table.insert(self.status_script, { status = http_status, body = body, retry_after = retry_after })
  return self
end

--- The next submission gets no answer, so it may have arrived.
---@param arrived? boolean true: it has arrived and the job runs, though its task id is unknown here
---@return mjhook.testing.Provider
function Provider:timeout(arrived)
  return script(self, 1, { accepted = arrived or false, answer = function(_, request)
    if arrived then
      accept(self, request)
    end
    return { outcome = "maybe_sent", error = "the scripted provider did not answer" }
  end })
end

--- The provider accepts no connection until `down(false)`.
---@param is_down? boolean true if not given
---@return mjhook.testing.Provider
function Provider:down(is_down)
  self.is_down = is_down ~= false
  return self
end

--- Sets what the provider says of a job. Status requests give it from now on, and a callback is made unless `callback`
--- is false.
---@param which string|mjhook.Task a ref, a task id or a task
---@param word mjhook.testing.Word
---@return mjhook.Reply? reply to the callback
function Provider:say(which, word)
  local job = job_of(self, which, 2)
  for _, name in ipairs { "status", "image", "images", "reason", "meta" } do
    if word[name] ~= nil then
      job[name] = word[name]
    end
  end
  if word.callback ~= false then
    return self:call_back(job.id)
  end
end

--- The job succeeds.
---@param which string|mjhook.Task a ref, a task id or a task
---@param word? mjhook.testing.Word `callback = false`: only a poll tells
---@return mjhook.Reply? reply to the callback
function Provider:finish(which, word)
  word = word or {}
  return self:say(which, { status = P.status.succeeded, image = word.image or "https://images.example/grid.png",
                           images = word.images or { "https://images.example/0.png" }, meta = word.meta,
                           callback = word.callback })
end

--- The job fails.
---@param which string|mjhook.Task a ref, a task id or a task
---@param reason? string
---@param word? mjhook.testing.Word `callback = false`: only a poll tells
---@return mjhook.Reply? reply to the callback
function Provider:fail(which, reason, word)
  return self:say(which, { status = P.status.failed, reason = reason or "no reason", callback = (word or {}).callback })
end

--- The provider no longer knows the job: status answers leave it out.
---@param which string|mjhook.Task a ref, a task id or a task
function Provider:forget(which)
  job_of(self, which, 2).forgotten = true
end

--- Makes a callback now (again), with what the provider says of the job.
---@param which string|mjhook.Task a ref, a task id or a task
---@return mjhook.Reply
function Provider:call_back(which)
  local job = job_of(self, which, 2)
  if not job.hook then
    fail(2, "job %s was submitted without a hookUrl: only polling tells of it", job.id)
  end
  return self.kit.mj:callback {
    method = "POST", uri = job.hook:match "^%w+://[^/]+(/.*)$", headers = {}, peer = "192.0.2.1",
    body = envelope(P.envelope.ok, nil, view(job)).body,
  }
end

-- ---- the kit ----

---@class mjhook.testing.Kit
---@field mj mjhook.Instance
---@field provider mjhook.testing.Provider
---@field log {level: mjhook.LogLevel, message: string}[] what was logged
---@field dir string the directory of the store
local Kit = {}
Kit.__index = Kit

local function load_policy(policy)
  if type(policy) ~= "string" then
    return policy or {}
  end
  local file, why = io.open(policy, "rb") -- a test's own file: it may be in a directory that a team shares
  local chunk, err
  if file then
    chunk, err = compile(file:read "*a", policy)
    file:close()
  end
  return chunk and chunk() or error(err and err.message or why, 3)
end

-- The policy, with a handler behind all others that notes what was delivered.
local function noting(self, policy)
  local functions = {}
  for name, f in pairs(load_policy(policy)) do
    functions[name] = f
  end
  local last = functions.on_event
  local list = type(last) == "table" and #last > 0 and { unpack_list = last } or { last }
  local all = {}
  for _, f in ipairs(list.unpack_list or list) do
    all[#all + 1] = f
  end
  all[#all + 1] = function(task, ctx)
    self.events[#self.events + 1] = { event_id = ctx.event_id, type = ctx.type, ref = task.ref, task = task }
  end
  functions.on_event = all
  return functions
end

local DAY_MS = 86400000

-- What waits lets the kit's clock go on.
local function sleep(self, seconds)
  self.slept = self.slept + seconds * 1000
  self.at = self.at + math.ceil(seconds * 1000)
  if self.slept > DAY_MS then
    self.slept = 0
    error("mjhook.testing: a day of the kit's time was waited for a task that has no end", 0)
  end
end

--- Makes a kit. Close it in teardown.
---@param options? mjhook.Config also `policy`; false takes a default of the kit away (`hook_url`, `secrets`)
---@return mjhook.testing.Kit
function M.new(options)
  local self = setmetatable({ log = {}, events = {}, at = core.now(), slept = 0, real_now = core.now }, Kit)
  self.provider = setmetatable({
    kit = self, jobs = {}, requests = {}, script = {}, status_script = {}, polls = 0,
  }, Provider)
  self.dir = os.tmpname()
  os.remove(self.dir)
  local settings = {
    store = self.dir, api_key = "a-key-for-tests", secrets = { "a secret for nothing but tests" },
    base_url = "https://provider.invalid", hook_url = "https://app.invalid/webhooks/midjourney",
    log = function(level, message)
      self.log[#self.log + 1] = { level = level, message = message }
    end,
  }
  for key, value in pairs(options or {}) do
    settings[key] = value or nil
  end
  settings.policy = noting(self, settings.policy)
  settings.executor = function(conf)
    local exec = assert(executor.direct(conf))
    exec.http = function(_, requests)
      return answer(self.provider, requests)
    end
    exec.sleep = function(_, seconds)
      sleep(self, seconds)
    end
    return exec
  end
  local err
  self.mj, err = mjhook.open(settings)
  if not self.mj then
    error("mjhook.testing: " .. err.message, 2)
  end
  core.now = function()
    return self.at
  end
  return self
end

--- Gives the kit's time in milliseconds. Its clock stands still until `advance`.
---@return integer
function Kit:now()
  return self.at
end

--- Moves the clock.
---@param seconds number
function Kit:advance(seconds)
  self.at = self.at + math.floor(seconds * 1000)
end

--- Reconciles and delivers until nothing is due at this time of the kit's clock.
---@return mjhook.Report report of the last pass
function Kit:drain()
  for _ = 1, 100 do
    local report, err = self.mj:reconcile { budget = 60 }
    if not report then
      error("drain: " .. err.message, 2)
    end
    if report.polled + report.submitted + report.delivered + report.buried == 0 then
      return report
    end
  end
  fail(2, "drain: there is still work to do after 100 passes: what is due at once, again and again?")
end

--- Gives the events that the policy's handlers have taken, oldest first.
---@param kind? mjhook.EventType only these
---@return {event_id: string, type: mjhook.EventType, ref: string, task: mjhook.Task}[]
function Kit:delivered(kind)
  local list = {}
  for _, event in ipairs(self.events) do
    if not kind or event.type == kind then
      list[#list + 1] = event
    end
  end
  return list
end

local function matches(request, wanted)
  for name, value in pairs(wanted) do
    if name ~= "times" and request[name] ~= value then
      return false
    end
  end
  return true
end

--- Gives the submissions that reached the provider.
---@param wanted? mjhook.testing.Submission fields that they must have
---@return mjhook.testing.Submission[]
function Kit:submissions(wanted)
  local list = {}
  for _, request in ipairs(self.provider.requests) do
    if matches(request, wanted or {}) then
      list[#list + 1] = request
    end
  end
  return list
end

local function words(wanted)
  local parts = {}
  for name, value in pairs(wanted) do
    parts[#parts + 1] = ("%s = %s"):format(name, type(value) == "string" and ("%q"):format(value) or tostring(value))
  end
  table.sort(parts)
  return "{ " .. table.concat(parts, ", ") .. " }"
end

local function seen(self)
  local lines = {}
  for i, request in ipairs(self.provider.requests) do
    lines[i] = "  " .. words { prompt = request.prompt, mode = request.mode, timeout = request.timeout,
                               account = request.account }
  end
  return #lines == 0 and "nothing was submitted" or "submitted were\n" .. table.concat(lines, "\n")
end

--- Raises unless the provider was sent a job like this: at least once, or exactly `times` times.
---@param wanted mjhook.testing.Submission
---@return mjhook.testing.Submission[]
function Kit:assert_submitted(wanted)
  local list = self:submissions(wanted)
  if wanted.times and #list ~= wanted.times or #list == 0 and wanted.times ~= 0 then
    fail(2, "%s was submitted %d times; %s", words(wanted), #list, seen(self))
  end
  return list
end

--- Raises if the provider was sent a job like this.
---@param wanted? mjhook.testing.Submission any job if not given
function Kit:assert_not_submitted(wanted)
  local list = self:submissions(wanted)
  if #list > 0 then
    fail(2, "%s was submitted %d times; %s", words(wanted or {}), #list, seen(self))
  end
end

--- Removes the store and gives the system's clock back. A second call does nothing.
function Kit:close()
  if self.mj then
    self.mj:close()
    self.mj = nil
    core.now = self.real_now
    for _, name in ipairs { "/data.mdb", "/lock.mdb", "/reconcile.lock", "" } do
      os.remove(self.dir .. name)
    end
    if core.stat(self.dir) then -- a handler left something there, as webhook does of a target that is gone
      core.run { argv = { "/bin/rm", "-rf", "--", self.dir } }
    end
  end
end
Kit.__close = Kit.close

return M
