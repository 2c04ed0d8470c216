//! SCSI commands: their data in, their data and status out.

use super::{Answer, Outgoing, OutstandingR2t, Phase, Request, TargetEvent, TargetSession, Task};
use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::pdu::{
    DataIn, DataOut, Direction, Lun, Pdu, R2t, RESERVED_TAG, ScsiCommand, ScsiResponse, Status,
    TargetSn,
};
use crate::iscsi::proto::session::initiator::{check_sn, unknown};
use bytes::{BufMut, Bytes, BytesMut};

impl TargetSession {
    pub(super) fn handle_command(
        &mut self,
        command: ScsiCommand,
        data: Bytes,
    ) -> Result<(), Error> {
        let itt = command.itt;
        if itt == RESERVED_TAG || self.tasks.contains_key(&itt) {
            return Err(PeerMisbehaved::Exchange("task tag already in use").into());
        }
        if self.tasks.len() >= self.max_tasks() {
            return Err(PeerMisbehaved::Exchange("too many immediate commands").into());
        }
        let is_write = command.direction == Direction::Write;
        if command.direction == Direction::Bidirectional || (!is_write && !data.is_empty()) {
            return Err(PeerMisbehaved::Data("data with a command that takes none").into());
        }
        let unsolicited = is_write && !command.is_final;
        if (!data.is_empty() && !self.params.immediate_data)
            || (unsolicited && self.params.initial_r2t)
        {
            return Err(PeerMisbehaved::Data("unsolicited data against the negotiation").into());
        }
        let mut task = Task {
            command,
            phase: Phase::Waiting,
            share: 0,
            data: Vec::new(),
            received: 0,
            unsolicited,
            next_data_sn: 0,
            next_r2t_sn: 0,
            r2t: None,
        };
        let limit = self.params.first_burst.min(task.command.expected_length);
        task.take(data, limit)?;
        self.tasks.insert(itt, task);
        self.admission.push_back(itt);
        self.admit();
        Ok(())
    }

    pub(super) fn handle_data_out(&mut self, header: &DataOut, data: Bytes) -> Result<(), Error> {
        let Some(task) = self.tasks.get_mut(&header.itt) else {
            // It was under way when its task was aborted.
            return Ok(());
        };
        let solicited = header.ttt != RESERVED_TAG;
        let limit = match task.r2t.filter(|r2t| r2t.ttt == header.ttt) {
            Some(r2t) if solicited => r2t.end,
            None if !solicited && task.unsolicited => {
                self.params.first_burst.min(task.command.expected_length)
            }
            _ => return Err(unknown(header.itt, "Data-Out without R2T")),
        };
        check_sn("DataSN", header.data_sn, &mut task.next_data_sn)?;
        if header.buffer_offset != task.received {
            return Err(PeerMisbehaved::Sequence {
                field: "Buffer Offset",
                got: u64::from(header.buffer_offset),
                expected: u64::from(task.received),
            }
            .into());
        }
        task.take(data, limit)?;
        if header.is_final {
            task.next_data_sn = 0;
            if solicited {
                if task.received != limit {
                    return Err(PeerMisbehaved::Data("less Data-Out than the R2T wants").into());
                }
                task.r2t = None;
            } else {
                task.unsolicited = false;
            }
            self.gather(header.itt);
        }
        Ok(())
    }

    /// Lets tasks in as far as the budget goes, first come first served. One always fits.
    fn admit(&mut self) {
        while let Some(itt) = self.admission.front().copied() {
            if let Some(task) = self.tasks.get_mut(&itt) {
                let share = task.command.expected_length.min(self.limits.max_transfer);
                let share = u64::from(share);
                if self.committed > 0 && self.committed + share > self.limits.budget {
                    return;
                }
                self.committed += share;
                task.share = share;
                task.phase = Phase::Gathering;
                self.gather(itt);
            }
            self.admission.pop_front();
        }
    }

    /// Asks for the next part of an admitted write's data, or executes the task.
    fn gather(&mut self, itt: u32) {
        let ttt = self.new_ttt();
        let Some(task) = self.tasks.get_mut(&itt) else {
            return;
        };
        if task.phase != Phase::Gathering || task.unsolicited || task.r2t.is_some() {
            return;
        }
        let wanted = match task.command.direction {
            Direction::Write if task.command.expected_length <= self.limits.max_transfer => {
                task.command.expected_length
            }
            _ => task.received,
        };
        if task.received < wanted {
            let length = (wanted - task.received).min(self.params.max_burst);
            let end = task.received + length;
            task.r2t = Some(OutstandingR2t { ttt, end });
            let r2t = R2t {
                lun: task.command.lun,
                itt,
                ttt,
                sn: TargetSn::default(),
                r2t_sn: task.next_r2t_sn,
                buffer_offset: task.received,
                desired_length: length,
            };
            task.next_r2t_sn += 1;
            self.outgoing
                .push_back(Outgoing::Unnumbered(Pdu::bare(r2t)));
            return;
        }
        task.phase = Phase::Executing;
        self.events.push_back(TargetEvent::Execute(Request {
            itt,
            lun: task.command.lun,
            cdb: task.command.cdb,
            direction: task.command.direction,
            expected_length: task.command.expected_length,
            data: std::mem::take(&mut task.data),
        }));
    }

    pub(super) fn remove(&mut self, itt: u32) {
        if let Some(task) = self.tasks.remove(&itt) {
            self.committed -= task.share;
            self.admission.retain(|waiting| *waiting != itt);
            self.admit();
        }
    }

    /// The next PDU of an answer, and whether it takes a StatSN.
    pub(super) fn answer_pdu(&mut self, mut answer: Answer) -> (Pdu, bool) {
        let itt = answer.itt;
        let command = self.tasks.get(&itt).map(|task| &task.command);
        let lun = command.map_or(Lun(0), |command| command.lun);
        let expected = command.map_or(0, |command| command.expected_length);
        let direction = command.map_or(Direction::None, |command| command.direction);
        let completion = &mut answer.completion;
        let moves = if direction == Direction::None {
            0
        } else {
            completion.length
        };
        let residual = Residual::of(moves, expected);
        if direction == Direction::Read && completion.status == Status::GOOD {
            completion
                .data
                .truncate(usize::try_from(expected).unwrap_or(usize::MAX));
        } else {
            completion.data = Bytes::new();
        }
        if completion.data.is_empty() && answer.offset == 0 {
            let response = ScsiResponse {
                overflow: residual.overflow,
                underflow: residual.underflow,
                response: 0,
                status: completion.status,
                itt,
                sn: TargetSn::default(),
                exp_data_sn: self.tasks.get(&itt).map_or(0, |task| task.next_r2t_sn),
                residual: residual.count,
            };
            let sense = sense_segment(&completion.sense);
            self.remove(itt);
            return (Pdu::new(response, sense), true);
        }
        // A sequence ends at each MaxBurstLength, and a PDU must not cross that line.
        let burst_left = self.params.max_burst - answer.offset % self.params.max_burst;
        let length = self.params.max_send_data_segment.min(burst_left);
        let length_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        let data = completion
            .data
            .split_to(length_bytes.min(completion.data.len()));
        let last = completion.data.is_empty();
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        let header = DataIn {
            is_final: last || length == burst_left,
            acknowledge: false,
            overflow: last && residual.overflow,
            underflow: last && residual.underflow,
            has_status: last,
            status: Status::GOOD,
            lun,
            itt,
            ttt: RESERVED_TAG,
            sn: TargetSn::default(),
            data_sn: answer.data_sn,
            buffer_offset: answer.offset,
            residual: if last { residual.count } else { 0 },
        };
        if last {
            self.remove(itt);
        } else {
            answer.offset += length;
            answer.data_sn += 1;
            self.outgoing.push_front(Outgoing::Answer(answer));
        }
        (Pdu::new(header, data), last)
    }
}

impl Task {
    /// Takes data in order, up to `limit` in all.
    fn take(&mut self, data: Bytes, limit: u32) -> Result<(), Error> {
        let received = u32::try_from(data.len())
            .ok()
            .and_then(|length| self.received.checked_add(length))
            .filter(|received| *received <= limit);
        let Some(received) = received else {
            return Err(PeerMisbehaved::Data("more data than announced or asked for").into());
        };
        self.received = received;
        if !data.is_empty() {
            self.data.push(data);
        }
        Ok(())
    }
}

/// The difference between what the CDB moves and what the initiator expected.
struct Residual {
    overflow: bool,
    underflow: bool,
    count: u32,
}

impl Residual {
    fn of(moves: u64, expected: u32) -> Self {
        let expected = u64::from(expected);
        Self {
            overflow: moves > expected,
            underflow: moves < expected,
            count: u32::try_from(moves.abs_diff(expected)).unwrap_or(u32::MAX),
        }
    }
}

/// SenseLength and sense data; nothing if there is none.
fn sense_segment(sense: &Bytes) -> Bytes {
    if sense.is_empty() {
        return Bytes::new();
    }
    let mut segment = BytesMut::with_capacity(2 + sense.len());
    segment.put_u16(u16::try_from(sense.len()).unwrap_or(0));
    segment.extend_from_slice(sense);
    segment.freeze()
}
