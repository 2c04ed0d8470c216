//! The initiator's full feature phase: commands out, data both ways, statuses in.

mod receive;
mod send;

use crate::iscsi::proto::error::{Error, PeerMisbehaved};
use crate::iscsi::proto::login::LoggedIn;
use crate::iscsi::proto::negotiate::Params;
use crate::iscsi::proto::pdu::{
    Header, Lun, NopOut, Pdu, RESERVED_TAG, Status, TargetSn, TaskFunction, TaskManagementRequest,
};
use crate::iscsi::proto::window::{CommandWindow, sn_before};
use bytes::{Bytes, BytesMut};
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
    /// The target answered the task management request with this tag.
    Managed(u32, TaskResponse),
    /// The target answered a ping.
    Pong,
    /// Sense data of an asynchronous message: something happened to a unit.
    News(Bytes),
    /// The target wants the session to end: nothing new should be submitted.
    Closing {
        /// What it said.
        why: &'static str,
        /// How many seconds to wait before the next login.
        time2wait: u16,
    },
    /// The logout is done; the connection can be closed.
    LoggedOut,
}

/// What a target says to a task management request (RFC 7143 section 11.6.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskResponse(pub u8);

impl TaskResponse {
    /// Done: nothing more comes of the tasks.
    pub const COMPLETE: Self = Self(0);
    /// The task has ended already, or never came.
    pub const NO_SUCH_TASK: Self = Self(1);

    /// Whether the tasks meant are over.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::COMPLETE | Self::NO_SUCH_TASK)
    }
}

/// The core of a session with one connection and error recovery level 0.
///
/// After each call of [`Self::submit`], [`Self::manage`], [`Self::ping`], [`Self::logout`] or
/// [`Self::handle_pdu`], drain [`Self::poll_transmit`] as far as the socket takes it and
/// [`Self::poll_event`] until `None`.
#[derive(Debug)]
pub struct InitiatorSession {
    params: Params,
    window: CommandWindow,
    exp_stat_sn: u32,
    last_itt: u32,
    tasks: HashMap<u32, Task>,
    /// Submitted and not yet sent, in order.
    waiting: VecDeque<u32>,
    /// How many commands may be under way, besides what the window allows.
    most_started: usize,
    /// Immediate requests, and answers to the target's pings.
    urgent: VecDeque<Pdu>,
    /// Task management requests that wait for their answers.
    managing: Vec<u32>,
    /// Data sequences under way; unsolicited ones stand first.
    bursts: VecDeque<Burst>,
    events: VecDeque<Event>,
    logout: Logout,
}

#[derive(Debug)]
struct Task {
    command: Command,
    /// CmdSN, once it was sent.
    cmd_sn: u32,
    /// Bytes of the data that were sent.
    sent: u64,
    /// Where the data begins that nobody asked for yet.
    asked: u32,
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
            most_started: usize::MAX,
            urgent: VecDeque::new(),
            managing: Vec::new(),
            bursts: VecDeque::new(),
            events: VecDeque::new(),
            logout: Logout::No,
        }
    }

    /// Sends one command at first, and up to twice as many with each that ends.
    ///
    /// For a connection that follows a lost one: if that was lost again before any of many
    /// commands is answered, all would have to be sent again, and nothing ever got done.
    pub fn start_slowly(&mut self) {
        self.most_started = 1;
    }

    /// Queues a command; the tag names it in [`Event::Completed`].
    pub fn submit(&mut self, command: Command) -> u32 {
        let itt = self.new_tag();
        let task = Task {
            command,
            cmd_sn: 0,
            sent: 0,
            asked: 0,
            received: Received::One(Bytes::new()),
            next_data_sn: 0,
            next_r2t_sn: 0,
        };
        self.tasks.insert(itt, task);
        self.waiting.push_back(itt);
        itt
    }

    /// Asks the target to end tasks; [`Event::Managed`] brings the answer. `task` is the tag of the
    /// command that the function names, if it names one.
    pub fn manage(&mut self, function: TaskFunction, lun: Lun, task: Option<u32>) -> u32 {
        let itt = self.new_tag();
        let referenced_tag = task.unwrap_or(RESERVED_TAG);
        let named = task.and_then(|task| self.tasks.get(&task));
        let ref_cmd_sn = named.map_or(0, |task| task.cmd_sn);
        self.managing.push(itt);
        self.urgent.push_back(Pdu::bare(TaskManagementRequest {
            // Immediate, so that a closed command window cannot hold it up.
            immediate: true,
            function,
            lun,
            itt,
            referenced_tag,
            cmd_sn: 0,
            exp_stat_sn: 0,
            ref_cmd_sn,
        }));
        itt
    }

    /// Forgets a command whose abort the target has confirmed, or that was not sent yet.
    pub fn forget(&mut self, itt: u32) {
        self.tasks.remove(&itt);
        self.bursts.retain(|burst| burst.itt != itt);
        self.waiting.retain(|waiting| *waiting != itt);
    }

    /// Whether a command still waits for the target to open its window.
    #[must_use]
    pub fn is_unsent(&self, itt: u32) -> bool {
        self.waiting.contains(&itt)
    }

    /// Asks the target for a sign of life.
    pub fn ping(&mut self) {
        let itt = self.new_tag();
        self.urgent.push_back(Pdu::bare(NopOut {
            immediate: true,
            lun: Lun(0),
            itt,
            ttt: RESERVED_TAG,
            cmd_sn: 0,
            exp_stat_sn: 0,
        }));
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
                self.handle_async(&header, &pdu.data);
                Ok(())
            }
            Header::TaskManagementResponse(header) => self.handle_managed(&header),
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
        if let Some(pdu) = self.urgent.pop_front() {
            return Some(self.stamped(pdu));
        }
        // Unsolicited data goes right after its command (RFC 7143 section 4.2.5.2).
        if self.bursts.front().is_some_and(Burst::is_unsolicited) {
            return self.next_data_out();
        }
        // A command costs little and lets the target ask for its data meanwhile.
        if self.window.is_open()
            && self.tasks.len() - self.waiting.len() < self.most_started
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
            Header::TaskManagementRequest(header) => {
                header.cmd_sn = self.window.cmd_sn();
                header.exp_stat_sn = self.exp_stat_sn;
            }
            Header::NopOut(header) => {
                header.cmd_sn = self.window.cmd_sn();
                header.exp_stat_sn = self.exp_stat_sn;
            }
            _ => {}
        }
        pdu
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

pub(in crate::iscsi::proto::session) fn unknown(tag: u32, what: &'static str) -> Error {
    PeerMisbehaved::UnknownTask { got: what, tag }.into()
}

pub(in crate::iscsi::proto::session) fn check_sn(
    field: &'static str,
    got: u32,
    next: &mut u32,
) -> Result<(), Error> {
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
