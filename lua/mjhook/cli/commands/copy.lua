-- mjhook copy
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"

-- The configuration with this store in the place of its own; nil: its own.
local function configuration(values, where)
  if where then
    local store, why = options.store(where)
    if not store then
      fail.stop(fail.USAGE, ("copy: %s: %s"):format(where:gsub(":[^:@/]*@", ":***@"), why), "copy")
    end
  end
  local resolved, err = require("mjhook.config").resolve { config = values.config, store = where or values.store,
                                                           policy = {} }
  return resolved or fail.with(err)
end

local function open(config, must_be_there)
  local stores = require "mjhook.stores"
  local there, err = stores.exists(config)
  if not there and (must_be_there or err.code ~= "not_found") then
    fail.stop(err.code == "not_found" and fail.CONFIG or fail.exit(err.code),
      err.code == "not_found" and ("copy: there is no store in %s"):format(config.store) or fail.sentence(err))
  end
  local store
  store, err = stores.open(config)
  return store or fail.with(err)
end

-- Says how far it is, on a terminal.
local function progress_of(total, out)
  local core = require "mjhook.core"
  if not core.isatty(2) or out.json then
    return nil
  end
  local said = 0
  return function(so_far)
    local now = core.clock()
    if now - said >= 200 then
      said = now
      io.stderr:write(("\r\27[K%s %d of about %d"):format(so_far.verifying and "compared once more; copied" or "copied",
        so_far.looked, total))
    end
  end
end

local function tasks_of(stats)
  local n = 0
  for _, count in pairs(stats.states or {}) do
    n = n + count
  end
  return n
end

local function cancel(values, arguments, out)
  local from = configuration(values, arguments[1])
  local store = open(from, true)
  local ok, err = store:cancel_copy()
  store:close()
  if not ok then
    fail.with(err)
  end
  if out.json then
    out:value { cancelled = from.store }
  else
    out:line(from.store, " takes writes again; the unfinished copy can be brought up to date by another `mjhook copy`")
  end
end

return {
  name = "copy",
  arguments = "[FROM] TO",
  summary = "copy a store to another database, or move to it",
  example = "mjhook copy /var/lib/mjhook postgresql://mjhook@db.example/mjhook",
  least = 1, most = 2,
  too_many = "copy takes two stores",
  opens_nothing = true,
  options = {
    { name = "finish", help = "move: FROM takes no more writes, and TO may be used afterwards" },
    { name = "cancel", help = "let FROM (the one argument) take writes again, before its copy is finished" },
  },
  details = [[
A store is a directory or postgresql://...; FROM is the configuration's when it is not named. The copy is made while
FROM is in use. It compares before it writes, so it can be interrupted and begun again at any time; TO can't be used
meanwhile. With --finish every process that writes to FROM gets the error "moved" from that moment on (callbacks get
503, and the provider or polling brings them again): what changed since the last copy is copied, all is compared once
more, and TO is the store from then on. Then name TO in the configuration and start nginx and the reconciler again.]],
  check = function(values, arguments)
    if values.finish and values.cancel then
      fail.stop(fail.USAGE, "copy: --finish or --cancel, not both", "copy")
    elseif values.cancel and #arguments ~= 1 then
      fail.stop(fail.USAGE, "copy: --cancel takes one store", "copy")
    end
  end,
  run = function(_, values, arguments, out)
    if values.cancel then
      return cancel(values, arguments, out)
    end
    local core = require "mjhook.core"
    local from = configuration(values, arguments[2] and arguments[1] or nil)
    local to = configuration(values, arguments[#arguments])
    if from.store == to.store then
      fail.stop(fail.USAGE, "copy: FROM and TO are the same store", "copy")
    end
    local source, target = open(from, true), open(to, false)
    local began = core.clock()
    local stats = source:stats(core.now())
    local done, err = source:copy(target, { finish = values.finish or false, from = from.store, to = to.store },
      progress_of(stats and tasks_of(stats) or 0, out))
    local seconds = (core.clock() - began) / 1000
    target:close()
    source:close()
    if core.isatty(2) and not out.json then
      io.stderr:write "\r\27[K"
    end
    if not done then
      fail.with(err)
    end
    if out.json then
      out:value { from = from.store, to = to.store, finished = values.finish or false, records = done.looked,
                  written = done.written, removed = done.removed, damaged = done.damaged,
                  elapsed_ms = math.floor(seconds * 1000) }
    else
      out:line(("looked at %d records: %d copied, %d removed, in %.1f s"):format(done.looked, done.written,
        done.removed, seconds))
      if done.damaged > 0 then
        out:line(("%d records can't be read and were left out: `mjhook check` tells which"):format(done.damaged))
      end
      out:line(values.finish and ("finished: put store = \"%s\" into the configuration"):format(to.store)
        or "not finished: `mjhook copy --finish` moves to it")
    end
    return done.damaged > 0 and fail.FAILED or nil
  end,
}
