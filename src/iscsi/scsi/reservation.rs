//! Persistent reservations: who may write a unit (SPC-5 sections 5.14, 6.16 and 6.17).

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// SERVICE ACTION of PERSISTENT RESERVE IN.
pub mod read {
    /// The keys of all registered initiator ports.
    pub const KEYS: u8 = 0;
    /// The reservation.
    pub const RESERVATION: u8 = 1;
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

/// TYPE: everybody may read, and whoever is registered may write.
pub const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;

/// The parameter list of PERSISTENT RESERVE OUT, without its flags: the registration is to be
/// forgotten when the target loses power.
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

/// Key, scope and type of the reservation in READ RESERVATION data; the inner `None` if there is
/// none.
#[must_use]
pub fn decode_reservation(mut data: &[u8]) -> Option<Option<(u64, u8)>> {
    data.try_get_u32().ok()?; // PRGENERATION
    if data.try_get_u32().ok()? == 0 {
        return Some(None);
    }
    let key = data.try_get_u64().ok()?;
    let kind = *data.get(5)?;
    Some(Some((key, kind)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// If this fails do not change the test.
    #[test]
    fn on_the_wire() {
        let list = ReserveOut { key: 1, other: 2 }.encode();
        assert_eq!(
            list[..],
            [
                &[0, 0, 0, 0, 0, 0, 0, 1][..],
                &[0, 0, 0, 0, 0, 0, 0, 2],
                &[0; 8]
            ]
            .concat()
        );
        let keys = [
            0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2,
        ];
        assert_eq!(decode_keys(&keys), Some(vec![1, 2]));
        assert_eq!(decode_keys(&keys[..20]), Some(vec![1]));
        let none = [0, 0, 0, 9, 0, 0, 0, 0];
        assert_eq!(decode_reservation(&none), Some(None));
        let held = [
            0, 0, 0, 9, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 5, 0, 0,
        ];
        assert_eq!(decode_reservation(&held), Some(Some((7, 5))));
        assert_eq!(decode_reservation(&held[..20]), None);
    }

    proptest! {
        #[test]
        fn never_panics(data: Vec<u8>) {
            drop(decode_keys(&data));
            let _ = decode_reservation(&data);
        }
    }
}
