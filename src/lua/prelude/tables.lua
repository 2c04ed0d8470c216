-- Tables as flows see them: sealed, frozen, and walked in an order that is always the same.
local host, errors = ...

local raw_next, raw_pairs, raw_tostring, raw_setmetatable = next, pairs, tostring, setmetatable
local raw_format, raw_sort, refuse = string.format, table.sort, errors.refuse

local function full_name(meta, key)
  return meta.name == "" and raw_tostring(key) or meta.name .. "." .. raw_tostring(key)
end

-- Reading an unknown field of a sealed table is a mistake worth naming, not nil.
local function missing(t, key)
  local meta = host.metatable(t)
  local made = meta.make and meta.make(t, key)
  if made ~= nil then return made end
  if meta.fill then meta.fill(t) end
  local near = host.near(raw_tostring(key), t, meta.name)
  refuse("invalid", "there is no " .. full_name(meta, key),
    near and ("did you mean " .. near .. "?"))
end

local function changed(t, key)
  local meta = host.metatable(t)
  local full = full_name(meta, key)
  if meta.name == "" then
    refuse("invalid", "assignment to the global " .. full, "write `local " .. full .. "`")
  end
  refuse("invalid", full .. " cannot be changed")
end

-- Most flows name few of the fields: `make` makes one when it is first named, and `fill` all, for
-- who wants to know what there is.
local function seal(name, fields, make, fill)
  return raw_setmetatable(fields, { name = name, make = make, fill = fill, __index = missing,
    __newindex = changed, __metatable = false })
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
  raw_sort(keys, before)
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

return { seal = seal, freeze = freeze, sorted_keys = sorted_keys, pairs = sorted_pairs,
  raw_of = raw_of }
