-- mjhook.handlers.archive against servers that mean harm, and mjhook.core's downloads used in every wrong way.
local archive = require "mjhook.handlers.archive"
local core = require "mjhook.core"
local images = require "images"
local kit = require "kit"

local server

local function ctx(timeout)
  return { event_id = "01KB-1", type = "succeeded", attempt = 1, created_at = 1777852860000, timeout = timeout or 10 }
end

local function keep(path, more, timeout)
  local task = { ref = "01KB", state = "succeeded", created_at = 1777852800000, images = { server:url(path) } }
  return archive(server:settings(more))(task, ctx(timeout))
end

local function kept_files()
  return (kit.sh(("cd %s/kept 2>/dev/null && find . -type f | sort"):format(server.dir)))
end

-- Nothing got a name.
local function assert_refused(pattern, handled, reason, how)
  assert.is_false(handled)
  assert.matches(pattern, reason)
  assert.is_nil(how and how.bury)
  assert.is_nil(kept_files():match "%.png")
end

local function assert_kept(bytes, handled, reason)
  assert.is_truthy(handled, reason)
  assert.equal(bytes, handled.files[1].bytes)
  assert.equal("./2026-05-04/01KB-1.png", kept_files())
end

describe("the archive handler, of a server that means harm,", function()
  after_each(kit.cleanup)

  before_each(function()
    server = images.start()
  end)

  it("keeps what has a length or a last chunk, and nothing whose end may be torn off", function()
    assert_refused("without a length", keep "a?raw=torn")
    assert_refused("without a length", keep "a?raw=closed")
    assert_refused("without a length", keep "a?raw=huge")
    assert_kept(1000, keep "a?length=0") -- in chunks
  end)

  for raw, pattern in pairs {
    http09 = "HTTP/0.9", negative = "Content%-Length", chunk = "chunk", types = "not an image by its type, \"\"",
    zipped = "first bytes", packed = "packed", unpacked = "packed",
    header = "header", line = "img.localhost: ", hints = "header", trailer = "header", extension = "header",
    folds = "header", foldfirst = "img.localhost: ",
  } do
    it("keeps nothing of an answer of the kind " .. raw, function()
      local begun = core.clock()
      assert_refused(pattern, keep("a?raw=" .. raw))
      assert.is_true(core.clock() - begun < 3000)
    end)
  end

  it("unpacks nothing that comes to nothing, which would keep it busy for longer than it has", function()
    local begun = core.clock()
    assert_refused("packed", keep("a?raw=bomb", nil, 1))
    assert.is_true(core.clock() - begun < 1500)
  end)

  it("says what a header says without what would move a cursor", function()
    local _, reason = keep "a?raw=words"
    assert.matches('"%G%[31mr', reason)
    assert.is_nil(reason:match "%c")
  end)

  it("takes the header of a chatty server", function()
    assert_kept(1000, keep "a?raw=long")
  end)

  it("holds no header or trailer that has no end in memory", function()
    for _, raw in ipairs { "header", "trailer", "hints", "extension", "folds" } do
      local out = kit.sh(kit.lua_command(([[
        local archive = require "mjhook.handlers.archive"
        local handled, why = archive { dir = %q, ca_file = %q, loopback = true }(
          { ref = "01KC", created_at = 0, images = { %q } }, { type = "succeeded", timeout = 3 })
        local file = io.open "/proc/self/status"
        print(why, file:read("*a"):match "VmHWM:%%s+(%%d+)")
      ]]):format(server.dir .. "/kept", server.dir .. "/ca.pem",
        server:url("a?raw=" .. raw))))
      local why, peak = out:match "^(.-)%s+(%d+)$"
      assert.matches("the header has no end", why)
      assert.is_true(tonumber(peak) < 30000, raw .. ": " .. peak .. " KiB")
    end
  end)

  it("gives up at its time, be it the header or the body that comes a byte at a time", function()
    for _, raw in ipairs { "slow", "slowhead" } do
      local begun = core.clock()
      assert_refused("not finished in time", keep("a?raw=" .. raw, nil, 1))
      assert.is_true(core.clock() - begun < 10000)
    end
  end)

  it("believes no Retry-After that is none, and none of more than a day", function()
    for given, wanted in pairs {
      ["99999999999999999999999"] = 86400, ["9223372036854775807"] = 86400, ["86401"] = 86400, ["86400"] = 86400,
      ["-5"] = false, ["soon"] = false, ["0"] = false, [""] = false, ["1e3"] = false,
      ["299.997"] = 300, ["0.1"] = 1, ["5+minutes"] = false,
      ["Sun%2C+06+Nov+1994+08:49:37+GMT"] = false,
      ["Fri%2C+31+Dec+9999+23:59:59+GMT"] = 86400,
    } do
      local _, reason, how = keep("a?status=503&retry=" .. given)
      assert.matches("answered 503", reason)
      local got = how.not_before or false
      if #given ~= 23 then -- that one is beyond libcurl's numbers: none, or the most
        assert.same({ given, wanted }, { given, got })
      end
    end
  end)

  it("keeps no cookie, takes no other way, asks nothing but the one thing", function()
    keep "a?status=503&header=Set-Cookie:a=b"
    keep 'a?status=503&header=Alt-Svc:h2="127.0.0.1:1"'
    keep "a?status=401&header=WWW-Authenticate:Basic+realm=x"
    keep "a?status=407&header=Proxy-Authenticate:Basic+realm=x"
    keep "a?cut=500&header=Set-Cookie:a=b&size=3000"
    keep "a?cut=500&header=Set-Cookie:a=b&size=3000"
    for _, request in ipairs(server:requests()) do
      for _, name in ipairs { "cookie", "authorization", "proxy-authorization", "referer", "origin", "upgrade" } do
        assert.is_nil(request.headers[name])
      end
      assert.equal("img.localhost:" .. server.port, request.headers.host)
      assert.equal("identity", request.headers["accept-encoding"])
    end
    assert.equal(6, #server:requests())
  end)

  it("uses no password of the user's .netrc", function()
    kit.write(server.dir .. "/.netrc", "machine img.localhost login me password secret\n")
    kit.sh("chmod 600 " .. server.dir .. "/.netrc")
    kit.sh(("HOME=%s "):format(server.dir) .. kit.lua_command(([[
      require "mjhook.handlers.archive" { dir = %q, ca_file = %q, loopback = true }(
        { ref = "01KC", created_at = 0, images = { %q } }, { type = "succeeded", timeout = 5 })
    ]]):format(server.dir .. "/kept", server.dir .. "/ca.pem",
        server:url "a")))
    assert.equal(1, #server:requests())
    assert.is_nil(server:requests()[1].headers.authorization)
  end)

  -- 3000 bytes, of which some are there: what a 206 says of the rest.
  for what, range in pairs {
    ["beyond the end"] = "bytes {from}-99999/{size}", ["larger than it is"] = "bytes {from}-{last}/99999",
    ["of unknown size"] = "bytes {from}-{last}/*", ["from elsewhere"] = "bytes 0-{last}/{size}",
    ["backwards"] = "bytes {last}-{from}/{size}", ["in other units"] = "lines {from}-{last}/{size}",
    ["with more after it"] = "bytes {from}-{last}/{size} ", ["twice"] = "bytes {from}-{last}/{size}, bytes 0-1/2",
    ["negative"] = "bytes -{from}-{last}/{size}", ["hex"] = "bytes 0x{from}-{last}/{size}", ["of nothing"] = "",
    ["large"] = "bytes {from}-9223372036854775806/9223372036854775807", ["none"] = "none",
    ["too large"] = "bytes {from}-99999999999999999998/99999999999999999999",
  } do
    it("goes on by no range that is " .. what, function()
      local path = "a?size=3000&cut=2000&range=" .. range:gsub("[ {},/]", function(c)
        return ("%%%02x"):format(c:byte())
      end)
      assert.is_false((keep(path)))
      assert_kept(3000, keep(path))
      local sent = server:wait_requests(2)
      assert.is_truthy(sent[2].headers.range)
      if #sent > 2 then
        assert.is_nil(sent[3].headers.range)
      end
      assert.equal(range:match " $" and 2 or 3, #sent)
    end)
  end

  it("keeps nothing that is shorter than the range had promised, though the answer is whole", function()
    local path = "a?size=3000&cut=2000&range=bytes%20%7Bfrom%7D-3999%2F4000"
    assert.is_false((keep(path)))
    assert_refused("the answer broke off", keep(path))
    assert.equal(2, #server:wait_requests(2))
  end)

  it("begins anew when the rest is said to be something else, and not when nothing is said of it", function()
    for path, requests in pairs { ["a?size=3000&cut=2000&resttype=text/html"] = 3,
                                  ["b?size=3000&cut=2000&resttype="] = 2 } do
      server = images.start()
      assert.is_false((keep(path)))
      assert_kept(3000, keep(path))
      local sent = server:wait_requests(requests)
      assert.same({ requests, true, requests == 2 },
        { #sent, sent[2].headers.range ~= nil, sent[requests].headers.range ~= nil })
    end
  end)

  it("begins anew where there is less than an image begins with", function()
    assert.is_false((keep "a?size=3000&cut=8"))
    assert.equal(8, #kit.read(server.dir .. "/kept/2026-05-04/.01KB-1.part"))
    assert_kept(3000, keep "a?size=3000&cut=8")
    assert.is_nil(server:wait_requests(2)[2].headers.range)
  end)

  it("asks for one byte where all are there and only the end was missing", function()
    assert.is_false((keep "a?size=3000&length=0&cut=3000"))
    assert_kept(3000, keep "a?size=3000&length=0&cut=3000")
    local sent = server:wait_requests(2)
    assert.same({ 2, 1, "bytes=2999-" }, { #sent, sent[2].sent, sent[2].headers.range })
  end)

  it("asks a second time from the start, and never a third time, of a server that only gives parts", function()
    local path = "a?size=3000&cutall=2000&ranges=bad"
    assert.is_false((keep(path)))
    assert.is_false((keep(path)))
    assert.equal(3, #server:wait_requests(3))
  end)
end)

describe("core.fetch", function()
  after_each(kit.cleanup)

  before_each(function()
    server = images.start()
  end)

  local function open(more)
    local settings = { sub = "day" }
    for k, v in pairs(server:settings(more)) do
      settings[k] = v
    end
    local downloads, err = core.fetch(settings)
    assert(downloads, err and err.message)
    return downloads
  end

  it("begins with nothing that is announced as larger than allowed, also when it comes in pieces", function()
    local d = open { max_bytes = 200000 }
    d:add("a", server:url "a?size=300000&drip=0")
    local _, got = d:next(core.clock() + 5000)
    assert.same({ "size", 0 }, { got.outcome, got.received })
    d:close()
  end)

  it("keeps and drops only what has ended, and keeps only what is whole", function()
    local d = open()
    assert.equal(1, d:add("a", server:url "a?size=300000&drip=0.01"))
    assert.equal(2, d:add("b", server:url "b?status=404"))
    assert.has_error(function()
      d:keep(1, "a.png")
    end, "bad argument #1 to 'keep' (not ended yet)")
    assert.has_error(function()
      d:drop(1)
    end, "bad argument #1 to 'drop' (not ended yet)")
    local i, got = d:next(core.clock() + 10000)
    assert.same({ 2, "status" }, { i, got.outcome })
    assert.has_error(function()
      d:keep(2, "b.png")
    end, "bad argument #1 to 'keep' (not complete, or kept or dropped already)")
    assert.has_error(function()
      d:drop(1)
    end, "bad argument #1 to 'drop' (not ended yet)")
    d:drop(2)
    d:drop(2)
    i, got = d:next(core.clock() + 20000)
    assert.same({ 1, "done" }, { i, got.outcome })
    assert.is_string(d:keep(1, "a.png"))
    assert.has_error(function()
      d:keep(1, "a.png")
    end, "bad argument #1 to 'keep' (not complete, or kept or dropped already)")
    d:drop(1)
    assert.is_string((d:hash "a.png"))
    assert.is_nil((d:next(core.clock() + 1000)))
    for _, index in ipairs { 0, 3, -1, 2 ^ 40 } do
      assert.has_error(function()
        d:drop(index)
      end)
    end
    d:close()
  end)

  it("takes any number for a deadline", function()
    for _, deadline in ipairs { -math.huge, -2 ^ 62, -1, 0, 0 / 0 } do
      local d = open()
      d:add("a", server:url "a?hang=1")
      local _, got = d:next(deadline)
      assert.equal("time", got.outcome)
      d:close()
    end
    for _, deadline in ipairs { math.huge, 2 ^ 62, 2 ^ 63, 1e300 } do
      local d = open()
      d:add("a", server:url "a")
      local _, got = d:next(deadline)
      assert.equal("done", got.outcome)
      d:close()
    end
  end)

  it("goes on with nothing that turns out to be larger than allowed, or no image", function()
    local path = "a?size=300000&cut=200000"
    local d = open()
    d:add("a", server:url(path))
    local _, got = d:next(core.clock() + 10000)
    assert.equal("net", got.outcome)
    local there = got.received
    assert.is_true(there > 100000)
    assert.equal(there, got.bytes)
    d:close()
    d = open { max_bytes = 299999 }
    d:add("a", server:url(path))
    _, got = d:next(core.clock() + 10000)
    assert.same({ "size", 206, 0, there }, { got.outcome, got.status, got.received, got.bytes })
    d:close()
    d = open { max_bytes = 1000 } -- less than there is
    d:add("a", server:url(path))
    _, got = d:next(core.clock() + 10000)
    assert.same({ "size", 0 }, { got.outcome, got.received })
    d:add("b", server:url "b?size=1001") -- as announced
    _, got = d:next(core.clock() + 10000)
    assert.same({ "size", 200, 0 }, { got.outcome, got.status, got.received })
    d:close()
    local file = assert(io.open(server.dir .. "/kept/day/.a.part", "r+b"))
    file:write "<svg onload=alert(1)>"
    file:close()
    d = open()
    d:add("a", server:url(path))
    _, got = d:next(core.clock() + 10000)
    assert.same({ "type", 206, 0 }, { got.outcome, got.status, got.received })
    d:close()
  end)

  it("takes names of files only", function()
    local d = open()
    for _, name in ipairs { "", ".", "..", ".a", "a/b", "/a", "../a", "a\0b", ("n"):rep(101) } do
      for _, method in ipairs { "add", "hash" } do
        local ok, why = pcall(d[method], d, name, server:url "a")
        assert.is_false(ok)
        assert.matches("not a file name", why)
      end
    end
    assert.equal(1, d:add(("n"):rep(100), server:url "a"))
    d:next(core.clock() + 10000)
    for _, name in ipairs { "", "..", "a/b", "../a", "a\0b", ("n"):rep(101) } do
      assert.is_false((pcall(d.keep, d, 1, name)))
    end
    assert.is_string(d:keep(1, ("m"):rep(100)))
    d:close()
  end)

  it("raises on settings that are none", function()
    local many = {}
    for i = 1, 65 do
      many[i] = "a"
    end
    for pattern, given in pairs {
      ["dir: a path"] = { dir = "" }, ["sub: a name"] = { sub = "../x" }, ["'dir'"] = { dir = 1 },
      ["mode: 0400 to 0777"] = { mode = 511 + 1024 }, ["mode: 0400 to 0777 "] = { mode = 36 },
      ["mode: 0400"] = { mode = -1 }, ["'hosts'"] = { hosts = { 1, "a" } }, ["'hosts' "] = { hosts = { "a", false } },
      ["'hosts': a list"] = { hosts = "a" }, ["'hosts': a list "] = { hosts = { {} } },
      ["'hosts' is too long"] = { hosts = many },
    } do
      local ok, why = pcall(open, given)
      assert.is_false(ok)
      assert.matches((pattern:gsub(" $", "")), why)
    end
  end)

  it("fetches from nowhere when the list of hosts is empty", function()
    local d = open { hosts = {} }
    d:add("a", server:url "a")
    local _, got = d:next(core.clock() + 10000)
    assert.equal("url", got.outcome)
    assert.same({}, server:requests())
    d:close()
  end)

  it("has room for 64 downloads, tells of the next, and does them all", function()
    local d, seen = open(), 0
    for i = 1, 64 do
      assert.equal(i, d:add("n" .. i, server:url("a?seed=" .. i)))
    end
    local none, err = d:add("n65", server:url "a")
    assert.same({ nil, "limit" }, { none, err.code })
    for i, got in function() return d:next(core.clock() + 30000) end do
      assert.equal("done", got.outcome)
      assert.is_string(d:keep(i, ("n%d.png"):format(i)))
      seen = seen + 1
    end
    assert.equal(64, seen)
    assert.is_true(d:sync())
    d:close()
  end)

  -- One download is at work when the other has ended.
  local function at_work()
    local d = open()
    d:add("a", server:url "a?size=100000&drip=0.01")
    d:add("b", server:url "b")
    local i, got = d:next(core.clock() + 5000)
    assert.same({ 2, "done" }, { i, got.outcome })
    return d
  end

  it("is left alone by a process that was forked from its own", function()
    local d = at_work()
    local child = assert(core.fork(function()
      d:close()
    end))
    kit.wait_until(function() return child:hear() == false end)
    assert.same({ exit = 0 }, child:stop())
    local i, got = d:next(core.clock() + 10000)
    assert.same({ 1, "done", 100000 }, { i, got.outcome, got.bytes })
    d:close()
  end)

  it("gives no connection to programs that are started meanwhile", function()
    local d = at_work()
    local pid = kit.read("/proc/self/stat"):match "%d+"
    local connections = kit.read "/proc/net/tcp"
    local sockets, kept = 0, 0
    for fd in kit.sh("ls /proc/" .. pid .. "/fd"):gmatch "%d+" do
      local flags = (kit.read(("/proc/%s/fdinfo/%s"):format(pid, fd)) or ""):match "flags:%s*(%d+)"
      local inode = kit.sh(("readlink /proc/%s/fd/%s"):format(pid, fd)):match "^socket:%[(%d+)%]$"
      if flags and inode and connections:find(" " .. inode .. " ", 1, true) then
        sockets = sockets + 1
        kept = kept + (math.floor(tonumber(flags, 8) / 524288) % 2 == 0 and 1 or 0) -- O_CLOEXEC
      end
    end
    assert.is_true(sockets > 0)
    assert.equal(0, kept)
    d:close()
  end)

  it("leaves nothing open, closed or forgotten in the middle, and can't be used after", function()
    open():close()
    collectgarbage() -- what others left
    collectgarbage()
    local before = kit.descriptors()
    for _ = 1, 5 do
      local d = open()
      d:add("a", server:url "a?hang=1")
      d:add("b", server:url "b")
      d:next(core.clock() + 10000)
      assert.is_nil((d:add("a", server:url "a"))) -- it is busy with that name
      d:close()
      d:close()
      for _, method in ipairs { "add", "next", "keep", "drop", "hash", "sync" } do
        assert.has_error(function()
          d[method](d, "a", "b")
        end, "the downloads are closed")
      end
      d = open()
      d:add("a", server:url "a?hang=1")
      d:next(core.clock() + 20)
      d = nil -- luacheck: ignore
      collectgarbage()
      collectgarbage()
    end
    assert.equal(before, kit.descriptors())
  end)
end)
