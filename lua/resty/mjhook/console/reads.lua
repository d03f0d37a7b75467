--- What the console reads, as JSON text. It runs in a worker thread: nginx's event loop passes the text on.
--
-- Every function takes `mj`, which has exec and stats() alone, and plain data; it gives a value for JSON, or nil and an
-- error of mjhook.core. None looks at more than some thousand records.
local core = require "mjhook.core"
local events = require "mjhook.delivery.events"
local json = require "mjhook.cli.json"
local listing = require "mjhook.listing"
local shape = require "resty.mjhook.console.shape"

local M = {}

local PAGE_MOST = 200

local function limited(filter, absent)
  return math.min(math.max(math.floor(filter.limit or absent), 1), PAGE_MOST)
end

local function rows(list, options)
  local out = json.array {}
  for i, task in ipairs(list) do
    out[i] = shape.row(task, options)
  end
  return out
end

function M.tasks(mj, args, options)
  local page, err = listing.page(mj, args.filter, limited(args.filter, 50))
  return page and { tasks = rows(page.tasks, options), older = page.older, newer = page.newer,
                    now = mj.exec:now() }, err
end

function M.count(mj, args)
  return listing.count(mj, args.filter)
end

function M.find(mj, args, options)
  for _, name in ipairs { "get", "find", not options.private and "by_key" or nil } do
    local task, err = mj.exec:read(name, args.id)
    if task then
      return { ref = task.ref, pruned = task.pruned, state = task.pruned and task.state }
    elseif err.code ~= "not_found" then
      return nil, err
    end
  end
  return nil, core.error("not_found", "no task has this ref, task id or key")
end

local function refused_of(mj, ref, options)
  local list, err = mj.exec:read("refused", 0, core.max_refused)
  if not list then
    return nil, err
  end
  local own = json.array {}
  for _, kept in ipairs(list) do
    if kept.ref == ref then
      own[#own + 1] = { id = kept.id, at = kept.at, attempt = kept.attempt, size = kept.size,
                        reason = not options.private and kept.reason or nil }
    end
  end
  return own
end

local function events_of(mj, ref, options)
  local list, err = mj.exec:read("page", { by = "event", ref = ref, limit = PAGE_MOST })
  if not list then
    return nil, err
  end
  local own = json.array {}
  for _, event in ipairs(list) do
    own[#own + 1] = event.event_id and shape.event(event, options) or nil
  end
  return own
end

function M.task(mj, args, options)
  local task, err = mj.exec:read("get", args.ref)
  if not task then
    return nil, err
  end
  local out = shape.task(mj, task, options, mj.exec:now())
  out.events, err = events_of(mj, args.ref, options)
  if out.events then
    out.refused, err = refused_of(mj, args.ref, options)
  end
  out.now = mj.exec:now()
  return out.refused and out, err
end

--- The stored path of an image of a task: where `files` has it.
function M.file(mj, args)
  local task, err = mj.exec:read("get", args.ref)
  for _, file in ipairs(task and shape.files(task) or {}) do
    if file.index == args.n then
      return { path = file.path, type = file.type }
    end
  end
  return nil, err or core.error("not_found", "this image was not archived")
end

function M.events(mj, args, options)
  local ref, seq
  if args.after then
    ref, seq = events.parse(args.after)
    if not ref then
      return nil, core.error("invalid", "after: an event id expected")
    end
  end
  local limit = limited(args.filter, 50)
  local page, err = listing.event_page(mj, args.filter, limit, ref, seq)
  if not page then
    return nil, err
  end
  local out = json.array {}
  for i, event in ipairs(page.events) do
    out[i] = shape.event(event, options)
  end
  return { events = out, more = page.more, now = mj.exec:now() }
end

function M.refused(mj, args, options)
  local limit = math.min(math.max(args.limit or 20, 1), core.max_refused)
  local list, err = mj.exec:read("refused", args.below or 0, limit + 1)
  if not list then
    return nil, err
  end
  local more = list[limit + 1] and list[limit].id
  list[limit + 1] = nil
  for _, kept in ipairs(list) do
    if options.private then
      kept.body, kept.reason, kept.hidden = "", nil, true
    end
  end
  return { refused = json.array(list), more = more, now = mj.exec:now() }
end

-- ---- numbers ----

-- The time by which a share of the tasks had ended: read off the histogram, between the bounds of its bucket.
local function quantile(histogram, total, share)
  local seen, wanted = 0, total * share
  for i, n in ipairs(histogram) do
    if n > 0 and seen + n >= wanted then
      local low, high = core.latency_bounds[i - 1] or 0, core.latency_bounds[i]
      return (high and low + (high - low) * (wanted - seen) / n or low) * 1000
    end
    seen = seen + n
  end
end

local function finish(histogram)
  local total, buckets = 0, json.array {}
  for i, n in ipairs(histogram) do
    total = total + n
    buckets[i] = { le_ms = core.latency_bounds[i] and core.latency_bounds[i] * 1000, n = n }
  end
  return { n = total, buckets = buckets, p50_ms = total > 0 and quantile(histogram, total, 0.5) or nil,
           p95_ms = total > 0 and quantile(histogram, total, 0.95) or nil }
end

function M.stats(mj)
  local now = mj.exec:now()
  local stats, err = mj.exec:read("stats", now)
  if not stats then
    return nil, err
  end
  stats.finish = { fast = finish(stats.latency.fast), relaxed = finish(stats.latency.relaxed) }
  stats.latency, stats.accounts, stats.now = nil, json.array(stats.accounts), now
  return stats
end

--- What the live stream tells: enough to see that something happened.
function M.pulse(mj)
  local stats, err = mj.exec:read("stats", mj.exec:now())
  return stats and { latest = stats.latest, tasks = stats.tasks, events = stats.events, buried = stats.buried,
                     ready = stats.ready, accounts = json.array(stats.accounts), webhook = stats.webhook }, err
end

--- A sample for the history.
function M.counters(mj)
  local stats, err = mj.exec:read("stats", mj.exec:now())
  return stats and { at = mj.exec:now(), counts = stats.counts }, err
end

-- ---- gallery ----

function M.gallery(mj, args, options)
  local filter = args.filter
  filter.state = "succeeded"
  local page, err = listing.page(mj, filter, limited(filter, 24))
  if not page then
    return nil, err
  end
  local items = json.array {}
  for i, task in ipairs(page.tasks) do
    items[i] = { ref = task.ref, finished_at = task.finished_at, images = shape.images(task, options) }
    if options.private then
      items[i].hidden, items[i].images = true, json.array {}
    else
      items[i].prompt, items[i].user_id = shape.row(task, options).prompt, task.user_id
    end
  end
  return { items = items, older = page.older, newer = page.newer, now = mj.exec:now() }
end

-- ---- the way in ----

--- Reads one thing.
-- @tparam table exec an executor
-- @tparam string name of a function above
-- @treturn string|nil JSON text; nil and an error
function M.run(exec, name, args, options)
  local mj = { exec = exec }
  function mj.stats()
    return exec:read("stats", exec:now())
  end
  local value, err = M[name](mj, args, options)
  if not value then
    return nil, err
  end
  return json.encode(value)
end


return M
