//! What file system an image is, and its UUID as a kernel's `root=UUID=` spells it.

use std::fmt::Write;

/// Enough of an image for every superblock known here.
pub const HEAD_BYTES: usize = 0x1_1000;

/// A file system that was recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSystem {
    /// As blkid names it; `ext` stands for ext2, ext3 and ext4.
    pub kind: &'static str,
    /// As blkid prints it; `None` for a kind without one.
    pub uuid: Option<String>,
}

struct Superblock {
    kind: &'static str,
    magic: &'static [u8],
    at: usize,
    uuid: usize,
}

const fn superblock(
    kind: &'static str,
    magic: &'static [u8],
    at: usize,
    uuid: usize,
) -> Superblock {
    Superblock {
        kind,
        magic,
        at,
        uuid,
    }
}

/// Sources: the kernel's Documentation/filesystems/ext4/super.rst, fs/xfs/libxfs/xfs_format.h,
/// include/uapi/linux/btrfs_tree.h, include/linux/f2fs_fs.h, fs/jfs/jfs_superblock.h.
const SUPERBLOCKS: [Superblock; 5] = [
    superblock("ext", &[0x53, 0xEF], 0x438, 0x468),
    superblock("xfs", b"XFSB", 0, 32),
    superblock("btrfs", b"_BHRfS_M", 0x1_0040, 0x1_0020),
    superblock("f2fs", &[0x10, 0x20, 0xF5, 0xF2], 0x400, 0x46C),
    superblock("jfs", b"JFS1", 0x8000, 0x8088),
];

/// Looks at the first [`HEAD_BYTES`] of an image.
#[must_use]
pub fn identify(head: &[u8]) -> Option<FileSystem> {
    let known = SUPERBLOCKS.iter().find_map(|sb| {
        let found = head.get(sb.at..)?.starts_with(sb.magic);
        let uuid = head.get(sb.uuid..)?.first_chunk::<16>()?;
        let uuid = uuid::Uuid::from_bytes(*uuid);
        found.then(|| FileSystem {
            kind: sb.kind,
            uuid: (!uuid.is_nil()).then(|| uuid.to_string()),
        })
    });
    known.or_else(|| fat(head))
}

/// FAT has a serial number where others have a UUID; its place depends on the width.
fn fat(head: &[u8]) -> Option<FileSystem> {
    if head.get(510..512)? != [0x55, 0xAA] {
        return None;
    }
    let serial = if head.get(82..87)? == b"FAT32" {
        67
    } else if head.get(54..57)? == b"FAT" {
        39
    } else {
        return None;
    };
    let mut uuid = String::new();
    for (index, byte) in head.get(serial..serial + 4)?.iter().rev().enumerate() {
        let dash = if index == 2 { "-" } else { "" };
        write!(uuid, "{dash}{byte:02X}").ok()?;
    }
    Some(FileSystem {
        kind: "vfat",
        uuid: Some(uuid),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(mut head in prop::collection::vec(any::<u8>(), 0..3000)) {
            let _ = identify(&head);
            head.resize(3000, 0);
            head[510..512].copy_from_slice(&[0x55, 0xAA]);
            head[82..87].copy_from_slice(b"FAT32");
            assert!(identify(&head).is_some());
        }
    }
}
