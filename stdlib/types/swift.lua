---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A boot ISO that is checked and laid out, and not written.
---@class IsoPlan
---@field bytes integer size of the ISO
---@field kernel string the kernel, as it was given
---@field ramdisk string the initial ramdisk, likewise

---What is known of an object.
---@class ObjectInfo
---@field bytes integer its size
---@field etag string MD5 of its bytes, unless it is segmented
---@field content_type string its media type
---@field delete_at integer Unix seconds when it vanishes, if it does

---An object as the store has it.
---@class Uploaded
---@field etag string MD5 of the bytes, confirmed by the store; of the segments' MD5s if there are such
---@field bytes integer its size

swift = {}

---Deletes an object.
---    swift.delete("c", { name = "x" })   --> true
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string }
---@return boolean # false if there was none
function swift.delete(container, o) end

---Downloads an object to a file, whole or not at all.
---    swift.download("c", { name = "x", file = "/tmp/x" })   --> 1474560
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string, file: string }
---@return integer # its size in bytes
function swift.download(container, o) end

---Tells what is known of an object.
---    swift.head("c", { name = "x" })   --> nil
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string }
---@return ObjectInfo # nil if there is no such object
function swift.head(container, o) end

---Lists the objects of a container.
---    #swift.list("c", { prefix = "boot-" })   --> 3
---@param container string the container
---@param o? { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, prefix?: string, limit?: integer }
---@return (string)[] # names in order
function swift.list(container, o) end

---Changes an object's metadata; other names and the expiry stay.
---    swift.set_metadata("c", { name = "x", metadata = { usage_count = "2" } })
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string, metadata: table<string, string> }
function swift.set_metadata(container, o) end

---Signs a URL that reads the object until it expires; one in segments by the account's key.
---    local url = swift.temp_url("c", { name = "floppy", ttl = "15m" })
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string, ttl?: string|number, filename?: string }
---@return Secret # the URL; a run that is resumed gets a fresh one
function swift.temp_url(container, o) end

---Uploads a file, text or boot ISO; the store confirms its MD5.
---    swift.upload("c", { name = "floppy", file = vfat.path, delete_after = "10m" })
---@param container string the container
---@param o { user?: string, tenant?: string, key?: string|Secret, auth_url?: string, name: string, file?: string, text?: string|Secret, iso?: IsoPlan, delete_after?: string|number, metadata?: table<string, string>, content_type?: string, create_container?: boolean, read_acl?: string, segment_size?: string|number, checked?: boolean }
---@return Uploaded # what the store has now
function swift.upload(container, o) end
