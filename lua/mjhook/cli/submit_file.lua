--- mjhook submit --file: a job on each line, a report for each line, and no line sent twice.
--
-- What makes a second run safe is a key on every job. A line that brings none gets one from what it says and from
-- how many lines said the same before it in this file: so it does not matter where in the file it stands, nor what
-- the file is called, and as many identical lines as there are become as many jobs.
local canonical = require("mjhook.json").canonical
local core = require "mjhook.core"
local decode = require("mjhook.json").decode
local fail = require "mjhook.cli.fail"
local job = require "mjhook.submission.job"
local json = require "mjhook.cli.json"
local land = require "mjhook.cli.land"
local lines = require "mjhook.cli.lines"
local null = require("mjhook.json").null
local options = require "mjhook.cli.options"
local raw_json = require("mjhook").raw_json
local text = require "mjhook.cli.text"

local M = {}

-- What is read before it is stored. Bounds the memory, and what a kill can leave undone.
local LINES, BYTES = 256, 1024 * 1024
local BATCH_MAX = 128 -- bytes; a key has 256

--- Reads the option's value: opens the file, so that a mistyped name is found before anything else happens.
function M.open(name)
  if name == "-" then
    return { name = "standard input", handle = io.stdin }
  end
  local handle, why = io.open(name, "rb")
  if not handle then
    return nil, (why:gsub("^.*: ", ""))
  end
  local size = handle:seek "end" -- nothing of a pipe
  return { name = name, handle = handle, size = size and handle:seek "set" and size or nil }
end

--- Reads the name of a batch.
function M.batch(name)
  if name == "" or #name > BATCH_MAX or not core.utf8(name) then
    return nil, ("1 to %d bytes of text expected"):format(BATCH_MAX)
  end
  return name
end

local function hex(bytes)
  return (bytes:gsub(".", function(c)
    return ("%02x"):format(c:byte())
  end))
end

local Feed = {}
Feed.__index = Feed

-- The key of a line that brings none. Its text is not what counts: spaces and the order of its fields may change.
-- Counting takes some 100 bytes of memory a line; lines with keys take none.
function Feed:key_of(value, line)
  local _, exact = core.json_check(line)
  -- Two numbers that are one to Lua may differ in the text.
  local digest = core.sha256(canonical(value) .. (exact == false and "\n" .. line or ""))
  local short = digest:sub(1, 16)
  self.seen[short] = (self.seen[short] or 0) + 1
  return ("file:%s%s:%d"):format(self.given.batch and self.given.batch .. ":" or "", hex(digest), self.seen[short])
end

local FROM_OPTIONS = { mode = "mode", timeout = "timeout", user_id = "user", context = "context",
                       priority = "priority", account = "account", expires = "expires" }

-- The job on a line; nil and what is wrong with it.
function Feed:job_of(line)
  local value, why = decode(line)
  if type(value) ~= "table" or value[1] ~= nil then
    return nil, value == nil and "not JSON: " .. why or 'an object expected, as in {"prompt": "a fox"}'
  end
  for name, field in pairs(value) do
    if field == null then
      value[name] = nil
    end
  end
  local own = value.key ~= nil
  if not own then
    value.key = self:key_of(value, line) -- before the options: what a line says makes it known again
  end
  if value.context ~= nil then
    local err
    value.context, err = raw_json(core.json_member(line, "context"))
    if err then
      return nil, "context: " .. err.message
    end
  end
  for _, name in ipairs { "timeout", "expires" } do
    -- As on the command line, with a unit: a number in quotes alone is more likely a mistake.
    if type(value[name]) == "string" and value[name]:find "%a$" then
      local seconds, wrong = options.seconds(value[name])
      if not seconds then
        return nil, ("%s: %s"):format(name, wrong)
      end
      value[name] = seconds
    end
  end
  for name, option in pairs(FROM_OPTIONS) do
    if value[name] == nil then
      value[name] = self.given[option]
    end
  end
  return value, own
end

-- Whether brackets are open at a line's end, and no string: what began there goes on with the next line.
local function goes_on(line)
  local bare = line:gsub("\\.", ""):gsub('"[^"]*"', "")
  if bare:find('"', 1, true) then
    return false
  end
  local _, opened = bare:gsub("[{%[]", "")
  local _, closed = bare:gsub("[}%]]", "")
  return opened > closed
end

local ONE_A_LINE = 'a job on each line expected, as in {"prompt": "a fox"}'

-- What a file is, by its first line, when it is no list of jobs at all: lines of it that happen to be objects are not
-- to be sent. Nothing when it may be one.
local function another_format(line)
  local first = line:match "%S"
  if first == "[" then
    return ("a JSON array: %s; jq -c '.[]' FILE makes lines of it"):format(ONE_A_LINE)
  elseif first ~= "{" then
    return "no JSON object: " .. ONE_A_LINE
  elseif goes_on(line) then
    return ("a JSON object over several lines: %s; jq -c . FILE makes one of it"):format(ONE_A_LINE)
  end
end

-- Reads the next lines; nothing when there are none. Blank ones count, and that is all.
function Feed:read()
  local entries, jobs, bytes = {}, {}, 0
  while #entries < LINES and bytes < BYTES do
    local ok, number, line = pcall(self.next_line)
    if not ok then
      self.failed = ("%s: can't be read: %s"):format(self.file.name, number)
      break
    elseif not number then
      break
    end
    if number == 1 and line then
      line = line:gsub("^\239\187\191", "") -- a byte order mark
    end
    if not line or line:find "%S" then
      local other = line and not self.begun and another_format(line)
      if other then
        fail.stop(fail.FAILED, ("%s:%d: %s. Nothing was submitted"):format(self.file.name, number, other))
      end
      self.begun = true
      local entry = { line = number }
      entries[#entries + 1] = entry
      if line then
        bytes = bytes + #line
        entry.job, entry.own = self:job_of(line)
      end
      if entry.job then
        jobs[#jobs + 1] = entry.job
        entry.at = #jobs
      else
        entry.result = { error = core.error("invalid",
          line and entry.own or ("longer than %d bytes"):format(lines.LONGEST)) }
      end
    end
    self.last = number
  end
  return entries[1] and entries, jobs
end

function Feed:progress(entries)
  if self.visible then
    local share = self.file.size and self.file.size > 0 and
      (" (%d %%)"):format(math.floor(100 * self.bytes() / self.file.size)) or ""
    io.stderr:write(("\r\27[Ksubmitting lines %d to %d%s"):format(entries[1].line, entries[#entries].line, share))
  end
end

function Feed:clear()
  if self.visible then
    io.stderr:write "\r\27[K"
  end
end

-- Submits the next lines. False at the end, and when the store failed: then self.failed says it.
function Feed:submit()
  local entries, jobs = self:read()
  if not entries then
    return false
  end
  self:progress(entries)
  local results, err = {}, nil
  if #jobs > 0 then
    results, err = land(self.mj, self.mj.submit_many, self.mj, jobs)
  end
  self:clear()
  if err then
    self.failed, self.exit = err.message, fail.exit(err.code)
  end
  if not results then
    self.last = entries[1].line - 1
    return false
  end
  for _, entry in ipairs(entries) do
    entry.result = entry.result or results[entry.at]
  end
  self.entries, self.at = entries, 0
  return true
end

local function explain(entry)
  local err = entry.result.error
  if err.code == "key_conflict" and not entry.own then
    return err.message .. ": this line was submitted with other options before; --batch NAME submits it again"
  end
  return err.message
end

-- The next line's number and result, in the order of the file.
function Feed:next()
  while self.at == #self.entries do
    self.out.finish() -- what was reported is seen before more is submitted
    if self.failed or core.signalled() or not self:submit() then
      return nil
    end
  end
  self.at = self.at + 1
  local entry = self.entries[self.at]
  local result = entry.result
  local word = not result.ref and "refused" or result.duplicate and "known" or result.state
  self.counts[word] = (self.counts[word] or 0) + 1
  self.total = self.total + 1
  self.bad = self.bad or not result.ref or (result.state == "failed" and not result.duplicate)
  if not result.ref then
    result.error = core.error(result.error.code, explain(entry), result.error.retryable)
    self.out:note(("%s:%d: %s"):format(self.file.name, entry.line, result.error.message))
  end
  self.entries[self.at] = false -- reported: a large file need not stay in memory
  return entry.line, result
end

local COLUMNS = {
  { title = "LINE", right = true }, { title = "REF" },
  { title = "STATE", colour = function(cell)
    return cell == "refused" and "red" or require("mjhook.cli.output").state_colour(cell)
  end },
  { title = "WHY" },
}

local function report(feed, describe)
  local out = feed.out
  if not out.json then
    out:table(COLUMNS, function()
      local line, result = feed:next()
      if line and result.ref then
        return { tostring(line), result.ref, result.state,
                 (describe(feed.mj, result, out.now):gsub("^ %((.*)%)$", "%1")) }
      end
      return line and { tostring(line), "-", "refused", result.error.message }
    end)
    return
  end
  for line, result in function() return feed:next() end do
    local value = result.ref and json.task(result) or result
    value.line = line
    out:value(value)
  end
end

local WORDS = { "pending", "queued", "submitting", "ambiguous", "succeeded", "failed", "lost", "cancelled", "known",
                "refused" }

local function summary(feed)
  local parts = {}
  for _, word in ipairs(WORDS) do
    if feed.counts[word] then
      parts[#parts + 1] = ("%d %s"):format(feed.counts[word], word == "known" and "known (nothing was sent)" or word)
    end
  end
  return ("%s: %s"):format(text.count(feed.total, "job"), #parts > 0 and table.concat(parts, ", ") or "nothing to do")
end

--- Submits the file that --file opened.
-- @tparam function describe (mj, task, now) -> " (why)" or ""
-- @treturn number the exit code: FAILED when a line was
function M.run(mj, given, out, describe)
  local ok, err = job.sendable(mj, given.account)
  if not ok then
    fail.with(err) -- once, rather than for each line
  end
  if core.isatty(0) and given.file.handle == io.stdin then
    out:note "reading jobs from the terminal; Ctrl-D ends it"
  end
  local feed = setmetatable({
    mj = mj, given = given, file = given.file, out = out, visible = core.isatty(2), seen = {}, entries = {}, at = 0,
    counts = {}, total = 0, last = 0,
  }, Feed)
  feed.next_line, feed.bytes = lines.each(given.file.handle)
  local reported, why = pcall(report, feed, describe)
  if not reported and type(why) == "table" and why.exit == fail.DONE and feed.next_line() then
    fail.stop(fail.FAILED, ("the report has no reader: what follows line %d was not submitted; submit the file again")
      :format(feed.last))
  elseif not reported then
    error(why, 0)
  end
  if core.signalled() then
    out.finish()
    fail.interrupted(core.signalled(), ("%s; what follows line %d was not submitted; submit the file again, no line is "
      .. "sent twice"):format(summary(feed), feed.last))
  elseif feed.failed then
    out.finish()
    fail.stop(feed.exit or fail.FAILED,
      ("%s: what follows line %d was not submitted; submit the file again, no line is sent twice"):format(feed.failed,
        feed.last))
  elseif feed.bad or feed.visible then
    out:note(summary(feed))
  end
  return feed.bad and fail.FAILED or fail.DONE
end

return M
