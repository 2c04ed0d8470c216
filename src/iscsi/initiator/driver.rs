//! The task that owns a session's connection and core.

use crate::iscsi::error::Failure;
use crate::iscsi::io::{Connection, Turn};
use crate::iscsi::proto::session::{Command, Event, InitiatorSession, Outcome};
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, Sleep};

/// How long a target may take to answer a logout.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(5);

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
    pub(super) reply: oneshot::Sender<Result<Outcome, Failure>>,
    /// The call's share of what may be in flight; held until the command ends, even if nobody
    /// waits for it any more.
    pub(super) share: OwnedSemaphorePermit,
}

/// What driver and handles both see.
#[derive(Debug)]
pub(super) struct State {
    /// How the session ended.
    pub(super) end: OnceLock<Failure>,
    /// Bytes that may be in flight.
    pub(super) budget: Arc<Semaphore>,
    pub(super) bytes_sent: AtomicU64,
}

impl State {
    /// Why nothing more can be done.
    pub(super) fn failure(&self) -> Failure {
        let end = self.end.get().cloned();
        end.unwrap_or_else(|| Failure::lost("session is over"))
    }
}

/// Owns the connection; ends when the session does.
#[derive(Debug)]
pub(super) struct Driver {
    connection: Connection,
    core: InitiatorSession,
    inbox: mpsc::Receiver<Message>,
    state: Arc<State>,
    command_timeout: Duration,
    calls: HashMap<u32, Waiting>,
    /// In the order of their deadlines, ended ones included.
    deadlines: VecDeque<(Instant, u32)>,
    leaving: Leaving,
}

#[derive(Debug)]
struct Waiting {
    name: &'static str,
    reply: oneshot::Sender<Result<Outcome, Failure>>,
    _share: OwnedSemaphorePermit,
}

/// Whether the session is about to end, and at whose wish.
#[derive(Debug)]
enum Leaving {
    No,
    /// The target's: no new calls.
    Asked(&'static str),
    /// Ours.
    LoggingOut(Option<oneshot::Sender<Result<(), Failure>>>, Instant),
}

impl Driver {
    pub(super) fn new(
        connection: Connection,
        core: InitiatorSession,
        inbox: mpsc::Receiver<Message>,
        state: Arc<State>,
        command_timeout: Duration,
    ) -> Self {
        Self {
            connection,
            core,
            inbox,
            state,
            command_timeout,
            calls: HashMap::new(),
            deadlines: VecDeque::new(),
            leaving: Leaving::No,
        }
    }

    /// Runs until the session ends, then fails whatever still waits.
    pub(super) async fn run(mut self) {
        let end = self.drive().await;
        let failure = match (&end, &self.leaving) {
            (Err(failure), _) => failure.clone(),
            (Ok(()), Leaving::Asked(why)) => Failure::lost(*why),
            (Ok(()), _) => Failure::LoggedOut,
        };
        self.state.end.set(failure.clone()).ok();
        self.state.budget.close();
        self.inbox.close();
        // A receiver may be gone: then nobody wants to know.
        for (_, waiting) in self.calls.drain() {
            waiting.reply.send(Err(failure.clone())).ok();
        }
        if let Leaving::LoggingOut(Some(reply), _) = self.leaving {
            reply.send(end).ok();
        }
        while let Ok(message) = self.inbox.try_recv() {
            match message {
                Message::Call(call) => drop(call.reply.send(Err(failure.clone()))),
                Message::LogOut(reply) => drop(reply.send(Err(failure.clone()))),
            }
        }
    }

    async fn drive(&mut self) -> Result<(), Failure> {
        let timer = tokio::time::sleep(self.command_timeout);
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
                    Event::Closing(why) => self.asked_to_leave(why),
                    Event::LoggedOut => return Ok(()),
                }
            }
            let listening = !matches!(self.leaving, Leaving::LoggingOut(..));
            tokio::select! {
                turn = self.connection.turn() => {
                    if let Turn::Received(pdu) = turn? {
                        self.core.handle_pdu(pdu)?;
                    }
                    let sent = self.connection.bytes_sent();
                    self.state.bytes_sent.store(sent, Ordering::Relaxed);
                }
                message = self.inbox.recv(), if listening => self.take(message, timer.as_mut()),
                () = &mut timer => self.check_deadlines(timer.as_mut())?,
            }
        }
    }

    fn take(&mut self, message: Option<Message>, timer: std::pin::Pin<&mut Sleep>) {
        match message {
            Some(Message::Call(call)) => self.submit(call),
            Some(Message::LogOut(reply)) => self.log_out(Some(reply), timer),
            // The last handle was dropped.
            None => self.log_out(None, timer),
        }
    }

    fn submit(&mut self, call: Call) {
        if let Leaving::Asked(why) = self.leaving {
            call.reply.send(Err(Failure::lost(why))).ok();
            return;
        }
        let itt = self.core.submit(call.command);
        let deadline = Instant::now() + self.command_timeout;
        self.deadlines.push_back((deadline, itt));
        let waiting = Waiting {
            name: call.name,
            reply: call.reply,
            _share: call.share,
        };
        self.calls.insert(itt, waiting);
    }

    fn complete(&mut self, itt: u32, outcome: Outcome) {
        if let Some(waiting) = self.calls.remove(&itt) {
            waiting.reply.send(Ok(outcome)).ok();
        }
        // Tags are not used again before 2^32 others, so an ended one stays recognisable.
        while let Some((_, itt)) = self.deadlines.front()
            && !self.calls.contains_key(itt)
        {
            self.deadlines.pop_front();
        }
    }

    fn asked_to_leave(&mut self, why: &'static str) {
        if matches!(self.leaving, Leaving::No) {
            self.leaving = Leaving::Asked(why);
            self.core.logout();
        }
    }

    fn log_out(
        &mut self,
        reply: Option<oneshot::Sender<Result<(), Failure>>>,
        timer: std::pin::Pin<&mut Sleep>,
    ) {
        let patience = if self.calls.is_empty() {
            LOGOUT_TIMEOUT
        } else {
            self.command_timeout
        };
        let deadline = Instant::now() + patience;
        self.leaving = Leaving::LoggingOut(reply, deadline);
        self.core.logout();
        timer.reset(self.next_deadline());
    }

    fn next_deadline(&self) -> Instant {
        let logout = match &self.leaving {
            Leaving::LoggingOut(_, deadline) => Some(*deadline),
            _ => None,
        };
        let command = self.deadlines.front().map(|(deadline, _)| *deadline);
        let next = command.into_iter().chain(logout).min();
        next.unwrap_or_else(|| Instant::now() + self.command_timeout)
    }

    /// At error recovery level 0 a lost command cannot be told from a slow one, so a deadline
    /// that passes ends the session.
    fn check_deadlines(&mut self, timer: std::pin::Pin<&mut Sleep>) -> Result<(), Failure> {
        let now = Instant::now();
        if let Some((deadline, itt)) = self.deadlines.front()
            && *deadline <= now
        {
            let what = self.calls.get(itt).map_or("a command", |call| call.name);
            let after = self.command_timeout;
            return Err(Failure::Timeout { what, after });
        }
        if let Leaving::LoggingOut(_, deadline) = &self.leaving
            && *deadline <= now
        {
            let (what, after) = ("logout", LOGOUT_TIMEOUT);
            return Err(Failure::Timeout { what, after });
        }
        timer.reset(self.next_deadline());
        Ok(())
    }
}
