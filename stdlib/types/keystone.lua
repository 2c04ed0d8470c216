---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

keystone = {}

---Gives a Keystone token for a ramdisk that talks to OpenStack itself. It is the token of the account under [keystone.ramdisk]; without that section, of the configured user. Configure one: whoever reads the floppy can do what its token allows, for as long as Keystone lets tokens live, and a callback needs no role at all. Our own ramdisk needs neither: the token of `ramdisk.expect` opens only the callback of one run.
---    image.make_vfat { parameters = p, token = keystone.token{} }
---@return Secret # for `image.make_vfat { token = … }`; a run that is resumed gets a fresh one
function keystone.token() end
