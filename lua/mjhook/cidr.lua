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

--- Reads "192.0.2.0/24", "2001:db8::/32" or a lone address; nil when it is none.
function M.range(text)
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

--- Whether an address lies in one of the ranges (texts as for range()).
function M.contains(ranges, address)
  local bytes = address and parse(address)
  if not bytes then
    return false
  end
  for _, text in ipairs(ranges) do
    local range = M.range(text)
    if range and within(bytes, range) then
      return true
    end
  end
  return false
end

--- The caller behind trusted proxies: the last address of X-Forwarded-For that is not itself a trusted proxy's.
-- Nothing in the header counts unless the connection comes from one.
function M.caller(peer, forwarded, trusted)
  if not trusted or not forwarded or not M.contains(trusted, peer) then
    return peer
  end
  local hops = {}
  for hop in forwarded:gmatch "[^,%s]+" do
    hops[#hops + 1] = hop
  end
  for i = #hops, 1, -1 do
    if not M.contains(trusted, hops[i]) then
      return hops[i]
    end
  end
  return hops[1] or peer
end

return M
