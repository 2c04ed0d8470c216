//! The target: serves one disk on one logical unit.
//!
//! Every connection is a task of its own; what touches the disk runs on blocking threads. A peer
//! that sends garbage, stalls or vanishes costs its own connection and nothing else.

mod connection;
mod disk;
mod registry;
mod reservation;
mod rule;
mod unit;

pub use disk::{BlockDevice, FileDisk};
pub use rule::InitiatorRule;

use super::error::{Error, Failure, Result};
use super::io::Connection;
use super::proto::chap::Chap;
use super::proto::negotiate::DigestPolicy;
use super::proto::pdu::Lun;
use registry::Registry;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use unit::Unit;

/// Connections at a time, those that have not logged in included.
const MAX_CONNECTIONS: usize = 64;

/// What a target serves, and to whom.
pub struct TargetOptions {
    /// The target's iqn.
    pub name: String,
    /// Where it listens.
    pub listener: TcpListener,
    /// Number of the disk's logical unit. Others than 0 leave unit 0 to a controller that only
    /// lists the units.
    pub lun: u64,
    /// Names and secrets; without them anybody may log in.
    pub chap: Option<Chap>,
    /// Who may log in; without it anybody.
    pub initiator: Option<InitiatorRule>,
    /// CRC32C over headers and data.
    pub digests: DigestPolicy,
    /// The disk.
    pub disk: Arc<dyn BlockDevice>,
}

impl TargetOptions {
    /// LUN 1 for anybody, digests if the initiator wants them.
    pub fn new(name: impl Into<String>, listener: TcpListener, disk: Arc<dyn BlockDevice>) -> Self {
        Self {
            name: name.into(),
            listener,
            lun: 1,
            chap: None,
            initiator: None,
            digests: DigestPolicy::Preferred,
            disk,
        }
    }
}

impl fmt::Debug for TargetOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TargetOptions")
            .field("name", &self.name)
            .field("lun", &self.lun)
            .field("initiator", &self.initiator)
            .finish_non_exhaustive()
    }
}

/// What a target did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TargetStats {
    /// Bytes written to the disk.
    pub bytes_written: u64,
    /// Bytes read from the disk.
    pub bytes_read: u64,
    /// Bytes zeroed without being transferred.
    pub bytes_zeroed: u64,
    /// Bytes hashed without being transferred.
    pub bytes_hashed: u64,
    /// Flushes of the disk.
    pub flushes: u64,
    /// Normal sessions now.
    pub sessions: u64,
    /// Normal sessions ever.
    pub logins: u64,
}

/// A running target. Dropping it is a power cut: connections are closed at once, whatever they
/// were doing; only single disk operations already begun still come to their end.
#[derive(Debug)]
pub struct Target {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

/// What all connections share.
struct Shared {
    name: Arc<str>,
    chap: Option<Chap>,
    digests: DigestPolicy,
    unit: Arc<Unit>,
    registry: Registry,
    counters: Arc<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    written: AtomicU64,
    read: AtomicU64,
    zeroed: AtomicU64,
    hashed: AtomicU64,
    flushes: AtomicU64,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl Target {
    /// Starts to serve, on the runtime that this is called in.
    ///
    /// # Errors
    /// If the options cannot be: a LUN above 16383, one CHAP secret for both directions, or a
    /// listener without address.
    pub fn start(options: TargetOptions) -> Result<Self> {
        let name: Arc<str> = options.name.as_str().into();
        let error = |failure| Error::new("iscsi.serve", &name, failure);
        let address = options.listener.local_addr().map_err(|source| {
            let doing = "cannot tell the listener's address";
            error(Failure::Local {
                doing,
                source: Arc::new(source),
            })
        })?;
        let invalid = |text: &str| error(Failure::InvalidArgument(text.to_owned()));
        let lun = Lun::from_number(options.lun).ok_or_else(|| invalid("lun is above 16383"))?;
        if options
            .chap
            .as_ref()
            .is_some_and(|chap| !chap.has_distinct_secrets())
        {
            return Err(invalid("chap secrets of initiator and target must differ"));
        }
        let counters = Arc::new(Counters::default());
        let unit = Unit::new(lun, &options.name, options.disk, Arc::clone(&counters));
        let shared = Arc::new(Shared {
            name: Arc::clone(&name),
            chap: options.chap,
            digests: options.digests,
            unit: Arc::new(unit),
            registry: Registry::new(options.initiator),
            counters,
        });
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(options.listener, Arc::clone(&shared), stop.clone()));
        Ok(Self {
            address,
            shared,
            stop,
            tasks,
        })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it did so far.
    #[must_use]
    pub fn stats(&self) -> TargetStats {
        let counters = &self.shared.counters;
        let (sessions, logins) = self.shared.registry.counts();
        TargetStats {
            bytes_written: counters.written.load(Ordering::Relaxed),
            bytes_read: counters.read.load(Ordering::Relaxed),
            bytes_zeroed: counters.zeroed.load(Ordering::Relaxed),
            bytes_hashed: counters.hashed.load(Ordering::Relaxed),
            flushes: counters.flushes.load(Ordering::Relaxed),
            sessions,
            logins,
        }
    }

    /// Closes all connections, waits for running disk operations, and flushes the disk.
    ///
    /// # Errors
    /// If the disk cannot be flushed.
    pub async fn stop(mut self) -> Result<()> {
        self.shared.registry.close().await;
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
        let unit = Arc::clone(&self.shared.unit);
        let flushed = tokio::task::spawn_blocking(move || unit.flush()).await;
        let flushed = flushed.unwrap_or_else(|error| Err(error.into()));
        flushed.map_err(|source| {
            let (doing, source) = ("cannot flush the disk", Arc::new(source));
            Error::new(
                "iscsi.serve",
                &self.shared.name,
                Failure::Local { doing, source },
            )
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.shared.registry.shut();
    }
}

/// Accepts connections until told to stop; dropping this drops them all.
async fn accept(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let Ok((stream, _)) = accepted else {
                    // Out of file descriptors, most likely: it passes when a connection ends.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                // Beyond the limit the stream is closed at once.
                if connections.len() < MAX_CONNECTIONS && let Ok(stream) = Connection::new(stream) {
                    let task = connection::serve(stream, Arc::clone(&shared), stop.clone());
                    connections.spawn(task);
                }
            }
        }
    }
    while connections.join_next().await.is_some() {}
}
