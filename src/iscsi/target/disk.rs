//! What a target serves: blocks behind a trait, and a sparse file that has them.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A disk. Its methods block; they are called from several threads at a time, with ranges that
/// lie on the disk.
pub trait BlockDevice: Send + Sync {
    /// Length of a block in bytes: a power of two from 512 to 65536.
    fn block_bytes(&self) -> u32;
    /// How many blocks there are.
    fn blocks(&self) -> u64;
    /// Fills `buffer`, which is whole blocks, from `lba` on.
    ///
    /// # Errors
    /// If the medium fails.
    fn read_at(&self, lba: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Writes `data`, which is whole blocks, from `lba` on.
    ///
    /// # Errors
    /// If the medium fails; [`io::ErrorKind::StorageFull`] if it has no space left.
    fn write_at(&self, lba: u64, data: &[u8]) -> io::Result<()>;
    /// Makes blocks read back as zeros.
    ///
    /// # Errors
    /// As [`Self::write_at`].
    fn zero(&self, lba: u64, blocks: u64) -> io::Result<()>;
    /// Gives blocks up that are kept in memory, as far as they are durable: what is read next is
    /// on the medium.
    fn forget(&self, _lba: u64, _blocks: u64) {}
    /// Makes everything written before durable.
    ///
    /// # Errors
    /// If the medium fails.
    fn flush(&self) -> io::Result<()>;
}

/// A disk in a sparse file, or a real one behind a device file. Zeroed blocks become holes where
/// the file system can make them.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    /// A real disk once more, past the page cache.
    direct: Option<File>,
    block_bytes: u32,
    blocks: u64,
}

/// Zeros written at a time where holes cannot be made.
static ZEROS: [u8; 256 * 1024] = [0; 256 * 1024];

impl FileDisk {
    /// Makes a disk of `bytes` bytes, all zero and taking no space yet, in blocks of 512.
    ///
    /// # Errors
    /// If there is such a file already, or it cannot be made.
    pub fn create(path: &Path, bytes: u64) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path)?;
        file.set_len(bytes)?;
        Self::new(file, 512)
    }

    /// Opens a disk in blocks of 512.
    ///
    /// # Errors
    /// If it cannot be opened for reading and writing.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        Self::new(file, 512)
    }

    /// Opens a real disk by its device file, in blocks of its own length. What is written from
    /// aligned memory goes to it past the page cache, where it would be copied once more, and
    /// fill the memory.
    ///
    /// # Errors
    /// If it cannot be opened for reading and writing, or is no disk.
    #[cfg(target_os = "linux")]
    pub fn open_device(path: &Path) -> io::Result<Self> {
        use rustix::fs::{Mode, OFlags, ioctl_blksszget, open};
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let block_bytes = ioctl_blksszget(&file)?;
        let flags = OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC;
        // Without, it is only slower.
        let direct = open(path, flags, Mode::empty()).ok().map(File::from);
        Ok(Self {
            direct,
            ..Self::new(file, block_bytes)?
        })
    }

    /// Takes an open file or device with this block length; what is left over at its end is not
    /// part of the disk.
    ///
    /// # Errors
    /// If its length cannot be found out, or the block length is not a power of two from 512 on.
    pub fn new(mut file: File, block_bytes: u32) -> io::Result<Self> {
        if !block_bytes.is_power_of_two() || !(512..=65_536).contains(&block_bytes) {
            let text = format!("blocks of {block_bytes} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        // The metadata of a device file has no length; its end has.
        let bytes = file.seek(SeekFrom::End(0))?;
        let blocks = bytes / u64::from(block_bytes);
        Ok(Self {
            file,
            direct: None,
            block_bytes,
            blocks,
        })
    }

    fn offset(&self, lba: u64) -> u64 {
        lba * u64::from(self.block_bytes)
    }
}

impl BlockDevice for FileDisk {
    fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    fn blocks(&self) -> u64 {
        self.blocks
    }

    fn read_at(&self, lba: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buffer, self.offset(lba))
    }

    /// The kernel keeps the page cache true to what is written past it.
    fn write_at(&self, lba: u64, data: &[u8]) -> io::Result<()> {
        let direct = self.direct.as_ref().filter(|_| is_aligned(data));
        direct
            .unwrap_or(&self.file)
            .write_all_at(data, self.offset(lba))
    }

    fn zero(&self, lba: u64, blocks: u64) -> io::Result<()> {
        let (mut offset, mut left) = (self.offset(lba), self.offset(blocks));
        if left == 0 || punch_hole(&self.file, offset, left).is_ok() {
            return Ok(());
        }
        while left > 0 {
            let length = usize::try_from(left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()));
            self.file
                .write_all_at(ZEROS.get(..length).unwrap_or(&ZEROS), offset)?;
            offset += length as u64;
            left -= length as u64;
        }
        Ok(())
    }

    fn forget(&self, lba: u64, blocks: u64) {
        drop_cached(&self.file, self.offset(lba), self.offset(blocks));
    }

    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// Memory as every controller takes it: where pages begin.
const ALIGNMENT: usize = 4096;

fn is_aligned(data: &[u8]) -> bool {
    data.as_ptr().align_offset(ALIGNMENT) == 0
}

/// Takes clean pages out of the page cache; it is the kernel's to follow.
#[cfg(target_os = "linux")]
fn drop_cached(file: &File, offset: u64, length: u64) {
    use rustix::fs::{Advice, fadvise};
    let length = std::num::NonZeroU64::new(length);
    _ = fadvise(file, offset, length, Advice::DontNeed);
}

#[cfg(not(target_os = "linux"))]
fn drop_cached(_: &File, _: u64, _: u64) {}

/// Gives a range back to the file system; it reads as zeros then.
#[cfg(target_os = "linux")]
fn punch_hole(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(fallocate(file, flags, offset, length)?)
}

#[cfg(not(target_os = "linux"))]
fn punch_hole(_: &File, _: u64, _: u64) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeroed_blocks_read_as_zeros_and_give_their_space_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("disk");
        let disk = FileDisk::create(&path, 8 << 20).unwrap();
        assert_eq!(disk.blocks(), 16_384);
        disk.write_at(0, &vec![0xaa; 8 << 20]).unwrap();
        disk.flush().unwrap();
        let full = std::fs::metadata(&path).unwrap().blocks();
        disk.zero(8, 16_384 - 16).unwrap();
        let mut all = vec![1; 8 << 20];
        disk.read_at(0, &mut all).unwrap();
        assert!(all[..4096].iter().all(|byte| *byte == 0xaa));
        assert!(all[4096..(8 << 20) - 4096].iter().all(|byte| *byte == 0));
        assert!(all[(8 << 20) - 4096..].iter().all(|byte| *byte == 0xaa));
        assert!(std::fs::metadata(&path).unwrap().blocks() < full / 2);
        assert!(FileDisk::create(&path, 1).is_err());
    }
}
