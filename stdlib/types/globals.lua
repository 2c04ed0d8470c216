---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---Tells the time; a replay sees the same one.
---    log.info("it is %d", now())   --> it is 1795489446
---@return integer # seconds since 1970-01-01 UTC
function now() end

---Waits; a run that is resumed waits what is left.
---    sleep("3s")
---@param duration string|number how long
function sleep(duration) end
