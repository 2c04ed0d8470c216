//! Reads the root directory of a FAT12 or FAT16 volume that is held in memory.
//!
//! Source: Microsoft FAT specification, version 1.03. The `fatfs` crate, which writes our
//! floppies, panics on a damaged volume, and this one comes from a peer.

/// Entries of a directory.
const ENTRY_BYTES: usize = 32;
/// Attributes of the entry that holds the volume's label.
const ATTR_VOLUME_ID: u8 = 0x08;
const ATTR_DIRECTORY: u8 = 0x10;
/// Attributes of an entry that holds a part of a long name.
const ATTR_LONG_NAME: u8 = 0x0F;
const ENTRY_FREE: u8 = 0xE5;
const LAST_LONG_ENTRY: u8 = 0x40;
/// Where the characters of a long name are in its entry.
const LONG_NAME_UNITS: [usize; 13] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// Clusters below these counts are FAT12, FAT16.
const FAT12_CLUSTERS: usize = 4085;
const FAT16_CLUSTERS: usize = 65525;

/// A volume, and where its parts are.
#[derive(Debug)]
pub(super) struct Volume<'a> {
    fat: &'a [u8],
    root: &'a [u8],
    data: &'a [u8],
    is_fat12: bool,
    cluster_bytes: usize,
    boot_label: Option<&'a [u8]>,
}

/// A file of the root directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct File {
    /// Its long name, or the short one.
    pub(super) name: String,
    first_cluster: usize,
    size_bytes: usize,
}

impl<'a> Volume<'a> {
    /// Finds the parts of the volume; the error says what is wrong with it.
    pub(super) fn open(image: &'a [u8]) -> Result<Self, &'static str> {
        if image.get(510..512) != Some(&[0x55, 0xAA]) {
            return Err("no boot sector signature");
        }
        let field = |offset: usize| le16(image, offset).ok_or("no boot sector");
        let sector_bytes = field(11)?;
        if !matches!(sector_bytes, 512 | 1024 | 2048 | 4096) {
            return Err("impossible sector size");
        }
        let cluster_sectors = usize::from(*image.get(13).ok_or("no boot sector")?);
        if !cluster_sectors.is_power_of_two() {
            return Err("impossible cluster size");
        }
        let fats = usize::from(*image.get(16).ok_or("no boot sector")?);
        let (reserved, root_entries, fat_sectors) = (field(14)?, field(17)?, field(22)?);
        if fat_sectors == 0 {
            return Err("neither FAT12 nor FAT16");
        }
        let sectors = match field(19)? {
            0 => le32(image, 32).ok_or("no boot sector")?,
            sectors => sectors,
        };
        if reserved == 0 || fats == 0 || root_entries == 0 {
            return Err("no FAT or no root directory");
        }
        let root_sectors = (root_entries * ENTRY_BYTES).div_ceil(sector_bytes);
        let root_start = reserved + fats * fat_sectors;
        let data_start = root_start + root_sectors;
        let clusters = sectors.checked_sub(data_start).ok_or("no data area")? / cluster_sectors;
        if clusters >= FAT16_CLUSTERS {
            return Err("neither FAT12 nor FAT16");
        }
        let part = |start: usize, length: usize| {
            let from = start * sector_bytes;
            image.get(from..from + length * sector_bytes)
        };
        let short = "shorter than its boot sector says";
        let labelled = image.get(38) == Some(&0x29);
        Ok(Self {
            fat: part(reserved, fat_sectors).ok_or(short)?,
            root: part(root_start, root_sectors).ok_or(short)?,
            data: part(data_start, clusters * cluster_sectors).ok_or(short)?,
            is_fat12: clusters < FAT12_CLUSTERS,
            cluster_bytes: cluster_sectors * sector_bytes,
            boot_label: image.get(43..54).filter(|_| labelled),
        })
    }

    /// The label in the root directory, else the one in the boot sector.
    pub(super) fn label(&self) -> String {
        let entries = self.entries();
        let entry = entries
            .into_iter()
            .find(|entry| attributes(entry) & 0x3F == ATTR_VOLUME_ID);
        let label = entry
            .and_then(|entry| entry.get(..11))
            .or(self.boot_label)
            .unwrap_or_default();
        String::from_utf8_lossy(label).trim_end().to_owned()
    }

    /// The files of the root directory.
    pub(super) fn files(&self) -> Vec<File> {
        let mut files = Vec::new();
        let mut long = LongName::default();
        for entry in self.entries() {
            let attributes = attributes(entry);
            if attributes & 0x3F == ATTR_LONG_NAME {
                long.add(entry);
                continue;
            }
            let name = std::mem::take(&mut long).finish(entry);
            if attributes & (ATTR_VOLUME_ID | ATTR_DIRECTORY) != 0 {
                continue;
            }
            files.push(File {
                name: name.unwrap_or_else(|| short_name(entry)),
                first_cluster: le16(entry, 26).unwrap_or_default(),
                size_bytes: le32(entry, 28).unwrap_or_default(),
            });
        }
        files
    }

    /// The contents of a file of at most `limit` bytes.
    pub(super) fn read(&self, file: &File, limit: usize) -> Result<Vec<u8>, &'static str> {
        if file.size_bytes > limit {
            return Err("too long");
        }
        let mut contents = Vec::new();
        let mut cluster = file.first_cluster;
        // A chain is as long as the size says: a circle in it cannot hold us.
        while contents.len() < file.size_bytes {
            let index = cluster
                .checked_sub(2)
                .ok_or("its cluster chain is broken")?;
            let start = index * self.cluster_bytes;
            let bytes = self.data.get(start..start + self.cluster_bytes);
            contents.extend_from_slice(bytes.ok_or("its cluster chain is broken")?);
            cluster = self.next(cluster).ok_or("its cluster chain is broken")?;
        }
        contents.truncate(file.size_bytes);
        Ok(contents)
    }

    /// The entries in use.
    fn entries(&self) -> Vec<&'a [u8]> {
        let entries = self.root.chunks_exact(ENTRY_BYTES);
        entries
            .take_while(|entry| entry.first() != Some(&0))
            .filter(|entry| entry.first() != Some(&ENTRY_FREE))
            .collect()
    }

    fn next(&self, cluster: usize) -> Option<usize> {
        if !self.is_fat12 {
            return le16(self.fat, cluster * 2);
        }
        let pair = le16(self.fat, cluster + cluster / 2)?;
        Some(if cluster.is_multiple_of(2) {
            pair & 0xFFF
        } else {
            pair >> 4
        })
    }
}

/// A long name being put together; its parts come last one first.
#[derive(Debug, Default)]
struct LongName {
    parts: Vec<[u16; 13]>,
    expected: u8,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let order = entry.first().copied().unwrap_or_default();
        let checksum = entry.get(13).copied().unwrap_or_default();
        let number = order & 0x3F;
        if order & LAST_LONG_ENTRY != 0 {
            *self = Self {
                parts: Vec::new(),
                expected: number,
                checksum,
            };
        }
        if number == 0 || number != self.expected || checksum != self.checksum {
            *self = Self::default();
            return;
        }
        let unit = |offset: usize| u16::try_from(le16(entry, offset).unwrap_or_default());
        self.parts
            .push(LONG_NAME_UNITS.map(|offset| unit(offset).unwrap_or_default()));
        self.expected -= 1;
    }

    /// The name, if it is whole and belongs to this entry.
    fn finish(self, entry: &[u8]) -> Option<String> {
        let whole = !self.parts.is_empty() && self.expected == 0;
        if !whole || self.checksum != short_name_checksum(entry) {
            return None;
        }
        let units: Vec<u16> = self.parts.into_iter().rev().flatten().collect();
        let end = units.iter().position(|unit| *unit == 0);
        let units = units.get(..end.unwrap_or(units.len()))?;
        Some(String::from_utf16_lossy(units))
    }
}

fn short_name_checksum(entry: &[u8]) -> u8 {
    let name = entry.get(..11).unwrap_or_default();
    name.iter()
        .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

fn short_name(entry: &[u8]) -> String {
    let part = |range: std::ops::Range<usize>| {
        let bytes = entry.get(range).unwrap_or_default();
        String::from_utf8_lossy(bytes).trim_end().to_owned()
    };
    match (part(0..8), part(8..11)) {
        (base, extension) if extension.is_empty() => base,
        (base, extension) => format!("{base}.{extension}"),
    }
}

fn attributes(entry: &[u8]) -> u8 {
    entry.get(11).copied().unwrap_or_default()
}

fn le16(bytes: &[u8], offset: usize) -> Option<usize> {
    let field = bytes.get(offset..)?.first_chunk::<2>()?;
    Some(usize::from(u16::from_le_bytes(*field)))
}

fn le32(bytes: &[u8], offset: usize) -> Option<usize> {
    let field = bytes.get(offset..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*field)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::{Cursor, Write};

    /// A volume written by an independent implementation.
    fn volume(size: usize, fat: fatfs::FatType, files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut image = Cursor::new(vec![0_u8; size]);
        let options = fatfs::FormatVolumeOptions::new()
            .fat_type(fat)
            .bytes_per_cluster(512)
            .volume_label(*b"ir-vfd-dev ");
        fatfs::format_volume(&mut image, options).unwrap();
        image.set_position(0);
        {
            let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
            for (name, contents) in files {
                let mut file = volume.root_dir().create_file(name).unwrap();
                file.write_all(contents).unwrap();
            }
            volume.root_dir().create_dir("sub").unwrap();
            volume.root_dir().create_file("gone").unwrap();
            volume.root_dir().remove("gone").unwrap();
        }
        image.into_inner()
    }

    #[test]
    fn reads_what_another_implementation_wrote() {
        let long: Vec<u8> = (0..20_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let files: [(&str, &[u8]); 4] = [
            ("parameters.txt", b"a=b"),
            ("token", b""),
            ("A name with blanks and ümläuts.conf", &long),
            ("CA.PEM", b"x"),
        ];
        for (size, fat) in [
            (100 << 10, fatfs::FatType::Fat12),
            (1_474_560, fatfs::FatType::Fat12),
            (8 << 20, fatfs::FatType::Fat16),
        ] {
            let image = volume(size, fat, &files);
            let volume = Volume::open(&image).unwrap();
            assert_eq!(volume.label(), "ir-vfd-dev");
            let read: Vec<(String, Vec<u8>)> = volume
                .files()
                .iter()
                .map(|file| (file.name.clone(), volume.read(file, 1 << 20).unwrap()))
                .collect();
            let expected = files.map(|(name, contents)| (name.to_owned(), contents.to_vec()));
            assert_eq!(read, expected);
        }
    }

    #[test]
    fn a_file_over_the_limit_is_refused() {
        let image = volume(100 << 10, fatfs::FatType::Fat12, &[("token", b"123")]);
        let volume = Volume::open(&image).unwrap();
        assert_eq!(volume.read(&volume.files()[0], 2), Err("too long"));
    }

    #[test]
    fn a_circle_of_clusters_ends() {
        let mut image = volume(100 << 10, fatfs::FatType::Fat12, &[("token", &[7; 2000])]);
        // Cluster 2 is followed by itself.
        image[512 + 3] = 2;
        image[512 + 4] &= 0xF0;
        let volume = Volume::open(&image).unwrap();
        assert_eq!(volume.read(&volume.files()[0], 1 << 20).unwrap(), [7; 2000]);
    }

    fn walk(image: &[u8]) {
        if let Ok(volume) = Volume::open(image) {
            drop(volume.label());
            for file in volume.files() {
                drop(volume.read(&file, 1 << 20));
            }
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(image in proptest::collection::vec(any::<u8>(), 0..4096)) {
            walk(&image);
        }

        #[test]
        fn damage_never_panics(damage in proptest::collection::vec(
            (prop_oneof![0..64_usize, 512..20_000_usize], any::<u8>()), 1..40)
        ) {
            let mut image = volume(100 << 10, fatfs::FatType::Fat12, &[
                ("parameters.txt", b"deployment_id=1"),
                ("token", &[1; 3000]),
            ]);
            for (offset, byte) in damage {
                image[offset] = byte;
            }
            walk(&image);
        }
    }
}
