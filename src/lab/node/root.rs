//! Looks for the file system that a kernel's `root=UUID=` names.

use crate::error::{Error, Result};
use hadris_storage::host::FileDevice;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use uuid::Uuid;

/// Enough of a file system for all superblocks below.
const HEAD_BYTES: usize = 0x11000;

/// Name, offset and bytes of the magic number, offset of the UUID.
const SUPERBLOCKS: [(&str, usize, &[u8], usize); 3] = [
    // Linux, Documentation/filesystems/ext4/super.rst: s_magic, s_uuid.
    ("ext", 1024 + 0x38, &[0x53, 0xEF], 1024 + 0x68),
    // XFS Algorithms & Data Structures: sb_magicnum, sb_uuid.
    ("xfs", 0, b"XFSB", 32),
    // btrfs on-disk format: magic, fsid.
    ("btrfs", 0x10040, b"_BHRfS_M", 0x10020),
];

/// Says where on the disk the file system of this UUID is. Blocks.
pub(super) fn find(path: &Path, uuid: Uuid) -> Result<Option<String>> {
    let failed = |e: io::Error| Error::io(path, "read the disk", &e);
    let file = File::open(path).map_err(failed)?;
    let mut device = FileDevice::open(path).map_err(failed)?;
    // Without a table there is still the whole disk.
    let table = hadris_part::sync::read(&mut device).ok();
    let partitions = table.iter().flat_map(hadris_part::Disk::partitions);
    let partitions = partitions.map(|partition| {
        let name = format!("partition {}", partition.slot() + 1);
        (name, partition.start().saturating_mul(512))
    });
    let whole = std::iter::once(("the whole disk".to_owned(), 0));
    for (name, start) in partitions.chain(whole) {
        let head = read_head(&file, start).map_err(failed)?;
        if let Some((kind, found)) = identify(&head)
            && found == uuid
        {
            return Ok(Some(format!("{kind} on {name}")));
        }
    }
    Ok(None)
}

fn identify(head: &[u8]) -> Option<(&'static str, Uuid)> {
    SUPERBLOCKS.iter().find_map(|(name, at, magic, uuid)| {
        let uuid = head.get(*uuid..)?.first_chunk::<16>()?;
        let found = head.get(*at..)?.starts_with(magic);
        found.then(|| (*name, Uuid::from_bytes(*uuid)))
    })
}

/// Up to the end of the disk, if that comes first.
fn read_head(file: &File, start: u64) -> io::Result<Vec<u8>> {
    let mut head = vec![0; HEAD_BYTES];
    let mut length = 0;
    while let Some(free) = head.get_mut(length..).filter(|free| !free.is_empty()) {
        match file.read_at(free, start + length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    head.truncate(length);
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::process::Command;

    const UUID: &str = "6d1d5e0a-3f0e-4b8a-9d0e-0123456789ab";

    fn run(program: &str, arguments: &[&str]) {
        let output = Command::new(program).args(arguments).output();
        let output = output.unwrap_or_else(|e| panic!("{program} is needed for this test: {e}"));
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{program}: {error}");
    }

    #[test]
    fn finds_what_other_tools_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        let disk = path.to_str().unwrap();
        let uuid = UUID.parse().unwrap();
        assert_eq!(find(&path, uuid).unwrap(), None);
        run("sgdisk", &["-n", "1:2048:+4M", "-n", "2:16384:+8M", disk]);
        assert_eq!(find(&path, uuid).unwrap(), None);
        let offset = (16384 * 512).to_string();
        let offset = format!("offset={offset}");
        run(
            "mke2fs",
            &[
                "-q", "-F", "-t", "ext4", "-U", UUID, "-E", &offset, disk, "8M",
            ],
        );
        let found = find(&path, uuid).unwrap();
        assert_eq!(found.as_deref(), Some("ext on partition 2"));
        assert_eq!(find(&path, Uuid::from_u128(1)).unwrap(), None);

        File::create(&path).unwrap().set_len(32 << 20).unwrap();
        run("mke2fs", &["-q", "-F", "-t", "ext4", "-U", UUID, disk]);
        let found = find(&path, uuid).unwrap();
        assert_eq!(found.as_deref(), Some("ext on the whole disk"));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(head in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _found = identify(&head);
        }
    }
}
