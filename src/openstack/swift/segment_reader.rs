//! One thread reads the segments of an upload that are sent at the same time, a chunk of each in
//! turn, and hashes the chunks side by side.
//!
//! A segment is read when its stream asks for it, so one that is not sent does not hold up the
//! others, one that is sent again is a new one, and whoever drops a stream has ended it.

use super::body::{Progress, Span, length};
use super::md5_lanes::{self, LANES, Md5Lane};
use crate::buffer::{Buffer, Pool};
use crate::error::Result;
use bytes::Bytes;
use futures_util::{Stream, stream};
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;
use tokio::sync::oneshot;

/// Of each segment one chunk is filled or waits, and two or three are with the connection.
const CHUNK: u64 = CHUNK_BYTES as u64;
/// Whole blocks of MD5.
const CHUNK_BYTES: usize = 256 << 10;

static BUFFERS: Pool = Pool::new(CHUNK_BYTES, 4 * LANES);

/// How long segments that just got a chunk are waited for, so that many are hashed at once.
const PATIENCE: Duration = Duration::from_millis(5);

/// Asks the thread, which ends with the last of these.
#[derive(Debug, Clone)]
pub(super) struct SegmentReader(Sender<Order>);

impl SegmentReader {
    pub(super) fn start() -> Self {
        let (sender, orders) = mpsc::channel();
        tokio::task::spawn_blocking(move || Rounds::new(orders).serve());
        Self(sender)
    }

    /// The bytes; their MD5, unless it is not asked for, or the failure is left in `progress`.
    pub(super) fn stream(
        self,
        span: Span,
        progress: Arc<Progress>,
        unchecked: bool,
    ) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        let segment = Segment {
            left: span.bytes,
            span,
            file: None,
            md5: (!unchecked).then(Md5Lane::new),
            progress: Arc::clone(&progress),
            round: 0,
        };
        let first = self.order(segment);
        stream::unfold(
            (self, progress, Some(first)),
            |(reader, progress, ordered)| async {
                let chunk = ordered?.await.unwrap_or_else(|_| {
                    // It has panicked.
                    Err(io::Error::other("nobody reads the segments any more"))
                });
                match chunk {
                    Ok((chunk, rest)) => {
                        progress.took(&chunk);
                        // Filled while this one is sent.
                        let next = rest.map(|segment| reader.order(segment));
                        Some((Ok(chunk), (reader, progress, next)))
                    }
                    Err(error) => Some((Err(error), (reader, progress, None))),
                }
            },
        )
    }

    fn order(&self, segment: Segment) -> oneshot::Receiver<Answer> {
        let (answer, ordered) = oneshot::channel();
        // If nobody takes it, the answer's channel tells.
        self.0.send(Order { segment, answer }).ok();
        ordered
    }
}

/// The next chunk of a segment is wanted.
#[derive(Debug)]
struct Order {
    segment: Segment,
    answer: oneshot::Sender<Answer>,
}

/// The chunk, and the segment if it has more.
type Answer = io::Result<(Bytes, Option<Segment>)>;

/// How far a segment is read.
#[derive(Debug)]
struct Segment {
    span: Span,
    file: Option<File>,
    left: u64,
    md5: Option<Md5Lane>,
    progress: Arc<Progress>,
    /// In which it got its last chunk.
    round: u64,
}

impl Segment {
    fn read(&mut self) -> Result<Buffer> {
        let file = match self.file.take() {
            Some(file) => file,
            None => self.span.open()?,
        };
        let mut chunk = BUFFERS.take(self.left.min(CHUNK));
        self.span.read(&file, &mut chunk)?;
        self.left -= length(&chunk);
        self.file = Some(file);
        Ok(chunk)
    }

    /// After the last chunk.
    fn finish(&mut self, chunk: &[u8]) {
        if let Some(md5) = self.md5.take() {
            let (_, rest) = chunk.as_chunks::<{ md5_lanes::BLOCK }>();
            self.progress.complete(&md5.finish(rest));
        }
    }
}

/// Serves what is ordered at about the same time together.
struct Rounds {
    orders: Receiver<Order>,
    number: u64,
    /// How many of those served in the last round may come again.
    expected: usize,
}

impl Rounds {
    fn new(orders: Receiver<Order>) -> Self {
        Self {
            orders,
            number: 0,
            expected: 0,
        }
    }

    fn serve(mut self) {
        while let Ok(first) = self.orders.recv() {
            let orders = self.gather(first);
            self.number += 1;
            self.expected = 0;
            let mut read = Vec::new();
            for mut order in orders {
                order.segment.round = self.number;
                match order.segment.read() {
                    Ok(chunk) => read.push((order, chunk)),
                    // Whoever is gone by now needs no reason.
                    Err(error) => {
                        let end = order.segment.progress.fail(error);
                        order.answer.send(Err(end)).ok();
                    }
                }
            }
            md5_lanes::update(read.iter_mut().filter_map(|(order, chunk)| {
                let md5 = order.segment.md5.as_mut()?;
                Some((md5, &**chunk))
            }));
            for (order, chunk) in read {
                self.hand_over(order, chunk);
            }
        }
    }

    /// All that are waiting, and those of the last round that come again soon.
    fn gather(&mut self, first: Order) -> Vec<Order> {
        let mut orders = Vec::with_capacity(LANES);
        let mut next = Ok(first);
        while let Ok(order) = next {
            if order.segment.round == self.number {
                self.expected = self.expected.saturating_sub(1);
            }
            if !order.answer.is_closed() {
                orders.push(order);
            }
            if orders.len() == LANES {
                break;
            }
            let patience = if self.expected > 0 {
                PATIENCE
            } else {
                Duration::ZERO
            };
            next = self.orders.recv_timeout(patience);
        }
        orders
    }

    fn hand_over(&mut self, order: Order, chunk: Buffer) {
        let Order {
            mut segment,
            answer,
        } = order;
        let rest = if segment.left > 0 {
            self.expected += 1;
            Some(segment)
        } else {
            segment.finish(&chunk);
            None
        };
        answer.send(Ok((chunk.freeze(), rest))).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::{StreamExt, TryStreamExt};
    use md5::{Digest, Md5};
    use tempfile::NamedTempFile;

    fn file(bytes: u32) -> (NamedTempFile, Vec<u8>) {
        let content: Vec<u8> = (0..bytes)
            .map(|n| n.to_le_bytes()[n as usize % 3])
            .collect();
        let file = NamedTempFile::new().unwrap();
        std::fs::write(&file, &content).unwrap();
        (file, content)
    }

    fn span(file: &NamedTempFile, offset: usize, bytes: usize) -> Span {
        Span {
            file: file.path().to_owned(),
            offset: offset as u64,
            bytes: bytes as u64,
        }
    }

    #[tokio::test]
    async fn segments_of_unequal_length_are_read_and_hashed_side_by_side() {
        let (file, content) = file(600_000);
        let reader = SegmentReader::start();
        let parts = [(0, 1), (1, 299_999), (300_000, CHUNK_BYTES), (5, 599_995)];
        let read = parts.map(|(offset, bytes)| {
            let (reader, span) = (reader.clone(), span(&file, offset, bytes));
            let expected = &content[offset..][..bytes];
            async move {
                let progress = Arc::new(Progress::default());
                let stream = reader.stream(span, Arc::clone(&progress), false);
                let read: Vec<Bytes> = stream.try_collect().await.unwrap();
                assert!(read.concat() == expected);
                let md5 = hex::encode(Md5::digest(expected));
                assert_eq!(progress.take_md5(), Some(md5));
            }
        });
        futures_util::future::join_all(read).await;
    }

    #[tokio::test]
    async fn neither_one_that_waits_nor_one_that_is_dropped_holds_up_the_others() {
        let (file, content) = file(800_000);
        let reader = SegmentReader::start();
        let stream = || {
            let progress = Arc::new(Progress::default());
            let stream = reader
                .clone()
                .stream(span(&file, 0, 800_000), progress, false);
            Box::pin(stream)
        };
        let mut waits = stream();
        let mut dropped = stream();
        let begun = waits.next().await.unwrap().unwrap();
        dropped.next().await.unwrap().unwrap();
        drop(dropped);
        let other: Vec<Bytes> = stream().try_collect().await.unwrap();
        assert!(other.concat() == content);
        let rest: Vec<Bytes> = waits.try_collect().await.unwrap();
        assert!([begun.to_vec(), rest.concat()].concat() == content);
    }

    #[tokio::test]
    async fn one_that_cannot_be_read_ends_alone_and_says_why() {
        let (file, content) = file(500_000);
        let reader = SegmentReader::start();
        let progress = Arc::new(Progress::default());
        let longer = reader
            .clone()
            .stream(span(&file, 0, 600_000), Arc::clone(&progress), false);
        let other = reader.stream(span(&file, 0, 500_000), Arc::default(), true);
        let (longer, other) = tokio::join!(
            longer.try_collect::<Vec<Bytes>>(),
            other.try_collect::<Vec<Bytes>>()
        );
        assert!(longer.is_err());
        let failure = progress.take_failure().unwrap();
        assert!(failure.message().contains("became shorter"), "{failure}");
        assert!(other.unwrap().concat() == content);
    }
}
