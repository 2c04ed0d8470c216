//! One connection from its login to its end.

use super::Shared;
use super::registry::{Gate, Member, Port};
use super::unit::{MAX_TRANSFER, Nexus, Work, failed};
use crate::iscsi::io::{Broken, Connection, Turn};
use crate::iscsi::proto::chap::Challenge;
use crate::iscsi::proto::login::{
    self, LoggedIn, Ready, SessionType, TargetConfig, TargetProgress,
};
use crate::iscsi::proto::negotiate::Proposal;
use crate::iscsi::proto::session::{
    Completion, Limits, Portal, Request, TargetEvent, TargetSession,
};
use crate::iscsi::proto::{Error, LoginStatus};
use crate::iscsi::scsi::Sense;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For the whole login. It includes the wait for disk operations of replaced sessions.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Silence after which the initiator is asked for a sign of life; as long again, and it is gone.
const IDLE: Duration = Duration::from_secs(30);

/// Commands that an initiator may have open.
const QUEUE_DEPTH: u32 = 64;

/// Disk operations of one session at a time.
const PARALLEL: usize = 8;

const LIMITS: Limits = Limits {
    queue_depth: QUEUE_DEPTH,
    max_transfer: MAX_TRANSFER,
    budget: 8 * 1024 * 1024,
};

/// Why a connection ended. Nobody is told: the peer sees it closed.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Broken(#[from] Broken),
    #[error(transparent)]
    Protocol(#[from] Error),
    #[error("initiator is silent")]
    Silent,
    #[error("a disk operation panicked")]
    DiskPanicked,
    #[error("this machine has no random numbers")]
    NoEntropy,
}

/// Serves a connection until it ends, whoever ends it.
pub(super) async fn serve(connection: Connection, shared: Arc<Shared>, stop: CancellationToken) {
    let peer = connection.peer_address().ok();
    let ended = tokio::select! {
        ended = Box::pin(run(connection, &shared)) => ended,
        () = stop.cancelled() => Ok(()),
    };
    if let Err(end) = ended {
        tracing::debug!(?peer, reason = %end, "iscsi connection ended");
    }
}

async fn run(connection: Connection, shared: &Shared) -> Result<(), End> {
    let logged_in = tokio::time::timeout(LOGIN_TIMEOUT, log_in(connection, shared)).await;
    let Some(session) = logged_in.map_err(|_| End::Silent)?? else {
        return Ok(());
    };
    session.run().await
}

/// Takes a connection through its login; `None` if it was refused.
async fn log_in(mut connection: Connection, shared: &Shared) -> Result<Option<Session<'_>>, End> {
    let config = TargetConfig {
        target_name: shared.name.to_string(),
        chap: shared.chap.clone(),
        challenge: challenge()?,
        proposal: Proposal {
            digests: shared.digests,
            max_recv_data_segment: 256 * 1024,
            max_burst: 1024 * 1024,
            first_burst: 256 * 1024,
            initial_r2t: false,
            immediate_data: true,
            max_outstanding_r2t: 1,
            time2wait: 0,
            time2retain: 0,
        },
        queue_depth: QUEUE_DEPTH,
    };
    let mut login = Box::new(login::Target::new(config));
    let mut request = connection.receive().await?;
    loop {
        let last = match login.handle(&request)? {
            TargetProgress::Send(response, next) => {
                login = next;
                request = connection.exchange(response).await?;
                continue;
            }
            TargetProgress::Ready(ready) => match admit(&ready, shared).await {
                Ok(member) => return Session::begin(connection, *ready, member, shared).map(Some),
                Err(status) => ready.refuse(status),
            },
            TargetProgress::Refuse(response) => response,
        };
        connection.send_last(last).await.map_err(Broken::Io)?;
        return Ok(None);
    }
}

/// Decides on a login that is complete; a discovery session is no member.
async fn admit(ready: &Ready, shared: &Shared) -> Result<Option<Member>, LoginStatus> {
    let registry = &shared.registry;
    match ready.session {
        _ if ready.tsih != 0 => Err(registry.refuse_to_join(ready.tsih)),
        SessionType::Discovery if registry.knows(&ready.initiator_name) => Ok(None),
        SessionType::Discovery => Err(LoginStatus::AUTHORIZATION_FAILURE),
        SessionType::Normal { .. } => {
            let admitted = registry.admit(&ready.initiator_name, ready.isid).await;
            admitted.map(Some)
        }
    }
}

fn challenge() -> Result<Challenge, End> {
    let (mut id, mut bytes) = ([0], [0; 32]);
    getrandom::fill(&mut id).map_err(|_| End::NoEntropy)?;
    getrandom::fill(&mut bytes).map_err(|_| End::NoEntropy)?;
    Ok(Challenge { id: id[0], bytes })
}

/// A connection in the full feature phase.
struct Session<'a> {
    connection: Connection,
    core: TargetSession,
    shared: &'a Shared,
    gate: Gate,
    nexus: Nexus,
    /// Takes the session out of the registry in the end.
    _member: Option<Member>,
    waiting: VecDeque<Request>,
    running: JoinSet<(u32, Completion)>,
    /// A unit attention that the initiator has not been told yet (SAM-5 section 5.14).
    attention: Option<Sense>,
    logged_out: bool,
    heard: Instant,
    pinged: bool,
}

impl<'a> Session<'a> {
    fn begin(
        mut connection: Connection,
        ready: Ready,
        member: Option<Member>,
        shared: &'a Shared,
    ) -> Result<Self, End> {
        let discovery = member.is_none();
        let tsih = member.as_ref().map_or(1, |member| member.tsih);
        let gate = member.as_ref().map(|member| member.gate.clone());
        let port = member.as_ref().map(|member| Port::clone(&member.port));
        // To a port that is new here nothing has happened that it could have missed.
        let returns = member.as_ref().is_some_and(|member| member.returns);
        let attention = returns.then_some(Sense::I_T_NEXUS_LOSS);
        let address = connection.local_address().map_err(Broken::Io)?;
        let portal = Portal {
            target_name: shared.name.to_string(),
            address: format!("{address},1"),
        };
        let (response, logged_in): (_, LoggedIn) = ready.accept(tsih);
        connection.queue(response);
        connection.set_params(&logged_in.params);
        Ok(Self {
            connection,
            core: TargetSession::new(logged_in, discovery, portal, LIMITS),
            shared,
            gate: gate.unwrap_or_default(),
            nexus: Nexus {
                port: port.unwrap_or_default(),
                hash_key: None,
            },
            _member: member,
            waiting: VecDeque::new(),
            running: JoinSet::new(),
            attention,
            logged_out: false,
            heard: Instant::now(),
            pinged: false,
        })
    }

    async fn run(mut self) -> Result<(), End> {
        let timer = tokio::time::sleep(IDLE);
        tokio::pin!(timer);
        let shut = self.gate.shut.clone();
        loop {
            self.drain();
            if self.logged_out && self.connection.is_flushed() {
                return Ok(());
            }
            tokio::select! {
                turn = self.connection.turn() => {
                    if let Turn::Received(pdu) = turn? {
                        self.heard = Instant::now();
                        self.pinged = false;
                        self.core.handle_pdu(pdu)?;
                    }
                }
                Some(done) = self.running.join_next() => {
                    // What is cut off or replaced answers nothing: a command that the gate kept
                    // from the disk would look failed for good.
                    if shut.is_cancelled() {
                        return Ok(());
                    }
                    // A panicking disk takes its own connection down: its command has no status.
                    let (itt, completion) = done.map_err(|_| End::DiskPanicked)?;
                    self.core.complete(itt, completion);
                }
                () = shut.cancelled() => return Ok(()),
                () = &mut timer => timer.as_mut().reset(self.check_silence()?),
            }
        }
    }

    /// Moves everything on that can move without waiting.
    fn drain(&mut self) {
        while let Some(event) = self.core.poll_event() {
            match event {
                TargetEvent::Execute(request) => self.waiting.push_back(request),
                TargetEvent::LoggedOut => self.logged_out = true,
            }
        }
        while self.running.len() < PARALLEL {
            let Some(request) = self.waiting.pop_front() else {
                break;
            };
            self.execute(request);
        }
        while !self.connection.is_full() {
            let Some(pdu) = self.core.poll_transmit() else {
                break;
            };
            self.connection.queue(pdu);
        }
    }

    fn execute(&mut self, request: Request) {
        let itt = request.itt;
        let unit = &self.shared.unit;
        if unit.reports_attention(&request)
            && let Some(attention) = self
                .attention
                .take()
                .or_else(|| unit.take_news(&self.nexus.port))
        {
            self.core.complete(itt, failed(attention));
            return;
        }
        match unit.begin(request, &mut self.nexus) {
            Work::Done(completion) => self.core.complete(itt, completion),
            Work::Disk(work) => {
                // The token is held until the operation has ended, even if this connection goes.
                let token = self.gate.running.token();
                let shut = self.gate.shut.clone();
                self.running.spawn_blocking(move || {
                    let completion = if shut.is_cancelled() {
                        failed(Sense::INTERNAL_TARGET_FAILURE)
                    } else {
                        work.run()
                    };
                    drop(token);
                    (itt, completion)
                });
            }
        }
    }

    /// Pings a silent initiator, and gives it up if it stays silent. Yields when to look again.
    fn check_silence(&mut self) -> Result<Instant, End> {
        let now = Instant::now();
        let silent = now.duration_since(self.heard);
        match Patience::with(silent, !self.running.is_empty(), self.pinged) {
            Patience::Wait(pause) => Ok(now + pause),
            Patience::Ping => {
                self.pinged = true;
                self.core.ping();
                Ok(now + IDLE)
            }
            Patience::Over => Err(End::Silent),
        }
    }
}

/// What to do about a silent initiator.
#[derive(Debug, PartialEq, Eq)]
enum Patience {
    Wait(Duration),
    Ping,
    Over,
}

impl Patience {
    /// `busy`: the initiator waits for us, not we for it.
    fn with(silent: Duration, busy: bool, pinged: bool) -> Self {
        match IDLE.checked_sub(silent) {
            Some(rest) if !rest.is_zero() => Self::Wait(rest),
            _ if busy => Self::Wait(IDLE),
            _ if pinged => Self::Over,
            _ => Self::Ping,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_pinged_once_and_then_over() {
        let second = Duration::from_secs(1);
        let patience = Patience::with;
        assert_eq!(
            patience(second, false, false),
            Patience::Wait(IDLE - second)
        );
        assert_eq!(patience(IDLE, false, false), Patience::Ping);
        assert_eq!(patience(IDLE * 2, false, true), Patience::Over);
        assert_eq!(patience(IDLE * 2, true, false), Patience::Wait(IDLE));
    }
}
