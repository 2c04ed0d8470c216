-- Deploys an image to an HPE ProLiant server: boots a deploy ramdisk over iLO virtual media,
-- writes the image to the disk that the ramdisk exports over iSCSI, and boots the result.
local vmedia_boot, iscsi_deploy = require "vmedia_boot", require "iscsi_deploy"
local instance_boot, power = require "instance_boot", require "power"
local boot_mode, validation = require "boot_mode", require "validation"

local function validate(ctx, node, p)
  if ctx.action == "deploy" or ctx.action == "rebuild" or ctx.action == "validate" then
    validation.check(node, ctx.action == "rebuild" and p.preserve_ephemeral)
  end
end

-- A deployment that fails ends so, last line first, each attempted whatever becomes of the others.
local function on_failure(node)
  undo(function() step("release boot ISO", function() boot_iso.release(node) end) end)
  undo(function() step("clean up media", function() vmedia_boot.cleanup(node) end) end)
  undo(function() step("power off", function() power.off(node) end) end) -- before media go
  undo(function(cause)
    inventory.update(node, {
      provision_state = "deploy failed",
      last_error = tostring(cause),
      forget = { "instance_info.boot_iso" },
    })
  end)
end

local function deploy(_, node, p, preserve_ephemeral)
  local img = step("fetch image", function() return iscsi_deploy.cache_instance_image(node) end)

  local expected = step("boot deploy ramdisk", function()
    on_failure(node)
    inventory.update(node, { provision_state = "deploying", forget = { "last_error" } })
    power.off(node)
    boot_mode.prepare(node)
    local server = ilo.info(node)
    local expected = ramdisk.expect(node, { -- key, iqn, CHAP secret, callback URL
      serial = server.serial, uuid = server.uuid,
    })
    vmedia_boot.setup(node, vmedia_boot.deploy_iso(node), expected)
    power.on(node)
    return expected
  end, { timeout = "15m" })

  local target = step("wait for ramdisk", function()
    inventory.update(node, { provision_state = "wait call-back" })
    return ramdisk.wait(expected, { timeout = p.callback_timeout })
  end)

  local written = step("write image", function()
    inventory.update(node, { provision_state = "deploying" })
    return iscsi_deploy.continue_deploy(node, target, img, preserve_ephemeral)
  end, { timeout = "90m" })

  local iso = step("boot instance", function()
    vmedia_boot.cleanup(node)
    local iso = instance_boot.prepare(node, img, written) -- the disk, or the boot ISO
    if not ramdisk.done(target) then
      log.warn("the ramdisk did not listen on port 10000; the data is verified, so reset")
      power.reset(node)
    end
    return iso
  end, { timeout = "20m" })

  local booted = step("wait for instance", function()
    return instance_boot.wait(node)
  end, { timeout = "20m" })

  step("record", function()
    local info = node.instance_info
    inventory.update(node, {
      provision_state = "active",
      forget = { "instance_info.boot_iso" }, -- unless there is a new one
      instance_info = { boot_iso = iso },
      driver_internal_info = { instance = {
        image_source = info.image_source,
        root_gb = info.root_gb, swap_mb = info.swap_mb, ephemeral_gb = info.ephemeral_gb,
      } },
    })
    -- What an earlier deployment booted from; a server that runs is not given up for it.
    local _, err = try(boot_iso.release, node, { except = iso })
    if err then log.warn("an earlier boot ISO is still held: %s", err) end
  end)
  return {
    image = img, target = target.address, written = written, booted = booted, boot_iso = iso,
  }
end

-- Deploys anew what was deployed; the ephemeral partition may stay.
local function rebuild(ctx, node, p)
  local state = node.provision_state
  if state ~= "active" and state ~= "deploy failed" then
    fail("conflict", node.name .. " is not deployed: it is " .. (state or "available"),
      "`deploy` it")
  end
  return deploy(ctx, node, p, p.preserve_ephemeral)
end

-- Releases what the deployed system booted from; the server is off by then.
local function clean_up(_, node)
  step("clean up", function()
    if ilo.power_state(node) ~= "off" then
      fail("conflict", node.name .. " is on, and may run from what would be taken away",
        "`tear_down` switches it off first")
    end
    vmedia_boot.cleanup(node)
    boot_iso.release(node) -- usage_count minus one; deleted at none
    inventory.update(node, { forget = { "instance_info.boot_iso" } })
  end)
end

local function tear_down(ctx, node, p)
  undo(function(cause)
    inventory.update(node, { provision_state = "error", last_error = tostring(cause) })
  end)
  step("power off", function()
    inventory.update(node, { provision_state = "deleting" })
    power.off(node)
  end)
  clean_up(ctx, node, p)
  inventory.update(node, {
    provision_state = "available",
    forget = { "last_error", "driver_internal_info.instance" },
  })
end

local function reboot(_, node, p)
  return step("reboot", function() return power.reboot(node, p.power) end, { timeout = "15m" })
end

-- Off, and in the boot mode that the node wants. Nothing where a system runs.
local function prepare(_, node)
  if node.provision_state == "active" then
    log.info("%s is active: nothing to prepare", node.name)
    return
  end
  step("prepare", function()
    power.off(node)
    boot_mode.prepare(node)
  end)
end

-- A run is taken over with its journal, by `flowrun resume`: the node has nothing else to move.
local function take_over(_, node)
  log.info("%s is %s: nothing to take over", node.name, node.provision_state or "available")
end

return flow {
  name = "ilo_vmedia_iscsi",
  summary = "Deploy an image over iLO virtual media and iSCSI",
  api = ">= 0.1",
  timeout = "3h",

  params = {
    callback_timeout = {
      type = "duration", default = "30m",
      help = "how long the deploy ramdisk may take to boot and call",
    },
    preserve_ephemeral = {
      type = "boolean", default = false,
      help = "rebuild: keep partitions and the ephemeral file system",
    },
    power = {
      type = "enum", values = { "on", "reset", "restart", "cold_boot" },
      help = "reboot: how; else on if the server is off, reset if it is on",
    },
  },

  validate = validate,
  destroys = function(node, _, action)
    if action ~= "deploy" and action ~= "rebuild" then return {} end
    local before = (node.driver_internal_info or {}).instance
    return { "everything on the root disk of " .. node.name
      .. (before and ", which has " .. before.image_source:match("^[^?]*") or "") }
  end,

  actions = {
    validate = function() end, -- what is wrong was told before
    deploy = deploy,
    tear_down = tear_down,
    clean_up = clean_up,
    reboot = reboot,
    rebuild = rebuild,
    prepare = prepare,
    take_over = take_over,
  },
}
