-- A store in a database: can it be reached, are its tables of this version, how is it set up, does a pass run?
local core = require "mjhook.core"
local health = require "mjhook.doctor.health"
local stores = require "mjhook.stores"

local ADVICE = {
  moved = "name the other store in the configuration",
  schema = "run `mjhook migrate`, or install the mjhook that made the tables",
  owner = "grant the role what the guide PostgreSQL lists",
  read_only = "a primary that lets this role in and may be written to is needed: see the guide PostgreSQL",
  busy = "raise max_connections, or put a pooler in front",
}

local function check_tables(module, config, report)
  local status, code, message = module.status(config.store_url, { schema = config.store_schema })
  if not status then
    report:fail("store.open", message, ADVICE[code] or "see the guide PostgreSQL")
    return false
  end
  local server = ("%s, PostgreSQL %d.%d"):format(status.database, math.floor(status.server / 10000),
    status.server % 10000)
  if status.version == 0 then
    report:warn("store.open", ("%s: there are no tables in schema %s yet"):format(server, status.schema),
      "the first submission makes them, or `mjhook migrate`")
    return false
  elseif status.version ~= status.needed then
    report:fail("store.open", ("%s: schema %s has version %d, this mjhook needs %d"):format(server, status.schema,
      status.version, status.needed), status.version < status.needed and "run `mjhook migrate`"
      or "install the newer mjhook here, too")
    return false
  end
  report:ok("store.open", ("%s, schema %s, version %d"):format(server, status.schema, status.version))
  return true
end

local function check_inside(config, store, report)
  for _, fact in ipairs(store:facts() or {}) do
    report[fact.status](report, "store." .. fact.check, fact.message, fact.advice)
  end
  local stats, err = store:stats(core.now())
  if not stats then
    return report:fail("store.stats", err.message, ADVICE[err.code] or "see the guide PostgreSQL")
  end
  for _, one in ipairs(health.findings(store, stats, config, core.now())) do
    report[one.status](report, one.check, one.message, one.advice)
  end
end

return function(patient, report)
  local config = patient.config
  local module, err = stores.module(config.store)
  if not module then
    return report:fail("store.module", err.message, "then run mjhook doctor again")
  elseif not check_tables(module, config, report) then
    return
  end
  local store
  store, err = stores.open(config)
  if not store then
    return report:fail("store.open", err.message, ADVICE[err.code] or "see the guide PostgreSQL")
  end
  local ok, why = pcall(check_inside, config, store, report)
  store:close()
  if not ok then
    error(why, 0)
  end
end
