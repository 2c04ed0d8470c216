//! What callers of the initiator and the target learn when something fails.

use super::proto::{self, LoginStatus};
use super::scsi::{Sense, SenseKey};
use crate::error::Kind;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A failed operation: what was tried, on what, and why it failed.
#[derive(Debug, Clone)]
pub struct Error {
    op: &'static str,
    target: Arc<str>,
    failure: Failure,
}

/// A result with the folder's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why, by who is to blame.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The peer broke the protocol, lacks something, or refused the login.
    #[error(transparent)]
    Protocol(#[from] proto::Error),
    /// No connection could be made.
    #[error("cannot connect")]
    Connect(#[source] Arc<std::io::Error>),
    /// The connection ended while something was still to be done.
    #[error("connection lost: {reason}")]
    ConnectionLost {
        /// How it ended.
        reason: Arc<str>,
    },
    /// A deadline passed.
    #[error("no answer to {what} within {}", humantime::format_duration(*.after))]
    Timeout {
        /// What was waited for.
        what: &'static str,
        /// How long.
        after: Duration,
    },
    /// The unit refused or failed a command.
    #[error("{command} failed: {sense}")]
    Scsi {
        /// The command.
        command: &'static str,
        /// What the unit said.
        sense: Sense,
    },
    /// The unit answered with a status that has no sense data.
    #[error("{command} ended with status {status:#04x} ({text})", text = status_text(*.status))]
    Status {
        /// The command.
        command: &'static str,
        /// SCSI status.
        status: u8,
    },
    /// The unit was reset after data had been written and before it was flushed.
    #[error("the unit was reset, and data written before may be lost")]
    Reset,
    /// A newer owner has taken the disk over.
    #[error("a newer owner has taken the disk over")]
    Fenced,
    /// Somebody who is none of us has reserved the disk.
    #[error("the disk is reserved by somebody else, under key {key:#018x}")]
    Reserved {
        /// The reservation key.
        key: u64,
    },
    /// After a reconnection there was another disk than before.
    #[error("the disk is another one since the reconnection: {what} changed")]
    OtherDisk {
        /// By what it was seen.
        what: &'static str,
    },
    /// The logical unit is no disk that we can use.
    #[error("lun {lun} {why}{}", others(.luns))]
    Unusable {
        /// Its number.
        lun: u64,
        /// What is wrong with it.
        why: &'static str,
        /// The units that the target has.
        luns: Vec<u64>,
    },
    /// What the caller wants is not on the disk or not whole blocks.
    #[error("{0}")]
    InvalidArgument(String),
    /// The session was logged out.
    #[error("session is logged out")]
    LoggedOut,
    /// The operating system refused something local.
    #[error("{doing}")]
    Local {
        /// What was tried.
        doing: &'static str,
        /// The refusal.
        #[source]
        source: Arc<std::io::Error>,
    },
}

/// Reason of a Reject: the target got a data segment that does not match its digest.
const DATA_DIGEST_ERROR: u8 = 0x02;

impl Error {
    pub(super) fn new(op: &'static str, target: &Arc<str>, failure: impl Into<Failure>) -> Self {
        Self {
            op,
            target: Arc::clone(target),
            failure: failure.into(),
        }
    }

    /// Why it failed.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        &self.failure
    }

    /// Whether the same may work on a new session.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.failure.is_retryable()
    }
}

/// `op(target): why`.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({}): {}", self.op, self.target, self.failure)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.failure.source()
    }
}

impl Failure {
    pub(super) fn lost(reason: impl Into<Arc<str>>) -> Self {
        let reason = reason.into();
        Self::ConnectionLost { reason }
    }

    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(self)
    }

    /// Whether the same may work on a new session.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectionLost { .. } | Self::Timeout { .. } | Self::Reset => {
                true
            }
            Self::Protocol(proto::Error::InvalidPdu(
                proto::InvalidPdu::HeaderDigest | proto::InvalidPdu::DataDigest,
            )) => true,
            Self::Protocol(proto::Error::PeerMisbehaved(proto::PeerMisbehaved::Rejected(
                reason,
            ))) => *reason == DATA_DIGEST_ERROR,
            Self::Protocol(proto::Error::LoginRejected(status)) => status.class == 3,
            Self::Scsi { sense, .. } => matches!(
                sense.key,
                SenseKey::NOT_READY | SenseKey::UNIT_ATTENTION | SenseKey::ABORTED_COMMAND
            ),
            Self::Status { status, .. } => matches!(status, 0x08 | 0x28),
            _ => false,
        }
    }

    /// Whether the connection failed, and a new one may do: everything else is an answer.
    pub(super) fn is_of_the_connection(&self) -> bool {
        match self {
            Self::Connect(_) | Self::ConnectionLost { .. } | Self::Timeout { .. } => true,
            Self::Protocol(proto::Error::InvalidPdu(
                proto::InvalidPdu::HeaderDigest | proto::InvalidPdu::DataDigest,
            )) => true,
            Self::Protocol(proto::Error::PeerMisbehaved(proto::PeerMisbehaved::Rejected(
                reason,
            ))) => *reason == DATA_DIGEST_ERROR,
            _ => false,
        }
    }

    fn kind(&self) -> Kind {
        match self {
            Self::Protocol(error) => protocol_kind(error),
            Self::Connect(_) | Self::ConnectionLost { .. } => Kind::Unreachable,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Scsi { sense, .. } => sense_kind(*sense),
            Self::Status { status, .. } => match status {
                0x08 | 0x18 | 0x28 => Kind::Conflict,
                _ => Kind::Protocol,
            },
            Self::Reset => Kind::InDoubt,
            Self::Fenced | Self::Reserved { .. } | Self::OtherDisk { .. } => Kind::Conflict,
            Self::Unusable { .. } => Kind::NotFound,
            Self::InvalidArgument(_) => Kind::Invalid,
            Self::LoggedOut => Kind::Conflict,
            Self::Local { .. } => Kind::Io,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Protocol(proto::Error::LoginRejected(LoginStatus::AUTHENTICATION_FAILURE)) => {
                "check the chap name and secret on both sides, and whether the target wants chap"
            }
            Self::Protocol(proto::Error::LoginRejected(LoginStatus::AUTHORIZATION_FAILURE)) => {
                "another initiator owns this target; check its access list"
            }
            Self::Protocol(proto::Error::LoginRejected(LoginStatus::NOT_FOUND)) => {
                "check the target's iqn; discovery lists what the portal has"
            }
            Self::Protocol(proto::Error::PeerNotAuthentic(_)) => {
                "check the secret by which the target proves itself; this may be another machine"
            }
            Self::Protocol(proto::Error::PeerIncompatible(
                proto::PeerIncompatible::DigestRefused(_),
            )) => "allow crc32c digests on the target, or do not require them",
            Self::Protocol(proto::Error::Redirected { .. }) => {
                "the target's portals redirect to each other; check its configuration"
            }
            Self::Connect(_) => "check that the target listens there and the network lets us",
            Self::ConnectionLost { .. } => "log in again and repeat what was not flushed",
            Self::Reset => "write everything since the last flush again",
            Self::Fenced => {
                "another run deploys this node now; if none does, restart the node's ramdisk"
            }
            Self::Status { status: 0x18, .. } => {
                "somebody else has reserved this disk: another run, or a cluster that uses it"
            }
            Self::Reserved { .. } => {
                "a cluster may use this disk; if not, clear its persistent reservation"
            }
            Self::OtherDisk { .. } => "the target was set up anew; start again",
            Self::Unusable { .. } => "name the lun of a disk; tgt's disks begin at 1",
            _ => return None,
        })
    }
}

fn protocol_kind(error: &proto::Error) -> Kind {
    use proto::InvalidPdu::{DataDigest, HeaderDigest};
    match error {
        proto::Error::InvalidPdu(HeaderDigest | DataDigest) => Kind::Corrupt,
        proto::Error::LoginRejected(status) => match (status.class, status.detail) {
            (2, 1) => Kind::Auth,
            (2, 3 | 4) => Kind::NotFound,
            (2, 5 | 9) => Kind::Unsupported,
            _ => Kind::Refused,
        },
        proto::Error::PeerNotAuthentic(_) => Kind::Auth,
        proto::Error::PeerIncompatible(_) | proto::Error::Redirected { .. } => Kind::Unsupported,
        proto::Error::ApiMisuse(_) => Kind::Invalid,
        _ => Kind::Protocol,
    }
}

fn sense_kind(sense: Sense) -> Kind {
    match (sense.key, sense.asc) {
        (SenseKey::DATA_PROTECT, _) if sense == Sense::SPACE_ALLOCATION_FAILED => Kind::Limit,
        (SenseKey::DATA_PROTECT, _) => Kind::Refused,
        (SenseKey::ILLEGAL_REQUEST, 0x20) => Kind::Unsupported,
        (SenseKey::ILLEGAL_REQUEST, 0x25) => Kind::NotFound,
        (SenseKey::ILLEGAL_REQUEST, _) => Kind::Invalid,
        (SenseKey::NOT_READY | SenseKey::UNIT_ATTENTION, _) => Kind::Conflict,
        _ => Kind::Io,
    }
}

/// The units to use instead.
fn others(luns: &[u64]) -> String {
    if luns.is_empty() {
        return String::new();
    }
    let luns: Vec<String> = luns.iter().map(u64::to_string).collect();
    format!("; the target has {}", luns.join(", "))
}

fn status_text(status: u8) -> &'static str {
    match status {
        0x02 => "check condition without sense data",
        0x08 => "busy",
        0x18 => "reservation conflict",
        0x28 => "task set full",
        0x30 => "aca active",
        0x40 => "task aborted",
        _ => "unknown",
    }
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let failure = &error.failure;
        let mut outer = Self::new(failure.kind(), failure.to_string())
            .op(error.op)
            .target(&*error.target)
            .retryable(failure.is_retryable());
        if let Some(hint) = failure.hint() {
            outer = outer.hint(hint);
        }
        match failure {
            Failure::Scsi { sense, .. } => {
                outer = outer
                    .detail("sense_key", sense.key.0)
                    .detail("asc", sense.asc)
                    .detail("ascq", sense.ascq);
            }
            Failure::Protocol(proto::Error::LoginRejected(status)) => {
                outer = outer
                    .detail("status_class", status.class)
                    .detail("status_detail", status.detail);
            }
            _ => {}
        }
        match failure.source() {
            Some(source) => outer.caused_by(source),
            None => outer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn becomes_the_crates_error() {
        let target: Arc<str> = "10.0.0.7:3260 iqn.x".into();
        let status = LoginStatus::AUTHENTICATION_FAILURE;
        let error = Error::new("iscsi.login", &target, proto::Error::LoginRejected(status));
        let error: crate::error::Error = error.into();
        assert_eq!(error.kind(), Kind::Auth);
        assert_eq!(
            error.to_string(),
            "iscsi.login(10.0.0.7:3260 iqn.x): login rejected: authentication failure (0x0201) [auth]"
        );
        assert!(!error.is_retryable());
        assert!(error.advice().is_some());

        let lost = Error::new("iscsi.write", &target, Failure::lost("reset by peer"));
        let lost: crate::error::Error = lost.into();
        assert_eq!(
            (lost.kind(), lost.is_retryable()),
            (Kind::Unreachable, true)
        );
    }
}
