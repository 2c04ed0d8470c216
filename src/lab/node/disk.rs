//! A node's disk, and booting from it.

use super::{Attempt, NodeFault, NodeOptions, System};

use crate::error::{Error, Kind, Result};
use crate::ilo::model::BootMode;
use crate::iscsi::target::{BlockDevice, FileDisk};
use crate::lab::host::BootOutcome;
use hadris_part::gpt::types::EFI_SYSTEM;
use hadris_part::{Partition, PartitionKind, PartitionTable};
use hadris_storage::host::FileDevice;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;

/// Where the boot code of sector 0 ends and the disk identifier begins.
const BOOT_CODE_BYTES: usize = 440;

/// After how many bytes the faults of writing show themselves.
const FAULT_AFTER: u64 = 4 << 20;

/// How long a disk without power keeps those who ask it for something.
const SILENCE: Duration = Duration::from_secs(2);

/// A disk that counts what is written to it, and goes wrong when told so.
#[derive(Debug)]
pub(super) struct NodeDisk {
    disk: FileDisk,
    faults: BTreeSet<NodeFault>,
    written: AtomicU64,
    /// The fault that shows itself once has done so.
    is_past: AtomicBool,
    is_dead: Mutex<bool>,
    revived: Condvar,
    death: Notify,
}

impl NodeDisk {
    /// Opens the disk, or makes an empty one. Blocks.
    pub(super) fn open(options: &NodeOptions) -> Result<Self> {
        let path = options.folder.join("disk.raw");
        let disk = match FileDisk::open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                FileDisk::create(&path, options.disk_bytes)
            }
            opened => opened,
        };
        Ok(Self {
            disk: disk.map_err(|e| Error::io(&path, "open the disk", &e))?,
            faults: options.faults.clone(),
            written: AtomicU64::new(0),
            is_past: AtomicBool::new(false),
            is_dead: Mutex::new(false),
            revived: Condvar::new(),
            death: Notify::new(),
        })
    }

    /// Bytes written since the site began.
    pub(super) fn bytes_written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Brings the disk back after it lost its power.
    pub(super) fn power_on(&self) {
        *self.is_dead() = false;
        self.revived.notify_all();
    }

    /// Ends when the power is lost in the middle of a write.
    pub(super) async fn power_lost(&self) {
        self.death.notified().await;
    }

    fn has(&self, fault: NodeFault) -> bool {
        self.faults.contains(&fault)
    }

    /// Whether a fault that shows itself once does so now.
    fn is_first(&self) -> bool {
        !self.is_past.swap(true, Ordering::Relaxed)
    }

    fn is_dead(&self) -> MutexGuard<'_, bool> {
        self.is_dead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A machine without power does not answer: whoever asks is kept until nobody is connected
    /// that could hear the answer.
    fn check_power(&self) -> io::Result<()> {
        let dead = self.is_dead();
        if !*dead {
            return Ok(());
        }
        drop(self.revived.wait_timeout_while(dead, SILENCE, |dead| *dead));
        Err(io::Error::other("the power was lost"))
    }

    /// Writes with what goes wrong after the first mebibytes.
    fn write_late(&self, lba: u64, data: &[u8]) -> io::Result<()> {
        if self.has(NodeFault::DiskFails) {
            return Err(io::Error::other("the disk is broken"));
        }
        if self.has(NodeFault::PowerLost) {
            let mut dead = self.is_dead();
            if self.is_first() {
                *dead = true;
                self.death.notify_one();
            }
            drop(dead);
            // Nor do writes land that were on their way beside this one.
            self.check_power()?;
        }
        if self.has(NodeFault::DiskFlipsBit) && self.is_first() {
            let mut wrong = data.to_vec();
            if let Some(byte) = wrong.get_mut(data.len() / 2) {
                *byte ^= 0x10;
            }
            return self.disk.write_at(lba, &wrong);
        }
        self.disk.write_at(lba, data)
    }
}

impl BlockDevice for NodeDisk {
    fn block_bytes(&self) -> u32 {
        self.disk.block_bytes()
    }

    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read_at(&self, lba: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_power()?;
        self.disk.read_at(lba, buffer)
    }

    fn forget(&self, lba: u64, blocks: u64) {
        self.disk.forget(lba, blocks);
    }

    fn write_at(&self, lba: u64, data: &[u8]) -> io::Result<()> {
        self.check_power()?;
        let length = data.len() as u64;
        let before = self.written.fetch_add(length, Ordering::Relaxed);
        let is_late = before + length > FAULT_AFTER && !self.faults.is_empty();
        let outcome = match is_late {
            true => self.write_late(lba, data),
            false => self.disk.write_at(lba, data),
        };
        if outcome.is_err() {
            self.written.fetch_sub(length, Ordering::Relaxed);
        }
        outcome
    }

    fn zero(&self, lba: u64, blocks: u64) -> io::Result<()> {
        self.check_power()?;
        self.disk.zero(lba, blocks)
    }

    fn flush(&self) -> io::Result<()> {
        self.check_power()?;
        self.disk.flush()
    }
}

impl Attempt<'_> {
    pub(super) async fn boot_disk(&self, mode: BootMode) -> BootOutcome {
        let path = self.node.options.folder.join("disk.raw");
        let looked = tokio::task::spawn_blocking(move || look(&path, mode)).await;
        let looked =
            looked.map_err(|e| Error::new(Kind::Internal, "the disk was not read").caused_by(&e));
        match looked.and_then(|found| found) {
            Ok(found) => {
                self.say(&format!(
                    "booted from disk: {} {}, sector 0 has sha256 {}",
                    found.table, found.identifier, found.sector_sha256
                ));
                for partition in &found.partitions {
                    self.say(&format!("disk: {partition}"));
                }
                self.set_system(System::Disk {
                    partitions: found.partitions.len(),
                    table: found.table,
                    identifier: found.identifier,
                });
                BootOutcome::Running
            }
            Err(error) => {
                self.say(&format!("firmware: cannot boot from the disk: {error}"));
                BootOutcome::NoBootDevice
            }
        }
    }
}

/// What a firmware finds on a disk that it can start.
#[derive(Debug)]
struct Found {
    table: String,
    identifier: String,
    partitions: Vec<String>,
    sector_sha256: String,
}

/// Looks at the disk as the firmware does: a BIOS for boot code in sector 0, UEFI for an EFI system
/// partition. Blocks.
fn look(path: &Path, mode: BootMode) -> Result<Found> {
    let mut sector = [0; 512];
    File::open(path)
        .and_then(|file| file.read_exact_at(&mut sector, 0))
        .map_err(|e| Error::io(path, "read the disk", &e))?;
    let [.., 0x55, 0xAA] = sector else {
        return Err(Error::new(Kind::NotFound, "no boot signature in sector 0"));
    };
    let has_code = sector.iter().take(BOOT_CODE_BYTES).any(|byte| *byte != 0);
    if mode == BootMode::Legacy && !has_code {
        let message = "a boot signature, but no boot code: a BIOS would hang";
        return Err(Error::new(Kind::NotFound, message));
    }
    let mut device = FileDevice::open(path).map_err(|e| Error::io(path, "read the disk", &e))?;
    let disk = hadris_part::sync::read(&mut device)
        .map_err(|e| Error::new(Kind::Corrupt, "no valid partition table").caused_by(&e))?;
    if mode == BootMode::Uefi && !disk.partitions().any(|p| is_esp(&p)) {
        let message = "no EFI system partition: UEFI finds nothing to start";
        return Err(Error::new(Kind::NotFound, message));
    }
    let (table, identifier) = match disk.table() {
        PartitionTable::Gpt(gpt) => ("gpt", gpt.disk_guid().to_string()),
        PartitionTable::Hybrid(hybrid) => ("hybrid", hybrid.gpt().disk_guid().to_string()),
        _ => {
            let signature = sector.get(440..).and_then(|rest| rest.first_chunk::<4>());
            let signature = signature.copied().map(u32::from_le_bytes);
            ("mbr", format!("0x{:08x}", signature.unwrap_or_default()))
        }
    };
    Ok(Found {
        table: table.to_owned(),
        identifier,
        partitions: disk.partitions().map(|p| line(&p)).collect(),
        sector_sha256: hex::encode(Sha256::digest(sector)),
    })
}

/// UEFI 2.10, 5.3.3 and 5.2.2.
fn is_esp(partition: &Partition) -> bool {
    match partition.kind() {
        PartitionKind::Gpt(guid) => guid == EFI_SYSTEM,
        PartitionKind::Mbr(code) => code.code() == 0xEF,
        _ => false,
    }
}

fn line(partition: &Partition) -> String {
    let kind = match partition.kind() {
        PartitionKind::Gpt(guid) => guid.to_string(),
        PartitionKind::Mbr(code) => format!("0x{:02x}", code.code()),
        _ => "unknown".to_owned(),
    };
    let name = partition.name().map(ToString::to_string);
    format!(
        "partition {}: {} sectors from {}, type {kind} {}",
        partition.slot() + 1,
        partition.len(),
        partition.start(),
        name.unwrap_or_default()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn each_firmware_starts_what_it_finds() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        let sgdisk = |argument: &str| {
            let mut command = Command::new("sgdisk");
            let output = command.arg(argument).arg(&path).output();
            let output = output.expect("sgdisk is needed; tests/run.sh installs it");
            assert!(output.status.success(), "sgdisk {argument}");
        };
        let said = |mode| look(&path, mode).map(|_| ()).map_err(|e| e.to_string());
        sgdisk("--new=1:2048:+4M");
        let legacy = said(BootMode::Legacy).unwrap_err();
        assert!(legacy.contains("no boot code"), "{legacy}");
        let uefi = said(BootMode::Uefi).unwrap_err();
        assert!(uefi.contains("no EFI system partition"), "{uefi}");
        sgdisk("--typecode=1:ef00");
        assert_eq!(said(BootMode::Uefi), Ok(()));
        assert!(said(BootMode::Legacy).is_err());
    }
}
