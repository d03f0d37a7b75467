--- The two blocking primitives, and nothing else that blocks:
--   commit(ops)               a batch of operations in one durable transaction
--   http(requests, deadline)  a batch of requests to the provider
-- Both take plain data and give plain data, so that they can be run here and now
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

-- Callbacks among the operations are read here, off the event loop: what can't be read fails alone.
local function read_callbacks(ops)
  local readable, unreadable = {}, nil
  for i, op in ipairs(ops) do
    local why
    if type(op) == "string" then
      op, why = provider.read_operation(op)
      if not op then
        unreadable = unreadable or {}
        unreadable[i] = why
      end
    end
    readable[#readable + 1] = op
  end
  return readable, unreadable
end

--- @tparam table ops see mjhook.core's store:write; or provider.callback_operation, whose result is the outcome's
-- code, or "unreadable" and why
-- @treturn table|nil results in the order of ops, or nil and an error: then nothing was stored
function Direct:commit(ops)
  local readable, unreadable = read_callbacks(ops)
  local results, err = self.store:write(readable, core.now())
  if not results or not unreadable then
    return results, err
  end
  local all, n = {}, 0
  for i = 1, #ops do
    if unreadable[i] then
      all[i] = "unreadable: " .. unreadable[i]
    else
      n = n + 1
      all[i] = results[n]
    end
  end
  return all
end

--- @tparam table requests see provider.submit_request; deadline in core.clock() milliseconds or nil
-- @treturn table|nil answers in the order of requests, or nil and an error: then nothing was sent
function Direct:http(requests, deadline)
  if not self.client then
    local client, err = core.http { connections = self.config.connections }
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
