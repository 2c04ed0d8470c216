-- Values as text that a replay sees alike: addresses differ from process to process.
local host = ...

local raw_tostring, raw_format = tostring, string.format
local pack, unpack = table.pack, table.unpack

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

return { tostring = tostring, format = format }
