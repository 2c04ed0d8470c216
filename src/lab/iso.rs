//! What a server's firmware and boot loader read from a bootable CD: the El Torito boot record
//! and catalog, then ISOLINUX's configuration, the kernel and the ramdisk.
//!
//! Sources: El Torito 1.0; ECMA-119 (the numbers of bytes there begin with 1).

use super::host::Medium;
use crate::error::{Error, Kind, Result};
use bytes::Bytes;
use sha2::{Digest, Sha256};

const SECTOR_BYTES: u64 = 2048;
/// ECMA-119 §8.1: where the volume descriptors begin.
const FIRST_DESCRIPTOR: u64 = 16;
/// El Torito §2.0: where the boot record has to be.
const BOOT_RECORD: u64 = 17;
/// Longest directory and configuration file that are read.
const MAX_TABLE_BYTES: u64 = 1 << 20;
/// One read of a large file.
const CHUNK_BYTES: usize = 512 << 10;

/// What a CD boots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BootDisc {
    /// Label of the volume.
    pub(super) volume: String,
    /// Words of the kernel's command line.
    pub(super) command_line: String,
    /// The kernel that was read.
    pub(super) kernel: Loaded,
    /// The ramdisk that was read.
    pub(super) initrd: Option<Loaded>,
}

/// A file that was read as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Loaded {
    pub(super) path: String,
    pub(super) size_bytes: u64,
    pub(super) sha256: String,
}

/// Does what a server does with a CD, up to the jump into the kernel.
pub(super) async fn boot(medium: &dyn Medium) -> Result<BootDisc> {
    let primary = sector(medium, FIRST_DESCRIPTOR).await?;
    if primary.get(..7) != Some(b"\x01CD001\x01") {
        return Err(corrupt("no primary volume descriptor in sector 16"));
    }
    if le16(&primary, 128) != Some(2048) {
        return Err(corrupt("its logical blocks are not of 2048 bytes"));
    }
    check_boot_image(medium).await?;
    let root = primary.get(156..190).and_then(Record::parse);
    let disc = Disc {
        medium,
        root: root.ok_or_else(|| corrupt("no root directory record"))?,
    };
    let config = disc.find("/isolinux/isolinux.cfg").await?;
    let config = String::from_utf8_lossy(&disc.read(&config, MAX_TABLE_BYTES).await?).into_owned();
    let entry = Entry::parse(&config)?;
    let initrd = match &entry.initrd {
        Some(path) => Some(disc.load(path).await?),
        None => None,
    };
    Ok(BootDisc {
        volume: text(primary.get(40..72).unwrap_or_default()),
        kernel: disc.load(&entry.kernel).await?,
        command_line: entry.append,
        initrd,
    })
}

/// Follows the boot record to the catalog, and the catalog to the boot loader.
async fn check_boot_image(medium: &dyn Medium) -> Result<()> {
    let record = sector(medium, BOOT_RECORD).await?;
    let specified = record.get(..7) == Some(b"\x00CD001\x01")
        && record.get(7..39) == Some(b"EL TORITO SPECIFICATION\0\0\0\0\0\0\0\0\0");
    if !specified {
        return Err(corrupt("no El Torito boot record in sector 17"));
    }
    let catalog = le32(&record, 71).ok_or_else(|| corrupt("no boot catalog"))?;
    let catalog = sector(medium, catalog).await?;
    let validation = catalog.get(..32).unwrap_or_default();
    if validation.first() != Some(&1) || validation.get(30..32) != Some(&[0x55, 0xAA]) {
        return Err(corrupt("no validation entry in the boot catalog"));
    }
    let words = validation.chunks_exact(2).filter_map(|w| le16(w, 0));
    if words.sum::<u64>() & 0xFFFF != 0 {
        return Err(corrupt("the checksum of the boot catalog is wrong"));
    }
    let initial = catalog.get(32..64).unwrap_or_default();
    match initial.first() {
        Some(0x88) => {}
        Some(0x00) => return Err(corrupt("the boot catalog marks its image as not bootable")),
        _ => return Err(corrupt("no boot indicator in the boot catalog")),
    }
    if initial.get(1).is_none_or(|kind| kind & 0x0F != 0) {
        return Err(corrupt("the boot image wants an emulated disk"));
    }
    let start = le32(initial, 8).ok_or_else(|| corrupt("no boot image"))?;
    let length = le16(initial, 6).unwrap_or_default().max(1) * 512;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let image = read_exactly(medium, start.saturating_mul(SECTOR_BYTES), length).await?;
    if image.iter().all(|byte| *byte == 0) {
        return Err(corrupt("the boot image is empty"));
    }
    Ok(())
}

/// A volume whose root directory is known.
#[derive(Debug)]
struct Disc<'a> {
    medium: &'a dyn Medium,
    root: Record,
}

impl Disc<'_> {
    async fn find(&self, path: &str) -> Result<Record> {
        let mut at = self.root.clone();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            if !at.is_directory {
                return Err(missing(path));
            }
            let directory = self.read(&at, MAX_TABLE_BYTES).await?;
            let mut records = records(&directory);
            let found = records.find(|record| record.name.eq_ignore_ascii_case(name));
            at = found.ok_or_else(|| missing(path))?;
        }
        Ok(at)
    }

    /// Reads a short file.
    async fn read(&self, file: &Record, limit: u64) -> Result<Vec<u8>> {
        if file.size_bytes > limit {
            let message = format!("{:?} is of {} bytes", file.name, file.size_bytes);
            return Err(corrupt(message));
        }
        let length = usize::try_from(file.size_bytes).unwrap_or(usize::MAX);
        let start = file.start_sector.saturating_mul(SECTOR_BYTES);
        Ok(read_exactly(self.medium, start, length).await?.to_vec())
    }

    /// Reads a file of any length, as a boot loader does.
    async fn load(&self, path: &str) -> Result<Loaded> {
        let file = self.find(path).await?;
        if file.is_directory || file.is_continued || file.size_bytes == 0 {
            return Err(corrupt(format!("{path} is not a file that can be loaded")));
        }
        let mut hash = Sha256::new();
        let mut done = 0;
        while done < file.size_bytes {
            let left = usize::try_from(file.size_bytes - done).unwrap_or(usize::MAX);
            let start = file.start_sector.saturating_mul(SECTOR_BYTES);
            let chunk = read_exactly(
                self.medium,
                start.saturating_add(done),
                left.min(CHUNK_BYTES),
            );
            let chunk = chunk.await?;
            hash.update(&chunk);
            done += chunk.len() as u64;
        }
        Ok(Loaded {
            path: path.to_owned(),
            size_bytes: file.size_bytes,
            sha256: hex::encode(hash.finalize()),
        })
    }
}

/// ECMA-119 §9.1: a directory record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Record {
    name: String,
    start_sector: u64,
    size_bytes: u64,
    is_directory: bool,
    /// More extents of the same file follow.
    is_continued: bool,
}

impl Record {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let name_length = usize::from(*bytes.get(32)?);
        let flags = *bytes.get(25)?;
        let name = text(bytes.get(33..33 + name_length)?);
        // §7.5: the version, and a full stop before an empty extension.
        let name = name.split(';').next().unwrap_or_default();
        Some(Self {
            name: name.trim_end_matches('.').to_owned(),
            start_sector: le32(bytes, 2)?,
            size_bytes: le32(bytes, 10)?,
            is_directory: flags & 0x02 != 0,
            is_continued: flags & 0x80 != 0,
        })
    }
}

/// The records of a directory. None crosses a sector; the rest of a sector is zero.
fn records(directory: &[u8]) -> impl Iterator<Item = Record> + '_ {
    directory.chunks(2048).flat_map(|sector| {
        let mut rest = sector;
        std::iter::from_fn(move || {
            let length = usize::from(*rest.first()?);
            let record = rest.get(..length).filter(|_| length > 0)?;
            rest = rest.get(length..)?;
            Some(Record::parse(record))
        })
        .flatten()
    })
}

/// The entry that ISOLINUX boots without being asked.
#[derive(Debug, PartialEq, Eq)]
struct Entry {
    kernel: String,
    initrd: Option<String>,
    append: String,
}

impl Entry {
    fn parse(config: &str) -> Result<Self> {
        let mut lines = Vec::new();
        for line in config.lines() {
            let line = line.trim();
            let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            lines.push((word.to_ascii_lowercase(), rest.trim()));
        }
        let first = |name: &str| {
            let mut found = lines.iter().filter(|(word, _)| word == name);
            found.next().map(|(_, value)| *value)
        };
        let default = first("default").or_else(|| first("label"));
        let default = default.ok_or_else(|| corrupt("isolinux.cfg has no entry"))?;
        let start = lines
            .iter()
            .position(|(word, value)| word == "label" && value.eq_ignore_ascii_case(default))
            .ok_or_else(|| corrupt(format!("isolinux.cfg has no label {default:?}")))?;
        let body = lines.iter().skip(start + 1);
        let body: Vec<_> = body.take_while(|(word, _)| word != "label").collect();
        let value = |names: &[&str]| {
            let mut found = body
                .iter()
                .filter(|(word, _)| names.contains(&word.as_str()));
            found.next().map(|(_, value)| (*value).to_owned())
        };
        let append = value(&["append"]).unwrap_or_default();
        let from_append = append
            .split_whitespace()
            .find_map(|word| word.strip_prefix("initrd="));
        Ok(Self {
            kernel: value(&["kernel", "linux"])
                .map(|path| absolute(&path))
                .ok_or_else(|| corrupt(format!("label {default:?} has no kernel")))?,
            initrd: from_append
                .map(absolute)
                .or_else(|| value(&["initrd"]).map(|path| absolute(&path))),
            append,
        })
    }
}

/// ISOLINUX looks for relative names beside its configuration.
fn absolute(path: &str) -> String {
    match path.starts_with('/') {
        true => path.to_owned(),
        false => format!("/isolinux/{path}"),
    }
}

async fn sector(medium: &dyn Medium, number: u64) -> Result<Bytes> {
    read_exactly(medium, number.saturating_mul(SECTOR_BYTES), 2048).await
}

async fn read_exactly(medium: &dyn Medium, offset: u64, length: usize) -> Result<Bytes> {
    let end = offset.saturating_add(length as u64);
    if end > medium.size_bytes() {
        let size = medium.size_bytes();
        return Err(corrupt(format!(
            "byte {end} is wanted of a medium of {size} bytes"
        )));
    }
    let bytes = medium.read_at(offset, length).await?;
    match bytes.len() == length {
        true => Ok(bytes),
        false => Err(Error::new(Kind::Io, "the medium ends early")),
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end().to_owned()
}

fn le16(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*field).into())
}

fn le32(bytes: &[u8], offset: usize) -> Option<u64> {
    let field = bytes.get(offset..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*field).into())
}

fn corrupt(message: impl Into<String>) -> Error {
    Error::new(Kind::Corrupt, message)
}

fn missing(path: &str) -> Error {
    Error::new(Kind::NotFound, format!("no {path} on the CD"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use proptest::prelude::*;
    use std::process::Command;
    use std::sync::OnceLock;

    /// A medium in memory.
    #[derive(Debug)]
    struct Image(Vec<u8>);

    impl Medium for Image {
        fn size_bytes(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
            let start = usize::try_from(offset).unwrap().min(self.0.len());
            let end = (start + length).min(self.0.len());
            std::future::ready(Ok(Bytes::copy_from_slice(&self.0[start..end]))).boxed()
        }
    }

    fn try_boot(image: Vec<u8>) -> Result<BootDisc> {
        boot(&Image(image)).now_or_never().unwrap()
    }

    const CONFIG: &str = "default boot\n\nlabel boot\nkernel /vmlinuz\n\
        append initrd=/initrd text boot_method=vmedia --\n";

    /// A CD made by xorriso, an independent implementation.
    fn disc() -> Vec<u8> {
        static DISC: OnceLock<Vec<u8>> = OnceLock::new();
        DISC.get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let tree = folder.path().join("tree");
            std::fs::create_dir_all(tree.join("isolinux")).unwrap();
            std::fs::write(tree.join("isolinux/isolinux.cfg"), CONFIG).unwrap();
            std::fs::write(tree.join("isolinux/isolinux.bin"), [0xFA; 4096]).unwrap();
            std::fs::write(tree.join("vmlinuz"), vec![1; 700_000]).unwrap();
            std::fs::write(tree.join("initrd"), b"ramdisk").unwrap();
            let iso = folder.path().join("disc.iso");
            let made = Command::new("xorriso")
                .args([
                    "-as",
                    "mkisofs",
                    "-quiet",
                    "-R",
                    "-J",
                    "-V",
                    "VMEDIA_BOOT_ISO",
                ])
                .args(["-b", "isolinux/isolinux.bin", "-c", "isolinux/boot.cat"])
                .args([
                    "-no-emul-boot",
                    "-boot-load-size",
                    "4",
                    "-boot-info-table",
                    "-o",
                ])
                .args([&iso, &tree])
                .status()
                .expect("xorriso is needed for this test");
            assert!(made.success());
            std::fs::read(iso).unwrap()
        })
        .clone()
    }

    #[test]
    fn boots_a_disc_of_another_implementation() {
        let disc = try_boot(disc()).unwrap();
        assert_eq!(disc.volume, "VMEDIA_BOOT_ISO");
        assert!(disc.command_line.contains("boot_method=vmedia"));
        assert_eq!(disc.kernel.size_bytes, 700_000);
        assert_eq!(
            disc.kernel.sha256,
            hex::encode(Sha256::digest(vec![1; 700_000]))
        );
        assert_eq!(disc.initrd.unwrap().size_bytes, 7);
    }

    #[test]
    fn says_what_is_wrong_with_a_disc() {
        let catalog = usize::try_from(le32(&disc(), 17 * 2048 + 71).unwrap()).unwrap() * 2048;
        let cases: [(usize, u8, &str); 7] = [
            (16 * 2048 + 1, b'X', "no primary volume descriptor"),
            (17 * 2048 + 7, b'X', "no El Torito boot record"),
            (catalog, 0, "no validation entry"),
            (catalog + 4, 0x77, "checksum"),
            (catalog + 32, 0, "not bootable"),
            (catalog + 33, 2, "emulated disk"),
            (catalog + 43, 0xFF, "medium of"),
        ];
        for (offset, byte, expected) in cases {
            let mut image = disc();
            image[offset] = byte;
            let error = try_boot(image).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt);
            assert!(error.message().contains(expected), "{error}");
        }
        let error = try_boot(disc()[..40 * 2048].to_vec()).unwrap_err();
        assert!(error.message().contains("is wanted"), "{error}");
    }

    #[test]
    fn reads_configurations() {
        let entry = Entry::parse(
            "# x\nDEFAULT b\nLABEL a\nKERNEL /a\nLABEL B\n  LINUX vmlinuz\n  INITRD /i\n",
        );
        let expected = Entry {
            kernel: "/isolinux/vmlinuz".to_owned(),
            initrd: Some("/i".to_owned()),
            append: String::new(),
        };
        assert_eq!(entry.unwrap(), expected);
        for bad in [
            "",
            "default a",
            "label a\nappend x",
            "default a\nlabel b\nkernel /k",
        ] {
            assert_eq!(
                Entry::parse(bad).unwrap_err().kind(),
                Kind::Corrupt,
                "{bad}"
            );
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(damage in proptest::collection::vec(
            (32_768_usize..80_000, any::<u8>()), 1..200)
        ) {
            let mut image = disc();
            for (offset, byte) in damage {
                image[offset] = byte;
            }
            drop(try_boot(image));
        }

        #[test]
        fn garbage_never_panics(
            config in "(?s).{0,300}",
            bytes in proptest::collection::vec(any::<u8>(), 0..4096),
        ) {
            drop(Entry::parse(&config));
            records(&bytes).for_each(drop);
        }
    }
}
