-- Power of a server, as the flows say it.
local power = {}

function power.on(node)
  return ilo.set_power(node, { state = "on" })
end

-- Holds the button: whatever runs there is lost.
function power.off(node)
  return ilo.set_power(node, { state = "force_off" })
end

function power.reboot(node)
  if ilo.power_state(node) == "on" then
    return ilo.set_power(node, { state = "reset" })
  end
  return power.on(node)
end

return power
