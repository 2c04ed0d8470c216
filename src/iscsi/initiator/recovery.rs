//! Error recovery level 0: a lost connection is made anew, and what was not answered is sent
//! again (RFC 7143 section 7.1.4).
//!
//! Commands may be sent twice because all that a session sends can be repeated. What the unit has
//! acknowledged is not sent again; so where its cache may have been lost in the meantime, the
//! session ends with [`Failure::Reset`], and nobody takes the data for written.

use super::driver::{Call, Driver, Leaving, Message, Waiting};
use super::open::Opened;
use crate::iscsi::error::Failure;
use crate::iscsi::proto::{Error, LoginStatus};
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// The first pause between two logins; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

impl Driver {
    /// Makes the connection anew, or fails with what the session ends with.
    pub(super) async fn recover(&mut self, cause: Failure) -> Result<(), Failure> {
        if !cause.is_of_the_connection() {
            return Err(cause);
        }
        let late = self.calls.iter().filter(|(_, waiting)| waiting.is_late);
        for itt in late.map(|(itt, _)| *itt).collect::<Vec<_>>() {
            self.fail_late(itt);
        }
        let patience = self.plan.options.recovery_timeout;
        let until = *self.trouble.get_or_insert_with(Instant::now) + patience;
        if patience.is_zero() || self.is_done() {
            return Err(cause);
        }
        // Some targets have room for one connection only.
        self.connection.close().await;
        let mut wait = self.time2wait();
        let mut parked = VecDeque::new();
        let failure = loop {
            let pause = wait.max(pause_before(self.attempts));
            self.attempts += 1;
            wait = Duration::ZERO;
            if Instant::now() + pause >= until {
                break cause.clone();
            }
            match self.attempt(pause, until, &mut parked).await {
                Ok(Some(opened)) => match self.resume(opened) {
                    Ok(()) => {
                        for call in parked {
                            self.submit_new(call);
                        }
                        return Ok(());
                    }
                    Err(failure) => break failure,
                },
                // The last caller is gone.
                Ok(None) => break cause,
                Err(failure) if may_pass(&failure) && Instant::now() < until => {
                    tracing::debug!(%failure, "no new iscsi session yet");
                }
                Err(failure) if may_pass(&failure) => {
                    let after = humantime::format_duration(patience);
                    let text = format!("{cause}; no new session within {after}: {failure}");
                    break Failure::lost(text);
                }
                Err(failure) => break failure,
            }
        };
        for call in parked {
            call.reply.send(Err(failure.clone())).ok();
        }
        Err(failure)
    }

    /// Tries a login, while what callers want meanwhile is put aside. `None` if nobody wants
    /// anything any more.
    async fn attempt(
        &mut self,
        pause: Duration,
        until: Instant,
        parked: &mut VecDeque<Call>,
    ) -> Result<Option<Box<Opened>>, Failure> {
        let plan = self.plan.clone();
        let interrupted = !self.calls.is_empty();
        let end = until.min(Instant::now() + pause + plan.options.login_timeout);
        let login = async {
            tokio::time::sleep(pause).await;
            plan.open(interrupted).await.map(Box::new)
        };
        let mut login = Box::pin(timeout_at(end, login));
        loop {
            let listening = !matches!(self.leaving, Leaving::LoggingOut(..));
            let message = tokio::select! {
                opened = &mut login => {
                    let late = || super::driver::timeout("login", plan.options.login_timeout);
                    return opened.unwrap_or_else(|_| Err(late())).map(Some);
                }
                message = self.inbox.recv(), if listening => message,
            };
            let reply = match message {
                Some(Message::Call(call)) => {
                    parked.push_back(call);
                    continue;
                }
                Some(Message::LogOut(reply)) => Some(reply),
                None => None,
            };
            let end = Instant::now() + plan.options.command_timeout;
            self.leaving = Leaving::LoggingOut(reply, end);
            if self.calls.is_empty() && parked.is_empty() {
                return Ok(None);
            }
        }
    }

    /// Goes on with a new session.
    fn resume(&mut self, opened: Box<Opened>) -> Result<(), Failure> {
        opened.check_same(&self.info)?;
        if self.state.is_dirty() && !opened.kept_its_cache() {
            self.state.was_reset.store(true, Ordering::Release);
            return Err(Failure::Reset);
        }
        tracing::info!(
            target = %self.plan.options.target_name,
            again = self.calls.len(),
            "iscsi session made anew"
        );
        self.state.reconnections.fetch_add(1, Ordering::Relaxed);
        let opened = *opened;
        self.connection = opened.line.connection;
        self.core = opened.line.core;
        self.core.start_slowly();
        self.info.params = opened.info.params;
        self.heard = Instant::now();
        self.pinged = false;
        self.deadlines.clear();
        self.aborts.clear();
        let mut again: Vec<Waiting> = self.calls.drain().map(|(_, waiting)| waiting).collect();
        again.sort_unstable_by_key(|waiting| waiting.number);
        for Waiting { call, number, .. } in again {
            self.submit(call, number);
        }
        match &mut self.leaving {
            Leaving::LoggingOut(_, until) => {
                *until = Instant::now() + self.plan.options.command_timeout;
                self.core.logout();
            }
            leaving => *leaving = Leaving::No,
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        matches!(self.leaving, Leaving::LoggingOut(..)) && self.calls.is_empty()
    }

    /// How long the target wants to be left alone.
    fn time2wait(&self) -> Duration {
        match self.leaving {
            Leaving::Asked { time2wait, .. } => Duration::from_secs(time2wait.into()),
            _ => Duration::from_secs(self.info.params.time2wait.into()),
        }
    }
}

fn pause_before(attempt: u32) -> Duration {
    match attempt {
        0 => Duration::ZERO,
        attempt => (FIRST_PAUSE * 2u32.saturating_pow(attempt - 1).min(64)).min(LONGEST_PAUSE),
    }
}

/// Whether another login may do better. A target that is starting does not have its targets yet.
fn may_pass(failure: &Failure) -> bool {
    match failure {
        Failure::Protocol(Error::LoginRejected(status)) => {
            status.class == 3 || *status == LoginStatus::NOT_FOUND
        }
        Failure::Unusable { .. } => true,
        failure => failure.is_of_the_connection(),
    }
}
