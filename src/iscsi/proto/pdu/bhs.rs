//! What all Basic Header Segments have in common (RFC 7143 section 11.2.1).

use crate::iscsi::proto::error::InvalidPdu;
use bytes::{Buf, BufMut};
use std::fmt;

/// Length of a Basic Header Segment.
pub const BHS_LEN: usize = 48;

/// The bytes of a Basic Header Segment.
pub type Bhs = [u8; BHS_LEN];

/// A task tag that names no task.
pub const RESERVED_TAG: u32 = 0xffff_ffff;

/// The kind of a PDU (RFC 7143 section 11.2.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// Initiator's ping, or its answer to one.
    NopOut = 0x00,
    /// A SCSI command descriptor block.
    ScsiCommand = 0x01,
    /// Abort and reset.
    TaskManagementRequest = 0x02,
    /// A step of the login.
    LoginRequest = 0x03,
    /// Text negotiation in the full feature phase.
    TextRequest = 0x04,
    /// Data of a write.
    DataOut = 0x05,
    /// End of a connection or session.
    LogoutRequest = 0x06,
    /// Target's ping, or its answer to one.
    NopIn = 0x20,
    /// Status and sense of a command.
    ScsiResponse = 0x21,
    /// Outcome of a task management function.
    TaskManagementResponse = 0x22,
    /// A step of the login.
    LoginResponse = 0x23,
    /// Answer to text.
    TextResponse = 0x24,
    /// Data of a read.
    DataIn = 0x25,
    /// Outcome of a logout.
    LogoutResponse = 0x26,
    /// Request for data of a write.
    R2t = 0x31,
    /// An event at the target.
    AsyncMessage = 0x32,
    /// A PDU of ours that the target did not take.
    Reject = 0x3f,
}

impl Opcode {
    /// Every opcode that we use; SNACK (0x10) belongs to error recovery levels above 0.
    pub const ALL: [Self; 17] = [
        Self::NopOut,
        Self::ScsiCommand,
        Self::TaskManagementRequest,
        Self::LoginRequest,
        Self::TextRequest,
        Self::DataOut,
        Self::LogoutRequest,
        Self::NopIn,
        Self::ScsiResponse,
        Self::TaskManagementResponse,
        Self::LoginResponse,
        Self::TextResponse,
        Self::DataIn,
        Self::LogoutResponse,
        Self::R2t,
        Self::AsyncMessage,
        Self::Reject,
    ];

    /// The low six bits of byte 0.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }

    pub(super) fn of(bhs: &Bhs) -> Result<Self, InvalidPdu> {
        let code = bhs[0] & 0x3f;
        Self::ALL
            .into_iter()
            .find(|opcode| opcode.to_wire() == code)
            .ok_or(InvalidPdu::Opcode(code))
    }
}

impl fmt::Display for Opcode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NopOut => "NOP-Out",
            Self::ScsiCommand => "SCSI Command",
            Self::TaskManagementRequest => "Task Management Function Request",
            Self::LoginRequest => "Login Request",
            Self::TextRequest => "Text Request",
            Self::DataOut => "SCSI Data-Out",
            Self::LogoutRequest => "Logout Request",
            Self::NopIn => "NOP-In",
            Self::ScsiResponse => "SCSI Response",
            Self::TaskManagementResponse => "Task Management Function Response",
            Self::LoginResponse => "Login Response",
            Self::TextResponse => "Text Response",
            Self::DataIn => "SCSI Data-In",
            Self::LogoutResponse => "Logout Response",
            Self::R2t => "R2T",
            Self::AsyncMessage => "Asynchronous Message",
            Self::Reject => "Reject",
        })
    }
}

/// A logical unit number in its eight-byte form (SAM-5 section 4.7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Lun(pub u64);

impl Lun {
    /// The wire form of a plain number; `None` above 16383, which neither simple form can hold.
    #[must_use]
    pub fn from_number(number: u64) -> Option<Self> {
        match number {
            0..=0xff => Some(Self(number << 48)), // peripheral device addressing, bus 0
            0x100..=0x3fff => Some(Self((0x4000 | number) << 48)), // flat space addressing
            _ => None,
        }
    }

    /// The plain number, if the form is one of the two simple ones.
    #[must_use]
    pub fn number(self) -> Option<u64> {
        let first = self.0 >> 48;
        match (first >> 14, self.0 & 0xffff_ffff_ffff) {
            (0, 0) if first <= 0xff => Some(first),
            (1, 0) => Some(first & 0x3fff),
            _ => None,
        }
    }
}

/// The three sequence numbers that every PDU of a target carries in bytes 24 to 35.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetSn {
    /// StatSN.
    pub stat_sn: u32,
    /// ExpCmdSN.
    pub exp_cmd_sn: u32,
    /// MaxCmdSN.
    pub max_cmd_sn: u32,
}

impl TargetSn {
    pub(super) fn get(from: &mut &[u8]) -> Self {
        Self {
            stat_sn: from.get_u32(),
            exp_cmd_sn: from.get_u32(),
            max_cmd_sn: from.get_u32(),
        }
    }

    pub(super) fn put(self, to: &mut &mut [u8]) {
        to.put_u32(self.stat_sn);
        to.put_u32(self.exp_cmd_sn);
        to.put_u32(self.max_cmd_sn);
    }
}

/// Bit 6 of byte 0: the PDU is for immediate delivery.
pub(super) const IMMEDIATE: u8 = 0x40;

/// Bit 7 of byte 1: the F (final) bit, always set where a PDU cannot be one of several.
pub(super) const FINAL: u8 = 0x80;

/// A header with its opcode, the flag bytes 1 to 3 and the Initiator Task Tag.
pub(super) fn start(opcode: Opcode, immediate: bool, flags: [u8; 3], itt: u32) -> Bhs {
    let mut bhs = [0; BHS_LEN];
    bhs[0] = opcode.to_wire() | if immediate { IMMEDIATE } else { 0 };
    bhs[1..4].copy_from_slice(&flags);
    bhs[16..20].copy_from_slice(&itt.to_be_bytes());
    bhs
}

/// The eight bytes of the LUN field.
pub(super) fn put_lun(bhs: &mut Bhs, lun: Lun) {
    bhs[8..16].copy_from_slice(&lun.0.to_be_bytes());
}

pub(super) fn lun(bhs: &Bhs) -> Lun {
    Lun((&bhs[8..16]).get_u64())
}

pub(super) fn itt(bhs: &Bhs) -> u32 {
    (&bhs[16..20]).get_u32()
}

pub(super) fn is_immediate(bhs: &Bhs) -> bool {
    bhs[0] & IMMEDIATE != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lun_forms() {
        assert_eq!(Lun::from_number(1), Some(Lun(0x0001_0000_0000_0000)));
        assert_eq!(Lun::from_number(0x123), Some(Lun(0x4123_0000_0000_0000)));
        assert_eq!(Lun::from_number(0x4000), None);
        for number in [0, 1, 255, 256, 0x3fff] {
            assert_eq!(Lun::from_number(number).unwrap().number(), Some(number));
        }
        assert_eq!(Lun(0x4001_0000_0000_0000).number(), Some(1));
        assert_eq!(Lun(0x0001_0002_0000_0000).number(), None);
        assert_eq!(Lun(0xc101_0000_0000_0000).number(), None); // REPORT LUNS well-known unit
    }
}
