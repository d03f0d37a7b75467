--- What mjhook has to say under nginx, from a timer: a request's own log lines would show its callback's token.
local text = require "mjhook.text"

local LEVELS = { error = ngx.ERR, warn = ngx.WARN, notice = ngx.NOTICE, info = ngx.INFO }
local LOG_MAX = 100
local LOG_EVERY_S = 1
local pending_log, dropped, ticking = {}, 0, false

local M = {}

local function flush_log()
  local lines = pending_log
  pending_log = {}
  for _, line in ipairs(lines) do
    ngx.log(line[1], "mjhook: ", text.clean(line[2]))
  end
  if dropped > 0 then
    ngx.log(ngx.WARN, "mjhook: ", dropped, " more messages were dropped")
    dropped = 0
  end
end

--- Says it within a second.
function M.log(level, message)
  if #pending_log >= LOG_MAX then
    dropped = dropped + 1
    return
  end
  pending_log[#pending_log + 1] = { LEVELS[level] or ngx.WARN, message }
  -- A worker that ends has no timers any more but those that are due at once. While nginx starts there are none, and no
  -- request whose line could show.
  if not ticking or ngx.worker.exiting() then
    local made, timer = pcall(ngx.timer.at, 0, flush_log)
    if not made then
      flush_log()
    elseif not timer then
      pending_log = {}
    end
  end
end

--- In init_worker: from then on a timer of the worker's own says what there is to say. One of a request's would log by
-- its location's error_log, which is silenced there.
function M.start()
  ticking = ngx.timer.every(LOG_EVERY_S, flush_log) and true
end

return M
