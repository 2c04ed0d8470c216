-- What surrounds every flow: the sealed environment, and what Rust calls.
--
-- Control structures live here and not in Rust because an error keeps its fields only while it
-- stays inside Lua. `host` holds the Rust half; nothing of it is visible to flows. The parts are
-- the files of this folder; what few flows use is loaded where it is used.
local host = ...

local raw_next, raw_pairs, raw_setmetatable = next, pairs, setmetatable
local raw_format, raw_tostring, pack = string.format, tostring, table.pack

local errors = host.part("errors")(host)
local tables = host.part("tables")(host, errors)
local text = host.part("text")(host, errors)
local scopes = host.part("scopes")(host, errors)
local refuse, guarded = errors.refuse, errors.guarded
local current, seal, tostring = scopes.current, tables.seal, text.tostring

local quirks, tests -- the parts, where they are loaded

local control = host.part("control")(host, errors, tables, scopes, function(name, outer, fn)
  return quirks and quirks.surrounded(name, outer, fn) or fn
end)
local api, options = control.api, control.options

local function with_quirks()
  quirks = quirks or host.part("quirk")(host, {
    refuse = refuse, options = options, sorted_pairs = tables.pairs, step = api.step,
    enter = function(mark)
      local scope = current("quirk")
      local inside = { [mark] = true }
      for other in raw_pairs(scope.inside) do inside[other] = true end
      scope.inside = inside
    end,
  })
  return quirks
end

local function with_tests()
  tests = tests or host.part("test")(host, {
    refuse = refuse, raised = errors.raised, sorted_pairs = tables.pairs, tostring = tostring,
    primitive = function(module, name) return api[module][name] end,
  })
  return tests
end

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

-- A flow uses few of the primitives: each is made when it is first named.
for _, module in ipairs(host.modules) do
  api[module] = seal(module, {}, function(name)
    local formats = host.formats(module, name)
    return formats ~= nil and primitive(module .. "." .. name, formats)
  end, function() return host.primitives()[module] end)
end
for name, formats in raw_pairs(host.primitives()[""]) do api[name] = primitive(name, formats) end

-- The environment -----------------------------------------------------------------------------

local function copy(library, without)
  local fields = {}
  for name, value in raw_pairs(library) do
    if not without[name] then fields[name] = value end
  end
  return fields
end

local strings = copy(string, { dump = true })
strings.find, strings.match = host.find, host.match
strings.gsub, strings.gmatch = text.gsub, text.gmatch
strings.rep, strings.format = text.rep, text.format
local lists = copy(table, {})
lists.sort = tables.sort

local string_meta = host.metatable("")
string_meta.__index, string_meta.__metatable = seal("string", strings), false

local E = {
  assert = assert, error = error, ipairs = ipairs, pcall = pcall, xpcall = xpcall,
  select = select, tonumber = tonumber, type = type, rawequal = rawequal, rawget = rawget,
  rawset = rawset, rawlen = rawlen, getmetatable = getmetatable,
  pairs = tables.pairs, next = tables.next, tostring = tostring,
  string = strings, table = seal("table", lists), _VERSION = _VERSION,
  math = seal("math", copy(math, { random = true, randomseed = true })),
  utf8 = seal("utf8", copy(utf8, {})),
}

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
  api.log.info(table.concat(parts, "\t"))
end

for name, value in raw_pairs(api) do E[name] = value end

local FLOW = { name = true, summary = true, api = true, timeout = true, params = true,
  validate = true, destroys = true, actions = true, default = true }

function E.flow(def)
  local o = options("flow", def, FLOW)
  if type(o.name) ~= "string" then refuse("invalid", "flow: `name` is missing") end
  if type(o.actions) ~= "table" or raw_next(o.actions) == nil then
    refuse("invalid", "flow: `actions` is missing",
      "actions = { deploy = function(ctx, node, p) ... end }")
  end
  for name, fn in tables.pairs(o.actions) do
    if type(fn) ~= "function" then
      refuse("invalid", "flow: the action " .. raw_tostring(name) .. " is not a function")
    end
  end
  return raw_setmetatable(def, { __name = "flow" })
end

function E.quirk(def) return with_quirks().declare(def) end
function E.test(name, fn) return with_tests().declare(name, fn) end

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

seal("", E)

-- What Rust calls -----------------------------------------------------------------------------

local M = {}

function M.load(path)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results
  if host.is_test(path) then
    results = guarded(function() return E.flow(with_tests().load(path, chunk)) end)
  else
    results = guarded(chunk)
  end
  local def = results[2]
  if not results[1] then return false, def end
  if type(def) ~= "table" or (host.metatable(def) or {}).__name ~= "flow" then
    return false, errors.new("invalid", path .. " does not return a flow",
      "end the file with `return flow { ... }`")
  end
  return true, def
end

-- What a file of a flow folder is: its flow, or nil for a module. A module that stands for one of
-- the standard library has all that is in that one.
function M.look(path, name)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results = guarded(chunk, name)
  local value = results[2]
  if not results[1] then return false, value end
  if value == nil then
    return false, errors.new("invalid", path .. " returns nothing",
      "a flow file ends with `return flow { ... }`, a module with `return` and its table")
  end
  if type(value) == "table" and (host.metatable(value) or {}).__name == "flow" then
    return true, value
  end
  local stock = host.module("stock:" .. name) and guarded(E.require, "stock:" .. name)[2]
  for key in tables.pairs(type(stock) == "table" and stock or {}) do
    if type(value) ~= "table" or value[key] == nil then
      return false, errors.new("invalid", raw_format("%s stands for stdlib/%s.lua and lacks %s.%s",
        path, name, name, raw_tostring(key)), raw_format("begin with `require \"stock:%s\"`", name))
    end
  end
  return true, nil
end

function M.load_quirk(path)
  local chunk, why = host.chunk(path, E)
  if not chunk then return false, errors.mark(host.syntax(why)) end
  local results = guarded(with_quirks().load, path, chunk)
  return results[1], results[2]
end

function M.quirks_need_info() return quirks ~= nil and quirks.need_info() end
function M.judge_quirks(info) return quirks and quirks.judge(info) or {} end
function M.tests() return with_tests().list() end

-- The iLO is asked once, and a replay sees the same answer: the same quirks apply again.
local function use_quirks(node)
  if not quirks then return end
  local info = {}
  if quirks.need_info() then
    info = api.step("quirks", function() return api.ilo.info(node) end)
  end
  for _, verdict in ipairs(quirks.apply(info, node)) do
    if verdict.applies then
      host.note("info", "quirks", raw_format("quirk %s applies (%s): %s", verdict.id, verdict.at,
        table.concat(verdict.reasons, "; ")))
    end
    if verdict.applies and verdict.expired then
      host.note("warn", "quirks", raw_format("quirk %s expired on %s (%s) and still applies",
        verdict.id, verdict.expires, verdict.at))
    end
  end
end

function M.run(def, action, ctx, node, p)
  return scopes.run(control.seconds("flow", def.timeout), function()
    use_quirks(node)
    ctx, node = tables.freeze(ctx, "ctx"), tables.freeze(node, "node")
    if def.validate then
      api.step("validate", function() def.validate(ctx, node, p) end)
    end
    return def.actions[action](ctx, node, p)
  end)
end

function M.abort(err) return scopes.abort(errors.mark(err)) end

function M.destroys(def, node, p, action)
  if not def.destroys then return true, {} end
  local results = guarded(def.destroys, tables.freeze(node, "node"), p, action)
  return results[1], results[2]
end

M.environment, M.find_module, M.controls = E, host.module, control.controls
return M
