//! The disk's fence: a persistent reservation that only its newest owner can write behind.
//!
//! Every owner registers a key made of its fence number and reserves the disk for those who are
//! registered (SPC-5 section 5.14). A newer owner preempts the keys of older ones, which aborts
//! their commands and refuses further ones. A target forgets registrations when it loses power, so
//! a key that is still there after a reconnection also tells that the unit's cache is, too.

use super::line::{Line, is_illegal};
use crate::iscsi::error::Failure;
use crate::iscsi::proto::pdu::Status;
use crate::iscsi::proto::session::Transfer;
use crate::iscsi::scsi::Cdb;
use crate::iscsi::scsi::reservation::{
    ReserveOut, WRITE_EXCLUSIVE_REGISTRANTS_ONLY, change, decode_keys, decode_reservation, read,
};

/// What the upper bytes of our keys say; the others are the fence number.
const OURS: u64 = 0x6672_0000_0000_0000;
const NUMBER: u64 = 0x0000_ffff_ffff_ffff;

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
    match reserve_out(
        line,
        change::REGISTER_AND_IGNORE,
        0,
        ReserveOut { key: 0, other: key },
    )
    .await
    {
        Ok(()) => {}
        Err(failure) if is_illegal(&failure) => return Ok(Fenced::Unsupported),
        Err(failure) => return Err(failure),
    }
    let taken = take(line, key).await;
    if taken.is_err() {
        // The disk is somebody else's: leave nothing of ours behind.
        let gone = ReserveOut { key, other: 0 };
        reserve_out(line, change::REGISTER, 0, gone).await.ok();
    }
    taken.map(|()| Fenced::Held { before })
}

/// Reserves the disk for a registered key.
async fn take(line: &mut Line, key: u64) -> Result<(), Failure> {
    let kind = WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
    for _ in 0..ROUNDS {
        let keys = keys(line).await?.unwrap_or_default();
        check(&keys, key)?;
        let (action, other) = match holder(line).await? {
            Some(holder) if holder == key => {
                return drop_older(line, key, &keys).await;
            }
            Some(holder) if is_ours(holder) && holder < key => (change::PREEMPT_AND_ABORT, holder),
            Some(holder) if is_ours(holder) => return Err(Failure::Fenced),
            Some(holder) => return Err(Failure::Reserved { key: holder }),
            None => (change::RESERVE, 0),
        };
        match reserve_out(line, action, kind, ReserveOut { key, other }).await {
            Ok(()) => {}
            Err(failure) if is_conflict(&failure) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Fenced)
}

/// Older owners that are registered could write as well.
async fn drop_older(line: &mut Line, key: u64, keys: &[u64]) -> Result<(), Failure> {
    for other in keys
        .iter()
        .copied()
        .filter(|other| is_ours(*other) && *other < key)
    {
        let kind = WRITE_EXCLUSIVE_REGISTRANTS_ONLY;
        let list = ReserveOut { key, other };
        match reserve_out(line, change::PREEMPT_AND_ABORT, kind, list).await {
            // Gone in the meantime.
            Err(failure) if !is_conflict(&failure) => return Err(failure),
            _ => {}
        }
    }
    Ok(())
}

fn check(keys: &[u64], key: u64) -> Result<(), Failure> {
    match keys.iter().any(|other| is_ours(*other) && *other > key) {
        true => Err(Failure::Fenced),
        false => Ok(()),
    }
}

/// The command and its data that give the reservation up and drop the key.
pub(super) fn release(key: u64) -> (Cdb, Transfer) {
    let list = ReserveOut { key, other: 0 };
    out(change::REGISTER, 0, list)
}

fn is_conflict(failure: &Failure) -> bool {
    matches!(failure, Failure::Status { status, .. } if Status(*status) == Status::RESERVATION_CONFLICT)
}

fn out(action: u8, kind: u8, list: ReserveOut) -> (Cdb, Transfer) {
    let length = ReserveOut::LENGTH;
    let cdb = Cdb::PersistentReserveOut {
        action,
        kind,
        length,
    };
    (cdb, Transfer::Out(list.encode()))
}

async fn reserve_out(
    line: &mut Line,
    action: u8,
    kind: u8,
    list: ReserveOut,
) -> Result<(), Failure> {
    let (cdb, transfer) = out(action, kind, list);
    line.run("PERSISTENT RESERVE OUT", cdb, transfer)
        .await
        .map(drop)
}

async fn keys(line: &mut Line) -> Result<Option<Vec<u64>>, Failure> {
    let data = reserve_in(line, read::KEYS).await?;
    Ok(data.map(|data| decode_keys(&data).unwrap_or_default()))
}

async fn holder(line: &mut Line) -> Result<Option<u64>, Failure> {
    let data = reserve_in(line, read::RESERVATION).await?;
    let reservation = data.and_then(|data| decode_reservation(&data)).flatten();
    Ok(reservation.map(|(key, _)| key))
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
