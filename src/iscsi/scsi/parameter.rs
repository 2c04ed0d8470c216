//! Capacity, mode pages and LUN lists (SBC-4 sections 5.19 and 5.20, SPC-5 sections 6.14, 6.33).

use crate::iscsi::proto::pdu::Lun;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// What READ CAPACITY tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// How many logical blocks.
    pub blocks: u64,
    /// Length of one in bytes.
    pub block_bytes: u32,
    /// LOGICAL BLOCKS PER PHYSICAL BLOCK EXPONENT.
    pub physical_exponent: u8,
    /// LBPME: the unit is thin.
    pub thin: bool,
    /// LBPRZ: unmapped blocks read back zero.
    pub reads_zero: bool,
}

impl Capacity {
    /// READ CAPACITY (16) data.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut data = BytesMut::with_capacity(32);
        data.put_u64(self.blocks.saturating_sub(1));
        data.put_u32(self.block_bytes);
        data.put_u8(0);
        data.put_u8(self.physical_exponent & 0x0f);
        data.put_u8(u8::from(self.thin) << 7 | u8::from(self.reads_zero) << 6);
        data.put_bytes(0, 17);
        data.freeze()
    }

    /// READ CAPACITY (10) data, whose address is all ones for a larger unit.
    #[must_use]
    pub fn encode_10(self) -> Bytes {
        let last = u32::try_from(self.blocks.saturating_sub(1)).unwrap_or(u32::MAX);
        let mut data = BytesMut::with_capacity(8);
        data.put_u32(last);
        data.put_u32(self.block_bytes);
        data.freeze()
    }

    /// Decodes READ CAPACITY (16) data; `None` if it is too short or makes no sense.
    #[must_use]
    pub fn decode(mut data: &[u8]) -> Option<Self> {
        let blocks = data.try_get_u64().ok()?.checked_add(1)?;
        let block_bytes = data.try_get_u32().ok()?;
        data.try_get_u8().ok()?;
        let exponent = data.try_get_u8().ok()?;
        let flags = data.try_get_u8().ok()?;
        Self {
            blocks,
            block_bytes,
            physical_exponent: exponent & 0x0f,
            thin: flags & 0x80 != 0,
            reads_zero: flags & 0x40 != 0,
        }
        .checked()
    }

    /// Decodes READ CAPACITY (10) data, for targets that have no other.
    #[must_use]
    pub fn decode_10(mut data: &[u8]) -> Option<Self> {
        let last = data.try_get_u32().ok().filter(|last| *last != u32::MAX)?;
        Self {
            blocks: u64::from(last) + 1,
            block_bytes: data.try_get_u32().ok()?,
            physical_exponent: 0,
            thin: false,
            reads_zero: false,
        }
        .checked()
    }

    /// Block lengths that disks have, and sizes whose bytes can be counted.
    fn checked(self) -> Option<Self> {
        let sane = self.block_bytes.is_power_of_two() && (512..=65_536).contains(&self.block_bytes);
        let countable = self.blocks.checked_mul(u64::from(self.block_bytes));
        countable.filter(|_| sane).map(|_| self)
    }
}

/// The header of MODE SENSE data and the page that we care for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ModeHeader {
    /// WP: the unit cannot be written.
    pub write_protected: bool,
    /// WCE of the caching page: there is a volatile write cache.
    pub write_cache: bool,
}

const CACHING: u8 = 0x08;
const CONTROL: u8 = 0x0a;

impl ModeHeader {
    /// MODE SENSE data for `page` (0x3f for all), or `None` if there is no such page.
    /// `changeable` asks which bits could be set; none can.
    #[must_use]
    pub fn encode(self, ten: bool, page: u8, changeable: bool) -> Option<Bytes> {
        let mut pages = BytesMut::new();
        if matches!(page, CACHING | 0x3f) {
            let wce = u8::from(self.write_cache && !changeable) << 2;
            pages.put_slice(&[CACHING, 18, wce]);
            pages.put_bytes(0, 17);
        }
        if matches!(page, CONTROL | 0x3f) {
            pages.put_slice(&[CONTROL, 10]);
            pages.put_bytes(0, 10);
        }
        if pages.is_empty() {
            return None;
        }
        let device_specific = u8::from(self.write_protected) << 7 | 0x10; // DPOFUA
        let mut data = BytesMut::new();
        if ten {
            data.put_u16(u16::try_from(pages.len() + 6).unwrap_or(u16::MAX));
            data.put_slice(&[0, device_specific, 0, 0, 0, 0]);
        } else {
            data.put_u8(u8::try_from(pages.len() + 3).unwrap_or(u8::MAX));
            data.put_slice(&[0, device_specific, 0]);
        }
        data.extend_from_slice(&pages);
        Some(data.freeze())
    }

    /// Decodes MODE SENSE (6) or (10) data; `None` if it is too short for its header.
    #[must_use]
    pub fn decode(ten: bool, data: &[u8]) -> Option<Self> {
        let at = |index: usize| data.get(index).copied();
        let (device_specific, descriptors, header) = if ten {
            (at(3)?, usize::from(u16::from_be_bytes([at(6)?, at(7)?])), 8)
        } else {
            (at(2)?, usize::from(at(3)?), 4)
        };
        let mut pages = data.get(header + descriptors..).unwrap_or_default();
        let mut write_cache = false;
        while let [code, length, rest @ ..] = pages {
            if code & 0x7f == CACHING {
                write_cache = rest.first().is_some_and(|flags| flags & 0x04 != 0);
            }
            pages = rest.get(usize::from(*length)..).unwrap_or_default();
        }
        Some(Self {
            write_protected: device_specific & 0x80 != 0,
            write_cache,
        })
    }
}

/// REPORT LUNS data.
#[must_use]
pub fn lun_list(luns: &[Lun]) -> Bytes {
    let mut data = BytesMut::with_capacity(8 + luns.len() * 8);
    data.put_u32(u32::try_from(luns.len() * 8).unwrap_or(u32::MAX));
    data.put_u32(0);
    for lun in luns {
        data.put_u64(lun.0);
    }
    data.freeze()
}

/// The units in REPORT LUNS data, as far as they came.
#[must_use]
pub fn decode_lun_list(data: &[u8]) -> Vec<Lun> {
    let (Some(mut length), luns) = (data.get(..4), data.get(8..).unwrap_or_default()) else {
        return Vec::new();
    };
    let length = usize::try_from(length.get_u32()).unwrap_or(usize::MAX);
    let luns = luns.get(..length).unwrap_or(luns);
    luns.chunks_exact(8)
        .map(|mut lun| Lun(lun.get_u64()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const CAPACITY: Capacity = Capacity {
        blocks: 0x1_0000_0000,
        block_bytes: 512,
        physical_exponent: 3,
        thin: true,
        reads_zero: true,
    };

    /// If this fails do not change the test.
    #[test]
    fn capacity_on_the_wire() {
        let data = CAPACITY.encode();
        assert_eq!(data.len(), 32);
        assert_eq!(data[..12], [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 2, 0]);
        assert_eq!(data[12..16], [0, 3, 0xc0, 0]);
        assert_eq!(Capacity::decode(&data), Some(CAPACITY));
        let small = Capacity {
            blocks: 8,
            physical_exponent: 0,
            thin: false,
            reads_zero: false,
            ..CAPACITY
        };
        assert_eq!(small.encode_10()[..], [0, 0, 0, 7, 0, 0, 2, 0]);
        assert_eq!(Capacity::decode_10(&small.encode_10()), Some(small));
        assert_eq!(CAPACITY.encode_10()[..4], [0xff; 4]);
    }

    #[test]
    fn senseless_capacities_are_refused() {
        let odd = Capacity {
            block_bytes: 520,
            ..CAPACITY
        };
        assert_eq!(Capacity::decode(&odd.encode()), None);
        let huge = Capacity {
            blocks: u64::MAX,
            ..CAPACITY
        };
        assert_eq!(Capacity::decode(&huge.encode()), None);
        assert_eq!(Capacity::decode(&[0xff; 32]), None);
        assert_eq!(Capacity::decode(&[0; 14]), None);
    }

    /// If this fails do not change the test.
    #[test]
    fn mode_pages_on_the_wire() {
        let mode = ModeHeader {
            write_protected: true,
            write_cache: true,
        };
        let data = mode.encode(false, 0x08, false).unwrap();
        assert_eq!(data[..7], [23, 0, 0x90, 0, 0x08, 18, 0x04]);
        for ten in [false, true] {
            let all = mode.encode(ten, 0x3f, false).unwrap();
            assert_eq!(ModeHeader::decode(ten, &all), Some(mode));
            let changeable = mode.encode(ten, 0x3f, true).unwrap();
            assert!(!ModeHeader::decode(ten, &changeable).unwrap().write_cache);
        }
        assert_eq!(mode.encode(false, 0x01, false), None);
    }

    #[test]
    fn lun_lists_on_the_wire() {
        let list = lun_list(&[Lun(0), Lun::from_number(1).unwrap()]);
        assert_eq!(list[..8], [0, 0, 0, 16, 0, 0, 0, 0]);
        assert_eq!(list[16..], [0, 1, 0, 0, 0, 0, 0, 0]);
        let luns = [Lun(0), Lun::from_number(1).unwrap()];
        assert_eq!(decode_lun_list(&list), luns);
        assert_eq!(decode_lun_list(&list[..17]), luns[..1]);
    }

    proptest! {
        #[test]
        fn never_panics(data: Vec<u8>) {
            drop(decode_lun_list(&data));
            let _ = Capacity::decode(&data);
            let _ = Capacity::decode_10(&data);
            let _ = ModeHeader::decode(false, &data);
            let _ = ModeHeader::decode(true, &data);
        }
    }
}
