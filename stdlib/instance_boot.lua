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

-- Waits until the server has booted again; the step around bounds it. That POST is finished proves
-- nothing, it was while the ramdisk ran: the firmware uses the one-time boot up when it boots.
function instance_boot.wait(node)
  while ilo.boot_device(node).enabled == "once" do
    sleep("2s")
  end
  local post = ilo.post_state(node)
  while post ~= "finished_post" and post ~= "unknown" do -- RIBCL does not tell the POST
    sleep("2s")
    post = ilo.post_state(node)
  end
  return { post_state = post, power_state = ilo.power_state(node) }
end

return instance_boot
