//! The handle that callers hold.

use super::driver::{Call, Driver, Message, State};
use super::login::{LoginOptions, log_in};
use super::probe::{LunInfo, is_illegal, probe};
use crate::iscsi::error::{Error, Failure, Result};
use crate::iscsi::proto::login::SessionType;
use crate::iscsi::proto::pdu::{Lun, Status};
use crate::iscsi::proto::session::{Command, InitiatorSession, Transfer};
use crate::iscsi::scsi::{Cdb, Sense, SenseKey, unmap_list};
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// A session with one logical unit. Clones share it; when the last one goes, it logs out.
///
/// All methods may be called many at a time. What is in flight is bounded here, so callers only
/// bound what they hold in memory themselves.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    name: Arc<str>,
    lun: Lun,
    command_timeout: Duration,
    state: Arc<State>,
    driver: mpsc::Sender<Message>,
    info: OnceLock<LunInfo>,
    /// Data was written since the last flush.
    dirty: AtomicBool,
    /// The unit was reset while dirty.
    was_reset: AtomicBool,
    /// The first large write was sent.
    primed: AtomicBool,
    /// The unit refused to write zeros by unmapping.
    no_write_same: AtomicBool,
}

/// Bytes of data in flight: enough for a queue of eight transfers, and not more than what stays
/// in the processor's caches on the way through the kernel.
const BUDGET: u32 = 2 * 1024 * 1024;

/// What a command counts at least, so that small ones are bounded too.
const SMALLEST_SHARE: u32 = 16 * 1024;

/// Length of one transfer in bytes.
const TRANSFER: u64 = 256 * 1024;

/// Length of the first transfer if there is enough data.
///
/// A target on glibc, as tgt, maps and unmaps a buffer for each command until it has once freed a
/// larger one, which halves its speed.
const FIRST_TRANSFER: u64 = 1024 * 1024;

/// Calls of one method that run at a time; the budget bounds them further.
const CONCURRENCY: usize = 16;

/// Bytes that one command may zero by unmapping.
const LARGEST_ZERO: u64 = 1 << 30;

/// Unit attentions in a row after which a command is given up.
const MAX_ATTENTIONS: u32 = 4;

static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

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
        let target_name = options.target_name;
        let session = SessionType::Normal { target_name };
        let (connection, logged_in) = log_in(
            &options.portal,
            &options.initiator_name,
            session,
            options.chap,
            options.digests,
        )
        .await?;
        let params = logged_in.params.clone();
        let state = Arc::new(State {
            end: OnceLock::new(),
            budget: Arc::new(Semaphore::new(
                usize::try_from(BUDGET).unwrap_or(usize::MAX),
            )),
            bytes_sent: AtomicU64::new(0),
        });
        let (driver, inbox) = mpsc::channel(128);
        let core = InitiatorSession::new(logged_in);
        let timeout = options.command_timeout;
        let task = Driver::new(connection, core, inbox, Arc::clone(&state), timeout);
        // The driver ends by itself when the last handle is gone: it still has to log out then.
        TaskTracker::new().spawn(task.run());
        let session = Self {
            shared: Arc::new(Shared {
                name,
                lun,
                command_timeout: timeout,
                state,
                driver,
                info: OnceLock::new(),
                dirty: AtomicBool::new(false),
                was_reset: AtomicBool::new(false),
                primed: AtomicBool::new(false),
                no_write_same: AtomicBool::new(false),
            }),
        };
        let info = probe(&session, options.lun, params).await?;
        session.shared.info.set(info).ok();
        Ok(session)
    }

    /// What the unit says about itself.
    #[must_use]
    pub fn lun_info(&self) -> &LunInfo {
        #[expect(
            clippy::expect_used,
            reason = "login sets it before it returns the session"
        )]
        self.shared.info.get().expect("set by login")
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

    /// Ends the session once earlier calls are done. Calls on clones fail afterwards.
    ///
    /// # Errors
    /// If the session is over already, or the target does not answer.
    pub async fn logout(self) -> Result<()> {
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

/// Ranges cut to commands.
impl Session {
    async fn write_pieces(&self, lba: u64, mut data: Bytes) -> Result<(), Failure> {
        let block_bytes = self.block_bytes();
        let bytes = data.len() as u64;
        if !bytes.is_multiple_of(block_bytes) {
            let text = format!("{bytes} bytes are not whole blocks of {block_bytes}");
            return Err(Failure::InvalidArgument(text));
        }
        self.check_range(lba, bytes / block_bytes)?;
        let first = self.first_transfer(bytes);
        let pieces = pieces(lba, bytes / block_bytes, first, self.transfer_blocks());
        let writes = pieces.map(|(lba, blocks)| {
            let length = usize::try_from(u64::from(blocks) * block_bytes).unwrap_or(usize::MAX);
            let piece = data.split_to(length.min(data.len()));
            let force = false;
            (Cdb::Write { lba, blocks, force }, Transfer::Out(piece))
        });
        self.run_all("WRITE(16)", writes).await
    }

    async fn read_pieces(&self, lba: u64, blocks: u32) -> Result<Bytes, Failure> {
        self.check_range(lba, u64::from(blocks))?;
        let block_bytes = self.block_bytes();
        let length_of = |blocks: u32| u64::from(blocks) * block_bytes;
        let transfer = self.transfer_blocks();
        let mut reads = stream::iter(pieces(lba, u64::from(blocks), transfer, transfer))
            .map(|(lba, blocks)| async move {
                let length = u32::try_from(length_of(blocks)).unwrap_or(u32::MAX);
                let cdb = Cdb::Read { lba, blocks };
                let data = self.run("READ(16)", cdb, Transfer::In(length)).await?;
                if data.len() as u64 == u64::from(length) {
                    return Ok(data);
                }
                let text = format!("unit gave {} of {length} bytes at lba {lba}", data.len());
                Err(Failure::lost(text))
            })
            .buffered(CONCURRENCY);
        if blocks <= transfer {
            return reads.next().await.unwrap_or_else(|| Ok(Bytes::new()));
        }
        let mut all = BytesMut::with_capacity(usize::try_from(length_of(blocks)).unwrap_or(0));
        while let Some(data) = reads.next().await {
            all.extend_from_slice(&data?);
        }
        Ok(all.freeze())
    }

    async fn zero_pieces(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        self.check_range(lba, blocks)?;
        let info = self.lun_info();
        let block_bytes = self.block_bytes();
        let zeros = |blocks: u32| {
            let length = usize::try_from(u64::from(blocks) * block_bytes).unwrap_or(usize::MAX);
            Bytes::from_static(ZEROS.get(..length).unwrap_or(&ZEROS))
        };
        if info.unmap_zeroes && !self.shared.no_write_same.load(Ordering::Relaxed) {
            let largest = LARGEST_ZERO / block_bytes;
            let limit = at_most(largest, info.limits.max_write_same);
            let same = pieces(lba, blocks, limit, limit).map(|(lba, blocks)| {
                let (unmap, no_data) = (true, false);
                let cdb = Cdb::WriteSame {
                    lba,
                    blocks,
                    unmap,
                    no_data,
                };
                (cdb, Transfer::Out(zeros(1)))
            });
            match self.run_all("WRITE SAME(16)", same).await {
                Err(failure) if is_illegal(&failure) => {
                    self.shared.no_write_same.store(true, Ordering::Relaxed);
                }
                done => return done,
            }
        }
        let transfer = self.transfer_blocks();
        let writes = pieces(lba, blocks, transfer, transfer).map(|(lba, blocks)| {
            let force = false;
            (
                Cdb::Write { lba, blocks, force },
                Transfer::Out(zeros(blocks)),
            )
        });
        self.run_all("WRITE(16)", writes).await
    }

    async fn unmap_pieces(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        self.check_range(lba, blocks)?;
        let info = self.lun_info();
        if !info.can_unmap {
            return Ok(());
        }
        let largest = LARGEST_ZERO / self.block_bytes();
        let limit = at_most(largest, u64::from(info.limits.max_unmap));
        let unmaps = pieces(lba, blocks, limit, limit).map(|(lba, blocks)| {
            let list = unmap_list(lba, blocks);
            let length = u16::try_from(list.len()).unwrap_or(0);
            (Cdb::Unmap { length }, Transfer::Out(list))
        });
        self.run_all("UNMAP", unmaps).await
    }

    async fn synchronize(&self) -> Result<(), Failure> {
        let shared = &self.shared;
        shared.dirty.store(false, Ordering::Relaxed);
        let (lba, blocks) = (0, 0); // the whole unit
        let cdb = Cdb::SynchronizeCache { lba, blocks };
        let flushed = match self.run("SYNCHRONIZE CACHE", cdb, Transfer::None).await {
            // A unit without a cache may not have the command either (SBC-4 section 4.15).
            Err(failure) if is_illegal(&failure) => Ok(()),
            other => other.map(drop),
        };
        if flushed.is_err() {
            shared.dirty.store(true, Ordering::Relaxed);
        }
        if shared.was_reset.load(Ordering::Relaxed) {
            return Err(Failure::Reset);
        }
        flushed
    }

    /// Runs commands that change the medium, several at a time, until all are done or one fails.
    async fn run_all(
        &self,
        name: &'static str,
        commands: impl Iterator<Item = (Cdb, Transfer)> + Send,
    ) -> Result<(), Failure> {
        stream::iter(commands)
            .map(|(cdb, transfer)| async move {
                self.shared.dirty.store(true, Ordering::Relaxed);
                self.run(name, cdb, transfer).await.map(drop)
            })
            .buffer_unordered(CONCURRENCY)
            .try_collect()
            .await
    }

    fn block_bytes(&self) -> u64 {
        u64::from(self.lun_info().block_bytes)
    }

    /// Blocks of one read or write.
    fn transfer_blocks(&self) -> u32 {
        let blocks = TRANSFER / self.block_bytes();
        at_most(blocks, u64::from(self.lun_info().limits.max_transfer))
    }

    /// Blocks of the first piece of a write.
    fn first_transfer(&self, bytes: u64) -> u32 {
        let usual = self.transfer_blocks();
        if bytes < FIRST_TRANSFER || self.shared.primed.swap(true, Ordering::Relaxed) {
            return usual;
        }
        let blocks = FIRST_TRANSFER / self.block_bytes();
        at_most(blocks, u64::from(self.lun_info().limits.max_transfer))
    }

    fn check_range(&self, lba: u64, blocks: u64) -> Result<(), Failure> {
        let size = self.lun_info().blocks;
        if lba.checked_add(blocks).is_none_or(|end| end > size) {
            let text = format!("{blocks} blocks at {lba} are beyond the disk's {size}");
            return Err(Failure::InvalidArgument(text));
        }
        Ok(())
    }
}

/// Single commands.
impl Session {
    pub(super) fn lun(&self) -> u64 {
        self.shared.lun.number().unwrap_or(0)
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
                    self.note_reset(*sense)?;
                    attentions += 1;
                    if attentions > MAX_ATTENTIONS {
                        return Err(failure);
                    }
                }
                Failure::Scsi { sense, .. } if sense.is_becoming_ready() => {}
                Failure::Status { status, .. }
                    if matches!(Status(*status), Status::BUSY | Status::TASK_SET_FULL) => {}
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

    /// A unit that was reset has perhaps lost what it had not yet written out.
    fn note_reset(&self, sense: Sense) -> Result<(), Failure> {
        if sense.is_reset() && self.shared.dirty.load(Ordering::Relaxed) {
            self.shared.was_reset.store(true, Ordering::Relaxed);
            return Err(Failure::Reset);
        }
        Ok(())
    }

    /// Runs a command once.
    pub(super) async fn run_once(
        &self,
        command: &'static str,
        cdb: Cdb,
        transfer: Transfer,
    ) -> Result<Bytes, Failure> {
        let shared = &self.shared;
        let ended = |_| shared.state.failure();
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
        let call = Call {
            name: command,
            command: Command {
                lun: shared.lun,
                cdb: cdb.encode(),
                transfer,
            },
            reply,
            share,
        };
        let sent = shared.driver.send(Message::Call(call)).await;
        sent.map_err(|_| shared.state.failure())?;
        let outcome = answer.await.map_err(ended)??;
        match outcome.status {
            Status::GOOD => Ok(outcome.data),
            Status::CHECK_CONDITION => match Sense::decode(&outcome.sense) {
                // SPC-5: a recovered error did what it should.
                Some(sense) if sense.key == SenseKey::RECOVERED_ERROR => Ok(outcome.data),
                Some(sense) => Err(Failure::Scsi { command, sense }),
                None => Err(Failure::Status {
                    command,
                    status: outcome.status.0,
                }),
            },
            Status(status) => Err(Failure::Status { command, status }),
        }
    }
}

/// Cuts a range to pieces of at most `usual` blocks, but the first to at most `first`.
fn pieces(
    mut lba: u64,
    mut blocks: u64,
    first: u32,
    usual: u32,
) -> impl Iterator<Item = (u64, u32)> + Send {
    let mut limit = first;
    std::iter::from_fn(move || {
        let piece = u32::try_from(blocks).map_or(limit, |blocks| blocks.min(limit));
        let at = lba;
        lba += u64::from(piece);
        blocks -= u64::from(piece);
        limit = usual;
        (piece > 0).then_some((at, piece))
    })
}

/// The smaller of what we want and what the unit allows, where 0 means no limit; never 0.
fn at_most(wanted: u64, limit: u64) -> u32 {
    let blocks = if limit == 0 {
        wanted
    } else {
        wanted.min(limit)
    };
    u32::try_from(blocks).unwrap_or(u32::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_cover_the_range_once(lba in 0u64..1 << 40, blocks in 0u64..100_000,
                                       first in 1u32..5000, usual in 1u32..5000) {
            let mut next = lba;
            for (number, (at, length)) in pieces(lba, blocks, first, usual).enumerate() {
                prop_assert_eq!(at, next);
                let limit = if number == 0 { first } else { usual };
                prop_assert!(length <= limit);
                next += u64::from(length);
            }
            prop_assert_eq!(next, lba + blocks);
        }
    }

    #[test]
    fn limits_of_zero_mean_none() {
        assert_eq!(at_most(512, 0), 512);
        assert_eq!(at_most(512, 128), 128);
        assert_eq!(at_most(0, 0), 1);
        assert_eq!(at_most(1 << 40, 0), u32::MAX);
    }
}
