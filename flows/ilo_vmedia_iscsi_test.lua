-- Tests of the stock flow, on a simulated site: flowrun test flows/ilo_vmedia_iscsi_test.lua

-- What has to hold when a deploy did not come to its end.
local function nothing_is_left(t, run)
  local machine = run.site.nodes[1].machine
  t.equal(machine.power, "off")
  for _, medium in ipairs(machine.media) do
    t.equal(medium.inserted, false, medium.device .. " inserted")
  end
  t.equal(run.site.object_store.objects, 1, "objects besides the deploy ISO")
end

test("deploys an image and boots it", function(t)
  local run = t.run { action = "deploy" }
  t.equal(run.status, "done", run.error)
  t.in_order(run.calls, "ramdisk.expect", "ilo.attach_vmedia", "ramdisk.wait", "iscsi.login",
    "disk.write_whole_disk_image", "disk.verify", "ramdisk.done")
  t.equal(run.result.booted.power_state, "on")
  t.contains(run.log, "bytes written and hashed by the ramdisk")
end)

test("gives a ramdisk up that never calls, and cleans up", function(t)
  local run = t.run {
    faults = { "node.ramdisk=silent" },
    params = { callback_timeout = "2s" },
  }
  t.equal(run.status, "failed")
  t.equal(run.error.kind, "timeout")
  t.equal(run.error.op, "ramdisk.wait")
  nothing_is_left(t, run)
end)

test("goes on where it was after a crash in the middle of writing", function(t)
  local run = t.run { crash_at = "disk.write_whole_disk_image#1" }
  t.equal(run.status, "done", run.error)
  t.contains(run.log, "resumed")
end)

test("leaves nothing behind when it is cancelled", function(t)
  local run = t.run { cancel_at = "iscsi.login#1" }
  t.equal(run.status, "cancelled")
  nothing_is_left(t, run)
end)
