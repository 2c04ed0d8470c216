//! Config drives as Nova and Ironic hand them over.

use crate::error::{Error, Kind, Result};
use base64::Engine;
use std::io::Read;
use std::path::Path;

/// What Ironic allows.
pub const MAX_BYTES: u64 = 64 << 20;

/// Reads a config drive from a file: an ISO or FAT image as it is, or its base64 of gzip as the
/// compute service passes it.
///
/// # Errors
/// `not_found`, `io`; `limit` for more than 64 MiB; `invalid` for an empty file or broken text.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let failed = |e: std::io::Error| Error::io(path, "read the config drive", &e);
    let file = std::fs::File::open(path).map_err(failed)?;
    // Base64 makes four bytes of three.
    let bytes = bounded(file, MAX_BYTES / 3 * 4 + 4).map_err(failed)?;
    decode(bytes, MAX_BYTES).map_err(|e| e.target(path.display().to_string()))
}

fn decode(bytes: Vec<u8>, max_bytes: u64) -> Result<Vec<u8>> {
    let invalid = |what: &str| Error::new(Kind::Invalid, format!("the config drive {what}"));
    let content = if bytes.starts_with(b"H4sI") {
        // The first bytes of a gzip header in base64.
        let text: Vec<u8> = bytes
            .into_iter()
            .filter(|b| !b.is_ascii_whitespace())
            .collect();
        let packed = base64::engine::general_purpose::STANDARD
            .decode(text)
            .map_err(|e| invalid("is no valid base64").caused_by(&e))?;
        bounded(flate2::read::MultiGzDecoder::new(&packed[..]), max_bytes)
            .map_err(|e| invalid("does not decompress").caused_by(&e))?
    } else {
        bytes
    };
    if content.is_empty() {
        return Err(invalid("is empty"));
    }
    if u64::try_from(content.len()).unwrap_or(u64::MAX) > max_bytes {
        let message = format!("the config drive has more than {max_bytes} bytes");
        return Err(Error::new(Kind::Limit, message).hint("leave files out of it"));
    }
    Ok(content)
}

/// Reads at most one byte more than `limit`.
fn bounded(stream: impl Read, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    stream.take(limit + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn takes_images_and_what_the_compute_service_sends() {
        let image = vec![7; 5000];
        assert_eq!(decode(image.clone(), 5000).unwrap(), image);
        let packed = |content: &[u8]| {
            let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gz.write_all(content).unwrap();
            base64::engine::general_purpose::STANDARD.encode(gz.finish().unwrap())
        };
        let mut text = packed(&image);
        text.insert(40, '\n');
        assert_eq!(decode(text.into_bytes(), 5000).unwrap(), image);
        let bomb = packed(&vec![0; 5001]);
        assert_eq!(
            decode(bomb.into_bytes(), 5000).unwrap_err().kind(),
            Kind::Limit
        );
        assert_eq!(
            decode(b"H4sI!".to_vec(), 9).unwrap_err().kind(),
            Kind::Invalid
        );
        assert_eq!(decode(Vec::new(), 9).unwrap_err().kind(), Kind::Invalid);
    }
}
