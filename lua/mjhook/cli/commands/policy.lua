-- mjhook policy
local fail = require "mjhook.cli.fail"
local filters = require "mjhook.cli.filters"
local options = require "mjhook.cli.options"
local decisions = require "mjhook.policy_test.decisions"
local recorded = require "mjhook.cli.recorded"
local submit_file = require "mjhook.cli.submit_file"
local suggest = require "mjhook.suggest"
local text = require "mjhook.cli.text"
local times = require "mjhook.cli.times"
local sandbox = require "mjhook.policy_test.sandbox"

local NONE = "none"
local DECISIONS = { "on_callback", "next_poll", "on_refused", "resolve_ambiguous" }
local TIMED = { wait = true, retry = true } -- a time with another answer means nothing
local PAGE = 100 -- of mj:tasks; after each, what was read of the store's file is let go

-- ---- what is asked ----

local function load(path)
  local policy, err = sandbox.load(path ~= NONE and path or nil)
  if not policy then
    local named = err.message:find(path, 1, true)
    fail.stop(fail.CONFIG, named and err.message or ("%s: %s"):format(path, err.message))
  end
  return policy
end

local function stored(mj, given)
  local each, n = mj:tasks { state = given.state, since = given.since, limit = given.limit }, 0
  return function()
    n = n + 1
    if n % PAGE == 0 then
      mj.exec:trim()
    end
    local ok, task = pcall(each)
    if not ok then
      fail.with(task)
    end
    return task
  end
end

local function from_file(given)
  local each, left = recorded.tasks(given.fixtures), given.limit or math.huge
  local wanted = {}
  for _, state in ipairs(given.state or {}) do
    wanted[state] = true
  end
  return function()
    while left > 0 do
      local task = each()
      if not task then
        return nil
      elseif (not given.state or wanted[task.state]) and task.created_at >= (given.since or 0) then
        left = left - 1
        return task
      end
    end
  end
end

-- An iterator over the tasks, and a function that gives another one. What comes through a pipe is kept for that.
local function sources(mj, given)
  if mj then
    return stored(mj, given), function() return stored(mj, given) end
  end
  local file, kept = given.fixtures, {}
  local each = from_file(given)
  if file.size then
    return each, function()
      file.handle:seek "set"
      return from_file(given)
    end
  end
  local at = 0
  return function()
    kept[#kept + 1] = each()
    at = at + 1
    return kept[at]
  end, function()
    local n = 0
    return function()
      n = n + 1
      return kept[n]
    end
  end
end

-- What a policy answers, and what is then done: where it has no function or no opinion, the default.
local function ask(policy, q)
  if not policy:decides(q.decision) then
    return { what = q.default }
  end
  local what, ms, fault = policy:decide(q.decision, q.arguments())
  what = what == "default" and q.default or what
  return { what = what, ms = TIMED[what] and ms or nil, fault = fault }
end

local function same(a, b)
  return a.what == b.what and a.ms == b.ms and a.fault == b.fault
end

local function outcome(answer)
  return answer.what .. (answer.fault and ", at fault" or "")
end

local function say(answer)
  return ("%s%s%s"):format(answer.what, answer.ms and " " .. text.duration(answer.ms) or "",
    answer.fault and (" (%s)"):format(answer.fault) or "")
end

-- ---- going through all of it ----

local Run = {}
Run.__index = Run

-- The first policy's answer, and the second's if there are two; whether it is worth a line.
function Run:judge(q)
  local answers, decided = {}, false
  for i, policy in ipairs(self.policies) do
    decided = decided or policy:decides(q.decision)
    answers[i] = ask(policy, q)
  end
  local last = answers[#answers]
  self.asked = self.asked + 1
  self.undecided[q.decision] = (self.undecided[q.decision] or 0) + (decided and 0 or 1)
  if not decided then
    return nil
  end
  self.faults = self.faults + (last.fault and 1 or 0)
  local words = outcome(last)
  if #answers == 2 then
    local before = outcome(answers[1])
    if before == words and answers[1].ms == last.ms then
      return nil
    end
    self.differ = self.differ + 1
    words = before == words and words .. ", other time" or before .. " -> " .. words
  end
  local tally = self.tally[q.decision]
  tally[words] = (tally[words] or 0) + 1
  return answers
end

-- Equal entries that are answered alike become one line.
local function folds(a, b)
  if not a or a.q.entry ~= b.q.entry or a.q.decision ~= b.q.decision then
    return false
  end
  for i, answer in ipairs(a.answers) do
    if not same(answer, b.answers[i]) then
      return false
    end
  end
  return true
end

-- The decisions of the policy that no record has needed: each is tried on every task, until it is at fault. Its fault
-- must not wait for the day on which it is needed.
function Run:try()
  local left, list = {}, {}
  for _, name in ipairs(#self.policies == 1 and DECISIONS or {}) do
    left[#left + 1] = not self.needed[name] and self.policies[1]:decides(name) and name or nil
  end
  self.tried = #left
  local tasks = #left > 0 and self.again()
  while #left > 0 do
    local task = tasks()
    if not task then
      break
    end
    for i = #left, 1, -1 do
      local q = decisions.tried(left[i], task)
      local answer = ask(self.policies[1], q)
      if answer.fault then
        self.tried_faults = self.tried_faults + 1
        list[#list + 1] = { q = q, answers = { answer }, count = 1, till = q.at }
        table.remove(left, i)
      end
    end
  end
  return list
end

-- The lines of a task: {q=, answers=, count=, till=}.
function Run:lines(task)
  local list = {}
  for _, q in ipairs(decisions.about(task, self.options)) do
    self.needed[q.decision] = true
    local answers = self:judge(q)
    local line = answers and { q = q, answers = answers, count = 1, till = q.at }
    local last = list[#list]
    if line and folds(last, line) then
      last.count, last.till = last.count + 1, q.at
    elseif line then
      list[#list + 1] = line
    end
  end
  return list
end

function Run:each()
  local list, at = {}, 0
  return function()
    at = at + 1
    while at > #list do
      local task = not self.ended and self.tasks()
      if task then
        self.looked = self.looked + 1
        list, at = self:lines(task), 1
      elseif self.ended then
        return nil
      else
        self.ended = true
        list, at = self:try(), 1
      end
    end
    return list[at]
  end
end

-- ---- what is printed ----

local function stamp(ms)
  return os.date("%Y-%m-%d %H:%M:%S", math.floor(ms / 1000))
end

local function at_fault(cell)
  return cell:find("(", 1, true) and "red" or nil
end

local COLUMNS = {
  { { title = "TIME" }, { title = "REF" }, { title = "DECISION" }, { title = "ABOUT", max = 48 },
    { title = "ANSWER", colour = at_fault } },
  { { title = "TIME" }, { title = "REF" }, { title = "DECISION" }, { title = "ABOUT", max = 48 },
    { title = "OLD", colour = at_fault }, { title = "NEW", colour = at_fault } },
}

local function row(line)
  local q = line.q
  local cells = { stamp(q.at), q.ref, q.decision, line.count > 1 and ("%s (%d times)"):format(q.about, line.count)
    or q.about }
  for _, answer in ipairs(line.answers) do
    cells[#cells + 1] = say(answer)
  end
  return cells
end

local function answer_value(answer)
  return { answer = answer.what, seconds = answer.ms and answer.ms / 1000, fault = answer.fault }
end

local function value(line)
  local q = line.q
  local one = #line.answers == 1
  local v = one and answer_value(line.answers[1]) or { old = answer_value(line.answers[1]),
                                                       new = answer_value(line.answers[2]) }
  v.at, v.ref, v.attempt, v.decision, v.about = q.at, q.ref, q.attempt, q.decision, q.about
  if line.count > 1 then
    v.count, v["until"] = line.count, line.till
  end
  return v
end

local function by_number(tally)
  local words = {}
  for word in pairs(tally) do
    words[#words + 1] = word
  end
  table.sort(words, function(a, b)
    return tally[a] > tally[b] or tally[a] == tally[b] and a < b
  end)
  for i, word in ipairs(words) do
    words[i] = ("%s %d"):format(word, tally[word])
  end
  return table.concat(words, ", ")
end

function Run:summary(out)
  if #self.policies == 2 then
    out:line(("%d of %s differ, of %s"):format(self.differ, text.count(self.asked, "decision"),
      text.count(self.looked, "task")))
  else
    local left = 0
    for _, n in pairs(self.undecided) do
      left = left + n
    end
    out:line(("%s of %s, %d at fault%s"):format(text.count(self.asked - left, "decision"),
      text.count(self.looked, "task"), self.faults, self.tried > 0 and
      ("; %d that no record needed tried on every task, %d at fault"):format(self.tried, self.tried_faults) or ""))
  end
  for _, name in ipairs(DECISIONS) do
    local words = by_number(self.tally[name])
    local left = self.undecided[name] or 0
    if left > 0 and #self.policies == 1 then
      words = ("not in this policy: the default, %s"):format(text.count(left, "time"))
    end
    if words ~= "" then
      out:line("  ", text.pad(name, 17), "  ", words)
    end
  end
end

function Run:total()
  local v = { tasks = self.looked, decisions = self.asked, faults = self.faults + self.tried_faults,
              answers = self.tally, tried = self.tried > 0 and self.tried or nil }
  if #self.policies == 2 then
    v.differ, v.answers, v.changes = self.differ, nil, self.tally
  else
    v.undecided = self.undecided
  end
  return { summary = v }
end

function Run:print(out)
  if out.json then
    for line in self:each() do
      out:value(value(line))
    end
    out:value(self:total())
    return
  end
  local each = self:each()
  local n = out:table(COLUMNS[#self.policies], function()
    local line = each()
    return line and row(line)
  end)
  if n > 0 then
    out:line()
  end
  self:summary(out)
end

-- ---- the command ----

local WANTED = {
  test = { 2, "test takes one policy: mjhook policy test FILE" },
  diff = { 3, "diff takes two policies: mjhook policy diff OLD NEW" },
}

local function check(_, arguments)
  local wanted = WANTED[arguments[1]]
  if not wanted then
    fail.stop(fail.USAGE, ('policy: test or diff expected, got "%s"%s'):format(arguments[1],
      suggest(arguments[1], { "test", "diff" })), "policy")
  elseif #arguments ~= wanted[1] then
    fail.stop(fail.USAGE, "policy: " .. wanted[2], "policy")
  end
end

return {
  name = "policy",
  arguments = "test FILE | diff OLD NEW",
  summary = "try a policy's decisions on recorded tasks, or compare two",
  example = "mjhook policy test policy.lua --since 7d",
  words = { "test", "diff" },
  least = 1, most = 3,
  too_many = "policy diff takes two policies",
  check = check,
  opens_nothing = function(values)
    return values.fixtures ~= nil
  end,
  options = {
    { name = "since", arg = "TIME", help = "tasks stored since: 7d, 2h, 2026-01-31, 2026-01-31T12:00Z or milliseconds",
      read = times.since },
    filters.STATE,
    { name = "limit", arg = "N", help = "at most N tasks, the newest; 0: all (default)", read = options.whole(0, 1e9) },
    { name = "fixtures", arg = "FILE", help = "tasks from a file instead of a store, as list --json prints them; - is "
      .. "standard input", read = submit_file.open },
  },
  details = [[
From each task's timeline it is read what a policy was asked, or would have been: on_callback, next_poll, on_refused,
resolve_ambiguous. test asks the policy in FILE for these decisions and prints them; diff asks two policies and prints
where they differ. A decision of FILE that no record needs is tried on every task all the same.
"none" is no policy: what mjhook does by itself. Handlers never run, and a decision that writes, runs, sends or takes
longer than a second is at fault. Nothing is changed; the configuration's own policy is not loaded. test exits 1 when a
decision was at fault, diff when one differs; both 78 when a policy can't be loaded.]],
  run = function(mj, given, arguments, out)
    if jit then
      jit.off() -- the time limit would have to do so for each decision, and throw away what was compiled
    end
    given.limit = given.limit ~= 0 and given.limit or nil
    local run = setmetatable({
      policies = {}, asked = 0, looked = 0, faults = 0, tried = 0, tried_faults = 0, differ = 0, undecided = {},
      needed = {}, tally = {},
      options = mj and { trust = mj.config.trust, grace_ms = mj.config.ambiguous_grace * 1000 } or {},
    }, Run)
    for i = 2, #arguments do
      run.policies[i - 1] = load(arguments[i])
    end
    for _, name in ipairs(DECISIONS) do
      run.tally[name] = {}
    end
    run.tasks, run.again = sources(mj, given)
    run:print(out)
    if #run.policies == 2 then
      return run.differ > 0 and fail.FAILED or fail.DONE
    end
    return run.faults + run.tried_faults > 0 and fail.FAILED or fail.DONE
  end,
}
