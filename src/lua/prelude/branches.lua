-- Branches that run side by side.
local host, tables, scopes, control = ...

local raw_tostring, current, child, within = tostring, scopes.current, scopes.child, scopes.within

local M = {}

-- Runs named functions side by side; the first failure cancels the others and waits for them.
local function side_by_side(what, names, fns, opts)
  local outer = current(what)
  local o = control.options(what, opts, control.controls[what][2])
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

function M.parallel(branches, opts)
  local names = tables.sorted_keys(branches)
  local fns = {}
  for i, name in ipairs(names) do fns[i] = branches[name] end
  local values, errors = side_by_side("parallel", names, fns, opts)
  local named, failed = {}, {}
  for i, name in ipairs(names) do named[name], failed[name] = values[i], errors[i] end
  return named, failed
end

function M.each(list, fn, opts)
  local names, fns = {}, {}
  for i, item in ipairs(list) do
    names[i] = raw_tostring(i)
    fns[i] = function() return fn(item, i) end
  end
  return side_by_side("each", names, fns, opts)
end

return M
