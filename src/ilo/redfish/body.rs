//! Bodies of answers: of bounded size, packed or not.

use crate::error::{Error, Kind, Result};
use crate::http;
use flate2::read::MultiGzDecoder;
use reqwest::Response;
use std::io::Read;

/// Longest answer that is read, and unpacked. The largest resource seen has some 200 KiB.
const MAX_BYTES: usize = 8 << 20;

/// How a gzip stream begins (RFC 1952, 2.3.1), and JSON never does.
const GZIP: [u8; 2] = [0x1F, 0x8B];

/// Reads a body as it was sent.
///
/// # Errors
/// `limit` if it is too long; otherwise as [`http::no_answer`] names what broke.
pub(super) async fn read(response: &mut Response) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(http::no_answer)? {
        if bytes.len() + chunk.len() > MAX_BYTES {
            return Err(too_long());
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Unpacks a body that is packed. Its own first bytes tell: iLO 4 packs resources that nobody
/// wants packed, and does not always say so in `Content-Encoding` (proliantutils 2.16.3, ris).
///
/// # Errors
/// `limit` if it is too long unpacked, `protocol` if it is damaged.
pub(super) fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let limit = u64::try_from(MAX_BYTES).unwrap_or(u64::MAX);
    let mut content = Vec::new();
    let mut stream = MultiGzDecoder::new(&bytes[..]).take(limit + 1);
    stream.read_to_end(&mut content).map_err(|e| {
        Error::new(Kind::Protocol, "the packed answer does not unpack").caused_by(&e)
    })?;
    match content.len() > MAX_BYTES {
        true => Err(too_long()),
        false => Ok(content),
    }
}

fn too_long() -> Error {
    let message = format!("the answer exceeds {MAX_BYTES} bytes");
    Error::new(Kind::Limit, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use proptest::prelude::*;
    use std::io::Write;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn packed_or_not_it_reads_the_same() {
        let content = br#"{"PowerState":"On"}"#;
        assert_eq!(unpacked(content.to_vec()).unwrap(), content);
        assert_eq!(unpacked(packed(content)).unwrap(), content);
        assert_eq!(unpacked(Vec::new()).unwrap(), b"");
    }

    #[test]
    fn a_bomb_is_refused_before_it_fills_the_memory() {
        let bomb = packed(&vec![b' '; 4 * MAX_BYTES]);
        assert!(bomb.len() < MAX_BYTES / 50);
        assert_eq!(unpacked(bomb).unwrap_err().kind(), Kind::Limit);
        let largest = packed(&vec![b' '; MAX_BYTES]);
        assert_eq!(unpacked(largest).unwrap().len(), MAX_BYTES);
    }

    #[test]
    fn a_cut_stream_is_no_answer() {
        let mut cut = packed(&[7; 4096]);
        cut.truncate(cut.len() - 5);
        assert_eq!(unpacked(cut).unwrap_err().kind(), Kind::Protocol);
    }

    proptest! {
        #[test]
        fn never_panics(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            drop(unpacked([&GZIP[..], &tail].concat()));
        }
    }
}
