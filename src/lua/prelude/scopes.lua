-- Scopes: where a coroutine stands in its run, and the clean-ups that wait for the end of that.
local host, errors = ...

local raw_tostring, raw_setmetatable, raw_gsub = tostring, setmetatable, string.gsub
local running, refuse, guarded = coroutine.running, errors.refuse, errors.guarded
local CLEANUP_SECONDS = 300

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

-- A scope for a step, and the end of it. What is open is unwound if the script is lost.
local function open(scope)
  open_steps[#open_steps + 1] = scope
end

local function close(scope)
  for i = #open_steps, 1, -1 do
    if open_steps[i] == scope then table.remove(open_steps, i) break end
  end
end

local function defer(fn)
  local scope = current("defer")
  scope.defers[#scope.defers + 1] = cleanup_item(scope, "defer", fn)
end

local function at_end_when(what, when, fn)
  local item = cleanup_item(current(what), what, fn)
  item.when = when
  at_run_end[#at_run_end + 1] = item
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

-- Runs the whole action, then what waits for the end of the run.
local function run(timeout, fn)
  local root = { path = "", labels = {}, calls = {}, defers = {}, cleanups = 0, inside = {} }
  bound(root, host.step_begins("(flow)", "", timeout))
  if root.deadline then root.deadline_step = "the whole flow" end
  local results = within(root, fn)
  local co = running()
  scopes[co] = root
  finish(not results[1] and results[2] or nil)
  scopes[co] = nil
  return results[1], results[2], cleanup_errors
end

-- The script was taken off its thread: unwinds what it had open, innermost first.
local function abort(err)
  for i = #open_steps, 1, -1 do
    local scope = open_steps[i]
    open_steps[i] = nil
    run_cleanups(scope.defers, err)
    host.step_ends(scope.path, err)
  end
  finish(err)
  return false, err, cleanup_errors
end

return { current = current, child = child, bound = bound, within = within, open = open,
  close = close, defer = defer, at_end_when = at_end_when, run = run, abort = abort }
