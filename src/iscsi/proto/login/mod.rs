//! The login phase (RFC 7143 sections 6.3 and 11.12), one file for each end.

mod initiator;
mod target;

pub use initiator::{Initiator, InitiatorConfig, InitiatorProgress};
pub use target::{Ready, Target, TargetConfig, TargetProgress};

use super::negotiate::Params;

/// Requests that one login may take; a longer one goes in circles.
const MAX_ROUNDS: u32 = 32;

/// Whether a session carries SCSI commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionType {
    /// Only SendTargets.
    Discovery,
    /// Commands to the target of this name.
    Normal {
        /// TargetName.
        target_name: String,
    },
}

/// What a login leaves behind for the full feature phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoggedIn {
    /// What was negotiated.
    pub params: Params,
    /// The session's TSIH.
    pub tsih: u16,
    /// CmdSN of the first command.
    pub cmd_sn: u32,
    /// The last CmdSN that the target takes.
    pub max_cmd_sn: u32,
    /// StatSN of the target's first PDU with a status.
    pub stat_sn: u32,
}

#[cfg(test)]
mod tests;
