---@meta
-- Written by `flowrun types`; edits are lost. Types for editors, not run.

---What a server boots; a device that has no name here is absent.
---@class BootDevices
---@field enabled "disabled"|"once"|"continuous" whether `device` overrides the boot order, and for how long
---@field device string what overrides it: one of the devices that can be set, `uefi_shell`, `bios_setup`
---@field persistent string what every boot tries first that is not overridden for that boot alone
---@field pending string what that becomes at the next reset, if it changes then

---How a server starts its boot loader.
---@class BootModes
---@field mode "uefi"|"legacy"|"unknown" now
---@field pending string what it becomes at the next reset, if it changes then

---What overrides the boot order.
---@class BootOverride
---@field enabled "disabled"|"once"|"continuous" for how long
---@field device string what is booted instead

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
---@field power_state "on"|"off"|"powering_on"|"powering_off"|"reset"|"unknown" whether the server is powered
---@field post_state "finished_post"|"power_off"|"reset"|"in_post"|"in_post_discovery_start"|"in_post_discovery_complete"|"unknown" how far its power-on self test is
---@field boot_mode "uefi"|"legacy"|"unknown" how it boots
---@field health string `OK`, `Warning` or `Critical`
---@field media (VmediaDevice)[] what the virtual drives hold; URLs are masked

---What an iLO answers to RIBCL commands; credentials, keys and signatures are masked.
---@class RibclAnswer
---@field message string `No error`, or what the iLO remarks (`Host power is already ON.`)
---@field elements (RibclElement)[] what it brought
---@field text string the XML documents as they came; absent if a secret in them could not be masked

---An element of a RIBCL answer.
---@class RibclElement
---@field name string as the iLO writes it
---@field attributes table<string, string> by name in capitals, entities decoded
---@field text string up to the next tag
---@field children (any)[] the elements in it, of the same shape

---Whether the firmware boots only what is signed. Where the two differ, a reset is due.
---@class SecureBoot
---@field current boolean whether the boot that the server is in was checked
---@field enabled boolean whether boots are checked from the next reset on

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

---Tells what the next boot and every boot are set to.
---    ilo.boot_device(node).persistent   --> disk
---@param node Node the server
---@return BootDevices # what the server boots
function ilo.boot_device(node) end

---Tells whether the server boots by UEFI or BIOS.
---    ilo.boot_mode(node)   --> uefi
---@param node Node the server
---@return "uefi"|"legacy"|"unknown" # how it boots now
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
---@return "finished_post"|"power_off"|"reset"|"in_post"|"in_post_discovery_start"|"in_post_discovery_complete"|"unknown" # how far it is; RIBCL does not tell
function ilo.post_state(node) end

---Tells whether the server is powered.
---    ilo.power_state(node)   --> off
---@param node Node the server
---@return "on"|"off"|"powering_on"|"powering_off"|"reset"|"unknown" # what it is now
function ilo.power_state(node) end

---Sends a Redfish or REST request of your own, for quirks.
---    ilo.request(node, { path = "/redfish/v1/Systems/1/" }).SKU   --> P28948-B21
---@param node Node the server
---@param o { path: string, method?: "GET"|"POST"|"PATCH"|"PUT"|"DELETE", body?: any, timeout?: string|number }
---@return any # the answer's JSON; credentials and signatures are masked
function ilo.request(node, o) end

---Runs RIBCL commands of your own on an iLO 3 to 5, for quirks.
---    local xml = '<SERVER_INFO MODE="read"><GET_HOST_POWER_STATUS/></SERVER_INFO>'
---    ilo.ribcl(node, { xml = xml }).elements[1].attributes.HOST_POWER   --> ON
---@param node Node the server
---@param o { xml: string|Secret, timeout?: string|number }
---@return RibclAnswer # what the iLO answered
function ilo.ribcl(node, o) end

---Tells whether the server boots only what is signed.
---    ilo.secure_boot(node).enabled   --> false
---@param node Node the server
---@return SecureBoot # what holds now and what will
function ilo.secure_boot(node) end

---Sets the device that every boot tries first; the server must not be in POST.
---    ilo.set_boot_device(node, { device = "disk" }).persistent   --> disk
---@param node Node the server
---@param o { device: "cdrom"|"disk"|"usb"|"pxe"|"uefi_http", timeout?: string|number }
---@return BootDevices # as the iLO shows it. Kept as an override (`continuous`) it takes the place of a one-time boot, and a one-time boot its place; else it is the boot order, which changes at the next reset: `pending` says so. Over RIBCL, which does not show an order before it holds, `pending` is what the iLO took
function ilo.set_boot_device(node, o) end

---Makes the server boot by UEFI or BIOS from the next reset on.
---    ilo.set_boot_mode(node, { mode = "uefi" }).pending   --> uefi
---@param node Node the server
---@param o { mode: "uefi"|"legacy", timeout?: string|number }
---@return BootModes # what holds now and what will
function ilo.set_boot_mode(node, o) end

---Sets the device of the next boot only; the server must not be in POST.
---    ilo.set_one_time_boot(node, { device = "cdrom" })
---@param node Node the server
---@param o { device: "cdrom"|"disk"|"usb"|"pxe"|"uefi_http", timeout?: string|number }
---@return BootOverride # as the iLO shows it
function ilo.set_one_time_boot(node, o) end

---Switches or restarts the server and waits until the iLO shows that it happened.
---    ilo.set_power(node, { state = "force_off" })   --> off
---@param node Node the server
---@param o { state: "on"|"off"|"force_off"|"reset"|"restart"|"cold_boot", timeout?: string|number }
---@return "on"|"off"|"powering_on"|"powering_off"|"reset"|"unknown" # the power state now. After a restart POST has only begun; over RIBCL, which does not tell POST, the iLO's word is all that was seen
function ilo.set_power(node, o) end

---Switches secure boot on or off from the next reset on.
---    ilo.set_secure_boot(node, { enabled = true }).current   --> false
---@param node Node the server
---@param o { enabled: boolean, timeout?: string|number }
---@return SecureBoot # what holds now and what will
function ilo.set_secure_boot(node, o) end

---Tells what the virtual drives hold.
---    ilo.vmedia_status(node)[1].inserted   --> false
---@param node Node the server
---@return (VmediaDevice)[] # one entry a drive; URLs are masked
function ilo.vmedia_status(node) end
