//! Disk images as something to read: where data is, where holes are.
//!
//! raw files (holes as the file system knows them) and qcow2 through imago. Images come from
//! strangers: whatever a header asks for, no other file is opened.

use crate::error::{Error, Kind, Result};
use imago::file::File as Storage;
use imago::qcow2::Qcow2;
use imago::{DenyImplicitOpenGate, FormatAccess, FormatDriverBuilder, Mapping};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Largest disk that an image may claim: 64 TiB.
const MAX_VIRTUAL_BYTES: u64 = 64 << 40;
const QCOW2_MAGIC: &[u8; 4] = b"QFI\xfb";

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

/// What is known of an image without reading it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ImageInfo {
    /// How it is stored.
    pub format: Format,
    /// Size of the disk it describes.
    pub virtual_bytes: u64,
    /// Size of the file.
    pub file_bytes: u64,
}

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
    /// Whether it holds data; else it reads as zeros.
    pub data: bool,
}

/// An open image.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    info: ImageInfo,
    reader: Reader,
}

#[derive(Debug)]
enum Reader {
    Raw(File),
    Qcow2 {
        image: Box<FormatAccess<Storage>>,
        cluster: u64,
    },
}

impl ImageSource {
    /// Opens an image. Without a `format` the content decides, never the name; with one, an image
    /// of another format is refused, since a raw disk may begin with another format's header.
    ///
    /// # Errors
    /// `not_found`, `io`; `unsupported` for what this reader does not do; `corrupt` for a header
    /// that makes no sense; `refused` for an image that points at other files.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self> {
        let named = |e: Error| e.target(path.display().to_string());
        let file = File::open(path).map_err(|e| Error::io(path, "open the image", &e))?;
        let metadata = file
            .metadata()
            .map_err(|e| Error::io(path, "open the image", &e))?;
        if !metadata.is_file() {
            return Err(named(Error::new(
                Kind::Invalid,
                "the image is not a regular file",
            )));
        }
        let file_bytes = metadata.len();
        let mut head = vec![0; 112];
        let count = file
            .read_at(&mut head, 0)
            .map_err(|e| Error::io(path, "read the image", &e))?;
        head.truncate(count);
        let found = if head.starts_with(QCOW2_MAGIC) {
            Format::Qcow2
        } else {
            Format::Raw
        };
        let format = format.unwrap_or(found);
        let (reader, virtual_bytes) = match format {
            Format::Raw => (Reader::Raw(file), file_bytes),
            Format::Qcow2 if found == Format::Qcow2 => open_qcow2(file, &head).map_err(named)?,
            Format::Qcow2 => {
                return Err(named(Error::new(Kind::Corrupt, "the image is not qcow2")));
            }
        };
        if virtual_bytes == 0 {
            return Err(named(Error::new(Kind::Corrupt, "the image is empty")));
        }
        if virtual_bytes > MAX_VIRTUAL_BYTES {
            let message = format!("the image claims a disk of {virtual_bytes} bytes");
            return Err(named(Error::new(Kind::Limit, message)));
        }
        let info = ImageInfo {
            format,
            virtual_bytes,
            file_bytes,
        };
        Ok(Self {
            path: path.to_owned(),
            info,
            reader,
        })
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The extent that begins at `offset`; `None` at the end of the disk. What could not be told
    /// apart counts as data.
    ///
    /// # Errors
    /// `corrupt` if the image's tables make no sense.
    pub fn extent_at(&self, offset: u64) -> Result<Option<Extent>> {
        let left = self.info.virtual_bytes.saturating_sub(offset);
        if left == 0 {
            return Ok(None);
        }
        let (length, data) = match &self.reader {
            Reader::Raw(file) => raw_extent(file, offset, left),
            Reader::Qcow2 { image, cluster } => match image.get_mapping(offset, left) {
                // The library reads zeros beyond the end of the file, as QEMU does; in an image
                // that was cut short they would pass for data. Only the last cluster may be short.
                Ok((Mapping::Raw { offset: at, .. }, length))
                    if at.saturating_add(length.saturating_sub(*cluster))
                        >= self.info.file_bytes =>
                {
                    return Err(self.damaged(offset, &cut_short()));
                }
                Ok((Mapping::Zero { .. }, length)) => (length, false),
                Ok((Mapping::Eof { .. }, _)) => (left, false),
                Ok((_, length)) => (length, true),
                Err(e) => return Err(self.damaged(offset, &e)),
            },
        };
        Ok(Some(Extent {
            offset,
            length: length.clamp(1, left),
            data,
        }))
    }

    /// Fills `buffer` from `offset`; what lies beyond the end of the disk reads as zeros.
    ///
    /// # Errors
    /// `corrupt` if a cluster cannot be read or decompressed.
    pub fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let left = self.info.virtual_bytes.saturating_sub(offset);
        let inside = usize::try_from(left)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (inside, beyond) = buffer.split_at_mut(inside);
        beyond.fill(0);
        let read = match &self.reader {
            Reader::Raw(file) => file.read_exact_at(inside, offset),
            Reader::Qcow2 { image, .. } => image.read(inside, offset),
        };
        read.map_err(|e| self.damaged(offset, &e))
    }

    fn damaged(&self, offset: u64, error: &std::io::Error) -> Error {
        Error::new(
            Kind::Corrupt,
            format!("the image cannot be read at byte {offset}"),
        )
        .target(self.path.display().to_string())
        .caused_by(error)
    }
}

/// Length of what begins at `offset`, and whether it is data, as the file system knows it.
fn raw_extent(file: &File, offset: u64, left: u64) -> (u64, bool) {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => (data - offset, false),
        Ok(_) => match seek(file, SeekFrom::Hole(offset)) {
            Ok(hole) if hole > offset => (hole - offset, true),
            _ => (left, true),
        },
        // ENXIO: no data from here to the end. Anything else: holes are not known here.
        Err(rustix::io::Errno::NXIO) => (left, false),
        Err(_) => (left, true),
    }
}

fn cut_short() -> std::io::Error {
    std::io::Error::new(
        std::io::ErrorKind::UnexpectedEof,
        "the file ends before this cluster",
    )
}

fn open_qcow2(file: File, head: &[u8]) -> Result<(Reader, u64)> {
    check_qcow2_header(head)?;
    let cluster = check_qcow2_tables(&file, head)?;
    let storage = Storage::try_from(file)
        .map_err(|e| Error::new(Kind::Io, "cannot open the image").caused_by(&e))?;
    let image = Qcow2::<Storage>::builder(storage)
        .open(DenyImplicitOpenGate::default())
        .map_err(|e| Error::new(Kind::Corrupt, "not a readable qcow2 image").caused_by(&e))?;
    let image = FormatAccess::new(image);
    let size = image.size();
    let image = Box::new(image);
    Ok((Reader::Qcow2 { image, cluster }, size))
}

/// Checks that every mapping table lies inside the file and returns the cluster size: a table
/// beyond the end reads as zeros, and a disk that is cut short would pass for an empty one.
fn check_qcow2_tables(file: &File, head: &[u8]) -> Result<u64> {
    let broken = || {
        Error::new(
            Kind::Corrupt,
            "the image is cut short or its tables are damaged",
        )
    };
    let cluster = 1_u64
        .checked_shl(be32(head, 20))
        .filter(|cluster| (512..=2 << 20).contains(cluster))
        .ok_or_else(broken)?;
    let file_bytes = file.metadata().map_err(|_| broken())?.len();
    let end = u64::from(be32(head, 36))
        .checked_mul(8)
        .and_then(|bytes| bytes.checked_add(be64(head, 40)))
        .filter(|end| *end <= file_bytes)
        .ok_or_else(broken)?;
    let mut at = be64(head, 40);
    let mut buffer = vec![0; 64 << 10];
    while at < end {
        let count = usize::try_from(end - at)
            .unwrap_or(usize::MAX)
            .min(buffer.len());
        let (entries, _) = buffer.split_at_mut(count);
        file.read_exact_at(entries, at).map_err(|_| broken())?;
        for entry in entries.chunks_exact(8) {
            // Bits 9 to 55 are the table's offset.
            let table = be64(entry, 0) & 0x00ff_ffff_ffff_fe00;
            if table != 0 && table + cluster > file_bytes {
                return Err(broken());
            }
        }
        at += u64::try_from(count).unwrap_or(u64::MAX);
    }
    Ok(cluster)
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_be_bytes)
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_be_bytes)
}

/// Names what this reader does not take before the library says it in its own words.
/// Source: QEMU docs/interop/qcow2.rst.
fn check_qcow2_header(head: &[u8]) -> Result<()> {
    let unsupported = |what: &str| {
        Error::new(Kind::Unsupported, format!("{what} are not read"))
            .hint("`qemu-img convert -O qcow2` or `-O raw` makes an image that is")
    };
    let version = be32(head, 4);
    if !(2..=3).contains(&version) {
        return Err(Error::new(
            Kind::Unsupported,
            format!("qcow2 version {version} is not known"),
        ));
    }
    if be64(head, 8) != 0 {
        return Err(Error::new(
            Kind::Refused,
            "the image has a backing file; none is opened",
        )
        .hint("`qemu-img convert -O qcow2` makes an image that stands alone"));
    }
    if be32(head, 32) != 0 {
        return Err(unsupported("encrypted images"));
    }
    let incompatible = if version >= 3 { be64(head, 72) } else { 0 };
    if incompatible & 0b100 != 0 {
        return Err(Error::new(
            Kind::Refused,
            "the image keeps its data in another file; none is opened",
        )
        .hint("`qemu-img convert -O qcow2` makes an image that stands alone"));
    }
    let zstd = incompatible & 0b1000 != 0 && head.get(104) == Some(&1);
    if zstd {
        return Err(unsupported("zstd-compressed qcow2 images"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn open_bytes(bytes: &[u8]) -> Result<ImageSource> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        ImageSource::open(file.path(), None)
    }

    #[test]
    fn raw_holes_are_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        file.as_file().write_all_at(&[7; 4096], 4 << 20).unwrap();
        let image = ImageSource::open(file.path(), None).unwrap();
        let (mut at, mut data) = (0, 0);
        while let Some(extent) = image.extent_at(at).unwrap() {
            data += if extent.data { extent.length } else { 0 };
            at += extent.length;
        }
        assert_eq!(at, 8 << 20);
        assert!((4096..=1 << 20).contains(&data), "{data}");
        let mut buffer = [1; 8];
        image.read_at((4 << 20) - 4, &mut buffer).unwrap();
        assert_eq!(buffer, [0, 0, 0, 0, 7, 7, 7, 7]);
        image.read_at((8 << 20) - 4, &mut buffer).unwrap();
        assert_eq!(buffer, [0; 8]);
    }

    #[test]
    fn a_header_cannot_make_us_open_another_file() {
        let mut head = vec![0_u8; 512];
        head[..4].copy_from_slice(QCOW2_MAGIC);
        head[7] = 3;
        let mut backing = head.clone();
        backing[15] = 200;
        assert_eq!(open_bytes(&backing).unwrap_err().kind(), Kind::Refused);
        head[79] = 0b100;
        assert_eq!(open_bytes(&head).unwrap_err().kind(), Kind::Refused);
    }

    proptest! {
        #[test]
        fn hostile_headers_give_errors(mut bytes in prop::collection::vec(any::<u8>(), 112..600)) {
            bytes[..4].copy_from_slice(QCOW2_MAGIC);
            bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
            bytes[8..16].fill(0);
            bytes[32..36].fill(0);
            if let Ok(image) = open_bytes(&bytes) {
                let _ = image.extent_at(0);
                let _ = image.read_at(0, &mut [0; 512]);
            }
        }
    }
}
