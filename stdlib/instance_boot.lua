-- Booting what was deployed.
local instance_boot = {}

-- A whole-disk image brings its own boot loader: with the media gone and no one-time boot left,
-- the server boots its disk.
function instance_boot.prepare(node, written)
  if written.layout.label == "none" then
    fail("invalid", "the image has no partition table: no firmware boots it",
      "deploy a whole-disk image")
  end
  ilo.set_one_time_boot(node, { device = "disk" })
end

-- Waits until the server went through POST again and left it.
function instance_boot.wait(node)
  retry({ times = 300, delay = "1s", factor = 1.05, max = "5s", on = { "conflict" } }, function()
    local post = ilo.post_state(node)
    if post ~= "finished_post" then
      fail("conflict", node.name .. " has not finished its self test: " .. post,
        "look at the server's console")
    end
  end)
  return { post_state = "finished_post", power_state = ilo.power_state(node) }
end

return instance_boot
