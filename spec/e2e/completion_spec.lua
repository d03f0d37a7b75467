-- Completion, run by the shells that it is for: the function in bash, fish itself, and zsh on a terminal where Tab is
-- pressed.
local kit = require "kit"

local COMPLETION = kit.root .. "/scripts/completion/"
local FILES = { bash = "mjhook", zsh = "_mjhook", fish = "mjhook.fish" }

local function has(list, ...)
  for _, word in ipairs { ... } do
    assert.truthy((" " .. list .. " "):find(" " .. word .. " ", 1, true), word .. " is not in: " .. list)
  end
end

local function has_not(list, ...)
  for _, word in ipairs { ... } do
    assert.is_nil((" " .. list .. " "):find(" " .. word .. " ", 1, true), word .. " is in: " .. list)
  end
end

describe("completion of", function()
  after_each(kit.cleanup)

  local function here(program)
    return select(2, kit.sh("command -v " .. program)) == 0
  end

  -- What each shell offers for a line: words, with blanks between.
  local SHELLS = {}

  function SHELLS.bash(line)
    local out, code = kit.sh(("bash --norc -c 'source %s\n" .. [[
      line=%s
      read -r -a COMP_WORDS <<<"$line"
      case $line in *" ") COMP_WORDS+=("") ;; esac
      COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line}
      complete -p mjhook | grep -q -- "-F _mjhook mjhook" || exit 3
      _mjhook mjhook "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
      echo "${COMPREPLY[*]}"']]):format(COMPLETION .. "mjhook", '"' .. line .. '"'))
    assert.equal(0, code, out)
    return (out:gsub("\n", " "))
  end

  function SHELLS.fish(line)
    local out, code = kit.sh(("HOME=%s fish --no-config -c 'source %smjhook.fish; complete -C \"%s\"'"):format(
      kit.tmp(), COMPLETION, line))
    assert.equal(0, code, out)
    local words = {}
    for word in out:gmatch "([^\n\t]+)[^\n]*" do
      words[#words + 1] = word
    end
    return table.concat(words, " ")
  end

  -- A real interactive shell on a terminal of its own, in which Tab is pressed.
  function SHELLS.zsh(line)
    local script = kit.write(kit.tmp() .. "/ask", ([==[
      zmodload zsh/zpty
      zpty z zsh -f -i
      zpty -w z 'PS1="" LISTMAX=1000; stty cols 200; fpath=(%s $fpath); autoload -Uz compinit; compinit -u -D'
      zpty -w z 'setopt nolistambiguous nobeep noautomenu; echo READY-''NOW'
      while zpty -r z out; do [[ $out == *READY-NOW* ]] && break; done
      zpty -w -n z $'%s\t\t'
      sleep 0.5
      zpty -w -n z $'\C-u'
      zpty -w z 'echo; echo END-''NOW'
      while zpty -r z out; do print -r -- "$out"; [[ $out == *END-NOW* ]] && break; done
      zpty -d z]==]):format(COMPLETION, line))
    local out = kit.sh("timeout 20 zsh -f " .. script)
    return (out:gsub("\27%[[%d;?]*%a", " "):gsub("[\r\n\7\8]", " "))
  end

  for _, shell in ipairs { "bash", "zsh", "fish" } do
    describe(shell, function()
      local function ask(line)
        return SHELLS[shell](line)
      end

      local function offers(name, f)
        it(name, function()
          if not here(shell) then
            return pending(shell .. " is not installed")
          end
          f()
        end)
      end

      offers("offers the commands", function()
        local words = ask "mjhook re"
        has(words, "refresh", "resubmit", "replay", "refused", "readmit", "resume", "restore")
        has_not(words, "watch", "metrics", "--json")
      end)

      offers("offers a command's options, and those of all commands", function()
        local words = ask "mjhook list --"
        has(words, "--json")
        assert.truthy(words:find("--state", 1, true), words)
        assert.truthy(words:find("--config", 1, true), words)
        assert.is_nil(words:find("--expires", 1, true), words)
      end)

      offers("offers the words that an option takes", function()
        has(ask "mjhook list --state ", "queued", "succeeded", "lost")
        has_not(ask "mjhook submit --mode ", "queued")
        has(ask "mjhook submit --mode ", "fast", "relaxed")
      end)

      offers("offers the words that a command takes, after options of all commands, too", function()
        has(ask "mjhook policy ", "test", "diff")
        has(ask "mjhook --json policy ", "test", "diff")
        has(ask "mjhook help sub", "submit")
        has(ask "mjhook dev trigger ", "succeeded", "late")
      end)
    end)
  end

  it("bash offers values behind an = and files where files belong", function()
    local dir = kit.tmp()
    kit.write(dir .. "/jobs.jsonl", "")
    has(SHELLS.bash("mjhook list --state = su"), "submitting", "succeeded")
    has_not(SHELLS.bash("mjhook list --state = su"), "queued")
    has(SHELLS.bash("mjhook submit --file " .. dir .. "/jo"), dir .. "/jobs.jsonl")
    has(SHELLS.bash("mjhook -c " .. dir .. "/jo"), dir .. "/jobs.jsonl")
    has(SHELLS.bash("mjhook -c " .. dir .. "/x list --state que"), "queued")
    has(SHELLS.bash("mjhook backup " .. dir .. "/jo"), dir .. "/jobs.jsonl")
  end)

  it("has no fault that a shell finds by reading it", function()
    for shell, name in pairs(FILES) do
      if here(shell) then
        assert.same({ "", 0 }, { kit.sh(("%s -n %s"):format(shell, COMPLETION .. name)) })
      end
    end
  end)
end)
