//! Sense data: why a command failed (SPC-5 section 4.4).

use bytes::{BufMut, Bytes, BytesMut};
use std::fmt;

/// SENSE KEY.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SenseKey(pub u8);

impl SenseKey {
    /// Nothing to say.
    pub const NO_SENSE: Self = Self(0x0);
    /// It worked, with some effort.
    pub const RECOVERED_ERROR: Self = Self(0x1);
    /// The unit cannot be accessed.
    pub const NOT_READY: Self = Self(0x2);
    /// The medium is bad here.
    pub const MEDIUM_ERROR: Self = Self(0x3);
    /// The device is bad.
    pub const HARDWARE_ERROR: Self = Self(0x4);
    /// The command makes no sense to the unit.
    pub const ILLEGAL_REQUEST: Self = Self(0x5);
    /// Something happened that the initiator must know before it goes on.
    pub const UNIT_ATTENTION: Self = Self(0x6);
    /// The blocks must not be written.
    pub const DATA_PROTECT: Self = Self(0x7);
    /// The target gave the command up.
    pub const ABORTED_COMMAND: Self = Self(0xb);

    /// The name in SPC-5.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            0x0 => "no sense",
            0x1 => "recovered error",
            0x2 => "not ready",
            0x3 => "medium error",
            0x4 => "hardware error",
            0x5 => "illegal request",
            0x6 => "unit attention",
            0x7 => "data protect",
            0x8 => "blank check",
            0x9 => "vendor specific",
            0xa => "copy aborted",
            0xb => "aborted command",
            0xd => "volume overflow",
            0xe => "miscompare",
            0xf => "completed",
            _ => "reserved sense key",
        }
    }
}

/// The three numbers that name a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sense {
    /// SENSE KEY.
    pub key: SenseKey,
    /// ADDITIONAL SENSE CODE.
    pub asc: u8,
    /// ADDITIONAL SENSE CODE QUALIFIER.
    pub ascq: u8,
}

impl Sense {
    /// Nothing to say.
    pub const NO_SENSE: Self = Self::new(SenseKey::NO_SENSE, 0x00, 0x00);
    /// No such command.
    pub const INVALID_OPERATION_CODE: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x20, 0x00);
    /// Blocks beyond the end.
    pub const LBA_OUT_OF_RANGE: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x21, 0x00);
    /// A field of the CDB has a value that is not supported.
    pub const INVALID_FIELD_IN_CDB: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x24, 0x00);
    /// No such logical unit.
    pub const LOGICAL_UNIT_NOT_SUPPORTED: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x25, 0x00);
    /// The parameter list ends too early.
    pub const PARAMETER_LIST_LENGTH_ERROR: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x1a, 0x00);
    /// A field of the parameter list has a value that is not supported.
    pub const INVALID_FIELD_IN_PARAMETER_LIST: Self =
        Self::new(SenseKey::ILLEGAL_REQUEST, 0x26, 0x00);
    /// Another command has to come before this one.
    pub const COMMAND_SEQUENCE_ERROR: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x2c, 0x00);
    /// A RELEASE names another kind than the reservation has.
    pub const INVALID_RELEASE: Self = Self::new(SenseKey::ILLEGAL_REQUEST, 0x26, 0x04);
    /// No more initiator ports can register.
    pub const INSUFFICIENT_REGISTRATION_RESOURCES: Self =
        Self::new(SenseKey::ILLEGAL_REQUEST, 0x55, 0x04);
    /// There are no saved mode pages.
    pub const SAVING_PARAMETERS_NOT_SUPPORTED: Self =
        Self::new(SenseKey::ILLEGAL_REQUEST, 0x39, 0x00);
    /// What is behind the unit does not answer.
    pub const LOGICAL_UNIT_COMMUNICATION_FAILURE: Self = Self::new(SenseKey::NOT_READY, 0x08, 0x00);
    /// A read failed for good.
    pub const UNRECOVERED_READ_ERROR: Self = Self::new(SenseKey::MEDIUM_ERROR, 0x11, 0x00);
    /// A write failed for good.
    pub const WRITE_ERROR: Self = Self::new(SenseKey::MEDIUM_ERROR, 0x0c, 0x00);
    /// The pool behind a thin unit is full.
    pub const SPACE_ALLOCATION_FAILED: Self = Self::new(SenseKey::DATA_PROTECT, 0x27, 0x07);
    /// The unit was switched on or reset.
    pub const POWER_ON_OR_RESET: Self = Self::new(SenseKey::UNIT_ATTENTION, 0x29, 0x00);
    /// The session before this one ended, and nothing else happened to the unit.
    pub const I_T_NEXUS_LOSS: Self = Self::new(SenseKey::UNIT_ATTENTION, 0x29, 0x07);
    /// Another initiator dropped the reservation and all keys.
    pub const RESERVATIONS_PREEMPTED: Self = Self::new(SenseKey::UNIT_ATTENTION, 0x2a, 0x03);
    /// The holder gave the reservation up.
    pub const RESERVATIONS_RELEASED: Self = Self::new(SenseKey::UNIT_ATTENTION, 0x2a, 0x04);
    /// Another initiator dropped our key.
    pub const REGISTRATIONS_PREEMPTED: Self = Self::new(SenseKey::UNIT_ATTENTION, 0x2a, 0x05);
    /// Something inside the target failed.
    pub const INTERNAL_TARGET_FAILURE: Self = Self::new(SenseKey::HARDWARE_ERROR, 0x44, 0x00);

    /// A condition by its numbers.
    #[must_use]
    pub const fn new(key: SenseKey, asc: u8, ascq: u8) -> Self {
        Self { key, asc, ascq }
    }

    /// The 18 bytes of fixed format.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut bytes = BytesMut::zeroed(0);
        bytes.put_u8(0x70); // current error, fixed format
        bytes.put_u8(0);
        bytes.put_u8(self.key.0);
        bytes.put_u32(0); // INFORMATION
        bytes.put_u8(10); // ADDITIONAL SENSE LENGTH
        bytes.put_u32(0);
        bytes.put_u8(self.asc);
        bytes.put_u8(self.ascq);
        bytes.put_u32(0);
        bytes.freeze()
    }

    /// Decodes fixed or descriptor format; `None` if it is neither.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let at = |index: usize| bytes.get(index).copied();
        match at(0)? & 0x7f {
            // Deviates: SPC-5 wants 18 bytes; sense may be cut short, and then these are unknown.
            0x70 | 0x71 => Some(Self {
                key: SenseKey(at(2)? & 0x0f),
                asc: at(12).unwrap_or(0),
                ascq: at(13).unwrap_or(0),
            }),
            0x72 | 0x73 => Some(Self {
                key: SenseKey(at(1)? & 0x0f),
                asc: at(2)?,
                ascq: at(3)?,
            }),
            _ => None,
        }
    }

    /// Whether the unit was reset, so that what its cache held may be lost.
    #[must_use]
    pub fn is_reset(self) -> bool {
        self.key == SenseKey::UNIT_ATTENTION && self.asc == 0x29 && self != Self::I_T_NEXUS_LOSS
    }

    /// Whether the unit will be ready by itself.
    #[must_use]
    pub fn is_becoming_ready(self) -> bool {
        self.key == SenseKey::NOT_READY && self.asc == 0x04 && matches!(self.ascq, 0x01 | 0x0a)
    }

    /// What SPC-5 calls it, for the conditions that disks have.
    #[must_use]
    pub fn text(self) -> &'static str {
        match (self.asc, self.ascq) {
            (0x00, 0x00) => "no additional sense information",
            (0x03, 0x00) => "peripheral device write fault",
            (0x04, 0x01) => "logical unit is in process of becoming ready",
            (0x04, 0x02) => "initializing command required",
            (0x04, 0x03) => "manual intervention required",
            (0x04, 0x0a) => "asymmetric access state transition",
            (0x04, _) => "logical unit not ready",
            (0x08, _) => "logical unit communication failure",
            (0x0c, _) => "write error",
            (0x10, _) => "protection information check failed",
            (0x11, _) => "unrecovered read error",
            (0x1a, _) => "parameter list length error",
            (0x1d, _) => "miscompare during verify operation",
            (0x20, 0x00) => "invalid command operation code",
            (0x20, _) => "access denied",
            (0x21, _) => "logical block address out of range",
            (0x24, _) => "invalid field in cdb",
            (0x25, _) => "logical unit not supported",
            (0x26, 0x04) => "invalid release of persistent reservation",
            (0x26, _) => "invalid field in parameter list",
            (0x27, 0x07) => "space allocation failed, the target's storage is full",
            (0x27, _) => "write protected",
            (0x28, _) => "medium may have changed",
            (0x29, 0x07) => "i_t nexus loss occurred",
            (0x29, _) => "power on or reset occurred",
            (0x2a, 0x01) => "mode parameters changed",
            (0x2a, 0x03..=0x05) => "reservations changed",
            (0x2a, 0x09) => "capacity data has changed",
            (0x2a, _) => "parameters changed",
            (0x2f, _) => "commands cleared by another initiator",
            (0x38, 0x07) => "thin provisioning soft threshold reached",
            (0x3a, _) => "medium not present",
            (0x39, _) => "saving parameters not supported",
            (0x3e, _) => "logical unit has failed",
            (0x3f, 0x0e) => "reported luns data has changed",
            (0x3f, _) => "target operating conditions have changed",
            (0x44, _) => "internal target failure",
            (0x47, _) => "data transfer integrity error",
            (0x4b, _) => "data phase error",
            (0x55, 0x04) => "insufficient registration resources",
            _ => "unnamed condition",
        }
    }
}

impl fmt::Display for Sense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, text) = (self.key.name(), self.text());
        let (number, asc, ascq) = (self.key.0, self.asc, self.ascq);
        write!(f, "{key}: {text} ({number:x}/{asc:02x}/{ascq:02x})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If this fails do not change the test.
    #[test]
    fn on_the_wire() {
        let fixed = [
            0x70, 0, 0x05, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0x24, 0x00, 0, 0, 0, 0,
        ];
        assert_eq!(Sense::INVALID_FIELD_IN_CDB.encode()[..], fixed);
        assert_eq!(Sense::decode(&fixed), Some(Sense::INVALID_FIELD_IN_CDB));
        let descriptor = [0x72, 0x06, 0x29, 0x00, 0, 0, 0, 0];
        assert_eq!(Sense::decode(&descriptor), Some(Sense::POWER_ON_OR_RESET));
    }

    #[test]
    fn reads_like_the_standard() {
        assert_eq!(
            Sense::SPACE_ALLOCATION_FAILED.to_string(),
            "data protect: space allocation failed, the target's storage is full (7/27/07)"
        );
    }

    proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>) {
            drop(Sense::decode(&bytes).map(|sense| sense.to_string()));
        }

        #[test]
        fn round_trip(key in 0u8..16, asc: u8, ascq: u8) {
            let sense = Sense::new(SenseKey(key), asc, ascq);
            prop_assert_eq!(Sense::decode(&sense.encode()), Some(sense));
        }
    }
}
