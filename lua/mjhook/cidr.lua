--- Address ranges: which clients may call, seen past trusted proxies.
local core = require "mjhook.core"

local M = {}

-- nginx calls the peer of a Unix socket "unix:".
local function is_unix(text)
  return text:match "^unix:" ~= nil
end

--- Whether a text is a range: "192.0.2.0/24", "2001:db8::/32", a lone address, or "unix:", which stands for every Unix
-- socket.
function M.is_range(text)
  return text == "unix:" or core.address_range(text)
end

--- Whether an address lies in one of the ranges. A Unix socket's peer is this machine: it lies in every range that
-- holds 127.0.0.1. The range "unix:" holds nothing else.
function M.contains(ranges, address)
  local unix = address and is_unix(address)
  for _, range in ipairs(address and ranges or {}) do
    if unix and range == "unix:" or core.address_within(unix and "127.0.0.1" or address, range) then
      return true
    end
  end
  return false
end

-- One entry of X-Forwarded-For without what proxies put around an address: quotes, brackets, a port, a zone. Nil when
-- there is no address in it.
local function address_of(text)
  text = text:gsub("[\"']", ""):lower()
  local address = text:match "^%[([%x:.]+)[%%%w]*%]$" or text:match "^%[([%x:.]+)[%%%w]*%]:%d+$"
    or text:match "^([%d.]+):%d+$" or text:match "^([%x:.]+)%%%w+$" or text
  if is_unix(address) then
    return "unix:"
  end
  return core.address(address) and address or nil
end

--- The caller behind trusted proxies: the last address of X-Forwarded-For that is not itself a trusted proxy's.
-- Nothing in the header counts unless the connection comes from one.
-- @tparam string|nil peer the connection's other end
-- @tparam string|nil forwarded X-Forwarded-For; several headers joined by commas
-- @tparam table|nil trusted ranges
-- @treturn string|nil an address without port, or "unix:"; nil when what stands in its place is no address
function M.caller(peer, forwarded, trusted)
  local address = peer and address_of(peer)
  if not trusted or not forwarded or not address or not M.contains(trusted, address) then
    return address
  end
  local hops = {}
  for hop in forwarded:gmatch "[^,%s]+" do
    hops[#hops + 1] = hop
  end
  for i = #hops, 1, -1 do
    address = address_of(hops[i])
    if not address or not M.contains(trusted, address) then
      return address
    end
  end
  return address
end

return M
