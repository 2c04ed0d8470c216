//! Protocol data units: the Basic Header Segment of each opcode and its data segment.
//!
//! The structs name their fields as RFC 7143 section 11 does. The lengths in the header are not
//! fields: [`super::framing`] writes and reads them with the data segment they describe.

mod bhs;
mod connection;
mod login;
mod scsi;
mod task;

pub use bhs::{BHS_LEN, Bhs, Lun, Opcode, RESERVED_TAG, TargetSn};
pub use connection::{
    AsyncMessage, LogoutRequest, LogoutResponse, NopIn, NopOut, Reject, TextRequest, TextResponse,
};
pub use login::{Isid, LoginRequest, LoginResponse, Stage};
pub use scsi::{DataIn, DataOut, Direction, R2t, ScsiCommand, ScsiResponse, Status};
pub use task::{TaskFunction, TaskManagementRequest, TaskManagementResponse};

use super::error::InvalidPdu;
use bytes::Bytes;

/// A header and its data segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pdu {
    /// The decoded Basic Header Segment.
    pub header: Header,
    /// The data segment without padding.
    pub data: Bytes,
}

macro_rules! headers {
    ($($name:ident),* $(,)?) => {
        /// The Basic Header Segment by opcode.
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Header {
            $(
                #[doc = concat!("A [`", stringify!($name), "`].")]
                $name($name),
            )*
        }

        impl Header {
            /// The 48 bytes, with both length fields zero.
            #[must_use]
            pub fn encode(&self) -> Bhs {
                match self {
                    $(Self::$name(header) => header.encode(),)*
                }
            }

            /// Decodes 48 bytes. Reserved bits and lengths are not looked at.
            ///
            /// # Errors
            /// If the opcode is unknown.
            pub fn decode(bhs: &Bhs) -> Result<Self, InvalidPdu> {
                Ok(match Opcode::of(bhs)? {
                    $(Opcode::$name => Self::$name($name::decode(bhs)),)*
                })
            }

            /// The opcode.
            #[must_use]
            pub fn opcode(&self) -> Opcode {
                match self {
                    $(Self::$name(_) => Opcode::$name,)*
                }
            }
        }

        $(
            impl From<$name> for Header {
                fn from(header: $name) -> Self {
                    Self::$name(header)
                }
            }
        )*
    };
}

headers!(
    NopOut,
    ScsiCommand,
    TaskManagementRequest,
    LoginRequest,
    TextRequest,
    DataOut,
    LogoutRequest,
    NopIn,
    ScsiResponse,
    TaskManagementResponse,
    LoginResponse,
    TextResponse,
    DataIn,
    LogoutResponse,
    R2t,
    AsyncMessage,
    Reject,
);

impl Pdu {
    /// A PDU without data segment.
    pub fn bare(header: impl Into<Header>) -> Self {
        Self::new(header, Bytes::new())
    }

    /// A PDU with a data segment, which must fit the peer's MaxRecvDataSegmentLength.
    pub fn new(header: impl Into<Header>, data: Bytes) -> Self {
        let header = header.into();
        Self { header, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// What decodes encodes to the same meaning, and nothing panics on any 48 bytes.
        #[test]
        fn decoding_is_stable(bhs in proptest::array::uniform32(any::<u8>()),
                              rest in proptest::array::uniform16(any::<u8>()),
                              opcode in proptest::sample::select(Opcode::ALL.to_vec())) {
            let mut raw = [0; BHS_LEN];
            raw[..32].copy_from_slice(&bhs);
            raw[32..].copy_from_slice(&rest);
            raw[0] = (raw[0] & 0xc0) | opcode.to_wire();
            let header = Header::decode(&raw).unwrap();
            prop_assert_eq!(header.opcode(), opcode);
            prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn unknown_opcodes_are_named() {
        let mut raw = [0; BHS_LEN];
        raw[0] = 0x10; // SNACK, which needs ErrorRecoveryLevel 1
        assert_eq!(Header::decode(&raw), Err(InvalidPdu::Opcode(0x10)));
    }
}
