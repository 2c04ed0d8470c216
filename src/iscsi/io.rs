//! The only socket: moves PDUs between a TCP connection and whoever drives a core.

use super::proto;
use super::proto::framing::{Decoder, SendQueue};
use super::proto::negotiate::Params;
use super::proto::pdu::{BHS_LEN, Pdu};
use super::rooms::Rooms;
use bytes::{Buf, BufMut, BytesMut};
use std::io;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A driver stops filling the send queue above this.
const HIGH_WATER: usize = 512 * 1024;

/// The driver is told to refill the send queue below this.
const LOW_WATER: usize = 256 * 1024;

/// What a read may bring beyond the PDU that is awaited.
const READ_AHEAD: usize = 16 * 1024;

/// A data segment from this length on is read to aligned memory, and with the next header at most:
/// what came beyond would have to be moved.
const LARGE_SEGMENT: usize = 64 * 1024;

/// MaxRecvDataSegmentLength until the login has negotiated one.
const LOGIN_SEGMENT: u32 = 8192;

/// A connection and the bytes on their way in and out.
#[derive(Debug)]
pub(super) struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    incoming: BytesMut,
    rooms: Rooms,
    outgoing: SendQueue,
    bytes_sent: u64,
}

/// What came of a [`Connection::turn`].
#[derive(Debug)]
pub(super) enum Turn {
    /// A PDU came in.
    Received(Pdu),
    /// There is room in the send queue.
    Sent,
}

/// Why a connection is over.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The peer closed it.
    #[error("closed by the peer")]
    Closed,
    /// The network broke it.
    #[error("{0}")]
    Io(io::Error),
    /// What came in is no PDU.
    #[error("{0}")]
    Protocol(proto::Error),
}

impl Connection {
    /// Connects to `host:port`.
    pub(super) async fn connect(portal: &str) -> io::Result<Self> {
        Self::new(TcpStream::connect(portal).await?)
    }

    /// Takes over an accepted stream.
    pub(super) fn new(stream: TcpStream) -> io::Result<Self> {
        // Every PDU is written whole, so there is nothing to wait for.
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            decoder: Decoder::new(LOGIN_SEGMENT),
            incoming: BytesMut::new(),
            rooms: Rooms::default(),
            outgoing: SendQueue::new(),
            bytes_sent: 0,
        })
    }

    /// Switches to what the login negotiated.
    pub(super) fn set_params(&mut self, params: &Params) {
        let length = params.max_recv_data_segment;
        self.decoder.set_params(params.digests, length);
        self.outgoing.set_digests(params.digests);
    }

    /// Tells the peer that nothing more comes, if it can still be told.
    pub(super) async fn close(&mut self) {
        self.stream.shutdown().await.ok();
    }

    /// Appends a PDU to the send queue; [`Self::turn`] sends it.
    pub(super) fn queue(&mut self, pdu: Pdu) {
        self.outgoing.push(pdu);
    }

    /// Whether the send queue is full enough for now.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.remaining() >= HIGH_WATER
    }

    /// Whether everything was handed to the kernel.
    pub(super) fn is_flushed(&self) -> bool {
        !self.outgoing.has_remaining()
    }

    /// Bytes handed to the kernel since the last call, headers and digests included.
    pub(super) fn take_bytes_sent(&mut self) -> u64 {
        std::mem::take(&mut self.bytes_sent)
    }

    /// Sends and receives until a PDU is in or the send queue runs low. Cancel safe.
    pub(super) async fn turn(&mut self) -> Result<Turn, Broken> {
        loop {
            let decoded = self.decoder.decode(&mut self.incoming);
            if let Some(pdu) = decoded.map_err(|error| Broken::Protocol(error.into()))? {
                return Ok(Turn::Received(pdu));
            }
            let missing = self.decoder.missing();
            let is_large = self.incoming.len() + missing >= LARGE_SEGMENT;
            let most = missing + if is_large { BHS_LEN } else { READ_AHEAD };
            self.rooms.make(&mut self.incoming, most, is_large);
            let mut room = (&mut self.incoming).limit(most);
            let (mut reader, mut writer) = self.stream.split();
            tokio::select! {
                read = reader.read_buf(&mut room) => {
                    if read.map_err(Broken::Io)? == 0 {
                        return Err(Broken::Closed);
                    }
                }
                written = writer.write_buf(&mut self.outgoing),
                    if self.outgoing.has_remaining() => {
                    let written = written.map_err(Broken::Io)?;
                    self.bytes_sent += written as u64;
                    if self.outgoing.remaining() < LOW_WATER {
                        return Ok(Turn::Sent);
                    }
                }
            }
        }
    }

    /// Sends a PDU and waits for the next one from the peer: the rhythm of a login.
    pub(super) async fn exchange(&mut self, pdu: Pdu) -> Result<Pdu, Broken> {
        self.queue(pdu);
        self.receive().await
    }

    /// Waits for the next PDU.
    pub(super) async fn receive(&mut self) -> Result<Pdu, Broken> {
        loop {
            if let Turn::Received(pdu) = self.turn().await? {
                return Ok(pdu);
            }
        }
    }

    /// Sends a last PDU, and tells the peer that nothing follows.
    pub(super) async fn send_last(&mut self, pdu: Pdu) -> io::Result<()> {
        self.queue(pdu);
        while self.outgoing.has_remaining() {
            self.stream.write_buf(&mut self.outgoing).await?;
        }
        self.stream.shutdown().await
    }

    /// The address of the other end.
    pub(super) fn peer_address(&self) -> io::Result<SocketAddr> {
        self.stream.peer_addr()
    }

    /// The address of this end.
    pub(super) fn local_address(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }
}
