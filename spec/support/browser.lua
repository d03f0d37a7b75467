-- A headless Chromium, driven by playwright-core. spec/e2e/browser/NAME.mjs is a visit: it prints what it saw as JSON.
local cjson = require "cjson"
local core = require "mjhook.core"
local kit = require "kit"

local browser = {}

local HERE = kit.root .. "/spec/e2e/browser"

-- Once for all runs of this build and these versions; a run that comes second finds it, whole.
local function modules()
  local versions = core.sha256(kit.read(HERE .. "/package-lock.json")):sub(1, 6)
  local home = kit.build .. "/playwright-" .. versions:gsub(".", function(c) return ("%02x"):format(c:byte()) end)
  if not core.stat(home .. "/node_modules/playwright-core") then
    local dir = kit.sh "mktemp -d"
    local said, code = kit.sh(("cd %s && cp %s/package.json %s/package-lock.json . && npm ci --silent --no-audit "
      .. "--no-fund && mkdir -p %s && { mv node_modules %s/ 2>/dev/null || test -d %s/node_modules; }"):format(dir,
      kit.quote(HERE), kit.quote(HERE), kit.quote(home), kit.quote(home), kit.quote(home)))
    kit.sh("rm -rf " .. dir)
    if code ~= 0 then
      return nil, ("npm can't install what spec/e2e/browser/package.json names: %s"):format(said)
    end
  end
  return home .. "/node_modules"
end

--- Why no browser can be driven here; nil when one can.
function browser.missing()
  if select(2, kit.sh "command -v chromium && command -v node && command -v npm") ~= 0 then
    return "chromium, node or npm is not installed"
  end
  return select(2, modules())
end

--- Makes a visit. Screenshots go to the directory that $MJHOOK_SHOTS names, if it is set.
-- @tparam string name of a file in spec/e2e/browser, without its end
-- @tparam table args what the visit gets
-- @treturn table what it saw
function browser.visit(name, args)
  local dir = kit.tmp()
  local script = ("%s/spec/e2e/browser/%s.mjs"):format(kit.root, name)
  local out, code = kit.sh(("env -u LD_PRELOAD PLAYWRIGHT_MODULES=%s HOME=%s node %s %s"):format(kit.quote(modules()),
    kit.quote(dir), kit.quote(script), kit.quote(cjson.encode(args))))
  assert(code == 0, out)
  return cjson.decode(out)
end

return browser
