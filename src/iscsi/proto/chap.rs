//! CHAP (RFC 7143 section 12.1.3, RFC 1994): who knows the secret.

use crate::secret::Secret;
use base64::Engine as _;
use md5::{Digest, Md5};
use sha1::Sha1;
use sha2::Sha256;
use sha3::Sha3_256;
use subtle::ConstantTimeEq;

/// Names and secrets of one target.
#[derive(Debug, Clone)]
pub struct Chap {
    /// The name by which the initiator authenticates itself.
    pub user: String,
    /// Its secret.
    pub secret: Secret,
    /// Name and secret by which the target authenticates itself, if it must. The secret must be
    /// another one.
    pub mutual: Option<(String, Secret)>,
}

impl Chap {
    /// Whether the two secrets are usable together.
    ///
    /// With one secret for both directions, a false target could have the true initiator answer
    /// its own challenge.
    #[must_use]
    pub fn has_distinct_secrets(&self) -> bool {
        let mutual = self.mutual.as_ref();
        !mutual.is_some_and(|(_, secret)| secret.matches(self.secret.expose()))
    }
}

/// Random bytes for the challenge of one login, drawn by the caller.
#[derive(Debug, Clone, Copy)]
pub struct Challenge {
    /// CHAP_I.
    pub id: u8,
    /// CHAP_C.
    pub bytes: [u8; 32],
}

/// A hash by its number in IANA's PPP registry (CHAP_A).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// 5.
    Md5,
    /// 6.
    Sha1,
    /// 7.
    Sha256,
    /// 8.
    Sha3_256,
}

/// All, the strongest first.
const ALL: [Algorithm; 4] = [
    Algorithm::Sha3_256,
    Algorithm::Sha256,
    Algorithm::Sha1,
    Algorithm::Md5,
];

impl Algorithm {
    /// What an initiator offers.
    ///
    /// A target picks the first that it knows. MD5 stands before SHA-256, as tgt takes 7 for SHA-1.
    pub const OFFER: &str = "8,5,7,6";

    /// The strongest one in a CHAP_A list.
    #[must_use]
    pub fn strongest(list: &str) -> Option<Self> {
        ALL.into_iter()
            .find(|algorithm| list.split(',').any(|number| number == algorithm.number()))
    }

    /// The one with this number.
    #[must_use]
    pub fn of(number: &str) -> Option<Self> {
        ALL.into_iter()
            .find(|algorithm| algorithm.number() == number)
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> &'static str {
        match self {
            Self::Md5 => "5",
            Self::Sha1 => "6",
            Self::Sha256 => "7",
            Self::Sha3_256 => "8",
        }
    }

    /// The response to a challenge: the hash of identifier, secret and challenge.
    #[must_use]
    pub fn respond(self, id: u8, secret: &Secret, challenge: &[u8]) -> Vec<u8> {
        fn hash<D: Digest>(parts: [&[u8]; 3]) -> Vec<u8> {
            let mut hash = D::new();
            parts.iter().for_each(|part| hash.update(part));
            hash.finalize().to_vec()
        }
        let parts = [&[id], secret.expose().as_bytes(), challenge];
        match self {
            Self::Md5 => hash::<Md5>(parts),
            Self::Sha1 => hash::<Sha1>(parts),
            Self::Sha256 => hash::<Sha256>(parts),
            Self::Sha3_256 => hash::<Sha3_256>(parts),
        }
    }

    /// Whether `response` answers the challenge, in time that does not depend on it.
    #[must_use]
    pub fn verify(self, id: u8, secret: &Secret, challenge: &[u8], response: &[u8]) -> bool {
        self.respond(id, secret, challenge).ct_eq(response).into()
    }
}

/// A large binary value: hexadecimal after `0x`, base64 after `0b` (RFC 7143 section 6.1).
#[must_use]
pub fn decode_binary(text: &str) -> Option<Vec<u8>> {
    // CHAP_C and CHAP_R are at most 1024 bytes long (section 12.1.3).
    const MAX_BYTES: usize = 1024;
    let (prefix, digits) = text.split_at_checked(2)?;
    let bytes = match prefix {
        "0x" | "0X" if digits.len() % 2 == 1 => hex::decode(format!("0{digits}")).ok()?,
        "0x" | "0X" => hex::decode(digits).ok()?,
        "0b" | "0B" => base64::engine::general_purpose::STANDARD
            .decode(digits)
            .ok()?,
        _ => return None,
    };
    (bytes.len() <= MAX_BYTES).then_some(bytes)
}

/// The hexadecimal form of a large binary value.
#[must_use]
pub fn encode_binary(bytes: &[u8]) -> String {
    format!("0x{}", hex::encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Computed with Python's hashlib over the same bytes. If this fails do not change the test.
    #[test]
    fn vectors() {
        let secret = Secret::new("topsecret1234");
        let challenge: Vec<u8> = (0..16).collect();
        let table = [
            (Algorithm::Md5, "9d43f03c62dc5dfbbacfb00fe6608bb6"),
            (Algorithm::Sha1, "b7578e8f4f0e41be49c5f4916ea771a5f12c62ba"),
            (
                Algorithm::Sha256,
                "a1bd68ee6b5becc0f9ff7ddb436903a6a41662fff5f42209c2a10f27e9197568",
            ),
            (
                Algorithm::Sha3_256,
                "69c91f7b36663bbe5a3db2a4d9687c0723a30c214871cfab4ba781bcf008256a",
            ),
        ];
        for (algorithm, expected) in table {
            let response = algorithm.respond(0x2a, &secret, &challenge);
            assert_eq!(hex::encode(&response), expected);
            assert!(algorithm.verify(0x2a, &secret, &challenge, &response));
            assert!(!algorithm.verify(0x2b, &secret, &challenge, &response));
            assert!(!algorithm.verify(0x2a, &Secret::new("other"), &challenge, &response));
            assert!(!algorithm.verify(0x2a, &secret, &challenge, &response[1..]));
        }
    }

    #[test]
    fn picks_the_strongest_known() {
        assert_eq!(Algorithm::strongest("5,7,6"), Some(Algorithm::Sha256));
        assert_eq!(Algorithm::strongest("5"), Some(Algorithm::Md5));
        assert_eq!(Algorithm::strongest("5,8"), Some(Algorithm::Sha3_256));
        assert_eq!(Algorithm::strongest("9,55"), None);
    }

    #[test]
    fn binary_forms() {
        assert_eq!(decode_binary("0x0aFF"), Some(vec![0x0a, 0xff]));
        assert_eq!(decode_binary("0xaff"), Some(vec![0x0a, 0xff]));
        assert_eq!(decode_binary("0bCv8="), Some(vec![0x0a, 0xff]));
        assert_eq!(decode_binary("0aff"), None);
        assert_eq!(decode_binary("0xgg"), None);
        assert_eq!(decode_binary("é"), None);
        assert_eq!(decode_binary(&format!("0x{}", "00".repeat(1025))), None);
    }

    #[test]
    fn one_secret_for_both_directions_is_noticed() {
        let mut chap = Chap {
            user: "u".into(),
            secret: Secret::new("a"),
            mutual: None,
        };
        assert!(chap.has_distinct_secrets());
        chap.mutual = Some(("t".into(), Secret::new("a")));
        assert!(!chap.has_distinct_secrets());
    }

    proptest! {
        #[test]
        fn binary_round_trip(bytes in proptest::collection::vec(any::<u8>(), 0..1024)) {
            prop_assert_eq!(decode_binary(&encode_binary(&bytes)), Some(bytes));
        }

        #[test]
        fn binary_never_panics(text: String) {
            drop(decode_binary(&text));
        }
    }
}
