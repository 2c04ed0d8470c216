---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---An image as Glance knows it; properties that the operator gave it are fields too.
---@class GlanceImage
---@field id string its id
---@field name string its name
---@field status string `active` when it has its data
---@field size integer size of the data
---@field disk_format string `raw`, `qcow2`, `iso`, …
---@field min_disk integer least disk in GiB
---@field checksum string MD5 of the data
---@field os_hash_algo string which hash os_hash_value is
---@field os_hash_value string hash of the data
---@field updated_at string when it last changed
---@field kernel_id string the kernel of a partition image
---@field ramdisk_id string the ramdisk of a partition image
---@field boot_iso string the image of an ISO that boots it

glance = {}

---Tells what Glance knows of an image.
---    glance.image("debian-12").disk_format   --> qcow2
---@param image string an image's id, or a name that only one has
---@return GlanceImage # its record
function glance.image(image) end

---Signs a URL for the data of an image that Glance keeps in Swift.
---    local url = glance.temp_url("deploy-iso", { filename = "boot.iso" })
---@param image string an image's id, or a name that only one has
---@param o? { ttl?: string|number, filename?: string }
---@return Secret # the URL; a run that is resumed gets a fresh one
function glance.temp_url(image, o) end
