-- The crontab line, run by a real cron: scripts/examples/mjhook.cron and config.lua as they are shipped, programs as
-- `make install` puts them, a system user without a home.
--
-- All of that lies in a mount namespace: below it, the machine's own /etc, /usr/local and crontabs are as they were.
-- cron alone lives under libfaketime, in which a minute lasts two seconds; what it starts has the real time.
local core = require "mjhook.core"
local kit = require "kit"
local sim = require "sim"

local FAKETIME = kit.sh "ls /usr/lib/*/faketime/libfaketime.so.1 2>/dev/null | head -1"
local SPEED = "x30"

-- Replaces something that has to be there.
local function put(text, old, new)
  local result, n = text:gsub((old:gsub("%p", "%%%0")), (new:gsub("%%", "%%%%")))
  assert(n > 0, "the example has no " .. old)
  return result
end

-- $1: where `make install` put its tree, and beside it etc/ with what is to be in /etc.
local WORLD = [[
set -e
d=$1
mount -t tmpfs none "$d/world"
cd "$d/world"
chmod 755 .
cp -a /etc etc
echo 'mjhook:x:971:971::/nonexistent:/usr/sbin/nologin' >>etc/passwd
echo 'mjhook:x:971:' >>etc/group
echo 'mjhook:!:19000::::::' >>etc/shadow
sed -i /pam_loginuid/d etc/pam.d/cron # which a container may not set
rm -rf etc/cron.d etc/mjhook
mkdir -p etc/cron.d etc/mjhook lib/mjhook log/mjhook spool/crontabs run sbin
chown 971:971 lib/mjhook log/mjhook
chmod 700 lib/mjhook
cp "$d"/etc/* etc/mjhook
chown root:971 etc/mjhook/*
chmod 640 etc/mjhook/*
mv etc/mjhook/*.cron etc/cron.d
for f in etc/cron.d/*.cron; do mv "$f" "${f%.cron}"; done # cron reads no name with a dot
chown root:root etc/cron.d/*
chmod 644 etc/cron.d/*
: >etc/crontab
cp /usr/sbin/cron sbin/cron
mkdir -m 1777 run/mail
printf '#!/bin/sh\ncat >/run/mail/$$.tmp && mv /run/mail/$$.tmp /run/mail/$$\n' >sbin/sendmail
chmod 755 sbin/sendmail
mount --bind etc /etc
mount --bind "$d/root/usr/local" /usr/local
mount --bind lib /var/lib
mount --bind log /var/log
mount --bind spool /var/spool/cron
mount --bind run /run
mount --bind sbin /usr/sbin
mount -t tmpfs none /dev/shm # of libfaketime, which cleans up after nobody that is killed
cd /
exec env -i "LD_PRELOAD=$2" "FAKETIME=$3" /usr/sbin/cron -f
]]

describe("cron", function()
  setup(sim.start)
  teardown(sim.stop)
  before_each(sim.reset)
  after_each(kit.cleanup)

  local dir

  local function install()
    dir = kit.tmp()
    -- -o all: what was built is installed, whatever flags it was built with.
    local out, code = kit.sh(("env -u MAKEFLAGS -u MAKELEVEL make -s -C %s -o all install BUILD=%s PREFIX=/usr/local "
      .. "DESTDIR=%s/root >/dev/null"):format(kit.quote(kit.root), kit.quote(kit.build), dir))
    assert(code == 0, out)
    kit.sh(("mkdir %s/etc %s/world; chmod 755 %s/root"):format(dir, dir, dir))
  end

  -- The shipped configuration, but for the provider's address and a first poll that comes soon.
  local function configure()
    local text = kit.read(kit.root .. "/scripts/examples/config.lua")
    text = put(text, "hook_url =", ("base_url = %q,\n  hook_url ="):format(sim.url))
    text = put(text, "poll = { first = 60", "poll = { first = 1")
    kit.write(dir .. "/etc/config.lua", text)
    kit.write(dir .. "/etc/api-key", kit.KEY .. "\n")
    kit.write(dir .. "/etc/secrets", kit.SECRET .. "\n")
  end

  -- Two fake seconds before a minute is over.
  local function faketime()
    return ("%+ds %s"):format(58 - os.time() % 60, SPEED)
  end

  local ticks = [[* * * * * root echo x >>/run/ticks]] .. "\n"

  local function world()
    install()
    configure()
    kit.write(dir .. "/etc/mjhook.cron", kit.read(kit.root .. "/scripts/examples/mjhook.cron"))
    kit.write(dir .. "/etc/ticks.cron", ticks)
    local script = kit.write(dir .. "/world.sh", WORLD)
    local child = kit.spawn(("exec unshare -m sh %s %s %s '%s'"):format(script, dir, FAKETIME, faketime()))
    kit.wait_until(function()
      assert(not child:status(), child:err())
      return (kit.read(("/proc/%d/comm"):format(child.pid)) or "") == "cron\n"
    end)
    return child
  end

  -- Runs a command in there. Gives output and exit code.
  local function inside(child, command)
    return kit.sh(("nsenter -t %d -m %s"):format(child.pid, command))
  end

  -- The operator's tool, as the store's owner.
  local function mjhook(child, arguments)
    local out, code = inside(child, "setpriv --reuid 971 --regid 971 --clear-groups " .. kit.bare
      .. " HOME=/ /usr/local/bin/mjhook " .. arguments)
    return out, code
  end

  local function mails(child)
    return (inside(child, "sh -c 'cat /run/mail/* 2>/dev/null'"))
  end

  local function minutes(child)
    return select(2, (inside(child, "cat /run/ticks")):gsub("x", ""))
  end

  local function state(child, ref)
    return (mjhook(child, "get --json " .. ref)):match '"state":"(%l+)"'
  end

  local function submit(child, prompt)
    local out, code = mjhook(child, "submit --json " .. kit.quote(prompt))
    assert(code == 0, out)
    local ref, task_id = out:match '"ref":"(%w+)"', out:match '"task_id":"([%w_-]+)"'
    assert(ref and task_id, out)
    return ref, task_id
  end

  -- Minutes that begin from now on, and their jobs with them.
  local function let_pass(child, n)
    local before = minutes(child)
    kit.wait_until(function() return minutes(child) >= before + n end)
  end

  local function possible()
    return core.uid() == 0 and FAKETIME ~= "" and select(2, kit.sh "unshare -m mount -t tmpfs none /mnt") == 0
      and kit.read "/usr/sbin/cron"
  end

  it("makes the pass that a newcomer's line asks for; it mails nobody when all is well, somebody when not", function()
    if not possible() then
      return pending "needs cron, libfaketime, and a mount namespace of its own"
    end
    local child = world()
    local good, good_id = submit(child, "a fox")
    sim.finish(good_id) -- and its callback goes nowhere
    kit.wait_until(function() return state(child, good) == "succeeded" end)
    let_pass(child, 2)
    assert.equal("", mails(child))
    local out = inside(child, "sh -c 'cat /var/lib/mjhook/done-*'")
    assert.matches("^" .. good .. "\thttp", out)

    -- The shipped policy prints what failed.
    local bad, bad_id = submit(child, "a fax")
    sim.finish(bad_id, 2, "banned prompt")
    kit.wait_until(function() return mails(child):find(bad, 1, true) end)
    assert.equal("failed", state(child, bad))
    assert.matches("\nTo: root\n", mails(child))
    assert.matches("\nfailed: " .. bad .. ": banned prompt\n", mails(child) .. "\n")
    let_pass(child, 1)
    assert.equal(1, select(2, mails(child):gsub("\nSubject:", "")))

    -- And what only a person can mend is mailed, although there is a log.
    inside(child, "sh -c 'rm -f /run/mail/*'")
    submit(child, "a third one")
    sim.config { keys = { "another" } }
    kit.wait_until(function() return mails(child):find("refuses the API key", 1, true) end)
    assert.is_nil(mails(child):find(kit.KEY, 1, true))
    assert.matches("level=error msg=.*refuses the API key", (inside(child, "cat /var/log/mjhook/mjhook.log")))
    child:kill "TERM"
  end)
end)
