//! Hands images to the disks that get them. Disks that get the same image at the same time share
//! one reader: it is read, decompressed and hashed once, round and round until each has all of it.

use crate::error::{Error, Kind, Result};
use crate::image::source::{FileIdentity, ImageSource, PIECE_BYTES, Piece};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Pieces read ahead of a writer.
const AHEAD: usize = 2;

/// How long a disk may keep the others waiting before it goes on with a reader of its own.
const PATIENCE: Duration = Duration::from_secs(5);

/// The images that are being read. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Feeds(Arc<Mutex<HashMap<FileIdentity, Vec<Subscriber>>>>);

#[derive(Debug, Clone)]
struct Subscriber {
    sender: Sender<Result<Piece>>,
    /// Pieces it still wants.
    left: u64,
}

impl Feeds {
    /// All pieces of an image, once each, in any order.
    pub(super) fn subscribe(&self, source: &Arc<ImageSource>) -> Feed {
        let pieces = source.info().virtual_bytes.map(|b| b.div_ceil(PIECE_BYTES));
        // A stream cannot be joined in its middle, and only its end tells how many pieces it has.
        let receiver = match pieces {
            Some(left) => self.join(source, left),
            None => alone(source.clone()),
        };
        Feed {
            source: source.clone(),
            receiver,
            pieces,
            seen: Vec::new(),
            came: 0,
            is_alone: pieces.is_none(),
        }
    }

    fn join(&self, source: &Arc<ImageSource>, left: u64) -> Receiver<Result<Piece>> {
        let (sender, receiver) = mpsc::channel(AHEAD);
        let subscriber = Subscriber { sender, left };
        let mut readers = self.readers();
        if let Some(subscribers) = readers.get_mut(&source.identity()) {
            subscribers.push(subscriber);
            return receiver;
        }
        readers.insert(source.identity(), vec![subscriber]);
        drop(readers);
        let (feeds, source, handle) = (self.clone(), source.clone(), Handle::current());
        tokio::task::spawn_blocking(move || feeds.read_for_all(&source, &handle));
        receiver
    }

    fn readers(&self) -> MutexGuard<'_, HashMap<FileIdentity, Vec<Subscriber>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_for_all(&self, source: &ImageSource, handle: &Handle) {
        let key = source.identity();
        loop {
            let pieces = match source.pieces() {
                Ok(pieces) => pieces,
                Err(error) => return self.fail(key, &error, handle),
            };
            for piece in pieces {
                match piece {
                    Ok(piece) if self.give(key, &piece, handle) => {}
                    Ok(_) => return,
                    Err(error) => return self.fail(key, &error, handle),
                }
            }
        }
    }

    /// Gives a piece to everyone; false when nobody is left. Those who join meanwhile wait for the
    /// next one.
    fn give(&self, key: FileIdentity, piece: &Piece, handle: &Handle) -> bool {
        let now = self.readers().get(&key).cloned().unwrap_or_default();
        let mut gone = Vec::new();
        for subscriber in &now {
            let sending = subscriber.sender.send(Ok(piece.clone()));
            let sent = handle.block_on(async { tokio::time::timeout(PATIENCE, sending).await });
            if !matches!(sent, Ok(Ok(()))) || subscriber.left <= 1 {
                gone.push(subscriber.sender.clone());
            }
        }
        let mut readers = self.readers();
        let Some(subscribers) = readers.get_mut(&key) else {
            return false;
        };
        for subscriber in subscribers.iter_mut().take(now.len()) {
            subscriber.left -= 1;
        }
        subscribers.retain(|s| !gone.iter().any(|sender| sender.same_channel(&s.sender)));
        if subscribers.is_empty() {
            readers.remove(&key);
            return false;
        }
        true
    }

    fn fail(&self, key: FileIdentity, error: &Error, handle: &Handle) {
        let subscribers = self.readers().remove(&key).unwrap_or_default();
        for subscriber in subscribers {
            let sending = subscriber.sender.send(Err(error.clone()));
            // Who does not listen finds the same with a reader of its own.
            drop(handle.block_on(async { tokio::time::timeout(PATIENCE, sending).await }));
        }
    }
}

/// A reader of its own; it ends when the receiver is dropped, the image ends or cannot be read.
fn alone(source: Arc<ImageSource>) -> Receiver<Result<Piece>> {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let pieces = match source.pieces() {
            Ok(pieces) => pieces,
            Err(error) => return drop(sender.blocking_send(Err(error))),
        };
        for piece in pieces {
            if sender.blocking_send(piece).is_err() {
                return;
            }
        }
    });
    receiver
}

/// An image on its way to one disk.
#[derive(Debug)]
pub(super) struct Feed {
    source: Arc<ImageSource>,
    receiver: Receiver<Result<Piece>>,
    /// How many there are; `None` for a stream.
    pieces: Option<u64>,
    /// Which ones came, by their place in the image.
    seen: Vec<bool>,
    came: u64,
    is_alone: bool,
}

impl Feed {
    /// A piece that did not come before; `None` when all have.
    pub(super) async fn next(&mut self) -> Result<Option<(usize, Piece)>> {
        loop {
            if self.pieces.is_some_and(|all| self.came >= all) {
                return Ok(None);
            }
            match (self.receiver.recv().await, self.pieces) {
                (Some(piece), _) => {
                    let piece = piece?;
                    let index = piece.offset / PIECE_BYTES;
                    let index = usize::try_from(index).unwrap_or(usize::MAX);
                    if self.seen.len() <= index {
                        self.seen.resize(index + 1, false);
                    }
                    let seen = self.seen.get_mut(index);
                    if seen.is_some_and(|seen| !std::mem::replace(seen, true)) {
                        self.came += 1;
                        return Ok(Some((index, piece)));
                    }
                }
                (None, None) => return Ok(None),
                // The others did not wait: what is missing comes from a reader of its own.
                (None, Some(_)) if !self.is_alone => {
                    self.is_alone = true;
                    self.receiver = alone(self.source.clone());
                }
                (None, Some(_)) => {
                    return Err(Error::new(Kind::Internal, "the image's reader ended early"));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_reader_serves_all_and_those_who_come_late() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(9 * PIECE_BYTES).unwrap();
        let source = Arc::new(ImageSource::open(file.path(), None).unwrap());
        let feeds = Feeds::default();
        let mut first = feeds.subscribe(&source);
        let (index, _) = first.next().await.unwrap().unwrap();
        assert_eq!(index, 0);
        // The first one does not take its pieces, so the reader waits.
        let again = Arc::new(ImageSource::open(file.path(), None).unwrap());
        let late = feeds.subscribe(&again);
        let counts: Vec<usize> = feeds.readers().values().map(Vec::len).collect();
        assert_eq!(counts, [2]);
        let all = |mut feed: Feed| async move {
            let mut places = Vec::new();
            while let Some((index, _)) = feed.next().await.unwrap() {
                places.push(index);
            }
            assert!(!feed.is_alone);
            places
        };
        let (first, mut late) = tokio::join!(all(first), all(late));
        assert_eq!(first, (1..9).collect::<Vec<_>>());
        assert_ne!(late[0], 0, "it joined in the middle");
        late.sort_unstable();
        assert_eq!(late, (0..9).collect::<Vec<_>>());
    }
}
