//! INQUIRY data and vital product data pages (SPC-5 sections 6.7 and 7.7, SBC-4 section 6.6).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// VPD page codes.
pub mod page {
    /// Which pages there are.
    pub const SUPPORTED: u8 = 0x00;
    /// Unit Serial Number.
    pub const SERIAL: u8 = 0x80;
    /// Device Identification.
    pub const IDENTIFICATION: u8 = 0x83;
    /// Block Limits.
    pub const BLOCK_LIMITS: u8 = 0xb0;
    /// Block Device Characteristics.
    pub const CHARACTERISTICS: u8 = 0xb1;
    /// Logical Block Provisioning.
    pub const PROVISIONING: u8 = 0xb2;
}

/// Standard INQUIRY data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inquiry {
    /// PERIPHERAL QUALIFIER: 0 if a device is there.
    pub qualifier: u8,
    /// PERIPHERAL DEVICE TYPE: 0 for a disk.
    pub device_type: u8,
    /// T10 VENDOR IDENTIFICATION, without its trailing spaces.
    pub vendor: String,
    /// PRODUCT IDENTIFICATION.
    pub product: String,
    /// PRODUCT REVISION LEVEL.
    pub revision: String,
}

impl Inquiry {
    /// The 96 bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut data = BytesMut::with_capacity(96);
        data.put_u8(self.qualifier << 5 | self.device_type & 0x1f);
        data.put_u8(0); // not removable
        data.put_u8(0x06); // SPC-4
        data.put_u8(0x12); // HISUP, response data format 2
        data.put_u8(91); // ADDITIONAL LENGTH
        data.put_u16(0);
        data.put_u8(0x02); // CMDQUE
        put_ascii(&mut data, &self.vendor, 8);
        put_ascii(&mut data, &self.product, 16);
        put_ascii(&mut data, &self.revision, 4);
        data.put_bytes(0, 58 - 36);
        for descriptor in [0x0960, 0x0460, 0x04c0] {
            data.put_u16(descriptor); // VERSION DESCRIPTOR: iSCSI, SPC-4, SBC-3
        }
        data.put_bytes(0, 96 - 64);
        data.freeze()
    }

    /// Decodes at least the 36 bytes that every unit has.
    #[must_use]
    pub fn decode(data: &[u8]) -> Option<Self> {
        let first = data.first()?;
        Some(Self {
            qualifier: first >> 5,
            device_type: first & 0x1f,
            vendor: ascii(data.get(8..16)?),
            product: ascii(data.get(16..32)?),
            revision: ascii(data.get(32..36)?),
        })
    }
}

/// A VPD page of a disk with this payload.
#[must_use]
pub fn vpd_page(code: u8, payload: &[u8]) -> Bytes {
    let mut data = BytesMut::with_capacity(4 + payload.len());
    data.put_u8(0);
    data.put_u8(code);
    data.put_u16(u16::try_from(payload.len()).unwrap_or(u16::MAX));
    data.extend_from_slice(payload);
    data.freeze()
}

/// The payload of a VPD page, if it is the one asked for.
#[must_use]
pub fn vpd_payload(code: u8, data: &[u8]) -> Option<&[u8]> {
    let (mut header, payload) = data.split_at_checked(4)?;
    header.advance(1);
    if header.get_u8() != code {
        return None;
    }
    let length = usize::from(header.get_u16());
    Some(payload.get(..length).unwrap_or(payload))
}

/// Names of a unit (page 0x83) that a target of ours gives.
#[derive(Debug, Clone)]
pub struct Designator<'a> {
    /// T10 vendor.
    pub vendor: &'a str,
    /// What tells it from the vendor's other units.
    pub serial: &'a str,
    /// A number of 60 bits, unique enough for a locally assigned NAA name.
    pub number: u64,
}

impl Designator<'_> {
    /// The payload of page 0x83.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut name = BytesMut::new();
        put_ascii(&mut name, self.vendor, 8);
        name.extend_from_slice(self.serial.as_bytes());
        name.truncate(255);
        let mut data = BytesMut::new();
        data.put_slice(&[0x02, 0x01, 0x00]); // ASCII, T10 vendor ID, of the logical unit
        data.put_u8(u8::try_from(name.len()).unwrap_or(u8::MAX));
        data.extend_from_slice(&name);
        data.put_slice(&[0x01, 0x03, 0x00, 8]); // binary, NAA, of the logical unit
        data.put_u64(0x3000_0000_0000_0000 | self.number >> 4);
        data.freeze()
    }

    /// The best name of the unit itself in the payload of page 0x83: NAA, EUI-64, T10 vendor.
    #[must_use]
    pub fn worldwide_name(mut payload: &[u8]) -> Option<String> {
        let mut best: Option<(u8, String)> = None;
        while let [code_set, kind, _, length, rest @ ..] = payload {
            let name = rest.get(..usize::from(*length)).unwrap_or(rest);
            payload = rest.get(name.len()..).unwrap_or_default();
            // ASSOCIATION 0 is the unit, others its port or target.
            let (rank, name) = match (kind & 0x3f, code_set & 0x0f) {
                (3, 1) => (0, format!("naa.{}", hex::encode(name))),
                (2, 1) => (1, format!("eui.{}", hex::encode(name))),
                (1, 2 | 3) => (2, format!("t10.{}", ascii(name))),
                _ => continue,
            };
            if best.as_ref().is_none_or(|(other, _)| rank < *other) {
                best = Some((rank, name));
            }
        }
        best.map(|(_, name)| name)
    }
}

/// Block Limits (page 0xb0). Zero means not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockLimits {
    /// MAXIMUM TRANSFER LENGTH in blocks.
    pub max_transfer: u32,
    /// OPTIMAL TRANSFER LENGTH in blocks.
    pub optimal_transfer: u32,
    /// MAXIMUM UNMAP LBA COUNT in blocks.
    pub max_unmap: u32,
    /// MAXIMUM UNMAP BLOCK DESCRIPTOR COUNT.
    pub max_unmap_descriptors: u32,
    /// OPTIMAL UNMAP GRANULARITY in blocks.
    pub unmap_granularity: u32,
    /// MAXIMUM WRITE SAME LENGTH in blocks.
    pub max_write_same: u64,
}

impl BlockLimits {
    /// The payload of the page.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut data = BytesMut::with_capacity(60);
        data.put_u32(0); // WSNZ 0; no COMPARE AND WRITE; no granularity
        data.put_u32(self.max_transfer);
        data.put_u32(self.optimal_transfer);
        data.put_u32(0); // no PRE-FETCH
        data.put_u32(self.max_unmap);
        data.put_u32(self.max_unmap_descriptors);
        data.put_u32(self.unmap_granularity);
        data.put_u32(0x8000_0000); // UGAVALID, alignment 0
        data.put_u64(self.max_write_same);
        data.put_bytes(0, 20);
        data.freeze()
    }

    /// Decodes the payload of the page, of which early standards have only a part.
    #[must_use]
    pub fn decode(mut payload: &[u8]) -> Self {
        payload.try_get_u32().unwrap_or(0);
        let mut next = || payload.try_get_u32().unwrap_or(0);
        let (max_transfer, optimal_transfer, _) = (next(), next(), next());
        let (max_unmap, max_unmap_descriptors) = (next(), next());
        let (unmap_granularity, _) = (next(), next());
        let max_write_same = u64::from(next()) << 32 | u64::from(next());
        Self {
            max_transfer,
            optimal_transfer,
            max_unmap,
            max_unmap_descriptors,
            unmap_granularity,
            max_write_same,
        }
    }
}

/// Logical Block Provisioning (page 0xb2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Provisioning {
    /// LBPU: the unit has UNMAP.
    pub unmap: bool,
    /// LBPWS: the unit has WRITE SAME (16) with the UNMAP bit.
    pub write_same_16: bool,
    /// LBPWS10: the same for WRITE SAME (10).
    pub write_same_10: bool,
    /// LBPRZ: unmapped blocks read back zero.
    pub reads_zero: bool,
}

impl Provisioning {
    /// The payload of the page, for a thin unit.
    #[must_use]
    pub fn encode(self) -> [u8; 4] {
        let flags = u8::from(self.unmap) << 7
            | u8::from(self.write_same_16) << 6
            | u8::from(self.write_same_10) << 5
            | u8::from(self.reads_zero) << 2;
        [0, flags, 0x02, 0]
    }

    /// Decodes the payload of the page.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Self {
        let flags = payload.get(1).copied().unwrap_or(0);
        Self {
            unmap: flags & 0x80 != 0,
            write_same_16: flags & 0x40 != 0,
            write_same_10: flags & 0x20 != 0,
            // Three bits in SBC-4, of which 001b and 1xxb are zeros and a pattern.
            reads_zero: flags & 0x1c == 0x04,
        }
    }
}

fn put_ascii(data: &mut BytesMut, text: &str, width: usize) {
    let printable = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
    let padded = text.chars().map(printable).chain(std::iter::repeat(' '));
    let bytes = padded.take(width).filter_map(|c| u8::try_from(c).ok());
    data.extend(bytes);
}

fn ascii(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .map(|byte| char::from(*byte))
        .map(|c| if c.is_ascii_graphic() { c } else { ' ' })
        .collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn inquiry() -> Inquiry {
        Inquiry {
            qualifier: 0,
            device_type: 0,
            vendor: "FLOWRUN".into(),
            product: "RAMDISK".into(),
            revision: "0001".into(),
        }
    }

    /// If this fails do not change the test.
    #[test]
    fn standard_data_on_the_wire() {
        let data = inquiry().encode();
        assert_eq!(data.len(), 96);
        assert_eq!(data[..8], [0x00, 0x00, 0x06, 0x12, 91, 0, 0, 0x02]);
        assert_eq!(&data[8..36], b"FLOWRUN RAMDISK         0001");
        assert_eq!(data[58..64], [0x09, 0x60, 0x04, 0x60, 0x04, 0xc0]);
        assert_eq!(Inquiry::decode(&data), Some(inquiry()));
        assert_eq!(Inquiry::decode(&data[..35]), None);
    }

    /// If this fails do not change the test.
    #[test]
    fn block_limits_on_the_wire() {
        let limits = BlockLimits {
            max_transfer: 0x2000,
            optimal_transfer: 0x200,
            max_unmap: 0x40_0000,
            max_unmap_descriptors: 64,
            unmap_granularity: 8,
            max_write_same: 0x1_0000_0002,
        };
        let payload = limits.encode();
        assert_eq!(payload.len(), 60);
        assert_eq!(payload[4..12], [0, 0, 0x20, 0, 0, 0, 2, 0]);
        assert_eq!(payload[32..40], [0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(BlockLimits::decode(&payload), limits);
        assert_eq!(BlockLimits::decode(&payload[..12]).max_unmap, 0);
    }

    #[test]
    fn pages_are_told_apart() {
        let page = vpd_page(0x80, b"serial");
        assert_eq!(page[..4], [0, 0x80, 0, 6]);
        assert_eq!(vpd_payload(0x80, &page), Some(&b"serial"[..]));
        assert_eq!(vpd_payload(0xb0, &page), None);
        assert_eq!(vpd_payload(0x80, &page[..6]), Some(&b"se"[..])); // cut by the allocation
    }

    #[test]
    fn provisioning_round_trip() {
        let all = Provisioning {
            unmap: true,
            write_same_16: true,
            write_same_10: true,
            reads_zero: true,
        };
        assert_eq!(all.encode(), [0, 0xe4, 2, 0]);
        assert_eq!(Provisioning::decode(&all.encode()), all);
    }

    proptest! {
        #[test]
        fn never_panics(data: Vec<u8>) {
            drop(Inquiry::decode(&data));
            let _ = vpd_payload(0x80, &data);
            let _ = BlockLimits::decode(&data);
            let _ = Provisioning::decode(&data);
        }
    }
}
