--- "Did you mean ...?": the nearest of the names that would have been right. Loaded only once something was wrong.

-- Letters that were added, left out, changed, or swapped with the next one.
local function distance(a, b)
  local before, last = {}, {}
  for j = 0, #b do
    last[j] = j
  end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      row[j] = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if i > 1 and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        row[j] = math.min(row[j], before[j - 2] + 1)
      end
    end
    before, last = last, row
  end
  return last[#b]
end

-- The beginning of a name counts as near, too: user for user_id.
local function far(given, name)
  local d = distance(given, name)
  return #given > 2 and name:sub(1, #given) == given and math.min(d, 2) or d
end

--- @param given what was written
-- @tparam table names a list of what is known, or a table whose keys are
-- @treturn string ': did you mean "..."?' when one of the names is near, otherwise nothing
return function(given, names)
  given = tostring(given)
  local best, least = nil, #given > 3 and 3 or 2
  if #given > 64 then
    return "" -- no name of ours is near, and the distance would take long
  end
  for key, value in pairs(names) do
    local name = type(key) == "number" and value or key
    local d = far(given, name)
    if d < least or d == least and best and name < best then
      best, least = name, d
    end
  end
  return best and (': did you mean "%s"?'):format(best) or ""
end
