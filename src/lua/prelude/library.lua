-- Functions of Lua's libraries that few flows use, as a replay sees them alike; patterns are
-- matched by Rust within a limit.
local host, errors, tables, raw_rep = ...

local raw_tostring = tostring
local unpack, refuse = table.unpack, errors.refuse

local function expand(replacement, match, whole)
  return (host.gsub_template(replacement, match, whole))
end

local function gsub(s, pattern, replacement, max)
  s = raw_tostring(s)
  local matches = host.matches(s, pattern, true, max)
  local parts, from = {}, 1
  for i = 1, #matches do
    local m = matches[i]
    local whole = s:sub(m.first, m.last)
    local value
    if type(replacement) == "function" then
      value = replacement(unpack(m, 1, m.n))
    elseif type(replacement) == "table" then
      value = replacement[m[1]]
    else
      value = expand(raw_tostring(replacement), m, whole)
    end
    if value == nil or value == false then value = whole end
    if type(value) ~= "string" and type(value) ~= "number" then
      refuse("invalid", "gsub: a replacement must be a text, not " .. type(value))
    end
    parts[#parts + 1] = s:sub(from, m.first - 1)
    parts[#parts + 1] = raw_tostring(value)
    from = m.last + 1
  end
  parts[#parts + 1] = s:sub(from)
  return table.concat(parts), #matches
end

local function gmatch(s, pattern)
  local matches, i = host.matches(raw_tostring(s), pattern, false), 0
  return function()
    i = i + 1
    local m = matches[i]
    if m then return unpack(m, 1, m.n) end
  end
end

local function rep(s, n, sep)
  local bytes = (#raw_tostring(s) + #(sep or "")) * n
  if bytes > 16777216 then
    refuse("limit", "string.rep: more than 16 MiB")
  end
  return raw_rep(s, n, sep)
end

local function sorted_next(t, key)
  if type(t) ~= "table" then
    refuse("invalid", "next wants a table, not " .. type(t))
  end
  local raw = tables.raw_of(t)
  local keys = tables.sorted_keys(raw)
  for i = 1, #keys do
    if key == nil then return keys[i], raw[keys[i]] end
    if keys[i] == key then key = nil end
  end
end

-- A stable merge sort. Lua's own takes its comparator through C, where nothing may wait and an
-- endless comparator could not be stopped; and what it does with a wrong one is not defined.
local function sort(list, less)
  less = less or function(a, b) return a < b end
  local from, to, n, width = list, {}, #list, 1
  while width < n do
    for low = 1, n, 2 * width do
      local middle, high = math.min(low + width, n + 1), math.min(low + 2 * width, n + 1)
      local i, j = low, middle
      for k = low, high - 1 do
        if i < middle and (j >= high or not less(from[j], from[i])) then
          to[k], i = from[i], i + 1
        else
          to[k], j = from[j], j + 1
        end
      end
    end
    from, to, width = to, from == list and {} or from, 2 * width
  end
  if from ~= list then
    for i = 1, n do list[i] = from[i] end
  end
end

return { gsub = gsub, gmatch = gmatch, rep = rep, next = sorted_next, sort = sort }
