//! Power, the power-on self test and what boots after it.

use super::answer::Answer;
use super::fault::Fault;
use super::state::{EventKind, State};
use super::{Machine, Shared, lock, spawn};
use crate::ilo::model::{Device, PostState, PowerState};
use crate::lab::host::{BootOutcome, BootRequest, BootSource, Host, Medium};
use serde_json::{Map, Value};
use std::sync::Arc;
use std::time::Duration;

/// Settings of a boot override.
const TARGETS: [&str; 12] = [
    "None",
    "Cd",
    "Hdd",
    "Usb",
    "SDCard",
    "Utilities",
    "Diags",
    "BiosSetup",
    "Pxe",
    "UefiShell",
    "UefiHttp",
    "UefiTarget",
];
const ENABLED: [&str; 3] = ["Disabled", "Once", "Continuous"];

/// What a power action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    PowerOn,
    PowerOff,
    Restart,
    /// Off, then on.
    ColdBoot,
    /// The operating system, if one runs, shuts down.
    Shutdown,
    /// The operating system, if one runs, restarts.
    Reboot,
    Nothing,
}

impl Machine {
    /// An action of the system, named by the last part of its path.
    pub(super) fn system_action(&self, action: &str, body: &Map<String, Value>) -> Option<Answer> {
        let (parameter, values): (&str, &[&str]) = match action {
            "ComputerSystem.Reset" => (
                "ResetType",
                &[
                    "On",
                    "ForceOff",
                    "GracefulShutdown",
                    "ForceRestart",
                    "Nmi",
                    "PushPowerButton",
                    "GracefulRestart",
                ],
            ),
            "Oem/Hpe/HpeComputerSystemExt.PowerButton" => ("PushType", &["Press", "PressAndHold"]),
            "Oem/Hpe/HpeComputerSystemExt.SystemReset" => ("ResetType", &["ColdBoot", "AuxCycle"]),
            _ => return None,
        };
        let name = action.rsplit('/').next().unwrap_or(action);
        if let Some(unknown) = body.keys().find(|key| *key != parameter) {
            return Some(Answer::refused(
                "Base.ActionParameterUnknown",
                &[name, unknown],
            ));
        }
        let Some(value) = body.get(parameter) else {
            return Some(Answer::refused(
                "Base.ActionParameterMissing",
                &[name, parameter],
            ));
        };
        let known = value.as_str().filter(|value| values.contains(value));
        let Some(value) = known else {
            let args = [&value.to_string(), parameter];
            return Some(Answer::refused("Base.PropertyValueNotInList", &args));
        };
        Some(self.power_action(value))
    }

    fn power_action(&self, action: &str) -> Answer {
        let mut state = self.shared.state();
        let off = state.power == PowerState::Off;
        let effect = match action {
            "On" if off => Effect::PowerOn,
            "AuxCycle" if !off => return Answer::refused("iLO.SystemPowerOffRequired", &[]),
            "AuxCycle" => {
                state.sessions.clear();
                let status = axum::http::StatusCode::OK;
                return Answer::message(status, "iLO.ResetInProgress", &[]);
            }
            // The button toggles; shutting down what is off is nothing.
            "PushPowerButton" | "Press" if off => Effect::PowerOn,
            "GracefulShutdown" | "PressAndHold" if off => Effect::Nothing,
            "On" => return wrong_state(),
            _ if off => return wrong_state(),
            "ForceOff" | "PressAndHold" => Effect::PowerOff,
            "ForceRestart" => Effect::Restart,
            "ColdBoot" => Effect::ColdBoot,
            "GracefulShutdown" | "PushPowerButton" | "Press" => Effect::Shutdown,
            "GracefulRestart" => Effect::Reboot,
            _ => Effect::Nothing,
        };
        let action = action.to_owned();
        state.note(EventKind::PowerAction { action });
        let os_runs = state.last_outcome == Some(BootOutcome::Running);
        let unheard = matches!(effect, Effect::Shutdown | Effect::Reboot) && !os_runs;
        if effect != Effect::Nothing && !unheard && !state.has(Fault::PowerIgnored) {
            self.act(&mut state, effect);
        }
        Answer::success()
    }

    /// Cuts what runs and starts what the effect asks for.
    fn act(&self, state: &mut State, effect: Effect) {
        state.run += 1;
        match effect {
            Effect::PowerOff | Effect::ColdBoot => state.power_off(),
            Effect::PowerOn => state.begin_post(true),
            Effect::Restart => state.begin_post(false),
            Effect::Shutdown | Effect::Reboot | Effect::Nothing => {}
        }
        lock(&self.runs).abort_all();
        if effect != Effect::PowerOff {
            let (shared, host) = (Arc::clone(&self.shared), Arc::clone(&self.host));
            spawn(&self.runs, run(shared, host, state.run, effect));
        }
    }

    /// Takes the machine's mains away, whatever runs on it.
    pub fn cut_power(&self) {
        let mut state = self.shared.state();
        if state.power != PowerState::Off {
            self.act(&mut state, Effect::PowerOff);
        }
    }

    /// `{"Boot":{…}}`
    pub(super) fn patch_system(&self, body: &Map<String, Value>) -> Answer {
        let unknown = |name: &str| Answer::refused("iLO.PropertyNotWritableOrUnknown", &[name]);
        if let Some(name) = body.keys().find(|key| *key != "Boot") {
            return unknown(name);
        }
        let Some(boot) = body.get("Boot").and_then(Value::as_object) else {
            return Answer::refused("Base.PropertyMissing", &["Boot"]);
        };
        let (mut target, mut enabled) = (None, None);
        for (name, value) in boot {
            let (allowed, slot): (&[&str], _) = match name.as_str() {
                "BootSourceOverrideTarget" => (&TARGETS, &mut target),
                "BootSourceOverrideEnabled" => (&ENABLED, &mut enabled),
                _ => return unknown(name),
            };
            let Some(value) = value.as_str().filter(|value| allowed.contains(value)) else {
                let args = [&value.to_string(), name.as_str()];
                return Answer::refused("Base.PropertyValueNotInList", &args);
            };
            *slot = Some(value);
        }
        let mut state = self.shared.state();
        if state.post_state.is_in_post() {
            let named = boot.contains_key("BootSourceOverrideTarget");
            let name = if named {
                "BootSourceOverrideTarget"
            } else {
                "BootSourceOverrideEnabled"
            };
            return Answer::refused("iLO.UnableToModifyDuringSystemPOST", &[name]);
        }
        let (target, enabled) = match (target, enabled) {
            (_, Some("Disabled")) | (Some("None"), _) => ("None", "Disabled"),
            (Some(target), enabled) => (target, enabled.unwrap_or("Once")),
            (None, enabled) => match state.override_target.as_str() {
                "None" => ("None", "Disabled"),
                _ => {
                    state.override_enabled = enabled.unwrap_or("Once").to_owned();
                    return Answer::success();
                }
            },
        };
        state.override_target = target.to_owned();
        state.override_enabled = enabled.to_owned();
        state.note(EventKind::BootOverride {
            target: target.to_owned(),
        });
        Answer::success()
    }
}

fn wrong_state() -> Answer {
    Answer::refused("iLO.InvalidOperationForSystemState", &[])
}

impl State {
    fn power_off(&mut self) {
        self.power = PowerState::Off;
        self.post_state = PostState::PowerOff;
        self.note(EventKind::PoweredOff);
    }

    /// A medium that was booted by `BootOnNextServerReset` does not survive the second reset.
    fn begin_post(&mut self, cold: bool) {
        if self.cdrom.eject_on_reset {
            self.eject(Device::Cdrom);
        }
        self.power = if cold {
            PowerState::PoweringOn
        } else {
            PowerState::On
        };
        self.post_state = PostState::Reset;
        self.last_outcome = None;
        self.note(EventKind::PostBegan);
    }

    /// Chooses the boot device and uses up what was set for one boot.
    fn end_post(&mut self) -> BootRequest {
        let inserted = self.cdrom.is_inserted();
        let flagged = std::mem::take(&mut self.cdrom.boot_on_next_reset) && inserted;
        self.cdrom.eject_on_reset |= flagged;
        let overridden = self.override_target == "Cd" && inserted;
        if self.override_enabled == "Once" {
            self.override_target = "None".to_owned();
            self.override_enabled = "Disabled".to_owned();
        }
        // A device that is not there is passed over, as by the firmware.
        let source = if flagged || overridden {
            BootSource::Cdrom
        } else {
            BootSource::Disk
        };
        self.boots += 1;
        self.post_state = PostState::FinishedPost;
        self.last_boot_source = Some(source);
        let number = self.boots;
        self.note(EventKind::Booted {
            number,
            source: Some(source),
        });
        BootRequest {
            number,
            source,
            cdrom: self.cdrom.connected().map(|m| m as Arc<dyn Medium>),
            floppy: self.floppy.connected().map(|m| m as Arc<dyn Medium>),
        }
    }
}

impl Shared {
    /// Changes the state on behalf of a run, unless that was cut.
    fn change<T>(&self, run: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state();
        (state.run == run).then(|| change(&mut state))
    }

    /// The power-on self test; what it found, unless the run was cut.
    async fn post(&self, run: u64) -> Option<BootRequest> {
        let eighth = self.config.post_time / 8;
        tokio::time::sleep(eighth).await;
        self.change(run, |state| {
            state.power = PowerState::On;
            state.post_state = PostState::InPost;
        })?;
        tokio::time::sleep(eighth * 5).await;
        self.change(run, |state| {
            state.post_state = PostState::InPostDiscoveryComplete;
        })?;
        tokio::time::sleep(eighth * 2).await;
        self.change(run, State::end_post)
    }
}

/// What a power action started, until the power is cut (which drops this) or it ends by itself.
async fn run(shared: Arc<Shared>, host: Arc<dyn Host>, run: u64, effect: Effect) {
    let _processor = shared.processor.lock().await;
    let pause: Duration = shared.config.post_time / 4;
    let ready = match effect {
        Effect::PowerOn | Effect::Restart => Some(()),
        Effect::ColdBoot => {
            tokio::time::sleep(pause).await;
            shared.change(run, |state| state.begin_post(true))
        }
        Effect::Reboot => {
            tokio::time::sleep(pause).await;
            shared.change(run, |state| state.begin_post(false))
        }
        Effect::Shutdown => {
            tokio::time::sleep(pause).await;
            shared.change(run, State::power_off);
            None
        }
        Effect::PowerOff | Effect::Nothing => None,
    };
    if ready.is_none() {
        return;
    }
    while let Some(request) = shared.post(run).await {
        let outcome = host.boot(request).await;
        let again = shared.change(run, |state| {
            state.last_outcome = Some(outcome);
            state.note(EventKind::Ended {
                outcome: Some(outcome),
            });
            match outcome {
                BootOutcome::Reboot => state.begin_post(false),
                BootOutcome::PowerOff => state.power_off(),
                // A server without a bootable device does not finish POST.
                BootOutcome::NoBootDevice => state.post_state = PostState::InPostDiscoveryComplete,
                BootOutcome::Running => {}
            }
            outcome == BootOutcome::Reboot
        });
        if again != Some(true) {
            return;
        }
    }
}
