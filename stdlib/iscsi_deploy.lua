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

-- Writes the image to the disk that the ramdisk exports and proves that it is there.
function iscsi_deploy.continue_deploy(_, target, img)
  local lun = iscsi.login(target)
  defer(function() iscsi.logout(lun) end)
  local disk_info = iscsi.info(lun)
  local written = disk.write_whole_disk_image(lun, { image = img })
  local verified = disk.verify(lun, { written = written })
  local layout = disk.read_partitions(lun)
  log.info("%d bytes written and read back, disk %s", verified.bytes, layout.disk_identifier)
  return {
    disk = disk_info,
    image_bytes = written.virtual_bytes,
    data_bytes = written.data_bytes,
    zero_bytes = written.zero_bytes,
    seconds = written.seconds,
    verified_bytes = verified.bytes,
    digest = verified.digest,
    layout = layout,
  }
end

return iscsi_deploy
