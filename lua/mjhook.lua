--- mjhook: Midjourney API jobs, made dependable.
---
--- An outcome is a value: `nil, err`, where `err` is `{code=, message=, retryable=}` and prints as its message. Misuse
--- of a call, such as a string where a table belongs, raises at the caller's line.

-- The file is long because the annotations of each function stand beside it; 260 lines are code.
if _VERSION == "Lua 5.1" and not rawget(_G, "jit") then
  error("mjhook needs Lua 5.4 or LuaJIT; this is plain Lua 5.1", 0)
end

local callback = require "mjhook.callback" -- at once: a request must find it whatever becomes of memory and disk
local check = require "mjhook.arguments"
local core = require "mjhook.core"
local flow = require "mjhook.flow"
local hold = require "mjhook.hold"
local json = require "mjhook.json"
local memory = require "mjhook.memory"
local open = require "mjhook.open"
local view = require("mjhook.view").view

local PAGE_MOST = 10000 -- tasks of a page

-- A function of a flow, which may have to be loaded; what it can't do for want of memory is an outcome.
local function run(module, name, ...)
  return hold(module[name], ...)
end

local function outcome(...)
  return memory.outcome(run, ...)
end

local job = flow "submission.job"
local submit, submit_many, wait = flow "submission.submit", flow "submission.submit_many", flow "submission.wait"
local poll, prune, reconcile = flow "reconcile.poll", flow "reconcile.prune", flow "reconcile.reconcile"
local deliver, events = flow "delivery.deliver", flow "delivery.events"
local accounts, bulk = flow "accounts", flow "bulk"
local listing, metrics = flow "listing", flow "metrics"

---@class mjhook
---@field version string of mjhook, such as "1.0.0"
local M = { version = core.version }

--- Makes a `context` from JSON text, which is stored and passed on digit by digit, with `[]` as `[]` and `{}` as `{}`.
--- In Lua a whole number above 2^53 has the precision of that Lua: 53 bits in LuaJIT, 63 bits in Lua 5.4.
---@param given string JSON
---@return any context a value for `submit`'s `context`; nil when the text is not JSON
---@return mjhook.Error? err `invalid`
function M.raw_json(given)
  local sound, exact = core.json_check(given)
  if not sound then
    return nil, core.error("invalid", "not JSON: " .. exact)
  end
  local value = json.keep(given:match "^%s*(.-)%s*$")
  if type(value) == "number" and not exact then
    return nil, core.error("invalid", "a number of more than 2^53 loses digits: give it in a list or as text")
  end
  return value
end

--- An open store with its configuration and policy; `mjhook.open` gives it.
---@class mjhook.Instance
---@field config table the resolved configuration
---@field log fun(level: mjhook.LogLevel, message: string)
local Mjhook = {}
Mjhook.__index = Mjhook
Mjhook.__name = "mjhook"

-- No secret may reach a log by way of printing the object.
function Mjhook:__tostring()
  return ("mjhook (%s)"):format(self.closed and "closed" or self.config.store)
end

--- Opens mjhook on a store. The first `open` of a store creates it.
---@param args? mjhook.Options
---@return mjhook.Instance? mj
---@return mjhook.Error? err such as `config`, `owner`, `schema` or `read_only`
function M.open(args)
  if args ~= nil and type(args) ~= "table" then
    error(("mjhook.open: table expected, got %s"):format(type(args)), 2)
  end
  return memory.outcome(open, args, Mjhook)
end

local function check_open(self, level)
  if getmetatable(self) ~= Mjhook then
    error("call it as a method: mj:name(...)", level + 1)
  elseif self.closed then
    error("mjhook is closed", level + 1)
  end
end

--- Submits a job: stores it first, then sends it if a slot is free.
---@param args mjhook.Job
---@return mjhook.Task? task also when it is only `queued`; then `task.error` may say why
---@return mjhook.Error? err
function Mjhook:submit(args)
  check_open(self, 2)
  job.check("submit", args, 2)
  return outcome(submit, "submit", self, args)
end

--- Submits many jobs. All are checked, then stored in one transaction, then sent side by side in the order of the queue
--- until no slot is free. The others stay `queued` for the reconciler or the next submission.
---
--- A wrong job gets its error in its place and stops no other. A key that was used before, in the store or earlier in
--- the list, gives that task with `duplicate = true`; with other arguments it gives the error `key_conflict`.
---
--- More than 1,000 jobs, or 4 MiB of prompts and contexts, are stored in several transactions, so that other writers
--- get their turn. Nothing is sent before the last of them. If the store fails halfway, there are results and an error:
--- tasks that are `queued` in the results will be sent, and those that are `submitting` may have been sent.
---@param jobs mjhook.Job[]
---@return mjhook.SubmitResult[]? results in the order of `jobs`; nil: the store failed, nothing is known to be stored
---@return mjhook.Error? err beside results: the store failed halfway; see above
---@usage for i, r in ipairs(assert(mj:submit_many(jobs))) do print(i, r.ref or r.error.code, r.error) end
function Mjhook:submit_many(jobs)
  check_open(self, 2)
  check.list("submit_many", jobs, 2)
  return outcome(submit_many, "submit_many", self, jobs)
end

--- Takes over a job that was submitted elsewhere. From then on it is polled like any other task.
---@param args mjhook.AdoptedJob
---@return mjhook.Task? task with `duplicate = true` when the task id or the key is known
---@return mjhook.Error? err
function Mjhook:adopt(args)
  check_open(self, 2)
  job.check("adopt", args, 2)
  return outcome(job, "adopt", self, args)
end

--- Finds a task by the key that it was submitted with. Of a pruned task the tombstone is left, with `pruned = true`.
---@param key string
---@return mjhook.Task? task
---@return mjhook.Error? err `not_found`
function Mjhook:find_key(key)
  check_open(self, 2)
  check.string("find_key", key, 2)
  local task, err = self.exec:read("by_key", key)
  return view(task), err
end

--- Reads a task from the store by its ref.
---@param ref string
---@return mjhook.Task? task
---@return mjhook.Error? err `not_found`
function Mjhook:get(ref)
  check_open(self, 2)
  check.string("get", ref, 2)
  local task, err = self.exec:read("get", ref)
  return view(task), err
end

--- Reads a task from the store by one of its task ids.
---@param task_id string
---@return mjhook.Task? task
---@return mjhook.Error? err `not_found`
function Mjhook:find(task_id)
  check_open(self, 2)
  check.string("find", task_id, 2)
  local task, err = self.exec:read("find", task_id)
  if task then
    return view(task)
  end
  return nil, err
end

--- Asks the provider about one task now. The answer is applied as a callback would be.
---@param ref string
---@return mjhook.Task? task
---@return mjhook.Error? err
function Mjhook:refresh(ref)
  check_open(self, 2)
  check.string("refresh", ref, 2)
  return outcome(poll, "refresh", self, ref)
end

--- Waits until a task has ended. It works also in a program of its own, without a reconciler: then it polls by itself.
--- Under nginx it does not block the worker. It runs no handler.
---@param ref string
---@param options? {timeout?: number, seen?: fun(task: mjhook.Task)} `timeout`: seconds; `seen`: called with each look
---@return mjhook.Task? task final: look at its `state`
---@return mjhook.Error? err `timeout`: it has no end yet, and goes on; `not_found`
function Mjhook:wait(ref, options)
  check_open(self, 2)
  check.string("wait", ref, 2)
  options = check.options("wait", options, { timeout = "number", seen = "function" }, 2)
  return memory.outcome(wait.wait, self, ref, options)
end

--- Takes a callback in a server of your own. Never raises for anything that a request contains.
---@param request mjhook.Request
---@return mjhook.Reply
function Mjhook:callback(request)
  check_open(self, 2)
  if type(request) ~= "table" then
    error(("callback: table expected, got %s"):format(type(request)), 2)
  end
  local ok, reply = pcall(hold, callback.callback, self, request)
  return ok and reply or callback.UNAVAILABLE
end

--- Lists callbacks that were refused although their token was good, newest first. They show what the provider sends
--- when mjhook cannot read it. The newest 256 are kept, at most 16 of one task, at most 64 KiB of each.
---@param options? {limit?: integer} 20 if not given
---@return mjhook.Refused[]? list
---@return mjhook.Error? err
function Mjhook:refused(options)
  check_open(self, 2)
  options = check.options("refused", options, { limit = "number" }, 2)
  return self.exec:read("refused", 0, math.min(math.max(math.floor(options.limit or 20), 0), core.max_refused))
end

--- Takes a refused callback in after all, for when a newer mjhook can read it. It is trusted as it was when it came:
--- see `trust` and `on_callback`.
---@param id integer from `refused`
---@return "stored"|"duplicate"|"stale"|"unknown"|"ignored"|nil result
---@return mjhook.Error? err
function Mjhook:readmit(id)
  check_open(self, 2)
  if type(id) ~= "number" or id % 1 ~= 0 or id < 1 or id > 2 ^ 53 then
    error(("readmit: a whole number from 1 expected, got %s"):format(tostring(id)), 2)
  end
  return hold(callback.readmit, self, id)
end

--- Iterates over tasks, newest first. It reads page by page and keeps no transaction open.
---@param filter? mjhook.Filter
---@return fun(): mjhook.Task?
---@usage for task in mj:tasks{ state = "failed", limit = 20 } do print(task.ref) end
function Mjhook:tasks(filter)
  check_open(self, 2)
  return listing.tasks(self, check.filter("tasks", filter, listing.FIELDS, 2))
end

--- Counts tasks. Without a filter, or by state alone, the number comes from counters and is exact. Otherwise it looks
--- at no more than 10,000 records: then `exact` is false, and there are at least so many.
---@param filter? mjhook.Filter `limit` does not matter
---@return mjhook.Count? count
---@return mjhook.Error? err
function Mjhook:count(filter)
  check_open(self, 2)
  return outcome(listing, "count", self, check.filter("count", filter, listing.FIELDS, 2))
end

--- Gives a page of tasks, newest first, for a listing that goes on in both directions. It looks at a bounded number of
--- records: with a narrow filter a page may be short, or empty, while there are more.
---@param filter? mjhook.Filter with `before` the page behind that ref, with `after` the page in front of it; `limit` is
---50 if not given, and at most 10000
---@return mjhook.Page? page
---@return mjhook.Error? err
function Mjhook:page(filter)
  check_open(self, 2)
  filter = check.filter("page", filter, listing.FIELDS, 2)
  return outcome(listing, "page", self, filter,
    math.max(math.min(math.floor(filter.limit or 50), PAGE_MOST), 1))
end

--- Does the same to every task, or every event, that a filter picks, in pages of 100 with a transaction for each:
--- `cancel`, `resubmit`, `refresh` and `replay` to tasks, `kick` and `bury` to events. Without a state in the filter an
--- action takes the tasks that it can be done to; `kick` takes buried events, `bury` those that wait.
---
--- **`resubmit` may be billed twice: an ambiguous task may have arrived, and a lost one may still run.**
---@param action "cancel"|"resubmit"|"refresh"|"replay"|"kick"|"bury"
---@param filter mjhook.Filter|mjhook.EventFilter `{}` takes all; `limit` ends after so many
---@param options? mjhook.BulkOptions
---@return mjhook.BulkReport? report
---@return mjhook.Error? err nothing was done
---@usage local report = assert(mj:bulk("cancel", { user_id = "u1" }, { dry_run = true })) print(report.matched)
function Mjhook:bulk(action, filter, options)
  check_open(self, 2)
  check.string("bulk", action, 2)
  local how = bulk.ACTIONS[action]
  if not how then
    error(("bulk: no action %q"):format(action), 2)
  elseif filter == nil then
    error("bulk: a filter expected; {} takes everything", 2)
  end
  check.filter("bulk", filter, how.of == "events" and listing.EVENT_FIELDS or listing.FIELDS, 2)
  options = check.options("bulk", options, { dry_run = "boolean", progress = "function", reason = "string" }, 2)
  return outcome(bulk, "bulk", self, action, filter, options)
end

--- Gives a task up. The provider has no way to cancel: a late result is recorded, without an event.
---@param ref string
---@return mjhook.Task? task
---@return mjhook.Error? err `state` when the task is final
function Mjhook:cancel(ref)
  check_open(self, 2)
  check.string("cancel", ref, 2)
  local parsed, err = self.exec:read("get", ref)
  if not parsed then
    return nil, err
  end
  local results
  results, err = self.exec:commit { { op = "signal", ref = ref, kind = "cancel", source = "user", want = true } }
  if not results then
    return nil, err
  end
  local task = view(results[1].task)
  if results[1].code == "ok" then
    return task
  elseif results[1].code == "state" then
    return nil, core.error("state", ("task %s is %s: only an unfinished task can be cancelled"):format(ref, task.state))
  end
  return nil, core.error(results[1].code, ("task %s could not be cancelled: %s"):format(ref, results[1].code))
end

--- Submits a task once more, as a new attempt, when a slot is free. It must be `ambiguous`, `lost` or `failed`.
---
--- **An ambiguous task may have arrived, and a lost one may still run: to resubmit these may be billed twice.** mjhook
--- never does it by itself. What the provider says of an older attempt still counts: its success is the task's.
---@param ref string
---@return mjhook.Task? task `queued` when it waits for a slot
---@return mjhook.Error? err `state`: this state does not allow it; `limit`: the task has had eight attempts
function Mjhook:resubmit(ref)
  check_open(self, 2)
  check.string("resubmit", ref, 2)
  return outcome(submit, "resubmit", self, ref)
end

--- Makes one reconciler pass. See mjhook-reconcile(1).
---@param options? mjhook.ReconcileOptions
---@return mjhook.Report? report
---@return mjhook.Error? err `busy` while another pass runs on this store
function Mjhook:reconcile(options)
  check_open(self, 2)
  options = check.options("reconcile", options,
    { budget = "number", limit = "number", dry_run = "boolean", progress = "function", on_trouble = "function",
      isolate = "boolean" }, 2)
  return outcome(reconcile, "reconcile", self, options)
end

--- Runs waiting events through the policy's handlers.
---@param options? mjhook.DeliverOptions
---@return {delivered: integer, buried: integer, errors: integer}? report
---@return mjhook.Error? err
function Mjhook:deliver(options)
  check_open(self, 2)
  return outcome(deliver, "deliver", self, check.options("deliver", options,
    { limit = "number", budget = "number", isolate = "boolean" }, 2))
end

--- Iterates over the events that wait to be delivered or are buried, those of the oldest task first.
---@param filter? mjhook.EventFilter
---@return fun(): mjhook.Event?
---@usage for event in mj:events{ buried = true } do print(event.event_id, event.errors[#event.errors].message) end
function Mjhook:events(filter)
  check_open(self, 2)
  return listing.events(self, check.filter("events", filter, listing.EVENT_FIELDS, 2))
end

--- Makes an event due now and gives it all its tries again; also a buried one.
---@param event_id string
---@return true? ok
---@return mjhook.Error? err `not_found`; `state` while it is being handled
function Mjhook:kick(event_id)
  check_open(self, 2)
  check.string("kick", event_id, 2)
  return hold(events.kick, self, event_id)
end

--- Gives an event up. It is kept until it is kicked, and holds back no other event.
---@param event_id string
---@param reason? string
---@return true? ok
---@return mjhook.Error? err `not_found`, `state` or `duplicate`
function Mjhook:bury(event_id, reason)
  check_open(self, 2)
  check.string("bury", event_id, 2)
  if reason ~= nil then
    check.string("bury", reason, 2)
  end
  return hold(events.bury, self, event_id, reason)
end

--- Delivers a task's last event again, under its own id, also when it was delivered long ago.
---@param ref string
---@return string? event_id
---@return mjhook.Error? err `not_found`, also of a pruned task; `state`
function Mjhook:replay(ref)
  check_open(self, 2)
  check.string("replay", ref, 2)
  if not core.is_ref(ref) then
    return nil, core.error("not_found", ("%q is no ref"):format(ref))
  end
  return hold(events.replay, self, ref)
end

--- Turns old final tasks into tombstones. See `retention` and `key_ttl` in mjhook-config(5).
---@param options? mjhook.PruneOptions
---@return {pruned: integer}? report
---@return mjhook.Error? err
function Mjhook:prune(options)
  check_open(self, 2)
  return hold(prune.prune, self, check.options("prune", options,
    { older_than = "number", limit = "number", budget = "number" }, 2))
end

--- Compares every record with every index, both ways. The time it takes grows with the store.
---@return mjhook.CheckReport? report
---@return mjhook.Error? err
function Mjhook:check()
  check_open(self, 2)
  return self.exec:read "check"
end

--- Makes a consistent, compacted copy while other processes write.
---@param path string a directory that does not exist or holds no store
---@return true? ok
---@return mjhook.Error? err
function Mjhook:backup(path)
  check_open(self, 2)
  check.string("backup", path, 2)
  if path == "" or path:find "%z" then
    return nil, core.error("invalid", "backup: the name of a directory expected")
  end
  return self.exec:read("backup", path)
end

--- Sends nothing new under an account: for so many seconds, or until it is resumed. What was sent goes on, and its
--- slots become free. A refusal of the provider does not shorten it.
---@param account string
---@param seconds? number
---@return boolean? paused
---@return mjhook.Error? err `not_found`
function Mjhook:pause(account, seconds)
  check_open(self, 2)
  check.string("pause", account, 2)
  if seconds ~= nil and (type(seconds) ~= "number" or not (seconds > 0 and seconds < 1e10)) then
    error(("pause: seconds expected, got %s"):format(tostring(seconds)), 2)
  end
  return hold(accounts.pause, self, account, seconds)
end

--- Ends an account's rest, whatever its reason: a refusal, such as a used up quota, or a pause by hand.
---@param account string
---@return boolean? resumed
---@return mjhook.Error? err `not_found`
function Mjhook:resume(account)
  check_open(self, 2)
  check.string("resume", account, 2)
  return hold(accounts.resume, self, account)
end

--- Gives the metrics in Prometheus' text format, in constant time.
---@return string? text
---@return mjhook.Error? err
function Mjhook:metrics()
  check_open(self, 2)
  return metrics.text(self)
end

--- Counts tasks by state, events, slots by account and bytes, in constant time.
---@return mjhook.Stats? stats
---@return mjhook.Error? err
function Mjhook:stats()
  check_open(self, 2)
  return self.exec:read("stats", self.exec:now())
end

--- Closes the store. Further calls raise; a second `close` does nothing.
function Mjhook:close()
  if not self.closed then
    self.closed = true
    self.exec:close()
    if self.keyring then
      self.keyring:close()
    end
  end
end
Mjhook.__close = Mjhook.close

return M
