//! The disk's fence: a persistent reservation that only its newest owner can write behind.
//!
//! Every owner registers a key made of its fence number and reserves the disk for those who are
//! registered (SPC-5 section 5.14). A newer owner preempts the keys of older ones, which aborts
//! their commands and refuses further ones; so does a newer session of the same owner. A target
//! forgets registrations when it loses power, so a key that is still there after a reconnection
//! also tells that the unit's cache is, too.

use super::line::{Line, is_illegal};
use crate::iscsi::error::Failure;
use crate::iscsi::proto::pdu::{Status, TaskFunction};
use crate::iscsi::proto::session::Transfer;
use crate::iscsi::scsi::reservation::{Kind, ReserveOut, change, decode_holder, decode_keys, read};
use crate::iscsi::scsi::{Cdb, Sense};

/// What the upper bytes of our keys say; the others are the fence number.
const OURS: u64 = 0x6672_0000_0000_0000;
const NUMBER: u64 = 0x0000_ffff_ffff_ffff;

/// The command's name.
pub(super) const OUT: &str = "PERSISTENT RESERVE OUT";

/// Rounds against other owners that want the disk at the same time.
const ROUNDS: u32 = 8;

/// The key of the owner with this fence number.
pub(super) fn key(number: u64) -> u64 {
    OURS | number & NUMBER
}

fn is_ours(key: u64) -> bool {
    key & !NUMBER == OURS
}

/// Whether and how the disk was fenced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fenced {
    /// The unit has no persistent reservations.
    Unsupported,
    /// The disk is ours; `before` tells whether our key was there already.
    Held { before: bool },
}

/// Makes `key` the disk's only owner.
///
/// Fails with [`Failure::Fenced`] if a newer owner has it, and with [`Failure::Reserved`] if
/// somebody has it who is none of us.
pub(super) async fn acquire(line: &mut Line, key: u64) -> Result<Fenced, Failure> {
    let Some(keys) = keys(line).await? else {
        return Ok(Fenced::Unsupported);
    };
    check(&keys, key)?;
    let before = keys.contains(&key);
    match take(line, key).await {
        Ok(()) => Ok(Fenced::Held { before }),
        Err(failure) if failure.is_of_the_connection() => Err(failure),
        Err(failure) => {
            // The disk is somebody else's, or not to be had: leave nothing of ours behind.
            for (cdb, transfer) in release(key) {
                line.run(OUT, cdb, transfer).await.ok();
            }
            // Some units know keys and no reservations of this kind.
            match is_illegal(&failure) || is_unkept(&failure) {
                true => Ok(Fenced::Unsupported),
                false => Err(failure),
            }
        }
    }
}

/// Registers a key and reserves the disk for it.
async fn take(line: &mut Line, key: u64) -> Result<(), Failure> {
    let list = ReserveOut { key: 0, other: key };
    reserve_out(line, change::REGISTER_AND_IGNORE, list).await?;
    for _ in 0..ROUNDS {
        let keys = keys(line).await?.unwrap_or_default();
        check(&keys, key)?;
        let done = match holder(line).await? {
            Some(holder) if holder == key => return drop_others(line, key, &keys).await,
            Some(holder) if is_ours(holder) && holder < key => preempt(line, key, holder).await,
            Some(holder) if is_ours(holder) => return Err(Failure::Fenced),
            Some(holder) => return Err(Failure::Reserved { key: holder }),
            None => reserve_out(line, change::RESERVE, ReserveOut { key, other: 0 }).await,
        };
        match done {
            // Others were faster: look again.
            Err(failure) if !is_conflict(&failure) => return Err(failure),
            _ => {}
        }
    }
    Err(Failure::Fenced)
}

/// Older owners that are registered could write as well, and so could older sessions of the same
/// owner. (On tgt every login is another initiator port, and leaves its registration behind.)
async fn drop_others(line: &mut Line, key: u64, keys: &[u64]) -> Result<(), Failure> {
    let mut others: Vec<u64> = keys.iter().copied().filter(|key| is_ours(*key)).collect();
    if let Some(own) = others.iter().position(|other| *other == key) {
        others.swap_remove(own);
    }
    others.sort_unstable();
    others.dedup();
    for other in others {
        match preempt(line, key, other).await {
            // Gone in the meantime.
            Err(failure) if !is_conflict(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

/// Drops all registrations of a key, and ends the commands that came by them.
async fn preempt(line: &mut Line, key: u64, other: u64) -> Result<(), Failure> {
    let list = ReserveOut { key, other };
    match reserve_out(line, change::PREEMPT_AND_ABORT, list).await {
        // tgt only has the one that leaves commands alone.
        Err(failure) if is_illegal(&failure) => {
            reserve_out(line, change::PREEMPT, list).await?;
            line.manage(TaskFunction::CLEAR_TASK_SET).await.map(drop)
        }
        done => done,
    }
}

fn check(keys: &[u64], key: u64) -> Result<(), Failure> {
    match keys.iter().any(|other| is_ours(*other) && *other > key) {
        true => Err(Failure::Fenced),
        false => Ok(()),
    }
}

/// The commands and their data that give the reservation up and drop the key. In this order: tgt
/// keeps the reservation of a key that is dropped.
pub(super) fn release(key: u64) -> [(Cdb, Transfer); 2] {
    let list = ReserveOut { key, other: 0 };
    [change::RELEASE, change::REGISTER].map(|action| out(action, list))
}

/// Whether a reservation keeps us from what was asked.
pub(super) fn is_conflict(failure: &Failure) -> bool {
    let Failure::Status { status, .. } = failure else {
        return false;
    };
    Status(*status) == Status::RESERVATION_CONFLICT
}

/// LIO's answer where its folder for reservations, `/var/target/pr`, is missing, as in a ramdisk
/// that was not installed: it wants to note there even that nothing is to be kept.
fn is_unkept(failure: &Failure) -> bool {
    matches!(failure, Failure::Scsi { sense, .. }
        if *sense == Sense::LOGICAL_UNIT_COMMUNICATION_FAILURE)
}

fn out(action: u8, list: ReserveOut) -> (Cdb, Transfer) {
    let cdb = Cdb::PersistentReserveOut {
        action,
        kind: Kind::WriteExclusiveRegistrantsOnly.code(),
        length: ReserveOut::LENGTH,
    };
    (cdb, Transfer::Out(list.encode()))
}

async fn reserve_out(line: &mut Line, action: u8, list: ReserveOut) -> Result<(), Failure> {
    let (cdb, transfer) = out(action, list);
    line.run(OUT, cdb, transfer).await.map(drop)
}

async fn keys(line: &mut Line) -> Result<Option<Vec<u64>>, Failure> {
    let data = reserve_in(line, read::KEYS).await?;
    Ok(data.map(|data| decode_keys(&data).unwrap_or_default()))
}

async fn holder(line: &mut Line) -> Result<Option<u64>, Failure> {
    let data = reserve_in(line, read::RESERVATION).await?;
    Ok(data.and_then(|data| decode_holder(&data)).flatten())
}

async fn reserve_in(line: &mut Line, action: u8) -> Result<Option<bytes::Bytes>, Failure> {
    let allocation = 4096;
    let cdb = Cdb::PersistentReserveIn { action, allocation };
    let transfer = Transfer::In(u32::from(allocation));
    match line.run("PERSISTENT RESERVE IN", cdb, transfer).await {
        Ok(data) => Ok(Some(data)),
        Err(failure) if is_illegal(&failure) => Ok(None),
        Err(failure) => Err(failure),
    }
}
