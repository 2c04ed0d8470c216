---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---A ramdisk that may call.
---@class Expected
---@field parameters table<string, string|Secret> for the floppy's `parameters.txt`
---@field token string|Secret for the floppy's `token`; the ramdisk sends it back
---@field files table<string, string|Secret> further files for the floppy: the CA to trust
---@field iqn string name of the target that it will export
---@field initiator string who may log in
---@field chap_user string CHAP name
---@field chap_secret string|Secret CHAP secret

---A disk that a ramdisk exports.
---@class Target
---@field address string the node's address
---@field port integer of its iSCSI portal
---@field iqn string name of the target
---@field lun integer number of the disk
---@field initiator string the name we log in with; the fence is added to it
---@field chap_user string CHAP name
---@field chap_secret string|Secret CHAP secret

ramdisk = {}

---Asks the address at which deploy ramdisks call whether somebody listens.
---    ramdisk.check_api(node)   --> https://deploy.example:6385
---@param node Node the server that will call
---@return string # [api] public_url
function ramdisk.check_api(node) end

---Tells the ramdisk to reboot the server.
---    ramdisk.done(target)   --> true
---@param target Target as `ramdisk.wait` returns it
---@param o? { timeout?: string|number }
---@return boolean # false if nobody listened on port 10000 until then
function ramdisk.done(target, o) end

---Makes the key, names and secrets for one deploy ramdisk and lets its call in.
---    local server = ilo.info(node)
---    local expected = ramdisk.expect(node, { serial = server.serial, uuid = server.uuid })
---@param node Node the server that will boot it
---@param o? { serial?: string, uuid?: string }
---@return Expected # what goes on the floppy; the secrets are stored nowhere
function ramdisk.expect(node, o) end

---Waits for the ramdisk's call.
---    local target = ramdisk.wait(expected, { timeout = "15m" })
---@param expected Expected as `ramdisk.expect` returns it
---@param o? { timeout?: string|number }
---@return Target # the disk that it exports
function ramdisk.wait(expected, o) end
