//! Hands an image to the disks that get it: read and hashed once, piece by piece.

use super::manifest::piece_hash;
use crate::error::{Error, Kind, Result};
use crate::image::source::{ImageSource, Piece};
use std::sync::Arc;
use tokio::sync::mpsc;

/// Pieces read ahead of a writer.
const AHEAD: usize = 2;

/// A piece and its hash for the manifest, which is empty where all is zero.
#[derive(Debug, Clone)]
pub(super) struct Hashed {
    pub(super) piece: Piece,
    pub(super) hash: String,
}

impl Hashed {
    pub(super) fn new(piece: Piece) -> Self {
        let hash = piece
            .data
            .as_ref()
            .map(|data| piece_hash(data))
            .unwrap_or_default();
        Self { piece, hash }
    }
}

/// Starts reading in a blocking thread. The reader ends when the receiver is dropped, the image
/// ends or cannot be read.
pub(super) fn feed(source: Arc<ImageSource>) -> Feed {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let pieces = match source.pieces() {
            Ok(pieces) => pieces,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        for piece in pieces {
            if sender
                .blocking_send(piece.map(|piece| Some(Hashed::new(piece))))
                .is_err()
            {
                return;
            }
        }
        drop(sender.blocking_send(Ok(None)));
    });
    Feed(receiver)
}

pub(super) struct Feed(mpsc::Receiver<Result<Option<Hashed>>>);

impl Feed {
    /// The next piece; `None` at the end of the image.
    pub(super) async fn next(&mut self) -> Result<Option<Hashed>> {
        let ended = || Err(Error::new(Kind::Internal, "the image's reader ended early"));
        self.0.recv().await.unwrap_or_else(ended)
    }
}
