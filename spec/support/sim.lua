-- The simulated provider (scripts/simulator): setup(sim.start), teardown(sim.stop), before_each(sim.reset).
-- Its jobs run until sim.finish() ends them.
local kit = require "kit"
local cjson = require "cjson"
local http = require "socket.http"
local ltn12 = require "ltn12"

local sim = {}
local dir
local PROGRAM = kit.root .. "/scripts/simulator/simulator"

--- Starts it on a random port.
-- @tparam[opt] string options more of its command line
function sim.start(options)
  dir = kit.sh "mktemp -d"
  local out, code = kit.sh(("%s start --dir %s --key %s --set delay_ms=3600000 --set timeout_unit_ms=36000000 %s")
    :format(kit.quote(PROGRAM), kit.quote(dir), kit.KEY, type(options) == "string" and options or ""))
  assert(code == 0, out)
  sim.url = out
  local port = (kit.read(dir .. "/tls_port") or ""):match "%d+" -- with --tls-cert
  sim.tls_url = port and "https://127.0.0.1:" .. port
end

function sim.stop()
  if dir then
    kit.sh(("%s stop --dir %s; rm -rf %s"):format(kit.quote(PROGRAM), kit.quote(dir), kit.quote(dir)))
    dir, sim.url, sim.tls_url = nil, nil, nil
  end
end

--- One HTTP request. Gives status, body, headers.
function sim.request(method, url, body, headers)
  local chunks = {}
  headers = headers or {}
  headers["content-length"] = body and #body or nil
  local ok, code, got = http.request {
    method = method, url = url, headers = headers, redirect = false,
    source = body and ltn12.source.string(body) or nil, sink = ltn12.sink.table(chunks),
  }
  return ok and code or nil, table.concat(chunks), got
end

local function control(name, args)
  local code, text = sim.request(args and "POST" or "GET", sim.url .. "/_sim/" .. name, args and cjson.encode(args))
  assert(code == 200, text)
  return cjson.decode(text)
end

function sim.reset()
  control("reset", { dummy = true })
end

function sim.config(switches)
  return control("config", switches)
end

--- Scripts faults: sim.script{submit = {"quota", "ok"}}.
function sim.script(entries)
  return control("script", entries)
end

function sim.ledger()
  return control "ledger"
end

function sim.counters()
  return control "counters"
end

--- Accepted submissions, oldest first.
function sim.jobs()
  return sim.ledger().submissions
end

--- Requests so far: submit, status, image.
function sim.requests(kind)
  return sim.counters().requests[kind]
end

--- Ends a job (status 1 by default) as the provider.
function sim.finish(task_id, status, reason)
  return control("finish", { taskId = task_id, status = status or 1, failReason = reason })
end

function sim.forget(task_id)
  return control("forget", { taskId = task_id })
end

--- The callbacks that arrived at the simulator's sink, once there are at least n: {uri=, body=, at=}.
function sim.callbacks(n)
  return kit.wait_until(function()
    local sink = control "sink"
    return sink.count >= n and sink.received
  end)
end

--- Hands the n-th callback at the sink to mj. Gives its reply.
function sim.hand(mj, n)
  local got = sim.callbacks(n)[n]
  return mj:callback { method = "POST", uri = got.uri, body = got.body, headers = {}, peer = "127.0.0.1" }
end

return sim
