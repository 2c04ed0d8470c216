-- Boots the deploy ramdisk with a floppy that is meant for another server.
local vmedia_boot, power = require "vmedia_boot", require "power"

local function boot(_, node)
  local target = step("boot", function()
    power.off(node)
    local expected = ramdisk.expect(node, {
      serial = "CZJANOTHER", uuid = "11111111-2222-3333-4444-555555555555",
    })
    vmedia_boot.setup(node, vmedia_boot.deploy_iso(node), expected)
    power.on(node)
    return ramdisk.wait(expected)
  end, { timeout = "15m" })
  return target
end

return flow { name = "another", summary = "Boot the wrong server", actions = { boot = boot } }
