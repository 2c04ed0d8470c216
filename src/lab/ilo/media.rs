//! A medium that is read from its URL on demand, as an iLO does: nothing is stored, so the
//! server behind the URL has to stay up for as long as the host reads.

use crate::error::{Error, Kind, Result};
use crate::http::{self, Trust};
use crate::ilo::mask;
use crate::lab::host::Medium;
use crate::secret::Secret;
use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use reqwest::header::{CONTENT_RANGE, RANGE};
use reqwest::{Client, StatusCode};
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// What one request asks for.
const BLOCK_BYTES: u64 = 512 << 10;

/// Blocks kept for rereading.
const CACHED_BLOCKS: usize = 4;

/// Longest wait for one block.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// A remote image, read in blocks by HTTP range requests.
pub struct RemoteMedium {
    client: Client,
    url: Secret,
    size_bytes: u64,
    /// Newest last. Held while a block is fetched: the iLO has one connection for a medium.
    blocks: Mutex<VecDeque<(u64, Bytes)>>,
    ejected: AtomicBool,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl fmt::Debug for RemoteMedium {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteMedium")
            .field("url", &mask::text(self.url.expose()))
            .field("size_bytes", &self.size_bytes)
            .finish_non_exhaustive()
    }
}

impl RemoteMedium {
    /// Opens the URL by reading its first block, which tells the size.
    ///
    /// # Errors
    /// `unreachable` and `auth` for connection and certificate, the status's kind if the server
    /// refuses, `unsupported` if it does not serve ranges.
    pub async fn open(url: Secret, trust: &Trust) -> Result<Self> {
        let mut medium = Self {
            client: http::client(trust, REQUEST_TIMEOUT)?,
            url,
            size_bytes: 0,
            blocks: Mutex::new(VecDeque::new()),
            ejected: AtomicBool::new(false),
            requests: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        };
        let (first, size_bytes) = medium.fetch(0, BLOCK_BYTES).await?;
        medium.size_bytes = size_bytes;
        medium.blocks.get_mut().push_back((0, first));
        Ok(medium)
    }

    /// Requests sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Bytes received so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Makes every further read fail, as the empty drive does.
    pub(super) fn eject(&self) {
        self.ejected.store(true, Ordering::Relaxed);
        if let Ok(mut blocks) = self.blocks.try_lock() {
            blocks.clear();
        }
    }

    /// Reads a range and the size of the whole.
    async fn fetch(&self, start: u64, length: u64) -> Result<(Bytes, u64)> {
        let last = start.saturating_add(length).saturating_sub(1);
        self.requests.fetch_add(1, Ordering::Relaxed);
        let request = self
            .client
            .get(self.url.expose())
            .header(RANGE, format!("bytes={start}-{last}"));
        let mut response = request.send().await.map_err(http::no_answer)?;
        let status = response.status();
        if status == StatusCode::OK {
            return Err(Error::new(
                Kind::Unsupported,
                "the image server does not serve ranges",
            ));
        }
        if status != StatusCode::PARTIAL_CONTENT {
            let message = format!("the image server answered {status}");
            return Err(Error::new(http::kind_of_status(status), message));
        }
        let range = response
            .headers()
            .get(CONTENT_RANGE)
            .and_then(|v| v.to_str().ok());
        let (begin, end, size) = range.and_then(content_range).ok_or_else(|| {
            Error::new(
                Kind::Protocol,
                "the image server sent no usable Content-Range",
            )
        })?;
        if begin != start || end > last || end >= size {
            let message = format!("asked for bytes {start}-{last}, got {begin}-{end} of {size}");
            return Err(Error::new(Kind::Protocol, message));
        }
        let expected = end - begin + 1;
        let mut data = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(http::no_answer)? {
            data.extend_from_slice(&chunk);
            if data.len() as u64 > expected {
                break;
            }
        }
        if data.len() as u64 != expected {
            let message = format!("the image server sent {} bytes of {expected}", data.len());
            return Err(Error::new(Kind::Protocol, message));
        }
        self.bytes.fetch_add(expected, Ordering::Relaxed);
        Ok((data.freeze(), size))
    }

    async fn block(&self, index: u64) -> Result<Bytes> {
        let mut blocks = self.blocks.lock().await;
        if let Some((_, block)) = blocks.iter().find(|(cached, _)| *cached == index) {
            return Ok(block.clone());
        }
        let start = index * BLOCK_BYTES;
        let (block, size_bytes) = self
            .fetch(start, BLOCK_BYTES.min(self.size_bytes - start))
            .await?;
        if size_bytes != self.size_bytes {
            let message = format!(
                "the image changed from {} to {size_bytes} bytes",
                self.size_bytes
            );
            return Err(Error::new(Kind::Corrupt, message));
        }
        if blocks.len() >= CACHED_BLOCKS {
            blocks.pop_front();
        }
        blocks.push_back((index, block.clone()));
        Ok(block)
    }

    async fn read(&self, offset: u64, length: usize) -> Result<Bytes> {
        let end = offset.saturating_add(length as u64).min(self.size_bytes);
        let mut data = BytesMut::new();
        let mut at = offset;
        while at < end {
            if self.ejected.load(Ordering::Relaxed) {
                return Err(Error::new(Kind::NotFound, "the medium was ejected"));
            }
            let block = self.block(at / BLOCK_BYTES).await?;
            let (skip, want) = (
                at % BLOCK_BYTES,
                (end - at).min(BLOCK_BYTES - at % BLOCK_BYTES),
            );
            let part = usize::try_from(skip).ok().zip(usize::try_from(want).ok());
            let part = part.and_then(|(skip, want)| block.get(skip..skip + want));
            let part = part
                .ok_or_else(|| Error::new(Kind::Protocol, "the image server sent a short block"))?;
            data.extend_from_slice(part);
            at += want;
        }
        Ok(data.freeze())
    }
}

impl Medium for RemoteMedium {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, length: usize) -> BoxFuture<'_, Result<Bytes>> {
        self.read(offset, length)
            .map(|read| read.map_err(|e| e.op("lab.ilo.read_medium")))
            .boxed()
    }
}

/// `bytes 0-499/1234`
fn content_range(text: &str) -> Option<(u64, u64, u64)> {
    let (range, size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (begin, end) = range.split_once('-')?;
    let range = (begin.parse().ok()?, end.parse().ok()?, size.parse().ok()?);
    (range.0 <= range.1).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 0-499/1234"), Some((0, 499, 1234)));
        for bad in [
            "",
            "bytes */1234",
            "bytes 0-499/*",
            "bytes 9-8/10",
            "0-1/2",
            "bytes -1-2/3",
        ] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
