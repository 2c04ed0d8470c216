---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

inventory = {}

---Tells a node as it is now, what runs learned included.
---    inventory.node(node).provision_state   --> active
---@param node Node the server
---@return any # as the `node` that actions get
function inventory.node(node) end

---Keeps what a run learned of its node; from the next run on it overlays flowrun.toml.
---    inventory.update(node, { provision_state = "active" })
---@param node Node the server
---@param o? { provision_state?: string, last_error?: string, instance_info?: table<string, any>, driver_internal_info?: table<string, any>, forget?: (string)[] }
function inventory.update(node, o) end
