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

--- Stops it with data safe on disk.
function pg.halt()
  kit.sh(("%s stop %s fast"):format(PROGRAM, pg.dir))
end

--- Makes a primary of a standby; of a primary it stays one.
function pg.promote()
  kit.sh(("psql -X -q -A -t -c 'SELECT pg_promote()' %s"):format(kit.quote(pg.url)))
end

--- Writes the file that says which users it lets in, and makes it read that.
function pg.hba(text)
  kit.sh(("printf '%%s' %s >%s/data/pg_hba.conf"):format(kit.quote(text), pg.dir))
  pg.sql "SELECT pg_reload_conf()"
end

--- All its processes stand still, from the one that takes connections on, until thaw() or the end of the test.
function pg.freeze()
  kit.finally(pg.thaw)
  kit.sh(("p=$(head -1 %s/data/postmaster.pid); kill -STOP $p; kill -STOP $(cat /proc/$p/task/$p/children)")
    :format(pg.dir))
end

function pg.thaw()
  kit.sh(("p=$(head -1 %s/data/postmaster.pid); kill -CONT $(cat /proc/$p/task/$p/children) $p"):format(pg.dir))
end

--- A session that stays: send(text) runs SQL in it, and waits until it is done.
function pg.session(url)
  local out = kit.tmp() .. "/out"
  local pipe = assert(io.popen(("psql -X -q -A -t %s >%s 2>&1"):format(kit.quote(url or pg.url), out), "w"))
  local said = 0
  local session = {}
  function session.send(text)
    said = said + 1
    pipe:write(text, (";\nSELECT 'said %d';\n"):format(said))
    pipe:flush()
    kit.wait_until(function() return (kit.read(out) or ""):find(("said %d\n"):format(said), 1, true) end)
  end
  function session.close()
    if pipe then
      pipe:close()
      pipe = nil
    end
  end
  kit.finally(session.close)
  return session
end

local function program(dir_of_config, name, words)
  return kit.sh(("env -u MJHOOK_STORE MJHOOK_CONFIG=%s/config.lua %s %s"):format(dir_of_config, kit.quote(name), words))
end

--- Runs a command of mjhook with a directory's config.lua; gives what it prints, and its exit code.
function pg.mjhook(dir_of_config, words)
  return program(dir_of_config, kit.lua, kit.quote(kit.root .. "/scripts/mjhook") .. " " .. words)
end

--- The same for mjhook-reconcile.
function pg.reconcile(dir_of_config, words)
  return program(dir_of_config, kit.build .. "/bin/mjhook-reconcile", words or "--json")
end

--- Runs SQL as psql does; gives what it prints without frames, and its exit code.
function pg.sql(text, url)
  return kit.sh(("printf '%%s' %s | psql -X -q -A -t -v ON_ERROR_STOP=1 %s"):format(kit.quote(text),
    kit.quote(url or pg.url)))
end

return pg
