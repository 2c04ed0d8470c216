//! Images of web servers.

use crate::backoff::Backoff;
use crate::error::{Error, Result};
use crate::http::attempt::{Doing, Tries};
use crate::http::download::{LONG, Pace, download};
use crate::http::status::{advised, judged, later, server_seconds};
use crate::http::{self, Trust};
use crate::image::checksum::Checksum;
use crate::openstack::temp_url;
use reqwest::header::{CONTENT_LENGTH, IF_RANGE, RANGE};
use reqwest::{Client, Response};
use std::path::Path;
use std::time::Duration;

const PACE: Pace = Pace {
    answer: Duration::from_secs(60),
    stall: Duration::from_secs(120),
    slowest: 256 << 10,
};

const RETRIES: Backoff = Backoff {
    times: 5,
    delay: Duration::from_millis(500),
    factor: 2.0,
    max: Duration::from_secs(10),
};

/// A client of web servers, without credentials.
#[derive(Debug)]
pub(super) struct Web(Client);

impl Web {
    pub(super) fn new(trust: &Trust) -> Result<Self> {
        http::client(trust, PACE.answer).map(Self)
    }

    /// How long the body would be, if the server tells.
    pub(super) async fn length(&self, url: &str) -> Option<u64> {
        let answer = self.0.head(url).send().await.ok()?;
        let length = answer.headers().get(CONTENT_LENGTH)?.to_str().ok()?;
        length.parse().ok().filter(|_| answer.status().is_success())
    }

    /// Downloads to a file, which appears only when its hash is right.
    pub(super) async fn download(&self, url: &str, checksum: &Checksum, to: &Path) -> Result<u64> {
        let shown = shown(url);
        let doing = Doing {
            op: "image.fetch",
            target: &shown,
        };
        let received = download(
            (to, checksum.algorithm),
            PACE,
            (doing, Tries::new(RETRIES)),
            |wanted| self.ask(doing, url, wanted.from, wanted.etag),
            |response| async move { refused(url, &response) },
        )
        .await?;
        checksum.compare(&received.hash).map_err(|e| {
            doing.name(e.hint("correct image_checksum, or ask who offers the image"))
        })?;
        let bytes = received.bytes;
        received.keep().await.map_err(|e| doing.name(e))?;
        Ok(bytes)
    }

    async fn ask(
        &self,
        doing: Doing<'_>,
        url: &str,
        from: u64,
        etag: Option<String>,
    ) -> Result<Response> {
        let mut tries = Tries::new(RETRIES);
        loop {
            let mut request = self.0.get(url).timeout(LONG);
            // Without a strong validator the rest might be another image's: begin again.
            let etag = etag.as_deref().filter(|etag| !etag.starts_with("W/"));
            if let Some(etag) = etag.filter(|_| from > 0) {
                request = request
                    .header(RANGE, format!("bytes={from}-"))
                    .header(IF_RANGE, format!("\"{etag}\""));
            }
            let error = match PACE.begin(request.send()).await {
                Ok(answer) if later(answer.status()) => refused(url, &answer),
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            tries.pause(doing, error).await?;
        }
    }
}

fn refused(url: &str, response: &Response) -> Error {
    let (status, headers) = (response.status(), response.headers());
    let error = judged(format!("the server answered {status}"), status, headers);
    let error = match (
        status.as_u16(),
        temp_url::why_refused(url, server_seconds(headers)),
    ) {
        (401 | 403, Some(why)) => error.hint(why),
        (401, None) => error.hint("images are fetched without credentials: allow this host there"),
        (404 | 410, _) => error.hint("look whether the address is right and the image still there"),
        (300..=399, _) => error.hint("give the address that it points to"),
        _ => error,
    };
    advised(error, status)
}

/// A URL without what may be secret: user, password and query.
pub(super) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = host.rsplit('@').next().unwrap_or_default();
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}
