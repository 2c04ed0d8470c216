-- BIOS or UEFI.
local capability = require "capability"
local boot_mode = {}

-- As the node's capability says; without one the server's own mode stays. Changed while the server
-- is off, before the boot device, which a change of mode may take along.
function boot_mode.prepare(node)
  local wanted = capability(node, "boot_mode")
  if not wanted then return end
  if wanted == "bios" then wanted = "legacy" end
  local now, err = try(ilo.boot_mode, node)
  if err and err.kind ~= "unsupported" then error(err, 0) end
  if now == wanted or (not now and wanted == "legacy") then return end -- old servers have one mode
  ilo.set_boot_mode(node, { mode = wanted })
end

return boot_mode
