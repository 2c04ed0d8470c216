---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---What an iLO tells about itself and its server.
---@class IloInfo
---@field generation integer 5 for iLO 5
---@field dialect "redfish"|"rest"|"ribcl" what is spoken with it
---@field firmware string its version
---@field model string the server's product name
---@field serial string the server's serial number
---@field uuid string the server's UUID
---@field bios_version string version of the system ROM
---@field license string the iLO licence
---@field power_state string `on`, `off`, `powering_on`, …
---@field post_state string `power_off`, `in_post`, `finished_post`, …
---@field boot_mode string `uefi` or `legacy`
---@field health string `OK`, `Warning` or `Critical`
---@field media (VmediaDevice)[] what the virtual drives hold; URLs are masked

---A virtual drive.
---@class VmediaDevice
---@field device "cdrom"|"floppy" which drive
---@field inserted boolean whether it holds a medium
---@field connected_via string `uri`, `applet` (a console user), `not_connected`

ilo = {}

---Inserts an image by URL and waits until the iLO shows exactly that image.
---    ilo.attach_vmedia(node, { device = "cdrom", url = url }).inserted   --> true
---@param node Node the server
---@param o { device: "cdrom"|"floppy", url: string|Secret, timeout?: string|number }
---@return VmediaDevice # the drive as the iLO reports it
function ilo.attach_vmedia(node, o) end

---Tells what the next boot is set to.
---    ilo.boot_device(node).device   --> cdrom
---@param node Node the server
---@return any # `enabled` (`disabled`, `once`, `continuous`) and `device`
function ilo.boot_device(node) end

---Tells whether the server boots by UEFI or BIOS.
---    ilo.boot_mode(node)   --> uefi
---@param node Node the server
---@return string # `uefi`, `legacy` or `unknown`
function ilo.boot_mode(node) end

---Checks that the iLO's licence allows media by URL.
---    ilo.check_vmedia_license(node)   --> iLO Advanced
---@param node Node the server
---@return string # the licence's name
function ilo.check_vmedia_license(node) end

---Empties a virtual drive; an empty one is fine.
---    ilo.eject_vmedia(node, { device = "floppy" })
---@param node Node the server
---@param o { device: "cdrom"|"floppy", timeout?: string|number }
function ilo.eject_vmedia(node, o) end

---Tells generation, firmware, model, power and health.
---    log.info(ilo.info(node).model)   --> ProLiant DL360 Gen10 Plus
---@param node Node the server
---@return IloInfo # what the iLO reports
function ilo.info(node) end

---Tells how far the power-on self test is.
---    ilo.post_state(node)   --> finished_post
---@param node Node the server
---@return string # `power_off`, `in_post`, `finished_post`, …
function ilo.post_state(node) end

---Tells whether the server is powered.
---    ilo.power_state(node)   --> off
---@param node Node the server
---@return string # `on`, `off`, `powering_on`, `powering_off`, `reset`, `unknown`
function ilo.power_state(node) end

---Sends a Redfish request of your own, for quirks.
---    ilo.request(node, { path = "/redfish/v1/Systems/1/" }).SKU   --> P28948-B21
---@param node Node the server
---@param o { path: string, method?: "GET"|"POST"|"PATCH"|"DELETE", body?: any, timeout?: string|number }
---@return any # the answer's JSON; credentials and signatures are masked
function ilo.request(node, o) end

---Sets the device of the next boot only; the server must not be in POST.
---    ilo.set_one_time_boot(node, { device = "cdrom" })
---@param node Node the server
---@param o { device: "cdrom"|"disk"|"usb"|"pxe", timeout?: string|number }
function ilo.set_one_time_boot(node, o) end

---Switches the server and waits until the iLO reports the new state.
---    ilo.set_power(node, { state = "off" })   --> off
---@param node Node the server
---@param o { state: "on"|"off"|"soft_off"|"reset", timeout?: string|number }
---@return string # the power state now
function ilo.set_power(node, o) end

---Tells what the virtual drives hold.
---    ilo.vmedia_status(node)[1].inserted   --> false
---@param node Node the server
---@return (VmediaDevice)[] # one entry a drive; URLs are masked
function ilo.vmedia_status(node) end
