-- mjhook.handlers.archive: downloads over real TLS sockets, from servers in all their moods.
local archive = require "mjhook.handlers.archive"
local core = require "mjhook.core"
local images = require "images"
local kit = require "kit"

describe("the archive handler", function()
  after_each(kit.cleanup)

  local server, task

  before_each(function()
    server = images.start()
    task = { ref = "01KB", state = "succeeded", prompt = "a fox", created_at = 1777852800000 } -- 2026-05-04
  end)

  local function ctx(timeout)
    return { event_id = "01KB-1", type = "succeeded", attempt = 1, created_at = 1777852860000, timeout = timeout or 10 }
  end

  -- What became of images at these paths.
  local function keep(paths, more, timeout)
    task.images = {}
    for i, path in ipairs(type(paths) == "table" and paths or { paths }) do
      task.images[i] = path:match "^%w+:" and path or server:url(path)
    end
    return archive(server:settings(more))(task, ctx(timeout))
  end

  local function kept_files()
    return (kit.sh(("cd %s/kept 2>/dev/null && find . -type f -o -type l | sort"):format(server.dir)))
  end

  local function hex(text)
    return (core.sha256(text):gsub(".", function(c)
      return ("%02x"):format(c:byte())
    end))
  end

  -- The file is there under its name, with what the handler says of it.
  local function assert_kept(file, index, name, type, bytes)
    assert.same({ index, server.dir .. "/kept/2026-05-04/" .. name, type, bytes },
      { file.index, file.path, file.type, file.bytes })
    local text = kit.read(file.path)
    assert.equal(bytes, #text)
    assert.equal(hex(text), file.sha256)
  end

  local function assert_refused(pattern, bury, handled, reason, how)
    assert.is_false(handled)
    assert.matches(pattern, reason)
    assert.equal(bury, how and how.bury or false)
  end

  describe("keeps", function()
    it("the grid and every image under names made of ref and index, with hash, size and type", function()
      task.image = server:url "grid?size=5000"
      local result = keep { "a?size=70000&seed=1", "b?kind=jpg", "c?kind=webp", "d?kind=gif&size=12" }
      assert.equal(5, #result.files)
      assert_kept(result.files[1], 0, "01KB-0.png", "image/png", 5000)
      assert_kept(result.files[2], 1, "01KB-1.png", "image/png", 70000)
      assert_kept(result.files[3], 2, "01KB-2.jpg", "image/jpeg", 1000)
      assert_kept(result.files[4], 3, "01KB-3.webp", "image/webp", 1000)
      assert_kept(result.files[5], 4, "01KB-4.gif", "image/gif", 12)
      assert.equal("./2026-05-04/01KB-0.png\n./2026-05-04/01KB-1.png\n./2026-05-04/01KB-2.jpg\n"
        .. "./2026-05-04/01KB-3.webp\n./2026-05-04/01KB-4.gif", kept_files())
    end)

    it("an image that is named twice once", function()
      task.image = server:url "a"
      local result = keep { "a", "b?seed=1" }
      assert.same({ 0, 1, 2 }, { result.files[1].index, result.files[2].index, result.files[3].index })
      assert.equal(result.files[1].path, result.files[2].path)
      assert.equal(2, #server:requests())
    end)

    it("what the first bytes say it is, whatever the header and the URL say", function()
      assert_kept(keep("x.png?kind=jpg&type=image/png").files[1], 1, "01KB-1.jpg", "image/jpeg", 1000)
    end)

    it("one without an announced length", function()
      assert_kept(keep("a?length=0&size=200000").files[1], 1, "01KB-1.png", "image/png", 200000)
    end)

    it("large ones without holding them in memory", function()
      local before = tonumber(kit.read("/proc/self/status"):match "VmHWM:%s+(%d+)")
      local file = keep({ "a?size=40000000&length=0" }, nil, 60).files[1]
      assert_kept(file, 1, "01KB-1.png", "image/png", 40000000)
      local out = kit.sh(kit.lua_command(([[
        local archive = require "mjhook.handlers.archive"
        local result = assert(archive { dir = %q, ca_file = %q, loopback = true }(
          { ref = "01KC", created_at = 0, images = { %q } }, { type = "succeeded", timeout = 60 }))
        local file = io.open "/proc/self/status"
        print(result.files[1].bytes, file:read("*a"):match "VmHWM:%%s+(%%d+)")
      ]]):format(server.dir .. "/kept", server.dir .. "/ca.pem",
        server:url "a?size=40000000&length=0")))
      local bytes, peak = out:match "(%d+)%s+(%d+)"
      assert.equal("40000000", bytes)
      assert.is_true(kit.sanitized or tonumber(peak) < 30000, peak .. " KiB")
      assert.is_number(before)
    end)

    it("days as they are in UTC, wherever the machine is", function()
      local out, code = kit.sh("TZ=XYZ-14 " .. kit.lua_command(([[
        require "mjhook.handlers.archive" { dir = %q }({ ref = "01KB", created_at = 1777852800000 + 82800000,
          image = "http://img.localhost/" }, { type = "succeeded", timeout = 5 })
      ]]):format(server.dir .. "/kept")))
      assert.same({ "", 0, "2026-05-04" }, { out, code, (kit.sh("ls " .. server.dir .. "/kept")) })
    end)

    it("files that no other user can read, or in the mode asked for", function()
      local function modes(more)
        keep("a", more)
        return (kit.sh(("cd %s && stat -c %%a 2026-05-04 2026-05-04/01KB-1.png"):format(more.dir)))
      end
      assert.equal("700\n600", modes { dir = server.dir .. "/one" })
      assert.equal("755\n644", modes { dir = server.dir .. "/two", mode = "0644" })
      assert.equal("750\n640", modes { dir = server.dir .. "/three", mode = "640" })
    end)

    it("nothing of an event that is no success, or of a task without images", function()
      task.image = server:url "a"
      local lost = ctx()
      lost.type = "lost"
      assert.is_true(archive(server:settings())(task, lost))
      task.image = nil
      assert.is_true(archive(server:settings())(task, ctx()))
      assert.equal("", kept_files())
    end)

    it("what it fetched as files of the task's record, for the handlers after it, too", function()
      local mj = kit.open { policy = {} }
      local ref = assert(mj:adopt { task_id = "A1", prompt = "a fox" }).ref
      assert(mj.exec:commit { { op = "signal", ref = ref, kind = "succeeded", source = "callback", task_id = "A1",
                                images = { server:url "a" } } })
      mj:close()
      mj = assert(require("mjhook").open { store = kit.store, api_key = "k", policy = {
        on_succeeded = archive(server:settings()) } })
      kit.finally(function()
        mj:close()
      end)
      assert.equal(1, assert(mj:deliver { isolate = true }).delivered)
      local files = mj:get(ref).files
      assert.matches(ref .. "%-1%.png$", files[1].path)
      assert.equal(hex(kit.read(files[1].path)), files[1].sha256)
    end)
  end)

  describe("goes on", function()
    it("where a connection broke, and asks only for what is missing", function()
      local paths = { "a?size=300000&cut=200000" }
      assert_refused("0 of 1 kept; image 1: img.localhost: ", false, keep(paths))
      assert.equal("./2026-05-04/.01KB-1.from\n./2026-05-04/.01KB-1.part", kept_files())
      -- What a power cut leaves of the bytes is anybody's guess: they are of this boot or nothing.
      assert.matches("^mjhook%-part 1 " .. kit.read("/proc/sys/kernel/random/boot_id"):gsub("%X", "") .. " ",
        kit.read(server.dir .. "/kept/2026-05-04/.01KB-1.from"))
      assert_kept(keep(paths).files[1], 1, "01KB-1.png", "image/png", 300000)
      local second = server:requests()[2]
      assert.matches("^bytes=%d+%-$", second.headers.range)
      assert.matches('^"%x+"$', second.headers["if-range"])
      assert.is_true(second.sent < 200000, second.sent)
      assert.equal("./2026-05-04/01KB-1.png", kept_files())
    end)

    it("from what is whole already, without another request", function()
      local first = keep { "a?seed=1", "b?seed=2" }
      assert.same(first, keep { "a?seed=1", "b?seed=2" })
      assert.equal(2, #server:requests())
    end)

    it("with the rest when one image is missing", function()
      local paths = { "a", "b?status=404" }
      assert_refused("1 of 2 kept; image 2: img.localhost: answered 404$", false, keep(paths))
      keep(paths)
      assert.equal(3, #server:requests())
    end)

    it("where its time was up, and soon", function()
      local paths = { "a?size=30000&drip=0.1" }
      local handled, reason, how = keep(paths, { timeout = 1 })
      assert_refused("not finished in time", false, handled, reason, how)
      assert.equal(5, how.retry_after)
      assert_kept(keep(paths, nil, 20).files[1], 1, "01KB-1.png", "image/png", 30000)
    end)

    for what, query in pairs {
      ["has another one by then"] = "etag=changes", ["gives no strong ETag"] = "etag=weak",
      ["gives no ETag"] = "etag=none", ["sends other bytes than asked for"] = "ranges=bad",
      ["ignores what is asked for"] = "ranges=no", ["answers with a part of another one"] = "etag=changes&ranges=lie",
    } do
      it("from the first byte when the server " .. what, function()
        local paths = { "a?size=300000&cut=200000&" .. query }
        assert.is_false((keep(paths)))
        local result = keep(paths)
        assert_kept(result.files[1], 1, "01KB-1.png", "image/png", 300000)
        assert.equal(300000, server:wait_requests(2)[#server:requests()].sent)
      end)
    end

    it("from the first byte when it comes from another URL", function()
      assert.is_false((keep { "a?size=300000&cut=200000" }))
      assert_kept(keep({ "b?size=300000&seed=5" }).files[1], 1, "01KB-1.png", "image/png", 300000)
      assert.is_nil(server:requests()[2].headers.range)
    end)
  end)

  describe("refuses", function()
    it("what is no image by its header", function()
      assert_refused("image 1: img.localhost: not an image by its type, \"text/html\"", false, keep "a?type=text/html")
      assert_refused("not an image by its type, \"\"", false, keep "b?type=")
      assert.equal("", kept_files())
    end)

    it("what is no image by its first bytes", function()
      assert_refused("not an image by its first bytes", false, keep "a?kind=html&type=image/png")
      assert_refused("not an image by its first bytes", false, keep "a?size=3")
      assert_refused("empty", false, keep "b?size=0")
      assert.equal("", kept_files():gsub("[^\n]*%.from\n?", ""):gsub("[^\n]*%.part\n?", ""))
    end)

    it("what is larger than allowed, announced or not, and never tries again", function()
      assert_refused("larger than allowed", true, keep("a?size=2001", { max_bytes = 2000 }))
      assert_refused("larger than allowed", true, keep("b?size=200000&length=0", { max_bytes = 2000 }))
      assert.equal("", kept_files())
      assert.is_table(keep("c?size=2000", { max_bytes = 2000 }))
    end)

    it("URLs that are not https on port 443, at once and for good", function()
      for _, url in ipairs { "http://img.localhost/a", "https://img.localhost:8443/a", "ftp://img.localhost/a",
                             "file:///etc/passwd", "https://user@img.localhost/a", "https://user:word@img.localhost/a",
                             "gopher://img.localhost/a" } do
        local handled, reason, how = keep(url, { loopback = false })
        assert_refused("image 1: .*fetched", true, handled, (reason:gsub("not an https URL", "not fetched")
          :gsub("not a URL", "not fetched")), how)
        assert.is_nil(reason:find("word", 1, true))
      end
      assert.same({}, server:requests())
    end)

    it("addresses that are not public, however they are written", function()
      for _, host in ipairs { "127.0.0.1", "2130706433", "0x7f.1", "0177.0.0.1", "localhost", "[::1]",
                              "[::ffff:127.0.0.1]",
                              "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[fe80::1]", "[fd00::1]", "10.0.0.1",
                              "169.254.169.254",
                              "192.168.1.1", "172.16.0.1", "100.64.0.1", "0.0.0.0", "[::]", "224.0.0.1",
                              "255.255.255.255",
                              "[2002:7f00:1::]", "127.0.0.1.", "127%2e0%2e0%2e1" } do
        local handled, reason = keep("https://" .. host .. "/a", { loopback = false })
        assert.is_false(handled, host)
        assert.truthy(reason:find("no public address", 1, true) or reason:find("not a URL", 1, true)
          or reason:find("resolve", 1, true), host .. ": " .. reason)
      end
    end)

    it("a name that leads to a private address at the moment of connecting, and tells so once and for all", function()
      assert_refused("image 1: img.localhost: no public address: not connected to", true,
        keep("https://img.localhost/a", { loopback = false }))
      assert.same({}, server:requests())
    end)

    it("a public address on another port or without TLS, also where loopback is fetched from", function()
      for _, url in ipairs { "https://8.8.8.8:22/a", "http://8.8.8.8/a", "http://10.0.0.1/a" } do
        assert_refused("no public address", true, keep(url, { loopback = true }))
      end
    end)

    it("hosts that are not on the list, and fetches from those that are", function()
      assert_refused("img.localhost: not one of the hosts", true, keep("a", { hosts = { "cdn.localhost" } }))
      assert_refused("not one of the hosts", true, keep("a", { hosts = { ".img.localhost",
        "localhost", "mg.localhost" } }))
      assert.is_table(keep("a", { hosts = { "cdn.localhost", "IMG.localhost" } }))
      assert.is_table(keep("a", { hosts = { ".localhost" } }))
    end)

    it("to follow a redirect", function()
      assert_refused("answered 302, and redirects are not followed", false,
        keep("a?status=302&to=" .. server:url "b"))
      assert.equal(1, #server:requests())
    end)

    it("to go by a proxy of the environment", function()
      local proxy = require("peer").start { { { "hang" } } }
      -- Not with `no_proxy=*`, which the suites run with: nothing would go by a proxy then, whatever the code says.
      local out = kit.sh(("no_proxy= NO_PROXY= https_proxy=%s ALL_PROXY=%s HTTPS_PROXY=%s "):format(
        proxy.url, proxy.url, proxy.url)
        .. kit.lua_command(([[
        local archive = require "mjhook.handlers.archive"
        local result, why = archive { dir = %q, ca_file = %q, loopback = true }(
          { ref = "01KC", created_at = 0, images = { %q } }, { type = "succeeded", timeout = 5 })
        print(result and result.files[1].bytes or why)
      ]]):format(server.dir .. "/kept", server.dir .. "/ca.pem",
        server:url "a")))
      assert.equal("1000", out)
      assert.same({}, proxy:received())
    end)

    it("a certificate that is not the host's, or of no authority that it trusts", function()
      local other = images.start "other.localhost"
      assert_refused("image 1: img.localhost: ", false, keep(other:url "a", { ca_file = other.dir .. "/ca.pem" }))
      assert_refused("image 1: img.localhost: ", false, keep("a", { ca_file = other.dir .. "/ca.pem" }))
      assert.same({}, other:requests())
      assert.same({}, server:requests())
    end)
  end)

  describe("tries again", function()
    it("not before a server wants it", function()
      local _, reason, how = keep { "a?status=429&retry=7", "b?status=503&retry=20", "c?status=500" }
      assert.matches("image 1: img.localhost: answered 429; image 2: img.localhost: answered 503; "
        .. "image 3: img.localhost: answered 500$", reason)
      assert.same({ not_before = 20 }, how)
    end)

    it("when some are hopeless and others are not, and gives up when the others are there", function()
      assert_refused("410.*404", false, keep { "a", "b?status=410", "c?status=404" })
      assert_refused("404.*410", false, keep { "a", "b?status=404", "c?status=410" })
      assert_refused("1 of 2 kept; image 2: img.localhost: answered 410", true, keep { "a", "b?status=410" })
    end)

    it("after its time, when a server never answers", function()
      local begun = core.clock()
      assert_refused("not finished in time", false, keep("a?hang=1", nil, 1))
      assert.is_true(core.clock() - begun < 15000)
    end)

    it("when the directory can't be made or written to, and says which", function()
      kit.write(server.dir .. "/file", "")
      assert_refused("archive: .*/file/2026%-05%-04: Not a directory", false, keep("a", {
        dir = server.dir .. "/file" }))
      assert_refused("archive: .*/none/kept/2026%-05%-04: No such file", false,
        keep("a", { dir = server.dir .. "/none/kept" }))
    end)

    it("when it can't make the names last, though every image is there", function()
      local fetch, synced = core.fetch, 0
      kit.finally(function() core.fetch = fetch end)
      core.fetch = function(settings)
        local real = assert(fetch(settings))
        return setmetatable({ sync = function()
          synced = synced + 1
          return nil, core.error("io", "the directory: Input/output error", true)
        end }, { __index = function(_, name)
          return function(_, ...) return real[name](real, ...) end
        end })
      end
      assert_refused("^archive: the directory: Input/output error$", false, keep "a")
      assert.equal(1, synced)
    end)

    it("when another process is at the same image", function()
      local first = kit.spawn("exec " .. kit.lua_command(([[
        local archive = require "mjhook.handlers.archive"
        local result, why = archive { dir = %q, ca_file = %q, loopback = true }(
          { ref = "01KB", created_at = 1777852800000, images = { %q } }, { type = "succeeded", timeout = 30 })
        print(result and result.files[1].bytes or why)
      ]]):format(server.dir .. "/kept", server.dir .. "/ca.pem",
        server:url "a?size=20000&drip=0.05")))
      kit.wait_until(function()
        return #(kit.read(server.dir .. "/kept/2026-05-04/.01KB-1.part") or "") > 0
      end)
      assert_refused("image 1: 01KB%-1: ", false, keep "a?size=20000&drip=0.05")
      assert.equal(0, first:wait())
      assert.equal("20000\n", kit.read(first.dir .. "/out"))
    end)
  end)

  describe("follows no link", function()
    it("in the place of a file or of a part: it is replaced, its target stays as it is", function()
      local target = kit.write(server.dir .. "/precious", "precious")
      kit.sh(("cd %s && mkdir -p kept/2026-05-04 && cd kept/2026-05-04 && ln -s ../../precious 01KB-1.png"
        .. " && ln -s ../../precious .01KB-1.part && ln -s ../../precious .01KB-1.from"):format(server.dir))
      assert_kept(keep("a").files[1], 1, "01KB-1.png", "image/png", 1000)
      assert.equal("precious", kit.read(target))
      assert.equal("./2026-05-04/01KB-1.png", kept_files())
    end)

    it("in the place of a day's directory: it is refused", function()
      kit.sh(("cd %s && mkdir kept elsewhere && ln -s ../elsewhere kept/2026-05-04"):format(server.dir))
      assert.is_false((keep "a"))
      assert.equal("", (kit.sh("ls -A " .. server.dir .. "/elsewhere")))
    end)
  end)

  it("says which setting is wrong when the policy is loaded", function()
    for pattern, given in pairs {
      ["dir: an absolute path"] = {}, ["dir: an absolute"] = { dir = "images" }, ["dir: string"] = { dir = 1 },
      ["folder: unknown"] = { dir = "/x", folder = "/y" }, ["mode: as for chmod"] = { dir = "/x", mode = "0888" },
      ["max_bytes: a whole"] = { dir = "/x", max_bytes = 0 },
      ["connections: a whole"] = { dir = "/x", connections = 65 },
      ["timeout: seconds"] = { dir = "/x", timeout = -1 }, ["hosts: a list"] = { dir = "/x", hosts = {} },
      ["hosts: a list of"] = { dir = "/x", hosts = { "a", 7 } }, ["table of settings"] = "dir",
    } do
      local ok, why = pcall(function() archive(given) end)
      assert.is_false(ok)
      assert.matches("handlers_archive_spec.lua:%d+: mjhook.handlers.archive: ", why)
      assert.matches(pattern, why)
    end
  end)
end)
