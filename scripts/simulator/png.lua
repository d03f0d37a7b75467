--- Real PNG files without a compressor: the zlib stream holds stored blocks.

local bit = require "bit"

local char, rep, sub = string.char, string.rep, string.sub
local band, rshift = bit.band, bit.rshift

local _M = {}

local STORED_MAX = 65535  -- RFC 1951, 3.2.4: LEN is 16 bits

local function be32(n)
    return char(band(rshift(n, 24), 255), band(rshift(n, 16), 255),
                band(rshift(n, 8), 255), band(n, 255))
end

local function le16(n)
    return char(band(n, 255), rshift(n, 8))
end

local function chunk(kind, data)
    local body = kind .. data
    return be32(#data) .. body .. be32(ngx.crc32_long(body))
end

local function adler32(data)
    local a, b = 1, 0
    for i = 1, #data do
        a = a + data:byte(i)
        b = b + a
        if band(i, 2047) == 0 then  -- b stays far below 2^53
            a, b = a % 65521, b % 65521
        end
    end
    return be32(b % 65521 * 65536 + a % 65521)
end

local function zlib(data)
    local out = { "\120\1" }
    for from = 1, #data, STORED_MAX do
        local block = sub(data, from, from + STORED_MAX - 1)
        local final = from + STORED_MAX > #data
        out[#out + 1] = (final and "\1" or "\0")
                        .. le16(#block) .. le16(STORED_MAX - #block) .. block
    end
    out[#out + 1] = adler32(data)
    return table.concat(out)
end

local function colour(id, index)
    return sub(be32(ngx.crc32_long(id .. index)), 1, 3)
end

local function encode(size, rows)
    -- 8 bits a channel, colour type 2 (RGB), no interlace
    return "\137PNG\r\n\26\n"
           .. chunk("IHDR", be32(size) .. be32(size) .. "\8\2\0\0\0")
           .. chunk("IDAT", zlib(rows))
           .. chunk("IEND", "")
end

--- The square of one upscaled image, index 0 to 3, in the colour of id.
function _M.single(id, index, size)
    return encode(size, rep("\0" .. rep(colour(id, index), size), size))
end

--- The grid: the four images' colours as quadrants.
function _M.grid(id, size)
    local half = math.floor(size / 2)
    local function band_of(left, right, height)
        return rep("\0" .. rep(colour(id, left), half)
                        .. rep(colour(id, right), size - half), height)
    end
    return encode(size, band_of(0, 1, half) .. band_of(2, 3, size - half))
end

return _M
