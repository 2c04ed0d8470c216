//! Command descriptor blocks.

use super::sense::Sense;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// A command, whatever the length of the CDB that carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cdb {
    /// Is the unit ready.
    TestUnitReady,
    /// Sense data on request; autosense makes it rare.
    RequestSense {
        /// Bytes wanted at most.
        allocation: u8,
    },
    /// Who the unit is.
    Inquiry {
        /// A vital product data page, or `None` for the standard data.
        page: Option<u8>,
        /// Bytes wanted at most.
        allocation: u16,
    },
    /// Mode pages.
    ModeSense {
        /// Whether it is the ten-byte form, whose answer has another header.
        ten: bool,
        /// 0x3f for all.
        page: u8,
        /// 0 for the page itself.
        subpage: u8,
        /// PC: 0 current, 1 changeable, 2 default, 3 saved values.
        control: u8,
        /// Bytes wanted at most.
        allocation: u16,
    },
    /// Spin up or down.
    StartStopUnit,
    /// Size, for units up to 2^32 blocks.
    ReadCapacity10,
    /// Size and provisioning.
    ReadCapacity16 {
        /// Bytes wanted at most.
        allocation: u32,
    },
    /// The logical units of the target.
    ReportLuns {
        /// SELECT REPORT: 0 and 2 all ordinary ones, 1 well-known ones only.
        select: u8,
        /// Bytes wanted at most.
        allocation: u32,
    },
    /// Read blocks.
    Read {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
    },
    /// Write blocks.
    Write {
        /// First block.
        lba: u64,
        /// How many.
        blocks: u32,
        /// FUA: on the medium before the status.
        force: bool,
    },
    /// Write one block again and again.
    WriteSame {
        /// First block.
        lba: u64,
        /// How many; 0 means up to the end.
        blocks: u32,
        /// UNMAP: the range may be deallocated if it reads back the same.
        unmap: bool,
        /// NDOB: no data comes, the block is zero.
        no_data: bool,
    },
    /// Deallocate the ranges in the parameter list.
    Unmap {
        /// Length of the parameter list in bytes.
        length: u16,
    },
    /// Write volatile caches out.
    SynchronizeCache {
        /// First block.
        lba: u64,
        /// How many; 0 means up to the end.
        blocks: u32,
    },
    /// Take the key for all hashes of this session; 16 bytes come. Of our vendor: see [`VENDOR`].
    HashKey,
    /// Hash bytes as they are on the medium ([`crate::keyed_hash`]), and return the hash. Of our
    /// vendor: see [`VENDOR`].
    Hash {
        /// First block.
        lba: u64,
        /// How many bytes, from the beginning of that block on.
        bytes: u32,
    },
    /// What is known of persistent reservations.
    PersistentReserveIn {
        /// SERVICE ACTION, of [`super::reservation::read`].
        action: u8,
        /// Bytes wanted at most.
        allocation: u16,
    },
    /// Change persistent reservations.
    PersistentReserveOut {
        /// SERVICE ACTION, of [`super::reservation::change`].
        action: u8,
        /// SCOPE and TYPE; scope 0 is the unit.
        kind: u8,
        /// Length of the parameter list in bytes.
        length: u32,
    },
}

/// T10 VENDOR IDENTIFICATION of our target. What an operation code from 0xc0 on means is known only
/// by it (SPC-5 section 4.2.5.1), so none is sent to a unit of anybody else.
pub const VENDOR: &str = "FLOWRUN";

mod opcode {
    pub(super) const TEST_UNIT_READY: u8 = 0x00;
    pub(super) const REQUEST_SENSE: u8 = 0x03;
    pub(super) const READ_6: u8 = 0x08;
    pub(super) const WRITE_6: u8 = 0x0a;
    pub(super) const INQUIRY: u8 = 0x12;
    pub(super) const MODE_SENSE_6: u8 = 0x1a;
    pub(super) const START_STOP_UNIT: u8 = 0x1b;
    pub(super) const READ_CAPACITY_10: u8 = 0x25;
    pub(super) const READ_10: u8 = 0x28;
    pub(super) const WRITE_10: u8 = 0x2a;
    pub(super) const SYNCHRONIZE_CACHE_10: u8 = 0x35;
    pub(super) const WRITE_SAME_10: u8 = 0x41;
    pub(super) const UNMAP: u8 = 0x42;
    pub(super) const MODE_SENSE_10: u8 = 0x5a;
    pub(super) const PERSISTENT_RESERVE_IN: u8 = 0x5e;
    pub(super) const PERSISTENT_RESERVE_OUT: u8 = 0x5f;
    pub(super) const READ_16: u8 = 0x88;
    pub(super) const WRITE_16: u8 = 0x8a;
    pub(super) const SYNCHRONIZE_CACHE_16: u8 = 0x91;
    pub(super) const WRITE_SAME_16: u8 = 0x93;
    pub(super) const SERVICE_ACTION_IN_16: u8 = 0x9e;
    pub(super) const REPORT_LUNS: u8 = 0xa0;
    pub(super) const READ_12: u8 = 0xa8;
    pub(super) const WRITE_12: u8 = 0xaa;
    pub(super) const HASH_KEY: u8 = 0xc9;
    pub(super) const HASH: u8 = 0xca;
}

/// SERVICE ACTION of READ CAPACITY (16).
const READ_CAPACITY_16: u8 = 0x10;

impl Cdb {
    /// The bytes, in the shortest common form: old units have only the ten-byte ones.
    #[must_use]
    pub fn encode(self) -> [u8; 16] {
        let mut cdb = [0; 16];
        match self {
            Self::TestUnitReady => cdb[0] = opcode::TEST_UNIT_READY,
            Self::RequestSense { allocation } => {
                cdb[0] = opcode::REQUEST_SENSE;
                cdb[4] = allocation;
            }
            Self::Inquiry { page, allocation } => {
                let (has_page, page) = (u8::from(page.is_some()), page.unwrap_or(0));
                cdb[..3].copy_from_slice(&[opcode::INQUIRY, has_page, page]);
                cdb[3..5].copy_from_slice(&allocation.to_be_bytes());
            }
            Self::ModeSense {
                ten,
                page,
                subpage,
                control,
                allocation,
            } => {
                cdb[2..4].copy_from_slice(&[control << 6 | page, subpage]);
                set_mode_allocation(&mut cdb, ten, allocation);
            }
            Self::StartStopUnit => cdb[0] = opcode::START_STOP_UNIT,
            Self::ReadCapacity10 => cdb[0] = opcode::READ_CAPACITY_10,
            Self::ReadCapacity16 { allocation } => {
                cdb = long(opcode::SERVICE_ACTION_IN_16, 0, allocation);
                cdb[1] = READ_CAPACITY_16;
            }
            Self::ReportLuns { select, allocation } => {
                cdb[..3].copy_from_slice(&[opcode::REPORT_LUNS, 0, select]);
                cdb[6..10].copy_from_slice(&allocation.to_be_bytes());
            }
            Self::Read { lba, blocks } => {
                cdb = short_or_long(opcode::READ_10, opcode::READ_16, lba, blocks);
            }
            Self::Write { lba, blocks, force } => {
                cdb = short_or_long(opcode::WRITE_10, opcode::WRITE_16, lba, blocks);
                cdb[1] = u8::from(force) << 3;
            }
            Self::WriteSame {
                lba,
                blocks,
                unmap,
                no_data,
            } => {
                cdb = long(opcode::WRITE_SAME_16, lba, blocks);
                cdb[1] = u8::from(unmap) << 3 | u8::from(no_data);
            }
            Self::Unmap { length } => {
                cdb[0] = opcode::UNMAP;
                cdb[7..9].copy_from_slice(&length.to_be_bytes());
            }
            Self::SynchronizeCache { lba, blocks } => {
                let (short, long) = (opcode::SYNCHRONIZE_CACHE_10, opcode::SYNCHRONIZE_CACHE_16);
                cdb = short_or_long(short, long, lba, blocks);
            }
            Self::HashKey => cdb[0] = opcode::HASH_KEY,
            Self::Hash { lba, bytes } => cdb = long(opcode::HASH, lba, bytes),
            Self::PersistentReserveIn { action, allocation } => {
                cdb = reserve(opcode::PERSISTENT_RESERVE_IN, action, 0, allocation.into());
            }
            Self::PersistentReserveOut {
                action,
                kind,
                length,
            } => cdb = reserve(opcode::PERSISTENT_RESERVE_OUT, action, kind, length),
        }
        cdb
    }

    /// Decodes a CDB of any length up to 16 bytes.
    ///
    /// # Errors
    /// The sense data to answer with, if the operation code or a field is not supported.
    pub fn decode(cdb: &[u8; 16]) -> Result<Self, Sense> {
        Ok(match cdb[0] {
            opcode::TEST_UNIT_READY => Self::TestUnitReady,
            opcode::REQUEST_SENSE => Self::RequestSense { allocation: cdb[4] },
            opcode::INQUIRY => Self::Inquiry {
                page: match (cdb[1] & 0x01, cdb[2]) {
                    (0, 0) => None,
                    (0, _) => return Err(Sense::INVALID_FIELD_IN_CDB),
                    (_, page) => Some(page),
                },
                allocation: be16(&cdb[3..5]),
            },
            opcode::MODE_SENSE_6 => Self::mode_sense(cdb, false, u16::from(cdb[4])),
            opcode::MODE_SENSE_10 => Self::mode_sense(cdb, true, be16(&cdb[7..9])),
            opcode::START_STOP_UNIT => Self::StartStopUnit,
            opcode::READ_CAPACITY_10 => Self::ReadCapacity10,
            opcode::SERVICE_ACTION_IN_16 if cdb[1] & 0x1f == READ_CAPACITY_16 => {
                Self::ReadCapacity16 {
                    allocation: be32(&cdb[10..14]),
                }
            }
            opcode::SERVICE_ACTION_IN_16 => return Err(Sense::INVALID_FIELD_IN_CDB),
            opcode::REPORT_LUNS => Self::ReportLuns {
                select: cdb[2],
                allocation: be32(&cdb[6..10]),
            },
            opcode::UNMAP if cdb[1] & 0x01 != 0 => return Err(Sense::INVALID_FIELD_IN_CDB),
            opcode::UNMAP => Self::Unmap {
                length: be16(&cdb[7..9]),
            },
            opcode::HASH_KEY if cdb[1] == 0 => Self::HashKey,
            opcode::HASH if cdb[1] == 0 => Self::Hash {
                lba: (&cdb[2..10]).get_u64(),
                bytes: be32(&cdb[10..14]),
            },
            opcode::PERSISTENT_RESERVE_IN => Self::PersistentReserveIn {
                action: cdb[1] & 0x1f,
                allocation: be16(&cdb[7..9]),
            },
            opcode::PERSISTENT_RESERVE_OUT => Self::PersistentReserveOut {
                action: cdb[1] & 0x1f,
                kind: cdb[2],
                length: be32(&cdb[5..9]),
            },
            _ => return Self::decode_medium(cdb),
        })
    }

    /// Commands that name blocks of the medium.
    fn decode_medium(cdb: &[u8; 16]) -> Result<Self, Sense> {
        use opcode::{
            READ_6, READ_10, READ_12, READ_16, SYNCHRONIZE_CACHE_10, SYNCHRONIZE_CACHE_16, WRITE_6,
            WRITE_10, WRITE_12, WRITE_16, WRITE_SAME_10, WRITE_SAME_16,
        };
        let (lba, blocks) = match cdb[0] {
            READ_6 | WRITE_6 => {
                let lba = u64::from(be32(&[0, cdb[1] & 0x1f, cdb[2], cdb[3]]));
                // A length of 0 means 256 in this form only.
                (lba, if cdb[4] == 0 { 256 } else { u32::from(cdb[4]) })
            }
            READ_10 | WRITE_10 | WRITE_SAME_10 | SYNCHRONIZE_CACHE_10 => {
                (u64::from(be32(&cdb[2..6])), u32::from(be16(&cdb[7..9])))
            }
            READ_12 | WRITE_12 => (u64::from(be32(&cdb[2..6])), be32(&cdb[6..10])),
            _ => ((&cdb[2..10]).get_u64(), be32(&cdb[10..14])),
        };
        // Protection information (RDPROTECT, WRPROTECT) is not ours.
        let plain = cdb[1] & 0xe0 == 0;
        let (unmap, no_data) = (cdb[1] & 0x08 != 0, cdb[1] & 0x01 != 0);
        let anchor = cdb[1] & 0x10 != 0;
        match cdb[0] {
            READ_6 => Ok(Self::Read { lba, blocks }),
            READ_10 | READ_12 | READ_16 if plain => Ok(Self::Read { lba, blocks }),
            WRITE_6 => Ok(Self::Write {
                lba,
                blocks,
                force: false,
            }),
            WRITE_10 | WRITE_12 | WRITE_16 if plain => Ok(Self::Write {
                lba,
                blocks,
                force: cdb[1] & 0x08 != 0,
            }),
            WRITE_SAME_10 if plain && !anchor && !no_data => Ok(Self::WriteSame {
                lba,
                blocks,
                unmap,
                no_data: false,
            }),
            WRITE_SAME_16 if plain && !anchor => Ok(Self::WriteSame {
                lba,
                blocks,
                unmap,
                no_data,
            }),
            SYNCHRONIZE_CACHE_10 | SYNCHRONIZE_CACHE_16 => {
                Ok(Self::SynchronizeCache { lba, blocks })
            }
            READ_10 | READ_12 | READ_16 | WRITE_10 | WRITE_12 | WRITE_16 | WRITE_SAME_10
            | WRITE_SAME_16 => Err(Sense::INVALID_FIELD_IN_CDB),
            _ => Err(Sense::INVALID_OPERATION_CODE),
        }
    }

    fn mode_sense(cdb: &[u8; 16], ten: bool, allocation: u16) -> Self {
        Self::ModeSense {
            ten,
            page: cdb[2] & 0x3f,
            subpage: cdb[3],
            control: cdb[2] >> 6,
            allocation,
        }
    }
}

/// A 16-byte CDB with a 64-bit address and a 32-bit length.
fn long(opcode: u8, lba: u64, length: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[0] = opcode;
    cdb[2..10].copy_from_slice(&lba.to_be_bytes());
    cdb[10..14].copy_from_slice(&length.to_be_bytes());
    cdb
}

/// A CDB of persistent reservations, whose length ends at byte 8.
fn reserve(opcode: u8, action: u8, kind: u8, length: u32) -> [u8; 16] {
    let mut cdb = [0; 16];
    cdb[..3].copy_from_slice(&[opcode, action, kind]);
    cdb[5..9].copy_from_slice(&length.to_be_bytes());
    cdb
}

/// The ten-byte form where address and length fit it, else the 16-byte one.
fn short_or_long(short: u8, large: u8, lba: u64, blocks: u32) -> [u8; 16] {
    let (Ok(lba_32), Ok(blocks_16)) = (u32::try_from(lba), u16::try_from(blocks)) else {
        return long(large, lba, blocks);
    };
    let mut cdb = [0; 16];
    cdb[0] = short;
    cdb[2..6].copy_from_slice(&lba_32.to_be_bytes());
    cdb[7..9].copy_from_slice(&blocks_16.to_be_bytes());
    cdb
}

/// The operation code and ALLOCATION LENGTH of MODE SENSE.
fn set_mode_allocation(cdb: &mut [u8; 16], ten: bool, allocation: u16) {
    if ten {
        cdb[0] = opcode::MODE_SENSE_10;
        cdb[7..9].copy_from_slice(&allocation.to_be_bytes());
    } else {
        cdb[0] = opcode::MODE_SENSE_6;
        cdb[4] = u8::try_from(allocation).unwrap_or(u8::MAX);
    }
}

fn be16(mut bytes: &[u8]) -> u16 {
    bytes.try_get_u16().unwrap_or(0)
}

fn be32(mut bytes: &[u8]) -> u32 {
    bytes.try_get_u32().unwrap_or(0)
}

/// The parameter list of UNMAP for one range.
#[must_use]
pub fn unmap_list(lba: u64, blocks: u32) -> Bytes {
    let mut list = BytesMut::with_capacity(24);
    list.put_u16(22); // UNMAP DATA LENGTH: what follows these two bytes
    list.put_u16(16); // UNMAP BLOCK DESCRIPTOR DATA LENGTH
    list.put_u32(0);
    list.put_u64(lba);
    list.put_u32(blocks);
    list.put_u32(0);
    list.freeze()
}

/// The ranges of an UNMAP parameter list: first block and how many.
///
/// # Errors
/// The sense data to answer with, if the list is shorter than it says.
pub fn unmap_ranges(list: &[u8]) -> Result<Vec<(u64, u32)>, Sense> {
    let Some((mut header, descriptors)) = list.split_at_checked(8) else {
        return match list {
            [] => Ok(Vec::new()), // a length of 0 is no error (SBC-4 section 5.37)
            _ => Err(Sense::PARAMETER_LIST_LENGTH_ERROR),
        };
    };
    header.advance(2);
    let length = usize::from(header.get_u16());
    let descriptors = descriptors.get(..length);
    let descriptors = descriptors.ok_or(Sense::PARAMETER_LIST_LENGTH_ERROR)?;
    Ok(descriptors
        .chunks_exact(16)
        .map(|mut descriptor| (descriptor.get_u64(), descriptor.get_u32()))
        .collect())
}

#[cfg(test)]
mod tests;
