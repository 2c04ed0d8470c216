-- Trying again.
local host, scopes, control, E = ...

local current, child, within = scopes.current, scopes.child, scopes.within

local function may_retry(err, on)
  if err.kind == "cancelled" then return false end
  if on == nil then return err.retryable == true end
  for _, kind in ipairs(on) do
    if kind == err.kind then return true end
  end
  return false
end

local function retry(opts, fn)
  local outer = current("retry")
  local o = control.options("retry", opts, control.controls.retry[2])
  local times, factor = o.times or 3, o.factor or 2
  local delay, max = control.seconds("retry", o.delay, 2), control.seconds("retry", o.max, 60)
  for attempt = 1, times do
    local scope = child(outer, "try " .. attempt)
    local results = within(scope, fn, attempt)
    if results[1] then return table.unpack(results, 2, results.n) end
    local err = results[2]
    if attempt == times or not may_retry(err, o.on) then error(err, 0) end
    host.note("warn", scope.path, string.format("attempt %d of %d failed: %s; again in %gs",
      attempt, times, tostring(err), delay))
    E.sleep(delay)
    delay = math.min(delay * factor, max)
  end
end

return { retry = retry }
