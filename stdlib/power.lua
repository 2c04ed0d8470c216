-- Power of a server, as the flows say it.
local vmedia_boot = require "vmedia_boot"
local power = {}

function power.on(node)
  return ilo.set_power(node, { state = "on" })
end

-- Holds the button: whatever runs there is lost.
function power.off(node)
  return ilo.set_power(node, { state = "force_off" })
end

-- Restarts it at once, to boot what is set.
function power.reset(node)
  return ilo.set_power(node, { state = "reset" })
end

-- Switches on or restarts a server that is deployed: one with a boot ISO boots it again, by a fresh
-- temporary URL, since the one before has expired. A node that is not active boots what its
-- deployment attached.
function power.reboot(node, state)
  if not state then state = ilo.power_state(node) == "on" and "reset" or "on" end
  local boot_iso = vmedia_boot.boot_iso(node)
  local is_active = node.provision_state == nil or node.provision_state == "active"
  if boot_iso and is_active then vmedia_boot.setup(node, boot_iso) end
  return ilo.set_power(node, { state = state })
end

return power
