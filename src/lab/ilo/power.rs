//! Power, the power-on self test and what boots after it.

use super::fault::Fault;
use super::refusal::Refusal;
use super::state::{EventKind, State};
use super::{Machine, Shared, lock, spawn};
use crate::ilo::model::{PostState, PowerState};
use crate::lab::host::{BootOutcome, BootRequest, Host, Medium};
use std::sync::Arc;
use std::time::Duration;

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

/// What can be asked for, in the words of Redfish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PowerAction {
    On,
    ForceOff,
    GracefulShutdown,
    ForceRestart,
    GracefulRestart,
    Nmi,
    PushPowerButton,
    PressAndHold,
    ColdBoot,
    AuxCycle,
}

impl PowerAction {
    const NAMES: [(Self, &'static str); 10] = [
        (Self::On, "On"),
        (Self::ForceOff, "ForceOff"),
        (Self::GracefulShutdown, "GracefulShutdown"),
        (Self::ForceRestart, "ForceRestart"),
        (Self::GracefulRestart, "GracefulRestart"),
        (Self::Nmi, "Nmi"),
        (Self::PushPowerButton, "PushPowerButton"),
        (Self::PressAndHold, "PressAndHold"),
        (Self::ColdBoot, "ColdBoot"),
        (Self::AuxCycle, "AuxCycle"),
    ];

    /// The action of this name; the power button's press is called `Press` as well.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = if name == "Press" {
            "PushPowerButton"
        } else {
            name
        };
        let found = Self::NAMES.iter().find(|(_, known)| *known == name);
        found.map(|(action, _)| *action)
    }

    fn name(self) -> &'static str {
        let found = Self::NAMES.iter().find(|(action, _)| *action == self);
        found.map_or("", |(_, name)| name)
    }
}

impl Machine {
    /// Does what is asked for, if the power state allows it.
    pub(super) fn power(&self, action: PowerAction) -> Result<(), Refusal> {
        use PowerAction as A;
        let mut state = self.shared.state();
        let off = state.power == PowerState::Off;
        let effect = match action {
            A::On if off => Effect::PowerOn,
            A::AuxCycle if !off => return Err(Refusal::NotOff),
            A::AuxCycle => {
                state.sessions.clear();
                return Ok(());
            }
            // The button toggles; shutting down what is off is nothing.
            A::PushPowerButton if off => Effect::PowerOn,
            A::GracefulShutdown | A::PressAndHold if off => Effect::Nothing,
            A::On => return Err(Refusal::WrongPower),
            _ if off => return Err(Refusal::WrongPower),
            A::ForceOff | A::PressAndHold => Effect::PowerOff,
            A::ForceRestart => Effect::Restart,
            A::ColdBoot => Effect::ColdBoot,
            A::GracefulShutdown | A::PushPowerButton => Effect::Shutdown,
            A::GracefulRestart => Effect::Reboot,
            A::Nmi => Effect::Nothing,
        };
        let action = action.name().to_owned();
        state.note(EventKind::PowerAction { action });
        let os_runs = state.last_outcome == Some(BootOutcome::Running);
        let unheard = matches!(effect, Effect::Shutdown | Effect::Reboot) && !os_runs;
        let ignored = state.has(Fault::PowerIgnored)
            || (effect == Effect::PowerOn && state.strikes(Fault::PowerFirstIgnored));
        if effect != Effect::Nothing && !unheard && !ignored {
            self.act(&mut state, effect);
        }
        Ok(())
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
}

impl State {
    fn power_off(&mut self) {
        self.set_power(PowerState::Off);
        self.post_state = PostState::PowerOff;
        self.note(EventKind::PoweredOff);
    }

    /// The server was switched on or reset.
    fn begin_post(&mut self, cold: bool) {
        self.resets_ahead = u32::from(self.has(Fault::PostResetsTwice));
        self.apply_settings();
        self.reset(cold);
    }

    fn reset(&mut self, cold: bool) {
        self.is_cdrom_armed = self.reset_drives();
        self.set_power(if cold {
            PowerState::PoweringOn
        } else {
            PowerState::On
        });
        self.post_state = PostState::Reset;
        self.last_outcome = None;
        self.note(EventKind::PostBegan);
    }

    /// Devices are found: resets the server once more, or chooses the boot device.
    fn end_post(&mut self) -> Option<BootRequest> {
        if self.resets_ahead > 0 {
            self.resets_ahead -= 1;
            self.reset(false);
            return None;
        }
        let source = self.choose_boot_source(self.is_cdrom_armed);
        self.boots += 1;
        self.last_boot_source = Some(source);
        let number = self.boots;
        self.note(EventKind::Booted {
            number,
            source: Some(source),
        });
        Some(BootRequest {
            number,
            source,
            mode: self.firmware.boot_mode(),
            cdrom: self.cdrom.connected().map(|m| m as Arc<dyn Medium>),
            floppy: self.floppy.connected().map(|m| m as Arc<dyn Medium>),
        })
    }
}

impl Shared {
    /// Changes the state on behalf of a run, unless that was cut.
    fn change<T>(&self, run: u64, change: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.state();
        (state.run == run).then(|| change(&mut state))
    }

    /// The power-on self test up to the choice of the boot device, unless the run was cut.
    async fn post(&self, run: u64) -> Option<BootRequest> {
        let eighth = self.config.post_time / 8;
        loop {
            tokio::time::sleep(eighth).await;
            self.change(run, |state| {
                state.set_power(PowerState::On);
                state.post_state = PostState::InPost;
            })?;
            self.connect_armed().await;
            tokio::time::sleep(eighth * 5).await;
            self.change(run, |state| {
                state.post_state = PostState::InPostDiscoveryComplete;
            })?;
            tokio::time::sleep(eighth * 2).await;
            if let Some(request) = self.change(run, State::end_post)? {
                return Some(request);
            }
        }
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
        let starter = Arc::clone(&shared);
        let started = Box::new(move || {
            starter.change(run, |state| state.post_state = PostState::FinishedPost);
        });
        let outcome = host.boot(request, started).await;
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
