//! Login Request and Response (RFC 7143 sections 11.12 and 11.13).

use super::bhs::{Bhs, Opcode, TargetSn, itt, start};
use crate::iscsi::proto::error::LoginStatus;
use bytes::{Buf, BufMut};

/// The initiator's part of a session identifier.
pub type Isid = [u8; 6];

/// A stage of the login (CSG and NSG fields).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Who are you.
    Security,
    /// How shall we talk.
    Operational,
    /// A value that the RFC reserves.
    Reserved,
    /// The login is over.
    FullFeature,
}

impl Stage {
    fn of(bits: u8) -> Self {
        match bits & 0x03 {
            0 => Self::Security,
            1 => Self::Operational,
            2 => Self::Reserved,
            _ => Self::FullFeature,
        }
    }

    fn bits(self) -> u8 {
        match self {
            Self::Security => 0,
            Self::Operational => 1,
            Self::Reserved => 2,
            Self::FullFeature => 3,
        }
    }
}

/// Byte 1 of both PDUs: T, C, CSG, NSG.
fn flags(transit: bool, more_follows: bool, csg: Stage, nsg: Stage) -> u8 {
    u8::from(transit) << 7 | u8::from(more_follows) << 6 | csg.bits() << 2 | nsg.bits()
}

/// A step of the login by the initiator; always immediate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginRequest {
    /// T: the initiator is ready to go to `nsg`.
    pub transit: bool,
    /// C: the text goes on in the next request.
    pub more_follows: bool,
    /// CSG.
    pub csg: Stage,
    /// NSG, of meaning only with `transit`.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-min.
    pub version_min: u8,
    /// ISID.
    pub isid: Isid,
    /// TSIH; 0 asks for a new session.
    pub tsih: u16,
    /// Initiator Task Tag.
    pub itt: u32,
    /// CID.
    pub cid: u16,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl LoginRequest {
    pub(super) fn encode(&self) -> Bhs {
        let first = flags(self.transit, self.more_follows, self.csg, self.nsg);
        let flags = [first, self.version_max, self.version_min];
        let mut bhs = start(Opcode::LoginRequest, true, flags, self.itt);
        bhs[8..14].copy_from_slice(&self.isid);
        bhs[14..16].copy_from_slice(&self.tsih.to_be_bytes());
        let mut to = &mut bhs[20..];
        to.put_u16(self.cid);
        to.put_u16(0);
        to.put_u32(self.cmd_sn);
        to.put_u32(self.exp_stat_sn);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        let cid = from.get_u16();
        from.advance(2);
        Self {
            transit: bhs[1] & 0x80 != 0,
            more_follows: bhs[1] & 0x40 != 0,
            csg: Stage::of(bhs[1] >> 2),
            nsg: Stage::of(bhs[1]),
            version_max: bhs[2],
            version_min: bhs[3],
            isid: [bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]],
            tsih: u16::from_be_bytes([bhs[14], bhs[15]]),
            itt: itt(bhs),
            cid,
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
        }
    }
}

/// A step of the login by the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoginResponse {
    /// T: the target goes to `nsg`.
    pub transit: bool,
    /// C: the text goes on in the next response.
    pub more_follows: bool,
    /// CSG.
    pub csg: Stage,
    /// NSG, of meaning only with `transit`.
    pub nsg: Stage,
    /// Version-max.
    pub version_max: u8,
    /// Version-active.
    pub version_active: u8,
    /// ISID.
    pub isid: Isid,
    /// TSIH, valid in the last response of the login.
    pub tsih: u16,
    /// Initiator Task Tag.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// Status-Class and Status-Detail.
    pub status: LoginStatus,
}

impl LoginResponse {
    pub(super) fn encode(&self) -> Bhs {
        let first = flags(self.transit, self.more_follows, self.csg, self.nsg);
        let flags = [first, self.version_max, self.version_active];
        let mut bhs = start(Opcode::LoginResponse, false, flags, self.itt);
        bhs[8..14].copy_from_slice(&self.isid);
        bhs[14..16].copy_from_slice(&self.tsih.to_be_bytes());
        let mut to = &mut bhs[24..];
        self.sn.put(&mut to);
        to.put_u8(self.status.class);
        to.put_u8(self.status.detail);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[24..];
        Self {
            transit: bhs[1] & 0x80 != 0,
            more_follows: bhs[1] & 0x40 != 0,
            csg: Stage::of(bhs[1] >> 2),
            nsg: Stage::of(bhs[1]),
            version_max: bhs[2],
            version_active: bhs[3],
            isid: [bhs[8], bhs[9], bhs[10], bhs[11], bhs[12], bhs[13]],
            tsih: u16::from_be_bytes([bhs[14], bhs[15]]),
            itt: itt(bhs),
            sn: TargetSn::get(&mut from),
            status: LoginStatus {
                class: from.get_u8(),
                detail: from.get_u8(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// If this fails do not change the test.
    #[test]
    fn login_request_on_the_wire() {
        let request = LoginRequest {
            transit: true,
            more_follows: false,
            csg: Stage::Operational,
            nsg: Stage::FullFeature,
            version_max: 0,
            version_min: 0,
            isid: [0x80, 1, 2, 3, 4, 5],
            tsih: 0x0607,
            itt: 0x0809_0a0b,
            cid: 0x0c0d,
            cmd_sn: 0x1011_1213,
            exp_stat_sn: 0x1415_1617,
        };
        let wire = [
            0x43, 0x87, 0x00, 0x00, // immediate login; T, CSG 1, NSG 3; versions
            0x00, 0x00, 0x00, 0x00, // lengths
            0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, // ISID, TSIH
            0x08, 0x09, 0x0a, 0x0b, // Initiator Task Tag
            0x0c, 0x0d, 0x00, 0x00, // CID
            0x10, 0x11, 0x12, 0x13, // CmdSN
            0x14, 0x15, 0x16, 0x17, // ExpStatSN
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(request.encode(), wire);
        assert_eq!(LoginRequest::decode(&wire), request);
    }

    /// If this fails do not change the test.
    #[test]
    fn login_response_on_the_wire() {
        let response = LoginResponse {
            transit: false,
            more_follows: true,
            csg: Stage::Security,
            nsg: Stage::Security,
            version_max: 0,
            version_active: 0,
            isid: [0x80, 1, 2, 3, 4, 5],
            tsih: 0,
            itt: 1,
            sn: TargetSn {
                stat_sn: 2,
                exp_cmd_sn: 3,
                max_cmd_sn: 4,
            },
            status: LoginStatus::AUTHENTICATION_FAILURE,
        };
        let wire = [
            0x23, 0x40, 0x00, 0x00, // C, CSG 0
            0x00, 0x00, 0x00, 0x00, // lengths
            0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x00, 0x00, // ISID, TSIH
            0x00, 0x00, 0x00, 0x01, // Initiator Task Tag
            0x00, 0x00, 0x00, 0x00, // reserved
            0x00, 0x00, 0x00, 0x02, // StatSN
            0x00, 0x00, 0x00, 0x03, // ExpCmdSN
            0x00, 0x00, 0x00, 0x04, // MaxCmdSN
            0x02, 0x01, 0x00, 0x00, // Status-Class, Status-Detail
            0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(response.encode(), wire);
        assert_eq!(LoginResponse::decode(&wire), response);
    }
}
