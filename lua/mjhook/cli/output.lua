--- Where results go: standard output, as pages for people or JSON for programs.
local core = require "mjhook.core"
local fail = require "mjhook.cli.fail"
local json = require "mjhook.cli.json"
local text = require "mjhook.cli.text"

local M = {}
local Output = {}
Output.__index = Output

local COLOURS = { bold = "1", dim = "2", red = "31", green = "32", yellow = "33", cyan = "36" }
local OF_STATE = {
  queued = "dim", submitting = "cyan", ambiguous = "yellow", pending = "cyan",
  succeeded = "green", failed = "red", lost = "red", cancelled = "dim",
}
local ROWS_MEASURED = 200 -- a table is laid out by its first rows, so that the first line need not wait for the last

local function terminal_width()
  local columns = tonumber((os.getenv "COLUMNS" or ""):match "^%d+$") or core.columns()
  return columns and columns >= 20 and columns or 80
end

--- @tparam table options json: results as JSON
function M.new(options)
  local terminal = core.isatty(1)
  local no_color, term = os.getenv "NO_COLOR", os.getenv "TERM"
  io.stdout:setvbuf "full"
  return setmetatable({
    json = options.json,
    terminal = terminal,
    colour = terminal and not options.json and (no_color == nil or no_color == "") and term ~= "dumb",
    now = core.now(),
  }, Output)
end

local function check(ok, why, number)
  if ok then
    return
  elseif number == 32 then -- EPIPE: the reader has had enough
    error({ exit = fail.DONE }, 0)
  end
  fail.stop(fail.CANNOT_WRITE, "standard output can't be written: " .. tostring(why))
end

--- Writes a text that is ours, at once.
function M.print(s)
  check(io.stdout:write(s))
  check(io.stdout:flush())
end

-- Text that was cleaned and, on a terminal, coloured: the only text that line() writes as it is.
local Painted = {}
Painted.__index = Painted

function Painted:__tostring()
  return self.shown
end

--- Writes a line. Whatever its parts hold, they are shown, and obeyed by no terminal.
function Output.line(_, ...)
  for i = 1, select("#", ...) do
    local part = select(i, ...)
    check(io.stdout:write(getmetatable(part) == Painted and part.shown or text.clean(part)))
  end
  check(io.stdout:write "\n")
end

--- Writes lines.
function Output.lines(_, s)
  check(io.stdout:write(text.clean(s, true), "\n"))
end

--- Writes a value as one line of JSON, in which nothing needs cleaning.
function Output.value(_, v)
  check(io.stdout:write(json.encode(v), "\n"))
end

function Output.finish()
  check(io.stdout:flush())
end

--- Says something beside the result.
function Output.note(_, message)
  check(io.stdout:flush())
  io.stderr:write("mjhook: ", text.clean(message), "\n")
end

--- Columns there are for a line; all of them when there is no terminal.
function Output:width()
  if not self.columns then
    self.columns = self.terminal and terminal_width() or math.huge
  end
  return self.columns
end

--- A text in a colour, on a terminal: a part of a line.
function Output:paint(colour, s)
  s = text.clean(s, true)
  if self.colour and colour then
    s = ("\27[%sm%s\27[0m"):format(COLOURS[colour], s)
  end
  return setmetatable({ shown = s }, Painted)
end

--- A state's name in its colour, padded.
function Output:state(name, room)
  return self:paint(OF_STATE[name], text.pad(name, room or 0))
end

local LAST_LEAST, FLEXIBLE_LEAST, HIDDEN_BELOW, READABLE = 20, 8, 12, 4

-- The columns that are shown in `room` columns of a terminal: what stands between the first two and the last is left
-- out from the right until the last one has HIDDEN_BELOW; on a terminal that is narrower still, the last ones, too.
local function choose(widths, room)
  local shown, left = {}, room
  for c = 1, #widths do
    shown[c] = c
    left = left - (c < #widths and widths[c] + 2 or 0)
  end
  while left < HIDDEN_BELOW and #shown > 3 do
    left = left + widths[table.remove(shown, #shown - 1)] + 2
  end
  while left < READABLE and #shown > 1 do
    shown[#shown] = nil
    left = left + widths[shown[#shown]] + 2
  end
  return shown
end

-- Widths by the widest cell; where the last column would be squeezed, those with a `max` yield. Only a terminal has too
-- little room: a program that reads the table gets all of each cell.
local function layout(columns, rows, room)
  local widths, left = {}, room
  for c, column in ipairs(columns) do
    local widest = text.width(column.title)
    for _, row in ipairs(rows) do
      widest = math.max(widest, text.width(row[c]))
    end
    widths[c] = math.min(widest, room < math.huge and column.max or widest)
    left = left - (c < #columns and widths[c] + 2 or 0)
  end
  for c, column in ipairs(columns) do
    if column.max and left < LAST_LEAST then
      local less = math.min(LAST_LEAST - left, math.max(widths[c] - FLEXIBLE_LEAST, 0))
      widths[c], left = widths[c] - less, left + less
    end
  end
  return widths, choose(widths, room)
end

local function write_row(self, columns, widths, shown, cells, header)
  local out, room = {}, self:width()
  for n, c in ipairs(shown) do
    local column, last = columns[c], n == #shown
    local cell = cells[c]
    if room < math.huge then
      cell = text.cut(cell, last and math.max(room, 1) or widths[c])
    end
    local gap = (" "):rep((last and 0 or widths[c]) - text.width(cell))
    room = room - (last and 0 or widths[c] + 2)
    local painted = self:paint(header and "bold" or column.colour and column.colour(cells[c]), cell).shown
    out[n] = column.right and gap .. painted or painted .. (last and "" or gap)
  end
  check(io.stdout:write((table.concat(out, "  "):gsub(" +$", "")), "\n"))
end

--- Writes a table, on a terminal cut to its width: a row takes one line.
-- @tparam table columns {title=, max=, right=, colour=function(cell)}
-- @tparam function rows iterator that gives a list of cells, or nil
-- @treturn number rows written
function Output:table(columns, rows)
  local first, widths, shown, n = {}, nil, nil, 0
  local titles = {}
  for c, column in ipairs(columns) do
    titles[c] = column.title
  end
  local function start()
    widths, shown = layout(columns, first, self:width())
    write_row(self, columns, widths, shown, titles, true)
    for _, row in ipairs(first) do
      write_row(self, columns, widths, shown, row)
    end
  end
  for cells in rows do
    n = n + 1
    for c, cell in ipairs(cells) do
      cells[c] = text.clean(cell)
    end
    if widths then
      write_row(self, columns, widths, shown, cells)
    else
      first[n] = cells
      if n == ROWS_MEASURED then
        start()
      end
    end
  end
  if not widths and n > 0 then
    start()
  end
  return n
end

--- The colour of a state's name, for a table's column.
function M.state_colour(name)
  return OF_STATE[name]
end

local LABEL = 12

--- Writes a field of a page: nothing when it has no value; further lines of a text are indented under the first.
function Output:field(label, value, colour)
  if value == nil then
    return
  end
  local shown = text.clean(value, true):gsub("\n", "\n" .. (" "):rep(LABEL + 2))
  self:line("  ", self:paint("dim", text.pad(text.clean(label), LABEL)), self:paint(colour, shown))
end

--- Writes a page's heading.
function Output:heading(s)
  self:line(self:paint("bold", s))
end

return M
