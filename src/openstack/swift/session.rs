//! The token: where it comes from, how long it is used, and what is tried again.

use super::{Doing, SERVICE, Swift};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::http::attempt::Tries;
use crate::http::status::{later, server_seconds};
use crate::openstack::answer::{RENEWED, refused};
use crate::openstack::keystone::{Keystone, Token};
use crate::openstack::temp_url::NOTABLE_SKEW;
use crate::secret::Secret;
use reqwest::{Client, Response, StatusCode, header::HeaderValue};
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
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
    /// Keystone, whose catalogue has the address too.
    Keystone(Arc<Keystone>),
}

/// A token and the URL of the account that it opens.
#[derive(Debug)]
pub(super) struct Session {
    token: HeaderValue,
    /// Without a slash at its end.
    storage_url: String,
    /// What to give back when the token is refused.
    keystone: Option<Arc<Token>>,
}

impl Session {
    fn new(mut token: HeaderValue, storage_url: &str, account: Option<&str>) -> Self {
        token.set_sensitive(true);
        let mut storage_url = storage_url.trim_end_matches('/').to_owned();
        if let (Some(account), Some(at)) = (account, storage_url.rfind('/')) {
            storage_url.truncate(at + 1);
            storage_url.push_str(account);
        }
        Self {
            token,
            storage_url,
            keystone: None,
        }
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
        if let SwiftAuth::Keystone(keystone) = &self.options.auth {
            // It holds its token itself, and knows when to renew it.
            let session = self.keystone_session(keystone).await;
            return session.map(Arc::new).map_err(|e| doing.name(e));
        }
        let mut held = self.session.0.lock().await;
        if let Some(session) = &*held {
            return Ok(Arc::clone(session));
        }
        let session = Arc::new(self.log_in().await.map_err(|e| doing.name(e))?);
        *held = Some(Arc::clone(&session));
        Ok(session)
    }

    async fn keystone_session(&self, keystone: &Keystone) -> Result<Session> {
        let token = keystone.token().await?;
        let storage_url = keystone.endpoint(&token, "object-store")?;
        Ok(Session {
            keystone: Some(Arc::clone(&token)),
            ..Session::new(token.header(), &storage_url, self.account())
        })
    }

    fn account(&self) -> Option<&str> {
        self.options.account.as_deref()
    }

    /// Gives up a session that was refused, unless somebody did so already.
    async fn forget(&self, refused: &Arc<Session>) {
        if let (SwiftAuth::Keystone(keystone), Some(token)) =
            (&self.options.auth, &refused.keystone)
        {
            return keystone.renew(token).await;
        }
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
        let mut tries = self.tries();
        loop {
            let session = self.session(doing).await?;
            let answer = attempt(Arc::clone(&session)).await;
            if let Ok(answer) = &answer {
                self.note_clock(answer);
            }
            let error = match answer {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    self.forget(&session).await;
                    if !renewed {
                        renewed = true;
                        continue;
                    }
                    refused(SERVICE, answer).await.hint(RENEWED)
                }
                Ok(answer) if !later(answer.status()) => return Ok(answer),
                Ok(answer) => refused(SERVICE, answer).await,
                Err(error) => error,
            };
            tries.pause(doing, error).await?;
        }
    }

    pub(super) fn tries(&self) -> Tries {
        Tries::new(self.options.retries)
    }

    /// Remembers how far the server's clock is ahead of ours.
    fn note_clock(&self, answer: &Response) {
        let Some(theirs) = server_seconds(answer.headers()) else {
            return;
        };
        let ahead = i64::try_from(theirs)
            .unwrap_or_default()
            .saturating_sub(i64::try_from(clock::unix_seconds()).unwrap_or_default());
        let before = self.clock_ahead.swap(ahead, Ordering::Relaxed);
        if ahead.unsigned_abs() >= NOTABLE_SKEW && before.unsigned_abs() < NOTABLE_SKEW {
            tracing::warn!(
                seconds = ahead,
                "the object store's clock is ahead of this one's"
            );
        }
    }

    /// Unix seconds as the server counts them, as far as its answers tell.
    pub(super) fn server_seconds(&self) -> u64 {
        clock::unix_seconds().saturating_add_signed(self.clock_ahead.load(Ordering::Relaxed))
    }

    async fn log_in(&self) -> Result<Session> {
        let SwiftAuth::V1 {
            auth_url,
            user,
            key,
        } = &self.options.auth
        else {
            return Err(Error::new(
                Kind::Internal,
                "Keystone's login is its client's",
            ));
        };
        let doing = Doing {
            op: "swift.log_in",
            target: auth_url,
        };
        let mut tries = self.tries();
        loop {
            let login = log_in_v1(&self.client, auth_url, user, key).await;
            let error = match login {
                Ok((token, url)) => return Ok(Session::new(token, &url, self.account())),
                Err(error) => error,
            };
            tries.pause(doing, error).await?;
        }
    }
}

/// The token and the storage URL.
async fn log_in_v1(
    client: &Client,
    auth_url: &str,
    user: &str,
    key: &Secret,
) -> Result<(HeaderValue, String)> {
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
        let error = refused(SERVICE, answer).await;
        return Err(match error.kind() {
            Kind::Auth => error.hint("check user and key of the object store"),
            _ => error.hint("check the object store's auth_url"),
        });
    }
    let header = |name: &str| answer.headers().get(name).cloned();
    let (Some(token), Some(url)) = (header("x-auth-token"), header("x-storage-url")) else {
        return Err(Error::new(
            Kind::Protocol,
            "the answer has no X-Auth-Token and X-Storage-Url",
        )
        .hint("check the object store's auth_url; it should end in /auth/v1.0"));
    };
    let url = url.to_str().unwrap_or_default().to_owned();
    if auth_url.starts_with("https:") && !url.starts_with("https:") {
        return Err(Error::new(
            Kind::Refused,
            "authentication is encrypted but its X-Storage-Url is not",
        )
        .hint("set storage_url_scheme = https in the proxy's tempauth section"));
    }
    Ok((token, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(storage_url: &str, account: Option<&str>) -> Session {
        Session::new(HeaderValue::from_static("t"), storage_url, account)
    }

    #[test]
    fn info_is_beside_v1() {
        for (storage_url, info) in [
            ("https://host:8443/v1/AUTH_a/", "https://host:8443/info"),
            ("https://host/swift/v1/AUTH_a", "https://host/swift/info"),
            ("https://host/swift/v1", "https://host/swift/info"),
        ] {
            let session = session(storage_url, None);
            assert_eq!(session.info_url(), info);
            assert!(!format!("{session:?}").contains("\"t\""));
        }
    }

    #[test]
    fn another_account_is_beside_ones_own() {
        let other = session("https://host/v1/AUTH_a/", Some("AUTH_b"));
        assert_eq!(other.url("c"), "https://host/v1/AUTH_b/c");
    }
}
