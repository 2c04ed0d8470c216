//! The handle that callers hold.

use super::driver::{Call, Driver, Message, State};
use super::fence::{self, Fenced};
use super::line::{MAX_ATTENTIONS, good, is_busy, is_illegal};
use super::login::{LoginOptions, random_isid};
use super::open::Plan;
use super::probe::LunInfo;
use crate::iscsi::error::{Error, Failure, Result};
use crate::iscsi::proto::pdu::Lun;
use crate::iscsi::proto::session::{Command, Transfer};
use crate::iscsi::scsi::{Cdb, SenseKey};
use crate::keyed_hash::{HASH_BYTES, HashKey};
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A session with one logical unit. Clones share it; when the last one goes, it logs out.
///
/// All methods may be called many at a time. What is in flight is bounded here, so callers only
/// bound what they hold in memory themselves.
#[derive(Debug, Clone)]
pub struct Session {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    name: Arc<str>,
    lun: Lun,
    command_timeout: Duration,
    pub(super) state: Arc<State>,
    driver: mpsc::Sender<Message>,
    info: LunInfo,
    /// Our reservation key, if the disk is reserved.
    key: Option<u64>,
    /// The first large write was sent.
    pub(super) primed: AtomicBool,
    /// The unit refused to write zeros by unmapping.
    pub(super) no_write_same: AtomicBool,
    /// Held by the call that zeroes: what a target is asked to zero at a time is bounded.
    pub(super) zeroing: Mutex<()>,
}

/// Bytes of data in flight: enough for a queue of four transfers, and not more than what stays in
/// the processor's caches on the way through the kernel.
const BUDGET: u32 = 2 * 1024 * 1024;

/// What a command counts at least, so that small ones are bounded too.
const SMALLEST_SHARE: u32 = 16 * 1024;

impl Session {
    /// Logs in to a target and gets to know the unit.
    ///
    /// # Errors
    /// If the target cannot be reached, refuses us, fails to authenticate itself, has no such
    /// disk, or all of this takes longer than `login_timeout`.
    pub async fn login(options: LoginOptions) -> Result<Self> {
        let name: Arc<str> = format!("{} {}", options.portal, options.target_name).into();
        let after = options.login_timeout;
        let opening = Self::open(options, Arc::clone(&name));
        let opened = tokio::time::timeout(after, Box::pin(opening)).await;
        let what = "login";
        opened
            .unwrap_or(Err(Failure::Timeout { what, after }))
            .map_err(|failure| Error::new("iscsi.login", &name, failure))
    }

    async fn open(options: LoginOptions, name: Arc<str>) -> Result<Self, Failure> {
        let lun = Lun::from_number(options.lun);
        let lun = lun.ok_or_else(|| {
            let lun = options.lun;
            Failure::InvalidArgument(format!("lun {lun} is above 16383"))
        })?;
        let plan = Plan {
            options: Arc::new(options),
            isid: random_isid()?,
            lun,
        };
        let opened = plan.open(false).await?;
        let state = Arc::new(State::new(BUDGET));
        let (driver, inbox) = mpsc::channel(128);
        let key = match opened.fenced {
            Some(Fenced::Held { .. }) => plan.options.fence.map(fence::key),
            _ => None,
        };
        let shared = Shared {
            name,
            lun,
            command_timeout: plan.options.command_timeout,
            state: Arc::clone(&state),
            driver,
            info: opened.info.clone(),
            key,
            primed: AtomicBool::new(false),
            no_write_same: AtomicBool::new(false),
            zeroing: Mutex::new(()),
        };
        // The driver ends by itself when the last handle is gone: it still has to log out then.
        TaskTracker::new().spawn(Driver::new(plan, opened, inbox, state).run());
        let shared = Arc::new(shared);
        Ok(Self { shared })
    }

    /// What the unit says about itself, as it was at the first login.
    #[must_use]
    pub fn lun_info(&self) -> &LunInfo {
        &self.shared.info
    }

    /// Whether a persistent reservation keeps other writers off the disk.
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        self.shared.key.is_some()
    }

    /// How often the connection was lost and made anew.
    #[must_use]
    pub fn reconnections(&self) -> u64 {
        self.shared.state.reconnections.load(Ordering::Relaxed)
    }

    /// Writes whole blocks, starting at `lba`.
    ///
    /// # Errors
    /// If the range is not on the disk, the unit refuses, or the session ends. What part of the
    /// data is then on the disk is not known.
    pub async fn write(&self, lba: u64, data: Bytes) -> Result<()> {
        let written = self.write_pieces(lba, data).await;
        written.map_err(|failure| self.error("iscsi.write", failure))
    }

    /// Reads whole blocks, starting at `lba`.
    ///
    /// # Errors
    /// If the range is not on the disk, the unit refuses, or the session ends.
    pub async fn read(&self, lba: u64, blocks: u32) -> Result<Bytes> {
        let read = self.read_pieces(lba, blocks).await;
        read.map_err(|failure| self.error("iscsi.read", failure))
    }

    /// The hash of bytes from the beginning of a block on, at most 4 MiB, as the unit reads them
    /// from its medium: nothing but the hash is sent. `None` if the unit is not our target,
    /// or one that cannot.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub async fn hash(
        &self,
        key: HashKey,
        lba: u64,
        bytes: u32,
    ) -> Result<Option<[u8; HASH_BYTES]>> {
        let hash = self.hash_piece(key, lba, bytes).await;
        hash.map_err(|failure| self.error("iscsi.hash", failure))
    }

    /// Makes blocks read back as zeros: by unmapping them if the unit promises zeros then, else by
    /// writing zeros.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn write_zeroes(&self, lba: u64, blocks: u64) -> Result<()> {
        let zeroed = self.zero_pieces(lba, blocks).await;
        zeroed.map_err(|failure| self.error("iscsi.write_zeroes", failure))
    }

    /// Tells the unit that the content of blocks is of no interest any more. What they read back
    /// as is not known then. Does nothing where the unit cannot unmap.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub async fn unmap(&self, lba: u64, blocks: u64) -> Result<()> {
        let unmapped = self.unmap_pieces(lba, blocks).await;
        unmapped.map_err(|failure| self.error("iscsi.unmap", failure))
    }

    /// Makes the unit write its cache out. What was written before is durable when this returns.
    ///
    /// # Errors
    /// If the unit refuses or was reset since the last flush, or the session ends.
    pub async fn flush(&self) -> Result<()> {
        let flushed = self.synchronize().await;
        flushed.map_err(|failure| self.error("iscsi.flush", failure))
    }

    /// Ends the session once earlier calls are done, and gives the reservation up. Calls on clones
    /// fail afterwards.
    ///
    /// # Errors
    /// If the session is over already, or the target does not answer.
    pub async fn logout(self) -> Result<()> {
        if let Some(key) = self.shared.key {
            for (cdb, transfer) in fence::release(key) {
                // A newer owner may have taken it, and a lost session is told of below.
                self.run(fence::OUT, cdb, transfer).await.ok();
            }
        }
        let (reply, answer) = oneshot::channel();
        let sent = self.shared.driver.send(Message::LogOut(reply)).await;
        let end = match sent {
            Ok(()) => answer
                .await
                .unwrap_or_else(|_| Err(self.shared.state.failure())),
            Err(_) => Err(self.shared.state.failure()),
        };
        end.map_err(|failure| self.error("iscsi.logout", failure))
    }

    /// Bytes sent so far, headers included.
    #[must_use]
    pub fn bytes_sent(&self) -> u64 {
        self.shared.state.bytes_sent.load(Ordering::Relaxed)
    }

    fn error(&self, op: &'static str, failure: Failure) -> Error {
        Error::new(op, &self.shared.name, failure)
    }
}

/// Single commands.
impl Session {
    /// Makes the unit write its whole cache out.
    async fn synchronize(&self) -> Result<(), Failure> {
        let state = &self.shared.state;
        let acknowledged = state.acknowledged.load(Ordering::Acquire);
        let (lba, blocks) = (0, 0); // the whole unit
        let cdb = Cdb::SynchronizeCache { lba, blocks };
        match self.run("SYNCHRONIZE CACHE", cdb, Transfer::None).await {
            Ok(_) => {}
            // A unit without a cache may not have the command either (SBC-4 section 4.15).
            Err(failure) if is_illegal(&failure) => {}
            Err(failure) => return Err(failure),
        }
        if state.was_reset.load(Ordering::Acquire) {
            return Err(Failure::Reset);
        }
        state.flushed.fetch_max(acknowledged, Ordering::AcqRel);
        Ok(())
    }

    /// Runs a command to a GOOD end, patient with a unit that is busy or has news.
    pub(super) async fn run(
        &self,
        name: &'static str,
        cdb: Cdb,
        transfer: Transfer,
    ) -> Result<Bytes, Failure> {
        let deadline = Instant::now() + self.shared.command_timeout;
        let mut pause = Duration::from_millis(10);
        let mut attentions = 0;
        loop {
            let failure = match self.run_once(name, cdb, transfer.clone()).await {
                Ok(data) => return Ok(data),
                Err(failure) => failure,
            };
            match &failure {
                Failure::Scsi { sense, .. } if sense.key == SenseKey::UNIT_ATTENTION => {
                    self.shared.state.note(*sense)?;
                    attentions += 1;
                    if attentions > MAX_ATTENTIONS {
                        return Err(failure);
                    }
                }
                failure if is_busy(failure) => {}
                failure if self.is_reserved() && fence::is_conflict(failure) => {
                    return Err(Failure::Fenced);
                }
                _ => return Err(failure),
            }
            if Instant::now() + pause >= deadline {
                return Err(failure);
            }
            if attentions == 0 {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(1));
            }
        }
    }

    /// Bytes that commands under way hold of what may be in flight.
    pub(super) fn bytes_in_flight(&self) -> u64 {
        let free = self.shared.state.budget.available_permits();
        u64::from(BUDGET).saturating_sub(u64::try_from(free).unwrap_or(u64::MAX))
    }

    /// Runs a command once.
    pub(super) async fn run_once(
        &self,
        command: &'static str,
        cdb: Cdb,
        transfer: Transfer,
    ) -> Result<Bytes, Failure> {
        let shared = &self.shared;
        let length = match &transfer {
            Transfer::None => 0,
            Transfer::In(length) => *length,
            Transfer::Out(data) => u32::try_from(data.len()).unwrap_or(u32::MAX),
        };
        let share = length.clamp(SMALLEST_SHARE, BUDGET);
        let budget = Arc::clone(&shared.state.budget);
        let share = budget
            .acquire_many_owned(share)
            .await
            .map_err(|_| shared.state.failure())?;
        let (reply, answer) = oneshot::channel();
        let changes = matches!(
            cdb,
            Cdb::Write { .. } | Cdb::WriteSame { .. } | Cdb::Unmap { .. }
        );
        let call = Call {
            name: command,
            changes,
            command: Command {
                lun: shared.lun,
                cdb: cdb.encode(),
                transfer,
            },
            reply,
            _share: share,
        };
        let sent = shared.driver.send(Message::Call(call)).await;
        sent.map_err(|_| shared.state.failure())?;
        let outcome = answer.await.map_err(|_| shared.state.failure())??;
        good(command, outcome)
    }
}
