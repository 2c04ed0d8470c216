//! Hashes that tell whether a disk holds what was written: AEGIS-128X2 used as a MAC (RFC 10032),
//! with the processor's AES instructions a tenth of BLAKE3's work. What the key buys: whoever
//! chose what lies on a disk before did not know it, so he cannot have made bytes that pass for
//! others. It protects no channel: whoever can change what is written can change what is read.

use aegis::aegis128x2::Aegis128X2Mac;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::sync::LazyLock;

/// Length of a hash in bytes.
pub const HASH_BYTES: usize = 32;

/// Length of a key in bytes.
pub const KEY_BYTES: usize = 16;

/// What hashes depend on besides the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HashKey(#[serde(with = "in_hex")] pub [u8; KEY_BYTES]);

#[expect(
    clippy::expect_used,
    reason = "a host without random bytes has no TLS either"
)]
static OF_THIS_PROCESS: LazyLock<HashKey> = LazyLock::new(|| {
    let mut key = [0; KEY_BYTES];
    getrandom::fill(&mut key).expect("the system gives random bytes");
    HashKey(key)
});

impl HashKey {
    /// One for all images that this process reads, so that an image on its way to many disks is
    /// hashed once.
    #[must_use]
    pub fn of_this_process() -> Self {
        *OF_THIS_PROCESS
    }

    /// For bytes that come in parts.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        Hasher(Aegis128X2Mac::new(&self.0))
    }

    /// The hash of these bytes.
    #[must_use]
    pub fn hash(self, bytes: &[u8]) -> [u8; HASH_BYTES] {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl Default for HashKey {
    fn default() -> Self {
        Self::of_this_process()
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(***)")
    }
}

mod in_hex {
    use super::KEY_BYTES;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(
        key: &[u8; KEY_BYTES],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.serialize_str(&hex::encode(key))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<[u8; KEY_BYTES], D::Error> {
        let mut key = [0; KEY_BYTES];
        let text = String::deserialize(from)?;
        hex::decode_to_slice(text, &mut key)
            .map_err(|_| Error::custom("not a key of 32 hex digits"))?;
        Ok(key)
    }
}

/// A hash in the making.
#[derive(Debug, Clone)]
pub struct Hasher(Aegis128X2Mac<HASH_BYTES>);

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The hash of all of them.
    #[must_use]
    pub fn finish(self) -> [u8; HASH_BYTES] {
        self.0.finalize()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appendix of RFC 10032, AEGISMAC-128X2: the library is what it says, on this processor too.
    #[test]
    fn the_vector_of_the_rfc() {
        let (mut key, mut nonce) = ([0; 16], [0; 16]);
        key[..2].copy_from_slice(&[0x10, 0x01]);
        nonce[..3].copy_from_slice(&[0x10, 0x00, 0x02]);
        let mut mac = Aegis128X2Mac::<HASH_BYTES>::new_with_nonce(&key, &nonce);
        let data: Vec<u8> = (0..0x23).collect();
        mac.update(&data);
        let tag = "afcba3fc2d63c8d6c7f2d63f3ec8fbbbaf022e15ac120e78ffa7755abccd959c";
        assert_eq!(hex::encode(mac.finalize()), tag);
    }

    /// If this fails do not change the test: ramdisks of other versions are out there.
    #[test]
    fn hashes_stay_what_they_are() {
        let key = HashKey([7; KEY_BYTES]);
        let mut parts = key.hasher();
        parts.update(b"what a ");
        parts.update(b"disk holds");
        let hash = key.hash(b"what a disk holds");
        assert_eq!(parts.finish(), hash);
        assert_eq!(
            hex::encode(hash),
            "67a1005b5125ee2cb2db4e33acb9402ab8586c97c930b2120c044bbb7c1f1ea8"
        );
        assert_ne!(HashKey([8; KEY_BYTES]).hash(b"what a disk holds"), hash);
    }

    #[test]
    fn a_key_is_kept_and_not_printed() {
        let key = HashKey([0xab; KEY_BYTES]);
        assert_eq!(format!("{key:?}"), "HashKey(***)");
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(serde_json::from_str::<HashKey>(&json).unwrap(), key);
        serde_json::from_str::<HashKey>("\"ab\"").unwrap_err();
    }
}
