//! Persistent reservations: who may use a unit (SPC-5 sections 5.14, 6.16 and 6.17).

use super::Sense;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// SERVICE ACTION of PERSISTENT RESERVE IN.
pub mod read {
    /// The keys of all registered initiator ports.
    pub const KEYS: u8 = 0;
    /// The reservation.
    pub const RESERVATION: u8 = 1;
    /// What the unit can do.
    pub const CAPABILITIES: u8 = 2;
    /// Who is registered.
    pub const FULL_STATUS: u8 = 3;
}

/// SERVICE ACTION of PERSISTENT RESERVE OUT.
pub mod change {
    /// Register, change or drop the sender's key, which must be the one given.
    pub const REGISTER: u8 = 0;
    /// Reserve the unit.
    pub const RESERVE: u8 = 1;
    /// Give the reservation up.
    pub const RELEASE: u8 = 2;
    /// Drop the reservation and everybody's key.
    pub const CLEAR: u8 = 3;
    /// Drop the holders of another key, taking their reservation over.
    pub const PREEMPT: u8 = 4;
    /// As [`PREEMPT`], and abort their tasks.
    pub const PREEMPT_AND_ABORT: u8 = 5;
    /// As [`REGISTER`], whatever key the sender had before.
    pub const REGISTER_AND_IGNORE: u8 = 6;
}

/// TYPE: what a reservation keeps others from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only the holder may write.
    WriteExclusive = 1,
    /// Only the holder may read or write.
    ExclusiveAccess = 3,
    /// Only who is registered may write.
    WriteExclusiveRegistrantsOnly = 5,
    /// Only who is registered may read or write.
    ExclusiveAccessRegistrantsOnly = 6,
    /// Only who is registered may write, and all of them hold the reservation.
    WriteExclusiveAllRegistrants = 7,
    /// Only who is registered may read or write, and all of them hold the reservation.
    ExclusiveAccessAllRegistrants = 8,
}

impl Kind {
    /// SCOPE and TYPE; only the whole unit can be reserved.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::WriteExclusive,
            3 => Self::ExclusiveAccess,
            5 => Self::WriteExclusiveRegistrantsOnly,
            6 => Self::ExclusiveAccessRegistrantsOnly,
            7 => Self::WriteExclusiveAllRegistrants,
            8 => Self::ExclusiveAccessAllRegistrants,
            _ => return None,
        })
    }

    /// SCOPE and TYPE.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Whether others may still read.
    #[must_use]
    pub fn allows_reads(self) -> bool {
        matches!(
            self,
            Self::WriteExclusive
                | Self::WriteExclusiveRegistrantsOnly
                | Self::WriteExclusiveAllRegistrants
        )
    }

    /// Whether all who are registered may do what the holder may.
    #[must_use]
    pub fn admits_registrants(self) -> bool {
        !matches!(self, Self::WriteExclusive | Self::ExclusiveAccess)
    }

    /// Whether all who are registered hold the reservation.
    #[must_use]
    pub fn is_held_by_all(self) -> bool {
        matches!(
            self,
            Self::WriteExclusiveAllRegistrants | Self::ExclusiveAccessAllRegistrants
        )
    }
}

/// The parameter list of PERSISTENT RESERVE OUT, without flags: the registration is for the
/// sender's port only, and to be forgotten when the target loses power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReserveOut {
    /// RESERVATION KEY: the sender's.
    pub key: u64,
    /// SERVICE ACTION RESERVATION KEY: the one to register or to preempt.
    pub other: u64,
}

impl ReserveOut {
    /// Length of the list in bytes.
    pub const LENGTH: u32 = 24;

    /// The list.
    #[must_use]
    pub fn encode(self) -> Bytes {
        let mut list = BytesMut::with_capacity(24);
        list.put_u64(self.key);
        list.put_u64(self.other);
        list.put_u64(0);
        list.freeze()
    }

    /// Decodes a list.
    ///
    /// # Errors
    /// The sense to answer with, if it has another length or a flag is set.
    pub fn decode(list: &[u8]) -> Result<Self, Sense> {
        let list: &[u8; 24] = list
            .try_into()
            .map_err(|_| Sense::PARAMETER_LIST_LENGTH_ERROR)?;
        // SPEC_I_PT, ALL_TG_PT, APTPL.
        if list[20] & 0x0d != 0 {
            return Err(Sense::INVALID_FIELD_IN_PARAMETER_LIST);
        }
        let mut list = &list[..];
        let (key, other) = (list.get_u64(), list.get_u64());
        Ok(Self { key, other })
    }
}

/// READ KEYS data.
#[must_use]
pub fn encode_keys(generation: u32, keys: &[u64]) -> Bytes {
    let mut data = BytesMut::with_capacity(8 + keys.len() * 8);
    data.put_u32(generation);
    data.put_u32(u32::try_from(keys.len() * 8).unwrap_or(u32::MAX));
    for key in keys {
        data.put_u64(*key);
    }
    data.freeze()
}

/// The keys in READ KEYS data, as far as they came.
#[must_use]
pub fn decode_keys(data: &[u8]) -> Option<Vec<u64>> {
    let (mut header, keys) = data.split_at_checked(8)?;
    header.advance(4); // PRGENERATION
    let length = usize::try_from(header.get_u32()).ok()?;
    let keys = keys.get(..length).unwrap_or(keys);
    let keys = keys.chunks_exact(8).map(|mut key| key.get_u64());
    Some(keys.collect())
}

/// READ RESERVATION data: key and kind of the reservation, if there is one.
#[must_use]
pub fn encode_reservation(generation: u32, reservation: Option<(u64, Kind)>) -> Bytes {
    let mut data = BytesMut::with_capacity(24);
    data.put_u32(generation);
    let Some((key, kind)) = reservation else {
        data.put_u32(0);
        return data.freeze();
    };
    data.put_u32(16);
    data.put_u64(key);
    data.put_bytes(0, 5);
    data.put_u8(kind.code());
    data.put_u16(0);
    data.freeze()
}

/// The key in READ RESERVATION data; the inner `None` if nothing is reserved.
#[must_use]
pub fn decode_holder(mut data: &[u8]) -> Option<Option<u64>> {
    data.try_get_u32().ok()?; // PRGENERATION
    if data.try_get_u32().ok()? == 0 {
        return Some(None);
    }
    Some(Some(data.try_get_u64().ok()?))
}

/// An initiator port that is registered, as READ FULL STATUS tells of it.
#[derive(Debug, Clone)]
pub struct Registrant<'a> {
    /// Its iqn.
    pub name: &'a str,
    /// Its ISID.
    pub isid: [u8; 6],
    /// Its key.
    pub key: u64,
    /// The reservation, if it holds it.
    pub holds: Option<Kind>,
}

/// READ FULL STATUS data.
#[must_use]
pub fn encode_status(generation: u32, registrants: &[Registrant<'_>]) -> Bytes {
    let mut list = BytesMut::new();
    for registrant in registrants {
        // TransportID of an initiator port (SPC-5 section 7.6.4.7), of a multiple of four bytes.
        let isid: String = registrant.isid.iter().map(|b| format!("{b:02x}")).collect();
        let mut id = format!("{},i,0x{isid}\0", registrant.name).into_bytes();
        id.resize(id.len().next_multiple_of(4).max(20), 0);
        let length = u16::try_from(id.len()).unwrap_or(u16::MAX);
        list.put_u64(registrant.key);
        list.put_u32(0);
        list.put_u8(u8::from(registrant.holds.is_some()));
        list.put_u8(registrant.holds.map_or(0, Kind::code));
        list.put_u32(0);
        list.put_u16(1); // RELATIVE TARGET PORT IDENTIFIER
        list.put_u32(u32::from(length) + 4);
        list.put_slice(&[0x45, 0]); // format 01b, iSCSI
        list.put_u16(length);
        list.put_slice(&id);
    }
    let mut data = BytesMut::with_capacity(8 + list.len());
    data.put_u32(generation);
    data.put_u32(u32::try_from(list.len()).unwrap_or(u32::MAX));
    data.put(list);
    data.freeze()
}

/// REPORT CAPABILITIES data: all kinds, nothing else.
pub const CAPABILITIES: [u8; 8] = [0, 8, 0, 0x80, 0xea, 0x01, 0, 0];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If this fails do not change the test.
    #[test]
    fn on_the_wire() {
        let out = ReserveOut { key: 1, other: 2 };
        let list = [
            0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        assert_eq!(out.encode()[..], list);
        assert_eq!(ReserveOut::decode(&list), Ok(out));
        let mut through_power_loss = list;
        through_power_loss[20] = 1;
        for bad in [&through_power_loss[..], &list[..23]] {
            assert!(ReserveOut::decode(bad).is_err());
        }
        let keys = [
            0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
        ];
        assert_eq!(encode_keys(9, &[1, 2])[..], keys);
        assert_eq!(decode_keys(&keys), Some(vec![1, 2]));
        assert_eq!(decode_keys(&keys[..20]), Some(vec![1]));
        let none = [0, 0, 0, 9, 0, 0, 0, 0];
        assert_eq!(encode_reservation(9, None)[..], none);
        assert_eq!(decode_holder(&none), Some(None));
        let held = [
            0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 5, 0, 0,
        ];
        let kind = Kind::WriteExclusiveRegistrantsOnly;
        assert_eq!(encode_reservation(9, Some((7, kind)))[..], held);
        assert_eq!(decode_holder(&held), Some(Some(7)));
        assert_eq!(decode_holder(&held[..12]), None);
    }

    proptest! {
        #[test]
        fn never_panics(data: Vec<u8>) {
            drop(decode_keys(&data));
            let _ = decode_holder(&data);
            let _ = ReserveOut::decode(&data);
        }

        #[test]
        fn kinds_round_trip(code: u8) {
            if let Some(kind) = Kind::from_code(code) {
                prop_assert_eq!(kind.code(), code);
            }
        }
    }
}
