//! Temporary URLs of Swift's tempurl middleware: what is signed and how it is spelled.
//!
//! Pure functions, used by the client that signs and by the built-in store that verifies.

use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::secret::Secret;
use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::GeneralPurpose;
use base64::engine::{DecodePaddingMode, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha1::Sha1;
use sha2::{Sha256, Sha512};
use subtle::ConstantTimeEq;

/// What a path keeps unescaped: RFC 3986's unreserved characters and `/`, as Swift's clients do.
const PATH: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// What a query value keeps unescaped.
const QUERY: &AsciiSet = &PATH.add(b'/');

/// URL-safe, written without padding as python-swiftclient does, read with or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The hash under the signature's HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// Refused by Swift since 2.30 unless configured; the only one before 2.16.
    Sha1,
    /// Spelled as 64 hex digits.
    Sha256,
    /// Spelled as `sha512:` and URL-safe base64: 128 hex digits are too long for some readers.
    Sha512,
}

impl Digest {
    /// The best of the digests that a server lists under `tempurl.allowed_digests`.
    pub fn choose<'a>(allowed: impl IntoIterator<Item = &'a str>) -> Option<Self> {
        let preference = |digest: &Self| match digest {
            Self::Sha256 => 2,
            Self::Sha512 => 1,
            Self::Sha1 => 0,
        };
        allowed
            .into_iter()
            .filter_map(Self::parse)
            .max_by_key(preference)
    }

    /// The digest of this name, as Swift spells it.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "sha1" => Some(Self::Sha1),
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn hmac(self, key: &[u8], message: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha1 => hmac::<Hmac<Sha1>>(key, message),
            Self::Sha256 => hmac::<Hmac<Sha256>>(key, message),
            Self::Sha512 => hmac::<Hmac<Sha512>>(key, message),
        }
    }
}

fn hmac<M: Mac + KeyInit>(key: &[u8], message: &[u8]) -> Vec<u8> {
    #[expect(
        clippy::expect_used,
        reason = "RFC 2104 §2: HMAC takes keys of any length"
    )]
    let mut mac = <M as KeyInit>::new_from_slice(key).expect("a key of any length");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

/// What gets signed: method, expiry in Unix seconds, and the unescaped path from `/v1/` on.
fn message(method: &str, expires: u64, path: &str) -> String {
    format!("{method}\n{expires}\n{path}")
}

/// Signs `method` on `path` (unescaped, from `/v1/` on) until `expires` (Unix seconds).
#[must_use]
pub fn signature(digest: Digest, key: &Secret, method: &str, path: &str, expires: u64) -> String {
    let message = message(method, expires, path);
    let mac = digest.hmac(key.expose().as_bytes(), message.as_bytes());
    match digest {
        Digest::Sha1 | Digest::Sha256 => hex::encode(mac),
        Digest::Sha512 => format!("sha512:{}", BASE64.encode(mac)),
    }
}

/// A signature taken apart: which digest, and the HMAC that it claims.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    digest: Digest,
    mac: Vec<u8>,
}

impl Claim {
    /// Reads a `temp_url_sig` value: hex, whose length names the digest, or `<digest>:<base64>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((name, encoded)) = text.split_once(':') {
            let digest = Digest::parse(name)?;
            // Swift reads the standard alphabet as well.
            let encoded = encoded.replace('+', "-").replace('/', "_");
            let mac = BASE64.decode(encoded).ok()?;
            return Some(Self { digest, mac });
        }
        let digest = match text.len() {
            40 => Digest::Sha1,
            64 => Digest::Sha256,
            128 => Digest::Sha512,
            _ => return None,
        };
        // Swift compares the text, which is lower-case.
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            return None;
        }
        let mac = hex::decode(text).ok()?;
        Some(Self { digest, mac })
    }

    /// Which digest it was made with.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// Whether `key` signed `method` on `path` until `expires`, for clients in `ip_range` if there
    /// is one. A path that is the prefix of many is signed with `prefix:` before it.
    #[must_use]
    pub fn verify(
        &self,
        key: &Secret,
        ip_range: Option<&str>,
        method: &str,
        path: &str,
        expires: u64,
    ) -> bool {
        let mut message = message(method, expires, path);
        if let Some(range) = ip_range {
            message = format!("ip={range}\n{message}");
        }
        let mac = self
            .digest
            .hmac(key.expose().as_bytes(), message.as_bytes());
        mac.ct_eq(&self.mac).into()
    }
}

/// Makes the whole URL. `storage_url` is what authentication answered, `path` is
/// `<container>/<object>`; a `filename` is what the server offers the body as.
///
/// # Errors
/// `invalid` if `storage_url` has no `/v1/` in its path.
pub fn url(
    storage_url: &str,
    path: &str,
    method: &str,
    expires: u64,
    filename: Option<&str>,
    (digest, key): (Digest, &Secret),
) -> Result<Secret> {
    let storage_url = storage_url.trim_end_matches('/');
    let Some(at) = storage_url.find("/v1/") else {
        return Err(Error::new(
            Kind::Invalid,
            "the storage URL has no /v1/ in it, so its paths cannot be signed",
        ));
    };
    let (origin, account) = storage_url.split_at(at);
    let account = percent_encoding::percent_decode_str(account).decode_utf8_lossy();
    let path = format!("{account}/{path}");
    let signature = signature(digest, key, method, &path, expires);
    let mut url = format!(
        "{origin}{}?temp_url_sig={}&temp_url_expires={expires}",
        quote_path(&path),
        utf8_percent_encode(&signature, QUERY)
    );
    if let Some(name) = filename {
        url.push_str("&filename=");
        url.extend(utf8_percent_encode(name, QUERY));
    }
    Ok(Secret::new(url))
}

/// A clock that is so many seconds off is told of: expiry times may be wrong.
pub(crate) const NOTABLE_SKEW: u64 = 30;

/// What may be wrong with a temporary URL that a server refused, by that server's clock if its
/// answer had a `Date`. `None` if `url` is not a temporary one.
#[must_use]
pub fn why_refused(url: &str, theirs: Option<u64>) -> Option<String> {
    let (_, query) = url.split_once('?')?;
    let mut values = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, expires) = values.find(|(name, _)| *name == "temp_url_expires")?;
    // An end that is spelled as a date is the signer's own affair.
    let expires: u64 = expires.parse().ok()?;
    let ours = clock::unix_seconds();
    let now = theirs.unwrap_or(ours);
    let ended = now.checked_sub(expires);
    let skew = theirs.filter(|theirs| theirs.abs_diff(ours) >= NOTABLE_SKEW);
    let skew = skew.map(|theirs| {
        let (way, off) = (
            if theirs > ours { "ahead of" } else { "behind" },
            theirs.abs_diff(ours),
        );
        format!(
            "the Date header of the answer is {off} s {way} this machine's clock: set both clocks"
        )
    });
    Some(match (ended, skew) {
        (Some(ago), Some(skew)) => {
            format!("the temporary URL ended {ago} s ago by the server's clock; {skew}")
        }
        (Some(ago), None) => {
            format!("the temporary URL ended {ago} s ago: sign a new one, or one for longer")
        }
        (None, Some(skew)) => format!("{skew}; if they agree, {KEY}"),
        (None, None) => KEY.to_owned(),
    })
}

const KEY: &str = "the key is not one of the account or the container, \
                   or method or path are not what was signed";

/// Escapes a path for a URL; `/` stays.
#[must_use]
pub fn quote_path(path: &str) -> String {
    utf8_percent_encode(path, PATH).to_string()
}

/// Escapes a value for a URL's query.
#[must_use]
pub fn quote_query(value: &str) -> String {
    utf8_percent_encode(value, QUERY).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with Python's hmac; if these fail do not change the test.
    const PATH: &str =
        "/v1/AUTH_test/ironic_ilo_container/image-1be26c0b-03f2-4d2e-ae87-c02d7f33c781";
    const EXPIRES: u64 = 1_500_000_900;
    const SHA1: &str = "b51052dabe92fdd349f6debc0f3fa14166d3222d";
    const SHA256: &str = "e56ee1b91d9bd8e550fa42707d30dec6a7122006b8653350e847d93385314674";
    const SHA512: &str = "sha512:N76oUxih2T0mYi_xrBZiH2sWAlB1Ki_3fWtWGQLg\
                          IdRiZSP2of_YA_BI7ka7q_Um4BOEalFgHxS_VzhEwncrhw";

    fn key() -> Secret {
        Secret::new("mysecretkey")
    }

    #[test]
    fn signs_as_swift_expects() {
        for (digest, expected) in [
            (Digest::Sha1, SHA1),
            (Digest::Sha256, SHA256),
            (Digest::Sha512, SHA512),
        ] {
            assert_eq!(signature(digest, &key(), "GET", PATH, EXPIRES), expected);
        }
    }

    #[test]
    fn verifies_every_spelling_and_nothing_else() {
        for spelled in [SHA1, SHA256, SHA512, &format!("{SHA512}==")] {
            let claim = Claim::parse(spelled).unwrap();
            assert!(
                claim.verify(&key(), None, "GET", PATH, EXPIRES),
                "{spelled}"
            );
            assert!(!claim.verify(&key(), None, "PUT", PATH, EXPIRES));
            assert!(!claim.verify(&key(), None, "GET", PATH, EXPIRES + 1));
            assert!(!claim.verify(&key(), None, "GET", &PATH[..PATH.len() - 1], EXPIRES));
            assert!(!claim.verify(&Secret::new("other"), None, "GET", PATH, EXPIRES));
        }
        let standard = SHA512.replace('_', "/").replace('-', "+");
        assert!(
            Claim::parse(&standard)
                .unwrap()
                .verify(&key(), None, "GET", PATH, EXPIRES)
        );
        let truncated = Claim::parse("sha512:N76o").unwrap();
        assert!(!truncated.verify(&key(), None, "GET", PATH, EXPIRES));
        assert!(
            !Claim::parse("sha256:")
                .unwrap()
                .verify(&key(), None, "GET", PATH, EXPIRES)
        );
        for broken in [
            "",
            "abc",
            "md5:abc",
            &"zz".repeat(32),
            "sha256:***",
            &SHA256.to_uppercase(),
        ] {
            assert_eq!(Claim::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn chooses_sha256_then_sha512_then_sha1() {
        assert_eq!(
            Digest::choose(["sha1", "sha256", "sha512"]),
            Some(Digest::Sha256)
        );
        assert_eq!(Digest::choose(["sha512", "sha1"]), Some(Digest::Sha512));
        assert_eq!(Digest::choose(["sha1", "blake"]), Some(Digest::Sha1));
        assert_eq!(Digest::choose(["blake"]), None);
    }

    #[test]
    fn a_refusal_is_explained_by_the_clocks_or_the_key() {
        let now = clock::unix_seconds();
        let url =
            |expires: u64| format!("https://h/v1/a/c/o?temp_url_sig=x&temp_url_expires={expires}");
        let why = |expires, theirs| why_refused(&url(expires), theirs).unwrap();
        let key = why(now + 600, Some(now));
        assert_eq!(key, KEY);
        let over = why(now - 5, None);
        assert!(over.contains("ended") && !over.contains("key"), "{over}");
        let skew = why(now + 600, Some(now + 7200));
        assert!(
            skew.contains("ended") && skew.contains("ahead of"),
            "{skew}"
        );
        let behind = why(now + 600, Some(now - 7200));
        assert!(
            behind.contains("key") && behind.contains("behind"),
            "{behind}"
        );
        assert_eq!(why_refused("https://h/x?temp_url_expires=soon", None), None);
        assert_eq!(why_refused("https://h/x", Some(now)), None);
    }

    #[test]
    fn makes_a_url_whose_escapes_are_outside_the_signature() {
        let made = url(
            "https://host:8443/v1/AUTH_test/",
            "c/bü t%.iso",
            "GET",
            EXPIRES,
            Some("a b/c.iso"),
            (Digest::Sha256, &key()),
        )
        .unwrap();
        let signed = signature(
            Digest::Sha256,
            &key(),
            "GET",
            "/v1/AUTH_test/c/bü t%.iso",
            EXPIRES,
        );
        assert_eq!(
            made.expose(),
            format!(
                "https://host:8443/v1/AUTH_test/c/b%C3%BC%20t%25.iso?temp_url_sig={signed}\
                 &temp_url_expires=1500000900&filename=a%20b%2Fc.iso"
            )
        );
        assert!(
            url(
                "https://host/x",
                "c/o",
                "GET",
                1,
                None,
                (Digest::Sha256, &key())
            )
            .is_err()
        );
    }
}
