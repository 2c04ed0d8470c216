-- What surrounds every flow: the sealed environment, steps, clean-ups, retries, branches.
--
-- Control structures live here and not in Rust because an error keeps its fields only while it
-- stays inside Lua. `host` holds the Rust half; nothing of it is visible to flows.
local host, surface, quirk_file, test_file = ...

local raw_next, raw_pairs, raw_tostring, raw_setmetatable = next, pairs, tostring, setmetatable
local raw_format, raw_rep = string.format, string.rep
local raw_match, raw_gsub = string.match, string.gsub
local running, pack, unpack = coroutine.running, table.pack, table.unpack
local CLEANUP_SECONDS = 300

-- Errors --------------------------------------------------------------------------------------

local Err = { __name = "error" }

function Err.__tostring(e)
  local what = e.op or ""
  if e.target and e.target ~= "" then
    what = what .. (what == "" and e.target or "(" .. e.target .. ")")
  end
  if what ~= "" then what = what .. ": " end
  return what .. raw_tostring(e.message) .. " [" .. raw_tostring(e.kind) .. "]"
end

local function is_error(e)
  return type(e) == "table" and getmetatable(e) == Err
end

local function new_error(kind, message, hint)
  local e = { kind = kind, message = message, hint = hint, retryable = false, at = host.frames() }
  return raw_setmetatable(e, Err)
end

local function refuse(kind, message, hint)
  error(new_error(kind, message, hint), 0)
end

-- A fault of the script itself: Lua's own error, or a value passed to error().
local function fault_text(e)
  local text = raw_tostring(e)
  text = raw_match(text, "^(.-)\nstack traceback:") or text
  text = raw_match(text, "^runtime error: (.*)$") or text
  return raw_match(text, "^[^\n]-:%-?%d+: (.*)$") or text -- the prelude has no lines: `?:-1: `
end

-- An error that the flow raises on purpose; what is wrong with the flow itself is not marked.
local function raised(kind, message, hint)
  local e = new_error(kind, message, hint)
  e.detail = { raised = true }
  return e
end

local function on_error(e)
  if is_error(e) then return e end
  if type(e) == "table" and type(e.kind) == "string" and type(e.message) == "string" then
    local err = raised(e.kind, e.message, e.hint)
    err.retryable = e.retryable == true
    return err
  end
  local text = fault_text(e)
  if text:find("attempt to yield across a C-call boundary", 1, true) then
    return new_error("invalid", "a primitive cannot be called here",
      "not inside an xpcall handler, or a metamethod that a library function calls")
  end
  if text:find("the script computes without end", 1, true) then
    return new_error("timeout", "the script computes without end and ran out of time")
  end
  if text:find("not enough memory", 1, true) then
    return new_error("limit", "the flow's memory limit is reached")
  end
  if raw_match(text, "^attempt to ") or raw_match(text, "^bad argument ") then
    return new_error("invalid", text)
  end
  return raised("invalid", text)
end

-- pcall whose failure is always one of our errors. Lua calls no handler when memory runs out.
local function guarded(fn, ...)
  local results = pack(xpcall(fn, on_error, ...))
  if not results[1] and not is_error(results[2]) then results[2] = on_error(results[2]) end
  return results
end

-- Sealed tables -------------------------------------------------------------------------------

-- Reading an unknown field of a sealed table is a mistake worth naming, not nil.
local function seal(name, fields)
  local meta = {}
  function meta.__index(_, key)
    local full = name == "" and raw_tostring(key) or name .. "." .. raw_tostring(key)
    local near = host.near(raw_tostring(key), fields, name)
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

-- Order ---------------------------------------------------------------------------------------

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

-- Text ----------------------------------------------------------------------------------------

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

-- Scopes --------------------------------------------------------------------------------------

-- A scope gives calls their key. Each coroutine stands in one.
local scopes = raw_setmetatable({}, { __mode = "k" })
local open_steps, at_run_end, cleanup_errors = {}, {}, {}

local function current(what)
  local scope = scopes[running()]
  if scope then return scope end
  refuse("invalid", what .. " cannot be called while the file loads",
    "call it inside an action")
end

local function label_of(name)
  return (raw_gsub(raw_tostring(name), "/", "|"))
end

local function child(parent, label)
  label = label_of(label)
  local n = (parent.labels[label] or 0) + 1
  parent.labels[label] = n
  if n > 1 then label = label .. "#" .. n end
  local path = parent.path == "" and label or parent.path .. "/" .. label
  return {
    path = path, labels = {}, calls = {}, defers = {}, cleanups = 0,
    deadline = parent.deadline, deadline_step = parent.deadline_step,
    shielded = parent.shielded, branch = parent.branch, inside = parent.inside,
  }
end

local function bound(scope, at)
  if at and (not scope.deadline or at < scope.deadline) then
    scope.deadline, scope.deadline_step = at, scope.path
  end
end

local function cleanup_item(scope, what, fn)
  if type(fn) ~= "function" then
    refuse("invalid", what .. " wants a function, not " .. type(fn))
  end
  scope.cleanups = scope.cleanups + 1
  local prefix = scope.path == "" and "" or scope.path .. "/"
  return { path = "~" .. prefix .. what .. "#" .. scope.cleanups, fn = fn,
    site = host.frames()[1], inside = scope.inside }
end

-- Runs clean-ups last first. Each is shielded from cancelling, bounded, and cannot hide an error.
local function run_cleanups(list, err)
  local co = running()
  for i = #list, 1, -1 do
    local item = list[i]
    list[i] = nil
    if host.lost() then return end
    local outer = scopes[co]
    local scope = { path = item.path, labels = {}, calls = {}, defers = {}, cleanups = 0,
      shielded = true, inside = item.inside }
    bound(scope, host.step_begins(item.path, item.site, CLEANUP_SECONDS))
    scopes[co] = scope
    local results = guarded(item.fn, err)
    local ok, failure = results[1], results[2]
    run_cleanups(scope.defers, failure)
    scopes[co] = outer
    host.step_ends(item.path, not ok and failure or nil)
    if not ok then cleanup_errors[#cleanup_errors + 1] = failure end
  end
end

-- Runs `fn` in `scope`, then the scope's clean-ups; returns pcall's results.
local function within(scope, fn, ...)
  local co = running()
  local outer = scopes[co]
  scopes[co] = scope
  local results = guarded(fn, ...)
  if not results[1] then host.unwinding(results[2].kind) end
  run_cleanups(scope.defers, not results[1] and results[2] or nil)
  scopes[co] = outer
  return results
end

-- Control -------------------------------------------------------------------------------------

local function options(what, given, allowed)
  if given == nil then return {} end
  if type(given) ~= "table" then
    refuse("invalid", what .. ": options must be a table, not " .. type(given))
  end
  for key in sorted_pairs(given) do
    if not allowed[key] then
      local near = host.near(raw_tostring(key), allowed)
      refuse("invalid", raw_format("%s has no option `%s`", what, raw_tostring(key)),
        near and ("did you mean " .. near .. "?"))
    end
  end
  return given
end

local function seconds(what, value, default)
  if value == nil then return default end
  local parsed, why = host.duration(value)
  if not parsed then refuse("invalid", what .. ": " .. why) end
  return parsed
end

local api = {}
local sleep, quirks

local RETRY = { times = true, delay = true, factor = true, max = true, on = true }

local function may_retry(err, on)
  if err.kind == "cancelled" then return false end
  if on == nil then return err.retryable == true end
  for _, kind in ipairs(on) do
    if kind == err.kind then return true end
  end
  return false
end

function api.retry(opts, fn)
  local outer = current("retry")
  local o = options("retry", opts, RETRY)
  local times, factor = o.times or 3, o.factor or 2
  local delay, max = seconds("retry", o.delay, 2), seconds("retry", o.max, 60)
  for attempt = 1, times do
    local scope = child(outer, "try " .. attempt)
    local results = within(scope, fn, attempt)
    if results[1] then return unpack(results, 2, results.n) end
    local err = results[2]
    if attempt == times or not may_retry(err, o.on) then error(err, 0) end
    host.note("warn", scope.path, raw_format("attempt %d of %d failed: %s; again in %gs",
      attempt, times, raw_tostring(err), delay))
    sleep(delay)
    delay = math.min(delay * factor, max)
  end
end

local STEP = { timeout = true, retry = true }

function api.step(name, fn, opts)
  local outer = current("step")
  if type(name) ~= "string" or type(fn) ~= "function" then
    refuse("invalid", "step wants a name and a function",
      'step("power off", function() ... end)')
  end
  local o = options("step", opts, STEP)
  local scope = child(outer, name)
  local at = host.step_begins(scope.path, host.frames()[1], seconds("step", o.timeout))
  bound(scope, at)
  open_steps[#open_steps + 1] = scope
  local once = quirks.surrounded(name, outer, fn)
  local body = once
  if o.retry then body = function() return api.retry(o.retry, once) end end
  local results = within(scope, body)
  for i = #open_steps, 1, -1 do
    if open_steps[i] == scope then table.remove(open_steps, i) break end
  end
  host.step_ends(scope.path, not results[1] and results[2] or nil)
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, results.n)
end

function api.defer(fn)
  local scope = current("defer")
  scope.defers[#scope.defers + 1] = cleanup_item(scope, "defer", fn)
end

local function at_run_end_when(what, when, fn)
  local item = cleanup_item(current(what), what, fn)
  item.when = when
  at_run_end[#at_run_end + 1] = item
end

function api.at_end(fn) at_run_end_when("at_end", "end", fn) end
function api.undo(fn) at_run_end_when("undo", "failed", fn) end

function api.try(fn, ...)
  current("try")
  local results = guarded(fn, ...)
  if results[1] then return unpack(results, 2, results.n) end
  if results[2].kind == "cancelled" or host.lost() then error(results[2], 0) end
  return nil, results[2]
end

function api.fail(kind, message, hint)
  if not host.is_kind(kind) then
    refuse("invalid", raw_format("fail: there is no error kind %q", raw_tostring(kind)))
  end
  error(raised(kind, raw_tostring(message), hint), 0)
end

local PARALLEL = { limit = true, on_error = true }

-- Runs named functions side by side; the first failure cancels the others and waits for them.
local function side_by_side(what, names, fns, opts)
  local outer = current(what)
  local o = options(what, opts, PARALLEL)
  local group = child(outer, what)
  local collect = o.on_error == "collect"
  local bodies, tokens = {}, {}
  for i, name in ipairs(names) do
    local scope = child(group, name)
    tokens[i] = host.token(outer.branch)
    scope.branch = tokens[i]
    bodies[i] = function()
      local results = within(scope, fns[i])
      if results[1] then return true, results[2] end
      return false, results[2], results[2].kind
    end
  end
  local values, errors, first = host.join(bodies, tokens, o.limit or #bodies, collect, group.path)
  if first and not collect then error(errors[first], 0) end
  return values, errors
end

function api.parallel(branches, opts)
  local names = sorted_keys(branches)
  local fns = {}
  for i, name in ipairs(names) do fns[i] = branches[name] end
  local values, errors = side_by_side("parallel", names, fns, opts)
  local named, failed = {}, {}
  for i, name in ipairs(names) do named[name], failed[name] = values[i], errors[i] end
  return named, failed
end

function api.each(list, fn, opts)
  local names, fns = {}, {}
  for i, item in ipairs(list) do
    names[i] = raw_tostring(i)
    fns[i] = function() return fn(item, i) end
  end
  return side_by_side("each", names, fns, opts)
end

-- Primitives ----------------------------------------------------------------------------------

quirks = quirk_file(host, surface, {
  refuse = refuse, options = options, sorted_pairs = sorted_pairs,
  step = function(name, fn) return api.step(name, fn) end,
  enter = function(mark)
    local scope = current("quirk")
    local inside = { [mark] = true }
    for other in raw_pairs(scope.inside) do inside[other] = true end
    scope.inside = inside
  end,
})

local function primitive(name, formats)
  local function call(...)
    local scope = current(name)
    local n = (scope.calls[name] or 0) + 1
    scope.calls[name] = n
    local key = (scope.path == "" and "" or scope.path .. "/") .. name .. "#" .. n
    local frames = host.frames()
    local args = pack(...)
    if formats and args.n > 1 and type(args[1]) == "string" then
      args = pack(format(...))
    end
    local ok, value = host.call(name, key, frames[1], scope.deadline, scope.deadline_step,
      scope.shielded == true, scope.branch, args)
    if ok then return value end
    value.at = value.at or frames
    error(raw_setmetatable(value, Err), 0)
  end
  return function(...)
    local wrapped = quirks.wrapped(name, current(name), call)
    return (wrapped or call)(...)
  end
end

for module, functions in raw_pairs(surface) do
  local target = module == "" and api or {}
  for name, formats in raw_pairs(functions) do
    target[name] = primitive(module == "" and name or module .. "." .. name, formats)
  end
  if module ~= "" then api[module] = seal(module, target) end
end
sleep = api.sleep

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
strings.gsub, strings.gmatch, strings.rep, strings.format = gsub, gmatch, rep, format
local tables = copy(table, {})
tables.sort = sort
seal("table", tables)

local string_meta = host.metatable("")
string_meta.__index, string_meta.__metatable = seal("string", strings), false

local E = {
  assert = assert, error = error, ipairs = ipairs, pcall = pcall, xpcall = xpcall,
  select = select, tonumber = tonumber, type = type, rawequal = rawequal, rawget = rawget,
  rawset = rawset, rawlen = rawlen, getmetatable = getmetatable,
  pairs = sorted_pairs, next = sorted_next, tostring = tostring,
  string = strings, _VERSION = _VERSION,
  table = tables,
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
  for name, fn in sorted_pairs(o.actions) do
    if type(fn) ~= "function" then
      refuse("invalid", "flow: the action " .. raw_tostring(name) .. " is not a function")
    end
  end
  return raw_setmetatable(def, { __name = "flow" })
end

E.quirk = quirks.declare

local tests = test_file(host, {
  refuse = refuse, raised = raised, sorted_pairs = sorted_pairs, tostring = tostring,
  primitive = function(module, name) return api[module][name] end,
})
E.test = tests.declare

local loaded, LOADING = {}, {}

function E.require(name)
  local path, text = host.module(name)
  if not path then
    refuse("not_found", raw_format("there is no module %q", raw_tostring(name)),
      text and ("did you mean " .. text .. "?"))
  end
  if loaded[path] == LOADING then
    refuse("invalid", path .. " requires itself")
  end
  if loaded[path] == nil then
    loaded[path] = LOADING
    local chunk, why = load(text, "@" .. path, "t", E)
    if not chunk then error(host.syntax(why), 0) end
    local value = chunk(name)
    loaded[path] = value == nil and true or value
  end
  return loaded[path]
end

seal("", E)

-- What Rust calls -----------------------------------------------------------------------------

local M = {}

function M.load(path, text)
  local chunk, why = load(text, "@" .. path, "t", E)
  if not chunk then return false, raw_setmetatable(host.syntax(why), Err) end
  local results
  if tests.is_test(path) then
    results = guarded(function() return E.flow(tests.load(path, chunk)) end)
  else
    results = guarded(chunk)
  end
  local def = results[2]
  if not results[1] then return false, def end
  if type(def) ~= "table" or (host.metatable(def) or {}).__name ~= "flow" then
    return false, new_error("invalid", path .. " does not return a flow",
      "end the file with `return flow { ... }`")
  end
  return true, def
end

-- What a file of a flow folder is: its flow, or nil for a module. A module that stands for one of
-- the standard library has all that is in that one.
function M.look(path, text, name)
  local chunk, why = load(text, "@" .. path, "t", E)
  if not chunk then return false, raw_setmetatable(host.syntax(why), Err) end
  local results = guarded(chunk, name)
  local value = results[2]
  if not results[1] then return false, value end
  if value == nil then
    return false, new_error("invalid", path .. " returns nothing",
      "a flow file ends with `return flow { ... }`, a module with `return` and its table")
  end
  if type(value) == "table" and (host.metatable(value) or {}).__name == "flow" then
    return true, value
  end
  local stock = host.module("stock:" .. name) and guarded(E.require, "stock:" .. name)[2]
  for key in sorted_pairs(type(stock) == "table" and stock or {}) do
    if type(value) ~= "table" or value[key] == nil then
      return false, new_error("invalid", raw_format("%s stands for stdlib/%s.lua and lacks %s.%s",
        path, name, name, raw_tostring(key)), raw_format("begin with `require \"stock:%s\"`", name))
    end
  end
  return true, nil
end

function M.load_quirk(path, text)
  local chunk, why = load(text, "@" .. path, "t", E)
  if not chunk then return false, raw_setmetatable(host.syntax(why), Err) end
  local results = guarded(quirks.load, path, chunk)
  return results[1], results[2]
end

M.quirks_need_info, M.judge_quirks = quirks.need_info, quirks.judge
M.tests = tests.list

-- The iLO is asked once, and a replay sees the same answer: the same quirks apply again.
local function use_quirks(node)
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

local function finish(err)
  local list = {}
  for _, item in ipairs(at_run_end) do
    if item.when == "end" or err then list[#list + 1] = item end
  end
  at_run_end = {}
  run_cleanups(list, err)
  host.step_ends("(flow)", err)
end

function M.run(def, action, ctx, node, p)
  local root = { path = "", labels = {}, calls = {}, defers = {}, cleanups = 0, inside = {} }
  bound(root, host.step_begins("(flow)", "", seconds("flow", def.timeout)))
  if root.deadline then root.deadline_step = "the whole flow" end
  local results = within(root, function()
    use_quirks(node)
    ctx, node = freeze(ctx, "ctx"), freeze(node, "node")
    if def.validate then
      api.step("validate", function() def.validate(ctx, node, p) end)
    end
    return def.actions[action](ctx, node, p)
  end)
  local co = running()
  scopes[co] = root
  finish(not results[1] and results[2] or nil)
  scopes[co] = nil
  return results[1], results[2], cleanup_errors
end

-- The script was taken off its thread: unwinds what it had open, innermost first.
function M.abort(err)
  err = raw_setmetatable(err, Err)
  for i = #open_steps, 1, -1 do
    local scope = open_steps[i]
    open_steps[i] = nil
    run_cleanups(scope.defers, err)
    host.step_ends(scope.path, err)
  end
  finish(err)
  return false, err, cleanup_errors
end

function M.destroys(def, node, p, action)
  if not def.destroys then return true, {} end
  local results = guarded(def.destroys, freeze(node, "node"), p, action)
  return results[1], results[2]
end

M.environment, M.find_module = E, host.module
-- Which argument of a control function holds its options, and what they are.
M.controls = { step = { 3, STEP }, retry = { 1, RETRY }, parallel = { 2, PARALLEL },
  each = { 3, PARALLEL } }
return M
