-- Booting what was deployed.
local iscsi_deploy, vmedia_boot = require "iscsi_deploy", require "vmedia_boot"
local capability = require "capability"
local instance_boot = {}

-- Ironic's `pxe_append_params`.
local KERNEL_PARAMS = "nofb nomodeset vga=normal"

-- The boot ISO of a partition image, in the specification's order: the one that the image names;
-- the one in Swift of the same image, kernel and ramdisk, whose usage_count grows by one; one that
-- is built and uploaded, with a usage_count of one.
local function pick_boot_iso(node, img, written)
  local info, properties = node.instance_info, img.properties
  if properties.boot_iso then return properties.boot_iso end
  if not (properties.kernel and properties.ramdisk) then
    fail("invalid", "there is no boot ISO, and no kernel and ramdisk to build one of",
      "give the image `boot_iso`, or `kernel_id` and `ramdisk_id`; or boot_option:local")
  end
  if not written.root_uuid then
    fail("unsupported", "the image's file system has no UUID that a kernel finds it by",
      "use ext4, xfs or btrfs")
  end
  local shared = boot_iso.acquire(node, {
    image = info.image_source,
    kernel = properties.kernel,
    kernel_checksum = properties.kernel_checksum,
    ramdisk = properties.ramdisk,
    ramdisk_checksum = properties.ramdisk_checksum,
    root_uuid = written.root_uuid,
    kernel_params = info.kernel_append_params or KERNEL_PARAMS,
    boot = capability(node, "boot_mode") or "both",
  })
  log.info("%s boot ISO %s, usage_count %d", shared.built and "built" or "took",
    shared.reference, shared.usage_count)
  return shared.reference
end

-- Sets the next boot: the disk, or the boot ISO. Answers which ISO that is.
function instance_boot.prepare(node, img, written)
  if iscsi_deploy.boot_option(node, img) == "netboot" then
    local iso = pick_boot_iso(node, img, written)
    vmedia_boot.setup(node, iso)
    return iso
  end
  if written.layout.label == "none" then
    fail("invalid", "the image has no partition table: no firmware boots it",
      "deploy a whole-disk image")
  end
  ilo.set_one_time_boot(node, { device = "disk" })
end

-- Waits until the server has booted again; the step around bounds it. That POST is finished proves
-- nothing, it was while the ramdisk ran: the firmware uses the one-time boot up when it boots.
function instance_boot.wait(node)
  while ilo.boot_device(node).enabled == "once" do
    sleep("2s")
  end
  local post = ilo.post_state(node)
  while post ~= "finished_post" and post ~= "unknown" do -- RIBCL does not tell the POST
    sleep("2s")
    post = ilo.post_state(node)
  end
  return { post_state = post, power_state = ilo.power_state(node) }
end

return instance_boot
