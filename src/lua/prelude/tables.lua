-- Tables as flows see them: sealed, frozen, and walked in an order that is always the same.
local host, errors = ...

local raw_next, raw_pairs, raw_tostring, raw_setmetatable = next, pairs, tostring, setmetatable
local raw_format, refuse = string.format, errors.refuse

-- Reading an unknown field of a sealed table is a mistake worth naming, not nil. What is made when
-- it is first named comes from `make`; `names` answers a table with the names of all.
local function seal(name, fields, make, names)
  local meta = {}
  function meta.__index(_, key)
    local made = make and make(key)
    if made then
      rawset(fields, key, made)
      return made
    end
    local full = name == "" and raw_tostring(key) or name .. "." .. raw_tostring(key)
    local near = host.near(raw_tostring(key), names and names() or fields, name)
    refuse("invalid", "there is no " .. full, near and ("did you mean " .. near .. "?"))
  end
  function meta.__newindex(_, key)
    local full = name == "" and raw_tostring(key) or name .. "." .. raw_tostring(key)
    if name == "" then
      refuse("invalid", "assignment to the global " .. full, "write `local " .. full .. "`")
    end
    refuse("invalid", full .. " cannot be changed")
  end
  meta.__metatable = false
  return raw_setmetatable(fields, meta)
end

-- A copy that cannot be changed; Rust reads it through `__raw`.
local function freeze(value, name)
  if type(value) ~= "table" then return value end
  local copy = {}
  for key, field in raw_pairs(value) do copy[key] = freeze(field, name) end
  return raw_setmetatable({}, {
    __raw = copy,
    __index = copy,
    __len = function() return #copy end,
    __newindex = function(_, key)
      refuse("invalid", raw_format("%s.%s cannot be changed", name, raw_tostring(key)))
    end,
    __metatable = false,
  })
end

local RANK = { number = 1, string = 2, boolean = 3 }

local function before(a, b)
  local ta, tb = type(a), type(b)
  if ta ~= tb then return RANK[ta] < RANK[tb] end
  if ta == "boolean" then return not a and b end
  return a < b
end

local function raw_of(t)
  local meta = host.metatable(t)
  return meta and rawget(meta, "__raw") or t
end

local function sorted_keys(t)
  local keys, n = {}, 0
  for key in raw_next, t do
    if not RANK[type(key)] then
      refuse("invalid", "a table with a " .. type(key) .. " as key has no order",
        "use strings or numbers as keys where the table is walked")
    end
    n = n + 1
    keys[n] = key
  end
  table.sort(keys, before)
  return keys
end

-- Lua's own order differs from process to process; a replay would take another path.
local function sorted_pairs(t)
  if type(t) ~= "table" then
    refuse("invalid", "pairs wants a table, not " .. type(t))
  end
  local meta = host.metatable(t)
  if meta and rawget(meta, "__pairs") then return meta.__pairs(t) end
  local raw = raw_of(t)
  local keys, i = sorted_keys(raw), 0
  return function()
    repeat i = i + 1 until keys[i] == nil or rawget(raw, keys[i]) ~= nil
    local key = keys[i]
    if key ~= nil then return key, raw[key] end
  end, t, nil
end

local function sorted_next(t, key)
  if type(t) ~= "table" then
    refuse("invalid", "next wants a table, not " .. type(t))
  end
  local raw = raw_of(t)
  local keys = sorted_keys(raw)
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

return { seal = seal, freeze = freeze, sorted_keys = sorted_keys, pairs = sorted_pairs,
  next = sorted_next, sort = sort }
