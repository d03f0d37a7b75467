--- The console: a page for operators, and the JSON API that it and scripts use. See mjhook-console(7).
---
---     location /mjhook/ { content_by_lua_block { require("resty.mjhook").console() } }
---
--- nginx authenticates (allow, auth_basic, auth_request). Without options nothing can be changed here.
local access = require "resty.mjhook.console.access"
local acts = require "resty.mjhook.console.acts"
local assets = require "resty.mjhook.console.assets"
local core = require "mjhook.core"
local json = require "mjhook.cli.json"
local decode = require("mjhook.json").decode
local listing = require "mjhook.listing"
local history = require "resty.mjhook.console.history"
local live = require "resty.mjhook.console.live"
local orders = require "resty.mjhook.console.orders"
local queries = require "resty.mjhook.console.queries"
local log = require("resty.mjhook.log").log

local M = {}

-- ---- options ----

local OPTIONS = { actions = "boolean", private = "boolean", images = "string", archive = "string",
                  archive_location = "string", assets = "string" }
local IMAGES = { off = true, archived = true, provider = true }

local function check(given)
  for name, value in pairs(given) do
    if OPTIONS[name] ~= type(value) then
      error(("console: %s '%s'"):format(OPTIONS[name] and "bad option" or "unknown option", tostring(name)), 0)
    end
  end
  if given.images and not IMAGES[given.images] then
    error(('console: images is "off", "archived" or "provider", not %q'):format(given.images), 0)
  elseif (given.archive ~= nil) ~= (given.archive_location ~= nil) then
    error("console: archive (a directory) and archive_location (nginx's internal location of it) go together", 0)
  end
end

-- ---- answers ----

local STATUS = { invalid = 400, forbidden = 403, read_only = 403, token = 403, origin = 403, not_found = 404,
                 method = 405, state = 409, duplicate = 409, limit = 409, media_type = 415, slow_down = 503 }

local function send(status, kind, text)
  ngx.status = status
  ngx.header["Content-Type"] = kind
  ngx.header["Content-Length"] = #text
  ngx.print(text)
end

local function send_json(text, status)
  send(status or 200, "application/json", text)
end

local function send_error(err)
  local status = STATUS[err.code] or 503
  if status == 503 then
    ngx.header["Retry-After"] = "2"
  end
  send_json(json.encode { error = { code = err.code, message = err.message } }, status)
end

local function refuse(code, message)
  send_error { code = code, message = message }
end

-- ---- pace: what the console may take of the event loop ----

local PACE_MS = 8      -- between two answers of a worker, whatever is asked
local BURST_MS = 480   -- sixty are given at once: a page and what it loads
local WAIT_MS = 4000   -- what would wait longer is told to come later
local REFUSED_S = 1    -- and is told so only after this time: a client in a loop gains nothing
local REST = 9         -- times as long as a read took: so reads take a tenth of a processor at most

local free_at = 0

local function pace()
  local now = core.clock()
  local at = math.max(free_at, now - BURST_MS)
  if at - now > WAIT_MS then
    ngx.sleep(REFUSED_S)
    return false
  end
  free_at = at + PACE_MS
  if at > now then
    ngx.sleep((at - now) / 1000)
  end
  return true
end

-- ---- GET ----

-- Reads in a thread; gives JSON text, or nil and an error.
local function read(mj, name, args, options)
  local text, err, took = mj.exec:console(name, args, { private = options.private or false,
                                                        images = options.images or "off" })
  free_at = math.max(free_at, core.clock() - BURST_MS) + REST * (took or 0)
  return text, err
end

local function answer_read(mj, name, options, args)
  local text, err = read(mj, name, args, options)
  if not text then
    return send_error(err)
  end
  send_json(text)
end

local API = {}

local function keep_history(mj, options)
  history.start(function()
    return (read(mj, "counters", {}, options))
  end)
end

function API.console(mj, options)
  keep_history(mj, options)
  local names = json.array {}
  for i, account in ipairs(mj.config.accounts) do
    names[i] = account.name
  end
  send_json(json.encode {
    version = core.version, actions = options.actions or false, private = options.private or false,
    images = options.images or "off", accounts = names, states = json.array(listing.STATES), now = core.now(),
    token = access.token(mj),
  })
end

-- An archived image: nginx sends the file, if it lies in the archive's directory.
function API.image(mj, options, wanted)
  if options.private or (options.images or "off") == "off" or not options.archive then
    return refuse("not_found", "archived images are not shown here")
  end
  local text, err = read(mj, "file", wanted, options)
  if not text then
    return send_error(err)
  end
  local file = decode(text)
  local root = options.archive:gsub("/*$", "/")
  local below = file.path:sub(1, #root) == root and file.path:sub(#root + 1)
  if not below or ("/" .. below .. "/"):find "/%.%.?/" or not (file.type or ""):match "^image/%a+$" then
    return refuse("not_found", "the file does not lie in the archive")
  end
  ngx.header["Content-Type"] = file.type
  ngx.exec(options.archive_location:gsub("/*$", "/") .. ngx.escape_uri(below):gsub("%%2F", "/"))
end

--- The counters of the last hour or day.
function API.history(mj, options, wanted)
  keep_history(mj, options)
  send_json(history.json(wanted.span))
end

function API.live(mj, options)
  local ok = live.stream(function()
    return (read(mj, "pulse", {}, options))
  end)
  if not ok then
    refuse("slow_down", "too many live streams are open")
  end
end

-- ---- POST ----

local BODY_MOST = 65536

local function body()
  local kind = (ngx.var.http_content_type or ""):match "^[^;%s]*"
  if kind:lower() ~= "application/json" then
    return nil, { code = "media_type", message = "Content-Type: application/json expected" }
  elseif (tonumber(ngx.var.http_content_length) or math.huge) > BODY_MOST then
    return nil, { code = "invalid", message = ("a body of at most %d bytes expected"):format(BODY_MOST) }
  end
  ngx.req.read_body()
  local text = ngx.req.get_body_data()
  if not text and ngx.req.get_body_file() then
    return nil, { code = "invalid", message = "client_body_buffer_size is too small: 64k expected" }
  end
  local value = decode(text or "")
  if type(value) ~= "table" then
    return nil, { code = "invalid", message = "a JSON object expected" }
  end
  return value
end

local function may_post(mj)
  if not access.same_origin(true) then
    return refuse("origin", "not from a page of this origin")
  elseif not access.is_good(mj, ngx.var.http_x_mjhook_token) then
    return refuse("token", "the token is missing or too old: get another from api/console")
  end
  return true
end

local POST = {}

function POST.act(mj, options)
  if not options.actions then
    return refuse("read_only", "this console is read-only: console{ actions = true } allows actions")
  elseif not may_post(mj) then
    return
  end
  local wanted, err = body()
  if wanted then
    err = select(2, orders.check(mj, wanted, options))
  end
  if err then
    return send_error(err)
  end
  log("notice", ("console: %s%s%s"):format(wanted.action, wanted.dry_run and " (dry run)" or "",
    ngx.var.remote_user and " by " .. ngx.var.remote_user or ""))
  ngx.header["Content-Type"] = "application/x-ndjson"
  ngx.header["X-Accel-Buffering"] = "no"
  local ok, why = pcall(acts.run, mj, wanted, options)
  if not ok then
    local said = type(why) == "table" and why or { code = "internal", message = "see the error log" }
    log("error", "console: " .. wanted.action .. ": " .. tostring(type(why) == "table" and why.message or why))
    ngx.print(json.encode { error = { code = said.code, message = said.message } }, "\n")
  end
end

local examining = false

function POST.doctor(mj, options)
  if not may_post(mj) then
    return
  elseif examining then
    return refuse("slow_down", "the doctor is at work")
  end
  examining = true
  local ok, findings, err = pcall(options.doctor)
  examining = false
  if not ok or not findings then
    log("error", "console: doctor: " .. tostring(ok and err.message or findings))
    return send_error(ok and err or { code = "internal", message = "see the error log" })
  end
  send_json(json.encode { findings = json.array(findings) })
end

-- ---- the way in ----

local function page(mj, options)
  local index = assets.get("index.html", options.assets)
  if not index then
    log("error", "console: its files are not there: run `make install`, or name their directory with `assets`")
    return send(500, "text/plain", "The console's files are not installed: see nginx's error log.\n")
  end
  send(200, index.type, (index.text:gsub("@TOKEN@", mj and access.token(mj) or "")))
end

local function asset(name, options)
  local file = assets.get(name, options.assets)
  if not file then
    return send(404, "text/plain", "not found\n")
  end
  send(200, file.type, file.text)
end

local function answer_get(mj, name, options)
  local query, err = ngx.req.get_uri_args(50)
  if err == "truncated" then
    return refuse("invalid", "too many parameters")
  end
  local wanted, fault = queries.read(name, query, options)
  if not wanted then
    return refuse("invalid", fault)
  elseif API[name] then
    return API[name](mj, options, wanted)
  end
  answer_read(mj, name, options, wanted)
end

local function api(mj, name, options, method)
  local get = queries.exists(name)
  if not (get or POST[name]) then
    return refuse("not_found", "the API has no " .. name)
  elseif method ~= (get and "GET" or "POST") then
    ngx.header["Allow"] = get and "GET" or "POST"
    return refuse("method", (get and "GET" or "POST") .. " expected")
  elseif not mj then
    return refuse("unavailable", "the store can't be opened: see the error log")
  elseif not get then
    return POST[name](mj, options)
  elseif not access.same_origin(false) then
    return refuse("origin", "not from a page of this origin")
  end
  answer_get(mj, name, options)
end

--- Answers a request, as a content handler. Never raises but for wrong options.
-- @tparam table|nil mj the worker's; nil while its store can't be opened
-- @tparam table options see mjhook-console(7); and `doctor`: a function that gives its findings
function M.handle(mj, given, doctor)
  check(given)
  local options = { doctor = doctor }
  for k, v in pairs(given) do
    options[k] = v
  end
  local method, uri = ngx.req.get_method(), ngx.var.uri
  access.headers(options)
  if not pace() then
    return refuse("slow_down", "too many requests at a time")
  end
  if method == "HEAD" then
    method = "GET"
  end
  local name = uri:match "/api/([%w_-]+)$"
  if name then
    return api(mj, name, options, method)
  elseif method ~= "GET" then
    ngx.header["Allow"] = "GET"
    return refuse("method", "GET expected")
  end
  name = uri:match "/assets/([%w_.-]+)$"
  if name then
    return asset(name, options)
  elseif uri:match "/$" then
    return page(mj, options)
  end
  send(404, "text/plain", "not found\n")
end

return M
