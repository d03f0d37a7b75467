-- The lines that mjhook prints for an installation: names with odd characters stay what they are.
local lines = require "mjhook.setup.lines"

describe("the lines for systemd", function()
  it("double what systemd would expand: % everywhere, $ in a command alone", function()
    local unit = lines.systemd { config_file = "/srv/q$x/a%i.lua", user = "u", store = "/srv/q$x/s%d" }
    assert.truthy(unit:find("-c /srv/q$$x/a%%i.lua\n", 1, true), unit)
    assert.truthy(unit:find("ReadWritePaths=/srv/q$x/s%%d\n", 1, true), unit)
  end)
end)
