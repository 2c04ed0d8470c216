-- Deploying over iSCSI: what the specification moves out of the PXE driver.
local iscsi_deploy = {}

-- Reads what to deploy; names everything that is missing at once.
function iscsi_deploy.parse_instance_info(node)
  local info, missing = node.instance_info, {}
  for _, key in ipairs { "image_source" } do
    if not info[key] or info[key] == "" then missing[#missing + 1] = "instance_info." .. key end
  end
  if not node.driver_info.deploy_iso then missing[#missing + 1] = "driver_info.deploy_iso" end
  if #node.ports == 0 then missing[#missing + 1] = "ports" end
  if #missing > 0 then
    fail("invalid", node.name .. " lacks " .. table.concat(missing, ", "),
      "add it to the node in flowrun.toml, or give it with --set")
  end
  return info
end

-- Finds the image, checks its checksum if the node has one, and tells its size.
function iscsi_deploy.cache_instance_image(node)
  local info = iscsi_deploy.parse_instance_info(node)
  return image.fetch(info.image_source, {
    checksum = info.image_checksum,
    format = info.image_format,
  })
end

-- A capability such as `boot_mode` of a node: what the instance asks for, else what the node has.
local function capability(node, name)
  local places = { node.instance_info.capabilities, node.properties.capabilities }
  for _, capabilities in pairs(places) do
    if type(capabilities) == "table" and capabilities[name] then return capabilities[name] end
    if type(capabilities) == "string" then
      for key, value in capabilities:gmatch("([%w_]+):([^,%s]+)") do
        if key == name then return value end
      end
    end
  end
end

-- A partition image is a file system alone and gets partitions around it; a whole-disk image
-- brings its own. Content decides unless the node says `image_type`.
local function write(node, lun, img)
  local info = node.instance_info
  if (info.image_type or img.kind) ~= "partition" then
    return disk.write_whole_disk_image(lun, {
      image = img,
      configdrive = info.configdrive,
      disk_is_zero = info.disk_is_zero,
    })
  end
  if not info.root_gb then
    fail("invalid", node.name .. " lacks instance_info.root_gb, which a partition image needs",
      "add it to the node in flowrun.toml, or give it with --set")
  end
  return disk.write_partition_image(lun, {
    image = img,
    root_gb = info.root_gb,
    swap_mb = info.swap_mb,
    ephemeral_gb = info.ephemeral_gb,
    ephemeral_format = info.ephemeral_format,
    preserve_ephemeral = info.preserve_ephemeral,
    configdrive = info.configdrive,
    disk_is_zero = info.disk_is_zero,
    boot_mode = capability(node, "boot_mode"),
    boot_option = capability(node, "boot_option"),
    disk_label = capability(node, "disk_label"),
  })
end

-- Writes the image to the disk that the ramdisk exports and proves that it is there.
function iscsi_deploy.continue_deploy(node, target, img)
  local lun = iscsi.login(target)
  defer(function() iscsi.logout(lun) end)
  local disk_info = iscsi.info(lun)
  local written = write(node, lun, img)
  local verified = disk.verify(lun, { written = written })
  local layout = disk.read_partitions(lun)
  log.info("%d bytes written and read back, disk %s", verified.bytes, layout.disk_identifier)
  return {
    disk = disk_info,
    image_bytes = written.virtual_bytes,
    data_bytes = written.data_bytes,
    zero_bytes = written.zero_bytes,
    resumed_bytes = written.resumed_bytes,
    seconds = written.seconds,
    verified_bytes = verified.bytes,
    digest = verified.digest,
    root_uuid = written.root_uuid,
    efi_system_uuid = written.efi_system_uuid,
    partitions = written.partitions,
    layout = layout,
  }
end

return iscsi_deploy
