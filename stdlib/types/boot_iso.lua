---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A boot ISO that a node held.
---@class ReleasedIso
---@field reference string as `boot_iso.acquire` gave it
---@field usage_count integer how many nodes hold it now
---@field deleted boolean whether the object is gone

---A boot ISO in the object store.
---@class SharedIso
---@field reference string `swift:<container>/<object>`, for `instance_info.boot_iso`
---@field usage_count integer how many nodes hold it
---@field built boolean whether this call built it

boot_iso = {}

---Gives a node the shared boot ISO of its image: found in Swift, else built.
---    boot_iso.acquire(node, { image = i, kernel = k, ramdisk = r, root_uuid = u }).reference
---@param node Node who boots from it
---@param o { kernel: string, ramdisk: string, kernel_checksum?: string, ramdisk_checksum?: string, kernel_params?: string, root_uuid?: string, volume_id?: string, boot?: "bios"|"uefi"|"both", image: string }
---@return SharedIso # the ISO, held until `boot_iso.release`
function boot_iso.acquire(node, o) end

---Takes a node's shared boot ISOs from it, and deletes those that nobody holds then.
---    boot_iso.release(node)
---@param node Node who does not boot from them any more: it is off
---@param o? { except?: string }
---@return (ReleasedIso)[] # what the node held and holds no more
function boot_iso.release(node, o) end
