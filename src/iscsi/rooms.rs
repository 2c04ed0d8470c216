//! Memory that data comes in, used again and again.
//!
//! What a peer sends stays where the kernel put it, so its memory is in use until the last command
//! with data in it has ended. Fresh memory for each would cost a page fault for every 4 KiB.

use bytes::{Buf, BytesMut};
use std::collections::VecDeque;

/// Data that begins at a multiple of it can go to a disk past the page cache.
const ALIGNMENT: usize = 4096;

/// What a buffer's length is a multiple of: others are of use later, too.
const STEP: usize = 64 * 1024;

/// Buffers that are kept when they are full; more of them are in use only with many commands open.
const KEPT: usize = 40;

/// Buffers that were filled. Each is free again when all that was split off it is gone.
#[derive(Debug, Default)]
pub(super) struct Rooms {
    filled: VecDeque<BytesMut>,
}

impl Rooms {
    /// Makes room in `buffer` for `more` bytes behind those that it holds. If they are to be
    /// aligned, its first one then lies at a multiple of [`ALIGNMENT`].
    pub(super) fn make(&mut self, buffer: &mut BytesMut, more: usize, is_to_be_aligned: bool) {
        let has_room = buffer.capacity() - buffer.len() >= more;
        if has_room && (!is_to_be_aligned || misses(buffer) == 0) {
            return;
        }
        let mut room = self.take((buffer.len() + more + ALIGNMENT).next_multiple_of(STEP));
        let skipped = misses(&room);
        room.resize(skipped, 0);
        room.advance(skipped);
        room.extend_from_slice(buffer);
        let mut filled = std::mem::replace(buffer, room);
        filled.clear();
        if self.filled.len() == KEPT {
            self.filled.pop_front();
        }
        self.filled.push_back(filled);
    }

    /// A buffer with this capacity: one that is free again, else a new one.
    fn take(&mut self, capacity: usize) -> BytesMut {
        let mut rooms = self.filled.iter_mut();
        let free = rooms.position(|room| room.try_reclaim(capacity));
        let free = free.and_then(|at| self.filled.remove(at));
        free.unwrap_or_else(|| BytesMut::with_capacity(capacity))
    }
}

/// By how many bytes a buffer begins before a multiple of [`ALIGNMENT`].
fn misses(buffer: &BytesMut) -> usize {
    let missing = buffer.as_ptr().align_offset(ALIGNMENT);
    // Without an answer it is only slower.
    missing.min(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_aligned_keeps_what_came_and_is_used_again_when_it_is_free() {
        let mut rooms = Rooms::default();
        let mut buffer = BytesMut::from("came");
        let mut places = Vec::new();
        for _ in 0..2 {
            let mut data = Vec::new();
            for _ in 0..3 {
                rooms.make(&mut buffer, 60_000, true);
                assert_eq!((misses(&buffer), &buffer[..]), (0, &b"came"[..]));
                let place = buffer.as_ptr();
                buffer.resize(60_000, 7);
                rooms.make(&mut buffer, 4, true);
                assert_eq!(buffer.as_ptr(), place, "there was room");
                data.push(buffer.split_to(59_999).freeze());
                buffer.clear();
                buffer.extend_from_slice(b"came");
                places.push(place);
            }
        }
        let (first, again) = places.split_at(3);
        assert_eq!(first, again);
        rooms.make(&mut buffer, 10, false);
        assert_eq!(&buffer[..], b"came");
    }
}
