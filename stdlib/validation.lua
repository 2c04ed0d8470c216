-- What a deployment needs, checked before anything is touched. All that is missing or wrong is
-- told at once.
local vmedia_boot, iscsi_deploy = require "vmedia_boot", require "iscsi_deploy"
local capability = require "capability"
local validation = {}

-- Adds a complaint.
local function add(found, text, ...)
  found[#found + 1] = { text = text:format(...) }
end

-- Makes a check by a primitive; what it raises is a complaint.
local function ask(found, what, fn, ...)
  local value, err = try(fn, ...)
  if err then found[#found + 1] = { text = what .. ": " .. tostring(err), error = err } end
  return value
end

-- One failure of a primitive is told as it is, several things in one error.
local function report(node, found)
  if #found == 0 then return end
  if #found == 1 and found[1].error then error(found[1].error, 0) end
  local texts = {}
  for i, complaint in ipairs(found) do texts[i] = complaint.text end
  fail("invalid", node.name .. " cannot be deployed: " .. table.concat(texts, "; "),
    "change the node in flowrun.toml, or give values with --set")
end

local function is_number(value, least)
  return math.type(value) == "integer" and value >= least
end

local function one_of(found, name, value, words)
  if value == nil then return end
  for _, word in ipairs(words) do
    if value == word then return end
  end
  add(found, "%s is %q, not one of %s", name, tostring(value), table.concat(words, ", "))
end

local function check_capabilities(found, node)
  one_of(found, "capability boot_mode", capability(node, "boot_mode"), { "bios", "uefi" })
  one_of(found, "capability boot_option", capability(node, "boot_option"), { "local", "netboot" })
  one_of(found, "capability disk_label", capability(node, "disk_label"), { "gpt", "msdos" })
end

local function check_sizes(found, node, kind)
  local info = node.instance_info
  local least = { root_gb = 1, swap_mb = 0, ephemeral_gb = 0 }
  for name, minimum in pairs(least) do
    local value = info[name]
    if value ~= nil and not is_number(value, minimum) then
      add(found, "instance_info.%s is %s, not a whole number from %d on", name, tostring(value),
        minimum)
    end
  end
  one_of(found, "instance_info.ephemeral_format", info.ephemeral_format, { "ext4", "xfs", "vfat" })
  for _, name in ipairs { "preserve_ephemeral", "disk_is_zero", "fit_gpt" } do
    if info[name] ~= nil and type(info[name]) ~= "boolean" then
      add(found, "instance_info.%s is %s, not true or false", name, tostring(info[name]))
    end
  end
  if kind == "partition" and info.root_gb == nil then
    add(found, "instance_info.root_gb is missing, which a partition image needs")
  end
  local extra = (info.swap_mb or 0) ~= 0 or (info.ephemeral_gb or 0) ~= 0
  if kind == "whole-disk" and extra and (info.image_type or info.root_gb == nil) then
    add(found, "swap_mb and ephemeral_gb do not go with a whole-disk image")
  end
end

-- A partition image that netboots has a boot ISO, or both kernel and ramdisk.
local function check_properties(found, node, properties)
  local missing = {}
  for _, name in ipairs { "kernel", "ramdisk" } do
    if not properties[name] then missing[#missing + 1] = name end
  end
  if #missing == 1 then
    add(found, "the image has no %s, but a %s", missing[1],
      missing[1] == "kernel" and "ramdisk" or "kernel")
  end
  local wants = iscsi_deploy.image_type(node, properties) == "partition"
    and capability(node, "boot_option") == "netboot"
  if wants and not properties.boot_iso and #missing == 2 then
    add(found, "the image has neither boot_iso nor kernel and ramdisk to boot it by netboot")
  end
  for _, name in ipairs { "kernel", "ramdisk", "boot_iso" } do
    if properties[name] then ask(found, "the image's " .. name, image.head, properties[name]) end
  end
end

local function check_image(found, node)
  local source = node.instance_info.image_source
  if not source or source == "" then
    add(found, "instance_info.image_source is missing")
    return
  end
  if not ask(found, "instance_info.image_source", image.head, source) then return end
  local properties = ask(found, "the image", iscsi_deploy.image_properties, node)
  if not properties then return end
  check_properties(found, node, properties)
  check_sizes(found, node, iscsi_deploy.image_type(node, properties))
end

-- With preserve_ephemeral the partitions stay where they are: sizes must be those of the last
-- deployment.
local function check_preserved(found, node)
  local before = (node.driver_internal_info or {}).instance
  if not before then return end
  for _, name in ipairs { "root_gb", "swap_mb", "ephemeral_gb" } do
    local now = node.instance_info[name] or 0
    if now ~= (before[name] or 0) then
      add(found, "instance_info.%s was %d at the last deployment and is %d: preserve_ephemeral "
        .. "keeps the partitions", name, before[name] or 0, now)
    end
  end
end

-- The specification's validate(): ports, driver and instance info, deploy ISO, API URL, image and
-- its properties, and the licence for virtual media.
function validation.check(node, preserve_ephemeral)
  local found = {}
  if #node.ports == 0 then add(found, "ports are missing") end
  check_capabilities(found, node)
  local deploy_iso = vmedia_boot.deploy_iso(node)
  if deploy_iso then
    ask(found, "driver_info.deploy_iso", image.head, deploy_iso)
  else
    add(found, "driver_info.deploy_iso is missing")
  end
  check_image(found, node)
  if preserve_ephemeral or node.instance_info.preserve_ephemeral then
    check_preserved(found, node)
  end
  ask(found, "[api] public_url", ramdisk.check_api, node)
  ask(found, "the iLO", ilo.check_vmedia_license, node)
  report(node, found)
end

return validation
