-- Standard output that is full or closed: every program that has something to say there exits 73.
local kit = require "kit"
local receiver = require "receiver"

describe("standard output that can't be written", function()
  after_each(kit.cleanup)

  local dir, ref

  before_each(function()
    dir = kit.tmp()
    kit.write(dir .. "/config.lua", receiver.config_text { store = dir .. "/store", secrets = { kit.SECRET },
      api_key = "k", base_url = "http://127.0.0.1:1", hook_url = "http://127.0.0.1:1/hook" })
    kit.write(dir .. "/policy.lua", "return {}")
    kit.write(dir .. "/jobs.jsonl", '{"prompt": "a cat"}\n')
    ref = kit.sh(("MJHOOK_CONFIG=%s/config.lua %s/scripts/mjhook submit 'a fox'"):format(dir, kit.root)):match "%w+"
  end)

  local COMMANDS = {
    "mjhook --help", "mjhook --version", "mjhook help submit", "mjhook submit x", "mjhook submit --json x",
    "mjhook submit --file DIR/jobs.jsonl", "mjhook submit --json --file DIR/jobs.jsonl", "mjhook get REF",
    "mjhook get --json REF", "mjhook list", "mjhook list --json", "mjhook stats", "mjhook stats --json",
    "mjhook metrics", "mjhook check", "mjhook check --json", "mjhook cancel REF", "mjhook doctor",
    "mjhook doctor --json", "mjhook policy test DIR/policy.lua", "mjhook prune --json --older-than 1d",
    "mjhook backup --json DIR/copy", "mjhook-reconcile --help", "mjhook-reconcile --version",
    "mjhook-reconcile --json -q", "mjhook-reconcile --dry-run", "mjhook-reconcile --dry-run --json",
    "mjhook-reconcile --json --interval 60",
    "env REQUEST_METHOD=GET REQUEST_URI=/hook SCRIPTS/mjhook.cgi", "SCRIPTS/simulator/simulator --help",
    "SCRIPTS/simulator/simulator start --dir DIR/sim",
  }
  for _, to in ipairs { ">/dev/full", ">&-" } do
    it("ends each program with 73: " .. to, function()
      local places = { DIR = dir, REF = ref, SCRIPTS = kit.root .. "/scripts",
                       ["^mjhook "] = kit.root .. "/scripts/mjhook ",
                       ["^mjhook%-reconcile"] = kit.build .. "/bin/mjhook-reconcile" }
      for _, command in ipairs(COMMANDS) do
        local words = command
        for name, place in pairs(places) do
          words = words:gsub(name, place)
        end
        local said, code = kit.sh(("MJHOOK_CONFIG=%s/config.lua timeout 20 %s 2>&1 %s </dev/null"):format(dir, words,
          to))
        assert.equal(73, code, command .. ": " .. said)
        assert.matches("can.?.?.?t be written", said)
      end
      -- What was meant for people is not in the store.
      local out, code = kit.sh(("MJHOOK_CONFIG=%s/config.lua %s/scripts/mjhook check"):format(dir, kit.root))
      assert.equal(0, code, out)
    end)
  end

  it("is no trouble to a pass that has nothing to say", function()
    for _, to in ipairs { ">/dev/full", ">&-" } do
      local said, code = kit.sh(("MJHOOK_CONFIG=%s/config.lua %s/bin/mjhook-reconcile -q 2>/dev/null %s"):format(dir,
        kit.build, to))
      assert.equal("", said)
      assert.is_true(code == 0 or code == 1)
    end
  end)
end)
