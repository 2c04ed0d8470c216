//! The target's full feature phase: commands in, data both ways, statuses out.

use super::initiator::{check_sn, unknown};
use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::{
    DataIn, DataOut, Direction, Header, LogoutRequest, LogoutResponse, Lun, NopIn, NopOut, Pdu,
    R2t, RESERVED_TAG, ScsiCommand, ScsiResponse, Status, TargetSn, TaskFunction,
    TaskManagementRequest, TaskManagementResponse, TextRequest, TextResponse,
};
use crate::iscsi::proto::text::Text;
use crate::iscsi::proto::window::sn_before;
use bytes::{BufMut, Bytes, BytesMut};
use std::collections::{HashMap, VecDeque};

/// What bounds the memory of a connection.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Commands that an initiator may have open.
    pub queue_depth: u32,
    /// The longest transfer of one command in bytes. Of a longer write no data is fetched.
    pub max_transfer: u32,
    /// Bytes of data that commands may have in memory at once, both ways together; unsolicited
    /// data comes on top, at most FirstBurstLength for each command.
    pub budget: u64,
}

/// What SendTargets answers.
#[derive(Debug, Clone)]
pub struct Portal {
    /// TargetName.
    pub target_name: String,
    /// `host:port,portal-group-tag`.
    pub address: String,
}

/// A command that is ready to be executed.
#[derive(Debug)]
pub struct Request {
    /// Names the command in [`TargetSession::complete`].
    pub itt: u32,
    /// The logical unit.
    pub lun: Lun,
    /// The command descriptor block.
    pub cdb: [u8; 16],
    /// Which way the initiator expects data to go.
    pub direction: Direction,
    /// How many bytes it expects.
    pub expected_length: u32,
    /// The data of a write, in order. Shorter than expected if that is over
    /// [`Limits::max_transfer`].
    pub data: Vec<Bytes>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Completion {
    /// SCSI status.
    pub status: Status,
    /// Sense data, with CHECK CONDITION.
    pub sense: Bytes,
    /// Data for the initiator, with GOOD.
    pub data: Bytes,
    /// How many bytes the CDB itself asked to move, for the residual count.
    pub length: u64,
}

/// What the driver learns.
#[derive(Debug)]
pub enum TargetEvent {
    /// Execute this, then call [`TargetSession::complete`].
    Execute(Request),
    /// The initiator has logged out: close the connection once everything is sent.
    LoggedOut,
}

/// The core of a session with one connection and error recovery level 0.
///
/// After each call of [`Self::handle_pdu`], [`Self::complete`] or [`Self::ping`], drain
/// [`Self::poll_transmit`] as far as the socket takes it and [`Self::poll_event`] until `None`.
#[derive(Debug)]
pub struct TargetSession {
    params: Params,
    limits: Limits,
    portal: Portal,
    discovery: bool,
    stat_sn: u32,
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    tasks: HashMap<u32, Task>,
    /// Tasks that wait for their share of the budget, in order.
    admission: VecDeque<u32>,
    committed: u64,
    last_ttt: u32,
    outgoing: VecDeque<Outgoing>,
    aborts: Vec<Abort>,
    events: VecDeque<TargetEvent>,
}

#[derive(Debug)]
struct Task {
    command: ScsiCommand,
    phase: Phase,
    /// What the task holds of the budget.
    share: u64,
    data: Vec<Bytes>,
    received: u32,
    /// Data-Out PDUs without R2T are still to come.
    unsolicited: bool,
    next_data_sn: u32,
    next_r2t_sn: u32,
    r2t: Option<OutstandingR2t>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not admitted yet.
    Waiting,
    /// Its data is under way.
    Gathering,
    /// With the driver.
    Executing,
    /// With the driver, but nobody wants to know any more.
    Aborted,
    /// Its data or status is in `outgoing`.
    Answering,
}

#[derive(Debug, Clone, Copy)]
struct OutstandingR2t {
    ttt: u32,
    end: u32,
}

#[derive(Debug)]
enum Outgoing {
    /// A PDU that takes a StatSN.
    Numbered(Pdu),
    /// A PDU that only shows the next one.
    Unnumbered(Pdu),
    Answer(Answer),
}

/// The data and status of a command, cut into PDUs as they are sent.
#[derive(Debug)]
struct Answer {
    itt: u32,
    completion: Completion,
    offset: u32,
    data_sn: u32,
}

/// A task management request that waits for tasks to end.
#[derive(Debug)]
struct Abort {
    itt: u32,
    tasks: Vec<u32>,
}

/// Immediate commands, which do not respect the window, beyond the queue depth.
const SPARE_TASKS: usize = 8;

impl TargetSession {
    /// Continues after a login.
    #[must_use]
    pub fn new(login: LoggedIn, discovery: bool, portal: Portal, limits: Limits) -> Self {
        Self {
            params: login.params,
            limits,
            portal,
            discovery,
            stat_sn: login.stat_sn,
            exp_cmd_sn: login.cmd_sn,
            max_cmd_sn: login.max_cmd_sn,
            tasks: HashMap::new(),
            admission: VecDeque::new(),
            committed: 0,
            last_ttt: 0,
            outgoing: VecDeque::new(),
            aborts: Vec::new(),
            events: VecDeque::new(),
        }
    }

    /// Takes a PDU of the initiator.
    ///
    /// # Errors
    /// If the initiator broke the protocol: close the connection.
    pub fn handle_pdu(&mut self, pdu: Pdu) -> Result<(), Error> {
        let (immediate, cmd_sn) = match &pdu.header {
            Header::ScsiCommand(header) => (header.immediate, header.cmd_sn),
            Header::TaskManagementRequest(header) => (header.immediate, header.cmd_sn),
            Header::TextRequest(header) => (header.immediate, header.cmd_sn),
            Header::LogoutRequest(header) => (header.immediate, header.cmd_sn),
            Header::NopOut(header) => (header.immediate, header.cmd_sn),
            _ => (true, 0),
        };
        if !immediate && !self.take_cmd_sn(cmd_sn)? {
            return Ok(());
        }
        if self.outgoing.len() > self.max_tasks() * 2 {
            return Err(PeerMisbehaved::Data("requests faster than it reads the answers").into());
        }
        match pdu.header {
            Header::DataOut(header) => self.handle_data_out(&header, pdu.data),
            Header::ScsiCommand(header) if !self.discovery => self.handle_command(header, pdu.data),
            Header::TaskManagementRequest(header) if !self.discovery => {
                self.handle_task_management(&header);
                Ok(())
            }
            Header::TextRequest(header) => self.handle_text(&header, &pdu.data),
            Header::LogoutRequest(header) => {
                self.handle_logout(&header);
                Ok(())
            }
            Header::NopOut(header) => {
                self.handle_nop_out(&header, pdu.data);
                Ok(())
            }
            other => Err(PeerMisbehaved::UnexpectedPdu {
                got: other.opcode(),
                during: "the full feature phase",
            }
            .into()),
        }
    }

    /// Takes the result of a [`TargetEvent::Execute`].
    pub fn complete(&mut self, itt: u32, completion: Completion) {
        let Some(task) = self.tasks.get_mut(&itt) else {
            return;
        };
        if task.phase == Phase::Aborted {
            self.remove(itt);
            self.settle_aborts(itt);
            return;
        }
        task.phase = Phase::Answering;
        self.outgoing.push_back(Outgoing::Answer(Answer {
            itt,
            completion,
            offset: 0,
            data_sn: 0,
        }));
    }

    /// Asks the initiator for a sign of life.
    pub fn ping(&mut self) {
        let ttt = self.new_ttt();
        self.outgoing
            .push_back(Outgoing::Unnumbered(Pdu::bare(NopIn {
                lun: Lun::default(),
                itt: RESERVED_TAG,
                ttt,
                sn: TargetSn::default(),
            })));
    }

    /// The next PDU to send.
    pub fn poll_transmit(&mut self) -> Option<Pdu> {
        let (mut pdu, numbered) = match self.outgoing.pop_front()? {
            Outgoing::Numbered(pdu) => (pdu, true),
            Outgoing::Unnumbered(pdu) => (pdu, false),
            Outgoing::Answer(answer) => self.answer_pdu(answer),
        };
        let sn = TargetSn {
            stat_sn: self.stat_sn,
            exp_cmd_sn: self.exp_cmd_sn,
            max_cmd_sn: self.open_window(),
        };
        if numbered {
            self.stat_sn = self.stat_sn.wrapping_add(1);
        }
        match &mut pdu.header {
            Header::ScsiResponse(header) => header.sn = sn,
            Header::DataIn(header) => header.sn = sn,
            Header::R2t(header) => header.sn = sn,
            Header::NopIn(header) => header.sn = sn,
            Header::TextResponse(header) => header.sn = sn,
            Header::LogoutResponse(header) => header.sn = sn,
            Header::TaskManagementResponse(header) => header.sn = sn,
            _ => {}
        }
        Some(pdu)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<TargetEvent> {
        self.events.pop_front()
    }

    /// Whether the PDU with this number is the next one; `false` means ignore it.
    fn take_cmd_sn(&mut self, cmd_sn: u32) -> Result<bool, Error> {
        if cmd_sn == self.exp_cmd_sn && !sn_before(self.max_cmd_sn, cmd_sn) {
            self.exp_cmd_sn = cmd_sn.wrapping_add(1);
            return Ok(true);
        }
        // RFC 7143 section 4.2.2.1: outside of the window, PDUs are ignored in silence.
        if sn_before(cmd_sn, self.exp_cmd_sn) || sn_before(self.max_cmd_sn, cmd_sn) {
            return Ok(false);
        }
        // With one connection TCP keeps the order, so a gap never closes.
        Err(PeerMisbehaved::Sequence {
            field: "CmdSN",
            got: u64::from(cmd_sn),
            expected: u64::from(self.exp_cmd_sn),
        }
        .into())
    }

    /// MaxCmdSN for as many commands as there is room for; it never goes back.
    fn open_window(&mut self) -> u32 {
        let open = u32::try_from(self.tasks.len()).unwrap_or(u32::MAX);
        let free = self.limits.queue_depth.saturating_sub(open);
        let max = self.exp_cmd_sn.wrapping_add(free).wrapping_sub(1);
        if sn_before(self.max_cmd_sn, max) {
            self.max_cmd_sn = max;
        }
        self.max_cmd_sn
    }

    fn max_tasks(&self) -> usize {
        usize::try_from(self.limits.queue_depth).unwrap_or(0) + SPARE_TASKS
    }

    fn new_ttt(&mut self) -> u32 {
        self.last_ttt = self.last_ttt.wrapping_add(1);
        if self.last_ttt == RESERVED_TAG {
            self.last_ttt = 1;
        }
        self.last_ttt
    }
}

/// Commands and their data.
impl TargetSession {
    fn handle_command(&mut self, command: ScsiCommand, data: Bytes) -> Result<(), Error> {
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

    fn handle_data_out(&mut self, header: &DataOut, data: Bytes) -> Result<(), Error> {
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

    fn remove(&mut self, itt: u32) {
        if let Some(task) = self.tasks.remove(&itt) {
            self.committed -= task.share;
            self.admission.retain(|waiting| *waiting != itt);
            self.admit();
        }
    }

    /// The next PDU of an answer, and whether it takes a StatSN.
    fn answer_pdu(&mut self, mut answer: Answer) -> (Pdu, bool) {
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

/// Everything that is not a SCSI command.
impl TargetSession {
    fn handle_task_management(&mut self, request: &TaskManagementRequest) {
        let all = || self.tasks.keys().copied().collect::<Vec<_>>();
        let tasks = match request.function {
            TaskFunction::ABORT_TASK => match self.tasks.get(&request.referenced_tag) {
                Some(task) if task.phase != Phase::Answering => vec![request.referenced_tag],
                _ => return self.answer_task_management(request.itt, 1),
            },
            TaskFunction::ABORT_TASK_SET
            | TaskFunction::CLEAR_TASK_SET
            | TaskFunction::LOGICAL_UNIT_RESET
            | TaskFunction::TARGET_WARM_RESET => all(),
            _ => return self.answer_task_management(request.itt, 5),
        };
        let mut running = Vec::new();
        for itt in tasks {
            match self.tasks.get_mut(&itt).map(|task| &mut task.phase) {
                Some(Phase::Waiting | Phase::Gathering) => self.remove(itt),
                Some(phase @ (Phase::Executing | Phase::Aborted)) => {
                    *phase = Phase::Aborted;
                    running.push(itt);
                }
                // Its status is on the way already and goes out before our answer.
                Some(Phase::Answering) | None => {}
            }
        }
        if running.is_empty() {
            self.answer_task_management(request.itt, 0);
        } else {
            let (itt, tasks) = (request.itt, running);
            self.aborts.push(Abort { itt, tasks });
        }
    }

    /// Answers the requests that waited for this task as the last one.
    fn settle_aborts(&mut self, itt: u32) {
        let mut done = Vec::new();
        self.aborts.retain_mut(|abort| {
            abort.tasks.retain(|task| *task != itt);
            if abort.tasks.is_empty() {
                done.push(abort.itt);
            }
            !abort.tasks.is_empty()
        });
        for itt in done {
            self.answer_task_management(itt, 0);
        }
    }

    fn answer_task_management(&mut self, itt: u32, response: u8) {
        let sn = TargetSn::default();
        let response = TaskManagementResponse { response, itt, sn };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::bare(response)));
    }

    fn handle_text(&mut self, request: &TextRequest, data: &[u8]) -> Result<(), Error> {
        if !request.is_final || request.more_follows || request.ttt != RESERVED_TAG {
            return Err(PeerMisbehaved::Exchange("a text request in several parts").into());
        }
        let mut answer = Text::new();
        for (key, value) in Text::decode(data)?.iter() {
            let ours = value == self.portal.target_name
                || (value == "All" && self.discovery)
                || (value.is_empty() && !self.discovery);
            match key {
                "SendTargets" if ours => {
                    answer.push("TargetName", &*self.portal.target_name);
                    answer.push("TargetAddress", &*self.portal.address);
                }
                "SendTargets" => {}
                _ => answer.push(key, "NotUnderstood"),
            }
        }
        let data = answer.encode();
        // Each of the peer's keys may come back; beyond its limit there is nothing to gain.
        if data.len() > usize::try_from(self.params.max_send_data_segment).unwrap_or(0) {
            return Err(PeerMisbehaved::Exchange("too many keys in a text request").into());
        }
        let header = TextResponse {
            is_final: true,
            more_follows: false,
            lun: request.lun,
            itt: request.itt,
            ttt: RESERVED_TAG,
            sn: TargetSn::default(),
        };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::new(header, data)));
        Ok(())
    }

    fn handle_logout(&mut self, request: &LogoutRequest) {
        // Reason 2 would keep the session for another connection to recover.
        let response = if request.reason == 2 { 2 } else { 0 };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::bare(LogoutResponse {
                response,
                itt: request.itt,
                sn: TargetSn::default(),
                time2wait: 0,
                time2retain: 0,
            })));
        if response == 0 {
            self.events.push_back(TargetEvent::LoggedOut);
        }
    }

    fn handle_nop_out(&mut self, nop: &NopOut, mut data: Bytes) {
        if nop.itt == RESERVED_TAG {
            return;
        }
        let limit = usize::try_from(self.params.max_send_data_segment).unwrap_or(0);
        data.truncate(limit);
        let header = NopIn {
            lun: nop.lun,
            itt: nop.itt,
            ttt: RESERVED_TAG,
            sn: TargetSn::default(),
        };
        self.outgoing
            .push_back(Outgoing::Numbered(Pdu::new(header, data)));
    }
}
