-- Deploying over iSCSI: what the specification moves out of the PXE driver.
local vmedia_boot, capability = require "vmedia_boot", require "capability"
local iscsi_deploy = {}

-- What there is to know of the image besides its bytes: Glance's properties, or for an image from
-- elsewhere what instance_info says in their place.
function iscsi_deploy.image_properties(node)
  local info = node.instance_info
  local id = vmedia_boot.glance_image(info.image_source)
  if not id then
    return {
      kernel = info.kernel,
      kernel_checksum = info.kernel_checksum,
      ramdisk = info.ramdisk,
      ramdisk_checksum = info.ramdisk_checksum,
      boot_iso = info.image_boot_iso,
    }
  end
  local found = glance.image(id)
  return {
    kernel = found.kernel_id and "glance://" .. found.kernel_id,
    ramdisk = found.ramdisk_id and "glance://" .. found.ramdisk_id,
    boot_iso = found.boot_iso,
  }
end

-- A partition image is a file system alone and gets partitions around it; a whole-disk image
-- brings its own. The node says which in `image_type`; an image with kernel and ramdisk is a
-- partition image; else `root_gb` means that a file system alone is to get partitions.
function iscsi_deploy.image_type(node, properties, img)
  local info = node.instance_info
  if info.image_type then return info.image_type end
  if properties.kernel and properties.ramdisk then return "partition" end
  return info.root_gb and img and img.kind or "whole-disk"
end

-- An image that does not fit is not worth booting a ramdisk for. Of a compressed one the size is
-- known when it is written.
function iscsi_deploy.check_image_size(node, img)
  local root_bytes = (node.instance_info.root_gb or 0) * 1024 ^ 3
  if img.type == "partition" and img.virtual_bytes and img.virtual_bytes > root_bytes then
    fail("limit", ("the image has %d bytes, the root partition %d"):format(
      img.virtual_bytes, root_bytes), "give instance_info.root_gb more")
  end
end

-- Brings the image here, checks it, and tells what it is.
function iscsi_deploy.cache_instance_image(node)
  local info = node.instance_info
  local img = image.fetch(info.image_source, {
    checksum = info.image_checksum,
    format = info.image_format,
  })
  img.properties = iscsi_deploy.image_properties(node)
  img.type = iscsi_deploy.image_type(node, img.properties, img)
  iscsi_deploy.check_image_size(node, img)
  return img
end

-- `local` or `netboot`: whole disks boot themselves. Partition images boot as the capability says,
-- else from a boot ISO where the image has one or kernel and ramdisk to build it of.
function iscsi_deploy.boot_option(node, img)
  if img.type ~= "partition" then return "local" end
  local properties = img.properties
  local has_iso = properties.boot_iso or (properties.kernel and properties.ramdisk)
  return capability(node, "boot_option") or (has_iso and "netboot") or "local"
end

local function write(node, lun, img, preserve_ephemeral)
  local info = node.instance_info
  if img.type ~= "partition" then
    return disk.write_whole_disk_image(lun, {
      image = img,
      configdrive = info.configdrive,
      disk_is_zero = info.disk_is_zero,
      fit_gpt = info.fit_gpt,
    })
  end
  return disk.write_partition_image(lun, {
    image = img,
    root_gb = info.root_gb,
    swap_mb = info.swap_mb,
    ephemeral_gb = info.ephemeral_gb,
    ephemeral_format = info.ephemeral_format,
    preserve_ephemeral = preserve_ephemeral or info.preserve_ephemeral,
    configdrive = info.configdrive,
    disk_is_zero = info.disk_is_zero,
    boot_mode = capability(node, "boot_mode"),
    boot_option = iscsi_deploy.boot_option(node, img),
    disk_label = capability(node, "disk_label"),
  })
end

-- Writes the image to the disk that the ramdisk exports and proves that it is there.
function iscsi_deploy.continue_deploy(node, target, img, preserve_ephemeral)
  local lun = iscsi.login(target)
  defer(function() iscsi.logout(lun) end)
  local disk_info = iscsi.info(lun)
  local written = write(node, lun, img, preserve_ephemeral)
  local verified = disk.verify(lun, { written = written })
  local layout = disk.read_partitions(lun)
  log.info("%d bytes written and %s, disk %s", verified.bytes,
    verified.read_back and "read back" or "hashed by the ramdisk", layout.disk_identifier)
  return {
    disk = disk_info,
    image_bytes = written.virtual_bytes,
    data_bytes = written.data_bytes,
    zero_bytes = written.zero_bytes,
    resumed_bytes = written.resumed_bytes,
    seconds = written.seconds,
    verified_bytes = verified.bytes,
    read_back = verified.read_back,
    root_uuid = written.root_uuid,
    efi_system_uuid = written.efi_system_uuid,
    partitions = written.partitions,
    layout = layout,
  }
end

return iscsi_deploy
