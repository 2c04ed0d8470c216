---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A disk's partition table.
---@class DiskLayout
---@field label "gpt"|"msdos"|"none" its kind
---@field disk_identifier string GPT: disk GUID; msdos: the four bytes at 440 as `0x…`
---@field boot_signature boolean whether sector 0 ends with 55 AA
---@field partitions (any)[] in the order of the table

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

---What a disk was compared with.
---@class Verified
---@field bytes integer how many were compared
---@field pieces integer in how many pieces
---@field read_back boolean whether the bytes were fetched for it; false if the ramdisk hashed what its disk holds

---What was written to a disk.
---@class Written
---@field virtual_bytes integer size of the image
---@field data_bytes integer bytes that were sent
---@field zero_bytes integer bytes that are zero now
---@field resumed_bytes integer bytes that an attempt before had written, found in place
---@field seconds any how long it took, flush included
---@field disk_identifier string GPT: disk GUID; msdos: signature; empty without a table
---@field root_uuid string partition images: what `root=UUID=` needs, if the image has one
---@field efi_system_uuid string partition images: serial number of the EFI system partition, if there is one
---@field partitions any partition images: `role`, `number`, `offset`, `bytes` of each
---@field manifest string what `disk.verify` compares the disk with

disk = {}

---Reads a disk's partition table.
---    disk.read_partitions(lun).label   --> gpt
---@param lun Session as `iscsi.login` returns it
---@return DiskLayout # the table, `none` where there is none
function disk.read_partitions(lun) end

---Has the ramdisk hash every byte of what was written, or reads it back where it cannot.
---    disk.verify(lun, { written = written }).bytes   --> 67108864
---@param lun Session as `iscsi.login` returns it
---@param o { written: Written }
---@return Verified # what was compared
function disk.verify(lun, o) end

---Partitions a disk, writes an image into the root partition, and flushes.
---    disk.write_partition_image(lun, { image = img, root_gb = 20 }).root_uuid
---@param lun Session as `iscsi.login` returns it
---@param o { image: Image, configdrive?: string, disk_is_zero?: boolean, root_gb: integer, swap_mb?: integer, ephemeral_gb?: integer, ephemeral_format?: "ext4"|"xfs"|"vfat", preserve_ephemeral?: boolean, boot_mode?: "bios"|"uefi", boot_option?: "local"|"netboot", disk_label?: "gpt"|"msdos" }
---@return Written # what was written
function disk.write_partition_image(lun, o) end

---Writes an image from sector 0, holes as zeros, wipes old tables at the end; flushes.
---    disk.write_whole_disk_image(lun, { image = img }).data_bytes   --> 67108864
---@param lun Session as `iscsi.login` returns it
---@param o { image: Image, configdrive?: string, disk_is_zero?: boolean, fit_gpt?: boolean }
---@return Written # what was written
function disk.write_whole_disk_image(lun, o) end
