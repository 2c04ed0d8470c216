//! Disk images as something to read in order, piece by piece: where data is, where zeros are.
//!
//! Raw files (holes as the file system knows them), qcow2, and raw images compressed by gzip, xz
//! or zstd. Images come from strangers: whatever a header asks for, no other file is opened, and
//! memory is bounded.

mod foreign;
mod qcow2;
mod store;
mod stream;

pub use store::{Stored, store};
pub use stream::{Compression, decompressed};

use crate::buffer::{Buffer, Pool};
use crate::error::{Error, Kind, Result};
use crate::keyed_hash::{HASH_BYTES, HashKey, Hasher};
use bytes::Bytes;
use qcow2::Qcow2;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Bytes that are read, hashed and sent as one. What is read ahead and under way is a few of them,
/// and should stay in the cache that a processor shares with others: 4 MiB are a tenth slower.
pub const PIECE_BYTES: u64 = PIECE as u64;
const PIECE: usize = 1 << 20;

/// What is kept is what one image on its way to one disk takes.
static BUFFERS: Pool = Pool::new(PIECE, 6);

/// Bytes that are read before they are hashed: both in the cache of one processor.
const PART_BYTES: usize = 128 << 10;

/// Largest disk that an image may claim: 64 TiB.
const MAX_VIRTUAL_BYTES: u64 = 64 << 40;

/// How an image is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// How the file is compressed as a whole.
    pub compression: Option<Compression>,
    /// Size of the disk it describes; a compressed stream tells it at its end only.
    pub virtual_bytes: Option<u64>,
    /// Size of the file.
    pub file_bytes: u64,
}

/// A piece of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Where it begins.
    pub offset: u64,
    /// Its length: [`PIECE_BYTES`] but for the last.
    pub length: u64,
    /// What it holds; `None` where all is zero.
    pub data: Option<Bytes>,
    /// [`HashKey::of_this_process`] of the bytes in hex; empty where all is zero.
    pub hash: String,
}

impl Piece {
    /// A piece that holds `data`, or zeros.
    #[must_use]
    pub fn new(offset: u64, length: u64, data: Option<Bytes>) -> Self {
        let data = data.filter(|bytes| !is_zero(bytes));
        let hash = data
            .as_deref()
            .map(|bytes| hex::encode(HashKey::of_this_process().hash(bytes)))
            .unwrap_or_default();
        Self {
            offset,
            length,
            data,
            hash,
        }
    }

    /// A piece that was read, and its hash unless all is zero.
    fn read(offset: u64, buffer: Buffer, hash: Option<[u8; HASH_BYTES]>) -> Self {
        Self {
            offset,
            length: u64::try_from(buffer.len()).unwrap_or(u64::MAX),
            data: hash.is_some().then(|| buffer.freeze()),
            hash: hash.map(hex::encode).unwrap_or_default(),
        }
    }
}

/// A range of the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Extent {
    length: u64,
    /// Whether it holds data; else it reads as zeros.
    data: bool,
}

/// Tells whether two open images are the same unchanged file: device, inode, time of the last
/// change, and how it is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    changed: (i64, i64),
    format: Format,
}

/// An open image. Pieces may be read many times, and by several readers.
#[derive(Debug)]
pub struct ImageSource {
    path: PathBuf,
    info: ImageInfo,
    identity: FileIdentity,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Raw(File),
    Qcow2(Qcow2),
    Stream,
}

impl ImageSource {
    /// Opens an image. Without a `format` the content decides, never the name; with one, an image
    /// of another format is refused, since a raw disk may begin with another format's header.
    ///
    /// # Errors
    /// `not_found`, `io`; `unsupported` for what this reader does not do; `corrupt` for a header
    /// that makes no sense; `refused` for an image that points at other files.
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self> {
        Self::look(path, format).map_err(|e| e.target(path.display().to_string()))
    }

    fn look(path: &Path, format: Option<Format>) -> Result<Self> {
        let failed = |e: std::io::Error| Error::io(path, "open the image", &e);
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Error::new(Kind::Invalid, "the image is not a regular file"));
        }
        let file_bytes = metadata.len();
        let mut head = vec![0; qcow2::HEADER_BYTES];
        let count = file.read_at(&mut head, 0).map_err(failed)?;
        head.truncate(count);
        if format.is_none() {
            foreign::refuse(&head)?;
        }
        let is_qcow2 = head.starts_with(qcow2::MAGIC);
        let compression = Compression::of(&head);
        let (content, found, virtual_bytes) = match (format, compression) {
            (Some(Format::Qcow2), _) if !is_qcow2 => {
                return Err(Error::new(Kind::Corrupt, "the image is not qcow2"));
            }
            (Some(Format::Qcow2) | None, _) if is_qcow2 => {
                let image = Qcow2::open(file, &head)?;
                let bytes = image.virtual_bytes();
                (Content::Qcow2(image), Format::Qcow2, Some(bytes))
            }
            (_, Some(_)) => (Content::Stream, Format::Raw, None),
            _ => (Content::Raw(file), Format::Raw, Some(file_bytes)),
        };
        if virtual_bytes == Some(0) {
            return Err(Error::new(Kind::Corrupt, "the image is empty"));
        }
        if let Some(bytes) = virtual_bytes.filter(|bytes| *bytes > MAX_VIRTUAL_BYTES) {
            let message = format!("the image claims a disk of {bytes} bytes");
            return Err(Error::new(Kind::Limit, message));
        }
        let image = Self {
            path: path.to_owned(),
            info: ImageInfo {
                format: found,
                compression: compression.filter(|_| matches!(content, Content::Stream)),
                virtual_bytes,
                file_bytes,
            },
            identity: FileIdentity {
                device: metadata.dev(),
                inode: metadata.ino(),
                changed: (metadata.ctime(), metadata.ctime_nsec()),
                format: found,
            },
            content,
        };
        image.check_inside(format)?;
        Ok(image)
    }

    /// What is compressed would pass for a raw disk.
    fn check_inside(&self, format: Option<Format>) -> Result<()> {
        if self.info.compression.is_none() {
            return Ok(());
        }
        let head = self.head(qcow2::HEADER_BYTES)?;
        if head.starts_with(qcow2::MAGIC) {
            let message = "a qcow2 image inside a compressed file cannot be streamed";
            return Err(Error::new(Kind::Unsupported, message)
                .hint("decompress it, or use qcow2's own compression"));
        }
        if format.is_none() {
            foreign::refuse(&head)?;
        }
        Ok(())
    }

    /// What is known of it.
    #[must_use]
    pub fn info(&self) -> &ImageInfo {
        &self.info
    }

    /// Whether it is the same file as another.
    #[must_use]
    pub fn identity(&self) -> FileIdentity {
        self.identity
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its first bytes, fewer if it is shorter.
    ///
    /// # Errors
    /// As [`Self::pieces`].
    pub fn head(&self, bytes: usize) -> Result<Vec<u8>> {
        let mut head = vec![0; bytes];
        let count = match self.info.virtual_bytes {
            Some(all) => {
                let count = usize::try_from(all).unwrap_or(usize::MAX).min(bytes);
                self.read_at(0, head.split_at_mut(count).0)?;
                count
            }
            None => fill(&mut self.decoder()?, &mut head).map_err(|e| self.damaged(0, &e))?,
        };
        head.truncate(count);
        Ok(head)
    }

    /// Reads the image in order. Blocks.
    ///
    /// # Errors
    /// `io` if the file is gone; items: `corrupt` if the image cannot be read or decompressed.
    pub fn pieces(&self) -> Result<Pieces<'_>> {
        let stream = match self.content {
            Content::Stream => Some(self.decoder()?),
            _ => None,
        };
        Ok(Pieces {
            image: self,
            stream,
            offset: 0,
            ended: false,
        })
    }

    fn decoder(&self) -> Result<Box<dyn Read + Send>> {
        let file =
            File::open(&self.path).map_err(|e| Error::io(&self.path, "open the image", &e))?;
        Ok(decompressed(file)?.1)
    }

    fn piece_at(&self, offset: u64, length: u64) -> Result<Piece> {
        let mut at = 0;
        while at < length {
            let extent = self.extent_at(offset + at, length - at)?;
            if extent.data {
                let (mut buffer, mut place) = (BUFFERS.take(length), offset);
                let hash = read_hashed(&mut buffer, self.part_bytes(), |part| {
                    self.read_at(place, part)?;
                    place += u64::try_from(part.len()).unwrap_or(u64::MAX);
                    Ok(part.len())
                })?;
                return Ok(Piece::read(offset, buffer, hash));
            }
            at += extent.length;
        }
        Ok(Piece::new(offset, length, None))
    }

    /// What is best read at a time: a compressed cluster is unpacked whole.
    fn part_bytes(&self) -> usize {
        match &self.content {
            Content::Qcow2(image) => {
                let cluster = usize::try_from(image.cluster_bytes()).unwrap_or(usize::MAX);
                PART_BYTES.max(cluster)
            }
            Content::Raw(_) | Content::Stream => PART_BYTES,
        }
    }

    /// The extent that begins at `offset`, at most `left` long. What cannot be told apart counts
    /// as data.
    fn extent_at(&self, offset: u64, left: u64) -> Result<Extent> {
        let (length, data) = match &self.content {
            Content::Raw(file) => raw_extent(file, offset, left),
            Content::Qcow2(image) => image.extent(offset, left).map_err(|e| self.named(e))?,
            Content::Stream => (left, true),
        };
        Ok(Extent {
            length: length.clamp(1, left),
            data,
        })
    }

    /// Fills `buffer` from `offset`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        match &self.content {
            Content::Raw(file) => file
                .read_exact_at(buffer, offset)
                .map_err(|e| self.damaged(offset, &e)),
            Content::Qcow2(image) => image.read(offset, buffer).map_err(|e| self.named(e)),
            Content::Stream => Err(Error::new(Kind::Internal, "a stream is read in order")),
        }
    }

    fn named(&self, error: Error) -> Error {
        error.target(self.path.display().to_string())
    }

    fn damaged(&self, offset: u64, error: &std::io::Error) -> Error {
        let message = format!("the image cannot be read at byte {offset}");
        self.named(Error::new(Kind::Corrupt, message).caused_by(error))
    }
}

/// The pieces of an image in order.
pub struct Pieces<'a> {
    image: &'a ImageSource,
    stream: Option<Box<dyn Read + Send>>,
    offset: u64,
    ended: bool,
}

impl std::fmt::Debug for Pieces<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pieces")
            .field("offset", &self.offset)
            .finish_non_exhaustive()
    }
}

impl Pieces<'_> {
    fn read(&mut self) -> Result<Option<Piece>> {
        let Some(stream) = &mut self.stream else {
            let all = self.image.info.virtual_bytes.unwrap_or(0);
            let length = all.saturating_sub(self.offset).min(PIECE_BYTES);
            if length == 0 {
                return Ok(None);
            }
            return self.image.piece_at(self.offset, length).map(Some);
        };
        let mut buffer = BUFFERS.take(PIECE_BYTES);
        let hash = read_hashed(&mut buffer, PART_BYTES, |part| {
            fill(stream, part).map_err(|e| self.image.damaged(self.offset, &e))
        })?;
        if self.offset > MAX_VIRTUAL_BYTES {
            let message = "the image decompresses to more than 64 TiB";
            return Err(self.image.named(Error::new(Kind::Limit, message)));
        }
        let piece = Piece::read(self.offset, buffer, hash);
        Ok(Some(piece).filter(|piece| piece.length > 0))
    }
}

impl Iterator for Pieces<'_> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let piece = self.read();
        match &piece {
            Ok(Some(piece)) => self.offset += piece.length,
            Ok(None) | Err(_) => self.ended = true,
        }
        piece.transpose()
    }
}

/// Fills the buffer part by part, each hashed while it is still in the processor's cache; a part
/// that stays short is the last one. `None` if all is zero.
fn read_hashed(
    buffer: &mut Buffer,
    part_bytes: usize,
    mut read: impl FnMut(&mut [u8]) -> Result<usize>,
) -> Result<Option<[u8; HASH_BYTES]>> {
    let mut hasher: Option<Hasher> = None;
    let mut done = 0;
    while done < buffer.len() {
        let end = buffer.len().min(done + part_bytes);
        let wanted = end - done;
        let count = read(buffer.get_mut(done..end).unwrap_or_default())?;
        let before = done;
        done += count;
        let part = buffer.get(before..done).unwrap_or_default();
        match &mut hasher {
            Some(hasher) => hasher.update(part),
            None if is_zero(part) => {}
            // The zeros before it count too.
            None => {
                let mut first = HashKey::of_this_process().hasher();
                first.update(buffer.get(..done).unwrap_or_default());
                hasher = Some(first);
            }
        }
        if count < wanted {
            buffer.truncate(done);
        }
    }
    Ok(hasher.map(Hasher::finish))
}

/// Whether all bytes are zero; as fast as memory.
#[must_use]
pub fn is_zero(bytes: &[u8]) -> bool {
    // A slice that equals itself shifted by one holds one value only; comparing is memcmp.
    bytes.first().is_none_or(|first| *first == 0)
        && bytes.get(1..) == bytes.get(..bytes.len().saturating_sub(1))
        || bytes.is_empty()
}

/// Reads until the buffer is full or the stream ends.
fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut filled = 0;
    while let Some(free) = buffer.get_mut(filled..).filter(|free| !free.is_empty()) {
        match stream.read(free) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// Length of what begins at `offset`, and whether there is data, as the file system knows it.
/// Where data ends is not asked: tmpfs looks at every page up to there, for each piece again.
fn raw_extent(file: &File, offset: u64, left: u64) -> (u64, bool) {
    use rustix::fs::{SeekFrom, seek};
    match seek(file, SeekFrom::Data(offset)) {
        Ok(data) if data > offset => (data - offset, false),
        // ENXIO: no data from here to the end.
        Err(rustix::io::Errno::NXIO) => (left, false),
        // Data, or a file system that does not tell.
        Ok(_) | Err(_) => (left, true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    #[test]
    fn zeros_are_recognised() {
        for length in [0, 1, 2, 511] {
            assert!(is_zero(&vec![0; length]));
            assert!(length == 0 || !is_zero(&vec![7; length]));
        }
        assert!(!is_zero(&[0, 0, 1]) && !is_zero(&[1, 0, 0]));
    }

    #[test]
    fn garbage_after_a_compression_header_is_an_error() {
        for head in [
            &[0x1f, 0x8b, 8][..],
            b"\xfd7zXZ\0",
            &[0x28, 0xb5, 0x2f, 0xfd],
        ] {
            let error = open_bytes(&[head, &[0xEE; 300]].concat()).unwrap_err();
            assert_eq!(error.kind(), Kind::Corrupt, "{error}");
        }
    }

    #[test]
    fn a_small_stream_of_much_is_read_in_bounded_pieces() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        for _ in 0..40 {
            packed.write_all(&[0; 1 << 20]).unwrap();
        }
        packed.write_all(b"end").unwrap();
        let image = {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&packed.finish().unwrap()).unwrap();
            let image = ImageSource::open(file.path(), None).unwrap();
            assert_eq!(image.info().compression, Some(Compression::Gz));
            let pieces: Vec<_> = image.pieces().unwrap().map(Result::unwrap).collect();
            assert!(pieces.iter().all(|piece| piece.length <= PIECE_BYTES));
            pieces
        };
        assert_eq!(image.iter().map(|p| p.length).sum::<u64>(), (40 << 20) + 3);
        assert_eq!(image.iter().filter(|piece| piece.data.is_some()).count(), 1);
    }

    fn open_bytes(bytes: &[u8]) -> Result<ImageSource> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        ImageSource::open(file.path(), None)
    }

    #[test]
    fn raw_holes_are_seen() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(2 * PIECE_BYTES).unwrap();
        file.as_file()
            .write_all_at(&[7; 4096], PIECE_BYTES)
            .unwrap();
        let image = ImageSource::open(file.path(), None).unwrap();
        let pieces: Vec<_> = image.pieces().unwrap().map(Result::unwrap).collect();
        assert_eq!(pieces.len(), 2);
        assert_eq!(pieces[0].data, None);
        let data = pieces[1].data.as_ref().unwrap();
        assert_eq!((data[4095], data[4096], data.len()), (7, 0, PIECE));
        assert_eq!(image.head(3).unwrap(), [0; 3]);
    }

    #[test]
    fn a_header_cannot_make_us_open_another_file() {
        let mut head = vec![0_u8; 512];
        head[..4].copy_from_slice(qcow2::MAGIC);
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
            bytes[..4].copy_from_slice(qcow2::MAGIC);
            bytes[4..8].copy_from_slice(&3_u32.to_be_bytes());
            bytes[8..16].fill(0);
            bytes[32..36].fill(0);
            // A cluster size and tables that a check on the header alone would let pass.
            bytes[20..24].copy_from_slice(&9_u32.to_be_bytes());
            bytes[24..36].fill(0);
            bytes[30] = 4;
            bytes[36..48].fill(0);
            bytes[39] = 1;
            bytes[47] = 112;
            bytes[72..80].fill(0);
            if let Ok(image) = open_bytes(&bytes) {
                for piece in image.pieces().unwrap() {
                    let _ = piece;
                }
            }
        }
    }
}
