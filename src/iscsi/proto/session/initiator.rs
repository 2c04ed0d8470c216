//! The initiator's full feature phase: commands out, data both ways, statuses in.

use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::{
    AsyncMessage, DataIn, DataOut, Direction, Header, LogoutRequest, Lun, NopIn, NopOut, Pdu, R2t,
    RESERVED_TAG, ScsiCommand, ScsiResponse, Status, TargetSn,
};
use crate::iscsi::proto::window::{CommandWindow, sn_before};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// A SCSI command.
#[derive(Debug, Clone)]
pub struct Command {
    /// The logical unit.
    pub lun: Lun,
    /// The command descriptor block.
    pub cdb: [u8; 16],
    /// Its data.
    pub transfer: Transfer,
}

/// The data of a command.
#[derive(Debug, Clone)]
pub enum Transfer {
    /// No data.
    None,
    /// At most this many bytes from the target.
    In(u32),
    /// These bytes to the target; fewer than 2^32.
    Out(Bytes),
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// SCSI status.
    pub status: Status,
    /// Sense data, with CHECK CONDITION.
    pub sense: Bytes,
    /// What the target sent.
    pub data: Bytes,
}

/// What the driver learns.
#[derive(Debug)]
pub enum Event {
    /// The command with this tag ended.
    Completed(u32, Outcome),
    /// The target wants the session to end: nothing new should be submitted.
    Closing(&'static str),
    /// The logout is done; the connection can be closed.
    LoggedOut,
}

/// The core of a session with one connection and error recovery level 0.
///
/// After each call of [`Self::submit`], [`Self::logout`] or [`Self::handle_pdu`], drain
/// [`Self::poll_transmit`] as far as the socket takes it and [`Self::poll_event`] until `None`.
#[derive(Debug)]
pub struct InitiatorSession {
    params: Params,
    window: CommandWindow,
    exp_stat_sn: u32,
    last_itt: u32,
    tasks: HashMap<u32, Task>,
    /// Submitted and not yet sent, in order.
    waiting: VecDeque<u32>,
    /// Answers to the target's pings.
    pongs: VecDeque<Pdu>,
    /// Data sequences under way; unsolicited ones stand first.
    bursts: VecDeque<Burst>,
    events: VecDeque<Event>,
    logout: Logout,
}

#[derive(Debug)]
struct Task {
    command: Command,
    /// Bytes of the data that were sent.
    sent: u64,
    /// What came so far.
    received: Received,
    next_data_sn: u32,
    next_r2t_sn: u32,
}

/// Data of a read. The first PDU's is kept as it is: most often it is all there is.
#[derive(Debug)]
enum Received {
    One(Bytes),
    Many(BytesMut),
}

#[derive(Debug)]
struct Burst {
    itt: u32,
    ttt: u32,
    offset: u32,
    end: u32,
    data_sn: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Logout {
    No,
    /// To be sent when no task is left.
    Requested,
    Sent(u32),
}

impl InitiatorSession {
    /// Continues after a login.
    #[must_use]
    pub fn new(login: LoggedIn) -> Self {
        Self {
            params: login.params,
            window: CommandWindow::new(login.cmd_sn, login.cmd_sn, login.max_cmd_sn),
            exp_stat_sn: login.stat_sn,
            last_itt: 0,
            tasks: HashMap::new(),
            waiting: VecDeque::new(),
            pongs: VecDeque::new(),
            bursts: VecDeque::new(),
            events: VecDeque::new(),
            logout: Logout::No,
        }
    }

    /// Queues a command; the tag names it in [`Event::Completed`].
    pub fn submit(&mut self, command: Command) -> u32 {
        let itt = self.new_tag();
        let task = Task {
            command,
            sent: 0,
            received: Received::One(Bytes::new()),
            next_data_sn: 0,
            next_r2t_sn: 0,
        };
        self.tasks.insert(itt, task);
        self.waiting.push_back(itt);
        itt
    }

    /// Ends the session once all submitted commands are done.
    pub fn logout(&mut self) {
        if self.logout == Logout::No {
            self.logout = Logout::Requested;
        }
    }

    /// Takes a PDU of the target.
    ///
    /// # Errors
    /// If the target broke the protocol: the connection is of no further use.
    pub fn handle_pdu(&mut self, pdu: Pdu) -> Result<(), Error> {
        match pdu.header {
            Header::ScsiResponse(header) => self.handle_response(&header, &pdu.data),
            Header::DataIn(header) => self.handle_data_in(&header, pdu.data),
            Header::R2t(header) => self.handle_r2t(&header),
            Header::NopIn(header) => {
                self.handle_nop_in(&header);
                Ok(())
            }
            Header::AsyncMessage(header) => {
                self.handle_async(&header);
                Ok(())
            }
            Header::LogoutResponse(header) if self.logout == Logout::Sent(header.itt) => {
                self.take_status(header.sn);
                self.events.push_back(Event::LoggedOut);
                Ok(())
            }
            Header::Reject(header) => Err(PeerMisbehaved::Rejected(header.reason).into()),
            other => Err(PeerMisbehaved::UnexpectedPdu {
                got: other.opcode(),
                during: "the full feature phase",
            }
            .into()),
        }
    }

    /// The next PDU to send.
    pub fn poll_transmit(&mut self) -> Option<Pdu> {
        if let Some(pong) = self.pongs.pop_front() {
            return Some(self.stamped(pong));
        }
        // Unsolicited data goes right after its command (RFC 7143 section 4.2.5.2).
        if self.bursts.front().is_some_and(Burst::is_unsolicited) {
            return self.next_data_out();
        }
        // A command costs little and lets the target ask for its data meanwhile.
        if self.window.is_open()
            && let Some(itt) = self.waiting.pop_front()
        {
            return self.command_pdu(itt);
        }
        self.next_data_out().or_else(|| self.logout_pdu())
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn new_tag(&mut self) -> u32 {
        loop {
            self.last_itt = self.last_itt.wrapping_add(1);
            if self.last_itt != RESERVED_TAG && !self.tasks.contains_key(&self.last_itt) {
                return self.last_itt;
            }
        }
    }

    /// Learns from a PDU that carries a status or another numbered response.
    fn take_status(&mut self, sn: TargetSn) {
        let next = sn.stat_sn.wrapping_add(1);
        if sn_before(self.exp_stat_sn, next) {
            self.exp_stat_sn = next;
        }
        self.window.update(sn.exp_cmd_sn, sn.max_cmd_sn);
    }

    /// Puts the current ExpStatSN in.
    fn stamped(&self, mut pdu: Pdu) -> Pdu {
        match &mut pdu.header {
            Header::ScsiCommand(header) => header.exp_stat_sn = self.exp_stat_sn,
            Header::DataOut(header) => header.exp_stat_sn = self.exp_stat_sn,
            Header::NopOut(header) => {
                header.cmd_sn = self.window.cmd_sn();
                header.exp_stat_sn = self.exp_stat_sn;
            }
            _ => {}
        }
        pdu
    }
}

/// Sending.
impl InitiatorSession {
    fn command_pdu(&mut self, itt: u32) -> Option<Pdu> {
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
        let header = ScsiCommand {
            immediate: false,
            is_final: unsolicited == immediate,
            direction,
            attribute: 1,
            lun: task.command.lun,
            itt,
            expected_length,
            cmd_sn: self.window.take(),
            exp_stat_sn: 0,
            cdb: task.command.cdb,
        };
        let pdu = Pdu::new(header, slice(&data, 0, immediate));
        Some(self.stamped(pdu))
    }

    fn next_data_out(&mut self) -> Option<Pdu> {
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

    fn logout_pdu(&mut self) -> Option<Pdu> {
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

/// Receiving.
impl InitiatorSession {
    fn handle_r2t(&mut self, r2t: &R2t) -> Result<(), Error> {
        self.window.update(r2t.sn.exp_cmd_sn, r2t.sn.max_cmd_sn);
        let task = self.tasks.get_mut(&r2t.itt);
        let task = task.ok_or_else(|| unknown(r2t.itt, "R2T"))?;
        let Transfer::Out(data) = &task.command.transfer else {
            return Err(PeerMisbehaved::Data("R2T for a command without data to send").into());
        };
        check_sn("R2TSN", r2t.r2t_sn, &mut task.next_r2t_sn)?;
        let end = r2t.buffer_offset.checked_add(r2t.desired_length);
        let end = end.filter(|end| *end <= length_of(data) && r2t.desired_length > 0);
        let Some(end) = end else {
            return Err(PeerMisbehaved::Data("R2T asks for data that is not there").into());
        };
        if r2t.desired_length > self.params.max_burst {
            return Err(PeerMisbehaved::Data("R2T asks for more than MaxBurstLength").into());
        }
        let outstanding = self.bursts.iter().filter(|burst| burst.itt == r2t.itt);
        // Bounds what a target can make us queue, generously.
        if outstanding.count() > 65_535 {
            return Err(PeerMisbehaved::Data("more than MaxOutstandingR2T").into());
        }
        self.bursts.push_back(Burst {
            itt: r2t.itt,
            ttt: r2t.ttt,
            offset: r2t.buffer_offset,
            end,
            data_sn: 0,
        });
        Ok(())
    }

    fn handle_data_in(&mut self, header: &DataIn, data: Bytes) -> Result<(), Error> {
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

    fn handle_response(&mut self, header: &ScsiResponse, data: &Bytes) -> Result<(), Error> {
        self.take_status(header.sn);
        if header.response != 0 {
            // The status is not valid, so the command must not look good.
            return Err(PeerMisbehaved::Exchange("target failed to execute a command").into());
        }
        let mut sense = data.clone();
        let length = sense.try_get_u16().map_or(0, usize::from);
        sense.truncate(length);
        let residual = if header.underflow { header.residual } else { 0 };
        self.complete(header.itt, header.status, sense, residual)
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

    fn handle_nop_in(&mut self, nop: &NopIn) {
        self.window.update(nop.sn.exp_cmd_sn, nop.sn.max_cmd_sn);
        // One unanswered ping at a time is all that a sane target has; the bound is for others.
        if nop.ttt != RESERVED_TAG && self.pongs.len() < 16 {
            self.pongs.push_back(Pdu::bare(NopOut {
                immediate: true,
                lun: nop.lun,
                itt: RESERVED_TAG,
                ttt: nop.ttt,
                cmd_sn: 0,
                exp_stat_sn: 0,
            }));
        }
    }

    fn handle_async(&mut self, message: &AsyncMessage) {
        self.take_status(message.sn);
        match message.event {
            1 => self
                .events
                .push_back(Event::Closing("target asks for logout")),
            2 | 3 => self
                .events
                .push_back(Event::Closing("target drops the connection")),
            _ => {}
        }
    }
}

impl Burst {
    fn is_unsolicited(&self) -> bool {
        self.ttt == RESERVED_TAG
    }
}

impl Received {
    fn len(&self) -> u64 {
        match self {
            Self::One(bytes) => bytes.len() as u64,
            Self::Many(bytes) => bytes.len() as u64,
        }
    }

    fn push(&mut self, data: Bytes, expected: u32) {
        match self {
            Self::One(first) if first.is_empty() => *first = data,
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
                all.extend_from_slice(first);
                all.extend_from_slice(&data);
                *self = Self::Many(all);
            }
            Self::Many(all) => all.extend_from_slice(&data),
        }
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Self::One(bytes) => bytes,
            Self::Many(bytes) => bytes.freeze(),
        }
    }
}

fn length_of(data: &Bytes) -> u32 {
    u32::try_from(data.len()).unwrap_or(u32::MAX)
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

pub(super) fn unknown(tag: u32, what: &'static str) -> Error {
    PeerMisbehaved::UnknownTask { got: what, tag }.into()
}

pub(super) fn check_sn(field: &'static str, got: u32, next: &mut u32) -> Result<(), Error> {
    if got != *next {
        let (got, expected) = (u64::from(got), u64::from(*next));
        return Err(PeerMisbehaved::Sequence {
            field,
            got,
            expected,
        }
        .into());
    }
    *next = next.wrapping_add(1);
    Ok(())
}
