//! Answers that are not what was hoped for, and bodies that are read whole.

use crate::error::{Error, Kind, Result};
use crate::http::{
    self,
    status::{advised, judged},
};
use reqwest::Response;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// Most of an error's body that is read, and shown.
const READ: usize = 4096;
const SHOWN: usize = 240;
/// Largest JSON document.
const JSON: usize = 16 << 20;
/// An error's body is not worth waiting for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Advice for a 401 that a new token did not cure.
pub(super) const RENEWED: &str =
    "the token was refused even after a new login; check the user's rights";

/// Advice for bytes that are not what was sent.
pub(super) const DAMAGED: &str =
    "try again; if it stays so, something on the way changes bytes: a proxy, a cache, memory";

/// Turns an unwanted answer into an error that tells what the service (`the object store`) said.
pub(super) async fn refused(service: &str, response: Response) -> Error {
    let (status, headers) = (response.status(), response.headers().clone());
    let transaction = ["x-trans-id", "x-openstack-request-id"]
        .iter()
        .find_map(|name| headers.get(*name));
    let transaction = transaction
        .and_then(|id| id.to_str().ok())
        .map(str::to_owned);
    let said = tokio::time::timeout(PATIENCE, bounded(response, READ)).await;
    let (body, _) = said.ok().and_then(Result::ok).unwrap_or_default();
    let mut message = format!("{service} answered {status}");
    let said = told(&body);
    if !said.is_empty() {
        message = format!("{message}: {said}");
    }
    let error = advised(judged(message, status, &headers), status);
    match transaction {
        Some(id) => error.detail("transaction", id),
        None => error,
    }
}

/// What an error's body says to people: Keystone's JSON has a message, others send pages.
fn told(body: &[u8]) -> String {
    let json: Option<Value> = serde_json::from_slice(body).ok();
    let message = json
        .as_ref()
        .and_then(|json| json.pointer("/error/message"))
        .and_then(Value::as_str);
    match message {
        Some(message) => plain_text(message),
        None => plain_text(&String::from_utf8_lossy(body)),
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
pub(super) async fn json<T: DeserializeOwned>(service: &str, response: Response) -> Result<T> {
    let (body, whole) = bounded(response, JSON).await?;
    if !whole {
        let message = format!("the answer of {service} is over 16 MiB");
        return Err(Error::new(Kind::Limit, message));
    }
    serde_json::from_slice(&body).map_err(|e| {
        let message = format!("the answer of {service} is not the JSON that was asked for");
        Error::new(Kind::Protocol, message).caused_by(&e)
    })
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
    fn shows_the_message_of_a_json_error() {
        let body = br#"{"error": {"code": 401, "message": "No such user.", "title": "x"}}"#;
        assert_eq!(told(body), "No such user.");
        assert_eq!(told(b"{\"error\": 5}"), "{\"error\": 5}");
    }
}
