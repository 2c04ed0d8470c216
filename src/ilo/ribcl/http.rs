//! HTTP as RIBCL uses it: one request a connection, an answer that ends when the iLO closes.

use crate::error::{Error, Kind, Result};

/// Longest answer that is read; embedded health of a large server has some 200 KiB.
pub(super) const MAX_BYTES: usize = 4 << 20;

/// Longest status line and headers; an iLO's have some 300 bytes.
pub(super) const MAX_HEAD_BYTES: usize = 16 << 10;

/// Status and body of an answer that was read to its end. The last chunk may be missing.
///
/// # Errors
/// `protocol` if it is not HTTP.
pub(super) fn read(bytes: &[u8]) -> Result<(u16, Vec<u8>)> {
    let not_http = || Error::new(Kind::Protocol, "the answer is not HTTP");
    let (head, body) = split_head(bytes).ok_or_else(not_http)?;
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut words = head.split_ascii_whitespace();
    let version = words.next().filter(|w| w.starts_with("http/"));
    let status = version.and_then(|_| words.next()?.parse().ok());
    let status = status.ok_or_else(not_http)?;
    let chunked = header(&head, "transfer-encoding").is_some_and(|v| v.contains("chunked"));
    Ok((
        status,
        if chunked {
            unchunked(body)
        } else {
            body.to_vec()
        },
    ))
}

/// Whether no more has to be read although the connection is open: the answer is complete, or can
/// be none any more.
pub(super) fn is_complete(bytes: &[u8]) -> bool {
    let Some((head, body)) = split_head(bytes) else {
        return bytes.len() > MAX_HEAD_BYTES;
    };
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    match header(&head, "content-length").map(str::parse::<usize>) {
        Some(Ok(length)) => body.len() >= length,
        _ => body.ends_with(b"\r\n0\r\n\r\n") || body.ends_with(b"\n000\r\n\r\n"),
    }
}

fn split_head(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut windows = bytes.windows(4).take(MAX_HEAD_BYTES);
    let at = windows.position(|w| w == b"\r\n\r\n")?;
    Some((bytes.get(..at)?, bytes.get(at + 4..)?))
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(n, _)| *n == name).map(|(_, v)| v.trim())
}

/// What the chunks hold, up to the last one or to where they stop making sense.
fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(at) = body.windows(2).take(64).position(|w| w == b"\r\n") {
        let size = body
            .get(..at)
            .and_then(|line| std::str::from_utf8(line).ok());
        let size = size.and_then(|line| line.split(';').next());
        let Some(size) = size.and_then(|s| usize::from_str_radix(s.trim(), 16).ok()) else {
            break;
        };
        let rest = body.get(at + 2..).unwrap_or_default();
        if size == 0 {
            break;
        }
        whole.extend_from_slice(rest.get(..size).unwrap_or(rest));
        body = rest.get(size.saturating_add(2)..).unwrap_or_default();
    }
    whole
}
