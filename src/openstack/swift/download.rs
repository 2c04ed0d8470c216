//! Downloads to a file, which appears under its name only when it is complete.

use super::metadata::ObjectInfo;
use super::{ObjectPath, SERVICE, Swift};
use crate::error::{Error, Kind, Result};
use crate::http::download::{LONG, download};
use crate::image::checksum::Algorithm;
use crate::openstack::answer::{DAMAGED, refused};
use reqwest::header::{IF_MATCH, RANGE};
use std::path::Path;

/// What was downloaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downloaded {
    /// The object's ETag.
    pub etag: String,
    /// How many bytes.
    pub bytes: u64,
    /// Whether the ETag is the MD5 of the bytes and was compared; it is not that for objects made
    /// of segments.
    pub verified: bool,
}

impl Swift {
    /// Downloads an object to a file, which appears under its name only when it is complete. A
    /// lost connection is taken up again where it broke.
    ///
    /// # Errors
    /// `not_found` if there is no such object; `corrupt` if the bytes are not what the ETag says;
    /// `timeout` if no data comes; `io` or `limit` if the file cannot be written; otherwise as any
    /// request.
    pub async fn download(&self, container: &str, object: &str, to: &Path) -> Result<Downloaded> {
        let path = ObjectPath::new(container, object)?;
        let path = &path;
        let doing = path.doing("swift.download");
        let pace = self.pace();
        let received = download(
            (to, Algorithm::Md5),
            pace,
            (doing, self.tries()),
            |wanted| async move {
                self.attempts(doing, |session| {
                    let mut request = self.client.get(session.url(&path.quoted)).timeout(LONG);
                    if let Some(etag) = wanted.etag.as_deref().filter(|_| wanted.from > 0) {
                        request = request
                            .header(RANGE, format!("bytes={}-", wanted.from))
                            .header(IF_MATCH, format!("\"{etag}\""));
                    }
                    pace.begin(request.header("x-auth-token", session.token()).send())
                })
                .await
            },
            |response| async {
                let error = refused(SERVICE, response).await;
                match error.kind() {
                    Kind::NotFound => error.hint("`swift.list` tells what the container holds"),
                    _ => error,
                }
            },
        )
        .await?;
        let info = ObjectInfo::read(&received.headers);
        let verified = is_md5(&info);
        let short = received
            .announced
            .is_some_and(|bytes| bytes != received.bytes);
        if short || (verified && received.hash != info.etag) {
            let message = format!(
                "{} bytes with MD5 {} came, the object has {} with ETag {}",
                received.bytes,
                received.hash,
                received
                    .announced
                    .map_or_else(|| "some".to_owned(), |n| n.to_string()),
                info.etag
            );
            let error = Error::new(Kind::Corrupt, message).hint(DAMAGED);
            return Err(doing.name(error.retryable(true)));
        }
        let bytes = received.bytes;
        received.keep().await.map_err(|e| doing.name(e))?;
        Ok(Downloaded {
            etag: info.etag,
            bytes,
            verified,
        })
    }
}

/// Whether the ETag is the MD5 of the bytes.
fn is_md5(info: &ObjectInfo) -> bool {
    let hex = info.etag.bytes().all(|b| b.is_ascii_hexdigit());
    !info.segmented && hex && info.etag.len() == 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderName;

    #[test]
    fn only_a_plain_md5_is_compared() {
        let is_md5 = |pairs: &[(&'static str, &str)]| {
            let pair = |(name, value): &(&'static str, &str)| {
                (HeaderName::from_static(name), value.parse().unwrap())
            };
            is_md5(&ObjectInfo::read(&pairs.iter().map(pair).collect()))
        };
        let md5 = ("etag", "5eb63bbbe01eeed093cb22bb8f5acdc3");
        assert!(is_md5(&[md5]));
        assert!(!is_md5(&[md5, ("x-static-large-object", "True")]));
        assert!(!is_md5(&[md5, ("x-object-manifest", "c/o")]));
        assert!(!is_md5(&[(
            "etag",
            "\"5eb63bbbe01eeed093cb22bb8f5acdc3-2\""
        )]));
    }
}
