-- Does all of it, whatever fails on the way; what failed first is raised at the end, the rest is
-- in the log.
return function(tasks)
  local first
  for _, task in ipairs(tasks) do
    local _, err = try(task)
    if first and err then log.warn("%s", err) end
    first = first or err
  end
  if first then error(first, 0) end
end
