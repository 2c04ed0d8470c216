//! Virtual floppies and USB keys: what the deploy ramdisk must know, in a place where it looks for
//! it. All files lie in the root directory.

use super::iso::Source;
use super::vfat_disk::Disk;
use crate::error::{Error, Kind, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};

/// The label that Ironic's ramdisks look for.
pub const LABEL: &str = "ir-vfd-dev";
/// Where `key=value` lines go.
pub const PARAMETERS_FILE: &str = "parameters.txt";
const SECTOR: u64 = 512;
/// Bytes of a directory entry.
const ENTRY: u64 = 32;
/// Bytes of a file read at once.
const COPIED: usize = 1 << 16;
/// A 3.5 inch HD floppy: 80 cylinders, 2 heads, 18 sectors.
const FLOPPY_BYTES: u64 = 1_474_560;
/// Entries of a floppy's root directory.
const FLOPPY_ROOT_ENTRIES: u64 = 224;
/// Clusters of a floppy: its 2880 sectors without boot sector, two FATs and root directory.
const FLOPPY_CLUSTERS: u64 = 2880 - 1 - 2 * 9 - 14;
/// Most entries of a root directory that stand on a 16-bit count and in whole sectors.
const MAX_ROOT_ENTRIES: u64 = 0xffe0;
/// Most clusters of a FAT32 volume that is built: with the largest clusters, 60 GiB.
const MAX_CLUSTERS: u64 = 2_000_000;
/// A file's length has 32 bits.
const MAX_FILE: u64 = u32::MAX as u64;

/// What goes onto a floppy.
#[derive(Debug, Clone, Default)]
pub struct VfatSpec {
    /// Volume label, up to 11 ASCII characters, case kept.
    pub label: String,
    /// Lines of `parameters.txt`; none means no such file.
    pub parameters: BTreeMap<String, String>,
    /// Further files in the root directory, by name.
    pub files: Vec<(String, Source)>,
}

/// Builds the image in `out`, which is empty; equal specs give equal bytes. What is not written
/// stays a hole.
///
/// # Errors
/// `invalid` for a label, name or parameter that cannot be written so that it is read back the
/// same; `limit` for a file of 4 GiB or more than 60 GiB in all; `not_found` or `io` if a file
/// cannot be read, or `out` not be written.
pub fn make_vfat(spec: &VfatSpec, out: impl Read + Write + Seek) -> Result<()> {
    let label = label_bytes(&spec.label)?;
    let files = contents(spec)?;
    let layout = Layout::of(&files)?;
    let failed = |e: io::Error| Error::new(Kind::Io, "cannot build the floppy").caused_by(&e);
    let mut disk = Disk::new(out, layout.bytes, layout.head).map_err(failed)?;
    let options = layout.options().volume_label(label).volume_id(id(&files));
    fatfs::format_volume(&mut disk, options).map_err(failed)?;
    let volume = FileSystem::new(&mut disk, FsOptions::new()).map_err(failed)?;
    for file in &files {
        let mut out = volume.root_dir().create_file(&file.name).map_err(failed)?;
        file.copy(&mut out)?;
        out.flush().map_err(failed)?;
    }
    // Counts what is free, for the FAT32 sector that tells it.
    volume.stats().map_err(failed)?;
    volume.unmount().map_err(failed)?;
    disk.finish().map_err(failed)
}

/// A file that is to be on the volume.
struct Content<'a> {
    name: String,
    source: Cow<'a, Source>,
    bytes: u64,
}

impl<'a> Content<'a> {
    fn new(name: &str, source: Cow<'a, Source>) -> Result<Self> {
        check_name(name)?;
        let bytes = match &*source {
            Source::Bytes(bytes) => length(bytes),
            Source::File(path) => std::fs::metadata(path)
                .map_err(|e| Error::io(path, "read", &e))?
                .len(),
        };
        if bytes > MAX_FILE {
            let message = format!("{name:?} has {bytes} bytes; FAT holds files under 4 GiB");
            return Err(Error::new(Kind::Limit, message));
        }
        let name = name.to_owned();
        Ok(Self {
            name,
            source,
            bytes,
        })
    }

    fn copy(&self, out: &mut impl Write) -> Result<()> {
        let failed = |e: io::Error| {
            Error::new(Kind::Io, format!("cannot copy {:?}", self.name)).caused_by(&e)
        };
        let path = match &*self.source {
            Source::Bytes(bytes) => return out.write_all(bytes).map_err(failed),
            Source::File(path) => path,
        };
        let file = File::open(path).map_err(|e| Error::io(path, "read", &e))?;
        let mut file = BufReader::with_capacity(COPIED, file).take(self.bytes);
        let copied = io::copy(&mut file, out).map_err(failed)?;
        if copied == self.bytes {
            return Ok(());
        }
        let message = "the file became shorter while it was copied";
        Err(Error::new(Kind::Corrupt, message).target(path.display().to_string()))
    }
}

/// The files in the order of their names.
fn contents(spec: &VfatSpec) -> Result<Vec<Content<'_>>> {
    let mut files = Vec::new();
    for (name, source) in &spec.files {
        files.push(Content::new(name, Cow::Borrowed(source))?);
    }
    if !spec.parameters.is_empty() {
        let lines = parameter_lines(&spec.parameters)?.into_bytes();
        let lines = Cow::Owned(Source::Bytes(lines));
        files.push(Content::new(PARAMETERS_FILE, lines)?);
    }
    files.sort_by_cached_key(|file| (file.name.to_lowercase(), file.name.clone()));
    for pair in files.windows(2) {
        if let [one, other] = pair
            && one.name.to_lowercase() == other.name.to_lowercase()
        {
            let message = format!("{:?} and {:?} are one name on FAT", one.name, other.name);
            return Err(Error::new(Kind::Invalid, message));
        }
    }
    Ok(files)
}

/// The volume's number, from what is in it; of files on disk their names and sizes do.
fn id(files: &[Content<'_>]) -> u32 {
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.name.as_bytes());
        hash.update(file.bytes.to_le_bytes());
        if let Source::Bytes(bytes) = &*file.source {
            hash.update(bytes);
        }
    }
    let digest = hash.finalize();
    let first = digest.iter().take(4);
    first.fold(0, |id, byte| (id << 8) | u32::from(*byte))
}

/// The size and geometry of a volume.
#[derive(Debug)]
struct Layout {
    bytes: u64,
    /// Bytes before the clusters.
    head: u64,
    fat: FatType,
    cluster: u64,
    root_entries: u64,
}

/// What is tried in turn: the FAT, its clusters, and the least and most of them. The number alone
/// tells readers which FAT it is (FAT specification, §3.5); a wide margin at the limits, because
/// drivers disagree by some clusters.
const CHOICES: [(FatType, u64, u64, u64); 14] = [
    (FatType::Fat12, 512, 0, 4000),
    (FatType::Fat12, 1024, 0, 4000),
    (FatType::Fat12, 2048, 0, 4000),
    (FatType::Fat12, 4096, 0, 4000),
    (FatType::Fat16, 1024, 4200, 65_000),
    (FatType::Fat16, 2048, 4200, 65_000),
    (FatType::Fat16, 4096, 4200, 65_000),
    (FatType::Fat16, 8192, 4200, 65_000),
    (FatType::Fat16, 16_384, 4200, 65_000),
    (FatType::Fat16, 32_768, 4200, 65_000),
    (FatType::Fat32, 4096, 66_000, MAX_CLUSTERS),
    (FatType::Fat32, 8192, 66_000, MAX_CLUSTERS),
    (FatType::Fat32, 16_384, 66_000, MAX_CLUSTERS),
    (FatType::Fat32, 32_768, 66_000, MAX_CLUSTERS),
];

impl Layout {
    /// The floppy if all fits on it, else the smallest FAT that holds the files.
    fn of(files: &[Content<'_>]) -> Result<Self> {
        let entries = root_entries(files);
        let floppy = Self {
            bytes: FLOPPY_BYTES,
            head: (1 + 2 * 9 + 14) * SECTOR,
            fat: FatType::Fat12,
            cluster: SECTOR,
            root_entries: FLOPPY_ROOT_ENTRIES,
        };
        if clusters(files, SECTOR) <= FLOPPY_CLUSTERS && entries <= FLOPPY_ROOT_ENTRIES {
            return Ok(floppy);
        }
        let root_entries = entries.next_multiple_of(16);
        let volume = CHOICES.into_iter().find_map(|(fat, cluster, least, most)| {
            // FAT32 keeps its root directory in clusters, and more sectors before its tables.
            let root = root_entries * ENTRY;
            let (bits, reserved, root_clusters, root) = match fat {
                FatType::Fat12 => (12, 1, 0, root),
                FatType::Fat16 => (16, 1, 0, root),
                FatType::Fat32 => (32, 8, root.div_ceil(cluster), 0),
            };
            let count = (clusters(files, cluster) + root_clusters).max(least) + 1;
            let table = ((count + 2) * bits).div_ceil(8 * SECTOR) + 1;
            let head = (reserved + 2 * table) * SECTOR + root;
            let bytes = (head + count * cluster).next_multiple_of(4096);
            (count <= most).then_some(Self {
                bytes,
                head,
                fat,
                cluster,
                root_entries,
            })
        });
        volume
            .filter(|_| root_entries <= MAX_ROOT_ENTRIES)
            .ok_or_else(|| {
                let bytes: u64 = files.iter().map(|file| file.bytes).sum();
                let count = files.len();
                let message = format!("{count} files of {bytes} bytes do not fit on a FAT volume");
                Error::new(Kind::Limit, message)
            })
    }

    fn options(&self) -> FormatVolumeOptions {
        let options = FormatVolumeOptions::new()
            .fat_type(self.fat)
            .total_sectors(u32::try_from(self.bytes / SECTOR).unwrap_or_default())
            .bytes_per_cluster(u32::try_from(self.cluster).unwrap_or_default())
            .max_root_dir_entries(u16::try_from(self.root_entries).unwrap_or_default());
        if self.bytes != FLOPPY_BYTES {
            return options;
        }
        // Firmware recognises a floppy by its geometry.
        options.media(0xF0).sectors_per_track(18).heads(2)
    }
}

/// Clusters of this size that the files take.
fn clusters(files: &[Content<'_>], size: u64) -> u64 {
    files.iter().map(|file| file.bytes.div_ceil(size)).sum()
}

/// Entries of the root directory: the label, and for each file one and its long name, in pieces of
/// 13 UTF-16 units.
fn root_entries(files: &[Content<'_>]) -> u64 {
    let names = files
        .iter()
        .map(|file| 1 + file.name.encode_utf16().count().div_ceil(13));
    u64::try_from(1 + names.sum::<usize>()).unwrap_or(u64::MAX)
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

fn label_bytes(label: &str) -> Result<[u8; 11]> {
    let label = if label.is_empty() { LABEL } else { label };
    let plain = label
        .bytes()
        .all(|b| b.is_ascii_graphic() && !b"\"*+,./:;<=>?[\\]|".contains(&b));
    let mut bytes = [b' '; 11];
    match bytes.get_mut(..label.len()).filter(|_| plain) {
        Some(start) => start.copy_from_slice(label.as_bytes()),
        None => {
            return Err(
                Error::new(Kind::Invalid, format!("{label:?} is not a volume label"))
                    .hint("up to 11 letters, digits, - or _"),
            );
        }
    }
    Ok(bytes)
}

fn check_name(name: &str) -> Result<()> {
    let bad = name.is_empty()
        || name.len() > 255
        || name.starts_with('.')
        || name
            .chars()
            .any(|c| c.is_control() || "\"*/:<>?\\|".contains(c));
    if bad {
        return Err(Error::new(
            Kind::Invalid,
            format!("{name:?} is not a file name on FAT"),
        ));
    }
    Ok(())
}

/// `key=value` lines without a final newline. The classic ramdisk splits the file into words, so
/// a value with white space would be cut short or smuggle in further parameters.
fn parameter_lines(parameters: &BTreeMap<String, String>) -> Result<String> {
    let mut lines = Vec::new();
    for (key, value) in parameters {
        let bad_key = key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '=');
        if bad_key || key.contains(char::is_control) {
            return Err(Error::new(
                Kind::Invalid,
                format!("{key:?} is not a parameter name"),
            ));
        }
        if value.contains(|c: char| c.is_whitespace() || c.is_control()) {
            return Err(Error::new(
                Kind::Invalid,
                format!("the value of the parameter {key} has white space in it"),
            )
            .hint("the ramdisk reads words; encode the value"));
        }
        lines.push(format!("{key}={value}"));
    }
    Ok(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn spec() -> VfatSpec {
        VfatSpec {
            label: String::new(),
            parameters: [
                ("b".to_owned(), "2".to_owned()),
                ("a".to_owned(), "1=1".to_owned()),
            ]
            .into(),
            files: vec![("token".to_owned(), Source::Bytes(b"secret".to_vec()))],
        }
    }

    fn made(spec: &VfatSpec) -> Result<Vec<u8>> {
        let mut image = Cursor::new(Vec::new());
        make_vfat(spec, &mut image)?;
        Ok(image.into_inner())
    }

    fn read(image: &[u8], name: &str) -> Vec<u8> {
        let volume = FileSystem::new(Cursor::new(image.to_vec()), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), LABEL);
        let mut bytes = Vec::new();
        let mut file = volume.root_dir().open_file(name).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn reads_back_and_repeats() {
        let image = made(&spec()).unwrap();
        assert_eq!(length(&image), FLOPPY_BYTES);
        assert_eq!(image, made(&spec()).unwrap());
        assert_eq!(read(&image, PARAMETERS_FILE), b"a=1=1\nb=2");
    }

    #[test]
    fn grows_with_its_files() {
        let big = VfatSpec {
            files: vec![("big.bin".into(), Source::Bytes(vec![7; 3 << 20]))],
            ..spec()
        };
        assert_eq!(read(&made(&big).unwrap(), "big.bin"), vec![7; 3 << 20]);
    }

    #[test]
    fn takes_the_smallest_fat_that_holds_the_files() {
        let layout = |bytes: u64| {
            let source = Cow::Owned(Source::Bytes(Vec::new()));
            let files = [Content {
                name: "f".into(),
                source,
                bytes,
            }];
            Layout::of(&files)
        };
        for (bytes, fat, cluster) in [
            (1 << 20, FatType::Fat12, 512),
            (16 << 20, FatType::Fat16, 1024),
            (1 << 30, FatType::Fat16, 32_768),
            (2100 << 20, FatType::Fat32, 4096),
            (60 << 30, FatType::Fat32, 32_768),
        ] {
            let layout = layout(bytes).unwrap();
            assert_eq!((layout.fat, layout.cluster), (fat, cluster), "{bytes}");
            assert!(
                layout.bytes - bytes < (bytes / 64).max(1 << 20),
                "{layout:?}"
            );
        }
        assert_eq!(layout(70 << 30).unwrap_err().kind(), Kind::Limit);
    }

    #[test]
    fn names_that_fat_cannot_tell_apart_are_refused() {
        let mut spec = spec();
        spec.files.push(("Token".into(), Source::Bytes(Vec::new())));
        let error = made(&spec).unwrap_err();
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(error.message().contains("are one name"), "{error}");
    }

    #[test]
    fn a_file_that_is_not_there_or_too_large_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("large");
        let file = File::create(&path).unwrap();
        for (bytes, kind) in [(None, Kind::NotFound), (Some(1 << 32), Kind::Limit)] {
            let source = match bytes {
                None => Source::File(dir.path().join("none")),
                Some(bytes) => {
                    file.set_len(bytes).unwrap();
                    Source::File(path.clone())
                }
            };
            let mut spec = spec();
            spec.files.push(("large".into(), source));
            assert_eq!(made(&spec).unwrap_err().kind(), kind);
        }
    }

    #[test]
    fn values_that_would_be_misread_are_refused_without_being_shown() {
        for (key, value) in [
            ("a", "x y"),
            ("a", "x\ny=1"),
            ("", "x"),
            ("a b", "x"),
            ("a=b", "x"),
        ] {
            let parameters = [(key.to_owned(), value.to_owned())].into();
            let error = made(&VfatSpec {
                parameters,
                ..VfatSpec::default()
            })
            .unwrap_err();
            assert_eq!(error.kind(), Kind::Invalid);
            assert!(!error.to_string().contains("y=1"));
        }
        for label in ["far too long a label", "a/b"] {
            let spec = VfatSpec {
                label: label.into(),
                ..VfatSpec::default()
            };
            assert_eq!(made(&spec).unwrap_err().kind(), Kind::Invalid);
        }
    }
}
