-- The example policies in scripts/policies, as they are shipped, on real events.
local images = require "images"
local kit = require "kit"
local sim = require "sim"

describe("the example policy", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local mj

  before_each(function()
    mj = kit.open({ policy = {} }, sim)
  end)

  local n = 0

  -- A task that came to this end.
  local function ended(kind, args, from)
    n = n + 1
    args.task_id = "P" .. n
    local task = assert(mj:adopt(args))
    assert.equal("ok", assert(mj.exec:commit { { op = "signal", ref = task.ref, kind = kind, source = "callback",
      task_id = args.task_id, image = kind == "succeeded" and (from or "https://img.example/") .. "grid.png" or nil,
      images = kind == "succeeded" and { (from or "https://img.example/") .. "0.png" } or nil,
      error = kind == "failed" and "banned words" or nil } })[1].code)
    return task.ref
  end

  -- Delivers with a policy and these environment variables, in a process of its own. Gives the report.
  local function deliver(policy, environment)
    local words = {}
    for name, value in pairs(environment) do
      words[#words + 1] = name .. "=" .. kit.quote(value)
    end
    local out, code = kit.sh(table.concat(words, " ") .. " " .. kit.lua_command(([[
      local mj, err = require("mjhook").open { store = %q, api_key = "k", policy = %q, log = function() end }
      if not mj then
        io.write(err.message)
        os.exit(1)
      end
      local report = assert(mj:deliver())
      io.write(report.delivered, " ", report.errors)
    ]]):format(kit.store, kit.root .. "/scripts/policies/" .. policy .. ".lua")))
    return out, code
  end

  describe("email", function()
    local dir, sendmail

    before_each(function()
      dir = kit.tmp()
      sendmail = kit.write(dir .. "/sendmail", ('#!/bin/sh\nprintf "%%s " "$@" >>%s/args; cat >>%s/mail\n'):format(dir,
        dir))
      os.execute("chmod 700 " .. sendmail)
    end)

    local function tell()
      return deliver("email", { SENDMAIL = sendmail, MAIL_FROM = "art@example.org" })
    end

    it("tells who asked, with the addresses of the images", function()
      local ref = ended("succeeded", { prompt = "a fox", context = { email = "ada@example.org" } })
      assert.equal("1 0", (tell()))
      local mail = kit.read(dir .. "/mail")
      assert.equal("-t -i ", kit.read(dir .. "/args"))
      for _, text in ipairs { "From: art@example.org\nTo: ada@example.org\nSubject: Your image is ready\n",
                              ("\nMessage-ID: <%s-1@mjhook>\n"):format(ref), "\n\nYou asked for: a fox\n",
                              "\nhttps://img.example/grid.png\nhttps://img.example/0.png\n" } do
        assert.truthy(mail:find(text, 1, true), text)
      end
    end)

    it("tells of a failure why", function()
      ended("failed", { prompt = "a fox", context = { email = "ada@example.org" } })
      assert.equal("1 0", (tell()))
      assert.truthy(kit.read(dir .. "/mail"):find("Subject: Your image could not be made", 1, true))
      assert.truthy(kit.read(dir .. "/mail"):find("\nWhat was said: banned words\n", 1, true))
    end)

    it("lets nothing that a user wrote become a header or an argument", function()
      ended("succeeded", { prompt = "x\nBcc: evil@example.org\n\n.", context = { email = "ada@example.org" } })
      ended("succeeded", { prompt = "x", context = { email = "a@b.c\nBcc: evil@example.org" } })
      ended("succeeded", { prompt = "x", context = { email = "-Xfile evil@example.org" } })
      ended("succeeded", { prompt = "x", context = { email = { "a@b.c" } } })
      ended("succeeded", { prompt = "x", context = { 7 } })
      ended("succeeded", { prompt = "x" })
      assert.equal("6 0", (tell()))
      local mail = kit.read(dir .. "/mail")
      assert.is_nil(mail:find("\nBcc", 1, true))
      assert.equal(1, select(2, mail:gsub("\nMessage%-ID: ", "")))
    end)

    it("starts sendmail without a shell, a temporary file or a secret", function()
      kit.write(sendmail, ('#!/bin/sh\nprintf "%%s|" "$@" >%s/args; env >%s/env; cat >/dev/null\n'):format(dir, dir))
      os.execute("chmod 700 " .. sendmail)
      ended("succeeded", { prompt = "a fox", context = { email = "ada@example.org" } })
      assert.equal("1 0", (deliver("email", { SENDMAIL = sendmail .. " -a $HOME >" .. dir .. "/shell",
                                              MJHOOK_SECRET = "secret1 of these specs", MIDJOURNEY_API_KEY = "key1",
                                              TMPDIR = "/nowhere" })))
      assert.equal(("-a|$HOME|>%s/shell|-t|-i|"):format(dir), kit.read(dir .. "/args"))
      assert.is_nil(kit.read(dir .. "/shell"))
      assert.is_nil(kit.read(dir .. "/env"):find("secret1", 1, true))
      assert.is_nil(kit.read(dir .. "/env"):find("key1", 1, true))
    end)

    it("waits when the mail is not taken", function()
      kit.write(sendmail, "#!/bin/sh\nexit 75\n")
      os.execute("chmod 700 " .. sendmail)
      local ref = ended("succeeded", { prompt = "a fox", context = { email = "ada@example.org" } })
      assert.equal("0 1", (tell()))
      assert.truthy(mj:events { ref = ref }().errors[1].message:find("did not take the mail", 1, true))
    end)
  end)

  describe("gallery", function()
    local server, gallery

    before_each(function()
      server = images.start()
      gallery = server.dir .. "/gallery"
    end)

    -- The policy is as shipped; what is other is the images' host, and which certificate to trust.
    local function policy()
      local real = require "mjhook.handlers.archive"
      kit.finally(function()
        package.loaded["mjhook.handlers.archive"] = real
      end)
      package.loaded["mjhook.handlers.archive"] = function(settings)
        return real(server:settings(settings))
      end
      local getenv = os.getenv
      os.getenv = function(name) -- luacheck: ignore
        return name == "GALLERY" and gallery or getenv(name)
      end
      local ok, functions = pcall(dofile, kit.root .. "/scripts/policies/gallery.lua")
      os.getenv = getenv -- luacheck: ignore
      assert(ok, functions)
      return functions
    end

    local function task(ref, more)
      local one = { ref = ref, state = "succeeded", prompt = "a fox", created_at = 1777852800000, -- 2026-05-04
                    image = server:url "grid", images = { server:url "a?kind=jpg" } }
      for name, value in pairs(more or {}) do
        one[name] = value
      end
      return one
    end

    local function ctx()
      return { event_id = "x-1", type = "succeeded", attempt = 1, created_at = 1777852860000, timeout = 10 }
    end

    it("keeps the images and shows them on the page of their day, once", function()
      local functions = policy()
      local result = functions.on_succeeded(task "01KB", ctx())
      assert.equal(2, #result.files)
      assert.same(result, functions.on_succeeded(task "01KB", ctx()))
      functions.on_succeeded(task("01KC", { prompt = "</figure><script>\n" }), ctx())
      functions.on_succeeded(task("01KD", { created_at = 1777852800000 - 1000 }), ctx())
      assert.equal([[<figure id="01KB"><img src="01KB-0.png" loading=lazy><img src="01KB-1.jpg" loading=lazy>]]
        .. "<figcaption>a fox</figcaption></figure>\n"
        .. [[<figure id="01KC"><img src="01KC-0.png" loading=lazy><img src="01KC-1.jpg" loading=lazy>]]
        .. "<figcaption>&lt;/figure&gt;&lt;script&gt; </figcaption></figure>\n",
        kit.read(gallery .. "/2026-05-04/index.html"):match "</style>\n(.*)")
      assert.equal('<p><a href="2026-05-04/">2026-05-04</a></p>\n<p><a href="2026-05-03/">2026-05-03</a></p>\n',
        kit.read(gallery .. "/index.html"):match "</style>\n(.*)")
      assert.equal("644\n755", (kit.sh(("cd %s/2026-05-04 && stat -c %%a 01KB-0.png ."):format(gallery))))
    end)

    it("shows nothing of a task before all of its images are there", function()
      local functions = policy()
      local kept, why = functions.on_succeeded(task("01KB", { image = server:url "b?status=503" }), ctx())
      assert.is_false(kept)
      assert.matches("1 of 2 kept; image 0: img.localhost: answered 503", why)
      assert.is_nil(kit.read(gallery .. "/index.html"))
    end)

    it("files what was delivered on the task's record", function()
      local ref = ended("succeeded", { prompt = "a fox" }, server:url "")
      mj:close()
      mj = assert(require("mjhook").open { store = kit.store, api_key = "k", policy = policy() })
      kit.finally(function()
        mj:close()
      end)
      assert.equal(1, assert(mj:deliver()).delivered)
      local path = mj:get(ref).files[1].path
      assert.equal(gallery, path:sub(1, #gallery))
      assert.matches("^/%d+%-%d+%-%d+/" .. ref .. "%-0.png", path:sub(#gallery + 1))
    end)

    it("says what is missing when it is loaded", function()
      local out, code = deliver("gallery", {})
      assert.equal(1, code)
      assert.truthy(out:find("GALLERY is not set", 1, true))
    end)
  end)

  describe("handoff", function()
    it("hands every event on, signed", function()
      local secrets = kit.write(kit.tmp() .. "/secrets", "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=\n")
      local environment = { HANDOFF_URL = sim.url .. "/_sim/sink", HANDOFF_SECRET_FILE = secrets }
      local one, two = ended("succeeded", { prompt = "a fox" }), ended("failed", { prompt = "a wolf" })
      assert.equal("2 0", (deliver("handoff", environment)))
      local bodies = {}
      for i, got in ipairs(sim.callbacks(2)) do
        bodies[i] = got.body
      end
      local all = table.concat(bodies, "\n")
      assert.truthy(all:find('"type":"midjourney.task.succeeded"', 1, true))
      assert.truthy(all:find('"type":"midjourney.task.failed"', 1, true))
      assert.truthy(all:find(one, 1, true))
      assert.truthy(all:find(two, 1, true))
    end)

    it("says what is missing when it is loaded", function()
      local out, code = deliver("handoff", {})
      assert.equal(1, code)
      assert.truthy(out:find("HANDOFF_URL is not set", 1, true))
    end)
  end)
end)
