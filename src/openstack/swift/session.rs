//! The token: where it comes from, how long it is used, and what is tried again.

use super::answer::{later, refused};
use super::{Doing, Swift};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::secret::Secret;
use reqwest::{Client, Response, StatusCode, header::HeaderValue};
use std::future::Future;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Where a token comes from.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum SwiftAuth {
    /// Swift's own scheme, v1: tempauth, Ceph's gateway, flowrun's built-in store.
    V1 {
        /// `https://host/auth/v1.0`.
        auth_url: String,
        /// Often `account:user`.
        user: String,
        /// The user's key.
        key: Secret,
    },
}

/// A token and the URL of the account that it opens.
#[derive(Debug)]
pub(super) struct Session {
    token: HeaderValue,
    /// Without a slash at its end.
    storage_url: String,
}

impl Session {
    fn new(token: &str, storage_url: &str) -> Option<Self> {
        let mut token = HeaderValue::try_from(token).ok()?;
        token.set_sensitive(true);
        Some(Self {
            token,
            storage_url: storage_url.trim_end_matches('/').to_owned(),
        })
    }

    pub(super) fn token(&self) -> HeaderValue {
        self.token.clone()
    }

    pub(super) fn storage_url(&self) -> &str {
        &self.storage_url
    }

    /// The URL of an escaped path in the account; of the account itself if it is empty.
    pub(super) fn url(&self, quoted: &str) -> String {
        if quoted.is_empty() {
            return self.storage_url.clone();
        }
        format!("{}/{quoted}", self.storage_url)
    }

    /// Where the server describes itself: beside `/v1`.
    pub(super) fn info_url(&self) -> String {
        let origin = self.storage_url.split_once("/v1").map(|(origin, _)| origin);
        format!("{}/info", origin.unwrap_or(&self.storage_url))
    }
}

/// The session in use. Whoever finds none logs in while the others wait.
#[derive(Debug, Default)]
pub(super) struct SessionCell(Mutex<Option<Arc<Session>>>);

impl Swift {
    pub(super) async fn session(&self, doing: Doing<'_>) -> Result<Arc<Session>> {
        let mut held = self.session.0.lock().await;
        if let Some(session) = &*held {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.log_in().await.map_err(|e| doing.name(e))?);
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Gives up a session that was refused, unless somebody did so already.
    async fn forget(&self, refused: &Arc<Session>) {
        let mut held = self.session.0.lock().await;
        if held
            .as_ref()
            .is_some_and(|session| Arc::ptr_eq(session, refused))
        {
            *held = None;
        }
    }

    /// Runs `attempt` until it gets an answer that is neither "later" nor a lost connection. A 401
    /// costs one renewal of the token.
    pub(super) async fn attempts<F>(
        &self,
        doing: Doing<'_>,
        attempt: impl Fn(Arc<Session>) -> F,
    ) -> Result<Response>
    where
        F: Future<Output = Result<Response>>,
    {
        let mut renewed = false;
        let mut tries = 1;
        loop {
            let session = self.session(doing).await?;
            let error = match attempt(Arc::clone(&session)).await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    self.forget(&session).await;
                    if !renewed {
                        renewed = true;
                        continue;
                    }
                    let hint = "the token was refused even after a new login; \
                                check the user's rights";
                    refused(answer).await.hint(hint)
                }
                Ok(answer) if !later(answer.status()) => return Ok(answer),
                Ok(answer) => refused(answer).await,
                Err(error) => error,
            };
            self.pause(doing, error, &mut tries).await?;
        }
    }

    /// Waits before the next try, or gives the error back if there is none.
    pub(super) async fn pause(
        &self,
        doing: Doing<'_>,
        error: Error,
        tries: &mut u32,
    ) -> Result<()> {
        let error = doing.name(error);
        let pause = self.options.retries.pause_after(*tries);
        let Some(pause) = pause.filter(|_| error.is_retryable()) else {
            return Err(error.detail("tries", *tries));
        };
        tracing::warn!(%error, tries, "trying again");
        *tries += 1;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    async fn log_in(&self) -> Result<Session> {
        let SwiftAuth::V1 {
            auth_url,
            user,
            key,
        } = &self.options.auth;
        let doing = Doing {
            op: "swift.log_in",
            target: auth_url,
        };
        let mut tries = 1;
        loop {
            let error = match log_in_v1(&self.client, auth_url, user, key).await {
                Ok(session) => return Ok(session),
                Err(error) => error,
            };
            self.pause(doing, error, &mut tries).await?;
        }
    }
}

async fn log_in_v1(client: &Client, auth_url: &str, user: &str, key: &Secret) -> Result<Session> {
    let mut key = HeaderValue::try_from(key.expose())
        .map_err(|_| Error::new(Kind::Invalid, "the key cannot be sent in a header"))?;
    key.set_sensitive(true);
    let request = client.get(auth_url).header("x-auth-user", user);
    let answer = request
        .header("x-auth-key", key)
        .send()
        .await
        .map_err(http::no_answer)?;
    if !answer.status().is_success() {
        let error = refused(answer).await;
        return Err(match error.kind() {
            Kind::Auth => error.hint("check user and key of the object store"),
            _ => error.hint("check the object store's auth_url"),
        });
    }
    let header = |name: &str| answer.headers().get(name)?.to_str().ok();
    let session = header("x-auth-token").zip(header("x-storage-url"));
    let session = session.and_then(|(token, url)| Session::new(token, url));
    let session = session.ok_or_else(|| {
        Error::new(
            Kind::Protocol,
            "the answer has no X-Auth-Token and X-Storage-Url",
        )
        .hint("check the object store's auth_url; it should end in /auth/v1.0")
    })?;
    if auth_url.starts_with("https:") && !session.storage_url.starts_with("https:") {
        return Err(Error::new(
            Kind::Refused,
            "authentication is encrypted but its X-Storage-Url is not",
        )
        .hint("set storage_url_scheme = https in the proxy's tempauth section"));
    }
    Ok(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_beside_v1() {
        for (storage_url, info) in [
            ("https://host:8443/v1/AUTH_a/", "https://host:8443/info"),
            ("https://host/swift/v1/AUTH_a", "https://host/swift/info"),
            ("https://host/swift/v1", "https://host/swift/info"),
        ] {
            let session = Session::new("t", storage_url).unwrap();
            assert_eq!(session.info_url(), info);
            assert!(!format!("{session:?}").contains("\"t\""));
        }
    }
}
