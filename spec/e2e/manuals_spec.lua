-- The man pages: commands and files that they show are run and loaded as they stand, but for paths and the provider.
local cjson = require "cjson"
local kit = require "kit"
local receiver = require "receiver"
local sim = require "sim"
local snippets = require "snippets"

local function plain(roff)
  return (roff:gsub("\\%(dq", '"'):gsub("\\e", "\\"):gsub("\\%-", "-"):gsub("\\&", ""))
end

-- What a page shows: lines (.Dl), and blocks (.Bd -literal to .Ed), in order.
local function shown(page)
  local lines, blocks, block = {}, {}, nil
  for line in io.lines(kit.root .. "/scripts/man/" .. page) do
    if block and line:find "^%.Ed" then
      blocks[#blocks + 1], block = table.concat(block, "\n") .. "\n", nil
    elseif block then
      block[#block + 1] = plain(line)
    elseif line:find "^%.Bd %-literal" then
      block = {}
    elseif line:find "^%.Dl " then
      lines[#lines + 1] = plain(line:sub(5))
    end
  end
  return lines, blocks
end

describe("the man page", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local place

  -- A place in which there is what the commands name.
  local function make_place(job)
    place = snippets.place()
    local bin = place.dir .. "/bin/"
    kit.write(bin .. "sudo", '#!/bin/sh\n[ "$1" = -u ] && [ "$2" = mjhook ] || exit 1\nshift 2\nexec "$@"\n')
    os.execute("chmod 755 " .. bin .. "sudo")
    kit.write(place.dir .. "/tmp/prompt.txt", "a fox\nin the snow\n")
    kit.write(place.dir .. "/tmp/jobs.jsonl", job .. "\n")
    kit.write(place.dir .. "/tmp/old.lua", "return {}\n")
    kit.write(place.dir .. "/tmp/new.lua", "return { on_callback = function() return 'accept' end }\n")
    local failing = cjson.decode((kit.sh(place:environment() .. " mjhook submit --json 'a fox that fails'")))
    sim.finish(failing.task_id, 2, "no luck")
  end

  local function run(command)
    local script = kit.write(place.dir .. "/tmp/script", place:text(command) .. "\n")
    return kit.sh(("cd %s && %s bash -eu -o pipefail %s"):format(kit.quote(place.dir .. "/tmp"), place:environment(),
      kit.quote(script)))
  end

  it("mjhook(1) shows commands that work", function()
    local lines, blocks = shown "mjhook.1"
    local commands, job = {}, nil
    for _, line in ipairs(lines) do
      job = job or line:find "^{" and line
      commands[#commands + 1] = not line:find "^{" and line:gsub("^%$ ", "") or nil
    end
    for _, block in ipairs(blocks) do
      for line in block:gmatch "[^\n]+" do
        commands[#commands + 1] = line
      end
    end
    assert.is_true(#commands >= 12, #commands)
    make_place(job)
    for _, command in ipairs(commands) do
      local out, code = run(command)
      local examined = command:find("mjhook doctor", 1, true) and out:match "%d+ ok, .*failed" -- there is no receiver
      assert.equal(examined and 1 or 0, code, command .. "\n" .. out)
    end
    assert.equal("u1", cjson.decode((run "mjhook list --key order-7 --json")).user_id)
  end)

  it("mjhook-reconcile(1) shows commands that work, and a line for /etc/cron.d", function()
    make_place "{}"
    local lines, n = shown "mjhook-reconcile.1", 0
    for _, line in ipairs(lines) do
      local command = line:match "^%$ (.*)$" or line:match("^" .. ("%S+%s+"):rep(6) .. "(.*)$")
      assert.is_truthy(command, line)
      n = n + 1
      local child = kit.spawn(("cd %s && exec %s %s"):format(kit.quote(place.dir), place:environment(),
        place:text(command)))
      if command:find("--interval", 1, true) then
        kit.wait_until(function() -- a pass is over
          return cjson.decode((kit.sh(place:environment() .. " mjhook stats --json"))).sweep.last_at
        end)
        assert.is_nil(child:status(), child:err())
        child:kill "TERM"
      end
      assert.equal(0, child:wait(), command .. "\n" .. child:err())
    end
    assert.equal(3, n)
  end)

  it("mjhook-config(5) shows a configuration that is right", function()
    make_place "{}"
    local _, blocks = shown "mjhook-config.5"
    assert.equal(1, #blocks)
    for _, lua in ipairs { "lua5.4", "luajit" } do
      local path = kit.write(place.dir .. "/tmp/config.lua", place:text(blocks[1]))
      local out, code = place:program({ text = ([[
        local settings = assert(require("mjhook.config").resolve { config = %q })
        assert(require("mjhook.policy").load(settings.policy, print))
        local handled, why = settings.policy.on_succeeded({ image = "https://i.test/x" }, { event_id = "x-1" })
        assert(handled ~= false, why)]]):format(path) }, lua)
      assert.equal(0, code, out)
      assert.equal("https://i.test/x\n", kit.read(place.dir .. "/srv/images/x-1"))
    end
  end)

  it("mjhook-console(7) shows locations that work, and how a script acts", function()
    local _, blocks = shown "mjhook-console.7"
    assert.equal(3, #blocks)
    local pool, location = blocks[1]:match "^(thread_pool [^\n]*)\n(.*)$"
    local images, console = blocks[2]:match "^(location [^\n]*)\n(console.*)$"
    local dir = kit.tmp()
    console = console:gsub("console{", "%0 actions = true,"):gsub("\n", "")
    location = location:gsub("console{ actions = true }", console)
    local web = receiver.start { conf = ("thread_pool mjhook threads=1;\nthread_pool mjhook_http threads=2;\n"
      .. "thread_pool mjhook_deliver threads=1;\n%s\n@MAIN@\nhttp {\n@HTTP@\n"
      .. 'init_by_lua_block { require("resty.mjhook").init { config = "@DIR@/config.lua" } }\n'
      .. 'init_worker_by_lua_block { require("resty.mjhook").init_worker() }\n'
      .. "server { listen 127.0.0.1:@PORT@;\n%s\n%s\nlocation = /hook { return 204; } } }"):format(pool, location,
      images:gsub("/var/lib", { ["/var/lib"] = dir })), threads = "" }
    local mj = kit.open({ hook_url = web.settings.hook_url }, sim)
    local task = assert(mj:submit { prompt = "a fox", user_id = "u1" })
    assert(mj.exec:commit { { op = "signal", ref = task.ref, attempt = 1, kind = "failed", source = "poll",
                              task_id = task.task_id, error = "no" } })
    assert(mj:bury(task.ref .. "-1", "spec"))
    local script = blocks[3]:gsub("https://app.example", web.url)
    local path = kit.write(dir .. "/script", script)
    local out, code = kit.sh("bash -eu -o pipefail " .. path)
    assert.equal(0, code, out)
    local report = cjson.decode(out:match "[^\n]+$").report
    assert.same({ "kick", 1, 1 }, { report.action, report.matched, report.done })
  end)
end)
