-- Text functions that a replay answers alike, with patterns that Rust matches within a limit.
local host, errors = ...

local raw_tostring, raw_format, raw_rep = tostring, string.format, string.rep
local pack, unpack, refuse = table.pack, table.unpack, errors.refuse

-- Addresses differ from process to process and stay out of what a flow sees.
local function tostring(value)
  local kind = type(value)
  if kind == "table" or kind == "function" or kind == "thread" then
    local meta = host.metatable(value)
    if not (meta and rawget(meta, "__tostring")) then return kind end
  end
  return raw_tostring(value)
end

local function format(text, ...)
  local args = pack(...)
  for i = 1, args.n do
    local kind = type(args[i])
    if kind == "table" or kind == "function" then args[i] = tostring(args[i]) end
  end
  return raw_format(text, unpack(args, 1, args.n))
end

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

return { tostring = tostring, format = format, gsub = gsub, gmatch = gmatch, rep = rep }
