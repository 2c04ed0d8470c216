//! Virtual floppies: what the deploy ramdisk must know, in a place where it looks for it.

use crate::error::{Error, Kind, Result};
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{Cursor, Write};

/// The label that Ironic's ramdisks look for.
pub const LABEL: &str = "ir-vfd-dev";
/// Where `key=value` lines go.
pub const PARAMETERS_FILE: &str = "parameters.txt";
/// A 3.5 inch HD floppy: 80 cylinders, 2 heads, 18 sectors.
const FLOPPY_BYTES: usize = 1_474_560;
/// Entries of a floppy's root directory.
const FLOPPY_ROOT_ENTRIES: usize = 224;
/// Clusters of a floppy: its 2880 sectors without boot sector, two FATs and root directory.
const FLOPPY_CLUSTERS: usize = 2880 - 1 - 2 * 9 - 14;
/// Most entries of a root directory that stand on a 16-bit count and in whole sectors.
const MAX_ROOT_ENTRIES: usize = 0xffe0;
/// Largest floppy or USB key that is built in memory.
const MAX_BYTES: usize = 64 << 20;

/// What goes onto a floppy.
#[derive(Debug, Clone, Default)]
pub struct VfatSpec {
    /// Volume label, up to 11 ASCII characters, case kept.
    pub label: String,
    /// Lines of `parameters.txt`; none means no such file.
    pub parameters: BTreeMap<String, String>,
    /// Further files in the root directory.
    pub files: Vec<(String, Vec<u8>)>,
}

/// Builds the image; equal specs give equal bytes.
///
/// # Errors
/// `invalid` for a label, name or parameter that cannot be written so that it is read back the
/// same; `limit` for more than 64 MiB.
pub fn make_vfat(spec: &VfatSpec) -> Result<Vec<u8>> {
    let label = label_bytes(&spec.label)?;
    let mut files = spec.files.clone();
    if !spec.parameters.is_empty() {
        files.push((
            PARAMETERS_FILE.to_owned(),
            parameter_lines(&spec.parameters)?.into_bytes(),
        ));
    }
    files.sort();
    files.iter().try_for_each(|(name, _)| check_name(name))?;
    let layout = Layout::of(&files)?;
    let mut image = Cursor::new(vec![0_u8; layout.bytes]);
    let failed = |e: std::io::Error| Error::new(Kind::Io, "cannot build the floppy").caused_by(&e);
    let options = layout.options().volume_label(label).volume_id(id(&files));
    fatfs::format_volume(&mut image, options).map_err(failed)?;
    let volume = FileSystem::new(&mut image, FsOptions::new()).map_err(failed)?;
    for (name, content) in &files {
        let mut file = volume.root_dir().create_file(name).map_err(failed)?;
        file.write_all(content).map_err(failed)?;
        file.flush().map_err(failed)?;
    }
    volume.unmount().map_err(failed)?;
    Ok(image.into_inner())
}

/// The volume's number, from what is in it.
fn id(files: &[(String, Vec<u8>)]) -> u32 {
    let mut hash = Sha256::new();
    for (name, content) in files {
        hash.update(name.as_bytes());
        hash.update(content);
    }
    let digest = hash.finalize();
    let first = digest.iter().take(4);
    first.fold(0, |id, byte| (id << 8) | u32::from(*byte))
}

/// The size and geometry of a volume.
struct Layout {
    bytes: usize,
    fat: FatType,
    cluster: usize,
    root_entries: usize,
}

impl Layout {
    /// The floppy if all fits on it, else the smallest FAT12 or FAT16 volume that holds the files.
    fn of(files: &[(String, Vec<u8>)]) -> Result<Self> {
        let clusters = |size: usize| {
            let lengths = files.iter().map(|(_, bytes)| bytes.len());
            lengths.map(|length| length.div_ceil(size)).sum::<usize>()
        };
        let entries = root_entries(files);
        if clusters(512) <= FLOPPY_CLUSTERS && entries <= FLOPPY_ROOT_ENTRIES {
            return Ok(Self {
                bytes: FLOPPY_BYTES,
                fat: FatType::Fat12,
                cluster: 512,
                root_entries: FLOPPY_ROOT_ENTRIES,
            });
        }
        // The number of clusters alone tells readers which FAT it is (FAT specification, §3.5).
        // A wide margin at the limits, because drivers disagree by some clusters.
        let choices = [
            (FatType::Fat12, 512, 0),
            (FatType::Fat12, 1024, 0),
            (FatType::Fat12, 2048, 0),
            (FatType::Fat12, 4096, 0),
            (FatType::Fat16, 1024, 4200),
            (FatType::Fat16, 2048, 4200),
        ];
        let root_entries = entries.next_multiple_of(16);
        let volume = choices.into_iter().find_map(|(fat, cluster, least)| {
            let (most, bits) = match fat {
                FatType::Fat12 => (4000, 12),
                _ => (65_000, 16),
            };
            let count = clusters(cluster).max(least) + 1;
            let table = ((count + 2) * bits).div_ceil(8 * 512) + 1;
            let bytes = (1 + 2 * table) * 512 + root_entries * 32 + count * cluster;
            let bytes = bytes.next_multiple_of(4096);
            (count <= most && bytes <= MAX_BYTES).then_some(Self {
                bytes,
                fat,
                cluster,
                root_entries,
            })
        });
        volume
            .filter(|_| root_entries <= MAX_ROOT_ENTRIES)
            .ok_or_else(|| {
                Error::new(
                    Kind::Limit,
                    format!("the files do not fit on a floppy or key of {MAX_BYTES} bytes"),
                )
            })
    }

    fn options(&self) -> FormatVolumeOptions {
        let options = FormatVolumeOptions::new()
            .fat_type(self.fat)
            .bytes_per_cluster(u32::try_from(self.cluster).unwrap_or_default())
            .max_root_dir_entries(u16::try_from(self.root_entries).unwrap_or_default());
        if self.bytes != FLOPPY_BYTES {
            return options;
        }
        // Firmware recognises a floppy by its geometry.
        options.media(0xF0).sectors_per_track(18).heads(2)
    }
}

/// Entries of the root directory: the label, and for each file one and its long name, in pieces of
/// 13 UTF-16 units.
fn root_entries(files: &[(String, Vec<u8>)]) -> usize {
    let names = files
        .iter()
        .map(|(name, _)| 1 + name.encode_utf16().count().div_ceil(13));
    1 + names.sum::<usize>()
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
    use std::io::Read;

    fn spec() -> VfatSpec {
        VfatSpec {
            label: String::new(),
            parameters: [
                ("b".to_owned(), "2".to_owned()),
                ("a".to_owned(), "1=1".to_owned()),
            ]
            .into(),
            files: vec![("token".to_owned(), b"secret".to_vec())],
        }
    }

    #[test]
    fn reads_back_and_repeats() {
        let image = make_vfat(&spec()).unwrap();
        assert_eq!(image.len(), FLOPPY_BYTES);
        assert_eq!(image, make_vfat(&spec()).unwrap());
        let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        assert_eq!(volume.volume_label(), LABEL);
        let mut text = String::new();
        volume
            .root_dir()
            .open_file(PARAMETERS_FILE)
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "a=1=1\nb=2");
    }

    #[test]
    fn grows_with_its_files() {
        let big = VfatSpec {
            files: vec![("big.bin".into(), vec![7; 3 << 20])],
            ..spec()
        };
        let image = make_vfat(&big).unwrap();
        let volume = FileSystem::new(Cursor::new(image), FsOptions::new()).unwrap();
        let mut bytes = Vec::new();
        volume
            .root_dir()
            .open_file("big.bin")
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        assert_eq!(bytes, vec![7; 3 << 20]);
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
            let error = make_vfat(&VfatSpec {
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
            assert_eq!(make_vfat(&spec).unwrap_err().kind(), Kind::Invalid);
        }
    }
}
