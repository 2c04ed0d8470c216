-- What a flow is written with: steps, clean-ups, retries, branches.
local host, errors, tables, scopes, surrounded = ...

local raw_tostring, raw_format, unpack = tostring, string.format, table.unpack
local refuse, raised, guarded = errors.refuse, errors.raised, errors.guarded
local current, child, within = scopes.current, scopes.child, scopes.within

local function options(what, given, allowed)
  if given == nil then return {} end
  if type(given) ~= "table" then
    refuse("invalid", what .. ": options must be a table, not " .. type(given))
  end
  for key in tables.pairs(given) do
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

-- `sleep` is a primitive, and comes with those.
local api = {}

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
    api.sleep(delay)
    delay = math.min(delay * factor, max)
  end
end

local PARALLEL = { limit = true, on_error = true }
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
  scopes.bound(scope, at)
  scopes.open(scope)
  local once = surrounded(name, outer, fn)
  local body = once
  if o.retry then body = function() return api.retry(o.retry, once) end end
  local results = within(scope, body)
  scopes.close(scope)
  host.step_ends(scope.path, not results[1] and results[2] or nil)
  if not results[1] then error(results[2], 0) end
  return unpack(results, 2, results.n)
end

api.defer = scopes.defer
function api.at_end(fn) scopes.at_end_when("at_end", "end", fn) end
function api.undo(fn) scopes.at_end_when("undo", "failed", fn) end

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

-- Which argument of a control function holds its options, and what they are.
local controls = { step = { 3, STEP }, retry = { 1, RETRY }, parallel = { 2, PARALLEL },
  each = { 3, PARALLEL } }

return { api = api, options = options, seconds = seconds, controls = controls }
