//! Reads an image piece by piece in a blocking thread, ahead of the writer.

use super::manifest::{PIECE_BYTES, piece_hash};
use crate::error::Result;
use crate::image::source::ImageSource;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces read ahead of the writer.
const AHEAD: usize = 2;

/// A piece of the image.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) offset: u64,
    /// What the image holds there, padded with zeros to a whole block; `None` where all is zero.
    pub(super) data: Option<Bytes>,
    /// Length within the image.
    pub(super) length: u64,
    /// Hash for the manifest, empty where all is zero.
    pub(super) hash: String,
}

/// Starts reading. The reader ends when the receiver is dropped, the image ends or cannot be read.
pub(super) fn pieces(source: Arc<ImageSource>, block_bytes: u32) -> mpsc::Receiver<Result<Piece>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut offset = 0;
        while offset < source.info().virtual_bytes {
            let piece = read_piece(&source, offset, u64::from(block_bytes));
            let failed = piece.is_err();
            if sender.blocking_send(piece).is_err() || failed {
                return;
            }
            offset += PIECE_BYTES;
        }
    });
    receiver
}

fn read_piece(source: &ImageSource, offset: u64, block: u64) -> Result<Piece> {
    let length = source
        .info()
        .virtual_bytes
        .saturating_sub(offset)
        .min(PIECE_BYTES);
    if !has_data(source, offset, length)? {
        return Ok(Piece {
            offset,
            data: None,
            length,
            hash: String::new(),
        });
    }
    let padded = usize::try_from(length.next_multiple_of(block)).unwrap_or(usize::MAX);
    let mut buffer = vec![0; padded];
    source.read_at(offset, &mut buffer)?;
    let inside = usize::try_from(length).unwrap_or(padded);
    let hash = piece_hash(buffer.get(..inside).unwrap_or_default());
    Ok(Piece {
        offset,
        data: Some(buffer.into()),
        length,
        hash,
    })
}

fn has_data(source: &ImageSource, offset: u64, length: u64) -> Result<bool> {
    let (mut at, end) = (offset, offset + length);
    while at < end {
        match source.extent_at(at)? {
            Some(extent) if extent.data => return Ok(true),
            Some(extent) => at += extent.length,
            None => break,
        }
    }
    Ok(false)
}
