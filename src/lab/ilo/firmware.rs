//! Settings of the server's firmware: what holds now, and what will after the next reset.

use super::Machine;
use super::fault::Fault;
use super::generation::{Traits, Uefi};
use super::refusal::Refusal;
use super::state::{EventKind, State};
use crate::ilo::model::BootMode;
use crate::lab::host::BootSource;
use serde_json::{Map, Value};

/// The settings.
#[derive(Debug)]
pub(super) struct Firmware {
    uefi: Uefi,
    /// BIOS attributes.
    pub(super) attributes: Map<String, Value>,
    pub(super) pending: Map<String, Value>,
    /// What can be booted.
    pub(super) sources: Vec<Source>,
    /// `StructuredBootString`s, first to be tried first.
    pub(super) order: Vec<String>,
    pub(super) pending_order: Option<Vec<String>>,
    /// `SecureBootEnable`: holds from the next reset on.
    pub(super) secure_boot: bool,
    pub(super) secure_boot_current: bool,
}

/// One of `BootSources`.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// `StructuredBootString`
    pub(super) name: String,
    /// `BootOptionNumber`
    pub(super) number: String,
    /// `BootString`
    pub(super) text: String,
}

impl Firmware {
    pub(super) fn new(traits: &Traits) -> Self {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let (bios, boot) = (parse(traits.documents.bios), parse(traits.documents.boot));
        // iLO 4 has the attributes in the resource itself.
        let attributes = bios.get("Attributes").unwrap_or(&bios);
        let mut attributes = attributes.as_object().cloned().unwrap_or_default();
        attributes.retain(|name, value| !name.starts_with('@') && is_setting(value));
        let listed = |name: &str| {
            boot.get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let text = |source: &Value, name: &str| {
            let text = source.get(name).and_then(Value::as_str);
            text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        };
        let sources = listed("BootSources").enumerate();
        let sources = sources.map(|(index, source)| Source {
            name: text(source, "StructuredBootString").unwrap_or_default(),
            number: text(source, "BootOptionNumber")
                .unwrap_or_else(|| format!("{:04X}", index + 7)),
            text: text(source, "BootString").unwrap_or_default(),
        });
        let order = listed("PersistentBootConfigOrder");
        Self {
            uefi: traits.uefi,
            attributes,
            pending: Map::new(),
            sources: sources.collect(),
            order: order
                .filter_map(|name| name.as_str().map(str::to_owned))
                .collect(),
            pending_order: None,
            secure_boot: false,
            secure_boot_current: false,
        }
    }

    /// How the server boots now.
    pub(super) fn boot_mode(&self) -> BootMode {
        self.mode_in(&self.attributes)
    }

    /// How it will boot after the next reset.
    pub(super) fn pending_boot_mode(&self) -> BootMode {
        match self.pending.contains_key("BootMode") {
            true => self.mode_in(&self.pending),
            false => self.boot_mode(),
        }
    }

    fn mode_in(&self, attributes: &Map<String, Value>) -> BootMode {
        let legacy = attributes.get("BootMode").and_then(Value::as_str) == Some("LegacyBios");
        match self.uefi {
            Uefi::None => BootMode::Legacy,
            Uefi::Only => BootMode::Uefi,
            Uefi::Choice if legacy => BootMode::Legacy,
            Uefi::Choice => BootMode::Uefi,
        }
    }

    /// Takes over what was pending; says whether secure boot changed.
    fn apply(&mut self) -> bool {
        self.attributes.append(&mut self.pending);
        if let Some(order) = self.pending_order.take() {
            self.order = order;
        }
        // Secure boot is of UEFI.
        let wanted = self.secure_boot && self.boot_mode() == BootMode::Uefi;
        std::mem::replace(&mut self.secure_boot_current, wanted) != wanted
    }

    /// What the persistent order tries first of what is there; empty devices are passed over.
    fn first(&self, cdrom: bool) -> BootSource {
        let found = self.order.iter().find_map(|name| match name {
            name if name.starts_with("HD.") => Some(BootSource::Disk),
            name if name.starts_with("CD.Virtual") && cdrom => Some(BootSource::Cdrom),
            _ => None,
        });
        found.unwrap_or(BootSource::Disk)
    }
}

/// Not the links and registries beside the settings of iLO 4.
fn is_setting(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

impl State {
    /// What a reset makes of the pending settings. Secure boot changes in a reset of its own,
    /// which the firmware does by itself.
    pub(super) fn apply_settings(&mut self) {
        if self.has(Fault::SecureBootLost) && self.firmware.pending.is_empty() {
            self.firmware.secure_boot = self.firmware.secure_boot_current;
        }
        if self.firmware.apply() {
            self.resets_ahead += 1;
        }
    }

    /// What is booted now, and what was set for one boot is used up. A device that is not there
    /// is passed over.
    pub(super) fn choose_boot_source(&mut self, armed: bool) -> BootSource {
        let cdrom = self.cdrom.is_connected();
        let target = self.override_target.clone();
        if self.override_enabled == "Once" {
            self.override_target = "None".to_owned();
            self.override_enabled = "Disabled".to_owned();
        }
        match target.as_str() {
            _ if armed && cdrom => BootSource::Cdrom,
            "Cd" if cdrom => BootSource::Cdrom,
            "Hdd" => BootSource::Disk,
            _ => self.firmware.first(cdrom),
        }
    }

    fn check_not_in_post(&self, setting: &'static str) -> Result<(), Refusal> {
        match self.post_state.is_in_post() {
            true => Err(Refusal::InPost(setting)),
            false => Ok(()),
        }
    }
}

impl Machine {
    /// Sets the boot override; what is not named stays.
    pub(super) fn set_override(
        &self,
        target: Option<&str>,
        enabled: Option<&str>,
    ) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        state.check_not_in_post(match target {
            Some(_) => "BootSourceOverrideTarget",
            None => "BootSourceOverrideEnabled",
        })?;
        if enabled == Some("Continuous") && state.has(Fault::BootContinuousRefused) {
            return Err(Refusal::NotInList {
                value: "Continuous".to_owned(),
                name: "BootSourceOverrideEnabled",
            });
        }
        if state.has(Fault::BootUnsupported) {
            return Err(Refusal::Unsupported);
        }
        if state.has(Fault::BootNotKept) {
            return Ok(());
        }
        let (target, enabled) = match (target, enabled) {
            (_, Some("Disabled")) | (Some("None"), _) => ("None", "Disabled"),
            (Some(target), enabled) => (target, enabled.unwrap_or("Once")),
            (None, _) if state.override_target == "None" => ("None", "Disabled"),
            (None, enabled) => {
                state.override_enabled = enabled.unwrap_or("Once").to_owned();
                return Ok(());
            }
        };
        state.override_target = target.to_owned();
        state.override_enabled = enabled.to_owned();
        state.note(EventKind::BootOverride {
            target: target.to_owned(),
        });
        Ok(())
    }

    /// Changes BIOS attributes from the next reset on.
    pub(super) fn set_bios(&self, changes: &Map<String, Value>) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        state.check_not_in_post("Attributes")?;
        let firmware = &mut state.firmware;
        if let Some(name) = changes
            .keys()
            .find(|name| !firmware.attributes.contains_key(*name))
        {
            return Err(Refusal::NotWritable(name.clone()));
        }
        if let Some(mode) = changes.get("BootMode")
            && !["Uefi", "LegacyBios"].iter().any(|known| mode == known)
        {
            let (value, name) = (mode.to_string(), "BootMode");
            return Err(Refusal::NotInList { value, name });
        }
        firmware.pending.extend(changes.clone());
        state.note(EventKind::SettingsPending { what: "bios" });
        Ok(())
    }

    /// Switches secure boot from the next reset on.
    pub(super) fn set_secure_boot(&self, enable: bool) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        state.check_not_in_post("SecureBootEnable")?;
        if state.firmware.boot_mode() == BootMode::Legacy {
            return Err(Refusal::NotInLegacyMode);
        }
        state.firmware.secure_boot = enable;
        state.note(EventKind::SettingsPending {
            what: "secure_boot",
        });
        Ok(())
    }

    /// Changes the persistent boot order from the next reset on. What is not named comes last, as
    /// it was.
    pub(super) fn set_boot_order(&self, names: Vec<String>) -> Result<(), Refusal> {
        let mut state = self.shared.state();
        let name = "PersistentBootConfigOrder";
        state.check_not_in_post(name)?;
        let known = |name: &String| state.firmware.sources.iter().any(|s| s.name == *name);
        if let Some(value) = names.iter().find(|name| !known(name)).cloned() {
            return Err(Refusal::NotInList { value, name });
        }
        let rest = state.firmware.order.iter();
        let rest: Vec<_> = rest.filter(|old| !names.contains(old)).cloned().collect();
        state.firmware.pending_order = Some([names, rest].concat());
        state.note(EventKind::SettingsPending { what: "boot_order" });
        Ok(())
    }
}
