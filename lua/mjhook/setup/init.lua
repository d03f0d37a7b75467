--- mjhook init: writes a configuration with fresh secrets, and makes the store's directory. Nothing that is there is
-- changed: what was written is taken away again when a later step fails.
local config = require "mjhook.config"
local core = require "mjhook.core"
local json = require "mjhook.json"
local lines = require "mjhook.setup.lines"

local M = {}

local PRIVATE, GROUP_READS, WORLD_LOOKS = 384, 416, 493 -- 0600, 0640, 0755
local STORE, SHARED_STORE = 448, 1528                    -- 0700, 02770

local Setup = {}
Setup.__index = Setup

local function insist(ok, err)
  if not ok then
    error(err, 0)
  end
  return ok
end

local function fail(text, ...)
  error(core.error("exists", text:format(...)), 0)
end

-- 32 random bytes, as text.
local function random()
  local file = insist(io.open("/dev/urandom", "rb"), core.error("io", "/dev/urandom can't be read"))
  local bytes = file:read(32)
  file:close()
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

-- Makes a directory and those above it; gives whether it was not there.
function Setup:directory(path, mode, owner, group)
  local parent = lines.directory_of(path)
  if parent ~= "/" and parent ~= "" and not core.stat(parent) then
    self:directory(parent, WORLD_LOOKS)
  end
  local made, err = core.mkdir(path, mode)
  if not made and err.code == "exists" then
    return false
  end
  insist(made, err)
  self.undo[#self.undo + 1] = path
  if owner then
    insist(core.own(path, owner, group, mode))
  end
  return true
end

-- A file of root's, or of the user's own, that the user can read.
function Setup:file(path, text)
  if core.stat(path) then
    fail("%s is there already: it is left as it is; name another configuration with -c", path)
  end
  local theirs = self.root and self.user.uid ~= 0
  local mode = theirs and GROUP_READS or PRIVATE
  insist(core.write_file(path, text, mode))
  self.undo[#self.undo + 1] = path
  insist(core.own(path, core.uid(), theirs and self.user.gid or self.own_gid, mode))
  self.written[#self.written + 1] = path
end

local function quoted(value)
  return insist(json.encode(value)) -- a JSON string of printable text is a Lua string, too
end

local CONFIG = [[
-- Written by mjhook init, for nginx (LuaJIT), mjhook-reconcile and mjhook alike; see mjhook-config(5).
-- Paths count from this file.
return {
  store = %s,%s
%s  -- The first line signs the callback URL; all of them verify.  To change it, put a new one before it.
  secrets_file = "secrets",
%s%s
  -- What is done with results.  An edited policy is taken over without a restart.
  policy = "policy.lua",

  -- How long finished tasks are kept, in seconds; without it for ever.
  retention = { succeeded = 90 * 86400, failed = 30 * 86400, lost = 90 * 86400, cancelled = 7 * 86400 },
}
]]

local POLICY = [[
-- What is done with results; see mjhook-config(5), POLICY.  Each function is called until it returns: when it raises,
-- or returns false and a reason, it is called again later.
return {
  on_succeeded = function(task, ctx)
    ctx.log("info", ("task %s: %s"):format(task.ref, task.image or task.images[1] or "no image"))
  end,

  on_failed = function(task, ctx)
    ctx.log("notice", ("task %s failed: %s"):format(task.ref, tostring(task.error)))
  end,

  on_lost = function(task, ctx)
    ctx.log("notice", ("task %s is lost: %s"):format(task.ref, tostring(task.error)))
  end,
}
]]

local function config_text(plan)
  local key
  if plan.api_key then
    key = '  api_key_file = "api-key",\n'
  elseif plan.api_key_file then
    key = ("  api_key_file = %s,\n"):format(quoted(plan.api_key_file))
  else
    key = "  -- The provider's key alone stands in this file.  Without the line: MIDJOURNEY_API_KEY.\n"
      .. '  -- api_key_file = "api-key",\n'
  end
  return CONFIG:format(quoted(plan.store), plan.group and '\n  store_mode = "0660",' or "", key,
    plan.hook_url and "  hook_url = " .. quoted(plan.hook_url) .. ",\n"
      or "  -- Where the provider calls back; without it tasks are only polled.\n"
      .. '  -- hook_url = "https://app.example/webhooks/midjourney",\n',
    plan.base_url and "  base_url = " .. quoted(plan.base_url) .. ",\n" or "")
end

function Setup:make_store()
  local plan = self.plan
  if not plan.store:match "^/" then
    return -- a database: `mjhook migrate` makes what it needs
  end
  local st = core.stat(plan.store)
  if st and st.type ~= "directory" then
    fail("%s is there, and is no directory", plan.store)
  elseif st and st.uid ~= self.user.uid then
    local owner = core.user(st.uid)
    fail("%s belongs to %s, not to %s: name another directory, or --user %s", plan.store,
      owner and owner.name or "uid " .. st.uid, self.user.name, owner and owner.name or st.uid)
  end
  local group = plan.group and insist(core.group(plan.group)).gid or self.user.gid
  self:directory(plan.store, plan.group and SHARED_STORE or STORE, self.root and self.user.uid, group)
end

local function make(self)
  local plan = self.plan
  local dir = lines.directory_of(plan.config_file)
  self:directory(dir, self.root and WORLD_LOOKS or STORE)
  self:file(plan.config_file, config_text(plan))
  self:file(dir .. "/secrets", random() .. "\n")
  if plan.api_key then
    self:file(dir .. "/api-key", plan.api_key .. "\n")
  end
  self:file(dir .. "/policy.lua", POLICY)
  insist(config.resolve { config = plan.config_file }) -- what the programs would refuse is not left behind
  self:make_store()
end

--- @tparam table plan config_file, store (a directory or a URL), user (a name), group (a name, or nil), hook_url,
-- api_key or api_key_file, base_url
-- @treturn table|nil {written= {paths}, user=}; nil and an error, and then nothing was left behind
function M.run(plan)
  local user, err = core.user(plan.user)
  if not user then
    return nil, err
  end
  local self = setmetatable({ plan = plan, user = user, root = core.uid() == 0, written = {}, undo = {},
                              own_gid = core.user(core.uid()).gid }, Setup)
  local ok, why = pcall(make, self)
  if ok then
    return { written = self.written, user = user }
  end
  for i = #self.undo, 1, -1 do
    os.remove(self.undo[i])
  end
  if type(why) == "table" and why.code then
    return nil, why
  end
  error(why, 0)
end

--- All lines that fit a plan.
-- @treturn table crontab, cron_d, systemd, nginx= {main=, http=, server=}
function M.lines(plan)
  return {
    crontab = lines.crontab(plan.config_file), cron_d = lines.cron_d(plan.config_file, plan.user),
    systemd = lines.systemd(plan), nginx = lines.nginx(plan),
  }
end

return M
