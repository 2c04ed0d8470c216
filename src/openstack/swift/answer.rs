//! Answers that are not what was hoped for, and bodies that are read whole.

use crate::error::{Error, Kind, Result};
use crate::http;
use crate::openstack::temp_url::Digest;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use std::time::Duration;

/// Most of an error's body that is read, and shown.
const READ: usize = 4096;
const SHOWN: usize = 240;
/// Largest JSON document.
const JSON: usize = 16 << 20;
/// An error's body is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether the answer means "not now": asking again may help and cannot harm.
pub(super) fn later(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        408 | 429 | 498 | 499 | 500 | 502 | 503 | 504
    )
}

/// Turns an unwanted answer into an error that tells what the server said.
pub(super) async fn refused(response: Response) -> Error {
    let status = response.status();
    let transaction = response.headers().get("x-trans-id");
    let transaction = transaction
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let said = tokio::time::timeout(PATIENCE, bounded(response, READ)).await;
    let (body, _) = said.ok().and_then(Result::ok).unwrap_or_default();
    let mut message = format!("the object store answered {status}");
    let said = plain_text(&String::from_utf8_lossy(&body));
    if !said.is_empty() {
        message = format!("{message}: {said}");
    }
    let error = Error::new(http::kind_of_status(status), message)
        .retryable(later(status))
        .detail("status", status.as_u16());
    let error = match transaction {
        Some(id) => error.detail("transaction", id),
        None => error,
    };
    match status.as_u16() {
        403 => error.hint("give the user a role that may write to the account"),
        413 | 507 => {
            error.hint("the object store is full, over its quota, or the object too large")
        }
        _ => error,
    }
}

/// Reads up to `limit` bytes; says whether that was all.
async fn bounded(mut response: Response, limit: usize) -> Result<(Vec<u8>, bool)> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http::no_answer)? {
        let room = limit - body.len();
        body.extend(chunk.iter().take(room));
        if chunk.len() > room {
            return Ok((body, false));
        }
    }
    Ok((body, true))
}

/// Reads a JSON document of reasonable size.
pub(super) async fn json(response: Response) -> Result<Value> {
    let (body, whole) = bounded(response, JSON).await?;
    if !whole {
        return Err(Error::new(
            Kind::Limit,
            "the object store's JSON is over 16 MiB",
        ));
    }
    serde_json::from_slice(&body)
        .map_err(|e| Error::new(Kind::Protocol, "the object store's JSON is broken").caused_by(&e))
}

/// The best digest for temporary URLs that `/info` offers.
pub(super) fn digest(info: &Value) -> Option<Digest> {
    let tempurl = info.get("tempurl")?;
    match tempurl.get("allowed_digests") {
        // Before 2.16 there was nothing to choose.
        None => Some(Digest::Sha1),
        Some(allowed) => Digest::choose(allowed.as_array()?.iter().filter_map(Value::as_str)),
    }
}

/// A page without its tags, in one line, cut to a readable length.
fn plain_text(page: &str) -> String {
    let mut text = String::new();
    let mut in_tag = false;
    for c in page.chars() {
        match c {
            '<' => in_tag = true,
            '>' if in_tag => {
                in_tag = false;
                text.push(' ');
            }
            _ if in_tag => {}
            c if c.is_control() => text.push(' '),
            c => text.push(c),
        }
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shows_a_page_as_text() {
        let page = "<html><h1>Not Found</h1><p>The resource\ncould not\u{7} be found.</p></html>";
        assert_eq!(
            plain_text(page),
            "Not Found The resource could not be found."
        );
        assert_eq!(plain_text(&"x".repeat(9999)).len(), SHOWN);
        assert_eq!(plain_text("<unclosed"), "");
    }

    #[test]
    fn digest_comes_from_info() {
        for (info, expected) in [
            (
                json!({"tempurl": {"allowed_digests": ["sha1", "sha256"]}}),
                Some(Digest::Sha256),
            ),
            (
                json!({"tempurl": {"allowed_digests": ["sha1", "sha512"]}}),
                Some(Digest::Sha512),
            ),
            (json!({"tempurl": {"allowed_digests": []}}), None),
            (json!({"tempurl": {"methods": ["GET"]}}), Some(Digest::Sha1)),
            (json!({"swift": {}}), None),
        ] {
            assert_eq!(digest(&info), expected, "{info}");
        }
    }
}
