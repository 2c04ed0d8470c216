//! SCSI commands, their data and their responses (RFC 7143 sections 11.3, 11.4, 11.7, 11.8).

use super::bhs::{Bhs, FINAL, Lun, Opcode, TargetSn, is_immediate, itt, lun, put_lun, start};
use bytes::{Buf, BufMut};

/// Which way a command's data goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// No data.
    None,
    /// From the target (R bit).
    Read,
    /// To the target (W bit).
    Write,
    /// Both, which only commands that we do not support use.
    Bidirectional,
}

/// SCSI Command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiCommand {
    /// I: outside of the CmdSN order.
    pub immediate: bool,
    /// F: no unsolicited Data-Out follows.
    pub is_final: bool,
    /// R and W.
    pub direction: Direction,
    /// ATTR: 0 untagged, 1 simple, 2 ordered, 3 head of queue, 4 ACA.
    pub attribute: u8,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Expected Data Transfer Length in bytes.
    pub expected_length: u32,
    /// CmdSN.
    pub cmd_sn: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// The command descriptor block.
    pub cdb: [u8; 16],
}

impl ScsiCommand {
    pub(super) fn encode(&self) -> Bhs {
        let direction = match self.direction {
            Direction::None => 0x00,
            Direction::Read => 0x40,
            Direction::Write => 0x20,
            Direction::Bidirectional => 0x60,
        };
        let first = u8::from(self.is_final) << 7 | direction | self.attribute & 0x07;
        let flags = [first, 0, 0];
        let mut bhs = start(Opcode::ScsiCommand, self.immediate, flags, self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.expected_length);
        to.put_u32(self.cmd_sn);
        to.put_u32(self.exp_stat_sn);
        to.put_slice(&self.cdb);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        let mut command = Self {
            immediate: is_immediate(bhs),
            is_final: bhs[1] & FINAL != 0,
            direction: match bhs[1] & 0x60 {
                0x00 => Direction::None,
                0x40 => Direction::Read,
                0x20 => Direction::Write,
                _ => Direction::Bidirectional,
            },
            attribute: bhs[1] & 0x07,
            lun: lun(bhs),
            itt: itt(bhs),
            expected_length: from.get_u32(),
            cmd_sn: from.get_u32(),
            exp_stat_sn: from.get_u32(),
            cdb: [0; 16],
        };
        from.copy_to_slice(&mut command.cdb);
        command
    }
}

/// SCSI status of a completed command (SAM-5 section 5.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Status(pub u8);

impl Status {
    /// The command did what it should.
    pub const GOOD: Self = Self(0x00);
    /// Sense data says what is the matter.
    pub const CHECK_CONDITION: Self = Self(0x02);
    /// Try again later.
    pub const BUSY: Self = Self(0x08);
    /// Another initiator holds a reservation.
    pub const RESERVATION_CONFLICT: Self = Self(0x18);
    /// The queue is full; try again later.
    pub const TASK_SET_FULL: Self = Self(0x28);
}

/// SCSI Response. The data segment holds a two-byte length and sense data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScsiResponse {
    /// O: more data than the initiator expected.
    pub overflow: bool,
    /// U: less data than the initiator expected.
    pub underflow: bool,
    /// 0 completed at target, else the target failed.
    pub response: u8,
    /// SCSI status, valid if `response` is 0.
    pub status: Status,
    /// Initiator Task Tag.
    pub itt: u32,
    /// StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// ExpDataSN: how many Data-In and R2T PDUs the target sent.
    pub exp_data_sn: u32,
    /// Residual Count, for `overflow` and `underflow`.
    pub residual: u32,
}

impl ScsiResponse {
    pub(super) fn encode(&self) -> Bhs {
        let first = FINAL | u8::from(self.overflow) << 2 | u8::from(self.underflow) << 1;
        let flags = [first, self.response, self.status.0];
        let mut bhs = start(Opcode::ScsiResponse, false, flags, self.itt);
        let mut to = &mut bhs[24..];
        self.sn.put(&mut to);
        to.put_u32(self.exp_data_sn);
        to.put_u32(0); // bidirectional read residual
        to.put_u32(self.residual);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[24..];
        let sn = TargetSn::get(&mut from);
        let exp_data_sn = from.get_u32();
        from.advance(4);
        Self {
            overflow: bhs[1] & 0x04 != 0,
            underflow: bhs[1] & 0x02 != 0,
            response: bhs[2],
            status: Status(bhs[3]),
            itt: itt(bhs),
            sn,
            exp_data_sn,
            residual: from.get_u32(),
        }
    }
}

/// SCSI Data-Out: data of a write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataOut {
    /// F: last PDU of the sequence.
    pub is_final: bool,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag of the R2T, reserved for unsolicited data.
    pub ttt: u32,
    /// ExpStatSN.
    pub exp_stat_sn: u32,
    /// DataSN, from 0 in each sequence.
    pub data_sn: u32,
    /// Buffer Offset in bytes.
    pub buffer_offset: u32,
}

impl DataOut {
    pub(super) fn encode(&self) -> Bhs {
        let flags = [u8::from(self.is_final) << 7, 0, 0];
        let mut bhs = start(Opcode::DataOut, false, flags, self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        to.put_u32(0);
        to.put_u32(self.exp_stat_sn);
        to.put_u32(0);
        to.put_u32(self.data_sn);
        to.put_u32(self.buffer_offset);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        let ttt = from.get_u32();
        from.advance(4);
        let exp_stat_sn = from.get_u32();
        from.advance(4);
        Self {
            is_final: bhs[1] & FINAL != 0,
            lun: lun(bhs),
            itt: itt(bhs),
            ttt,
            exp_stat_sn,
            data_sn: from.get_u32(),
            buffer_offset: from.get_u32(),
        }
    }
}

/// SCSI Data-In: data of a read, at its end perhaps with the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataIn {
    /// F: last PDU of the sequence.
    pub is_final: bool,
    /// A: the target wants a DataACK; only above error recovery level 0.
    pub acknowledge: bool,
    /// O: more data than the initiator expected.
    pub overflow: bool,
    /// U: less data than the initiator expected.
    pub underflow: bool,
    /// S: the status is in this PDU, and no SCSI Response follows.
    pub has_status: bool,
    /// SCSI status, valid with `has_status`.
    pub status: Status,
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag, valid with `acknowledge`.
    pub ttt: u32,
    /// StatSN (valid with `has_status`), ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// DataSN, from 0 over the whole command.
    pub data_sn: u32,
    /// Buffer Offset in bytes.
    pub buffer_offset: u32,
    /// Residual Count, for `overflow` and `underflow`.
    pub residual: u32,
}

impl DataIn {
    pub(super) fn encode(&self) -> Bhs {
        let first = u8::from(self.is_final) << 7
            | u8::from(self.acknowledge) << 6
            | u8::from(self.overflow) << 2
            | u8::from(self.underflow) << 1
            | u8::from(self.has_status);
        let flags = [first, 0, self.status.0];
        let mut bhs = start(Opcode::DataIn, false, flags, self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        self.sn.put(&mut to);
        to.put_u32(self.data_sn);
        to.put_u32(self.buffer_offset);
        to.put_u32(self.residual);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            is_final: bhs[1] & FINAL != 0,
            acknowledge: bhs[1] & 0x40 != 0,
            overflow: bhs[1] & 0x04 != 0,
            underflow: bhs[1] & 0x02 != 0,
            has_status: bhs[1] & 0x01 != 0,
            status: Status(bhs[3]),
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            sn: TargetSn::get(&mut from),
            data_sn: from.get_u32(),
            buffer_offset: from.get_u32(),
            residual: from.get_u32(),
        }
    }
}

/// R2T: the target is ready for a part of a write's data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct R2t {
    /// LUN.
    pub lun: Lun,
    /// Initiator Task Tag.
    pub itt: u32,
    /// Target Transfer Tag, to be copied into the Data-Out PDUs.
    pub ttt: u32,
    /// The next StatSN, ExpCmdSN, MaxCmdSN.
    pub sn: TargetSn,
    /// R2TSN, from 0 over the whole command.
    pub r2t_sn: u32,
    /// Buffer Offset in bytes.
    pub buffer_offset: u32,
    /// Desired Data Transfer Length in bytes.
    pub desired_length: u32,
}

impl R2t {
    pub(super) fn encode(&self) -> Bhs {
        let mut bhs = start(Opcode::R2t, false, [FINAL, 0, 0], self.itt);
        put_lun(&mut bhs, self.lun);
        let mut to = &mut bhs[20..];
        to.put_u32(self.ttt);
        self.sn.put(&mut to);
        to.put_u32(self.r2t_sn);
        to.put_u32(self.buffer_offset);
        to.put_u32(self.desired_length);
        bhs
    }

    pub(super) fn decode(bhs: &Bhs) -> Self {
        let mut from = &bhs[20..];
        Self {
            lun: lun(bhs),
            itt: itt(bhs),
            ttt: from.get_u32(),
            sn: TargetSn::get(&mut from),
            r2t_sn: from.get_u32(),
            buffer_offset: from.get_u32(),
            desired_length: from.get_u32(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LUN: Lun = Lun(0x0001_0000_0000_0000);
    const SN: TargetSn = TargetSn {
        stat_sn: 0x2122_2324,
        exp_cmd_sn: 0x2526_2728,
        max_cmd_sn: 0x292a_2b2c,
    };

    /// If this fails do not change the test.
    #[test]
    fn write_command_on_the_wire() {
        let mut cdb = [0; 16];
        cdb[0] = 0x8a; // WRITE(16)
        cdb[9] = 0x10; // LBA
        cdb[13] = 0x08; // blocks
        let command = ScsiCommand {
            immediate: false,
            is_final: true,
            direction: Direction::Write,
            attribute: 1,
            lun: LUN,
            itt: 0x0000_0102,
            expected_length: 0x1000,
            cmd_sn: 5,
            exp_stat_sn: 6,
            cdb,
        };
        let wire = [
            0x01, 0xa1, 0x00, 0x00, // F, W, simple
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0x00, 0x00, 0x01, 0x02, // Initiator Task Tag
            0x00, 0x00, 0x10, 0x00, // Expected Data Transfer Length
            0x00, 0x00, 0x00, 0x05, // CmdSN
            0x00, 0x00, 0x00, 0x06, // ExpStatSN
            0x8a, 0, 0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0x08, 0, 0, // CDB
        ];
        assert_eq!(command.encode(), wire);
        assert_eq!(ScsiCommand::decode(&wire), command);
    }

    /// If this fails do not change the test.
    #[test]
    fn response_on_the_wire() {
        let response = ScsiResponse {
            overflow: false,
            underflow: true,
            response: 0,
            status: Status::CHECK_CONDITION,
            itt: 7,
            sn: SN,
            exp_data_sn: 0x3132_3334,
            residual: 0x4142_4344,
        };
        let wire = [
            0x21, 0x82, 0x00, 0x02, // F, U; completed; CHECK CONDITION
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // reserved
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0x00, 0x00, 0x00, 0x00, // SNACK Tag
            0x21, 0x22, 0x23, 0x24, // StatSN
            0x25, 0x26, 0x27, 0x28, // ExpCmdSN
            0x29, 0x2a, 0x2b, 0x2c, // MaxCmdSN
            0x31, 0x32, 0x33, 0x34, // ExpDataSN
            0x00, 0x00, 0x00, 0x00, // bidirectional residual
            0x41, 0x42, 0x43, 0x44, // Residual Count
        ];
        assert_eq!(response.encode(), wire);
        assert_eq!(ScsiResponse::decode(&wire), response);
    }

    /// If this fails do not change the test.
    #[test]
    fn data_out_on_the_wire() {
        let data = DataOut {
            is_final: true,
            lun: LUN,
            itt: 7,
            ttt: 0xffff_ffff,
            exp_stat_sn: 8,
            data_sn: 9,
            buffer_offset: 0x0001_0000,
        };
        let wire = [
            0x05, 0x80, 0x00, 0x00, // F
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0xff, 0xff, 0xff, 0xff, // Target Transfer Tag
            0x00, 0x00, 0x00, 0x00, // reserved
            0x00, 0x00, 0x00, 0x08, // ExpStatSN
            0x00, 0x00, 0x00, 0x00, // reserved
            0x00, 0x00, 0x00, 0x09, // DataSN
            0x00, 0x01, 0x00, 0x00, // Buffer Offset
            0x00, 0x00, 0x00, 0x00, // reserved
        ];
        assert_eq!(data.encode(), wire);
        assert_eq!(DataOut::decode(&wire), data);
    }

    /// If this fails do not change the test.
    #[test]
    fn data_in_on_the_wire() {
        let data = DataIn {
            is_final: true,
            acknowledge: false,
            overflow: false,
            underflow: true,
            has_status: true,
            status: Status::GOOD,
            lun: LUN,
            itt: 7,
            ttt: 0xffff_ffff,
            sn: SN,
            data_sn: 9,
            buffer_offset: 0x0001_0000,
            residual: 0x10,
        };
        let wire = [
            0x25, 0x83, 0x00, 0x00, // F, U, S; status
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0xff, 0xff, 0xff, 0xff, // Target Transfer Tag
            0x21, 0x22, 0x23, 0x24, // StatSN
            0x25, 0x26, 0x27, 0x28, // ExpCmdSN
            0x29, 0x2a, 0x2b, 0x2c, // MaxCmdSN
            0x00, 0x00, 0x00, 0x09, // DataSN
            0x00, 0x01, 0x00, 0x00, // Buffer Offset
            0x00, 0x00, 0x00, 0x10, // Residual Count
        ];
        assert_eq!(data.encode(), wire);
        assert_eq!(DataIn::decode(&wire), data);
    }

    /// If this fails do not change the test.
    #[test]
    fn r2t_on_the_wire() {
        let r2t = R2t {
            lun: LUN,
            itt: 7,
            ttt: 0x0a0b_0c0d,
            sn: SN,
            r2t_sn: 1,
            buffer_offset: 0x0001_0000,
            desired_length: 0x0004_0000,
        };
        let wire = [
            0x31, 0x80, 0x00, 0x00, // F
            0x00, 0x00, 0x00, 0x00, // lengths
            0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // LUN 1
            0x00, 0x00, 0x00, 0x07, // Initiator Task Tag
            0x0a, 0x0b, 0x0c, 0x0d, // Target Transfer Tag
            0x21, 0x22, 0x23, 0x24, // StatSN
            0x25, 0x26, 0x27, 0x28, // ExpCmdSN
            0x29, 0x2a, 0x2b, 0x2c, // MaxCmdSN
            0x00, 0x00, 0x00, 0x01, // R2TSN
            0x00, 0x01, 0x00, 0x00, // Buffer Offset
            0x00, 0x04, 0x00, 0x00, // Desired Data Transfer Length
        ];
        assert_eq!(r2t.encode(), wire);
        assert_eq!(R2t::decode(&wire), r2t);
    }
}
