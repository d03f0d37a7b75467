--- A kit for your own tests: a real mjhook on a temporary store, with a provider that does what you script and a clock
-- that you move. No socket is opened and nothing waits.
--
--     local t = require("mjhook.testing").new { policy = "policy.lua" }
--     local task = t.mj:submit { prompt = "a fox", key = "order-7" }
--     t:assert_submitted { prompt = "a fox" }
--     t.provider:finish(task.ref)            -- calls back, as the provider does
--     t:drain()                              -- until nothing is due: the policy's handlers have run
--     assert(t:delivered("succeeded")[1].ref == task.ref)
--     t:close()
--
-- The flows, the state machine and the store are the real ones; only HTTP and the clock are not. The clock is the
-- process': all mjhook objects of it go by it until close().
-- @module mjhook.testing
local compile = require("mjhook.code").compile
local core = require "mjhook.core"
local executor = require "mjhook.executor"
local json = require "mjhook.json"
local mjhook = require "mjhook"

local M = {}

local function fail(level, text, ...)
  error(text:format(...), level + 1)
end

-- ---- the provider ----

local Provider = {}
Provider.__index = Provider

local function envelope(status, message, data)
  return { outcome = "answered", status = 200,
           body = json.encode { status = status, message = message or "success", data = data } }
end

-- The job that a ref, a task or a task id is about: the newest submission of it.
local function job_of(self, which, level)
  local ref = type(which) == "table" and which.ref or which
  local task = self.kit.mj:get(tostring(ref))
  for i = #self.jobs, 1, -1 do
    local job = self.jobs[i]
    if job.ref == ref or job.taskId == ref or (task and job.taskId == task.task_id) then
      return job
    end
  end
  fail(level + 1, "the provider has no job %s; it has accepted %d", tostring(ref), #self.jobs)
end

local function accept(self, request)
  local job = { taskId = ("test-%06d"):format(#self.jobs + 1), status = 0, prompt = request.prompt, mode = request.mode,
                timeout = request.timeout, hook = request.hookUrl, account = request.account,
                ref = (request.hookUrl or ""):match "[?&]ref=(%w+)" }
  self.jobs[#self.jobs + 1] = job
  return envelope(0, nil, { taskId = job.taskId })
end

local function submit(self, request)
  self.requests[#self.requests + 1] = request
  local scripted = table.remove(self.script, 1)
  request.accepted = not scripted or scripted.accepted or false
  return scripted and scripted.answer(self, request) or accept(self, request)
end

local function view(job)
  local object = { taskId = job.taskId, status = job.status, image = job.image, images = job.images,
                   failReason = job.reason, meta = job.meta, prompt = job.prompt }
  return object
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
      if job.taskId == id and not job.forgotten then
        list[#list + 1] = view(job)
      end
    end
  end
  if #list == 0 then -- an empty table would be an object
    return { outcome = "answered", status = 200, body = '{"status":0,"message":"success","data":[]}' }
  end
  return envelope(0, nil, list)
end

-- What an executor's http() gives for a batch.
local function answer(self, requests)
  local answers = {}
  for i, request in ipairs(requests) do
    local body = json.decode(request.body)
    body.account = request.account
    if self.is_down then
      answers[i] = { outcome = "not_sent", error = "the scripted provider is down" }
    elseif request.path:find "submit" then
      answers[i] = submit(self, body)
    else
      answers[i] = status(self, body.taskIds)
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

--- The next submission is accepted, as all are that nothing else was scripted for.
-- @tparam[opt=1] number times so many
function Provider:accept(times)
  return script(self, times, { accepted = true, answer = accept })
end

--- The next submission is refused with an envelope: 1001 quota, 1002 all places taken, others as PROVIDER.md says.
function Provider:refuse(code, message, times)
  return script(self, times, { answer = function()
    return envelope(code, message or "refused")
  end })
end

--- The next submission is answered with this HTTP status and body.
-- @tparam number http_status
-- @tparam[opt] string body
-- @tparam[opt] number retry_after seconds
function Provider:answer(http_status, body, retry_after)
  return script(self, 1, { answer = function()
    return { outcome = "answered", status = http_status, body = body or "", retry_after = retry_after }
  end })
end

--- The next question about jobs is answered with this HTTP status and body.
-- @tparam number http_status
-- @tparam[opt] string|function body; a function is given the list of task ids that were asked about
-- @tparam[opt] number retry_after seconds
function Provider:answer_status(http_status, body, retry_after)
  table.insert(self.status_script, { status = http_status, body = body, retry_after = retry_after })
  return self
end

--- The next submission is not answered: it may have arrived, and by `arrived` it has.
-- @tparam[opt] boolean arrived the job runs, though nobody was told its id
function Provider:timeout(arrived)
  return script(self, 1, { accepted = arrived or false, answer = function(_, request)
    if arrived then
      accept(self, request)
    end
    return { outcome = "maybe_sent", error = "the scripted provider did not answer" }
  end })
end

--- Nobody listens, until it is called with false.
function Provider:down(is_down)
  self.is_down = is_down ~= false
  return self
end

--- The job's end, or any word on it: job-status tells it from now on, and a callback is made unless `callback` is
-- false.
-- @param which a ref, a task or a task id
-- @tparam table word status (0 runs, 1 succeeded, 2 failed, or a word), image, images, reason, meta; callback
-- @treturn table|nil mjhook's reply to the callback
function Provider:say(which, word)
  local job = job_of(self, which, 2)
  for _, name in ipairs { "status", "image", "images", "reason", "meta" } do
    if word[name] ~= nil then
      job[name] = word[name]
    end
  end
  if word.callback ~= false then
    return self:call_back(job.taskId)
  end
end

--- The job succeeds.
-- @param which a ref, a task or a task id
-- @tparam[opt] table word image, images, meta; callback = false: only polling will tell
function Provider:finish(which, word)
  word = word or {}
  return self:say(which, { status = 1, image = word.image or "https://images.example/grid.png",
                           images = word.images or { "https://images.example/0.png" }, meta = word.meta,
                           callback = word.callback })
end

--- The job fails.
function Provider:fail(which, reason, word)
  return self:say(which, { status = 2, reason = reason or "no reason", callback = (word or {}).callback })
end

--- The provider has never heard of the job.
function Provider:forget(which)
  job_of(self, which, 2).forgotten = true
end

--- Makes the callback (again): what the provider has to say of the job, to the URL that it was given.
function Provider:call_back(which)
  local job = job_of(self, which, 2)
  if not job.hook then
    fail(2, "job %s was submitted without a hookUrl: only polling tells of it", job.taskId)
  end
  return self.kit.mj:callback {
    method = "POST", uri = job.hook:match "^%w+://[^/]+(/.*)$", headers = {}, peer = "192.0.2.1",
    body = json.encode { status = 0, message = "success", data = view(job) },
  }
end

-- ---- the kit ----

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

--- @tparam[opt] table options policy (a table or a path), and what else mjhook.open takes; false takes a setting of the
-- kit's away (hook_url, secrets)
-- @treturn table kit: mj, provider, log (what was logged: {level=, message=}) and the functions below
function M.new(options)
  local self = setmetatable({ log = {}, events = {}, at = core.now(), real_now = core.now }, Kit)
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
  settings.executor = function(conf, store)
    local exec = executor.direct(conf, store)
    exec.http = function(_, requests)
      return answer(self.provider, requests)
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

--- Milliseconds of the kit's clock, which stands still.
function Kit:now()
  return self.at
end

--- Moves the clock.
-- @tparam number seconds
function Kit:advance(seconds)
  self.at = self.at + math.floor(seconds * 1000)
end

--- Reconciles and delivers until nothing is due at this time of the kit's clock.
-- @treturn table the last pass' report
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

--- The events that the policy's handlers took, oldest first: {event_id=, type=, ref=, task=}.
-- @tparam[opt] string kind "succeeded", "failed", "lost" or "ambiguous": only those
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

--- The submissions that reached the provider: {prompt=, mode=, timeout=, hookUrl=, account=, accepted=}.
-- @tparam[opt] table wanted fields that they have to have
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

--- Raises unless the provider was sent a job like this: once or more, or as often as `times` says.
-- @tparam table wanted prompt, mode, timeout, account; times
-- @treturn table the submissions
function Kit:assert_submitted(wanted)
  local list = self:submissions(wanted)
  if wanted.times and #list ~= wanted.times or #list == 0 and wanted.times ~= 0 then
    fail(2, "%s was submitted %d times; %s", words(wanted), #list, seen(self))
  end
  return list
end

--- Raises if the provider was sent a job like this.
-- @tparam[opt] table wanted as for assert_submitted; any job when it is not given
function Kit:assert_not_submitted(wanted)
  local list = self:submissions(wanted)
  if #list > 0 then
    fail(2, "%s was submitted %d times; %s", words(wanted or {}), #list, seen(self))
  end
end

--- Lets go of everything: the store is gone, and the clock is the system's again. Idempotent.
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
