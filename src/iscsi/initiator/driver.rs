//! The task that owns a session's connection and core.

use super::open::{Opened, Plan};
use super::probe::LunInfo;
use crate::iscsi::error::Failure;
use crate::iscsi::io::{Connection, Turn};
use crate::iscsi::proto::pdu::{Status, TaskFunction};
use crate::iscsi::proto::session::{Command, Event, InitiatorSession, Outcome, TaskResponse};
use crate::iscsi::scsi::Sense;
use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

/// How long a target may take to answer a logout or an abort.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a session handle asks of the driver.
#[derive(Debug)]
pub(super) enum Message {
    Call(Call),
    /// Log out once all earlier calls are done.
    LogOut(oneshot::Sender<Result<(), Failure>>),
}

/// A command and who waits for it.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) name: &'static str,
    pub(super) command: Command,
    /// Whether it changes the medium.
    pub(super) changes: bool,
    pub(super) reply: oneshot::Sender<Result<Outcome, Failure>>,
    /// The call's share of what may be in flight; held until the command ends, even if nobody
    /// waits for it any more.
    pub(super) _share: OwnedSemaphorePermit,
}

/// What driver and handles both see.
#[derive(Debug)]
pub(super) struct State {
    /// How the session ended.
    pub(super) end: OnceLock<Failure>,
    /// Bytes that may be in flight.
    pub(super) budget: Arc<Semaphore>,
    pub(super) bytes_sent: AtomicU64,
    /// How often the connection was made anew.
    pub(super) reconnections: AtomicU64,
    /// Counts the changes of the medium that the unit has acknowledged.
    pub(super) acknowledged: AtomicU64,
    /// How many of them the last flush covers.
    pub(super) flushed: AtomicU64,
    /// The unit was reset with changes that no flush covers.
    pub(super) was_reset: AtomicBool,
}

impl State {
    pub(super) fn new(budget: u32) -> Self {
        Self {
            end: OnceLock::new(),
            budget: Arc::new(Semaphore::new(
                usize::try_from(budget).unwrap_or(usize::MAX),
            )),
            bytes_sent: AtomicU64::new(0),
            reconnections: AtomicU64::new(0),
            acknowledged: AtomicU64::new(0),
            flushed: AtomicU64::new(0),
            was_reset: AtomicBool::new(false),
        }
    }

    /// Why nothing more can be done.
    pub(super) fn failure(&self) -> Failure {
        let end = self.end.get().cloned();
        end.unwrap_or_else(|| Failure::lost("session is over"))
    }

    /// Whether the unit's cache may hold what is nowhere else.
    pub(super) fn is_dirty(&self) -> bool {
        self.acknowledged.load(Ordering::Acquire) != self.flushed.load(Ordering::Acquire)
    }

    /// A unit that was reset has perhaps lost what it had not yet written out.
    pub(super) fn note(&self, sense: Sense) -> Result<(), Failure> {
        if sense.is_reset() && self.is_dirty() {
            self.was_reset.store(true, Ordering::Release);
            return Err(Failure::Reset);
        }
        Ok(())
    }
}

/// Owns the connection; ends when the session does.
#[derive(Debug)]
pub(super) struct Driver {
    pub(super) plan: Plan,
    pub(super) info: LunInfo,
    pub(super) connection: Connection,
    pub(super) core: InitiatorSession,
    pub(super) inbox: mpsc::Receiver<Message>,
    pub(super) state: Arc<State>,
    pub(super) calls: HashMap<u32, Waiting>,
    /// In the order of their deadlines, ended ones included.
    pub(super) deadlines: VecDeque<(Instant, u32)>,
    /// Aborts under way: the tag of the request, of the command, and until when.
    pub(super) aborts: Vec<(u32, u32, Instant)>,
    pub(super) leaving: Leaving,
    /// When the target was last heard of.
    pub(super) heard: Instant,
    pub(super) pinged: bool,
    /// Since when no command has succeeded on account of lost connections.
    pub(super) trouble: Option<Instant>,
    pub(super) attempts: u32,
    submitted: u64,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) call: Call,
    /// Place in the order of submission.
    pub(super) number: u64,
    /// Its deadline has passed.
    pub(super) is_late: bool,
}

/// Whether the session is about to end, and at whose wish.
#[derive(Debug)]
pub(super) enum Leaving {
    No,
    /// The target's: it gets its logout, and then a new login.
    Asked {
        why: &'static str,
        time2wait: u16,
        until: Instant,
    },
    /// Ours.
    LoggingOut(Option<oneshot::Sender<Result<(), Failure>>>, Instant),
}

impl Driver {
    pub(super) fn new(
        plan: Plan,
        opened: Opened,
        inbox: mpsc::Receiver<Message>,
        state: Arc<State>,
    ) -> Self {
        Self {
            plan,
            info: opened.info,
            connection: opened.line.connection,
            core: opened.line.core,
            inbox,
            state,
            calls: HashMap::new(),
            deadlines: VecDeque::new(),
            aborts: Vec::new(),
            leaving: Leaving::No,
            heard: Instant::now(),
            pinged: false,
            trouble: None,
            attempts: 0,
            submitted: 0,
        }
    }

    /// Runs until the session ends, then fails whatever still waits.
    pub(super) async fn run(mut self) {
        let failure = loop {
            let cause = match self.drive().await {
                Ok(()) => match self.leaving {
                    Leaving::Asked { why, .. } => Failure::lost(why),
                    _ => break Failure::LoggedOut,
                },
                Err(failure) => failure,
            };
            if let Err(failure) = Box::pin(self.recover(cause)).await {
                break failure;
            }
        };
        self.state.end.set(failure.clone()).ok();
        self.state.budget.close();
        self.inbox.close();
        // A receiver may be gone: then nobody wants to know.
        for (_, waiting) in self.calls.drain() {
            waiting.call.reply.send(Err(failure.clone())).ok();
        }
        if let Leaving::LoggingOut(Some(reply), _) = self.leaving {
            let end = match &failure {
                Failure::LoggedOut => Ok(()),
                failure => Err(failure.clone()),
            };
            reply.send(end).ok();
        }
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Call(call) => drop(call.reply.send(Err(failure.clone()))),
                Message::LogOut(reply) => drop(reply.send(Err(failure.clone()))),
            }
        }
    }

    /// Drives one connection until it fails or is logged out.
    async fn drive(&mut self) -> Result<(), Failure> {
        let timer = tokio::time::sleep_until(self.next_deadline());
        tokio::pin!(timer);
        loop {
            while !self.connection.is_full() {
                match self.core.poll_transmit() {
                    Some(pdu) => self.connection.queue(pdu),
                    None => break,
                }
            }
            while let Some(event) = self.core.poll_event() {
                match event {
                    Event::Completed(itt, outcome) => self.complete(itt, outcome),
                    Event::Managed(itt, response) => self.aborted(itt, response)?,
                    Event::Pong => {}
                    Event::News(sense) => {
                        if let Some(sense) = Sense::decode(&sense) {
                            self.state.note(sense)?;
                        }
                    }
                    Event::Closing { why, time2wait } => {
                        self.asked_to_leave(why, time2wait);
                        timer.as_mut().reset(self.next_deadline());
                    }
                    Event::LoggedOut => return Ok(()),
                }
            }
            let listening = matches!(self.leaving, Leaving::No);
            tokio::select! {
                turn = self.connection.turn() => {
                    if let Turn::Received(pdu) = turn? {
                        self.heard = Instant::now();
                        self.pinged = false;
                        self.core.handle_pdu(pdu)?;
                    }
                    self.count_sent();
                }
                message = self.inbox.recv(), if listening => self.take(message, timer.as_mut()),
                () = &mut timer => {
                    self.check_deadlines()?;
                    timer.as_mut().reset(self.next_deadline());
                }
            }
        }
    }

    fn count_sent(&mut self) {
        let sent = self.connection.take_bytes_sent();
        self.state.bytes_sent.fetch_add(sent, Ordering::Relaxed);
    }

    fn take(&mut self, message: Option<Message>, timer: Pin<&mut Sleep>) {
        match message {
            Some(Message::Call(call)) => self.submit_new(call),
            Some(Message::LogOut(reply)) => self.log_out(Some(reply), timer),
            // The last handle was dropped.
            None => self.log_out(None, timer),
        }
    }

    pub(super) fn submit_new(&mut self, call: Call) {
        self.submitted += 1;
        self.submit(call, self.submitted);
    }

    pub(super) fn submit(&mut self, call: Call, number: u64) {
        let itt = self.core.submit(call.command.clone());
        let deadline = Instant::now() + self.plan.options.command_timeout;
        self.deadlines.push_back((deadline, itt));
        let is_late = false;
        self.calls.insert(
            itt,
            Waiting {
                call,
                number,
                is_late,
            },
        );
    }

    fn complete(&mut self, itt: u32, outcome: Outcome) {
        self.trouble = None;
        self.attempts = 0;
        if let Some(waiting) = self.calls.remove(&itt) {
            if waiting.call.changes && outcome.status == Status::GOOD {
                self.state.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            waiting.call.reply.send(Ok(outcome)).ok();
        }
        // Tags are not used again before 2^32 others, so an ended one stays recognisable.
        while let Some((_, itt)) = self.deadlines.front()
            && !self.calls.contains_key(itt)
        {
            self.deadlines.pop_front();
        }
    }

    fn asked_to_leave(&mut self, why: &'static str, time2wait: u16) {
        if matches!(self.leaving, Leaving::No) {
            let until = Instant::now() + PATIENCE;
            self.leaving = Leaving::Asked {
                why,
                time2wait,
                until,
            };
            self.core.logout();
        }
    }

    fn log_out(
        &mut self,
        reply: Option<oneshot::Sender<Result<(), Failure>>>,
        timer: Pin<&mut Sleep>,
    ) {
        let patience = if self.calls.is_empty() {
            PATIENCE
        } else {
            self.plan.options.command_timeout
        };
        self.leaving = Leaving::LoggingOut(reply, Instant::now() + patience);
        self.core.logout();
        timer.reset(self.next_deadline());
    }
}

/// Deadlines.
impl Driver {
    fn next_deadline(&self) -> Instant {
        let options = &self.plan.options;
        let leaving = match &self.leaving {
            Leaving::LoggingOut(_, until) | Leaving::Asked { until, .. } => Some(*until),
            Leaving::No => None,
        };
        let command = self.deadlines.front().map(|(deadline, _)| *deadline);
        let abort = self.aborts.iter().map(|(_, _, until)| *until);
        let sign = self.heard + options.keep_alive * if self.pinged { 2 } else { 1 };
        // A command that comes later may be due before all of these.
        let later = Instant::now() + options.command_timeout;
        let deadlines = command.into_iter().chain(leaving).chain(abort);
        deadlines.chain([sign, later]).min().unwrap_or(later)
    }

    fn check_deadlines(&mut self) -> Result<(), Failure> {
        let now = Instant::now();
        while let Some((deadline, itt)) = self.deadlines.front().copied()
            && deadline <= now
        {
            self.deadlines.pop_front();
            self.abort(itt);
        }
        if self.aborts.iter().any(|(_, _, until)| *until <= now) {
            return Err(timeout("an abort", PATIENCE));
        }
        if let Leaving::LoggingOut(_, until) | Leaving::Asked { until, .. } = &self.leaving
            && *until <= now
        {
            return Err(timeout("logout", PATIENCE));
        }
        let keep_alive = self.plan.options.keep_alive;
        if self.pinged && self.heard + keep_alive * 2 <= now {
            return Err(timeout("a ping", keep_alive));
        }
        if !self.pinged && self.heard + keep_alive <= now {
            self.pinged = true;
            self.core.ping();
        }
        Ok(())
    }

    /// Gives a command up: nothing of it may reach the medium once its caller has its error.
    fn abort(&mut self, itt: u32) {
        let Some(waiting) = self.calls.get_mut(&itt) else {
            return;
        };
        waiting.is_late = true;
        if self.core.is_unsent(itt) {
            self.core.forget(itt);
            self.fail_late(itt);
            return;
        }
        let function = TaskFunction::ABORT_TASK;
        let request = self.core.manage(function, self.plan.lun, Some(itt));
        let until = Instant::now() + PATIENCE.min(self.plan.options.command_timeout);
        self.aborts.push((request, itt, until));
    }

    fn aborted(&mut self, request: u32, response: TaskResponse) -> Result<(), Failure> {
        let at = self.aborts.iter().position(|(itt, _, _)| *itt == request);
        let Some((_, itt, _)) = at.map(|at| self.aborts.swap_remove(at)) else {
            return Ok(());
        };
        if !response.is_over() {
            return Err(timeout("a command", self.plan.options.command_timeout));
        }
        self.core.forget(itt);
        self.fail_late(itt);
        Ok(())
    }

    pub(super) fn fail_late(&mut self, itt: u32) {
        if let Some(waiting) = self.calls.remove(&itt) {
            let late = timeout(waiting.call.name, self.plan.options.command_timeout);
            waiting.call.reply.send(Err(late)).ok();
        }
    }
}

pub(super) fn timeout(what: &'static str, after: Duration) -> Failure {
    Failure::Timeout { what, after }
}
