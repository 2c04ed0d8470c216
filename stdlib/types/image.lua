---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A file that was built, named by its contents.
---@class Artifact
---@field path string where it is
---@field sha256 string hash of its contents
---@field bytes integer its size

---An OS image that was looked at.
---@class Image
---@field path string where it is
---@field format "raw"|"qcow2" how it is stored
---@field compression "gz"|"xz"|"zst" how the file is compressed as a whole, if it is
---@field kind "partition"|"whole-disk" a file system alone, or a disk with a partition table
---@field virtual_bytes integer size of the disk it describes; of a compressed file it is not known
---@field root_uuid string partition images: UUID of the file system
---@field file_bytes integer size of the file
---@field sha256 string SHA-256 of the file, if that was checked
---@field checksum string what was checked, as `sha512:<hex>`

---A boot ISO that is checked and laid out, and not written.
---@class IsoPlan
---@field bytes integer size of the ISO
---@field kernel string the kernel, as it was given
---@field ramdisk string the initial ramdisk, likewise

---Something that can be fetched.
---@class Source
---@field bytes integer its size, if it is told

image = {}

---Removes an artifact; one that is gone is fine.
---    image.discard(floppy)
---@param artifact Artifact what `make_vfat` or `make_iso` returned
function image.discard(artifact) end

---Brings an OS image here, by way of the cache unless it is a file, and checks it.
---    image.fetch("/srv/images/debian.qcow2").virtual_bytes   --> 2147483648
---@param source string glance://<id or name>, a Glance id, swift:<container>/<object>, http(s)://…, file://…, or a path
---@param o? { checksum?: string, format?: "raw"|"qcow2" }
---@return Image # what `disk.write_…_image` takes
function image.fetch(source, o) end

---Asks whether an image or ISO is there, without fetching it.
---    image.head(node.driver_info.deploy_iso).bytes   --> 41943040
---@param source string glance://<id or name>, a Glance id, swift:<container>/<object>, http(s)://…, file://…, or a path
---@return Source # what is told of it
function image.head(source) end

---Builds a boot ISO from kernel and ramdisk.
---    image.make_iso { kernel = "/boot/vmlinuz", ramdisk = "/boot/initrd.img" }.path
---@param o { kernel: string, ramdisk: string, kernel_checksum?: string, ramdisk_checksum?: string, kernel_params?: string, root_uuid?: string, volume_id?: string, boot?: "bios"|"uefi"|"both" }
---@return Artifact # the image; equal inputs give equal bytes
function image.make_iso(o) end

---Builds a virtual floppy, or a larger key if the files need one.
---    image.make_vfat { parameters = { deployment_id = node.uuid } }.bytes   --> 1474560
---@param o? { parameters?: table<string, string|Secret>, token?: string|Secret, files?: table<string, string|Secret>, paths?: table<string, string>, label?: string }
---@return Artifact # the image
function image.make_vfat(o) end

---Lays out the boot ISO that `make_iso` builds, for `swift.upload` to build while it is sent.
---    swift.upload("c", { name = "boot.iso", iso = image.plan_iso { kernel = k, ramdisk = r } })
---@param o { kernel: string, ramdisk: string, kernel_checksum?: string, ramdisk_checksum?: string, kernel_params?: string, root_uuid?: string, volume_id?: string, boot?: "bios"|"uefi"|"both" }
---@return IsoPlan # what `swift.upload` takes as `iso`
function image.plan_iso(o) end
