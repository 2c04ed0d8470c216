//! The target's full feature phase: commands in, data both ways, statuses out.

mod commands;
mod requests;

use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::{
    Direction, Header, Lun, NopIn, Pdu, RESERVED_TAG, ScsiCommand, Status, TargetSn,
};
use crate::iscsi::proto::window::sn_before;
use bytes::Bytes;
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
        if self.outgoing.len() > self.max_tasks() * 2 || self.aborts.len() > SPARE_TASKS {
            return Err(PeerMisbehaved::Data("requests faster than they can be answered").into());
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
