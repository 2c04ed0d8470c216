//! What can go wrong on a connection, by who is to blame.

use super::pdu::Opcode;
use std::fmt;

/// Why a connection cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not a PDU.
    #[error("invalid pdu: {0}")]
    InvalidPdu(#[from] InvalidPdu),
    /// The PDU is valid, but must not come here.
    #[error("peer broke the protocol: {0}")]
    PeerMisbehaved(#[from] PeerMisbehaved),
    /// The peer does what it may, but not what we need.
    #[error("peer is incompatible: {0}")]
    PeerIncompatible(#[from] PeerIncompatible),
    /// The target refused the login.
    #[error("login rejected: {0}")]
    LoginRejected(LoginStatus),
    /// The target is elsewhere.
    #[error("target moved to {address}")]
    Redirected {
        /// Where, as `host:port`.
        address: String,
        /// Whether it will stay there.
        permanent: bool,
    },
    /// The peer could not prove that it knows the CHAP secret.
    #[error("peer failed to authenticate itself: {0}")]
    PeerNotAuthentic(&'static str),
    /// The caller asked for something that cannot be.
    #[error("{0}")]
    ApiMisuse(&'static str),
}

/// Bytes that are not a PDU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPdu {
    /// No such opcode, or one that we do not use.
    #[error("unknown opcode {0:#04x}")]
    Opcode(u8),
    /// The data segment is longer than we said we take.
    #[error("data segment of {length} bytes, at most {limit} allowed")]
    TooLong {
        /// Its DataSegmentLength.
        length: u32,
        /// Our MaxRecvDataSegmentLength.
        limit: u32,
    },
    /// The CRC32C over the header does not match.
    #[error("wrong header digest")]
    HeaderDigest,
    /// The CRC32C over the data segment does not match.
    #[error("wrong data digest")]
    DataDigest,
    /// The text is not a list of `key=value` pairs.
    #[error("malformed text: {0}")]
    Text(&'static str),
}

/// A breach of RFC 7143 by the peer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerMisbehaved {
    /// This PDU has no place here.
    #[error("unexpected {got} while {during}")]
    UnexpectedPdu {
        /// What came.
        got: Opcode,
        /// What was going on.
        during: &'static str,
    },
    /// A PDU names a task that does not exist.
    #[error("{got} for unknown task {tag:#010x}")]
    UnknownTask {
        /// What came.
        got: &'static str,
        /// Its Initiator Task Tag.
        tag: u32,
    },
    /// A number does not fit what came before.
    #[error("{field} is {got}, expected {expected}")]
    Sequence {
        /// The field's name in the RFC.
        field: &'static str,
        /// What came.
        got: u64,
        /// What had to come.
        expected: u64,
    },
    /// More data than was asked for or announced.
    #[error("{0}")]
    Data(&'static str),
    /// A login or text exchange took a wrong turn.
    #[error("{0}")]
    Exchange(&'static str),
    /// A key that was required or offered has a value outside its range.
    #[error("{key}={value}")]
    Key {
        /// The key.
        key: String,
        /// What came.
        value: String,
    },
    /// The target rejected a PDU that we believe correct.
    #[error("peer rejected a pdu of ours, reason {0:#04x} ({text})", text = reject_reason(*.0))]
    Rejected(u8),
}

/// A legal answer that we cannot work with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerIncompatible {
    /// The peer wants an authentication method that we are not set up for.
    #[error("authentication method {0:?} is not configured here")]
    AuthMethod(String),
    /// The peer chose a CHAP algorithm that we did not offer, or offers none we know.
    #[error("no common chap algorithm (peer: {0:?})")]
    ChapAlgorithm(String),
    /// Digests were required and the peer refused them.
    #[error("peer refuses the required {0}")]
    DigestRefused(&'static str),
    /// The peer rejected a key.
    #[error("peer answers {key}={value}")]
    KeyRefused {
        /// The key.
        key: String,
        /// `Reject`, `NotUnderstood` or a value outside of what we can do.
        value: String,
    },
    /// Another protocol version.
    #[error("peer speaks version {0:#04x}, we speak 0x00")]
    Version(u8),
}

/// Status-Class and Status-Detail of a Login Response (RFC 7143 section 11.13.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoginStatus {
    /// 0 success, 1 redirection, 2 initiator error, 3 target error.
    pub class: u8,
    /// What exactly, within the class.
    pub detail: u8,
}

impl LoginStatus {
    /// The login may go on.
    pub const SUCCESS: Self = Self::new(0x00, 0x00);
    /// Something about the request that has no detail of its own.
    pub const INITIATOR_ERROR: Self = Self::new(0x02, 0x00);
    /// The initiator could not be authenticated.
    pub const AUTHENTICATION_FAILURE: Self = Self::new(0x02, 0x01);
    /// This initiator may not use this target.
    pub const AUTHORIZATION_FAILURE: Self = Self::new(0x02, 0x02);
    /// There is no such target here.
    pub const NOT_FOUND: Self = Self::new(0x02, 0x03);
    /// A version that the target does not speak.
    pub const UNSUPPORTED_VERSION: Self = Self::new(0x02, 0x05);
    /// No further connection in this session.
    pub const TOO_MANY_CONNECTIONS: Self = Self::new(0x02, 0x06);
    /// A key that must come did not.
    pub const MISSING_PARAMETER: Self = Self::new(0x02, 0x07);
    /// Neither a normal nor a discovery session.
    pub const SESSION_TYPE_NOT_SUPPORTED: Self = Self::new(0x02, 0x09);
    /// The TSIH names no session.
    pub const SESSION_DOES_NOT_EXIST: Self = Self::new(0x02, 0x0a);
    /// A PDU that a login does not allow.
    pub const INVALID_DURING_LOGIN: Self = Self::new(0x02, 0x0b);
    /// The target is out of sessions or memory.
    pub const OUT_OF_RESOURCES: Self = Self::new(0x03, 0x02);

    /// A status by its two numbers.
    #[must_use]
    pub const fn new(class: u8, detail: u8) -> Self {
        Self { class, detail }
    }

    /// What the RFC says about it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match (self.class, self.detail) {
            (0x00, _) => "success",
            (0x01, 0x01) => "target moved temporarily",
            (0x01, 0x02) => "target moved permanently",
            (0x01, _) => "redirection",
            (0x02, 0x01) => "authentication failure",
            (0x02, 0x02) => "initiator is not allowed to use this target",
            (0x02, 0x03) => "target not found",
            (0x02, 0x04) => "target removed",
            (0x02, 0x05) => "unsupported version",
            (0x02, 0x06) => "too many connections",
            (0x02, 0x07) => "missing parameter",
            (0x02, 0x08) => "cannot include in session",
            (0x02, 0x09) => "session type not supported",
            (0x02, 0x0a) => "session does not exist",
            (0x02, 0x0b) => "invalid request during login",
            (0x02, _) => "initiator error",
            (0x03, 0x01) => "service unavailable",
            (0x03, 0x02) => "out of resources",
            (0x03, _) => "target error",
            _ => "unknown status",
        }
    }
}

impl fmt::Display for LoginStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text();
        write!(f, "{text} (0x{:02x}{:02x})", self.class, self.detail)
    }
}

/// Reason of a Reject PDU (RFC 7143 section 11.17.1).
fn reject_reason(reason: u8) -> &'static str {
    match reason {
        0x02 => "data digest error",
        0x03 => "snack reject",
        0x04 => "protocol error",
        0x05 => "command not supported",
        0x06 => "too many immediate commands",
        0x07 => "task in progress",
        0x08 => "invalid data ack",
        0x09 => "invalid pdu field",
        0x0a => "long operation reject",
        0x0c => "waiting for logout",
        _ => "unknown reason",
    }
}
