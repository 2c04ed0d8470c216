-- Booting a server from virtual media: the specification's setup_virtual_media_boot and
-- cleanup_virtual_media_boot.
local attempt = require "attempt"
local vmedia_boot = {}

local function container()
  return config.get("swift_ilo_container")
end

local function floppy_name(node)
  return "image-" .. node.uuid
end

-- Where an ISO goes that is a file here.
local function iso_name(node)
  return "iso-" .. node.uuid
end

-- A value by its name, or by the one that Ironic gave it until its Xena release.
local function by_either_name(section, info, name)
  local older = "ilo_" .. name
  if info[name] or not info[older] then return info[name] end
  log.warn("%s.%s is the older name of %s.%s", section, older, section, name)
  return info[older]
end

function vmedia_boot.deploy_iso(node)
  return by_either_name("driver_info", node.driver_info, "deploy_iso")
end

-- What the deployed system boots from; nil if that is its disk.
function vmedia_boot.boot_iso(node)
  return by_either_name("instance_info", node.instance_info, "boot_iso")
end

-- The image of Glance that a reference names: `glance://name`, `glance:name`, or an id alone.
function vmedia_boot.glance_image(reference)
  local named = reference:match("^glance:/?/?(.+)$")
  local is_id = reference:match("^%x+%-%x+%-%x+%-%x+%-%x+$") and #reference == 36
  return named or (is_id and reference) or nil
end

local function file_of(reference)
  return reference:match("^file://(/.*)$") or reference:match("^(/.*)$")
end

-- A reference to an ISO as a URL that the iLO can read: objects, and images that Glance keeps in
-- Swift, get a temporary URL; a file is uploaded for a short time; http(s) is taken as it is.
local function iso_url(node, reference)
  local where, object = reference:match("^swift:/?/?([^/]+)/(.+)$")
  if where then return swift.temp_url(where, { name = object, filename = "boot.iso" }) end
  local image_ref = vmedia_boot.glance_image(reference)
  if image_ref then return glance.temp_url(image_ref, { filename = "boot.iso" }) end
  if reference:match("^https?://") then return reference end
  local file = file_of(reference)
  if not file then
    fail("invalid", "an ISO is glance://image, swift://container/object, an http(s) URL or a file, "
      .. "not " .. reference)
  end
  local ttl = config.get("deploy_helper_images_ttl")
  swift.upload(container(), { name = iso_name(node), file = file, delete_after = ttl })
  return swift.temp_url(container(), { name = iso_name(node), filename = "boot.iso", ttl = ttl })
end

-- Builds the floppy with parameters and token, uploads it for a short time, inserts it.
local function attach_floppy(node, expected)
  local floppy = image.make_vfat {
    parameters = expected.parameters,
    token = expected.token,
    files = expected.files,
  }
  local ttl = config.get("deploy_helper_images_ttl")
  swift.upload(container(), { name = floppy_name(node), file = floppy.path, delete_after = ttl })
  image.discard(floppy) -- it holds the token
  local url = swift.temp_url(container(), { name = floppy_name(node), ttl = ttl })
  ilo.attach_vmedia(node, { device = "floppy", url = url })
end

-- Sets a server up to boot `iso` once, with a floppy if there is something to hand over. It must
-- not be in POST, in which an iLO refuses the boot device.
function vmedia_boot.setup(node, iso, expected)
  ilo.check_vmedia_license(node)
  if expected then attach_floppy(node, expected) end
  ilo.attach_vmedia(node, { device = "cdrom", url = iso_url(node, iso) })
  ilo.set_one_time_boot(node, { device = "cdrom" })
end

-- Takes the media out and the objects away that were uploaded for this node. Safe to call twice.
function vmedia_boot.cleanup(node)
  attempt {
    function() swift.delete(container(), { name = floppy_name(node) }) end,
    function()
      local isos = { vmedia_boot.deploy_iso(node) or "", vmedia_boot.boot_iso(node) or "" }
      if file_of(isos[1]) or file_of(isos[2]) then
        swift.delete(container(), { name = iso_name(node) })
      end
    end,
    function() ilo.eject_vmedia(node, { device = "floppy" }) end,
    function() ilo.eject_vmedia(node, { device = "cdrom" }) end,
  }
end

return vmedia_boot
