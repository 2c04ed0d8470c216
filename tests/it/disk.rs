//! Whole disks as they end up, judged by the tools that others use on them.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests fail the test they help"
)]

pub(crate) mod lun;
mod partitions;
mod whole;

use crate::image::{noise, run, show, text, tool};
use flowrun::disk::{Lun, Manifest, WriteOptions, verify};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;

/// A file system with a file in it, alone in a raw file of this size.
fn file_system(folder: &TempDir, kind: &str, bytes: u64) -> PathBuf {
    let files = folder.path().join("files");
    fs::create_dir_all(files.join("etc")).unwrap();
    fs::write(files.join("etc/hostname"), "node-1\n").unwrap();
    fs::write(files.join("noise"), noise(6, 3_000_001)).unwrap();
    let image = folder.path().join(format!("{kind}.raw"));
    File::create(&image).unwrap().set_len(bytes).unwrap();
    let args = ["-q", "-F", "-t", kind, "-d", &show(&files), &show(&image)];
    tool("e2fsprogs", "mke2fs", &args);
    image
}

/// A part of the disk as a file of its own.
fn part(folder: &TempDir, disk: &Path, name: &str, offset: u64, bytes: u64) -> PathBuf {
    let path = folder.path().join(name);
    let (from, to) = (File::open(disk).unwrap(), File::create(&path).unwrap());
    to.set_len(bytes).unwrap();
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let count = buffer.len().min(usize::try_from(bytes - at).unwrap());
        from.read_exact_at(&mut buffer[..count], offset + at)
            .unwrap();
        if buffer[..count].iter().any(|byte| *byte != 0) {
            to.write_all_at(&buffer[..count], at).unwrap();
        }
        at += 1 << 20;
    }
    path
}

/// What blkid's low-level probe finds, in its `KEY=value` lines.
fn blkid(path: &Path) -> String {
    text("util-linux", "blkid", &["-p", "-o", "export", &show(path)])
}

/// Whether the two files begin alike, as far as the shorter one goes.
fn begins_alike(one: &Path, other: &Path) -> bool {
    let (one, other) = (File::open(one).unwrap(), File::open(other).unwrap());
    let bytes = one
        .metadata()
        .unwrap()
        .len()
        .min(other.metadata().unwrap().len());
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    (0..bytes).step_by(1 << 20).all(|at| {
        let count = left.len().min(usize::try_from(bytes - at).unwrap());
        one.read_exact_at(&mut left[..count], at).unwrap();
        other.read_exact_at(&mut right[..count], at).unwrap();
        left[..count] == right[..count]
    })
}

async fn verified(lun: &dyn Lun, manifest: &Manifest) {
    verify(lun, manifest, &WriteOptions::default())
        .await
        .unwrap();
}
