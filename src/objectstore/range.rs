//! Which bytes a request asks for, and under which conditions (RFC 9110 §13, §14).

use axum::http::{HeaderMap, HeaderName, header};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a `Range` header comes to for a body of known length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Requested {
    /// All of it: no header, one that cannot be read, or several ranges, which a server may
    /// ignore (RFC 9110 §14.2).
    Whole,
    /// The bytes from `first` to `last`, both included and inside the body.
    Part { first: u64, last: u64 },
    /// Nothing of the body: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a body of `length` bytes.
pub(super) fn requested(header: &str, length: u64) -> Requested {
    let Some((unit, specs)) = header.split_once('=') else {
        return Requested::Whole;
    };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Requested::Whole;
    }
    let mut found = Requested::Unsatisfiable;
    for spec in specs.split(',') {
        match (one_range(spec, length), found) {
            (None | Some(Requested::Whole), _) => return Requested::Whole,
            (Some(Requested::Unsatisfiable), _) => {}
            (Some(part), Requested::Unsatisfiable) => found = part,
            (Some(_), _) => return Requested::Whole,
        }
    }
    found
}

/// `first-last`, `first-` or `-suffix`; `None` if it is none of them.
fn one_range(spec: &str, length: u64) -> Option<Requested> {
    let (first, last) = spec.split_once('-')?;
    let (first, last) = (position(first)?, position(last)?);
    let range = match (first, last) {
        (None, None) => return None,
        (None, Some(0)) => Requested::Unsatisfiable,
        // Swift answers a suffix of an empty object with the empty object.
        (None, Some(_)) if length == 0 => Requested::Whole,
        (None, Some(suffix)) => Requested::Part {
            first: length.saturating_sub(suffix),
            last: length - 1,
        },
        (Some(first), Some(last)) if last < first => return None,
        (Some(first), _) if first >= length => Requested::Unsatisfiable,
        (Some(first), last) => Requested::Part {
            first,
            last: last.unwrap_or(u64::MAX).min(length - 1),
        },
    };
    Some(range)
}

/// Digits (any number of them), or nothing; `None` for anything else.
fn position(text: &str) -> Option<Option<u64>> {
    let text = text.trim();
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| Some(text.parse().unwrap_or(u64::MAX)))
}

/// Whether a GET or HEAD goes ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Proceed,
    NotModified,
    Failed,
}

/// Evaluates the conditions in the order of RFC 9110 §13.2.2. `modified` is in Unix seconds.
pub(super) fn evaluate(headers: &HeaderMap, etag: &str, modified: u64) -> Verdict {
    if let Some(listed) = text(headers, &header::IF_MATCH) {
        if !lists(listed, etag) {
            return Verdict::Failed;
        }
    } else if date(headers, &header::IF_UNMODIFIED_SINCE).is_some_and(|since| modified > since) {
        return Verdict::Failed;
    }
    if let Some(listed) = text(headers, &header::IF_NONE_MATCH) {
        if lists(listed, etag) {
            return Verdict::NotModified;
        }
    } else if date(headers, &header::IF_MODIFIED_SINCE).is_some_and(|since| modified <= since) {
        return Verdict::NotModified;
    }
    Verdict::Proceed
}

/// Whether a `Range` still means this representation (RFC 9110 §13.1.5).
pub(super) fn range_applies(headers: &HeaderMap, etag: &str, modified: u64) -> bool {
    match text(headers, &header::IF_RANGE) {
        None => true,
        Some(value) if httpdate::parse_http_date(value).is_ok() => {
            date(headers, &header::IF_RANGE) == Some(modified)
        }
        Some(value) => value != "*" && lists(value, etag),
    }
}

/// Whether a list of entity tags, quoted or bare as Swift's clients send them, has this one.
fn lists(list: &str, etag: &str) -> bool {
    list.split(',')
        .map(|tag| tag.trim().trim_matches('"'))
        .any(|tag| tag == "*" || tag == etag)
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<u64> {
    let date = httpdate::parse_http_date(text(headers, name)?).ok()?;
    Some(date.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

/// Writes Unix seconds as an HTTP date; the format ends with the year 9999.
pub(super) fn http_date(seconds: u64) -> String {
    const LAST: u64 = 253_402_300_799;
    let time: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds.min(LAST));
    httpdate::fmt_http_date(time)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(first: u64, last: u64) -> Requested {
        Requested::Part { first, last }
    }

    // What Swift 2.38 answers for an object of eleven bytes, but for the two marked ones.
    #[test]
    fn reads_ranges_as_swift_does() {
        for (header, expected) in [
            ("bytes=0-4", part(0, 4)),
            ("bytes=6-", part(6, 10)),
            ("bytes=-3", part(8, 10)),
            ("bytes=-0", Requested::Unsatisfiable),
            ("bytes=-100", part(0, 10)),
            ("bytes=5-2", Requested::Whole),
            ("bytes=11-", Requested::Unsatisfiable),
            ("bytes=10-20", part(10, 10)),
            ("bytes=100-200", Requested::Unsatisfiable),
            ("bytes=0-0,2-3", Requested::Whole), // Swift: multipart/byteranges
            ("bytes=0-0,100-200", part(0, 0)),
            ("bytes=100-,200-", Requested::Unsatisfiable),
            ("items=0-4", Requested::Whole),
            ("bytes=a-b", Requested::Whole),
            ("bytes=+1-2", Requested::Whole),
            ("bytes=", Requested::Whole),
            ("bytes=0-1,", Requested::Whole),
            ("bytes= 0 - 1", part(0, 1)),
            ("Bytes=0-1", part(0, 1)),
            ("bytes=-", Requested::Whole),
            ("bytes=0-99999999999999999999", part(0, 10)),
            ("bytes=99999999999999999999-", Requested::Unsatisfiable),
        ] {
            assert_eq!(requested(header, 11), expected, "{header}");
        }
        assert_eq!(requested("bytes=0-", 0), Requested::Unsatisfiable);
        assert_eq!(requested("bytes=-5", 0), Requested::Whole);
    }

    #[test]
    fn evaluates_conditions() {
        let verdict = |name: HeaderName, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            evaluate(&headers, "e7a6", 1_700_000_000)
        };
        let (before, after) = (http_date(1_699_999_999), http_date(1_700_000_001));
        for (name, value, expected) in [
            (header::IF_NONE_MATCH, "e7a6", Verdict::NotModified),
            (
                header::IF_NONE_MATCH,
                "\"x\", \"e7a6\"",
                Verdict::NotModified,
            ),
            (header::IF_NONE_MATCH, "*", Verdict::NotModified),
            (header::IF_NONE_MATCH, "x", Verdict::Proceed),
            (header::IF_MATCH, "\"e7a6\"", Verdict::Proceed),
            (header::IF_MATCH, "x", Verdict::Failed),
            (header::IF_MODIFIED_SINCE, &before, Verdict::Proceed),
            (header::IF_MODIFIED_SINCE, &after, Verdict::NotModified),
            (header::IF_MODIFIED_SINCE, "garbage", Verdict::Proceed),
            (header::IF_UNMODIFIED_SINCE, &before, Verdict::Failed),
            (header::IF_UNMODIFIED_SINCE, &after, Verdict::Proceed),
        ] {
            assert_eq!(verdict(name.clone(), value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn if_range_needs_the_same_representation() {
        let applies = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_RANGE, value.parse().unwrap());
            range_applies(&headers, "e7a6", 1_700_000_000)
        };
        assert!(applies("\"e7a6\"") && applies(&http_date(1_700_000_000)));
        assert!(!applies("\"x\"") && !applies(&http_date(1_700_000_001)) && !applies("*"));
        assert!(range_applies(&HeaderMap::new(), "e7a6", 0));
    }

    #[test]
    fn dates_end_with_the_year_9999() {
        assert_eq!(http_date(u64::MAX), "Fri, 31 Dec 9999 23:59:59 GMT");
    }

    proptest! {
        #[test]
        fn a_part_lies_inside(header in "\\PC{0,40}|bytes=[0-9, -]{0,40}", length: u64) {
            if let Requested::Part { first, last } = requested(&header, length) {
                prop_assert!(first <= last && last < length);
            }
        }

        #[test]
        fn reads_what_it_should(first: u64, extra: u64, length: u64) {
            let last = first.saturating_add(extra);
            let expected = if first >= length {
                Requested::Unsatisfiable
            } else {
                part(first, last.min(length - 1))
            };
            prop_assert_eq!(requested(&format!("bytes={first}-{last}"), length), expected);
        }
    }
}
