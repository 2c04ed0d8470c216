-- Capabilities of a node (`boot_mode:uefi,boot_option:local`), in Ironic's text or as a table.

local function named(capabilities, name)
  if type(capabilities) == "table" then return capabilities[name] end
  if type(capabilities) ~= "string" then return nil end
  for key, value in capabilities:gmatch("([%w_]+):([^,%s]+)") do
    if key == name then return value end
  end
end

-- What the instance asks for, else what the node has.
return function(node, name)
  return named(node.instance_info.capabilities, name) or named(node.properties.capabilities, name)
end
