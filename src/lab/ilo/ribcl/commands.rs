//! The commands of RIBCL scripts (HP iLO 4 Scripting and Command Line Guide).

use super::super::Machine;
use super::super::drives::BootOption;
use super::super::fault::Fault;
use super::super::generation::Uefi;
use super::super::power::PowerAction;
use super::super::refusal::Refusal;
use super::super::state::State;
use super::reply::{Status, quoted, unquoted};
use super::request::Element;
use crate::ilo::model::{BootMode, Device, PowerState};
use serde_json::{Map, Value};

/// A status, and what the document shows beside it.
type Answer = Result<(Status, String), Status>;

/// The health document of a Gen7 server.
const HEALTH: &str = include_str!("../data/ilo4/embedded_health.xml");

/// Names of the boot devices in RIBCL and Redfish.
const ONE_TIME: [(&str, &str); 7] = [
    ("NORMAL", "None"),
    ("FLOPPY", "Usb"),
    ("CDROM", "Cd"),
    ("HDD", "Hdd"),
    ("USB", "Usb"),
    ("RBSU", "BiosSetup"),
    ("NETWORK", "Pxe"),
];

/// What BIOS machines call the boot sources, by how their names begin.
const LEGACY: [(&str, &str); 5] = [
    ("CDROM", "CD."),
    ("FLOPPY", "FD."),
    ("USB", "Generic.USB"),
    ("HDD", "HD."),
    ("NETWORK", "NIC."),
];

fn done() -> Answer {
    Ok((Status::ok(), String::new()))
}

fn shown(payload: String) -> Answer {
    Ok((Status::ok(), payload))
}

fn said(message: &str) -> Answer {
    Ok((Status::new(0, message), String::new()))
}

fn answer(done: Result<(), Refusal>) -> Answer {
    done.map(|()| (Status::ok(), String::new()))
        .map_err(|refusal| Status::refused(&refusal))
}

impl Machine {
    /// Runs one command of a block.
    pub(super) fn command(&self, block: &str, is_writing: bool, command: &Element) -> Answer {
        let name = command.name.as_str();
        if let Some(answer) = self.reading_command(block, command) {
            return answer;
        }
        let change: Option<fn(&Self, &Element) -> Answer> = match (block, name) {
            ("RIB_INFO", "INSERT_VIRTUAL_MEDIA") => Some(Self::insert_virtual_media),
            ("RIB_INFO", "EJECT_VIRTUAL_MEDIA") => Some(Self::eject_virtual_media),
            ("RIB_INFO", "SET_VM_STATUS") => Some(Self::set_vm_status),
            ("RIB_INFO", "RESET_RIB") => Some(Self::reset_rib),
            ("SERVER_INFO", "SET_ONE_TIME_BOOT") => Some(Self::set_one_time_boot),
            ("SERVER_INFO", "SET_PERSISTENT_BOOT") => Some(Self::set_persistent_boot),
            ("SERVER_INFO", "SET_PENDING_BOOT_MODE") => Some(Self::set_pending_boot_mode),
            (
                "SERVER_INFO",
                "SET_HOST_POWER" | "PRESS_PWR_BTN" | "HOLD_PWR_BTN" | "RESET_SERVER"
                | "COLD_BOOT_SERVER" | "WARM_BOOT_SERVER",
            ) => Some(Self::power_command),
            _ => None,
        };
        let change = change.ok_or_else(|| Status::syntax_error(1, name))?;
        if !is_writing {
            let what = match block {
                "SERVER_INFO" => "Server information",
                _ => "RIB information",
            };
            return Err(Status::undocumented(format!(
                "{what} is open for read-only access. Write access is required for this operation."
            )));
        }
        if self.shared.state().has(Fault::PrivilegesMissing) {
            return Err(Status::no_privilege(block, name));
        }
        change(self, command)
    }

    fn reading_command(&self, block: &str, command: &Element) -> Option<Answer> {
        Some(match (block, command.name.as_str()) {
            ("SERVER_INFO", "GET_HOST_POWER_STATUS") => {
                let on = self.shared.state().shown_power() != PowerState::Off;
                let power = if on { "ON" } else { "OFF" };
                shown(format!(
                    "<GET_HOST_POWER\n    HOST_POWER=\"{power}\"\n    />\n"
                ))
            }
            ("SERVER_INFO", "GET_PRODUCT_NAME") => shown(format!(
                "  <GET_PRODUCT_NAME>\n    <PRODUCT_NAME VALUE =\"{}\"/>\n  </GET_PRODUCT_NAME>\n",
                self.traits().product
            )),
            ("SERVER_INFO", "GET_EMBEDDED_HEALTH") => shown(HEALTH.to_owned()),
            ("SERVER_INFO", "GET_ONE_TIME_BOOT") => shown(one_time_boot(&self.shared.state())),
            ("SERVER_INFO", "GET_PERSISTENT_BOOT") => shown(persistent_boot(&self.shared.state())),
            (
                "SERVER_INFO",
                "GET_CURRENT_BOOT_MODE" | "GET_PENDING_BOOT_MODE" | "GET_SUPPORTED_BOOT_MODE",
            ) => self.boot_mode_command(&command.name),
            ("SERVER_INFO", "GET_EVENT_LOG") => shown(
                "<EVENT_LOG DESCRIPTION=\"Integrated Management Log\">\n</EVENT_LOG>\n".to_owned(),
            ),
            ("RIB_INFO", "GET_EVENT_LOG") => {
                shown("<EVENT_LOG DESCRIPTION=\"iLO Event Log\">\n</EVENT_LOG>\n".to_owned())
            }
            ("RIB_INFO", "GET_FW_VERSION") => shown(self.firmware_version()),
            ("RIB_INFO", "GET_ALL_LICENSES") => shown(self.licenses()),
            ("RIB_INFO", "GET_VM_STATUS") => self.vm_status(command),
            _ => return None,
        })
    }

    fn firmware_version(&self) -> String {
        let traits = self.traits();
        format!(
            "<GET_FW_VERSION\n   FIRMWARE_VERSION = \"{}\"\n   FIRMWARE_DATE = \"{}\"\n   \
             MANAGEMENT_PROCESSOR = \"iLO{}\"\n   LICENSE_TYPE = \"{}\"\n    />\n",
            traits.firmware,
            traits.firmware_date,
            traits.number,
            self.license_name()
        )
    }

    fn licenses(&self) -> String {
        format!(
            "<GET_ALL_LICENSES>\n<LICENSE>\n   <LICENSE_TYPE VALUE= \"{}\"/>\n   \
             <LICENSE_KEY VALUE= \"XXXXX-XXXXX-XXXXX-XXXXX-XXXXX\"/>\n   \
             <LICENSE_INSTALL_DATE VALUE=\"Mon Dec  2 15:25:28 2013\"/>\n   \
             <LICENSE_CLASS VALUE= \"FQL\"/>\n</LICENSE>\n</GET_ALL_LICENSES>\n",
            self.license_name()
        )
    }

    fn vm_status(&self, command: &Element) -> Answer {
        let device = device_of(command)?;
        let mut state = self.shared.state();
        let is_raw = state.has(Fault::RibclRawEntities);
        let applet = match state.is_held(device) {
            true => "CONNECTED",
            false => "DISCONNECTED",
        };
        let drive = state.drive(device);
        let option = match drive.option {
            BootOption::Never => "NO_BOOT",
            BootOption::Once => "BOOT_ONCE",
            BootOption::Always => "BOOT_ALWAYS",
        };
        let yes = |yes: bool| if yes { "YES" } else { "NO" };
        let url = drive.image.as_ref().map_or("", |url| url.expose());
        let url = if is_raw { url.to_owned() } else { quoted(url) };
        shown(format!(
            "<GET_VM_STATUS\n    VM_APPLET=\"{applet}\"\n    DEVICE=\"{}\"\n    \
             BOOT_OPTION=\"{option}\"\n    WRITE_PROTECT=\"{}\"\n    IMAGE_INSERTED=\"{}\"\n    \
             IMAGE_URL=\"{}\"\n    />\n",
            if device == Device::Cdrom {
                "CDROM"
            } else {
                "FLOPPY"
            },
            yes(drive.write_protected),
            yes(drive.image.is_some()),
            url,
        ))
    }

    fn insert_virtual_media(&self, command: &Element) -> Answer {
        let device = device_of(command)?;
        let url = command.get("IMAGE_URL").unwrap_or_default();
        let url = match self.shared.state().has(Fault::RibclRawEntities) {
            true => url.to_owned(),
            false => unquoted(url),
        };
        answer(self.load(device, &url))
    }

    fn eject_virtual_media(&self, command: &Element) -> Answer {
        answer(self.eject(device_of(command)?))
    }

    fn set_vm_status(&self, command: &Element) -> Answer {
        let device = device_of(command)?;
        for option in &command.children {
            let value = option.value().unwrap_or_default();
            let done = match (option.name.as_str(), value) {
                ("VM_BOOT_OPTION", "CONNECT") => self.connect(device),
                ("VM_BOOT_OPTION", "DISCONNECT") => self.disconnect(device),
                ("VM_BOOT_OPTION", "BOOT_ONCE") => self.arm(device, BootOption::Once),
                ("VM_BOOT_OPTION", "BOOT_ALWAYS") => self.arm(device, BootOption::Always),
                ("VM_BOOT_OPTION", "NO_BOOT") => self.arm(device, BootOption::Never),
                ("VM_WRITE_PROTECT", "YES" | "Y" | "NO" | "N") => {
                    let mut state = self.shared.state();
                    state.drive(device).write_protected = value.starts_with('Y');
                    Ok(())
                }
                _ => {
                    let message = "An invalid Virtual Media option has been given.";
                    return Err(Status::new(0x0035, message));
                }
            };
            done.map_err(|refusal| Status::refused(&refusal))?;
        }
        done()
    }

    fn reset_rib(&self, _: &Element) -> Answer {
        self.shared.state().sessions.clear();
        shown(
            "<INFORM>Integrated Lights-Out will reset at the end of the script.</INFORM>\n"
                .to_owned(),
        )
    }

    fn power_command(&self, command: &Element) -> Answer {
        let on = self.shared.state().power != PowerState::Off;
        let yes = |name: &str| {
            let value = command.get(name).unwrap_or_default().to_lowercase();
            match value.as_str() {
                "yes" | "y" | "true" | "t" | "1" => Ok(true),
                "no" | "n" | "false" | "f" | "0" => Ok(false),
                _ => Err(Status::syntax_error(1, name)),
            }
        };
        let action = match command.name.as_str() {
            "SET_HOST_POWER" => match (yes("HOST_POWER")?, on) {
                (true, true) => return said("Host power is already ON."),
                (false, false) => return said("Host power is already OFF."),
                (true, false) => PowerAction::On,
                (false, true) => PowerAction::ForceOff,
            },
            "PRESS_PWR_BTN" => PowerAction::PushPowerButton,
            "HOLD_PWR_BTN" if !on => return said("Host power is already OFF."),
            "HOLD_PWR_BTN" => PowerAction::PressAndHold,
            "RESET_SERVER" | "WARM_BOOT_SERVER" => PowerAction::ForceRestart,
            _ => PowerAction::ColdBoot,
        };
        self.power(action)
            .map_err(|refusal| Status::refused(&refusal))?;
        match command.name.as_str() {
            "RESET_SERVER" => said("Server being reset."),
            _ => done(),
        }
    }

    fn set_one_time_boot(&self, command: &Element) -> Answer {
        let value = command.value().unwrap_or_default();
        let known = ONE_TIME.iter().find(|(name, _)| *name == value);
        let (_, target) = known.ok_or_else(|| Status::syntax_error(1, value))?;
        answer(self.set_override(Some(target), Some("Once")))
    }

    fn set_persistent_boot(&self, command: &Element) -> Answer {
        let names = {
            let state = self.shared.state();
            let mut names = Vec::new();
            for device in &command.children {
                let value = device.value().unwrap_or_default();
                let found = sources_of(&state, value);
                if found.is_empty() {
                    return Err(Status::syntax_error(1, value));
                }
                names.extend(found);
            }
            names
        };
        answer(self.set_boot_order(names))
    }

    fn boot_mode_command(&self, name: &str) -> Answer {
        let state = self.shared.state();
        let spelled = |mode: BootMode| {
            if mode == BootMode::Uefi {
                "UEFI"
            } else {
                "LEGACY"
            }
        };
        let (element, value) = match (name, state.traits.uefi) {
            (_, Uefi::None) => return Err(Status::not_supported(name)),
            ("GET_SUPPORTED_BOOT_MODE", Uefi::Only) => ("SUPPORTED_BOOT_MODE", "UEFI_ONLY"),
            ("GET_SUPPORTED_BOOT_MODE", Uefi::Choice) => ("SUPPORTED_BOOT_MODE", "LEGACY_UEFI"),
            ("GET_CURRENT_BOOT_MODE", _) => ("BOOT_MODE", spelled(state.firmware.boot_mode())),
            _ => ("BOOT_MODE", spelled(state.firmware.pending_boot_mode())),
        };
        shown(format!(
            "<{name}>\n    <{element} VALUE=\"{value}\"/>\n</{name}>\n"
        ))
    }

    fn set_pending_boot_mode(&self, command: &Element) -> Answer {
        if self.traits().uefi != Uefi::Choice {
            return Err(Status::not_supported(&command.name));
        }
        let mode = match command.value().unwrap_or_default() {
            "UEFI" => "Uefi",
            "LEGACY" => "LegacyBios",
            other => return Err(Status::syntax_error(1, other)),
        };
        let mut changes = Map::new();
        changes.insert("BootMode".to_owned(), Value::from(mode));
        answer(self.set_bios(&changes))
    }

    /// As RIBCL and iLO 4 print it.
    pub(in super::super) fn license_name(&self) -> String {
        let standard = self.shared.state().has(Fault::LicenseStandard);
        let kind = if standard { "Standard" } else { "Advanced" };
        match self.traits().number {
            4 => format!("iLO 4 {kind}"),
            _ => format!("iLO {kind}"),
        }
    }
}

/// The drive that `DEVICE` names, in capitals; without it the floppy.
fn device_of(command: &Element) -> Result<Device, Status> {
    match command.get("DEVICE") {
        None | Some("FLOPPY") => Ok(Device::Floppy),
        Some("CDROM") => Ok(Device::Cdrom),
        Some(_) => Err(Status::new(
            0x0035,
            "An invalid Virtual Media option has been given.",
        )),
    }
}

fn one_time_boot(state: &State) -> String {
    let found = ONE_TIME
        .iter()
        .find(|(_, target)| *target == state.override_target);
    let value = match found {
        Some(("NORMAL", _)) | None => "Normal",
        Some((name, _)) => name,
    };
    format!("<ONE_TIME_BOOT>\n<BOOT_TYPE VALUE=\"{value}\"/>\n</ONE_TIME_BOOT>\n")
}

fn persistent_boot(state: &State) -> String {
    let firmware = &state.firmware;
    let mut devices = Vec::new();
    if firmware.boot_mode() == BootMode::Legacy {
        for name in &firmware.order {
            let found = LEGACY.iter().find(|(_, begins)| name.starts_with(begins));
            if let Some((legacy, _)) = found {
                let line = format!("    <DEVICE value=\"{legacy}\"/>\n");
                if !devices.contains(&line) {
                    devices.push(line);
                }
            }
        }
    } else {
        let named = firmware.order.iter();
        let sources = named.filter_map(|name| firmware.sources.iter().find(|s| s.name == *name));
        devices.extend(sources.map(|source| {
            format!(
                "    <DEVICE value=\"Boot{}\" DESCRIPTION=\"{}\"/>\n",
                source.number,
                quoted(&source.text)
            )
        }));
    }
    format!(
        "<PERSISTENT_BOOT>\n{}</PERSISTENT_BOOT>\n",
        devices.concat()
    )
}

/// The boot sources that a name of `SET_PERSISTENT_BOOT` means.
fn sources_of(state: &State, value: &str) -> Vec<String> {
    let firmware = &state.firmware;
    let begins = LEGACY.iter().find(|(name, _)| *name == value);
    let is_meant = |source: &&super::super::firmware::Source| match begins {
        Some((_, begins)) => source.name.starts_with(begins),
        None => value.strip_prefix("Boot") == Some(source.number.as_str()),
    };
    let found = firmware.sources.iter().filter(is_meant);
    found.map(|source| source.name.clone()).collect()
}
