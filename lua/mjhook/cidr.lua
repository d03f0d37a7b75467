--- Address ranges: who may call, seen past trusted proxies.
local M = {}

local function parse_v4(text)
  local bytes = { text:match "^(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)%.(%d%d?%d?)$" }
  for i = 1, 4 do
    bytes[i] = tonumber(bytes[i])
    if not bytes[i] or bytes[i] > 255 then
      return nil
    end
  end
  return bytes
end

local function groups(text, out) -- of one side of "::"
  if text == "" then
    return true
  end
  for group in (text .. ":"):gmatch "([^:]*):" do
    local v4 = group:find(".", 1, true) and parse_v4(group)
    if v4 then
      out[#out + 1] = v4[1] * 256 + v4[2]
      out[#out + 1] = v4[3] * 256 + v4[4]
    elseif group:match "^%x%x?%x?%x?$" then
      out[#out + 1] = tonumber(group, 16)
    else
      return nil
    end
  end
  return true
end

local function parse_v6(text)
  local left, right = text:match "^(.-)::(.*)$"
  local head, tail = {}, {}
  if right and right:find("::", 1, true) or not groups(left or text, head) or not groups(right or "", tail) then
    return nil
  end
  local missing = 8 - #head - #tail
  if (right and missing < 1) or (not right and missing ~= 0) then
    return nil
  end
  for _ = 1, missing do
    head[#head + 1] = 0
  end
  local bytes = {}
  for i = 1, 8 do
    local v = i <= #head and head[i] or tail[i - #head]
    bytes[2 * i - 1], bytes[2 * i] = math.floor(v / 256), v % 256
  end
  -- ::ffff:a.b.c.d is a.b.c.d: a listener on both families sees callers so.
  for i = 1, 10 do
    if bytes[i] ~= 0 then
      return bytes
    end
  end
  return bytes[11] == 255 and bytes[12] == 255 and { bytes[13], bytes[14], bytes[15], bytes[16] } or bytes
end

local function parse(text)
  return parse_v4(text) or (text:find(":", 1, true) and parse_v6(text)) or nil
end

-- nginx calls the peer of a Unix socket "unix:".
local function is_unix(text)
  return text:match "^unix:" ~= nil
end

--- Reads "192.0.2.0/24", "2001:db8::/32", a lone address, or "unix:", which stands for every Unix socket; nil when it
-- is none of these.
function M.range(text)
  if text == "unix:" then
    return { unix = true }
  end
  local address, bits = text:match "^([^/]+)/(%d+)$"
  local bytes = parse(address or text)
  bits = bits and tonumber(bits) or (bytes and #bytes * 8)
  if not bytes or bits > #bytes * 8 then
    return nil
  end
  return { bytes = bytes, bits = bits }
end

local function within(bytes, range)
  if #bytes ~= #range.bytes then
    return false
  end
  local left = range.bits
  for i = 1, #bytes do
    if left <= 0 then
      return true
    end
    local unit = 2 ^ math.max(8 - left, 0) -- the bits of this byte that do not count
    if math.floor(bytes[i] / unit) ~= math.floor(range.bytes[i] / unit) then
      return false
    end
    left = left - 8
  end
  return true
end

local LOOPBACK = { 127, 0, 0, 1 }

--- Whether an address lies in one of the ranges (texts as for range()). A Unix socket's peer is this machine: it lies
-- in every range that holds 127.0.0.1. The range "unix:" holds nothing else.
function M.contains(ranges, address)
  local unix = address and is_unix(address)
  local bytes = unix and LOOPBACK or address and parse(address)
  if not bytes then
    return false
  end
  for _, text in ipairs(ranges) do
    local range = M.range(text)
    if range and (range.unix and unix or range.bytes and within(bytes, range)) then
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
  return parse(address) and address or nil
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
