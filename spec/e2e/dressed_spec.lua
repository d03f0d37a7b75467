-- A provider whose every answer and callback comes in another dress, some of them of no use: at the end each job is
-- where the provider says it is, none was sent twice, and what could not be read stopped no other.
-- MJHOOK_TASKS: how many jobs (60); MJHOOK_SEED: of the faults and of the order (1).
local kit = require "kit"
local sim = require "sim"

local TASKS = tonumber(os.getenv "MJHOOK_TASKS" or "60")
local SEED = tonumber(os.getenv "MJHOOK_SEED" or "1")

-- Rates for each of these, which add up to `all`.
local function rates(all, kinds)
  local out, n = {}, 0
  for kind in kinds:gmatch "%S+" do
    out[kind], n = 0, n + 1
  end
  for kind in pairs(out) do
    out[kind] = all / n
  end
  return out
end

local FAULTS = {
  -- The first half is read, the second about the account. None of them leaves it open whether the job was taken.
  submit = rates(0.7, [[created accepted bom gzip gzip_unsaid word_envelope string_numbers
                        html_404 http_404 http_405 html_413 cf_403 html_403 http_402 rate_limit error_404 html_429]]),
  -- Of whole answers, and (from word_status on) of tasks in them.
  status = rates(0.9, [[created bom gzip gzip_unsaid word_envelope garbage truncated gzip_cut html_404 http_404 http_500
                        http_503 html_503 cf_403 rate_limit empty_body wrong_types list_wrapper error
                        word_status unknown_word no_status job_id message_reason error_reason odd_types nan bad_escape
                        deep contradictory twice image_objects image_map string_numbers]]),
  callback = rates(0.9, [[bom gzip gzip_unsaid gzip_cut word_status unknown_word job_id message_reason error_reason
                          escaped_hook second_query oversized garbage nan odd_types drop double]]),
}

local function none(kinds)
  local out = {}
  for kind in pairs(kinds) do
    out[kind] = 0
  end
  return out
end

describe("a provider that dresses its answers in every way", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  for _, how in ipairs { { "mixed", false }, { "reseller", false }, { "mixed", true } } do
    local name = how[1] .. " callbacks" .. (how[2] and ", numbers for ids" or "")
    it("loses no job, sends none twice and misreads none: " .. name, function()
      math.randomseed(SEED)
      sim.config { limit = 0, seed = SEED, callback_format = how[1], integer_ids = how[2] }
      sim.config(FAULTS)
      local mj = kit.open({ max_in_flight = 256, batch = 20, max_body = 65536 }, sim)
      local jobs, ended, handed = {}, {}, 0 -- what the provider says of each job that has ended, by its id
      for i = 1, TASKS do
        jobs[i] = { prompt = "job " .. i }
      end
      assert(mj:submit_many(jobs))
      for _ = 1, 30 do
        kit.travel(400)
        local report = assert(mj:reconcile {})
        assert.same({ 0, 0 }, { report.lost, report.ambiguous })
        local running = {}
        for _, job in ipairs(sim.jobs()) do
          if not ended[job.taskId] then
            running[#running + 1] = job.taskId
          end
        end
        for _ = 1, math.min(#running, math.ceil(TASKS / 10)) do
          local id = table.remove(running, math.random(#running))
          ended[id] = math.random(4) == 1 and 2 or 1
          sim.finish(id, ended[id], "banned words")
        end
        for i = handed + 1, #sim.callbacks(handed) do
          sim.hand(mj, i)
          handed = i
        end
      end
      sim.config { submit = none(FAULTS.submit), status = none(FAULTS.status), callback = none(FAULTS.callback) }
      for pass = 1, 40 + TASKS / 10 do -- what was queued is sent, as slots allow, and ends a while later
        kit.travel(1000)
        local report = assert(mj:reconcile {})
        if report.pending + report.queued == 0 then
          break
        end
        for _, job in ipairs(pass % 10 == 0 and sim.jobs() or {}) do
          if not ended[job.taskId] then
            ended[job.taskId] = 1
            sim.finish(job.taskId)
          end
        end
      end
      local count = 0
      for task in mj:tasks {} do
        count = count + 1
        assert.equal(ended[task.task_id] == 2 and "failed" or "succeeded", task.state, task.ref .. ": " ..
          kit.story(task))
        if task.state == "failed" then
          assert.equal("provider", task.error.code)
          assert.equal("banned words", task.error.message)
        end
      end
      assert.equal(TASKS, count)
      assert.equal(TASKS, #sim.jobs())
      assert.same({}, sim.ledger().billed_twice)
      assert.is_true(assert(mj:check()).ok)
    end)
  end
end)
