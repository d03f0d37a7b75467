-- LDoc's way from Markdown to HTML: lowdown, which knows tables and also makes the man pages.
local function process(text)
  local source, target = os.tmpname(), os.tmpname()
  local file = assert(io.open(source, "w"))
  file:write(text)
  file:close()
  local ok = os.execute(("lowdown -T html --out-no-smarty --html-no-skiphtml --html-no-escapehtml -o %s %s")
    :format(target, source))
  file = assert(io.open(target))
  local html = file:read "*a"
  file:close()
  os.remove(source)
  os.remove(target)
  return (ok == true or ok == 0) and html or error "lowdown failed"
end

return process
