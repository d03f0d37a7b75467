-- mjhook-reconcile --interval as the first process of a container.
local kit = require "kit"
local receiver = require "receiver"

describe("mjhook-reconcile as the first process of its PID namespace", function()
  after_each(kit.cleanup)

  local UNSHARE = "unshare " .. (kit.sh "id -u" == "0" and "" or "--map-root-user ")
    .. "--pid --fork --kill-child --mount-proc"

  it("waits for what handlers leave behind, keeps how its own children end, and stops by a signal", function()
    if select(2, kit.sh(UNSHARE .. " true")) ~= 0 then
      pending "this user can't make a PID namespace"
      return
    end
    local dir = kit.tmp()
    local policy = kit.write(dir .. "/policy.lua", ([[
      local exec = require "mjhook.handlers.exec"
      local quick = exec { "/bin/sh", "-c", "exit 3" }
      return { on_event = { function(task)
        -- In a session of its own before the handler returns: what is left in the handler's process group is killed.
        os.execute(("cd %s; setsid sh -c 'echo x >%%s; sleep 0.1; echo x >>ended' & "
          .. "until test -s %%s; do sleep 0.01; done"):format(task.task_id, task.task_id))
      end, function(task, ctx)
        local _, why = quick(task, ctx)
        local file = io.open("%s/said", "a")
        file:write(why, "\n")
        file:close()
      end } }
    ]]):format(dir, dir))
    local mj = kit.open { policy = {} }
    kit.write(dir .. "/config.lua", receiver.config_text { store = kit.store, api_key = "k", policy = policy,
      base_url = "http://127.0.0.1:1", hook_url = "http://127.0.0.1:1/hook", secrets = { kit.SECRET } })
    for i = 1, 5 do
      local task = assert(mj:adopt { task_id = "A" .. i, prompt = "x" })
      mj.exec:commit { { op = "signal", ref = task.ref, kind = "failed", source = "callback", task_id = "A" .. i,
                         error = "no" } }
    end
    local child = kit.spawn(("exec %s %s/bin/mjhook-reconcile -c %s/config.lua --interval 0.3"):format(UNSHARE,
      kit.build, dir))
    kit.wait_until(function()
      return select(2, (kit.read(dir .. "/ended") or ""):gsub("\n", "")) == 5
    end)
    local pid = kit.wait_until(function()
      return tonumber(kit.children(child.pid):match "%d+")
    end)
    assert.matches("mjhook%-reconcil", kit.read("/proc/" .. pid .. "/stat"))
    kit.wait_until(function()
      return kit.children(pid) == ""
    end)
    assert.equal(("/bin/sh exited with 3\n"):rep(5), kit.read(dir .. "/said"))
    kit.sh("kill -TERM " .. pid)
    assert.equal(0, child:wait())
  end)
end)
