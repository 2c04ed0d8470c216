---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

http = {}

---Sends a request to a host of [http] allow.
---    http.request { url = "https://cmdb.example/nodes/7" }.json.rack   --> B12
---@param o { url: string, method?: "GET"|"POST"|"PUT"|"PATCH"|"DELETE", headers?: table<string, string|Secret>, bearer?: string|Secret, json?: any, body?: string|Secret, timeout?: string|number, ok?: (integer)[] }
---@return any # `status`, `body`, and `json` if the answer is JSON
function http.request(o) end
