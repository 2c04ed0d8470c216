---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

hash = {}

---Hashes a text with SHA-256.
---    hash.sha256("abc")   --> ba7816bf8f01cfea414140de5dae2223…
---@param text string the text, as UTF-8
---@return string # 64 hex digits
function hash.sha256(text) end
