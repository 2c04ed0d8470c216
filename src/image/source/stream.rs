//! Compressed images as streams: gzip, xz and zstd, told apart by their first bytes.

use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Chain, Cursor, Read};

/// How an image is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// RFC 1952.
    Gz,
    /// The .xz format.
    Xz,
    /// RFC 8878.
    Zst,
}

/// Most memory that a stream may ask for its window: 2^27 is what `zstd -d` allows, and more than
/// `xz -9` needs.
const MAX_WINDOW_LOG: u32 = 27;
const MAX_XZ_KIB: u32 = 160 << 10;
const BUFFER_BYTES: usize = 256 << 10;

impl Compression {
    /// Recognises the first bytes of a file.
    #[must_use]
    pub fn of(head: &[u8]) -> Option<Self> {
        if head.starts_with(&[0x1f, 0x8b, 8]) {
            Some(Self::Gz)
        } else if head.starts_with(b"\xfd7zXZ\0") {
            Some(Self::Xz)
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            Some(Self::Zst)
        } else {
            None
        }
    }
}

/// What a stream really holds: decompressed if its first bytes say that it is compressed. Several
/// members, frames or streams in a row count as one, as the usual tools take them.
///
/// # Errors
/// `io` if the stream cannot be read.
pub fn decompressed<'a>(
    mut stream: impl Read + Send + 'a,
) -> Result<(Option<Compression>, Box<dyn Read + Send + 'a>)> {
    let mut head = Vec::new();
    let unreadable =
        |e: std::io::Error| Error::new(Kind::Io, "cannot read the image").caused_by(&e);
    (&mut stream)
        .take(6)
        .read_to_end(&mut head)
        .map_err(unreadable)?;
    let compression = Compression::of(&head);
    let whole = Cursor::new(head).chain(stream);
    let reader = decoder(compression, BufReader::with_capacity(BUFFER_BYTES, whole));
    Ok((compression, reader.map_err(unreadable)?))
}

type Whole<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

fn decoder<'a, R: Read + Send + 'a>(
    compression: Option<Compression>,
    whole: Whole<R>,
) -> std::io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        None => Box::new(whole),
        Some(Compression::Gz) => Box::new(flate2::bufread::MultiGzDecoder::new(whole)),
        Some(Compression::Xz) => {
            Box::new(lzma_rust2::XzReader::new_mem_limit(whole, true, MAX_XZ_KIB))
        }
        Some(Compression::Zst) => Box::new(zstd_decoder(whole)?),
    })
}

fn zstd_decoder<'a, R: BufRead>(whole: R) -> std::io::Result<zstd::stream::read::Decoder<'a, R>> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(whole)?;
    decoder.window_log_max(MAX_WINDOW_LOG)?;
    Ok(decoder)
}
