//! What comes in: transfers asked for, data, statuses, pings and events.

use super::{
    Burst, Event, InitiatorSession, Outcome, TaskResponse, Transfer, check_sn, length_of, unknown,
};
use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::pdu::{
    AsyncMessage, DataIn, NopIn, NopOut, Pdu, R2t, RESERVED_TAG, ScsiResponse, Status,
    TaskManagementResponse,
};
use bytes::{Buf, Bytes};

impl InitiatorSession {
    pub(super) fn handle_r2t(&mut self, r2t: &R2t) -> Result<(), Error> {
        self.window.update(r2t.sn.exp_cmd_sn, r2t.sn.max_cmd_sn);
        let task = self.tasks.get_mut(&r2t.itt);
        let task = task.ok_or_else(|| unknown(r2t.itt, "R2T"))?;
        let Transfer::Out(data) = &task.command.transfer else {
            return Err(PeerMisbehaved::Data("R2T for a command without data to send").into());
        };
        check_sn("R2TSN", r2t.r2t_sn, &mut task.next_r2t_sn)?;
        if r2t.ttt == RESERVED_TAG {
            return Err(PeerMisbehaved::Data("R2T without a Target Transfer Tag").into());
        }
        // We insist on DataSequenceInOrder. Were data asked for twice, as much that was never asked
        // for would be missed by nobody.
        if r2t.buffer_offset != task.asked {
            return Err(PeerMisbehaved::Sequence {
                field: "Buffer Offset of an R2T",
                got: u64::from(r2t.buffer_offset),
                expected: u64::from(task.asked),
            }
            .into());
        }
        let end = r2t.buffer_offset.checked_add(r2t.desired_length);
        let end = end.filter(|end| *end <= length_of(data) && r2t.desired_length > 0);
        let Some(end) = end else {
            return Err(PeerMisbehaved::Data("R2T asks for data that is not there").into());
        };
        if r2t.desired_length > self.params.max_burst {
            return Err(PeerMisbehaved::Data("R2T asks for more than MaxBurstLength").into());
        }
        let outstanding = self.bursts.iter().filter(|burst| burst.ttt != RESERVED_TAG);
        let outstanding = outstanding.filter(|burst| burst.itt == r2t.itt).count();
        if outstanding >= usize::try_from(self.params.max_outstanding_r2t).unwrap_or(usize::MAX) {
            return Err(PeerMisbehaved::Data("more than MaxOutstandingR2T").into());
        }
        task.asked = end;
        self.bursts.push_back(Burst {
            itt: r2t.itt,
            ttt: r2t.ttt,
            offset: r2t.buffer_offset,
            end,
            data_sn: 0,
        });
        Ok(())
    }

    pub(super) fn handle_data_in(&mut self, header: &DataIn, data: Bytes) -> Result<(), Error> {
        self.window
            .update(header.sn.exp_cmd_sn, header.sn.max_cmd_sn);
        let task = self.tasks.get_mut(&header.itt);
        let task = task.ok_or_else(|| unknown(header.itt, "Data-In"))?;
        let Transfer::In(expected) = task.command.transfer else {
            return Err(PeerMisbehaved::Data("Data-In for a command that reads nothing").into());
        };
        check_sn("DataSN", header.data_sn, &mut task.next_data_sn)?;
        let received = task.received.len();
        if received != u64::from(header.buffer_offset) {
            return Err(PeerMisbehaved::Sequence {
                field: "Buffer Offset",
                got: u64::from(header.buffer_offset),
                expected: received,
            }
            .into());
        }
        if received + data.len() as u64 > u64::from(expected) {
            return Err(PeerMisbehaved::Data("more Data-In than expected").into());
        }
        task.received.push(data, expected);
        if header.has_status {
            self.take_status(header.sn);
            let residual = if header.underflow { header.residual } else { 0 };
            self.complete(header.itt, header.status, Bytes::new(), residual)?;
        }
        Ok(())
    }

    pub(super) fn handle_response(
        &mut self,
        header: &ScsiResponse,
        data: &Bytes,
    ) -> Result<(), Error> {
        self.take_status(header.sn);
        if header.response != 0 {
            // The status is not valid, so the command must not look good.
            return Err(PeerMisbehaved::Exchange("target failed to execute a command").into());
        }
        let residual = if header.underflow { header.residual } else { 0 };
        self.complete(header.itt, header.status, sense(data), residual)
    }

    fn complete(
        &mut self,
        itt: u32,
        status: Status,
        sense: Bytes,
        residual: u32,
    ) -> Result<(), Error> {
        let task = self.tasks.remove(&itt);
        let task = task.ok_or_else(|| unknown(itt, "SCSI Response"))?;
        self.bursts.retain(|burst| burst.itt != itt);
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == itt) {
            self.waiting.remove(at);
            return Err(PeerMisbehaved::Exchange("status for a command not yet sent").into());
        }
        self.most_started = self.most_started.saturating_mul(2);
        if status == Status::GOOD {
            let (expected, moved) = match &task.command.transfer {
                Transfer::None => (0, 0),
                Transfer::In(expected) => (*expected, task.received.len()),
                Transfer::Out(data) => (length_of(data), task.sent),
            };
            // Never call a command good whose data did not pass in full.
            if moved + u64::from(residual) < u64::from(expected) {
                return Err(PeerMisbehaved::Data("status GOOD before all data was moved").into());
            }
        }
        let outcome = Outcome {
            status,
            sense,
            data: task.received.into_bytes(),
        };
        self.events.push_back(Event::Completed(itt, outcome));
        Ok(())
    }

    pub(super) fn handle_nop_in(&mut self, nop: &NopIn) {
        if nop.itt == RESERVED_TAG {
            self.window.update(nop.sn.exp_cmd_sn, nop.sn.max_cmd_sn);
        } else {
            self.take_status(nop.sn);
            self.events.push_back(Event::Pong);
        }
        // One unanswered ping at a time is all that a sane target has; the bound is for others.
        if nop.ttt != RESERVED_TAG && self.urgent.len() < 16 {
            self.urgent.push_back(Pdu::bare(NopOut {
                immediate: true,
                lun: nop.lun,
                itt: RESERVED_TAG,
                ttt: nop.ttt,
                cmd_sn: 0,
                exp_stat_sn: 0,
            }));
        }
    }

    pub(super) fn handle_managed(&mut self, header: &TaskManagementResponse) -> Result<(), Error> {
        let at = self.managing.iter().position(|itt| *itt == header.itt);
        let at = at.ok_or_else(|| unknown(header.itt, "Task Management Function Response"))?;
        self.managing.swap_remove(at);
        self.take_status(header.sn);
        let response = TaskResponse(header.response);
        self.events.push_back(Event::Managed(header.itt, response));
        Ok(())
    }

    /// RFC 7143 section 11.9.1.
    pub(super) fn handle_async(&mut self, message: &AsyncMessage, data: &Bytes) {
        self.take_status(message.sn);
        let [_, time2wait, _] = message.parameters;
        let closing = |why| Event::Closing { why, time2wait };
        let event = match message.event {
            0 => Event::News(sense(data)),
            1 => closing("target asks for logout"),
            2 | 3 => closing("target drops the connection"),
            // A new session brings a new negotiation.
            4 => closing("target asks for negotiation"),
            _ => return,
        };
        self.events.push_back(event);
    }
}

/// Sense data behind its length; empty if there is none.
fn sense(segment: &Bytes) -> Bytes {
    let mut sense = segment.clone();
    let length = sense.try_get_u16().map_or(0, usize::from);
    sense.truncate(length);
    sense
}
