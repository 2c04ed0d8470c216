//! Text, logout, ping, events and rejects (RFC 7143 sections 11.9 to 11.11, 11.14 to 11.19).

use super::bhs::{
    Bhs, FINAL, Lun, Opcode, RESERVED_TAG, TargetSn, is_immediate, itt, lun, put_lun, start,
};
use bytes::{Buf, BufMut};

/// F and C of byte 1 of text PDUs.
fn text_flags(is_final: bool, more_follows: bool) -> [u8; 3] {
    [u8::from(is_final) << 7 | u8::from(more_follows) << 6, 0, 0]
}

/// Text Request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextRequest {
    /// I: outside of the CmdSN order.
    pub immediate: bool,
    /// F: the initiator has nothing more to negotiate.
    pub is_final: bool,
    /// C: the text goes on in the next request.
    pub more_follows: bool,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag of the response that this continues.
    pub ttt: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl TextRequest {
    pub(super) fn encode(&self) -> Bhs {
        let flags = text_flags(self.is_final, self.more_follows);
        let mut bhs = start(Opcode::TextRequest, self.immediate, flags, self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        to.put_u32(self.cmd_sn);
        to.put_u32(self.exp_stat_sn);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            immediate: is_immediate(bhs),
            is_final: bhs[1] & FINAL != 0,
            more_follows: bhs[1] & 0x40 != 0,
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
        }
    }
}

/// Text Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextResponse {
    /// F: the exchange is over.
    pub is_final: bool,
    /// C: the text goes on in the next response.
    pub more_follows: bool,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag, for the request that continues this.
    pub ttt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
}

impl TextResponse {
    pub(super) fn encode(&self) -> Bhs {
        let flags = text_flags(self.is_final, self.more_follows);
        let mut bhs = start(Opcode::TextResponse, false, flags, self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        self.sn.put(&mut to);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            is_final: bhs[1] & FINAL != 0,
            more_follows: bhs[1] & 0x40 != 0,
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            sn: TargetSn::get(&mut from),
        }
    }
}

/// Logout Request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutRequest {
    /// I: outside of the CmdSN order.
    pub immediate: bool,
    /// 0 close the session, 1 close the connection, 2 remove it for recovery.
    pub reason: u8,
    /// Initiator Task Tag.
    pub itt: u32,
    /// CID.
    pub cid: u16,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl LogoutRequest {
    pub(super) fn encode(&self) -> Bhs {
        let flags = [FINAL | self.reason & 0x7f, 0, 0];
        let mut bhs = start(Opcode::LogoutRequest, self.immediate, flags, self.itt);
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
            immediate: is_immediate(bhs),
            reason: bhs[1] & 0x7f,
            itt: itt(bhs),
            cid,
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
        }
    }
}

/// Logout Response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogoutResponse {
    /// 0 closed, 1 no such connection, 2 recovery not supported, 3 clean-up failed.
    pub response: u8,
    /// Initiator Task Tag.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// Time2Wait in seconds.
    pub time2wait: u16,
    /// Time2Retain in seconds.
    pub time2retain: u16,
}

impl LogoutResponse {
    pub(super) fn encode(&self) -> Bhs {
        let flags = [FINAL, self.response, 0];
        let mut bhs = start(Opcode::LogoutResponse, false, flags, self.itt);
        let mut to = &mut bhs[24..];
        self.sn.put(&mut to);
        to.put_u32(0);
        to.put_u16(self.time2wait);
        to.put_u16(self.time2retain);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[24..];
        let sn = TargetSn::get(&mut from);
        from.advance(4);
        Self {
            response: bhs[2],
            itt: itt(bhs),
            sn,
            time2wait: from.get_u16(),
            time2retain: from.get_u16(),
        }
    }
}

/// NOP-Out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NopOut {
    /// I: outside of the CmdSN order.
    pub immediate: bool,
    /// LUN, copied from the NOP-In that this answers.
    pub lun: Lun,
    /// Initiator Task Tag; reserved if no answer is wanted.
    pub itt: u32,
    /// Target Transfer Tag of the NOP-In that this answers; reserved in a ping.
    pub ttt: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
}

impl NopOut {
    pub(super) fn encode(&self) -> Bhs {
        let mut bhs = start(Opcode::NopOut, self.immediate, [FINAL, 0, 0], self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        to.put_u32(self.cmd_sn);
        to.put_u32(self.exp_stat_sn);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            immediate: is_immediate(bhs),
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
        }
    }
}

/// NOP-In.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NopIn {
    /// LUN, to be copied into the answer.
    pub lun: Lun,
    /// Initiator Task Tag of the ping that this answers; reserved in a ping.
    pub itt: u32,
    /// Target Transfer Tag; reserved if no answer is wanted.
    pub ttt: u32,
    /// StatSN (the next one if `itt` is reserved), ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
}

impl NopIn {
    pub(super) fn encode(&self) -> Bhs {
        let mut bhs = start(Opcode::NopIn, false, [FINAL, 0, 0], self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        self.sn.put(&mut to);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            sn: TargetSn::get(&mut from),
        }
    }
}

/// Asynchronous Message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AsyncMessage {
    /// LUN, for SCSI events.
    pub lun: Lun,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// AsyncEvent: 0 SCSI, 1 please log out, 2 connection ends, 3 session ends, 4 renegotiate.
    pub event: u8,
    /// AsyncVCode.
    pub vendor_code: u8,
    /// Parameter1 to Parameter3.
    pub parameters: [u16; 3],
}

impl AsyncMessage {
    pub(super) fn encode(&self) -> Bhs {
        let mut bhs = start(Opcode::AsyncMessage, false, [FINAL, 0, 0], RESERVED_TAG);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[24..];
        self.sn.put(&mut to);
        to.put_u8(self.event);
        to.put_u8(self.vendor_code);
        for parameter in self.parameters {
            to.put_u16(parameter);
        }
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[24..];
        Self {
            lun: lun(bhs),
            sn: TargetSn::get(&mut from),
            event: from.get_u8(),
            vendor_code: from.get_u8(),
            parameters: [from.get_u16(), from.get_u16(), from.get_u16()],
        }
    }
}

/// Reject. The data segment holds the header of the rejected PDU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// Reason.
    pub reason: u8,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// DataSN/R2TSN.
    pub data_sn: u32,
}

impl Reject {
    pub(super) fn encode(&self) -> Bhs {
        let mut bhs = start(Opcode::Reject, false, [FINAL, self.reason, 0], RESERVED_TAG);
        let mut to = &mut bhs[24..];
        self.sn.put(&mut to);
        to.put_u32(self.data_sn);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[24..];
        Self {
            reason: bhs[2],
            sn: TargetSn::get(&mut from),
            data_sn: from.get_u32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SN: TargetSn = TargetSn {
        stat_sn: 0x2122_2324,
        exp_cmd_sn: 0x2526_2728,
        max_cmd_sn: 0x292a_2b2c,
    };

    /// If this fails do not change the test.
    #[test]
    fn nop_out_answer_on_the_wire() {
        let nop = NopOut {
            immediate: true,
            lun: Lun(0x0001_0000_0000_0000),
            itt: RESERVED_TAG,
            ttt: 0x0a0b_0c0d,
            cmd_sn: 5,
            exp_stat_sn: 6,
        };
        let wire = [
            0x40, 0x80, 0x00, 0x00, // immediate; F
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0xff, 0xff, 0xff, 0xff, // Initiator Task Tag
            0x0a, 0x0b, 0x0c, 0x0d, // Target Transfer Tag
            0x00, 0x00, 0x00, 0x05, // CmdSN
            0x00, 0x00, 0x00, 0x06, // ExpStatSN
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(nop.encode(), wire);
        assert_eq!(NopOut::decode(&wire), nop);
    }

    /// If this fails do not change the test.
    #[test]
    fn logout_on_the_wire() {
        let request = LogoutRequest {
            immediate: true,
            reason: 0,
            itt: 7,
            cid: 1,
            cmd_sn: 5,
            exp_stat_sn: 6,
        };
        let wire = [
            0x46, 0x80, 0x00, 0x00, // immediate; F, close session
            0x00, 0x00, 0x00, 0x00, // lengths
            0, 0, 0, 0, 0, 0, 0, 0, // reserved
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0x00, 0x01, 0x00, 0x00, // CID
            0x00, 0x00, 0x00, 0x05, // CmdSN
            0x00, 0x00, 0x00, 0x06, // ExpStatSN
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(request.encode(), wire);
        assert_eq!(LogoutRequest::decode(&wire), request);

        let response = LogoutResponse {
            response: 2,
            itt: 7,
            sn: SN,
            time2wait: 2,
            time2retain: 20,
        };
        let wire = [
            0x26, 0x80, 0x02, 0x00, // F; recovery not supported
            0x00, 0x00, 0x00, 0x00, // lengths
            0, 0, 0, 0, 0, 0, 0, 0, // reserved
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0x00, 0x00, 0x00, 0x00, // reserved
            0x21, 0x22, 0x23, 0x24, // StatSN
            0x25, 0x26, 0x27, 0x28, // ExpCmdSN
            0x29, 0x2a, 0x2b, 0x2c, // MaxCmdSN
            0x00, 0x00, 0x00, 0x00, // reserved
            0x00, 0x02, 0x00, 0x14, // Time2Wait, Time2Retain
            0x00, 0x00, 0x00, 0x00, // reserved
        ];
        assert_eq!(response.encode(), wire);
        assert_eq!(LogoutResponse::decode(&wire), response);
    }

    /// If this fails do not change the test.
    #[test]
    fn events_on_the_wire() {
        let message = AsyncMessage {
            lun: Lun(0),
            sn: SN,
            event: 1,
            vendor_code: 0,
            parameters: [0, 0, 30],
        };
        let wire = [
            0x32, 0x80, 0x00, 0x00, // F
            0x00, 0x00, 0x00, 0x00, // lengths
            0, 0, 0, 0, 0, 0, 0, 0, // LUN
            0xff, 0xff, 0xff, 0xff, // reserved tag
            0x00, 0x00, 0x00, 0x00, // reserved
            0x21, 0x22, 0x23, 0x24, // StatSN
            0x25, 0x26, 0x27, 0x28, // ExpCmdSN
            0x29, 0x2a, 0x2b, 0x2c, // MaxCmdSN
            0x01, 0x00, 0x00, 0x00, // please log out; Parameter1
            0x00, 0x00, 0x00, 0x1e, // Parameter2, Parameter3: within 30 s
            0x00, 0x00, 0x00, 0x00, // reserved
        ];
        assert_eq!(message.encode(), wire);
        assert_eq!(AsyncMessage::decode(&wire), message);
    }
}
