//! Reads qcow2 images, version 2 and 3, with zlib and zstd clusters.
//! Source: QEMU docs/interop/qcow2.rst.
//!
//! Images come from strangers: no other file is opened whatever the header asks for, every table
//! lies inside the file, and what is held in memory is bounded by the first-level table.

use crate::error::{Error, Kind, Result};
use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

pub(super) const MAGIC: &[u8; 4] = b"QFI\xfb";
pub(super) const HEADER_BYTES: usize = 112;

/// QEMU's own bound on the first-level table.
const MAX_L1_BYTES: u64 = 32 << 20;
/// Bits 9 to 55 of a table entry: an offset in the file.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;

// Incompatible features.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const EXTERNAL_DATA: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const EXTENDED_L2: u64 = 1 << 4;

#[derive(Debug)]
pub(super) struct Qcow2 {
    file: File,
    file_bytes: u64,
    cluster_bits: u32,
    is_zstd: bool,
    has_zero_flag: bool,
    virtual_bytes: u64,
    l1: Vec<u64>,
    /// The second-level table used last, by its offset: reading in order needs one at a time.
    l2: Mutex<Option<(u64, Arc<Vec<u64>>)>>,
}

/// Where a cluster's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cluster {
    Zero,
    Stored { offset: u64 },
    Compressed { offset: u64, bytes: u64 },
}

impl Qcow2 {
    /// Opens an image whose first [`HEADER_BYTES`] are `head`.
    pub(super) fn open(file: File, head: &[u8]) -> Result<Self> {
        let incompatible = check_header(head)?;
        let file_bytes = file.metadata().map_err(|_| damaged())?.len();
        let cluster_bits = be32(head, 20);
        let virtual_bytes = be64(head, 24);
        if !(9..=21).contains(&cluster_bits) {
            return Err(damaged());
        }
        let mut image = Self {
            file,
            file_bytes,
            cluster_bits,
            is_zstd: incompatible & COMPRESSION != 0 && head.get(104) == Some(&1),
            has_zero_flag: be32(head, 4) >= 3,
            virtual_bytes,
            l1: Vec::new(),
            l2: Mutex::default(),
        };
        image.l1 = image.read_l1(be64(head, 40), be32(head, 36))?;
        Ok(image)
    }

    pub(super) fn virtual_bytes(&self) -> u64 {
        self.virtual_bytes
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of a second-level table, which is one cluster.
    fn l2_entries(&self) -> u64 {
        self.cluster_bytes() / 8
    }

    /// Reads the first-level table and checks that every second-level table lies in the file and
    /// none is used twice: a small file could describe endless data then.
    fn read_l1(&self, offset: u64, entries: u32) -> Result<Vec<u64>> {
        let needed = self
            .virtual_bytes
            .div_ceil(self.cluster_bytes() * self.l2_entries());
        let bytes = u64::from(entries) * 8;
        if bytes > MAX_L1_BYTES || u64::from(entries) < needed {
            return Err(damaged());
        }
        let table = self.read_table(offset, bytes)?;
        let mut tables: Vec<u64> = table
            .iter()
            .map(|e| e & OFFSET)
            .filter(|o| *o != 0)
            .collect();
        tables.sort_unstable();
        let inside = |at: &u64| {
            at.is_multiple_of(self.cluster_bytes())
                && at.saturating_add(self.cluster_bytes()) <= self.file_bytes
        };
        if !tables.iter().all(inside) || tables.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(damaged());
        }
        Ok(table)
    }

    fn read_table(&self, offset: u64, bytes: u64) -> Result<Vec<u64>> {
        if offset.saturating_add(bytes) > self.file_bytes {
            return Err(damaged());
        }
        let mut raw = vec![0; usize::try_from(bytes).map_err(|_| damaged())?];
        self.file
            .read_exact_at(&mut raw, offset)
            .map_err(|_| damaged())?;
        Ok(raw.chunks_exact(8).map(|entry| be64(entry, 0)).collect())
    }

    fn l2_table(&self, offset: u64) -> Result<Arc<Vec<u64>>> {
        let mut cached = self.l2.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, table)) = &*cached
            && *at == offset
        {
            return Ok(table.clone());
        }
        let table = Arc::new(self.read_table(offset, self.cluster_bytes())?);
        *cached = Some((offset, table.clone()));
        Ok(table)
    }

    fn cluster_at(&self, offset: u64) -> Result<Cluster> {
        let index = offset >> self.cluster_bits;
        let entry_of = |table: &[u64], index: u64| {
            let index = usize::try_from(index).unwrap_or(usize::MAX);
            table.get(index).copied().ok_or_else(damaged)
        };
        let l1 = entry_of(&self.l1, index / self.l2_entries())? & OFFSET;
        if l1 == 0 {
            return Ok(Cluster::Zero);
        }
        let entry = entry_of(&self.l2_table(l1)?, index % self.l2_entries())?;
        if entry & (1 << 62) != 0 {
            return self.compressed(entry);
        }
        let at = entry & OFFSET;
        if at == 0 || (self.has_zero_flag && entry & 1 != 0) {
            return Ok(Cluster::Zero);
        }
        if !at.is_multiple_of(self.cluster_bytes()) || at >= self.file_bytes {
            return Err(damaged());
        }
        Ok(Cluster::Stored { offset: at })
    }

    /// Low bits: offset in the file; then how many 512-byte sectors follow the first.
    fn compressed(&self, entry: u64) -> Result<Cluster> {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let offset = entry & ((1 << offset_bits) - 1);
        let sectors = ((entry & !(3 << 62)) >> offset_bits) + 1;
        let bytes = (sectors * 512).saturating_sub(offset & 511);
        // The last sector of the file may be short.
        let bytes = bytes.min(self.file_bytes.saturating_sub(offset));
        if bytes == 0 {
            return Err(damaged());
        }
        Ok(Cluster::Compressed { offset, bytes })
    }

    /// Length of what begins at `offset` and is alike, at most `left`, and whether it holds data.
    pub(super) fn extent(&self, offset: u64, left: u64) -> Result<(u64, bool)> {
        let data = self.cluster_at(offset)? != Cluster::Zero;
        let mut length = self.cluster_bytes() - offset % self.cluster_bytes();
        // Long enough for the caller to gain, short enough not to walk a large image at once.
        let enough = left.min(self.cluster_bytes() * self.l2_entries());
        while length < enough && (self.cluster_at(offset + length)? != Cluster::Zero) == data {
            length += self.cluster_bytes();
        }
        Ok((length.min(left), data))
    }

    /// Fills `buffer`, which lies inside the disk.
    pub(super) fn read(&self, mut offset: u64, mut buffer: &mut [u8]) -> Result<()> {
        while !buffer.is_empty() {
            let inside = offset % self.cluster_bytes();
            let length = usize::try_from(self.cluster_bytes() - inside).map_err(|_| damaged())?;
            let length = length.min(buffer.len());
            let (part, rest) = buffer.split_at_mut(length);
            match self.cluster_at(offset)? {
                Cluster::Zero => part.fill(0),
                Cluster::Stored { offset: at } => self.read_stored(at + inside, part)?,
                Cluster::Compressed { offset: at, bytes } => {
                    self.read_compressed(at, bytes, inside, part)?;
                }
            }
            offset += u64::try_from(length).unwrap_or(u64::MAX);
            buffer = rest;
        }
        Ok(())
    }

    /// Only the last cluster of a file may be short; what it lacks reads as zeros, as in QEMU. In
    /// an image that was cut, zeros must not pass for data.
    fn read_stored(&self, at: u64, part: &mut [u8]) -> Result<()> {
        let cluster = at - at % self.cluster_bytes();
        let there = usize::try_from(self.file_bytes.saturating_sub(at)).unwrap_or(usize::MAX);
        let (there, beyond) = part.split_at_mut(there.min(part.len()));
        if cluster >= self.file_bytes {
            return Err(damaged());
        }
        beyond.fill(0);
        self.file
            .read_exact_at(there, at)
            .map_err(|e| damaged().caused_by(&e))
    }

    fn read_compressed(&self, at: u64, bytes: u64, skip: u64, part: &mut [u8]) -> Result<()> {
        let whole = usize::try_from(self.cluster_bytes()).map_err(|_| damaged())?;
        let bytes = usize::try_from(bytes).map_err(|_| damaged())?;
        UNPACKER.with_borrow_mut(|unpacker| {
            unpacker.packed.resize(bytes, 0);
            self.file
                .read_exact_at(&mut unpacker.packed, at)
                .map_err(|e| damaged().caused_by(&e))?;
            if part.len() == whole {
                return unpacker.unpack(self.is_zstd, part);
            }
            let mut cluster = vec![0; whole];
            unpacker.unpack(self.is_zstd, &mut cluster)?;
            let skip = usize::try_from(skip).map_err(|_| damaged())?;
            part.copy_from_slice(cluster.get(skip..skip + part.len()).ok_or_else(damaged)?);
            Ok(())
        })
    }
}

thread_local! {
    static UNPACKER: RefCell<Unpacker> = RefCell::new(Unpacker {
        packed: Vec::new(),
        deflate: libdeflater::Decompressor::new(),
        zstd: None,
    });
}

/// What unpacking takes besides the cluster: making it anew for each one costs as much as the work.
struct Unpacker {
    packed: Vec<u8>,
    deflate: libdeflater::Decompressor,
    zstd: Option<zstd::bulk::Decompressor<'static>>,
}

impl Unpacker {
    /// `packed` may go on after the compressed data: its length is told in sectors.
    fn unpack(&mut self, is_zstd: bool, cluster: &mut [u8]) -> Result<()> {
        let bad = |e: &dyn std::fmt::Display| damaged().cause(e.to_string());
        let count = if is_zstd {
            let frame = zstd::zstd_safe::find_frame_compressed_size(&self.packed)
                .map_err(|code| bad(&zstd::zstd_safe::get_error_name(code)))?;
            let frame = self.packed.get(..frame).ok_or_else(damaged)?;
            let zstd = match &mut self.zstd {
                Some(zstd) => zstd,
                none => none.insert(zstd::bulk::Decompressor::new().map_err(|e| bad(&e))?),
            };
            zstd.decompress_to_buffer(frame, cluster)
                .map_err(|e: io::Error| bad(&e))?
        } else {
            self.deflate
                .deflate_decompress(&self.packed, cluster)
                .map_err(|e| bad(&e))?
        };
        if count == cluster.len() {
            Ok(())
        } else {
            Err(damaged().cause("a compressed cluster is too short"))
        }
    }
}

fn damaged() -> Error {
    Error::new(
        Kind::Corrupt,
        "the image is cut short or its tables are damaged",
    )
    .hint("`qemu-img check` tells more; fetch the image again")
}

/// Names what is not read, and returns the incompatible features.
fn check_header(head: &[u8]) -> Result<u64> {
    let convert = "`qemu-img convert -O qcow2` makes an image that stands alone";
    let unsupported =
        |what: String| Error::new(Kind::Unsupported, format!("{what} are not read")).hint(convert);
    let refused = |why: &str| Error::new(Kind::Refused, why).hint(convert);
    let version = be32(head, 4);
    if head.len() < 72 || !(2..=3).contains(&version) {
        return Err(unsupported(format!("qcow2 images of version {version}")));
    }
    if be64(head, 8) != 0 {
        return Err(refused("the image has a backing file; none is opened"));
    }
    if be32(head, 32) != 0 {
        return Err(unsupported("encrypted images".to_owned()));
    }
    let incompatible = if version >= 3 { be64(head, 72) } else { 0 };
    if incompatible & EXTERNAL_DATA != 0 {
        return Err(refused(
            "the image keeps its data in another file; none is opened",
        ));
    }
    if incompatible & CORRUPT != 0 {
        return Err(damaged());
    }
    if incompatible & EXTENDED_L2 != 0 {
        return Err(unsupported("images with subclusters".to_owned()));
    }
    let unknown = incompatible & !(DIRTY | COMPRESSION);
    if unknown != 0 || (incompatible & COMPRESSION != 0 && head.get(104).is_none_or(|k| *k > 1)) {
        return Err(unsupported(
            "images with features from the future".to_owned(),
        ));
    }
    Ok(incompatible)
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
