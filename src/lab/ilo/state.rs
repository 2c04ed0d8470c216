//! What a simulated iLO knows, and what it tells tests about itself.

use super::drives::Drive;
use super::fault::{Fault, PASSING};
use super::firmware::Firmware;
use super::generation::Traits;
use crate::clock;
use crate::ilo::model::{BootMode, Device, PostState, PowerState};
use crate::lab::host::{BootOutcome, BootSource};
use crate::secret::Secret;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

/// Events kept; older ones are forgotten.
const MAX_EVENTS: usize = 10_000;

/// A machine at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct MachineState {
    /// Power of the server.
    pub power: PowerState,
    /// Progress of the power-on self test.
    pub post_state: PostState,
    /// Boots since the lab began.
    pub boots: u64,
    /// How the server boots now.
    pub boot_mode: BootMode,
    /// Whether the last boot checked signatures.
    pub secure_boot: bool,
    /// `BootSourceOverrideTarget`; `None` if nothing overrides.
    pub boot_override: String,
    /// The virtual drives: floppy, then CD.
    pub media: Vec<MediumState>,
    /// What the last boot tried.
    #[serde(serialize_with = "source_name")]
    pub last_boot_source: Option<BootSource>,
    /// How the last boot ended; none while it runs.
    #[serde(serialize_with = "outcome_name")]
    pub last_outcome: Option<BootOutcome>,
    /// Sessions open.
    pub sessions: usize,
}

/// A virtual drive at one moment. The counters are those of the last medium, ejected or not.
#[derive(Debug, Clone, Serialize)]
pub struct MediumState {
    /// Which drive.
    pub device: Device,
    /// Whether a medium is in it.
    pub inserted: bool,
    /// Whether the server sees it.
    pub connected: bool,
    /// Where it comes from, without the signature of the URL.
    pub image: Option<String>,
    /// Whether the next reset boots from it.
    pub boot_on_next_reset: bool,
    /// Range requests sent to the image server.
    pub requests: u64,
    /// Bytes received from it.
    pub bytes: u64,
}

/// Something that happened to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Milliseconds since the machine was made.
    pub at_ms: u64,
    /// What happened.
    #[serde(flatten)]
    pub what: EventKind,
}

/// What can happen to a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum EventKind {
    /// A session was opened.
    LoggedIn,
    /// Credentials were refused.
    LoginRefused,
    /// A session was closed.
    LoggedOut,
    /// An insert was accepted.
    Inserted {
        /// Into which drive.
        device: Device,
        /// Where it comes from, without the signature of the URL.
        image: String,
    },
    /// The image was opened and the medium connected.
    Connected {
        /// In which drive.
        device: Device,
    },
    /// The image could not be opened; the drive is empty again.
    NotConnected {
        /// In which drive.
        device: Device,
        /// Why.
        reason: String,
    },
    /// A medium, or an insert on its way, was taken out.
    Ejected {
        /// Of which drive.
        device: Device,
    },
    /// A medium was taken from the server and stays in the drive.
    Disconnected {
        /// In which drive.
        device: Device,
    },
    /// A boot override was set.
    BootOverride {
        /// `BootSourceOverrideTarget`.
        target: String,
    },
    /// A power action was accepted.
    PowerAction {
        /// The action (`On`, `ForceOff`, …).
        action: String,
    },
    /// Settings were changed; they hold from the next reset on.
    SettingsPending {
        /// Which.
        what: &'static str,
    },
    /// The power-on self test began.
    PostBegan,
    /// The firmware started something.
    Booted {
        /// Counts the boots, from 1.
        number: u64,
        /// From where.
        #[serde(serialize_with = "source_name")]
        source: Option<BootSource>,
    },
    /// What was booted ended by itself.
    Ended {
        /// How.
        #[serde(serialize_with = "outcome_name")]
        outcome: Option<BootOutcome>,
    },
    /// The server lost power.
    PoweredOff,
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn source_name<S: serde::Serializer>(
    source: &Option<BootSource>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let name = source.map(|source| match source {
        BootSource::Cdrom => "cdrom",
        BootSource::Disk => "disk",
    });
    name.serialize(serializer)
}

#[expect(clippy::ref_option, reason = "serde's signature")]
fn outcome_name<S: serde::Serializer>(
    outcome: &Option<BootOutcome>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let name = outcome.map(|outcome| match outcome {
        BootOutcome::Reboot => "reboot",
        BootOutcome::PowerOff => "power_off",
        BootOutcome::NoBootDevice => "no_boot_device",
        BootOutcome::Running => "running",
    });
    name.serialize(serializer)
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct State {
    pub(super) traits: &'static Traits,
    pub(super) power: PowerState,
    /// What the power was before the last change, and how often it is still shown.
    pub(super) old_power: (PowerState, u32),
    pub(super) post_state: PostState,
    pub(super) boots: u64,
    /// Resets that the self test still does by itself.
    pub(super) resets_ahead: u32,
    /// Whether this boot is the one that the CD was armed for.
    pub(super) is_cdrom_armed: bool,
    /// Redfish spellings; `None` and `Disabled` if nothing overrides.
    pub(super) override_target: String,
    pub(super) override_enabled: String,
    pub(super) firmware: Firmware,
    pub(super) floppy: Drive,
    pub(super) cdrom: Drive,
    pub(super) last_boot_source: Option<BootSource>,
    pub(super) last_outcome: Option<BootOutcome>,
    pub(super) sessions: Vec<Session>,
    /// Whether a RIBCL script has the database open for writing.
    pub(super) is_being_written: bool,
    /// Numbers what the power actions start; whoever holds an older number was cut.
    pub(super) run: u64,
    /// Numbers the inserts; whoever holds an older number was ejected.
    pub(super) inserts: u64,
    faults: BTreeSet<Fault>,
    /// How often the faults that wear off will still show themselves.
    passing: BTreeMap<Fault, u32>,
    events: VecDeque<Event>,
    began: Instant,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) token: Secret,
    pub(super) used: Instant,
    /// Requests so far.
    pub(super) requests: u32,
}

impl State {
    pub(super) fn new(traits: &'static Traits, faults: BTreeSet<Fault>) -> Self {
        let mut state = Self {
            traits,
            power: PowerState::Off,
            old_power: (PowerState::Off, 0),
            post_state: PostState::PowerOff,
            boots: 0,
            resets_ahead: 0,
            is_cdrom_armed: false,
            override_target: "None".to_owned(),
            override_enabled: "Disabled".to_owned(),
            firmware: Firmware::new(traits),
            floppy: Drive::new(Device::Floppy),
            cdrom: Drive::new(Device::Cdrom),
            last_boot_source: None,
            last_outcome: None,
            sessions: Vec::new(),
            is_being_written: false,
            run: 0,
            inserts: 0,
            faults: BTreeSet::new(),
            passing: BTreeMap::new(),
            events: VecDeque::new(),
            began: clock::instant(),
        };
        state.set_faults(faults);
        state
    }

    pub(super) fn set_faults(&mut self, faults: BTreeSet<Fault>) {
        self.passing = faults.iter().map(|fault| (*fault, fault.times())).collect();
        self.faults = faults;
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether a fault that wears off shows itself this time.
    pub(super) fn strikes(&mut self, fault: Fault) -> bool {
        let Some(left) = self.passing.get_mut(&fault).filter(|left| **left > 0) else {
            return false;
        };
        *left -= 1;
        true
    }

    /// Changes the power.
    pub(super) fn set_power(&mut self, power: PowerState) {
        let times = if self.has(Fault::PowerShownLate) {
            PASSING
        } else {
            0
        };
        self.old_power = (self.power, times);
        self.power = power;
    }

    /// The power as the iLO shows it to who asks.
    pub(super) fn shown_power(&mut self) -> PowerState {
        if self.strikes(Fault::PowerUnknownFirst) {
            return PowerState::Unknown;
        }
        let (old, left) = self.old_power;
        if left == 0 {
            return self.power;
        }
        self.old_power = (old, left - 1);
        old
    }

    /// Whether a console user's medium is in a drive.
    pub(super) fn is_held(&self, device: Device) -> bool {
        device == Device::Cdrom && self.has(Fault::CdromHeldByConsole)
    }

    pub(super) fn drive(&mut self, device: Device) -> &mut Drive {
        match device {
            Device::Floppy => &mut self.floppy,
            Device::Cdrom => &mut self.cdrom,
        }
    }

    pub(super) fn note(&mut self, what: EventKind) {
        let elapsed = clock::instant().saturating_duration_since(self.began);
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        let at_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        self.events.push_back(Event { at_ms, what });
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }

    /// Forgets sessions that nobody used for `idle`.
    pub(super) fn drop_idle_sessions(&mut self, idle: Duration) {
        let now = clock::instant();
        self.sessions
            .retain(|s| now.saturating_duration_since(s.used) < idle);
    }

    pub(super) fn snapshot(&self) -> MachineState {
        MachineState {
            power: self.power,
            post_state: self.post_state,
            boots: self.boots,
            boot_mode: self.firmware.boot_mode(),
            secure_boot: self.firmware.secure_boot_current,
            boot_override: self.override_target.clone(),
            media: vec![self.floppy.snapshot(), self.cdrom.snapshot()],
            last_boot_source: self.last_boot_source,
            last_outcome: self.last_outcome,
            sessions: self.sessions.len(),
        }
    }
}
