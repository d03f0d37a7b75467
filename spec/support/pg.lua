-- A throw-away PostgreSQL server for specs: setup(pg.start), teardown(pg.stop); a pending test where pg.found() is
-- false.
local kit = require "kit"

local pg = {}
local PROGRAM = kit.quote(kit.root .. "/spec/support/postgres")
local dir

--- Whether there are server programs and the module for them.
function pg.found()
  return (select(2, kit.sh(PROGRAM .. " found")) == 0) and pcall(require, "mjhook.store_postgres")
end

function pg.start(...)
  dir = kit.sh "d=$(mktemp -d /tmp/mjpg.XXXXXX) && chmod 711 $d && echo $d" -- the server is an ordinary user's
  local words = {}
  for _, word in ipairs { ... } do
    words[#words + 1] = type(word) == "string" and kit.quote(word) or nil
  end
  local out, code = kit.sh(("%s start %s/server %s"):format(PROGRAM, dir, table.concat(words, " ")))
  assert(code == 0, out)
  pg.url = out
  pg.dir = dir .. "/server"
end

function pg.stop()
  if dir then
    kit.sh(("%s remove %s/server; rm -rf %s"):format(PROGRAM, dir, dir))
    dir = nil
  end
end

--- Starts it again after a crash or a stop.
function pg.restart()
  local out, code = kit.sh(("%s restart %s"):format(PROGRAM, pg.dir))
  assert(code == 0, out)
end

function pg.crash()
  kit.sh(("%s stop %s immediate"):format(PROGRAM, pg.dir))
end

--- Runs SQL as psql does; gives what it prints without frames, and its exit code.
function pg.sql(text, url)
  return kit.sh(("printf '%%s' %s | psql -X -q -A -t -v ON_ERROR_STOP=1 %s"):format(kit.quote(text),
    kit.quote(url or pg.url)))
end

return pg
