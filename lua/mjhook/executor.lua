--- The two blocking primitives, and nothing else that blocks:
--   commit(ops)                   a batch of operations in one durable transaction;
--   callback(ref, attempt, body)  the same for one callback, as it came: it is read where it is committed
--   http(requests, deadline)      a batch of requests to the provider
-- They take plain data and give plain data, so that they can be run here and now
-- (this file) or in another thread (resty.mjhook).  Flows reach them only through
-- an executor: a flow is written once and blocks no event loop.
local core = require "mjhook.core"
local provider = require "mjhook.provider"

local Direct = {}
Direct.__index = Direct

local M = {}

--- Options of mjhook.core.open() for a configuration.
function M.store_options(config)
  return {
    mode = config.store_mode,
    map_max = config.map_max,
    poll_first = config.poll.first,
    poll_max = config.poll.max,
    learn = config.poll.learn,
    lost_after = config.lost_after,
    grace = config.ambiguous_grace,
    accounts = config.accounts,
  }
end

--- An executor that does its work in the calling thread.
function M.direct(config, store)
  return setmetatable({ config = config, store = store }, Direct)
end

--- @tparam table ops see mjhook.core's store:write
-- @treturn table|nil results in the order of ops, or nil and an error: then nothing was stored
function Direct:commit(ops)
  return self.store:write(ops, core.now())
end

--- @tparam string ref whose token it came with
-- @tparam number attempt
-- @tparam string body
-- @treturn string|nil the outcome's code, or "unreadable" and why; or nil and an error: then nothing was stored
function Direct:callback(ref, attempt, body)
  self.inbox = self.inbox or core.inbox()
  local lot, err = self.inbox:put(ref, attempt, body)
  if not lot then
    return nil, err
  end
  self.inbox:take()
  local results, outcomes, unreadable = self.store:write({}, core.now(), self.inbox)
  if not results then
    return nil, outcomes
  elseif unreadable then
    return "unreadable", unreadable[1]
  end
  return core.codes[outcomes:byte()]
end

--- @tparam table requests see provider.submit_request; deadline in core.clock() milliseconds or nil
-- @treturn table|nil answers in the order of requests, or nil and an error: then nothing was sent
function Direct:http(requests, deadline)
  if not self.client then
    local config = self.config
    local client, err = core.http { connections = config.connections, proxy = config.proxy, ca_file = config.ca_file }
    if not client then
      return nil, err
    end
    self.client = client
  end
  return self.client:perform(provider.complete(self.config, requests), deadline)
end

function Direct:close()
  if self.client then
    self.client:close()
    self.client = nil
  end
end

return M
