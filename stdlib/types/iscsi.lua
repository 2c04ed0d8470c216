---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---What a target tells of its disk.
---@class IscsiDisk
---@field bytes integer its size
---@field block_bytes integer size of a block
---@field vendor string who made it, padded with spaces
---@field product string its model, padded likewise
---@field serial string its serial number, if it tells one
---@field unmap_zeroes boolean whether unmapped blocks read as zeros
---@field reserved boolean whether the target keeps other writers off

---A disk that a ramdisk exports.
---@class Target
---@field address string the node's address
---@field port integer of its iSCSI portal
---@field iqn string name of the target
---@field lun integer number of the disk
---@field initiator string the name we log in with; the fence is added to it
---@field chap_user string CHAP name
---@field chap_secret string|Secret CHAP secret

iscsi = {}

---Asks a portal for its targets.
---    iscsi.discover(target)[1]   --> iqn.2008-10.org.openstack:1be26c0b-…
---@param target Target as `ramdisk.wait` returns it
---@param o? { timeout?: string|number }
---@return (string)[] # their iqns
function iscsi.discover(target, o) end

---Waits until all writes are on the medium.
---    iscsi.flush(lun)
---@param lun Session as `iscsi.login` returns it
function iscsi.flush(lun) end

---Tells what the disk is.
---    iscsi.info(lun).bytes   --> 4294967296
---@param lun Session as `iscsi.login` returns it
---@return IscsiDisk # the disk behind the session
function iscsi.info(lun) end

---Opens a session with a disk, and reserves it for the run where the target can.
---    local lun = iscsi.login(target)
---@param target Target as `ramdisk.wait` returns it
---@param o? { timeout?: string|number, digests?: "none"|"preferred"|"required" }
---@return Session # the session; it is closed when the run ends
function iscsi.login(target, o) end

---Closes a session; a closed one is fine.
---    iscsi.logout(lun)
---@param lun Session as `iscsi.login` returns it
function iscsi.logout(lun) end

---Reads blocks; for looks at labels and tables, not for images.
---    iscsi.read(lun, { lba = 0 }):sub(-4)   --> 55aa
---@param lun Session as `iscsi.login` returns it
---@param o { lba: integer, blocks?: integer }
---@return string # the bytes in hex
function iscsi.read(lun, o) end

---Writes blocks; for labels and tables, not for images.
---    iscsi.write(lun, { lba = 0, hex = ("00"):rep(512) })
---@param lun Session as `iscsi.login` returns it
---@param o { lba: integer, hex: string }
function iscsi.write(lun, o) end
