//! Temporary URLs: the digest, the key, and keys that this client sets.

use super::{Doing, ObjectPath, SERVICE, Swift, TempUrlOptions};
use crate::error::{Error, Kind, Result};
use crate::http;
use crate::http::status::{judged, later, server_seconds};
use crate::openstack::answer::refused;
use crate::openstack::temp_url::{self, Digest, quote_path, why_refused};
use crate::secret::Secret;
use reqwest::header::{HeaderMap, HeaderValue};
use serde_json::Value;

/// Whose temporary-URL keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyOwner {
    /// Of the account: its URLs may open every object in it.
    Account,
    /// Of the container.
    Container,
}

impl KeyOwner {
    /// The headers with the current key and the one before.
    fn headers(self) -> [&'static str; 2] {
        match self {
            Self::Account => [
                "x-account-meta-temp-url-key",
                "x-account-meta-temp-url-key-2",
            ],
            Self::Container => [
                "x-container-meta-temp-url-key",
                "x-container-meta-temp-url-key-2",
            ],
        }
    }

    /// The owner's escaped path in the account.
    fn path(self, container: &str) -> String {
        match self {
            Self::Account => String::new(),
            Self::Container => quote_path(container),
        }
    }
}

impl Swift {
    /// Signs a URL with which anybody may do one thing with one object for a while. The object
    /// need not exist. Its end is counted by the server's clock, as its answers tell it.
    ///
    /// The key is the configured one, else one of the account, else one of the container.
    ///
    /// # Errors
    /// `unsupported` if the server has no temporary URLs; `not_found` if there is no key.
    pub async fn temp_url(
        &self,
        container: &str,
        object: &str,
        options: TempUrlOptions,
    ) -> Result<Secret> {
        let path = ObjectPath::new(container, object)?;
        let doing = path.doing("swift.temp_url");
        let digest = self.info(doing).await?.digest.ok_or_else(|| {
            doing.name(
                Error::new(
                    Kind::Unsupported,
                    "the object store offers no usable temporary URLs",
                )
                .hint("enable Swift's tempurl middleware with sha256 among its digests"),
            )
        })?;
        let key = match &self.options.temp_url_key {
            Some(key) => self.own_key(doing, container, key).await?,
            None => self.found_key(doing, container).await?,
        };
        let session = self.session(doing).await?;
        let expires = self.server_seconds().saturating_add(options.ttl.as_secs());
        temp_url::url(
            session.storage_url(),
            &path.plain,
            options.method.as_str(),
            expires,
            options.filename.as_deref(),
            (digest, &key),
        )
        .map_err(|e| doing.name(e))
    }

    /// Asks by a URL that [`Swift::temp_url`] signed, as whoever gets it will: what a management
    /// processor says of a URL that is no good is less telling. That there is no object is fine.
    ///
    /// # Errors
    /// `auth` if the store does not accept it, with what may be wrong; otherwise as any request.
    pub async fn check_temp_url(&self, target: &str, url: &Secret) -> Result<()> {
        let op = "swift.temp_url";
        let doing = Doing { op, target };
        let mut tries = self.tries();
        loop {
            let error = match self.client.head(url.expose()).send().await {
                Ok(answer) if matches!(answer.status().as_u16(), 401 | 403) => {
                    let said = format!("{SERVICE} does not accept the temporary URL");
                    let error = judged(said, answer.status(), answer.headers());
                    let why = why_refused(url.expose(), server_seconds(answer.headers()));
                    error.hint(why.unwrap_or_default())
                }
                Ok(answer) if later(answer.status()) => refused(SERVICE, answer).await,
                Ok(_) => return Ok(()),
                Err(error) => http::no_answer(error),
            };
            tries.pause(doing, error).await?;
        }
    }

    /// The configured key, which is made known to the server first if that is wanted.
    async fn own_key(&self, doing: Doing<'_>, container: &str, key: &Secret) -> Result<Secret> {
        if let Some(owner) = self.options.set_temp_url_key {
            let place = match owner {
                KeyOwner::Account => String::new(),
                KeyOwner::Container => container.to_owned(),
            };
            let mut known = self.keys_set.lock().await;
            if !known.contains(&place) {
                self.set_temp_url_key(owner, container, key)
                    .await
                    .map_err(|e| doing.name(e))?;
                known.insert(place);
            }
        }
        Ok(key.clone())
    }

    async fn found_key(&self, doing: Doing<'_>, container: &str) -> Result<Secret> {
        for owner in [KeyOwner::Account, KeyOwner::Container] {
            let keys = match self.temp_url_keys(doing, owner, container).await {
                // Only an account's owner sees its keys, and the container may not be there.
                Err(e) if matches!(e.kind(), Kind::Auth | Kind::NotFound) => continue,
                keys => keys?,
            };
            if let Some(key) = keys.into_iter().flatten().next() {
                return Ok(key);
            }
        }
        let hint = "swift post -m Temp-URL-Key:<key>, or configure temp_url_key and let \
                    set_temp_url_key say where it is set";
        Err(doing
            .name(Error::new(Kind::NotFound, "the account has no temporary URL key").hint(hint)))
    }

    /// The current key and the one before.
    async fn temp_url_keys(
        &self,
        doing: Doing<'_>,
        owner: KeyOwner,
        container: &str,
    ) -> Result<[Option<Secret>; 2]> {
        let path = owner.path(container);
        let response = self
            .call(doing, |client, session| client.head(session.url(&path)))
            .await?;
        if !response.status().is_success() {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        let key = |name| {
            let text = response.headers().get(name)?.to_str().ok()?;
            (!text.is_empty()).then(|| Secret::new(text))
        };
        Ok(owner.headers().map(key))
    }

    /// Makes `key` one of the owner's two. If it is new, it becomes the first, and what was the
    /// first becomes the second: URLs signed with it stay good until the next change.
    ///
    /// # Errors
    /// `auth` if the user may not; `not_found` without the container; otherwise as any request.
    pub async fn set_temp_url_key(
        &self,
        owner: KeyOwner,
        container: &str,
        key: &Secret,
    ) -> Result<()> {
        let target = match owner {
            KeyOwner::Account => "account",
            KeyOwner::Container => container,
        };
        let doing = Doing {
            op: "swift.set_temp_url_key",
            target,
        };
        let keys = self.temp_url_keys(doing, owner, container).await?;
        if keys
            .iter()
            .flatten()
            .any(|known| known.matches(key.expose()))
        {
            return Ok(());
        }
        let [first, _] = keys;
        let mut headers = HeaderMap::new();
        for (name, value) in owner.headers().into_iter().zip([Some(key.clone()), first]) {
            let Some(value) = value else { continue };
            let mut value = HeaderValue::try_from(value.expose()).map_err(|_| {
                doing.name(Error::new(
                    Kind::Invalid,
                    "the key cannot be sent in a header",
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        let path = owner.path(container);
        let response = self
            .call(doing, |client, session| {
                let url = session.url(&path);
                client.post(url).headers(headers.clone()).body("")
            })
            .await?;
        if response.status().is_success() {
            return Ok(());
        }
        Err(doing.name(refused(SERVICE, response).await))
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

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
