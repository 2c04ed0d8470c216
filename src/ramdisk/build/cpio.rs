//! The archive that Linux unpacks as its first root file system.
//!
//! Source: Linux, Documentation/driver-api/early-userspace/buffer-format.rst, format `newc`.

use std::collections::BTreeSet;

/// What a file may be, as `st_mode`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_644;
const PROGRAM: u32 = 0o100_755;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive under way. It has no times, owners or inode numbers that could differ from build to
/// build.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a file and the folders that it lies in; `path` has no slash at its beginning.
    pub(super) fn file(&mut self, path: &str, contents: &[u8]) {
        self.parents(path);
        self.entry(path, FILE, (0, 0), contents);
    }

    /// Adds a file that can be executed.
    pub(super) fn program(&mut self, path: &str, contents: &[u8]) {
        self.parents(path);
        self.entry(path, PROGRAM, (0, 0), contents);
    }

    /// Adds an empty folder.
    pub(super) fn folder(&mut self, path: &str) {
        self.parents(path);
        if self.folders.insert(path.to_owned()) {
            self.entry(path, FOLDER, (0, 0), &[]);
        }
    }

    /// Adds a character device. The kernel opens `dev/console` before anything is mounted.
    pub(super) fn device(&mut self, path: &str, number: (u32, u32)) {
        self.parents(path);
        self.entry(path, CHARACTER_DEVICE, number, &[]);
    }

    /// The whole archive.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.folder(folder);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        self.entries += 1;
        // More than the kernel takes in one file does not fit either: its buffer is 4 GiB long.
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name_size = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        let links = if mode == FOLDER { 2 } else { 1 };
        // Inode, mode, owner, group, links, time, size, device, device it is, name, checksum.
        let fields = [
            self.entries,
            mode,
            0,
            0,
            links,
            0,
            size,
            0,
            0,
            device.0,
            device.1,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes
                .extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_padded_and_folders_come_first() {
        let mut archive = Archive::default();
        archive.file("a/b", b"12345");
        archive.program("a/c", b"");
        let bytes = archive.finish();
        let text = String::from_utf8_lossy(&bytes);
        let fields = [
            "070701",
            "00000001",
            "000041ED",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000000",
            "00000002",
            "00000000",
            "a\x00070701",
        ];
        assert!(text.starts_with(&fields.concat()), "{text:?}");
        assert!(text.contains("a/b\0\0\x0012345\0\0\x00070701"), "{text:?}");
        assert_eq!(text.matches("070701").count(), 4);
        assert!(text.contains("TRAILER!!!"));
        assert_eq!(bytes.len() % 4, 0);
    }
}
