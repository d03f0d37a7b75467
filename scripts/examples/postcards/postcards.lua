-- Postcards: pictures by mail order, on OpenResty.  A form submits a job, its card waits for the picture, a gallery has
-- pages.  nginx.conf beside this file says which location calls which function.
local mjhook = require "resty.mjhook"

local M = {}

local PER_PAGE = 6
local WAIT_S = 20        -- how long a request of a waiting card stays open
local IMAGES = "/images" -- where nginx serves what the archive has stored
local WAITING = { queued = "In the queue", submitting = "On its way", pending = "Being painted",
                  ambiguous = "Waiting for news" }
local ENDED = { failed = "Could not be painted", lost = "Lost in the post", cancelled = "Called off" }
local ENTITIES = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;", ["'"] = "&#39;" }

local function escape(text)
  return (tostring(text):gsub("[&<>\"']", ENTITIES))
end

-- A value of a URL that may be a ref: a ULID.
local function ref_of(text)
  return type(text) == "string" and #text == 26 and text:match "^[0-7][%dA-HJKMNP-TV-Z]+$" or nil
end

local function random()
  local file = assert(io.open "/dev/urandom")
  local bytes = file:read(16)
  file:close()
  return (bytes:gsub(".", function(c) return ("%02x"):format(c:byte()) end))
end

local secret = random() -- nginx loads this file once, before it forks: all workers have the same

-- ---- visitors: a random cookie stands for a user; a shop would have a log-in ----

local function visitor()
  local id = ngx.var.cookie_postcards
  if not id or not id:match "^%x+$" or #id ~= 32 then
    id = random()
    local secure = ngx.var.scheme == "https" and "; Secure" or ""
    ngx.header["Set-Cookie"] = ("postcards=%s; Path=/; Max-Age=31536000; HttpOnly; SameSite=Lax%s"):format(id, secure)
  end
  return id
end

-- Only a page that we sent to this visitor has it, so another site cannot submit in the visitor's name.
local function form_token(id)
  return ngx.encode_base64(ngx.hmac_sha1(secret, id))
end

-- ---- pages ----

local function picture(task)
  local file = task.files and task.files[1]
  return file and IMAGES .. file.path:match "/[^/]+/[^/]+$" or task.image or task.images[1] or ""
end

local CARD = [[
<article class="card %s" data-ref="%s"%s><div class="picture">%s</div>
<p class="prompt">%s</p><p class="stamp">%s</p></article>]]

local function card(task)
  local waits, inside = WAITING[task.state]
  if task.state == "succeeded" then
    local src = escape(picture(task))
    inside = ('<a href="%s"><img src="%s" alt="%s" loading="lazy"></a>'):format(src, src, escape(task.prompt))
  else
    local why = task.state == "failed" and task.error and ("<br><small>%s</small>"):format(escape(task.error)) or ""
    inside = ('<p role="status">%s%s</p>'):format(escape(waits or ENDED[task.state]), why)
  end
  local day = os.date("!%d %b %Y", math.floor(task.created_at / 1000))
  return CARD:format(task.state, task.ref, waits and " data-waits" or "", inside, escape(task.prompt), day)
end

local function unavailable(err)
  ngx.log(ngx.ERR, "postcards: ", err and err.message or "the store cannot be opened")
  return ngx.exit(503)
end

local function show(id, problem, prompt)
  local mj, args = mjhook.instance(), ngx.req.get_uri_args()
  local filter = { user_id = id, limit = PER_PAGE }
  filter.before, filter.after = ref_of(args.before), ref_of(args.after)
  local page, err = nil, nil
  if mj then
    page, err = mj:page(filter)
  end
  if not page then
    return unavailable(err)
  end
  local cards, links = {}, {}
  for i, task in ipairs(page.tasks) do
    cards[i] = card(task)
  end
  links[1] = page.newer and ('<a rel="prev" href="/?after=%s">Newer</a>'):format(page.newer)
  links[2] = page.older and ('<a rel="next" href="/?before=%s">Older</a>'):format(page.older) or nil
  ngx.header["Content-Type"] = "text/html; charset=utf-8"
  ngx.header["Cache-Control"] = "no-store"
  ngx.print((M.template:gsub("{{(%w+)}}", {
    token = form_token(id), key = random(), prompt = escape(prompt or ""),
    problem = problem and ('<p class="problem" role="alert">%s</p>'):format(escape(problem)) or "",
    cards = cards[1] and table.concat(cards, "\n") or '<p class="empty">No postcards yet. Write the first one.</p>',
    pages = (links[1] or "") .. (links[2] or ""),
  })))
end

--- GET /: the form and a page of this visitor's cards.
function M.gallery()
  show(visitor())
end

--- POST /cards: submits a job, and leads back to the gallery, so that a reload submits nothing.
function M.submit()
  local id = visitor()
  ngx.req.read_body()
  local form = ngx.req.get_post_args(8)
  if form.token ~= form_token(id) then
    ngx.status = 403
    return show(id, "This form is too old. Please send it again.", type(form.prompt) == "string" and form.prompt or nil)
  end
  -- The same form, sent twice, makes one postcard.
  local key = id .. (type(form.key) == "string" and form.key or "")
  local task, err = mjhook.submit { prompt = form.prompt, key = key, user_id = id }
  if not task then
    ngx.status = err.retryable and 503 or 400
    return show(id, err.message, type(form.prompt) == "string" and form.prompt or nil)
  end
  return ngx.redirect("/", 303)
end

--- GET /cards/REF: one card, as soon as its task has an end, or after a while as it is.
function M.card()
  local task, err = mjhook.status(ngx.var.ref)
  if not task or task.user_id ~= visitor() then
    return err and err.retryable and unavailable(err) or ngx.exit(404)
  end
  task = mjhook.wait(task.ref, { timeout = WAIT_S }) or mjhook.status(task.ref) or task
  ngx.header["Content-Type"] = "text/html; charset=utf-8"
  ngx.header["Cache-Control"] = "no-store"
  ngx.print(card(task))
end

--- In init_by_lua, with the directory of this file.
function M.init(dir)
  local file = assert(io.open(dir .. "/postcards.html"))
  M.template = file:read "*a"
  file:close()
end

return M
