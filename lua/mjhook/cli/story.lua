--- A task's timeline as a story: what was said, by which source, when, and what it changed.
local text = require "mjhook.cli.text"

local M = {}

local SAID = {
  create = "stored",
  ready = "its wait is over",
  claim = "a slot is free: sending",
  accepted = "the provider accepted it",
  not_sent = "could not be sent",
  refused = "refused for now",
  rejected = "refused for good",
  maybe_sent = "sent, without a usable answer: it may have arrived",
  owner_dead = "the process that was sending it is gone",
  running = "still running",
  succeeded = "done, with its images",
  hint = "done, but no image was named",
  failed = "the job failed",
  absent = "the provider does not have it in its answer",
  unanswered = "the provider gave no answer",
  look = "a callback that is not believed as it is: to be asked about",
  give_up = "given up",
  resubmit = "to be sent again as a new attempt",
  wait = "to be waited for longer",
  cancel = "cancelled",
  slot_end = "the time for its slot is over",
  kept = "a handler stored its files",
}

local FIRST_KEPT = 4 -- of a full timeline the core keeps so many from the beginning (src/domain/state.c)

local NOTED = {
  duplicate = "said before",
  contradiction = "contradicts what was said first, which stays",
  conflict = "its task id is not the one of this attempt",
  stale = "too late to matter",
  old_attempt = "about an older attempt",
}

--- A timeline entry in words.
-- @tparam table entry
-- @tparam number attempts how many the task has had
-- @tparam number created_at of the task: times are told from there
function M.sentence(entry, attempts, created_at)
  local parts = { SAID[entry.signal] or entry.signal }
  if entry.signal == "create" and entry.to == "pending" then
    parts[1] = "adopted: it was submitted elsewhere"
  end
  if entry.reason then
    parts[#parts + 1] = ": " .. entry.reason
  end
  if NOTED[entry.note] then
    parts[#parts + 1] = " (" .. NOTED[entry.note] .. ")"
  end
  if entry.count then
    parts[#parts + 1] = (" (%d times, the last after %s)"):format(entry.count,
      text.duration(entry["until"] - created_at))
  end
  if attempts > 1 then
    parts[#parts + 1] = (" [attempt %d]"):format(entry.attempt)
  end
  return table.concat(parts)
end

--- Writes the story of a task.
function M.write(out, task)
  local waits, widest = {}, 0
  for i, entry in ipairs(task.timeline) do
    waits[i] = "+" .. text.duration(entry.at - task.created_at)
    widest = math.max(widest, #waits[i])
  end
  for i, entry in ipairs(task.timeline) do
    local moved = entry.from ~= entry.to or entry.signal == "create"
    out:line("  ", out:paint("dim", text.pad(waits[i], widest)), "  ", text.pad(entry.source, 8), "  ",
      M.sentence(entry, #task.attempts, task.created_at), moved and " → " or "", moved and out:state(entry.to) or "")
    if task.timeline_dropped and i == FIRST_KEPT then
      out:line("  ", out:paint("dim", ("... %d more, no longer kept"):format(task.timeline_dropped)))
    end
  end
end

return M
