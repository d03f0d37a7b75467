-- mjhook pause
local account_of = require "mjhook.cli.account"
local accounts = require "mjhook.accounts"
local fail = require "mjhook.cli.fail"
local options = require "mjhook.cli.options"
local text = require "mjhook.cli.text"

return {
  name = "pause",
  arguments = "[ACCOUNT]",
  summary = "send nothing new under an account, for a time or until it is resumed",
  example = "mjhook pause default --for 1h",
  least = 0, most = 1,
  too_many = "pause takes one account",
  options = {
    { name = "for", arg = "TIME", help = "for so long, such as 30m or 2h; else until `mjhook resume`",
      read = options.seconds },
  },
  details = [[
What was sent goes on, and its slots become free: an account that is paused without a time drains. A refusal of the
provider does not shorten the pause. Without ACCOUNT the only one is meant.]],
  check = function(given)
    if given["for"] == 0 then
      fail.stop(fail.USAGE, "pause: --for 0 would pause nothing", "pause")
    end
  end,
  run = function(mj, given, arguments, out)
    local name = account_of(mj, arguments[1], "pause")
    local ok, err = accounts.pause(mj, name, given["for"])
    if not ok then
      fail.with(err)
    elseif out.json then
      out:value { account = name, seconds = given["for"] }
    else
      out:line(("account %s: nothing new is sent %s"):format(name,
        given["for"] and "for " .. text.duration(given["for"] * 1000) or "until `mjhook resume " .. name .. "`"))
    end
  end,
}
