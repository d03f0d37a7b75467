-- The reference pages that are made of lua/mjhook/types.lua: task fields, error codes, configuration keys, all tables.
local M = {}

local PAGE = { -- which page a class is on
  ["mjhook.Config"] = "configuration", ["mjhook.Account"] = "configuration", ["mjhook.PollConfig"] = "configuration",
  ["mjhook.Retention"] = "configuration", ["mjhook.LogConfig"] = "configuration", ["mjhook.Options"] = "configuration",
  ["mjhook.Policy"] = "policy", ["mjhook.Context"] = "policy", ["mjhook.Retry"] = "policy",
  ["mjhook.Result"] = "policy", ["mjhook.Handler"] = "policy",
  ["mjhook.Task"] = "task", ["mjhook.Attempt"] = "task", ["mjhook.TimelineEntry"] = "task", ["mjhook.File"] = "task",
  ["mjhook.State"] = "task", ["mjhook.Mode"] = "task", ["mjhook.Source"] = "task",
  ["mjhook.ErrorCode"] = "errors", ["mjhook.Error"] = "errors",
}
local REST = "tables"

local function escape(text)
  return (text:gsub("[&<>|]", { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ["|"] = "&#124;" }))
end

--- A type as HTML, with links to what it names.
-- @tparam string up the way from the page to the site's top
function M.link(model, text, up)
  return (escape(text):gsub("mjhook%.[%w_.]*%w", function(name)
    if model.classes[name] and #model.classes[name].functions > 0 then
      return nil
    elseif model.classes[name] or model.aliases[name] then
      return ('<a href="%stopics/%s.md.html#%s">%s</a>'):format(up, "ref-" .. (PAGE[name] or REST), name, name)
    end
  end))
end

local function code(model, text)
  return "<code>" .. M.link(model, text, "../") .. "</code>"
end

-- Between <, > and |, which a Markdown table would read as its own, entities are safe; code spans are not.
local function cell(text)
  return (text:gsub("|", "\\|"))
end

local function class_text(model, class, out)
  out[#out + 1] = ('<a name="%s"></a>\n\n## %s\n\n%s\n'):format(class.name, class.name, class.text)
  if class.parent then
    out[#out + 1] = ("It has all fields of %s, and these:\n"):format(code(model, class.parent))
  end
  out[#out + 1] = "| field | type | |\n| --- | --- | --- |"
  for _, field in ipairs(class.fields) do
    out[#out + 1] = ("| `%s` | %s%s | %s |"):format(field.name, code(model, field.type.text),
      field.optional and " *optional*" or "", cell(field.text))
  end
  out[#out + 1] = ""
end

local function alias_text(model, alias, out)
  out[#out + 1] = ('<a name="%s"></a>\n\n## %s\n\n%s\n'):format(alias.name, alias.name, alias.text)
  if alias.words[1] then
    out[#out + 1] = "| value | |\n| --- | --- |"
    for _, one in ipairs(alias.words) do
      out[#out + 1] = ("| `%s` | %s |"):format(one.word, cell(one.text))
    end
  else
    out[#out + 1] = code(model, alias.type.text)
  end
  out[#out + 1] = ""
end

local HEADS = {
  task = [[
# Reference: states and fields of a task

![The states of a task and what leads from one to the other](../states.svg)

A definite refusal of the job fails it; `resubmit` takes an `ambiguous`, `lost` or `failed` task back to `queued`.

Every signal names the attempt that it is about. The first terminal status of the provider wins; repetitions and
contradictions change the timeline only. `lost`, and a `failed` that mjhook itself decided, give way to the provider's
later word; the event then has `task.late`. A slot belongs to an attempt, from the intent until the refusal, the
provider's terminal status, or the end of its timeout and grace period, whatever the state of the task is.
]],
  errors = [[
# Reference: error codes

Every function gives `nil, err` when it fails. `task.error` and `ctx` use the same codes, and `--json` prints them.
]],
  configuration = [[
# Reference: configuration keys

[mjhook-config(5)](mjhook-config.5.md.html) explains each key, its limits, and which value wins when there are several.
]],
  policy = [[
# Reference: policy functions

The guide [Policies and handlers](policies.md.html) explains when each is called.
]],
  tables = [[
# Reference: other tables
]],
}

--- @treturn table list of {name=, text=}
function M.pages(model)
  local pages = {}
  for _, name in ipairs { "task", "errors", "configuration", "policy", "tables" } do
    local out = { HEADS[name] }
    for _, alias in ipairs(model.aliases) do
      if (PAGE[alias.name] or REST) == name then
        alias_text(model, alias, out)
      end
    end
    for _, class in ipairs(model.classes) do
      if #class.fields > 0 and #class.functions == 0 and (PAGE[class.name] or REST) == name then
        class_text(model, class, out)
      end
    end
    pages[#pages + 1] = { name = "ref-" .. name, text = table.concat(out, "\n") }
  end
  return pages
end

return M
