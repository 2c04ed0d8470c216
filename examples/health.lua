-- Says how a server is: flowrun examples/health.lua --node lab-1 --lab
return flow { name = "health", actions = {
  check = function(_, node)
    local info = step("ask the iLO", function() return ilo.info(node) end)
    log.info("%s is a %s, power %s", node.name, info.model, info.power_state)
    return info
  end,
} }
