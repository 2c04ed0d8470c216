//! The device server: executes SCSI commands on a disk (SPC-5, SBC-4).

use super::Counters;
use super::disk::BlockDevice;
use super::registry::Port;
use super::reservation::{Refusal, Reservations};
use crate::iscsi::proto::pdu::{Direction, Lun, Status};
use crate::iscsi::proto::session::{Completion, Request};
use crate::iscsi::scsi::reservation::ReserveOut;
use crate::iscsi::scsi::{
    BlockLimits, Capacity, Cdb, Designator, Inquiry, ModeHeader, Provisioning, Sense, VENDOR,
    lun_list, page, unmap_ranges, vpd_page,
};
use crate::keyed_hash::HashKey;
use bytes::Bytes;
use sha2::{Digest, Sha256};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest transfer of one command in bytes.
pub(super) const MAX_TRANSFER: u32 = 4 * 1024 * 1024;

/// The most that one command may zero, in bytes: punching holes takes a moment per gigabyte.
const MAX_ZERO: u64 = 4 << 30;

const MAX_UNMAP_DESCRIPTORS: u32 = 64;

/// A disk as a logical unit, and the controller at LUN 0 if the disk is elsewhere.
pub(super) struct Unit {
    lun: Lun,
    disk: Arc<dyn BlockDevice>,
    serial: String,
    /// What tells the unit from all others.
    number: u64,
    counters: Arc<Counters>,
    reservations: Reservations,
}

/// A command that was looked at.
pub(super) enum Work {
    /// It needed no disk.
    Done(Completion),
    /// It does; run it where blocking is allowed.
    Disk(DiskWork),
}

/// A session with the unit, as it knows it.
#[derive(Debug, Clone)]
pub(super) struct Nexus {
    pub(super) port: Port,
    /// For hashes; it has to be told first.
    pub(super) hash_key: Option<HashKey>,
}

/// A command that touches the disk.
pub(super) struct DiskWork {
    unit: Arc<Unit>,
    nexus: Nexus,
    cdb: Cdb,
    data: Vec<Bytes>,
}

impl Unit {
    pub(super) fn new(
        lun: Lun,
        target_name: &str,
        disk: Arc<dyn BlockDevice>,
        counters: Arc<Counters>,
    ) -> Self {
        let digest = Sha256::digest(target_name.as_bytes());
        let first = digest.first_chunk().copied().unwrap_or_default();
        let number = u64::from_be_bytes(first);
        Self {
            lun,
            disk,
            serial: format!("{number:016x}"),
            number,
            counters,
            reservations: Reservations::default(),
        }
    }

    pub(super) fn flush(&self) -> io::Result<()> {
        self.counters.flushes.fetch_add(1, Ordering::Relaxed);
        self.disk.flush()
    }

    /// What a port must be told before its next command.
    pub(super) fn take_news(&self, port: &Port) -> Option<Sense> {
        self.reservations.take_news(port)
    }

    /// Whether a pending unit attention is the answer to this command: not to those that only
    /// describe the unit (SAM-5 section 5.14.1), and not for other units.
    pub(super) fn reports_attention(&self, request: &Request) -> bool {
        let describes = matches!(
            Cdb::decode(&request.cdb),
            Ok(Cdb::Inquiry { .. } | Cdb::ReportLuns { .. } | Cdb::RequestSense { .. }) | Err(_)
        );
        request.lun.number() == self.lun.number() && !describes
    }

    /// Looks at a command, and executes it if it needs no disk.
    pub(super) fn begin(self: &Arc<Self>, request: Request, nexus: &mut Nexus) -> Work {
        let cdb = match Cdb::decode(&request.cdb) {
            Ok(cdb) => cdb,
            Err(sense) => return Work::Done(failed(sense)),
        };
        let here = request.lun.number() == self.lun.number();
        let controller = !here && request.lun.number() == Some(0);
        let result = match cdb {
            Cdb::ReportLuns { select, allocation } => self.report_luns(select, allocation),
            Cdb::RequestSense { allocation } => {
                Ok(cut(Sense::NO_SENSE.encode(), u32::from(allocation)))
            }
            Cdb::Inquiry { page, allocation } if here => self
                .inquiry(page)
                .map(|data| cut(data, u32::from(allocation))),
            Cdb::Inquiry { page, allocation } => {
                other_inquiry(controller, page).map(|data| cut(data, u32::from(allocation)))
            }
            Cdb::TestUnitReady if controller => Ok(Bytes::new()),
            _ if controller => Err(Sense::INVALID_OPERATION_CODE),
            _ if !here => Err(Sense::LOGICAL_UNIT_NOT_SUPPORTED),
            _ => return self.begin_disk(cdb, request, nexus),
        };
        Work::Done(result.map_or_else(failed, done))
    }

    fn begin_disk(self: &Arc<Self>, cdb: Cdb, request: Request, nexus: &mut Nexus) -> Work {
        let result = match cdb {
            Cdb::TestUnitReady | Cdb::StartStopUnit => Ok(Bytes::new()),
            Cdb::ReadCapacity10 => Ok(self.capacity().encode_10()),
            Cdb::ReadCapacity16 { allocation } => Ok(cut(self.capacity().encode(), allocation)),
            Cdb::ModeSense {
                ten,
                page,
                subpage,
                control,
                allocation,
            } => {
                mode_sense(ten, page, subpage, control).map(|data| cut(data, u32::from(allocation)))
            }
            Cdb::HashKey => match request.data.concat().try_into() {
                Ok(key) => {
                    nexus.hash_key = Some(HashKey(key));
                    Ok(Bytes::new())
                }
                Err(_) => Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
            },
            _ => {
                return match self.check(cdb, &request) {
                    Ok(()) => Work::Disk(DiskWork {
                        unit: Arc::clone(self),
                        nexus: nexus.clone(),
                        cdb,
                        data: request.data,
                    }),
                    Err(sense) => Work::Done(failed(sense)),
                };
            }
        };
        Work::Done(result.map_or_else(failed, done))
    }

    /// Refuses what must not reach the disk.
    fn check(&self, cdb: Cdb, request: &Request) -> Result<(), Sense> {
        let block_bytes = u64::from(self.disk.block_bytes());
        let received: u64 = request.data.iter().map(|part| part.len() as u64).sum();
        match cdb {
            Cdb::Read { lba, blocks } | Cdb::Write { lba, blocks, .. } => {
                self.check_range(lba, u64::from(blocks))?;
                let length = u64::from(blocks) * block_bytes;
                let is_write = matches!(cdb, Cdb::Write { .. });
                let expects = match request.direction {
                    Direction::Read => !is_write,
                    Direction::Write => is_write,
                    _ => false,
                };
                // Nothing of a write is done if not all of it came.
                if length > u64::from(MAX_TRANSFER)
                    || (length > 0 && !expects)
                    || (is_write && received < length)
                {
                    return Err(Sense::INVALID_FIELD_IN_CDB);
                }
                Ok(())
            }
            Cdb::Hash { lba, bytes } => {
                self.check_range(lba, u64::from(bytes).div_ceil(block_bytes))?;
                match bytes {
                    0 => Err(Sense::INVALID_FIELD_IN_CDB),
                    _ if bytes > MAX_TRANSFER => Err(Sense::INVALID_FIELD_IN_CDB),
                    _ => Ok(()),
                }
            }
            Cdb::WriteSame {
                lba,
                blocks,
                no_data,
                ..
            } => {
                let blocks = self.same_blocks(lba, blocks);
                self.check_range(lba, blocks)?;
                let wanted = if no_data { 0 } else { block_bytes };
                if blocks > MAX_ZERO / block_bytes || received != wanted {
                    return Err(Sense::INVALID_FIELD_IN_CDB);
                }
                Ok(())
            }
            Cdb::SynchronizeCache { lba, blocks } => self.check_range(lba, u64::from(blocks)),
            Cdb::Unmap { length } if received < u64::from(length) => {
                Err(Sense::PARAMETER_LIST_LENGTH_ERROR)
            }
            Cdb::PersistentReserveOut { length, .. } if received < u64::from(length) => {
                Err(Sense::PARAMETER_LIST_LENGTH_ERROR)
            }
            _ => Ok(()),
        }
    }

    fn check_range(&self, lba: u64, blocks: u64) -> Result<(), Sense> {
        let end = lba.checked_add(blocks);
        match end.filter(|end| *end <= self.disk.blocks()) {
            Some(_) if lba < self.disk.blocks() || blocks == 0 => Ok(()),
            _ => Err(Sense::LBA_OUT_OF_RANGE),
        }
    }

    /// The number of blocks of WRITE SAME, where 0 means up to the end.
    fn same_blocks(&self, lba: u64, blocks: u32) -> u64 {
        match blocks {
            0 => self.disk.blocks().saturating_sub(lba),
            blocks => u64::from(blocks),
        }
    }

    fn report_luns(&self, select: u8, allocation: u32) -> Result<Bytes, Sense> {
        let luns = match (select, self.lun.0) {
            (0 | 2, 0) => lun_list(&[self.lun]),
            (0 | 2, _) => lun_list(&[Lun(0), self.lun]),
            (1, _) => lun_list(&[]),
            _ => return Err(Sense::INVALID_FIELD_IN_CDB),
        };
        Ok(cut(luns, allocation))
    }

    fn capacity(&self) -> Capacity {
        let block_bytes = self.disk.block_bytes();
        Capacity {
            blocks: self.disk.blocks(),
            block_bytes,
            physical_exponent: u8::from(block_bytes < 4096) * 3,
            thin: true,
            reads_zero: true,
        }
    }

    fn inquiry(&self, page: Option<u8>) -> Result<Bytes, Sense> {
        let Some(code) = page else {
            return Ok(identity(0, 0).encode());
        };
        let block_bytes = u64::from(self.disk.block_bytes());
        let blocks = |bytes: u64| u32::try_from(bytes / block_bytes).unwrap_or(u32::MAX);
        let payload = match code {
            page::SUPPORTED => Bytes::from_static(&[
                page::SUPPORTED,
                page::SERIAL,
                page::IDENTIFICATION,
                page::BLOCK_LIMITS,
                page::CHARACTERISTICS,
                page::PROVISIONING,
            ]),
            page::SERIAL => Bytes::copy_from_slice(self.serial.as_bytes()),
            page::IDENTIFICATION => Designator {
                vendor: VENDOR,
                serial: &self.serial,
                number: self.number,
            }
            .encode(),
            page::BLOCK_LIMITS => BlockLimits {
                max_transfer: blocks(u64::from(MAX_TRANSFER)),
                optimal_transfer: blocks(256 * 1024),
                max_unmap: blocks(MAX_ZERO).min(1 << 20),
                max_unmap_descriptors: MAX_UNMAP_DESCRIPTORS,
                unmap_granularity: blocks(4096).max(1),
                max_write_same: MAX_ZERO / block_bytes,
            }
            .encode(),
            page::CHARACTERISTICS => Bytes::from_static(&CHARACTERISTICS),
            page::PROVISIONING => Bytes::copy_from_slice(
                &Provisioning {
                    unmap: true,
                    write_same_16: true,
                    write_same_10: true,
                    reads_zero: true,
                }
                .encode(),
            ),
            _ => return Err(Sense::INVALID_FIELD_IN_CDB),
        };
        Ok(vpd_page(code, &payload))
    }
}

/// Payload of page 0xb1: a medium that does not rotate.
const CHARACTERISTICS: [u8; 60] = {
    let mut payload = [0; 60];
    payload[1] = 1;
    payload
};

fn identity(qualifier: u8, device_type: u8) -> Inquiry {
    Inquiry {
        qualifier,
        device_type,
        vendor: VENDOR.to_owned(),
        product: if device_type == 0 {
            "DISK"
        } else {
            "CONTROLLER"
        }
        .to_owned(),
        revision: "0001".to_owned(),
    }
}

/// What units answer that are not the disk: the controller at LUN 0, or nobody.
fn other_inquiry(controller: bool, page: Option<u8>) -> Result<Bytes, Sense> {
    match (controller, page) {
        (true, None) => Ok(identity(0, 0x0c).encode()),
        (true, Some(page::SUPPORTED)) => Ok(vpd_page(page::SUPPORTED, &[page::SUPPORTED])),
        (false, None) => Ok(identity(3, 0x1f).encode()),
        (_, Some(_)) => Err(Sense::INVALID_FIELD_IN_CDB),
    }
}

fn mode_sense(ten: bool, page: u8, subpage: u8, control: u8) -> Result<Bytes, Sense> {
    if control == 3 {
        return Err(Sense::SAVING_PARAMETERS_NOT_SUPPORTED);
    }
    let header = ModeHeader {
        write_protected: false,
        write_cache: true, // the host's page cache
    };
    let data = header.encode(ten, page, control == 1);
    let known = subpage == 0 || (page == 0x3f && subpage == 0xff);
    data.filter(|_| known).ok_or(Sense::INVALID_FIELD_IN_CDB)
}

impl DiskWork {
    /// Executes the command, if the unit's reservation allows it. Blocks.
    pub(super) fn run(self) -> Completion {
        match self.cdb {
            Cdb::PersistentReserveIn { action, allocation } => {
                let report = self.unit.reservations.report(action);
                return report.map_or_else(failed, |data| done(cut(data, u32::from(allocation))));
            }
            Cdb::PersistentReserveOut {
                action,
                kind,
                length,
            } => return self.reserve(action, kind, length),
            _ => {}
        }
        let Some(_permit) = self.unit.reservations.permit(&self.nexus.port, self.cdb) else {
            return conflict();
        };
        let block_bytes = u64::from(self.unit.disk.block_bytes());
        match self.cdb {
            Cdb::Read { lba, blocks } => self.read(lba, u64::from(blocks) * block_bytes),
            Cdb::Hash { lba, bytes } => self.hash(lba, u64::from(bytes)),
            Cdb::Write { lba, blocks, force } => {
                self.write(lba, u64::from(blocks) * block_bytes, force)
            }
            Cdb::WriteSame { lba, blocks, .. } => {
                let blocks = self.unit.same_blocks(lba, blocks);
                self.write_same(lba, blocks)
            }
            Cdb::Unmap { length } => self.unmap(usize::from(length)),
            Cdb::SynchronizeCache { .. } => {
                let flushed = self.unit.flush();
                flushed.map_or_else(|error| failed(write_sense(&error)), |()| moved(0))
            }
            _ => failed(Sense::INVALID_OPERATION_CODE),
        }
    }

    fn reserve(&self, action: u8, kind: u8, length: u32) -> Completion {
        let mut list = self.data.concat();
        list.truncate(usize::try_from(length).unwrap_or(usize::MAX));
        let reservations = &self.unit.reservations;
        let changed = ReserveOut::decode(&list)
            .map_err(Refusal::from)
            .and_then(|list| reservations.change(&self.nexus.port, action, kind, list));
        match changed {
            Ok(()) => moved(u64::from(length)),
            Err(Refusal::Sense(sense)) => failed(sense),
            Err(Refusal::Conflict) => conflict(),
        }
    }

    fn read(&self, lba: u64, length: u64) -> Completion {
        let mut buffer = vec![0; usize::try_from(length).unwrap_or(0)];
        match self.unit.disk.read_at(lba, &mut buffer) {
            Ok(()) => {
                count(&self.unit.counters.read, length);
                done(buffer.into())
            }
            Err(_) => failed(Sense::UNRECOVERED_READ_ERROR),
        }
    }

    /// What is asked is whether the medium holds it, not the memory.
    fn hash(&self, lba: u64, bytes: u64) -> Completion {
        let Some(key) = self.nexus.hash_key else {
            return failed(Sense::COMMAND_SEQUENCE_ERROR);
        };
        let block_bytes = u64::from(self.unit.disk.block_bytes());
        let blocks = bytes.div_ceil(block_bytes);
        let mut buffer = vec![0; usize::try_from(blocks * block_bytes).unwrap_or(0)];
        self.unit.disk.forget(lba, blocks);
        match self.unit.disk.read_at(lba, &mut buffer) {
            Ok(()) => {
                count(&self.unit.counters.hashed, bytes);
                buffer.truncate(usize::try_from(bytes).unwrap_or(usize::MAX));
                done(Bytes::copy_from_slice(&key.hash(&buffer)))
            }
            Err(_) => failed(Sense::UNRECOVERED_READ_ERROR),
        }
    }

    fn write(&self, lba: u64, length: u64, force: bool) -> Completion {
        let mut written = self.write_parts(lba, length);
        if force && written.is_ok() {
            written = self.unit.flush();
        }
        match written {
            Ok(()) => {
                count(&self.unit.counters.written, length);
                moved(length)
            }
            Err(error) => failed(write_sense(&error)),
        }
    }

    /// Writes the PDUs' data as it came, or in one piece if a PDU ends within a block.
    fn write_parts(&self, lba: u64, length: u64) -> io::Result<()> {
        let block_bytes = u64::from(self.unit.disk.block_bytes());
        let aligned = |part: &Bytes| (part.len() as u64).is_multiple_of(block_bytes);
        if !self.data.iter().all(aligned) {
            let mut whole = self.data.concat();
            whole.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            return self.unit.disk.write_at(lba, &whole);
        }
        let (mut lba, mut left) = (lba, length);
        for part in &self.data {
            let taken = left.min(part.len() as u64);
            let part = part.get(..usize::try_from(taken).unwrap_or(usize::MAX));
            self.unit.disk.write_at(lba, part.unwrap_or_default())?;
            lba += taken / block_bytes;
            left -= taken;
        }
        Ok(())
    }

    fn write_same(&self, lba: u64, blocks: u64) -> Completion {
        let block = self.data.concat();
        let block_bytes = u64::from(self.unit.disk.block_bytes());
        let written = if block.iter().all(|byte| *byte == 0) {
            count(&self.unit.counters.zeroed, blocks * block_bytes);
            self.unit.disk.zero(lba, blocks)
        } else {
            count(&self.unit.counters.written, blocks * block_bytes);
            self.repeat(&block, lba, blocks)
        };
        match written {
            Ok(()) => moved(block.len() as u64),
            Err(error) => failed(write_sense(&error)),
        }
    }

    fn repeat(&self, block: &[u8], lba: u64, blocks: u64) -> io::Result<()> {
        const AT_A_TIME: u64 = 256;
        let pattern = block.repeat(usize::try_from(AT_A_TIME.min(blocks)).unwrap_or(1));
        let mut done = 0;
        while done < blocks {
            let now = AT_A_TIME.min(blocks - done);
            let bytes = usize::try_from(now).unwrap_or(0) * block.len();
            let part = pattern.get(..bytes).unwrap_or(&pattern);
            self.unit.disk.write_at(lba + done, part)?;
            done += now;
        }
        Ok(())
    }

    fn unmap(&self, length: usize) -> Completion {
        let mut list = self.data.concat();
        list.truncate(length);
        let ranges = match unmap_ranges(&list) {
            Ok(ranges) => ranges,
            Err(sense) => return failed(sense),
        };
        let block_bytes = u64::from(self.unit.disk.block_bytes());
        let total: u64 = ranges.iter().map(|(_, blocks)| u64::from(*blocks)).sum();
        let too_many = u32::try_from(ranges.len()).is_ok_and(|n| n > MAX_UNMAP_DESCRIPTORS);
        if too_many || total > MAX_ZERO / block_bytes {
            return failed(Sense::INVALID_FIELD_IN_PARAMETER_LIST);
        }
        // All ranges are checked before the first is touched.
        for (lba, blocks) in &ranges {
            if let Err(sense) = self.unit.check_range(*lba, u64::from(*blocks)) {
                return failed(sense);
            }
        }
        for (lba, blocks) in ranges {
            if let Err(error) = self.unit.disk.zero(lba, u64::from(blocks)) {
                return failed(write_sense(&error));
            }
            count(&self.unit.counters.zeroed, u64::from(blocks) * block_bytes);
        }
        moved(length as u64)
    }
}

fn count(counter: &AtomicU64, bytes: u64) {
    counter.fetch_add(bytes, Ordering::Relaxed);
}

fn write_sense(error: &io::Error) -> Sense {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Sense::SPACE_ALLOCATION_FAILED,
        _ => Sense::WRITE_ERROR,
    }
}

/// ALLOCATION LENGTH: no more than the initiator has room for.
fn cut(mut data: Bytes, allocation: u32) -> Bytes {
    data.truncate(usize::try_from(allocation).unwrap_or(usize::MAX));
    data
}

fn done(data: Bytes) -> Completion {
    Completion {
        status: Status::GOOD,
        sense: Bytes::new(),
        length: data.len() as u64,
        data,
    }
}

fn moved(length: u64) -> Completion {
    Completion {
        status: Status::GOOD,
        sense: Bytes::new(),
        data: Bytes::new(),
        length,
    }
}

fn conflict() -> Completion {
    Completion {
        status: Status::RESERVATION_CONFLICT,
        sense: Bytes::new(),
        data: Bytes::new(),
        length: 0,
    }
}

pub(super) fn failed(sense: Sense) -> Completion {
    Completion {
        status: Status::CHECK_CONDITION,
        sense: sense.encode(),
        data: Bytes::new(),
        length: 0,
    }
}
