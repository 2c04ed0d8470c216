//! PDUs to bytes and back: lengths, padding, digests.

use super::digest::{Digests, crc32c};
use super::error::InvalidPdu;
use super::pdu::{BHS_LEN, Bhs, Header, Pdu};
use bytes::{Buf, Bytes, BytesMut};
use std::collections::VecDeque;
use std::io::IoSlice;

/// Turns received bytes into PDUs.
#[derive(Debug)]
pub struct Decoder {
    digests: Digests,
    max_data_segment: u32,
    /// The header of the PDU whose data segment is awaited, with its length.
    header: Option<(Header, usize)>,
    missing: usize,
}

impl Decoder {
    /// A decoder for a connection without digests that takes data segments up to this length.
    #[must_use]
    pub fn new(max_data_segment: u32) -> Self {
        Self {
            digests: Digests::default(),
            max_data_segment,
            header: None,
            missing: BHS_LEN,
        }
    }

    /// Switches to what the login negotiated.
    pub fn set_params(&mut self, digests: Digests, max_data_segment: u32) {
        self.digests = digests;
        self.max_data_segment = max_data_segment;
    }

    /// How many more bytes the last call of [`Self::decode`] lacked.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// Takes the next PDU off `buffer`, or `None` if it is not whole. The data segment stays in
    /// the buffer's allocation: nothing is copied.
    ///
    /// # Errors
    /// If the bytes are no PDU; the connection cannot go on.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Pdu>, InvalidPdu> {
        let (header, length) = match self.header.take() {
            Some(waiting) => waiting,
            None => match self.decode_header(buffer)? {
                Some(header) => header,
                None => return Ok(None),
            },
        };
        let padded = length.next_multiple_of(4);
        // RFC 7143 section 11.7: an empty data segment has no digest.
        let digest = if self.digests.data && length > 0 {
            4
        } else {
            0
        };
        if buffer.len() < padded + digest {
            self.missing = padded + digest - buffer.len();
            self.header = Some((header, length));
            return Ok(None);
        }
        let mut data = buffer.split_to(padded);
        if digest > 0 {
            // RFC 7143 section 13.1: padding is covered by the digest.
            let wanted = crc32c(&[&data]);
            if !buffer.split_to(digest).starts_with(&wanted) {
                return Err(InvalidPdu::DataDigest);
            }
        }
        data.truncate(length);
        let data = data.freeze();
        Ok(Some(Pdu { header, data }))
    }

    fn decode_header(
        &mut self,
        buffer: &mut BytesMut,
    ) -> Result<Option<(Header, usize)>, InvalidPdu> {
        let Some(bhs) = buffer.first_chunk::<BHS_LEN>() else {
            self.missing = BHS_LEN - buffer.len();
            return Ok(None);
        };
        // TotalAHSLength counts four-byte words. We act on none of the additional headers, which
        // only bidirectional commands and CDBs over 16 bytes use.
        let header_length = BHS_LEN + usize::from(bhs[4]) * 4;
        let length = u32::from_be_bytes([0, bhs[5], bhs[6], bhs[7]]);
        let limit = self.max_data_segment;
        let too_long = (length > limit).then_some(InvalidPdu::TooLong { length, limit });
        let digest = if self.digests.header { 4 } else { 0 };
        if let Some(too_long) = too_long
            && digest == 0
        {
            return Err(too_long);
        }
        if buffer.len() < header_length + digest {
            self.missing = header_length + digest - buffer.len();
            return Ok(None);
        }
        if digest > 0 {
            let (headers, rest) = buffer.split_at(header_length);
            if !rest.starts_with(&crc32c(&[headers])) {
                return Err(InvalidPdu::HeaderDigest);
            }
        }
        // Where there is a digest the length is the peer's own, and none that the network made.
        if let Some(too_long) = too_long {
            return Err(too_long);
        }
        let header = Header::decode(bhs)?;
        buffer.advance(header_length + digest);
        Ok(Some((
            header,
            usize::try_from(length).unwrap_or(usize::MAX),
        )))
    }
}

/// PDUs on their way to the socket, as a [`Buf`] for vectored writes: headers are stored here,
/// data segments stay where they are.
#[derive(Debug, Default)]
pub struct SendQueue {
    frames: VecDeque<Frame>,
    /// How much of the first frame is already written.
    written: usize,
    remaining: usize,
    digests: Digests,
}

#[derive(Debug)]
struct Frame {
    /// Header and header digest.
    head: [u8; BHS_LEN + 4],
    head_length: usize,
    data: Bytes,
    /// Padding and data digest.
    tail: [u8; 8],
    tail_length: usize,
}

impl SendQueue {
    /// An empty queue for a connection without digests.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Switches to what the login negotiated, from the next PDU on.
    pub fn set_digests(&mut self, digests: Digests) {
        self.digests = digests;
    }

    /// Appends a PDU.
    pub fn push(&mut self, pdu: Pdu) {
        let frame = Frame::new(&pdu.header, pdu.data, self.digests);
        self.remaining += frame.len();
        self.frames.push_back(frame);
    }
}

impl Frame {
    fn new(header: &Header, data: Bytes, digests: Digests) -> Self {
        let mut bhs: Bhs = header.encode();
        // Negotiated segment lengths are below 2^24, so the length's high byte, which is
        // TotalAHSLength, stays 0.
        let length = u32::try_from(data.len()).unwrap_or(u32::MAX);
        bhs[4..8].copy_from_slice(&length.to_be_bytes());

        let mut head = [0; BHS_LEN + 4];
        head[..BHS_LEN].copy_from_slice(&bhs);
        let mut head_length = BHS_LEN;
        if digests.header {
            head[BHS_LEN..].copy_from_slice(&crc32c(&[&bhs]));
            head_length += 4;
        }
        let padding = data.len().next_multiple_of(4) - data.len();
        let mut tail = [0; 8];
        let mut tail_length = padding;
        if digests.data && !data.is_empty() {
            let zeros = tail.get(..padding).unwrap_or_default();
            let digest = crc32c(&[&data, zeros]);
            let place = tail.iter_mut().skip(padding);
            place.zip(digest).for_each(|(to, from)| *to = from);
            tail_length += 4;
        }
        Self {
            head,
            head_length,
            data,
            tail,
            tail_length,
        }
    }

    fn parts(&self) -> [&[u8]; 3] {
        [
            self.head.get(..self.head_length).unwrap_or_default(),
            &self.data,
            self.tail.get(..self.tail_length).unwrap_or_default(),
        ]
    }

    fn len(&self) -> usize {
        self.head_length + self.data.len() + self.tail_length
    }
}

impl SendQueue {
    /// What is left to write, part by part; never an empty one.
    fn parts(&self) -> impl Iterator<Item = &[u8]> {
        let mut skip = self.written;
        let all = self.frames.iter().flat_map(Frame::parts);
        all.filter_map(move |part| {
            let skipped = skip.min(part.len());
            skip -= skipped;
            part.get(skipped..).filter(|rest| !rest.is_empty())
        })
    }
}

impl Buf for SendQueue {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.parts().next().unwrap_or_default()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut filled = 0;
        for (slice, part) in slices.iter_mut().zip(self.parts()) {
            *slice = IoSlice::new(part);
            filled += 1;
        }
        filled
    }

    fn advance(&mut self, count: usize) {
        self.remaining = self.remaining.saturating_sub(count);
        self.written += count;
        while let Some(first) = self.frames.front()
            && first.len() <= self.written
        {
            self.written -= first.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::iscsi::proto::pdu::{DataOut, Lun, NopOut, RESERVED_TAG};
    use proptest::prelude::*;

    const ALL: [Digests; 4] = [
        Digests {
            header: false,
            data: false,
        },
        Digests {
            header: true,
            data: false,
        },
        Digests {
            header: false,
            data: true,
        },
        Digests {
            header: true,
            data: true,
        },
    ];

    fn ping(data: &'static [u8]) -> Pdu {
        let header = NopOut {
            immediate: true,
            lun: Lun(0),
            itt: 1,
            ttt: RESERVED_TAG,
            cmd_sn: 2,
            exp_stat_sn: 3,
        };
        Pdu::new(header, Bytes::from_static(data))
    }

    fn wire(pdu: Pdu, digests: Digests) -> Vec<u8> {
        let mut queue = SendQueue::new();
        queue.set_digests(digests);
        queue.push(pdu);
        queue.copy_to_bytes(queue.remaining()).to_vec()
    }

    /// If this fails do not change the test.
    #[test]
    fn padding_and_digests_on_the_wire() {
        let bytes = wire(ping(b"hello"), ALL[3]);
        assert_eq!(bytes.len(), 48 + 4 + 8 + 4);
        assert_eq!(&bytes[4..8], [0, 0, 0, 5]);
        assert_eq!(&bytes[52..60], b"hello\0\0\0");
        assert_eq!(bytes[48..52], crc32c(&[&bytes[..48]]));
        assert_eq!(bytes[60..64], crc32c(&[b"hello\0\0\0"]));
        // Without data there is no data digest.
        assert_eq!(wire(ping(b""), ALL[3]).len(), 52);
        assert_eq!(wire(ping(b"hello"), ALL[0]).len(), 56);
    }

    #[test]
    fn flipped_bits_are_found() {
        let good = wire(ping(b"hello"), ALL[3]);
        for at in 0..good.len() {
            let mut bad = BytesMut::from(&good[..]);
            bad[at] ^= 0x10;
            let mut decoder = Decoder::new(8192);
            decoder.set_params(ALL[3], 8192);
            // A longer length field may also leave the decoder waiting for bytes.
            assert!(
                !matches!(decoder.decode(&mut bad), Ok(Some(_))),
                "byte {at}"
            );
        }
    }

    #[test]
    fn length_is_limited_before_anything_is_awaited() {
        let mut buffer = BytesMut::from(&[0u8; 48][..]);
        buffer[5] = 0x01;
        let mut decoder = Decoder::new(8192);
        let error = InvalidPdu::TooLong {
            length: 0x1_0000,
            limit: 8192,
        };
        assert_eq!(decoder.decode(&mut buffer), Err(error));
    }

    #[test]
    fn additional_headers_are_skipped() {
        let mut bytes = wire(ping(b"data"), ALL[0]);
        bytes[4] = 2;
        bytes.splice(48..48, [0xee; 8]);
        let mut decoder = Decoder::new(8192);
        let pdu = decoder
            .decode(&mut BytesMut::from(&bytes[..]))
            .unwrap()
            .unwrap();
        assert_eq!(pdu, ping(b"data"));
    }

    #[test]
    fn a_flipped_bit_of_a_header_is_a_wrong_digest() {
        let digests = Digests {
            header: true,
            data: true,
        };
        let whole = wire(ping(&[7; 4096]), digests);
        for bit in 0..48 * 8 {
            let mut bytes = BytesMut::from(&whole[..]);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::new(8192);
            decoder.set_params(digests, 8192);
            let refused = decoder.decode(&mut bytes);
            assert_eq!(refused, Err(InvalidPdu::HeaderDigest), "bit {bit}");
        }
    }

    #[test]
    fn vectored_parts_are_header_data_padding() {
        let mut queue = SendQueue::new();
        queue.push(ping(b"hello"));
        queue.push(ping(b""));
        let mut slices = [IoSlice::new(&[]); 8];
        let count = queue.chunks_vectored(&mut slices);
        let lengths: Vec<_> = slices[..count].iter().map(|slice| slice.len()).collect();
        assert_eq!(lengths, [48, 5, 3, 48]);
        queue.advance(50);
        assert_eq!(queue.chunk(), b"llo");
        queue.advance(6);
        assert_eq!(queue.remaining(), 48);
    }

    proptest! {
        #[test]
        fn round_trip_in_any_pieces(
            lengths in proptest::collection::vec(0usize..3000, 1..8),
            piece in 1usize..2000,
            digests in proptest::sample::select(ALL.to_vec()),
        ) {
            let pdus: Vec<Pdu> = lengths.iter().zip(0u32..).map(|(length, data_sn)| {
                let header = DataOut {
                    is_final: false, lun: Lun(0), itt: 1, ttt: 2, exp_stat_sn: 3, data_sn,
                    buffer_offset: 0,
                };
                Pdu::new(header, Bytes::from(vec![7; *length]))
            }).collect();
            let mut queue = SendQueue::new();
            queue.set_digests(digests);
            pdus.iter().cloned().for_each(|pdu| queue.push(pdu));
            let mut decoder = Decoder::new(4096);
            decoder.set_params(digests, 4096);
            let mut buffer = BytesMut::new();
            let mut decoded = Vec::new();
            while queue.has_remaining() {
                let part = queue.chunk();
                let taken = part.len().min(piece);
                buffer.extend_from_slice(&part[..taken]);
                queue.advance(taken);
                while let Some(pdu) = decoder.decode(&mut buffer).unwrap() {
                    decoded.push(pdu);
                }
            }
            prop_assert_eq!(decoded, pdus);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn never_panics(bytes: Vec<u8>, digests in proptest::sample::select(ALL.to_vec())) {
            let mut decoder = Decoder::new(1 << 20);
            decoder.set_params(digests, 1 << 20);
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decoder.decode(&mut buffer) {}
        }
    }
}
