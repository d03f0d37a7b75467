--- "Did you mean ...?": the nearest of the names that would have been right. Loaded only once something was wrong.

local function distance(a, b) -- Levenshtein's
  local row = {}
  for j = 0, #b do
    row[j] = j
  end
  for i = 1, #a do
    local diagonal = row[0]
    row[0] = i
    for j = 1, #b do
      local cost = a:byte(i) == b:byte(j) and diagonal or diagonal + 1
      diagonal = row[j]
      row[j] = math.min(cost, row[j] + 1, row[j - 1] + 1)
    end
  end
  return row[#b]
end

--- @param given what was written
-- @tparam table names a list of what is known
-- @treturn string ': did you mean "..."?' when one of the names is near, otherwise nothing
return function(given, names)
  given = tostring(given)
  local best, least = nil, #given > 3 and 3 or 2
  if #given > 64 then
    return "" -- no name of ours is near, and the distance would take long
  end
  for _, name in ipairs(names) do
    local d = distance(given, name)
    if d < least or d == least and best and name < best then
      best, least = name, d
    end
  end
  return best and (': did you mean "%s"?'):format(best) or ""
end
