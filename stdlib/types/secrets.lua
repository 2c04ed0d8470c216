---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

secrets = {}

---Gives a secret that flowrun.toml names.
---    http.request { url = url, bearer = secrets.get("cmdb") }
---@param name string a name in [secrets]
---@return Secret # it can be passed to a primitive, not read
function secrets.get(name) end
