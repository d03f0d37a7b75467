-- A hostile text in every field of every record that can hold one: whatever is shown, logged or measured of it is
-- neither obeyed by a terminal, nor hidden from a reader, nor taken for a line of its own.
local kit = require "kit"
local mjhook = require "mjhook"
local receiver = require "receiver"
local sim = require "sim"

-- Each harmful thing is followed by a letter, so that it shows what came through. FORGED must begin no line.
local SEQUENCES = "\27]0;a\7b\27[31mc\27[2Kd\8e\r\27[1Af\127g"
local LINES = "\nFORGED: h\n\rFORGED: i\226\128\168FORGED: j\226\128\169FORGED: k\194\133FORGED: l\11FORGED: m"
local UNSEEN = "\194\155n\226\128\139o\226\128\141p\226\128\174q\226\129\166r\226\128\143s\239\187\191t\194\173u" ..
  "\243\160\129\129\243\160\129\191v\225\160\142w\227\133\164x\243\160\132\128y\226\129\160z\216\156"
local VALID = SEQUENCES .. LINES .. UNSEEN -- UTF-8 that a prompt may be
local RAW = VALID .. "\0A\255B\192\128C\237\160\128D\240\159\166"
local ONE_LINE = (VALID:gsub("[\r\n]", ""))

local utf8 = rawget(_G, "utf8") -- Lua 5.4's

-- Code points that must not come out as they are.
local function harmful(code)
  return code < 0x20 and code ~= 0x0A or code >= 0x7F and code <= 0x9F or code == 0xAD or code == 0x61C
    or code == 0x180E or code >= 0x200B and code <= 0x200F or code >= 0x2028 and code <= 0x202E
    or code >= 0x2060 and code <= 0x206F or code == 0x3164 or code == 0xFEFF or code >= 0xE0000
end

local function check(what, out)
  assert.is_truthy(utf8.len(out), what .. ": no UTF-8: " .. out)
  for _, code in utf8.codes(out) do
    assert.is_false(harmful(code), ("%s: U+%04X in: %s"):format(what, code, out))
  end
  for line in (out .. "\n"):gmatch "(.-)\n" do
    assert.is_nil(line:match "^ ? ?FORGED", what .. ": " .. out) -- a prompt's lines are indented further
    assert.is_nil(line:match "^%s*[{\"]FORGED", what .. ": " .. out)
  end
end

describe("a hostile text", function()
  after_each(kit.cleanup)

  local dir, task

  local function config(more)
    return kit.write(dir .. "/config.lua", ([[
      return { store = %q, base_url = "http://127.0.0.1:1", secrets = { "0123456789abcdef" },
        accounts = { { name = %q, api_key = "a-key-of-the-spec" } }, %s }]]):format(dir .. "/store",
      ONE_LINE:sub(1, 200), more or ""))
  end

  -- A store with a task in each state, each with the text wherever it can be.
  local function fill()
    dir = kit.tmp()
    local mj = assert(mjhook.open { config = config() })
    local name = VALID:gsub("%z", ""):sub(1, 120):gsub("[\128-\255]+$", "")
    local states = { "failed", "succeeded", "hint", "refused", "maybe_sent" }
    for i, kind in ipairs(states) do
      task = assert(mj:adopt { task_id = "Id" .. i, prompt = VALID, user_id = name, key = name .. i,
                               context = { [VALID] = { VALID }, list = { VALID } } })
      local url = "https://cdn.example/" .. VALID
      local results = assert(mj.exec:commit { {
        op = "signal", ref = task.ref, attempt = 1, kind = kind, source = "callback", task_id = "Id" .. i,
        error_code = VALID:sub(1, 20), error = RAW, remark = RAW, mj_prompt = RAW, image = url,
        images = { url }, meta = '{"a":"' .. UNSEEN .. '"}',
      } })
      assert.is_not_nil(results[1].code)
    end
    assert(mj.exec:commit {
      { op = "refuse", ref = task.ref, attempt = 1, error = RAW, body = RAW },
      { op = "pause", account = mj.config.accounts[1].name, ["until"] = require("mjhook.core").now() + 1e6,
        error_code = ONE_LINE:sub(1, 60) },
    })
    for event in mj:events {} do
      assert(mj:bury(event.event_id, VALID))
    end
    mj:close()
  end

  local function quoted(s)
    return kit.quote((s:gsub("%z", "")))
  end

  -- Both on a terminal and into a pipe.
  local function run(words)
    local command = ("lua5.4 %s/scripts/mjhook -c %s/config.lua %s"):format(kit.root, dir, words)
    check(words, (kit.sh(command .. " </dev/null")))
    kit.write(dir .. "/tty", "stty cols 400 2>/dev/null\n" .. command .. "\n")
    local shown = kit.sh(("TERM=xterm script -qec %s /dev/null </dev/null"):format(kit.quote("bash " .. dir .. "/tty")))
    check(words .. " on a terminal", (shown:gsub("\27%[%d*m", ""):gsub("\r\n", "\n"):gsub("\r$", "")))
    return shown
  end

  it("in a store comes out of every command as what it is", function()
    fill()
    local policy = kit.write(dir .. "/policy.lua", ([[
      return { on_refused = function() error(%q) end, on_callback = function() return %q end,
               next_poll = function() error { } end, resolve_ambiguous = function() return %q end }
    ]]):format(RAW, RAW, RAW))
    for _, words in ipairs {
      "list", "list --json", "get " .. task.ref, "get --json " .. task.ref, "get Id1", "get Id2", "get Id3",
      "watch --timeout 0 Id1 Id2 " .. task.ref, "watch --json --timeout 0 Id1", "stats", "stats --json", "events",
      "events --json", "events --buried", "refused", "refused --json", "metrics", "metrics --json", "check", "doctor",
      "doctor --json", "policy test " .. policy, "policy test --json " .. policy, "policy diff none " .. policy,
      "policy diff --json none " .. policy, "refresh " .. task.ref, "readmit 1", "resubmit Id1", "replay Id2",
      "cancel " .. quoted(VALID), "kick " .. quoted(VALID), "bury --reason " .. quoted(VALID) .. " " .. quoted(VALID),
      "get " .. quoted(RAW), quoted(RAW), "list --state " .. quoted(RAW), "--" .. quoted(RAW), "help " .. quoted(RAW),
      "submit --key " .. quoted(VALID:sub(1, 100)) .. " " .. quoted(VALID), "submit --context " .. quoted(RAW) .. " x",
      "--store " .. quoted("/nowhere/" .. RAW) .. " list", "-c " .. quoted("/nowhere/" .. RAW) .. " list",
      "policy test " .. quoted("/nowhere/" .. RAW), "list --user " .. quoted(VALID),
    } do
      run(words)
    end
    assert.matches("\\x1b", run "get Id1", 1, true)
    assert.matches("\\u{202e}", run "get Id1", 1, true)
    assert.matches("\\u{e0041}", run "get Id1", 1, true)
    assert.matches("\\udb40\\udc41", run "get --json Id1", 1, true)
  end)

  it("from a handler, in a store, comes out of mjhook-reconcile, its log and its metrics as what it is", function()
    for _, form in ipairs { "", "log = %q,", "log = { path = %q, format = 'json' }," } do
      fill()
      local log = form:format(dir .. "/log")
      local mj = assert(mjhook.open { config = config() })
      for event in mj:events { buried = true } do
        assert(mj:kick(event.event_id))
      end
      mj:close()
      config(log .. ([[ policy = { on_event = function() return false, %q end, on_failed = function() error(%q) end,
        next_poll = function() error(%q) end }]]):format(RAW, RAW, RAW))
      for _, options in ipairs { "-v", "", "--json", "-q", "--dry-run" } do
        local out = kit.sh(("%s/bin/mjhook-reconcile -c %s/config.lua --metrics %s/prom %s"):format(kit.build, dir, dir,
          options))
        check("mjhook-reconcile " .. options .. log, out)
      end
      check("metrics", kit.read(dir .. "/prom"))
      if log ~= "" then
        check("log", kit.read(dir .. "/log"))
        assert.matches("\\u001b", kit.read(dir .. "/log"), 1, true)
      end
    end
    for _, words in ipairs { "--" .. quoted(RAW), quoted(RAW), "--budget " .. quoted(RAW), "-c " .. quoted("/" .. RAW),
                             "-" .. quoted(RAW) } do
      local out = kit.sh(("%s/bin/mjhook-reconcile %s"):format(kit.build, words))
      check("mjhook-reconcile with options", out)
    end
  end)

  it("from a handler or a provider is lines of nginx's log that are what they are", function()
    sim.start()
    kit.finally(sim.stop)
    dir = kit.tmp()
    local policy = kit.write(dir .. "/policy.lua", ("return { on_event = function() error(%q) end }"):format(RAW))
    local web = receiver.start { settings = { policy = policy, handler_timeout = 5 } }
    local mj = kit.open({ hook_url = web.url .. "/hook", policy = {} }, sim)
    local sent = assert(mj:submit { prompt = "a fox" })
    sim.finish(sent.task_id)
    kit.wait_until(function() return web:log():find("raised", 1, true) end)
    check("nginx's log", web:log())
    assert.matches("\\x1b", web:log(), 1, true)
    check("nginx's metrics", (select(2, sim.request("GET", web.url .. "/metrics"))) or "")
  end)
end)
