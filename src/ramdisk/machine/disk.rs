//! Finds the disk that is to be written.

use super::hints::Hints;
use super::modules::Modules;
use super::sysfs::Drive;
use super::until;
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::iscsi::target::{BlockDevice, FileDisk};
use crate::ramdisk::deploy::Log;
use crate::ramdisk::parameters::Parameters;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How long controllers may take to show their disks.
const DISK_DEADLINE: Duration = Duration::from_secs(60);

/// A choice among the disks is made when none came or went for so long: one that depended on
/// which came up first would be none.
const QUIET_TIME: Duration = Duration::from_secs(2);

/// Disks that are no candidates are final when nothing came or went for so long, drivers included.
/// While there is none at all, controllers may still be at it.
const UNFIT_TIME: Duration = Duration::from_secs(15);

/// What is zeroed at both ends of a disk: partition tables, and the marks of LVM, RAID and file
/// systems.
const SIGNATURE_BYTES: u64 = 1 << 20;

/// Waits for the disk, and opens it.
///
/// # Errors
/// `invalid` for hints that cannot be, `not_found` if no disk fits, `io` if it cannot be opened.
pub(super) async fn find(
    parameters: &Parameters,
    modules: &mut Modules,
    log: &dyn Log,
) -> Result<Arc<dyn BlockDevice>> {
    let hints = Hints::parse(parameters.root_device.as_deref().unwrap_or_default())?;
    let (mut drives, mut changed) = (Vec::new(), clock::instant());
    let found = until(DISK_DEADLINE, || {
        let has_new_drivers = modules.settle(log);
        let now = Drive::all();
        if has_new_drivers || now != drives {
            (drives, changed) = (now, clock::instant());
        }
        choice(&hints, &drives, clock::instant() - changed)
    });
    let drive = match found.await {
        Some(choice) => choice?,
        None => hints.choose(&drives)?,
    };
    log.line(&format!(
        "disk: {} of {} MiB, {} {}, serial {}, {}",
        drive.name,
        drive.bytes >> 20,
        drive.vendor,
        drive.model,
        drive.serial,
        drive.by_path
    ));
    let path = drive.device();
    let disk = FileDisk::open_device(&path).map_err(|e| Error::io(&path, "open the disk", &e))?;
    if parameters.wipe_disk_metadata {
        wipe(&disk).map_err(|e| Error::io(&path, "wipe the signatures", &e))?;
        log.line("disk: signatures at both ends wiped");
    }
    if disk.blocks() == 0 {
        return Err(Error::new(Kind::Io, "the disk is empty").target(path.display().to_string()));
    }
    Ok(Arc::new(disk))
}

/// The disk, or that none fits, when drives that have been the same for so long allow to tell.
fn choice(hints: &Hints, drives: &[Drive], quiet: Duration) -> Option<Result<Drive>> {
    let choice = hints.choose(drives);
    let has_disk = drives.iter().any(|drive| drive.why_not().is_none());
    let is_final = match choice {
        Ok(_) => quiet >= QUIET_TIME,
        Err(_) => has_disk && quiet >= UNFIT_TIME,
    };
    is_final.then_some(choice)
}

fn wipe(disk: &FileDisk) -> io::Result<()> {
    let blocks = (SIGNATURE_BYTES / u64::from(disk.block_bytes())).min(disk.blocks());
    disk.zero(0, blocks)?;
    disk.zero(disk.blocks() - blocks, blocks)?;
    disk.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_is_made_when_it_is_final() {
        let disk = Drive {
            name: "sda".into(),
            bytes: 500 << 30,
            ..Drive::default()
        };
        let floppy = Drive {
            is_usb: true,
            ..disk.clone()
        };
        let chosen = |hints: &str, drives: &[Drive], quiet| {
            let choice = choice(&Hints::parse(hints).unwrap(), drives, quiet);
            choice.map(|choice| choice.map(|drive| drive.name).is_ok())
        };
        let (now, short, long) = (Duration::ZERO, QUIET_TIME, UNFIT_TIME);
        let disks = [floppy.clone(), disk];
        assert_eq!(chosen("", &disks, now), None);
        assert_eq!(chosen("", &disks, short), Some(true));
        assert_eq!(chosen("serial=OTHER", &disks, short), None);
        assert_eq!(chosen("serial=OTHER", &disks, long), Some(false));
        assert_eq!(chosen("serial=OTHER", &[floppy], long), None);
    }

    #[test]
    fn only_the_ends_are_wiped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        for size in [4 << 20, 512 << 10_u64] {
            drop(std::fs::remove_file(&path));
            let disk = FileDisk::create(&path, size).unwrap();
            let length = usize::try_from(size).unwrap();
            disk.write_at(0, &vec![7; length]).unwrap();
            wipe(&disk).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let kept = bytes.iter().filter(|byte| **byte == 7).count();
            assert_eq!(kept, length.saturating_sub(2 << 20));
            assert_eq!((bytes[0], bytes[length - 1]), (0, 0));
        }
    }
}
