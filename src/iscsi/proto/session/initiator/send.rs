//! Commands, their data and requests on their way out.

use super::{Burst, InitiatorSession, Logout, Transfer, length_of};
use crate::iscsi::proto::pdu::{DataOut, Direction, LogoutRequest, Pdu, RESERVED_TAG, ScsiCommand};
use bytes::{Buf, Bytes};

impl InitiatorSession {
    pub(super) fn command_pdu(&mut self, itt: u32) -> Option<Pdu> {
        let task = self.tasks.get_mut(&itt)?;
        let (direction, expected_length, data) = match &task.command.transfer {
            Transfer::None => (Direction::None, 0, Bytes::new()),
            Transfer::In(length) => (Direction::Read, *length, Bytes::new()),
            Transfer::Out(data) => (Direction::Write, length_of(data), data.clone()),
        };
        let first_burst = expected_length.min(self.params.first_burst);
        let immediate = if self.params.immediate_data && direction == Direction::Write {
            first_burst.min(self.params.max_send_data_segment)
        } else {
            0
        };
        let unsolicited = if self.params.initial_r2t || direction != Direction::Write {
            immediate
        } else {
            first_burst
        };
        if unsolicited > immediate {
            self.bursts.push_front(Burst {
                itt,
                ttt: RESERVED_TAG,
                offset: immediate,
                end: unsolicited,
                data_sn: 0,
            });
        }
        task.sent += u64::from(immediate);
        task.asked = unsolicited;
        task.cmd_sn = self.window.take();
        let header = ScsiCommand {
            immediate: false,
            is_final: unsolicited == immediate,
            direction,
            attribute: 1,
            lun: task.command.lun,
            itt,
            expected_length,
            cmd_sn: task.cmd_sn,
            exp_stat_sn: 0,
            cdb: task.command.cdb,
        };
        let pdu = Pdu::new(header, slice(&data, 0, immediate));
        Some(self.stamped(pdu))
    }

    pub(super) fn next_data_out(&mut self) -> Option<Pdu> {
        let burst = self.bursts.front_mut()?;
        let task = self.tasks.get_mut(&burst.itt)?;
        let Transfer::Out(data) = &task.command.transfer else {
            return None;
        };
        let length = (burst.end - burst.offset).min(self.params.max_send_data_segment);
        let header = DataOut {
            is_final: burst.offset + length == burst.end,
            lun: task.command.lun,
            itt: burst.itt,
            ttt: burst.ttt,
            exp_stat_sn: 0,
            data_sn: burst.data_sn,
            buffer_offset: burst.offset,
        };
        let data = slice(data, burst.offset, length);
        burst.offset += length;
        burst.data_sn += 1;
        task.sent += u64::from(length);
        if header.is_final {
            self.bursts.pop_front();
        }
        Some(self.stamped(Pdu::new(header, data)))
    }

    pub(super) fn logout_pdu(&mut self) -> Option<Pdu> {
        if self.logout != Logout::Requested || !self.tasks.is_empty() {
            return None;
        }
        let itt = self.new_tag();
        self.logout = Logout::Sent(itt);
        Some(Pdu::bare(LogoutRequest {
            // Immediate, so that a closed command window cannot hold it up.
            immediate: true,
            reason: 0,
            itt,
            cid: 0,
            cmd_sn: self.window.cmd_sn(),
            exp_stat_sn: self.exp_stat_sn,
        }))
    }
}

/// Part of a command's data; the caller has checked the range.
fn slice(data: &Bytes, offset: u32, length: u32) -> Bytes {
    let mut part = data.clone();
    part.advance(
        usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(part.len()),
    );
    part.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    part
}
