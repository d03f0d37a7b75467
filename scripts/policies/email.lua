-- A policy: tells by e-mail what became of a job, to the address in its context:
--
--   mj:submit { prompt = "a fox", context = { email = "ada@example.org" } }
--
-- The mail goes through the system's sendmail, whose exit status says whether it took it: a queue that is full makes
-- the event wait. Each mail has an id made of the event's, so that the same one sent twice is known as one. SENDMAIL
-- names another program by its absolute path, with arguments after blanks; no shell reads it.
local exec = require "mjhook.handlers.exec"

local SENDMAIL = os.getenv "SENDMAIL" or "/usr/sbin/sendmail"
local FROM = os.getenv "MAIL_FROM" or "midjourney@localhost"

local SUBJECTS = {
  succeeded = "Your image is ready",
  failed = "Your image could not be made",
  lost = "Your image was not heard of again",
}

-- One line, and no more than a header may hold: what a user wrote must not begin a header of its own.
local function line(text)
  return (tostring(text or ""):gsub("%c", " "):sub(1, 200))
end

local function letter(task, ctx, to)
  local lines = {
    "From: " .. FROM,
    "To: " .. to,
    "Subject: " .. SUBJECTS[ctx.type],
    ("Message-ID: <%s@mjhook>"):format(ctx.event_id),
    "MIME-Version: 1.0",
    "Content-Type: text/plain; charset=utf-8",
    "Content-Transfer-Encoding: 8bit",
    "Auto-Submitted: auto-generated",
    "",
    "You asked for: " .. line(task.prompt),
    "",
  }
  if ctx.type == "succeeded" then
    lines[#lines + 1] = task.image or ""
    for _, url in ipairs(task.images or {}) do
      lines[#lines + 1] = url
    end
    lines[#lines + 1] = "\nThese addresses expire: save what you want to keep."
  else
    lines[#lines + 1] = "What was said: " .. line(task.error and task.error.message)
  end
  return table.concat(lines, "\n") .. "\n"
end

local command = { background = true } -- some deliver in the background what they have taken
for word in (SENDMAIL .. " -t -i"):gmatch "%S+" do
  command[#command + 1] = word
end

function command.input(task, ctx)
  local to = type(task.context) == "table" and task.context.email
  if type(to) == "string" and to:match "^[%w%.%+%-_=]+@[%w%.%-]+$" then
    return letter(task, ctx, to)
  end -- without an address no mail is sent
end

local send = exec(command)

local function tell(task, ctx)
  local sent, why, how = send(task, ctx)
  if not sent then
    return false, "sendmail did not take the mail: " .. why, how
  end
end

return { on_succeeded = tell, on_failed = tell, on_lost = tell }
