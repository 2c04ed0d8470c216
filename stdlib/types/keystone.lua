---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

keystone = {}

---Gives a token of [keystone.ramdisk], or without that section of the configured user.
---    image.make_vfat { parameters = p, token = keystone.token{} }
---@return Secret # for a floppy: who reads it can do what the token may, so configure a ramdisk account
function keystone.token() end
