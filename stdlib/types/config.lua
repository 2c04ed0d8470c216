---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

config = {}

---Reads an option of flowrun.toml.
---    config.get("deploy_helper_images_ttl")   --> 10m
---@param name string `swift_ilo_container` or `deploy_helper_images_ttl`
---@return any # its value, the default if it is not configured
function config.get(name) end
