---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

log = {}

---Adds a line to the run's log.
---    log.info("%s has %d disks", node.name, 2)   --> lab-1 has 2 disks
---@param text string the line; a format if more arguments follow
---@param ... any formatted into the text
function log.info(text, ...) end

---Adds a warning to the run's log.
---    log.info("%s has %d disks", node.name, 2)   --> lab-1 has 2 disks
---@param text string the line; a format if more arguments follow
---@param ... any formatted into the text
function log.warn(text, ...) end
