//! What a simulated iLO knows, and what it tells tests about itself.

use super::fault::{Fault, PASSING};
use super::media::RemoteMedium;
use crate::clock;
use crate::ilo::mask;
use crate::ilo::model::{Device, PostState, PowerState};
use crate::lab::host::{BootOutcome, BootSource};
use crate::secret::Secret;
use serde::Serialize;
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
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
    /// Whether a medium is in it and connected.
    pub inserted: bool,
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
    pub(super) power: PowerState,
    pub(super) post_state: PostState,
    pub(super) boots: u64,
    /// Redfish spellings; `None` and `Disabled` if nothing overrides.
    pub(super) override_target: String,
    pub(super) override_enabled: String,
    pub(super) floppy: Drive,
    pub(super) cdrom: Drive,
    pub(super) last_boot_source: Option<BootSource>,
    pub(super) last_outcome: Option<BootOutcome>,
    pub(super) sessions: Vec<Session>,
    /// Numbers what the power actions start; whoever holds an older number was cut.
    pub(super) run: u64,
    /// Numbers the inserts; whoever holds an older number was ejected.
    pub(super) inserts: u64,
    faults: BTreeSet<Fault>,
    busy_inserts: u32,
    unavailable_reads: u32,
    events: VecDeque<Event>,
    began: Instant,
}

/// A virtual drive.
#[derive(Debug)]
pub(super) struct Drive {
    pub(super) device: Device,
    /// What is in it; empty while the image is being opened.
    pub(super) image: Option<Secret>,
    /// The last medium, kept for its counters when ejected.
    pub(super) medium: Option<Arc<RemoteMedium>>,
    /// The number of the insert that is opening its image.
    pub(super) opening: Option<u64>,
    pub(super) boot_on_next_reset: bool,
    /// Booted by that flag: the next reset ejects it.
    pub(super) eject_on_reset: bool,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) token: Secret,
    pub(super) used: Instant,
}

impl Drive {
    fn new(device: Device) -> Self {
        Self {
            device,
            image: None,
            medium: None,
            opening: None,
            boot_on_next_reset: false,
            eject_on_reset: false,
        }
    }

    pub(super) fn is_inserted(&self) -> bool {
        self.image.is_some()
    }

    /// The medium, if it is connected.
    pub(super) fn connected(&self) -> Option<Arc<RemoteMedium>> {
        self.medium.clone().filter(|_| self.is_inserted())
    }

    /// Takes out what is in it or on its way; says whether there was anything.
    fn clear(&mut self) -> bool {
        let had = self.image.take().is_some() | self.opening.take().is_some();
        self.boot_on_next_reset = false;
        self.eject_on_reset = false;
        if let Some(medium) = &self.medium {
            medium.eject();
        }
        had
    }

    fn snapshot(&self) -> MediumState {
        MediumState {
            device: self.device,
            inserted: self.is_inserted(),
            image: self.image.as_ref().map(|url| mask::text(url.expose())),
            boot_on_next_reset: self.boot_on_next_reset,
            requests: self.medium.as_ref().map_or(0, |m| m.requests()),
            bytes: self.medium.as_ref().map_or(0, |m| m.bytes()),
        }
    }
}

impl State {
    pub(super) fn new(faults: BTreeSet<Fault>) -> Self {
        let mut state = Self {
            power: PowerState::Off,
            post_state: PostState::PowerOff,
            boots: 0,
            override_target: "None".to_owned(),
            override_enabled: "Disabled".to_owned(),
            floppy: Drive::new(Device::Floppy),
            cdrom: Drive::new(Device::Cdrom),
            last_boot_source: None,
            last_outcome: None,
            sessions: Vec::new(),
            run: 0,
            inserts: 0,
            faults: BTreeSet::new(),
            busy_inserts: 0,
            unavailable_reads: 0,
            events: VecDeque::new(),
            began: clock::instant(),
        };
        state.set_faults(faults);
        state
    }

    pub(super) fn set_faults(&mut self, faults: BTreeSet<Fault>) {
        self.busy_inserts = if faults.contains(&Fault::InsertBusy) {
            PASSING
        } else {
            0
        };
        self.unavailable_reads = if faults.contains(&Fault::ReadUnavailable) {
            PASSING
        } else {
            0
        };
        self.faults = faults;
    }

    pub(super) fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether a console user's medium is in a drive.
    pub(super) fn is_held(&self, device: Device) -> bool {
        device == Device::Cdrom && self.has(Fault::CdromHeldByConsole)
    }

    /// Whether this insert is one that the iLO is too busy for.
    pub(super) fn is_busy_insert(&mut self) -> bool {
        take_one(&mut self.busy_inserts)
    }

    /// Whether this read is one that fails.
    pub(super) fn is_unavailable_read(&mut self) -> bool {
        take_one(&mut self.unavailable_reads)
    }

    pub(super) fn drive(&mut self, device: Device) -> &mut Drive {
        match device {
            Device::Floppy => &mut self.floppy,
            Device::Cdrom => &mut self.cdrom,
        }
    }

    /// Empties a drive; says whether anything was in it.
    pub(super) fn eject(&mut self, device: Device) -> bool {
        let had = self.drive(device).clear();
        if had {
            self.note(EventKind::Ejected { device });
        }
        had
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
            boot_override: self.override_target.clone(),
            media: vec![self.floppy.snapshot(), self.cdrom.snapshot()],
            last_boot_source: self.last_boot_source,
            last_outcome: self.last_outcome,
            sessions: self.sessions.len(),
        }
    }
}

fn take_one(left: &mut u32) -> bool {
    let any = *left > 0;
    *left = left.saturating_sub(1);
    any
}
