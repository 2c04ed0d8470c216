//! Arguments as text that is the same in every process.

use serde_json::Value;
use sha2::{Digest, Sha256};

/// JSON with sorted keys. `serde_json` keeps objects sorted unless built with `preserve_order`;
/// the test below fails should a dependency ever turn that on.
pub(super) fn text(value: &Value) -> String {
    value.to_string()
}

/// SHA-256 of the canonical text, hex.
pub(super) fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let value: Value =
            serde_json::from_str(r#"{"b":1,"a":{"z":0,"y":[{"d":1,"c":2}]}}"#).unwrap();
        assert_eq!(text(&value), r#"{"a":{"y":[{"c":2,"d":1}],"z":0},"b":1}"#);
    }
}
