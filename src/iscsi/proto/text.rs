//! `key=value` text of Login and Text PDUs (RFC 7143 section 6.1).

use super::error::InvalidPdu;
use bytes::Bytes;

/// The most text that one exchange may have, over all its continued PDUs.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// Pairs in the order in which they stand on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Text(Vec<(String, String)>);

impl Text {
    /// No pairs.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a pair.
    pub fn push(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.0.push((key.into(), value.into()));
    }

    /// Appends a pair.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.push(key, value);
        self
    }

    /// The value of the first pair with this key.
    #[must_use]
    pub fn value(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| v)
    }

    /// All pairs.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Whether there is no pair.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The data segment: each pair ended by a NUL.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::new();
        for (key, value) in &self.0 {
            out.extend_from_slice(key.as_bytes());
            out.push(b'=');
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        out.into()
    }

    /// Parses a whole data segment, of all continued PDUs together.
    ///
    /// # Errors
    /// If a pair has no `=`, no key or a key over 63 bytes, or is not UTF-8.
    pub fn decode(data: &[u8]) -> Result<Self, InvalidPdu> {
        let mut text = Self::new();
        for pair in data.split(|byte| *byte == 0) {
            // Deviates: section 6.1 wants exactly one NUL after each pair; targets pad with more.
            if pair.is_empty() {
                continue;
            }
            let pair = std::str::from_utf8(pair).map_err(|_| InvalidPdu::Text("not UTF-8"))?;
            let (key, value) = pair
                .split_once('=')
                .ok_or(InvalidPdu::Text("a pair without an equals sign"))?;
            if key.is_empty() || key.len() > 63 {
                return Err(InvalidPdu::Text("a key of no or more than 63 bytes"));
            }
            text.push(key, value);
        }
        Ok(text)
    }
}

/// Collects the data segments of PDUs with the C (continue) bit until one comes without.
#[derive(Debug, Default)]
pub struct Continuation(Vec<u8>);

impl Continuation {
    /// Adds a segment; yields the text once it is whole.
    ///
    /// # Errors
    /// If the text is malformed or longer than [`MAX_TEXT_BYTES`].
    pub fn add(&mut self, data: &[u8], more_follows: bool) -> Result<Option<Text>, InvalidPdu> {
        if self.0.len() + data.len() > MAX_TEXT_BYTES {
            return Err(InvalidPdu::Text("more than 64 KiB of text"));
        }
        if more_follows {
            self.0.extend_from_slice(data);
            return Ok(None);
        }
        if self.0.is_empty() {
            return Text::decode(data).map(Some);
        }
        let mut whole = std::mem::take(&mut self.0);
        whole.extend_from_slice(data);
        Text::decode(&whole).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wire_form() {
        let text = Text::new()
            .with("InitiatorName", "iqn.a:b")
            .with("Empty", "")
            .with("Url", "a=b");
        assert_eq!(
            &text.encode()[..],
            b"InitiatorName=iqn.a:b\0Empty=\0Url=a=b\0"
        );
        assert_eq!(Text::decode(&text.encode()), Ok(text));
    }

    #[test]
    fn continued_pairs_may_be_cut_anywhere() {
        let mut parts = Continuation::default();
        assert_eq!(parts.add(b"TargetNa", true), Ok(None));
        assert_eq!(parts.add(b"me=iqn.x\0Targ", true), Ok(None));
        let text = parts.add(b"etAddress=1.2.3.4\0", false).unwrap().unwrap();
        assert_eq!(text.value("TargetName"), Some("iqn.x"));
        assert_eq!(text.value("TargetAddress"), Some("1.2.3.4"));
    }

    #[test]
    fn refuses_what_is_not_text() {
        assert!(Text::decode(b"novalue\0").is_err());
        assert!(Text::decode(b"=x\0").is_err());
        assert!(Text::decode(b"\xff\xfe=x\0").is_err());
        let mut parts = Continuation::default();
        for _ in 0..8 {
            assert_eq!(parts.add(&[b'a'; 8192], true), Ok(None));
        }
        assert!(parts.add(b"a", true).is_err());
    }

    proptest! {
        #[test]
        fn round_trip(pairs in proptest::collection::vec(("[A-Za-z]{1,63}", "[ -~]{0,80}"), 0..20)) {
            let text = Text(pairs);
            prop_assert_eq!(Text::decode(&text.encode()), Ok(text));
        }

        #[test]
        fn never_panics(data: Vec<u8>) {
            drop(Text::decode(&data));
        }
    }
}
