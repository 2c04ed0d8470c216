//! Writes segments of a disk: what images hold, zeros elsewhere, and overlays on top of both.

use super::feed::Feeds;
use super::manifest::{Manifest, Range, holds};
use super::plan::Overlay;
use super::read::read_range;
use super::{Guard, Lun, OnProgress, Progress};
use crate::clock;
use crate::error::{Error, Kind, Result};
use crate::image::source::{ImageSource, PIECE_BYTES, Piece, is_zero};
use crate::keyed_hash::HashKey;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use std::pin::pin;
use std::sync::Arc;

/// Zeros within a piece are told apart by this much: QEMU's usual cluster.
const GRANULE: usize = 64 << 10;
/// Longest run of zeros that is one call, so that guard and progress are asked.
const ZERO_RUN: u64 = 32 << 20;
/// Runs of zeros under way at once beside the writes of data, where the disk zeroes by itself:
/// data that waited for them would leave the line idle.
const ZERO_DEPTH: usize = 4;
/// A resumed write looks at the disk until this many pieces in a row are not what they should be:
/// as many as may be under way when a host dies.
const RESUME_MISSES: u64 = 8 + ZERO_DEPTH as u64 * ZERO_RUN / PIECE_BYTES;

/// How to write.
#[derive(Clone)]
pub struct WriteOptions {
    /// Bytes of one write.
    pub transfer_bytes: usize,
    /// Writes under way at once.
    pub queue_depth: usize,
    /// Bytes after which the disk begins to write its cache out, beside the writes. The flush at
    /// the end has little left to do then, and keeps its deadline however large the image.
    pub flush_bytes: u64,
    /// The disk holds zeros only, so none are written. Verifying still reads them.
    pub disk_is_zero: bool,
    /// An earlier attempt may have written a part: pieces that are there already stay.
    pub resume: bool,
    /// Readers that writes of the same image share.
    pub feeds: Feeds,
    /// Hears of progress.
    pub progress: OnProgress,
    /// Asked before every write.
    pub guard: Guard,
}

impl std::fmt::Debug for WriteOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WriteOptions")
            .field("transfer_bytes", &self.transfer_bytes)
            .field("queue_depth", &self.queue_depth)
            .finish_non_exhaustive()
    }
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self {
            transfer_bytes: 1 << 20,
            queue_depth: 4,
            flush_bytes: 256 << 20,
            disk_is_zero: false,
            resume: false,
            feeds: Feeds::default(),
            progress: Arc::new(|_| {}),
            guard: Guard::default(),
        }
    }
}

/// What was written.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Written {
    /// Size of the image.
    pub image_bytes: u64,
    /// Bytes sent.
    pub data_bytes: u64,
    /// Bytes that are zero now.
    pub zero_bytes: u64,
    /// Bytes that an earlier attempt had written and that were found in place.
    pub resumed_bytes: u64,
    /// Time from the first read of the image to the end of the flush.
    pub seconds: f64,
    /// What [`super::verify`] checks the disk against.
    pub manifest: Manifest,
}

/// A part of the disk that is written; begins at a whole block.
#[derive(Debug)]
pub(super) struct Segment {
    /// First byte.
    pub(super) offset: u64,
    /// Length; of an image, the room for it.
    pub(super) bytes: u64,
    /// What it gets; `None` for zeros.
    pub(super) image: Option<Arc<ImageSource>>,
}

impl Segment {
    pub(super) fn zeros(offset: u64, bytes: u64) -> Self {
        Self {
            offset,
            bytes,
            image: None,
        }
    }
}

/// Writes segments in the order of the disk and flushes. A segment of zeros that begins within the
/// image before it gives way. Memory in flight is a few pieces, whatever the sizes.
pub(super) async fn write_segments(
    lun: &dyn Lun,
    segments: Vec<Segment>,
    overlays: &[Overlay],
    options: &WriteOptions,
) -> Result<Written> {
    let began = clock::instant();
    let total_bytes = segments.iter().map(Segment::expected).sum();
    let mut writer = Writer {
        lun,
        overlays,
        options,
        writes: FuturesUnordered::new(),
        zeroing: FuturesUnordered::new(),
        flushing: FuturesUnordered::new(),
        unflushed: 0,
        zeros: (0, 0),
        misses: if options.resume { 0 } else { RESUME_MISSES },
        overlaid: 0,
        progress: Progress {
            done_bytes: 0,
            total_bytes,
        },
        written: Written::default(),
    };
    let mut end = 0;
    for segment in segments {
        end = match &segment.image {
            Some(image) => writer.image(&segment, image).await?,
            None => {
                let start = segment.offset.max(end);
                let stop = (segment.offset + segment.bytes).max(start);
                writer.zero_segment(start, stop).await?;
                stop
            }
        };
    }
    let mut written = writer.finish().await?;
    written.seconds = began.elapsed().as_secs_f64();
    Ok(written)
}

impl Segment {
    fn expected(&self) -> u64 {
        let size = self
            .image
            .as_ref()
            .and_then(|image| image.info().virtual_bytes);
        size.unwrap_or(self.bytes)
    }
}

struct Writer<'a> {
    lun: &'a dyn Lun,
    overlays: &'a [Overlay],
    options: &'a WriteOptions,
    writes: FuturesUnordered<BoxFuture<'a, Result<()>>>,
    zeroing: FuturesUnordered<BoxFuture<'a, Result<()>>>,
    /// At most one.
    flushing: FuturesUnordered<BoxFuture<'a, Result<()>>>,
    /// Bytes written since it began.
    unflushed: u64,
    /// Zeros that were not told to the disk yet: offset and length.
    zeros: (u64, u64),
    /// Pieces in a row that a resumed write found missing.
    misses: u64,
    /// Bytes of overlays that found their place.
    overlaid: usize,
    progress: Progress,
    written: Written,
}

impl<'a> Writer<'a> {
    fn block(&self) -> u64 {
        u64::from(self.lun.block_bytes())
    }

    /// Returns where the image ended on the disk.
    async fn image(&mut self, segment: &Segment, image: &Arc<ImageSource>) -> Result<u64> {
        let mut feed = self.options.feeds.subscribe(image);
        // The last image of a disk is the one it is for.
        self.written.image_bytes = 0;
        let mut range = Range {
            offset: segment.offset,
            bytes: 0,
            pieces: Vec::new(),
        };
        while let Some((index, piece)) = feed.next().await? {
            self.written.image_bytes += piece.length;
            let piece = padded(piece, self.block());
            let end = piece.offset + piece.length;
            if end > segment.bytes {
                return Err(too_large(image.info().virtual_bytes, segment.bytes));
            }
            range.bytes = range.bytes.max(end);
            if range.pieces.len() <= index {
                range.pieces.resize(index + 1, String::new());
            }
            let offset = segment.offset + piece.offset;
            let hash = self.piece(offset, piece).await?;
            if let Some(place) = range.pieces.get_mut(index) {
                *place = hash;
            }
        }
        let end = range.offset + range.bytes;
        self.written.manifest.ranges.push(range);
        Ok(end)
    }

    async fn zero_segment(&mut self, start: u64, stop: u64) -> Result<()> {
        let mut range = Range {
            offset: start,
            bytes: stop - start,
            pieces: Vec::new(),
        };
        let mut at = start;
        while at < stop {
            let length = (stop - at).min(PIECE_BYTES);
            let zeros = Piece::new(0, length, None);
            range.pieces.push(self.piece(at, zeros).await?);
            at += length;
        }
        if range.bytes > 0 {
            self.written.manifest.ranges.push(range);
        }
        Ok(())
    }

    /// Writes a piece with its overlays at `offset` of the disk and returns its hash.
    async fn piece(&mut self, offset: u64, piece: Piece) -> Result<String> {
        let piece = self.overlay(offset, piece);
        if self.is_there(offset, piece.length, &piece.hash).await? {
            self.written.resumed_bytes += piece.length;
        } else if let Some(data) = &piece.data {
            self.data(offset, data).await?;
        } else {
            self.zero(offset, piece.length).await?;
        }
        self.progress.done_bytes += piece.length;
        (self.options.progress)(self.progress);
        Ok(piece.hash)
    }

    fn overlay(&mut self, offset: u64, piece: Piece) -> Piece {
        let length = usize::try_from(piece.length).unwrap_or(usize::MAX);
        let mut changed: Option<Vec<u8>> = None;
        for overlay in self.overlays {
            let Some((to, from)) = shared(offset, length, overlay) else {
                continue;
            };
            let base = || match &piece.data {
                Some(data) => data.to_vec(),
                None => vec![0; length],
            };
            let (bytes, buffer) = (overlay.bytes.get(from), changed.get_or_insert_with(base));
            if let (Some(bytes), Some(place)) = (bytes, buffer.get_mut(to)) {
                place.copy_from_slice(bytes);
                self.overlaid += bytes.len();
            }
        }
        match changed {
            None => piece,
            Some(buffer) => Piece::new(piece.offset, piece.length, Some(buffer.into())),
        }
    }

    /// Whether a resumed write finds a piece in place.
    async fn is_there(&mut self, offset: u64, length: u64, hash: &str) -> Result<bool> {
        if self.misses >= RESUME_MISSES {
            return Ok(false);
        }
        (self.options.guard.0)()?;
        let reading = read_range(self.lun, offset, length, self.options);
        let bytes = self.beside(reading).await?;
        let wanted = hash.to_owned();
        let found =
            tokio::task::spawn_blocking(move || holds(HashKey::of_this_process(), &wanted, &bytes))
                .await
                .map_err(|e| Error::new(Kind::Internal, "hashing ended").caused_by(&e))?;
        self.misses = if found { 0 } else { self.misses + 1 };
        Ok(found)
    }

    async fn data(&mut self, offset: u64, data: &Bytes) -> Result<()> {
        if !self.lun.zeroes_are_cheap() && !self.options.disk_is_zero {
            return self.put(offset, data.clone()).await;
        }
        let mut at = 0;
        while at < data.len() {
            let (end, zero) = run(data, at);
            let place = offset + u64::try_from(at).unwrap_or(u64::MAX);
            if zero {
                let length = u64::try_from(end - at).unwrap_or(u64::MAX);
                self.zero(place, length).await?;
            } else {
                self.put(place, data.slice(at..end)).await?;
            }
            at = end;
        }
        Ok(())
    }

    async fn put(&mut self, offset: u64, mut data: Bytes) -> Result<()> {
        self.flush_zeros().await?;
        let block = self.block();
        let step = self
            .options
            .transfer_bytes
            .next_multiple_of(usize::try_from(block).unwrap_or(1));
        let mut lba = offset / block;
        while !data.is_empty() {
            self.make_room(Self::is_full).await?;
            let chunk = data.split_to(step.min(data.len()));
            let length = u64::try_from(chunk.len()).unwrap_or(0);
            self.written.data_bytes += length;
            self.push(self.lun.write(lba, chunk), length);
            lba += length / block;
        }
        Ok(())
    }

    /// Remembers zeros, so that those side by side become one command.
    async fn zero(&mut self, offset: u64, length: u64) -> Result<()> {
        let (start, known) = self.zeros;
        if known > 0 && start + known == offset && known + length <= ZERO_RUN {
            self.zeros = (start, known + length);
            return Ok(());
        }
        self.flush_zeros().await?;
        self.zeros = (offset, length);
        Ok(())
    }

    async fn flush_zeros(&mut self) -> Result<()> {
        let (offset, length) = std::mem::take(&mut self.zeros);
        self.written.zero_bytes += length;
        if length == 0 || self.options.disk_is_zero {
            return Ok(());
        }
        let (lun, block) = (self.lun, self.block());
        let zeroing = lun.write_zeroes(offset / block, length / block);
        if lun.zeroes_are_cheap() {
            self.make_room(|writer| writer.zeroing.len() >= ZERO_DEPTH)
                .await?;
            self.zeroing.push(zeroing);
        } else {
            self.make_room(Self::is_full).await?;
            self.push(zeroing, length);
        }
        Ok(())
    }

    fn push(&mut self, write: BoxFuture<'a, Result<()>>, length: u64) {
        self.writes.push(write);
        self.unflushed += length;
        if self.unflushed >= self.options.flush_bytes && self.flushing.is_empty() {
            self.unflushed = 0;
            self.flushing.push(self.lun.flush());
        }
    }

    fn is_full(&self) -> bool {
        self.writes.len() >= self.options.queue_depth
    }

    fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.zeroing.is_empty() && self.flushing.is_empty()
    }

    /// Waits for a place, and asks the guard.
    async fn make_room(&mut self, is_full: fn(&Self) -> bool) -> Result<()> {
        while is_full(self) {
            self.one_ends().await?;
        }
        (self.options.guard.0)()
    }

    /// Goes on with what is under way meanwhile. A session hands out what may be in flight in the
    /// order of asking, so a read would wait for ever for writes that nobody drives.
    async fn beside<T>(&mut self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                done = self.one_ends(), if !self.is_idle() => done?,
            }
        }
    }

    /// Waits for any that is under way.
    async fn one_ends(&mut self) -> Result<()> {
        tokio::select! {
            Some(done) = self.writes.next() => done,
            Some(done) = self.zeroing.next() => done,
            Some(done) = self.flushing.next() => done,
            else => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Written> {
        self.flush_zeros().await?;
        while !self.is_idle() {
            self.one_ends().await?;
        }
        let wanted: usize = self
            .overlays
            .iter()
            .map(|overlay| overlay.bytes.len())
            .sum();
        if self.overlaid != wanted {
            let message = "a part of the partition table found no place";
            return Err(Error::new(Kind::Internal, message));
        }
        self.lun.flush().await?;
        Ok(self.written)
    }
}

/// A disk takes whole blocks.
fn padded(piece: Piece, block: u64) -> Piece {
    let length = piece.length.next_multiple_of(block);
    if length == piece.length {
        return piece;
    }
    let data = piece.data.map(|data| {
        let mut data = data.to_vec();
        data.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        Bytes::from(data)
    });
    Piece::new(piece.offset, length, data)
}

/// Where an overlay and a piece meet: the place in the piece, the part of the overlay.
fn shared(
    offset: u64,
    length: usize,
    overlay: &Overlay,
) -> Option<(std::ops::Range<usize>, std::ops::Range<usize>)> {
    let place = |at: u64, from: u64| usize::try_from(at.saturating_sub(from)).ok();
    let to = place(overlay.offset, offset)?;
    let from = place(offset, overlay.offset)?;
    let count = length
        .checked_sub(to)?
        .min(overlay.bytes.len().checked_sub(from)?);
    (count > 0).then_some((to..to + count, from..from + count))
}

/// The run of granules that are alike from `at`: its end, and whether it is zero.
fn run(data: &[u8], at: usize) -> (usize, bool) {
    let granule = |at: usize| {
        data.get(at..data.len().min(at + GRANULE))
            .unwrap_or_default()
    };
    let zero = is_zero(granule(at));
    let mut end = data.len().min(at + GRANULE);
    while end < data.len() && is_zero(granule(end)) == zero {
        end = data.len().min(end + GRANULE);
    }
    (end, zero)
}

/// An image that does not fit where it should go.
pub(super) fn too_large(image: Option<u64>, room: u64) -> Error {
    let message = match image {
        Some(image) => format!("the image needs {image} bytes and there are {room}"),
        None => format!("the image decompresses to more than the {room} bytes there are"),
    };
    let error = Error::new(Kind::Limit, message).detail("room_bytes", room);
    let error = match image {
        Some(image) => error.detail("image_bytes", image),
        None => error,
    };
    error.hint("use a smaller image, or a larger disk or root_gb")
}

#[cfg(test)]
mod tests;
