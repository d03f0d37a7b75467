-- The operator's tool, through the real program and a store of its own for each test.
-- Nobody answers at the provider's address, so a submission is queued with a reason; where another state is needed,
-- the test puts it into the store as the flows would.

local cjson = require "cjson"
local config = require "mjhook.config"
local core = require "mjhook.core"
local mjhook = require "mjhook"
local text = require "mjhook.cli.text"
local times = require "mjhook.cli.times"

local unpack = table.unpack or unpack

local HERE = debug.getinfo(1, "S").source:match "^@(.*)/[^/]*$" or "."
local LUA = jit and "luajit" or "lua5.4"
local NOBODY = "http://127.0.0.1:1"
local KEY, SECRET = "key-that-nobody-may-see", "secret-that-nobody-may-see"
local REF = "^%x%x" .. ("[0-9A-Z]"):rep(24) .. "$"

local function quote(s)
  return "'" .. s:gsub("'", "'\\''") .. "'"
end

local function sh(command)
  local pipe = io.popen(command)
  local out = pipe:read "*a"
  pipe:close()
  return out
end

local ROOT = sh("cd " .. quote(HERE .. "/..") .. " && pwd"):match "^[^\n]*"
local PROGRAM = ROOT .. "/scripts/mjhook"
local AS_ROOT = core.uid() == 0

local function read(path)
  local file = assert(io.open(path, "rb"))
  local content = file:read "*a"
  file:close()
  return content
end

local function write(path, content)
  local file = assert(io.open(path, "wb"))
  file:write(content)
  file:close()
  os.execute("chmod 600 " .. quote(path)) -- whatever the umask
end

local function available(tool)
  return sh("command -v " .. tool) ~= ""
end

describe("mjhook", function()
  local dir, store

  before_each(function()
    dir = sh("mktemp -d"):match "^[^\n]*"
    store = dir .. "/store"
  end)

  after_each(function()
    os.execute("rm -rf " .. quote(dir))
  end)

  local function environment()
    return ("env -u NO_COLOR -u COLUMNS -u MJHOOK_CONFIG -u MIDJOURNEY_WEBHOOK_URL TERM=xterm TZ=UTC MJHOOK_STORE=%s "
      .. "MIDJOURNEY_API_KEY=%s MIDJOURNEY_API_BASE_URL=%s "):format(quote(store), KEY, NOBODY)
  end

  -- Runs a shell command in which `mjhook` is the program. Gives {code, out, err}.
  local function shell(command, input)
    write(dir .. "/in", input or "")
    write(dir .. "/run", ("mjhook() { %s %s %s \"$@\"; }\n%s\n"):format(environment(), LUA, quote(PROGRAM), command))
    local code = sh(("cd / && bash %s <%s >%s 2>%s; echo $?"):format(quote(dir .. "/run"), quote(dir .. "/in"),
      quote(dir .. "/out"), quote(dir .. "/err")))
    return { code = tonumber(code), out = read(dir .. "/out"), err = read(dir .. "/err") }
  end

  local function run(arguments, input)
    local words = {}
    for i, word in ipairs(arguments) do
      words[i] = quote(word)
    end
    return shell("mjhook " .. table.concat(words, " "), input)
  end

  local function json_of(arguments)
    local result = run(arguments)
    assert.equal("", result.err)
    assert.equal(1, select(2, result.out:gsub("\n", "")))
    return cjson.decode(result.out), result
  end

  local function open(more)
    local settings = { store = store, api_key = KEY, base_url = NOBODY }
    for k, v in pairs(more or {}) do
      settings[k] = v
    end
    return assert(mjhook.open(settings))
  end

  -- Puts tasks into the store: each a table of fields, `signals` those that follow.
  local function put(tasks)
    local mj = open()
    local refs = {}
    for i, task in ipairs(tasks) do
      local signals = task.signals or {}
      task.signals = nil
      task.prompt = task.prompt or "a fox"
      task.priority = #signals > 0 and 1000 or nil -- the claim among them is for this one
      task.fingerprint = core.sha256(task.prompt)
      local made = assert(mj.exec:commit { { op = "create", task = task, source = "user", want = true } })[1]
      assert.equal("ok", made.code)
      refs[i] = made.task.ref
      for _, signal in ipairs(signals) do
        signal.op, signal.ref = signal.op or "signal", signal.op ~= "claim" and refs[i] or nil
        signal.source = signal.source or "submit"
        assert.equal("ok", assert(mj.exec:commit { signal })[1].code)
      end
    end
    mj:close()
    return refs
  end

  local function sent(task_id, ...)
    return { { op = "claim" }, { kind = "accepted", task_id = task_id, attempt = 1 }, ... }
  end

  local function state_of(ref)
    local mj = open()
    local state = assert(mj:get(ref)).state
    mj:close()
    return state
  end

  describe("submit", function()
    it("stores the job and says that it is queued and why", function()
      local result = run { "submit", "a fox --ar 4:5" }
      assert.equal(0, result.code)
      assert.equal("", result.err)
      local ref, state, why = result.out:match "^(%S+) (%S+) %((.+)%)\n$"
      assert.truthy(ref:match(REF))
      assert.equal("queued", state)
      assert.truthy(why:lower():find("refused", 1, true) or why:lower():find("connect", 1, true))
      assert.truthy(why:find "next try in %d")
      assert.equal("queued", state_of(ref))
    end)

    it("hands every field over", function()
      local task = json_of { "submit", "a fox", "--mode", "relaxed", "--timeout=10m", "--user", "u1",
        "--key", "order-7", "--context", '{"order":7,"who":"Ünal"}', "--priority", "-5", "--account", "default",
        "--expires", "2h", "--json" }
      assert.same({ "a fox", "relaxed", 600, "u1", "order-7", { order = 7, who = "Ünal" }, -5, "default" },
        { task.prompt, task.mode, task.timeout, task.user_id, task.key, task.context, task.priority, task.account })
      assert.near(7200000, task.expires_at - task.created_at, 5000)
    end)

    it("reads the prompt from standard input, without its last line feed", function()
      local result = run({ "submit", "-", "--json" }, "first\nsecond 狐\n")
      assert.equal("first\nsecond 狐", cjson.decode(result.out).prompt)
    end)

    it("takes a prompt that begins with dashes after --", function()
      assert.equal("--ar 4:5 fox", json_of({ "submit", "--json", "--", "--ar 4:5 fox" }).prompt)
    end)

    it("gives the first task for a repeated key and sends nothing", function()
      local first = run { "submit", "a fox", "--key", "k" }
      local again = run { "submit", "a fox", "--key", "k" }
      assert.equal(0, again.code)
      assert.equal(first.out:match "^%S+", again.out:match "^%S+")
      assert.truthy(again.out:find("nothing was sent", 1, true))
      assert.is_true(json_of({ "submit", "a fox", "--key", "k", "--json" }).duplicate)
    end)

    it("refuses a key that was used with other arguments, and names the task", function()
      local first = run { "submit", "a fox", "--key", "k" }
      local other = run { "submit", "a wolf", "--key", "k" }
      assert.equal(1, other.code)
      assert.equal("", other.out)
      assert.truthy(other.err:find(first.out:match "^%S+", 1, true))
    end)

    it("says that an account rests when another job found the provider out of reach", function()
      run { "submit", "a fox" }
      assert.truthy(run({ "submit", "a wolf" }).out:find("account default rests for", 1, true))
    end)

    it("says that all slots are taken", function()
      write(dir .. "/config.lua", "return { max_in_flight = 1 }")
      put { { signals = sent "t1" } }
      assert.truthy(run({ "-c", dir .. "/config.lua", "submit", "a wolf" }).out:find(
        "all 1 slots of account default are taken", 1, true))
    end)

    it("prints no key and no secret", function()
      write(dir .. "/config.lua",
        ("return { hook_url = 'https://app.example/hook', secrets = { '%s' } }"):format(SECRET))
      for _, flag in ipairs { "--json", "--config=" .. dir .. "/config.lua" } do
        local result = run { "-c", dir .. "/config.lua", "submit", "a fox", flag }
        assert.equal(0, result.code)
        for _, hidden in ipairs { KEY, SECRET, "sig=" } do
          assert.is_nil((result.out .. result.err):find(hidden, 1, true))
        end
      end
    end)
  end)

  describe("get", function()
    it("tells a task's story with times that count from its beginning", function()
      local refs = put { { user_id = "u1", key = "k1", context = '{"order":7}', signals = sent("tid-1",
        { kind = "running", source = "poll", task_id = "tid-1" },
        { kind = "succeeded", source = "callback", task_id = "tid-1", image = "https://img.example/grid.png",
          images = { "https://img.example/0.png", "https://img.example/1.png" } }) } }
      local result = run { "get", refs[1] }
      assert.equal(0, result.code)
      for _, line in ipairs {
        refs[1] .. "  succeeded", "  prompt      a fox", "  user        u1",
        '  context     {"order":7}', "task id tid-1",
        "  image       https://img.example/grid.png", "  images      https://img.example/0.png",
        "              https://img.example/1.png", "What happened",
      } do
        assert.truthy(result.out:find(line, 1, true), line)
      end
      local story = result.out:match "What happened\n(.*)"
      local at = 1
      for _, line in ipairs { "user +stored → queued", "submit +a slot is free: sending → submitting",
        "submit +the provider accepted it → pending", "poll +still running\n",
        "callback +done, with its images → succeeded" } do
        at = story:find("%+[%d.]+ s +" .. line, at)
        assert.truthy(at, line)
      end
    end)

    it("finds a task by the provider's id", function()
      local refs = put { { signals = sent "-tid_2" } }
      assert.truthy(run({ "get", "--", "-tid_2" }).out:find(refs[1], 1, true))
      assert.equal(refs[1], json_of({ "get", "--json", "--", "-tid_2" }).ref)
      local dashed = run { "get", "-tid_2" }
      assert.equal(64, dashed.code)
      assert.truthy(dashed.err:find("goes after --", 1, true))
    end)

    it("takes a ref in lower case", function()
      local refs = put { {} }
      assert.equal(0, run({ "get", refs[1]:lower() }).code)
    end)

    it("gives valid JSON without an empty list of images", function()
      local refs = put { { context = "{}" } }
      local task, result = json_of { "get", refs[1], "--json" }
      assert.equal(refs[1], task.ref)
      assert.is_nil(result.out:find '"images"')
      assert.equal("queued", task.timeline[1].to)
      assert.equal("number", type(task.created_at))
      assert.truthy(result.out:find('"created_at":' .. ("%d"):rep(13) .. "[,}]"))
    end)

    it("gives the error that a failed task has", function()
      local refs = put { { signals = sent("t", { kind = "failed", source = "poll", task_id = "t",
                                                 error_code = "provider", error = "banned words" }) } }
      assert.truthy(run({ "get", refs[1] }).out:find("why         banned words", 1, true))
      assert.equal("banned words", json_of({ "get", refs[1], "--json" }).error.message)
    end)

    it("exits 1 and says where it looked when there is no such task", function()
      put { {} }
      local result = run { "get", "01HZZZZZZZZZZZZZZZZZZZZZZZ" }
      assert.equal(1, result.code)
      assert.equal("", result.out)
      assert.equal(("mjhook: no task has the ref or task id 01HZZZZZZZZZZZZZZZZZZZZZZZ in %s\n"):format(store),
        result.err)
    end)
  end)

  describe("list", function()
    local function refs_of(result)
      local refs = {}
      for line in result.out:gmatch "[^\n]+" do
        refs[#refs + 1] = line:match "^(%w+)"
      end
      if refs[1] == "REF" then
        table.remove(refs, 1)
      end
      return refs
    end

    it("lines columns up, newest first, in any script", function()
      local refs = put {
        { prompt = "a fox", user_id = "short" }, { prompt = "狐", user_id = "日本語" },
        { prompt = "🦊 e\204\129", signals = sent("t", { kind = "running", source = "poll", task_id = "t" }) },
      }
      local result = run { "list" }
      assert.equal(0, result.code)
      assert.same({ refs[3], refs[2], refs[1] }, refs_of(result))
      local columns = {}
      for line in result.out:gmatch "[^\n]+" do
        columns[#columns + 1] = text.width(line:match "^(.*  )PROMPT" or line:match "^(.*  )a fox"
          or line:match "^(.*  )狐" or line:match "^(.*  )🦊")
      end
      assert.same({ columns[1], columns[1], columns[1], columns[1] }, columns)
      assert.truthy(result.out:find("pending", 1, true))
      assert.truthy(result.out:find("1/1", 1, true))
    end)

    it("chooses by state, user and time", function()
      local refs = put { { user_id = "u1" }, { user_id = "u2" }, { user_id = "u1", signals = sent "t" } }
      for _, case in ipairs {
        { { "--state", "queued" }, { refs[2], refs[1] } }, { { "--user=u1" }, { refs[3], refs[1] } },
        { { "--user", "u1", "--state", "pending" }, { refs[3] } },
        { { "--since", "1h" }, { refs[3], refs[2], refs[1] } },
        { { "--limit", "1" }, { refs[3] } }, { { "--limit", "0" }, { refs[3], refs[2], refs[1] } },
        { { "--since", "2999-01-01" }, {} }, { { "--state", "lost" }, {} },
      } do
        local arguments = case[1]
        table.insert(arguments, 1, "list")
        local result = run(arguments)
        assert.equal(0, result.code)
        assert.same(case[2], refs_of(result), table.concat(arguments, " "))
      end
    end)

    it("says on standard error that there is nothing", function()
      put { {} }
      local result = run { "list", "--state", "failed" }
      assert.same({ 0, "" }, { result.code, result.out })
      assert.equal(("mjhook: no such tasks in %s\n"):format(store), result.err)
      assert.same({ 0, "", "" }, { run({ "list", "--state", "failed", "--json" }).code,
        run({ "list", "--state", "failed", "--json" }).out, run({ "list", "--state", "failed", "--json" }).err })
    end)

    it("gives one JSON object a line", function()
      local refs = put { { prompt = "one\ntwo \"quoted\" \\ 狐" }, {} }
      local got = {}
      for line in run({ "list", "--json" }).out:gmatch "[^\n]+" do
        got[#got + 1] = cjson.decode(line)
      end
      assert.same({ refs[2], refs[1] }, { got[1].ref, got[2].ref })
      assert.equal("one\ntwo \"quoted\" \\ 狐", got[2].prompt)
    end)

    it("goes through more than a page, and stops quietly when its reader has had enough", function()
      local mj = open()
      local ops = {}
      for i = 1, 2500 do
        ops[i] = { op = "create", source = "user", task = { prompt = ("p"):rep(200), fingerprint = ("f"):rep(16) } }
      end
      assert(mj.exec:commit(ops))
      mj:close()
      assert.equal(2501, select(2, run({ "list" }).out:gsub("\n", "")))
      assert.equal(2500, select(2, run({ "list", "--json" }).out:gsub("\n", "")))
      for _, how in ipairs { "mjhook list", "mjhook list --json", "(trap '' PIPE; mjhook list)" } do
        local result = shell(how .. " | head -n 2; echo ${PIPESTATUS[0]} >&2")
        assert.equal(2, select(2, result.out:gsub("\n", "")))
        assert.truthy(result.err == "141\n" or result.err == "0\n", how .. ": " .. result.err)
      end
    end)

    it("says so when standard output can't be written", function()
      put { {} }
      local result = shell "mjhook list >/dev/full"
      assert.equal(73, result.code)
      assert.truthy(result.err:find("standard output can't be written", 1, true))
    end)
  end)

  describe("cancel", function()
    it("gives tasks up and goes on after one that it can't", function()
      local refs = put { {}, { signals = sent("t", { kind = "failed", source = "poll", task_id = "t" }) },
                         { signals = sent "tid-3" } }
      local result = run { "cancel", refs[1], refs[2], "no-such", "tid-3" }
      assert.equal(1, result.code)
      assert.equal(("%s cancelled\n%s cancelled\n"):format(refs[1], refs[3]), result.out)
      assert.truthy(result.err:find(refs[2] .. " is failed", 1, true))
      assert.truthy(result.err:find("no-such", 1, true))
      assert.same({ "cancelled", "failed", "cancelled" }, { state_of(refs[1]), state_of(refs[2]), state_of(refs[3]) })
    end)

    it("gives one JSON object, with arrays also when they are empty", function()
      local refs = put { {} }
      local first = run { "cancel", "--json", refs[1] }
      assert.equal(0, first.code)
      assert.truthy(first.out:find('"errors":[]', 1, true))
      assert.equal("cancelled", cjson.decode(first.out).tasks[1].state)
      local again = run { "cancel", "--json", refs[1] }
      assert.equal(1, again.code)
      assert.truthy(again.out:find('"tasks":[]', 1, true))
      assert.equal("state", cjson.decode(again.out).errors[1].code)
    end)
  end)

  describe("stats", function()
    it("counts tasks, events, slots and bytes", function()
      put { {}, {}, { signals = sent "t" } }
      local result = run { "stats" }
      assert.equal(0, result.code)
      for _, line in ipairs { "queued +2", "pending +1", "all +3", "waiting +0", "default +1 of 10 slots held" } do
        assert.truthy(result.out:find("\n  " .. line), line)
      end
      local stats = json_of { "stats", "--json" }
      assert.same({ 2, 1, 0, 1, store },
        { stats.tasks.queued, stats.tasks.pending, stats.buried, stats.accounts[1].held, stats.store })
    end)
  end)

  describe("on a terminal", function()
    -- What the program writes to a terminal of so many columns.
    local function terminal(columns, command, variables)
      write(dir .. "/tty", ("stty cols %d\n%s %s %s %s %s\n"):format(columns, environment(), variables or "", LUA,
        quote(PROGRAM), command))
      local out = sh(("script -qec %s /dev/null </dev/null 2>&1"):format(quote("bash " .. dir .. "/tty")))
      return (out:gsub("\r\n", "\n"))
    end

    local function on_a_terminal(name, f)
      it(name, function()
        if not available "script" then
          pending "script(1) of util-linux is not here"
        else
          f()
        end
      end)
    end

    on_a_terminal("uses colour, and none when NO_COLOR is set, the terminal is dumb or nobody looks", function()
      put { {} }
      assert.truthy(terminal(120, "list"):find "\27%[2mqueued")
      assert.truthy(terminal(120, "list", "NO_COLOR="):find "\27%[2mqueued")
      for _, variables in ipairs { "NO_COLOR=1", "TERM=dumb" } do
        assert.is_nil(terminal(120, "list", variables):find "\27")
      end
      assert.is_nil(terminal(120, "list --json"):find "\27")
      assert.is_nil(run({ "list" }).out:find "\27")
    end)

    on_a_terminal("cuts the prompt to the width, by columns and not by bytes", function()
      put { { prompt = ("狐"):rep(100) }, { prompt = ("x"):rep(300), user_id = ("u"):rep(40) }, { prompt = "short" } }
      for _, columns in ipairs { 80, 81, 100 } do
        local lines = {}
        for line in terminal(columns, "list", "NO_COLOR=1"):gmatch "[^\n]+" do
          lines[#lines + 1] = line
        end
        assert.equal(4, #lines)
        assert.truthy(lines[2]:find "short$")
        assert.equal(columns, text.width(lines[3]))
        assert.truthy(lines[3]:find "xx…$")
        assert.truthy(lines[3]:find "u…  ")
        assert.truthy(select(2, lines[3]:gsub("x", "")) > 15) -- the user's column yields to the prompt
        assert.truthy(text.width(lines[4]) == columns or text.width(lines[4]) == columns - 1)
        assert.truthy(lines[4]:find "狐…$")
      end
    end)

    on_a_terminal("shows a screenful, and says that there is more", function()
      local tasks = {}
      for i = 1, 51 do
        tasks[i] = {}
      end
      put(tasks)
      local out = terminal(100, "list", "NO_COLOR=1")
      assert.equal(1 + 50 + 1, select(2, out:gsub("\n", "")))
      assert.truthy(out:find("mjhook: the newest 50; more with --limit N", 1, true))
      assert.equal(1 + 51, select(2, terminal(100, "list --limit 0", "NO_COLOR=1"):gsub("\n", "")))
    end)

    on_a_terminal("lets nothing through that a terminal obeys", function()
      local evil = "\27]0;owned\7 \27[31m \194\155 \226\128\174 \127 \r\n\8"
      local refs = put { { prompt = "evil " .. evil, user_id = "\255" .. evil, key = evil,
                           signals = sent("t", { kind = "failed", source = "poll", task_id = "t", error = evil }) } }
      for _, command in ipairs { "list", "list --json", "get " .. refs[1], "get --json " .. refs[1] } do
        local out = terminal(200, command, "NO_COLOR=1")
        assert.truthy(out:find("evil", 1, true))
        for _, sign in ipairs { "[%z\1-\9\11-\31\127]", "\194\155", "\226\128\174", "\255" } do
          assert.is_nil(out:find(sign), command)
        end
      end
      assert.truthy(run({ "list" }).out:find("\\x1b]0;owned\\x07", 1, true))
      assert.truthy(run({ "get", refs[1] }).out:find("\\u{202e}", 1, true))
      assert.equal("evil " .. evil, cjson.decode(run({ "get", "--json", refs[1] }).out).prompt)
      assert.is_nil(run({ "get", "no\27[31msuch" }).err:find "\27")
    end)
  end)

  describe("with a command line that is wrong", function()
    local cases = {
      { "is without a command", {}, "usage: mjhook" },
      { "names an unknown command", { "lsit" }, 'unknown command "lsit": did you mean "list"?' },
      { "has an unknown option", { "list", "--stat", "x" }, 'unknown option "--stat": did you mean "--state"?' },
      { "has an unknown short option", { "list", "-x" }, 'unknown option "-x"' },
      { "bundles a flag with more", { "list", "-hx" }, 'unknown option "-hx"' },
      { "has another command's option", { "stats", "--state", "x" }, 'unknown option "--state"' },
      { "has a command's option before the command", { "--state", "x", "list" }, 'unknown option "--state"' },
      { "leaves a value out", { "list", "--user" }, "--user needs a value: --user ID" },
      { "takes an option for a value", { "list", "--user", "--json" }, "or --user=--json" },
      { "gives a flag a value", { "list", "--json=yes" }, "--json takes no value" },
      { "gives an empty value", { "list", "--user=" }, '--user "": it is empty' },
      { "gives an empty store", { "list", "--store=" }, '--store "": it is empty' },
      { "names an unknown state", { "list", "--state", "quued" }, 'did you mean "queued"?' },
      { "gives list an argument", { "list", "x" }, 'unexpected argument "x"' },
      { "gives stats an argument", { "stats", "x" }, 'unexpected argument "x"' },
      { "gives get no ref", { "get" }, "get: REF expected" },
      { "gives get two refs", { "get", "a", "b" }, 'unexpected argument "b"' },
      { "gives get an empty ref", { "get", "" }, "an argument is empty" },
      { "gives cancel no ref", { "cancel" }, "cancel: REF... expected" },
      { "gives submit no prompt", { "submit" }, "submit: PROMPT | - expected" },
      { "forgets to quote the prompt", { "submit", "a", "fox" }, "quote it" },
      { "forgets to quote parameters", { "submit", "fox", "--ar", "4:5" }, "has to be quoted as a whole" },
      { "names an unknown mode", { "submit", "x", "--mode", "turbo" }, "one of fast, relaxed expected" },
      { "gives no time as timeout", { "submit", "x", "--timeout", "soon" }, '--timeout "soon": seconds expected' },
      { "prunes what is older than time", { "prune", "--older-than", "999999999999d" }, "than a thousand years" },
      { "pauses for longer than time", { "pause", "--for", "99999999999999999999d" }, "than a thousand years" },
      { "pauses so long that it wraps around", { "pause", "--for", "30500568904944w" }, "than a thousand years" },
      { "gives a timeout that is too short", { "submit", "x", "--timeout", "5" }, "300 to 1200" },
      { "gives a timeout that is too long", { "submit", "x", "--timeout", "1h" }, "300 to 1200" },
      { "gives a broken context", { "submit", "x", "--context", "{" }, '--context "{": not JSON' },
      { "gives a priority that is no number", { "submit", "x", "--priority", "1.5" }, "a whole number" },
      { "gives a priority that is too high", { "submit", "x", "--priority", "1000001" }, "a whole number" },
      { "gives a key that is too long", { "submit", "x", "--key", ("k"):rep(257) }, "key: 1 to 256 bytes" },
      { "gives a prompt that is too long", { "submit", ("x"):rep(10001) }, "prompt: 1 to 10000 bytes" },
      { "gives a prompt that is no UTF-8", { "submit", "\255" }, "not valid UTF-8" },
      { "gives a time that is none", { "list", "--since", "yesterday" }, "a time expected" },
      { "gives a negative limit", { "list", "--limit", "-1" }, "a whole number from 0" },
      { "gives a limit in hexadecimal", { "list", "--limit", "0x10" }, "a whole number from 0" },
      { "gives a limit with an exponent", { "prune", "--limit", "1e3" }, "a whole number from 1" },
      { "gives a limit with a sign", { "list", "--limit", "+5" }, "a whole number from 0" },
      { "gives a limit of minus nothing", { "list", "--limit", "-0" }, "a whole number from 0" },
      { "gives a limit of minus nothing to events", { "events", "--limit=-00" }, "a whole number from 0" },
      { "gives a priority of minus nothing", { "submit", "x", "--priority", "-0" }, "a whole number" },
      { "gives a priority with a plus", { "submit", "x", "--priority", "+5" }, "a whole number" },
      { "gives a port of minus nothing", { "dev", "--port", "-0" }, "a whole number from 0" },
      { "gives a provider's port of minus nothing", { "dev", "--provider-port", "-0" }, "a whole number from 0" },
      { "gives a limit that is not finite", { "events", "--limit", "inf" }, "a whole number from 0" },
      { "gives a limit of many digits", { "list", "--limit", ("0"):rep(17) }, "a whole number from 0" },
      { "gives a value that begins with dashes", { "list", "-q", "--ar 4:5" }, "-q TEXT (or --q=--ar 4:5)" },
      { "gives a user twice", { "list", "--user", "a", "--user=b" }, "--user was given twice, and takes one value" },
      { "gives a limit twice", { "prune", "--limit=1", "--limit=2" }, "--limit was given twice" },
      { "gives a store twice", { "--store", "/x", "list", "--store=/y" }, "--store was given twice" },
      { "gives a configuration twice", { "-c", "/x", "list", "-c/y" }, "-c was given twice" },
      { "asks for help about nothing", { "help", "lsit" }, 'did you mean "list"?' },
    }
    for _, case in ipairs(cases) do
      it("exits 64 when it " .. case[1], function()
        local result = run(case[2])
        assert.equal("", result.out)
        assert.truthy(result.err:find(case[3], 1, true), result.err)
        assert.equal(64, result.code)
        assert.is_nil(result.err:find("bug", 1, true))
      end)
    end

    it("shows no password of a URL that stands where another word should", function()
      for _, url in ipairs { "postgresql://u:hush@db.example/app", "postgresql://db.example/a?password=hush",
                             "postgres://u:hu%73h@db.example/%" } do
        for _, words in ipairs {
          { url }, { "list", url }, { "list", "--store", url }, { "readmit", url }, { "pause", url },
          { "policy", url }, { "policy", "test", url },
          { "policy", "test", "none", "--fixtures=" .. url }, { "get", url }, { "kick", url },
          { "help", url }, { "list", "--" .. url }, { "submit", "a", url },
        } do
          local result = run(words)
          assert.not_equal(0, result.code)
          assert.is_nil(result.err:find("hu%%?[7s]", 1), result.err)
        end
      end
    end)

    it("refuses an empty prompt from standard input", function()
      local result = run({ "submit", "-" }, "\n")
      assert.equal(64, result.code)
      assert.truthy(result.err:find("prompt: 1 to 10000 bytes", 1, true))
    end)
  end)

  describe("with a configuration that is wrong", function()
    local cases = {
      { "names an unknown key", "return { stroe = '/x' }", "stroe: unknown key" },
      { "names a key of the wrong type", "return { batch = 'many' }", "batch: a whole number" },
      { "uses http for another host", "return { base_url = 'http://api.example' }", "base_url: https expected" },
      { "returns nothing", "", "should return a table" },
      { "raises", "error 'no luck'", "no luck" },
      { "is no Lua", "return {", "expected" },
      { "names a private file that is not there", "return { secrets_file = '/nonexistent/s' }", "secrets_file: " },
    }
    for _, case in ipairs(cases) do
      it("exits 78 and names what it is when the file " .. case[1], function()
        write(dir .. "/config.lua", case[2])
        put { {} }
        for _, command in ipairs { { "list" }, { "submit", "x" } } do
          local result = run { "-c", dir .. "/config.lua", unpack(command) }
          assert.equal(78, result.code)
          assert.equal("", result.out)
          assert.truthy(result.err:find(case[3], 1, true), result.err)
          assert.truthy(result.err:find "^mjhook: ")
        end
      end)
    end

    it("exits 78 when others can write the file, and takes one that they can only read", function()
      write(dir .. "/config.lua", "return {}")
      put { {} }
      for _, mode in ipairs { "602", "620", "666", "664" } do
        os.execute(("chmod %s %s"):format(mode, quote(dir .. "/config.lua")))
        local result = run { "list", "--config", dir .. "/config.lua" }
        assert.equal(78, result.code)
        assert.truthy(result.err:find("chmod go-w", 1, true))
      end
      for _, mode in ipairs { "600", "400", "640", "644" } do
        os.execute(("chmod %s %s"):format(mode, quote(dir .. "/config.lua")))
        assert.equal(0, run({ "list", "--config", dir .. "/config.lua" }).code, mode)
      end
    end)

    it("exits 78 when there is no file where it was said to be", function()
      local result = run { "-c" .. dir .. "/nothing.lua", "list" }
      assert.equal(78, result.code)
      assert.truthy(result.err:find("nothing.lua", 1, true))
    end)

    it("lets people look though the policy is broken, and exits 78 where its presence counts", function()
      write(dir .. "/config.lua", "return { policy = '/nonexistent/policy.lua' }")
      put { {} }
      assert.same({ 0, "" }, { run({ "-c", dir .. "/config.lua", "list" }).code,
                               run({ "-c", dir .. "/config.lua", "list" }).err })
      local result = run { "-c", dir .. "/config.lua", "prune", "--older-than", "30d" }
      assert.equal(78, result.code)
      assert.truthy(result.err:find("policy: ", 1, true))
    end)

    for what, broken in pairs {
      ["is not there"] = false, ["does not compile"] = "return {", ["requires what is not there"] = "require 'no_such'",
      ["never ends"] = "while true do end", ["can be written by others"] = "return {} -- 666",
    } do
      it("takes a job though the policy " .. what .. ", and says so in one line", function()
        write(dir .. "/config.lua", ("return { policy = %q }"):format(dir .. "/policy.lua"))
        if broken then
          write(dir .. "/policy.lua", broken)
        end
        os.execute(broken and broken:find "666" and "chmod 666 " .. quote(dir .. "/policy.lua") or "true")
        local result = run { "-c", dir .. "/config.lua", "submit", "a fox", "--json" }
        assert.equal(0, result.code, result.err)
        assert.matches("^mjhook: policy: [^\n]*; this command goes on without the policy[^\n]*\n$", result.err)
        assert.truthy(result.err:find(dir .. "/policy.lua", 1, true))
        local task = cjson.decode(result.out)
        assert.equal("queued", task.state) -- no provider is there
        local again = run { "-c", dir .. "/config.lua", "refresh", task.ref }
        assert.matches("goes on without the policy", again.err)
      end)
    end

    it("exits 78 when an account is not configured", function()
      local result = run { "submit", "a fox", "--account", "other" }
      assert.equal(78, result.code)
      assert.truthy(result.err:find('"other" is not configured', 1, true))
    end)
  end)

  describe("with a store that is wrong", function()
    it("makes none where a command only looks", function()
      for _, command in ipairs { { "list" }, { "stats" }, { "get", "x" }, { "cancel", "x" } } do
        local result = run(command)
        assert.equal(78, result.code)
        assert.truthy(result.err:find("store: none at " .. store, 1, true))
      end
      assert.is_nil(core.stat(store))
    end)

    it("exits 73 when it can't be made, also as root", function()
      write(dir .. "/file", "")
      for _, command in ipairs { { "submit", "a fox" }, { "list" } } do
        local result = run { "--store", dir .. "/file/store", unpack(command) }
        assert.equal(73, result.code)
        assert.truthy(result.err:find(dir .. "/file/store", 1, true))
      end
      assert.equal(73, run({ "submit", "a fox", "--store=" .. dir .. "/no/parent" }).code)
    end)

    it("exits 78 when the directory holds something else", function()
      os.execute("mkdir " .. quote(store))
      write(store .. "/data.mdb", ("not a store\n"):rep(1000))
      local result = run { "list" }
      assert.equal(78, result.code)
      assert.truthy(result.err:find(store, 1, true))
    end)

    it("exits 73 and names the owner when the store is another user's", function()
      if not AS_ROOT then
        pending "only root can give a store away"
        return
      end
      put { {} }
      os.execute("chown -R 65534 " .. quote(store))
      local result = run { "list" }
      assert.equal(73, result.code)
      assert.truthy(result.err:find("uid 65534", 1, true))
    end)
  end)

  describe("help", function()
    it("is about everything, or about one command", function()
      local general = run { "--help" }
      assert.same({ 0, "" }, { general.code, general.err })
      for _, command in ipairs { "submit", "get", "list", "watch", "refresh", "cancel", "resubmit", "events",
                                 "kick", "bury", "replay", "refused", "readmit", "stats", "metrics", "prune",
                                 "check", "backup", "restore", "policy" } do
        assert.truthy(general.out:find("\n  " .. command .. " ", 1, true))
        local own = run { "help", command }
        assert.equal(own.out, run({ command, "--help" }).out)
        assert.equal(own.out, run({ "-h", command }).out)
        assert.truthy(own.out:find("usage: mjhook " .. command, 1, true))
      end
      assert.equal(general.out, run({ "help" }).out)
      assert.equal(general.out, run({ "help", "help" }).out)
    end)

    it("says the version", function()
      local result = run { "--version" }
      assert.equal(0, result.code)
      assert.truthy(result.out:find(("^mjhook %s %%(store schema %d, Lua"):format(core.version:gsub("%.", "%%."),
        core.schema)))
    end)
  end)

  describe("where it is installed", function()
    local ALONE = "cd / && env -u LUA_PATH -u LUA_CPATH -u LUA_PATH_5_4 -u LUA_CPATH_5_4 -u MJHOOK_BUILD"

    it("finds its modules from its own place, also through a link, without LUA_PATH", function()
      local abi = jit and "5.1" or "5.4"
      local prefix = dir .. "/prefix with spaces"
      local core_so = (os.getenv "MJHOOK_BUILD" or ROOT .. "/build") .. "/" .. abi .. "/mjhook/core.so"
      os.execute(([[
        p=%s; mkdir -p "$p/bin" "$p/share/lua/%s" "$p/lib/lua/%s/mjhook" %s/links
        cp -r %s/lua/. "$p/share/lua/%s/"; cp %s "$p/lib/lua/%s/mjhook/"; cp %s "$p/bin/mjhook"
        ln -s "$p/bin/mjhook" %s/links/mjhook]]):format(quote(prefix), abi, abi, quote(dir), quote(ROOT), abi,
        quote(core_so), abi, quote(PROGRAM), quote(dir)))
      for _, path in ipairs { prefix .. "/bin/mjhook", dir .. "/links/mjhook" } do
        local out = sh(("%s %s %s --version"):format(ALONE, LUA, quote(path)))
        assert.truthy(out:find("^mjhook " .. core.version:gsub("%.", "%%.")), path)
      end
    end)

    it("says what to do when its modules are missing", function()
      os.execute(("mkdir %s/bin && cp %s %s/bin/"):format(quote(dir), quote(PROGRAM), quote(dir)))
      local out = sh(("%s %s %s/bin/mjhook list 2>&1; echo $?"):format(ALONE, LUA, quote(dir)))
      assert.truthy(out:find("run `make`", 1, true))
      assert.truthy(out:find "78\n$")
    end)
  end)

  describe("the documents", function()
    it("have no warnings in the man pages", function()
      if not available "groff" then
        pending "groff is not here"
        return
      end
      for _, page in ipairs { "mjhook.1", "mjhook-reconcile.1", "mjhook-config.5" } do
        assert.equal("", sh(("groff -ww -b -mdoc -Tutf8 %s/scripts/man/%s 2>&1 >/dev/null"):format(quote(ROOT), page)))
      end
    end)

    it("name every option of every command in mjhook(1)", function()
      local page = read(ROOT .. "/scripts/man/mjhook.1")
      for _, command in ipairs { "submit", "get", "list", "watch", "refresh", "cancel", "resubmit", "events",
                                 "kick", "bury", "replay", "refused", "readmit", "stats", "metrics", "prune",
                                 "check", "backup", "restore", "policy" } do
        for option in run({ "help", command }).out:gmatch "%-%-(%l+)" do
          assert.truthy(page:find("Fl %-" .. option), command .. " --" .. option)
        end
      end
    end)

    it("name every option of mjhook-reconcile in its page", function()
      local page = read(ROOT .. "/scripts/man/mjhook-reconcile.1")
      local options = read(ROOT .. "/src/cmd/reconcile.c"):match "longs%[%] = {(.-)};"
      for option in options:gmatch '{"([%l-]+)"' do
        assert.truthy(page:find("Fl -" .. option, 1, true), option)
      end
    end)

    it("name every key of the configuration and every variable in mjhook-config(5)", function()
      local page = read(ROOT .. "/scripts/man/mjhook-config.5")
      local source = read(ROOT .. "/lua/mjhook/config.lua")
      local n = 0
      for key in pairs(require("mjhook.config.keys").KEYS) do
        assert.truthy(page:find("\n%.It Li [%l_ ,]*" .. key .. "%f[^%w_]"), key)
        n = n + 1
      end
      assert.truthy(n >= 28)
      for name in source:match("local ENVIRONMENT = {(.-)\n}"):gmatch "\n  ([^ ]+) = " do
        local of_provider = name:match "^%[P%.environment%.([%l_]+)%]$"
        name = of_provider and core.provider.environment[of_provider] or name
        assert.truthy(page:find(".It Ev " .. name, 1, true), name)
      end
      local policy = read(ROOT .. "/lua/mjhook/policy.lua")
      for name in (policy:match "HANDLERS = {(.-)}" .. policy:match "DECISIONS = {(.-)}"):gmatch '"([%l_]+)"' do
        assert.truthy(page:find("Fn " .. name, 1, true), name)
      end
    end)

    it("show a configuration that mjhook takes", function()
      local example = assert(loadfile(ROOT .. "/scripts/examples/config.lua"))()
      assert.truthy(example.api_key_file and example.secrets_file)
      example.api_key_file, example.secrets_file = nil, nil
      assert(config.resolve(example))
      assert(require("mjhook.policy").load(example.policy, print))
      local manual = read(ROOT .. "/scripts/man/mjhook-config.5"):match "%.Bd %-literal[^\n]*\n(.-)%.Ed"
      write(dir .. "/manual.lua", (manual:gsub("\\e", "\\")))
      local shown = assert(loadfile(dir .. "/manual.lua"))()
      shown.api_key_file, shown.secrets_file = nil, nil
      assert(config.resolve(shown))
      assert(require("mjhook.policy").load(shown.policy, print))
    end)
  end)

  describe("text", function()
    it("counts columns, not bytes", function()
      for s, columns in pairs { [""] = 0, abc = 3, ["ä"] = 1, ["e\204\129"] = 1, ["狐"] = 2, ["🦊"] = 2, ["한"] = 2,
                                ["👩\226\128\141🚀"] = 4, ["❤\239\184\143"] = 1 } do
        assert.equal(columns, text.width(s), s)
      end
    end)

    it("cuts between characters and never beyond the room", function()
      assert.same({ "abc", "ab…", "…", "", "狐…", "…", "狐狐" },
        { text.cut("abc", 3), text.cut("abcd", 3), text.cut("abcd", 1), text.cut("abcd", 0), text.cut("狐狐", 3),
          text.cut("狐狐", 2), text.cut("狐狐", 4) })
    end)

    it("shows what is no UTF-8 and what a terminal obeys", function()
      for given, shown in pairs {
        ["a\tb\nc"] = "a b c", ["\27[0m"] = "\\x1b[0m", ["\0"] = "\\x00", ["\127"] = "\\x7f", ["\194\155"] = "\\x9b",
        ["\255\254"] = "\\xff\\xfe", ["\192\128"] = "\\xc0\\x80", ["\237\160\128"] = "\\xed\\xa0\\x80",
        ["\226\128\174"] = "\\u{202e}", ["\240\159\166"] = "\\xf0\\x9f\\xa6", ["ok ü 狐"] = "ok ü 狐",
      } do
        assert.equal(shown, text.clean(given))
      end
      assert.equal("a\nb", text.clean("a\nb", true))
    end)

    it("says durations as people do", function()
      for ms, said in pairs { [0] = "0 s", [300] = "0.3 s", [12000] = "12 s", [61000] = "1 min 1 s", [120000] = "2 min",
                              [3660000] = "1 h 1 min", [90000000] = "1 d 1 h", [-5] = "0 s" } do
        assert.equal(said, text.duration(ms))
      end
      assert.same({ "now", "in 5 s", "2 min ago" }, { text.relative(5000, 5500), text.relative(10000, 5000),
        text.relative(0, 120000) })
      assert.same({ "0s", "119s", "2m", "2h", "2d" }, { text.age(0), text.age(119999), text.age(120000),
        text.age(7200000), text.age(2 * 86400000) })
      assert.same({ "0 B", "1023 B", "1.5 KiB", "16 MiB" }, { text.bytes(0), text.bytes(1023), text.bytes(1536),
        text.bytes(2 ^ 24) })
    end)
  end)

  describe("times", function()
    it("reads dates with a zone to the second", function()
      for given, seconds in pairs {
        ["1970-01-01T00:00Z"] = 0, ["2026-01-31T12:00Z"] = 1769860800, ["2026-01-31T12:00:05Z"] = 1769860805,
        ["2024-02-29T00:00:00+02:00"] = 1709157600, ["2024-02-29T00:00-0130"] = 1709170200,
        ["2000-03-01 00:00:00Z"] = 951868800,
      } do
        assert.equal(seconds * 1000, times.since(given), given)
      end
      assert.equal(1769860800123, times.since "1769860800123")
    end)

    it("reads dates without a zone as local ones, and ages from now", function()
      assert.equal(os.time { year = 2026, month = 1, day = 31, hour = 0 } * 1000, times.since "2026-01-31")
      assert.equal(os.time { year = 2026, month = 1, day = 31, hour = 13, min = 5 } * 1000,
        times.since "2026-01-31T13:05")
      for given, seconds in pairs { ["90s"] = 90, ["5m"] = 300, ["2h"] = 7200, ["7d"] = 604800, ["1w"] = 604800 } do
        assert.near(core.now() - seconds * 1000, times.since(given), 2000)
      end
    end)

    it("refuses what is no time", function()
      for _, given in ipairs { "", "7", "7x", "-7d", "2026-13-01", "2026-00-10", "2026-02-29", "2026-04-31",
                               "2026-01-31T24:00",
                               "2026-01-31T12:60Z", "2026-01-31T12", "2026-01-31T12:00+2", "2026-1-1", "2026-01-31x",
                               "1234567890", "12345678901234567" } do
        local ms, why = times.since(given)
        assert.is_nil(ms, given)
        assert.truthy(why:find("a time expected", 1, true))
      end
    end)
  end)
end)
