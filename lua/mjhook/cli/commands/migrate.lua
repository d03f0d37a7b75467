-- mjhook migrate
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"

local function configuration(values, where)
  if where then
    local store, why = options.store(where)
    if not store then
      fail.stop(fail.USAGE, "migrate: " .. why, "migrate")
    end
  end
  local resolved, err = require("mjhook.config").resolve { config = values.config, store = where or values.store,
                                                           policy = {} }
  return resolved or fail.with(err)
end

return {
  name = "migrate",
  arguments = "[URL]",
  summary = "make the tables of a database, or bring them to this version",
  example = "mjhook migrate postgresql://mjhook@db.example/mjhook --print",
  least = 0, most = 1,
  too_many = "migrate takes one URL",
  opens_nothing = true,
  options = {
    { name = "print", help = "print what would be run, as SQL, and change nothing" },
  },
  details = [[
For a store on PostgreSQL: postgresql://..., by default the configuration's. It goes forward only, one version to a
transaction; two hosts that do it at once do it once. A store in a directory needs no such step. The first program that
opens a store makes its tables, too, if it may; where it may not, run this as a role that may.]],
  run = function(_, values, arguments, out)
    local config = configuration(values, arguments[1])
    local module, err = require("mjhook.stores").module(config.store)
    if not module then
      fail.stop(err and fail.exit(err.code) or fail.USAGE,
        err and err.message or ("migrate: %s is a directory, and needs no migration"):format(config.store))
    end
    local given = { schema = config.store_schema }
    local where = config.store_url or config.store
    if values.print then
      local sql, from, message = module.migration(where, given)
      if not sql then
        fail.with(require("mjhook.core").error(from, message))
      elseif out.json then
        out:value { from = from, sql = sql }
      else
        out:lines(sql)
      end
      return
    end
    local done, code, message = module.migrate(where, given)
    if not done then
      fail.with(require("mjhook.core").error(code, message))
    elseif out.json then
      out:value { from = done.from, to = done.to }
    elseif done.from == done.to then
      out:line(("%s is at version %d already"):format(config.store, done.to))
    else
      out:line(("%s: from version %d to %d"):format(config.store, done.from, done.to))
    end
  end,
}
