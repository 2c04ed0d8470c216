//! The full feature phase, one file for each end.

mod discovery;
mod initiator;
mod target;

pub use discovery::{DiscoveredTarget, Discovery, DiscoveryProgress};
pub use initiator::{Command, Event, InitiatorSession, Outcome, TaskResponse, Transfer};
pub use target::{Completion, Limits, Portal, Request, TargetEvent, TargetSession};

#[cfg(test)]
mod tests;
