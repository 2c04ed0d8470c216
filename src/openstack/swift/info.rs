//! What a server says of itself under `/info`.

use super::signing::digest;
use super::{Doing, SERVICE, Swift};
use crate::error::Result;
use crate::openstack::answer::{self, refused};
use crate::openstack::temp_url::Digest;
use reqwest::StatusCode;
use serde_json::Value;

/// What of it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Info {
    /// For temporary URLs; absent if there are none.
    pub(super) digest: Option<Digest>,
    /// Largest object in one piece, in bytes.
    pub(super) max_file_size: u64,
    /// Most segments of a large object; absent if static large objects are not supported.
    pub(super) max_segments: Option<u64>,
}

impl Info {
    /// Swift's defaults, for sites that hide `/info`.
    const USUAL: Self = Self {
        digest: Some(Digest::Sha256),
        max_file_size: 5 * (1 << 30) + 2,
        max_segments: Some(1000),
    };

    fn read(info: &Value) -> Self {
        let number = |path: &str| info.pointer(path).and_then(Value::as_u64);
        Self {
            digest: digest(info),
            max_file_size: number("/swift/max_file_size").unwrap_or(Self::USUAL.max_file_size),
            max_segments: info
                .get("slo")
                .map(|_| number("/slo/max_manifest_segments").unwrap_or(1000)),
        }
    }
}

impl Swift {
    /// Asked once for the life of the client.
    pub(super) async fn info(&self, doing: Doing<'_>) -> Result<Info> {
        self.info
            .get_or_try_init(|| async {
                let response = self
                    .call(doing, |client, session| client.get(session.info_url()))
                    .await?;
                match response.status() {
                    status if status.is_success() => {}
                    StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => return Ok(Info::USUAL),
                    _ => return Err(doing.name(refused(SERVICE, response).await)),
                }
                let info: Value = answer::json(SERVICE, response)
                    .await
                    .map_err(|e| doing.name(e))?;
                Ok(Info::read(&info))
            })
            .await
            .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn limits_come_from_info() {
        let info =
            json!({ "swift": { "max_file_size": 7 }, "slo": { "max_manifest_segments": 9 } });
        let info = Info::read(&info);
        assert_eq!((info.max_file_size, info.max_segments), (7, Some(9)));
        assert_eq!(Info::read(&json!({})).max_segments, None);
    }
}
