---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

json = {}

---Reads JSON; null becomes nil.
---    json.decode('{"a":[1,2]}').a[2]   --> 2
---@param text string the JSON text
---@return any # the data
function json.decode(text) end

---Writes data as JSON, keys sorted.
---    json.encode({ b = 1, a = { 2 } })   --> {"a":[2],"b":1}
---@param value any data; an empty table is written as {}
---@param o? { pretty?: boolean }
---@return string # the JSON text
function json.encode(value, o) end
