//! What a FAT volume is built on: its tables in memory, its clusters in a file.
//!
//! The library looks at the tables for each cluster that it writes, a few bytes at a time.

use super::source::is_zero;
use std::io::{Error, ErrorKind, Read, Result, Seek, SeekFrom, Write};

/// A volume in the making.
pub(super) struct Disk<T> {
    /// The first bytes of the volume.
    head: Vec<u8>,
    rest: T,
    bytes: u64,
    position: u64,
    /// Nothing is written in the rest from here on.
    untouched: u64,
}

impl<T: Read + Write + Seek> Disk<T> {
    /// A volume of zeros in `rest`, which is empty. The first `head` bytes are kept in memory.
    pub(super) fn new(mut rest: T, bytes: u64, head: u64) -> Result<Self> {
        rest.seek(SeekFrom::Start(bytes.saturating_sub(1)))?;
        rest.write_all(&[0])?;
        let head = usize::try_from(head).map_err(|_| ErrorKind::OutOfMemory)?;
        Ok(Self {
            head: vec![0; head],
            rest,
            bytes,
            position: 0,
            untouched: 0,
        })
    }

    /// Writes what is in memory.
    pub(super) fn finish(mut self) -> Result<()> {
        self.rest.seek(SeekFrom::Start(0))?;
        self.rest.write_all(&self.head)?;
        self.rest.flush()
    }

    /// What of the head lies at the position.
    fn in_memory(&mut self) -> Option<&mut [u8]> {
        let at = usize::try_from(self.position).ok()?;
        self.head.get_mut(at..).filter(|part| !part.is_empty())
    }

    /// Writes clusters; zeros where nothing is yet are left out.
    fn write_on_disk(&mut self, buffer: &[u8]) -> Result<usize> {
        if self.position >= self.untouched && is_zero(buffer) {
            return Ok(buffer.len());
        }
        let count = self.on_disk()?.write(buffer)?;
        let end = self.position + u64::try_from(count).unwrap_or(u64::MAX);
        self.untouched = self.untouched.max(end);
        Ok(count)
    }

    /// The rest of the volume, at the position.
    fn on_disk(&mut self) -> Result<&mut T> {
        self.rest.seek(SeekFrom::Start(self.position))?;
        Ok(&mut self.rest)
    }

    fn advance(&mut self, count: usize) -> usize {
        self.position += u64::try_from(count).unwrap_or(u64::MAX);
        count
    }
}

impl<T: Read + Write + Seek> Read for Disk<T> {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = match self.in_memory() {
            Some(part) => Read::read(&mut &*part, buffer)?,
            None => self.on_disk()?.read(buffer)?,
        };
        Ok(self.advance(count))
    }
}

impl<T: Read + Write + Seek> Write for Disk<T> {
    fn write(&mut self, buffer: &[u8]) -> Result<usize> {
        let left = usize::try_from(self.bytes.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let buffer = buffer.get(..left).unwrap_or(buffer);
        let count = match self.in_memory() {
            Some(mut part) => part.write(buffer)?,
            None => self.write_on_disk(buffer)?,
        };
        Ok(self.advance(count))
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl<T: Read + Write + Seek> Seek for Disk<T> {
    fn seek(&mut self, to: SeekFrom) -> Result<u64> {
        let (base, offset) = match to {
            SeekFrom::Start(at) => (at, 0),
            SeekFrom::Current(offset) => (self.position, offset),
            SeekFrom::End(offset) => (self.bytes, offset),
        };
        let at = base.checked_add_signed(offset);
        self.position = at.ok_or_else(|| Error::from(ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
