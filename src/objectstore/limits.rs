//! Swift's limits and the headers that carry metadata and expiry.

use super::record::Headers;
use axum::http::HeaderMap;
use std::collections::BTreeMap;

pub(super) const MAX_CONTAINER_NAME: usize = 256;
pub(super) const MAX_OBJECT_NAME: usize = 1024;
pub(super) const MAX_META_NAME: usize = 128;
pub(super) const MAX_META_VALUE: usize = 256;
pub(super) const MAX_META_COUNT: usize = 90;
pub(super) const MAX_META_OVERALL: usize = 4096;
pub(super) const MAX_HEADER: usize = 8192;
/// Swift's largest object that is not made of segments.
pub(super) const MAX_OBJECT_BYTES: u64 = 5_368_709_122;
/// Swift's largest `X-Delete-At`.
const MAX_DELETE_AT: i64 = 9_999_999_999;

/// Headers of an object that are stored and answered as they came.
pub(super) const STANDING: [&str; 7] = [
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
    "x-object-manifest",
    "x-robots-tag",
];

/// Takes the headers that begin with `prefix` (`x-object-meta-`), checked against the limits.
/// The error is the body of Swift's 400.
pub(super) fn metadata(
    headers: &HeaderMap,
    prefix: &str,
) -> Result<BTreeMap<String, String>, String> {
    let mut found = BTreeMap::new();
    for (header, value) in headers {
        if value.len() > MAX_HEADER {
            let name: String = header.as_str().chars().take(MAX_META_NAME).collect();
            return Err(format!("Header value too long: {name}"));
        }
        let Some(name) = header.as_str().strip_prefix(prefix) else {
            continue;
        };
        if name.is_empty() {
            return Err("Metadata name cannot be empty".to_owned());
        }
        if name.len() > MAX_META_NAME {
            return Err(format!("Metadata name too long: {header}"));
        }
        if value.len() > MAX_META_VALUE {
            return Err(format!(
                "Metadata value longer than {MAX_META_VALUE}: {header}"
            ));
        }
        let value = std::str::from_utf8(value.as_bytes())
            .map_err(|_| "Metadata must be valid UTF-8".to_owned())?;
        found.insert(header.as_str().to_owned(), value.to_owned());
    }
    check_sum_of(&found, prefix.len())?;
    Ok(found)
}

/// Checks metadata of an account or container as a whole, earlier requests' share included.
pub(super) fn check_sum(metadata: &BTreeMap<String, String>) -> Result<(), String> {
    check_sum_of(metadata, "x-account-meta-".len())
}

fn check_sum_of(metadata: &BTreeMap<String, String>, prefix: usize) -> Result<(), String> {
    if metadata.len() > MAX_META_COUNT {
        return Err(format!("Too many metadata items; max {MAX_META_COUNT}"));
    }
    let size: usize = metadata
        .iter()
        .map(|(name, value)| name.len().saturating_sub(prefix) + value.len())
        .sum();
    if size > MAX_META_OVERALL {
        return Err(format!("Total metadata too large; max {MAX_META_OVERALL}"));
    }
    Ok(())
}

/// What a POST to an account or container sets, and by an empty value removes.
pub(super) fn edits(headers: &HeaderMap, kind: &str) -> Result<BTreeMap<String, String>, String> {
    let mut edits = metadata(headers, &format!("x-{kind}-meta-"))?;
    let remove = format!("x-remove-{kind}-meta-");
    for name in headers.keys() {
        if let Some(name) = name.as_str().strip_prefix(&remove) {
            edits.insert(format!("x-{kind}-meta-{name}"), String::new());
        }
    }
    Ok(edits)
}

/// The metadata and standing headers of an object's PUT or POST.
pub(super) fn object_headers(headers: &HeaderMap) -> Result<Headers, String> {
    let mut found = metadata(headers, "x-object-meta-")?;
    for name in STANDING {
        if let Some(Ok(value)) = headers.get(name).map(|value| value.to_str()) {
            found.insert(name.to_owned(), value.to_owned());
        }
    }
    Ok(Headers(found))
}

/// When the object is to vanish, in Unix seconds. The error is the body of Swift's 400.
pub(super) fn delete_at(headers: &HeaderMap, now: u64) -> Result<Option<u64>, String> {
    let number = |name: &str| -> Option<Option<i64>> {
        let text = headers.get(name)?.to_str().unwrap_or_default();
        Some(text.trim().parse().ok())
    };
    let now = i64::try_from(now).unwrap_or(i64::MAX);
    let (header, at) = match (number("x-delete-after"), number("x-delete-at")) {
        (None, None) => return Ok(None),
        (Some(after), _) => (
            "X-Delete-After",
            after.map(|after| now.saturating_add(after)),
        ),
        (None, Some(at)) => ("X-Delete-At", at),
    };
    let at = at.ok_or_else(|| format!("Non-integer {header}"))?;
    if at <= now {
        return Err(format!("{header} in past"));
    }
    Ok(u64::try_from(at.min(MAX_DELETE_AT)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{HeaderName, HeaderValue};

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&str, &str)| {
            (
                HeaderName::from_bytes(name.as_bytes()).unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            )
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn takes_metadata_within_the_limits() {
        let of = |pairs: &[(&str, &str)]| metadata(&headers(pairs), "x-object-meta-");
        let taken = of(&[("X-Object-Meta-Kernel-Id", "grün"), ("X-Foo", "y")]).unwrap();
        assert_eq!(
            taken,
            [("x-object-meta-kernel-id".into(), "grün".into())].into()
        );
        let long = "v".repeat(257);
        let error = of(&[("X-Object-Meta-N", &long)]).unwrap_err();
        assert_eq!(error, "Metadata value longer than 256: x-object-meta-n");
        assert_eq!(
            of(&[("X-Object-Meta-", "v")]).unwrap_err(),
            "Metadata name cannot be empty"
        );
        let many: Vec<(String, String)> = (0..91)
            .map(|n| (format!("X-Object-Meta-{n}"), "v".to_owned()))
            .collect();
        let many: Vec<(&str, &str)> = many.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(of(&many).unwrap_err(), "Too many metadata items; max 90");
        assert!(of(&many[..90]).is_ok());
    }

    #[test]
    fn reads_expiry_as_swift_does() {
        let of = |pairs: &[(&str, &str)]| delete_at(&headers(pairs), 1000);
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(
            of(&[("X-Delete-After", "5"), ("X-Delete-At", "7000")]),
            Ok(Some(1005))
        );
        assert_eq!(of(&[("X-Delete-At", "7000")]), Ok(Some(7000)));
        assert_eq!(
            of(&[("X-Delete-At", "99999999999999")]),
            Ok(Some(9_999_999_999))
        );
        for (name, value, error) in [
            ("X-Delete-After", "x", "Non-integer X-Delete-After"),
            ("X-Delete-After", "-1", "X-Delete-After in past"),
            ("X-Delete-After", "0", "X-Delete-After in past"),
            ("X-Delete-At", "", "Non-integer X-Delete-At"),
            ("X-Delete-At", "1000", "X-Delete-At in past"),
        ] {
            assert_eq!(of(&[(name, value)]), Err(error.to_owned()));
        }
    }

    #[test]
    fn empty_and_remove_headers_remove() {
        let edits = edits(
            &headers(&[
                ("X-Account-Meta-A", "1"),
                ("X-Account-Meta-B", ""),
                ("X-Remove-Account-Meta-C", "x"),
            ]),
            "account",
        );
        let expected = [("a", "1"), ("b", ""), ("c", "")];
        let expected = expected.map(|(n, v)| (format!("x-account-meta-{n}"), v.to_owned()));
        assert_eq!(edits.unwrap(), expected.into());
    }
}
