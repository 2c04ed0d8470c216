-- Deploys an image to an HPE ProLiant server: boots a deploy ramdisk over iLO virtual media,
-- writes the image to the disk that the ramdisk exports over iSCSI, and boots the result.
local vmedia_boot, iscsi_deploy = require "vmedia_boot", require "iscsi_deploy"
local instance_boot, power = require "instance_boot", require "power"

local function validate(_, node)
  iscsi_deploy.parse_instance_info(node)
  ilo.check_vmedia_license(node)
end

local function deploy(_, node, p)
  local img = step("fetch image", function() return iscsi_deploy.cache_instance_image(node) end)

  local expected = step("boot deploy ramdisk", function()
    undo(function() vmedia_boot.cleanup(node) end)
    undo(function() power.off(node) end) -- runs first: media go when nothing reads them
    power.off(node)
    local expected = ramdisk.expect(node) -- key, iqn, CHAP secret, callback URL
    vmedia_boot.setup(node, node.driver_info.deploy_iso, expected)
    power.on(node)
    return expected
  end, { timeout = "15m" })

  local target = step("wait for ramdisk", function()
    return ramdisk.wait(expected, { timeout = p.callback_timeout })
  end)

  local written = step("write image", function()
    return iscsi_deploy.continue_deploy(node, target, img) -- written, flushed, read back
  end, { timeout = "90m" })

  step("boot instance", function()
    vmedia_boot.cleanup(node)
    instance_boot.prepare(node, written)
    if not ramdisk.done(target) then
      log.warn("the ramdisk did not listen on port 10000; the data is verified, so reset")
      power.reboot(node)
    end
  end, { timeout = "5m" })

  local booted = step("wait for instance", function()
    return instance_boot.wait(node)
  end, { timeout = "20m" })

  return { image = img, target = target.address, written = written, booted = booted }
end

return flow {
  name = "ilo_vmedia_iscsi",
  summary = "Deploy a whole-disk image over iLO virtual media and iSCSI",
  api = ">= 0.1",
  timeout = "3h",

  params = {
    callback_timeout = {
      type = "duration", default = "30m",
      help = "how long the deploy ramdisk may take to boot and call",
    },
  },

  validate = validate,
  destroys = function(node)
    return { "everything on the root disk of " .. node.name }
  end,

  actions = { deploy = deploy },
}
