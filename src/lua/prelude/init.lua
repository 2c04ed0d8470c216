-- What surrounds every flow: the sealed environment, and what Rust calls.
--
-- Control structures live here and not in Rust because an error keeps its fields only while it
-- stays inside Lua. `host` holds the Rust half; nothing of it is visible to flows. The parts are
-- the files of this folder; a thousand runs that wait each hold a VM, so that what few flows use is
-- loaded where it is used, and what only loading needs is let go.
local host = ...

local raw_pairs, raw_setmetatable, raw_format = pairs, setmetatable, string.format
local raw_tostring, raw_rep, pack = tostring, string.rep, table.pack

local errors = host.part("errors")(host)
local tables = host.part("tables")(host, errors)
local text = host.part("text")(host)
local scopes = host.part("scopes")(host, errors)
local refuse = errors.refuse
local current, seal, tostring = scopes.current, tables.seal, text.tostring

local quirks, tests -- the parts, where they are loaded

local control = host.part("control")(host, errors, tables, scopes, function(name, outer, fn)
  return quirks and quirks.surrounded(name, outer, fn) or fn
end)
local api = control.api

local E = {} -- the environment of flows

-- Primitives ----------------------------------------------------------------------------------

local function call_primitive(name, formats, ...)
  local scope = current(name)
  local n = (scope.calls[name] or 0) + 1
  scope.calls[name] = n
  local key = (scope.path == "" and "" or scope.path .. "/") .. name .. "#" .. n
  local frames = host.frames()
  local args = pack(...)
  if formats and args.n > 1 and type(args[1]) == "string" then
    args = pack(text.format(...))
  end
  local ok, value = host.call(name, key, frames[1], scope.deadline, scope.deadline_step,
    scope.shielded == true, scope.branch, args)
  if ok then return value end
  value.at = value.at or frames
  error(errors.mark(value), 0)
end

local function primitive(name, formats)
  local function call(...) return call_primitive(name, formats, ...) end
  return function(...)
    local wrapped = quirks and quirks.wrapped(name, current(name), call)
    return (wrapped or call)(...)
  end
end

local function make_primitive(module, name)
  local meta = host.metatable(module)
  local formats = host.formats(meta.name, name)
  if formats == nil then return nil end
  rawset(module, name, primitive(meta.name .. "." .. name, formats))
  return module[name]
end

local function make_primitives(module)
  for name in raw_pairs(host.primitives()[host.metatable(module).name]) do
    make_primitive(module, name)
  end
end

for name, formats in raw_pairs(host.primitives()[""]) do api[name] = primitive(name, formats) end

-- Parts that are loaded when they are needed --------------------------------------------------

local extras = {}

function extras.quirks()
  quirks = quirks or host.part("quirk")(host, {
    refuse = refuse, options = control.options, sorted_pairs = tables.pairs, step = api.step,
    info = function(node) return E.ilo.info(node) end,
    enter = function(mark)
      local scope = current("quirk")
      local inside = { [mark] = true }
      for other in raw_pairs(scope.inside) do inside[other] = true end
      scope.inside = inside
    end,
  })
  return quirks
end

function extras.tests()
  tests = tests or host.part("test")(host, {
    refuse = refuse, raised = errors.raised, sorted_pairs = tables.pairs, tostring = tostring,
    primitive = function(module, name) return E[module][name] end,
  })
  return tests
end

local function loading()
  return host.part("loading")(host, errors, tables, control.options, E, extras)
end

local function library() return host.part("library")(host, errors, tables, raw_rep) end

local function branches() return host.part("branches")(host, tables, scopes, control) end

-- Name of a sealed table → the parts that hold its fields.
local later = {
  [""] = { next = library, parallel = branches, each = branches, flow = loading,
    quirk = loading, test = loading },
  string = { gsub = library, gmatch = library, rep = library },
  table = { sort = library },
}

local function make_field(t, key)
  local name = host.metatable(t).name
  local part = later[name][key]
  if part then
    rawset(t, key, part()[key])
  elseif name == "" and host.is_module(key) then
    rawset(t, key, seal(key, {}, make_primitive, make_primitives))
  end
  return rawget(t, key)
end

local function make_fields(t)
  local name = host.metatable(t).name
  for key in raw_pairs(later[name]) do make_field(t, key) end
  for module in raw_pairs(name == "" and host.primitives() or {}) do make_field(t, module) end
end

-- The environment -----------------------------------------------------------------------------

-- Lua's own tables, less `without`.
local function library_of(name, fields, without)
  for _, field in ipairs(without) do fields[field] = nil end
  if later[name] then return seal(name, fields, make_field, make_fields) end
  return seal(name, fields)
end

local strings = library_of("string", string, { "dump", "gsub", "gmatch", "rep" })
rawset(strings, "find", host.find)
rawset(strings, "match", host.match)
rawset(strings, "format", text.format)

local string_meta = host.metatable("")
string_meta.__index, string_meta.__metatable = strings, false

for name, value in raw_pairs({
  assert = assert, error = error, ipairs = ipairs, pcall = pcall, xpcall = xpcall,
  select = select, tonumber = tonumber, type = type, rawequal = rawequal, rawget = rawget,
  rawset = rawset, rawlen = rawlen, getmetatable = getmetatable,
  pairs = tables.pairs, tostring = tostring, _VERSION = _VERSION,
  string = strings, table = library_of("table", table, { "sort" }),
  math = library_of("math", math, { "random", "randomseed" }), utf8 = library_of("utf8", utf8, {}),
}) do E[name] = value end

function E.setmetatable(t, meta)
  if type(meta) == "table" and (rawget(meta, "__gc") or rawget(meta, "__mode")) then
    refuse("invalid", "__gc and __mode are not available",
      "when they act depends on memory, not on the flow")
  end
  return raw_setmetatable(t, meta)
end

function E.print(...)
  local parts = pack(...)
  for i = 1, parts.n do parts[i] = tostring(parts[i]) end
  E.log.info(table.concat(parts, "\t"))
end

for name, value in raw_pairs(api) do E[name] = value end

local loaded, LOADING = {}, {}

function E.require(name)
  local path, near = host.module(name)
  if not path then
    refuse("not_found", raw_format("there is no module %q", raw_tostring(name)),
      near and ("did you mean " .. near .. "?"))
  end
  if loaded[path] == LOADING then
    refuse("invalid", path .. " requires itself")
  end
  if loaded[path] == nil then
    loaded[path] = LOADING
    local chunk, why = host.chunk(path, E)
    if not chunk then error(host.syntax(why), 0) end
    local value = chunk(name)
    loaded[path] = value == nil and true or value
  end
  return loaded[path]
end

seal("", E, make_field, make_fields)

-- What Rust calls -----------------------------------------------------------------------------

local M = { environment = E, find_module = host.module, controls = control.controls }

function M.run(def, action, ctx, node, p)
  return scopes.run(control.seconds("flow", def.timeout), function()
    if quirks then quirks.use(node) end
    ctx, node = tables.freeze(ctx, "ctx"), tables.freeze(node, "node")
    if def.validate then
      api.step("validate", function() def.validate(ctx, node, p) end)
    end
    return def.actions[action](ctx, node, p)
  end)
end

function M.abort(err) return scopes.abort(errors.mark(err)) end

-- The environment with all that is otherwise made when it is first named.
function M.whole_environment()
  for _, t in ipairs({ E, E.string, E.table }) do make_fields(t) end
  return E
end

return raw_setmetatable(M, { __index = function(_, name) return loading()[name] end })
