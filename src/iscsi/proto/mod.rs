//! The iSCSI protocol (RFC 7143) without I/O: bytes in, bytes out.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or logs; whoever drives a
//! connection does. The order of calls is the same for both ends of a connection:
//!
//! 1. Bytes from the peer go through a [`framing::Decoder`], which yields [`pdu::Pdu`]s.
//! 2. A login (`login::Initiator*` or `login::Target*`) consumes one PDU per step and yields the
//!    PDU to send and its successor, until both ends agree on [`negotiate::Params`].
//! 3. A session core ([`session::InitiatorSession`] or [`session::TargetSession`]) takes PDUs with
//!    `handle_pdu` and commands with methods of its own. After every such call the driver drains
//!    `poll_transmit` into a [`framing::SendQueue`] and `poll_event`.
//!
//! An `Err` means that the connection is of no further use. Peers' bytes never panic and never
//! make us allocate more than the limits negotiated or named beside the code.

pub mod chap;
pub mod digest;
pub mod error;
pub mod framing;
#[cfg(test)]
mod hostile;
pub mod login;
pub mod negotiate;
pub mod pdu;
pub mod session;
pub mod text;
pub mod window;

pub use error::{Error, InvalidPdu, LoginStatus, PeerIncompatible, PeerMisbehaved};
