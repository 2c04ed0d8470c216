//! A client of Glance's v2 API: images by id or unique name, and their data.

mod record;

pub use record::Image;

use super::answer::{self, DAMAGED, refused};
use super::keystone::Keystone;
use super::swift::{Swift, TempUrlOptions};
use super::temp_url::quote_query;
use crate::error::{Error, Kind, Result};
use crate::http::attempt::{Doing, Tries};
use crate::http::download::{LONG, Pace, download};
use crate::http::status::later;
use crate::http::{self, Trust};
use crate::secret::Secret;
use reqwest::header::RANGE;
use reqwest::{Client, Response, StatusCode};
use serde::Deserialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

const SERVICE: &str = "Glance";

/// A client, with Keystone's tokens.
#[derive(Debug)]
pub struct Glance {
    keystone: Arc<Keystone>,
    client: Client,
}

#[derive(Deserialize)]
struct Listing {
    images: Vec<Image>,
}

impl Glance {
    /// Makes a client. Nothing is sent yet.
    ///
    /// # Errors
    /// `invalid` if the CA text holds no certificate.
    pub fn new(keystone: Arc<Keystone>, trust: &Trust) -> Result<Self> {
        Ok(Self {
            client: http::client(trust, keystone.options().request_timeout)?,
            keystone,
        })
    }

    /// Finds an image by its id, or by its name if only one has it.
    ///
    /// # Errors
    /// `not_found` if there is none; `invalid` if several have the name; otherwise as any request.
    pub async fn image(&self, id_or_name: &str) -> Result<Image> {
        let doing = Doing {
            op: "glance.image",
            target: id_or_name,
        };
        if let Ok(id) = uuid::Uuid::parse_str(id_or_name) {
            let response = self.get(doing, &format!("/v2/images/{id}"), None).await?;
            return match response.status() {
                StatusCode::OK => answer::json(SERVICE, response)
                    .await
                    .map_err(|e| doing.name(e)),
                StatusCode::NOT_FOUND => Err(doing.name(missing())),
                _ => Err(doing.name(refused(SERVICE, response).await)),
            };
        }
        let path = format!("/v2/images?limit=2&name={}", quote_query(id_or_name));
        let response = self.get(doing, &path, None).await?;
        if response.status() != StatusCode::OK {
            return Err(doing.name(refused(SERVICE, response).await));
        }
        let found: Listing = answer::json(SERVICE, response)
            .await
            .map_err(|e| doing.name(e))?;
        let mut images = found.images.into_iter();
        match (images.next(), images.next()) {
            (None, _) => Err(doing.name(missing())),
            (Some(image), None) => Ok(image),
            (Some(one), Some(other)) => {
                let message = "several images have this name";
                let hint = format!("give the id: {}, {} or another", one.id, other.id);
                Err(doing.name(Error::new(Kind::Invalid, message).hint(hint)))
            }
        }
    }

    /// Downloads an image's data to a file, which appears under its name only when every byte is
    /// there and the image's hash is what Glance says. A lost connection is taken up again.
    ///
    /// # Errors
    /// `conflict` if the image has no data yet; `corrupt` if the hash is another, or Glance tells
    /// none; `timeout` if no data comes; `io` or `limit` if the file cannot be written; otherwise
    /// as any request.
    pub async fn download(&self, image: &Image, to: &Path) -> Result<u64> {
        let doing = Doing {
            op: "glance.download",
            target: &image.id,
        };
        image.check_active().map_err(|e| doing.name(e))?;
        let checksum = image.checksum().map_err(|e| doing.name(e))?;
        let path = format!("/v2/images/{}/file", image.id);
        let path = &path;
        let received = download(
            (to, checksum.algorithm),
            PACE,
            (doing, self.tries()),
            // Data never changes under an id, so there is no version to ask for.
            |wanted| self.get(doing, path, Some(wanted.from)),
            |response| async {
                match response.status() {
                    StatusCode::NOT_FOUND => missing(),
                    _ => refused(SERVICE, response).await,
                }
            },
        )
        .await?;
        let bytes = received.bytes;
        checksum.compare(&received.hash).map_err(|e| {
            let message = format!("{bytes} bytes came, Glance says {:?}", image.size);
            doing.name(e.hint(DAMAGED).cause(message).retryable(true))
        })?;
        received.keep().await.map_err(|e| doing.name(e))?;
        Ok(bytes)
    }

    /// Signs a URL for an image that Glance keeps in Swift. `swift` works in Glance's account;
    /// `container` is for images that do not tell where they are.
    ///
    /// # Errors
    /// `unsupported` if the image is elsewhere; otherwise as [`Swift::temp_url`].
    pub async fn temp_url(
        &self,
        image: &Image,
        swift: &Swift,
        container: &str,
        options: TempUrlOptions,
    ) -> Result<Secret> {
        let doing = Doing {
            op: "glance.temp_url",
            target: &image.id,
        };
        image.check_active().map_err(|e| doing.name(e))?;
        let (container, object) = image.swift_location(container).map_err(|e| doing.name(e))?;
        swift.temp_url(&container, &object, options).await
    }

    fn tries(&self) -> Tries {
        Tries::new(self.keystone.options().retries)
    }

    /// Sends a GET with a token, again after transient failures, and once with a new token. With
    /// `from`, the answer may be long, and begins there.
    async fn get(&self, doing: Doing<'_>, path: &str, from: Option<u64>) -> Result<Response> {
        let mut renewed = false;
        let mut tries = self.tries();
        loop {
            let token = self.keystone.token().await.map_err(|e| doing.name(e))?;
            let endpoint = self.keystone.endpoint(&token, "image");
            let url = format!("{}{path}", endpoint.map_err(|e| doing.name(e))?);
            let mut request = self.client.get(url).header("x-auth-token", token.header());
            if let Some(from) = from {
                request = request.timeout(LONG);
                if from > 0 {
                    request = request.header(RANGE, format!("bytes={from}-"));
                }
            }
            let error = match PACE.begin(request.send()).await {
                Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
                    self.keystone.renew(&token).await;
                    if !renewed {
                        renewed = true;
                        continue;
                    }
                    refused(SERVICE, answer).await.hint(answer::RENEWED)
                }
                Ok(answer) if later(answer.status()) => refused(SERVICE, answer).await,
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries.pause(doing, error).await?;
        }
    }
}

/// Glance answers late when it fetches from a store behind it.
const PACE: Pace = Pace {
    answer: Duration::from_secs(120),
    stall: Duration::from_secs(120),
    slowest: 256 << 10,
};

fn missing() -> Error {
    Error::new(Kind::NotFound, "there is no such image")
        .detail("status", 404)
        .hint("`openstack image list` shows what this project sees")
}
