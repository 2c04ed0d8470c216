---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---An OS image that was looked at.
---@class Image
---@field path string where it is
---@field format "raw"|"qcow2" how it is stored
---@field virtual_bytes integer size of the disk it describes
---@field file_bytes integer size of the file
---@field sha256 string SHA-256 of the file, if that was checked
---@field checksum string what was checked, as `sha512:<hex>`

---What was written to a disk.
---@class Written
---@field virtual_bytes integer size of the image
---@field data_bytes integer bytes that were sent
---@field zero_bytes integer bytes that the disk was told to zero
---@field seconds any how long it took, flush included
---@field digest string names the contents
---@field manifest string what `disk.verify` compares the disk with

disk = {}

---Reads a disk's partition table.
---    disk.read_partitions(lun).label   --> gpt
---@param lun Session as `iscsi.login` returns it
---@return any # `label`, `disk_identifier`, `boot_signature`, `partitions`
function disk.read_partitions(lun) end

---Reads the disk back and compares every byte.
---    disk.verify(lun, { written = written }).bytes   --> 67108864
---@param lun Session as `iscsi.login` returns it
---@param o { written: Written }
---@return any # `bytes` that were compared, `pieces` and the `digest` they make
function disk.verify(lun, o) end

---Writes an image from sector 0, holes as zeros, and flushes.
---    disk.write_whole_disk_image(lun, { image = img }).data_bytes   --> 67108864
---@param lun Session as `iscsi.login` returns it
---@param o { image: Image }
---@return Written # what was written
function disk.write_whole_disk_image(lun, o) end
