//! MD5 of several streams at once (RFC 1321), a stream in each lane of the processor's vectors.
//!
//! One stream cannot be hashed faster than its steps, each of which needs the one before, follow
//! one another: 0.65 GB/s. Eight beside each other take hardly longer than one with AVX2.

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x32, u32x8};

/// Streams that are hashed at the same time.
pub(super) const LANES: usize = 8;

/// Bytes that are hashed together.
pub(super) const BLOCK: usize = 64;
type Block = [u8; BLOCK];

/// `floor(2^32 × |sin(i + 1)|)`, RFC 1321, 3.4.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
    0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
    0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
    0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
    0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
    0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
    0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
    0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
];

/// The MD5 of a stream as far as it is hashed.
#[derive(Debug)]
pub(super) struct Md5Lane {
    state: [u32; 4],
    bytes: u64,
}

impl Md5Lane {
    pub(super) fn new() -> Self {
        Self {
            state: [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476],
            bytes: 0,
        }
    }

    /// The MD5 of all, whose last bytes are these.
    pub(super) fn finish(mut self, rest: &[u8]) -> [u8; 16] {
        let bytes = self.bytes.wrapping_add(rest.len() as u64);
        let mut end = rest.to_vec();
        end.push(0x80);
        let padded = (end.len() + size_of::<u64>()).next_multiple_of(BLOCK);
        end.resize(padded - size_of::<u64>(), 0);
        end.extend(bytes.wrapping_mul(8).to_le_bytes());
        md5::block_api::compress(&mut self.state, end.as_chunks().0);
        let mut md5 = [0; 16];
        for (bytes, word) in md5.as_chunks_mut().0.iter_mut().zip(self.state) {
            *bytes = word.to_le_bytes();
        }
        md5
    }
}

/// Hashes what comes next in each stream, side by side while several have something left. What
/// remains of each piece is less than a block: it begins the next piece, or is the end.
pub(super) fn update<'a>(pieces: impl IntoIterator<Item = (&'a mut Md5Lane, &'a [u8])>) {
    let mut pieces: Vec<_> = pieces
        .into_iter()
        .map(|(lane, piece)| {
            let (blocks, _) = piece.as_chunks::<BLOCK>();
            lane.bytes = lane.bytes.wrapping_add(blocks.as_flattened().len() as u64);
            (lane, blocks)
        })
        .collect();
    loop {
        pieces.retain(|(_, blocks)| !blocks.is_empty());
        match &mut pieces[..] {
            [] => return,
            [(lane, blocks)] => md5::block_api::compress(&mut lane.state, std::mem::take(blocks)),
            several => side_by_side(several),
        }
    }
}

/// Hashes as many blocks as the shortest of the first pieces has.
fn side_by_side(pieces: &mut [(&mut Md5Lane, &[Block])]) {
    let count = pieces.iter().take(LANES).map(|(_, blocks)| blocks.len());
    let count = count.min().unwrap_or_default();
    let mut states = [[0; 4]; LANES];
    let mut data: [&[Block]; LANES] = [&[]; LANES];
    // Lanes that are left over hash what the first one does, for nothing.
    if let Some((_, blocks)) = pieces.first() {
        data = [blocks.split_at(count).0; LANES];
    }
    for (((lane, blocks), state), data) in pieces.iter_mut().zip(&mut states).zip(&mut data) {
        *state = lane.state;
        (*data, *blocks) = blocks.split_at(count);
    }
    dispatch!(Level::new(), simd => compress(simd, &mut states, data));
    for ((lane, _), state) in pieces.iter_mut().zip(states) {
        lane.state = state;
    }
}

/// RFC 1321, 3.4, for all lanes; `data` is of the same length in all.
#[inline(always)]
#[expect(
    clippy::many_single_char_names,
    clippy::indexing_slicing,
    reason = "the names of the RFC; sixteen words in a block, four times as many sines"
)]
fn compress<S: Simd>(simd: S, states: &mut [[u32; 4]; LANES], data: [&[Block]; LANES]) {
    let state = |word: usize| u32x8::simd_from(simd, states.map(|state| state[word]));
    let (mut a, mut b, mut c, mut d) = (state(0), state(1), state(2), state(3));
    let mut lanes = data.map(<[Block]>::iter);
    while let Some(blocks) = next_blocks(&mut lanes) {
        let words = words(simd, blocks);
        let x = |i: usize| words[i % 16];
        let (a0, b0, c0, d0) = (a, b, c, d);
        for i in [0, 4, 8, 12] {
            a = step(a, b, (b & c) | (!b & d), x(i), SINES[i], 7);
            d = step(d, a, (a & b) | (!a & c), x(i + 1), SINES[i + 1], 12);
            c = step(c, d, (d & a) | (!d & b), x(i + 2), SINES[i + 2], 17);
            b = step(b, c, (c & d) | (!c & a), x(i + 3), SINES[i + 3], 22);
        }
        for i in [0, 4, 8, 12] {
            // The sum of what has no bit in common: one step less to wait for than `|`.
            a = step(a, b, (b & d) + (c & !d), x(5 * i + 1), SINES[i + 16], 5);
            d = step(d, a, (a & c) + (b & !c), x(5 * i + 6), SINES[i + 17], 9);
            c = step(c, d, (d & b) + (a & !b), x(5 * i + 11), SINES[i + 18], 14);
            b = step(b, c, (c & a) + (d & !a), x(5 * i + 16), SINES[i + 19], 20);
        }
        for i in [0, 4, 8, 12] {
            a = step(a, b, b ^ (c ^ d), x(3 * i + 5), SINES[i + 32], 4);
            d = step(d, a, a ^ (b ^ c), x(3 * i + 8), SINES[i + 33], 11);
            c = step(c, d, d ^ (a ^ b), x(3 * i + 11), SINES[i + 34], 16);
            b = step(b, c, c ^ (d ^ a), x(3 * i + 14), SINES[i + 35], 23);
        }
        for i in [0, 4, 8, 12] {
            a = step(a, b, c ^ (b | !d), x(7 * i), SINES[i + 48], 6);
            d = step(d, a, b ^ (a | !c), x(7 * i + 7), SINES[i + 49], 10);
            c = step(c, d, a ^ (d | !b), x(7 * i + 14), SINES[i + 50], 15);
            b = step(b, c, d ^ (c | !a), x(7 * i + 21), SINES[i + 51], 21);
        }
        (a, b, c, d) = (a + a0, b + b0, c + c0, d + d0);
    }
    for (word, lanes) in [a, b, c, d].into_iter().enumerate() {
        let lanes: [u32; LANES] = lanes.into();
        for (state, lane) in states.iter_mut().zip(lanes) {
            state[word] = lane;
        }
    }
}

/// `b + ((a + mixed + word + sine) <<< turn)`
#[inline(always)]
fn step<S: Simd>(
    a: u32x8<S>,
    b: u32x8<S>,
    mixed: u32x8<S>,
    word: u32x8<S>,
    sine: u32,
    turn: u32,
) -> u32x8<S> {
    // What is known early is added first.
    let sum = word + sine + a + mixed;
    b + ((sum << turn) | (sum >> (32 - turn)))
}

/// The next block of each lane.
#[inline(always)]
fn next_blocks<'a>(lanes: &mut [std::slice::Iter<'a, Block>; LANES]) -> Option<[&'a Block; LANES]> {
    let [a, b, c, d, e, f, g, h] = lanes;
    Some([
        a.next()?,
        b.next()?,
        c.next()?,
        d.next()?,
        e.next()?,
        f.next()?,
        g.next()?,
        h.next()?,
    ])
}

/// The first word of each block, the second, and so on. Spelled out: what is a closure here becomes
/// a call for each row, without the vectors, and takes as long as the hashing.
#[inline(always)]
fn words<S: Simd>(simd: S, blocks: [&Block; LANES]) -> [u32x8<S>; 16] {
    let [a, b, c, d, e, f, g, h] = columns::<S, 0>(simd, blocks);
    let [i, j, k, l, m, n, o, p] = columns::<S, 1>(simd, blocks);
    [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
}

/// The words of a half of each block.
#[inline(always)]
fn columns<S: Simd, const HALF: usize>(
    simd: S,
    [a, b, c, d, e, f, g, h]: [&Block; LANES],
) -> [u32x8<S>; 8] {
    let (a, b) = (row::<S, HALF>(simd, a), row::<S, HALF>(simd, b));
    let (c, d) = (row::<S, HALF>(simd, c), row::<S, HALF>(simd, d));
    let (e, f) = (row::<S, HALF>(simd, e), row::<S, HALF>(simd, f));
    let (g, h) = (row::<S, HALF>(simd, g), row::<S, HALF>(simd, h));
    shuffled(shuffled(shuffled([a, b, c, d, e, f, g, h])))
}

/// MD5's words are little-endian, and so is every processor that this is built for.
const _: () = assert!(cfg!(target_endian = "little"));

/// A half of a block.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "a block has two halves")]
fn row<S: Simd, const HALF: usize>(simd: S, block: &Block) -> u32x8<S> {
    let (halves, _) = block.as_chunks();
    u8x32::simd_from(simd, halves[HALF]).bitcast()
}

/// One deck of the two halves, card by card: three times makes columns of rows.
#[inline(always)]
fn shuffled<S: Simd>([a, b, c, d, e, f, g, h]: [u32x8<S>; 8]) -> [u32x8<S>; 8] {
    let (ae, bf, cg, dh) = (
        a.interleave(e),
        b.interleave(f),
        c.interleave(g),
        d.interleave(h),
    );
    [ae.0, ae.1, bf.0, bf.1, cg.0, cg.1, dh.0, dh.1]
}

#[cfg(test)]
mod tests {
    use super::*;
    use md5::{Digest, Md5};
    use proptest::prelude::*;

    fn hashed(streams: &[Vec<&[u8]>]) -> Vec<String> {
        let mut lanes: Vec<_> = streams.iter().map(|_| Md5Lane::new()).collect();
        let most = streams.iter().map(Vec::len).max().unwrap_or_default();
        for round in 0..most {
            let pieces = lanes.iter_mut().zip(streams);
            update(pieces.filter_map(|(lane, pieces)| Some((lane, *pieces.get(round)?))));
        }
        let rest = |pieces: &Vec<&'_ [u8]>| match pieces.last() {
            Some(last) => last.as_chunks::<BLOCK>().1.to_vec(),
            None => Vec::new(),
        };
        let ends = lanes.into_iter().zip(streams);
        ends.map(|(lane, pieces)| hex::encode(lane.finish(&rest(pieces))))
            .collect()
    }

    /// RFC 1321, A.5.
    #[test]
    fn hashes_as_the_rfc_says() {
        let digits = "1234567890".repeat(8);
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let suite = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (&letters[26..52], "c3fcd3d76192e4007dfb496cca67e13b"),
            (letters, "d174ab98d277d9f5a5611c2c9f419d9f"),
            (&digits, "57edf4a22be3c955ac49da2e2107b67a"),
        ];
        // Each twice: two whole blocks are what the vectors have a say in.
        let (texts, sums): (Vec<_>, Vec<_>) = suite.iter().chain(&suite).copied().unzip();
        let streams: Vec<_> = texts.iter().map(|text| vec![text.as_bytes()]).collect();
        assert_eq!(hashed(&streams), sums);
    }

    proptest! {
        #[test]
        fn hashes_lanes_of_any_length_as_one_by_one(
            lengths in prop::collection::vec((0..5_usize, 0..700_usize), 0..20),
            seed in any::<u8>(),
        ) {
            let noise = |n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed;
            let bytes: Vec<u8> = (0..8192).map(noise).collect();
            // Whole blocks, and an end of any length.
            let streams: Vec<Vec<&[u8]>> = lengths
                .iter()
                .enumerate()
                .map(|(lane, (blocks, end))| {
                    let (whole, rest) = bytes[lane * 64..].split_at(blocks * BLOCK);
                    vec![whole, &rest[..*end]]
                })
                .collect();
            let one_by_one = streams.iter().map(|pieces| Md5::digest(pieces.concat()));
            let expected: Vec<_> = one_by_one.map(hex::encode).collect();
            prop_assert_eq!(hashed(&streams), expected);
        }
    }
}
