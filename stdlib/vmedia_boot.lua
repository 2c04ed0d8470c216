-- Booting a server from virtual media: the specification's setup_virtual_media_boot and
-- cleanup_virtual_media_boot.
local vmedia_boot = {}

local function container()
  return config.get("swift_ilo_container")
end

local function floppy_name(node)
  return "image-" .. node.uuid
end

-- A reference to an ISO as a URL that the iLO can read: `swift:container/object` and images that
-- Glance keeps in Swift get a temporary URL, http(s) is taken as it is.
local function iso_url(reference, filename)
  local where, object = reference:match("^swift:/?/?([^/]+)/(.+)$")
  if where then
    return swift.temp_url(where, { name = object, filename = filename })
  end
  local image_ref = reference:match("^glance:/?/?(.+)$")
  if image_ref then return glance.temp_url(image_ref, { filename = filename }) end
  if reference:match("^https?://") then return reference end
  fail("invalid", "deploy_iso is not swift:container/object, glance://image or an http(s) URL: "
    .. reference)
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

-- Sets a server up to boot `iso` once, with a floppy if there is something to hand over. The
-- server must be off: an iLO in POST refuses the boot device.
function vmedia_boot.setup(node, iso, expected)
  ilo.check_vmedia_license(node)
  if expected then attach_floppy(node, expected) end
  ilo.attach_vmedia(node, { device = "cdrom", url = iso_url(iso, "boot.iso") })
  ilo.set_one_time_boot(node, { device = "cdrom" })
end

-- Takes the media out and the floppy's object away. Safe to call twice.
function vmedia_boot.cleanup(node)
  swift.delete(container(), { name = floppy_name(node) })
  ilo.eject_vmedia(node, { device = "floppy" })
  ilo.eject_vmedia(node, { device = "cdrom" })
end

return vmedia_boot
