-- The log file: what a message says is one line of it, whatever is in it, whoever writes or rotates beside.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"
local mjhook = require "mjhook"

local BAD = "\239\191\189" -- U+FFFD, which stands for bytes that are no text

describe("the log file", function()
  after_each(kit.cleanup)

  local path

  before_each(function()
    path = kit.tmp() .. "/mjhook.log"
  end)

  -- The log of a mjhook that was opened with this setting.
  local function open(log)
    local mj = assert(mjhook.open(kit.settings { log = log or path }))
    kit.finally(function() mj:close() end)
    return mj.log
  end

  local function lines()
    local all = {}
    for line in (kit.read(path) or ""):gmatch "([^\n]*)\n" do
      all[#all + 1] = line
    end
    return all
  end

  it("gets a line of logfmt for each message", function()
    local log = open()
    local before = core.now()
    log("warn", "event x (try 1): no disk")
    log("error", "plain")
    local all = lines()
    assert.equal(2, #all)
    local time, rest = all[1]:match "^time=(%d+%-%d%d%-%d%dT%d%d:%d%d:%d%d%.%d%d%dZ) (.*)$"
    assert.equal('level=warn msg="event x (try 1): no disk"', rest)
    assert.matches('level=error msg="plain"$', all[2])
    local year, month, day, hour, min, sec, ms = time:match "(%d+)-(%d+)-(%d+)T(%d+):(%d+):(%d+).(%d+)Z"
    local utc = os.date("!*t", math.floor(before / 1000))
    assert.same({ utc.year, utc.month, utc.day }, { tonumber(year), tonumber(month), tonumber(day) })
    local stamp = (hour * 3600 + min * 60 + sec) * 1000 + ms
    assert.is_true(math.abs(stamp - before % 86400000) < 2000, time)
  end)

  it("gets what callbacks and passes have to say", function()
    local mj = assert(mjhook.open(kit.settings { log = path }))
    kit.finally(function() mj:close() end)
    local task = assert(mj:adopt { task_id = "Id1", prompt = "fox" })
    local uri = require("mjhook.provider").hook_url(mj, task.ref, 1)
    assert.equal(400, mj:callback { method = "POST", uri = uri, headers = {}, body = "no JSON" }.status)
    assert.matches('level=warn msg="callback for ' .. task.ref .. " refused: not JSON", lines()[1], 1, true)
    assert.is_nil(kit.read(path):find(uri:match "sig=(.*)", 1, true))
  end)

  local texts = {
    { "a line break", "one\ntwo\r\nthree", [[one\ntwo\r\nthree]] },
    { "quotes and backslashes", [[say "hi" \n]], [[say \"hi\" \\n]] },
    { "control characters", "a\tb\0c\27[31mred\127", [[a\tb\u0000c\u001b[31mred\u007f]] },
    { "a forged line", 'x"\ntime=2020 level=error msg="forged', [[x\"\ntime=2020 level=error msg=\"forged]] },
    { "text of any script", "füchse 狐 🦊", "füchse 狐 🦊" },
    { "controls that are written with two bytes", "a\194\155b\194\133c\194\160d", "a\\u009bb\\u0085c\194\160d" },
    { "bytes that are no text", "a\255b\128c", "a" .. BAD .. "b" .. BAD .. "c" },
    { "a character cut short", "fox \240\159\166", "fox " .. BAD:rep(3) },
    { "an overlong form", "\192\175 \224\128\175 \240\128\128\175", ("%s%s %s%s%s %s%s%s%s"):gsub("%%s", BAD) },
    { "a surrogate", "\237\160\128", BAD:rep(3) },
    { "more than Unicode has", "\244\144\128\128 \245\128\128\128", BAD:rep(4) .. " " .. BAD:rep(4) },
    { "nothing", "", "" },
  }
  for _, form in ipairs { "logfmt", "json" } do
    for _, case in ipairs(texts) do
      it(("writes %s as one line of %s"):format(case[1], form), function()
        open { path = path, format = form }("error", case[2])
        local all = lines()
        assert.equal(1, #all)
        local quoted = all[1]:match(form == "json" and '"msg":"(.*)"}$' or ' msg="(.*)"$')
        assert.equal(case[3], quoted)
      end)
    end
  end

  it("holds JSON objects that read as what was said, if it is to", function()
    local log = open { path = path, format = "json" }
    local controls = ("%c"):rep(8):format(0, 1, 7, 8, 9, 11, 27, 127)
    local said = { "plain", "one\ntwo", 'quote " backslash \\ slash /', "狐 🦊", controls }
    for _, text in ipairs(said) do
      log("info", text)
    end
    local all = lines()
    assert.equal(#said, #all)
    for i, line in ipairs(all) do
      local entry = cjson.decode(line)
      assert.equal(said[i], entry.msg)
      assert.equal("info", entry.level)
      assert.matches("^%d+%-%d+%-%d+T[%d:.]+Z$", entry.time)
    end
  end)

  it("leaves out what is less than the level", function()
    local levels = { "info", "notice", "warn", "error" }
    for n, least in ipairs(levels) do
      os.remove(path)
      local log = open { path = path, level = least }
      for _, level in ipairs(levels) do
        log(level, "x")
      end
      local all = lines()
      assert.equal(5 - n, #all)
      for i, line in ipairs(all) do
        assert.matches(("level=%s msg"):format(levels[n + i - 1]), line)
      end
    end
  end)

  it("keeps the beginning of a message that is far too long, and says how long it was", function()
    open { path = path, format = "json" }("error", ("\n"):rep(1000000))
    local entry = cjson.decode(lines()[1])
    assert.matches("^\n+%.%.%. %(1000000 bytes%)$", entry.msg)
    assert.is_true(#entry.msg < 9000)
  end)

  it("takes anything for a message and raises for nothing", function()
    local log = open()
    log("warn", nil)
    log(nil, { "table" })
    log("what?", 7)
    log("info", setmetatable({}, { __tostring = function() error "no" end }))
    log("info", core.error("io", "an error object"))
    assert.equal(4, #lines())
    assert.matches('level=error msg="7"$', lines()[3])
    assert.matches('msg="an error object"$', lines()[4])
  end)

  it("is written to by its new self as soon as it was renamed away", function()
    local log = open()
    log("info", "one")
    assert(os.rename(path, path .. ".1"))
    log("info", "two")
    assert.matches('msg="two"', kit.read(path))
    assert.matches('msg="one"', kit.read(path .. ".1"))
    assert.equal(1, #lines())
  end)

  -- Lines longer than any buffer, so that one which is not written at once shows. Until a file says that it is enough.
  local WRITER = [[
    local path, name, enough = arg[1], arg[2], arg[3]
    local log, i = require("mjhook.log").open { path = path, format = "json" }, 0
    repeat
      i = i + 1
      log("info", name .. " " .. i .. " " .. ("x"):rep(i % 3 > 0 and 7000 or 50))
    until i % 50 == 0 and io.open(enough)
    print(i)]]

  it("has each line of many writers once and whole, though it is rotated all the time", function()
    local command, children = kit.lua_command(WRITER), {}
    for w = 1, 3 do
      children[w] = kit.spawn(("exec %s %s w%d %s.enough"):format(command, path, w, path))
    end
    local rotations = 40
    for n = 1, rotations do
      kit.wait_until(function() return kit.read(path) end)
      assert(os.rename(path, ("%s.%d"):format(path, n)))
    end
    kit.write(path .. ".enough", "")
    local written = 0
    for _, child in ipairs(children) do
      assert.equal(0, child:wait())
      assert.equal("", child:err())
      written = written + tonumber(child:out())
    end
    local seen, count = {}, 0
    for n = 0, rotations do
      for line in (kit.read(n == 0 and path or path .. "." .. n) or ""):gmatch "[^\n]+" do
        local who, padding = cjson.decode(line).msg:match "^(w%d %d+) (x+)$"
        assert.is_nil(seen[who])
        assert.is_true(#padding == 50 or #padding == 7000)
        seen[who], count = true, count + 1
      end
    end
    assert.equal(written, count)
  end)

  it("that can't be written to stops no call; standard error gets the line, and once why", function()
    local child = kit.spawn("exec " .. kit.lua_command [[
      local log = require("mjhook.log").open "/nowhere/at/all/mjhook.log"
      log("warn", "one")
      log("error", "two")]])
    assert.equal(0, child:wait())
    assert.equal(1, select(2, child:err():gsub("mjhook: log: /nowhere/at/all/mjhook.log: No such file", "")))
    assert.matches('level=warn msg="one"\n', child:err())
    assert.matches('level=error msg="two"\n', child:err())
  end)

  it("that is on a full disk stops no call", function()
    local child = kit.spawn("exec " .. kit.lua_command [[
      local log = require("mjhook.log").open "/dev/full"
      log("warn", "one")]])
    assert.equal(0, child:wait())
    assert.matches('No space left[^\n]*\n[^\n]* msg="one"\n', child:err())
  end)
end)
