//! What a status stands for: the kind of failure, whether asking again may help and when, and
//! what to do about it.

use crate::clock;
use crate::error::{Error, Kind};
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use std::time::{SystemTime, UNIX_EPOCH};

/// The detail of an error with the seconds that the service wants to be left alone.
pub(crate) const RETRY_DETAIL: &str = "retry_after";

/// The kind that an unexpected HTTP status stands for.
#[must_use]
pub fn kind_of_status(status: StatusCode) -> Kind {
    match status.as_u16() {
        401 | 403 => Kind::Auth,
        404 | 410 => Kind::NotFound,
        409 | 412 => Kind::Conflict,
        408 | 504 => Kind::Timeout,
        413 | 429 | 507 => Kind::Limit,
        405 | 501 => Kind::Unsupported,
        400..=499 => Kind::Refused,
        502 | 503 => Kind::Unreachable,
        _ => Kind::Protocol,
    }
}

/// Whether the answer means "not now": asking again may help and cannot harm.
pub(crate) fn later(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        408 | 429 | 498 | 499 | 500 | 502 | 503 | 504
    )
}

/// The error of an unwanted answer, with a hint only if the answer itself has one.
pub(crate) fn judged(message: String, status: StatusCode, headers: &HeaderMap) -> Error {
    let error = Error::new(kind_of_status(status), message)
        .retryable(later(status))
        .detail("status", status.as_u16());
    match retry_after(headers).filter(|_| later(status)) {
        Some(seconds) => error
            .detail(RETRY_DETAIL, seconds)
            .hint(format!("it asks to be left alone for {seconds} s")),
        None => error,
    }
}

/// What to do about a status, where nobody knows better.
pub(crate) fn advised(error: Error, status: StatusCode) -> Error {
    let hint = match status.as_u16() {
        403 => "who asks is known and may not do this: check its roles and the access lists",
        409 => "somebody else changes it, or its state forbids this; look at it, then try again",
        413 | 507 => "it is over a limit or quota of the service, or its disks are full",
        429 | 498 => "the service has too many requests; try again later, or with fewer runs",
        500..=599 => "look at the service and at its log",
        _ => return error,
    };
    error.hint(hint)
}

/// Seconds of `Retry-After`, which is a number or a date of the server's clock (RFC 9110 §10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(seconds);
    }
    let then = httpdate::parse_http_date(text).ok()?;
    let now = time(headers, DATE).unwrap_or_else(clock::now);
    Some(then.duration_since(now).unwrap_or_default().as_secs())
}

/// Unix seconds of the server's clock, as its `Date` tells.
pub(crate) fn server_seconds(headers: &HeaderMap) -> Option<u64> {
    let since = time(headers, DATE)?.duration_since(UNIX_EPOCH);
    since.ok().map(|since| since.as_secs())
}

fn time(headers: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(headers.get(name)?.to_str().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &str)]) -> HeaderMap {
        let pair = |(name, value): &(HeaderName, &str)| (name.clone(), value.parse().unwrap());
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn a_date_to_come_back_at_is_counted_by_the_clock_that_made_it() {
        let now = || (DATE, "Wed, 21 Oct 2015 07:28:00 GMT");
        let told = |text| retry_after(&headers(&[now(), (RETRY_AFTER, text)]));
        assert_eq!(told(" 7 "), Some(7));
        assert_eq!(told("Wed, 21 Oct 2015 07:28:30 GMT"), Some(30));
        assert_eq!(told("Wed, 21 Oct 2015 07:27:00 GMT"), Some(0));
        assert_eq!(told("soon"), None);
        assert_eq!(told("-1"), None);
        assert_eq!(server_seconds(&headers(&[now()])), Some(1_445_412_480));
        assert_eq!(retry_after(&headers(&[])), None);
    }

    #[test]
    fn only_who_may_come_again_is_told_when() {
        let asks = headers(&[(RETRY_AFTER, "5")]);
        for (status, kind, retry) in [(503, Kind::Unreachable, true), (403, Kind::Auth, false)] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = advised(judged(String::new(), status, &asks), status);
            let named = (error.kind(), error.is_retryable());
            assert_eq!(named, (kind, retry));
            assert_eq!(error.details().contains_key(RETRY_DETAIL), retry);
            assert_eq!(error.advice().unwrap().contains("5 s"), retry);
        }
    }
}
