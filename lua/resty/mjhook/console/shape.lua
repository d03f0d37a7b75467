--- What the console shows of records: rows of listings, a task's story, what is hidden.
--
-- Records are taken as the core gives them: `context` and `meta` are JSON text and stay so, since JavaScript would lose
-- digits of numbers beyond 2^53.
local json = require "mjhook.cli.json"
local decode = require("mjhook.json").decode
local story = require "mjhook.cli.story"
local view = require("mjhook.view").view
local waiting = require "mjhook.cli.waiting"

local M = {}

local PROMPT_BYTES = 500 -- of a row

local DUE = {
  queued = "it may be sent again", submitting = "its sender is looked for",
  ambiguous = "it becomes lost, unless a callback comes or the policy decides otherwise",
}

-- At most n bytes, not cut inside a character.
local function head(s, n)
  if #s <= n then
    return s, nil
  end
  while n > 0 and s:byte(n + 1) >= 0x80 and s:byte(n + 1) < 0xC0 do
    n = n - 1
  end
  return s:sub(1, n), true
end

--- A row of a listing.
-- @tparam table task
-- @tparam table options private
function M.row(task, options)
  local row = {
    ref = task.ref, state = task.state, attempt = task.attempt, polls = task.polls, mode = task.mode,
    account = task.account, created_at = task.created_at, updated_at = task.updated_at,
    finished_at = task.finished_at, due_at = task.due_at, late = task.late, has_image = task.image ~= nil,
    error = task.error and { code = task.error.code, message = task.error.message },
  }
  if options.private then
    row.hidden = true
    row.error = row.error and { code = row.error.code, message = "" }
  else
    row.user_id, row.key = task.user_id, task.key
    row.prompt, row.prompt_cut = head(task.prompt or "", PROMPT_BYTES)
  end
  return row
end

--- The files that handlers stored of a task.
function M.files(task)
  local files = task.files
  if type(files) == "string" then
    files = decode(files)
  end
  return type(files) == "table" and files or {}
end

--- A task's images: where to load each from, as far as the options allow it.
-- @tparam table options images ("off", "archived", "provider")
function M.images(task, options)
  local list, files = json.array {}, {}
  for _, file in ipairs(M.files(task)) do
    files[file.index or false] = file
  end
  local function add(index, url)
    local image = { index = index, url = url, archived = files[index] ~= nil }
    if options.images ~= "off" and files[index] then
      image.src = ("api/image?ref=%s&n=%d"):format(task.ref, index)
    elseif options.images == "provider" and url:match "^https://" then
      image.src = url
    end
    list[#list + 1] = image
  end
  if task.image then
    add(0, task.image)
  end
  for i, url in ipairs(task.images or {}) do
    add(i, url)
  end
  return list
end

local function next_step(task)
  if task.due_at and task.due_at ~= task.expires_at then
    return { at = task.due_at, what = DUE[task.state] or "the provider is asked" }
  elseif task.expires_at and task.state == "queued" then
    return { at = task.expires_at, what = "it expires, if it is not sent before" }
  end
end

local HIDDEN = { "prompt", "mj_prompt", "user_id", "key", "context", "meta", "image", "images", "files" }

local function without_private(task)
  for _, name in ipairs(HIDDEN) do
    task[name] = nil
  end
  if task.error then
    task.error.message = ""
  end
  for _, entry in ipairs(task.timeline) do
    entry.reason = nil
  end
end

--- All of a task: its record, its story in words, what happens next.
-- @tparam table mj with stats()
-- @tparam table task as the core gives it
function M.task(mj, task, options, now)
  local out = { images = options.private and json.array {} or M.images(task, options), next = next_step(task) }
  if options.private then
    without_private(task)
    out.hidden = true
  end
  for _, entry in ipairs(task.timeline) do
    entry.text = story.sentence(entry, #task.attempts, task.created_at)
    entry.moved = entry.from ~= entry.to or entry.signal == "create" or nil
  end
  out.context_text, out.meta_text = task.context, task.meta
  out.task = {}
  for k, v in pairs(task) do
    out.task[k] = v
  end
  out.task.context, out.task.meta, out.task.files, out.task.images, out.task.image = nil, nil, nil, nil, nil
  out.task.timeline, out.task.attempts = json.array(task.timeline), json.array(task.attempts)
  out.why = waiting(mj, task, now)
  out.raw = json.encode(json.task(view(task)))
  return out
end

--- An event, with the errors of its tries.
function M.event(event, options)
  if options.private then
    for _, err in ipairs(event.errors) do
      err.message = ""
    end
  end
  event.errors = json.array(event.errors)
  return event
end

return M
