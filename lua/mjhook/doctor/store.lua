-- Does the store open, is there room, and does a reconciler run?
local core = require "mjhook.core"
local health = require "mjhook.doctor.health"
local stores = require "mjhook.stores"
local text = require "mjhook.cli.text"

local MIB = 2 ^ 20
local DISK_FAIL, DISK_WARN = 16 * MIB, 512 * MIB
local MAP_FAIL, MAP_WARN = 0.95, 0.8

local ADVICE = {
  owner = "run mjhook, cron and nginx's workers as its owner, or share it with a group: store_mode",
  schema = "install the newer mjhook again, or restore a backup",
  format = "name another directory as `store`",
  corrupt = "`mjhook check` tells more; put a backup in its place: `mjhook restore`",
  no_space = "make room",
  read_only = "look at the directory's owner and mode, and whether the disk is mounted read-only",
}

local function bit(mode, value)
  return math.floor(mode / value) % 2 == 1
end

-- Nothing is there yet: can it be made?
local function check_parent(dir, report)
  local parent = dir:gsub("/+$", ""):match "^(.*)/[^/]+$"
  parent = parent == nil and "." or parent == "" and "/" or parent
  local st = core.stat(parent)
  if not st or st.type ~= "directory" then
    report:fail("store.directory", ("%s can't be made: there is no directory %s"):format(dir, parent),
      ("mkdir -p %s"):format(parent))
    return nil
  end
  report:warn("store.directory", ("%s is not there yet"):format(dir),
    "the first submission makes it; until then mjhook-reconcile has nothing to do")
  return parent
end

local function check_directory(config, st, report)
  local dir = config.store
  if st.type ~= "directory" then
    report:fail("store.directory", ("%s is no directory"):format(dir), "name another one as `store`")
    return false
  elseif bit(st.mode, 2) and not bit(st.mode, 512) then -- 0002 without 01000
    report:fail("store.directory", ("all users can write to %s"):format(dir), ("chmod o-w %s"):format(dir))
    return false -- no store is opened in it
  elseif config.store_mode == 432 and not (bit(st.mode, 1024) and bit(st.mode, 16)) then -- 0660: 02020
    report:fail("store.directory", ("%s is to be shared with a group, but has mode %03o"):format(dir, st.mode),
      ("chmod 2770 %s"):format(dir))
  else
    report:ok("store.directory", ("%s, uid %d, mode %03o"):format(dir, st.uid, st.mode))
  end
  return true
end

-- A lock file that root made once keeps all other users out.
local function check_files(config, st, report)
  local bad = false
  for _, name in ipairs { "data.mdb", "lock.mdb", "reconcile.lock" } do
    local path = config.store .. "/" .. name
    local file = core.stat(path)
    if file and file.uid ~= st.uid and config.store_mode ~= 432 then
      bad = true
      report:fail("store.files", ("%s belongs to uid %d, the directory to uid %d"):format(path, file.uid, st.uid),
        ("chown it to uid %d"):format(st.uid))
    elseif file and file.mode % 8 ~= 0 then
      bad = true
      report:fail("store.files", ("%s has mode %03o: all users can use it"):format(path, file.mode),
        ("chmod o-rwx %s"):format(path))
    end
  end
  if not bad then
    report:ok("store.files", "data and lock files belong to the owner and are private")
  end
end

local function check_disk(path, report)
  local disk, err = core.disk(path)
  if not disk then
    return report:fail("store.disk", err.message, "is the disk mounted?")
  end
  local words = ("%s of %s free"):format(text.bytes(disk.free), text.bytes(disk.total))
  if disk.free < DISK_FAIL then
    report:fail("store.disk", words .. ": callbacks are refused with 503 when it is full", "make room")
  elseif disk.free < DISK_WARN then
    report:warn("store.disk", words, "make room, or let mjhook forget old tasks: `retention`")
  else
    report:ok("store.disk", words)
  end
end

local function check_map(config, stats, report)
  local most = config.map_max or 2 ^ 40
  local share = stats.bytes_used / most
  local words = ("%s in use of map_max, %s"):format(text.bytes(stats.bytes_used), text.bytes(most))
  if share > MAP_FAIL then
    report:fail("store.map_max", words, "raise map_max, or let mjhook forget old tasks: `retention`")
  elseif share > MAP_WARN then
    report:warn("store.map_max", words, "raise map_max")
  else
    report:ok("store.map_max", words)
  end
end

local function check_inside(config, store, report)
  local stats, err = store:stats(core.now())
  if not stats then
    return report:fail("store.open", err.message, ADVICE[err.code] or "`mjhook check` tells more")
  end
  report:ok("store.open", ("opens, schema %d"):format(core.schema))
  check_map(config, stats, report)
  for _, one in ipairs(health.findings(store, stats, config, core.now())) do
    report[one.status](report, one.check, one.message, one.advice)
  end
end

return function(patient, report)
  local config = patient.config
  if stores.scheme(config.store) then
    return require "mjhook.doctor.database"(patient, report)
  end
  local st, err = core.stat(config.store)
  if not st then
    if err.code ~= "not_found" then
      return report:fail("store.directory", err.message, "may this user look into the directories above it?")
    end
    local parent = check_parent(config.store, report)
    return parent and check_disk(parent, report)
  elseif not check_directory(config, st, report) then
    return
  end
  check_disk(config.store, report)
  local _, absent = core.stat(config.store .. "/data.mdb")
  if absent and absent.code == "not_found" then
    return report:warn("store.open", "there is no store in it yet", "the first submission makes it")
  end
  check_files(config, st, report)
  local store
  store, err = stores.open(config)
  if not store then
    return report:fail("store.open", err.message, ADVICE[err.code] or "see mjhook-config(5)")
  end
  local ok, why = pcall(check_inside, config, store, report)
  store:close()
  if not ok then
    error(why, 0)
  end
end
